"""Test recordings that a run keeps for the plots of its report: written and read."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EcgpipeError
from ..files.atomic import write_bytes
from ..labels.qrs import main_lead
from ..loading.recordings import Label, Recordings, shuffled, targets
from .predictions import PREDICTIONS, read_predictions, splits_of

EXAMPLES, MISJUDGED = "examples.npz", "misjudged.npz"
WORST = 6  # recordings


class Example(NamedTuple):
    """One test recording."""

    key: str
    fs: float  # Hz
    signal: NDArray[np.float32]  # (samples,) mV
    qrs: NDArray[np.int32]  # (m,) samples


def save_examples(
    path: Path, recordings: Recordings, test: Sequence[str], preferred: str | None, each: int = 2
) -> None:
    """Save a few test recordings of every class, chosen before any network has seen them."""
    of_class: dict[Label, list[str]] = {}  # with many labels, by the first label
    for key in shuffled(test, 0):
        label = recordings.label[key]
        first = label[:1] if isinstance(label, tuple) else (label,)
        of_class.setdefault(first, []).append(key)
    chosen = [of_class[label][:each] for label in sorted(of_class)]
    # One of every class comes first, so that the first few show all classes.
    keys = [key for rank in zip_longest(*chosen) for key in rank if key]
    _save(path, recordings, keys, preferred)


def save_misjudged(
    path: Path, recordings: Recordings, repeats: Sequence[Path], preferred: str | None
) -> None:
    """Save the test recordings whose predictions are furthest from the truth, worst first.

    Ranked by the probability of the true class, averaged over the repeats; with many labels, by the
    product over the labels of the probability of their true value.
    """
    many = isinstance(next(iter(recordings.label.values())), tuple)
    tests = [
        read_predictions(
            folder / PREDICTIONS, recordings.classes, splits_of("finetune", many), many
        )["test"]
        for folder in repeats
    ]
    keys = list(tests[0].keys)
    y = targets([recordings.label[key] for key in keys], len(recordings.classes))
    p = np.mean([test.probability for test in tests], axis=0)
    right = p[np.arange(len(keys)), y] if y.ndim == 1 else np.where(y > 0, p, 1 - p).prod(1)
    worst = np.argsort(right, kind="stable")[:WORST]
    _save(path, recordings, [keys[i] for i in worst], preferred)


def _save(path: Path, recordings: Recordings, keys: Sequence[str], preferred: str | None) -> None:
    arrays: dict[str, Any] = {"fs": np.float64(recordings.fs)}
    for key in keys:
        record = recordings.records[key]
        arrays[f"signal__{key}"] = record.millivolts()[main_lead(record.leads, preferred)]
        arrays[f"qrs__{key}"] = record.qrs.index
    content = io.BytesIO()
    np.savez_compressed(content, keys=np.array(keys), **arrays)
    write_bytes(path, content)


def read_examples(file: Path) -> tuple[Example, ...]:
    """Read what was saved; nothing where there is no file.

    Raises
    ------
    EcgpipeError
        The file is damaged.
    """
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
