"""Figures of reports and flow pages: learning curves and label efficiency, as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from .style import PAGE_INK, PAGE_STYLE, svg

BLUES = ("#3b82c4", "#1f9e9e", "#7a68c8", "#5b8c3a")  # pretrained
REDS = ("#d64541", "#c9772b", "#b0447e", "#8f5a3c")  # random weights
COLOURS = dict(zip(("random", "beat", "rhythm", "heart_rate", "future"), (REDS[0], *BLUES),
                   strict=True))  # of initialisations, in every figure  # fmt: skip
_STEPS = [1, 2, 5, 10]  # of values on an axis: two decimals are enough for all ticks


class Curve(NamedTuple):
    """A line of a figure; of several repeats, their mean with a band."""

    label: str
    colour: str
    repeats: Sequence[NDArray[np.float64]]  # (epochs,) each, of different lengths


def curves(lines: Sequence[Curve], ylabel: str, width: float = 5.6, height: float = 3.2) -> str:
    """Curves over the epochs, as SVG.

    The line is the mean over the repeats and the band their standard deviation (ddof = 1). After
    the epoch at which the first repeat stopped, the mean is over the others, and the line is thin.
    Width and height of the figure are in inches.
    """
    with matplotlib.rc_context(PAGE_STYLE):
        figure, axes = _axes_of(lines, ylabel, width, height)
        axes.legend(loc="best")
        return svg(figure)


def panels(lines: Sequence[Curve], base: Curve | None, ylabel: str) -> list[str]:
    """A figure for each line, all with the base and the same axes, like the paper's Figure 3."""
    common = [base] if base else []
    with matplotlib.rc_context(PAGE_STYLE):
        drawn = [_axes_of([*common, line], ylabel, 3.9, 2.7) for line in lines]
        drawn = drawn or [_axes_of(common, ylabel, 3.9, 2.7)]
        x, y = (np.array([getattr(axes, name)() for _, axes in drawn])
                for name in ("get_xlim", "get_ylim"))  # fmt: skip
        for _, axes in drawn:
            axes.set_xlim(x.min(), x.max())
            axes.set_ylim(max(y.min(), 0.0), min(y.max(), 1.0))  # scores
            axes.legend(loc="lower right")
        return [svg(figure) for figure, _ in drawn]


def _axes_of(
    lines: Sequence[Curve], ylabel: str, width: float, height: float
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel=ylabel)
    for line in lines:
        _draw(axes, line)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=_STEPS))
    axes.margins(x=0.02)
    return figure, axes


def _draw(axes: Axes, line: Curve) -> None:
    """Draw the mean of a line's repeats, and the band where all of them ran."""
    table = pd.DataFrame([pd.Series(values) for values in line.repeats])  # a row for each repeat
    mean = table.mean().to_numpy()
    all_ran = min(len(values) for values in line.repeats)
    epoch = np.arange(1, len(mean) + 1)
    marker = "o" if len(mean) < 3 else None
    axes.plot(epoch[:all_ran], mean[:all_ran], color=line.colour, lw=1.8, marker=marker,
              label=line.label)  # fmt: skip
    axes.plot(epoch[all_ran - 1 :], mean[all_ran - 1 :], color=line.colour, lw=0.7)
    if len(table) > 1:
        std = table.std(ddof=1).to_numpy()[:all_ran]
        axes.fill_between(epoch[:all_ran], mean[:all_ran] - std, mean[:all_ran] + std,
                          color=line.colour, alpha=0.18, lw=0)  # fmt: skip


class Series(NamedTuple):
    """One initialisation in the plot of label efficiency."""

    label: str
    colour: str
    ours: Sequence[tuple[int, float, float]]  # training records, mean, deviation (0: unknown)
    paper: Sequence[tuple[int, float, float]] = ()


def efficiency(series: Sequence[Series], ylabel: str) -> str:
    """A score against the number of training records: ours filled, the paper's hollow and dashed.

    Bars are standard deviations over the repeats (ddof = 1). Points at the same number of records
    are moved apart a little.
    """
    with matplotlib.rc_context(PAGE_STYLE):
        figure = Figure(figsize=(4.6, 3.8), layout="constrained")
        axes = figure.add_subplot(xlabel="training recordings", ylabel=ylabel)
        numbers = [point[0] for line in series for point in (*line.ours, *line.paper)]
        step = 0.012 * max(numbers)
        for number, line in enumerate(series):
            shift = (number - (len(series) - 1) / 2) * step
            if line.paper:
                x, y, _ = zip(*line.paper, strict=True)
                axes.plot(np.add(x, shift), y, "o--", color=line.colour, mfc="none", lw=0.9, ms=5)
            x, y, std = zip(*line.ours, strict=True)
            axes.errorbar(np.add(x, shift), y, std, fmt="o-", color=line.colour, lw=1.8, ms=5,
                          elinewidth=1.1, capsize=2.5, label=line.label)  # fmt: skip
        if any(line.paper for line in series):
            axes.plot([], [], "o--", color=PAGE_INK, mfc="none", lw=0.9,
                      ms=5, label="the paper")  # fmt: skip
        axes.set_xlim(0, max(numbers) * 1.08)
        axes.set_xticks(sorted({point[0] for line in series for point in line.ours}))
        axes.yaxis.set_major_locator(MaxNLocator(8, steps=_STEPS))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure)


def pretraining_curves(history: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Two figures of a pretraining over its epochs: loss, and scores.

    ``history`` has the columns of ``history.csv``, (epochs,) float64 each.
    """
    figures = (
        ("loss (nats)", (
            ("train", "train_loss", REDS[1]),
            ("validation", "validation_loss", BLUES[0]),
        )),
        ("score", (
            ("train accuracy", "train_accuracy", REDS[1]),
            ("validation accuracy", "validation_accuracy", BLUES[0]),
            ("validation macro F1", "validation_macro_f1", BLUES[2]),
        )),
    )  # fmt: skip
    drawn = []
    for ylabel, columns in figures:
        lines = [
            Curve(label, colour, [history[column]])
            for label, column, colour in columns
            if column in history
        ]
        if lines:
            drawn.append(curves(lines, ylabel, 4.2, 2.8))
    return drawn
