"""All tasks in one dict: their classes, their labels, and the score that selects the epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..config import Labels, PretrainSettings
from ..labels import beats, heart_rates, rhythms
from ..loading.corpus import Symbols
from ..loading.frames import Frames
from ..types import Record

Starts = NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """What is learnt of an item: a frame, a whole record, or a context with a future."""

    kind: Literal["frames", "records", "contrastive"]  # what an item is and who labels it
    answer: Literal["one_of", "many_of", "contrastive"]  # a key of objectives.OBJECTIVES
    best: str  # the validation score, or the loss, that selects the epoch
    classes: tuple[str, ...] = ()  # of frames; those of records are the shards' statements
    label: Callable[[Labels, Record, Symbols, Starts, int], NDArray[np.int64]] | None = None
    needs_beats: bool = False  # True if frames can only come from annotated records


def _beat(
    how: Labels, record: Record, symbols: Symbols, starts: Starts, frame: int
) -> NDArray[np.int64]:
    assert record.beats is not None
    return beats.label_frames(
        record.beats,
        beats.beat_classes(symbols.beats),
        starts,
        frame,
        undefined_is_normal=how.rules == "paper_text",
        drop_first=how.rules == "code",
    )


def _rhythm(
    how: Labels, record: Record, symbols: Symbols, starts: Starts, frame: int
) -> NDArray[np.int64]:
    assert record.beats is not None
    return rhythms.label_frames(
        record.beats, record.rhythms, symbols.rhythms, record.samples, starts, frame
    )


def _heart_rate(
    how: Labels, record: Record, symbols: Symbols, starts: Starts, frame: int
) -> NDArray[np.int64]:
    detected = how.heart_rate_from == "detected" or record.beats is None
    marks = record.qrs if detected else record.beats
    assert marks is not None
    if how.rules == "code":
        return heart_rates.label_frames(
            marks.index, starts, frame, record.fs, margin=0, drop_first=True
        )
    return heart_rates.label_frames(marks.index, starts, frame, record.fs)


TASKS: dict[str, Task] = {
    "beat": Task("frames", "one_of", "accuracy", beats.CLASSES, _beat, needs_beats=True),
    "rhythm": Task("frames", "one_of", "accuracy", rhythms.CLASSES, _rhythm, needs_beats=True),
    "heart_rate": Task("frames", "one_of", "accuracy", heart_rates.CLASSES, _heart_rate),
    "future": Task("contrastive", "contrastive", "accuracy"),
    "cinc2017": Task("records", "one_of", "macro_f1"),
    "ptbxl": Task("records", "many_of", "loss"),
    "icbeb2018": Task("records", "many_of", "loss"),
}

DOWNSTREAM = tuple(name for name, task in TASKS.items() if task.kind == "records")


def classes_of(settings: PretrainSettings) -> tuple[str, ...]:
    """Names of a pretraining network's outputs: classes, or positions of candidates."""
    task = TASKS[settings.task]
    if task.kind == "contrastive":
        return tuple(f"candidate{i}" for i in range(settings.future.negatives + 1))
    return task.classes


def frames_of(settings: PretrainSettings, mean: float = 0.0, std: float = 1.0) -> Frames:
    """How the items of a pretraining are drawn, labelled and standardised.

    The frames of a context follow each other; the true future comes ``offset`` frames behind the
    last of them, so it starts context + offset frames after the context does.

    Parameters
    ----------
    mean, std
        Of the signals, mV.
    """
    task = TASKS[settings.task]
    drawn = Frames(settings.frame, None, mean, std, settings.seed)
    if task.kind == "contrastive":
        future = settings.future
        places = (*range(future.context), future.context + future.offset)
        return replace(drawn, places=places, negatives=future.negatives)
    extended = settings.task == "heart_rate" and settings.labels.rules != "code"
    margin = round(heart_rates.MARGIN * settings.fs) if extended else 0
    assert task.label
    return replace(drawn, label=partial(task.label, settings.labels), margin=margin)
