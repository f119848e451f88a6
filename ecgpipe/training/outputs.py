"""Run folders, read: what was set, how it went, and what the networks answered.

A pretraining is one training, a finetuning several; both are a :class:`Run` of repeats. A repeat
without ``predictions.csv`` has not finished and holds none. Scores in ``history.csv`` serve for
curves only; every reported score comes from the predictions.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import FinetuneSettings, PretrainSettings
from ..errors import EcgpipeError
from ..metrics.single_label import confusion_of
from .run_description import RunData, RunDescription


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's answers for the items of one split."""

    keys: tuple[str, ...]
    label: NDArray[Any]  # (n,) int64 into the run's classes; of many_of (n, classes) bool
    probability: NDArray[np.float64]  # (n, classes)

    def confusion(self) -> NDArray[np.int64]:
        """(classes, classes) counts; rows are true classes. Where an item has one class."""
        return confusion_of(self.label, self.probability)

    def decision(self) -> NDArray[np.bool_]:
        """(n, classes): the most probable class; of many_of all from .5 on."""
        if self.label.ndim == 2:
            return self.probability >= 0.5
        best: NDArray[np.int64] = self.probability.argmax(1)
        return best[:, None] == np.arange(self.probability.shape[1])

    def truth(self) -> NDArray[np.bool_]:
        """(n, classes): the true class or classes."""
        if self.label.ndim == 2:
            return self.label
        return np.asarray(self.label[:, None] == np.arange(self.probability.shape[1]))

    @cached_property
    def place(self) -> dict[str, int]:
        """Row of every key."""
        return {key: row for row, key in enumerate(self.keys)}


@dataclass(frozen=True, eq=False)
class Repeat:
    """One training: its course and the answers of its best epoch."""

    number: int
    history: dict[str, NDArray[np.float64]]  # column -> (epochs,)
    predictions: dict[str, Predictions]  # by split; empty where the training has not finished


class Example(NamedTuple):
    """One test recording, to be drawn."""

    key: str
    fs: float  # Hz
    signal: NDArray[np.float32]  # (samples,) mV
    qrs: NDArray[np.int32]  # (m,) samples


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder."""

    folder: str  # its name, without the folders above it
    description: RunDescription  # run.json
    repeats: tuple[Repeat, ...]  # all that were planned
    examples: tuple[Example, ...] = ()  # chosen before any training
    misjudged: tuple[Example, ...] = ()  # chosen by the answers, worst first

    @property
    def classes(self) -> list[str]:
        """Symbols of the classes, in the order of the probabilities."""
        return list(self.description.classes)

    @property
    def many_of(self) -> bool:
        """Whether a recording has any number of classes, not one."""
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
        """Answers of the finished repeats for one split."""
        return [repeat.predictions[split] for repeat in self.finished]


def read_run(folder: Path) -> Run:
    """Read a run folder of ``ecgpipe pretrain`` or ``ecgpipe finetune``.

    Raises
    ------
    EcgpipeError
        A folder that is no run, or a file in it that cannot be understood.
    """
    file = folder / "run.json"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise EcgpipeError(
            f"{folder}: no run folder (there is no readable run.json in it); "
            "name a folder that ecgpipe pretrain or ecgpipe finetune wrote"
        ) from None
    except ValueError as error:
        raise EcgpipeError(f"{file}: not valid JSON ({error}); run the training again") from None
    description = RunDescription.from_json(info, file)
    name, classes = folder.resolve().name, list(description.classes)
    if isinstance(description.settings, PretrainSettings):
        repeat = _repeat(folder, 0, classes, splits_of("pretrain"), False)
        return Run(name, description, (repeat,))
    many = description.answer == "many_of"
    splits = splits_of("finetune", many)
    planned = set(range(description.settings.repeats))
    present = {int(path.name[7:]) for path in folder.glob("repeat-*") if path.name[7:].isdigit()}
    repeats = tuple(
        _repeat(folder / f"repeat-{number:02d}", number, classes, splits, many)
        for number in sorted(planned | present)
    )
    drawn = [_examples(folder / f"{name}.npz") for name in ("examples", "misjudged")]
    return Run(name, description, repeats, *drawn)


def _repeat(folder: Path, number: int, classes: list[str], splits: list[str], many: bool) -> Repeat:
    history, answers = folder / "history.csv", folder / "predictions.csv"
    return Repeat(
        number,
        _history(history) if history.is_file() else {},
        read_predictions(answers, classes, splits, many) if answers.is_file() else {},
    )


def _history(file: Path) -> dict[str, NDArray[np.float64]]:
    rows = list(_rows(file, ["epoch"]))
    try:
        columns = rows[0][1] if rows else {}
        return {name: np.array([float(row[name] or "nan") for _, row in rows]) for name in columns}
    except (TypeError, ValueError) as error:
        raise EcgpipeError(f"{file}: {error}; every column holds numbers") from None


def splits_of(kind: str, many: bool = False) -> list[str]:
    """Which items a training's ``predictions.csv`` holds, in this order."""
    return ["validation"] if kind == "pretrain" else ["train"] * many + ["validation", "test"]


def read_predictions(
    file: Path, classes: list[str], splits: list[str], many: bool
) -> dict[str, Predictions]:
    """Read a ``predictions.csv``, the answers for every split.

    Raises
    ------
    EcgpipeError
        A file that does not fit the classes and splits, or cannot be read.
    """
    index = {name: number for number, name in enumerate(classes)}
    columns = [f"p_{name}" for name in classes]
    found: dict[str, list[tuple[str, Any, list[float]]]] = {split: [] for split in splits}
    for line, row in _rows(file, ["key", "label", *columns]):
        try:
            answer = [float(row[column]) for column in columns]
            true: Any = _flags(row["label"], index) if many else index[row["label"]]
            found[row.get("split", splits[0])].append((row["key"], true, answer))
        except (KeyError, TypeError, ValueError) as error:
            raise EcgpipeError(
                f"{file}, line {line}: cannot be used ({error}); "
                f"splits are {', '.join(splits)}, classes {', '.join(classes)}"
            ) from None
    if empty := [split for split in splits if not found[split]]:
        raise EcgpipeError(f"{file}: no rows of the split {empty[0]}; run this repeat again")
    result = {}
    for split, rows in found.items():
        keys, labels, values = zip(*rows, strict=True)
        probability = np.array(values, np.float64)
        if not np.isfinite(probability).all():
            raise EcgpipeError(f"{file}: probabilities that are not finite; the training diverged")
        label = np.array(labels, np.bool_ if many else np.int64)
        result[split] = Predictions(keys, label, probability)
    return result


def _flags(label: str, index: dict[str, int]) -> list[bool]:
    """Whether a recording has each class, of the classes joined by spaces."""
    true = {index[name] for name in label.split()}
    return [place in true for place in index.values()]


def _rows(file: Path, needed: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines of a CSV file with their numbers, once it is known to have the columns needed."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if missing := [name for name in needed if name not in (reader.fieldnames or [])]:
                raise EcgpipeError(f"{file}: column {missing[0]} is missing; run this repeat again")
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EcgpipeError(f"{file}: cannot be read ({error})") from None


def _examples(file: Path) -> tuple[Example, ...]:
    if not file.is_file():
        return ()
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as arrays:
            fs = float(arrays["fs"])
            examples = tuple(
                Example(str(key), fs, arrays[f"signal__{key}"], arrays[f"qrs__{key}"])
                for key in arrays["keys"]
            )
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise EcgpipeError(f"{file}: cannot be read ({error}); delete it to go without") from None
    for example in examples:
        if not (example.signal.size and np.isfinite(example.signal).all() and fs > 0):
            raise EcgpipeError(f"{file}: {example.key} holds no finite signal; delete the file")
    return examples
