"""Predictions for a recording: class probabilities over its windows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..types import Record

THRESHOLD = 0.5  # probability from which a class is predicted, where there can be several


class Segment(NamedTuple):
    """Consecutive windows with the same predicted classes."""

    start: float  # s
    stop: float  # s
    classes: tuple[str, ...]
    probability: NDArray[np.float64]  # (classes,) mean over the windows


@dataclass(frozen=True, eq=False)
class Prediction:
    """Class probabilities of a recording, over windows one after another.

    Attributes
    ----------
    name
        The recording as the caller named it.
    record
        The recording at its own rate, with the leads that were used.
    classes
        Names of the classes.
    many_of
        True if a window can have any number of classes, False if it has one.
    seconds
        Length of the recording, s.
    start, stop
        (windows,) float64, s from the start of the recording; the last window ends with it.
    probability
        (windows, classes) float64; the last row is the prediction for the whole recording, since
        training, too, keeps the end of what is longer than the model's input.
    """

    name: str
    record: Record
    classes: tuple[str, ...]
    many_of: bool
    seconds: float
    start: NDArray[np.float64]
    stop: NDArray[np.float64]
    probability: NDArray[np.float64]

    def predicted(self, probability: NDArray[np.float64]) -> tuple[str, ...]:
        """The most probable class; where there can be several, those from 0.5 on."""
        if not self.many_of:
            return (self.classes[int(probability.argmax())],)
        return tuple(n for n, p in zip(self.classes, probability, strict=True) if p >= THRESHOLD)

    @cached_property
    def windows(self) -> list[tuple[str, ...]]:
        """The predicted classes of each window."""
        return [self.predicted(row) for row in self.probability]

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """Borders of the windows in s, shape (windows + 1,).

        Overlapping windows meet half way between their middles, so that each moment has one
        prediction.
        """
        middle = (self.start + self.stop) / 2
        between = (middle[1:] + middle[:-1]) / 2
        return np.concatenate([[self.start[0]], between, [self.stop[-1]]])

    def segments(self) -> list[Segment]:
        """Join neighbouring windows with the same predicted classes, in the order of time."""
        names, edges, found, first = self.windows, self.edges, [], 0
        for at in range(1, len(names) + 1):
            if at == len(names) or names[at] != names[first]:
                mean = self.probability[first:at].mean(0)
                found.append(Segment(edges[first], edges[at], names[first], mean))
                first = at
        return found

    def shares(self) -> list[str]:
        """How many of the windows have each class, in percent; the most frequent first."""
        count = Counter(name for names in self.windows for name in names or ("-",))
        return [f"{n} {100 * k / len(self.windows):.0f} %" for n, k in count.most_common()]
