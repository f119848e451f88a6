"""Icentia11k: 11,000 patients, up to 50 segments of about 70 minutes each, one lead, 250 Hz.

PhysioNet ``icentia11k-continuous-ecg`` 1.0 (Tan et al. 2019), WFDB files
``pXX/pXXXXX/pXXXXX_sYY.{hea,dat,atr}``.
"""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path

from ..types import NO_MARKS, Record
from .entry import Entry
from .wfdb_files import read_annotations, read_strip, split_annotations

BEATS = ("N", "S", "a", "V", "Q")
# "(X" opens a rhythm at a beat, ")" closes it at a beat, "(X)" is a rhythm of that one beat.
RHYTHMS = ("(N", "(AFIB", "(AFL", ")", "(N)", "(AFIB)", "(AFL)")


def entries(root: Path) -> list[Entry]:
    """Every segment below ``root``, by patient and segment, however small the subset is."""
    found = []
    for folder in sorted(root.glob("p[0-9][0-9]/p[0-9]*")):
        patient = folder.name
        names = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        for name in sorted(fnmatch.filter(names, f"{patient}_s[0-9][0-9].hea")):
            record = name.removesuffix(".hea")
            path = f"{folder.parent.name}/{patient}/{record}"
            there = [e for e in ("hea", "dat", "atr") if e != "atr" or f"{record}.atr" in names]
            found.append(Entry(record, patient, path, tuple(f"{path}.{e}" for e in there)))
    return found


def read(root: Path, entry: Entry) -> Record:
    """Read one segment; a segment without ``.atr`` has no beats (not: zero beats)."""
    strip = read_strip(root, entry.path)
    beats, rhythms = None, NO_MARKS
    if f"{entry.path}.atr" in entry.files:
        marks = read_annotations(root, entry.path)
        samples = strip.signal.shape[1]
        beats, rhythms = split_annotations(entry.path, marks, samples, BEATS, RHYTHMS)
    return Record(entry.key, entry.patient, *strip, beats=beats, rhythms=rhythms)
