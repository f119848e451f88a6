"""Fixtures: real recordings where there are any, and small data sets in their real formats."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Networks this small are slower on several threads, and other tests wait for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell's background job ignores Ctrl-C, and so would the commands that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Under nohup the commands would ignore SIGHUP as well. A handler is not passed on to them.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)

ROOT = Path(__file__).parent.parent
PACKED = ROOT.parent / "shared" / "data"  # archives of real recordings beside the checkout
Once = Callable[[str, Callable[[Path], object]], Path]
NAMES = (
    "icentia11k", "icentia11k-batched", "mitdb", "cinc2017", "ptbxl", "challenge2020",
    "challenge2021", "cpsc2018",
)  # fmt: skip


def _recordings() -> Path | None:
    """Folder of real recordings: ECGPIPE_TEST_DATA, or the packed ones, unpacked into a cache."""
    if given := os.environ.get("ECGPIPE_TEST_DATA"):
        return Path(given)
    if not (PACKED / "unpack").is_file():
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecgpipe"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "recordings.lock").open("w") as lock:  # processes that run tests unpack once
        fcntl.flock(lock, fcntl.LOCK_EX)
        unpack = [sys.executable, str(PACKED / "unpack"), str(cache / "recordings")]
        subprocess.run(unpack, check=True)
    return cache / "recordings"


def pytest_report_header() -> str:
    """Say whether the tests on real recordings run."""
    if given := os.environ.get("ECGPIPE_TEST_DATA"):
        return f"real recordings: {given}"
    if (PACKED / "unpack").is_file():
        return f"real recordings: unpacked from {PACKED}"
    return "real recordings: none, their tests are skipped; name a folder in ECGPIPE_TEST_DATA"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Folder with the real recordings, each set in a folder of its name in ``NAMES``."""
    folder = _recordings()
    if folder is None:
        pytest.skip("no real recordings; name a folder of them in ECGPIPE_TEST_DATA")
    missing = [name for name in NAMES if not (folder / name).is_dir()]
    assert not missing, f"{folder} lacks {', '.join(missing)}"
    return folder


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fill a folder once for all processes that run tests; they may read it, but not change it."""
    base = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # of pytest-xdist, whose workers have own folders
        base = base.parent

    def fill(name: str, make: Callable[[Path], object]) -> Path:
        done = base / f"{name}.done"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                make(base / name)
                done.touch()
        return base / name

    return fill


@pytest.fixture(scope="session")
def icentia(once: Once) -> Path:
    """A simulated Icentia11k of four patients with two segments of 60 s."""
    from ecgpipe.simulator.simulate import simulate

    how = {"patients": 4, "segments": 2, "seconds": 60}
    return once("icentia11k", lambda folder: simulate("icentia11k", folder, **how))


@pytest.fixture(scope="session")
def cinc(once: Once) -> Path:
    """A simulated CinC 2017 of 40 records of 10 s."""
    from ecgpipe.simulator.simulate import simulate

    return once("cinc2017", lambda folder: simulate("cinc2017", folder, records=40, seconds=10))


@pytest.fixture(scope="session")
def stores(once: Once, icentia: Path, cinc: Path) -> Path:
    """``archive/NAME`` and ``shards/NAME``, at 250 Hz, of both simulated sets."""
    from ecgpipe.storage.archive import prepare
    from ecgpipe.storage.shards import shard

    def make(folder: Path) -> None:
        for raw in (icentia, cinc):
            archive = folder / "archive" / raw.name
            prepare(raw.name, raw, archive, workers=1)
            shard(archive, folder / "shards" / raw.name, workers=1)

    return once("stores", make)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, stores: Path) -> Path:
    """Simulated stores, where the documents say they are."""
    return shutil.copytree(stores, tmp_path_factory.mktemp("place") / "stores")


@pytest.fixture(scope="module")
def leads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two twelve-lead records and one that is refused."""
    import databases as db
    import numpy as np

    from ecgpipe.storage.archive import prepare

    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("leads")
    time = np.arange(5000) / 500
    for number in (1, 2):
        waves = [300 * lead * np.sin(2 * np.pi * number * time) for lead in range(1, 13)]
        db.challenge(raw, f"A000{number}", signal=np.array(waves).astype(np.int16))
    db.challenge(raw, "A0003")
    (raw / "A0003.mat").write_bytes(b"<b>no signal</b>")
    prepare("icbeb2018", raw, folder / "archive", workers=1)
    return folder / "archive"


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """An S3 server of this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    """Give the flows a server and a database of their own."""
    import flows  # noqa: F401  # before Prefect: it settles its defaults

    from prefect.testing.utilities import prefect_test_harness  # isort: skip

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a shell script in the place of ``python -m ecgpipe``, to choose how a step ends."""

    def make(script: str) -> None:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the flows last: loader processes must not be forked beside Prefect's threads."""
    items.sort(key=lambda item: item.path.name.startswith("test_flow"))
