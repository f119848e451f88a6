"""Test recordings that a run keeps beside its predictions, for its report to draw."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ..files.atomic import write_bytes
from ..labels.qrs import main_lead
from ..loading.recordings import Label, Recordings, shuffled, targets
from .run_folder import PREDICTIONS

EXAMPLES, MISJUDGED = "examples.npz", "misjudged.npz"
WORST = 6  # recordings


def save_examples(
    path: Path, recordings: Recordings, test: Sequence[str], preferred: str | None, each: int = 2
) -> None:
    """Save a few test recordings of every class, chosen before any network has seen them."""
    of_class: dict[Label, list[str]] = {}  # of several labels by the first, of none by none
    for key in shuffled(test, 0):
        label = recordings.label[key]
        first = label[:1] if isinstance(label, tuple) else (label,)
        of_class.setdefault(first, []).append(key)
    chosen = [of_class[label][:each] for label in sorted(of_class)]
    # One of every class first: who shows only a few still shows all classes.
    keys = [key for rank in zip_longest(*chosen) for key in rank if key]
    _save(path, recordings, keys, preferred)


def save_misjudged(
    path: Path, recordings: Recordings, repeats: Sequence[Path], preferred: str | None
) -> None:
    """Save the test recordings that all repeats together were most mistaken about, worst first.

    By the mean over the repeats of the probability that was given to the truth; with many labels,
    of the probability that every single label was given its right answer.
    """
    told = [_test(folder / PREDICTIONS, recordings.classes) for folder in repeats]
    keys = list(told[0])
    y = targets([recordings.label[key] for key in keys], len(recordings.classes))
    p = np.mean([[answers[key] for key in keys] for answers in told], axis=0)
    right = p[np.arange(len(keys)), y] if y.ndim == 1 else np.where(y > 0, p, 1 - p).prod(1)
    worst = np.argsort(right, kind="stable")[:WORST]
    _save(path, recordings, [keys[i] for i in worst], preferred)


def _test(path: Path, classes: Sequence[str]) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return {
            row["key"]: [float(row[f"p_{name}"]) for name in classes]
            for row in csv.DictReader(stream)
            if row["split"] == "test"
        }


def _save(path: Path, recordings: Recordings, keys: Sequence[str], preferred: str | None) -> None:
    arrays: dict[str, Any] = {"fs": np.float64(recordings.fs)}
    for key in keys:
        record = recordings.records[key]
        arrays[f"signal__{key}"] = record.millivolts()[main_lead(record.leads, preferred)]
        arrays[f"qrs__{key}"] = record.qrs.index
    content = io.BytesIO()
    np.savez_compressed(content, keys=np.array(keys), **arrays)
    write_bytes(path, content)
