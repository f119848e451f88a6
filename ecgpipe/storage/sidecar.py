"""The sidecar of a part: what it was made from, its files, its records, and what was left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ..config import digest
from ..errors import Damaged
from ..files.atomic import sha256
from ..files.folder import InputFiles
from ..files.paths import exists, why_damaged
from ..files.typed import FileName, JsonData, Name
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
    marks: int  # CRC-32C of beats, rhythms and QRS complexes, see marks_checksum
    checksum: int | None = None  # in shards: CRC-32C of the sample's members
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
            sha256=_sha256(signal),
            marks=marks_checksum(record.beats, record.rhythms, record.qrs),
            sum=tuple(signal.sum(axis=1, dtype=np.int64).tolist()),
            squares=tuple(int(np.square(lead, dtype=np.int64).sum()) for lead in signal),
        )

    def check(self, record: Record) -> None:
        """Raise Damaged, with the name of a field, unless a record is what was written."""
        for name in ("key", "patient", "fs", "leads", "statements", "fold", "quantisation"):
            if getattr(record, name) != getattr(self, name):
                raise Damaged(name)
        for name in ("gain", "baseline"):
            if tuple(getattr(record, name).tolist()) != getattr(self, name):
                raise Damaged(name)
        self.check_marks(record.beats, record.rhythms, record.qrs)
        if _sha256(record.signal) != self.sha256:
            raise Damaged("signal")

    def check_marks(self, beats: Marks | None, rhythms: Marks, qrs: Marks) -> None:
        """Raise Damaged unless the marks of a record are what was written."""
        if marks_checksum(beats, rhythms, qrs) != self.marks:
            raise Damaged("marks")


def marks_checksum(beats: Marks | None, rhythms: Marks, qrs: Marks) -> int:
    """CRC-32C of a record's marks: of each kind the number, the positions and the labels."""
    checksum = 0
    for marks in (beats, rhythms, qrs):
        count = -1 if marks is None else len(marks.index)
        checksum = google_crc32c.extend(checksum, count.to_bytes(8, "little", signed=True))
        if marks is not None:
            data = marks.index.astype("<i4").tobytes() + marks.label.tobytes()
            checksum = google_crc32c.extend(checksum, data)
    return checksum


def _sha256(signal: NDArray[np.int16]) -> str:
    return hashlib.sha256(np.ascontiguousarray(signal, "<i2").tobytes()).hexdigest()


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

    name: Name
    inputs: RawInputs | ArchiveInputs
    files: dict[FileName, StoredFile] = field(default_factory=dict)  # by path below the store
    records: list[RecordRow]
    refused: list[LeftOut]  # records that cannot be used
    excluded: list[LeftOut]  # records without any of the chosen statements

    @property
    def left_out(self) -> list[LeftOut]:
        """Refused and excluded records."""
        return [*self.refused, *self.excluded]

    def check_sizes(self, store: Path, sizes: Mapping[str, int]) -> None:
        """Raise Damaged, naming the file, if one is missing or of another size."""
        for problem in self.damaged_files(store, sizes, read=False):
            raise Damaged(f"{store}/{problem}; run the store's command again")

    @contextmanager
    def checked(self, store: Path, row: RecordRow) -> Iterator[None]:
        """Turn what reading a record raises into an error that names its damaged file.

        Raises
        ------
        Damaged
            Whatever the error was, except that the store could not be reached.
        """
        try:
            yield
        except Exception as error:  # Zarr, tarfile and codecs raise whatever damage leads to
            why = why_damaged(error)
            there = [file for file in self.files if exists(store / file)]
            sizes = {file: (store / file).stat().st_size for file in there}
            files = [*self.damaged_files(store, sizes, read=True), f"parts/{self.name}.json"]
            command = "shard" if isinstance(self.inputs, ArchiveInputs) else "prepare"
            raise Damaged(
                f"{store / files[0]}; record {row.key} is not what was written ({why}); run "
                f"`ecgpipe {command}` into the store again, which makes damaged parts anew"
            ) from None

    def damaged_files(self, store: Path, sizes: Mapping[str, int], read: bool) -> Iterator[str]:
        """Files that are not what was written, each in a sentence.

        Parameters
        ----------
        store
            Folder of the store.
        sizes
            Bytes of every file that exists, by path below the store.
        read
            True to read every file and compare its SHA-256; False compares sizes alone.
        """
        for file, expected in self.files.items():
            size = sizes.get(file)
            if size is None:
                yield f"{file}: missing"
            elif size != expected.bytes:
                yield f"{file}: {size:,} bytes, {expected.bytes:,} expected"
            elif read and sha256(store / file) != expected.sha256:
                yield f"{file}: its bytes changed (SHA-256 differs)"

    @property
    def digest(self) -> str:
        """Identity of the part: of its bytes and of what was left out."""
        plain = self.plain()
        return digest({name: plain[name] for name in ("files", "records", "refused", "excluded")})
