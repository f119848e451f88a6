"""The tasks, in one literal dict: what is told apart, how it is labelled, what counts as good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..labels import beats
from ..loading.frames import Labeller
from ..sources import cinc2017
from ..types import Record


@dataclass(frozen=True)
class Task:
    """One of several classes for every item, trained with cross-entropy."""

    classes: tuple[str, ...]
    best: str  # the validation score that chooses the epoch, a key of tasks.scores
    label: Labeller | None = None  # of frames; downstream tasks take the record's own label
    needs_beats: bool = False  # whether frames can only come from annotated records


def _beat(
    record: Record, symbols: tuple[str, ...], starts: NDArray[np.int64], frame: int
) -> NDArray[np.int64]:
    assert record.beats is not None
    return beats.label_frames(record.beats, beats.beat_classes(symbols), starts, frame)


TASKS: dict[str, Task] = {
    "beat": Task(beats.CLASSES, best="accuracy", label=_beat, needs_beats=True),
    "cinc2017": Task(cinc2017.CLASSES, best="macro_f1"),
}
