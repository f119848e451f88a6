"""MIT-BIH Arrhythmia Database: 48 half hours of two leads at 360 Hz, beat by beat annotated.

PhysioNet ``mitdb`` 1.0.0 (Moody & Mark 2001), used here as a second upstream set.
"""

from __future__ import annotations

from pathlib import Path

from ..types import Record
from .entry import Entry
from .wfdb_files import read_annotations, read_strip, split_annotations

BEATS = ("N", "L", "R", "e", "j", "n", "A", "J", "S", "a", "V", "E", "r", "/", "f", "F", "Q", "?")
# Signal quality, peaks of waves, episodes without beats, notes of events: no beats, no rhythms.
IGNORED = frozenset("~|x\"![]sT*D=pt^`'()@u") | {"MISSB", "PSE", "TS"}
# A rhythm holds until the next note.
RHYTHMS = (
    "(N", "(SBR", "(AFIB", "(AFL", "(AB", "(B", "(BII", "(IVR", "(NOD", "(P", "(PREX", "(SVTA",
    "(T", "(VFL", "(VT",
)  # fmt: skip
SAME_PERSON = {"202": "201"}


def entries(root: Path) -> list[Entry]:
    """Every record below ``root``; records 201 and 202 come from one person."""
    return [
        Entry(
            key=header.stem,
            patient=SAME_PERSON.get(header.stem, header.stem),
            path=header.stem,
            files=tuple(f"{header.stem}.{extension}" for extension in ("hea", "dat", "atr")),
        )
        for header in sorted(root.glob("[0-9][0-9][0-9].hea"))
    ]


def read(root: Path, entry: Entry) -> Record:
    """Read one record with its beats and rhythm notes."""
    strip = read_strip(root, entry.path)
    marks = read_annotations(root, entry.path)
    samples = strip.signal.shape[1]
    beats, rhythms = split_annotations(entry.path, marks, samples, BEATS, RHYTHMS, IGNORED)
    return Record(entry.key, entry.patient, *strip, beats=beats, rhythms=rhythms)
