"""Parse WFDB annotation files in MIT format (``.atr``) with NumPy.

The format is annot.5 of the WFDB Applications Guide (Moody, Pollard & Moody): little-endian words
of 16 bits, 6 for a code and 10 for a value. ``wfdb.rdann`` returns the same, but is about 20 times
slower and would take nine tenths of the time of reading a segment of Icentia11k.
"""

from __future__ import annotations

import re
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SKIP, AUX = 59, 63  # an interval and a note; their data are in the words that follow
FIRST_FIELD = 60  # NUM, SUB, CHN and AUX are fields of the annotation before them
NOTE = 22  # a comment; at sample 0, a statement about the file

# Symbols by code, from ecgcodes.h of the WFDB library; a blank for codes without a symbol.
SYMBOLS = ' NLRaVFJASEj/Q~ | sT*D"=pB^t+u?![]en@xf()r'
_BEGIN, _END = "## annotation type definitions", "## end of definitions"
_RESOLUTION = re.compile(r"## time resolution: (\d+(?:\.\d+)?)\s*")
_DEFINITION = re.compile(r"(\d+) (\S+) .+")  # code, symbol, what it means


class Annotations(NamedTuple):
    """Columns of an annotation file, in its order."""

    sample: NDArray[np.int64]  # (n,) from the start of the record
    symbols: list[str]
    notes: list[str]  # "" where there is none
    resolution: float | None = None  # Hz that positions count, where the file says it


def parse(data: bytes) -> Annotations:
    """Parse an annotation file; the result is that of ``wfdb.rdann``.

    Comments at sample 0 (time resolution, definitions of symbols, which are applied) are left out.
    Trailing NULs of notes are removed, and ``None``, which wfdb writes for no note, is "".

    Raises
    ------
    ValueError
        Not a complete annotation file. A truncated one has no end-of-file word.
    """
    if len(data) % 2:
        raise ValueError(f"cut: {len(data):,} bytes, where words have two")
    words = np.frombuffer(data, "<u2")
    at = _instructions(words)
    word = words[at].astype(np.int64)
    code, value = word >> 10, word & 1023
    _check_order(code)

    is_mark = code < SKIP
    mark = np.cumsum(is_mark) - 1  # the annotation that a word belongs to
    step = value[is_mark]
    skip = np.flatnonzero(code == SKIP)
    far = words[at[skip] + 1].astype(np.int64) << 16 | words[at[skip] + 2]
    np.add.at(step, mark[skip] + 1, far.astype(np.int32))  # two's complement
    sample, kind = np.cumsum(step), code[is_mark]

    notes = [""] * len(sample)
    aux = np.flatnonzero(code == AUX)
    start = 2 * at[aux] + 2
    stop = start + (value[aux] & 255)
    for i, a, b in zip(mark[aux].tolist(), start.tolist(), stop.tolist(), strict=True):
        notes[i] = data[a:b].decode("latin-1").rstrip("\0")

    about_file = (sample == 0) & (kind == NOTE)
    kept = (kind != 0) & ~about_file
    statements = list(compress(notes, about_file.tolist()))
    symbol_of = _symbols(statements)
    unknown = set(np.unique(kind[kept]).tolist()) - symbol_of.keys()
    if unknown:
        raise ValueError(f"annotation codes without a symbol: {sorted(unknown)}")
    return Annotations(
        sample[kept],
        [symbol_of[k] for k in kind[kept].tolist()],
        ["" if note == "None" else note for note in compress(notes, kept.tolist())],
        _resolution(statements),
    )


def _resolution(statements: list[str]) -> float | None:
    """The rate that positions count, Hz, where a statement about the file gives it."""
    found = [_RESOLUTION.fullmatch(statement) for statement in statements]
    rates = {float(match[1]) for match in found if match}
    if len(rates) > 1 or any(not 0 < rate < 1e6 for rate in rates):
        raise ValueError(f"time resolutions of {sorted(rates)} Hz")
    return rates.pop() if rates else None


def _instructions(words: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Positions of the words before the end of file that are not data of a note or an interval.

    The letters of a note may look like any code, so this depends on all words before. But only
    words that look like SKIP or AUX must be visited one by one.
    """
    code = words >> 10
    looks = np.flatnonzero((code == SKIP) | (code == AUX))
    length = np.where(code[looks] == SKIP, 2, ((words[looks] & 255) + 1) // 2)
    ends = looks + 1 + length
    heads, tails, free = [], [], 0
    for head, end in zip(looks.tolist(), ends.tolist(), strict=True):
        if head >= free:
            heads.append(head)
            tails.append(end)
            free = end
    if free > len(words):
        raise ValueError("cut: it ends within a note or an interval")
    depth = np.zeros(len(words) + 1, np.int8)
    depth[np.array(heads, np.int64) + 1] += 1
    depth[np.array(tails, np.int64)] -= 1
    own = np.flatnonzero(np.cumsum(depth[:-1], dtype=np.int8) == 0)
    zeros = own[words[own] == 0]
    if not len(zeros):
        raise ValueError("cut: no end-of-file word")
    if words[zeros[0] :].any():
        raise ValueError(f"something follows the end-of-file word at byte {2 * zeros[0]:,}")
    return own[own < zeros[0]]


def _check_order(code: NDArray[np.int64]) -> None:
    """Refuse fields without an annotation, intervals before none, and two notes of one."""
    if len(code) and code[0] >= FIRST_FIELD:
        raise ValueError("it begins with a field of no annotation")
    after = np.append(code[1:], FIRST_FIELD)
    if np.any((code == SKIP) & (after >= FIRST_FIELD)):
        raise ValueError("an interval that no annotation follows")
    marks = np.cumsum(code < SKIP)[code == AUX]
    if np.any(marks[1:] == marks[:-1]):
        raise ValueError("an annotation with two notes")


def _symbols(statements: list[str]) -> dict[int, str]:
    """Symbols by code: those of the standard and those that the file defines."""
    symbols = {code: symbol for code, symbol in enumerate(SYMBOLS) if symbol != " "}
    if _BEGIN not in statements:
        return symbols
    for line in statements[statements.index(_BEGIN) + 1 :]:
        if line == _END:
            return symbols
        found = _DEFINITION.fullmatch(line)
        if not found:
            break
        symbols[int(found[1])] = found[2]
    raise ValueError("definitions of symbols that cannot be read")
