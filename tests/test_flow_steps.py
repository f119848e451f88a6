"""A step of a flow as a process: its words, its end in a state, and what ends it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from command_line import PATIENCE, wait_until

from ecgpipe.experiments import processes
from ecgpipe.experiments.processes import Processes
from flows import common  # before Prefect: it settles its defaults
from flows.prepare import prepare
from flows.shard import shard

ROOT = Path(__file__).parent.parent


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and that nobody waited for does not."""
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip() not in ("", "Z")


def test_lines_of_a_step_go_into_the_log_as_they_come(stand_in):
    stand_in('echo "$@"; echo warning >&2; echo; echo done; exit 3')
    lines: list[str] = []
    assert Processes().run(("verify", "a store"), lines.append) == (3, "done")
    assert lines == ["-m ecgpipe verify a store", "warning", "done"]


def test_what_stops_a_flow_ends_the_step_and_its_workers(stand_in):
    stand_in("sleep 300 & echo $$ $!; wait")
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.extend(map(int, line.split()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Processes().run(("verify",), stop)
    assert len(pids) == 2
    assert not any(map(alive, pids))


def test_a_step_that_does_not_end_is_killed(stand_in):
    stand_in("trap '' TERM; echo $$; while :; do sleep 0.1; done")
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Processes(grace=0.5).run(("verify",), stop)
    wait_until(lambda: not alive(pids[0]))


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("exit 0", "Completed", "/archive"),
        ("exit 3", "SomeRefused", "/archive, but some records were refused"),
        (
            "echo 'raw: no such folder; name it' >&2; exit 2",
            "Failed",
            "raw: no such folder; name it",
        ),
        ("echo 'ecgpipe: a.json: damaged'; exit 4", "Failed", ": a.json: damaged"),
        ("echo 'ecgpipe: a: taken'; exit 5", "Busy", ": a: taken"),
        ("exit 1", "Failed", "exit code 1"),
    ],
)
def test_a_step_ends_in_a_state_that_says_why(server, stand_in, tmp_path, script, kind, message):
    stand_in(script)
    state = prepare("cinc2017", str(tmp_path / "raw"), tmp_path / "archive", return_state=True)
    assert state.name == kind
    assert message in state.message
    assert "\n" not in state.message


@pytest.mark.parametrize(
    ("end", "state", "tries"),
    [
        ("kill -9 $$", "Killed", 2),
        ("exit 130", "Killed", 2),
        ("echo 'ecgpipe: s3://x: could not be read'; exit 6", "Unreachable", common.TRIES),
        ("echo 'ecgpipe: the folder is taken'; exit 5", "Busy", 1),
        ("exit 2", "Failed", 1),
        ("exit 1", "Failed", 1),
    ],
)
def test_only_where_it_can_help_a_step_is_tried_again(
    server, stand_in, tmp_path, monkeypatch, end, state, tries
):
    monkeypatch.setattr(common, "step", common.step.with_options(retry_delay_seconds=0))
    stand_in(f"echo >> {tmp_path}/tried; {end}")
    ended = shard(tmp_path / "archive", tmp_path / "shards", return_state=True)
    assert ended.name == state
    assert len((tmp_path / "tried").read_text()) == tries


def test_the_network_comes_back(server, stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "step", common.step.with_options(retry_delay_seconds=0))
    stand_in(f"test -e {tmp_path}/tried && exit 0; touch {tmp_path}/tried; exit 6")
    source = "https://example.org/mitdb"
    assert prepare("mitdb", source, tmp_path / "archive", return_state=True).is_completed()


def test_retries_wait_ever_longer():
    delays = common.step.retry_delay_seconds
    assert delays == [10, 20, 40, 80, 160] and sum(delays) >= 300
    assert len(delays) == common.step.retries == common.TRIES - 1
    assert common.step.retry_jitter_factor


def test_what_ends_a_flow_ends_steps_in_other_threads(stand_in):
    stand_in("echo started; exec sleep 300")
    lines: list[str] = []
    flow_run = Processes()
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(flow_run.run, ("verify",), lines.append) for _ in range(2)]
        wait_until(lambda: len(lines) == 2)
        flow_run.end()
        assert [run.result(PATIENCE)[0] for run in runs] == [-signal.SIGTERM] * 2
    stand_in("exit 0")
    assert flow_run.run(("verify",), lines.append) == (130, "")  # not even a retry begins
    assert Processes().run(("verify",), lines.append) == (0, "")


def test_a_step_that_is_just_starting_is_ended_too(stand_in, monkeypatch):
    stand_in("exec sleep 300")
    starting, ended = Event(), Event()

    class Slow(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            starting.set()
            assert ended.wait(PATIENCE)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(processes.subprocess, "Popen", Slow)
    flow_run = Processes()
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(flow_run.run, ("verify",), print)
        assert starting.wait(PATIENCE)
        flow_run.end()
        ended.set()
        assert run.result(PATIENCE)[0] == -signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_the_flow_its_step_and_its_server(tmp_path, number):
    python, output = tmp_path / "python", tmp_path / "output"
    python.write_text(
        "#!/bin/sh\n"
        'if test "$2" = uvicorn; then\n'
        f'echo $$ > {tmp_path}/server; exec {sys.executable} "$@"; fi\n'
        f"trap 'echo ending; sleep 2; echo saved > {tmp_path}/saved; exit 130' TERM\n"
        'echo "step $$"; while :; do sleep 0.1; done\n'
    )
    python.chmod(0o755)
    call = (
        f"import signal, sys; sys.executable = {str(python)!r};"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from flows.shard import main, shard; main(shard)"
    )
    with output.open("w") as file:
        flow = subprocess.Popen(
            [sys.executable, "-c", call, "--archive", "a", "--shards", "b"],
            cwd=ROOT,
            env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        found = wait_until(lambda: re.search(r"step (\d+)", output.read_text()), flow)
        os.killpg(flow.pid, number)  # as a terminal does: the whole group
        if number == signal.SIGHUP:  # which a shell sends its jobs, and the system once more
            wait_until(lambda: "ending" in output.read_text(), flow)
            os.killpg(flow.pid, number)
        assert flow.wait(PATIENCE) == 130, output.read_text()
    finally:
        if flow.poll() is None:
            flow.kill()
            flow.wait()
    assert (tmp_path / "saved").exists()
    assert not alive(int(found[1]))
    assert not alive(int((tmp_path / "server").read_text()))
    assert "Traceback" not in output.read_text()


@pytest.mark.parametrize(("shell", "goes_on"), [("exec", False), ("trap '' HUP; exec", True)])
def test_a_flow_heeds_the_end_of_its_terminal_but_under_nohup(shell, goes_on):
    code = (
        "import atexit, signal; from flows.report import main, report;"
        "atexit.register(lambda: (signal.raise_signal(signal.SIGHUP), print('goes on')));"
        "main(report)"
    )
    line = f"{shell} {shlex.join([sys.executable, '-c', code, '--help'])}"
    call = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert call.returncode == 0, call.stderr
    assert call.stdout.endswith("goes on\n") == goes_on
    assert ("KeyboardInterrupt" in call.stderr) == (not goes_on)
