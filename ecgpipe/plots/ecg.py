"""ECG plots: a stretch of a recording on ECG paper, for a file or for the report."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    Signal,
    leads_text,
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
        The picture, ``.png``, ``.svg`` or ``.pdf``; it is returned.
    start
        In the record: seconds, ``m:ss`` or ``h:mm:ss``.
    seconds
        How much is drawn; less where the record ends before.

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
    excerpt = _excerpt(opened, record, first, first + max(1, round(seconds * record.fs)))
    with matplotlib.rc_context(STYLE):
        return save(_draw(excerpt, _facts(opened, record, excerpt)), out)


def seconds_of(time: str | float) -> float:
    """Seconds from ``90``, ``1:30`` or ``0:01:30``; raises an `EcgpipeError` for anything else."""
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
    drawn = Signal([""], signal[None], [value_range(signal, 2)], fs)
    with matplotlib.rc_context(PAGE_STYLE):
        layout = Layout(paper_width(_ROW) + 2 * GAP, PAGE)
        for start in np.arange(0, end, _ROW):
            stop = min(start + _ROW, end)
            at = example.qrs[(example.qrs >= start * fs) & (example.qrs < stop * fs)]
            _draw_ticks(layout, GAP + (at / fs - start) * PER_S, layout.y, PAGE_TINT)
            layout.y += _TICK
            layout.ecg(drawn, start, stop, left=GAP)
        return svg(layout.figure(), "ecg")


@dataclass(frozen=True, eq=False)
class _Excerpt:
    """A stretch of a record with its marks, whose positions are in the record."""

    signal: Signal  # one sample more, if there is one: a row ends where the next one starts
    last: int  # position of the end
    beats: list[tuple[int, str]]  # position, symbol
    qrs: NDArray[np.int32]
    rhythms: list[Stretch]
    colours: dict[str, str]  # by rhythm


def _excerpt(store: Store, record: Record, first: int, last: int) -> _Excerpt:
    """The samples ``[first, last)``, or fewer where the record ends before."""
    last = min(last, record.samples)

    def inside(marks: Marks) -> Marks:
        at = slice(*np.searchsorted(marks.index, [first, last]))
        return Marks(marks.index[at], marks.label[at])

    symbols, notes = store.recipe.beats, store.recipe.rhythms
    beats = inside(record.beats or NO_MARKS)
    rhythms = rhythm_stretches(record.rhythms, notes, record.samples)
    millivolts = record.cut(first, last + 1).millivolts()
    ranges = [value_range(lead) for lead in millivolts]
    return _Excerpt(
        Signal(record.leads, millivolts, ranges, record.fs, first),
        last,
        beats=[(int(at), symbols[label]) for at, label in zip(*beats, strict=True)],
        qrs=inside(record.qrs).index,
        rhythms=[rhythm for rhythm in rhythms if rhythm.start < last and rhythm.stop > first],
        colours=colours_of(dict.fromkeys(note.strip("()") for note in notes)),
    )


def _draw(excerpt: _Excerpt, facts: list[str]) -> Figure:
    signal = excerpt.signal
    begin, end = signal.first / signal.fs, excerpt.last / signal.fs
    rows = math.ceil((end - begin) / _ROW - 1e-9)
    above = _BAR * bool(excerpt.rhythms) + _SYMBOL * bool(excerpt.beats)
    above += _TICK * bool(len(excerpt.qrs))
    paper = sum(round((high - low) * PER_MV) for low, high in signal.ranges)
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
        _draw_marks(layout, excerpt, start, stop)
        layout.ecg(signal, start, stop, pulse=PULSE)
        layout.y += GAP
    layout.legend(_legend(excerpt))
    layout.y += EDGE - LINE
    return layout.figure()


def _draw_marks(layout: Layout, excerpt: _Excerpt, start: float, stop: float) -> None:
    """Draw QRS complexes, beats and rhythms from ``start`` to ``stop`` (s) above the paper."""
    y, fs, qrs = layout.y, excerpt.signal.fs, excerpt.qrs
    first, last = start * fs - 1e-6, stop * fs - 1e-6

    def x(sample: Any) -> Any:
        return LEFT + PULSE + (sample / fs - start) * PER_S

    if len(qrs):
        y -= _TICK
        _draw_ticks(layout, x(qrs[(qrs >= first) & (qrs < last)]), y, BLUE)
    if excerpt.beats:
        y -= _SYMBOL
        for at, symbol in excerpt.beats:
            if first <= at < last:
                layout.text(x(at), y + 3.3, symbol, 9, _beat_colour(symbol), ha="center")
    for rhythm in excerpt.rhythms:
        left, right = max(x(rhythm.start), LEFT + PULSE), min(x(rhythm.stop), x(stop * fs))
        if left < right:
            colour = excerpt.colours[rhythm.name]
            layout.box(left, y - _BAR, right - left, _BAR - 1, colour, alpha=0.2)
            layout.box(left, y - 1.5, right - left, 0.5, colour)
            if text_width(rhythm.name, 7) + 2 <= right - left:
                layout.text(left + 1, y - 2.2, rhythm.name, 7, colour, weight="bold")


def _draw_ticks(layout: Layout, x: NDArray[np.float64], y: float, colour: str) -> None:
    layout.strokes((((at, y + 0.5), (at, y + 2.5)) for at in x), colour, 0.4)


def _beat_colour(symbol: str) -> str:
    return ALARM if CLASS_OF_SYMBOL.get(symbol) in ("pac", "aberrated", "pvc") else INK


def _facts(store: Store, record: Record, excerpt: _Excerpt) -> list[str]:
    recipe, signal = store.recipe, excerpt.signal
    limits = (signal.first, excerpt.last, record.samples)
    begin, end, total = (clock(at / record.fs) for at in limits)
    clipped = any(
        lead.min() < low or lead.max() > high
        for lead, (low, high) in zip(signal.millivolts, signal.ranges, strict=True)
    )
    return [
        record.key,
        DATASETS[recipe.dataset].title + (", simulated" if recipe.simulated else ""),
        f"patient {record.patient}",
        *([f"labelled {', '.join(record.statements)}"] if record.statements else []),
        *(["no annotated beats"] if recipe.beats and record.beats is None else []),
        leads_text(record),
        f"{begin} to {end} of {total}",
        "25 mm/s, 10 mm/mV" + (f", cut beyond {LIMIT:g} mV" if clipped else ""),
    ]


def _legend(excerpt: _Excerpt) -> list[Mark]:
    rhythms = dict.fromkeys(rhythm.name for rhythm in excerpt.rhythms)
    beats = dict.fromkeys(symbol for _, symbol in excerpt.beats)
    square = "\N{BLACK SQUARE}"
    return [
        *(Mark(square, excerpt.colours[n], f"{n} {RHYTHM_NAMES.get(n, '')}") for n in rhythms),
        *(Mark(beat, _beat_colour(beat), BEAT_NAMES.get(beat, "other beat")) for beat in beats),
        *([Mark("|", BLUE, "detected QRS")] if len(excerpt.qrs) else []),
    ]
