"""ECG plots: a stretch of a recording on ECG paper, for a file or for the report."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..datasets import DATASETS
from ..errors import EcgpipeError
from ..labels.beats import CLASS_OF_SYMBOL
from ..progress import clock
from ..storage.store import Store, open_store
from ..types import NO_MARKS, Marks, Record
from .ecg_paper import (
    EDGE,
    GAP,
    LEFT,
    LIMIT,
    LINE,
    PAGE,
    PER_MV,
    PER_S,
    PULSE,
    Layout,
    Mark,
    Section,
    paper_width,
    value_range,
)
from .marks import BEAT_NAMES, RHYTHM_NAMES, Stretch, rhythm_stretches
from .style import (
    ALARM,
    BLUE,
    INK,
    PAGE_STYLE,
    PAGE_TINT,
    STYLE,
    check_format,
    colours_of,
    save,
    svg,
    text_width,
)

if TYPE_CHECKING:
    from ..training.examples import Example  # imports torch, which a plot does not need

_ROW = 10.0  # s
_BAR, _SYMBOL, _TICK = 4.5, 4.5, 3.0  # mm: heights of rhythms, beats and QRS complexes
_NARROWEST, _TALLEST = 150, 4000  # mm


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
        a plot of 4 m.
    """
    check_format(out)
    if not (math.isfinite(seconds) and seconds > 0):
        raise EcgpipeError(f"--seconds {seconds:g}: nothing to draw; give a number above 0")
    begin, opened = seconds_of(start), open_store(store)
    record = opened.read(key)
    first = round(begin * record.fs)
    if not 0 <= first < record.samples:
        duration = record.samples / record.fs
        raise EcgpipeError(
            f"--start {start}: outside of {key}, which lasts {clock(duration)} ({duration:g} s)"
        )
    cut = _cut(opened, record, first, first + max(1, round(seconds * record.fs)))
    with matplotlib.rc_context(STYLE):
        return save(_draw(cut, _facts(opened, record, cut)), out)


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
    return sum(value * 60**power for power, value in enumerate(reversed(values)))


def example_svg(example: Example, max_rows: int) -> str:
    """The beginning of a recording on ECG paper, as SVG for an HTML page.

    Rows of 10 s, at most ``max_rows``; a tick above every QRS complex.
    """
    fs, signal = example.fs, example.signal
    end = min(len(signal) / fs, max_rows * _ROW)
    ranges = [value_range(signal, 2)]
    with matplotlib.rc_context(PAGE_STYLE):
        layout = Layout(paper_width(_ROW) + 2 * GAP, PAGE)
        for start in np.arange(0, end, _ROW):
            stop = min(start + _ROW, end)
            at = example.qrs[(example.qrs >= start * fs) & (example.qrs < stop * fs)]
            _draw_ticks(layout, GAP + (at / fs - start) * PER_S, layout.y, PAGE_TINT)
            layout.y += _TICK
            layout.ecg(Section([""], signal[None], ranges, fs, 0, start, stop), left=GAP)
        return svg(layout.figure(), "ecg")


@dataclass(frozen=True, eq=False)
class _Cut:
    """A stretch of a record with its marks.

    Attributes
    ----------
    fs
        Hz.
    first, last
        Samples of the record, [first, last).
    leads, ranges
        Names of the leads; lowest and highest mV drawn of each.
    millivolts
        (leads, samples) float32, one sample beyond the last if there is one, so that a row ends
        where the next one starts.
    beats
        Sample and symbol.
    qrs
        Samples, int32.
    rhythms, colours
        Rhythms, and the colour of each name.
    """

    fs: float
    first: int
    last: int
    leads: tuple[str, ...]
    ranges: list[tuple[float, float]]
    millivolts: NDArray[np.float32]
    beats: list[tuple[int, str]]
    qrs: NDArray[np.int32]
    rhythms: list[Stretch]
    colours: dict[str, str]

    @property
    def is_clipped(self) -> bool:
        """True if a trace leaves its range."""
        pairs = zip(self.millivolts, self.ranges, strict=True)
        return any(lead.min() < low or lead.max() > high for lead, (low, high) in pairs)


def _cut(store: Store, record: Record, first: int, last: int) -> _Cut:
    last = min(last, record.samples)

    def inside(marks: Marks) -> Marks:
        at = slice(*np.searchsorted(marks.index, [first, last]))
        return Marks(marks.index[at], marks.label[at])

    symbols, notes = store.recipe.beats, store.recipe.rhythms
    beats = inside(record.beats or NO_MARKS)
    rhythms = rhythm_stretches(record.rhythms, notes, record.samples)
    millivolts = replace(record, signal=record.signal[:, first : last + 1]).millivolts()
    return _Cut(
        fs=record.fs,
        first=first,
        last=last,
        leads=record.leads,
        ranges=[value_range(lead) for lead in millivolts],
        millivolts=millivolts,
        beats=[
            (at, symbols[label])
            for at, label in zip(beats.index.tolist(), beats.label.tolist(), strict=True)
        ],
        qrs=inside(record.qrs).index,
        rhythms=[rhythm for rhythm in rhythms if rhythm.start < last and rhythm.stop > first],
        colours=colours_of(dict.fromkeys(note.strip("()") for note in notes)),
    )


def _draw(cut: _Cut, facts: list[str]) -> Figure:
    begin, end = cut.first / cut.fs, cut.last / cut.fs
    rows = math.ceil((end - begin) / _ROW - 1e-9)
    above = _BAR * bool(cut.rhythms) + _SYMBOL * bool(cut.beats) + _TICK * bool(len(cut.qrs))
    paper = sum(round((high - low) * PER_MV) for low, high in cut.ranges)
    height = rows * (above + paper + LINE + GAP)
    if height > _TALLEST:
        raise EcgpipeError(
            f"--seconds {end - begin:g}: makes a plot {height / 1000:.1f} m tall, and "
            f"{_TALLEST / 1000:g} m is the most; draw less at once"
        )
    width = LEFT + paper_width(min(end - begin, _ROW), PULSE) + EDGE
    layout = Layout(max(_NARROWEST, width))
    layout.header(facts[0], facts[1:])
    layout.y += LINE
    for row in range(rows):
        start = begin + row * _ROW
        stop = min(start + _ROW, end)
        layout.y += above
        _draw_marks(layout, cut, start, stop)
        section = Section(cut.leads, cut.millivolts, cut.ranges, cut.fs, cut.first, start, stop)
        layout.ecg(section, pulse=PULSE)
        layout.y += GAP
    layout.key(_key(cut))
    layout.y += EDGE - LINE
    return layout.figure()


def _draw_marks(layout: Layout, cut: _Cut, start: float, stop: float) -> None:
    """Draw QRS complexes, beats and rhythms from ``start`` to ``stop`` (s) above the paper."""
    y, first, last = layout.y, start * cut.fs - 1e-6, stop * cut.fs - 1e-6

    def x(sample: Any) -> Any:
        return LEFT + PULSE + (sample / cut.fs - start) * PER_S

    if len(cut.qrs):
        y -= _TICK
        _draw_ticks(layout, x(cut.qrs[(cut.qrs >= first) & (cut.qrs < last)]), y, BLUE)
    if cut.beats:
        y -= _SYMBOL
        for at, symbol in cut.beats:
            if first <= at < last:
                layout.text(x(at), y + 3.3, symbol, 9, _ink(symbol), ha="center")
    for rhythm in cut.rhythms:
        left, right = max(x(rhythm.start), LEFT + PULSE), min(x(rhythm.stop), x(stop * cut.fs))
        if left < right:
            colour = cut.colours[rhythm.name]
            layout.box(left, y - _BAR, right - left, _BAR - 1, colour, alpha=0.2)
            layout.box(left, y - 1.5, right - left, 0.5, colour)
            if text_width(rhythm.name, 7) + 2 <= right - left:
                layout.text(left + 1, y - 2.2, rhythm.name, 7, colour, weight="bold")


def _draw_ticks(layout: Layout, x: NDArray[np.float64], y: float, colour: str) -> None:
    layout.strokes((((at, y + 0.5), (at, y + 2.5)) for at in x), colour, 0.4)


def _ink(symbol: str) -> str:
    return ALARM if CLASS_OF_SYMBOL.get(symbol) in ("pac", "aberrated", "pvc") else INK


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
        "25 mm/s, 10 mm/mV" + (f", cut beyond {LIMIT:g} mV" if cut.is_clipped else ""),
    ]


def _key(cut: _Cut) -> list[Mark]:
    """What the marks mean."""
    rhythms = dict.fromkeys(rhythm.name for rhythm in cut.rhythms)
    symbols = dict.fromkeys(symbol for _, symbol in cut.beats)
    square = "\N{BLACK SQUARE}"
    return [
        *(Mark(square, cut.colours[n], f"{n} {RHYTHM_NAMES.get(n, '')}") for n in rhythms),
        *(Mark(symbol, _ink(symbol), BEAT_NAMES.get(symbol, "other beat")) for symbol in symbols),
        *([Mark("|", BLUE, "detected QRS")] if len(cut.qrs) else []),
    ]
