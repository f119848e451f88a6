"""Read the tables of data sets: CSV of strings, every problem named by file and line."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator

from ..errors import EcgpipeError

_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def text_of(name: str, data: bytes) -> str:
    """Decode a text file: UTF-8, or UTF-16 with a byte order mark.

    Raises
    ------
    EcgpipeError
        Another encoding, which cannot be told for certain.
    """
    encoding = next((found for mark, found in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise EcgpipeError(f"{name}: line {line} is no UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise EcgpipeError(f"{name}: line {line} holds a NUL; save the file as UTF-8 text")
    return text


def read_lines(name: str, data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty, each as its number and its cells.

    Raises
    ------
    EcgpipeError
        See :func:`text_of`; a cell that is too long, or a quote that does not end.
    """
    reader = csv.reader(io.StringIO(text_of(name, data), newline=""), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise EcgpipeError(f"{name}: line {reader.line_num}: {error}") from None


def read_columns(
    name: str, data: bytes, columns: set[str], looks_like: str
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a table with a line of names, each as its line's number and its cells by name.

    Raises
    ------
    EcgpipeError
        A column that is missing, a row of another length, or see :func:`read_lines`.
    """
    lines = read_lines(name, data)
    _, names = next(lines, (0, []))
    if missing := columns - set(names):
        raise EcgpipeError(f"{name}: no column {', '.join(sorted(missing))}; is it {looks_like}'s?")
    for line, cells in lines:
        if len(cells) != len(names):
            raise EcgpipeError(
                f"{name}: line {line} has {len(cells)} cells where {len(names)} columns are named; "
                "fetch it again"
            )
        yield line, dict(zip(names, cells, strict=True))
