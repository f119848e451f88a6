"""Pretraining: frames of upstream records teach a network (paper, "Pretraining")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ..config import PretrainSettings
from ..errors import EcgpipeError
from ..files.paths import exists
from ..labels.splits import hold_out
from ..loading.corpus import Corpus, open_corpus
from ..loading.epoch import Epoch, Feed
from ..loading.frames import Frames, fixed_items
from ..loading.recordings import read_labels
from ..models.future import FuturePrediction
from ..models.resnet import ResNet
from ..progress import say
from ..storage.manifest import Moments, moments
from ..storage.store import Store
from ..tasks import DOWNSTREAM, TASKS, classes_of, frames_of
from ..types import Batch
from .device import Device, choose
from .loop import Plan, finish, fit, new_network
from .predictions import PREDICTIONS, write_predictions
from .processes import Ranks, check_shares, process_group
from .run_description import ModelCard, RunData, RunDescription, describe
from .run_folder import locked_run
from .splits import records_held_back
from .train_step import predict


def pretrain(shards: Sequence[Path], run: Path, settings: PretrainSettings) -> None:
    """Pretrain a network on the shards of one or more data sets, or continue.

    Leaves ``run.json``, ``history.csv``, ``model.pt`` (the weights with the best validation score)
    and ``predictions.csv`` (of the held-out patients' fixed items) in the run's folder. Started by
    torchrun, its processes share the work; the result is that of one process, within rounding.

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
    with process_group(device.device) as ranks:
        check_shares(ranks.count, settings.streams, settings.workers, settings.accumulate)
        stores = [Store(path) for path in shards]
        data = _open_data(stores, settings)
        description = _describe(stores, data, settings, device, ranks)
        with locked_run(run, description, writes=ranks.first):
            if not exists(run / PREDICTIONS):
                _train(data, description, run, settings, device, ranks)
            elif ranks.first:
                say(f"{run}: finished already")


@dataclass(frozen=True)
class _Data:
    """The corpus of a pretraining, divided by patients."""

    corpus: Corpus
    training: list[str]  # patients
    held_out: list[str]  # patients that validate
    held_back: dict[str, list[str]]  # records of downstream sets, left out of the corpus
    spread: Moments  # of the signals that standardise the input
    frames: Frames


def _open_data(stores: Sequence[Store], settings: PretrainSettings) -> _Data:
    span, needs_beats = frames_of(settings).span, TASKS[settings.task].needs_beats
    held_back = {store.recipe.dataset: _held_back(store, settings) for store in stores}
    corpus = open_corpus(stores, settings.fs, span, needs_beats, held_back)
    training, held_out = _divide(corpus, stores, settings)
    counted = {*training, *(held_out if settings.statistics == "all" else ())}
    spread = moments((row, lead) for patient, row, lead in corpus.rows if patient in counted)
    frames = frames_of(settings, spread.mean, spread.std)
    return _Data(corpus, training, held_out, held_back, spread, frames)


def _held_back(store: Store, settings: PretrainSettings) -> list[str]:
    """Records of a downstream set that a finetuning will be tested on."""
    name = store.recipe.dataset
    if name not in DOWNSTREAM:
        return []
    rows = {row.key: row for row in store.rows()}
    many_of = TASKS[name].answer == "many_of"
    label = read_labels(store.path, rows, store.recipe.statements, many_of)
    return records_held_back(rows, label, settings.held_back, settings.held_back_seed)


def _divide(
    corpus: Corpus, stores: Sequence[Store], settings: PretrainSettings
) -> tuple[list[str], list[str]]:
    """Patients that train, and those held out; future prediction needs two in each part."""
    fewest = 2 if TASKS[settings.task].kind == "contrastive" else 1
    try:
        held_out = hold_out(corpus.patients, settings.validation_share, settings.split_seed, fewest)
    except ValueError as error:
        raise EcgpipeError(
            f"{', '.join(str(store.path) for store in stores)}: {error}; add another data set"
        ) from None
    return sorted(set(corpus.patients) - set(held_out)), held_out


def _describe(
    stores: Sequence[Store], data: _Data, settings: PretrainSettings, device: Device, ranks: Ranks
) -> RunDescription:
    return describe(
        settings,
        stores,
        name=settings.task,
        answer=TASKS[settings.task].answer,
        classes=classes_of(settings),
        environment=device.describe() | {"processes": str(ranks.count)},
        data=RunData(
            train_patients=len(data.training),
            validation_patients=len(data.held_out),
            held_out=data.held_out,
            held_back={name: keys for name, keys in data.held_back.items() if keys},
            mean_mV=data.spread.mean,
            std_mV=data.spread.std,
            simulated=any(store.recipe.simulated for store in stores),
            notes=data.corpus.notes,
        ),
    )


def _train(
    data: _Data,
    description: RunDescription,
    run: Path,
    settings: PretrainSettings,
    device: Device,
    ranks: Ranks,
) -> None:
    corpus, validation = data.corpus, list[Batch]()
    if ranks.first:
        for note in corpus.notes:
            say(f"pretrain: {note}")
        held_out = corpus.of(data.held_out)
        validation = fixed_items(held_out, data.frames, settings.validation_frames)
    network = new_network(lambda: build_network(settings), settings.seed)
    if settings.sync_batchnorm and device.is_gpu and ranks.count > 1:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    plan = Plan(
        title=f"pretrain {settings.task}",
        epochs=settings.epochs,
        batches=lambda epoch, done: Feed(
            _epoch(data, epoch, settings),
            ranks.rank,
            ranks.count,
            settings.workers,
            first=done * settings.accumulate,
            pin=device.is_gpu,
        ),
        validation=lambda: validation,
        best=TASKS[settings.task].best,
        patience=None,
        card=ModelCard.of(
            description, data.spread, settings.fs, ["ecg"], settings.frame / settings.fs
        ),
    )
    fit(network, plan, settings, device, run, ranks)
    if ranks.first:
        label, probability, _ = predict(network, validation, device)
        items = [key.split("@") for batch in validation for key in batch.keys]
        columns = {"key": [key for key, _ in items], "start": [start for _, start in items]}
        write_predictions(run / PREDICTIONS, columns, description.classes, label, probability)
        finish(run)


def _epoch(data: _Data, number: int, settings: PretrainSettings) -> Epoch:
    names = ("batch", "frames_per_visit", "streams", "open_shards", "shuffle")
    how = {name: getattr(settings, name) for name in names}
    steps = settings.steps * settings.accumulate
    return Epoch(data.corpus.of(data.training), data.frames, number=number, steps=steps, **how)


def build_network(settings: PretrainSettings) -> nn.Module:
    """The network of a pretraining, with new weights."""
    how = settings.network.model_dump()
    if TASKS[settings.task].kind == "contrastive":
        encoder = ResNet(None, **how)
        future = settings.future
        return FuturePrediction(encoder, future.context, scale=future.attention_scale)
    return ResNet(len(classes_of(settings)), **how)
