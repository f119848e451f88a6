"""Icentia11k: 11,000 patients, up to 50 segments of about 70 minutes each, one lead, 250 Hz.

PhysioNet ``icentia11k-continuous-ecg`` 1.0 (Tan et al. 2019), WFDB files
``pXX/pXXXXX/pXXXXX_sYY.{hea,dat,atr}``.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

from ..files.folder import Files, Folder
from ..formats.wfdb_record import read_marks, read_signal
from ..types import NO_MARKS, Entry, Record
from . import icentia11k_batched as batched

BEATS = ("N", "S", "a", "V", "Q")
# "(X" opens a rhythm at a beat, ")" closes it at a beat, "(X)" is a rhythm of that one beat.
RHYTHMS = ("(N", "(AFIB", "(AFL", ")", "(N)", "(AFIB)", "(AFL)")


def entries(folder: Folder) -> list[Entry]:
    """List every segment below the folder, by patient and segment; a subset of the set is valid.

    A folder without WFDB files may have the batched files of the first release.
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
    signal = read_signal(entry.path, files)
    beats, rhythms = None, NO_MARKS
    if f"{entry.path}.atr" in entry.files:
        samples = signal.signal.shape[1]
        beats, rhythms = read_marks(entry.path, files, samples, BEATS, RHYTHMS)
    return Record(entry.key, entry.patient, *signal, beats=beats, rhythms=rhythms)
