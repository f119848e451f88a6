"""Commands that train, write reports and run experiments."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import REFUSED, EcgpipeError
from ..files.paths import to_path
from ..progress import print_json
from .options import AsJson, Assignments, Config, Out, Seed

FIRST = os.environ.get("RANK", "0") == "0"  # only this process of torchrun prints


def pretrain(
    shards: Annotated[
        list[Path], typer.Argument(parser=to_path, help="Folders of shards of upstream data sets.")
    ],
    out: Out,
    task: Annotated[
        str | None,
        typer.Option(help="beat, rhythm, heart_rate or future, by its best preset. [beat]"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Row of the paper's Table 1, such as beat-512 or future-16-8-8."),
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
        _print_run(out, as_json)


def finetune(
    shards: Annotated[
        Path, typer.Argument(parser=to_path, help="Folder of shards of a downstream data set.")
    ],
    out: Out,
    init: Annotated[str, typer.Option(help="Folder of a pretraining run, or random.")] = "random",
    repeats: Annotated[int | None, typer.Option(min=1, help="Number of trainings. [10]")] = None,
    config: Config = None,
    assignments: Assignments = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Finetune a network on a downstream data set, several times."""
    from ..config import FinetuneSettings, load

    settings = load(FinetuneSettings, config, assignments or (), repeats=repeats, seed=seed)
    from ..training.finetune import finetune

    finetune(shards, out, settings, None if init == "random" else to_path(init))
    _print_run(out, as_json)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(parser=to_path, help="Folders of pretraining and finetuning runs."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            parser=to_path, help="HTML file; its table is written next to it, as .csv and .md."
        ),
    ],
) -> None:
    """Write an HTML report on runs, its table as CSV and Markdown."""
    from ..reports.report import write_report

    for path in write_report(runs, out).values():
        print(path)


def reproduce(
    preset: Annotated[
        str,
        typer.Option(
            help="table1 to table5, figure3, or paper (all of them); small or real (for two "
            "cores); demo or smoke (simulated recordings)."
        ),
    ],
    out: Annotated[Path, typer.Option(parser=to_path, help="Folder for all results.")],
    data: Annotated[
        Path | None,
        typer.Option(parser=to_path, help="Folder with a subfolder for each real data set."),
    ] = None,
    only: Annotated[
        str, typer.Option(help="Run only finetunings of these names, such as 'random*'.")
    ] = "*",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Concurrent trainings. [as many as fit in GPU memory]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the commands and their costs.")
    ] = False,
    tflops: Annotated[
        float, typer.Option(min=0.001, help="With --dry-run: speed of the GPU, 10^12 operations/s.")
    ] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="With --dry-run: print the plan as JSON.")
    ] = False,
) -> None:
    """Run a whole experiment; finished steps are skipped."""
    from ..experiments.plan import plan
    from ..experiments.presets import PRESETS

    if as_json and not dry_run:
        raise EcgpipeError("--json: goes with --dry-run; each step of a run prints its own result")
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


def _print_run(path: Path, as_json: bool) -> None:
    from ..reports.summary import outcome, summary

    print_json(outcome(path)) if as_json else print(summary(path))
