"""ECG paper: a figure in millimetres, with the grid, the traces and the texts of ECG plots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.transforms import Bbox, TransformedBbox
from numpy.typing import NDArray

from ..progress import clock
from ..types import Record
from . import style
from .style import text_width, wrap, wrap_text

PER_S, PER_MV = 25, 10  # mm
EDGE, NAMES, PULSE = 8, 11, 10  # mm: margin, names of leads, calibration pulse
LEFT = EDGE + NAMES  # mm
LINE, GAP = 4.5, 5.0  # mm
LIMIT = 3.0  # mV around a lead's median that are drawn
_POINT = 72 / 25.4  # points in a millimetre
_SYMBOL = 4  # mm for the symbol of an entry of the legend


class Mark(NamedTuple):
    """An entry of the legend."""

    symbol: str
    colour: str
    meaning: str


class Colours(NamedTuple):
    """Colours of ECG paper."""

    ink: str
    soft: str  # of secondary texts
    fine: str  # grid lines of a millimetre, and of five
    coarse: str
    paper: str | None  # None: not filled


PRINT = Colours(style.INK, style.SOFT, "#f6d9d4", "#e8a79d", "#fffaf8")
PAGE = Colours(style.PAGE_INK, style.PAGE_SOFT, style.PAGE_FINE, style.PAGE_COARSE, None)


@dataclass(frozen=True, eq=False)
class Signal:
    """All leads of a stretch of a recording."""

    leads: Sequence[str]  # names
    millivolts: NDArray[np.float32]  # (leads, samples)
    ranges: Sequence[tuple[float, float]]  # lowest and highest mV drawn of each lead
    fs: float  # Hz
    first: int = 0  # position of the first of the samples in the recording


class Layout:
    """A figure in millimetres from its upper left corner; the next item goes to ``y``.

    Sizes of texts are in points.
    """

    def __init__(self, width: float, colours: Colours = PRINT) -> None:
        self.width, self.y, self.colours = width, 0.0, colours
        self._figure = Figure(facecolor="white")
        self.axes = self._figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()

    def figure(self) -> Figure:
        """The figure, as tall as what has been drawn down to ``y``."""
        height = math.ceil(self.y)
        # Slightly larger, since matplotlib rounds the number of pixels down.
        self._figure.set_size_inches((self.width + 1e-3) / 25.4, (height + 1e-3) / 25.4)
        self.axes.set(xlim=(0, self.width), ylim=(height, 0))
        return self._figure

    def text(
        self, x: float, y: float, text: str, size: float, colour: str | None = None, **more: Any
    ) -> None:
        """A text with its baseline at y."""
        self.axes.text(x, y, text, size=size, color=colour or self.colours.ink, **more)

    def header(self, title: str, facts: Sequence[str]) -> None:
        """A title, and facts on as many lines as they need."""
        self.y += EDGE + 4
        self.text(EDGE, self.y, title, 12, weight="bold")
        self.y += 0.5
        self.paragraph(facts, 8)

    def paragraph(self, items: Sequence[str], size: float) -> None:
        """Items on as many lines as they need."""
        for line in wrap_text(items, size, self.width - 2 * EDGE):
            self.y += LINE
            self.text(EDGE, self.y, line, size, self.colours.soft)

    def legend(self, marks: Sequence[Mark], size: float = 7) -> None:
        """Marks with their meaning, on as many lines as they need."""
        widths = [_SYMBOL + text_width(mark.meaning, size) for mark in marks]
        for line in wrap(widths, 4, self.width - 2 * EDGE):
            x = float(EDGE)
            for symbol, colour, meaning in (marks[item] for item in line):
                self.text(x + _SYMBOL / 2, self.y, symbol, size, colour, ha="center", weight="bold")
                self.text(x + _SYMBOL, self.y, meaning, size, self.colours.soft)
                x += _SYMBOL + text_width(meaning, size) + 4
            self.y += LINE

    def box(
        self, x: float, y: float, width: float, height: float, colour: str, alpha: float = 1
    ) -> None:
        """A filled rectangle."""
        self.axes.add_patch(Rectangle((x, y), width, height, fc=colour, lw=0, alpha=alpha))

    def strokes(self, lines: Iterable[Any], colour: str, width: float) -> None:
        """Straight lines, each ((x, y), (x, y)), ``width`` mm thick, as one path."""
        points = np.reshape([*lines], (-1, 2))
        if len(points):
            path = Path(points, np.resize([Path.MOVETO, Path.LINETO], len(points)))
            patch = PathPatch(path, fill=False, ec=colour, lw=width * _POINT, snap=True)
            self.axes.add_patch(patch)

    def trace(self, x: Any, y: Any, box: Any = None) -> None:
        """A signal, clipped to ``box`` (two corners)."""
        (line,) = self.axes.plot(x, y, color=self.colours.ink, lw=0.25 * _POINT)
        if box is not None:
            line.set_clip_box(TransformedBbox(Bbox(box), self.axes.transData))

    def ecg(
        self,
        signal: Signal,
        start: float,
        stop: float,
        left: float = LEFT,
        pulse: float = 0,
        scale: float = 1,
    ) -> None:
        """Draw ``start`` to ``stop`` (s) of a recording on ECG paper, one lead below another.

        The paper begins at ``left`` mm. ``pulse`` is the width in mm of the calibration pulse of
        1 mV and 0.2 s; 0 draws none. A scale of 1 is 25 mm/s and 10 mm/mV. Seconds are written
        below.
        """
        fs, zero, width = signal.fs, left + pulse, paper_width(stop - start, pulse, scale)
        first, last = math.ceil(start * fs - 1e-6), math.floor(stop * fs + 1e-6)
        last = min(last + 1, signal.first + signal.millivolts.shape[1])
        x = zero + (np.arange(first, last) / fs - start) * PER_S * scale
        drawn = signal.millivolts[:, first - signal.first : last - signal.first]
        for name, lead, (low, high) in zip(signal.leads, drawn, signal.ranges, strict=True):
            height = round((high - low) * PER_MV * scale)
            self._grid(left, self.y, width, height)
            middle = self.y + height / 2
            if name:
                self.text(left - 2, middle + 1, name, 9, ha="right", weight="bold")
            if pulse:
                up, down = middle - PER_MV / 2, middle + PER_MV / 2
                steps = np.array([1, 2.5, 2.5, 7.5, 7.5, 9])
                self.trace(left + steps, [down, down, up, up, down, down])
            box = [(left, self.y), (left + width, self.y + height)]
            self.trace(x, self.y + (high - lead) * PER_MV * scale, box)
            self.y += height
        for second in range(math.ceil(start - 1e-6), math.floor(stop + 1e-6) + 1):
            at = zero + (second - start) * PER_S * scale
            self.text(at, self.y + 3.5, clock(second), 6.5, self.colours.soft, ha="center")
        self.y += LINE

    def _grid(self, x: float, y: float, width: int, height: int) -> None:
        """Small squares of 1 mm, large ones of 5 mm."""
        if self.colours.paper:
            self.box(x, y, width, height, self.colours.paper)
        for step, colour, thick in ((1, self.colours.fine, 0.1), (5, self.colours.coarse, 0.15)):
            down = (((x + a, y), (x + a, y + height)) for a in range(0, width + 1, step))
            along = (((x, y + a), (x + width, y + a)) for a in range(0, height + 1, step))
            self.strokes((*down, *along), colour, thick)


def paper_width(seconds: float, pulse: float = 0, scale: float = 1) -> int:
    """Width of the paper, mm: the calibration pulse, and whole large squares."""
    return int(pulse) + 5 * math.ceil(seconds * PER_S * scale / 5 - 1e-6)


def value_range(millivolts: NDArray[np.float32], limit: float = LIMIT) -> tuple[float, float]:
    """Lowest and highest mV that are drawn of a lead, in multiples of 0.5 mV.

    All of the signal, 1.5 mV or more, and no more than ``limit`` mV around the median.
    """
    middle = float(np.median(millivolts))
    low = max(float(millivolts.min()), middle - limit)
    high = min(float(millivolts.max()), middle + limit)
    low, high = math.floor(2 * low - 0.1) / 2, math.ceil(2 * high + 0.1) / 2
    while high - low < 1.5:
        high, low = (high + 0.5, low) if high - middle <= middle - low else (high, low - 0.5)
    return low, high


def leads_text(record: Record) -> str:
    """Sampling rate and leads of a record."""
    return f"{record.fs:g} Hz, lead{'s' * (len(record.leads) > 1)} {', '.join(record.leads)}"
