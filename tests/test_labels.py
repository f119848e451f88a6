"""The beat rule against a plain statement of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgpipe.errors import EcgpipeError
from ecgpipe.labels.beats import CLASSES, beat_classes, label_frames
from ecgpipe.sources import SOURCES, read_records
from ecgpipe.types import Marks

ICENTIA, MITDB = SOURCES["icentia11k"].beats, SOURCES["mitdb"].beats
WANTED = {
    "normal": "N L R e j n",
    "pac": "A J S",
    "aberrated": "a",
    "pvc": "V E r",
    "undefined": "/ f F Q ?",
}
MEANING = {symbol: name for name, symbols in WANTED.items() for symbol in symbols.split()}


def _plainly(beats: list[tuple[int, str]], a: int, b: int) -> str:
    """The rule of the paper as it is written down, one frame at a time."""
    inside = [MEANING[symbol] for r, symbol in beats if a <= r < b]
    best, most = "", 0
    for name in ("pac", "aberrated", "pvc"):
        if inside.count(name) > most:
            best, most = name, inside.count(name)
    if best:
        return best
    if not inside or inside.count("undefined") >= inside.count("normal"):
        return "undefined"
    return "normal"


def _labels(
    beats: list[tuple[int, str]], starts: Any, frame: int, symbols: tuple[str, ...] = MITDB
) -> list[str]:
    marks = Marks.of([r for r, _ in beats], [symbols.index(symbol) for _, symbol in beats])
    found = label_frames(marks, beat_classes(symbols), np.asarray(starts, np.int64), frame)
    assert found.shape == (len(starts),)
    return [CLASSES[i] for i in found]


@pytest.mark.parametrize(
    ("inside", "label"),
    [
        ("", "undefined"),
        ("N", "normal"),
        ("Q", "undefined"),
        ("NQ", "undefined"),
        ("NNQ", "normal"),
        ("NQQ", "undefined"),
        ("NNNNS", "pac"),
        ("NNNNa", "aberrated"),
        ("NNNNV", "pvc"),
        ("QQQQV", "pvc"),
        ("SV", "pac"),
        ("VS", "pac"),
        ("aS", "pac"),
        ("Va", "aberrated"),
        ("VaS", "pac"),
        ("VVS", "pvc"),
        ("SaVa", "aberrated"),
        ("VVaaS", "aberrated"),
    ],
)
def test_every_branch(inside: str, label: str) -> None:
    beats = [(10 + 5 * i, symbol) for i, symbol in enumerate(inside)]
    assert _labels(beats, [0], 200, ICENTIA) == [label]


def test_frames_hold_their_first_sample_and_not_the_one_behind() -> None:
    beats = [(100, "N"), (150, "V"), (200, "N"), (200, "N")]
    starts = [50, 51, 100, 101, 150, 151, 200]
    # At 50 and 100 the beat on the end is left out; at 150 the one on the start is in.
    assert _labels(beats, starts, 50) == [
        "undefined", "normal", "normal", "pvc", "pvc", "normal", "normal",
    ]  # fmt: skip


BEATS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(MITDB)), max_size=25).map(sorted)
STARTS = st.lists(st.integers(0, 400), max_size=8)


@given(BEATS, STARTS, st.integers(1, 120))
def test_vectorised_rule_is_the_plain_one(
    beats: list[tuple[int, str]], starts: list[int], frame: int
) -> None:
    assert _labels(beats, starts, frame) == [_plainly(beats, a, a + frame) for a in starts]


@given(BEATS, STARTS, st.integers(1, 120), st.integers(0, 10**6))
def test_frames_and_marks_moved_together_keep_their_label(
    beats: list[tuple[int, str]], starts: list[int], frame: int, by: int
) -> None:
    moved = [(r + by, symbol) for r, symbol in beats]
    assert _labels(moved, [a + by for a in starts], frame) == _labels(beats, starts, frame)


def test_rule_on_the_annotations_of_mitdb(recordings: Path) -> None:
    rng, seen = np.random.default_rng(0), set()
    for record in read_records("mitdb", recordings / "mitdb"):
        assert record.beats is not None
        starts = rng.integers(0, record.samples - 2048 + 1, 60)
        beats = [(int(r), MITDB[i]) for r, i in zip(*record.beats, strict=True)]
        wanted = [_plainly(beats, int(a), int(a) + 2048) for a in starts]
        assert _labels(beats, starts, 2048) == wanted
        seen |= set(wanted)
    assert seen >= {"normal", "pac", "pvc", "undefined"}


@pytest.mark.parametrize("symbols", [ICENTIA, MITDB])
def test_table_of_symbols(symbols: tuple[str, ...]) -> None:
    assert [CLASSES[i] for i in beat_classes(symbols)] == [MEANING[s] for s in symbols]
    backwards = symbols[::-1]
    assert [CLASSES[i] for i in beat_classes(backwards)] == [MEANING[s] for s in backwards]


def test_symbols_without_a_class_are_named() -> None:
    assert set(MITDB) == set(MEANING)
    with pytest.raises(EcgpipeError, match=r"without a class: x \+$"):
        beat_classes(("N", "x", "+"))
