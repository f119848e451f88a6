"""Icentia11k: 11,000 patients, up to 50 segments of about 70 minutes each, one lead, 250 Hz.

PhysioNet ``icentia11k-continuous-ecg`` 1.0 (Tan et al. 2019), WFDB files
``pXX/pXXXXX/pXXXXX_sYY.{hea,dat,atr}``.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from ..files.folder import Files, Folder
from ..formats.wfdb_record import read_annotations, read_signal, split_annotations
from ..types import NO_MARKS, Record
from . import icentia11k_batched as batched
from .entry import Entry

BEATS = ("N", "S", "a", "V", "Q")
# "(X" opens a rhythm at a beat, ")" closes it at a beat, "(X)" is a rhythm of that one beat.
RHYTHMS = ("(N", "(AFIB", "(AFL", ")", "(N)", "(AFIB)", "(AFL)")


def entries(folder: Folder) -> list[Entry]:
    """Every segment below the folder, by patient and segment, however small the subset is.

    Of the older release's batched files, where the folder holds no others.
    """
    extensions: dict[str, set[str]] = defaultdict(set)
    for name in folder.find("p[0-9][0-9]/p[0-9]*/p[0-9]*_s[0-9][0-9].*"):
        path, _, extension = name.rpartition(".")
        extensions[path].add(extension)
    found = [
        Entry(
            key=PurePosixPath(path).name,
            patient=PurePosixPath(path).parent.name,
            path=path,
            files=tuple(f"{path}.{e}" for e in ("hea", "dat", "atr") if e != "atr" or e in there),
        )
        for path, there in sorted(extensions.items())
        if "hea" in there
    ]
    return found or batched.entries(folder)


def read(entry: Entry, files: Files) -> Record:
    """Read one segment; a segment without ``.atr`` has no beats (not: zero beats)."""
    if entry.path.endswith("_batched"):
        return batched.read(entry, files, BEATS, RHYTHMS)
    strip = read_signal(entry.path, files)
    beats, rhythms = None, NO_MARKS
    if f"{entry.path}.atr" in entry.files:
        marks = read_annotations(entry.path, files)
        samples = strip.signal.shape[1]
        beats, rhythms = split_annotations(entry.path, marks, samples, BEATS, RHYTHMS)
    return Record(entry.key, entry.patient, *strip, beats=beats, rhythms=rhythms)
