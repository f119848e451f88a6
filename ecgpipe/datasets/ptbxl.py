"""PTB-XL: about 21,800 recordings of 10 s, 12 leads, at 500 and 100 Hz, with 71 SCP-ECG codes.

PhysioNet ``ptb-xl`` (Wagner et al. 2020). WFDB files below ``records500/`` and ``records100/``;
codes, patients and official folds in ``ptbxl_database.csv``; categories of codes in
``scp_statements.csv``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from ..errors import BadRecord, EcgpipeError
from ..files.folder import Files, Folder
from ..formats.csv_tables import read_columns
from ..formats.wfdb_record import read_signal
from ..types import Entry, Record

TABLE, CODES = "ptbxl_database.csv", "scp_statements.csv"
PATH = re.compile(r"records(500/\d{5}/\d{5}_hr|100/\d{5}/\d{5}_lr)")
FOLDS = range(1, 11)
LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")


def entries(folder: Folder) -> list[Entry]:
    """List every recording that has a row in the table or a header.

    At 500 Hz if the folder has any such recording, else at 100 Hz. A code counts whatever its
    likelihood.

    Raises
    ------
    EcgpipeError
        No table, or not that of PTB-XL.
    """
    headers, column = folder.find("records500/*/*_hr.hea"), "filename_hr"
    if not headers and (low := folder.find("records100/*/*_lr.hea")):
        headers, column = low, "filename_lr"
    found: dict[str, Entry] = {}
    for line, row in _rows(folder, TABLE, {"patient_id", "scp_codes", "strat_fold", column}):
        path = row[column]
        if not PATH.fullmatch(path) or _key(path) in found:
            raise EcgpipeError(
                f"{TABLE}: line {line}: {column} is {path!r}, cut off or twice; fetch it again"
            )
        found[_key(path)] = _entry(line, row, path)
    for path in (name.removesuffix(".hea") for name in headers):
        if (key := _key(path)) not in found:
            why = f"{path}: no row in {TABLE}; fetch the table again, or take the recording away"
            found[key] = Entry(key, key, path, _files(path), labels_file=TABLE, refusal=why)
    return [found[key] for key in sorted(found)]


def _entry(line: int, row: dict[str, str], path: str) -> Entry:
    key = _key(path)
    patient, fold, refusal = key, None, None
    codes: tuple[str, ...] = ()
    try:
        found = ast.literal_eval(row["scp_codes"])
        if not isinstance(found, dict) or not all(isinstance(code, str) for code in found):
            raise ValueError(f"scp_codes {row['scp_codes']}: no codes with likelihoods")
        codes = tuple(found)
        fold = _whole(row, "strat_fold") if row["strat_fold"] else None
        if fold is not None and fold not in FOLDS:
            raise ValueError(f"fold {fold}; there are 1 to {FOLDS[-1]}")
        patient = str(_whole(row, "patient_id"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        refusal = f"{TABLE}: line {line}, of {key}, cannot be read ({error}); fetch the table again"
    return Entry(key, patient, path, _files(path), codes, fold, TABLE, refusal)


def _whole(row: dict[str, str], column: str) -> int:
    """A whole number, which the table has as 3 or 3.0."""
    value = float(row[column])
    if not value.is_integer():
        raise ValueError(f"{column} {row[column]} is no whole number")
    return int(value)


def _key(path: str) -> str:
    return PurePosixPath(path).name.rpartition("_")[0]  # the five digits of the ecg_id


def _files(path: str) -> tuple[str, ...]:
    return f"{path}.hea", f"{path}.dat"


def _rows(folder: Folder, name: str, columns: set[str]) -> Iterator[tuple[int, dict[str, str]]]:
    if not folder.has(name):
        raise EcgpipeError(f"{folder.root}: no {name}; put it beside the recordings")
    return read_columns(name, folder.read(name), columns, "PTB-XL")


def groups(folder: Folder) -> dict[str, dict[str, str]]:
    """Map codes to classes, by category of statements, in the order of the table.

    Returns
    -------
    dict
        Category (``all``, ``diagnostic``, ``form``, ``rhythm``, ``superclass``, ``subclass``) →
        code → class: the code itself or its diagnostic class.

    Raises
    ------
    EcgpipeError
        No ``scp_statements.csv``, or not that of PTB-XL.
    """
    kinds = ("diagnostic", "form", "rhythm")
    classes = {"superclass": "diagnostic_class", "subclass": "diagnostic_subclass"}
    found: dict[str, dict[str, str]] = {name: {} for name in ("all", *kinds, *classes)}
    for line, row in _rows(folder, CODES, {"", *kinds, *classes.values()}):
        code = row[""]
        found["all"][code] = code
        for kind in kinds:
            if row[kind] not in ("", "0", "0.0", "1", "1.0"):
                raise EcgpipeError(f"{CODES}: line {line}: {kind} is {row[kind]!r}, not 1 or empty")
            if row[kind] and float(row[kind]):
                found[kind][code] = code
        for name, column in classes.items():
            if row[column]:
                found[name][code] = row[column]
    return found


def read(entry: Entry, files: Files) -> Record:
    """Read one recording with its codes and fold."""
    signal = read_signal(entry.path, files)
    if tuple(lead.upper() for lead in signal.leads) != LEADS:
        raise BadRecord(f"{entry.path}.hea: leads {' '.join(signal.leads)}; not PTB-XL's")
    return Record(entry.key, entry.patient, *signal, statements=entry.statements, fold=entry.fold)
