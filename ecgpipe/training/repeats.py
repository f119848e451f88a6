"""The repeats of a finetuning: trainings on fresh draws, one after another or side by side."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..config import FinetuneSettings
from ..errors import INTERRUPTED, EcgpipeError, Interrupted
from ..files.atomic import write_json
from ..loading.recordings import CPU, PaddedSet, Recordings, shuffled
from ..models.resnet import ResNet
from ..models.transfer import transfer
from ..progress import say
from ..storage.executors import leave_with_parent
from ..storage.manifest import moments
from ..tasks import Task
from ..tasks.objectives import OBJECTIVES
from .device import Device
from .loop import Plan, finish, fit, new_network, predict
from .pretrain import write_predictions
from .run_description import InitialWeights, ModelCard, RunDescription
from .run_folder import PREDICTIONS
from .signals import Stop
from .splits import Split

TRANSFER = "transfer.json"
ANSWERED = 4  # times the records of a training batch are answered at once: no gradients are kept


@dataclass(frozen=True)
class Pretrained:
    """The model of the pretraining that a finetuning starts from."""

    card: ModelCard
    weights: dict[str, torch.Tensor]
    described: InitialWeights


@dataclass(frozen=True)
class Trainer:
    """What the repeats of a run share."""

    run: Path
    recordings: Recordings
    main_lead: str | None
    split: Split
    task: Task
    settings: FinetuneSettings
    device: Device
    description: RunDescription
    pretrained: Pretrained | None

    def folder(self, number: int) -> Path:
        """The folder of a repeat."""
        return self.run / f"repeat-{number:02d}"

    @cached_property
    def padded(self) -> PaddedSet:
        """The recordings as tensors, on the device if they have room there."""
        samples = round(self.settings.seconds * self.recordings.fs)
        size = 2 * len(self.recordings.records) * len(self.recordings.leads) * samples
        wanted = self.settings.resident
        resident = wanted == "yes" or (wanted == "auto" and self.device.has_room(size))
        try:
            return PaddedSet.of(self.recordings, samples, self.device.device if resident else CPU)
        except torch.OutOfMemoryError:
            raise EcgpipeError(
                f"setting resident: the set takes {size / 1e9:.1f} GB, for which "
                f"{self.device.device} has no room; leave it at auto"
            ) from None

    def repeat(self, number: int) -> None:
        """Train once and save what the best weights answer on validation and test records."""
        settings, drawn = self.settings, self.split.repeats[number]
        train, validation, test = drawn.train, drawn.validation, self.split.test
        rows, answer = self.recordings.rows, OBJECTIVES[self.task.answer]
        spread = moments(rows[key] for key in (train if settings.statistics == "train" else rows))
        padded = self.padded.standardised(spread.mean, spread.std)
        answered = ANSWERED * settings.batch if self.device.is_gpu else settings.batch
        network = self._network(number)
        plan = Plan(
            title=f"finetune {self.description.name} {number + 1}/{settings.repeats}",
            epochs=settings.epochs,
            batches=lambda epoch, done: padded.batches(
                shuffled(train, settings.seed, number, epoch),
                settings.batch,
                done * settings.accumulate,
            ),
            validation=lambda: padded.batches(validation, answered),
            best=self.task.best,
            patience=settings.patience,
            card=self._card(spread.mean, spread.std),
            answer=answer,
        )
        fit(network, plan, settings, self.device, self.folder(number))
        splits = {"validation": validation, "test": test}
        if self.task.answer == "many_of":  # whose decisions need thresholds from training records
            splits = {"train": train, **splits}
        keys = [key for keys in splits.values() for key in keys]
        batches = padded.batches(keys, answered)
        label, probability, _ = predict(network, batches, self.device, answer)
        columns = {"key": keys, "split": [name for name, keys in splits.items() for _ in keys]}
        file = self.folder(number) / PREDICTIONS
        write_predictions(file, columns, self.recordings.classes, label, probability)
        finish(self.folder(number))

    def _card(self, mean: float, std: float) -> ModelCard:
        recordings, network = self.recordings, self.settings.network
        return ModelCard(
            task=self.description.datasets[0],
            answer=self.task.answer,
            classes=recordings.classes,
            fs=recordings.fs,
            leads=len(recordings.leads),
            lead_names=recordings.leads,
            seconds=self.settings.seconds,
            depth=network.depth,
            order=network.order,
            stages=network.stages,
            mean_mV=mean,
            std_mV=std,
            run=self.description,
        )

    def _network(self, number: int) -> ResNet:
        settings = self.settings
        network = new_network(
            lambda: ResNet(
                len(self.recordings.classes),
                len(self.recordings.leads),
                **settings.network.model_dump(),
            ),
            settings.seed,
            number,
        )
        if self.pretrained:
            try:
                fate = transfer(network, self.pretrained.weights)
            except ValueError as error:
                raise EcgpipeError(f"{self.pretrained.described.path}: {error}") from None
            if number == 0:
                write_json(self.run / TRANSFER, fate)
                told = [f"{len(fate['loaded'])} loaded"]
                told += [f"{what}: {_shorten(fate[what])}" for what in fate if what != "loaded"]
                say(f"finetune {self.description.name}: tensors {'; '.join(told)}")
        return network


def _shorten(names: Sequence[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "none") + more


def side_by_side(opened: Callable[[], Trainer], todo: Sequence[int], count: int) -> None:
    """Train several repeats at a time, each in a process of its own, on the same device.

    Parameters
    ----------
    opened
        Opens the trainer, in every process; it can be pickled.
    todo
        Numbers of the repeats.
    count
        Processes.

    Raises
    ------
    EcgpipeError
        A training failed; the others end, and what they did is saved.
    Interrupted
        SIGTERM or Ctrl-C came; the same.
    """
    context = get_context("spawn")
    line, end = context.Pipe(duplex=False)
    numbers, failures = context.SimpleQueue(), context.SimpleQueue()
    count = min(count, len(todo))
    for number in (*todo, *[None] * count):
        numbers.put(number)
    given = (line, opened, numbers, failures)
    processes = [context.Process(target=_work, args=given) for _ in range(count)]
    code: int | None = None  # of the first that did not end well; the others are asked to end
    try:
        with Stop() as stop:
            for process in processes:
                process.start()
            while running := [process for process in processes if process.is_alive()]:
                code = code or next((p.exitcode for p in processes if p.exitcode), None)
                if stop.asked or code:
                    for process in running:
                        process.terminate()
                wait([process.sentinel for process in running], timeout=0.2)
    finally:
        end.close()  # what still runs is gone with it
        for process in processes:
            process.join()
        line.close()
    if not failures.empty():
        raise EcgpipeError(failures.get())
    if stop.asked:
        raise Interrupted("saved behind the last update of each repeat")
    if code := code or next((p.exitcode for p in processes if p.exitcode), None):
        raise EcgpipeError(
            f"setting parallel: a training process ended with exit code {code}; if memory is "
            "short, lower it; the same command continues"
        )


def _work(line: Any, opened: Callable[[], Trainer], numbers: Any, failures: Any) -> None:
    """Train repeats until there is none left, or one fails or is interrupted."""
    leave_with_parent(line)
    signal.signal(signal.SIGTERM, _leave)
    try:
        trainer = opened()
        for number in iter(numbers.get, None):
            trainer.repeat(number)
    except EcgpipeError as error:
        failures.put(str(error))
        sys.exit(1)
    except Interrupted:
        sys.exit(INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> None:
    """End where nothing is trained, and so nothing to be saved; only once."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(INTERRUPTED)
