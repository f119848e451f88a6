"""``predictions.csv``: what the best weights of a training predict, written and read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EcgpipeError
from ..files.atomic import write_text
from ..metrics.single_label import confusion_of

PREDICTIONS = "predictions.csv"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions of a network for the items of one split."""

    keys: tuple[str, ...]
    label: NDArray[Any]  # (n,) int64 class; of many_of (n, classes) bool
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
    def row_of(self) -> dict[str, int]:
        """Row of every key."""
        return {key: row for row, key in enumerate(self.keys)}


def splits_of(kind: str, many: bool = False) -> list[str]:
    """Names of the splits in a training's ``predictions.csv``, in this order."""
    return ["validation"] if kind == "pretrain" else ["train"] * many + ["validation", "test"]


def write_predictions(
    path: Path,
    columns: dict[str, list[str]],
    classes: Sequence[str],
    label: NDArray[Any],
    probability: NDArray[np.float64],
) -> None:
    """Write predictions: the given columns, the label, a probability (n, classes) per class.

    The label is the name of the true class; with many labels, all true names joined by spaces.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "label", *(f"p_{name}" for name in classes)])
    for *given, y, p in zip(*columns.values(), label, probability, strict=True):
        true = [y] if np.ndim(y) == 0 else np.flatnonzero(y)
        names = " ".join(classes[int(at)] for at in true)
        writer.writerow([*given, names, *(f"{value:.6f}" for value in p)])
    write_text(path, text.getvalue())


def read_predictions(
    file: Path, classes: Sequence[str], splits: Sequence[str], many: bool
) -> dict[str, Predictions]:
    """Read a ``predictions.csv``: predictions by split.

    Raises
    ------
    EcgpipeError
        A file that does not fit the classes and splits, or cannot be read.
    """
    index = {name: number for number, name in enumerate(classes)}
    columns = [f"p_{name}" for name in classes]
    found: dict[str, list[tuple[str, Any, list[float]]]] = {split: [] for split in splits}
    for line, row in read_rows(file, ["key", "label", *columns]):
        try:
            probability = [float(row[column]) for column in columns]
            true = [index[name] for name in (row["label"].split() if many else [row["label"]])]
            label = np.isin(range(len(classes)), true) if many else true[0]
            found[row.get("split", splits[0])].append((row["key"], label, probability))
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
        result[split] = Predictions(keys, np.array(labels), np.array(values, np.float64))
        if not np.isfinite(result[split].probability).all():
            raise EcgpipeError(f"{file}: probabilities that are not finite; the training diverged")
    return result


def read_rows(file: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file with their line numbers.

    Raises
    ------
    EcgpipeError
        A column that is needed is missing, or the file cannot be read.
    """
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if missing := [name for name in needed if name not in (reader.fieldnames or [])]:
                raise EcgpipeError(f"{file}: column {missing[0]} is missing; run this repeat again")
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EcgpipeError(f"{file}: cannot be read ({error})") from None
