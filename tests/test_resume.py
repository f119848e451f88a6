"""A store after an interruption, a repair or damage: whole, and the same to the byte."""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import databases as db
import psutil
import pytest
from command_line import PATIENCE, run, start, wait_until

from ecgpipe.datasets import Folder, find_entries
from ecgpipe.errors import Busy, EcgpipeError
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.parts import _claimed
from ecgpipe.storage.store import open_store
from ecgpipe.storage.verify import verify


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return db.small(tmp_path / "small")


def test_one_bad_record_is_refused_and_taken_in_when_it_is_repaired(
    tmp_path: Path, small: Path
) -> None:
    bad = small / "p00/p00003/p00003_s01.dat"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-7])
    arguments = ("prepare", "icentia11k", small, tmp_path / "archive", "--workers", 1)
    first = run(*arguments)
    assert first.returncode == 3
    assert "p00003_s01" in first.stderr and "truncated" in first.stderr
    assert "6 records of 5 patients" in first.stdout
    store = open_store(tmp_path / "archive")
    assert [r.key for r in store.manifest.refused] == ["p00003_s01"]
    assert len(store.records) == 6 and verify(tmp_path / "archive") == []
    before = db.sidecars(tmp_path / "archive")
    bad.write_bytes(whole)
    second = run(*arguments)
    assert second.returncode == 0, second.stderr
    after = db.sidecars(tmp_path / "archive")
    assert {part for part in after if after[part] != before[part]} == {"p00003"}
    prepare("icentia11k", small, tmp_path / "never_bad", 1)
    assert db.tree(tmp_path / "archive") == db.tree(tmp_path / "never_bad")


def begun(root: Path, store: Path) -> tuple[subprocess.Popen[str], Callable[[], None]]:
    """A command whose two workers wait for files, three of twelve parts done; how to go on."""
    for patient in range(12):
        db.icentia(root, patient, 0, 9000, db.icentia_rows(9000))
    waits = [db.held(root / f"p00/p0000{patient}/p0000{patient}_s00.dat") for patient in (3, 4)]
    process = start("prepare", "icentia11k", root, store, "--workers", 2)
    wait_until(lambda: len(db.sidecars(store)) == 3, process)
    wait_until(lambda: len(list((store / ".partial").iterdir())) == 2, process)
    return process, lambda: [release() for release in waits]


def test_killed_in_the_middle_it_continues(tmp_path: Path) -> None:
    root, store = tmp_path / "raw", tmp_path / "archive"
    process, mend = begun(root, store)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, PATIENCE)
    assert len(workers) >= 2 and not alive
    done = db.sidecars(store)
    assert len(done) == 3 and not (store / "manifest.json").exists()
    with pytest.raises(EcgpipeError, match="not finished"):
        open_store(store)
    mend()
    again = run("prepare", "icentia11k", root, store, "--workers", 2)
    assert again.returncode == 0, again.stderr
    assert "3 of 12 parts were there already" in again.stderr
    after = db.sidecars(store)
    assert {part: after[part] for part in done} == done
    prepare("icentia11k", root, tmp_path / "undisturbed", 1)
    assert db.tree(store) == db.tree(tmp_path / "undisturbed")
    assert not list(store.rglob("*.partial*"))


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ended_in_the_middle_it_leaves_nothing_half_written(
    tmp_path: Path, by: signal.Signals
) -> None:
    store = tmp_path / "archive"
    process, _ = begun(tmp_path / "raw", store)
    process.send_signal(by)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "ecgpipe: interrupted; the same command continues"
    assert not (store / ".partial").exists()
    assert {path.name for path in store.iterdir()} <= {"recipe.json", "parts", "records.zarr"}


def test_of_several_that_start_at_once_one_holds_the_folder(tmp_path: Path) -> None:
    def claim(number: int) -> None:
        meet.wait(PATIENCE)
        try:
            with _claimed(store, {"kind": "archive"}):
                inside.append(number)
                most.append(len(inside))
                time.sleep(0.02)
                inside.remove(number)
        except Busy:
            refused.append(number)

    for attempt in range(40):
        store, meet = tmp_path / f"store-{attempt}", threading.Barrier(4)
        inside: list[int] = []
        most: list[int] = []
        refused: list[int] = []
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(claim, range(4)))
        assert max(most) == 1 and len(most) + len(refused) == 4
        assert [path.name for path in store.iterdir()] == ["recipe.json"]


def test_a_lost_recipe_is_found_in_the_manifest(tmp_path: Path, small: Path) -> None:
    store = tmp_path / "archive"
    prepare("icentia11k", small, store, 1)
    whole = db.tree(store)
    for name, damage in (("recipe.json", None), ("manifest.json", "[]"), ("manifest.json", "{")):
        if damage is None:
            (store / name).unlink()
        else:
            (store / name).write_text(damage)
        found = run("verify", store)
        assert found.returncode == 4 and name in found.stderr
        prepare("icentia11k", small, store, 1)
        assert db.tree(store) == whole


def test_raw_files_are_found_from_another_folder(
    tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    folder = Folder.open(small.name)
    monkeypatch.chdir(tmp_path.parent)  # as a worker of a Dask cluster may be
    (entry, *_) = find_entries("icentia11k", folder)
    assert folder.read(entry.files[0])


def test_half_parts_and_damaged_sidecars_are_redone(tmp_path: Path, small: Path) -> None:
    store = tmp_path / "archive"
    prepare("icentia11k", small, store, 1)
    whole = db.tree(store)
    kept = db.sidecars(store)["p00004"]
    parts = store / "parts"
    (parts / "p00000.json").unlink()  # killed between the part and its sidecar
    (store / "records.zarr/p00000/half").write_text("junk")
    (parts / "p00001.json").write_bytes((parts / "p00001.json").read_bytes()[:100])
    (parts / "p00002.json").write_text("")
    shutil.copytree(store / "records.zarr/p00001", store / ".partial/p00001")
    (store / ".partial/p00003.json").write_text("{")
    chunk = next(p for p in (store / "records.zarr/p00003/signal/c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    prepare("icentia11k", small, store, 1)
    assert db.tree(store) == whole and db.sidecars(store)["p00004"] == kept


def test_what_verify_finds_the_stores_command_repairs(tmp_path: Path, small: Path) -> None:
    store = tmp_path / "archive"
    prepare("icentia11k", small, store, 1)
    chunk = next(p for p in (store / "records.zarr/p00003/signal/c").rglob("*") if p.is_file())
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    found = run("verify", store)
    assert found.returncode == 4 and "p00003/signal" in found.stderr
    assert "run its command again" in found.stderr
    prepare("icentia11k", small, store, 1)
    assert verify(store) == []


def test_a_sidecar_of_another_shape_is_redone(tmp_path: Path, small: Path) -> None:
    prepare("icentia11k", small, tmp_path / "archive", 1)
    whole = db.tree(tmp_path / "archive")
    for content in ("[]", "null", '{"files": {}}', '{"files": [], "inputs": 1}'):
        (tmp_path / "archive/parts/p00001.json").write_text(content)
        prepare("icentia11k", small, tmp_path / "archive", 1)
        assert db.tree(tmp_path / "archive") == whole


def test_a_second_writer_is_refused(tmp_path: Path, small: Path) -> None:
    store = tmp_path / "archive"
    prepare("icentia11k", small, store, 1)
    before = db.tree(store)
    with (store / "recipe.json").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = run("prepare", "icentia11k", small, store)
    assert second.returncode == 5 and db.tree(store) == before
    assert f"{store}: another process is writing" in second.stderr and "wait" in second.stderr
    prepare("icentia11k", small, store, 1)
