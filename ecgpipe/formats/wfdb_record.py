"""Reading WFDB records from their bytes: the one module that touches ``wfdb``."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import compress
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
    """Header and samples of a record, in ADC units as stored.

    Parameters
    ----------
    record
        Path of the record below the data set's folder, without extension.
    files
        Its files.

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
            strip = wfdb.rdrecord(path, physical=False, return_res=16)
        except Exception as error:
            raise BadRecord(f"{record}: wfdb cannot read its samples ({error})") from None
    units = {str(unit) for unit in strip.units}
    if {unit.lower() for unit in units} != {"mv"}:
        raise BadRecord(f"{header_name}: units {', '.join(sorted(units))} where mV is expected")
    return WfdbSignal(
        float(strip.fs),
        tuple(strip.sig_name),
        np.ascontiguousarray(strip.d_signal.T, np.int16),
        np.array(strip.adc_gain, np.float64),
        np.array(strip.baseline, np.float64),
    )


@contextmanager
def _in_memory(record: str, files: Files) -> Iterator[str]:
    """The files under an address that wfdb reads from: fsspec's file system in memory."""
    from fsspec.implementations.memory import MemoryFileSystem
    from wfdb.io.record import CLOUD_PROTOCOLS

    # wfdb opens with fsspec whatever begins with one of these; all its modules share the list.
    if "memory://" not in CLOUD_PROTOCOLS:
        CLOUD_PROTOCOLS.append("memory://")
    memory = MemoryFileSystem()
    header = files[f"{record}.hea"].decode("ascii", errors="ignore").encode()
    folder = f"/ecgpipe-{threading.get_ident()}"  # all threads share the file system
    try:
        for name in files:
            data = header if name == f"{record}.hea" else files[name]
            memory.pipe_file(f"{folder}/{PurePosixPath(name).name}", data)
        yield f"memory://{folder}/{PurePosixPath(record).name}"
    finally:
        memory.rm(folder, recursive=True)


def _check_size(record: str, files: Files, header: Any) -> None:
    """Compare signal files with the header before reading: the error then names file and bytes."""
    folder = PurePosixPath(record).parent
    for name in dict.fromkeys(header.file_name):
        at = [i for i, other in enumerate(header.file_name) if other == name]
        path = str(folder / name)
        have = len(files[path])
        sizes = [_BYTES_PER_SAMPLE.get(header.fmt[i]) for i in at]
        if None in sizes:
            continue  # compressed or rare: the reader itself finds out
        per_frame = sum(
            size * (header.samps_per_frame[i] or 1)
            for i, size in zip(at, sizes, strict=True)
            if size
        )
        want = (header.byte_offset[at[0]] or 0) + math.ceil(per_frame * header.sig_len)
        if have < want:
            raise BadRecord(
                f"{path}: truncated, {have:,} bytes where the header promises {want:,}; "
                "fetch it again"
            )


def read_annotations(record: str, files: Files) -> tuple[NDArray[np.int64], list[str], list[str]]:
    """Samples, symbols and notes of ``record.atr``, all of length n, in the file's order.

    Trailing NULs are stripped from the notes, and Icentia11k's string ``None`` for a plain beat
    is "".

    Raises
    ------
    BadRecord
        A missing or unreadable annotation file, or samples out of order.
    """
    try:
        sample, symbols, notes = parse(files[f"{record}.atr"])
    except ValueError as error:
        raise BadRecord(f"{record}.atr: not a readable annotation file ({error})") from None
    if len(sample) and (np.any(np.diff(sample) < 0) or sample[0] < 0):
        raise BadRecord(f"{record}.atr: annotations out of order; fetch it again")
    notes = [note.rstrip("\x00") for note in notes]
    return sample, symbols, ["" if note == "None" else note for note in notes]


def split_annotations(
    record: str,
    annotations: tuple[NDArray[np.int64], list[str], list[str]],
    samples: int,
    beats: tuple[str, ...],
    notes: tuple[str, ...],
    ignored: frozenset[str] = frozenset(),
) -> tuple[Marks, Marks]:
    """Divide annotations into beats and rhythm notes (symbol ``+``), each with its label.

    Parameters
    ----------
    record
        Named in errors.
    annotations
        As :func:`read_annotations` returns them.
    samples
        Length of the record; a mark at or behind its end is an error.
    beats, notes
        The source's symbols; labels are positions in these tuples.
    ignored
        Symbols and notes that are neither and are left out.

    Raises
    ------
    BadRecord
        A symbol or note that the source does not have, or a mark outside the record.
    """
    kept = [
        symbol not in ignored and note not in ignored
        for _, symbol, note in zip(*annotations, strict=True)
    ]
    sample = annotations[0][np.array(kept, bool)]
    symbols, aux = (list(compress(column, kept)) for column in annotations[1:])
    if len(sample) and sample[-1] >= samples:
        raise BadRecord(
            f"{record}.atr: a mark at sample {sample[-1]:,} of {samples:,}; fetch both files again"
        )
    beat_of = {symbol: label for label, symbol in enumerate(beats)}
    note_of = {note: label for label, note in enumerate(notes)}
    unknown = set(symbols) - beat_of.keys() - {"+"}
    if unknown:
        raise BadRecord(
            f"{record}.atr: unknown label {', '.join(sorted(unknown))}; "
            f"known beats: {' '.join(beats)}"
        )
    at_note = np.array([symbol == "+" for symbol in symbols], bool)
    at_beat = np.array([symbol in beat_of for symbol in symbols], bool)
    found = [note for note, is_note in zip(aux, at_note, strict=True) if is_note]
    strange = set(found) - note_of.keys()
    if strange:
        raise BadRecord(
            f"{record}.atr: unknown rhythm note {', '.join(sorted(strange))}; "
            f"known: {' '.join(notes)}"
        )
    classes = [beat_of[symbol] for symbol in symbols if symbol in beat_of]
    return Marks.of(sample[at_beat], classes), Marks.of(
        sample[at_note], [note_of[n] for n in found]
    )
