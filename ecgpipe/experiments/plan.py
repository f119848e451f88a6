"""The plan of an experiment: its commands in order, and what each needs.

The plan holds no state. Every command continues or skips finished work, by the digests of its
settings and data, so the same plan can be executed again, also on another machine with the folder.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import Literal

from ..errors import EcgpipeError
from .presets import PRESETS, Preset, Row, paper_length

Stage = Literal["simulate", "prepare", "shard", "pretrain", "finetune", "report"]
UPSTREAM_FS = 250  # Hz, at which all networks are pretrained


@dataclass(frozen=True)
class Step:
    """One command of an experiment."""

    name: str  # unique in its plan, such as prepare/icentia11k
    command: tuple[str, ...]  # arguments of the ecgpipe command line
    needs: tuple[str, ...]  # names of the steps whose output it reads
    output: Path  # a folder, or the file of the report
    stage: Stage
    row: Row | None = None  # of a finetuning

    def __str__(self) -> str:
        """Return the command as typed in a shell."""
        return shlex.join(("ecgpipe", *self.command))


def plan(preset: str, out: Path, data: Path | None = None, only: str = "*") -> list[Step]:
    """List the steps of an experiment, each after those it needs.

    Finetunings share their shards and the pretrained networks that they start from.

    Parameters
    ----------
    preset
        A key of ``PRESETS``.
    out
        Folder for everything that the experiment makes.
    data
        Folder of the real data sets, each in a subfolder of its name; only for presets on real
        recordings.
    only
        A shell pattern for the names of the finetunings, such as ``random*``.

    Raises
    ------
    EcgpipeError
        An unknown preset, a pattern that matches nothing, missing data, or data given to a preset
        that simulates them.
    """
    if preset not in PRESETS:
        raise EcgpipeError(f"preset {preset}: unknown; take one of {', '.join(PRESETS)}")
    chosen = PRESETS[preset]
    rows = [row for row in chosen.rows if fnmatch(row.name, only)]
    if not rows:
        names = ", ".join(row.name for row in chosen.rows)
        raise EcgpipeError(f"--only {only}: matches none of {names}")
    _check_data(preset, rows, data)
    starts = dict.fromkeys((row.start, row.depth) for row in rows if row.start != "random")
    upstream = _upstream(preset, data) if starts else ()
    read = [(dataset, UPSTREAM_FS) for dataset in upstream]
    read += [(row.downstream, row.fs) for row in rows]
    archives = [
        _archive(name, chosen, out, data) for name in dict.fromkeys(name for name, _ in read)
    ]
    shards = {(dataset, fs): _shard(dataset, fs, out) for dataset, fs in read}
    pretrain_shards = [shards[dataset, UPSTREAM_FS] for dataset in upstream]
    networks = {
        (start, depth): _pretrain(start, depth, pretrain_shards, chosen, out)
        for start, depth in starts
    }
    trainings = list(networks.values())
    for row in rows:
        network = networks.get((row.start, row.depth))
        trainings.append(_finetune(row, shards[row.downstream, row.fs], network, chosen, out))
    report = Step(
        "report",
        ("report", *(str(step.output) for step in trainings), "--out", str(out / "report.html")),
        tuple(step.name for step in trainings),
        out / "report.html",
        "report",
    )
    return [*chain(*archives), *shards.values(), *trainings, report]


def _check_data(name: str, rows: Sequence[Row], data: Path | None) -> None:
    if PRESETS[name].simulated:
        if data is not None:
            why = f"preset {name} simulates its recordings; leave it out"
            raise EcgpipeError(f"--data {data}: {why}")
        return
    if data is None:
        raise EcgpipeError(f"preset {name}: name the folder of the recordings with --data")
    for folder in (data / row.downstream for row in rows):
        if not folder.is_dir():
            raise EcgpipeError(f"{folder}: no such folder; preset {name} needs it")


def _upstream(name: str, data: Path | None) -> tuple[str, ...]:
    """List the data sets for pretraining; of real ones, those whose folders exist."""
    upstream = PRESETS[name].upstream
    if data is None:
        return upstream
    found = tuple(dataset for dataset in upstream if (data / dataset).is_dir())
    if not found:
        missing = " nor ".join(str(data / dataset) for dataset in upstream)
        raise EcgpipeError(
            f"{missing}: no such folder; preset {name} pretrains on its recordings (--only "
            "'random*' leaves pretraining out)"
        )
    return found


def _archive(dataset: str, preset: Preset, out: Path, data: Path | None) -> list[Step]:
    """Steps to the archive of a data set; simulated recordings come first."""
    raw = out / "raw" / dataset if data is None else data / dataset
    archive = out / "archive" / dataset
    prepare = ("prepare", dataset, str(raw), str(archive))
    if not preset.simulated:
        return [Step(f"prepare/{dataset}", prepare, (), archive, "prepare")]
    simulate = ("simulate", dataset, str(raw), *preset.simulate.get(dataset, ()))
    made = Step(f"simulate/{dataset}", simulate, (), raw, "simulate")
    return [made, Step(f"prepare/{dataset}", prepare, (made.name,), archive, "prepare")]


def _shard(dataset: str, fs: int, out: Path) -> Step:
    name = dataset + (f"-{fs}Hz" if fs != UPSTREAM_FS else "")
    shards = out / "shards" / name
    command = ("shard", str(out / "archive" / dataset), str(shards), "--fs", str(fs))
    return Step(f"shard/{name}", command, (f"prepare/{dataset}",), shards, "shard")


def _pretrain(start: str, depth: int, shards: Sequence[Step], preset: Preset, out: Path) -> Step:
    name = start + (f"-resnet{depth}" if depth != 18 else "")
    settings = paper_length(start) if preset.pretrain is None else preset.pretrain
    if depth != 18:
        settings += (f"network.depth={depth}",)
    if depth == 50 and start.startswith("future"):
        settings += ("network.stages=3",)  # paper, Table 4
    output = out / "runs" / f"pretrain-{name}"
    command = (
        *("pretrain", *(str(step.output) for step in shards), "--out", str(output)),
        *("--preset", start, *_assignments(settings)),
    )
    needs = tuple(step.name for step in shards)
    return Step(f"pretrain/{name}", command, needs, output, "pretrain")


def _finetune(row: Row, shards: Step, network: Step | None, preset: Preset, out: Path) -> Step:
    settings = (*preset.finetune, *row.settings)
    if row.share is not None:
        settings += (f"train_share={row.share:g}",)
    if row.depth != 18:
        settings += (f"network.depth={row.depth}",)
    output = out / "runs" / f"finetune-{row.name}"
    command = (
        *("finetune", str(shards.output), "--out", str(output)),
        *("--init", str(network.output) if network else "random", *_assignments(settings)),
    )
    needs = (shards.name, network.name) if network else (shards.name,)
    return Step(f"finetune/{row.name}", command, needs, output, "finetune", row)


def _assignments(settings: Sequence[str]) -> Iterator[str]:
    for setting in settings:
        yield from ("--set", setting)
