"""PhysioNet/CinC Challenge 2017: 8,528 short single-lead recordings at 300 Hz, four classes.

Clifford et al. 2017. MATLAB v4 files read through their WFDB headers; labels in ``REFERENCE*.csv``.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from ..errors import BadRecord, EcgpipeError
from ..files.folder import Files, Folder
from ..formats.csv_tables import read_lines
from ..formats.wfdb_record import read_signal
from ..types import Entry, Record

CLASSES = ("N", "A", "O", "~")
REFERENCES = ("REFERENCE-v3.csv", "REFERENCE.csv", "REFERENCE-original.csv")  # newest labels first
# The folders of training2017.zip and of PhysioNet. The 300 records of validation/ are copies of
# training records.
FOLDERS = ("", "training2017/", "training/", "training/A[0-9]*/")


def reference(folder: Folder) -> str:
    """Find the newest file of labels.

    Raises
    ------
    EcgpipeError
        There is none.
    """
    for name in REFERENCES:
        for parent in FOLDERS[:3]:
            if folder.has(parent + name):
                return parent + name
    raise EcgpipeError(f"{folder.root}: no labels; put {REFERENCES[0]} beside the recordings")


def entries(folder: Folder) -> list[Entry]:
    """List every recording that has a file or a label."""
    file = reference(folder)
    labels: dict[str, str] = {}
    for line, (key, *label) in read_lines(file, folder.read(file)):
        if label and labels.setdefault(key, label[0]) != label[0]:
            raise EcgpipeError(
                f"{file}: line {line}: {key} is {label[0]}, and {labels[key]} above; fetch it again"
            )
    paths: dict[str, str] = {}
    for parent in FOLDERS:
        for name in [*folder.find(f"{parent}A[0-9]*.hea"), *folder.find(f"{parent}A[0-9]*.mat")]:
            path = name.rpartition(".")[0]
            paths.setdefault(PurePosixPath(path).name, path)
    return [
        Entry(
            key=key,
            patient=key,  # patients are not published
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
    signal = read_signal(entry.path, files)
    return Record(entry.key, entry.patient, *signal, statements=entry.statements)
