"""A recording with a model's predictions: an ECG plot, or the timeline of a long recording.

A timeline looks like a Holter printout: the probability of every class over time; the whole
recording line by line, with the predictions below each line; and on ECG paper the middle of the
window in which each class is most probable.
"""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..inference.model import Model
from ..inference.prediction import THRESHOLD, Prediction
from ..progress import clock
from .ecg_paper import EDGE, LEFT, LINE, PER_MV, PER_S, Layout, Signal, leads_text, value_range
from .style import PIXELS_PER_MM, STYLE, check_format, colours_of, save, text_width

_PAPER = 125  # mm of ECG paper on a line
_WIDTH = LEFT + _PAPER + EDGE
_BAR, _HEAT, _ROW, _GAP = 5.0, 5.0, 6.0, 7.0  # mm
_MAX_ROWS = 45  # of the overview, if a row is shorter than an hour
_MAX_SECONDS = 60.0  # drawn on ECG paper
_STEPS = (5, 10, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 14400, 21600, 86400)  # s


def plot_prediction(model: Model, prediction: Prediction, out: Path) -> Path:
    """Draw a recording with a model's predictions; the same prediction gives the same bytes.

    ``out``, which is returned, is a ``.png``, ``.svg`` or ``.pdf``; an `EcgpipeError` is raised
    for another format.
    """
    check_format(out)
    with matplotlib.rc_context(STYLE):
        return save(_Drawing(model, prediction).figure(), out)


class _Drawing:
    """The plot, filled from top to bottom."""

    def __init__(self, model: Model, prediction: Prediction) -> None:
        self.model, self.prediction, self.record = model, prediction, prediction.record
        self.colours = colours_of(model.classes)
        self.millivolts = self.record.millivolts()
        self.is_long = len(prediction.start) > 1
        # Many leads are drawn at half the size: 10 s fit on a line, and the plot stays short.
        self.scale = 1 if len(self.record.leads) <= 3 else 0.5
        self.seconds = _PAPER / (PER_S * self.scale)  # of a line of ECG paper
        names = ("prediction", *model.classes, *self.record.leads)
        self.left = EDGE + max(LEFT - EDGE, max(text_width(name, 9) for name in names) + 3)
        self.width = _WIDTH - EDGE - self.left
        self.layout = Layout(_WIDTH)

    def figure(self) -> Figure:
        """Draw everything."""
        layout, end = self.layout, self.prediction.seconds
        title = key = self.record.key
        if not self.is_long:
            title = f"{key}: {' '.join(self.prediction.windows[-1]) or 'none of its classes'}"
            title = title if text_width(title, 13) < _WIDTH - 2 * EDGE else key
        layout.header(title, self._facts())
        layout.y += LINE
        if self.is_long:
            self._probabilities()
            self._overview()
            self._examples()
        else:
            self._bars()
            start = max(0.0, end - _MAX_SECONDS)
            while start < end - 1 / self.record.fs:
                self._ecg(start, min(start + self.seconds, end))
                start += self.seconds
        layout.y += _GAP - 1
        scales = f"{PER_S * self.scale:g} mm/s, {PER_MV * self.scale:g} mm/mV on ECG paper"
        note = f"{scales}.  For research; no medical device."
        layout.text(EDGE, layout.y, note, 7.5, layout.colours.soft)
        layout.y += EDGE
        return layout.figure()

    def _facts(self) -> list[str]:
        item, record, model = self.prediction, self.record, self.model
        step = item.start[1] - item.start[0] if self.is_long else 0.0
        how = f"every {step:g} s" if step < model.seconds - 1e-6 else "without overlap"
        return [
            clock(round(item.seconds)) if self.is_long else f"{item.seconds:.1f} s",
            leads_text(record),
            f"model of {model.card.task}, epoch {model.card.epoch}",
            *([f"{len(item.start):,} windows of {model.seconds:g} s, {how}"] * self.is_long),
        ]

    def _name(self, name: str, y: float, **more: Any) -> None:
        """A name in the left margin."""
        self.layout.text(self.left - 2, y, name, 9, ha="right", **more)

    def _bars(self) -> None:
        """A bar for each class; where there can be several, with a line at the threshold."""
        layout, full, top = self.layout, self.width - 14, self.layout.y
        item = self.prediction
        for name, p in zip(item.classes, item.probability[-1], strict=True):
            predicted = name in item.windows[-1]
            weight = "bold" if predicted else "normal"
            self._name(name, layout.y + 3.2, weight=weight)
            layout.box(self.left, layout.y, full, _BAR - 1.2, "#eef0f2")
            width, alpha = full * float(p), 1 if predicted else 0.45
            layout.box(self.left, layout.y, width, _BAR - 1.2, self.colours[name], alpha)
            layout.text(_WIDTH - EDGE, layout.y + 3.2, f"{p:.3f}", 9, ha="right", weight=weight)
            layout.y += _BAR
        if item.many_of:
            x = self.left + THRESHOLD * full
            layout.strokes([((x, top - 0.5), (x, layout.y - 0.7))], layout.colours.soft, 0.15)
        layout.y += 3

    def _heading(self, text: str) -> None:
        self.layout.y += _GAP
        self.layout.text(EDGE, self.layout.y, text, 10, weight="bold")
        self.layout.y += 3

    def _probabilities(self) -> None:
        """The predicted class, and the probability of every class, over time."""
        layout, item = self.layout, self.prediction
        layout.y -= _GAP / 2
        self._heading("Prediction over time")
        layout.y += 2 - LINE
        layout.paragraph(item.shares(), 8.5)
        layout.y += LINE - 2
        edges = self.left + item.edges / item.seconds * self.width
        best = [item.classes[at] for at in item.probability.argmax(1)]
        shown = [
            self.colours[name] if names else "#ffffff"
            for name, names in zip(best, item.windows, strict=True)
        ]
        self._cells(edges, 4, np.array([to_rgb(colour) for colour in shown]))
        self._name("prediction", layout.y + 3)
        layout.y += 5.5
        for name, p in zip(item.classes, item.probability.T, strict=True):
            self._cells(edges, _HEAT - 0.8, _shades(self.colours[name], p))
            self._name(name, layout.y + 3.1)
            layout.y += _HEAT
        for second in range(0, int(item.seconds) + 1, _step(item.seconds, 5.5)):
            x = self.left + second / item.seconds * self.width
            layout.strokes([((x, layout.y - 0.4), (x, layout.y + 0.8))], layout.colours.soft, 0.2)
            layout.text(x, layout.y + 4, clock(second), 7.5, layout.colours.soft, ha="center")
        layout.y += 3

    def _cells(
        self, edges: NDArray[np.float64], height: float, colours: NDArray[np.float64]
    ) -> None:
        """A row of cells with the colours (n, 3) between the edges (n + 1,), mm."""
        y = [self.layout.y, self.layout.y + height]
        self.layout.axes.pcolormesh(edges, y, colours[None], antialiased=False, linewidth=0)

    def _overview(self) -> None:
        """The first lead of the whole recording, line by line, with the predictions below."""
        layout, fs, total = self.layout, self.record.fs, self.prediction.seconds
        seconds = min(max(10, _step(total, _MAX_ROWS)), 3600)  # of a row
        signal = self.millivolts[0] - np.median(self.millivolts[0])
        amplitude = float(np.percentile(np.abs(signal), 99.8)) or 1.0  # mV
        per_mv = next((mm for mm in (10, 5, 2, 1) if mm * amplitude <= 0.55 * _ROW), 0.5)
        size, unit = next((u for u in ((3600, "h"), (60, "min")) if seconds % u[0] == 0), (1, "s"))
        scale = f"{seconds // size} {unit} a line, {per_mv:g} mm/mV"
        self._heading(f"Lead {self.record.leads[0]}, {scale}")
        per_s = _PAPER / seconds
        for start in range(0, math.ceil(total - 1e-9), seconds):
            stop = min(start + seconds, total)
            piece = signal[round(start * fs) : round(stop * fs)]
            if not len(piece):
                break
            at, values = _envelope(piece, round(len(piece) / fs * per_s * PIXELS_PER_MM))
            x = LEFT + at / fs * per_s
            y = layout.y + 0.5 * _ROW
            box = [(LEFT, layout.y), (LEFT + (stop - start) * per_s, layout.y + _ROW)]
            layout.trace(x, y - (values - np.median(piece)) * per_mv, box)
            layout.text(LEFT - 2, y + 1, clock(start), 7.5, layout.colours.soft, ha="right")
            self._predictions_below(start, stop, per_s)
            layout.y += _ROW + 1

    def _predictions_below(self, start: float, stop: float, per_s: float) -> None:
        """The predictions from ``start`` to ``stop`` (s) below a line of the overview."""
        item = self.prediction
        windows = zip(pairwise(item.edges), item.probability.argmax(1), item.windows, strict=True)
        for (left, right), best, names in windows:
            left, right = max(left, start), min(right, stop)
            if names and left < right:
                x, width = LEFT + (left - start) * per_s, (right - left) * per_s
                colour = self.colours[item.classes[best]]
                self.layout.box(x, self.layout.y + _ROW - 0.4, width, 0.9, colour)

    def _examples(self) -> None:
        """For every predicted class, the middle of the window in which it is most probable."""
        item = self.prediction
        for name, p in zip(item.classes, item.probability.T, strict=True):
            if any(name in names for names in item.windows):
                best = int(p.argmax())
                middle = (item.start[best] + item.stop[best]) / 2
                self._heading(f"Most clearly {name}, {p[best]:.3f}, at {clock(round(middle))}")
                self.layout.y -= 1
                start, stop = middle - self.seconds / 2, middle + self.seconds / 2
                self._ecg(max(0.0, start), min(stop, item.seconds))
                self.layout.y -= 3

    def _ecg(self, start: float, stop: float) -> None:
        """All used leads from ``start`` to ``stop`` (s) on ECG paper."""
        fs = self.record.fs
        shown = self.millivolts[:, math.floor(start * fs) : math.floor(stop * fs) + 1]
        ranges = [value_range(lead) for lead in shown]
        signal = Signal(self.record.leads, self.millivolts, ranges, fs)
        self.layout.ecg(signal, start, stop, scale=self.scale)
        self.layout.y += 2.5


def _shades(colour: str, share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours from nearly white (0) to the given one (1), (n, 3)."""
    ground = np.array(to_rgb("#f1f3f5"))
    return ground + share[:, None] * (np.array(to_rgb(colour)) - ground)


def _envelope(signal: NDArray[Any], columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Lowest and highest value of each column of pixels, or all samples if they fit.

    Returns sample numbers, and the values at them.
    """
    if len(signal) <= 2 * columns or columns < 1:
        return np.arange(len(signal)), signal
    starts = np.linspace(0, len(signal), columns, endpoint=False).astype(int)
    pairs = [np.minimum.reduceat(signal, starts), np.maximum.reduceat(signal, starts)]
    return np.repeat(starts, 2), np.stack(pairs, 1).reshape(-1)


def _step(seconds: float, most: float) -> int:
    """The shortest usual time that goes at most ``most`` times into ``seconds``."""
    return next((step for step in _STEPS if seconds / step <= most), _STEPS[-1])
