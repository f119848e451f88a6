"""Pretraining: frames of upstream records teach a network (paper, "Pretraining")."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..config import PretrainSettings
from ..errors import EcgpipeError
from ..files.atomic import write_text
from ..files.paths import exists
from ..labels.splits import hold_out
from ..loading.corpus import Corpus, open_corpus
from ..loading.epoch import Epoch, Feed
from ..loading.frames import Frames, fixed_items
from ..loading.recordings import read_labels
from ..models.future import FuturePrediction
from ..models.resnet import ResNet
from ..progress import say
from ..storage.manifest import moments
from ..storage.store import Store
from ..tasks import DOWNSTREAM, TASKS, classes_of, frames_of
from ..types import Batch
from .device import Device, choose
from .loop import Plan, finish, fit, new_network, predict
from .processes import Ranks, check_shares, joined
from .run_description import ModelCard, RunData, RunInput, describe
from .run_folder import PREDICTIONS, claimed
from .splits import held_back


def pretrain(shards: Sequence[Path], run: Path, settings: PretrainSettings) -> None:
    """Pretrain a network on the shards of one or more data sets, or continue.

    Leaves ``run.json``, ``history.csv``, ``model.pt`` (the weights with the best validation score)
    and ``predictions.csv`` (of the held-out patients' fixed items) in the run's folder. Started by
    torchrun, its processes share the work and come to what one would, within rounding.

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
    Interrupted
        SIGTERM or Ctrl-C came; what was done is saved.
    """
    device = choose(settings)
    with joined(device.device) as ranks:
        check_shares(ranks.count, settings.streams, settings.workers, settings.accumulate)
        _pretrain([Store(path) for path in shards], run, settings, device, ranks)


def _pretrain(
    stores: Sequence[Store], run: Path, settings: PretrainSettings, device: Device, ranks: Ranks
) -> None:
    task, span = TASKS[settings.task], frames_of(settings).span
    unseen = {store.recipe.dataset: _held_back(store, settings) for store in stores}
    corpus = open_corpus(stores, settings.fs, span, task.needs_beats, unseen)
    training, held_out = _divide(corpus, stores, settings)
    counted = {*training, *(held_out if settings.statistics == "all" else ())}
    rows = [row for row in corpus.rows.values() if row["patient_id"] in counted]
    spread = moments(rows, lambda row: [row["lead"]])
    mean, std = spread.mean, spread.std
    frames = frames_of(settings, mean, std)
    classes = classes_of(settings)
    description = describe(
        settings,
        name=settings.task,
        dataset=[store.recipe.dataset for store in stores],
        answer=task.answer,
        classes=classes,
        inputs=tuple(map(RunInput.of, stores)),
        environment=device.describe() | {"processes": str(ranks.count)},
        data=RunData(
            train_patients=len(training),
            validation_patients=len(held_out),
            held_out=held_out,
            held_back={name: keys for name, keys in unseen.items() if keys},
            mean_mV=mean,
            std_mV=std,
            simulated=any(store.recipe.simulated for store in stores),
            notes=corpus.notes,
        ),
    )
    with claimed(run, description, writes=ranks.first):
        if exists(run / PREDICTIONS):
            if ranks.first:
                say(f"{run}: finished already")
            return
        validation: list[Batch] = []
        if ranks.first:
            for note in corpus.notes:
                say(f"pretrain: {note}")
            validation = fixed_items(corpus.of(held_out), frames, settings.validation_frames)
        network = new_network(lambda: build_network(settings), settings.seed)
        if settings.sync_batchnorm and device.is_gpu and ranks.count > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
        plan = Plan(
            title=f"pretrain {settings.task}",
            epochs=settings.epochs,
            batches=lambda epoch, done: Feed(
                _epoch(corpus, training, frames, epoch, settings),
                ranks.rank,
                ranks.count,
                settings.workers,
                first=done * settings.accumulate,
                pin=device.is_gpu,
            ),
            validation=lambda: validation,
            best=task.best,
            patience=None,
            card=ModelCard(
                task=settings.task,
                answer=task.answer,
                classes=classes,
                fs=settings.fs,
                leads=1,
                lead_names=("ecg",),
                seconds=settings.frame / settings.fs,
                depth=settings.network.depth,
                order=settings.network.order,
                stages=settings.network.stages,
                mean_mV=mean,
                std_mV=std,
                run=description,
            ),
        )
        fit(network, plan, settings, device, run, ranks)
        if ranks.first:
            label, probability, _ = predict(network, validation, device)
            places = [key.split("@") for batch in validation for key in batch.keys]
            columns = {"key": [key for key, _ in places], "start": [start for _, start in places]}
            write_predictions(run / PREDICTIONS, columns, classes, label, probability)
            finish(run)


def _held_back(store: Store, settings: PretrainSettings) -> list[str]:
    """Records of a downstream set that a finetuning will be tested on."""
    name = store.recipe.dataset
    if name not in DOWNSTREAM:
        return []
    rows = {row["key"]: row for row in store.rows()}
    many_of = TASKS[name].answer == "many_of"
    label = read_labels(store.path, rows, store.recipe.statements, many_of)
    return held_back(rows, label, settings.held_back, settings.held_back_seed)


def _divide(
    corpus: Corpus, stores: Sequence[Store], settings: PretrainSettings
) -> tuple[list[str], list[str]]:
    """Patients that train, and those held out; a future needs two on either side."""
    fewest = 2 if TASKS[settings.task].kind == "contrastive" else 1
    try:
        held_out = hold_out(corpus.patients, settings.validation_share, settings.split_seed, fewest)
    except ValueError as error:
        raise EcgpipeError(
            f"{', '.join(str(store.path) for store in stores)}: {error}; add another data set"
        ) from None
    return sorted(set(corpus.patients) - set(held_out)), held_out


def _epoch(
    corpus: Corpus, training: list[str], frames: Frames, number: int, settings: PretrainSettings
) -> Epoch:
    names = ("batch", "frames_per_visit", "streams", "open_shards", "shuffle")
    how = {name: getattr(settings, name) for name in names}
    steps = settings.steps * settings.accumulate
    return Epoch(corpus.of(training), frames, number=number, steps=steps, **how)


def build_network(settings: PretrainSettings) -> nn.Module:
    """The network of a pretraining, with new weights."""
    how = settings.network.model_dump()
    if TASKS[settings.task].kind == "contrastive":
        encoder = ResNet(None, **how)
        future = settings.future
        return FuturePrediction(encoder, future.context, scale=future.attention_scale)
    return ResNet(len(classes_of(settings)), **how)


def write_predictions(
    path: Path,
    columns: dict[str, list[str]],
    classes: Sequence[str],
    label: NDArray[Any],
    probability: NDArray[np.float64],
) -> None:
    """Write what a network answered: the given columns, the truth, a probability per class.

    The truth is the name of the true class, or of all true ones, with spaces between them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "label", *(f"p_{name}" for name in classes)])
    for *place, y, p in zip(*columns.values(), label, probability, strict=True):
        true = [y] if np.ndim(y) == 0 else np.flatnonzero(y)
        names = " ".join(classes[int(at)] for at in true)
        writer.writerow([*place, names, *(f"{value:.6f}" for value in p)])
    write_text(path, text.getvalue())
