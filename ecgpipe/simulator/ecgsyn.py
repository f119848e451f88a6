"""A simulated heart: ECG of one lead in mV, with the class and rhythm of every beat.

The beats are those of ECGSYN (McSharry, Clifford, Tarassenko, Smith 2003, "A dynamical model for
generating synthetic electrocardiogram signals", IEEE Trans Biomed Eng 50(3):289-294): Gaussian
P, Q, R, S and T waves at its angles, heights and widths, on an RR tachogram with its bimodal
spectrum. Where it differs from the paper:

* the waves are summed in closed form instead of integrating the differential equation;
* QRS keeps its width at every heart rate; QT follows the square root of the (smoothed) RR
  interval, as in Bazett's formula, and flanks of a wave may differ in width;
* a sixth wave, R', makes wide complexes; every patient has heights, widths and positions of its
  own, T may be inverted;
* ectopic beats, atrial fibrillation and flutter are added (noise: see :mod:`.simulate`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import uniform_filter1d

Floats = NDArray[np.float64]

BEATS = ("N", "S", "a", "V", "Q")  # normal, PAC, aberrated PAC, PVC, unclassifiable
RHYTHMS = ("", "N", "AFIB", "AFL")  # none (noise), sinus, atrial fibrillation, atrial flutter

# ECGSYN's Table I: angle (degrees), a and b (radians) of P, Q, R, S, T
_TABLE = np.array(
    [(-60, 1.2, 0.25), (-15, -5, 0.1), (0, 30, 0.1), (15, -7.5, 0.1), (90, 0.75, 0.4)], float
)
# Powers of the RR interval (s) with which a wave's position and width grow: P, Q, R, S, T, R'
_STRETCH = np.array([0.2, 0, 0, 0, 0.5, 0])


class Span(NamedTuple):
    """A stretch of one rhythm; ectopic beats as probability per beat of sinus rhythm."""

    rhythm: str
    seconds: float
    pac: float = 0.0
    aberrated: float = 0.0
    pvc: float = 0.0


@dataclass(frozen=True, eq=False)
class Beats:
    """The beats of one recording, in order."""

    time: Floats  # (n,) s, the R peak
    kind: NDArray[np.uint8]  # (n,) into BEATS
    rhythm: NDArray[np.uint8]  # (n,) into RHYTHMS
    cycles: NDArray[np.int64]  # (n,) atrial cycles since the beat before; 0 outside flutter


@dataclass(frozen=True, eq=False)
class Patient:
    """What stays the same over a patient's recordings."""

    waves: Floats  # (4 kinds, 6 waves, 4): position s, height mV, left and right width s at RR 1 s
    rr: float  # s, mean of sinus rhythm
    rr_sd: float  # s, its standard deviation
    lf_hf: float  # power ratio of the Mayer (0.1 Hz) and the respiratory part
    breath: float  # Hz
    af_rr: float  # s, mean in atrial fibrillation
    af_cv: float  # coefficient of variation in atrial fibrillation
    af_wave: tuple[float, float]  # Hz and mV of the fibrillatory waves
    flutter: tuple[float, float]  # s and mV of a flutter wave


def patient(rng: np.random.Generator, *, bpm: float | None = None, wide: bool = False) -> Patient:
    """Draw a patient.

    ``bpm`` is the heart rate in sinus rhythm, beats per minute; it is drawn from 58 to 95 by
    default. ``wide`` means bundle branch block: every conducted beat has a wide complex with
    discordant T.
    """
    u = rng.uniform
    normal = _normal_waves(rng)
    height = normal[2, 1]
    block = _bundle_branch_block(rng, normal)
    if wide:
        normal = block
    early = normal.copy()  # the P of another focus: nearer, and mostly inverted
    early[0, 0] *= u(0.65, 0.85)
    early[0, 1] *= u(-1.0, -0.5) if rng.random() < 0.7 else u(1.3, 1.6)
    early[0, 2:] *= u(0.6, 0.9)
    aberrated = block.copy()
    aberrated[0] = early[0]
    ventricular = _ventricular_waves(rng, height)
    rr = 60 / (bpm or u(58, 95))
    return Patient(
        waves=np.stack([normal, early, aberrated, ventricular]),
        rr=rr,
        rr_sd=u(0.02, 0.06) * rr**1.5,  # a slow heart varies more
        lf_hf=u(0.3, 2),
        breath=u(0.18, 0.33),
        af_rr=u(0.5, 0.85),
        af_cv=u(0.18, 0.27),
        af_wave=(u(4.8, 7.5), u(0.04, 0.1)),
        flutter=(u(0.185, 0.225), u(0.1, 0.22)),
    )


def _normal_waves(rng: np.random.Generator) -> Floats:
    """(6, 4) waves of a normal beat, columns as in ``Patient.waves``."""
    u = rng.uniform
    theta, a, b = _TABLE.T
    waves = np.zeros((6, 4))
    waves[:5, 0] = np.radians(theta) / (2 * np.pi)
    waves[:5, 1] = a * b**2 / (30 * 0.1**2)
    waves[:5, 2:] = (b / (2 * np.pi))[:, None]
    waves[:, 0] *= [u(0.85, 1.05), u(0.7, 0.85), 1, u(0.7, 0.9), u(1.0, 1.15), 1]
    inverted = -0.7 if rng.random() < 0.15 else 1
    heights = [u(0.35, 0.8), u(0, 1.1), 1, u(0.1, 2.2), u(0.45, 1.1) * inverted, 1]
    waves[:, 1] *= np.array(heights) * u(0.6, 1.5)
    waves[:, 2:] *= np.array([u(0.5, 0.65), u(0.5, 0.7), u(0.6, 0.85), u(0.5, 0.8), 1, 1])[:, None]
    waves[4, 2:] *= u(0.9, 1.05), u(0.5, 0.65)  # T rises slowly and falls fast
    return waves


def _bundle_branch_block(rng: np.random.Generator, normal: Floats) -> Floats:
    """(6, 4) waves of a beat with a block of the right or the left bundle branch."""
    u, height = rng.uniform, normal[2, 1]
    right = normal.copy()  # the same start, then a wide S (or R')
    right[3] = u(0.065, 0.08), -height * u(0.3, 0.55), u(0.02, 0.026), u(0.026, 0.034)
    left = normal.copy()  # a broad, notched R without Q
    left[1] = 0
    left[2, 2:] = u(0.019, 0.024)
    left[3] = 0
    left[5] = u(0.05, 0.06), height * u(0.5, 0.75), u(0.016, 0.02), u(0.02, 0.028)
    block = right if rng.random() < 0.5 else left
    block[4, 1] = u(0.2, 0.32) * height * (1 if block is right else -1)
    return block


def _ventricular_waves(rng: np.random.Generator, height: float) -> Floats:
    """(6, 4) waves of a PVC, whose R peak is sized after the ``height`` (mV) of a normal one."""
    u = rng.uniform
    waves = np.zeros((6, 4))
    size = height * u(1.1, 1.8) * (1 if rng.random() < 0.6 else -1)
    waves[2] = 0, size, u(0.022, 0.03), u(0.024, 0.034)
    waves[3] = u(0.08, 0.1), -size * u(0.1, 0.45), u(0.02, 0.03), u(0.025, 0.04)
    waves[4] = u(0.3, 0.34), -size * u(0.2, 0.4), u(0.06, 0.08), u(0.04, 0.055)
    waves[5] = u(0.045, 0.055), size * u(0, 0.4), 0.016, 0.018
    return waves


def slow(rng: np.random.Generator, n: int, fs: float, period: float) -> Floats:
    """Gaussian noise of ``n`` samples at ``fs`` Hz that changes within ``period`` s; shape (n,)."""
    knots = rng.standard_normal(int(n / fs / period) + 3)
    return np.interp(np.arange(n) / (fs * period), np.arange(len(knots)), knots)


def _tachogram(rng: np.random.Generator, heart: Patient, seconds: float) -> Floats:
    """RR intervals (s) of at least ``seconds`` of sinus rhythm, with ECGSYN's bimodal spectrum."""
    n = int(4 * (seconds + 10))
    size = next_fast_len(n, real=True)
    f = np.fft.rfftfreq(size, 0.25)
    mayer = heart.lf_hf * np.exp(-0.5 * ((f - 0.1) / 0.01) ** 2)
    breath = np.exp(-0.5 * ((f - heart.breath) / 0.01) ** 2)
    phase = np.exp(2j * np.pi * rng.random(len(f)))
    series = np.fft.irfft(np.sqrt(mayer + breath) * phase, size)[:n]
    series /= series.std()
    drift = slow(rng, n, 4, 60)  # what the subject does: minutes, not breaths
    rr = heart.rr + heart.rr_sd * (series + 0.8 * drift)
    beats = np.cumsum(0.25 / np.maximum(rr, 0.3))  # a beat falls where this passes an integer
    return np.diff(np.interp(np.arange(1, int(beats[-1])), beats, np.arange(n) / 4))


def _ectopic(rng: np.random.Generator, span: Span, n: int) -> tuple[NDArray[np.uint8], Floats]:
    """Kinds of ``n`` sinus beats with ectopics, and what the RR before each is multiplied by."""
    kind, factor = np.zeros(n, np.uint8), np.ones(n)
    total = span.pac + span.aberrated + span.pvc
    episode = np.repeat(rng.choice([0.3, 1.7], n // 30 + 1), 30)[:n]  # ectopics come in clusters
    draw = rng.random(n) / episode
    if n > 9:  # one is certain, so that a short recording shows its patient's diagnosis
        draw[rng.integers(5, min(n - 3, 15))] = rng.random() * total
    k = 2
    while k < n - 3:
        early, again, reset = rng.uniform((0.55, 0.5, 1.03), (0.78, 0.65, 1.15))
        events: list[tuple[int, float]] = []
        if draw[k] < span.pvc:  # the sinus node goes on: the pause compensates
            pattern = rng.random()
            single = [(3, early), (0, 2 - early)]
            if pattern < 0.7:
                events = single
            elif pattern < 0.85:
                events = [(3, early), (3, again), (0, 3 - early - again)]
            else:
                events = single * int(rng.integers(3, 7))
        elif draw[k] < span.pvc + span.aberrated:  # the earlier, the likelier aberrated
            events = [(2, early - 0.04), (0, reset)]
        elif draw[k] < total:  # resets the sinus node: no compensation
            events = [(1, early), (0, reset)]
        for step, (code, value) in enumerate(events[: n - k]):
            kind[k + step], factor[k + step] = code, value
        k += len(events) + 1
    return kind, factor


def beats(rng: np.random.Generator, heart: Patient, spans: Sequence[Span]) -> Beats:
    """Draw the beats of one recording: the rhythms of ``spans``, one after another.

    No beat is of kind Q. The beats start up to 3 s before 0 s and go on for 3 s after the last
    span, so that waves of beats outside a recording reach into it.
    """
    parts = []
    for position, span in enumerate(spans):
        extra = 3 * (position == 0) + 3 * (position == len(spans) - 1)
        span = span._replace(seconds=span.seconds + extra)
        m = int(span.seconds / 0.25) + 20
        cycles, kind = np.zeros(m, np.int64), np.zeros(m, np.uint8)
        if span.rhythm == "N":
            rr = _tachogram(rng, heart, 1.2 * span.seconds)
            kind, factor = _ectopic(rng, span, len(rr))
            cycles, rr = np.zeros(len(rr), np.int64), rr * factor
            rr[0] *= 1.3 if position else rng.random()  # after a tachycardia the sinus node pauses
        elif span.rhythm == "AFIB":
            mean = heart.af_rr * np.exp(0.08 * slow(rng, m, 2, 30))
            rr = np.maximum(mean * np.exp(heart.af_cv * rng.standard_normal(m)), 0.28)
            kind[3:][rng.random(m - 3) < span.pvc] = 3
            # Ashman: a short interval after a long one meets a bundle that is still refractory
            ashman = (rr[2:] < 0.75 * mean[2:]) & (rr[1:-1] > 1.2 * mean[2:])
            kind[2:][ashman & (rng.random(m - 2) < 10 * span.aberrated)] = 2
        else:
            usual = rng.choice([2, 4])
            stay = np.repeat(rng.choice([2, 3, 4, usual, usual], m // 4 + 1), 4)[:m]
            cycles = np.where(rng.random(m) < 0.25, rng.integers(2, 5, m), stay)
            rr = cycles * heart.flutter[0] * (1 + 0.006 * rng.standard_normal(m))
        n = int(np.searchsorted(np.cumsum(rr), span.seconds))
        code = np.full(n, RHYTHMS.index(span.rhythm), np.uint8)
        parts.append((rr[:n], kind[:n], code, cycles[:n]))
    rr, kind, rhythm, cycles = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Beats(np.cumsum(rr) - 3, kind, rhythm, cycles)


def _complexes(
    rng: np.random.Generator, heart: Patient, made: Beats, fs: float, n: int
) -> Iterator[Floats]:
    """Yield the P, Q, R, S, T and R' waves of all beats, one kind of wave at a time."""
    t = made.time
    before = np.diff(t, prepend=t[0] - heart.rr)
    usual = uniform_filter1d(before, 12, origin=5, mode="nearest")  # QT follows the rate late
    rr = (0.75 * usual + 0.25 * before)[:, None]
    waves = heart.waves[made.kind].copy()
    waves[:, :, 0] *= rr**_STRETCH
    waves[:, :, 2:] *= (rr**_STRETCH)[:, :, None]
    waves[made.rhythm != 1, 0, 1] = 0  # no P in fibrillation and flutter
    breathing = 1 + 0.06 * np.sin(2 * np.pi * heart.breath * t)  # the heart turns with each breath
    waves[:, :, 1] *= breathing[:, None] * (1 + 0.03 * rng.standard_normal((len(t), 6)))
    for centre, height, left, right in np.moveaxis(waves, (1, 2), (0, 1)):
        reach = int(4 * fs * max(left.max(), right.max())) + 1
        first = np.rint((t + centre) * fs).astype(np.int64) - reach
        index = first[:, None] + np.arange(2 * reach + 1)
        d = index / fs - (t + centre)[:, None]
        width = np.where(d < 0, left[:, None], right[:, None]) + 1e-9
        values = height[:, None] * np.exp(-0.5 * (d / width) ** 2)
        inside = (index >= 0) & (index < n)
        yield np.bincount(index[inside], values[inside], n).astype(np.float64)


def _atria(rng: np.random.Generator, heart: Patient, made: Beats, fs: float, n: int) -> Floats:
    """Fibrillatory and flutter waves, where the rhythm has them."""
    t = np.arange(n) / fs
    out = np.zeros(n)
    if (made.rhythm == 2).any():
        hz, mv = heart.af_wave
        speed = hz * np.exp(0.1 * slow(rng, n, fs, 1.2))
        phase = 2 * np.pi * np.cumsum(speed.clip(4, 9)) / fs
        swell = np.exp(0.35 * slow(rng, n, fs, 0.9))
        shape = np.sin(phase) + 0.35 * np.sin(2 * phase + slow(rng, n, fs, 2))
        out += np.interp(t, made.time, made.rhythm == 2) * mv * swell * shape
    if (made.rhythm == 3).any():  # conducted at a fixed point of the atrial cycle
        phase = 2 * np.pi * np.interp(t, made.time, np.cumsum(made.cycles))
        saw = sum(np.sin(k * phase + 0.8 * k) / k for k in (1, 2, 3, 4))
        out += np.interp(t, made.time, made.rhythm == 3) * heart.flutter[1] * saw
    return out


def signal(rng: np.random.Generator, heart: Patient, made: Beats, fs: float, n: int) -> Floats:
    """Draw the ECG of the beats without noise: (n,) mV at ``fs`` Hz."""
    return sum(_complexes(rng, heart, made, fs, n), _atria(rng, heart, made, fs, n))
