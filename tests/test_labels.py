"""The beat rule against a plain statement of it; QRS detection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecgpipe.errors import EcgpipeError
from ecgpipe.labels.beats import CLASSES, beat_classes, label_frames
from ecgpipe.labels.qrs import detect_qrs, main_lead
from ecgpipe.sources import SOURCES, read_records
from ecgpipe.types import Marks, Record

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


def _record(counts: NDArray[Any], fs: float = 250.0, **changes: Any) -> Record:
    signal = np.atleast_2d(np.asarray(counts)).astype(np.int16)
    leads = len(signal)
    return Record(
        key="r",
        patient="p",
        fs=fs,
        leads=changes.pop("names", ("ECG", "V1")[:leads]),
        signal=signal,
        gain=np.full(leads, changes.pop("gain", 200.0)),
        baseline=np.full(leads, changes.pop("baseline", 0.0)),
    )


def _pulses(seconds: int = 20, fs: int = 250, shift: int = 0) -> tuple[NDArray[Any], list[int]]:
    """Narrow bell curves with uneven distances, a wave behind each, and a little noise."""
    at = np.arange(fs // 2, seconds * fs - fs // 2, fs) + np.arange(seconds - 1) % 3 * 12
    t = np.arange(seconds * fs)
    beats = np.exp(-(((t[:, None] - at) / (0.012 * fs)) ** 2) / 2).sum(1)
    waves = 0.2 * np.exp(-(((t[:, None] - at - 0.3 * fs) / (0.05 * fs)) ** 2) / 2).sum(1)
    noise = np.random.default_rng(1).normal(0, 0.01, len(t))
    return 200 * (beats + waves + noise) + shift, at.tolist()


NOISE = np.random.default_rng(0).normal(0, 300, 5000)


@pytest.mark.parametrize("fs", [125.0, 250.0, 300.0, 360.0])
@pytest.mark.parametrize(
    "counts",
    [
        np.zeros(5000),
        np.full(5000, 32767),
        np.full(5000, -32768),
        np.clip(NOISE * 1e5, -32768, 32767),
        NOISE,
        NOISE[:100],
        NOISE[:1],
        np.r_[np.zeros(4999), 1],
        np.r_[1, np.zeros(4999)],
        np.tile([-32768, 32767], 2500),
        np.arange(5000),
    ],
)
def test_no_signal_is_an_error(counts: NDArray[Any], fs: float) -> None:
    found = detect_qrs(_record(counts, fs))
    assert found.index.dtype == np.int32
    assert len(found.label) == len(found.index)
    assert not found.label.any()
    assert (np.diff(found.index) >= 0).all()
    if len(found.index):
        assert 0 <= found.index[0] <= found.index[-1] < len(counts)
    if len(counts) < fs or (counts == counts[0]).all():
        assert len(found.index) == 0


@pytest.mark.parametrize("samples", [250, 251, 300, 375, 500])
def test_about_a_second_is_no_error(samples: int) -> None:
    counts, _ = _pulses()
    found = detect_qrs(_record(counts[:samples])).index
    assert (found < samples).all()


def test_pulses_are_found_where_they_are() -> None:
    counts, at = _pulses()
    found = detect_qrs(_record(counts)).index
    near = [np.abs(found - place).min() <= 13 for place in at]
    assert np.mean(near) >= 0.9
    assert len(found) <= len(at) + 1


def test_offset_and_baseline_change_nothing() -> None:
    counts, _ = _pulses()
    found = detect_qrs(_record(counts)).index
    shifted, _ = _pulses(shift=8000)
    np.testing.assert_array_equal(detect_qrs(_record(shifted, baseline=8000.0)).index, found)
    offset = detect_qrs(_record(shifted)).index
    assert len(offset) == pytest.approx(len(found), abs=1)


def test_detection_agrees_with_the_annotations(recordings: Path) -> None:
    hits = wanted = extra = 0
    for record in read_records("mitdb", recordings / "mitdb"):
        assert record.beats is not None
        found, beats = detect_qrs(record, "MLII").index, record.beats.index
        near = np.abs(found[np.searchsorted(found, beats).clip(0, len(found) - 1)] - beats)
        left = np.abs(found[(np.searchsorted(found, beats) - 1).clip(0)] - beats)
        hit = np.minimum(near, left) <= 0.15 * record.fs
        hits, wanted = hits + hit.sum(), wanted + len(beats)
        extra += max(0, len(found) - len(beats))
    assert hits / wanted > 0.97
    assert extra / wanted < 0.03


def test_main_lead() -> None:
    assert main_lead(("MLII", "V1"), "MLII") == 0
    assert main_lead(("V5", "MLII"), "MLII") == 1
    assert main_lead(("V5", "V2"), "MLII") == 0
    assert main_lead(("V5", "V2"), None) == 0


def test_detection_uses_the_main_lead() -> None:
    counts, _ = _pulses()
    both = _record(np.stack([np.zeros(len(counts)), counts]), names=("V5", "MLII"))
    alone = _record(counts)
    assert len(detect_qrs(both).index) == 0
    np.testing.assert_array_equal(detect_qrs(both, "MLII").index, detect_qrs(alone).index)
