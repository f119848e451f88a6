"""The few types that every part of ecgpipe shares: shapes and units, nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import BadRecord


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


RATES = (1.0, 100_000.0)  # Hz, of a sampling rate
GAINS = (0.1, 1e7)  # ADC units per mV


@dataclass(frozen=True, eq=False)
class Record:
    """One contiguous recording, as its source gives it.

    Raises
    ------
    BadRecord
        A field that is not of its type, shape or range.
    """

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

    def __post_init__(self) -> None:
        leads = len(self.leads)
        for value, (low, high), what in (
            (self.fs, RATES, "Hz"),
            *((gain, GAINS, "ADC units per mV") for gain in self.gain),
        ):
            if not (math.isfinite(value) and low <= value <= high):
                raise BadRecord(f"{self.key}: {value:g} {what}; {low:g} to {high:g} can be right")
        if not all(isinstance(lead, str) and lead for lead in self.leads):
            raise BadRecord(f"{self.key}: a lead without a name among {self.leads}")
        if len(set(self.leads)) != leads:
            raise BadRecord(f"{self.key}: two leads of one name among {' '.join(self.leads)}")
        if self.signal.dtype != np.int16 or self.signal.ndim != 2 or len(self.signal) != leads:
            raise BadRecord(f"{self.key}: {self.signal.dtype} of shape {self.signal.shape}")
        if not (leads and self.samples):
            raise BadRecord(f"{self.key}: {leads} leads of {self.samples} samples")
        if self.gain.shape != (leads,) or self.baseline.shape != (leads,):
            raise BadRecord(f"{self.key}: gains or baselines for another number of leads")
        if not np.isfinite(self.baseline).all():
            raise BadRecord(f"{self.key}: baselines {self.baseline.tolist()} are no numbers")
        for marks in (self.beats, self.rhythms, self.qrs):
            if (
                marks is not None
                and len(marks.index)
                and not (
                    marks.index[0] >= 0
                    and marks.index[-1] < self.samples
                    and (np.diff(marks.index) >= 0).all()
                )
            ):
                raise BadRecord(f"{self.key}: marks out of order, or outside the record")

    @property
    def samples(self) -> int:
        """Length in samples."""
        return int(self.signal.shape[1])

    def cut(self, first: int, stop: int) -> Record:
        """The samples from ``first`` to before ``stop``, without marks."""
        signal = self.signal[:, first:stop]
        return replace(self, signal=signal, beats=None, rhythms=NO_MARKS, qrs=NO_MARKS)

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
