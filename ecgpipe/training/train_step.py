"""The training step: forward and backward of a few batches, then an update of the weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import Training
from ..errors import EcgpipeError, LoaderDied
from ..models.resnet import standardise
from ..tasks.objectives import SINGLE_LABEL, Objective
from ..types import Batch
from .device import Device, Replay
from .history import Meter
from .processes import Ranks, Stop

READ_LOSSES = 64  # updates on a GPU after which losses are read, which waits for the GPU
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
SHOWN_KEYS = 8  # keys in a message


class Diverged(EcgpipeError):
    """A loss that is no number, with the keys of its batch."""

    def __init__(self, loss: float, keys: list[str]) -> None:
        shown = ", ".join(keys[:SHOWN_KEYS]) + ("…" if len(keys) > SHOWN_KEYS else "")
        super().__init__(
            f"the training loss became {loss} at the batch of {shown}; lower optimiser.lr, set "
            "clip, or look at these records"
        )
        self.keys = keys


@dataclass(frozen=True)
class EpochSums:
    """EpochSums over the updates of an epoch so far, in this process."""

    steps: int = 0
    loss: float = 0.0  # of all items, nats
    correct: float = 0.0  # decisions
    seen: float = 0.0  # items
    seconds: float = 0.0  # before this process was started

    @property
    def mean_loss(self) -> float:
        """Loss of an item, nats."""
        return self.loss / self.seen if self.seen else float("nan")

    def mean_of(self, ranks: Ranks) -> EpochSums:
        """The mean of the sums of all processes."""
        loss, correct, seen = ranks.means([self.loss, self.correct, self.seen])
        return replace(self, loss=loss, correct=correct, seen=seen)

    def row(self) -> dict[str, float]:
        """Columns of the history."""
        return {"train_loss": self.mean_loss, "train_accuracy": self.correct / self.seen}


class BatchResult(NamedTuple):
    """Loss and accuracy of one batch, not yet read from the device."""

    outcome: Tensor  # (2,) float32 on the device: mean loss of an item, right decisions
    items: int
    keys: Any  # of the items


class TrainStep:
    """Updates a network by batches."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        settings: Training,
        device: Device,
        ranks: Ranks,
        objective: Objective = SINGLE_LABEL,
    ) -> None:
        self.network, self.optimiser, self.settings = network, optimiser, settings
        self.device, self.ranks, self.objective = device, ranks, objective
        self.batches_per_update = settings.accumulate // ranks.count  # in this process
        self.norms = [part for part in network.modules() if isinstance(part, BATCH_NORMS)]
        self.momenta = [norm.momentum or 0.0 for norm in self.norms]
        grouped: Any = network
        if ranks.grouped:
            with warnings.catch_warnings():  # torch 2.13 has another name for it, 2.8 has not
                warnings.simplefilter("ignore", FutureWarning)
                grouped = DistributedDataParallel(grouped, broadcast_buffers=False)
        self.no_sync = grouped.no_sync if ranks.grouped else nullcontext
        self.plain = self.compiled = grouped
        if settings.compile != "no":
            self.compiled = torch.compile(grouped, mode=settings.compile)
        self.replay: Replay | None = None
        own_graphs = settings.compile in ("reduce-overhead", "max-autotune")
        single = self.batches_per_update == 1 and not ranks.grouped
        if settings.cuda_graph and device.is_gpu and single and not own_graphs:
            self.replay = Replay(lambda batch: self._compute([batch])[0], device)

    def updates(
        self, batches: Iterable[Batch], done: EpochSums, meter: Meter, stop: Stop
    ) -> Iterator[EpochSums]:
        """Update the weights by all batches; gives the sums after every update.

        Ends with the batches, or, in all processes alike, after the update in which one of them
        was asked to stop.

        Raises
        ------
        Diverged
            A loss is not a number.
        LoaderDied
            After the last sums.
        """
        self.network.train()
        before = done.seconds
        pending: list[BatchResult] = []
        source = self.device.prefetch(meter.waiting(batches))
        died: LoaderDied | None = None
        while True:
            try:
                group = list(islice(source, self.batches_per_update))
            except LoaderDied as error:
                died, group = error, []
            if not group:
                break
            outcomes = self._update(group)
            pending += [
                BatchResult(outcome, len(batch.y), batch.keys)
                for outcome, batch in zip(outcomes, group, strict=True)
            ]
            meter.step(sum(len(batch.y) for batch in group))
            ended = self.ranks.any(stop.asked)
            done = replace(done, steps=done.steps + 1, seconds=before + meter.seconds)
            if not self.device.is_gpu or ended or done.steps % READ_LOSSES == 0:
                done, pending = _add(done, pending), []
                meter.add_gaps()
            yield done
            if ended:
                return
        if pending:
            yield _add(done, pending)
        if died:
            raise died

    def _update(self, group: list[Batch]) -> list[Tensor]:
        """One update by a few batches; gives the outcome of each, not yet read."""
        if self.replay and len(group[0].y) == self.settings.batch and self.replay.fits(group[0]):
            return [self.replay(group[0])]
        return self._compute(group)

    def _compute(self, group: list[Batch]) -> list[Tensor]:
        items = sum(len(batch.y) for batch in group)
        outcomes = []
        self.optimiser.zero_grad(set_to_none=True)
        for position, batch in enumerate(group):
            self._share_statistics(position, len(group))
            # Compiling takes minutes for each shape: only whole batches use the compiled network.
            whole = len(batch.y) == self.settings.batch
            with nullcontext() if position + 1 == len(group) else self.no_sync():
                scores = forward(self.compiled if whole else self.plain, batch, self.device)
                loss = self.objective.losses(scores, batch.y).mean()
                (loss * (len(batch.y) / items)).backward()
            right = self.objective.right(scores.detach(), batch.y).sum()
            outcomes.append(torch.stack([loss.detach(), right]))
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimiser.step()
        return outcomes

    def _share_statistics(self, position: int, count: int) -> None:
        """Set the momentum so that an update moves the running statistics by its batches' mean.

        Each of the n batches then counts for m / n at momentum m, whatever their order. Those
        before the last get a larger momentum, because later batches reduce their share.
        """
        if self.batches_per_update == 1:
            return
        for norm, momentum in zip(self.norms, self.momenta, strict=True):
            share = momentum / count
            norm.momentum = share / (1 - (count - 1 - position) * share)


def forward(network: Any, batch: Batch, device: Device) -> Tensor:
    """Scores (n, classes or candidates) float32 of a batch on the device."""
    with device.autocast():
        x = standardise(batch.x, batch.scale, batch.offset, batch.length)
        scores: Tensor = network(x) if batch.candidates is None else network(x, batch.candidates)
    return scores.float()


@torch.inference_mode()
def predict(
    network: nn.Module,
    batches: Iterable[Batch],
    device: Device,
    objective: Objective = SINGLE_LABEL,
) -> tuple[NDArray[Any], NDArray[np.float64], float]:
    """Labels (n,) or (n, classes), probabilities (n, classes) and the mean loss over batches."""
    network.eval()
    labels, probabilities, losses = [], [], []
    for arrays in batches:
        batch = device.move(arrays)
        scores = forward(network, batch, device).double()
        losses.append(objective.losses(scores, batch.y).sum())
        labels.append(batch.y)
        probabilities.append(objective.probability(scores))
    label = torch.cat(labels).cpu().numpy()
    total = sum(torch.stack(losses).tolist())
    return label, torch.cat(probabilities).cpu().numpy(), total / len(label)


def _add(done: EpochSums, pending: list[BatchResult]) -> EpochSums:
    """Read the results from the device and add them up; refuse a loss that is no number."""
    outcomes = torch.stack([result.outcome for result in pending]).tolist()
    loss, correct, seen = done.loss, done.correct, done.seen
    for (value, right), (_, items, keys) in zip(outcomes, pending, strict=True):
        if not np.isfinite(value):
            raise Diverged(value, list(keys))
        loss, correct, seen = loss + value * items, correct + right, seen + items
    return replace(done, loss=loss, correct=correct, seen=seen)
