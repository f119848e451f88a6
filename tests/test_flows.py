from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

from flows import common  # before Prefect: it settles Prefect's defaults

from prefect.artifacts import Artifact  # isort: skip
from prefect.exceptions import ParameterTypeError  # isort: skip
from prefect.testing.utilities import prefect_test_harness  # isort: skip

from ecgpipe.config import PretrainSettings, load
from ecgpipe.experiments.presets import PRESETS
from ecgpipe.sources.simulate import simulate
from ecgpipe.storage.store import open_store
from flows.prepare import prepare
from flows.pretrain import pretrain
from flows.reproduce import Experiment, reproduce
from flows.shard import shard

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    """Give the flows a server and a database of their own."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a shell script in the place of ``python -m ecgpipe``, to choose how a step ends."""

    def make(script: str) -> None:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    return make


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and that nobody waited for does not."""
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip() not in ("", "Z")


def test_lines_of_a_step_go_into_the_log_as_they_come(stand_in):
    stand_in('echo "$@"; echo warning >&2; echo; echo done; exit 3')
    lines: list[str] = []
    assert common.execute(("verify", "a store"), lines.append) == (3, "done")
    assert lines == ["-m ecgpipe verify a store", "warning", "done"]


def test_what_stops_a_flow_ends_the_step_and_its_workers(stand_in):
    stand_in("sleep 300 & echo $$ $!; wait")
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.extend(map(int, line.split()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        common.execute((), stop)
    assert len(pids) == 2
    assert not any(map(alive, pids))


def test_a_step_that_does_not_end_is_killed(stand_in, monkeypatch):
    monkeypatch.setattr(common, "GRACE", 0.5)
    stand_in("trap '' TERM; echo $$; while :; do sleep 0.1; done")
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        common.execute((), stop)
    deadline = time.monotonic() + 10
    while alive(pids[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pids[0])


def test_settings_that_differ_from_the_defaults_become_options():
    assert list(common.assignments(PretrainSettings())) == []
    changed = load(PretrainSettings, assignments=["epochs=3", "optimiser.lr=3e-4"])
    options = list(common.assignments(changed))
    assert options[::2] == ["--set", "--set"]
    assert sorted(options[1::2]) == ["epochs=3", "optimiser.lr=0.0003"]
    assert load(PretrainSettings, assignments=options[1::2]) == changed


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
        ("exit 1", "Failed", "exit code 1"),
    ],
)
def test_a_step_ends_in_a_state_that_says_why(server, stand_in, tmp_path, script, kind, message):
    stand_in(script)
    state = prepare("cinc2017", str(tmp_path / "raw"), tmp_path / "archive", return_state=True)
    assert state.name == kind
    assert message in state.message
    assert "\n" not in state.message


@pytest.mark.parametrize(("end", "state"), [("kill -9 $$", "Completed"), ("exit 1", "Failed")])
def test_only_a_step_that_was_killed_is_tried_again(
    server, stand_in, tmp_path, monkeypatch, end, state
):
    monkeypatch.setattr(common, "step", common.step.with_options(retry_delay_seconds=0))
    stand_in(f"test -e {tmp_path}/tried && exit 0; touch {tmp_path}/tried; {end}")
    assert shard(tmp_path / "archive", tmp_path / "shards", return_state=True).name == state


def test_reproduce_runs_the_plan_and_names_the_report(server, stand_in, tmp_path):
    stand_in(f'echo "$3" >> {tmp_path}/ran; test "$3" != prepare || exit 3')
    state = reproduce("demo", tmp_path / "out", return_state=True)
    ran = (tmp_path / "ran").read_text().split()
    assert ran == [
        *("simulate", "prepare") * 2,
        *("shard", "shard", "pretrain", "finetune", "finetune", "report"),
    ]
    assert state.is_completed(), state.message
    assert state.message == (
        f"the report is {tmp_path}/out/report.html; "
        "records were refused by prepare/icentia11k, prepare/cinc2017"
    )


def test_a_failure_stops_what_needs_the_failed_step(server, stand_in, tmp_path):
    stand_in(f'echo "$3" >> {tmp_path}/ran; test "$3" != pretrain || exit 1')
    state = reproduce("smoke", tmp_path / "out", only="*train25", jobs=2, return_state=True)
    ran = (tmp_path / "ran").read_text().split()
    assert sorted(ran[-2:]) == ["finetune", "pretrain"]  # at once, but not the one that needs both
    assert ran[:-2] == [*("simulate", "prepare") * 2, "shard", "shard"]
    assert state.is_failed()
    assert state.message.startswith("step pretrain/beat-512: ecgpipe pretrain")
    assert "finetune" not in state.message


def test_what_ends_a_flow_ends_steps_in_other_threads(stand_in):
    stand_in("echo started; exec sleep 300")
    lines: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(common.execute, (), lines.append) for _ in range(2)]
        while len(lines) < 2:
            time.sleep(0.05)
        common.end_steps()
        assert [run.result(30)[0] for run in runs] == [-signal.SIGTERM] * 2
    assert common.execute((), lines.append) == (130, "")  # not even a retry begins
    common.begin_steps()
    stand_in("exit 0")
    assert common.execute((), lines.append) == (0, "")


def test_the_presets_of_the_flow_are_those_of_the_command():
    assert get_args(Experiment) == tuple(PRESETS)


def test_a_wrong_setting_is_refused_before_a_run_exists(server):
    with pytest.raises(ParameterTypeError, match="epochs"):
        pretrain.validate_parameters({"shards": ["a"], "out": "b", "settings": {"epochs": 0}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("reproduce", "--preset", "real", "--data", "nowhere"),
            "nowhere/cinc2017: no such folder",
        ),
        (("reproduce", "--preset", "paper"), "name the folder of the recordings with --data"),
        (("reproduce", "--preset", "table9"), "preset"),
        (("pretrain", "--shards", "a", "--out", "b", "--set", "epoch=3"), "unknown setting epoch"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_without_a_stack_trace(options, message):
    name, *rest = options
    call = subprocess.run(
        [sys.executable, "-m", f"flows.{name}", *rest], cwd=ROOT, capture_output=True, text=True
    )
    assert call.returncode == 2
    assert message in call.stderr
    assert "Traceback" not in call.stderr and "temporary server" not in call.stderr


def test_the_flow_prepares_an_archive_and_shows_its_counts(server, tmp_path):
    simulate("cinc2017", tmp_path / "raw", records=6)
    state = prepare("cinc2017", str(tmp_path / "raw"), tmp_path / "archive", return_state=True)
    assert state.is_completed(), state.message
    assert open_store(tmp_path / "archive").manifest["totals"]["records"] == 6
    shown = Artifact.get("prepare")
    assert shown is not None and "| records | `6` |" in shown.data


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_flow_its_step_and_its_server(tmp_path, number):
    python, output = tmp_path / "python", tmp_path / "output"
    python.write_text(
        f'#!/bin/sh\ntest "$2" != uvicorn || exec {sys.executable} "$@"\n'
        'echo "step $$"; exec sleep 300\n'
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
        deadline = time.monotonic() + 120
        while not (found := re.search(r"step (\d+)", output.read_text())):
            assert flow.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.1)
        os.killpg(flow.pid, number)  # as a terminal does: the whole group
        assert flow.wait(30) == 130, output.read_text()
    finally:
        if flow.poll() is None:
            flow.kill()
            flow.wait()
    assert not alive(int(found[1]))
    assert "Traceback" not in output.read_text()
