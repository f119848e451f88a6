"""Parse WFDB headers strictly: every line in full, every number within its range.

The format is header.5 of the WFDB Applications Guide (Moody, Pollard & Moody). ``wfdb.rdheader``
takes what it recognises of a line and fills in defaults for the rest, so that a header that was cut
or mistyped scales or places samples wrongly without an error.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, replace

from ..errors import BadRecord
from ..types import GAINS, RATES

ADC_VALUES = (-(2.0**31), 2.0**31)  # of baselines and initial values
LONGEST = 2**31  # samples of one lead
# ADC units per mV at a gain of one ADC unit per unit.
UNITS = {"v": 1e-3, "mv": 1.0, "uv": 1e3, "µv": 1e3, "μv": 1e3, "nv": 1e6}
DEFAULT_GAIN = 200.0  # where the header gives none, or zero (header.5)

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
# After the number of samples come time and date of the start, which are not used.
_RECORD = re.compile(
    rf"(?P<name>\S+?)(?P<segments>/\d+)?\s+(?P<signals>\d+)"
    rf"(?:\s+(?P<fs>{_NUMBER})(?:/{_NUMBER}(?:\({_NUMBER}\))?)?(?:\s+(?P<samples>\d+)(?:\s.*)?)?)?"
)
_SIGNAL = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d+)(?:x(?P<per_frame>\d+))?(?::(?P<skew>\d+))?"
    r"(?:\+(?P<offset>\d+))?"
    rf"(?:\s+(?P<gain>{_NUMBER})(?:\((?P<baseline>[-+]?\d+)\))?(?:/(?P<unit>\S+))?"
    r"(?:\s+(?P<resolution>\d+)(?:\s+(?P<zero>[-+]?\d+)(?:\s+(?P<initial>[-+]?\d+)"
    r"(?:\s+(?P<checksum>[-+]?\d+)(?:\s+(?P<block>\d+)(?:\s+(?P<description>.*))?)?)?)?)?)?)?"
)


@dataclass(frozen=True, slots=True)
class SignalLine:
    """What a header says of one signal."""

    file: str
    format: str  # number of the WFDB signal format
    per_frame: int  # samples in a frame
    skew: int  # samples
    offset: int  # bytes before the first sample in the file
    gain: float  # ADC units per mV
    baseline: int  # ADC value of 0 mV
    initial: int | None  # the first sample
    checksum: int | None  # sum of all samples modulo 65,536; None where it is not given, or zero
    name: str  # of the lead


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a record of one segment."""

    fs: float  # frames in a second, Hz
    frames: int | None  # None where the header does not say it
    signals: tuple[SignalLine, ...]


def parse_header(name: str, data: bytes) -> Header:
    """Parse a header; ``name`` is that of its file, for error messages.

    A lead without a description is called ``lead 1`` by its position, and a second one of the same
    name ``ECG 2``.

    Raises
    ------
    BadRecord
        A line that is not as the standard has it, a number out of its range, a cut file, several
        segments, or no signals.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if text and not text.endswith(("\n", "\r")):
        last = text.splitlines()[-1]
        if not last.startswith("#"):
            raise BadRecord(f"{name}: cut within its last line, {last!r}; fetch it again")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    found = _RECORD.fullmatch(lines[0]) if lines else None
    if not found:
        raise BadRecord(f"{name}: not a readable WFDB header; fetch it again")
    if found["segments"]:
        raise BadRecord(f"{name}: a record of several segments; name one of its segments")
    count = int(found["signals"])
    if not count:
        raise BadRecord(f"{name}: says that the record has no signals")
    if found["fs"] is None:
        raise BadRecord(f"{name}: says no sampling rate")
    if len(lines) != count + 1:
        raise BadRecord(
            f"{name}: {len(lines) - 1} lines of signals where it says {count}; fetch it again"
        )
    fs = _within(name, "sampling rate", float(found["fs"]), RATES, "Hz")
    frames = int(found["samples"] or 0) or None
    if frames is not None and frames > LONGEST:
        raise BadRecord(f"{name}: {frames:,} samples, more than {LONGEST:,}")
    signals = [_signal(name, line, number) for number, line in enumerate(lines[1:], 1)]
    return Header(fs, frames, _told_apart(signals))


def _signal(name: str, line: str, number: int) -> SignalLine:
    found = _SIGNAL.fullmatch(line)
    if not found:
        raise BadRecord(f"{name}: the line of signal {number} cannot be read: {line!r}")
    unit = found["unit"] or "mV"
    if unit.lower() not in UNITS:
        raise BadRecord(f"{name}: signal {number} is in {unit}; known units: V, mV, µV, nV")
    gain = (float(found["gain"] or 0) or DEFAULT_GAIN) * UNITS[unit.lower()]
    zero = int(found["zero"] or 0)
    baseline = int(found["baseline"]) if found["baseline"] else zero
    lead = (found["description"] or "").strip() or f"lead {number}"
    if not lead.isprintable():
        raise BadRecord(f"{name}: the name of signal {number} is no text: {lead!r}")
    return SignalLine(
        file=found["file"],
        format=found["format"],
        per_frame=int(found["per_frame"] or 1) or 1,
        skew=int(found["skew"] or 0),
        offset=int(found["offset"] or 0),
        gain=_within(name, f"gain of signal {number}", gain, GAINS, "ADC units per mV"),
        baseline=int(_within(name, "baseline", baseline, ADC_VALUES, "ADC units")),
        initial=int(found["initial"]) if found["initial"] else None,
        checksum=int(found["checksum"] or 0) % 65_536 or None,
        name=lead,
    )


def _within(name: str, what: str, value: float, limits: tuple[float, float], unit: str) -> float:
    low, high = limits
    if not (math.isfinite(value) and low <= value <= high):
        raise BadRecord(f"{name}: {what} {value:g} {unit}; {low:g} to {high:g} can be right")
    return value


def _told_apart(signals: list[SignalLine]) -> tuple[SignalLine, ...]:
    """Number leads of one name from the second on."""
    seen: Counter[str] = Counter()
    found = []
    for signal in signals:
        seen[signal.name] += 1
        number = seen[signal.name]
        found.append(signal if number == 1 else replace(signal, name=f"{signal.name} {number}"))
    return tuple(found)
