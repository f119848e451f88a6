"""The shards: any WebDataset reader reads them, at a rate the signal survives, and damage shows."""

from __future__ import annotations

import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import databases as db
import numcodecs
import numpy as np
import pytest
import webdataset as wds
from command_line import run
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgpipe.errors import EcgpipeError
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.samples import CODECS, decode, encode
from ecgpipe.storage.shards import shard
from ecgpipe.storage.store import open_store
from ecgpipe.storage.verify import verify
from ecgpipe.types import Marks, Record


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return db.small(tmp_path_factory.mktemp("raw") / "icentia11k")


@pytest.fixture(scope="module")
def archive(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "archive"
    prepare("icentia11k", raw, folder, 1)
    return folder


def strip(signal: Any, fs: float, **more: Any) -> Record:
    signal = np.atleast_2d(np.asarray(signal, np.int16))
    leads = tuple(f"lead{i}" for i in range(len(signal)))
    gain, baseline = np.full(len(signal), 200.5), np.arange(len(signal), dtype=float) + 3
    return Record("key", "patient", fs, leads, signal, gain, baseline, **more)


@pytest.mark.parametrize("codec", CODECS)
def test_at_the_archives_rate_records_are_what_they_were(
    tmp_path: Path, archive: Path, codec: str
) -> None:
    manifest = shard(archive, tmp_path / "shards", 250, codec, 1)
    records = list(open_store(tmp_path / "shards").read_all())
    assert len(records) == 7
    for found, record in zip(records, open_store(archive).read_all(), strict=True):
        db.equal(found, record)
    before = open_store(archive).manifest
    assert manifest.statistics == before.statistics
    now, then = manifest.totals.plain(), before.totals.plain()
    differing = {name for name in now if now[name] != then[name]}
    assert differing == {"stored_bytes"}
    assert verify(tmp_path / "shards") == []


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset's own
@pytest.mark.parametrize("codec", CODECS)
def test_webdataset_numpy_and_numcodecs_alone_read_it(
    tmp_path: Path, archive: Path, codec: str
) -> None:
    shard(archive, tmp_path / "shards", 250, codec, 1)
    tars = sorted((tmp_path / "shards" / "shards").glob("*.tar"))
    assert [tar.stem for tar in tars] == [f"p{n:05d}" for n in range(5)]
    keys = []
    for tar in tars:
        for sample in wds.WebDataset(str(tar), shardshuffle=False):
            header = json.loads(sample["json"])
            keys.append(sample["__key__"])
            assert header["key"] == sample["__key__"] and header["codec"] == CODECS[codec]
            data = numcodecs.get_codec(header["codec"]).decode(sample["signal"])
            signal = np.frombuffer(data, header["dtype"]).reshape(header["shape"])
            patient, segment = int(keys[-1][1:6]), int(keys[-1][-2:])
            expected = db.coded(patient, segment, 900 + 10 * patient)
            np.testing.assert_array_equal(signal, [expected])
            assert header["fs"] == 250 and header["gain"] == [db.ICENTIA_GAIN]
            assert ("beats" in sample) == (segment < 2)
            if segment < 2:
                n = len(sample["beats"]) // 5
                index = np.frombuffer(sample["beats"], "<i4", n)
                label = np.frombuffer(sample["beats"], "u1", offset=4 * n)
                symbols = [header["beat_symbols"][i] for i in label]
                rows = [row for row in db.icentia_rows(900) if row[1] != "+"]
                assert list(zip(index, symbols, strict=True)) == [row[:2] for row in rows]
    assert keys == sorted(open_store(archive).records.index)


marks = st.lists(st.tuples(st.integers(0, 39), st.integers(0, 255)), max_size=20).map(
    lambda rows: Marks.of([i for i, _ in sorted(rows)], [j for _, j in sorted(rows)])
)
words = st.text(max_size=8)


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 3).flatmap(
        lambda leads: st.lists(
            st.lists(st.integers(-32768, 32767), min_size=leads, max_size=leads),
            min_size=40,
            max_size=60,
        )
    ),
    st.one_of(st.none(), marks),
    marks,
    marks,
    st.lists(words, max_size=3).map(tuple),
    st.one_of(st.none(), st.integers(0, 10)),
    st.floats(0.1, 1e6),
    st.floats(-1e6, 1e6),
    st.sampled_from(sorted(CODECS)),
    words,
)
def test_decode_undoes_encode(
    columns: list[list[int]],
    beats: Marks | None,
    rhythms: Marks,
    qrs: Marks,
    statements: tuple[str, ...],
    fold: int | None,
    gain: float,
    baseline: float,
    codec: str,
    patient: str,
) -> None:
    record = strip(np.array(columns).T, 250.0, beats=beats, rhythms=rhythms, qrs=qrs)
    ones = np.ones(len(record.leads))
    record = replace(record, statements=statements, fold=fold, patient=patient)
    record = replace(record, gain=gain * ones, baseline=baseline * ones)
    db.equal(decode(encode(record, CODECS[codec], ("N",), ("(N",))), record)


def test_the_same_bytes_whoever_makes_them(tmp_path: Path, archive: Path) -> None:
    shard(archive, tmp_path / "one", 128, "pcodec", 1)
    two = run("shard", archive, tmp_path / "two", "--fs", 128, "--workers", 2)
    assert two.returncode == 0, two.stderr
    assert db.tree(tmp_path / "one") == db.tree(tmp_path / "two")
    with tarfile.open(tmp_path / "one/shards/p00003.tar") as tar:
        members = tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
    names = [
        f"p00003_s0{s}.{m}" for s in (0, 1) for m in ("json", "signal", "beats", "rhythms", "qrs")
    ]
    assert [m.name for m in members] == names


def test_damage_is_found(tmp_path: Path, archive: Path) -> None:
    store = tmp_path / "shards"
    shard(archive, store, workers=1)
    list(open_store(store).sidecars(check_files=True))
    tar = store / "shards/p00002.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EcgpipeError, match=r"p00002\.tar: .* bytes, .* expected; run .* again"):
        list(open_store(store).sidecars(check_files=True))
    assert any("p00002.tar" in problem and "expected" in problem for problem in verify(store))
    tar.unlink()
    with pytest.raises(EcgpipeError, match=r"p00002\.tar: missing"):
        list(open_store(store).sidecars(check_files=True))
    assert verify(store) == ["shards/p00002.tar: missing"]
    for at in (600, len(whole) // 3):
        flipped = bytearray(whole)
        flipped[at] ^= 0x10
        tar.write_bytes(flipped)
        assert len(verify(store)) == 1 and "p00002.tar" in verify(store)[0]
    found = run("verify", store)
    assert found.returncode == 4 and "p00002.tar" in found.stderr and "1 problem" in found.stderr
    tar.write_bytes(whole[:-1])
    shard(archive, store, workers=1)  # a file of another size is made again
    assert tar.read_bytes() == whole
    whole_now = run("verify", store)
    assert whole_now.returncode == 0 and whole_now.stdout.endswith(": OK\n")


def test_an_altered_manifest_or_sidecar_is_found(tmp_path: Path, archive: Path) -> None:
    store = tmp_path / "shards"
    shard(archive, store, workers=1)
    manifest, sidecar = store / "manifest.json", store / "parts/p00001.json"
    whole = manifest.read_text(), sidecar.read_text()
    tree = json.loads(whole[0])
    tree["totals"]["qrs"] += 1
    manifest.write_text(json.dumps(tree))
    assert len(verify(store)) == 1 and "manifest.json" in verify(store)[0]
    manifest.write_text(whole[0])
    tree = json.loads(whole[1])
    tree["records"][0]["sum"][0] += 1
    sidecar.write_text(json.dumps(tree))
    assert any("p00001" in problem for problem in verify(store))
    with pytest.raises(EcgpipeError, match=r"p00001\.json: changed since the manifest"):
        list(open_store(store).sidecars(check_files=True))
    sidecar.write_text(whole[1][:50])
    assert any("p00001.json" in problem and "JSON" in problem for problem in verify(store))
    sidecar.unlink()
    assert any("p00001.json" in problem for problem in verify(store))
    sidecar.write_text(whole[1])
    shutil.copy(sidecar, store / "parts/p00009.json")
    assert verify(store) == ["parts/p00009.json: not in the manifest"]


def test_refusals_of_the_archive_are_passed_on(tmp_path: Path, raw: Path) -> None:
    copy = tmp_path / "raw"
    shutil.copytree(raw, copy)
    (copy / "p00/p00002/p00002_s01.dat").unlink()
    (copy / "p00/p00003/p00003_s01.dat").unlink()
    refused = prepare("icentia11k", copy, tmp_path / "archive", 1).refused
    assert [r.key for r in refused] == ["p00002_s01", "p00003_s01"]
    found = run("shard", tmp_path / "archive", tmp_path / "shards", "--workers", 1)
    assert found.returncode == 3 and "p00003_s01" in found.stderr
    store = open_store(tmp_path / "shards")
    assert store.manifest.refused == refused and len(list(store.read_all())) == 5
    assert verify(tmp_path / "shards") == []


def test_what_cannot_be_sharded_is_refused(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(EcgpipeError, match=r"unknown codec flac; .*pcodec, zstd, lz4"):
        shard(archive, tmp_path / "shards", 250, "flac", 1)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(archive, unfinished)
    (unfinished / "manifest.json").unlink()
    for folder in (unfinished, tmp_path / "nowhere"):
        with pytest.raises(EcgpipeError, match=r"no finished archive; run `ecgpipe prepare`"):
            shard(folder, tmp_path / "shards", workers=1)
    assert not (tmp_path / "shards").exists()
    shard(archive, tmp_path / "shards", workers=1)
    with pytest.raises(EcgpipeError, match="holds shards; name an archive"):
        shard(tmp_path / "shards", tmp_path / "more", workers=1)
    with pytest.raises(EcgpipeError, match=r"another recipe .*fs 250\.0 there, 128\.0 now"):
        shard(archive, tmp_path / "shards", 128, workers=1)
    with pytest.raises(EcgpipeError, match="kind"):
        shard(archive, archive, workers=1)
