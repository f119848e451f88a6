"""A record at another sampling rate, its marks moved with the signal."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ..types import Marks, Record

EDGE = 128  # samples of the first and last value put around a record, so that its ends do not ring


def resample(record: Record, fs: float) -> Record:
    """The record at ``fs`` Hz, int16 with the same gain and baseline.

    soxr at very high quality: its filter is flat to 0.91 of the new Nyquist rate and aliases lie
    below -170 dB, and it works in doubles, so rounding to int16 gives the same bytes on every
    processor. Sample i of the result lies at the time i / fs; a mark moves to the nearest sample.
    """
    if fs == record.fs:
        return record
    ratio = Fraction(fs).limit_denominator(10_000) / Fraction(record.fs).limit_denominator(10_000)
    samples = max(1, int(record.samples * ratio))

    def move(marks: Marks) -> Marks:
        nearest = np.rint(marks.index * float(ratio))
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

    pad = EDGE * ratio.denominator  # a whole number of samples at both rates
    smooth = soxr.resample(
        np.pad(counts.astype(np.float64), pad, mode="edge"),
        ratio.denominator,
        ratio.numerator,
        quality="VHQ",
    )
    start = EDGE * ratio.numerator
    limits = np.iinfo(np.int16)
    exact = np.rint(smooth[start : start + samples])
    return np.clip(exact, limits.min, limits.max).astype(np.int16)
