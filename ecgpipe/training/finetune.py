"""Finetuning: repeated training on a downstream data set (paper, "Finetuning")."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from ..config import FinetuneSettings
from ..errors import EcgpipeError
from ..files.atomic import read_json, sha256, write_json
from ..files.paths import exists
from ..loading.recordings import CPU, PaddedSet, Recordings, load_recordings, shuffled
from ..models.resnet import ResNet
from ..models.transfer import transfer
from ..progress import say
from ..storage.manifest import moments
from ..storage.store import Store
from ..tasks import DOWNSTREAM, TASKS, Task
from ..tasks.objectives import OBJECTIVES
from .device import Device, choose
from .examples import EXAMPLES, MISJUDGED, save_examples, save_misjudged
from .loop import Plan, finish, fit, new_network
from .predictions import PREDICTIONS, write_predictions
from .processes import in_processes
from .run_description import (
    InitialWeights,
    ModelCard,
    RunData,
    RunDescription,
    describe,
)
from .run_folder import MODEL, RUN, locked_run, read_model
from .splits import SPLIT, Split, by_folds, draw_split, has_folds, without_fold
from .train_step import predict

TRANSFER = "transfer.json"
PREDICTED = 4  # training batches that a GPU predicts at once: no gradients are kept


def finetune(shards: Path, run: Path, settings: FinetuneSettings, init: Path | None = None) -> None:
    """Train on a downstream data set, several times, from random or pretrained weights.

    The test records are the same in every repeat and for every ``init``; training and validation
    records are drawn anew for each repeat, unless the set comes with folds of its own. Leaves a
    folder ``repeat-NN`` for each repeat with ``history.csv``, ``model.pt`` and ``predictions.csv``,
    and beside them ``run.json``, ``split.json``, ``examples.npz`` and ``misjudged.npz`` (test
    recordings for the report) and, from pretrained weights, ``transfer.json`` (what became of every
    tensor).

    Parameters
    ----------
    shards
        Folder of the downstream set's shards.
    run
        Folder of the run.
    init
        Folder of a finished pretraining run; None starts from random weights.

    Raises
    ------
    EcgpipeError
        Shards or an ``init`` that cannot be used, or a folder that holds another run.
    Interrupted
        SIGTERM or Ctrl-C came; what was done is saved.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise EcgpipeError("finetuning runs on one device; start it without torchrun")
    trainer = open_trainer(shards, run, settings, init)
    for note in trainer.description.data.notes:
        say(note)
    with locked_run(run, trainer.description):
        trainer.split.keep(run / SPLIT)
        recordings, main_lead = trainer.recordings, trainer.main_lead
        if not exists(run / EXAMPLES):
            save_examples(run / EXAMPLES, recordings, trainer.split.test, main_lead)
        unfinished = []
        for number in range(settings.repeats):
            if exists(trainer.folder(number) / PREDICTIONS):
                say(f"{trainer.folder(number)}: finished already")
            else:
                unfinished.append(number)
        if settings.parallel > 1 and len(unfinished) > 1:
            prepare = partial(_open_repeats, shards, run, settings, init)
            in_processes(prepare, unfinished, settings.parallel)
        else:
            for number in unfinished:
                trainer.repeat(number)
        if not exists(run / MISJUDGED):
            folders = [trainer.folder(number) for number in range(settings.repeats)]
            save_misjudged(run / MISJUDGED, recordings, folders, main_lead)


def open_trainer(
    shards: Path, run: Path, settings: FinetuneSettings, init: Path | None = None
) -> Trainer:
    """Read a downstream set and the initial weights; writes nothing.

    Parameters and errors are those of :func:`finetune`.
    """
    store = Store(shards)
    name = store.recipe.dataset
    task = TASKS.get(name)
    if task is None or task.kind != "records":
        raise EcgpipeError(
            f"{shards}: {name} is no set to finetune on; take one of {', '.join(DOWNSTREAM)}"
        )
    initial, weights = _pretrained(init, settings) if init else (None, None)
    recordings = load_recordings(store, task.answer == "many_of")
    split = draw_split(recordings.rows, recordings.label, settings)
    if initial:
        _check_unseen(initial, recordings, name, split.test)
    device = choose(settings)
    description = describe(
        settings,
        [store],
        name=initial.run.name if initial else "random",
        answer=task.answer,
        classes=recordings.classes,
        init=initial,
        environment=device.describe(),
        data=RunData(
            train=len(split.repeats[0].train),
            validation=len(split.repeats[0].validation),
            test=len(split.test),
            by_folds=by_folds(recordings.rows, settings),
            simulated=store.recipe.simulated,
            labels_file=store.recipe.labels_file,
            notes=[*recordings.notes, *without_fold(recordings.rows, settings)],
        ),
    )
    main_lead = store.recipe.main_lead
    return Trainer(run, recordings, main_lead, split, task, settings, device, description, weights)


def _open_repeats(
    shards: Path, run: Path, settings: FinetuneSettings, init: Path | None
) -> Callable[[int], None]:
    return open_trainer(shards, run, settings, init).repeat


def _pretrained(init: Path, settings: FinetuneSettings) -> tuple[InitialWeights, dict[str, Tensor]]:
    """The weights of a finished pretraining whose network fits."""
    if exists(init / RUN) and read_json(init / RUN).get("kind") == "finetune":
        raise EcgpipeError(f"{init}: is a finetuning; name a pretraining run to start from")
    card, weights = read_model(init / MODEL)
    if card.run.kind != "pretrain":
        raise EcgpipeError(f"{init}: is part of a finetuning; name a pretraining run to start from")
    if not exists(init / PREDICTIONS):
        raise EcgpipeError(f"{init}: pretraining is not finished; run its command again")
    for part in ("depth", "order"):
        wanted, found = getattr(settings.network, part), getattr(card, part)
        if found != wanted:
            raise EcgpipeError(f"setting network.{part}: {wanted}, but {init} has {part} {found}")
    digest = sha256(init / MODEL)
    return InitialWeights(path=str(init), run=card.run, model_sha256=digest), weights


def _check_unseen(
    initial: InitialWeights, recordings: Recordings, dataset: str, test: list[str]
) -> None:
    """Refuse weights that were pretrained on the signals of test records."""
    if dataset not in initial.run.datasets:
        return
    held_back = set(initial.run.data.held_back.get(dataset, ()))
    if seen := set(test) - held_back:
        remedy = (
            "set official_folds=true, whose test fold it has not seen"
            if held_back and has_folds(recordings.rows)
            else "pretrain with held_back and held_back_seed as test_share and split_seed are here"
        )
        raise EcgpipeError(
            f"{initial.path}: was pretrained on {len(seen)} of the test records, such as "
            f"{min(seen)}; {remedy}"
        )


@dataclass(frozen=True)
class Trainer:
    """Trains the repeats of a finetuning, and holds what they share."""

    run: Path
    recordings: Recordings
    main_lead: str | None
    split: Split
    task: Task
    settings: FinetuneSettings
    device: Device
    description: RunDescription
    initial_weights: dict[str, Tensor] | None  # None: random weights

    def folder(self, number: int) -> Path:
        """The folder of a repeat."""
        return self.run / f"repeat-{number:02d}"

    @cached_property
    def padded(self) -> PaddedSet:
        """The recordings as tensors, on the device if they have room there."""
        samples = round(self.settings.seconds * self.recordings.fs)
        size = 2 * len(self.recordings.records) * len(self.recordings.leads) * samples  # bytes
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
        """Train once and save the predictions of the best weights on validation and test."""
        settings, split = self.settings, self.split.repeats[number]
        rows, objective = self.recordings.rows, OBJECTIVES[self.task.answer]
        of_statistics = split.train if settings.statistics == "train" else rows
        spread = moments(
            (rows[key], lead) for key in of_statistics for lead in range(len(rows[key].leads))
        )
        padded = self.padded.standardised(spread.mean, spread.std)
        predicted = PREDICTED * settings.batch if self.device.is_gpu else settings.batch
        fs, leads = self.recordings.fs, self.recordings.leads
        card = ModelCard.of(self.description, spread, fs, leads, settings.seconds)
        network = self._network(number, card)
        plan = Plan(
            title=f"finetune {self.description.name} {number + 1}/{settings.repeats}",
            epochs=settings.epochs,
            batches=lambda epoch, done: padded.batches(
                shuffled(split.train, settings.seed, number, epoch),
                settings.batch,
                done * settings.accumulate,
            ),
            validation=lambda: padded.batches(split.validation, predicted),
            best=self.task.best,
            patience=settings.patience,
            card=card,
            objective=objective,
        )
        folder = self.folder(number)
        fit(network, plan, settings, self.device, folder)
        parts = {"validation": split.validation, "test": self.split.test}
        if self.task.answer == "many_of":  # thresholds are chosen on the training records
            parts = {"train": split.train, **parts}
        keys = [key for part in parts.values() for key in part]
        batches = padded.batches(keys, predicted)
        label, probability, _ = predict(network, batches, self.device, objective)
        columns = {"key": keys, "split": [name for name, part in parts.items() for _ in part]}
        classes = self.recordings.classes
        write_predictions(folder / PREDICTIONS, columns, classes, label, probability)
        finish(folder)

    def _network(self, number: int, card: ModelCard) -> ResNet:
        network: ResNet = new_network(card.network, self.settings.seed, number)
        if self.initial_weights is not None and self.description.init:
            try:
                tensors = transfer(network, self.initial_weights)
            except ValueError as error:
                raise EcgpipeError(f"{self.description.init.path}: {error}") from None
            if number == 0:
                write_json(self.run / TRANSFER, tensors)
                counts = [f"{len(tensors['loaded'])} loaded"]
                counts += [f"{what}: {_shorten(tensors[what])}" for what in list(tensors)[1:]]
                say(f"finetune {self.description.name}: tensors {'; '.join(counts)}")
        return network


def _shorten(names: list[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "none") + more
