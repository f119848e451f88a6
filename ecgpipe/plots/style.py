"""One style for all figures: colours, fonts, wrapped text, and files with stable bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from ..errors import EcgpipeError
from ..files.atomic import write_bytes

INK, SOFT, ALARM, BLUE = "#16191c", "#5d6873", "#b3261e", "#2f6db0"
# Placeholders for the colours of the HTML page, which has a light and a dark theme.
PAGE_INK, PAGE_RULE, PAGE_SOFT = "#010203", "#040506", "#070809"
PAGE_FINE, PAGE_COARSE, PAGE_TINT = "#0a0b0c", "#0d0e0f", "#101112"
_PAGE_COLOURS = {
    PAGE_INK: "currentColor",
    PAGE_RULE: "var(--rule)",
    PAGE_SOFT: "var(--soft)",
    PAGE_FINE: "rgba(var(--grid), .22)",
    PAGE_COARSE: "rgba(var(--grid), .45)",
    PAGE_TINT: "rgb(var(--tint))",
}
_CLASS_COLOURS = {
    **dict.fromkeys(("N", "SR", "SNR", "normal"), "#3f7f5a"),
    **dict.fromkeys(("A", "AF", "AFIB", "afib"), "#c0392b"),
    **dict.fromkeys(("AFL", "aflutter"), "#b8651b"),
    **dict.fromkeys(("~", "none", "noise", "undefined"), "#8c949c"),
    "SBR": "#4a8791",
}
_OTHER_COLOURS = (BLUE, "#6a5aa8", "#9a4574", "#5f7132", "#8a5a3c", "#3a6ea5", "#a08a1e", "#54626f")

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ecgpipe",
    "pdf.fonttype": 42,
    "font.family": ["DejaVu Sans"],
    "text.parse_math": False,
    "path.simplify": False,  # every sample is drawn
}
PAGE_STYLE: dict[Any, Any] = {
    **STYLE,
    "font.size": 9,
    "text.color": PAGE_INK,
    "axes.edgecolor": PAGE_RULE,
    "axes.labelcolor": PAGE_INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PAGE_RULE,
    "grid.linewidth": 0.5,
    "xtick.color": PAGE_INK,
    "ytick.color": PAGE_INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "path.simplify": True,  # to a ninth of a point
}
# No times and no names of programs: the same data give the same bytes.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    ".pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}
PIXELS_PER_MM = 8  # a whole number, so that all lines of a grid in mm are equally dark


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """A colour for each class or rhythm: its own if it has one, else the next of a palette."""
    others = cycle(_OTHER_COLOURS)
    return {name: _CLASS_COLOURS.get(name) or next(others) for name in names}


@lru_cache(maxsize=1000)
def text_width(text: str, size: float) -> float:
    """Width in mm of a text of ``size`` points."""
    return float(TextPath((0, 0), text, size=size).get_extents().x1) / 72 * 25.4


def wrap(widths: Sequence[float], gap: float, line_width: float) -> list[list[int]]:
    """Distribute items over lines no wider than ``line_width``, where that is possible.

    All sizes are in mm; ``gap`` is the space between two items of a line. Returns the positions
    in ``widths`` of each line's items.
    """
    lines: list[list[int]] = []
    used = 0.0
    for item, width in enumerate(widths):
        if lines and used + gap + width <= line_width:
            lines[-1].append(item)
            used += gap + width
        else:
            lines.append([item])
            used = width
    return lines


def wrap_text(items: Sequence[str], size: float, line_width: float) -> list[str]:
    """Join items with dots, on lines no wider than ``line_width`` mm where that is possible."""
    dot = "  ·  "
    lines = wrap(
        [text_width(item, size) for item in items], text_width(f"{dot}.", size), line_width
    )
    return [dot.join(items[item] for item in line) for line in lines]


def check_format(out: Path) -> None:
    """Raise an `EcgpipeError` for a file that is not .png, .svg or .pdf."""
    if out.suffix.lower() not in _METADATA:
        raise EcgpipeError(f"{out}: cannot be drawn; name a file that ends in .png, .svg or .pdf")


def save(figure: Figure, out: Path) -> Path:
    """Write a figure as ``.png``, ``.svg`` or ``.pdf``; the same figure gives the same bytes."""
    kind, picture = out.suffix.lower(), io.BytesIO()
    metadata = _METADATA[kind]
    figure.savefig(picture, format=kind[1:], dpi=25.4 * PIXELS_PER_MM, metadata=metadata)
    write_bytes(out, picture)
    return out


def svg(figure: Figure, css_class: str = "plot") -> str:
    """A figure as inline SVG with the colours of the HTML page, without ids, times or addresses."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata=_METADATA[".svg"])
    text = out.getvalue()
    text = text[text.index("<defs>") :].replace("xlink:href", "href")
    text = re.sub(r'<style.*?</style>|(?<=<g) id="[^"]*"', "", text, flags=re.DOTALL)
    text = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", text)
    for colour, of_page in _PAGE_COLOURS.items():
        text = text.replace(colour, of_page)
    width, height = 72 * figure.get_size_inches()
    return f'<svg class="{css_class}" role="img" viewBox="0 0 {width:g} {height:g}">{text}'
