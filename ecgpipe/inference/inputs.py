"""A user's own recording, of no data set: WFDB, MATLAB, CSV or NumPy, at any rate.

WFDB headers say what the samples mean. The other files are numbers, one column or row a lead, whose
rate, unit and lead names are read where the file has them and given by the caller where not. Such
a signal is rounded to 1 µV, or to the ADC unit that its gain says.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets import icbeb2018
from ..errors import BadRecord, EcgpipeError
from ..files.folder import Folder
from ..formats.quantise import quantise
from ..formats.tables import READERS, Table
from ..formats.wfdb_record import read_signal
from ..types import Record

UNITS = {"mV": 1.0, "uV": 1e-3, "µV": 1e-3, "V": 1e3}  # mV in each
GAIN = 1000.0  # ADC units per mV that a signal without ADC units is rounded to
SHORTEST = 1.0  # s
FORMATS = "WFDB (.hea), MATLAB (.mat), .csv, .tsv, .txt, .npy, .npz"


@dataclass(frozen=True)
class InputFormat:
    """What a file does not say about its samples.

    Attributes
    ----------
    fs
        Sampling rate, Hz.
    unit
        Of the numbers, a key of ``UNITS``; mV if nothing is said.
    gain
        ADC units per mV, in place of a unit.
    leads
        Names of the leads in the order of columns or rows.

    Raises
    ------
    EcgpipeError
        A unit that is unknown or stands beside a gain, or numbers that are not above 0.
    """

    fs: float | None = None
    unit: str | None = None
    gain: float | None = None
    leads: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.unit is not None and self.unit not in UNITS:
            raise EcgpipeError(f"--unit {self.unit}: unknown; there are: {', '.join(UNITS)}")
        if self.unit is not None and self.gain is not None:
            raise EcgpipeError("--unit and --gain: both say what a number means; give one of them")
        for name in ("fs", "gain"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise EcgpipeError(f"--{name} {value:g}: give a number above 0")


def read_recording(path: Path, given: InputFormat = InputFormat()) -> Record:
    """Read a recording, of any rate, length and number of leads.

    Parameters
    ----------
    path
        ``.hea`` or ``.dat``, or their name without extension; ``.mat`` with or without a header
        beside it, that of the original CPSC 2018 files included; ``.csv``, ``.tsv``, ``.txt`` with
        or without a line of names and a column of times; ``.npy``; ``.npz`` with ``signal``, and
        optionally ``fs`` and ``leads``. The longer side of a bare array is time.
    given
        What the file does not say. A rate or names that contradict the file are refused.

    Returns
    -------
    Record
        Its key is the file's name without extension. Leads without names are numbered from 1, a
        single one is called ecg.

    Raises
    ------
    BadRecord
        A file that is missing or unreadable, has no rate, samples that are no numbers, or less
        than a second of them.
    """
    suffix = path.suffix.lower()
    stem = path.with_suffix("") if suffix in (".hea", ".dat", ".mat") else path
    if Path(f"{stem}.hea").is_file() and (suffix == ".mat" or suffix not in READERS):
        record = _read_wfdb(stem, given)
    elif not path.is_file():
        raise BadRecord(f"{path}: no such recording; name a file of one of {FORMATS}")
    elif suffix == ".mat" and _is_cpsc(data := path.read_bytes()):
        signal, error = icbeb2018.read_original(str(path), data)
        record = Record(path.stem, path.stem, *signal, quantisation=error)
        _agree(path, given, record.fs, record.leads)
    elif suffix in READERS:
        record = _record(path, READERS[suffix](path), given)
    else:
        raise BadRecord(f"{path}: of an unknown kind; there are {FORMATS}")
    if record.samples < SHORTEST * record.fs:
        raise BadRecord(
            f"{path}: {record.samples} samples at {record.fs:g} Hz, less than {SHORTEST:g} s; "
            "is the rate right, and time the longer side?"
        )
    return record


def from_millivolts(
    signal: Any, fs: float, leads: Sequence[str] | None = None, key: str = "signal"
) -> Record:
    """A record from an array in mV, (samples,) or (leads, samples); rounded to 1 µV.

    Raises
    ------
    BadRecord
        Samples that are no numbers, or less than a second of them.
    EcgpipeError
        A rate that is none.
    """
    given = InputFormat(fs=float(fs), leads=tuple(leads) if leads is not None else None)
    values = np.atleast_2d(np.asarray(signal, np.float64))
    record = _record(Path(key), Table(values), given)
    if record.samples < SHORTEST * record.fs:
        raise BadRecord(f"{key}: {record.samples} samples at {fs:g} Hz, less than {SHORTEST:g} s")
    return record


def _read_wfdb(stem: Path, given: InputFormat) -> Record:
    folder, name = Folder(str(stem.parent)), stem.name
    head = folder.fetch([f"{name}.hea"])[f"{name}.hea"]
    header = head.decode("ascii", errors="ignore")
    lines = [line.split() for line in header.splitlines() if line.strip() and line[0] != "#"]
    if lines and "/" in lines[0][0]:
        raise BadRecord(f"{stem}.hea: a record of several segments; name one of its segments")
    signals = dict.fromkeys(words[0] for words in lines[1:])
    files = folder.fetch([f"{name}.hea", *signals])
    try:
        signal = read_signal(name, files)
    except BadRecord as error:  # it names files relative to their folder
        raise BadRecord(f"{stem.parent}/{error}") from None
    _agree(stem.with_name(f"{name}.hea"), given, signal.fs, signal.leads)
    return Record(name, name, *signal)


def _agree(path: Path, given: InputFormat, fs: float | None, leads: tuple[str, ...] | None) -> None:
    """Refuse a rate or names that contradict the file."""
    if given.fs and fs and given.fs != fs:
        raise BadRecord(f"{path}: says {fs:g} Hz, and --fs {given.fs:g}; leave --fs out")
    if given.leads and leads and given.leads != leads:
        raise BadRecord(f"{path}: names its leads {' '.join(leads)}; leave --leads out")


def _record(path: Path, table: Table, given: InputFormat) -> Record:
    """Check the samples and convert them to ADC units."""
    _agree(path, given, table.fs, table.leads)
    values = table.values
    if values.ndim != 2 or not values.size:
        raise BadRecord(f"{path}: an array of shape {values.shape}; leads by samples are expected")
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise BadRecord(f"{path}: {count:,} samples are no numbers; fill them, or cut them out")
    fs = given.fs if table.fs is None else table.fs
    if fs is None:
        raise BadRecord(f"{path}: does not say its sampling rate; give it with --fs, in Hz")
    if not (np.isfinite(fs) and fs > 0):
        raise BadRecord(f"{path}: says a sampling rate of {fs:g} Hz; mend it in the file")
    names = given.leads or table.leads or _numbered(len(values))
    if len(names) != len(values):
        raise BadRecord(
            f"{path}: {len(names)} names ({' '.join(names)}) for {len(values)} leads of "
            f"{values.shape[1]:,} samples"
        )
    gain = given.gain or GAIN
    millivolts = values / gain if given.gain else values * UNITS[given.unit or "mV"]
    try:
        signal, error = quantise(millivolts, gain, str(path))
    except BadRecord as wrong:
        raise BadRecord(f"{wrong}; say what its numbers are with --unit or --gain") from None
    spread = np.full(len(values), gain)
    zero = np.zeros(len(values))
    key = path.stem
    return Record(key, key, fs, tuple(names), signal, spread, zero, quantisation=error)


def _numbered(count: int) -> tuple[str, ...]:
    return ("ecg",) if count == 1 else tuple(str(number) for number in range(1, count + 1))


def _is_cpsc(data: bytes) -> bool:
    from scipy.io import whosmat

    try:
        return any(
            name == "ECG" and kind == "struct" for name, _, kind in whosmat(io.BytesIO(data))
        )
    except Exception:  # a damaged file: reading it raises the error to show
        return False
