"""Icentia11k as first published: two gzipped pickles per patient.

``NNNNN_batched.pkl.gz`` has the signal, (segments, samples) float32 in mV, and
``NNNNN_batched_lbls.pkl.gz`` a list with the samples of beats of each segment, by type of beat
(``btype``) and type of rhythm (``rtype``). PhysioNet's WFDB files were made from them;
:func:`beats_and_notes` follows that conversion, so that both forms have the same marks. Signals
differ by one ADC unit in one value of fifty: they are rounded here and were truncated there.
"""

from __future__ import annotations

import pickletools
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRecord, Unreachable
from ..files.folder import Files, Folder
from ..formats.pickles import unpickle
from ..formats.quantise import quantise
from ..types import NO_MARKS, Entry, Marks, Record

FS = 250.0
GAIN = 74.36482269503546  # ADC units per mV
SIGNAL, LABELS = "_batched.pkl.gz", "_batched_lbls.pkl.gz"
HEAD = 4096  # bytes; the number of segments is in the first 200 bytes of a file
# Symbols by number of btype: undefined, normal, PAC, aberrated, PVC.
BTYPES = ("Q", "N", "S", "a", "V")
# Rhythms by number of rtype: null, end, noise, normal sinus rhythm, AFib, AFlutter.
RTYPES = ("", "", "", "N", "AFIB", "AFL")


def entries(folder: Folder) -> list[Entry]:
    """List every segment of every patient in the folder.

    The beginning of a signal file tells the number of segments. A patient whose signal file is
    missing or unreadable is one entry, which is refused when it is read.
    """
    names = folder.find("[0-9]*_batched*.pkl.gz")
    found = []
    for number in sorted({name[: name.index("_")] for name in names}):
        signal, labels = f"{number}{SIGNAL}", f"{number}{LABELS}"
        patient = f"p{number}"
        count = _segments(folder, signal) if signal in names else None
        keys = [patient] if count is None else [f"{patient}_s{i:02d}" for i in range(count)]
        files = (signal, labels) if labels in names else (signal,)
        found += [Entry(key, patient, f"{number}_batched", files) for key in keys]
    return found


def _segments(folder: Folder, name: str) -> int | None:
    """Number of segments in a signal file; None if it is not readable."""
    if folder.is_local:
        with (Path(folder.root) / name).open("rb") as file:
            count = _first_length(file.read(HEAD))
        if count is not None:
            return count
    try:
        data = folder.read(name)
        count = _first_length(data[:HEAD])
        return len(unpickle(data)) if count is None else count
    except Unreachable:
        raise
    except Exception:  # reading the entry will report it
        return None


def _first_length(data: bytes) -> int | None:
    """Number of rows of an array, from the beginning of its gzipped pickle; None if not found."""
    try:
        start = zlib.decompressobj(wbits=31).decompress(data, HEAD)
        numbers: list[int] = []  # of the preceding instructions
        for code, value, _ in pickletools.genops(start):
            if code.name in ("TUPLE2", "TUPLE") and len(numbers) >= 2:
                return numbers[-2]
            numbers = [*numbers, value] if isinstance(value, int) else []
    except (zlib.error, ValueError):
        pass  # some pickles begin with the samples, which are cut off here
    return None


def read(
    entry: Entry, files: Files, beat_symbols: Sequence[str], rhythm_notes: Sequence[str]
) -> Record:
    """Read one segment; one without labels has no beats (not: zero beats).

    Parameters
    ----------
    entry
        The segment.
    files
        The patient's files; unpickled once for all its segments.
    beat_symbols, rhythm_notes
        Labels are positions in these.

    Raises
    ------
    BadRecord
        A pickle that is damaged, names anything but arrays, or has other content.
    """
    content = _patient(entry, files)
    name = entry.files[0]
    signal = content[0]
    if not isinstance(signal, np.ndarray) or signal.ndim != 2 or signal.dtype.kind != "f":
        raise BadRecord(f"{name}: no array of floats, (segments, samples)")
    _, _, segment = entry.key.partition("_s")
    if not segment or int(segment) >= len(signal):
        raise BadRecord(f"{name}: no such segment; fetch it again")
    row = int(segment)
    adc, error = quantise(signal[row], GAIN, name)
    beats, rhythms = None, NO_MARKS
    if len(content) > 1:
        labels = content[1]
        if not isinstance(labels, list):
            raise BadRecord(f"{entry.files[1]}: no list of segments")
        if row < len(labels) and labels[row]:
            where = f"{entry.files[1]}: segment {row}"
            marks = beats_and_notes(labels[row], len(adc), where)
            if marks is not None:
                (beat_at, symbols), (note_at, notes) = marks
                beats = Marks.of(beat_at, [beat_symbols.index(symbol) for symbol in symbols])
                rhythms = Marks.of(note_at, [rhythm_notes.index(note) for note in notes])
    return Record(
        entry.key,
        entry.patient,
        FS,
        ("ecg",),
        adc[None],
        np.array([GAIN]),
        np.array([0.0]),
        beats=beats,
        rhythms=rhythms,
        quantisation=error,
    )


class _Last(threading.local):
    """The patient that this thread has read last; the next segment usually is of the same one."""

    data: tuple[bytes, ...] = ()
    content: tuple[Any, ...] = ()


_last = _Last()


def _patient(entry: Entry, files: Files) -> tuple[Any, ...]:
    """Contents of the patient's files, unpickled once for all segments."""
    data = tuple(files[name] for name in entry.files)
    if list(map(id, data)) != list(map(id, _last.data)):
        _last.content = ()  # frees memory first
        _last.content = tuple(map(_unpickled, entry.files, data))
        _last.data = data
    for content in _last.content:
        if isinstance(content, BadRecord):
            raise content
    return _last.content


def _unpickled(name: str, data: bytes) -> Any:
    """Content of a file, or the error that each segment of the patient raises."""
    try:
        return unpickle(data)
    except Exception as error:  # a damaged pickle raises anything
        return BadRecord(f"{name}: cannot be unpickled ({error}); fetch it again")


At = NDArray[np.int64]  # samples from the segment's start


def beats_and_notes(
    labels: dict[str, Any], samples: int, where: str
) -> tuple[tuple[At, list[str]], tuple[At, list[str]]] | None:
    """Convert labels of one segment to beats and rhythm notes, as in PhysioNet's WFDB files.

    Beats at the same sample are sorted by symbol. Successive beats of one rhythm X are a run, with
    the note ``(X`` at the first and ``)`` at the last, or ``(X)`` at a single one. Beats without a
    rhythm, or of null, end or noise, interrupt a run.

    Parameters
    ----------
    labels
        ``btype`` with five and ``rtype`` with six arrays of samples.
    samples
        Length of the segment.
    where
        For error messages.

    Returns
    -------
    tuple of tuple, or None
        Samples and symbols of the beats, samples and text of the notes. None if there are no labels
        at all: WFDB has no annotation file then.

    Raises
    ------
    BadRecord
        Labels in another form or outside the segment.
    """
    try:
        beat_at, symbols = _typed(labels["btype"], BTYPES)
        rhythm_at, rhythms = _typed(labels["rtype"], RTYPES)
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord(f"{where}: not btype and rtype with samples ({error})") from None
    every = np.concatenate([beat_at, rhythm_at])
    if not len(every):
        return None
    if every.min() < 0 or every.max() >= samples:
        raise BadRecord(f"{where}: beats from {every.min():,} to {every.max():,} of {samples:,}")
    order = np.lexsort((symbols, beat_at))
    beats = beat_at[order], symbols[order].tolist()
    extra = np.setdiff1d(beat_at, rhythm_at)
    rhythm_at = np.concatenate([rhythm_at, extra])
    rhythms = np.concatenate([rhythms, np.full(len(extra), "")])
    order = np.lexsort((rhythms, rhythm_at))
    return beats, _notes(rhythm_at[order], rhythms[order])


def _typed(lists: Sequence[Any], names: tuple[str, ...]) -> tuple[At, NDArray[np.str_]]:
    """Flatten lists of samples by type; gives all samples and the type of each."""
    arrays = [np.asarray(values) for values in lists]
    if len(arrays) != len(names):
        raise ValueError(f"{len(arrays)} types where {len(names)} are expected")
    if any(a.ndim != 1 or (len(a) and a.dtype.kind not in "iu") for a in arrays):
        raise ValueError("samples that are no whole numbers")
    at = np.concatenate([a.astype(np.int64) for a in arrays])
    return at, np.repeat(names, [len(a) for a in arrays])


def _notes(at: At, rhythms: NDArray[np.str_]) -> tuple[At, list[str]]:
    """Write a note at both ends of each run of one rhythm."""
    changes = np.flatnonzero(rhythms[1:] != rhythms[:-1]) + 1
    index: list[int] = []
    notes: list[str] = []
    for run in np.split(np.arange(len(at)), changes):
        name = rhythms[run[0]]
        if name and len(run) == 1:
            index.append(at[run[0]])
            notes.append(f"({name})")
        elif name:
            index += [at[run[0]], at[run[-1]]]
            notes += [f"({name}", ")"]
    return np.array(index, np.int64), notes
