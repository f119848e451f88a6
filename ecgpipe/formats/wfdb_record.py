"""Read WFDB records from memory: headers and samples with ``wfdb``, annotations with our parser."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRecord
from ..files.folder import Files
from ..types import Marks
from .annotations import parse

# Bytes that hold one sample, by the number of the WFDB signal format (header.5 of the standard).
_BYTES_PER_SAMPLE = {"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "80": 1.0, "212": 1.5}


class WfdbSignal(NamedTuple):
    """The signal part of a WFDB record."""

    fs: float  # Hz
    leads: tuple[str, ...]
    signal: NDArray[np.int16]  # (leads, samples) ADC units
    gain: NDArray[np.float64]  # (leads,) ADC units per mV
    baseline: NDArray[np.float64]  # (leads,) ADC value of 0 mV


def read_signal(record: str, files: Files) -> WfdbSignal:
    """Read header and samples of a record, in ADC units as stored.

    Parameters
    ----------
    record
        Path of the record below the data set's folder, without extension.
    files
        Contents of its files.

    Raises
    ------
    BadRecord
        A missing or unreadable header, a missing or truncated signal file, samples that do not
        fit int16, or units other than mV.
    """
    import wfdb

    header_name = f"{record}.hea"
    with _in_memory(record, files) as path:
        try:
            header = wfdb.rdheader(path)
        except Exception as error:  # wfdb raises whatever the malformed line leads to
            raise BadRecord(f"{header_name}: not a readable WFDB header ({error})") from None
        if not header.n_sig or not header.sig_len:
            raise BadRecord(f"{header_name}: says nothing of signals or their length")
        _check_size(record, files, header)
        try:
            data = wfdb.rdrecord(path, physical=False, return_res=16)
        except Exception as error:
            raise BadRecord(f"{record}: wfdb cannot read its samples ({error})") from None
    units = {str(unit) for unit in data.units}
    if {unit.lower() for unit in units} != {"mv"}:
        raise BadRecord(f"{header_name}: units {', '.join(sorted(units))} where mV is expected")
    return WfdbSignal(
        float(data.fs),
        tuple(data.sig_name),
        np.ascontiguousarray(data.d_signal.T, np.int16),
        np.array(data.adc_gain, np.float64),
        np.array(data.baseline, np.float64),
    )


@contextmanager
def _in_memory(record: str, files: Files) -> Iterator[str]:
    """Put the files into fsspec's memory file system; gives a URL that wfdb can read."""
    from fsspec.implementations.memory import MemoryFileSystem
    from wfdb.io.record import CLOUD_PROTOCOLS

    # wfdb uses fsspec for the protocols in this list, which its modules share.
    if "memory://" not in CLOUD_PROTOCOLS:
        CLOUD_PROTOCOLS.append("memory://")
    memory = MemoryFileSystem()
    header = files[f"{record}.hea"].decode("ascii", errors="ignore").encode()
    folder = f"/ecgpipe-{threading.get_ident()}"  # threads share the file system
    try:
        for name in files:
            data = header if name == f"{record}.hea" else files[name]
            memory.pipe_file(f"{folder}/{PurePosixPath(name).name}", data)
        yield f"memory://{folder}/{PurePosixPath(record).name}"
    finally:
        memory.rm(folder, recursive=True)


def _check_size(record: str, files: Files, header: Any) -> None:
    """Check sizes of signal files against the header, for an error that names file and bytes."""
    folder = PurePosixPath(record).parent
    for name in dict.fromkeys(header.file_name):
        at = [i for i, other in enumerate(header.file_name) if other == name]
        path = str(folder / name)
        have = len(files[path])
        per_frame = sum(
            _BYTES_PER_SAMPLE.get(header.fmt[i], math.nan) * (header.samps_per_frame[i] or 1)
            for i in at
        )
        if math.isnan(per_frame):
            continue  # a compressed or rare format, which wfdb checks
        want = (header.byte_offset[at[0]] or 0) + math.ceil(per_frame * header.sig_len)
        if have < want:
            raise BadRecord(
                f"{path}: truncated, {have:,} bytes where the header promises {want:,}; "
                "fetch it again"
            )


def read_marks(
    record: str,
    files: Files,
    samples: int,
    beats: Sequence[str],
    rhythms: Sequence[str],
    ignored: frozenset[str] = frozenset(),
) -> tuple[Marks, Marks]:
    """Read beats and rhythm notes (symbol ``+``) from ``record.atr``.

    Parameters
    ----------
    record, files
        As for :func:`read_signal`.
    samples
        Length of the record.
    beats, rhythms
        Known symbols of beats and known rhythm notes; labels are positions in them.
    ignored
        Other symbols and notes, which are left out.

    Raises
    ------
    BadRecord
        A missing or unreadable file, annotations out of order or outside the record, or an unknown
        symbol or note.
    """
    name = f"{record}.atr"
    try:
        annotations = parse(files[name])
    except ValueError as error:
        raise BadRecord(f"{name}: not a readable annotation file ({error})") from None
    sample = annotations.sample
    if len(sample) and (np.any(np.diff(sample) < 0) or sample[0] < 0):
        raise BadRecord(f"{name}: annotations out of order; fetch it again")
    rows = list(zip(sample.tolist(), annotations.symbols, annotations.notes, strict=True))
    if ignored:
        rows = [row for row in rows if row[1] not in ignored and row[2] not in ignored]
    if rows and rows[-1][0] >= samples:
        raise BadRecord(
            f"{name}: a mark at sample {rows[-1][0]:,} of {samples:,}; fetch both files again"
        )
    beat_rows = [(at, symbol) for at, symbol, _ in rows if symbol != "+"]
    rhythm_rows = [(at, note) for at, symbol, note in rows if symbol == "+"]
    return (
        _labelled(beat_rows, beats, f"{name}: unknown label", "known beats"),
        _labelled(rhythm_rows, rhythms, f"{name}: unknown rhythm note", "known"),
    )


def _labelled(
    rows: list[tuple[int, str]], known: Sequence[str], error: str, listed_as: str
) -> Marks:
    """Marks from samples and symbols; labels are positions in ``known``."""
    label_of = {symbol: label for label, symbol in enumerate(known)}
    if unknown := {symbol for _, symbol in rows} - label_of.keys():
        names = ", ".join(sorted(unknown))
        raise BadRecord(f"{error} {names}; {listed_as}: {' '.join(known)}")
    return Marks.of([at for at, _ in rows], [label_of[symbol] for _, symbol in rows])
