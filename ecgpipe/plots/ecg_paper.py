"""ECG paper to draw on: a figure in millimetres, with its ruling, traces and coloured words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox, TransformedBbox

INK, SOFT = "#16191c", "#5d6873"
_PAPER, _FINE, _COARSE = "#fffaf8", "#f6d9d4", "#e8a79d"
_POINT = 72 / 25.4  # points in a millimetre
_SIGN = 4  # mm that the sign of a key's entry takes


class Mark(NamedTuple):
    """An entry of the key: a sign with its colour, and what it means."""

    sign: str
    colour: str
    meaning: str


class Sheet:
    """A figure to draw on in millimetres, from its upper left corner; texts have sizes in points.

    Attributes
    ----------
    figure
        The matplotlib figure.
    """

    def __init__(self, width: float, height: float) -> None:
        # A hair more, since its pixels are rounded down.
        self.figure = Figure(((width + 1e-3) / 25.4, (height + 1e-3) / 25.4), facecolor="white")
        self._axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()

    def text(self, x: float, y: float, text: str, size: float, colour: str, **more: Any) -> None:
        """A text with its baseline at y."""
        self._axes.text(x, y, text, size=size, color=colour, **more)

    def mark(self, x: float, y: float, mark: Mark, size: float) -> None:
        """An entry of the key."""
        self.text(x + _SIGN / 2, y, mark.sign, size, mark.colour, ha="center", weight="bold")
        self.text(x + _SIGN, y, mark.meaning, size, SOFT)

    def box(
        self, x: float, y: float, width: float, height: float, colour: str, alpha: float = 1
    ) -> None:
        """A filled rectangle."""
        box = Rectangle((x, y), width, height, facecolor=colour, lw=0, alpha=alpha)
        self._axes.add_patch(box)

    def strokes(self, lines: Iterable[Any], colour: str, width: float) -> None:
        """Straight lines, each ((x, y), (x, y)), as one path."""
        points = np.reshape([*lines], (-1, 2))
        if len(points):
            path = Path(points, np.resize([Path.MOVETO, Path.LINETO], len(points)))
            patch = PathPatch(path, fill=False, ec=colour, lw=width * _POINT, snap=True)
            self._axes.add_patch(patch)

    def ruling(self, x: float, y: float, width: int, height: int) -> None:
        """The paper: small squares of 1 mm, large ones of 5 mm."""
        self.box(x, y, width, height, _PAPER)
        for step, colour, thick in ((1, _FINE, 0.1), (5, _COARSE, 0.15)):
            down = (((x + a, y), (x + a, y + height)) for a in range(0, width + 1, step))
            along = (((x, y + a), (x + width, y + a)) for a in range(0, height + 1, step))
            self.strokes((*down, *along), colour, thick)

    def trace(self, x: Any, y: Any, box: Any = None) -> None:
        """A signal; what lies outside of ``box``, two corners, is cut off."""
        (line,) = self._axes.plot(x, y, color=INK, lw=0.25 * _POINT)
        if box is not None:
            line.set_clip_box(TransformedBbox(Bbox(box), self._axes.transData))


def lines_of(items: Sequence[str], size: float, width: float) -> list[str]:
    """Items, with dots between them, as lines no wider than ``width`` mm where that is possible."""
    lines = [items[0]]
    for item in items[1:]:
        longer = f"{lines[-1]}  ·  {item}"
        if length(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(item)
    return lines


def spread(marks: Sequence[Mark], size: float, width: float) -> list[tuple[float, int, Mark]]:
    """Places for the entries of a key, side by side over ``width`` mm: x in mm, and the line."""
    places = []
    x, line = 0.0, 0
    for mark in marks:
        wide = _SIGN + length(mark.meaning, size)
        if x and x + wide > width:
            x, line = 0.0, line + 1
        places.append((x, line, mark))
        x += wide + 4
    return places


@lru_cache(maxsize=1000)
def length(text: str, size: float) -> float:
    """Width of a text, mm."""
    return float(TextPath((0, 0), text, size=size).get_extents().x1) / _POINT
