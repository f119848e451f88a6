"""PhysioNet/CinC Challenge 2017: 8,528 short single-lead recordings at 300 Hz, four classes.

Clifford et al. 2017. MATLAB v4 files read through their WFDB headers; labels in ``REFERENCE*.csv``.
"""

from __future__ import annotations

import csv
from pathlib import PurePosixPath

from ..errors import BadRecord, EcgpipeError
from ..files.folder import Files, Folder
from ..formats.wfdb_record import read_signal
from ..types import Record
from .entry import Entry

CLASSES = ("N", "A", "O", "~")
# The third revision of the labels is the challenge's last word; the first found is used.
REFERENCES = ("REFERENCE-v3.csv", "REFERENCE.csv", "REFERENCE-original.csv")


# Right in the folder, as in training2017.zip; or as PhysioNet lays the files out. The 300 records
# of validation/ are copies of training records.
PLACES = ("", "training2017/", "training/", "training/A[0-9]*/")


def reference(folder: Folder) -> str:
    """The file of labels that is read.

    Raises
    ------
    EcgpipeError
        None of the known names is there.
    """
    for name in REFERENCES:
        for place in ("", "training2017/", "training/"):
            if folder.has(place + name):
                return place + name
    raise EcgpipeError(f"{folder.root}: no labels; put {REFERENCES[0]} beside the recordings")


def entries(folder: Folder) -> list[Entry]:
    """Every recording that has a header or a label, each with the label it has."""
    file = reference(folder)
    rows = csv.reader(folder.read(file).decode("utf-8-sig").splitlines())
    labels = {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
    paths: dict[str, str] = {}
    for place in PLACES:
        for name in folder.find(f"{place}A[0-9]*.hea"):
            path = name.removesuffix(".hea")
            paths.setdefault(PurePosixPath(path).name, path)
    return [
        Entry(
            key=key,
            patient=key,  # the challenge does not say who was recorded
            path=(path := paths.get(key, key)),
            files=(f"{path}.hea", f"{path}.mat"),
            statements=(labels[key],) if key in labels else (),
            labels_file=PurePosixPath(file).name,
        )
        for key in sorted(paths.keys() | labels.keys())
    ]


def read(entry: Entry, files: Files) -> Record:
    """Read one recording and its label."""
    if not entry.statements:
        raise BadRecord(f"{entry.path}: no label in {entry.labels_file}; add its line there")
    if entry.statements[0] not in CLASSES:
        raise BadRecord(
            f"{entry.labels_file}: unknown label {entry.statements[0]!r} of {entry.path}; "
            f"known: {' '.join(CLASSES)}"
        )
    strip = read_signal(entry.path, files)
    return Record(entry.key, entry.patient, *strip, statements=entry.statements)
