"""The data sets: each is a module with a few facts and a reader, listed in one dict."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path

from ..errors import BadRecord, EcgpipeError, Interrupted
from ..files.folder import Files, Folder
from ..files.paths import cache_folder
from ..types import Entry, Record
from . import cinc2017, icbeb2018, icentia11k, mitdb, ptbxl

__all__ = [
    "DATASETS",
    "SIMULATED",
    "Dataset",
    "Entry",
    "Files",
    "Folder",
    "find_entries",
    "group_parts",
    "read_entry",
    "read_records",
    "refusing",
    "select",
]  # fmt: skip

KEY = re.compile(r"[A-Za-z0-9_-]+")  # WebDataset would split a key at a dot
SIMULATED = "SIMULATED.json"  # at the root of a simulated data set: how it was made


@dataclass(frozen=True)
class Dataset:
    """Facts about a data set, and the functions that list and read its recordings."""

    title: str
    licence: str
    entries: Callable[[Folder], list[Entry]]
    read: Callable[[Entry, Files], Record]
    looks_like: str  # the files it consists of, for error messages
    patients_per_part: int
    leads: int  # of every record; one with another number is refused
    beats: tuple[str, ...] = ()  # symbols that beat labels point into
    rhythms: tuple[str, ...] = ()  # notes that rhythm labels point into
    statements: tuple[str, ...] = ()  # labels of whole records
    main_lead: str | None = None  # for one-lead use; the first lead where a record lacks it
    # category → statement → class, if there are several categories of statements
    groups: Callable[[Folder], dict[str, dict[str, str]]] | None = None
    category: str | None = None  # the default category
    # number of recordings of other sets in the same folder, by prefix of the file name
    others: Callable[[Folder], dict[str, int]] | None = None


DATASETS: dict[str, Dataset] = {
    "icentia11k": Dataset(
        title="Icentia11k",
        licence="CC BY-NC-SA 4.0",
        entries=icentia11k.entries,
        read=icentia11k.read,
        looks_like="pXX/pXXXXX/pXXXXX_sYY.hea, or NNNNN_batched.pkl.gz",
        patients_per_part=1,
        leads=1,
        beats=icentia11k.BEATS,
        rhythms=icentia11k.RHYTHMS,
    ),
    "mitdb": Dataset(
        title="MIT-BIH Arrhythmia Database",
        licence="ODC-By 1.0",
        entries=mitdb.entries,
        read=mitdb.read,
        looks_like="100.hea … 234.hea",
        patients_per_part=4,
        beats=mitdb.BEATS,
        rhythms=mitdb.RHYTHMS,
        leads=2,
        main_lead="MLII",
    ),
    "cinc2017": Dataset(
        title="PhysioNet/CinC Challenge 2017",
        licence="ODC-By 1.0",
        entries=cinc2017.entries,
        read=cinc2017.read,
        looks_like="A00001.hea … and REFERENCE-v3.csv",
        patients_per_part=500,
        leads=1,
        statements=cinc2017.CLASSES,
    ),
    "ptbxl": Dataset(
        title="PTB-XL",
        licence="CC BY 4.0",
        entries=ptbxl.entries,
        read=ptbxl.read,
        looks_like="ptbxl_database.csv, scp_statements.csv, records500/ or records100/",
        patients_per_part=250,
        leads=12,
        main_lead="II",
        groups=ptbxl.groups,
        category="rhythm",
    ),
    "icbeb2018": Dataset(
        title="ICBEB 2018",
        licence="as its challenge published it",
        entries=icbeb2018.entries,
        read=icbeb2018.read,
        looks_like="A0001.hea and A0001.mat, or A0001.mat and REFERENCE.csv, in any folder",
        patients_per_part=250,
        statements=icbeb2018.CLASSES,
        leads=12,
        main_lead="II",
        category="all",
        others=icbeb2018.others,
    ),
}


def find_entries(name: str, folder: Folder) -> list[Entry]:
    """List all recordings of a data set below its folder, sorted by key.

    Raises
    ------
    EcgpipeError
        An unknown data set, a folder without its recordings, or invalid or duplicate keys.
    """
    if name not in DATASETS:
        raise EcgpipeError(f"unknown data set {name}; there are: {', '.join(DATASETS)}")
    dataset = DATASETS[name]
    found = dataset.entries(folder)
    for key, count in Counter(entry.key for entry in found).items():
        if count > 1 or not KEY.fullmatch(key):
            raise EcgpipeError(
                f"{folder.root}: {count} of the key {key!r}; keys are unique, of letters, digits, "
                "- and _"
            )
    if not found:
        raise EcgpipeError(
            f"{folder.root}: no recordings of {dataset.title} in it; "
            f"looked for {dataset.looks_like}"
        )
    return found


def select(found: Sequence[Entry], patients: str | None, segments: int | None) -> list[Entry]:
    """Select a subset of recordings.

    Parameters
    ----------
    found
        Recordings of a data set, sorted by key.
    patients
        Numbers of patients, such as ``0-999`` or ``100,105,200-209``; None selects all.
    segments
        Recordings per patient, spread evenly from the first to the last; None selects all.

    Raises
    ------
    EcgpipeError
        An invalid list of numbers, or one without any of the patients.
    """
    chosen = list(found)
    if patients is not None:
        wanted = _numbers(patients)
        chosen = [entry for entry in chosen if _number(entry.patient) in wanted]
        if not chosen:
            raise EcgpipeError(
                f"--patients {patients}: none of them is there; there are "
                f"{found[0].patient} to {found[-1].patient}"
            )
    if segments is None:
        return chosen
    spread = []
    for of_patient in _by_patient(chosen):
        count = min(segments, len(of_patient))
        last = len(of_patient) - 1
        spread += [of_patient[round(i * last / max(1, count - 1))] for i in range(count)]
    return sorted(spread, key=lambda entry: entry.key)


def _number(patient: str) -> int:
    return int("".join(c for c in patient if c.isdigit()) or -1)


def _numbers(text: str) -> set[int]:
    numbers: set[int] = set()
    for piece in text.split(","):
        first, dash, last = piece.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise EcgpipeError(f"--patients {text}: write it like 0-999 or 100,105,200-209")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def _by_patient(found: Sequence[Entry]) -> list[list[Entry]]:
    """Group recordings by patient, sorted by patient and key."""
    ordered = sorted(found, key=lambda entry: (entry.patient, entry.key))
    return [list(group) for _, group in groupby(ordered, lambda entry: entry.patient)]


def group_parts(name: str, found: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Divide recordings into parts of whole patients; a part has the name of its first patient.

    Parts keep their names when patients are added at the end.
    """
    size = DATASETS[name].patients_per_part
    by_patient = _by_patient(found)
    parts = (by_patient[start : start + size] for start in range(0, len(by_patient), size))
    return {part[0][0].patient: list(chain.from_iterable(part)) for part in parts}


def read_records(name: str, root: str | Path) -> Iterator[Record]:
    """Read a data set record by record; BadRecord if a recording cannot be used.

    Raises
    ------
    EcgpipeError
        See :meth:`Folder.open` and :func:`find_entries`.
    """
    folder = Folder.open(root)
    found = find_entries(name, folder)
    for entry, files in zip(found, folder.fetch_all(e.files for e in found), strict=True):
        yield read_entry(name, entry, files)


def read_entry(name: str, entry: Entry, files: Files) -> Record:
    """Read one recording from its files.

    Raises
    ------
    BadRecord
        It cannot be used; the message names the file and the reason. An error that nobody foresaw
        is one, too; its trace is written to ``errors.log`` in the cache folder.
    """
    if entry.refusal:
        raise BadRecord(entry.refusal)
    dataset = DATASETS[name]
    with refusing(entry):
        record = dataset.read(entry, files)
    if len(record.leads) != dataset.leads:
        raise BadRecord(
            f"{entry.path}: {len(record.leads)} leads ({' '.join(record.leads)}) where "
            f"{dataset.title} has {dataset.leads}"
        )
    return record


@contextmanager
def refusing(entry: Entry) -> Iterator[None]:
    """Turn an error that nobody foresaw, from reading one recording, into a refusal of it."""
    try:
        yield
    except (EcgpipeError, Interrupted, MemoryError):
        raise
    except Exception as error:  # one recording must not end the others
        log = cache_folder() / "errors.log"
        with suppress(OSError):
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                file.write(f"{entry.path}\n{traceback.format_exc()}\n")
        raise BadRecord(
            f"{entry.path}: {type(error).__name__}: {error} (not foreseen; its trace is in "
            "errors.log in the cache folder of ecgpipe)"
        ) from None
