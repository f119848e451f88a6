"""The training loop: epochs, validation, the best weights, and exact continuation.

A checkpoint falls on the end of an epoch and holds everything that the next one depends on; batches
depend on the epoch's number alone. So a run that was killed ends with the same weights, to the bit
on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..config import Training
from ..errors import EcgpipeError
from ..files import write_text
from ..models.resnet import ResNet, standardise
from ..progress import Progress, say
from ..tasks.scores import scores_one_of
from ..types import Batch
from .device import Device
from .run import HISTORY, MODEL, load, save

LAST = "last.pt"


class SizedBatches(Sized, Iterable[Batch], Protocol):
    """The batches of an epoch, their number known."""


@dataclass(frozen=True)
class Plan:
    """What a training needs to know beside the network."""

    title: str
    epochs: int
    batches: Callable[[int], SizedBatches]  # by epoch, counted from 1
    validation: Callable[[], Iterable[Batch]]
    best: str  # validation score that chooses the epoch
    patience: int | None  # epochs without a better training accuracy; None never stops early
    card: dict[str, Any]  # plain values that go into the model file with the weights


def new_network(build: Callable[[], ResNet], *seed: int) -> ResNet:
    """Build a network whose initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(
            int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0] >> 1)
        )
        return build()


def fit(network: ResNet, plan: Plan, settings: Training, device: Device, run: Path) -> None:
    """Train a network and leave the best weights in ``run/model.pt``; continues where it was.

    Raises
    ------
    EcgpipeError
        The loss is not a number.
    """
    network.to(device.device)
    optimiser = torch.optim.Adam(
        network.parameters(),
        lr=settings.optimiser.lr,
        betas=(settings.optimiser.beta1, settings.optimiser.beta2),
        eps=settings.optimiser.eps,
        fused=True,
    )
    history: list[dict[str, float]] = []
    run.mkdir(parents=True, exist_ok=True)
    if (run / LAST).is_file():
        last = load(run / LAST)
        network.load_state_dict(last["network"])
        optimiser.load_state_dict(last["optimiser"])
        history = last["history"]
        say(f"{plan.title}: continuing after epoch {len(history)} of {plan.epochs}")
    while len(history) < plan.epochs and not _stalled(history, plan.patience):
        epoch = len(history) + 1
        start = time.monotonic()
        row = {"epoch": float(epoch)}
        batches = plan.batches(epoch)
        with Progress(f"{plan.title} epoch {epoch}/{plan.epochs}", len(batches), "batches") as bar:
            row |= _train(network, batches, optimiser, device, bar)
        label, probability, loss = predict(network, plan.validation(), device)
        row["validation_loss"] = loss
        row |= {f"validation_{name}": s for name, s in scores_one_of(label, probability).items()}
        row["seconds"] = round(time.monotonic() - start, 2)
        best = max((old[f"validation_{plan.best}"] for old in history), default=-1.0)
        history.append(row)
        if row[f"validation_{plan.best}"] > best:
            save(run / MODEL, {**plan.card, "epoch": epoch, "network": network.state_dict()})
        save(
            run / LAST,
            {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "history": history,
            },
        )
        _write_history(run / HISTORY, history)
        say(
            f"{plan.title}: epoch {epoch}/{plan.epochs}  loss {row['train_loss']:.3f}  accuracy "
            f"{row['train_accuracy']:.3f}  validation loss {loss:.3f}  {plan.best} "
            f"{row[f'validation_{plan.best}']:.3f}  {row['seconds']:.0f} s"
        )
    network.load_state_dict(load(run / MODEL)["network"])


def finish(run: Path) -> None:
    """Remove the checkpoint of a run that needs no continuation; the best weights stay."""
    (run / LAST).unlink(missing_ok=True)


def _stalled(history: list[dict[str, float]], patience: int | None) -> bool:
    if patience is None or not history:
        return False
    accuracy = [row["train_accuracy"] for row in history]
    return len(history) - 1 - int(np.argmax(accuracy)) >= patience


def _train(
    network: ResNet,
    batches: Iterable[Batch],
    optimiser: torch.optim.Optimizer,
    device: Device,
    bar: Progress,
) -> dict[str, float]:
    network.train()
    total = correct = seen = 0.0
    for arrays in batches:
        batch = device.move(arrays)
        with device.autocast():
            scores = network(standardise(batch.x, batch.scale, batch.offset, batch.length))
        loss = nn.functional.cross_entropy(scores.float(), batch.y)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise EcgpipeError(
                f"the training loss became {value} at the batch of {', '.join(batch.keys[:8])}…; "
                "lower optimiser.lr, or look at these records"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        count = len(batch.y)
        total += value * count
        correct += int((scores.argmax(1) == batch.y).sum())
        seen += count
        bar.step(f"loss {total / seen:.3f}")
    return {"train_loss": total / seen, "train_accuracy": correct / seen}


@torch.no_grad()
def predict(
    network: ResNet, batches: Iterable[Batch], device: Device
) -> tuple[NDArray[np.int64], NDArray[np.float64], float]:
    """Labels (n,), probabilities (n, classes) and the mean cross-entropy over batches."""
    network.eval()
    labels, probabilities, total = [], [], 0.0
    for arrays in batches:
        batch = device.move(arrays)
        with device.autocast():
            scores = network(standardise(batch.x, batch.scale, batch.offset, batch.length))
        scores = scores.double()
        total += float(nn.functional.cross_entropy(scores, batch.y, reduction="sum"))
        labels.append(batch.y.cpu().numpy())
        probabilities.append(scores.softmax(1).cpu().numpy())
    label = np.concatenate(labels)
    return label, np.concatenate(probabilities), total / len(label)


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    lines = [",".join(history[0])]
    lines += [",".join(f"{value:.8g}" for value in row.values()) for row in history]
    write_text(path, "\n".join(lines) + "\n")
