"""The plan of an experiment: which commands, in which order, and what each needs.

The plan holds no state. Every command continues or skips what is already done, by the digests of
its settings and data, so executing a plan again repairs whatever the first time left, here or on
another machine that has the folder.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from ..errors import EcgpipeError
from .presets import PRESETS, Preset, Row, length

Stage = Literal["simulate", "prepare", "shard", "pretrain", "finetune", "report"]
UPSTREAM_FS = 250  # Hz, at which all networks are pretrained


@dataclass(frozen=True)
class Step:
    """One command of an experiment."""

    name: str  # unique in its plan, such as prepare/icentia11k
    command: tuple[str, ...]  # arguments of the ecgpipe command line
    needs: tuple[str, ...]  # names of the steps whose output it reads
    output: Path  # what it makes: a folder, or the report's file
    stage: Stage
    row: Row | None = None  # of a finetuning

    def __str__(self) -> str:
        """Give the command as one types it."""
        return shlex.join(("ecgpipe", *self.command))


def plan(preset: str, out: Path, data: Path | None = None, only: str = "*") -> list[Step]:
    """List the steps of an experiment, each after those it needs.

    Pretrained networks and shards are shared by all finetunings that start from or read the same.

    Parameters
    ----------
    preset
        A name in ``PRESETS``.
    out
        Folder for everything that the experiment makes.
    data
        Folder that holds the real data sets, each in a folder of its own name; for presets on
        real recordings only.
    only
        A shell pattern that the names of the finetunings must match, such as ``random*``.

    Raises
    ------
    EcgpipeError
        An unknown preset, a pattern that nothing matches, or data that are missing or not asked
        for.
    """
    if preset not in PRESETS:
        raise EcgpipeError(
            f"preset {preset}: there is none of that name; take one of {', '.join(PRESETS)}"
        )
    chosen = PRESETS[preset]
    rows = [row for row in chosen.rows if fnmatch(row.name, only)]
    if not rows:
        names = ", ".join(row.name for row in chosen.rows)
        raise EcgpipeError(f"--only {only}: matches none of {names}")
    _check_data(preset, chosen, rows, data)
    starts = {(row.start, row.depth): row for row in rows if row.start != "random"}
    upstream = _upstream(preset, chosen, data) if starts else ()
    read = dict.fromkeys(
        (*((name, UPSTREAM_FS) for name in upstream), *((row.downstream, row.fs) for row in rows))
    )
    steps: list[Step] = []
    for dataset in dict.fromkeys(name for name, _ in read):
        steps += _archive(dataset, chosen, out, data)
    steps += [_shard(dataset, fs, out) for dataset, fs in read]
    shards = {step.name: step.output for step in steps if step.stage == "shard"}
    training = [_pretrain(row, upstream, chosen, out, shards) for row in starts.values()]
    training += [_finetune(row, chosen, out, shards) for row in rows]
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
    if data is None:
        return preset.upstream
    found = tuple(dataset for dataset in preset.upstream if (data / dataset).is_dir())
    if not found:
        looked = " nor ".join(str(data / dataset) for dataset in preset.upstream)
        raise EcgpipeError(
            f"{looked}: no such folder; preset {name} pretrains on its recordings (--only "
            "'random*' leaves pretraining out)"
        )
    return found


def _check_data(name: str, preset: Preset, rows: list[Row], data: Path | None) -> None:
    if preset.simulated and data is not None:
        raise EcgpipeError(f"--data {data}: preset {name} simulates its recordings; leave it out")
    if preset.simulated:
        return
    if data is None:
        raise EcgpipeError(f"preset {name}: name the folder of the recordings with --data")
    for dataset in dict.fromkeys(row.downstream for row in rows):
        if not (data / dataset).is_dir():
            raise EcgpipeError(f"{data / dataset}: no such folder; preset {name} needs it")


def _archive(dataset: str, preset: Preset, out: Path, data: Path | None) -> Iterator[Step]:
    """Yield the steps from nothing, or from real recordings, to the archive of one data set."""
    raw = data / dataset if data is not None else out / "raw" / dataset
    archive = out / "archive" / dataset
    needs: tuple[str, ...] = ()
    if preset.simulated:
        simulate = ("simulate", dataset, str(raw), *preset.simulate.get(dataset, ()))
        yield Step(f"simulate/{dataset}", simulate, (), raw, "simulate")
        needs = (f"simulate/{dataset}",)
    prepare = ("prepare", dataset, str(raw), str(archive))
    yield Step(f"prepare/{dataset}", prepare, needs, archive, "prepare")


def _shard(dataset: str, fs: int, out: Path) -> Step:
    name = _shards(dataset, fs)
    shards = out / name.replace("shard/", "shards/")
    command = ("shard", str(out / "archive" / dataset), str(shards), "--fs", str(fs))
    return Step(name, command, (f"prepare/{dataset}",), shards, "shard")


def _shards(dataset: str, fs: int) -> str:
    """Name of the step that makes the shards of a set at a rate."""
    return f"shard/{dataset}" + (f"-{fs}Hz" if fs != UPSTREAM_FS else "")


def _pretrain(
    row: Row, upstream: tuple[str, ...], preset: Preset, out: Path, shards: dict[str, Path]
) -> Step:
    name = _pretraining(row)
    needs = tuple(_shards(dataset, UPSTREAM_FS) for dataset in upstream)
    settings = length(row.start) if preset.pretrain is None else preset.pretrain
    if row.depth != 18:
        settings += (f"network.depth={row.depth}",)
    if row.depth == 50 and row.start.startswith("future"):
        settings += ("network.stages=3",)  # paper, Table 4
    output = out / "runs" / name.replace("/", "-")
    command = (
        *("pretrain", *(str(shards[need]) for need in needs), "--out", str(output)),
        *("--preset", row.start, *_assignments(settings)),
    )
    return Step(name, command, needs, output, "pretrain")


def _pretraining(row: Row) -> str:
    """Name of the step that trains what a finetuning starts from."""
    return f"pretrain/{row.start}" + (f"-resnet{row.depth}" if row.depth != 18 else "")


def _finetune(row: Row, preset: Preset, out: Path, shards: dict[str, Path]) -> Step:
    needs: tuple[str, ...] = (_shards(row.downstream, row.fs),)
    init = "random"
    if row.start != "random":
        needs += (_pretraining(row),)
        init = str(out / "runs" / _pretraining(row).replace("/", "-"))
    settings = (*preset.finetune, *row.settings)
    if row.share is not None:
        settings += (f"train_share={row.share:g}",)
    if row.depth != 18:
        settings += (f"network.depth={row.depth}",)
    output = out / "runs" / f"finetune-{row.name}"
    command = (
        *("finetune", str(shards[needs[0]]), "--out", str(output), "--init", init),
        *_assignments(settings),
    )
    return Step(f"finetune/{row.name}", command, needs, output, "finetune", row)


def _assignments(settings: tuple[str, ...]) -> Iterator[str]:
    for setting in settings:
        yield from ("--set", setting)
