"""Cost of a plan before it runs: trainings, frames, recordings, hours on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..config import FinetuneSettings, Network, PretrainSettings, load
from ..models.resnet import ResNet
from ..tasks import TASKS
from ..training.splits import DEFAULT_SHARE, TRAINING_FOLDS
from .plan import Step
from .presets import RECORDS, Row, pretraining

TRAIN = 3  # cost of a forward and a backward pass, in forward passes
FOLDS = 10  # of PTB-XL, of about equal size
LEADS = {"cinc2017": 1, "ptbxl": 12, "icbeb2018": 12}


class Cost(NamedTuple):
    """Maximum cost of a step; early stopping makes a finetuning cheaper."""

    trainings: int = 0
    frames: int = 0  # read in pretraining
    recordings: int = 0  # forward passes of recordings in finetuning, with and without training
    flops: float = 0.0

    def hours(self, tflops: float) -> float:
        """Hours on a GPU that sustains so many 10^12 operations per second."""
        return self.flops / tflops / 1e12 / 3600

    def text(self, tflops: float) -> str:
        """Describe the cost in words; zeros are left out."""
        parts = [
            f"{self.frames / 1e6:,.3g} million frames" if self.frames else "",
            f"{self.recordings / 1e6:,.3g} million recordings" if self.recordings else "",
            f"{self.hours(tflops):,.3g} GPU hours",
        ]
        return ", ".join(filter(None, parts))


def cost(step: Step, records: Mapping[str, int] = RECORDS) -> Cost:
    """The cost of a step; only trainings have one.

    ``records`` is the number of recordings in each downstream set.
    """
    settings = [value for flag, value in pairwise(step.command) if flag == "--set"]
    if step.stage == "pretrain":
        preset = pretraining(step.command[step.command.index("--preset") + 1], None)
        return _pretraining(load(PretrainSettings, assignments=settings, preset=preset))
    if step.row is not None:
        chosen = load(FinetuneSettings, assignments=settings)
        return _finetuning(chosen, step.row, records[step.row.downstream])
    return Cost()


def _pretraining(settings: PretrainSettings) -> Cost:
    per_item = settings.future.context + 1 if settings.task == "future" else 1
    frames = settings.epochs * settings.steps * settings.batch * settings.accumulate * per_item
    forward = _flops(settings.network, 1, settings.frame)
    return Cost(1, frames, 0, TRAIN * forward * frames)


def _finetuning(settings: FinetuneSettings, row: Row, records: int) -> Cost:
    train, validation, test = (round(share * records) for share in _shares(settings, row))
    trained, predicted = settings.epochs * train, settings.epochs * validation
    # The best epoch predicts once more, on the splits whose predictions are saved.
    predicted += validation + test + train * (TASKS[row.downstream].answer == "many_of")
    forward = _flops(settings.network, LEADS[row.downstream], round(settings.seconds * row.fs))
    recordings = settings.repeats * (trained + predicted)
    flops = settings.repeats * forward * (TRAIN * trained + predicted)
    return Cost(settings.repeats, 0, recordings, flops)


def _shares(settings: FinetuneSettings, row: Row) -> tuple[float, float, float]:
    """Shares of all recordings for training, validation and test."""
    if row.downstream == "ptbxl" and settings.official_folds:
        folds = len(TRAINING_FOLDS) / FOLDS
        return min(settings.train_share or folds, folds), 1 / FOLDS, 1 / FOLDS
    share = DEFAULT_SHARE if settings.train_share is None else settings.train_share
    return share, settings.validation_share, settings.test_share


@lru_cache
def _flops(network: Network, leads: int, samples: int) -> float:
    """Count the floating-point operations of a forward pass over one item, without computing it."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        ResNet(2, leads, **network.model_dump())(torch.empty(1, leads, samples))
    return float(counter.get_total_flops())


def script(steps: Sequence[Step], records: Mapping[str, int], tflops: float) -> Iterator[str]:
    """The plan as a shell script: commands with their costs as comments, and the totals."""
    costs = [cost(step, records) for step in steps]
    for step, one in zip(steps, costs, strict=True):
        yield str(step) + (f"  # {one.text(tflops)}" if one.trainings else "")
    total = Cost(*map(sum, zip(*costs, strict=True)))
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
    """The plan as plain values: command, needs, output and cost of every step."""
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
