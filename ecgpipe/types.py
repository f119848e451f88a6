"""The few types that every part of ecgpipe shares: shapes and units, nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Marks(NamedTuple):
    """Positions with a class: beats, rhythm notes or detected QRS complexes."""

    # (n,) samples from the record's start, not decreasing; hides tuple.index, which nobody needs
    index: NDArray[np.int32]  # type: ignore[assignment]
    label: NDArray[np.uint8]  # (n,) into the source's tuple of symbols; all 0 for detected QRS

    @classmethod
    def of(cls, index: Any, label: Any = None) -> Marks:
        """Marks from anything array-like; without labels they are all 0."""
        index = np.asarray(index, np.int32).reshape(-1)
        label = np.zeros(len(index)) if label is None else label
        return cls(index, np.asarray(label, np.uint8).reshape(-1))


NO_MARKS = Marks.of([])


@dataclass(frozen=True, eq=False)
class Record:
    """One contiguous strip of ECG, as its source gives it."""

    key: str  # unique in its data set, [A-Za-z0-9_-]+ (a dot would split a WebDataset key)
    patient: str  # the unit of every split
    fs: float  # Hz
    leads: tuple[str, ...]
    signal: NDArray[np.int16]  # (leads, samples), ADC units
    gain: NDArray[np.float64]  # (leads,) ADC units per mV
    baseline: NDArray[np.float64]  # (leads,) ADC value of 0 mV
    beats: Marks | None = None  # None where the source has no annotation file
    rhythms: Marks = NO_MARKS
    qrs: Marks = NO_MARKS
    statements: tuple[str, ...] = ()  # labels of the whole record
    fold: int | None = None  # the fold its makers put it in, where they did
    quantisation: float | None = None  # mV, largest rounding error where its source has floats

    @property
    def samples(self) -> int:
        """Length in samples."""
        return int(self.signal.shape[1])

    def millivolts(self) -> NDArray[np.float32]:
        """The signal in mV, shape (leads, samples)."""
        return ((self.signal - self.baseline[:, None]) / self.gain[:, None]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording as a data set lists it, before its files are read."""

    key: str  # the key of its record
    patient: str
    path: str  # below the data set's folder, without extension
    files: tuple[str, ...]  # below the data set's folder
    statements: tuple[str, ...] = ()
    fold: int | None = None
    labels_file: str | None = None  # the file with its statements
    refusal: str | None = None  # why it cannot be used, if the list already shows it


class Batch(NamedTuple):
    """What a network is trained on; the millivolts are made on the device, from int16.

    Standardised input is ``x * scale + offset``, with zeros in the ``samples - length`` places in
    front of each item (see :func:`ecgpipe.models.resnet.standardise`). Where a future is to be
    predicted, an item's frames, all of one lead, stand in place of leads.
    """

    x: Any  # (batch, leads or frames, samples) int16, ADC units
    scale: Any  # (batch, leads or frames) float32
    offset: Any  # (batch, leads or frames) float32
    length: Any  # (batch,) int64, samples at the end of x that are signal
    y: Any  # (batch,) int64 class or true candidate, or (batch, classes) float32 of 0 and 1
    keys: Any  # (batch,) str: the record, or record@start, that an item is cut from
    patient: Any = None  # (batch,) int64, a number of the patient, for frames
    candidates: Any = None  # (batch, negatives + 1) int64 places among all frames of the batch
