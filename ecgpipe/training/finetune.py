"""Finetuning: repeated training on a downstream data set (paper, "Finetuning")."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..config import FinetuneSettings
from ..errors import EcgpipeError
from ..files import is_there, read_json, sha256, write_json
from ..loading.recordings import Recordings, batches, chunks, load_recordings, shuffled
from ..models.resnet import ResNet
from ..models.transfer import transfer
from ..progress import say
from ..storage.manifest import moments
from ..storage.store import Store
from ..tasks import DOWNSTREAM, TASKS, Task
from ..tasks.answers import ANSWERS
from .device import Device, choose
from .examples import EXAMPLES, MISJUDGED, save_examples, save_misjudged
from .loop import Plan, finish, fit, new_network, predict
from .pretrain import write_predictions
from .run import MODEL, PREDICTIONS, RUN, claimed, describe, describe_input, load
from .sides import draw_sides, has_folds

SPLIT, TRANSFER = "split.json", "transfer.json"


def finetune(shards: Path, run: Path, settings: FinetuneSettings, init: Path | None = None) -> None:
    """Train on a downstream data set, several times, from random or pretrained weights.

    The test records are the same in every repeat and for every ``init``; training and validation
    records are drawn anew for each repeat, unless the set comes with folds of its own. Leaves a
    folder ``repeat-NN`` for each repeat with ``history.csv``, ``model.pt`` and ``predictions.csv``,
    and beside them ``run.json``, ``split.json`` (keys of every side), ``examples.npz`` and
    ``misjudged.npz`` (test recordings for the report) and, from pretrained weights,
    ``transfer.json`` (what became of every tensor).

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
        raise EcgpipeError(
            f"{shards}: {name} is no set to finetune on; take one of {', '.join(DOWNSTREAM)}"
        )
    pretrained = _pretrained(init, settings) if init else None
    recordings = load_recordings(store, task.answer == "many_of")
    sides = draw_sides(recordings.rows, recordings.label, settings)
    if init and pretrained:
        _check_unseen(init, pretrained, recordings, name, sides["test"])
    device = choose(settings)
    description = describe(
        {
            "kind": "finetune",
            "name": pretrained["task"] if pretrained else "random",
            "dataset": name,
            "answer": task.answer,
            "classes": list(recordings.classes),
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
        _keep_sides(run / SPLIT, sides)
        if not is_there(run / EXAMPLES):
            save_examples(run / EXAMPLES, recordings, sides["test"], store.recipe["main_lead"])
        trainer = Trainer(run, recordings, task, settings, device, description, pretrained)
        folders = [run / f"repeat-{number:02d}" for number in range(settings.repeats)]
        for number, (folder, side) in enumerate(zip(folders, sides["repeats"], strict=True)):
            if is_there(folder / PREDICTIONS):
                say(f"{folder}: finished already")
                continue
            trainer.repeat(number, folder, side["train"], side["validation"], sides["test"])
        if not is_there(run / MISJUDGED):
            save_misjudged(run / MISJUDGED, recordings, folders, store.recipe["main_lead"])


def _pretrained(init: Path, settings: FinetuneSettings) -> dict[str, Any]:
    """The model file of a finished pretraining whose network fits."""
    if is_there(init / RUN) and read_json(init / RUN).get("kind") == "finetune":
        raise EcgpipeError(f"{init}: is a finetuning; name a pretraining run to start from")
    pretrained = load(init / MODEL)
    if pretrained["run"]["kind"] != "pretrain":
        raise EcgpipeError(f"{init}: is part of a finetuning; name a pretraining run to start from")
    if not is_there(init / PREDICTIONS):
        raise EcgpipeError(f"{init}: pretraining is not finished; run its command again")
    for part in ("depth", "order"):
        wanted = getattr(settings.network, part)
        if pretrained[part] != wanted:
            raise EcgpipeError(
                f"setting network.{part}: {wanted}, but {init} has {part} {pretrained[part]}"
            )
    return pretrained


def _keep_sides(file: Path, sides: dict[str, Any]) -> None:
    """Write the sides down; refuse to continue with others, which another NumPy could draw."""
    if not is_there(file):
        write_json(file, sides)
    elif read_json(file) != sides:
        raise EcgpipeError(
            f"{file}: holds other sides than are drawn now from the same settings and data; "
            "continue with the versions that run.json names, or name another folder for --out"
        )


def _check_unseen(
    init: Path, pretrained: dict[str, Any], recordings: Recordings, dataset: str, test: list[str]
) -> None:
    """Refuse weights that were pretrained on the signals of test records."""
    run = pretrained["run"]
    if dataset not in run["dataset"]:
        return
    kept = set(run["data"].get("held_back", {}).get(dataset, ()))
    if seen := set(test) - kept:
        what = (
            "set official_folds=true, whose test fold it has not seen"
            if kept and has_folds(recordings.rows)
            else "pretrain with held_back and held_back_seed as test_share and split_seed are here"
        )
        raise EcgpipeError(
            f"{init}: was pretrained on {len(seen)} of the test records, such as {min(seen)}; "
            + what
        )


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
        rows, answer = recordings.rows, ANSWERS[self.task.answer]
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
                "answer": self.task.answer,
                "classes": list(recordings.classes),
                "fs": recordings.fs,
                "leads": len(recordings.leads),
                "lead_names": list(recordings.leads),
                **settings.network.model_dump(),
                "seconds": settings.seconds,
                "mean_mV": mean,
                "std_mV": std,
                "run": self.description,
            },
            answer=answer,
        )
        fit(network, plan, settings, self.device, folder)
        sides = {"validation": validation, "test": test}
        if self.task.answer == "many_of":  # whose decisions need thresholds from training records
            sides = {"train": train, **sides}
        keys = [key for side in sides.values() for key in side]
        label, probability, _ = predict(network, of(keys), self.device, answer)
        split = [name for name, side in sides.items() for _ in side]
        columns = {"key": keys, "split": split}
        write_predictions(folder / PREDICTIONS, columns, recordings.classes, label, probability)
        finish(folder)

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
