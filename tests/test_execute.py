"""Executing a plan: order, several at once, failures, interruptions, and what is continued."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from command_line import PATIENCE, wait_until

from ecgpipe.errors import BUSY, DAMAGED, INTERRUPTED, UNREACHABLE, EcgpipeError, Interrupted
from ecgpipe.experiments import execute
from ecgpipe.experiments.execute import run
from ecgpipe.experiments.plan import Stage, Step, plan
from ecgpipe.experiments.processes import Gpus, Processes, default_jobs, gpu_capacity


class Recorder:
    """Stands in for the processes: remembers the steps, answers with given exit codes."""

    def __init__(self, seconds: float = 0, **codes: int) -> None:
        self.seconds, self.codes = seconds, codes
        self.names: list[str] = []
        self.now: set[str] = set()
        self.together: list[frozenset[str]] = []
        self.lock = threading.Lock()

    def __call__(self, step: Step) -> int:
        with self.lock:
            self.names.append(step.name)
            self.now.add(step.name)
            self.together.append(frozenset(self.now))
        time.sleep(self.seconds)
        with self.lock:
            self.now.discard(step.name)
        return self.codes.get(step.name.replace("/", "_").replace("-", "_"), 0)


DEMO = plan("demo", Path("demo"))
REAL = sys.executable


def test_steps_run_in_the_order_of_the_plan() -> None:
    runner = Recorder()
    assert run(DEMO, runner) == []
    assert runner.names == [step.name for step in DEMO]
    assert all(len(names) == 1 for names in runner.together[:4])


def test_trainings_run_several_at_a_time_and_stores_alone() -> None:
    steps, runner = plan("smoke", Path("out")), Recorder()
    stage = {step.name: step.stage for step in steps}
    meet = threading.Barrier(3)  # the pretraining and the two finetunings that do not need it

    def together(step: Step) -> int:
        if step.stage == "pretrain" or step.name.startswith("finetune/random"):
            meet.wait(PATIENCE)
        return runner(step)

    run(steps, together, jobs=3)
    assert sum(name.startswith("finetune/random") for name in stage) == 2
    assert runner.names[-1] == "report"
    began = {name: at for at, name in enumerate(runner.names)}
    for step in steps:
        assert all(began[need] < began[step.name] for need in step.needs)


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_no_more_than_the_jobs_train_at_once_and_stores_are_made_alone(jobs: int) -> None:
    steps, runner = plan("smoke", Path("out")), Recorder(0.05)
    stage = {step.name: step.stage for step in steps}
    run(steps, runner, jobs)
    for names in runner.together:
        trains = [stage[name] in ("pretrain", "finetune") for name in names]
        assert trains.count(True) <= jobs
        assert trains.count(False) <= 1


def test_refused_records_do_not_stop_it_and_the_steps_are_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runner = Recorder(prepare_icentia11k=3, prepare_cinc2017=3)
    refused = run(DEMO, runner)
    assert [step.name for step in refused] == ["prepare/icentia11k", "prepare/cinc2017"]
    assert len(runner.names) == len(DEMO)
    assert "prepare/icentia11k, prepare/cinc2017" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (1, "ended with exit code 1"),
        (2, "ended with exit code 2"),
        (
            -9,
            "was killed by signal 9, perhaps because memory ran out; the same command continues",
        ),
        (-11, "was killed by signal 11; the same command continues"),
    ],
)
def test_a_failure_stops_what_needs_it_alone(code: int, told: str) -> None:
    runner = Recorder(pretrain_beat_2048=code)
    message = (
        f"step pretrain/beat-2048 {told}; by hand: ecgpipe pretrain .*; "
        "not started: finetune/beat-2048, report"
    )
    with pytest.raises(EcgpipeError, match=message):
        run(DEMO, runner)
    assert "finetune/random" in runner.names


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (UNREACHABLE, 0, UNREACHABLE),
        (UNREACHABLE, UNREACHABLE, UNREACHABLE),
        (BUSY, BUSY, BUSY),
        (DAMAGED, 0, DAMAGED),
        (UNREACHABLE, 2, 2),
        (BUSY, UNREACHABLE, 2),
        (1, 1, 2),
        (-9, -9, 2),
    ],
)
def test_the_plan_fails_as_its_steps_where_they_failed_alike(
    first: int, second: int, code: int
) -> None:
    runner = Recorder(prepare_icentia11k=first, prepare_cinc2017=second)
    with pytest.raises(EcgpipeError, match="step prepare/icentia11k") as error:
        run(DEMO, runner)
    assert error.value.code == code


def test_an_interrupted_step_ends_the_plan() -> None:
    runner = Recorder(pretrain_beat_2048=INTERRUPTED)
    with pytest.raises(Interrupted, match=r"6 of 10 done"):
        run(DEMO, runner)
    assert runner.names[-1] == "pretrain/beat-2048"


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shell script in the place of this Python."""
    shim = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(shim))
    return shim


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


STEP = Step("verify", ("verify", "a store"), (), Path("x"), "report")


def test_a_command_runs_as_a_process_of_this_python(python: Path, tmp_path: Path) -> None:
    _script(python, f'echo "$@" > {tmp_path}/arguments\nexit 3')
    assert Processes().run(STEP.command) == (3, "")
    assert (tmp_path / "arguments").read_text() == "-m ecgpipe verify a store\n"


def test_a_folder_that_another_process_writes_to_is_awaited(
    python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "RETRY", 0.01)
    _script(python, f"echo x >> {tmp_path}/n; test $(wc -l < {tmp_path}/n) -ge 3 || exit {BUSY}")
    execute.execute([STEP], jobs=1)
    assert (tmp_path / "n").read_text() == "x\n" * 3


def _free(count: int, stage: Stage = "finetune") -> list[Step]:
    """Steps that need no other."""
    return [Step(f"{stage}/{n}", (stage, str(n)), (), Path("x"), stage) for n in range(count)]


@pytest.mark.parametrize(
    ("fit", "dealt"),
    [
        ({"0": 6, "1": 6}, "010101"),
        ({"0": 6, "1": 1}, "010000"),  # the second is nearly full
        ({"2": 1, "7": 0}, "272727"),  # more at once than there is room for
        ({"0": 0, "1": 2}, "110001"),
    ],
)
def test_trainings_are_dealt_to_the_gpus(fit: dict[str, int], dealt: str) -> None:
    gpus = Gpus(lambda: fit)
    with ExitStack() as running:
        lent = [running.enter_context(gpus.assigned(step.stage)) for step in _free(len(dealt))]
    assert [gpu["CUDA_VISIBLE_DEVICES"] for gpu in lent] == list(dealt)


def test_a_gpu_that_is_given_back_is_dealt_again() -> None:
    gpus = Gpus(lambda: {"GPU-a": 3, "GPU-b": 3})
    a, b, c = _free(3)
    with (
        pytest.raises(ValueError, match="training"),
        gpus.assigned(a.stage),
        gpus.assigned(b.stage) as second,
    ):
        assert second == {"CUDA_VISIBLE_DEVICES": "GPU-b"}
        raise ValueError("training")
    with gpus.assigned(c.stage) as third, gpus.assigned(a.stage) as fourth:
        assert [third, fourth] == [{"CUDA_VISIBLE_DEVICES": name} for name in ("GPU-a", "GPU-b")]


def test_nothing_is_dealt_where_there_is_nothing_to_choose() -> None:
    (training,), (report,) = _free(1), _free(1, "report")
    for fit in ({}, {"3": 6}):
        with Gpus(lambda fit=fit: fit).assigned(training.stage) as said:
            assert said == {}
    with Gpus(lambda: {"0": 6, "1": 6}).assigned(report.stage) as said:
        assert said == {}


@pytest.fixture
def asked() -> Iterator[None]:
    """Let the GPUs be asked anew, and forget the answer."""
    gpu_capacity.cache_clear()
    yield
    gpu_capacity.cache_clear()


@pytest.fixture
def four_gpus(asked: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that has four GPUs of 80 GB, the second half full and the third quite, for others."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("from . import cuda\n")
    (tmp_path / "torch" / "cuda.py").write_text(
        "def device_count():\n"
        "    return 4\n"
        "def mem_get_info(number):\n"
        "    if number == 2:\n"
        "        raise RuntimeError('CUDA error: out of memory')\n"
        "    return 40 * 10**9 if number == 1 else 79 * 10**9, 80 * 10**9\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_without_a_gpu_there_is_room_for_one(asked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_capacity() == {}
    assert default_jobs() == 1


def test_the_room_is_that_of_all_gpus(four_gpus: None) -> None:
    assert gpu_capacity() == {"0": 6, "1": 3, "2": 0, "3": 6}
    assert default_jobs() == 15


def test_gpus_have_the_names_by_which_they_are_visible(
    four_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-8932f937,MIG-1,0,-1,2")
    assert gpu_capacity() == {"5": 6, "GPU-8932f937": 3, "MIG-1": 0, "0": 6}


def test_processes_that_train_get_their_gpu(four_gpus: None, python: Path, tmp_path: Path) -> None:
    _script(
        python,
        f'test "$1" != -c || exec {REAL} "$@"\n'
        f'echo "$3$4 ${{CUDA_VISIBLE_DEVICES-all}}" >> {tmp_path}/dealt\n'
        f"while test $(grep -c finetune {tmp_path}/dealt) -lt 4; do sleep 0.05; done",
    )
    execute.execute(_free(4), 4)
    execute.execute([STEP], 4)
    said = [line.split() for line in (tmp_path / "dealt").read_text().splitlines()]
    assert sorted(gpu for _, gpu in said[:4]) == ["0", "0", "1", "3"]
    assert said[4:] == [["verifya", "store", "all"]]


def test_what_ends_the_plan_ends_its_processes(asked: None, python: Path, tmp_path: Path) -> None:
    _script(python, f'test "$1" != -c || exit 1; echo $$ >> {tmp_path}/pids; exec sleep 300')
    processes = Processes(Gpus())

    def stop_soon() -> None:
        pids = tmp_path / "pids"
        wait_until(lambda: pids.exists() and pids.read_text().count("\n") == 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop_soon).start()
    with pytest.raises(KeyboardInterrupt):
        run(_free(2), lambda step: processes.run(step.command)[0], 2, processes.end)
    for pid in (tmp_path / "pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
    assert processes.run(STEP.command) == (INTERRUPTED, "")  # nothing begins behind it


ENV = {**os.environ, "OMP_NUM_THREADS": "1"}


def _smoke(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ecgpipe", "reproduce", "--preset", "smoke", "--out", str(out)]
    return subprocess.Popen(
        command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_smoke_interrupted_in_three_places_comes_to_the_same_table(tmp_path: Path) -> None:
    whole = _smoke(tmp_path / "whole")
    said = whole.communicate()[0]
    assert whole.returncode == 0, said

    out, told = tmp_path / "parts", []
    places = (
        (signal.SIGKILL, out / "archive" / "cinc2017" / "recipe.json"),
        (signal.SIGTERM, out / "runs" / "pretrain-beat-512" / "last.pt"),
        (signal.SIGINT, out / "runs" / "finetune-random" / "repeat-00" / "last.pt"),
    )
    for number, place in places:
        with _smoke(out) as process:
            wait_until(place.exists, process)
            process.send_signal(number)
            told.append(process.communicate()[0])
            assert process.returncode == (-9 if number == signal.SIGKILL else 130), told[-1]
    with _smoke(out) as process:
        told.append(process.communicate()[0])
    assert process.returncode == 0, told[-1]
    assert (out / "report.csv").read_bytes() == (tmp_path / "whole" / "report.csv").read_bytes()
    assert "Traceback" not in "".join(told)
    # What was done was skipped.
    assert re.search(r"pretrain-beat-512: finished already", told[-1])
