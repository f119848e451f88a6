"""`verify`: a store against itself, and record by record against what it was made from."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import weakref
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import databases as db
import numpy as np
import pytest
import wfdb
from command_line import run

from ecgpipe.config import digest
from ecgpipe.datasets import icentia11k, mitdb
from ecgpipe.errors import EcgpipeError
from ecgpipe.files.atomic import sha256, write_json
from ecgpipe.labels.rhythms import CLASSES, beat_rhythms
from ecgpipe.storage import compare
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.manifest import merge
from ecgpipe.storage.parts import read_sidecar
from ecgpipe.storage.samples import CODECS, checksum, encode
from ecgpipe.storage.shards import shard
from ecgpipe.storage.sidecar import RecordRow, StoredFile
from ecgpipe.storage.store import open_store
from ecgpipe.storage.verify import verify
from ecgpipe.types import Marks


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Five patients, seven segments, one of them cut off and so refused."""
    root = db.small(tmp_path / "raw")
    db.cut("p00003_s01.dat", 7)(root)
    return root


@pytest.fixture
def archive(tmp_path: Path, raw: Path) -> Path:
    prepare("icentia11k", raw, tmp_path / "archive", 1)
    return tmp_path / "archive"


def merged_again(store: Path) -> None:
    """Make the manifest what the sidecars add up to, as the store's command would."""
    names = sorted(path.stem for path in (store / "parts").glob("*.json"))
    manifest = merge(open_store(store).recipe, (read_sidecar(store, n) for n in names))
    write_json(store / "manifest.json", manifest.plain())


def sets(folder: Path) -> dict[str, Path]:
    """A small data set of each kind."""
    for record in ("100", "101", "102", "103", "105"):
        db.mitdb(folder / "mitdb", record, samples=3000)
    for number in range(1, 8):
        db.cinc(folder / "cinc2017", number, 900 + number, "NAO~"[number % 4])
    db.cinc(folder / "cinc2017", 8, 900, None)  # refused: it has no label
    db.ptbxl(folder / "ptbxl", 1)
    db.ptbxl(folder / "ptbxl", 2, "{'IMI': 80.0}")  # excluded: it has no rhythm
    return {name: folder / name for name in ("mitdb", "cinc2017", "ptbxl")}


@pytest.mark.parametrize("name", ["mitdb", "cinc2017", "ptbxl"])
def test_what_was_made_is_all_there_is_in_the_source(tmp_path: Path, name: str) -> None:
    source = sets(tmp_path)[name]
    prepare(name, source, tmp_path / "archive", 1)
    assert verify(tmp_path / "archive", source=source) == []
    for fs in (open_store(tmp_path / "archive").records["fs"].iloc[0], 250):
        manifest = shard(tmp_path / "archive", tmp_path / f"{fs}", fs, workers=1)
        assert verify(tmp_path / f"{fs}", source=tmp_path / "archive") == []
    assert manifest.totals.excluded == (name == "ptbxl")


def test_on_the_command_line(tmp_path: Path, raw: Path, archive: Path) -> None:
    whole = run("verify", archive, "--source", raw)
    assert whole.returncode == 0, whole.stderr
    db.remove("p00001_s00.hea")(raw)
    damaged = run("verify", archive, "--source", raw)
    assert damaged.returncode == 4
    assert "p00001_s00: in the store, but cannot be used now" in damaged.stderr


def test_a_source_may_be_a_zip(tmp_path: Path, raw: Path, archive: Path) -> None:
    with zipfile.ZipFile(tmp_path / "raw.zip", "w") as packed:
        for path in sorted(raw.rglob("*.*")):
            packed.write(path, path.relative_to(raw))
        packed.writestr("LICENSE.txt", "CC BY-NC-SA 4.0")
    assert verify(archive, source=tmp_path / "raw.zip") == []


def sample(name: str, at: int) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        (file,) = root.rglob(name)
        values = np.fromfile(file, "<i2")
        values[at] += 1
        values.tofile(file)
        header = file.with_suffix(".hea")
        words = header.read_text().split(" ")
        words[-3] = str(int(values.sum(dtype=np.int64)) % 65_536)  # the checksum agrees
        header.write_text(" ".join(words))

    return damage


def lost(files: str) -> Callable[[Path], object]:
    return lambda root: [path.unlink() for path in root.rglob(files)]


def marks(move: Callable[[db.Rows], db.Rows]) -> Callable[[Path], object]:
    def damage(root: Path) -> None:
        db.annotate(root / "p00/p00001", "p00001_s00", move(db.icentia_rows(900)), 250)

    return damage


def changed(at: int, sample: int = 0, symbol: str = "", note: str = "") -> Callable[[Path], object]:
    def move(rows: db.Rows) -> db.Rows:
        old = rows[at]
        rows[at] = (old[0] + sample, symbol or old[1], note or old[2])
        return rows

    return marks(move)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (sample("p00002_s01.dat", 919), "p00002_s01: signal: not as in the source"),
        (changed(3, sample=1), "p00001_s00: beats: not as"),
        (changed(3, symbol="V"), "p00001_s00: beats: not as"),
        (marks(lambda rows: rows[:-2] + rows[-1:]), "p00001_s00: beats: not as"),
        (changed(1, sample=1), "p00001_s00: rhythms: not as"),
        (changed(1, note="(AFIB"), "p00001_s00: rhythms: not as"),
        (db.remove("p00001_s00.atr"), "p00001_s00: beats, rhythms: not as"),
        (db.replace("p00000_s02.hea", " 74.3", " 74.4"), "p00000_s02: gain: not as"),
        (db.replace("p00000_s02.hea", " 250 ", " 251 "), "p00000_s02: fs: not as"),
        (db.replace("p00000_s02.hea", "ecg", "II"), "p00000_s02: leads: not as"),
        (db.remove("p00004_s00.dat"), "p00004_s00: in the store, but cannot be used now: "),
        (lambda root: db.icentia(root, 3, 1, 930), "p00003_s01: left out (p00/p00003/p00003_s01."),
        (lost("p00003_s01.*"), "p00003_s01: left out of the store, and not in the source"),
        (lost("p00002_s01.*"), "p00002_s01: not in the source"),
        (lambda root: db.icentia(root, 4, 1, 50), "1 records of"),
        (lambda root: db.icentia(root, 6, 0, 50), "1 records of"),
    ],
)
def test_every_difference_is_found(
    raw: Path, archive: Path, damage: Callable[[Path], object], problem: str
) -> None:
    assert verify(archive, source=raw) == []
    damage(raw)
    (found,) = verify(archive, source=raw)
    assert found.startswith(problem)
    assert verify(archive) == []


def test_a_subset_is_held_to_what_was_wanted(tmp_path: Path, raw: Path) -> None:
    store = tmp_path / "subset"
    prepare("icentia11k", raw, store, 1, patients="0-2", segments=1)
    assert verify(store, source=raw, patients="0-2") == []
    (found,) = verify(store, source=raw)
    assert "2 records of" in found and "p00003_s00, p00004_s00" in found and "--patients" in found
    (found,) = verify(store, source=raw, patients="0-3")
    assert "1 records of" in found


def test_a_record_that_lies_there_twice(raw: Path, archive: Path) -> None:
    sidecar = read_sidecar(archive, "p00002").plain()
    text = json.dumps(sidecar).replace("records.zarr/p00002", "records.zarr/p00007")
    copy = {**json.loads(text), "name": "p00007"}
    write_json(archive / "parts/p00007.json", copy)
    shutil.copytree(archive / "records.zarr/p00002", archive / "records.zarr/p00007")
    merged_again(archive)
    assert verify(archive) == []
    assert verify(archive, source=raw) == ["p00002_s01: 2 times in it"]


def test_a_writer_that_loses_something_is_found_out(tmp_path: Path, raw: Path) -> None:
    """A store that agrees with itself, but was made from other files."""
    other = tmp_path / "other"
    shutil.copytree(raw, other)
    lost("p00000_s02.*")(other)
    sample("p00002_s01.dat", 3)(other)
    prepare("icentia11k", other, tmp_path / "lossy", 1)
    assert verify(tmp_path / "lossy") == []
    found = verify(tmp_path / "lossy", source=raw)
    assert [problem.split(":")[0][:10] for problem in found] == ["p00002_s01", "1 records "]


def test_sidecars_that_miscount_are_found_out(raw: Path, archive: Path) -> None:
    """Files and digests agree; what is counted does not."""
    for name in ("rhythm_samples", "beats"):
        sidecar = read_sidecar(archive, "p00001").plain()
        row = sidecar["records"][0]
        first = min(row[name])
        whole, row[name] = dict(row[name]), {**row[name], first: row[name][first] + 1}
        write_json(archive / "parts/p00001.json", sidecar)
        merged_again(archive)
        assert verify(archive, decode=False) == []
        assert verify(archive) == ["part p00001: its records are not what its sidecar says"]
        assert verify(archive, source=raw) == [f"p00001_s00: {name}: not as in the source"]
        row[name] = whole
        write_json(archive / "parts/p00001.json", sidecar)
        merged_again(archive)
    assert verify(archive, source=raw) == []


def test_totals_that_do_not_add_up_are_named(archive: Path) -> None:
    path = archive / "manifest.json"
    whole = path.read_text()
    changes: dict[str, Callable[[Any], object]] = {
        "beats": lambda totals: totals["beats"].update(V=1),
        "rhythm_samples": lambda totals: totals["rhythm_samples"].update(afib=1),
        "samples": lambda totals: totals.update(samples=1),
        "qrs": lambda totals: totals.update(qrs=1),
    }
    for name, change in changes.items():
        tree = json.loads(whole)
        change(tree["totals"])
        path.write_text(json.dumps(tree))
        (found,) = verify(archive)
        assert found.startswith(f"{path}: not what was written")
        del tree["digest"]
        write_json(path, {**tree, "digest": digest(tree)})
        (found,) = verify(archive)
        assert found.startswith(f"manifest.json: totals.{name}, digest: not what the sidecars add")
    tree = json.loads(whole)
    del tree["totals"]["qrs"]
    path.write_text(json.dumps(tree))
    assert verify(archive) == [f"{path}: totals.qrs: Field required; the file is damaged"]
    tree = json.loads(whole)
    tree["recipe"]["detector"] = "another"
    del tree["digest"]
    write_json(path, {**tree, "digest": digest(tree)})
    assert "recipe.json: not what was written; run the store's command again" in verify(archive)


@pytest.mark.parametrize("content", ['{"files": {}}', '{"files": 1, "records": 2}'])
def test_a_sidecar_that_is_none(archive: Path, content: str) -> None:
    (archive / "parts/p00001.json").write_text(content)
    (found,) = verify(archive)
    assert "parts/p00001.json: " in found and found.endswith("; the file is damaged")


def test_shards_of_another_archive(tmp_path: Path, raw: Path, archive: Path) -> None:
    shard(archive, tmp_path / "shards", 128, workers=1)
    assert verify(tmp_path / "shards", source=archive) == []
    changed(3, symbol="V")(raw)
    sample("p00002_s01.dat", 3)(raw)
    prepare("icentia11k", raw, tmp_path / "later", 1)
    found = verify(tmp_path / "shards", source=tmp_path / "later")
    assert {problem.split(":")[0] for problem in found} == {"p00001_s00", "p00002_s01"}
    for wrong in (tmp_path / "shards", raw):
        with pytest.raises(EcgpipeError, match=r"name the archive|no store of ecgpipe"):
            verify(tmp_path / "shards", source=wrong)
    with pytest.raises(EcgpipeError, match="no recordings of Icentia11k"):
        verify(archive, source=tmp_path / "later")


def test_shards_are_held_to_their_marks_and_samples(tmp_path: Path, archive: Path) -> None:
    for fs, at in ((250, 5), (128, 5)):
        store = tmp_path / f"{fs}"
        shard(archive, store, fs, workers=1)
        tar = store / "shards/p00001.tar"
        record = next(open_store(store).read_part("p00001"))
        signal = record.signal.copy()
        signal[0, at] += 1
        assert record.beats is not None
        moved = Marks.of(record.beats.index + 1, record.beats.label)
        for other in (replace(record, signal=signal), replace(record, beats=moved)):
            repack(store, tar, other)
            assert verify(store) == []
            (found,) = verify(store, source=archive)
            name = "signal" if other.signal is signal else "beats"
            assert found == f"p00001_s00: {name}: not as in the source"


def repack(store: Path, tar: Path, record: Any) -> None:
    """Another record in a shard of one, with a sidecar and a manifest that agree with it."""
    symbols = icentia11k.BEATS, icentia11k.RHYTHMS
    members = encode(record, CODECS["pcodec"], *symbols)
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as packed:
        for name, data in members.items():
            member = tarfile.TarInfo(f"{record.key}.{name}")
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    sidecar = replace(
        read_sidecar(store, tar.stem),
        records=[replace(RecordRow.of(record, *symbols), checksum=checksum(members))],
        files={f"shards/{tar.name}": StoredFile(tar.stat().st_size, sha256(tar))},
    )
    write_json(store / f"parts/{tar.stem}.json", sidecar.plain())
    merged_again(store)


def test_it_holds_a_record_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "raw"
    for segment in range(20):
        db.icentia(root, 1, segment, 500, db.icentia_rows(500))
    prepare("icentia11k", root, tmp_path / "archive", 1)
    alive: set[int] = set()
    most = 0
    read = compare.read_entry

    def watched(*arguments: Any) -> Any:
        nonlocal most
        record = read(*arguments)
        weakref.finalize(record, alive.discard, id(record))
        alive.add(id(record))
        most = max(most, len(alive))
        return record

    monkeypatch.setattr(compare, "read_entry", watched)
    assert verify(tmp_path / "archive", source=root) == []
    assert 1 <= most <= 3


def rhythm_samples(path: Path, symbols: tuple[str, ...], samples: int) -> Counter[str]:
    """Of a real record, straight from `wfdb`: how long each rhythm lasts, beat by beat."""
    found = wfdb.rdann(str(path), "atr")
    notes = [note.rstrip("\0") for note in found.aux_note]
    at_note = [i for i, s in enumerate(found.symbol) if s == "+" and notes[i] in symbols]
    at_beat = [i for i, s in enumerate(found.symbol) if s in mitdb.BEATS]
    beats = found.sample[at_beat]
    rhythms = Marks.of(found.sample[at_note], [symbols.index(notes[i]) for i in at_note])
    classes = [CLASSES[c] for c in beat_rhythms(Marks.of(beats), rhythms, symbols)]
    total: Counter[str] = Counter()
    for i, beat in enumerate(beats.tolist()):
        total[classes[i]] += beat - (int(beats[i - 1]) if i else 0)
    total[classes[-1]] += samples - int(beats[-1])
    return +total


@pytest.mark.slow
@pytest.mark.parametrize("name", ["icentia11k", "mitdb"])
def test_real_sums_are_the_sources(recordings: Path, tmp_path: Path, name: str) -> None:
    root, archive = recordings / name, tmp_path / "archive"
    manifest = prepare(name, root, archive, 1)
    assert verify(archive, source=root) == []
    shard(archive, tmp_path / "shards", 250, workers=1)
    assert verify(tmp_path / "shards", source=archive) == []
    symbols = icentia11k.RHYTHMS if name == "icentia11k" else mitdb.RHYTHMS
    samples = 2**20 + 1 if name == "icentia11k" else 650_000
    total: Counter[str] = Counter()
    for path in root.rglob("*.atr"):
        total += rhythm_samples(path.with_suffix(""), symbols, samples)
    assert manifest.totals.rhythm_samples == total
    assert total.total() == manifest.totals.samples


def test_real_recordings_of_cinc2017(recordings: Path, tmp_path: Path) -> None:
    root, raw = recordings / "cinc2017", tmp_path / "raw"
    raw.mkdir()
    lines = (root / "REFERENCE-v3.csv").read_text().splitlines()[::150]
    (raw / "REFERENCE-v3.csv").write_text("\n".join(lines) + "\n")
    for line in lines:
        for extension in ("hea", "mat"):
            name = f"{line.split(',')[0]}.{extension}"
            (raw / name).symlink_to(root / name)
    manifest = prepare("cinc2017", raw, tmp_path / "archive", 1)
    assert manifest.totals.records == len(lines) > 50
    assert verify(tmp_path / "archive", source=raw) == []
