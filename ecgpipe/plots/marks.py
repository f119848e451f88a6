"""Names of annotated beats and rhythms, and where each rhythm starts and stops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..labels.rhythms import CLOSE
from ..types import Marks

# As in PhysioNet's table of codes, https://archive.physionet.org/physiobank/annotations.shtml.
BEAT_NAMES = {
    "N": "normal",
    "L": "left bundle branch block",
    "R": "right bundle branch block",
    "e": "atrial escape",
    "j": "nodal escape",
    "n": "supraventricular escape",
    "A": "atrial premature",
    "J": "nodal premature",
    "S": "supraventricular premature",
    "a": "aberrated atrial premature",
    "V": "ventricular premature",
    "E": "ventricular escape",
    "r": "R-on-T ventricular premature",
    "/": "paced",
    "f": "fusion of paced and normal",
    "F": "fusion of ventricular and normal",
    "Q": "unclassifiable",
    "?": "not classified",
}
RHYTHM_NAMES = {
    "N": "sinus rhythm",
    "SBR": "sinus bradycardia",
    "AFIB": "atrial fibrillation",
    "AFL": "atrial flutter",
    "AB": "atrial bigeminy",
    "B": "ventricular bigeminy",
    "BII": "second degree heart block",
    "IVR": "idioventricular rhythm",
    "NOD": "nodal rhythm",
    "P": "paced rhythm",
    "PREX": "pre-excitation",
    "SVTA": "supraventricular tachyarrhythmia",
    "T": "ventricular trigeminy",
    "VFL": "ventricular flutter",
    "VT": "ventricular tachycardia",
}


class Stretch(NamedTuple):
    """A rhythm in the samples ``[start, stop)`` of a record."""

    start: int
    stop: int
    name: str  # as abbreviated by the data set, without brackets


def rhythm_stretches(rhythms: Marks, symbols: Sequence[str], samples: int) -> list[Stretch]:
    """Find where each rhythm starts and stops, from the rhythm notes of a record.

    With closing notes among the symbols (Icentia11k), a rhythm lasts from its note to the closing
    one, both beats included, and ``(X)`` for one beat. Without (MIT-BIH), it holds until the next
    note, and the first one from the start of the record.

    Labels of ``rhythms`` are positions in ``symbols``, the notes of the data set, as in the recipe
    of a store; ``samples`` is the length of the record.
    """
    notes = [symbols[label] for label in rhythms.label]
    following = [*zip(rhythms.index[1:].tolist(), notes[1:], strict=True), (samples, "")]
    found = []
    for start, note, (until, then) in zip(rhythms.index.tolist(), notes, following, strict=False):
        if note != CLOSE:
            stop = start + 1 if note.endswith(CLOSE) else until + (then == CLOSE)
            found.append(Stretch(start, stop, note.strip("()")))
    if found and CLOSE not in symbols:
        found[0] = found[0]._replace(start=0)
    return found
