"""Icentia11k as first published: two gzipped pickles per patient.

``NNNNN_batched.pkl.gz`` holds the signal, (segments, samples) float32 in mV;
``NNNNN_batched_lbls.pkl.gz`` a list with the beats of each segment, by type of beat (``btype``) and
by type of rhythm (``rtype``). PhysioNet's WFDB files were made from them, and
:func:`beats_and_notes` follows how, so that either form gives the same marks. Samples are rounded
to ADC units here. In the WFDB files they were cut off towards zero after a product in float32:
those hold no 57 and no 114, but 56 and 113 instead, and so on for one value in fifty.
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
from ..types import NO_MARKS, Marks, Record
from .entry import Entry

FS = 250.0
GAIN = 74.36482269503546  # ADC units per mV
SIGNAL, LABELS = "_batched.pkl.gz", "_batched_lbls.pkl.gz"
HEAD = 4096  # bytes at a file's start; the number of segments is in the first 200
# Symbols by number of btype: undefined, normal, PAC, aberrated, PVC.
BTYPES = ("Q", "N", "S", "a", "V")
# Rhythms by number of rtype: null, end, noise, normal sinus rhythm, AFib, AFlutter.
RTYPES = ("", "", "", "N", "AFIB", "AFL")


def entries(folder: Folder) -> list[Entry]:
    """Every segment of every patient right in the folder.

    Of a signal file only the beginning is read, which says how many segments there are. A patient
    without a signal file, or with one that cannot be made out, is one entry, to be refused.
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
    """The number of segments in a signal file; None where it is none."""
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
    except Exception:  # whatever it is, reading its one entry will say
        return None


def _first_length(data: bytes) -> int | None:
    """The rows of an array from the beginning of its gzipped pickle; None: it does not say."""
    try:
        start = zlib.decompressobj(wbits=31).decompress(data, HEAD)
        numbers: list[int] = []  # of the instructions right before
        for code, value, _ in pickletools.genops(start):
            if code.name in ("TUPLE2", "TUPLE") and len(numbers) >= 2:
                return numbers[-2]
            numbers = [*numbers, value] if isinstance(value, int) else []
    except (zlib.error, ValueError):
        pass  # cut off inside the samples, which some pickles have first
    return None


def read(
    entry: Entry, files: Files, beat_symbols: Sequence[str], rhythm_notes: Sequence[str]
) -> Record:
    """Read one segment; one that the labels leave out has no beats (not: zero beats).

    Parameters
    ----------
    entry
        As :func:`entries` lists it.
    files
        The patient's files; unpickled once while its segments are read one after another.
    beat_symbols, rhythm_notes
        What labels are positions in: those of the WFDB form.

    Raises
    ------
    BadRecord
        A pickle that is damaged or names anything but arrays, or does not hold what it should.
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
    """The patient that was read last: segments of one come one after another."""

    data: tuple[bytes, ...] = ()
    content: tuple[Any, ...] = ()


_last = _Last()


def _patient(entry: Entry, files: Files) -> tuple[Any, ...]:
    """What the patient's files hold, unpickled once for all segments."""
    data = tuple(files[name] for name in entry.files)
    if list(map(id, data)) != list(map(id, _last.data)):
        _last.content = ()  # make room first
        _last.content = tuple(map(_unpickled, entry.files, data))
        _last.data = data
    for content in _last.content:
        if isinstance(content, BadRecord):
            raise content
    return _last.content


def _unpickled(name: str, data: bytes) -> Any:
    """The content of a file, or what is wrong with it, for each of the patient's segments."""
    try:
        return unpickle(data)
    except Exception as error:  # a damaged pickle raises anything
        return BadRecord(f"{name}: cannot be unpickled ({error}); fetch it again")


At = NDArray[np.int64]  # samples from the segment's start


def beats_and_notes(
    labels: dict[str, Any], samples: int, where: str
) -> tuple[tuple[At, list[str]], tuple[At, list[str]]] | None:
    """Beats and rhythm notes of one segment, as the makers' conversion to WFDB writes them.

    Beats of one sample are in the order of their symbols. The entries of ``rtype`` are followed in
    time; a beat that has none interrupts, as do undefined, end and noise. Successive ones of one
    rhythm are a run: ``(X`` at its first entry and ``)`` at its last, or ``(X)`` where these are
    one.

    Parameters
    ----------
    labels
        ``btype`` with five and ``rtype`` with six arrays of samples.
    samples
        Length of the segment.
    where
        For errors.

    Returns
    -------
    tuple of tuple, or None
        Samples and symbols of the beats, samples and text of the notes. None where there is no
        label at all: WFDB has no annotation file then.

    Raises
    ------
    BadRecord
        Labels that are not like that, or outside the segment.
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
    """Every position, and the name of its type, of one list of positions per type."""
    arrays = [np.asarray(values) for values in lists]
    if len(arrays) != len(names):
        raise ValueError(f"{len(arrays)} types where {len(names)} are expected")
    if any(a.ndim != 1 or (len(a) and a.dtype.kind not in "iu") for a in arrays):
        raise ValueError("samples that are no whole numbers")
    at = np.concatenate([a.astype(np.int64) for a in arrays])
    return at, np.repeat(names, [len(a) for a in arrays])


def _notes(at: At, rhythms: NDArray[np.str_]) -> tuple[At, list[str]]:
    """Notes at the ends of runs of one rhythm."""
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
