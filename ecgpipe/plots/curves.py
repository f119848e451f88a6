"""Figures of the report as inline SVG that takes its ink from the page, light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from ..training.outputs import Example

BLUES = ("#3b82c4", "#1f9e9e", "#7a68c8", "#5b8c3a")  # pretrained
REDS = ("#d64541", "#c9772b", "#b0447e", "#8f5a3c")  # random weights
_BY_START = dict(zip(("random", "beat", "rhythm", "heart_rate", "future"), (REDS[0], *BLUES),
                     strict=True))  # fmt: skip
_INK, _RULE = "#010203", "#040506"  # stand for the page's colours until the SVG is written
_STEPS = [1, 2, 5, 10]  # of values on an axis: two decimals are enough for all ticks
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ecgpipe",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "text.color": _INK,
    "text.parse_math": False,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _RULE,
    "grid.linewidth": 0.5,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}


class Curve(NamedTuple):
    """One line of a figure; several repeats of it become a mean with a band."""

    label: str
    colour: str
    repeats: Sequence[NDArray[np.float64]]  # (epochs,) each, not all of one length


class _Course(NamedTuple):
    """A line's mean and deviation over its repeats, at each epoch."""

    mean: NDArray[np.float64]  # (epochs,)
    std: NDArray[np.float64] | None  # (epochs that all ran,); None for a single repeat
    all_run: int


def curves(
    lines: Sequence[Curve],
    ylabel: str,
    width: float = 5.6,
    height: float = 3.2,
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> str:
    """Curves over the epochs.

    The line is the mean over the repeats and the band their standard deviation (ddof = 1). Past
    the epoch at which the first repeat stopped, the mean is over the rest, and the line is thin.

    Parameters
    ----------
    width, height
        Of the figure, inches.
    limits
        Of the epochs and of the values; None takes what the curves need.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot(xlabel="epoch", ylabel=ylabel)
        for line in lines:
            _draw(axes, line)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(8, steps=_STEPS))
        axes.margins(x=0.02)
        if limits:
            axes.set_xlim(limits[0])
            axes.set_ylim(limits[1])
        axes.legend(loc="lower right" if limits else "best")
        return svg(figure)


def panels(lines: Sequence[Curve], base: Curve | None, ylabel: str) -> list[str]:
    """Small multiples with the same axes, like the paper's Figure 3.

    Parameters
    ----------
    lines
        One for each panel.
    base
        Drawn in each of them.
    """
    every = [*lines, *([base] if base else [])]
    courses = [_course(line) for line in every]
    low = min(float(np.nanmin(course.mean)) for course in courses)
    high = max(float(np.nanmax(course.mean + _padded(course))) for course in courses)
    last, pad = max(len(course.mean) for course in courses), 0.04 * (high - low) + 0.005
    limits = ((1 - 0.02 * last, last + 0.02 * last), (low - pad, min(high + pad, 1.0)))
    drawn = [[*([base] if base else []), line] for line in lines] or [every]
    return [curves(here, ylabel, 3.9, 2.7, limits) for here in drawn]


def _padded(course: _Course) -> NDArray[np.float64]:
    wide = np.zeros(len(course.mean))
    if course.std is not None:
        wide[: course.all_run] = course.std
    return wide


def _course(line: Curve) -> _Course:
    longest = max(len(values) for values in line.repeats)
    all_run = min(len(values) for values in line.repeats)
    table = np.full((len(line.repeats), longest), np.nan)
    for row, values in zip(table, line.repeats, strict=True):
        row[: len(values)] = values
    exist = ~np.isnan(table)
    counted = np.maximum(exist.sum(0), 1)
    mean = np.where(exist.any(0), np.where(exist, table, 0).sum(0) / counted, np.nan)
    std = table[:, :all_run].std(0, ddof=1) if len(line.repeats) > 1 else None
    return _Course(mean, std, all_run)


def _draw(axes: Axes, line: Curve) -> None:
    mean, std, all_run = _course(line)
    epoch = np.arange(1, len(mean) + 1)
    marker = "o" if len(mean) < 3 else None
    axes.plot(epoch[:all_run], mean[:all_run], color=line.colour, lw=1.8, marker=marker,
              label=line.label)  # fmt: skip
    axes.plot(epoch[all_run - 1 :], mean[all_run - 1 :], color=line.colour, lw=0.7)
    if std is not None:
        axes.fill_between(epoch[:all_run], mean[:all_run] - std, mean[:all_run] + std,
                          color=line.colour, alpha=0.18, lw=0)  # fmt: skip


class Series(NamedTuple):
    """One initialisation in the plot of label efficiency."""

    label: str
    colour: str
    ours: Sequence[tuple[int, float, float]]  # training records, mean, deviation (0: unknown)
    paper: Sequence[tuple[int, float, float]] = ()


def efficiency(series: Sequence[Series], ylabel: str) -> str:
    """A score against the number of training records: ours filled, the paper's hollow and dashed.

    Bars are standard deviations over the repeats (ddof = 1). Of several at one number, the marks
    are moved apart a little.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.8), layout="constrained")
        axes = figure.add_subplot(xlabel="training recordings", ylabel=ylabel)
        numbers = [point[0] for line in series for point in (*line.ours, *line.paper)]
        step = 0.012 * max(numbers)
        for place, line in enumerate(series):
            shift = (place - (len(series) - 1) / 2) * step
            if line.paper:
                x, y, _ = zip(*line.paper, strict=True)
                axes.plot(np.add(x, shift), y, "o--", color=line.colour, mfc="none", lw=0.9, ms=5)
            x, y, std = zip(*line.ours, strict=True)
            axes.errorbar(np.add(x, shift), y, std, fmt="o-", color=line.colour, lw=1.8, ms=5,
                          elinewidth=1.1, capsize=2.5, label=line.label)  # fmt: skip
        if any(line.paper for line in series):
            axes.plot([], [], "o--", color=_INK, mfc="none", lw=0.9,
                      ms=5, label="the paper")  # fmt: skip
        axes.set_xlim(0, max(numbers) * 1.08)
        axes.set_xticks(sorted({point[0] for line in series for point in line.ours}))
        axes.yaxis.set_major_locator(MaxNLocator(8, steps=_STEPS))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure)


def colour_of(name: str) -> str:
    """The colour of an initialisation, the same in every figure."""
    return _BY_START.get(name, REDS[3])


def pretraining_curves(history: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Loss and scores of a pretraining over its epochs, two figures."""
    panels = (
        ("loss (nats)", {"train": "train_loss", "validation": "validation_loss"}),
        (
            "score",
            {
                "train accuracy": "train_accuracy",
                "validation accuracy": "validation_accuracy",
                "validation macro F1": "validation_macro_f1",
            },
        ),
    )
    colours = {"train": REDS[1], "validation": BLUES[0], "train accuracy": REDS[1],
               "validation accuracy": BLUES[0], "validation macro F1": BLUES[2]}  # fmt: skip
    return [
        curves(
            [
                Curve(label, colours[label], [history[column]])
                for label, column in columns.items()
                if column in history
            ],
            ylabel,
            4.2,
            2.8,
        )
        for ylabel, columns in panels
        if any(column in history for column in columns.values())
    ]


def svg(figure: Figure) -> str:
    """The figure without anything that names a time, a program or an address."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = text[text.index("<defs>") :].replace("xlink:href", "href")
    text = re.sub(r'<style.*?</style>|(?<=<g) id="[^"]*"', "", text, flags=re.DOTALL)
    text = re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", text)
    text = text.replace(_INK, "currentColor").replace(_RULE, "var(--rule)")
    width, height = 72 * figure.get_size_inches()
    return f'<svg class="plot" role="img" viewBox="0 0 {width:g} {height:g}">{text}'


_SECONDS = 10  # of a row
_MV, _S = 1000, 2500  # hundredths of a millimetre: 10 mm/mV and 25 mm/s


def strip(example: Example, most: int | None = None) -> str:
    """A recording on ECG paper: 25 mm/s, 10 mm/mV, rows of 10 s, a tick above every QRS complex.

    Coordinates are hundredths of a millimetre, so that the proportions are those of the paper; the
    fine grid is 0.04 s by 0.1 mV, the coarse one 0.2 s by 0.5 mV. ``most`` limits the rows.
    """
    low, high = _window(example.signal)
    height, width, gap = round((high - low) * _MV), _SECONDS * _S, 620
    per_row = max(1, round(_SECONDS * example.fs))
    count = min(-(-len(example.signal) // per_row), most or len(example.signal))
    y = np.rint((high - example.signal) * _MV).astype(int)
    parts = []
    for row in range(count):
        # One sample more, so that a row ends where the next one starts.
        here = y[row * per_row : (row + 1) * per_row + 1]
        x = np.rint(np.arange(len(here)) / example.fs * _S).astype(int)
        end = min(width, -(-int(x[-1]) // 500) * 500)
        marks = example.qrs[(example.qrs >= row * per_row) & (example.qrs < (row + 1) * per_row)]
        ticks = np.rint((marks - row * per_row) / example.fs * _S).astype(int)
        top = row * (height + gap)
        parts.append(
            f'<text x="0" y="{top + 290}" class="when">{row * _SECONDS} s</text>'
            + "".join(f'<path class="qrs" d="M{t} {top + gap - 30}v-220"/>' for t in ticks)
            + f'<svg y="{top + gap}" width="{width}" height="{height}">'
            + f'<path class="fine" d="{_grid(end, height, 100)}"/>'
            + f'<path class="coarse" d="{_grid(end, height, 500)}"/>'
            + f'<path class="trace" d="{_trace(x, here)}"/></svg>'
        )
    total = count * (height + gap)
    box = f"-20 0 {width + 40} {total + 20}"
    return f'<svg class="strip" role="img" viewBox="{box}">{"".join(parts)}</svg>'


def _window(signal: NDArray[np.float32]) -> tuple[float, float]:
    """Lowest and highest mV shown, on the coarse grid: nearly all of the signal, at most 4 mV."""
    middle = float(np.median(signal))
    low, high = np.percentile(signal, [0.2, 99.8])
    low, high = max(low - 0.1, middle - 2), min(high + 0.1, middle + 2)
    low, high = np.floor(2 * low) / 2, np.ceil(2 * high) / 2
    while high - low < 2:
        high, low = (high + 0.5, low) if high - middle <= middle - low else (high, low - 0.5)
    return float(low), float(high)


def _grid(width: int, height: int, step: int) -> str:
    down = "".join(f"M{x} 0v{height}" for x in range(0, width + 1, step))
    return down + "".join(f"M0 {y}h{width}" for y in range(0, height + 1, step))


def _trace(x: NDArray[np.int_], y: NDArray[np.int_]) -> str:
    steps = "".join(f"{a} {b} " for a, b in zip(np.diff(x), np.diff(y), strict=True))
    return f"M{x[0]} {y[0]}l{steps}".rstrip("l ")
