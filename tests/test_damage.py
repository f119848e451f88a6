"""No record leaves a store unchecked: bytes flipped, files missing or cut, in every file of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import databases as db
import numpy as np
import pytest
import zarr

from ecgpipe.errors import Damaged, EcgpipeError
from ecgpipe.loading.corpus import open_corpus
from ecgpipe.loading.epoch import Epoch
from ecgpipe.loading.frames import Frames
from ecgpipe.loading.recordings import load_recordings
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.shards import shard
from ecgpipe.storage.store import Store, open_store
from ecgpipe.storage.verify import verify
from ecgpipe.types import Record

SEED = 20_261_129
FLIPS = 2  # in every file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive and its shards, of two patients with one and two segments."""
    root = tmp_path_factory.mktemp("whole")
    for patient, segment in ((0, 0), (1, 0), (1, 1)):
        rows = db.icentia_rows(900) if segment < 1 else None
        db.icentia(root / "raw", patient, segment, 900, rows)
    prepare("icentia11k", root / "raw", root / "archive", 1)
    shard(root / "archive", root / "shards", 250, workers=1)
    return root


def files(store: Path) -> list[Path]:
    found = sorted(path.relative_to(store) for path in store.rglob("*") if path.is_file())
    assert len(found) > 5
    return found


def read(store: Path) -> list[Record]:
    return list(open_store(store).read_all())


def read_singly(store: Path) -> list[Record]:
    opened = open_store(store)
    return [opened.read(key) for key in opened.records.index]


def train(store: Path) -> list[Record]:
    """What the training loader decodes, with every record visited."""
    corpus = open_corpus([Store(store)], 250, 100, annotated=False)
    frames = Frames(frame=100, label=None, mean=0.0, std=1.0, seed=0)
    epoch = Epoch(
        corpus.shards, frames, number=1, steps=12, batch=8, frames_per_visit=16, streams=2,
        open_shards=2, shuffle=8,
    )  # fmt: skip
    assert sum(len(batch.y) for batch in epoch) == 96
    return []


def finetune(store: Path) -> list[Record]:
    return list(load_recordings(open_store(store), many_of=True).records.values())


def shard_again(store: Path) -> list[Record]:
    out = store.parent / "again"
    shutil.rmtree(out, ignore_errors=True)
    shard(store, out, 250, workers=1)
    return read(out)


def damages(data: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """The content of a file with a bit flipped somewhere, cut, and longer."""
    for _ in range(FLIPS):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        yield bytes(flipped)
    yield data[: len(data) // 2]


USES: list[tuple[str, Callable[[Path], list[Record]]]] = [
    ("archive", read), ("archive", read_singly), ("archive", shard_again),
    ("shards", read), ("shards", read_singly), ("shards", train), ("shards", finetune),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "use"), USES, ids=[f"{k}-{u.__name__}" for k, u in USES])
def test_no_damage_is_silent(
    tmp_path: Path, whole: Path, kind: str, use: Callable[[Path], list[Record]]
) -> None:
    """Whatever is damaged, a use refuses it by name or gives the records that were written."""
    store = tmp_path / kind
    shutil.copytree(whole / kind, store)
    rng = np.random.default_rng(SEED)
    right = {record.key: record for record in read(whole / "archive")}
    refused = 0
    for name in files(store):
        data = (store / name).read_bytes()
        for damage in [*damages(data, rng), None]:
            (store / name).unlink() if damage is None else (store / name).write_bytes(damage)
            try:
                found = use(store)
            except EcgpipeError as error:
                refused += 1
                assert error.code == 4 or name.name == "manifest.json", (name, error)
                assert str(store) in str(error)
            else:
                for record in found:
                    db.equal(record, right[record.key])
            (store / name).write_bytes(data)
    assert refused > len(files(store))


@pytest.mark.parametrize("kind", ["archive", "shards"])
def test_verify_finds_every_damage(tmp_path: Path, whole: Path, kind: str) -> None:
    store = tmp_path / kind
    shutil.copytree(whole / kind, store)
    rng = np.random.default_rng(SEED)
    assert verify(store) == []
    for name in files(store):
        data = (store / name).read_bytes()
        for damage in damages(data, rng):
            (store / name).write_bytes(damage)
            assert verify(store), (name, damage)
        (store / name).unlink()
        if name.name != "manifest.json":
            assert any(name.as_posix() in problem for problem in verify(store)), name
        (store / name).write_bytes(data)
    assert verify(store) == []


def test_a_missing_chunk_is_no_zeros(tmp_path: Path, whole: Path) -> None:
    """zarr-python #486: Zarr itself fills what is missing with zeros."""
    store = tmp_path / "archive"
    shutil.copytree(whole / "archive", store)
    chunk = store / "records.zarr/p00001/signal/c/0/0"
    content = chunk.read_bytes()
    chunk.unlink()
    for damaged in (True, False):
        if damaged:
            with pytest.raises(Damaged, match=r"signal/c/0/0: missing.*ecgpipe prepare"):
                read(store)
            with pytest.raises(Damaged, match=r"signal/c/0/0: missing"):
                _ = open_store(store).signal
            with pytest.raises(EcgpipeError, match=r"signal/c/0/0: missing"):
                shard(store, tmp_path / "shards", 250, workers=1)
            assert verify(store) == ["records.zarr/p00001/signal/c/0/0: missing"]
            prepare("icentia11k", whole / "raw", store, 1)
        assert chunk.read_bytes() == content
        shard(store, tmp_path / "shards", 250, workers=1)
        assert db.tree(tmp_path / "shards") == db.tree(whole / "shards")


def test_any_zarr_reader_notices_a_flipped_byte(tmp_path: Path, whole: Path) -> None:
    store = tmp_path / "archive"
    shutil.copytree(whole / "archive", store)
    group = zarr.open_group(store / "records.zarr/p00000", mode="r")
    for name, array in group.arrays():
        for path in sorted((store / "records.zarr/p00000" / name / "c").rglob("*")):
            if path.is_file():
                data = bytearray(path.read_bytes())
                data[len(data) // 3] ^= 0x20
                path.write_bytes(data)
                with pytest.raises(ValueError, match="checksum"):
                    _ = array[...]
    with dask.config.set(scheduler="synchronous"), pytest.raises(ValueError, match="checksum"):
        open_store(store).signal.sum().compute()


def test_a_store_of_format_1_says_how_to_make_it_anew(tmp_path: Path, whole: Path) -> None:
    store = tmp_path / "archive"
    shutil.copytree(whole / "archive", store)
    text = (store / "manifest.json").read_text()
    (store / "manifest.json").write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(EcgpipeError, match=r"of format 1, .* make it anew .*ecgpipe prepare"):
        open_store(store)
