"""PhysioNet/CinC Challenge 2017: 8,528 short single-lead recordings at 300 Hz, four classes.

Clifford et al. 2017. MATLAB v4 files read through their WFDB headers; labels in ``REFERENCE*.csv``.
"""

from __future__ import annotations

import csv
from pathlib import Path

from ..errors import BadRecord, EcgpipeError
from ..types import Record
from .entry import Entry
from .wfdb_files import read_strip

CLASSES = ("N", "A", "O", "~")
# The third revision of the labels is the challenge's last word; the first found is used.
REFERENCES = ("REFERENCE-v3.csv", "REFERENCE.csv", "REFERENCE-original.csv")


def reference(root: Path) -> Path:
    """The file of labels that is read.

    Raises
    ------
    EcgpipeError
        None of the known names is there.
    """
    for name in REFERENCES:
        if (root / name).is_file():
            return root / name
    raise EcgpipeError(f"{root}: no labels; put {REFERENCES[0]} beside the recordings")


def entries(root: Path) -> list[Entry]:
    """Every recording that has a header or a label, each with the label it has."""
    file = reference(root)
    with file.open(newline="") as lines:
        labels = {row[0].strip(): row[1].strip() for row in csv.reader(lines) if len(row) > 1}
    headers = {path.stem for path in root.glob("A[0-9]*.hea")}
    return [
        Entry(
            key=key,
            patient=key,  # the challenge does not say who was recorded
            path=key,
            files=(f"{key}.hea", f"{key}.mat"),
            statements=(labels[key],) if key in labels else (),
            labels_file=file.name,
        )
        for key in sorted(headers | labels.keys())
    ]


def read(root: Path, entry: Entry) -> Record:
    """Read one recording and its label."""
    if not entry.statements:
        raise BadRecord(f"{entry.path}: no label in {entry.labels_file}; add its line there")
    if entry.statements[0] not in CLASSES:
        raise BadRecord(
            f"{entry.labels_file}: unknown label {entry.statements[0]!r} of {entry.path}; "
            f"known: {' '.join(CLASSES)}"
        )
    return Record(
        entry.key, entry.patient, *read_strip(root, entry.path), statements=entry.statements
    )
