"""A stretch of a recording on ECG paper, as a picture: 25 mm/s, 10 mm/mV, every lead."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..datasets import DATASETS
from ..errors import EcgpipeError
from ..files.atomic import write_bytes
from ..labels.beats import CLASS_OF_SYMBOL
from ..storage.store import Store, open_store
from ..types import NO_MARKS, Marks, Record
from .ecg_paper import INK, SOFT, Mark, Sheet, length, lines_of, spread
from .marks import BEAT_NAMES, RHYTHM_NAMES, Stretch, rhythm_stretches

# Without anything that names a time or a program: the same record gives the same bytes.
METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    ".pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ecgpipe",
    "pdf.fonttype": 42,
    "font.family": ["DejaVu Sans"],
    "text.parse_math": False,
    "path.simplify": False,  # every sample is drawn
}
_DOTS = 8  # pixels a millimetre; a whole number, so that all lines of the grid are equally dark
_PER_S, _PER_MV = 25, 10  # mm
_ROW = 10.0  # s
# Millimetres: margin, room for a lead's name, room for the calibration pulse; heights; limits.
_EDGE, _NAME, _PULSE = 8, 11, 10
_BAR, _SYMBOL, _TICK, _CLOCK, _GAP, _LINE = 4.5, 4.5, 3.0, 4.5, 5.0, 4.0
_NARROWEST, _TALLEST = 150, 4000
_MOST = 3  # mV around a lead's median that are drawn
_ALARM, _BLUE = "#b3261e", "#2f6db0"
_HUES = {"N": "#3f7f5a", "SBR": "#4a8791", "AFIB": "#c0392b", "AFL": "#b8651b"}
_OTHER_HUES = ("#6a5aa8", "#9a4574", "#5f7132", "#3a6ea5", "#8a5a3c", "#54626f")


def plot(store: Path, key: str, out: Path, start: str | float = 0, seconds: float = 10) -> Path:
    """Draw a stretch of a record the way an electrocardiograph prints it.

    25 mm/s and 10 mm/mV (true to size on paper), small squares of 0.04 s by 0.1 mV, large ones of
    0.2 s by 0.5 mV, rows of 10 s. Annotated beats stand above with their symbols, rhythms as bars,
    detected QRS complexes as ticks. The same record gives the same bytes.

    Parameters
    ----------
    store
        An archive or a folder of shards.
    key
        The record.
    out
        The picture: ``.png``, ``.svg`` or ``.pdf``.
    start
        In the record: seconds, ``m:ss`` or ``h:mm:ss``.
    seconds
        How much is drawn; less where the record ends before.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    EcgpipeError
        An unknown format or record, a start that lies outside of the record, or more than fits on
        a sheet of 4 m.
    """
    kind = out.suffix.lower()
    if kind not in METADATA:
        raise EcgpipeError(f"{out}: cannot be drawn; name a file that ends in .png, .svg or .pdf")
    if not (math.isfinite(seconds) and seconds > 0):
        raise EcgpipeError(f"--seconds {seconds:g}: nothing to draw; give a number above 0")
    begin, opened = seconds_of(start), open_store(store)
    record = opened.read(key)
    first = round(begin * record.fs)
    if not 0 <= first < record.samples:
        lasts = record.samples / record.fs
        raise EcgpipeError(
            f"--start {start}: outside of {key}, which lasts {clock(lasts)} ({lasts:g} s)"
        )
    cut = _cut(opened, record, first, first + max(1, round(seconds * record.fs)))
    picture = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = _draw(cut, _facts(opened, record, cut))
        figure.savefig(picture, format=kind[1:], dpi=25.4 * _DOTS, metadata=METADATA[kind])
    write_bytes(out, picture)
    return out


def seconds_of(time: str | float) -> float:
    """Seconds from ``90``, ``1:30`` or ``0:01:30``.

    Raises
    ------
    EcgpipeError
        It is no such time.
    """
    pieces = str(time).strip().split(":")
    try:
        values = [float(piece) for piece in pieces]
    except ValueError:
        values = []
    whole = all(piece.strip().isdecimal() for piece in pieces[:-1])
    inside = all(0 <= value < 60 for value in values[1:])
    if not (0 < len(values) <= 3 and whole and inside and math.isfinite(values[-1])):
        raise EcgpipeError(f"--start {time}: no time; write seconds, m:ss or h:mm:ss")
    return sum(value * 60**place for place, value in enumerate(reversed(values)))


def clock(seconds: float) -> str:
    """``h:mm:ss``, with hundredths where there are any."""
    minutes, rest = divmod(round(100 * seconds), 6000)
    fraction = f".{rest % 100:02d}".rstrip("0").rstrip(".")
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 100:02d}{fraction}"


@dataclass(frozen=True, eq=False)
class _Cut:
    """What is drawn: a stretch of a record, and all that lies in it."""

    fs: float
    first: int  # samples of the record, [first, last)
    last: int
    leads: tuple[str, ...]
    millivolts: NDArray[np.float32]  # (leads, samples), one sample beyond the last if there is one
    lanes: list[tuple[float, float]]  # lowest and highest mV of each lead
    beats: list[tuple[int, str]]  # sample and symbol
    qrs: list[int]
    stretches: list[Stretch]
    hues: dict[str, str]  # of the rhythms

    @property
    def is_cut(self) -> bool:
        """Whether a trace leaves its lane."""
        pairs = zip(self.millivolts, self.lanes, strict=True)
        return any(lead.min() < low or lead.max() > high for lead, (low, high) in pairs)


def _cut(store: Store, record: Record, first: int, last: int) -> _Cut:
    last = min(last, record.samples)

    def inside(marks: Marks | None) -> list[tuple[int, int]]:
        marks = marks or NO_MARKS
        at = slice(*np.searchsorted(marks.index, [first, last]))
        return list(zip(marks.index[at].tolist(), marks.label[at].tolist(), strict=True))

    symbols, notes = store.recipe.beats, store.recipe.rhythms
    stretches = rhythm_stretches(record.rhythms, notes, record.samples)
    others = dict.fromkeys(name for note in notes if (name := note.strip("()")) not in _HUES)
    # One sample more, so that a row ends where the next one starts.
    millivolts = replace(record, signal=record.signal[:, first : last + 1]).millivolts()
    return _Cut(
        fs=record.fs,
        first=first,
        last=last,
        leads=record.leads,
        millivolts=millivolts,
        lanes=[_lane(lead) for lead in millivolts],
        beats=[(at, symbols[label]) for at, label in inside(record.beats)],
        qrs=[at for at, _ in inside(record.qrs)],
        stretches=[s for s in stretches if s.start < last and s.stop > first],
        hues={**_HUES, **dict(zip(others, cycle(_OTHER_HUES), strict=False))},
    )


def _lane(millivolts: NDArray[np.float32]) -> tuple[float, float]:
    """Lowest and highest mV of a lead's lane, on the coarse grid: all of it, as a rule.

    Unlike in the report's examples, where a few peaks may be cut: here a single beat matters.
    """
    middle = float(np.median(millivolts))
    low = max(float(millivolts.min()), middle - _MOST)
    high = min(float(millivolts.max()), middle + _MOST)
    low, high = math.floor(2 * low - 0.1) / 2, math.ceil(2 * high + 0.1) / 2
    while high - low < 1.5:
        high, low = (high + 0.5, low) if high - middle <= middle - low else (high, low - 0.5)
    return low, high


def _draw(cut: _Cut, facts: list[str]) -> Figure:
    seconds = (cut.last - cut.first) / cut.fs
    rows = math.ceil(seconds / _ROW - 1e-9)
    above = _BAR * bool(cut.stretches) + _SYMBOL * bool(cut.beats) + _TICK * bool(cut.qrs)
    paper = sum(round((high - low) * _PER_MV) for low, high in cut.lanes)
    each = above + paper + _CLOCK + _GAP
    left = _EDGE + _NAME
    width = max(_NARROWEST, left + _paper_width(min(seconds, _ROW)) + _EDGE)
    header = lines_of(facts[1:], 8, width - 2 * _EDGE)
    key = spread(_key(cut), 7, width - 2 * _EDGE)
    top = _EDGE + 5 + _LINE * (len(header) + 1)
    height = math.ceil(top + rows * each + _LINE * (key[-1][1] if key else -1) + _EDGE)
    if height > _TALLEST:
        raise EcgpipeError(
            f"--seconds {seconds:g}: makes a sheet {height / 1000:.1f} m tall, and "
            f"{_TALLEST / 1000:g} m is the most; draw less at once"
        )
    sheet = Sheet(width, height)
    sheet.text(_EDGE, _EDGE + 4, facts[0], 12, INK, weight="bold")
    for number, line in enumerate(header):
        sheet.text(_EDGE, _EDGE + 9 + _LINE * number, line, 8, SOFT)
    for row in range(rows):
        _draw_row(sheet, cut, row, left, top + row * each + above)
    for x, down, mark in key:
        sheet.mark(_EDGE + x, top + rows * each + _LINE * down, mark, 7)
    return sheet.figure


def _draw_row(sheet: Sheet, cut: _Cut, row: int, left: float, top: float) -> None:
    """Ten seconds: paper and traces from ``top`` downwards, the clock below, marks above."""
    fs, begin = cut.fs, cut.first / cut.fs + row * _ROW
    end = min(begin + _ROW, cut.last / fs)
    zero, width = left + _PULSE, _paper_width(end - begin)

    def x(sample: Any) -> Any:
        return zero + (sample / fs - begin) * _PER_S

    y = top
    samples = np.arange(math.ceil(begin * fs - 1e-6), math.floor(end * fs + 1e-6) + 1)
    samples = samples[samples < cut.first + cut.millivolts.shape[1]]
    for name, lead, (low, high) in zip(cut.leads, cut.millivolts, cut.lanes, strict=True):
        height = round((high - low) * _PER_MV)
        sheet.ruling(left, y, width, height)
        sheet.text(left - 2, y + height / 2 + 1, name, 9, INK, ha="right", weight="bold")
        pulse = [(1, 5), (2.5, 5), (2.5, -5), (7.5, -5), (7.5, 5), (9, 5)]  # 1 mV for 0.2 s
        sheet.trace(*np.transpose([(left + a, y + height / 2 + b) for a, b in pulse]))
        box = [(left, y), (left + width, y + height)]
        sheet.trace(x(samples), y + (high - lead[samples - cut.first]) * _PER_MV, box)
        y += height
    for second in range(math.ceil(begin - 1e-6), math.floor(end + 1e-6) + 1):
        sheet.text(x(second * fs), y + 3.5, clock(second), 6.5, SOFT, ha="center")

    from_, to = begin * fs - 1e-6, end * fs - 1e-6
    y = top
    if cut.qrs:
        y -= _TICK
        ticks = (x(at) for at in cut.qrs if from_ <= at < to)
        sheet.strokes((((at, y + 0.5), (at, y + 2.5)) for at in ticks), _BLUE, 0.4)
    if cut.beats:
        y -= _SYMBOL
        for at, symbol in cut.beats:
            if from_ <= at < to:
                sheet.text(x(at), y + 3.3, symbol, 9, _ink(symbol), ha="center")
    for start, stop, name in cut.stretches:
        start, stop = max(x(start), zero), min(x(stop), x(end * fs))
        if start < stop:
            sheet.box(start, y - _BAR, stop - start, _BAR - 1, cut.hues[name], alpha=0.2)
            sheet.box(start, y - 1.5, stop - start, 0.5, cut.hues[name])
            if length(name, 7) + 2 <= stop - start:
                sheet.text(start + 1, y - 2.2, name, 7, cut.hues[name], weight="bold")


def _paper_width(seconds: float) -> int:
    """Millimetres: room for the calibration pulse, and whole large squares."""
    return _PULSE + 5 * math.ceil(seconds * _PER_S / 5 - 1e-6)


def _ink(symbol: str) -> str:
    return _ALARM if CLASS_OF_SYMBOL.get(symbol) in ("pac", "aberrated", "pvc") else INK


def _facts(store: Store, record: Record, cut: _Cut) -> list[str]:
    recipe = store.recipe
    begin, end, total = (clock(at / cut.fs) for at in (cut.first, cut.last, record.samples))
    return [
        record.key,
        DATASETS[recipe.dataset].title + (", simulated" if recipe.simulated else ""),
        f"patient {record.patient}",
        *([f"labelled {', '.join(record.statements)}"] if record.statements else []),
        *(["no annotated beats"] if recipe.beats and record.beats is None else []),
        f"{record.fs:g} Hz, lead{'s' * (len(record.leads) > 1)} {', '.join(record.leads)}",
        f"{begin} to {end} of {total}",
        "25 mm/s, 10 mm/mV" + (f", cut beyond {_MOST} mV" if cut.is_cut else ""),
    ]


def _key(cut: _Cut) -> list[Mark]:
    """What the marks mean."""
    rhythms = dict.fromkeys(stretch.name for stretch in cut.stretches)
    symbols = dict.fromkeys(symbol for _, symbol in cut.beats)
    return [
        *(
            Mark("\N{BLACK SQUARE}", cut.hues[name], f"{name} {RHYTHM_NAMES.get(name, '')}")
            for name in rhythms
        ),
        *(Mark(symbol, _ink(symbol), BEAT_NAMES.get(symbol, "other beat")) for symbol in symbols),
        *([Mark("|", _BLUE, "detected QRS")] if cut.qrs else []),
    ]
