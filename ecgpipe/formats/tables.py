"""Read signals from MATLAB, CSV and NumPy files, with the rate and leads that they name."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRecord
from .mat_files import load_mat

_SIGNALS = ("signal", "val", "data", "ecg")  # names of the variable with the signal
_TIME = re.compile(
    r"((?:elapsed[\s_]*)?time(?:stamp)?|t|seconds|sec|s|ms)[\s_\[(]*(s|sec|seconds|ms)?[\])]?"
)
_COUNTERS = ("", "sample", "sample #", "samples", "index", "unnamed: 0")
LARGEST = 512 * 2**20  # bytes that a compressed file may expand to
_TOLERANCE = 0.6  # samples; times in files are rounded

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Table:
    """A signal as a file has it; its unit is not known."""

    values: Floats  # (leads, samples)
    fs: float | None = None  # Hz
    leads: tuple[str, ...] | None = None


def _read_mat(path: Path) -> Table:
    try:
        return _variables(path, load_mat(path.read_bytes(), LARGEST))
    except NotImplementedError:
        raise BadRecord(f"{path}: of MATLAB 7.3; save it with -v7") from None
    except BadRecord:
        raise
    except Exception as error:  # whatever a damaged file leads scipy to
        raise BadRecord(f"{path}: no readable MATLAB file ({error})") from None


def _read_numpy(path: Path) -> Table:
    try:
        # Mapped, so that a header that promises more than the file holds is an error at once.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return Table(_leads_first(path, found))
        with found:
            if sum(item.file_size for item in found.zip.infolist()) > LARGEST:
                raise BadRecord(f"{path}: expands to more than {LARGEST:,} bytes")
            return _variables(path, dict(found))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BadRecord(f"{path}: no readable NumPy file ({error})") from None


def _variables(path: Path, found: Mapping[str, Any]) -> Table:
    """Find the signal among named arrays, by its name or as the only array."""
    arrays = {name: np.asarray(value) for name, value in found.items() if name[:2] != "__"}
    names = [name for name in _SIGNALS if name in arrays]
    names = names or [name for name, array in arrays.items() if array.size > 12]
    if not names or (len(names) > 1 and names[0] not in _SIGNALS):
        raise BadRecord(
            f"{path}: which of {', '.join(arrays) or 'nothing'} is the signal? name it signal"
        )
    fs = arrays.get("fs")
    leads = arrays.get("leads")
    return Table(
        _leads_first(path, arrays[names[0]]),
        float(fs.reshape(-1)[0]) if fs is not None and fs.size == 1 else None,
        None if leads is None else tuple(str(name).strip() for name in leads.reshape(-1).tolist()),
    )


def _leads_first(path: Path, array: NDArray[Any]) -> Floats:
    """Transpose an array to (leads, samples); its longer side is time."""
    if array.dtype.kind not in "iuf":
        raise BadRecord(f"{path}: its array holds no real numbers ({array.dtype})")
    values = np.atleast_2d(np.asarray(array, np.float64))
    if values.ndim == 2 and values.shape[0] > values.shape[1]:
        values = values.T
    return values


def _read_text(path: Path) -> Table:
    """Read columns of numbers, separated by commas, semicolons, tabs or spaces."""
    import pandas as pd

    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRecord(f"{path}: cannot be read as text ({error})") from None
    lines = [line for line in text.splitlines() if line.strip() and line[0] != "#"]
    separator = next((c for c in ";\t," if lines and c in lines[0]), None)
    if separator and all(line.rstrip().endswith(separator) for line in lines):
        lines = [line.rstrip().removesuffix(separator) for line in lines]
    cells = [cell.strip().strip("'\"") for cell in lines[0].split(separator)] if lines else []
    named = not all(map(_is_number, cells))
    decimal = "," if separator == ";" else "."
    body = io.StringIO("\n".join(lines[named:]))
    try:
        table = pd.read_csv(body, sep=separator or r"\s+", header=None, decimal=decimal)
    except ValueError as error:
        raise BadRecord(f"{path}: no table of numbers ({str(error).strip()})") from None
    if table.shape[1] != len(cells):
        raise BadRecord(f"{path}: {table.shape[1]} columns under {len(cells)} names")
    for column in table:
        if table[column].dtype.kind not in "iuf":
            wrong = table[column][pd.to_numeric(table[column], errors="coerce").isna()]
            raise BadRecord(
                f"{path}: {wrong.iloc[0]!r} in column {column + 1} is no number; cut it out"
            )
    values = table.to_numpy(np.float64).T
    found = _named(path, cells, values) if named else Table(values)
    for at, row in enumerate(found.values):
        if len(row) > 1 and (np.diff(row) > 0).all():
            name = found.leads[at] if found.leads else at + 1
            raise BadRecord(
                f"{path}: column {name} rises from line to line, as a time or a counter does and "
                "no ECG; name it time (s), or cut it out"
            )
    return found


def _named(path: Path, names: list[str], values: Floats) -> Table:
    """Divide named columns into leads, a time (which gives the rate) and a counter."""
    fs = None
    kept = []
    for at, name in enumerate(names):
        if found := _TIME.fullmatch(name.lower()):
            fs = _rate(path, name, values[at] * (1e-3 if "ms" in found.groups() else 1))
        elif name.lower() not in _COUNTERS:
            kept.append(at)
    return Table(values[kept], fs, tuple(names[at] for at in kept))


def _rate(path: Path, name: str, seconds: Floats) -> float:
    """Sampling rate of evenly spaced times; a whole number if it is very close to one."""
    steps = len(seconds) - 1
    if steps < 1 or not np.isfinite(seconds).all() or seconds[-1] <= seconds[0]:
        raise BadRecord(f"{path}: column {name} does not rise; cut it out and give --fs")
    fs = steps / (seconds[-1] - seconds[0])
    if np.abs((seconds - seconds[0]) * fs - np.arange(steps + 1)).max() > _TOLERANCE:
        raise BadRecord(
            f"{path}: column {name} is not evenly spaced; resample it, or cut it out and give --fs"
        )
    return float(round(fs)) if abs(fs - round(fs)) < 5e-4 * fs else float(fs)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


READERS: dict[str, Callable[[Path], Table]] = {  # by extension
    ".mat": _read_mat,
    ".csv": _read_text,
    ".tsv": _read_text,
    ".txt": _read_text,
    ".npy": _read_numpy,
    ".npz": _read_numpy,
}
