"""Model files: which one a path stands for, and the network that is in it."""

from __future__ import annotations

import csv
from pathlib import Path

from ..config import Training
from ..errors import EcgpipeError
from ..files.paths import to_path
from ..tasks import TASKS
from ..training.device import choose
from ..training.run_description import RunDescription
from ..training.run_folder import HISTORY, MODEL, PREDICTIONS, RUN, read_model
from .model import Model


def load_model(path: str | Path, device: str = "auto") -> Model:
    """A model that `ecgpipe finetune` or `ecgpipe pretrain` made.

    Parameters
    ----------
    path
        A ``model.pt``, or a folder of a run; see :func:`find_model`.
    device
        auto, cpu or cuda; a GPU is taken if there is one.

    Raises
    ------
    EcgpipeError
        No model there, or one that has no classes, such as one pretrained to predict a future.
    """
    file = find_model(to_path(path))
    card, weights = read_model(file)
    if TASKS[card.task].kind == "contrastive":
        raise EcgpipeError(
            f"{file}: was pretrained to tell futures apart and has no classes; "
            "finetune it first, with --init"
        )
    try:
        network = card.network()
        network.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise EcgpipeError(f"{file}: no model of ecgpipe ({error})") from None
    chosen = choose(Training.model_validate({"device": device, "precision": "fp32"}))
    return Model(file, card, network.to(chosen.device).eval(), chosen)


def find_model(path: Path) -> Path:
    """The model file of a path: itself, that of a run, or that of a run's best repeat.

    Of a finetuning's repeats the one with the best validation score is taken, by what chose its
    epoch: macro F1, or the loss where an item has any number of classes. Repeats that are not
    finished count only if none is.

    Raises
    ------
    EcgpipeError
        There is no model.
    """
    if not path.exists():
        raise EcgpipeError(f"{path}: no such model; name a model.pt or the folder of a run")
    if path.is_file() or (path / MODEL).is_file():
        return path if path.is_file() else path / MODEL
    repeats = [folder for folder in sorted(path.glob("repeat-*")) if (folder / MODEL).is_file()]
    if not repeats or not (path / RUN).is_file():
        raise EcgpipeError(f"{path}: no model in it; has the run finished its first epoch?")
    best = TASKS[RunDescription.read(path / RUN).datasets[0]].best
    finished = [folder for folder in repeats if (folder / PREDICTIONS).is_file()]
    return max(finished or repeats, key=lambda folder: _merit(folder, best)) / MODEL


def _merit(folder: Path, best: str) -> float:
    """The best validation score of a repeat; of a loss, its negative."""
    with (folder / HISTORY).open(newline="") as file:
        values = [float(row[f"validation_{best}"]) for row in csv.DictReader(file)]
    return -min(values) if best == "loss" else max(values)
