"""Icentia11k: 11,000 patients, up to 50 segments of about 70 minutes each, one lead, 250 Hz.

Tan et al. 2019, in one of two forms:

* PhysioNet's ``icentia11k-continuous-ecg`` 1.0: ``pXX/pXXXXX/pXXXXX_sYY.{hea,dat,atr}``;
* the original one, two gzipped pickles per patient: ``NNNNN_batched.pkl.gz`` has the signal,
  (segments, samples) float32 in mV, and ``NNNNN_batched_lbls.pkl.gz`` a list with the samples of
  beats of each segment, by type of beat (``btype``) and type of rhythm (``rtype``).

Both forms give the same marks. Signals differ by one ADC unit in one value of fifty: floats of the
original form are rounded here, and were truncated for PhysioNet.
"""

from __future__ import annotations

import pickletools
import threading
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRecord, Unreachable
from ..files.folder import Files, Folder, listed
from ..formats.pickles import unpickle
from ..formats.quantise import quantise
from ..formats.wfdb_record import read_marks, read_signal
from ..types import NO_MARKS, Entry, Marks, Record

BEATS = ("N", "S", "a", "V", "Q")
# "(X" opens a rhythm at a beat, ")" closes it at a beat, "(X)" is a rhythm of that one beat.
RHYTHMS = ("(N", "(AFIB", "(AFL", ")", "(N)", "(AFIB)", "(AFL)")

# The original form.
FS = 250.0
GAIN = 74.36482269503546  # ADC units per mV
SIGNAL, LABELS = "_batched.pkl.gz", "_batched_lbls.pkl.gz"
BTYPES = ("Q", "N", "S", "a", "V")  # undefined, normal, PAC, aberrated, PVC
RTYPES = ("", "", "", "N", "AFIB", "AFL")  # null, end, noise, sinus rhythm, AFib, AFlutter
HEAD = 4096  # bytes; the number of segments is in the first 200 bytes of a file

Samples = NDArray[np.int64]  # from the start of the segment


def entries(folder: Folder) -> list[Entry]:
    """List every segment below the folder, by patient and segment; a subset of patients is valid.

    A segment is listed if any of its files is there, or if ``RECORDS`` names it and its patient has
    a folder; one without a header or samples is refused when it is read. The original form is used
    in folders without WFDB files.
    """
    extensions: dict[str, set[str]] = defaultdict(set)
    for name in folder.find("p[0-9][0-9]/p[0-9]*/p[0-9]*_s[0-9][0-9].*"):
        path, _, extension = name.rpartition(".")
        if extension in ("hea", "dat", "atr"):
            extensions[path].add(extension)
    patients = {PurePosixPath(path).parent for path in extensions}
    for path in listed(folder):
        if PurePosixPath(path).parent in patients:
            extensions.setdefault(path, set())
    found = [
        Entry(
            key=PurePosixPath(path).name,
            patient=PurePosixPath(path).parent.name,
            path=path,
            files=tuple(f"{path}.{e}" for e in ("hea", "dat", "atr") if e != "atr" or e in there),
        )
        for path, there in sorted(extensions.items())
    ]
    return found or _original_entries(folder)


def read(entry: Entry, files: Files) -> Record:
    """Read one segment; a segment without ``.atr`` has no beats (not: zero beats)."""
    if entry.path.endswith("_batched"):
        return _read_original(entry, files)
    signal = read_signal(entry.path, files)
    beats, rhythms = None, NO_MARKS
    if f"{entry.path}.atr" in entry.files:
        samples = signal.signal.shape[1]
        beats, rhythms = read_marks(entry.path, files, samples, BEATS, RHYTHMS)
    return Record(entry.key, entry.patient, *signal, beats=beats, rhythms=rhythms)


def _original_entries(folder: Folder) -> list[Entry]:
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
    """Number of segments in a signal file; None if it holds none, or is not readable."""
    try:
        if folder.is_local:
            with (Path(folder.root) / name).open("rb") as file:
                head = file.read(HEAD)
        else:
            head = folder.read(name)[:HEAD]
        count = _first_length(head)
        if count is None:
            content = unpickle(folder.read(name))
            count = len(content) if isinstance(content, np.ndarray) and content.ndim == 2 else 0
        return count or None
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
                return numbers[-2] if numbers[-2] > 0 else None
            numbers = [*numbers, value] if isinstance(value, int) else []
    except (zlib.error, ValueError):
        pass  # some pickles begin with the samples, which are cut off here
    return None


def _read_original(entry: Entry, files: Files) -> Record:
    """Read one segment; one without labels has no beats (not: zero beats)."""
    signals, *labels = _patient(entry, files)
    name = entry.files[0]
    if not isinstance(signals, np.ndarray) or signals.ndim != 2 or signals.dtype.kind != "f":
        raise BadRecord(f"{name}: no array of floats, (segments, samples)")
    _, _, segment = entry.key.partition("_s")
    if not segment or int(segment) >= len(signals):
        raise BadRecord(f"{name}: holds {len(signals)} segments; fetch it again")
    row = int(segment)
    signal, error = quantise(signals[row], GAIN, name)
    beats, rhythms = None, NO_MARKS
    if labels and not isinstance(labels[0], list):
        raise BadRecord(f"{entry.files[1]}: no list of segments")
    if labels and row < len(labels[0]) and labels[0][row]:
        name = f"{entry.files[1]}: segment {row}"
        found = beats_and_notes(labels[0][row], len(signal), name)
        if found is not None:
            (beat_at, symbols), (note_at, notes) = found
            beats = Marks.of(beat_at, [BEATS.index(symbol) for symbol in symbols])
            rhythms = Marks.of(note_at, [RHYTHMS.index(note) for note in notes])
    one_lead = FS, ("ecg",), signal[None], np.array([GAIN]), np.array([0.0])
    return Record(
        entry.key, entry.patient, *one_lead, beats=beats, rhythms=rhythms, quantisation=error
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


def beats_and_notes(
    labels: dict[str, Any], samples: int, name: str
) -> tuple[tuple[Samples, list[str]], tuple[Samples, list[str]]] | None:
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
    name
        For error messages.

    Returns
    -------
    tuple of tuple, or None
        Samples and symbols of the beats, samples and text of the notes; None without any labels.

    Raises
    ------
    BadRecord
        Labels in another form or outside the segment.
    """
    try:
        beat_at, symbols = _typed(labels["btype"], BTYPES)
        rhythm_at, rhythms = _typed(labels["rtype"], RTYPES)
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord(f"{name}: not btype and rtype with samples ({error})") from None
    every = np.concatenate([beat_at, rhythm_at])
    if not len(every):
        return None
    if every.min() < 0 or every.max() >= samples:
        raise BadRecord(f"{name}: beats from {every.min():,} to {every.max():,} of {samples:,}")
    order = np.lexsort((symbols, beat_at))
    beats = beat_at[order], symbols[order].tolist()
    extra = np.setdiff1d(beat_at, rhythm_at)
    rhythm_at = np.concatenate([rhythm_at, extra])
    rhythms = np.concatenate([rhythms, np.full(len(extra), "")])
    order = np.lexsort((rhythms, rhythm_at))
    return beats, _notes(rhythm_at[order], rhythms[order])


def _typed(lists: Sequence[Any], names: tuple[str, ...]) -> tuple[Samples, NDArray[np.str_]]:
    """Flatten lists of samples by type; gives all samples and the type of each."""
    arrays = [np.asarray(values) for values in lists]
    if len(arrays) != len(names):
        raise ValueError(f"{len(arrays)} types where {len(names)} are expected")
    if any(a.ndim != 1 or (len(a) and a.dtype.kind not in "iu") for a in arrays):
        raise ValueError("samples that are no whole numbers")
    at = np.concatenate([a.astype(np.int64) for a in arrays])
    return at, np.repeat(names, [len(a) for a in arrays])


def _notes(at: Samples, rhythms: NDArray[np.str_]) -> tuple[Samples, list[str]]:
    """Write a note at both ends of each run of one rhythm."""
    starts = np.flatnonzero(np.r_[True, rhythms[1:] != rhythms[:-1]])
    ends = np.r_[starts[1:], len(at)] - 1
    rows: list[tuple[int, str]] = []
    for start, end in zip(starts, ends, strict=True):
        name = rhythms[start]
        if name:
            rows.append((at[start], f"({name})" if start == end else f"({name}"))
        if name and start < end:
            rows.append((at[end], ")"))
    return np.array([sample for sample, _ in rows], np.int64), [note for _, note in rows]
