"""What a plan costs, before anything is run: trainings, frames, recordings, hours on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..config import FinetuneSettings, Network, PretrainSettings, load
from ..models.resnet import ResNet
from ..tasks import TASKS
from ..training.splits import DEFAULT_SHARE, TRAINING_FOLDS
from .plan import Step
from .presets import RECORDS, Row, pretraining

BACKWARD = 3  # times the cost of a forward pass, with the backward one
FOLDS = 10  # of PTB-XL, about equally large
LEADS = {"cinc2017": 1, "ptbxl": 12, "icbeb2018": 12}


@dataclass(frozen=True)
class Cost:
    """What a training comes to at the most; patience ends a finetuning earlier."""

    trainings: int = 0
    frames: int = 0  # of pretraining
    recordings: int = 0  # that go through the network in finetuning, training or not
    flops: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )

    def hours(self, tflops: float) -> float:
        """On a GPU that sustains so many 10^12 operations a second."""
        return self.flops / tflops / 1e12 / 3600

    def text(self, tflops: float) -> str:
        """In words, without what there is none of."""
        parts = [
            f"{self.frames / 1e6:,.3g} million frames" if self.frames else "",
            f"{self.recordings / 1e6:,.3g} million recordings" if self.recordings else "",
            f"{self.hours(tflops):,.3g} GPU hours",
        ]
        return ", ".join(filter(None, parts))


def cost(step: Step, records: Mapping[str, int] = RECORDS) -> Cost:
    """The cost of a step; only trainings have one.

    Parameters
    ----------
    records
        Recordings by downstream set; by default as many as the paper counts.
    """
    settings = [value for flag, value in pairwise(step.command) if flag == "--set"]
    if step.stage == "pretrain":
        preset = pretraining(step.command[step.command.index("--preset") + 1], None)
        return _of_pretraining(load(PretrainSettings, assignments=settings, preset=preset))
    if step.row is not None:
        chosen = load(FinetuneSettings, assignments=settings)
        return _of_finetuning(chosen, step.row, records[step.row.downstream])
    return Cost()


def _of_pretraining(settings: PretrainSettings) -> Cost:
    each = settings.future.context + 1 if settings.task == "future" else 1
    frames = settings.epochs * settings.steps * settings.batch * settings.accumulate * each
    forward = _flops(settings.network, 1, settings.frame)
    return Cost(1, frames, 0, BACKWARD * forward * frames)


def _of_finetuning(settings: FinetuneSettings, row: Row, records: int) -> Cost:
    train, validation, test = (round(share * records) for share in _shares(settings, row))
    trained, checked = settings.epochs * train, settings.epochs * validation
    # The epoch kept answers once more, on the sides whose predictions are saved.
    checked += validation + test + train * (TASKS[row.downstream].answer == "many_of")
    forward = _flops(settings.network, LEADS[row.downstream], round(settings.seconds * row.fs))
    return Cost(
        settings.repeats,
        0,
        settings.repeats * (trained + checked),
        settings.repeats * forward * (BACKWARD * trained + checked),
    )


def _shares(settings: FinetuneSettings, row: Row) -> tuple[float, float, float]:
    """Shares of all recordings that train, validate and test; of folds, as many tenths."""
    if row.downstream == "ptbxl" and settings.official_folds:
        folds = len(TRAINING_FOLDS) / FOLDS
        return min(settings.train_share or folds, folds), 1 / FOLDS, 1 / FOLDS
    share = DEFAULT_SHARE if settings.train_share is None else settings.train_share
    return share, settings.validation_share, settings.test_share


@lru_cache
def _flops(network: Network, leads: int, samples: int) -> float:
    """Floating-point operations of a forward pass over one item, counted without computing it."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        ResNet(2, leads, **network.model_dump())(torch.empty(1, leads, samples))
    return float(counter.get_total_flops())


def told(steps: Sequence[Step], records: Mapping[str, int], tflops: float) -> Iterator[str]:
    """The plan as commands with their costs as comments, and its sums: a shell script."""
    total = Cost()
    for step in steps:
        one = cost(step, records)
        total += one
        yield str(step) + (f"  # {one.text(tflops)}" if one.trainings else "")
    counts = Counter(step.stage for step in steps)
    yield (
        f"# {counts['prepare']} archives, {counts['shard']} sets of shards, "
        f"{counts['pretrain']} pretrainings, {counts['finetune']} finetunings "
        f"({total.trainings - counts['pretrain']} trainings)"
    )
    yield (
        f"# at the most {total.text(tflops)}, if the GPU sustains {tflops:g} TFLOP/s (--tflops): "
        "an assumption, not a measurement"
    )


def as_json(
    steps: Sequence[Step], records: Mapping[str, int], tflops: float
) -> list[dict[str, Any]]:
    """The plan as plain values: of every step its command, what it needs and makes, its cost."""
    return [
        {
            "name": step.name,
            "stage": step.stage,
            "command": ["ecgpipe", *step.command],
            "needs": list(step.needs),
            "output": str(step.output),
            "trainings": one.trainings,
            "frames": one.frames,
            "recordings": one.recordings,
            "gpu_hours": one.hours(tflops),
        }
        for step in steps
        for one in [cost(step, records)]
    ]
