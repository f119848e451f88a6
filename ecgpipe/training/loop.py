"""The training loop: epochs, validation, the best weights, and exact continuation.

A checkpoint holds everything that the next step depends on, and batches depend on their epoch and
place alone. It falls on the end of an epoch, or behind the step in which the training was asked to
end. So a run that was killed or preempted ends with the same weights, to the bit on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..config import Training
from ..errors import EcgpipeError, Interrupted
from ..files import is_remote, is_there, make_folder, remove, write_text
from ..progress import Progress, say
from ..tasks.answers import ONE_OF, Answer
from ..types import Batch
from .device import Device
from .meter import Meter, clock
from .passes import Diverged, Pass, Sums, answers
from .ranks import ALONE, Ranks
from .run import HISTORY, MODEL, load, save
from .stop import Stop

LAST, DIVERGED = "last.pt", "diverged.txt"
TENSORBOARD = "tensorboard"


class SizedBatches(Sized, Iterable[Batch], Protocol):
    """Batches whose number is known."""


@dataclass(frozen=True)
class Plan:
    """What a training needs to know beside the network."""

    title: str
    epochs: int
    batches: Callable[[int, int], SizedBatches]  # by epoch, from 1, and updates done in it
    validation: Callable[[], Iterable[Batch]]
    best: str  # what chooses the epoch: a validation score, or "loss"
    patience: int | None  # epochs without a better training accuracy; None never stops early
    card: dict[str, Any]  # plain values that go into the model file with the weights
    answer: Answer = ONE_OF

    def merit(self, row: dict[str, float]) -> float:
        """How good an epoch is; the first of the best is kept."""
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
    """Train a network and leave the best weights in ``run/model.pt``; continues where it was.

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
    network.to(device.device)
    optimiser = torch.optim.Adam(
        network.parameters(),
        lr=settings.optimiser.lr,
        betas=(settings.optimiser.beta1, settings.optimiser.beta2),
        eps=settings.optimiser.eps,
        fused=True,
    )
    history: list[dict[str, float]] = []
    done = Sums()
    make_folder(run)
    if is_there(run / LAST):
        last = load(run / LAST)
        network.load_state_dict(last["network"])
        optimiser.load_state_dict(last["optimiser"])
        history, done = last["history"], Sums(**last["done"])
        if ranks.first:
            where = f"update {done.steps} of epoch" if done.steps else "epoch"
            say(
                f"{plan.title}: continuing after {where} "
                f"{len(history) + (done.steps > 0)} of {plan.epochs}"
            )

    def checkpoint() -> None:
        ranks.average_buffers(network)
        sums = vars(done.over(ranks))
        if ranks.first:
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            save(run / LAST, {**state, "history": history, "done": sums})

    one = Pass(network, optimiser, settings, device, ranks, plan.answer)
    with Stop() as stop:
        while len(history) < plan.epochs and not _stalled(history, plan.patience):
            epoch, before, meter = len(history) + 1, done.steps, Meter(device.device)
            batches = plan.batches(epoch, before)
            updates = -(-len(batches) // one.each)
            title = f"{plan.title} epoch {epoch}/{plan.epochs}"
            shown = Progress(title, updates, "updates", shown=ranks.first)
            with shown as bar, _listed(run / DIVERGED):
                for sums in one.updates(batches, done, meter, stop):
                    stepped, done = sums.steps > done.steps, sums
                    if not stepped:  # the losses of the last updates, which are awaited together
                        continue
                    to_go = (plan.epochs - epoch + 1) * (before + updates) - done.steps
                    left = clock(to_go * meter.seconds / (done.steps - before))
                    bar.step(f"loss {done.mean_loss:.3f}, {meter.note()}, {left} left")
            if done.steps < before + updates:
                checkpoint()
                raise Interrupted(f"saved after update {done.steps} of epoch {epoch}")
            row = {"epoch": float(epoch), **done.over(ranks).row()}
            speed, start = meter.row(), time.monotonic()
            speed["items_per_second"] *= ranks.count
            ranks.average_buffers(network)
            found = ranks.share(_validate(network, plan, device, stop) if ranks.first else None)
            if found is None:  # whoever asks may not wait for the rest of a long validation
                checkpoint()
                raise Interrupted(f"saved after the updates of epoch {epoch}")
            row |= found
            row |= speed | {"seconds": round(done.seconds + time.monotonic() - start, 2)}
            best = max(map(plan.merit, history), default=-np.inf)
            history.append(row)
            done = Sums()
            if ranks.first and plan.merit(row) > best:
                save(run / MODEL, {**plan.card, "epoch": epoch, "network": network.state_dict()})
            checkpoint()
            if ranks.first:
                _write_history(run / HISTORY, history)
                if settings.tensorboard:
                    _write_events(run / TENSORBOARD, row)
                say(_line(plan, row))
            if ranks.any(stop.asked):
                raise Interrupted(f"saved after epoch {epoch}")
    if ranks.first:
        network.load_state_dict(load(run / MODEL)["network"])


@contextmanager
def _listed(path: Path) -> Iterator[None]:
    """Write all keys of a batch that diverged, of which the message has room for a few."""
    try:
        yield
    except Diverged as error:
        write_text(path, "\n".join(error.keys) + "\n")
        raise EcgpipeError(f"{error} (all of them: {path})") from None


def finish(run: Path) -> None:
    """Remove the checkpoint of a run that needs no continuation; the best weights stay."""
    remove(run / LAST)


def _stalled(history: list[dict[str, float]], patience: int | None) -> bool:
    if patience is None or not history:
        return False
    accuracy = [row["train_accuracy"] for row in history]
    return len(history) - 1 - int(np.argmax(accuracy)) >= patience


def _validate(
    network: nn.Module, plan: Plan, device: Device, stop: Stop
) -> dict[str, float] | None:
    """Scores on the validation items; None if it was asked to end meanwhile."""

    def until_asked() -> Iterator[Batch]:
        for batch in plan.validation():
            if stop.asked:
                raise Interrupted("while validating")
            yield batch

    try:
        label, probability, loss = predict(network, until_asked(), device, plan.answer)
    except Interrupted:
        return None
    scores = plan.answer.scores(label, probability)
    return {
        "validation_loss": loss,
        **{f"validation_{name}": score for name, score in scores.items()},
    }


@torch.no_grad()
def predict(
    network: nn.Module, batches: Iterable[Batch], device: Device, answer: Answer = ONE_OF
) -> tuple[NDArray[Any], NDArray[np.float64], float]:
    """Labels (n,) or (n, classes), probabilities (n, classes) and the mean loss over batches."""
    network.eval()
    labels, probabilities, total = [], [], 0.0
    for arrays in batches:
        batch = device.move(arrays)
        scores = answers(network, batch, device).double()
        total += float(answer.losses(scores, batch.y).sum())
        labels.append(batch.y.cpu().numpy())
        probabilities.append(answer.probability(scores).cpu().numpy())
    label = np.concatenate(labels)
    return label, np.concatenate(probabilities), total / len(label)


def _line(plan: Plan, row: dict[str, float]) -> str:
    score = "auc" if plan.best == "loss" else plan.best
    return (
        f"{plan.title}: epoch {row['epoch']:.0f}/{plan.epochs}  loss {row['train_loss']:.3f}  "
        f"accuracy {row['train_accuracy']:.3f}  validation loss {row['validation_loss']:.3f}  "
        f"{score} {row[f'validation_{score}']:.3f}  {row['seconds']:.0f} s  "
        f"{row['items_per_second']:,.0f}/s, {100 * row['waited']:.0f} % waiting"
    )


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    columns = list(dict.fromkeys(name for row in history for name in row))
    lines = [",".join(columns)]
    lines += [",".join(f"{row.get(name, np.nan):.8g}" for name in columns) for row in history]
    write_text(path, "\n".join(lines) + "\n")


def _write_events(folder: Path, row: dict[str, float]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=int(row["epoch"])) as writer:
        for name, value in row.items():
            writer.add_scalar(name, value, int(row["epoch"]))
