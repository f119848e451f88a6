"""MIT-BIH Arrhythmia Database: 48 half hours of two leads at 360 Hz, every beat annotated.

PhysioNet ``mitdb`` 1.0.0 (Moody & Mark 2001), used here as a second upstream set.
"""

from __future__ import annotations

import re

from ..files.folder import Files, Folder, listed
from ..formats.wfdb_record import read_marks, read_signal
from ..types import Entry, Record

BEATS = ("N", "L", "R", "e", "j", "n", "A", "J", "S", "a", "V", "E", "r", "/", "f", "F", "Q", "?")
# Signal quality, peaks of waves, episodes without beats, events: neither beats nor rhythms.
IGNORED = frozenset("~|x\"![]sT*D=pt^`'()@u") | {"MISSB", "PSE", "TS"}
# A rhythm holds until the next note.
RHYTHMS = (
    "(N", "(SBR", "(AFIB", "(AFL", "(AB", "(B", "(BII", "(IVR", "(NOD", "(P", "(PREX", "(SVTA",
    "(T", "(VFL", "(VT",
)  # fmt: skip
KEY = re.compile(r"[0-9]{3}(\.|$)")
SAME_PERSON = {"202": "201"}


def entries(folder: Folder) -> list[Entry]:
    """List every record with a file in the folder or named in ``RECORDS``.

    Records 201 and 202 are of one person.
    """
    names = folder.find("[0-9][0-9][0-9].[hda][eat][atr]")
    keys = {name.partition(".")[0] for name in [*names, *listed(folder)] if KEY.match(name)}
    return [
        Entry(
            key=key,
            patient=SAME_PERSON.get(key, key),
            path=key,
            files=tuple(f"{key}.{extension}" for extension in ("hea", "dat", "atr")),
        )
        for key in sorted(keys)
    ]


def read(entry: Entry, files: Files) -> Record:
    """Read one record with its beats and rhythm notes."""
    signal = read_signal(entry.path, files)
    samples = signal.signal.shape[1]
    beats, rhythms = read_marks(entry.path, files, samples, BEATS, RHYTHMS, IGNORED)
    return Record(entry.key, entry.patient, *signal, beats=beats, rhythms=rhythms)
