"""Finetuning: repeated training on a downstream data set (paper, "Finetuning")."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ..config import FinetuneSettings
from ..errors import EcgpipeError
from ..files import sha256, write_json
from ..labels.qrs import main_lead
from ..labels.splits import same_side, stratified_split
from ..loading.recordings import Recordings, batches, chunks, load_recordings, shuffled
from ..models.resnet import ResNet
from ..models.transfer import transfer
from ..progress import say
from ..storage.manifest import moments
from ..storage.store import Store
from ..tasks import TASKS, Task
from .device import Device, choose
from .loop import Plan, finish, fit, new_network, predict
from .pretrain import write_predictions
from .run import MODEL, PREDICTIONS, claimed, describe, describe_input, load

EXAMPLES, TRANSFER = "examples.npz", "transfer.json"


def finetune(shards: Path, run: Path, settings: FinetuneSettings, init: Path | None = None) -> None:
    """Train on a downstream data set, several times, from random or pretrained weights.

    The test records are the same in every repeat and for every ``init``; training and validation
    records are drawn anew for each repeat. Leaves a folder ``repeat-NN`` for each repeat with
    ``history.csv``, ``model.pt`` and ``predictions.csv``, and beside them ``run.json``,
    ``split.json`` (keys of every side), ``examples.npz`` (test recordings for the report) and, from
    pretrained weights, ``transfer.json`` (what became of every tensor).

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
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise EcgpipeError("finetuning runs on one device; start it without torchrun")
    store = Store(shards)
    name = store.recipe["dataset"]
    task = TASKS.get(name)
    if task is None or task.kind != "records":
        raise EcgpipeError(f"{shards}: {name} is no set to finetune on")
    pretrained = load(init / MODEL) if init else None
    if init and not (init / PREDICTIONS).is_file():
        raise EcgpipeError(f"{init}: pretraining is not finished; run its command again")
    for part in ("depth", "order"):
        wanted = getattr(settings.network, part)
        if pretrained and pretrained[part] != wanted:
            raise EcgpipeError(
                f"setting network.{part}: {wanted}, but {init} has {part} {pretrained[part]}"
            )
    recordings = load_recordings(store, task.classes)
    sides = draw_sides(recordings, settings)
    device = choose(settings)
    description = describe(
        {
            "kind": "finetune",
            "name": pretrained["task"] if pretrained else "random",
            "dataset": name,
            "classes": list(task.classes),
            "settings": settings.model_dump(),
            "init": init
            and pretrained
            and {
                "path": str(init),
                "run": pretrained["run"],
                "model_sha256": sha256(init / MODEL),
            },
            "inputs": [describe_input(store)],
            "environment": device.describe(),
            "data": {
                "train": len(sides["repeats"][0]["train"]),
                "validation": len(sides["repeats"][0]["validation"]),
                "test": len(sides["test"]),
                "simulated": store.recipe["simulated"],
                "labels_file": store.recipe["labels_file"],
                "notes": recordings.notes,
            },
        }
    )
    with claimed(run, description):
        if not (run / "split.json").is_file():
            write_json(run / "split.json", sides)
        if not (run / EXAMPLES).is_file():
            save_examples(run / EXAMPLES, recordings, sides["test"], store.recipe["main_lead"])
        trainer = Trainer(run, recordings, task, settings, device, description, pretrained)
        for number, side in enumerate(sides["repeats"]):
            folder = run / f"repeat-{number:02d}"
            if (folder / PREDICTIONS).is_file():
                say(f"{folder}: finished already")
                continue
            trainer.repeat(number, folder, side["train"], side["validation"], sides["test"])


def draw_sides(recordings: Recordings, settings: FinetuneSettings) -> dict[str, Any]:
    """Test keys, and training and validation keys for every repeat.

    They depend on the data and on ``split_seed`` alone, so rows of a table are comparable repeat by
    repeat. Shares are of the whole set.

    Raises
    ------
    EcgpipeError
        Shares that add up to more than everything, or a side without a record.
    """
    label = recordings.label
    total = len(label)
    shares = {name: getattr(settings, f"{name}_share") for name in ("train", "validation", "test")}
    count = {name: round(share * total) for name, share in shares.items()}
    if sum(shares.values()) > 1 + 1e-9 or min(count.values()) < 1:
        raise EcgpipeError(
            f"settings train_share, validation_share, test_share: {count} of {total} records "
            "cannot be drawn; they must leave each side a record and add up to 1 at most"
        )
    count["train"] = min(count["train"], total - count["validation"] - count["test"])
    groups = same_side(recordings.rows.values())
    (test,) = stratified_split(label, groups, [count["test"]], [settings.split_seed, 1])
    pool = {key: label[key] for key in label if key not in set(test)}
    repeats = []
    for number in range(settings.repeats):
        # Validation is drawn first, so that it is the same however small the training set is.
        seed = [settings.split_seed, 2, number]
        (validation,) = stratified_split(pool, groups, [count["validation"]], seed)
        rest = {key: pool[key] for key in pool if key not in set(validation)}
        wanted = min(count["train"], len(rest))  # groups can have made another side larger
        (train,) = stratified_split(rest, groups, [wanted], seed)
        repeats.append({"train": train, "validation": validation})
    return {"test": test, "repeats": repeats}


@dataclass(frozen=True)
class Trainer:
    """What the repeats of a run share."""

    run: Path
    recordings: Recordings
    task: Task
    settings: FinetuneSettings
    device: Device
    description: dict[str, Any]
    pretrained: dict[str, Any] | None

    def repeat(
        self,
        number: int,
        folder: Path,
        train: Sequence[str],
        validation: Sequence[str],
        test: Sequence[str],
    ) -> None:
        """Train once and save what the best weights answer on validation and test records."""
        settings, recordings = self.settings, self.recordings
        rows = recordings.rows
        counted = train if settings.statistics == "train" else list(rows)
        spread = moments(rows[key] for key in counted)
        mean, std = spread.mean, spread.std
        samples = round(settings.seconds * recordings.fs)

        def of(keys: Sequence[str], first: int = 0) -> SizedList:
            return SizedList(recordings, keys, samples, settings.batch, mean, std, first)

        network = self._network(number)
        title = f"finetune {self.description['name']} {number + 1}/{settings.repeats}"
        plan = Plan(
            title=title,
            epochs=settings.epochs,
            batches=lambda epoch, done: of(
                shuffled(train, settings.seed, number, epoch), done * settings.accumulate
            ),
            validation=lambda: of(validation),
            best=self.task.best,
            patience=settings.patience,
            card={
                "task": self.description["dataset"],
                "classes": list(self.task.classes),
                "fs": recordings.fs,
                "leads": recordings.leads,
                **settings.network.model_dump(),
                "seconds": settings.seconds,
                "mean_mV": mean,
                "std_mV": std,
                "run": self.description,
            },
        )
        fit(network, plan, settings, self.device, folder)
        keys = [*validation, *test]
        label, probability, _ = predict(network, of(keys), self.device)
        side = ["validation"] * len(validation) + ["test"] * len(test)
        columns = {"key": keys, "split": side}
        write_predictions(folder / PREDICTIONS, columns, self.task.classes, label, probability)
        finish(folder)

    def _network(self, number: int) -> ResNet:
        settings = self.settings
        network = new_network(
            lambda: ResNet(
                len(self.task.classes), self.recordings.leads, **settings.network.model_dump()
            ),
            settings.seed,
            number,
        )
        if self.pretrained:
            try:
                fate = transfer(network, self.pretrained["network"])
            except ValueError as error:
                raise EcgpipeError(f"{self.description['init']['path']}: {error}") from None
            if number == 0:
                write_json(self.run / TRANSFER, fate)
                told = [f"{len(fate['loaded'])} loaded"]
                told += [f"{what}: {_shorten(fate[what])}" for what in fate if what != "loaded"]
                say(f"finetune {self.description['name']}: tensors {'; '.join(told)}")
        return network


def _shorten(names: Sequence[str], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return (", ".join(names[:shown]) or "none") + more


@dataclass(frozen=True)
class SizedList:
    """Batches of recordings from the first that is wanted on, their number known."""

    recordings: Recordings
    keys: Sequence[str]
    samples: int
    batch: int
    mean: float
    std: float
    first: int

    def __len__(self) -> int:
        return len(chunks(len(self.keys), self.batch)) - self.first

    def __iter__(self) -> Any:
        given = (self.samples, self.batch, self.mean, self.std)
        return islice(batches(self.recordings, self.keys, *given), self.first, None)


def save_examples(
    path: Path, recordings: Recordings, test: Sequence[str], preferred: str | None, each: int = 2
) -> None:
    """Save a few test recordings of every class, chosen before any network has seen them."""
    arrays: dict[str, Any] = {"fs": np.float64(recordings.fs)}
    of_class: dict[int, list[str]] = {}
    for key in shuffled(test, 0):
        of_class.setdefault(recordings.label[key], []).append(key)
    chosen = [of_class[label][:each] for label in sorted(of_class)]
    # One of every class first: who shows only a few still shows all classes.
    keys = [key for rank in zip_longest(*chosen) for key in rank if key]
    for key in keys:
        record = recordings.records[key]
        lead = main_lead(record.leads, preferred)
        arrays[f"signal__{key}"] = record.millivolts()[lead]
        arrays[f"qrs__{key}"] = record.qrs.index
    partial = path.with_name(f".{path.name}.partial.npz")
    np.savez_compressed(partial, keys=np.array(keys), **arrays)
    partial.replace(path)
