"""Annotation files: what wfdb reads from them, or a refusal, however they are cut or bent."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgpipe.formats.annotations import SYMBOLS, parse

NONE, EMPTY = b"", b"\0\0"
TABLE = {label.label_store: label.symbol for label in wfdb.io.annotation.ann_labels}


class Mark(NamedTuple):
    """An annotation as its bytes have it, in the order of the fields below."""

    skips: list[int]
    step: int
    code: int
    fields: list[tuple[int, int]]  # code and value of NUM, SUB and CHN
    note: bytes | None

    def encoded(self) -> bytes:
        data = b"".join(
            word(59) + struct.pack("<HH", n >> 16 & 65535, n & 65535) for n in self.skips
        )
        data += word(self.code, self.step)
        data += b"".join(word(code, value) for code, value in self.fields)
        if self.note is not None:
            data += word(63, len(self.note)) + self.note + b"\0" * (len(self.note) % 2)
        return data


def word(code: int, value: int = 0) -> bytes:
    return struct.pack("<H", code << 10 | value)


def by_wfdb(data: bytes) -> tuple[list[int], list[Any], list[str]]:
    """What wfdb reads, its notes stripped."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.atr").write_bytes(data)
        found = wfdb.rdann(f"{folder}/x", "atr")
    notes = [note.rstrip("\0") for note in found.aux_note]
    return found.sample.tolist(), list(found.symbol), ["" if n == "None" else n for n in notes]


def ours(data: bytes) -> tuple[list[int], list[str], list[str]]:
    sample, symbols, notes, _ = parse(data)
    assert sample.dtype == np.int64
    return sample.tolist(), symbols, notes


def written(**columns: Any) -> bytes:
    """The file that wfdb writes."""
    with tempfile.TemporaryDirectory() as folder:
        wfdb.wrann("x", "atr", write_dir=folder, **columns)
        return (Path(folder) / "x.atr").read_bytes()


@pytest.mark.parametrize(
    ("folder", "files", "annotations"),
    [("mitdb", 38, 87_706), ("icentia11k/p00/p00000", 40, 224_405)],
)
def test_every_real_file_is_what_wfdb_reads(
    recordings: Path, folder: str, files: int, annotations: int
) -> None:
    found = []
    for path in sorted((recordings / folder).glob("*.atr")):
        data = path.read_bytes()
        found.append(ours(data))
        assert found[-1] == by_wfdb(data), path.name
    assert (len(found), sum(len(sample) for sample, _, _ in found)) == (files, annotations)


def test_the_table_of_symbols_is_wfdbs() -> None:
    assert {k: s for k, s in enumerate(SYMBOLS) if s != " "} == {
        k: s for k, s in TABLE.items() if k
    }


steps = st.one_of(st.integers(0, 1100), st.integers(0, 2**33))
texts = st.one_of(
    st.sampled_from(["", "None", "(N", "(AFIB", ")", "\0", "(N\0", "\0\0a"]),
    st.text(st.characters(max_codepoint=255, exclude_characters="\t\n\r\f\v"), max_size=255),
)
rows = st.lists(
    st.tuples(
        steps,
        st.sampled_from([s for k, s in TABLE.items() if k]),
        texts,
        *[st.integers(0, 127)] * 3,
    ),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(rows, st.sampled_from([None, 250, 360.5]))
def test_whatever_wfdb_writes_is_read_as_wfdb_reads_it(
    rows: list[tuple[int, str, str, int, int, int]], fs: float | None
) -> None:
    steps, symbols, notes, subtype, chan, num = map(list, zip(*rows, strict=True))
    sample = np.cumsum(steps)
    fields = {"subtype": np.array(subtype), "chan": np.array(chan), "num": np.array(num)}
    data = written(sample=sample, symbol=symbols, aux_note=list(notes), fs=fs, **fields)
    stripped = [n.rstrip("\0") for n in notes]
    expected = [
        (t, s, "" if n == "None" else n)
        for t, s, n in zip(sample.tolist(), symbols, stripped, strict=True)
        if t or s != '"'
    ]
    found = ours(data)
    assert list(zip(*found, strict=True)) == expected
    if not any(n.startswith("## ") for n in notes):  # wfdb waits for ever on some of these
        assert found == by_wfdb(data)


skips = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)
codes = st.sampled_from([0, *[k for k in TABLE if k]])
fields = st.lists(st.tuples(st.integers(60, 62), st.integers(0, 255)), max_size=4)
# Letters that look like SKIP, NUM, SUB, CHN, AUX and the end of the file.
letters = st.lists(st.one_of(st.integers(0, 255), st.integers(236, 255), st.just(0)), max_size=255)
marks = st.builds(Mark, skips, st.integers(0, 1023), codes, fields, st.none() | letters.map(bytes))
ends = st.integers(0, 3).map(lambda n: EMPTY * (n + 1))


def whole(marks: list[Mark], end: bytes = EMPTY) -> bytes:
    return b"".join(mark.encoded() for mark in marks) + end


def is_end(mark: Mark) -> bool:
    return not mark.code and not mark.step


@settings(deadline=None, max_examples=100)
@given(st.lists(marks.filter(lambda mark: not is_end(mark)), max_size=20), ends)
def test_what_the_format_allows_is_read(marks: list[Mark], end: bytes) -> None:
    time, expected = 0, []
    for mark in marks:
        time += sum(mark.skips) + mark.step
        note = (mark.note or NONE).decode("latin-1").rstrip("\0")
        if mark.code and not (mark.code == 22 and time == 0):
            expected.append((time, TABLE[mark.code], "" if note == "None" else note))
    data = whole(marks, end)
    found = ours(data)
    assert list(zip(*found, strict=True)) == expected
    assert found == by_wfdb(data)


@settings(deadline=None, max_examples=60)
@given(st.lists(marks.filter(lambda mark: not is_end(mark)), max_size=4))
def test_a_file_cut_anywhere_is_refused(marks: list[Mark]) -> None:
    data = whole(marks)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"^cut: "):
            parse(data[:length])


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_whole_or_refused(data: bytes, closed: bool) -> None:
    data += EMPTY * closed
    try:
        found = ours(data)
    except ValueError:
        return
    assert len(found[0]) == len(found[1]) == len(found[2])
    assert found == by_wfdb(data)


BEAT = word(1, 300)
LINES = ["## annotation type definitions", "42 w A wave", "1 b beat", "## end of definitions"]
DEFINITIONS = b"".join(Mark([], 0, 22, [], line.encode()).encoded() for line in LINES)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (EMPTY, []),
        (written(sample=np.array([0]), symbol=['"'], aux_note=["## x"], fs=250), []),
        (word(63 - 41, 0) + word(63, 23) + b"## time resolution: 250\0" + EMPTY, []),
        (DEFINITIONS + word(42, 9) + BEAT + EMPTY, [(9, "w", ""), (309, "b", "")]),
        (BEAT + word(63, 0) + BEAT + EMPTY, [(300, "N", ""), (600, "N", "")]),
        (word(0, 1) + word(59) + b"\xff" * 4 + BEAT + EMPTY, [(300, "N", "")]),
    ],
    ids=["empty", "comment", "resolution", "definitions", "no letters", "back"],
)
def test_files_of_few_words(data: bytes, expected: list[tuple[int, str, str]]) -> None:
    assert list(zip(*ours(data), strict=True)) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut: no end-of-file word"),
        (BEAT, "cut: no end-of-file word"),
        (BEAT + b"\0", "cut: 3 bytes"),
        (BEAT + word(63, 5) + b"(AF" + b"\0", "cut: it ends within"),
        (BEAT + word(59) + b"\0\0", "cut: it ends within"),
        (BEAT + EMPTY + BEAT + EMPTY, "something follows the end-of-file word at byte 2"),
        (word(63, 2) + b"(N" + EMPTY, "begins with a field"),
        (BEAT + word(59) + b"\0" * 4 + EMPTY, "an interval that no annotation follows"),
        (word(59) + b"\0" * 4 + word(62, 1) + BEAT + EMPTY, "an interval that no annotation"),
        (BEAT + (word(63, 2) + b"(N") * 2 + EMPTY, "two notes"),
        (BEAT + word(15, 1) + word(42, 1) + EMPTY, r"codes without a symbol: \[15, 42\]"),
        (DEFINITIONS[:-24] + BEAT + EMPTY, "definitions of symbols"),
        (DEFINITIONS.replace(b"42 w", b"wwww") + BEAT + EMPTY, "definitions of symbols"),
    ],
)
def test_what_is_no_annotation_file_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(data)
