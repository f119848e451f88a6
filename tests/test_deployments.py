"""The deployments of prefect.yaml, on a server of their own with a worker process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecgpipe.storage.store import open_store

ROOT = Path(__file__).parent.parent
PREFECT = str(Path(sys.executable).with_name("prefect"))


@pytest.fixture
def prefect(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of a running server and worker."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    (tmp_path / "prefect").mkdir()
    running = []

    def start(*command: str) -> None:
        with (tmp_path / f"{command[0]}.log").open("w") as log:
            running.append(
                subprocess.Popen(
                    [PREFECT, *command], cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT
                )
            )

    try:
        start("server", "start", "--host", "127.0.0.1", "--port", port)
        deadline = time.monotonic() + 120
        while subprocess.run([PREFECT, "work-pool", "ls"], env=env, capture_output=True).returncode:
            assert time.monotonic() < deadline, (tmp_path / "server.log").read_text()
            time.sleep(1)
        call(env, "work-pool", "create", "local", "--type", "process")
        call(env, "--no-prompt", "deploy", "--all")
        start("worker", "start", "--pool", "local")
        yield env
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(60)


def call(env: dict[str, str], *command: str, expected: int = 0) -> str:
    done = subprocess.run(
        [PREFECT, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_deployment_runs_on_a_worker(prefect: dict[str, str], tmp_path: Path, cinc: Path) -> None:
    listed = call(prefect, "deployment", "ls")
    for name in (
        "prepare/icentia11k",
        "shard/mitdb",
        "pretrain/beat",
        "pretrain/future",
        "reproduce/demo",
    ):
        assert name in listed
    where = ("--param", f"source={cinc}", "--param", f"archive={tmp_path / 'archive'}")
    call(prefect, "deployment", "run", "prepare/cinc2017", *where, "--watch")
    assert open_store(tmp_path / "archive").manifest["totals"]["records"] == 40

    wrong = ("deployment", "run", "prepare/cinc2017", "--param", "workers=0")
    assert "workers" in call(prefect, *wrong, expected=1)
