"""Run folders and model files: opened to train, and read for reports.

A pretraining is one training, a finetuning several; both are a :class:`Run` of repeats. A repeat
without ``predictions.csv`` has not finished. Every reported score comes from the predictions.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..config import FinetuneSettings, PretrainSettings
from ..errors import Damaged, EcgpipeError
from ..files.atomic import locked, read_json, write_bytes, write_json
from ..files.paths import exists, is_empty
from .examples import EXAMPLES, MISJUDGED, Example, read_examples
from .predictions import PREDICTIONS, Predictions, read_predictions, read_rows, splits_of
from .run_description import ModelCard, RunData, RunDescription, identity
from .splits import SPLIT, Split

RUN, MODEL, HISTORY = "run.json", "model.pt", "history.csv"


@contextmanager
def locked_run(run: Path, description: RunDescription, writes: bool = True) -> Iterator[None]:
    """Lock a run folder for one process and one run; writes ``run.json`` if it is new.

    A folder whose ``run.json`` has another digest holds another run, and is refused. Of the
    processes of one training, only the one that writes locks the folder.

    Raises
    ------
    EcgpipeError
        The folder holds another run or something else, or another process works in it.
    """
    if not writes:
        yield
        return
    path = run / RUN
    if not exists(path):
        if not is_empty(run) and not exists(path):  # another process may just have written it
            raise EcgpipeError(
                f"{run}: is no run of ecgpipe and not empty; name another folder for --out"
            )
        write_json(path, description.to_json(), new=True)
    with locked(path):
        old = read_json(path)
        if old.get("digest") != description.digest:
            raise EcgpipeError(
                f"{run}: already holds another run ({_difference(old, description.to_json())}); "
                "name another folder for --out, or give the settings of that run to continue it"
            )
        yield


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    one, two = _flat(identity(old)), _flat(identity(new))
    names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    shown = [f"{name} {one.get(name)} there, {two.get(name)} now" for name in names[:3]]
    return "; ".join(shown) + ("; …" if len(names) > 3 else "")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {
            k: v for name, part in tree.items() for k, v in _flat(part, f"{prefix}{name}.").items()
        }
    return {prefix.rstrip("."): tree}


def save(path: Path, tree: Mapping[str, Any]) -> None:
    """Write tensors and plain values in one step."""
    content = io.BytesIO()
    torch.save(dict(tree), content)
    write_bytes(path, content)


def load(path: Path) -> dict[str, Any]:
    """Read what :func:`save` wrote; nothing in it can run code.

    Raises
    ------
    EcgpipeError
        The file is missing.
    Damaged
        It is no model file, or cut.
    """
    try:
        with path.open("rb") as file:
            content = io.BytesIO(file.read())
        tree: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise EcgpipeError(f"{path}: missing; has the run finished its first epoch?") from None
    except Exception as error:  # torch raises whatever the damage leads to
        raise Damaged(f"{path}: not a readable model file ({type(error).__name__})") from None
    return tree


def read_model(path: Path) -> tuple[ModelCard, dict[str, torch.Tensor]]:
    """The card and the weights of a model file; raises as :func:`load` and the card do."""
    tree = load(path)
    weights = tree.pop("network", None)
    if weights is None:
        raise EcgpipeError(f"{path}: no model of ecgpipe ('network')")
    return ModelCard.from_tree(tree, path), weights


@dataclass(frozen=True, eq=False)
class Repeat:
    """One training: its history and the predictions of its best epoch."""

    number: int
    history: dict[str, NDArray[np.float64]]  # column -> (epochs,)
    predictions: dict[str, Predictions]  # by split; empty where the training has not finished


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder."""

    folder: str  # its name, without the folders above it
    description: RunDescription  # run.json
    repeats: tuple[Repeat, ...]  # all that were planned
    examples: tuple[Example, ...] = ()  # chosen before any training
    misjudged: tuple[Example, ...] = ()  # chosen by the predictions, worst first

    @property
    def classes(self) -> list[str]:
        """Symbols of the classes, in the order of the probabilities."""
        return list(self.description.classes)

    @property
    def many_of(self) -> bool:
        """True if a recording has any number of classes, not one."""
        return self.description.answer == "many_of"

    @property
    def dataset(self) -> str:
        """The data set, of a finetuning; of a pretraining the first."""
        return self.description.datasets[0]

    @property
    def finetuning(self) -> FinetuneSettings:
        """The settings of a run that is a finetuning."""
        return self.description.finetuning

    @property
    def data(self) -> RunData:
        """Counts and notes on the data."""
        return self.description.data

    @property
    def fs(self) -> float | None:
        """Hz of the input, or None where it is not recorded."""
        return self.description.fs

    @property
    def upstream(self) -> RunDescription | None:
        """The pretraining it started from; None for random weights."""
        return self.description.upstream

    @property
    def finished(self) -> list[Repeat]:
        """Repeats with predictions."""
        return [repeat for repeat in self.repeats if repeat.predictions]

    def scored(self, split: str) -> list[Predictions]:
        """Predictions of the finished repeats for one split."""
        return [repeat.predictions[split] for repeat in self.finished]


def read_run(folder: Path) -> Run:
    """Read a run folder of ``ecgpipe pretrain`` or ``ecgpipe finetune``.

    Raises
    ------
    EcgpipeError
        A folder that is no run, or a file in it that cannot be understood.
    """
    if not (folder / RUN).is_file():
        raise EcgpipeError(
            f"{folder}: no run folder (there is no readable run.json in it); "
            "name a folder that ecgpipe pretrain or ecgpipe finetune wrote"
        )
    description = RunDescription.read(folder / RUN)
    name, settings = folder.resolve().name, description.settings
    if isinstance(settings, PretrainSettings):
        return Run(name, description, (_repeat(folder, 0, description),))
    present = {int(path.name[7:]) for path in folder.glob("repeat-*") if path.name[7:].isdigit()}
    repeats = tuple(
        _repeat(folder / f"repeat-{number:02d}", number, description)
        for number in sorted({*range(settings.repeats), *present})
    )
    if exists(folder / SPLIT):
        _check_tested(folder, repeats, Split.read(folder / SPLIT))
    examples = (read_examples(folder / file) for file in (EXAMPLES, MISJUDGED))
    return Run(name, description, repeats, *examples)


def _check_tested(folder: Path, repeats: Sequence[Repeat], split: Split) -> None:
    """Raise Damaged where predictions are not of the records of the split."""
    for repeat, drawn in zip(repeats, split.repeats, strict=False):
        wanted = {"test": split.test, "validation": drawn.validation, "train": drawn.train}
        for name, found in repeat.predictions.items():
            if sorted(found.keys) != sorted(wanted[name]):
                file = folder / f"repeat-{repeat.number:02d}" / PREDICTIONS
                raise Damaged(
                    f"{file}: {len(found.keys):,} records of the split {name}, not the "
                    f"{len(wanted[name]):,} of {SPLIT}; remove it and run the finetuning again"
                )


def _repeat(folder: Path, number: int, run: RunDescription) -> Repeat:
    history, predictions = folder / HISTORY, folder / PREDICTIONS
    many = run.answer == "many_of"
    splits = splits_of(run.kind, many)
    return Repeat(
        number,
        _history(history) if history.is_file() else {},
        read_predictions(predictions, run.classes, splits, many) if predictions.is_file() else {},
    )


def _history(file: Path) -> dict[str, NDArray[np.float64]]:
    rows = [row for _, row in read_rows(file, ["epoch"])]
    try:
        return {
            name: np.array([float(row[name] or "nan") for row in rows])
            for name in (rows[0] if rows else ())
        }
    except (TypeError, ValueError) as error:
        raise EcgpipeError(f"{file}: {error}; every column holds numbers") from None
