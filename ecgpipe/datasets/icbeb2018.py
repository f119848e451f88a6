"""ICBEB 2018 (CPSC 2018): 6,877 recordings of 12 leads at 500 Hz, 6 to 144 s, nine classes.

Liu et al. 2018, in one of two forms:

* PhysioNet's Challenges 2020 and 2021: ``A0001.hea`` and ``A0001.mat`` in ADC units, labels as
  SNOMED CT codes in the header (``Dx``), often beside other sets;
* the original one: ``A0001.mat`` with a struct ``ECG`` of floats in mV, which are rounded to 1 µV,
  and labels as numbers in ``REFERENCE.csv``.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import PurePosixPath

import numpy as np

from ..errors import BadRecord, EcgpipeError
from ..files.folder import Files, Folder
from ..formats.csv_tables import read_lines
from ..formats.mat_files import load_mat
from ..formats.quantise import quantise
from ..formats.wfdb_record import WfdbSignal, read_signal
from ..types import Entry, Record

# Class → SNOMED CT code, in the order of the numbers 1 to 9.
SNOMED = {
    "SNR": "426783006", "AF": "164889003", "IAVB": "270492004", "LBBB": "164909002",
    "RBBB": "59118001", "PAC": "284470004", "PVC": "164884008", "STD": "429622005",
    "STE": "164931005",
}  # fmt: skip
CLASSES = tuple(SNOMED)
CLASS_OF_CODE = {code: name for name, code in SNOMED.items()}
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
FS = 500.0
GAIN = 1000.0  # ADC units per mV
LARGEST = 64 * 2**20  # bytes that a file may expand to; 144 s of 12 leads as doubles are 7 MB
KEY = re.compile(r"A\d{4}")  # keys of CinC 2017 have five digits
DX = re.compile(r"^#\s*Dx:(.*)$", re.MULTILINE | re.IGNORECASE)
REFERENCE = "REFERENCE.csv"
IN_HEADERS = "A*.hea"


def entries(folder: Folder) -> list[Entry]:
    """List every recording that has a file or a label, in any subfolder; other sets are ignored.

    Headers are not read here, so their labels are not known yet.

    Raises
    ------
    EcgpipeError
        A recording that exists twice, or the original form without ``REFERENCE.csv``.
    """
    headers, signals = _paths(folder, "hea"), _paths(folder, "mat")
    if not headers and not signals:
        return []
    labels = {} if headers else _reference(folder)
    paths = signals | headers
    return [
        Entry(
            key=key,
            patient=key,  # patients are not published
            path=(path := paths.get(key, key)),
            files=(f"{path}.hea", f"{path}.mat") if headers else (f"{path}.mat",),
            statements=labels.get(key, ()),
            labels_file=IN_HEADERS if headers else REFERENCE,
        )
        for key in sorted(paths.keys() | labels.keys())
    ]


def _paths(folder: Folder, extension: str) -> dict[str, str]:
    """Path without extension by key."""
    found: dict[str, str] = {}
    for name in folder.find(f"**/A[0-9]*.{extension}"):
        path = name.removesuffix(f".{extension}")
        key = PurePosixPath(path).name
        if not KEY.fullmatch(key):
            continue
        if key in found:
            raise EcgpipeError(f"{folder.root}: {key} is there twice, {found[key]} and {path}")
        found[key] = path
    return found


def others(folder: Folder) -> dict[str, int]:
    """Count recordings of other sets in the same folder by the prefix of their file names."""
    stems = (PurePosixPath(name).stem for name in folder.find("**/*.hea"))
    counts = Counter(stem.rstrip("0123456789") for stem in stems if not KEY.fullmatch(stem))
    return dict(sorted(counts.items()))


def _reference(folder: Folder) -> dict[str, tuple[str, ...]]:
    """Classes by key; other values than the numbers 1 to 9 are kept, to be refused later."""
    tables = folder.find(f"**/{REFERENCE}")
    if not tables:
        raise EcgpipeError(f"{folder.root}: no labels; put {REFERENCE} beside the recordings")
    names = {str(number): name for number, name in enumerate(CLASSES, 1)}
    found: dict[str, tuple[str, ...]] = {}
    for table in tables:
        for line, (first, *cells) in read_lines(table, folder.read(table)):
            key = first.removesuffix(".mat")
            if not KEY.fullmatch(key):
                continue  # the line of column names
            labels = tuple(names.get(cell, cell) for cell in cells[:3] if cell not in ("", "NaN"))
            if found.setdefault(key, labels) != labels:
                raise EcgpipeError(f"{table}: line {line}: another label of {key} than before")
    return found


def read(entry: Entry, files: Files) -> Record:
    """Read one recording of either form.

    Other codes in a header than the nine are kept as they are, and may be the only ones. In the
    original form, a recording without a label is refused.
    """
    if entry.labels_file == REFERENCE:
        return _read_original(entry, files)
    signal = read_signal(entry.path, files)
    if signal.leads != LEADS:
        raise BadRecord(f"{entry.path}.hea: leads {' '.join(signal.leads)}; not {' '.join(LEADS)}")
    header = files[f"{entry.path}.hea"].decode("ascii", errors="ignore")
    lines = DX.findall(header)
    if not lines or not header.endswith("\n"):
        raise BadRecord(f"{entry.path}.hea: cut, or without statements (Dx); fetch it again")
    codes = [code for line in lines for code in re.findall(r"\d+", line)]
    names = dict.fromkeys(CLASS_OF_CODE.get(code, code) for code in codes)
    return Record(entry.key, entry.patient, *signal, statements=tuple(names))


def _read_original(entry: Entry, files: Files) -> Record:
    name = f"{entry.path}.mat"
    if not entry.statements:
        raise BadRecord(f"{name}: no label in {REFERENCE}; add its line there")
    if unknown := set(entry.statements) - set(CLASSES):
        raise BadRecord(
            f"{REFERENCE}: unknown label {', '.join(sorted(unknown))} of {entry.key}; known: 1 to 9"
        )
    signal, error = read_original(name, files[name])
    statements = tuple(dict.fromkeys(entry.statements))
    return Record(entry.key, entry.patient, *signal, statements=statements, quantisation=error)


def read_original(name: str, data: bytes) -> tuple[WfdbSignal, float]:
    """Read the signal of a file in the original form; gives it and its largest rounding error, mV.

    Raises
    ------
    BadRecord
        Not a MATLAB file with a struct ``ECG`` of twelve leads.
    """
    try:
        struct = load_mat(data, LARGEST, variable_names=["ECG"])["ECG"]
        millivolts = np.asarray(struct["data"].item(), np.float64)
    except Exception as wrong:  # whatever a damaged file leads scipy to
        raise BadRecord(
            f"{name}: no readable MATLAB file with ECG.data ({wrong}); fetch it again"
        ) from None
    if millivolts.ndim != 2 or len(millivolts) != len(LEADS) or not millivolts.size:
        raise BadRecord(f"{name}: ECG.data of shape {millivolts.shape}; 12 leads are expected")
    signal, error = quantise(millivolts, GAIN, name)
    leads = len(LEADS)
    return WfdbSignal(FS, LEADS, signal, np.full(leads, GAIN), np.zeros(leads)), error
