"""The data sets: each a module with a handful of facts and a reader, listed in one dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from ..errors import BadRecord, EcgpipeError
from ..types import Record
from . import cinc2017, icentia11k, mitdb
from .entry import SIMULATED, Entry

__all__ = ["SIMULATED", "SOURCES", "Entry", "Source", "find_entries", "group_parts", "read_records"]


@dataclass(frozen=True)
class Source:
    """What ecgpipe knows of a data set."""

    title: str
    entries: Callable[[Path], list[Entry]]
    read: Callable[[Path, Entry], Record]
    looks_like: str  # the files that are looked for, for error messages
    patients_per_part: int
    beats: tuple[str, ...] = ()  # symbols that beat labels point into
    rhythms: tuple[str, ...] = ()  # notes that rhythm labels point into
    statements: tuple[str, ...] = ()  # labels of whole records
    main_lead: str | None = None  # for one-lead use; the first lead where a record lacks it


SOURCES: dict[str, Source] = {
    "icentia11k": Source(
        title="Icentia11k",
        entries=icentia11k.entries,
        read=icentia11k.read,
        looks_like="pXX/pXXXXX/pXXXXX_sYY.hea",
        patients_per_part=1,
        beats=icentia11k.BEATS,
        rhythms=icentia11k.RHYTHMS,
    ),
    "mitdb": Source(
        title="MIT-BIH Arrhythmia Database",
        entries=mitdb.entries,
        read=mitdb.read,
        looks_like="100.hea … 234.hea",
        patients_per_part=4,
        beats=mitdb.BEATS,
        rhythms=mitdb.RHYTHMS,
        main_lead="MLII",
    ),
    "cinc2017": Source(
        title="PhysioNet/CinC Challenge 2017",
        entries=cinc2017.entries,
        read=cinc2017.read,
        looks_like="A00001.hea … and REFERENCE-v3.csv",
        patients_per_part=500,
        statements=cinc2017.CLASSES,
    ),
}


def find_entries(name: str, root: Path) -> list[Entry]:
    """All recordings of a data set below its folder, sorted by key.

    Raises
    ------
    EcgpipeError
        An unknown name, a folder that is not there, or one that holds no such recordings.
    """
    if name not in SOURCES:
        raise EcgpipeError(f"unknown data set {name}; there are: {', '.join(SOURCES)}")
    if not root.is_dir():
        raise EcgpipeError(f"{root}: no such folder; name the one that holds {SOURCES[name].title}")
    found = SOURCES[name].entries(root)
    if not found:
        raise EcgpipeError(
            f"{root}: no recordings of {SOURCES[name].title} in it; "
            f"looked for {SOURCES[name].looks_like} right below it"
        )
    return found


def group_parts(name: str, found: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Divide recordings into parts of whole patients, each named after its first patient.

    The name depends on the patients alone, so a part keeps its name when more patients arrive
    behind it.
    """
    by_patient = [
        list(group)
        for _, group in groupby(
            sorted(found, key=lambda e: (e.patient, e.key)), lambda e: e.patient
        )
    ]
    size = SOURCES[name].patients_per_part
    parts = {}
    for start in range(0, len(by_patient), size):
        patients = by_patient[start : start + size]
        parts[patients[0][0].patient] = [entry for patient in patients for entry in patient]
    return parts


def read_records(name: str, root: Path) -> Iterator[Record]:
    """Read a data set record by record; a recording that cannot be used raises BadRecord.

    Raises
    ------
    EcgpipeError
        See :func:`find_entries`.
    """
    for entry in find_entries(name, root):
        yield read_entry(name, root, entry)


def read_entry(name: str, root: Path, entry: Entry) -> Record:
    """Read one recording; whatever its files hold, the error is a BadRecord with their names."""
    try:
        return SOURCES[name].read(root, entry)
    except OSError as error:
        raise BadRecord(
            f"{entry.path}: cannot be read ({error.strerror}); check {entry.files[0]}"
        ) from None
