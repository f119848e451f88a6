"""QRS detection: heartbeats from the signal alone, without annotations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EcgpipeError
from ..types import NO_MARKS, Marks, Record

LOWEST_RATE = 60.0  # Hz; at or below it the detectors' filters do not exist
SHORTEST = 1.0  # s of signal, from its first deflection on
FEWEST_VOTERS = 3  # leads
AGREEMENT = 0.15  # s, less than the refractory period: no lead votes twice for one beat
REFRACTORY = 0.2  # s, in which the heart muscle cannot contract again


def main_lead(leads: tuple[str, ...], preferred: str | None) -> int:
    """Position of the lead that stands for the record where one lead is wanted.

    The preferred lead where the record has it, else the first one.
    """
    return leads.index(preferred) if preferred in leads else 0


def detect_qrs(record: Record, preferred: str | None = None, detector: str = "sleepecg") -> Marks:
    """Detected QRS complexes of a record, as samples from its start, at least 200 ms apart.

    From three leads on all of them vote: a beat is where more than half of them have one within
    150 ms. Of one or two leads the main lead decides alone. Leads without any deflection are left
    out, and so are those with less than a second from it to the record's end; where none is left,
    or where the record is sampled at 60 Hz or less, there are no beats. ``benchmarks/qrs.md`` has
    the figures behind all this.

    Parameters
    ----------
    record
        Its signal, rate, gain and baseline are used, never its annotated beats.
    preferred
        The main lead, see :func:`main_lead`.
    detector
        A key of ``DETECTORS``.

    Raises
    ------
    EcgpipeError
        An unknown detector.
    """
    if detector not in DETECTORS:
        raise EcgpipeError(f"unknown QRS detector {detector}; there are: {', '.join(DETECTORS)}")
    shortest = SHORTEST * record.fs
    leads = [lead for lead, counts in enumerate(record.signal) if _lively(counts) >= shortest]
    if not leads or record.fs <= LOWEST_RATE:
        return NO_MARKS
    if len(leads) < FEWEST_VOTERS:
        leads = [leads[main_lead(tuple(record.leads[lead] for lead in leads), preferred)]]
    found = [
        DETECTORS[detector](
            (record.signal[lead] - record.baseline[lead]) / record.gain[lead], record.fs
        )
        for lead in leads
    ]
    return Marks.of(_apart(found[0] if len(found) == 1 else _vote(found, record.fs), record.fs))


def _lively(signal: NDArray[Any]) -> int:
    """Samples from the first deflection to the end."""
    differs = signal != signal[0]
    first = int(np.argmax(differs))
    return len(signal) - first if differs[first] else 0


def _vote(found: list[NDArray[np.int64]], fs: float) -> NDArray[np.int64]:
    """Where most leads have a beat: the middle one of the marks that agree best."""
    marks = np.sort(np.concatenate(found))
    behind = np.searchsorted(marks, marks + AGREEMENT * fs, side="right")
    support = behind - np.arange(len(marks))  # leads with a mark from this one on, within 150 ms
    beats: list[int] = []
    first = 0
    while first < len(marks):
        if support[first] > len(found) / 2:
            best = first + int(np.argmax(support[first : behind[first]]))
            beats.append(int(marks[(best + behind[best] - 1) // 2]))
            first = int(np.searchsorted(marks, beats[-1] + REFRACTORY * fs))
        else:
            first += 1
    return np.array(beats, np.int64)


def _apart(marks: NDArray[np.int64], fs: float) -> NDArray[np.int64]:
    """Marks, rising, less those in the refractory period of the one before."""
    kept: list[int] = []
    for mark in marks.tolist():
        if not kept or mark - kept[-1] >= int(REFRACTORY * fs):
            kept.append(mark)
    return np.array(kept, np.int64)


def _sleepecg(millivolts: NDArray[np.float64], fs: float) -> NDArray[np.int64]:
    """The detector of sleepecg (Brunner et al. 2023, after Pan & Tompkins 1985).

    It marks the highest sample of the complex, band-passed from 5 to 30 Hz. Scale and offset of
    the signal do not matter; its polarity does.
    """
    # Until it has its second beat it may search everything since the first again at each sample,
    # which takes minutes in an hour of even hum: so it begins at a minute that soon has two.
    minute, start, found = int(60 * fs), 0, []
    while len(millivolts) - start > 2 * minute:
        first = _stretch(millivolts[start : start + minute], fs)
        if (first < minute // 2).sum() >= 2:
            break
        found.append(first + start)
        start += minute
    return np.concatenate([*found, _stretch(millivolts[start:], fs) + start])


def _stretch(millivolts: NDArray[np.float64], fs: float) -> NDArray[np.int64]:
    """Run sleepecg where its C code stays within the memory it allocates."""
    import sleepecg

    lively = _lively(millivolts)  # it begins there too
    if lively < SHORTEST * fs:
        return np.empty(0, np.int64)
    # Its C code has room for a beat every 200 ms, and writes behind it where a short signal has
    # one more; it also reads two seconds whatever there is. Its Python code, slower and otherwise
    # the same, raises. From the length below on, beats never came so close together.
    refractory = int(REFRACTORY * fs)
    backend = "c" if lively >= 2 * refractory * (refractory + 1) else "python"
    try:
        return sleepecg.detect_heartbeats(millivolts, fs, backend=backend)
    except IndexError:  # 300 beats a minute from end to end: no heart does that
        return np.empty(0, np.int64)


def _gqrs(millivolts: NDArray[np.float64], fs: float) -> NDArray[np.int64]:
    """George Moody's gqrs in wfdb's Python: a second opinion, a hundred times slower.

    It marks the complex some 35 ms before its steepest stretch, and wants about 0.13 mV from peak
    to peak. Offset and polarity of the signal do not matter.
    """
    from wfdb.processing import gqrs_detect

    # Whole microvolts, since its thresholds are integers that a coarse gain rounds to zero; no
    # more than 10 V, whose squares it can hold; and a second of mirrored signal at both ends, or
    # the first and the last beat are missed.
    microvolts = np.clip(np.rint(1000 * millivolts), -1e7, 1e7).astype(np.int64)
    second = int(fs)
    mirrored = np.pad(microvolts, second, mode="reflect")
    found = np.asarray(gqrs_detect(d_sig=mirrored, fs=fs, adc_gain=1000, adc_zero=0), np.int64)
    return found[(found >= second) & (found < second + len(millivolts))] - second


DETECTORS: dict[str, Callable[[NDArray[np.float64], float], NDArray[np.int64]]] = {
    "sleepecg": _sleepecg,
    "gqrs": _gqrs,
}
