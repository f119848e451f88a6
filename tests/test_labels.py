"""The beat rule against a plain statement of it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgpipe.datasets import DATASETS, read_records
from ecgpipe.errors import EcgpipeError
from ecgpipe.labels.beats import CLASSES, beat_classes, label_frames
from ecgpipe.types import Marks

ICENTIA, MITDB = DATASETS["icentia11k"].beats, DATASETS["mitdb"].beats
WANTED = {
    "normal": "N L R e j n",
    "pac": "A J S",
    "aberrated": "a",
    "pvc": "V E r",
    "undefined": "/ f F Q ?",
}
MEANING = {symbol: name for name, symbols in WANTED.items() for symbol in symbols.split()}


OPTIONS: list[dict[str, bool]] = [
    {"undefined_is_normal": text, "drop_first": code}
    for text in (False, True)
    for code in (False, True)
]


def _plainly(
    beats: list[tuple[int, str]],
    a: int,
    b: int,
    undefined_is_normal: bool = False,
    drop_first: bool = False,
) -> str:
    """The rule of the paper as it is written down, one frame at a time."""
    inside = [MEANING[symbol] for r, symbol in beats if a <= r < b]
    if drop_first:
        inside = inside[1:]
    best, most = "", 0
    for name in ("pac", "aberrated", "pvc"):
        if inside.count(name) > most:
            best, most = name, inside.count(name)
    if best:
        return best
    if undefined_is_normal:
        return "normal"
    if not inside or inside.count("undefined") >= inside.count("normal"):
        return "undefined"
    return "normal"


def _labels(
    beats: list[tuple[int, str]],
    starts: Any,
    frame: int,
    symbols: tuple[str, ...] = MITDB,
    **options: bool,
) -> list[str]:
    marks = Marks.of([r for r, _ in beats], [symbols.index(symbol) for _, symbol in beats])
    table = beat_classes(symbols)
    found = label_frames(marks, table, np.asarray(starts, np.int64), frame, **options)
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


@pytest.mark.parametrize(
    ("inside", "as_text", "without_first", "both"),
    [
        ("", "normal", "undefined", "normal"),
        ("Q", "normal", "undefined", "normal"),
        ("V", "pvc", "undefined", "normal"),
        ("NV", "pvc", "pvc", "pvc"),
        ("VN", "pvc", "normal", "normal"),
        ("VQ", "pvc", "undefined", "normal"),
        ("NNQ", "normal", "undefined", "normal"),
        ("QNQN", "normal", "normal", "normal"),
        ("SSVV", "pac", "pvc", "pvc"),
    ],
)
def test_the_options(inside: str, as_text: str, without_first: str, both: str) -> None:
    beats = [(10 + 5 * i, symbol) for i, symbol in enumerate(inside)]
    assert _labels(beats, [0], 200, undefined_is_normal=True) == [as_text]
    assert _labels(beats, [0], 200, drop_first=True) == [without_first]
    assert _labels(beats, [0], 200, undefined_is_normal=True, drop_first=True) == [both]


def test_of_beats_at_one_sample_only_one_is_dropped() -> None:
    assert _labels([(10, "V"), (10, "S"), (20, "N")], [0], 50, drop_first=True) == ["pac"]


def test_a_frame_without_beats_drops_none_of_the_next_one() -> None:
    starts = [0, 10, 20]
    assert _labels([(25, "V"), (26, "V")], starts, 10, drop_first=True) == [
        "undefined", "undefined", "pvc",
    ]  # fmt: skip


def test_frames_hold_their_first_sample_and_not_the_one_behind() -> None:
    beats = [(100, "N"), (150, "V"), (200, "N"), (200, "N")]
    starts = [50, 51, 100, 101, 150, 151, 200]
    # At 50 and 100 the beat on the end is left out; at 150 the one on the start is in.
    assert _labels(beats, starts, 50) == [
        "undefined", "normal", "normal", "pvc", "pvc", "normal", "normal",
    ]  # fmt: skip


BEATS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(MITDB)), max_size=25).map(sorted)
STARTS = st.lists(st.integers(0, 400), max_size=8)


@given(BEATS, STARTS, st.integers(1, 120), st.sampled_from(OPTIONS))
def test_vectorised_rule_is_the_plain_one(
    beats: list[tuple[int, str]], starts: list[int], frame: int, options: dict[str, bool]
) -> None:
    wanted = [_plainly(beats, a, a + frame, **options) for a in starts]
    assert _labels(beats, starts, frame, **options) == wanted


@given(BEATS, STARTS, st.integers(1, 120), st.integers(0, 10**6), st.sampled_from(OPTIONS))
def test_frames_and_marks_moved_together_keep_their_label(
    beats: list[tuple[int, str]],
    starts: list[int],
    frame: int,
    by: int,
    options: dict[str, bool],
) -> None:
    moved = [(r + by, symbol) for r, symbol in beats]
    there = _labels(moved, [a + by for a in starts], frame, **options)
    assert there == _labels(beats, starts, frame, **options)


@pytest.mark.parametrize("frame", [512, 2048])
@pytest.mark.parametrize(("name", "records"), [("mitdb", None), ("icentia11k", 8)])
def test_rule_on_real_annotations(
    recordings: Path, name: str, records: int | None, frame: int
) -> None:
    symbols = DATASETS[name].beats
    rng, seen = np.random.default_rng(0), set()
    for record in islice(read_records(name, recordings / name), records):
        assert record.beats is not None
        starts = rng.integers(0, record.samples - frame + 1, 60)
        beats = [(int(r), symbols[i]) for r, i in zip(*record.beats, strict=True)]
        for options in OPTIONS:
            wanted = []
            for a in starts.tolist():
                first, behind = np.searchsorted(record.beats.index, [a - frame, a + 2 * frame])
                wanted.append(_plainly(beats[first:behind], a, a + frame, **options))
            assert _labels(beats, starts, frame, symbols, **options) == wanted
            seen |= set(wanted)
    # Patient p00000 of Icentia11k has hardly an abnormal beat.
    assert seen >= {"normal", "undefined"} | ({"pac", "pvc"} if name == "mitdb" else set())


@pytest.mark.parametrize("symbols", [ICENTIA, MITDB])
def test_table_of_symbols(symbols: tuple[str, ...]) -> None:
    assert [CLASSES[i] for i in beat_classes(symbols)] == [MEANING[s] for s in symbols]
    backwards = symbols[::-1]
    assert [CLASSES[i] for i in beat_classes(backwards)] == [MEANING[s] for s in backwards]


def test_symbols_without_a_class_are_named() -> None:
    assert set(MITDB) == set(MEANING)
    with pytest.raises(EcgpipeError, match=r"without a class: x \+$"):
        beat_classes(("N", "x", "+"))
