"""Pretraining: labelled frames of upstream records teach a network (paper, "Pretraining")."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..config import PretrainSettings
from ..errors import EcgpipeError
from ..files import write_text
from ..labels.splits import hold_out
from ..loading.frames import Epoch, Frames, fixed_frames, open_corpus
from ..models.resnet import ResNet
from ..progress import say
from ..storage.manifest import moments
from ..storage.store import Store
from ..tasks import TASKS
from ..types import Batch
from .device import choose
from .loop import Plan, SizedBatches, finish, fit, new_network, predict
from .run import PREDICTIONS, claimed, describe, describe_input


def pretrain(shards: Sequence[Path], run: Path, settings: PretrainSettings) -> None:
    """Pretrain a network on the shards of one or more data sets, or continue.

    Leaves ``run.json``, ``history.csv``, ``model.pt`` (the weights with the best validation score)
    and ``predictions.csv`` (of the held-out patients' fixed frames) in the run's folder.

    Parameters
    ----------
    shards
        Folders of shards, all at the rate of ``settings.fs``.
    run
        Folder of the run.

    Raises
    ------
    EcgpipeError
        Shards that cannot be used, a folder that holds another run, or settings that do not fit.
    """
    if settings.workers and settings.streams % settings.workers:
        raise EcgpipeError(
            f"setting workers: {settings.workers} does not divide the {settings.streams} streams"
        )
    task = TASKS[settings.task]
    if task.label is None:
        raise EcgpipeError(f"setting task: {settings.task} labels whole records, not frames")
    stores = [Store(path) for path in shards]
    corpus = open_corpus(stores, settings.fs, settings.frame, task.needs_beats)
    try:
        held_out = hold_out(corpus.patients, settings.validation_share, settings.split_seed)
    except ValueError as error:
        raise EcgpipeError(
            f"{', '.join(map(str, shards))}: {error}; add another data set"
        ) from None
    training = sorted(set(corpus.patients) - set(held_out))
    rows = [row for row in corpus.rows.values() if row["patient_id"] in set(training)]
    spread = moments(rows, lambda row: [row["lead"]])
    mean, std = spread.mean, spread.std
    frames = Frames(settings.frame, task.label, mean, std, settings.seed)
    device = choose(settings)
    description = describe(
        {
            "kind": "pretrain",
            "name": settings.task,
            "dataset": [store.recipe["dataset"] for store in stores],
            "classes": list(task.classes),
            "settings": settings.model_dump(),
            "inputs": [describe_input(store) for store in stores],
            "environment": device.describe(),
            "data": {
                "train_patients": len(training),
                "validation_patients": len(held_out),
                "held_out": held_out,
                "mean_mV": mean,
                "std_mV": std,
                "simulated": any(store.recipe["simulated"] for store in stores),
                "notes": corpus.notes,
            },
        }
    )
    with claimed(run, description):
        if (run / PREDICTIONS).is_file():
            say(f"{run}: finished already")
            return
        for note in corpus.notes:
            say(f"pretrain: {note}")
        validation = fixed_frames(
            corpus.of(held_out), frames, settings.validation_frames, settings.batch
        )

        def batches(number: int) -> SizedBatches:
            names = ("steps", "batch", "frames_per_visit", "streams", "open_shards", "shuffle")
            how = {name: getattr(settings, name) for name in names}
            epoch = Epoch(corpus.of(training), frames, number=number, **how)
            if not settings.workers:
                return epoch
            return DataLoader(
                _Streams(epoch), batch_size=None, num_workers=settings.workers, collate_fn=_same
            )

        network = new_network(
            lambda: ResNet(len(task.classes), depth=settings.network.depth), settings.seed
        )
        plan = Plan(
            title=f"pretrain {settings.task}",
            epochs=settings.epochs,
            batches=batches,
            validation=lambda: validation,
            best=task.best,
            patience=None,
            card={
                "task": settings.task,
                "classes": list(task.classes),
                "fs": settings.fs,
                "leads": 1,
                "depth": settings.network.depth,
                "mean_mV": mean,
                "std_mV": std,
                "run": description,
            },
        )
        fit(network, plan, settings, device, run)
        label, probability, _ = predict(network, validation, device)
        places = [key.split("@") for batch in validation for key in batch.keys]
        columns = {"key": [key for key, _ in places], "start": [start for _, start in places]}
        write_predictions(run / PREDICTIONS, columns, task.classes, label, probability)
        finish(run)


class _Streams(IterableDataset[Batch]):
    """The streams of an epoch that fall to this loader process."""

    def __init__(self, epoch: Epoch) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.epoch)

    def __iter__(self) -> Any:
        info = get_worker_info()
        assert info is not None, "only loader processes iterate this"
        return self.epoch.run(range(info.id, self.epoch.streams, info.num_workers))


def _same(batch: Any) -> Any:
    return batch


def write_predictions(
    path: Path,
    columns: dict[str, list[str]],
    classes: Sequence[str],
    label: NDArray[np.int64],
    probability: NDArray[np.float64],
) -> None:
    """Write what a network answered: the given columns, the true class, a probability per class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "label", *(f"p_{name}" for name in classes)])
    for *place, y, p in zip(*columns.values(), label, probability, strict=True):
        writer.writerow([*place, classes[y], *(f"{value:.6f}" for value in p)])
    write_text(path, text.getvalue())
