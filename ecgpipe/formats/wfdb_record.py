"""Read WFDB records from memory: samples with ``wfdb``, the rest with parsers of our own."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRecord
from ..files.folder import Files
from ..types import Marks
from .annotations import parse
from .wfdb_header import Header, SignalLine, parse_header

# Bytes that hold one sample, by the number of the WFDB signal format (signal.5 of the standard).
_BYTES_PER_SAMPLE = {
    "8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0, "212": 1.5,
}  # fmt: skip
# The value that marks a missing sample, by format.
_MISSING = {
    "16": -32_768, "24": -(2**23), "32": -(2**31), "61": -32_768, "80": -128, "160": -32_768,
    "212": -2048, "310": -512, "311": -512,
}  # fmt: skip
_MAT_INT16 = 30  # type of a little-endian int16 matrix in a MATLAB v4 file


class WfdbSignal(NamedTuple):
    """The signal part of a WFDB record."""

    fs: float  # Hz
    leads: tuple[str, ...]
    signal: NDArray[np.int16]  # (leads, samples) ADC units
    gain: NDArray[np.float64]  # (leads,) ADC units per mV
    baseline: NDArray[np.float64]  # (leads,) ADC value of 0 mV


def read_signal(record: str, files: Files) -> WfdbSignal:
    """Read header and samples of a record, in ADC units as stored.

    Several samples in a frame are read at their own rate.

    Parameters
    ----------
    record
        Path of the record below the data set's folder, without extension.
    files
        Contents of its files.

    Raises
    ------
    BadRecord
        A missing, unreadable or cut header, a signal file that is missing or of another length,
        samples that are not those of the header's initial values and checksums, that do not fit
        int16, or that are marked as missing.
    """
    header = parse_header(f"{record}.hea", files[f"{record}.hea"])
    per_frame = {signal.per_frame for signal in header.signals}
    if len(per_frame) > 1:
        raise BadRecord(f"{record}.hea: signals of different rates in one record")
    header = _check_files(record, files, header)
    samples = _samples(record, files, header)
    for signal, values in zip(header.signals, samples, strict=True):
        _check_samples(record, signal, values)
    return WfdbSignal(
        header.fs * per_frame.pop(),
        tuple(signal.name for signal in header.signals),
        np.ascontiguousarray(samples, np.int16),
        np.array([signal.gain for signal in header.signals]),
        np.array([signal.baseline for signal in header.signals], np.float64),
    )


def _samples(record: str, files: Files, header: Header) -> list[NDArray[Any]]:
    """Samples of every signal, read by wfdb, which gets a plain header of what matters."""
    import wfdb
    from fsspec.implementations.memory import MemoryFileSystem
    from wfdb.io.record import CLOUD_PROTOCOLS

    # wfdb uses fsspec for the protocols in this list, which its modules share.
    if "memory://" not in CLOUD_PROTOCOLS:
        CLOUD_PROTOCOLS.append("memory://")
    memory = MemoryFileSystem()
    names = list(dict.fromkeys(signal.file for signal in header.signals))
    bits = 32 if {signal.format for signal in header.signals} & {"24", "32"} else 16
    lines = [f"record {len(header.signals)} {header.fs!r} {header.frames}"]
    lines += [
        f"{names.index(s.file)}.dat {s.format}x{s.per_frame}:{s.skew}+{s.offset} 200(0)/mV 16 0 "
        f"{s.initial or 0} 0 0 {number}"
        for number, s in enumerate(header.signals)
    ]
    folder = f"/ecgpipe-{threading.get_ident()}"  # threads share the file system
    try:
        memory.pipe_file(f"{folder}/record.hea", "\n".join([*lines, ""]).encode())
        for number, name in enumerate(names):
            data = files[str(PurePosixPath(record).parent / name)]
            memory.pipe_file(f"{folder}/{number}.dat", data)
        read = wfdb.rdrecord(
            f"memory://{folder}/record", physical=False, smooth_frames=False, return_res=bits
        )
    except BadRecord:
        raise
    except Exception as error:  # wfdb raises whatever it comes upon
        raise BadRecord(f"{record}: wfdb cannot read its samples ({error})") from None
    finally:
        memory.rm(folder, recursive=True)
    return list(read.e_d_signal)


def _check_samples(record: str, signal: SignalLine, values: NDArray[Any]) -> None:
    """Compare the samples of a signal with what the header says of them."""
    where = f"{record}: lead {signal.name}"
    mark = _MISSING.get(signal.format)
    missing = 0 if mark is None else int((values == mark).sum())
    if missing or signal.skew:
        reason = f"{missing:,} samples are marked as missing" if missing else "it is skewed"
        raise BadRecord(f"{where}: {reason}; cut the recording before or behind them")
    if len(values) and (values.min() < -32_768 or values.max() > 32_767):
        raise BadRecord(f"{where}: {values.min():,} to {values.max():,} ADC units; int16 is needed")
    if signal.checksum is None:  # as in CinC 2017, where initial values are wrong, too
        return
    if int(values.sum(dtype=np.int64)) % 65_536 != signal.checksum:
        raise BadRecord(f"{where}: its samples do not have the header's checksum; fetch both again")
    if signal.initial is not None and values[0] != signal.initial:
        raise BadRecord(
            f"{where}: begins with {values[0]} where the header says {signal.initial}; fetch both "
            "again"
        )


def _check_files(record: str, files: Files, header: Header) -> Header:
    """Compare sizes of signal files with the header; gives it with the number of frames."""
    folder = PurePosixPath(record).parent
    frames = header.frames
    for name in dict.fromkeys(signal.file for signal in header.signals):
        signals = [signal for signal in header.signals if signal.file == name]
        path, offset = str(folder / name), signals[0].offset
        have = len(files[path])
        frame = sum(_BYTES_PER_SAMPLE.get(s.format, math.nan) * s.per_frame for s in signals)
        if math.isnan(frame):  # a compressed or rare format, which wfdb checks
            continue
        if frames is None:
            frames = int((have - offset) / frame)
        want = offset + math.ceil(frame * frames)
        padded = offset + math.ceil(frame * frames / 3) * 3  # of format 212, whole pairs of samples
        if have != want and not (signals[0].format == "212" and have == padded):
            raise BadRecord(
                f"{path}: {'truncated' if have < want else 'too long'}, {have:,} bytes where the "
                f"header promises {want:,}; fetch both again"
            )
        if path.endswith(".mat"):
            _check_mat(path, files[path], signals, frames)
    if not frames or frames < 1:
        raise BadRecord(f"{record}.hea: says nothing of the length of its signals")
    return replace(header, frames=frames)


def _check_mat(path: str, data: bytes, signals: list[SignalLine], frames: int) -> None:
    """Compare the head of a MATLAB v4 file with the header: int16 behind the offset."""
    head = struct.unpack("<5i", data[:20].ljust(20, b"\0"))
    shape = (len(signals), frames * signals[0].per_frame)
    offset = 20 + head[4]
    if head[:4] != (_MAT_INT16, *shape, 0) or {s.offset for s in signals} != {offset}:
        raise BadRecord(
            f"{path}: is no MATLAB v4 file with an int16 matrix of {shape[0]} x {shape[1]:,} "
            f"behind byte {signals[0].offset}, as its header says; fetch both again"
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
    # Positions count frames, or units of the resolution that the file states.
    frames = parse_header(f"{record}.hea", files[f"{record}.hea"])
    scale = frames.signals[0].per_frame * frames.fs / (annotations.resolution or frames.fs)
    if scale != 1:
        sample = np.rint(sample * scale).astype(np.int64)
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
