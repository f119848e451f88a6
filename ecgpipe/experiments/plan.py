"""The plan of an experiment: which commands, in which order, and what each needs.

The plan holds no state. Every command continues or skips what is already done, so executing a
plan a second time repairs whatever the first time left.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import EcgpipeError
from .presets import PRESETS, Preset

Stage = Literal["simulate", "prepare", "shard", "pretrain", "finetune", "report"]
Runner = Callable[[Sequence[str]], int]  # arguments of ecgpipe -> exit code

REFUSED = 3  # exit code of a command that finished, but had to refuse some records


@dataclass(frozen=True)
class Step:
    """One command of an experiment."""

    name: str  # unique in its plan, such as prepare/icentia11k
    command: tuple[str, ...]  # arguments of the ecgpipe command line
    needs: tuple[str, ...]  # names of the steps whose output it reads
    output: Path  # what it makes: a folder, or the report's file
    stage: Stage

    def __str__(self) -> str:
        """Give the command as one types it."""
        return shlex.join(("ecgpipe", *self.command))


def plan(preset: str, out: Path, data: Path | None = None) -> list[Step]:
    """List the steps of an experiment, each after those it needs.

    Parameters
    ----------
    preset
        A name in ``PRESETS``.
    out
        Folder for everything that the experiment makes.
    data
        Folder that holds the real data sets, each in a folder of its own name; for presets on
        real recordings only.

    Raises
    ------
    EcgpipeError
        An unknown preset, or data that are missing or not asked for.
    """
    if preset not in PRESETS:
        raise EcgpipeError(
            f"preset {preset}: there is none of that name; take {' or '.join(PRESETS)}"
        )
    chosen = PRESETS[preset]
    upstream = _upstream(preset, chosen, data)
    steps: list[Step] = []
    for dataset in dict.fromkeys((*upstream, chosen.downstream)):
        steps += _shards(dataset, chosen, out, data)

    runs = out / "runs"
    upstream_shards = [str(out / "shards" / dataset) for dataset in upstream]
    pretrained = Step(
        name="pretrain/beat",
        command=(
            *("pretrain", *upstream_shards, "--out", str(runs / "pretrain-beat")),
            *("--task", "beat", *_assignments(chosen.pretrain)),
        ),
        needs=tuple(f"shard/{dataset}" for dataset in upstream),
        output=runs / "pretrain-beat",
        stage="pretrain",
    )
    finetuned = [
        Step(
            name=f"finetune/{label}",
            command=(
                *("finetune", str(out / "shards" / chosen.downstream)),
                *("--out", str(runs / f"finetune-{label}"), "--init", init),
                *_assignments(chosen.finetune),
            ),
            needs=(f"shard/{chosen.downstream}", *needs),
            output=runs / f"finetune-{label}",
            stage="finetune",
        )
        for label, init, needs in (
            ("random", "random", ()),
            ("beat", str(pretrained.output), (pretrained.name,)),
        )
    ]
    training = [pretrained, *finetuned]
    report = Step(
        "report",
        ("report", *(str(step.output) for step in training), "--out", str(out / "report.html")),
        tuple(step.name for step in training),
        out / "report.html",
        "report",
    )
    return [*steps, *training, report]


def _upstream(name: str, preset: Preset, data: Path | None) -> tuple[str, ...]:
    """Choose the data sets for pretraining: of the real ones, those that are there."""
    if preset.simulated:
        if data is not None:
            raise EcgpipeError(
                f"--data {data}: preset {name} simulates its recordings; leave it out"
            )
        return preset.upstream
    if data is None:
        raise EcgpipeError(f"preset {name}: name the folder of the recordings with --data")
    if not (data / preset.downstream).is_dir():
        raise EcgpipeError(f"{data / preset.downstream}: no such folder; preset {name} needs it")
    found = tuple(dataset for dataset in preset.upstream if (data / dataset).is_dir())
    if not found:
        looked = " nor ".join(str(data / dataset) for dataset in preset.upstream)
        raise EcgpipeError(f"neither {looked} is a folder; preset {name} needs at least one")
    return found


def _shards(dataset: str, preset: Preset, out: Path, data: Path | None) -> Iterator[Step]:
    """Yield the steps from nothing, or from real recordings, to the shards of one data set."""
    raw = data / dataset if data is not None else out / "raw" / dataset
    archive, shards = out / "archive" / dataset, out / "shards" / dataset
    needs: tuple[str, ...] = ()
    if preset.simulated:
        yield Step(f"simulate/{dataset}", ("simulate", dataset, str(raw)), (), raw, "simulate")
        needs = (f"simulate/{dataset}",)
    prepare = ("prepare", dataset, str(raw), str(archive))
    yield Step(f"prepare/{dataset}", prepare, needs, archive, "prepare")
    shard = ("shard", str(archive), str(shards), "--fs", str(preset.fs))
    yield Step(f"shard/{dataset}", shard, (f"prepare/{dataset}",), shards, "shard")


def _assignments(settings: tuple[str, ...]) -> Iterator[str]:
    for setting in settings:
        yield from ("--set", setting)


def execute(command: Sequence[str]) -> int:
    """Run ``ecgpipe`` with these arguments as a process of its own; give its exit code."""
    return subprocess.run([sys.executable, "-m", "ecgpipe", *command], check=False).returncode


def run(steps: Sequence[Step], *, runner: Runner = execute) -> list[Step]:
    """Execute the steps in their order.

    Parameters
    ----------
    steps
        A plan; each step after those it needs.
    runner
        Runs one command and gives its exit code.

    Returns
    -------
    list of Step
        Those that finished, but had to refuse some records.

    Raises
    ------
    EcgpipeError
        A step failed; the message holds the command to run it by hand.
    """
    refused = []
    for number, step in enumerate(steps, start=1):
        print(f"[{number}/{len(steps)}] {step}", flush=True)
        code = runner(step.command)
        if code == REFUSED:
            refused.append(step)
        elif code != 0:
            raise EcgpipeError(f"step {step.name} ended with exit code {code}; by hand: {step}")
    if refused:
        names = ", ".join(step.name for step in refused)
        print(f"finished; some records were refused, and named, by: {names}", flush=True)
    return refused
