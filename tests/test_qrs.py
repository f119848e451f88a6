"""QRS detection: honest on every signal, where the beats are, and blind to what must not matter."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from ecgpipe.datasets import read_records
from ecgpipe.errors import EcgpipeError
from ecgpipe.labels.qrs import DETECTORS, _apart, _vote, detect_qrs, main_lead
from ecgpipe.types import Record

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "qrs.py"
BOTH = sorted(DETECTORS)
RATES = (100.0, 128.0, 250.0, 300.0, 360.0, 500.0)


def _record(
    counts: Any,
    fs: float = 250.0,
    leads: tuple[str, ...] = ("ECG",),
    gain: float = 200.0,
    baseline: float = 0.0,
) -> Record:
    signal = np.atleast_2d(np.asarray(counts)).astype(np.int16)
    shape = len(signal)
    assert shape == len(leads)
    return Record("r", "p", fs, leads, signal, np.full(shape, gain), np.full(shape, baseline))


def _pulses(seconds: int = 20, fs: float = 250, seed: int = 1) -> tuple[NDArray[Any], list[int]]:
    """Narrow bell curves with uneven distances, a wave behind each, and a little noise, in mV."""
    at = fs * (np.arange(0.5, seconds - 0.5) + np.arange(seconds - 1) % 3 * 0.05)
    t = np.arange(int(seconds * fs))
    beats = np.exp(-(((t[:, None] - at) / (0.012 * fs)) ** 2) / 2).sum(1)
    waves = 0.2 * np.exp(-(((t[:, None] - at - 0.3 * fs) / (0.05 * fs)) ** 2) / 2).sum(1)
    noise = np.random.default_rng(seed).normal(0, 0.01, len(t))
    return beats + waves + noise, at.round().astype(int).tolist()


def _found(record: Record, detector: str) -> NDArray[np.int32]:
    """What was found, after everything that must hold of it whatever the signal."""
    marks = detect_qrs(record, detector=detector)
    at = marks.index
    assert at.dtype == np.int32
    assert len(marks.label) == len(at)
    assert not marks.label.any()
    assert (np.diff(at) >= int(0.2 * record.fs)).all()  # the heart muscle cannot be faster
    if len(at):
        assert 0 <= at[0] <= at[-1] < record.samples
    return at


NOISE = np.random.default_rng(0).normal(0, 300, 5000)
EXTREMES = {
    "flat": np.zeros(5000),
    "high rail": np.full(5000, 32767),
    "low rail": np.full(5000, -32768),
    "saturated": np.clip(NOISE * 1e5, -32768, 32767),
    "clipped": np.clip(NOISE, -100, 100),
    "noise": NOISE,
    "last digit": np.arange(5000) * 7 % 11 % 2,
    "short": NOISE[:100],
    "one sample": NOISE[:1],
    "two samples": NOISE[:2],
    "step at the end": np.r_[np.zeros(4999), 1],
    "step at the start": np.r_[1, np.zeros(4999)],
    "step between the rails": np.repeat([-32768, 32767], 2500),
    "rail to rail": np.tile([-32768, 32767], 2500),
    "slow rail to rail": np.tile(np.repeat([-32768, 32767], 25), 100),
    "ramp": np.arange(5000),
    "pulse": np.r_[np.zeros(1000), 32767, np.zeros(3999)],
    "pulse, wave, nothing": np.r_[np.zeros(500), 500, np.zeros(79), [20, 40, 20], np.zeros(4417)],
}
NO_BEATS = (
    "flat",
    "high rail",
    "low rail",
    "short",
    "one sample",
    "two samples",
    "step at the end",
)


@pytest.mark.parametrize("detector", BOTH)
@pytest.mark.parametrize("fs", RATES)
@pytest.mark.parametrize("name", EXTREMES)
def test_no_signal_is_an_error(name: str, fs: float, detector: str) -> None:
    at = _found(_record(EXTREMES[name], fs), detector)
    if name in NO_BEATS and not (name == "short" and fs == 100):
        assert len(at) == 0


@st.composite
def _signals(draw: st.DrawFn) -> tuple[NDArray[np.int16], float]:
    """Stretches of whatever an electrode, an amplifier or a plug can do, one after another."""
    fs = draw(st.sampled_from(RATES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    stretches = []
    for _ in range(draw(st.integers(1, 4))):
        n = draw(st.integers(1, int(3 * fs)))
        t = np.arange(n)
        size = draw(st.sampled_from((1, 20, 300, 5000, 10**6)))
        stretches.append(
            {
                "hold": np.zeros(n),
                "rail": np.full(n, 32767.0),
                "noise": rng.normal(0, size, n),
                "walk": rng.normal(0, size, n).cumsum(),
                "sine": size * np.sin(2 * np.pi * draw(st.floats(0.2, 60)) * t / fs),
                "pulses": size * (t % draw(st.integers(2, int(2 * fs))) < 3.0),
                "spikes": size * (rng.random(n) < 0.01),
            }[draw(st.sampled_from(("hold", "rail", "noise", "walk", "sine", "pulses", "spikes")))]
        )
    return np.clip(np.concatenate(stretches), -32768, 32767).astype(np.int16), fs


@pytest.mark.parametrize("detector", BOTH)
@settings(deadline=None, max_examples=60)
@given(_signals())
def test_no_mixture_of_signals_is_an_error(
    detector: str, case: tuple[NDArray[np.int16], float]
) -> None:
    counts, fs = case
    _found(_record(counts, fs), detector)


@pytest.mark.parametrize("detector", BOTH)
@pytest.mark.parametrize("gain", [0.1, 1.0, 1e6])
def test_no_gain_is_an_error(gain: float, detector: str) -> None:
    for name in ("noise", "rail to rail", "slow rail to rail"):
        _found(_record(EXTREMES[name], gain=gain, baseline=-32768.0), detector)


@pytest.mark.parametrize("period", [51, 52, 53, 55])
def test_beats_at_the_refractory_period_stay_inside_the_detectors_memory(period: int) -> None:
    # sleepecg alone corrupts the heap on the second or third of these, and the interpreter dies.
    for samples in (500, 550, 600, 700, 1000):
        for first in range(0, period, 4):
            at = np.arange(first, samples, period)
            t = np.arange(samples)
            counts = 1000 * np.exp(-(((t[:, None] - at) / 4) ** 2) / 2).sum(1)
            _found(_record(counts), "sleepecg")
            _found(_record(np.r_[np.zeros(20_000), counts]), "sleepecg")


@pytest.mark.parametrize("detector", BOTH)
@pytest.mark.parametrize("samples", [250, 251, 300, 375, 499, 500, 501])
def test_about_a_second_is_no_error_and_always_the_same(samples: int, detector: str) -> None:
    counts = 200 * _pulses()[0][:samples]
    first = _found(_record(counts), detector)
    for _ in range(5):  # what lies behind the signal in memory must not matter
        np.testing.assert_array_equal(_found(_record(counts), detector), first)


@pytest.mark.parametrize("detector", BOTH)
@pytest.mark.parametrize("fs", RATES)
def test_pulses_are_found_where_they_are(fs: float, detector: str) -> None:
    millivolts, at = _pulses(fs=fs)
    found = _found(_record(200 * millivolts, fs), detector)
    near = [np.abs(found - place).min() <= 0.05 * fs for place in at]
    assert np.mean(near) >= 0.9
    assert len(found) <= len(at) + 1


@pytest.mark.parametrize("detector", BOTH)
def test_the_beats_of_a_signal_that_stops_are_no_fewer(detector: str) -> None:
    millivolts, at = _pulses()
    still = np.r_[millivolts, np.full(10_000, millivolts[-1])]
    found = _found(_record(200 * still), detector)
    assert len(found[found < len(millivolts)]) >= len(at) - 1
    assert len(found) <= len(at) + 3  # and its end is hardly taken for beats


MOVES = st.tuples(st.sampled_from(RATES), st.integers(0, 2**16))


@pytest.mark.parametrize("detector", BOTH)
@settings(deadline=None, max_examples=20)
@given(MOVES, st.integers(-3000, 3000))
def test_counts_and_baseline_moved_together_change_nothing(
    detector: str, case: tuple[float, int], by: int
) -> None:
    counts = (200 * _pulses(8, *case)[0]).round()
    found = _found(_record(counts, case[0]), detector)
    moved = _found(_record(counts + by, case[0], baseline=by), detector)
    np.testing.assert_array_equal(moved, found)


@pytest.mark.parametrize("detector", BOTH)
@settings(deadline=None, max_examples=20)
@given(MOVES, st.integers(-3000, 3000))
def test_an_offset_changes_nothing(detector: str, case: tuple[float, int], by: int) -> None:
    counts = (200 * _pulses(8, *case)[0]).round()
    found = _found(_record(counts, case[0]), detector)
    np.testing.assert_array_equal(_found(_record(counts + by, case[0]), detector), found)


@settings(deadline=None, max_examples=20)
@given(MOVES, st.integers(-8, 8))
def test_the_scale_is_nothing_to_sleepecg(case: tuple[float, int], power: int) -> None:
    counts = 200 * _pulses(8, *case)[0]
    found = _found(_record(counts, case[0]), "sleepecg")
    scaled = _found(_record(counts, case[0], gain=200.0 * 2.0**power), "sleepecg")
    np.testing.assert_array_equal(scaled, found)


@settings(deadline=None, max_examples=20)
@given(MOVES)
def test_the_polarity_is_nothing_to_gqrs(case: tuple[float, int]) -> None:
    counts = (200 * _pulses(8, *case)[0]).round()
    np.testing.assert_array_equal(
        _found(_record(-counts, case[0]), "gqrs"), _found(_record(counts, case[0]), "gqrs")
    )


@settings(deadline=None, max_examples=20)
@given(MOVES, st.integers(0, 2000))
def test_a_still_start_moves_the_marks_of_sleepecg_and_nothing_else(
    case: tuple[float, int], by: int
) -> None:
    counts = (200 * _pulses(8, *case)[0]).round()
    counts = np.r_[counts[0], counts]  # begins with two equal samples, as the moved one will
    found = _found(_record(counts, case[0]), "sleepecg")
    moved = _found(_record(np.r_[np.full(by, counts[0]), counts], case[0]), "sleepecg")
    np.testing.assert_array_equal(moved, found + by)


def test_too_slow_a_recording_has_none() -> None:
    millivolts, _ = _pulses(fs=50)
    for detector in BOTH:
        assert len(_found(_record(200 * millivolts, 50.0), detector)) == 0


def test_unknown_detectors_are_refused_by_name() -> None:
    with pytest.raises(EcgpipeError, match="detector xqrs; there are: sleepecg, gqrs"):
        detect_qrs(_record(NOISE), detector="xqrs")


def test_main_lead() -> None:
    assert main_lead(("MLII", "V1"), "MLII") == 0
    assert main_lead(("V5", "MLII"), "MLII") == 1
    assert main_lead(("V5", "V2"), "MLII") == 0
    assert main_lead(("V5", "V2"), None) == 0


def _leads(*signals: NDArray[Any]) -> Record:
    return _record(200 * np.stack(signals), leads=("I", "II", "III", "aVR", "V1")[: len(signals)])


def _other(seed: int) -> NDArray[Any]:
    """Noise of a lead of its own, mV."""
    return np.random.default_rng(seed).normal(0, 0.5, 20 * 250)


@pytest.mark.parametrize("detector", BOTH)
def test_of_two_leads_the_main_one_decides(detector: str) -> None:
    beats, noise = _pulses()[0], _other(1)
    marks = {
        preferred: detect_qrs(_leads(noise, beats), preferred, detector).index.tolist()
        for preferred in (None, "I", "II", "V5")
    }
    assert marks["II"] == detect_qrs(_leads(beats), detector=detector).index.tolist()
    assert marks["I"] == detect_qrs(_leads(noise), detector=detector).index.tolist()
    assert marks[None] == marks["V5"] == marks["I"] != marks["II"]


@pytest.mark.parametrize("detector", BOTH)
def test_flat_leads_are_as_if_they_were_not_there(detector: str) -> None:
    beats, flat = _pulses()[0], np.full(20 * 250, 3.0)
    alone = detect_qrs(_leads(beats), detector=detector).index
    for signals in ((flat, beats), (beats, flat), (flat, flat, beats), (flat, beats, flat, flat)):
        found = detect_qrs(_leads(*signals), "I", detector).index
        np.testing.assert_array_equal(found, alone)
    assert len(detect_qrs(_leads(flat, flat, flat), "I", detector).index) == 0


@pytest.mark.parametrize("detector", BOTH)
def test_three_leads_and_more_are_outvoted_by_no_minority(detector: str) -> None:
    beats, at = _pulses()
    good = [beats, 0.5 * np.roll(beats, 3), np.roll(beats, -5)]
    for signals in (good, [_other(1), *good[1:]], [_other(1), _other(2), *good]):
        found = detect_qrs(_leads(*signals), "I", detector).index
        near = [np.abs(found - place).min() <= 0.1 * 250 for place in at]
        assert np.mean(near) >= 0.85
        assert len(found) <= len(at) + 1


VOTES = st.lists(
    st.lists(st.integers(0, 1000), max_size=12).map(
        lambda marks: np.array(sorted(marks), np.int64)
    ),
    min_size=3,
    max_size=7,
).map(lambda leads: [np.array(_apart(marks, 100.0), np.int64) for marks in leads])


@given(VOTES, st.randoms())
def test_the_vote_is_a_majority_whatever_the_order_of_the_leads(
    found: list[NDArray[np.int64]], random: Any
) -> None:
    voted = _vote(found, 100.0)
    for mark in voted:
        supporters = sum((np.abs(marks - mark) <= 15).any() for marks in found)
        assert supporters > len(found) / 2
    assert (np.diff(voted) >= 20).all()
    # Where a majority lies within 150 ms, a mark is near: its own or that of one just before.
    for start in range(0, 1000, 5):
        inside = [((marks >= start) & (marks <= start + 15)).any() for marks in found]
        if sum(inside) > len(found) / 2:
            assert (np.abs(voted - (start + 7.5)) <= 37.5).any()
    shuffled = list(found)
    random.shuffle(shuffled)
    np.testing.assert_array_equal(_vote(shuffled, 100.0), voted)


def test_an_hour_of_even_hum_takes_seconds_and_does_not_hide_the_beats_behind_it() -> None:
    fs, minutes = 360.0, 5
    hum = 10 * np.sin(2 * np.pi * np.arange(int(minutes * 60 * fs)) / 3)
    beats, at = _pulses(120, fs)
    start = time.process_time()
    found = _found(_record(np.r_[hum, 200 * beats].round(), fs), "sleepecg") - len(hum)
    assert time.process_time() - start < 20
    assert np.mean([np.abs(found - place).min() <= 0.05 * fs for place in at]) > 0.9
    assert (found < 0).sum() < 10 * minutes


@pytest.fixture(scope="module")
def benchmark() -> Any:
    """The module that measures the detectors."""
    spec = importlib.util.spec_from_file_location("benchmark_of_qrs", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MARKS = st.lists(st.integers(0, 60), unique=True, max_size=14).map(sorted)


@given(MARKS, MARKS, st.integers(0, 12))
def test_matching_is_a_maximum_matching(
    benchmark: Any, found: list[int], beats: list[int], reach: int
) -> None:
    near = np.abs(np.subtract.outer(found, beats)) <= reach
    near = near.reshape(len(found), len(beats))
    most = (maximum_bipartite_matching(csr_array(near)) >= 0).sum() if near.size else 0
    pairs = benchmark.match(found, beats, reach)
    assert len(pairs) == most
    assert all(near[i, j] for i, j in pairs)
    assert all(len(set(side)) == most for side in zip(*pairs, strict=True))


@pytest.mark.parametrize(
    ("detector", "seconds", "least"), [("sleepecg", 1800, 0.985), ("gqrs", 20, 0.98)]
)
def test_detection_agrees_with_the_annotations(
    detector: str, seconds: int, least: float, benchmark: Any, recordings: Path
) -> None:
    hits = marks = beats = 0
    for record in read_records("mitdb", recordings / "mitdb"):
        assert record.beats is not None
        end = int(seconds * record.fs)
        cut = Record(record.key, "", record.fs, record.leads, record.signal[:, :end],
                     record.gain, record.baseline)  # fmt: skip
        found = detect_qrs(cut, "MLII", detector).index
        wanted = record.beats.index[record.beats.index < end]
        hits += len(benchmark.match(found, wanted, 0.15 * record.fs))
        marks, beats = marks + len(found), beats + len(wanted)
    assert hits / beats > least
    assert hits / marks > least
