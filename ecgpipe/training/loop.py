"""The training loop: epochs, validation, the best weights, and exact continuation.

A checkpoint holds everything that the next step depends on; a batch depends on its epoch and its
position alone. So a run that was interrupted ends with the same weights, on a CPU bit for bit. A
checkpoint is written at the end of an epoch, not of every one where epochs are short, and after the
step in which the training is asked to stop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ..config import Training
from ..errors import Damaged, EcgpipeError, Interrupted, LoaderDied
from ..files.atomic import write_text
from ..files.paths import exists, is_remote, remove
from ..progress import Progress, say
from ..tasks.objectives import SINGLE_LABEL, Objective
from ..types import Batch
from .device import Device
from .history import Meter, clock, line, write_events, write_history
from .processes import ALONE, Ranks, Stop
from .run_description import ModelCard
from .run_folder import HISTORY, MODEL, load, save
from .train_step import Diverged, EpochSums, TrainStep, predict

LAST, PREVIOUS, DIVERGED = "last.pt", "previous.pt", "diverged.txt"
TENSORBOARD = "tensorboard"
SAVING = 0.05  # largest share of time for checkpoints; an epoch can be shorter than saving one
NOTHING_DONE = EpochSums()


class SizedBatches(Sized, Iterable[Batch], Protocol):
    """Batches whose number is known."""


@dataclass(frozen=True)
class Plan:
    """What is trained on, for how long, and how the best epoch is chosen."""

    title: str
    epochs: int
    batches: Callable[[int, int], SizedBatches]  # by epoch, from 1, and updates done in it
    validation: Callable[[], Iterable[Batch]]
    best: str  # what chooses the epoch: a validation score, or "loss"
    patience: int | None  # epochs without a better training accuracy; None never stops early
    card: ModelCard | None  # goes into the model file with the weights
    objective: Objective = SINGLE_LABEL

    def merit(self, row: dict[str, float]) -> float:
        """Score of an epoch, higher is better; of equal epochs the first is kept."""
        value = row[f"validation_{self.best}"]
        return -value if self.best == "loss" else value


def new_network(build: Callable[[], Any], *seed: int) -> Any:
    """Build a network whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(
            int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0] >> 1)
        )
        return build()


def fit(
    network: nn.Module,
    plan: Plan,
    settings: Training,
    device: Device,
    run: Path,
    ranks: Ranks = ALONE,
) -> None:
    """Train a network, or continue; the best weights go to ``run/model.pt`` and the network.

    Raises
    ------
    EcgpipeError
        The loss is not a number, or TensorBoard is asked for and not installed.
    Interrupted
        SIGTERM or Ctrl-C came; the step it came in is finished and saved.
    """
    if settings.tensorboard and (is_remote(run) or not find_spec("tensorboard")):
        why = (
            f"writes to folders of this machine alone, not to {run}"
            if is_remote(run)
            else "is not installed; pip install 'ecgpipe[tensorboard]'"
        )
        raise EcgpipeError(f"setting tensorboard: it {why}")
    training = _Training(network, plan, settings, device, run, ranks)
    training.resume()
    with Stop() as stop:
        while len(training.history) < plan.epochs and not _stalled(training.history, plan.patience):
            training.epoch(stop)
            if ranks.any(stop.asked):
                training.save()
                raise Interrupted(f"saved after epoch {len(training.history)}")
    training.end()


@dataclass
class _Training:
    """The state of a training, as a checkpoint holds it, and its epochs."""

    network: nn.Module
    plan: Plan
    settings: Training
    device: Device
    run: Path
    ranks: Ranks

    def __post_init__(self) -> None:
        adam = self.settings.optimiser
        self.optimiser = torch.optim.Adam(
            self.network.to(self.device.device).parameters(),
            lr=adam.lr,
            betas=(adam.beta1, adam.beta2),
            eps=adam.eps,
            fused=True,
            capturable=self.device.is_gpu,  # its step may be part of a CUDA graph
        )
        self.history: list[dict[str, float]] = []
        self.done = EpochSums()  # of the unfinished epoch
        self.best: dict[str, Any] | None = None  # model file of the best epoch, if not yet written
        self.saved = -np.inf  # s, time of the last checkpoint
        self.saving = 0.0  # s, how long it took

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        files = [self.run / name for name in (LAST, PREVIOUS) if exists(self.run / name)]
        if files:
            self._load(files)
            if self.ranks.first:
                where = f"update {self.done.steps} of epoch" if self.done.steps else "epoch"
                number = len(self.history) + (self.done.steps > 0)
                say(f"{self.plan.title}: continuing after {where} {number} of {self.plan.epochs}")
        objective = self.plan.objective
        self.train_step = TrainStep(
            self.network, self.optimiser, self.settings, self.device, self.ranks, objective
        )

    def _load(self, files: Sequence[Path]) -> None:
        """Load the first checkpoint that can be read.

        Raises
        ------
        Damaged
            None can.
        """
        for file in files:
            try:
                last = load(file)
                self.network.load_state_dict(last["network"])
                self.optimiser.load_state_dict(last["optimiser"])
                self.history, self.done = last["history"], EpochSums(**last["done"])
            except torch.OutOfMemoryError:  # the file is right, and the device is full
                raise
            except (Damaged, LookupError, TypeError, RuntimeError, ValueError) as error:
                say(f"{file}: damaged ({error}); going back to the checkpoint before it")
            else:
                for group in self.optimiser.param_groups:  # it may come from another device
                    group["capturable"] = self.device.is_gpu
                return
        raise Damaged(f"{files[0]}: no checkpoint can be read; remove the run, and train it anew")

    def epoch(self, stop: Stop) -> None:
        """Train and validate one epoch, or the rest of one.

        Raises
        ------
        Interrupted
            It was asked to stop before the end of the epoch; what was done is saved.
        LoaderDied
            A loader process was killed; what was done is saved, unless several processes train.
        """
        plan, ranks, number = self.plan, self.ranks, len(self.history) + 1
        meter = Meter(self.device.device)
        try:
            finished = self._updates(number, meter, stop)
        except LoaderDied:
            if not ranks.grouped:  # the others would have to save with this process
                self.save()
            raise
        if not finished:
            self.save()
            raise Interrupted(f"saved after update {self.done.steps} of epoch {number}")
        row = {"epoch": float(number), **self.done.mean_of(ranks).row()}
        speed, start = meter.row(), time.monotonic()
        speed["items_per_second"] *= ranks.count
        ranks.average_buffers(self.network)
        scores = ranks.share(self._validate(stop) if ranks.first else None)
        if scores is None:  # a long validation is not finished first
            self.save()
            raise Interrupted(f"saved after the updates of epoch {number}")
        row |= scores | speed
        row["seconds"] = round(self.done.seconds + time.monotonic() - start, 2)
        best = max(map(plan.merit, self.history), default=-np.inf)
        self.history.append(row)
        self.done = EpochSums()
        if ranks.first:
            if plan.merit(row) > best:
                state = {name: value.clone() for name, value in self.network.state_dict().items()}
                card = plan.card.to_tree() if plan.card else {}
                self.best = {**card, "epoch": number, "network": state}
            if time.monotonic() - self.saved >= self.saving / SAVING:
                self._write()
            write_history(self.run / HISTORY, self.history)
            if self.settings.tensorboard:
                write_events(self.run / TENSORBOARD, row)
            say(line(plan.title, plan.epochs, plan.best, row))

    def _updates(self, number: int, meter: Meter, stop: Stop) -> bool:
        """The updates of an epoch, with progress; False if it was asked to stop."""
        before = self.done.steps
        batches = self.plan.batches(number, before)
        updates = -(-len(batches) // self.train_step.batches_per_update)
        title = f"{self.plan.title} epoch {number}/{self.plan.epochs}"
        shown = Progress(title, updates, "updates", shown=self.ranks.first)

        def note() -> str:
            to_go = (self.plan.epochs - number + 1) * (before + updates) - self.done.steps
            left = clock(to_go * meter.seconds / (self.done.steps - before))
            return f"loss {self.done.mean_loss:.3f}, {meter.note()}, {left} left"

        with shown as bar, _write_diverged(self.run / DIVERGED):
            for sums in self.train_step.updates(batches, self.done, meter, stop):
                stepped, self.done = sums.steps > self.done.steps, sums
                if not stepped:  # the losses of the last updates, which are awaited together
                    continue
                bar.step(note)
        return self.done.steps == before + updates

    def _validate(self, stop: Stop) -> dict[str, float] | None:
        """Scores on the validation items; None if it was asked to stop meanwhile."""

        def until_asked() -> Iterator[Batch]:
            for batch in self.plan.validation():
                if stop.asked:
                    raise Interrupted("while validating")
                yield batch

        objective = self.plan.objective
        try:
            label, probability, loss = predict(self.network, until_asked(), self.device, objective)
        except Interrupted:
            return None
        scores = objective.scores(label, probability)
        return {
            "validation_loss": loss,
            **{f"validation_{name}": score for name, score in scores.items()},
        }

    def save(self) -> None:
        """Save a checkpoint; all processes must call it together."""
        self.ranks.average_buffers(self.network)
        done = self.done.mean_of(self.ranks)
        if self.ranks.first:
            self._write(done)

    def _write(self, done: EpochSums = NOTHING_DONE) -> None:
        start = time.monotonic()
        if self.best:
            save(self.run / MODEL, self.best)
            self.best = None
        if exists(self.run / LAST) and not is_remote(self.run):
            os.replace(self.run / LAST, self.run / PREVIOUS)
        state = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict()}
        save(self.run / LAST, {**state, "history": self.history, "done": vars(done)})
        self.saved = time.monotonic()
        self.saving = self.saved - start

    def end(self) -> None:
        """Save what is not saved yet, and load the best weights."""
        self.train_step.replay = None  # a CUDA graph keeps its memory as long as it is referenced
        if self.ranks.first:
            if self.best:
                self._write()
            # A kill between the last checkpoint and its history left that epoch out.
            write_history(self.run / HISTORY, self.history)
            self.network.load_state_dict(load(self.run / MODEL)["network"])


@contextmanager
def _write_diverged(path: Path) -> Iterator[None]:
    """Write all keys of a batch that diverged; the message shows a few of them."""
    try:
        yield
    except Diverged as error:
        write_text(path, "\n".join(error.keys) + "\n")
        raise EcgpipeError(f"{error} (all of them: {path})") from None


def finish(run: Path) -> None:
    """Remove the checkpoints of a finished run; the best weights stay."""
    for name in (LAST, PREVIOUS):
        remove(run / name)


def _stalled(history: list[dict[str, float]], patience: int | None) -> bool:
    if patience is None or not history:
        return False
    accuracy = [row["train_accuracy"] for row in history]
    return len(history) - 1 - int(np.argmax(accuracy)) >= patience
