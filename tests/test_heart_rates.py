"""The heart rate rule against a plain statement of it."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgpipe.datasets import read_records
from ecgpipe.labels.heart_rates import CLASSES, label_frames

RELEASED: dict[str, Any] = {"margin": 0, "drop_first": True}


def _plainly(
    beats: list[int], a: int, b: int, fs: int, margin: float = 1.0, drop_first: bool = False
) -> str:
    """The rule of the paper as it is written down, one frame at a time, in exact numbers."""
    more = round(margin * fs)
    inside = [r for r in beats if a - more <= r < b + more]
    if drop_first:
        inside = inside[1:]
    if len(inside) < 2 or inside[0] == inside[-1]:
        return "noise"
    bpm = Fraction(60 * fs * (len(inside) - 1), inside[-1] - inside[0])
    if bpm < 60:
        return "bradycardia"
    return "tachycardia" if bpm > 100 else "normal"


def _labels(beats: list[int], starts: Any, frame: int, fs: float, **options: Any) -> list[str]:
    at = np.array(beats, np.int32)
    found = label_frames(at, np.asarray(starts, np.int64), frame, fs, **options)
    assert found.shape == (len(starts),) and found.dtype == np.int64
    return [CLASSES[i] for i in found]


@pytest.mark.parametrize(
    ("beats", "label"),
    [
        ([], "noise"),
        ([500], "noise"),
        ([500, 500], "noise"),
        ([500, 500, 500], "noise"),
        ([500, 750], "normal"),  # exactly 60 beats per minute
        ([500, 751], "bradycardia"),
        ([500, 650], "normal"),  # exactly 100
        ([500, 649], "tachycardia"),
        ([400, 550, 700], "normal"),
        ([400, 550, 699], "tachycardia"),
        ([400, 650, 900], "normal"),
        ([400, 650, 901], "bradycardia"),
        ([400, 401, 650, 900], "normal"),  # the mean counts: 90
        ([500, 500, 750], "tachycardia"),  # a doubled beat counts twice: 120
        ([400, 400, 700, 1000], "normal"),  # 75 instead of 50
    ],
)
def test_every_branch(beats: list[int], label: str) -> None:
    assert _labels(beats, [250], 600, 250.0) == [label]


@pytest.mark.parametrize("fs", [128, 250, 300, 360, 500])
def test_exactly_sixty_and_a_hundred_are_normal(fs: int) -> None:
    for n in range(2, 40):
        for bpm, faster, slower in ((60, "normal", "bradycardia"), (100, "tachycardia", "normal")):
            last = Fraction(60 * fs * (n - 1), bpm)
            if last.denominator > 1:
                continue  # no such beats at whole samples
            beats = np.linspace(0, int(last), n).astype(int).tolist()
            ends = [int(last) - 1, int(last), int(last) + 1]
            found = [_labels([*beats[:-1], end], [0], int(last) + 9, fs)[0] for end in ends]
            assert found == [faster, "normal", slower]


def test_the_lengthened_frame_holds_its_first_sample_and_not_the_one_behind() -> None:
    # At 100 Hz [200, 300) becomes [100, 400); two beats of one second are 60 beats per minute.
    assert _labels([100, 200], [200], 100, 100.0) == ["normal"]
    assert _labels([99, 199], [200], 100, 100.0) == ["noise"]
    assert _labels([299, 399], [200], 100, 100.0) == ["normal"]
    assert _labels([300, 400], [200], 100, 100.0) == ["noise"]
    # And without the second at both ends, of beats 0.6 s apart.
    assert _labels([200, 260], [200], 100, 100.0, margin=0) == ["normal"]
    assert _labels([199, 259], [200], 100, 100.0, margin=0) == ["noise"]
    assert _labels([239, 299], [200], 100, 100.0, margin=0) == ["normal"]
    assert _labels([240, 300], [200], 100, 100.0, margin=0) == ["noise"]


def test_the_margin_is_rounded_to_whole_samples() -> None:
    for margin, first in ((0.0149, 199), (0.0151, 198), (0.0249, 198), (0.0251, 197)):
        assert _labels([first, 260], [200], 100, 100.0, margin=margin) == ["normal"]
        assert _labels([first - 1, 260], [200], 100, 100.0, margin=margin) == ["noise"]


def test_at_the_ends_of_a_record_the_frame_is_lengthened_as_far_as_there_are_beats() -> None:
    beats = [0, 90, 180, 880, 940, 999]
    assert _labels(beats, [0, 900], 100, 100.0) == ["normal", "tachycardia"]
    assert _labels(beats, [0, 900], 100, 100.0, margin=0) == ["normal", "tachycardia"]
    assert _labels(beats, [0, 900], 100, 100.0, margin=100) == ["bradycardia"] * 2


def test_frames_around_beats_and_without_any_are_noise() -> None:
    beats = [500, 600]
    assert _labels(beats, [0, 300, 450, 700, 900], 100, 100.0, margin=0) == ["noise"] * 5
    assert _labels(beats, [], 100, 100.0) == _labels([], [], 100, 100.0) == []
    assert _labels([], [0, 5], 100, 100.0) == ["noise"] * 2


def test_the_first_beat_is_left_out_as_in_the_released_code() -> None:
    assert _labels([10, 90], [0], 200, 100.0, **RELEASED) == ["noise"]
    assert _labels([10, 90, 170], [0], 200, 100.0, **RELEASED) == ["normal"]
    assert _labels([10, 90, 200], [0], 200, 100.0, **RELEASED) == ["noise"]
    assert _labels([10, 20, 80, 140], [0], 200, 100.0, **RELEASED) == ["normal"]
    assert _labels([10, 20, 80, 140], [0], 200, 100.0, margin=0) == ["tachycardia"]
    assert _labels([10, 900], [0, 400, 850], 200, 100.0, **RELEASED) == ["noise"] * 3


@st.composite
def records(draw: st.DrawFn) -> tuple[list[int], int]:
    """Beats at and around 60 and 100 a minute, some of them doubled, and the sampling rate."""
    fs = draw(st.sampled_from([100, 250, 360]))
    hundred = fs * 3 // 5
    usual = [0, 1, hundred - 1, hundred, hundred + 1, fs - 1, fs, fs + 1, 3 * fs]
    gaps = draw(st.lists(st.sampled_from(usual) | st.integers(0, 2 * fs), max_size=25))
    return np.cumsum(gaps, dtype=int).tolist(), fs


STARTS = st.lists(st.integers(0, 4000), max_size=8)
FRAME = st.integers(1, 2000)
OPTIONS = st.fixed_dictionaries(
    {}, optional={"margin": st.sampled_from([0, 0.25, 1.0, 2.0]), "drop_first": st.booleans()}
)


@given(records(), STARTS, FRAME, OPTIONS)
def test_vectorised_rule_is_the_plain_one(
    record: tuple[list[int], int], starts: list[int], frame: int, options: dict[str, Any]
) -> None:
    beats, fs = record
    wanted = [_plainly(beats, a, a + frame, fs, **options) for a in starts]
    assert _labels(beats, starts, frame, float(fs), **options) == wanted


@given(records(), STARTS, FRAME, OPTIONS, st.integers(0, 10**6))
def test_frames_and_beats_moved_together_keep_their_label(
    record: tuple[list[int], int],
    starts: list[int],
    frame: int,
    options: dict[str, Any],
    by: int,
) -> None:
    beats, fs = record
    there = _labels([r + by for r in beats], [a + by for a in starts], frame, fs, **options)
    assert there == _labels(beats, starts, frame, fs, **options)


@pytest.mark.parametrize("frame", [512, 2048])
@pytest.mark.parametrize(("name", "count"), [("mitdb", None), ("icentia11k", 8)])
def test_rule_on_real_annotations(
    recordings: Path, name: str, count: int | None, frame: int
) -> None:
    rng, seen, released = np.random.default_rng(0), Counter[str](), Counter[str]()
    for record in islice(read_records(name, recordings / name), count):
        assert record.beats is not None
        beats, fs = record.beats.index.tolist(), int(record.fs)
        # Anywhere, and at both ends of the record.
        starts = rng.integers(0, record.samples - frame + 1, 60)
        starts[:2] = 0, record.samples - frame
        wanted = [_plainly(beats, a, a + frame, fs) for a in starts.tolist()]
        assert _labels(beats, starts, frame, record.fs) == wanted
        seen.update(wanted)
        wanted = [_plainly(beats, a, a + frame, fs, **RELEASED) for a in starts.tolist()]
        assert _labels(beats, starts, frame, record.fs, **RELEASED) == wanted
        released.update(wanted)
    assert seen["normal"] > seen.total() / 2
    if name == "mitdb":
        assert seen["bradycardia"] and seen["tachycardia"]
    assert released["noise"] > seen["noise"] or frame > 512
