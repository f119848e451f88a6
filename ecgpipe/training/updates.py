"""A pass over the batches of an epoch: forward, backward, and an update for every few batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import Training
from ..errors import EcgpipeError
from ..models.resnet import standardise
from ..tasks.objectives import SINGLE_LABEL, Objective
from ..types import Batch
from .cuda_graph import Replay
from .device import Device
from .meter import Meter
from .processes import Ranks
from .signals import Stop

LOOK = 64  # updates on a GPU between two looks at the losses, since a look waits for the GPU
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
SHOWN = 8  # keys in a message


class Diverged(EcgpipeError):
    """A loss that is no number, and the keys of the batch it came from."""

    def __init__(self, loss: float, keys: list[str]) -> None:
        shown = ", ".join(keys[:SHOWN]) + ("…" if len(keys) > SHOWN else "")
        super().__init__(
            f"the training loss became {loss} at the batch of {shown}; lower optimiser.lr, set "
            "clip, or look at these records"
        )
        self.keys = keys


@dataclass(frozen=True)
class Sums:
    """What the updates of an epoch came to so far, in this process."""

    steps: int = 0
    loss: float = 0.0
    correct: float = 0.0
    seen: float = 0.0
    seconds: float = 0.0  # before this process was started

    @property
    def mean_loss(self) -> float:
        """Of an item."""
        return self.loss / self.seen if self.seen else float("nan")

    def over(self, ranks: Ranks) -> Sums:
        """The mean of all processes' sums."""
        loss, correct, seen = ranks.means([self.loss, self.correct, self.seen])
        return replace(self, loss=loss, correct=correct, seen=seen)

    def row(self) -> dict[str, float]:
        """Columns of the history."""
        return {"train_loss": self.mean_loss, "train_accuracy": self.correct / self.seen}


class Result(NamedTuple):
    """What one batch came to, not awaited."""

    outcome: Tensor  # (2,) float32 on the device: mean loss of an item, number of right answers
    items: int
    keys: Any  # of the items


class Pass:
    """One network and its optimiser, to be taken through epochs."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        settings: Training,
        device: Device,
        ranks: Ranks,
        answer: Objective = SINGLE_LABEL,
    ) -> None:
        self.network, self.optimiser, self.settings = network, optimiser, settings
        self.device, self.ranks, self.answer = device, ranks, answer
        self.each = settings.accumulate // ranks.count  # batches of an update in this process
        self.norms = [part for part in network.modules() if isinstance(part, BATCH_NORMS)]
        self.momenta = [norm.momentum or 0.0 for norm in self.norms]
        grouped: Any = network
        if ranks.grouped:
            with warnings.catch_warnings():  # torch 2.13 has another name for it, 2.8 has not
                warnings.simplefilter("ignore", FutureWarning)
                grouped = DistributedDataParallel(grouped, broadcast_buffers=False)
        self.no_sync = grouped.no_sync if ranks.grouped else nullcontext
        self.plain = self.trained = grouped
        if settings.compile != "no":
            self.trained = torch.compile(grouped, mode=settings.compile)
        self.replay: Replay | None = None
        own_graphs = settings.compile in ("reduce-overhead", "max-autotune")
        wanted = settings.cuda_graph and not own_graphs and self.each == 1 and not ranks.grouped
        if wanted and device.is_gpu:
            self.replay = Replay(lambda batch: self._compute([batch])[0], device)

    def updates(
        self, batches: Iterable[Batch], done: Sums, meter: Meter, stop: Stop
    ) -> Iterator[Sums]:
        """Update the weights over and over; gives the sums after every update.

        Ends with the batches, or, in all processes alike, behind the update in which one of them
        was asked to stop.

        Raises
        ------
        Diverged
            A loss is not a number.
        """
        self.network.train()
        before = done.seconds
        waiting: list[Result] = []
        source = self.device.ahead(meter.waiting(batches))
        while group := list(islice(source, self.each)):
            outcomes = self._update(group)
            waiting += [
                Result(outcome, len(batch.y), batch.keys)
                for outcome, batch in zip(outcomes, group, strict=True)
            ]
            meter.step(sum(len(batch.y) for batch in group))
            ended = self.ranks.any(stop.asked)
            done = replace(done, steps=done.steps + 1, seconds=before + meter.seconds)
            if not self.device.is_gpu or ended or done.steps % LOOK == 0:
                done, waiting = _add(done, waiting), []
                meter.settle()
            yield done
            if ended:
                return
        if waiting:
            yield _add(done, waiting)

    def _update(self, group: list[Batch]) -> list[Tensor]:
        """One update by a few batches; the outcome of each, not awaited."""
        if self.replay and len(group[0].y) == self.settings.batch and self.replay.fits(group[0]):
            return [self.replay(group[0])]
        return self._compute(group)

    def _compute(self, group: list[Batch]) -> list[Tensor]:
        items = sum(len(batch.y) for batch in group)
        outcomes = []
        self.optimiser.zero_grad(set_to_none=True)
        for place, batch in enumerate(group):
            self._share_statistics(place, len(group))
            # Compiled is the network for whole batches alone: each other shape would take minutes.
            whole = len(batch.y) == self.settings.batch
            with nullcontext() if place + 1 == len(group) else self.no_sync():
                scores = answers(self.trained if whole else self.plain, batch, self.device)
                loss = self.answer.losses(scores, batch.y).mean()
                (loss * (len(batch.y) / items)).backward()
            right = self.answer.right(scores.detach(), batch.y).sum()
            outcomes.append(torch.stack([loss.detach(), right]))
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimiser.step()
        return outcomes

    def _share_statistics(self, place: int, count: int) -> None:
        """Let an update move the running statistics once, by the mean of its batches' statistics.

        Then neither their order matters, nor which process has which of them. With momentum m the
        last of n batches counts for m / n at momentum m / n, those before it for as much at a
        momentum that makes up for what the later ones take away.
        """
        if self.each == 1:
            return
        for norm, momentum in zip(self.norms, self.momenta, strict=True):
            share = momentum / count
            norm.momentum = share / (1 - (count - 1 - place) * share)


def answers(network: Any, batch: Batch, device: Device) -> Tensor:
    """The scores (n, classes or candidates) of a batch on the device, float32."""
    with device.autocast():
        x = standardise(batch.x, batch.scale, batch.offset, batch.length)
        scores: Tensor = network(x) if batch.candidates is None else network(x, batch.candidates)
    return scores.float()


def _add(done: Sums, waiting: list[Result]) -> Sums:
    """Add up what the device has come to; refuse a loss that is no number."""
    outcomes = torch.stack([result.outcome for result in waiting]).tolist()
    loss, correct, seen = done.loss, done.correct, done.seen
    for (value, right), (_, items, keys) in zip(outcomes, waiting, strict=True):
        if not np.isfinite(value):
            raise Diverged(value, list(keys))
        loss, correct, seen = loss + value * items, correct + right, seen + items
    return replace(done, loss=loss, correct=correct, seen=seen)
