"""A record at another sampling rate, its marks moved with the signal."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..types import Marks, Record

EDGE = 128  # samples, at the lower rate, put around a record so that its ends do not ring
TERMS = 100_000  # ratios of rates are fractions of whole numbers up to this


def resample(record: Record, fs: float) -> Record:
    """The record at ``fs`` Hz, int16 with the same gain and baseline.

    Sample i of the result lies at the time i / fs, and those within the record's duration make it
    up. A mark moves to the nearest of them, half a sample away at most; only behind the last one,
    where the new rate is less than half the old, may it be further, by less than a whole one.

    soxr at very high quality: up to 0.92 of the lower Nyquist rate amplitudes are kept within
    0.01 dB, what lies above the new one comes back below -170 dB. It works in doubles, so that
    rounding to int16 gives the same bytes on every processor; what exceeds int16 saturates. Beyond
    its ends a record goes on as its own mirror image turned about the last sample, which keeps
    level and slope; the first and last few samples are estimates nevertheless.

    Any rate will do. Where the ratio has terms above ``TERMS`` the nearest fraction below is
    taken, for signal and marks alike.
    """
    if fs == record.fs:
        return record
    ratio = (Fraction(fs) / Fraction(record.fs)).limit_denominator(TERMS)
    samples = math.ceil(record.samples * ratio)

    def move(marks: Marks) -> Marks:
        # Whole numbers round in one way everywhere; halves go up.
        doubled = 2 * marks.index.astype(np.int64) * ratio.numerator + ratio.denominator
        nearest = doubled // (2 * ratio.denominator)
        return Marks.of(np.minimum(nearest, samples - 1), marks.label)

    return replace(
        record,
        fs=float(fs),
        signal=np.stack([_lead(lead, ratio, samples) for lead in record.signal]),
        beats=None if record.beats is None else move(record.beats),
        rhythms=move(record.rhythms),
        qrs=move(record.qrs),
    )


def _lead(counts: NDArray[np.int16], ratio: Fraction, samples: int) -> NDArray[np.int16]:
    import soxr

    blocks = math.ceil(EDGE / min(ratio.numerator, ratio.denominator))
    pad = blocks * ratio.denominator  # a whole number of samples at both rates
    smooth = soxr.resample(
        np.pad(counts.astype(np.float64), pad, mode="reflect", reflect_type="odd"),
        ratio.denominator,
        ratio.numerator,
        quality="VHQ",
    )
    start = blocks * ratio.numerator
    limits = np.iinfo(np.int16)
    exact = np.rint(smooth[start : start + samples])
    return np.clip(exact, limits.min, limits.max).astype(np.int16)
