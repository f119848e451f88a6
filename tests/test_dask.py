"""Parts on processes and on Dask: the same bytes, whatever dies on the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import databases as db
import psutil
import pytest
from command_line import PATIENCE, wait_until

from ecgpipe.errors import EcgpipeError
from ecgpipe.storage import archive, executors, parts
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.shards import shard
from ecgpipe.storage.verify import verify

HAD = os.environ.get("PYTHONPATH", "")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), HAD])}
HERE = dict(workers=1), dict(workers=2)


# What parts do below; a worker finds these functions by their names.


def fail_some(name: str, job: int) -> int:
    if job % 3 == 0:
        raise EcgpipeError(f"no answer for {job}")
    return job * job


def fail(name: str, job: Path) -> None:
    (job / name).touch()
    raise EcgpipeError("no answer")


def fill_the_disk(name: str, job: Path) -> None:
    (job / name).touch()
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die_until(name: str, job: tuple[Path, int]) -> int:
    """Kill this process in the first attempts; each leaves a file."""
    folder, deaths = job
    (folder / f"{name}.{os.getpid()}").touch()
    if len(list(folder.glob(f"{name}.*"))) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return deaths


def sleep(name: str, seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@pytest.mark.parametrize("how", HERE, ids=["here", "processes"])
def test_a_part_that_fails_does_not_take_the_others_with_it(how: dict[str, Any]) -> None:
    done = {}
    with pytest.raises(EcgpipeError) as error:
        for name, square in executors.run(fail_some, {f"p{i}": i for i in range(8)}, **how):
            done[name] = square
    assert done == {f"p{i}": i * i for i in (1, 2, 4, 5, 7)}
    assert "3 of 8 parts could not be made (p0, p3, p6); p" in str(error.value)
    assert ": no answer for " in str(error.value) and "same command cont" in str(error.value)


@pytest.mark.parametrize("how", HERE, ids=["here", "processes"])
def test_when_all_fail_it_gives_up(tmp_path: Path, how: dict[str, Any]) -> None:
    jobs = {f"p{i:03d}": tmp_path for i in range(100)}
    with pytest.raises(EcgpipeError, match=r"20 of 100 parts .* and 10 more.*nothing more was tr"):
        list(executors.run(fail, jobs, **how))
    assert executors.IN_A_ROW <= len(list(tmp_path.iterdir())) < executors.IN_A_ROW + 2


@pytest.mark.parametrize("how", HERE, ids=["here", "processes"])
def test_a_full_disk_ends_it_at_once(tmp_path: Path, how: dict[str, Any]) -> None:
    with pytest.raises(EcgpipeError, match=r"part p\d: .*No space left on device.*mend that"):
        list(executors.run(fill_the_disk, {f"p{i}": tmp_path for i in range(9)}, **how))
    assert len(list(tmp_path.iterdir())) <= how["workers"]


def test_a_process_that_dies_is_replaced(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    deaths = {"once": 1, "twice": 2, "always": 99, **{f"never{i}": 0 for i in range(5)}}
    found = {}
    with pytest.raises(EcgpipeError, match=r"1 of 8 parts .*\(always\).*process died 3 times"):
        jobs = {name: (tmp_path, n) for name, n in deaths.items()}
        for name, n in executors.run(die_until, jobs, 2):
            found[name] = n
    assert found == {name: n for name, n in deaths.items() if n < 3}
    attempts = [path.name.split(".")[0] for path in tmp_path.iterdir()]
    assert {name: attempts.count(name) for name in deaths} == {
        name: min(n + 1, 3) for name, n in deaths.items()
    }
    assert "once: its worker process died" in capfd.readouterr().err
    assert not active_children()


class Watched(dict[str, float]):
    """Counts the jobs that were taken."""

    taken = 0

    def __getitem__(self, name: str) -> float:
        self.taken += 1
        return super().__getitem__(name)


def test_jobs_are_taken_when_their_turn_comes() -> None:
    jobs = Watched({f"p{i}": 0.0 for i in range(40)})
    for done, _ in enumerate(executors.run(sleep, jobs, 2)):
        assert jobs.taken <= done + 3


def test_who_lets_go_ends_the_workers() -> None:
    jobs = {"quick": 0.0, **{f"slow{i}": 3600.0 for i in range(3)}}
    results = executors.run(sleep, jobs, 2)
    assert next(results)[0] == "quick"
    results.close()
    assert not active_children()


def test_what_dask_needs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "PATIENCE", 1.0)
    for address in ("tcp://127.0.0.1:9", "no address"):
        with pytest.raises(EcgpipeError, match=f"--dask {address}: no scheduler answers there"):
            list(executors.run(sleep, {"p": 0.0}, 1, address))
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(EcgpipeError, match=r"needs another package.*ecgpipe\[dask\]"):
        list(executors.run(sleep, {"p": 0.0}, 1, "local"))


def test_a_worker_with_other_versions_is_refused() -> None:
    with pytest.raises(EcgpipeError, match=r"has numpy .* where numpy 0\.1 is wanted; install"):
        executors._with_the_same({"numpy": "0.1"}, sleep, "p", 0.0)


# A cluster of its own processes, as on other machines; loopback only.


class Cluster:
    """A scheduler and workers without nannies: a worker that is killed stays dead."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.file = folder / "scheduler.json"
        self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        wait_until(self.file.is_file, self.processes[0])

    def _start(self, kind: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
        shared = ["--scheduler-file", str(self.file), "--no-dashboard"]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *shared], env=ENVIRONMENT, cwd=self.folder, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def worker(self, threads: int = 1) -> subprocess.Popen[bytes]:
        return self._start("worker", "--no-nanny", "--nthreads", str(threads))

    @property
    def address(self) -> str:
        return str(json.loads(self.file.read_text())["address"])


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    found = Cluster(folder)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients, one of them with a record that has to be refused."""
    root = tmp_path_factory.mktemp("raw")
    for patient in range(12):
        for segment in (0, 1):
            db.icentia(root, patient, segment, 150_000, db.icentia_rows(150_000))
    bad = root / "p00/p00007/p00007_s01.dat"
    bad.write_bytes(bad.read_bytes()[:-7])
    return root


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store that one process makes, undisturbed."""
    store = tmp_path_factory.mktemp("whole") / "archive"
    manifest = prepare("icentia11k", raw, store, 1)
    assert (manifest.totals.records, manifest.totals.refused) == (23, 1)
    return store


@contextmanager
def meanwhile(store: Path, act: Callable[[], object]) -> Iterator[list[int]]:
    """Do something once two parts are there; gives how many there were then."""
    there: list[int] = []

    def watch() -> None:
        wait_until(lambda: len(db.sidecars(store)) >= 2)
        act()
        there.append(len(db.sidecars(store)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield there
    finally:
        thread.join()


@pytest.mark.slow
def test_the_same_bytes_from_four_processes_and_shards_too(
    tmp_path: Path, raw: Path, whole: Path
) -> None:
    prepare("icentia11k", raw, tmp_path / "four", 4)
    assert db.tree(tmp_path / "four") == db.tree(whole)
    shard(whole, tmp_path / "one", 128, workers=1)
    shard(whole, tmp_path / "dask", 128, workers=2, dask="local")
    assert db.tree(tmp_path / "dask") == db.tree(tmp_path / "one")
    assert verify(tmp_path / "dask") == []


@pytest.mark.slow
def test_the_same_bytes_when_a_process_is_killed(tmp_path: Path, raw: Path, whole: Path) -> None:
    killed: list[int] = []

    def kill() -> None:
        victim = active_children()[0]
        assert victim.pid
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    store = tmp_path / "store"
    with meanwhile(store, kill) as there:
        prepare("icentia11k", raw, store, 2)
    assert killed and there[0] < 12
    assert db.tree(store) == db.tree(whole)


@pytest.mark.slow
def test_the_same_bytes_from_two_dask_workers_of_which_one_is_killed(
    tmp_path: Path, raw: Path, whole: Path, cluster: Cluster
) -> None:
    from distributed import Client

    victim, _ = cluster.worker(), cluster.worker()
    busy: list[bool] = []
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        pids = {pid: address for address, pid in client.run(os.getpid).items()}

        def kill() -> None:
            busy.append(bool(client.processing()[pids[victim.pid]]))
            victim.kill()

        store = tmp_path / "store"
        with meanwhile(store, kill) as there:
            manifest = prepare("icentia11k", raw, store, dask=cluster.address)
        assert len(client.nthreads()) == 1
    assert busy == [True] and there[0] < 12 and victim.wait() == -signal.SIGKILL
    assert db.tree(store) == db.tree(whole) and len(db.tree(store)) > 200
    assert verify(store) == [] and manifest.totals.refused == 1


@pytest.mark.slow
def test_the_same_bytes_from_threads_of_one_dask_worker(
    tmp_path: Path, raw: Path, whole: Path, cluster: Cluster
) -> None:
    cluster.worker(threads=4)
    prepare("icentia11k", raw, tmp_path / "store", dask=cluster.address)
    assert db.tree(tmp_path / "store") == db.tree(whole)


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--workers", "2"), ("--workers", "2", "--dask", "local")])
def test_a_killed_command_continues_elsewhere(
    tmp_path: Path, raw: Path, whole: Path, how: tuple[str, ...]
) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-m", "ecgpipe", "prepare", "icentia11k", str(raw), str(store)]
    process = subprocess.Popen([*command, *how], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(db.sidecars(store)) >= 2, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, PATIENCE)
    assert workers and not alive, "a worker outlived its command"
    done = db.sidecars(store)
    left = len(list((store / ".partial").iterdir()))
    assert 2 <= len(done) < 12 and left <= 2  # what is redone: at most one part per worker
    prepare("icentia11k", raw, store, 1)
    after = db.sidecars(store)
    assert {part: after[part] for part in done} == done
    assert db.tree(store) == db.tree(whole)


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--workers", "2"), ("--workers", "2", "--dask", "local")])
def test_ctrl_c_ends_it_promptly_and_quietly(
    tmp_path: Path, raw: Path, whole: Path, how: tuple[str, ...]
) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-m", "ecgpipe", "prepare", "icentia11k", str(raw), str(store)]
    process = subprocess.Popen(
        [*command, *how],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_until(lambda: len(db.sidecars(store)) >= 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in errors and "interrupted; the same command continues" in errors
    assert len(db.sidecars(store)) < 12
    prepare("icentia11k", raw, store, 1)
    assert db.tree(store) == db.tree(whole)


@pytest.mark.slow
def test_on_dask_too_parts_fail_one_by_one_and_are_sent_one_after_another(
    tmp_path: Path, cluster: Cluster
) -> None:
    cluster.worker(threads=2)
    done = {}
    with pytest.raises(EcgpipeError, match=r"3 of 8 parts .*\(p0, p3, p6\); p\d: no answer for"):
        jobs = {f"p{i}": i for i in range(8)}
        for name, square in executors.run(fail_some, jobs, 1, cluster.address):
            done[name] = square
    assert done == {f"p{i}": i * i for i in (1, 2, 4, 5, 7)}
    watched = Watched({f"p{i}": 0.0 for i in range(60)})
    for count, _ in enumerate(executors.run(sleep, watched, 1, cluster.address)):
        assert watched.taken <= count + 1 + 2 * executors.AHEAD


@pytest.mark.slow
def test_on_dask_a_part_that_kills_its_workers_is_named(tmp_path: Path) -> None:
    deaths = {"once": 1, "always": 99, "never": 0}
    found = {}
    with pytest.raises(EcgpipeError, match=r"always.*worker process died 4 times"):
        jobs = {name: (tmp_path, n) for name, n in deaths.items()}
        for name, n in executors.run(die_until, jobs, 2, "local"):
            found[name] = n
    assert "always" not in found and "once" in found


@pytest.mark.slow
def test_without_workers_or_scheduler_it_ends(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "PATIENCE", 3.0)
    with pytest.raises(EcgpipeError, match=r"no worker in 3 s; start some with `dask worker tcp"):
        list(executors.run(sleep, {"p": 0.0}, 1, cluster.address))
    monkeypatch.undo()
    cluster.worker()
    with pytest.raises(EcgpipeError, match="lost the scheduler"):
        jobs = {"a": 0.0, "b": 0.0, **dict.fromkeys("cdefgh", 3600.0)}
        for count, _ in enumerate(executors.run(sleep, jobs, 1, cluster.address)):
            if count == 1:
                cluster.processes[0].kill()


class Taken(Exception):
    """The jobs of a store."""


def jobs_of(raw: Path, store: Path) -> dict[str, Any]:
    def take(store: Path, recipe: object, jobs: dict[str, Any], *_: object) -> None:
        raise Taken(jobs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Taken) as taken:
        patch.setattr(archive, "build", take)
        prepare("icentia11k", raw, store, 1)
    return dict(taken.value.args[0])


def attempt(barrier: Any, raw: Path, store: Path, rounds: int) -> None:
    """Make one part over and over, at the same time as others do."""
    job = jobs_of(raw, store)["p00003"]
    for _ in range(rounds):
        barrier.wait(PATIENCE)
        parts.build_part(store, "p00003", job)
        barrier.wait(PATIENCE)


@pytest.mark.slow
def test_attempts_at_one_part_may_overlap(tmp_path: Path) -> None:
    """As on a cluster that takes a worker for dead that is not."""
    raw, store, rounds = db.small(tmp_path / "raw"), tmp_path / "store", 20
    prepare("icentia11k", raw, store, 1)
    whole = db.tree(store)
    context = get_context("spawn")
    barrier = context.Barrier(4)
    arguments = (barrier, raw, store, rounds)
    processes = [context.Process(target=attempt, args=arguments, daemon=True) for _ in range(3)]
    for process in processes:
        process.start()
    for i in range(rounds):
        (store / "parts/p00003.json").unlink()
        if i % 2:
            shutil.rmtree(store / "records.zarr/p00003")
        barrier.wait(PATIENCE)
        barrier.wait(PATIENCE)
        shutil.rmtree(store / ".partial")
        assert db.tree(store) == whole, f"round {i}"
    for process in processes:
        process.join()
        assert process.exitcode == 0
