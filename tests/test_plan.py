from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from ecgpipe.config import FinetuneSettings, PretrainSettings, load
from ecgpipe.errors import EcgpipeError
from ecgpipe.experiments import plan as planning
from ecgpipe.experiments.plan import Step, plan, run
from ecgpipe.experiments.presets import PRESETS


def folders(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).mkdir(parents=True)
    return path


def assignments(step: Step) -> list[str]:
    return [value for flag, value in pairwise(step.command) if flag == "--set"]


def test_demo_goes_from_nothing_to_a_report():
    steps = plan("demo", Path("demo"))
    assert [step.name for step in steps] == [
        "simulate/icentia11k",
        "prepare/icentia11k",
        "shard/icentia11k",
        "simulate/cinc2017",
        "prepare/cinc2017",
        "shard/cinc2017",
        "pretrain/beat",
        "finetune/random",
        "finetune/beat",
        "report",
    ]
    assert steps[1].command == (
        "prepare",
        "icentia11k",
        "demo/raw/icentia11k",
        "demo/archive/icentia11k",
    )
    assert steps[-1].output == Path("demo/report.html")
    assert str(steps[0]) == "ecgpipe simulate icentia11k demo/raw/icentia11k"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_step_follows_what_it_needs_and_reads_only_what_was_made(preset, tmp_path):
    given = folders(tmp_path / "data", "icentia11k", "mitdb", "cinc2017")
    data = None if PRESETS[preset].simulated else given
    made: dict[str, Path] = {}
    for step in plan(preset, tmp_path / "out", data):
        assert set(step.needs) <= set(made)
        needed = {made[name] for name in step.needs}
        paths = {Path(word) for word in step.command if word.startswith(str(tmp_path))}
        assert {path for path in paths - {step.output} if data not in path.parents} == needed
        assert step.output in paths
        assert step.name not in made and step.output not in made.values()
        made[step.name] = step.output


@pytest.mark.parametrize("preset", PRESETS)
def test_the_settings_of_the_presets_exist(preset):
    load(PretrainSettings, assignments=PRESETS[preset].pretrain)
    load(FinetuneSettings, assignments=PRESETS[preset].finetune)


def test_settings_reach_the_commands():
    steps = {step.name: step for step in plan("demo", Path("demo"))}
    assert assignments(steps["pretrain/beat"]) == list(PRESETS["demo"].pretrain)
    assert assignments(steps["finetune/beat"]) == list(PRESETS["demo"].finetune)


@pytest.mark.parametrize("present", [("icentia11k",), ("mitdb",), ("icentia11k", "mitdb")])
def test_real_takes_the_upstream_sets_that_are_there(present, tmp_path):
    folders(tmp_path, "cinc2017", *present)
    steps = {step.name: step for step in plan("real", Path("out"), tmp_path)}
    assert steps["pretrain/beat"].needs == tuple(f"shard/{name}" for name in present)
    assert not any(step.stage == "simulate" for step in steps.values())
    assert str(tmp_path / "cinc2017") in steps["prepare/cinc2017"].command


@pytest.mark.parametrize(
    ("preset", "present", "message"),
    [
        ("paper", None, "preset paper: .* demo or real"),
        ("demo", (), "leave it out"),
        ("real", None, "--data"),
        ("real", ("icentia11k",), r"/cinc2017: no such folder"),
        ("real", ("cinc2017",), r"neither .*/icentia11k nor .*/mitdb is a folder"),
    ],
)
def test_mistakes_say_what_is_wrong(preset, present, message, tmp_path):
    data = None if present is None else folders(tmp_path, *present)
    with pytest.raises(EcgpipeError, match=message):
        plan(preset, Path("out"), data)


class Recorder:
    """Stands in for the processes: remembers the commands, answers with given exit codes."""

    def __init__(self, **codes: int) -> None:
        self.codes = codes
        self.commands: list[tuple[str, ...]] = []

    def __call__(self, command: Sequence[str]) -> int:
        self.commands.append(tuple(command))
        return self.codes.get(command[0], 0)


def test_run_executes_the_plan_in_order():
    steps, runner = plan("demo", Path("demo")), Recorder()
    assert run(steps, runner=runner) == []
    assert runner.commands == [step.command for step in steps]


def test_run_goes_on_after_refused_records_and_names_the_steps(capsys):
    steps, runner = plan("demo", Path("demo")), Recorder(prepare=3)
    refused = run(steps, runner=runner)
    assert [step.name for step in refused] == ["prepare/icentia11k", "prepare/cinc2017"]
    assert len(runner.commands) == len(steps)
    assert "prepare/icentia11k, prepare/cinc2017" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("code", [1, 2, -9])
def test_run_stops_at_a_failure_with_the_command_to_repeat_it(code):
    runner = Recorder(shard=code)
    with pytest.raises(EcgpipeError, match=f"shard/icentia11k.* {code}; by hand: ecgpipe shard "):
        run(plan("demo", Path("demo")), runner=runner)
    assert [command[0] for command in runner.commands] == ["simulate", "prepare", "shard"]


def test_a_command_runs_as_a_process_of_this_python(tmp_path, monkeypatch):
    shim = tmp_path / "python"
    shim.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\nexit 3\n')
    shim.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shim))
    assert planning.execute(("verify", "a store")) == 3
    assert (tmp_path / "arguments").read_text() == "-m ecgpipe verify a store\n"
