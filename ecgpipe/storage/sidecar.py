"""The sidecar of a part: what it was made from, its files, its records, and what was left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..config import digest
from ..files.folder import InputFiles
from ..files.typed import JsonData
from ..labels.rhythms import durations
from ..types import Marks, Record


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordRow(JsonData):
    """What a sidecar says of a record: identity, counts by symbol, and exact sums.

    ``sum`` and ``squares`` are whole numbers, so that statistics merged from them are exact; see
    :class:`ecgpipe.storage.manifest.Moments`.
    """

    key: str
    patient: str
    fs: float  # Hz
    leads: tuple[str, ...]
    samples: int  # of one lead
    gain: tuple[float, ...]  # by lead, ADC units per mV
    baseline: tuple[float, ...]  # by lead, ADC value of 0 mV
    statements: tuple[str, ...]
    fold: int | None
    quantisation: float | None  # mV
    beats: dict[str, int] | None  # by symbol; None without annotations
    rhythms: dict[str, int]  # notes by symbol
    rhythm_samples: dict[str, int] | None  # samples by class of rhythm
    qrs: int  # detected complexes
    sha256: str  # of the signal, little-endian int16, lead after lead
    sum: tuple[int, ...]  # of the ADC values, by lead
    squares: tuple[int, ...]  # sum of their squares, by lead

    @classmethod
    def of(cls, record: Record, beats: Sequence[str], rhythms: Sequence[str]) -> RecordRow:
        """The row of a record; its labels are positions in ``beats`` and ``rhythms``."""
        signal = record.signal
        return cls(
            key=record.key,
            patient=record.patient,
            fs=record.fs,
            leads=record.leads,
            samples=record.samples,
            gain=tuple(record.gain.tolist()),
            baseline=tuple(record.baseline.tolist()),
            statements=record.statements,
            fold=record.fold,
            quantisation=record.quantisation,
            beats=None if record.beats is None else _counts(record.beats, beats),
            rhythms=_counts(record.rhythms, rhythms),
            rhythm_samples=durations(record.beats, record.rhythms, rhythms, record.samples),
            qrs=len(record.qrs.index),
            sha256=hashlib.sha256(np.ascontiguousarray(signal, "<i2").tobytes()).hexdigest(),
            sum=tuple(signal.sum(axis=1, dtype=np.int64).tolist()),
            squares=tuple(int(np.square(lead, dtype=np.int64).sum()) for lead in signal),
        )


def _counts(marks: Marks, symbols: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(marks.label, minlength=len(symbols))
    return {symbol: int(n) for symbol, n in zip(symbols, counts, strict=True) if n}


@dataclass(frozen=True, slots=True)
class LeftOut(JsonData):
    """A record that is not in the store."""

    key: str
    patient: str
    reason: str


@dataclass(frozen=True, slots=True)
class StoredFile(JsonData):
    """A file of a part."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class RawInputs(JsonData):
    """What a part of an archive was made from."""

    listing: str  # digest of what the data set's tables say of its records
    files: InputFiles


@dataclass(frozen=True, slots=True)
class ArchiveInputs(JsonData):
    """What a part of shards was made from."""

    part: str  # digest of the archive's part


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar(JsonData):
    """The content of ``parts/NAME.json``."""

    name: str
    inputs: RawInputs | ArchiveInputs
    files: dict[str, StoredFile] = field(default_factory=dict)  # by path below the store
    records: list[RecordRow]
    refused: list[LeftOut]  # records that cannot be used
    excluded: list[LeftOut]  # records without any of the chosen statements

    @property
    def left_out(self) -> list[LeftOut]:
        """Refused and excluded records."""
        return [*self.refused, *self.excluded]

    @property
    def digest(self) -> str:
        """Identity of the part: of its bytes and of what was left out."""
        plain = self.plain()
        return digest({name: plain[name] for name in ("files", "records", "refused", "excluded")})
