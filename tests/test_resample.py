"""Resampling: the signal that the other rate would have recorded, and its marks where they were."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecgpipe.storage.resample import resample
from ecgpipe.types import Marks, Record

RATES = [(old, new) for old in (250, 300, 360, 500) for new in (128, 250, 300) if old != new]
ODD = [(257.5, 250), (250, 257.5), (359.98, 250), (976.5625, 128), (100, 4000 / 33), (60, 1000)]


def strip(signal: Any, fs: float, **more: Any) -> Record:
    signal = np.atleast_2d(np.asarray(signal, np.int16))
    leads = tuple(f"lead{i}" for i in range(len(signal)))
    gain, baseline = np.full(len(signal), 200.5), np.arange(len(signal), dtype=float) + 3
    return Record("key", "patient", fs, leads, signal, gain, baseline, **more)


def waves(fs: float, samples: int, below: float, seed: int, peak: float) -> NDArray[np.float64]:
    """Thirty sinusoids below a frequency, weaker the higher as an ECG is, exact at any rate."""
    rng = np.random.default_rng(seed)
    hertz = np.append(rng.uniform(0.3, below, 29), 0.99 * below)
    size = rng.uniform(0.5, 1, 30) / (1 + hertz / 10)
    angle = 2 * np.pi * np.outer(np.arange(samples) / fs, hertz) + rng.uniform(0, 6, 30)
    return peak * np.sin(angle) @ size / size.sum()


@pytest.mark.parametrize(("old", "new"), RATES + ODD)
def test_it_is_what_the_other_rate_would_have_recorded(old: float, new: float) -> None:
    low = min(old, new)
    for seed in range(3):
        wave = waves(old, int(20 * old), 0.8 * low / 2, seed, 30_000)
        found = resample(strip(np.rint(wave), old), new).signal[0]
        error = np.abs(found - waves(new, len(found), 0.8 * low / 2, seed, 30_000))
        second = int(new)
        assert np.sqrt(np.mean(error[second:-second] ** 2)) < 0.5  # rounded twice: 0.41 counts
        assert error[second:-second].max() < 3
        time = np.arange(len(found)) / new
        at = low * np.minimum(time, (len(wave) - 1) / old - time)  # samples from the nearer end
        bounds = {0: 0.07, 5: 0.006, 20: 0.002, 100: 0.0002}  # of the peak, from this sample on
        for start, bound in bounds.items():
            assert error[at >= start].max() < 30_000 * bound, start


@pytest.mark.parametrize(("old", "new"), RATES + ODD)
def test_amplitudes_are_kept_to_nine_tenths_of_what_a_rate_can_carry(
    old: float, new: float
) -> None:
    for part in (0.01, 0.3, 0.8, 0.9):
        hertz = part * min(old, new) / 2
        wave = 20_000 * np.sin(2 * np.pi * hertz * np.arange(int(30 * old)) / old + 0.3)
        found = resample(strip(np.rint(wave), old), new).signal[0]
        inside = np.arange(len(found))[int(new) : -int(new)]
        angle = 2 * np.pi * hertz * inside / new + 0.3
        basis = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        sine, cosine = np.linalg.lstsq(basis, found[inside].astype(float))[0]
        assert abs(20 * np.log10(np.hypot(sine, cosine) / 20_000)) < 0.01
        assert abs(np.arctan2(cosine, sine)) < 1e-4  # radians: no delay


@pytest.mark.parametrize(("old", "new"), [(old, new) for old, new in RATES + ODD if new < old])
def test_what_the_new_rate_cannot_carry_is_gone(old: float, new: float) -> None:
    for hertz in np.linspace(new / 2 * 1.001, old / 2 * 0.99, 5):
        wave = 32_000 * np.sin(2 * np.pi * hertz * np.arange(int(20 * old)) / old)
        found = resample(strip(np.rint(wave), old), new).signal[0][int(new) : -int(new)]
        assert np.abs(found).max() <= 1, hertz  # 90 dB below; finer than int16 cannot show


lengths = st.one_of(st.integers(1, 40), st.integers(1, 3000))
rates = st.sampled_from([r for pair in ODD for r in pair] + [128, 250, 300, 360, 500])


@settings(deadline=None, max_examples=100)
@given(lengths, rates, rates, st.data())
def test_lengths_and_marks(samples: int, old: float, new: float, data: st.DataObject) -> None:
    places = st.lists(st.integers(0, samples - 1), max_size=20).map(sorted)
    at = np.array([*data.draw(places), samples - 1])
    marks = Marks.of(at, np.arange(len(at)))
    level = np.array([[-1234], [32767]]) * np.ones((1, samples))
    record = strip(level, old, beats=marks, rhythms=marks, qrs=marks, statements=("A",), fold=3)
    found = resample(record, new)
    assert found.fs == new
    ratio = float(Fraction(new) / Fraction(old))
    assert found.samples - 1 < samples * ratio < found.samples + 1e-6
    np.testing.assert_array_equal(found.signal, level[:, :1] * np.ones((1, found.samples)))
    for moved in (found.beats, found.rhythms, found.qrs):
        assert moved is not None and moved.index.min() >= 0
        np.testing.assert_array_equal(moved.label, marks.label)
        assert np.all(np.diff(moved.index) >= 0)
        error = np.abs(moved.index - at * ratio)
        within = at * ratio <= found.samples - 1
        assert error[within].max(initial=0) <= 0.5 + 1e-6
        assert error.max() <= max(0.5, 1 - ratio) + 1e-6
    for name in ("key", "patient", "leads", "statements", "fold"):
        assert getattr(found, name) == getattr(record, name)
    assert found.gain is record.gain and found.baseline is record.baseline
    if new >= old:
        back = resample(found, old)
        assert back.beats is not None
        kept = at < samples
        np.testing.assert_array_equal(back.beats.index[kept], at[kept])


@pytest.mark.parametrize(("old", "new"), RATES)
def test_a_mark_stays_on_its_peak(old: int, new: int) -> None:
    beats = np.arange(old // 2, 60 * old, int(0.83 * old))
    time = np.arange(60 * old)[:, None] - beats
    signal = np.rint(1000 * np.exp(-((time / (0.012 * old)) ** 2)).sum(axis=1))
    found = resample(strip(signal, old, beats=Marks.of(beats)), new)
    assert found.beats is not None and len(found.beats.index) > 70
    around = np.arange(-new // 10, new // 10 + 1)
    for at in found.beats.index:
        assert abs(around[np.argmax(found.signal[0][at + around])]) <= 1


@pytest.mark.parametrize(("old", "new"), [*RATES, *ODD])
def test_leads_scale_and_polarity(old: float, new: float) -> None:
    rng = np.random.default_rng(1)
    walk = np.cumsum(rng.normal(0, 30, (2, 3001)), axis=1).astype(np.int16)
    both = resample(strip(walk, old), new).signal
    assert both.dtype == np.int16
    for lead, one in zip(both, walk, strict=True):
        np.testing.assert_array_equal(resample(strip(one, old), new).signal[0], lead)
        np.testing.assert_array_equal(resample(strip(-one, old), new).signal[0], -lead)
        tripled = resample(strip(3 * one, old), new).signal[0].astype(int)
        assert np.abs(tripled - 3 * lead.astype(int)).max() <= 2
        raised = resample(strip(one + 5000, old), new).signal[0].astype(int)
        assert np.abs(raised - 5000 - lead).max() <= 1  # a half may round either way


def test_resampling_saturates_where_it_would_wrap() -> None:
    square = np.where(np.arange(3000) // 150 % 2, 32767, -32768)
    found = resample(strip(square, 300), 250).signal[0].astype(int)
    middles = np.arange(62, 2500, 125)
    assert np.array_equal(found[middles] > 0, np.arange(len(middles)) % 2 == 1)
    assert np.abs(np.diff(found)).max() > 30_000 and found.max() == 32767 and found.min() == -32768
    flips = np.count_nonzero(np.diff(np.sign(found)))
    assert flips == len(middles) - 1


def test_a_record_resampled_in_pieces_differs_at_their_ends_alone() -> None:
    signal = np.rint(waves(360, 36_000, 40, 2, 2000))
    whole = resample(strip(signal, 360), 250).signal[0].astype(int)
    for start in range(0, 36_000, 3_600):
        piece = resample(strip(signal[start : start + 3_600], 360), 250).signal[0]
        error = np.abs(piece - whole[start * 25 // 36 :][: len(piece)])
        assert error[60:-60].max() <= 1 and error.max() < 60


def test_the_same_rate_is_the_same_record() -> None:
    record = strip(np.arange(500), 250)
    assert resample(record, 250) is record
    assert resample(strip(np.arange(500), 500), 250).beats is None


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_the_shortest_records(samples: int) -> None:
    extremes = np.array([-32768, 32767, -32768])[:samples]
    for old, new in RATES + ODD:
        found = resample(strip(extremes, old), new)
        assert found.samples == np.ceil(samples * new / old - 1e-6)
        assert found.signal[0, 0] == -32768


def test_marks_far_into_a_long_record_do_not_overflow() -> None:
    at = np.array([0, 2**30, 2**31 - 1])
    record = strip(np.zeros(1), 359.98)
    object.__setattr__(record, "beats", Marks.of(at))  # a record of two billion samples, in short
    assert resample(record, 250).samples == 1
