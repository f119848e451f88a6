"""Finetuning: repeated training on a downstream data set (paper, "Finetuning")."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ..config import FinetuneSettings
from ..errors import EcgpipeError
from ..files.atomic import read_json, sha256
from ..files.paths import exists
from ..loading.recordings import Recordings, load_recordings
from ..progress import say
from ..storage.store import Store
from ..tasks import DOWNSTREAM, TASKS
from .device import choose
from .examples import EXAMPLES, MISJUDGED, save_examples, save_misjudged
from .repeats import Pretrained, Trainer, side_by_side
from .run_description import InitialWeights, RunData, RunDescription, RunInput, describe
from .run_folder import MODEL, PREDICTIONS, RUN, claimed, read_model
from .splits import draw_split, has_folds

SPLIT = "split.json"


def finetune(shards: Path, run: Path, settings: FinetuneSettings, init: Path | None = None) -> None:
    """Train on a downstream data set, several times, from random or pretrained weights.

    The test records are the same in every repeat and for every ``init``; training and validation
    records are drawn anew for each repeat, unless the set comes with folds of its own. Leaves a
    folder ``repeat-NN`` for each repeat with ``history.csv``, ``model.pt`` and ``predictions.csv``,
    and beside them ``run.json``, ``split.json`` (keys of every split), ``examples.npz`` and
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
    trainer = open_trainer(shards, run, settings, init)
    with claimed(run, trainer.description):
        trainer.split.keep(run / SPLIT)
        recordings, main_lead = trainer.recordings, trainer.main_lead
        if not exists(run / EXAMPLES):
            save_examples(run / EXAMPLES, recordings, trainer.split.test, main_lead)
        todo = []
        for number in range(settings.repeats):
            if exists(trainer.folder(number) / PREDICTIONS):
                say(f"{trainer.folder(number)}: finished already")
            else:
                todo.append(number)
        if settings.parallel > 1 and len(todo) > 1:
            side_by_side(
                partial(open_trainer, shards, run, settings, init), todo, settings.parallel
            )
        else:
            for number in todo:
                trainer.repeat(number)
        if not exists(run / MISJUDGED):
            folders = [trainer.folder(number) for number in range(settings.repeats)]
            save_misjudged(run / MISJUDGED, recordings, folders, main_lead)


def open_trainer(
    shards: Path, run: Path, settings: FinetuneSettings, init: Path | None = None
) -> Trainer:
    """Read a downstream set and what to start from; nothing is written.

    Parameters and errors are those of :func:`finetune`.
    """
    store = Store(shards)
    name = store.recipe.dataset
    task = TASKS.get(name)
    if task is None or task.kind != "records":
        raise EcgpipeError(
            f"{shards}: {name} is no set to finetune on; take one of {', '.join(DOWNSTREAM)}"
        )
    pretrained = _pretrained(init, settings) if init else None
    recordings = load_recordings(store, task.answer == "many_of")
    split = draw_split(recordings.rows, recordings.label, settings)
    if init and pretrained:
        _check_unseen(init, pretrained.card.run, recordings, name, split.test)
    device = choose(settings)
    description = describe(
        settings,
        name=pretrained.card.task if pretrained else "random",
        dataset=name,
        answer=task.answer,
        classes=recordings.classes,
        init=pretrained.described if pretrained else None,
        inputs=(RunInput.of(store),),
        environment=device.describe(),
        data=RunData(
            train=len(split.repeats[0].train),
            validation=len(split.repeats[0].validation),
            test=len(split.test),
            simulated=store.recipe.simulated,
            labels_file=store.recipe.labels_file,
            notes=recordings.notes,
        ),
    )
    return Trainer(
        run,
        recordings,
        store.recipe.main_lead,
        split,
        task,
        settings,
        device,
        description,
        pretrained,
    )


def _pretrained(init: Path, settings: FinetuneSettings) -> Pretrained:
    """The model of a finished pretraining whose network fits."""
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
    described = InitialWeights(path=str(init), run=card.run, model_sha256=sha256(init / MODEL))
    return Pretrained(card, weights, described)


def _check_unseen(
    init: Path, run: RunDescription, recordings: Recordings, dataset: str, test: list[str]
) -> None:
    """Refuse weights that were pretrained on the signals of test records."""
    if dataset not in run.datasets:
        return
    kept = set(run.data.held_back.get(dataset, ()))
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
