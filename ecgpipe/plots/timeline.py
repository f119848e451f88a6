"""A recording with a model's answer, as a picture: a strip, or the course of a long recording.

A long recording is drawn as Holter printouts are: all of it, line under line, with the answer below
each line; above that, every class' probability over time; below, on ECG paper, the seconds in the
middle of the window where a class is most probable.
"""

from __future__ import annotations

import io
import math
from itertools import chain, cycle, pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from ..errors import EcgpipeError
from ..files.atomic import write_bytes
from ..inference.model import YES, Model
from ..inference.predict import Answered, chosen, clock, edges, shares
from .ecg import METADATA, STYLE
from .ecg_paper import INK, SOFT, Sheet, length, lines_of

_WIDTH, _EDGE, _LEFT = 150, 7, 11  # mm: of the picture, its margin, room for names
_DOTS = 8  # pixels a millimetre
_LINE, _TITLE, _BAR, _HEAT, _GAP = 4.5, 6.0, 5.0, 5.0, 7.0  # mm
_ROW, _SECONDS = 6.0, (10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)  # mm; s of an overview line
_MOST = 45  # lines of an overview, as long as a line is no hour
_STRIP, _PER_S, _PER_MV, _HIGH = 125, 25, 10, 3.0  # mm; mm; mm; mV around the median that are drawn
_UNITS = ((3600, "h"), (60, "min"))
_ALL = 60.0  # s that are drawn on ECG paper at the most
_HUES = ("#2f6db0", "#b8651b", "#6a5aa8", "#4a8791", "#9a4574", "#5f7132", "#8a5a3c", "#3a6ea5",
         "#a08a1e", "#54626f")  # fmt: skip
_KNOWN = {
    **dict.fromkeys(("N", "SR", "SNR", "normal"), "#3f8f5f"),
    **dict.fromkeys(("A", "AF", "AFIB", "afib"), "#c0392b"),
    **dict.fromkeys(("~", "none", "noise", "undefined"), "#8c949c"),
}


def plot_answer(model: Model, found: Answered, out: Path) -> Path:
    """Draw a recording with what a model says of it.

    Parameters
    ----------
    model
        Whose answer it is.
    found
        The recording and the answer.
    out
        The picture: ``.png``, ``.svg`` or ``.pdf``.

    Returns
    -------
    Path
        ``out``; the same answer gives the same bytes.

    Raises
    ------
    EcgpipeError
        An unknown kind of picture.
    """
    kind = out.suffix.lower()
    if kind not in METADATA:
        raise EcgpipeError(f"{out}: cannot be drawn; name a file that ends in .png, .svg or .pdf")
    picture = io.BytesIO()
    with matplotlib.rc_context({**STYLE, "path.simplify": True}):
        sheet = _Drawing(model, found).sheet
        sheet.figure.savefig(picture, format=kind[1:], dpi=25.4 * _DOTS, metadata=METADATA[kind])
    write_bytes(out, picture)
    return out


class _Drawing:
    """The sheet, filled from top to bottom; ``y`` is where the next thing goes."""

    def __init__(self, model: Model, found: Answered) -> None:
        self.model, self.found, self.answer = model, found, found.answer
        others = cycle(_HUES)
        self.hues = {name: _KNOWN.get(name) or next(others) for name in model.classes}
        self.names = [chosen(model, row) for row in self.answer.probability]
        self.millivolts = found.record.millivolts()
        self.is_long = len(self.answer.start) > 1
        # Many leads are drawn at half the size, so that 10 s fit and the sheet stays short.
        half = 1 if len(self.answer.leads) <= 3 else 0.5
        self.per_s, self.per_mv = _PER_S * half, _PER_MV * half
        self.strip = _STRIP / self.per_s  # s
        self.facts = self._facts()
        self.y = 0.0
        self.sheet = Sheet(_WIDTH, 1)  # drawn twice: the first time says how tall it is
        self.sheet = Sheet(_WIDTH, math.ceil(self._draw()))
        self._draw()

    def _facts(self) -> list[str]:
        answer, record, model = self.answer, self.found.record, self.model
        what = "one behind the other"
        if self.is_long and answer.start[1] - answer.start[0] < model.seconds - 1e-6:
            what = f"every {answer.start[1] - answer.start[0]:g} s"
        return [
            clock(answer.seconds) if self.is_long else f"{answer.seconds:.1f} s",
            f"{record.fs:g} Hz, lead{'s' * (len(record.leads) > 1)} {', '.join(record.leads)}",
            f"model of {model.card.task}, epoch {model.card.epoch}",
            *([f"{len(answer.start):,} windows of {model.seconds:g} s, {what}"] * self.is_long),
        ]

    def _draw(self) -> float:
        """Draw all of it; returns the height, mm."""
        self.y = _EDGE + 4.0
        title = key = self.found.record.key
        if not self.is_long:
            title = f"{key}: {' '.join(self.names[-1]) or 'none of its classes'}"
            title = title if length(title, 13) < _WIDTH - 2 * _EDGE else key
        self.sheet.text(_EDGE, self.y, title, 13, INK, weight="bold")
        for line in lines_of(self.facts, 8.5, _WIDTH - 2 * _EDGE):
            self.y += _LINE
            self.sheet.text(_EDGE, self.y, line, 8.5, SOFT)
        self.y += _LINE
        if not self.is_long:
            self._bars()
            record = self.found.record
            last = min(self.answer.seconds, _ALL)
            first = self.answer.seconds - last
            while first < self.answer.seconds - 1 / record.fs:
                self._strip(first, min(first + self.strip, self.answer.seconds))
                first += self.strip
        else:
            self._course()
            self._overview()
            self._clearest()
        self.y += _GAP - 1
        note = f"{self.per_s:g} mm/s, {self.per_mv:g} mm/mV on ECG paper"
        self.sheet.text(_EDGE, self.y, f"{note}.  For research; no medical device.", 7.5, SOFT)
        return self.y + _EDGE

    def _bars(self) -> None:
        """A bar for each class."""
        for name, p in zip(self.model.classes, self.answer.probability[-1], strict=True):
            hue, yes = self.hues[name], name in self.names[-1]
            weight = "bold" if yes else "normal"
            left = _EDGE + self._room()
            wide = _WIDTH - _EDGE - 14 - left
            self.sheet.text(left - 2, self.y + 3.2, name, 9, INK, ha="right", weight=weight)
            self.sheet.box(left, self.y, wide, _BAR - 1.2, "#eef0f2")
            self.sheet.box(left, self.y, wide * float(p), _BAR - 1.2, hue, 1 if yes else 0.45)
            self.sheet.text(
                _WIDTH - _EDGE, self.y + 3.2, f"{p:.3f}", 9, INK, ha="right", weight=weight
            )
            self.y += _BAR
        if self.model.answer == "many_of":
            left = _EDGE + self._room() + YES * (_WIDTH - 2 * _EDGE - 14 - self._room())
            top = self.y - _BAR * len(self.model.classes)
            self.sheet.strokes([((left, top - 0.5), (left, self.y - 0.7))], SOFT, 0.15)
        self.y += 3

    def _room(self) -> float:
        """Millimetres that the names of classes and leads need."""
        names = ("answer", *self.model.classes, *self.answer.leads)
        return max(_LEFT, max(length(name, 9) for name in names) + 3)

    def _heading(self, text: str) -> None:
        self.y += _GAP
        self.sheet.text(_EDGE, self.y, text, 10, INK, weight="bold")
        self.y += 3

    def _course(self) -> None:
        """The answer, and the probability of every class, over the time of the recording."""
        left, room = _EDGE + self._room(), _WIDTH - 2 * _EDGE - self._room()
        self.y -= _GAP / 2
        self._heading("Answer over time")
        said = shares(self.model, self.answer).split(", ")
        for line in lines_of(said, 8.5, _WIDTH - 2 * _EDGE):
            self.sheet.text(_EDGE, self.y + 2, line, 8.5, SOFT)
            self.y += _LINE
        border = left + edges(self.answer) / self.answer.seconds * room
        self._band(border, 4)
        self.sheet.text(left - 2, self.y + 3, "answer", 8.5, INK, ha="right")
        self.y += 5.5
        for name, p in zip(self.model.classes, self.answer.probability.T, strict=True):
            self._cells(border, self.y, _HEAT - 0.8, _shade(self.hues[name], p))
            self.sheet.text(left - 2, self.y + 3.1, name, 9, INK, ha="right")
            self.y += _HEAT
        for second in _ticks(self.answer.seconds):
            x = left + second / self.answer.seconds * room
            self.sheet.strokes([((x, self.y - 0.4), (x, self.y + 0.8))], SOFT, 0.2)
            self.sheet.text(x, self.y + 4, clock(second), 7.5, SOFT, ha="center")
        self.y += 3

    def _band(self, border: NDArray[np.float64], height: float) -> None:
        """A colour for each window: that of its answer, white where there is none."""
        order = self.answer.probability.argsort(1)[:, ::-1]
        colours = [
            to_rgb(self.hues[self.model.classes[best[0]]] if names else "#ffffff")
            for best, names in zip(order, self.names, strict=True)
        ]
        self._cells(border, self.y, height, np.array(colours))

    def _cells(
        self, border: NDArray[np.float64], y: float, height: float, colours: NDArray[np.float64]
    ) -> None:
        (axes,) = self.sheet.figure.axes
        axes.pcolormesh(border, [y, y + height], colours[None], antialiased=False, linewidth=0)

    def _overview(self) -> None:
        """All of the main lead, line under line, and the answer below each."""
        record, total = self.found.record, self.answer.seconds
        each = next((s for s in _SECONDS if total / s <= _MOST), _SECONDS[-1])
        signal = self.millivolts[0] - np.median(self.millivolts[0])
        tall = float(np.percentile(np.abs(signal), 99.8)) or 1.0
        per_mv = next((scale for scale in (10, 5, 2, 1) if scale * tall <= 0.55 * _ROW), 0.5)
        left, room = _EDGE + _LEFT, _WIDTH - 2 * _EDGE - _LEFT
        self._heading(f"Lead {record.leads[0]}, {_duration(each)} a line, {per_mv:g} mm/mV")
        border = edges(self.answer)
        for row in range(math.ceil(total / each - 1e-9)):
            begin, end = row * each, min((row + 1) * each, total)
            piece = signal[round(begin * record.fs) : round(end * record.fs)]
            if not len(piece):
                break
            piece = piece - np.median(piece)
            x, y = _envelope(piece, round(room * _DOTS * len(piece) / (each * record.fs)))
            width = room * (end - begin) / each
            centre = self.y + 0.5 * _ROW
            box = [(left, self.y), (left + width, self.y + _ROW)]
            self.sheet.trace(left + x * width, centre - y * per_mv, box)
            self.sheet.text(left - 2, centre + 1, clock(begin), 7.5, SOFT, ha="right")
            at = slice(*np.searchsorted(border, [begin + 1e-9, end - 1e-9]))
            inner = np.array([begin, *border[at], end])
            windows = slice(at.start - 1, at.start + len(inner) - 2)
            self._under(left + (inner - begin) / each * room, windows)
            self.y += _ROW + 1

    def _under(self, border: NDArray[np.float64], windows: slice) -> None:
        order = self.answer.probability[windows].argmax(1)
        cells = zip(pairwise(border), order, self.names[windows], strict=True)
        for (x, stop), best, names in cells:
            if names:
                hue = self.hues[self.model.classes[best]]
                self.sheet.box(x, self.y + _ROW - 0.4, stop - x, 0.9, hue)

    def _clearest(self) -> None:
        """For every class that is answered, the middle of its clearest window."""
        for at, name in enumerate(self.model.classes):
            if name not in chain.from_iterable(self.names):
                continue
            best = int(self.answer.probability[:, at].argmax())
            middle = (self.answer.start[best] + self.answer.stop[best]) / 2
            p = self.answer.probability[best, at]
            self._heading(f"Most clearly {name}, {p:.3f}, at {clock(middle)}")
            self.y -= 1
            self._strip(max(0.0, middle - self.strip / 2), middle + self.strip / 2)
            self.y -= 3

    def _strip(self, first: float, last: float) -> None:
        """Seconds of all used leads on ECG paper."""
        record = self.found.record
        left = _EDGE + _LEFT
        width = 5 * math.ceil((last - first) * self.per_s / 5 - 1e-6)
        samples = np.arange(math.ceil(first * record.fs - 1e-6), math.floor(last * record.fs) + 1)
        samples = samples[samples < record.samples]
        for name, lead in zip(record.leads, self.millivolts, strict=True):
            part = lead[samples]
            middle = float(np.median(part))
            low = math.floor(2 * max(part.min() - 0.05, middle - _HIGH)) / 2
            high = math.ceil(2 * min(part.max() + 0.05, middle + _HIGH)) / 2
            height = max(10, round((high - low) * self.per_mv))
            self.sheet.ruling(left, self.y, width, height)
            self.sheet.text(left - 2, self.y + height / 2 + 1, name, 9, INK, ha="right")
            box = [(left, self.y), (left + width, self.y + height)]
            place = left + (samples / record.fs - first) * self.per_s
            self.sheet.trace(place, self.y + (high - part) * self.per_mv, box)
            self.y += height
        for second in range(math.ceil(first - 1e-6), math.floor(last + 1e-6) + 1):
            x = left + (second - first) * self.per_s
            self.sheet.text(x, self.y + 3.3, clock(second), 7, SOFT, ha="center")
        self.y += 7


def _shade(hue: str, share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours from nearly white to the hue, (n, 3)."""
    ground = np.array(to_rgb("#f1f3f5"))
    return ground + share[:, None] * (np.array(to_rgb(hue)) - ground)


def _envelope(signal: NDArray[Any], columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lowest and highest value of each column of pixels, as a line; all samples where they fit."""
    if len(signal) <= 2 * columns or columns < 1:
        return np.arange(len(signal)) / max(1, len(signal)), signal
    starts = np.linspace(0, len(signal), columns, endpoint=False).astype(int)
    pairs = [np.minimum.reduceat(signal, starts), np.maximum.reduceat(signal, starts)]
    return np.repeat(starts / len(signal), 2), np.stack(pairs, 1).reshape(-1)


def _duration(seconds: int) -> str:
    size, name = next((unit for unit in _UNITS if seconds % unit[0] == 0), (1, "s"))
    return f"{seconds // size} {name}"


def _ticks(total: float) -> list[float]:
    """Whole times, about five of them."""
    steps = (5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600)
    step = next((s for s in steps if total / s <= 5.5), 86400)
    return [float(second) for second in range(0, int(total) + 1, step)]
