"""Commands that train, report, and run whole experiments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import REFUSED, EcgpipeError
from ..files.paths import to_path
from ..progress import print_json
from .options import AsJson, Assignments, Config, Out, Seed

FIRST = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun one speaks


def pretrain(
    shards: Annotated[
        list[Path], typer.Argument(parser=to_path, help="Folders of shards of upstream data sets.")
    ],
    out: Out,
    task: Annotated[
        str | None,
        typer.Option(help="beat, rhythm, heart_rate or future, as the paper's best preset. [beat]"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A row of the paper's Table 1, such as beat-512 or future-16-8-8."),
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Pretrain a network on frames of upstream recordings."""
    from ..config import PretrainSettings, load
    from ..experiments.presets import pretraining

    base = pretraining(preset, task) if preset or task else ()
    settings = load(PretrainSettings, config, assignments or (), base, task=task, seed=seed)
    from ..training.pretrain import pretrain

    pretrain(shards, out, settings)
    if FIRST:
        _say_run(out, as_json)


def finetune(
    shards: Annotated[
        Path, typer.Argument(parser=to_path, help="Folder of shards of a downstream data set.")
    ],
    out: Out,
    init: Annotated[str, typer.Option(help="A pretraining run, or random.")] = "random",
    repeats: Annotated[int | None, typer.Option(min=1, help="Trainings. [10]")] = None,
    config: Config = None,
    assignments: Assignments = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Finetune on a downstream data set, several times."""
    from ..config import FinetuneSettings, load

    settings = load(FinetuneSettings, config, assignments or (), repeats=repeats, seed=seed)
    from ..training.finetune import finetune

    finetune(shards, out, settings, None if init == "random" else to_path(init))
    _say_run(out, as_json)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(parser=to_path, help="Folders of pretraining and finetuning runs."),
    ],
    out: Annotated[
        Path,
        typer.Option(parser=to_path, help="The page; its table goes beside it as .csv and .md."),
    ],
) -> None:
    """Write a report on runs: a page, its table as CSV and Markdown."""
    from ..reports.report import write_report

    for path in write_report(runs, out).values():
        print(path)


def reproduce(
    preset: Annotated[
        str,
        typer.Option(
            help="table1 to table5, figure3, paper (all of them); small, real (on two cores); "
            "demo, smoke (on simulated recordings)."
        ),
    ],
    out: Annotated[Path, typer.Option(parser=to_path, help="Folder for everything that is made.")],
    data: Annotated[
        Path | None,
        typer.Option(parser=to_path, help="Folder of the real data sets, each in one of its name."),
    ] = None,
    only: Annotated[
        str, typer.Option(help="Finetunings whose names match, such as 'random*'.")
    ] = "*",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainings at once. [as many as the GPU has room for]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the commands, with their cost.")
    ] = False,
    tflops: Annotated[
        float, typer.Option(min=0.001, help="With --dry-run: 10^12 operations a second of the GPU.")
    ] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: the plan as JSON, for scripts.")
    ] = False,
) -> None:
    """Run a whole experiment; what is done is skipped."""
    from ..experiments.plan import plan
    from ..experiments.presets import PRESETS

    if as_json and not dry_run:
        raise EcgpipeError("--json: goes with --dry-run; each step of a run tells its own result")
    steps = plan(preset, out, data, only)
    if dry_run:
        from ..experiments import cost

        records = PRESETS[preset].records
        if as_json:
            print_json(cost.as_json(steps, records, tflops))
        else:
            print(*cost.script(steps, records, tflops), sep="\n")
        return
    from ..experiments.execute import execute

    if execute(steps, jobs):
        raise typer.Exit(REFUSED)


def _say_run(path: Path, as_json: bool) -> None:
    from ..reports.results import outcome, summary

    print_json(outcome(path)) if as_json else print(summary(path))
