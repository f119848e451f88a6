"""The table of results: every initialisation beside the paper's cell, as rows, CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..tasks.scores import class_f1, macro_f1
from .paper import Cell, Difference, Score, cell, differences
from .runs import Run

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
NAMES = {
    "random": "Random weights",
    "beat": "Beat classification",
    "rhythm": "Rhythm classification",
    "heart_rate": "Heart rate classification",
    "future": "Future prediction",
}
# What may differ between two rows that are compared: where they start, not what is done with them.
_FREE = ("seed", "repeats", "device")


class Spread(NamedTuple):
    """Mean and standard deviation (ddof = 1) over repeats; no deviation for a single one."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True, eq=False)
class Row:
    """One finetuning run in the table of results."""

    run: Run
    label: str
    macro_f1: Spread | None  # None where no repeat has finished
    class_f1: tuple[Spread, ...]
    paper: Cell | None
    differences: tuple[Difference, ...]  # the whole protocol, point by point
    baseline: Spread | None  # macro F1 of the comparable run from random weights

    @property
    def to_paper(self) -> float | None:
        """Macro F1 minus the paper's."""
        if self.macro_f1 is None or self.paper is None:
            return None
        return self.macro_f1.mean - self.paper.macro_f1.mean

    @property
    def gain(self) -> float | None:
        """Gain in macro F1 relative to random weights', the way the paper states gains."""
        if self.macro_f1 is None or self.baseline is None or not self.baseline.mean:
            return None
        return self.macro_f1.mean / self.baseline.mean - 1

    @property
    def differing(self) -> list[Difference]:
        """The points in which the protocol is known to differ from the paper's."""
        return [point for point in self.differences if point.same is False]


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation (ddof = 1) of at least one value."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), std, len(values))


def rows(runs: Sequence[Run]) -> list[Row]:
    """One row for each finetuning run; gains where a comparable run from random weights is there.

    Comparable are runs with the same test recordings and labels, the same sampling rate and the
    same settings but for seed, number of repeats and device.
    """
    result = []
    for run, label in zip(runs, labels(runs), strict=True):
        scores = _macro(run)
        matrices = [answers.confusion() for answers in run.scored("test")]
        by_class = np.array([class_f1(matrix) for matrix in matrices])
        base = next((other for other in runs if is_random(other) and _comparable(run, other)), None)
        result.append(
            Row(
                run,
                label,
                spread(scores) if scores else None,
                tuple(spread(column) for column in by_class.T) if scores else (),
                cell(run),
                tuple(differences(run)),
                spread(_macro(base)) if base and not is_random(run) else None,
            )
        )
    return result


def is_random(run: Run) -> bool:
    """Whether a finetuning started from random weights."""
    return run.upstream is None


def same_test(runs: Sequence[Run]) -> bool:
    """Whether all finished repeats were tested on the same recordings with the same labels."""
    tests = {
        frozenset(zip(answers.keys, answers.label.tolist(), strict=True))
        for run in runs
        for answers in run.scored("test")
    }
    return len(tests) <= 1


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run, with whatever of its conditions tells the runs apart."""
    names = [[NAMES.get(run.info["name"], run.info["name"])] for run in runs]
    conditions = [
        [f"on {sets(run.upstream)}" if run.upstream else "" for run in runs],
        [f"frame {run.upstream['settings']['frame']}" if run.upstream else "" for run in runs],
        [f"{100 * run.settings['train_share']:g} % train" for run in runs],
        [f"{run.fs:g} Hz" if run.fs else "" for run in runs],
        [f"ResNet-{run.settings['network']['depth']}" for run in runs],
    ]
    for values in conditions:
        if len({value for value in values if value}) > 1:
            for name, value in zip(names, values, strict=True):
                name += [value] if value else []
    joined = [", ".join(name) for name in names]
    return [
        f"{name} ({run.folder})" if joined.count(name) > 1 else name
        for name, run in zip(joined, runs, strict=True)
    ]


def sets(info: dict[str, Any]) -> str:
    """The data sets of a run.json in words."""
    names = info["dataset"]
    return names if isinstance(names, str) else " + ".join(names)


def csv_text(table: Sequence[Row]) -> str:
    """The table with unrounded numbers, one line a run, empty where there is no number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    classes = table[0].run.classes if table else []
    writer.writerow(
        ["run", "initialisation", "dataset", "pretraining_data", "frame", "train_share", "fs"]
        + ["depth", "repeats", "repeats_planned", "macro_f1", "macro_f1_std"]
        + [f"f1_{name}{end}" for name in classes for end in ("", "_std")]
        + ["paper_table", "paper_macro_f1", "paper_macro_f1_std", "difference_to_paper"]
        + ["relative_gain_over_random", "differs_from_paper_in"]
    )
    for row in table:
        run, up, theirs = row.run, row.run.upstream, row.paper
        scores = [(s.mean, s.std) for s in (row.macro_f1, *row.class_f1) if s]
        numbers = [_number(value) for score in scores for value in score]
        writer.writerow(
            [run.folder, run.info["name"], sets(run.info), sets(up) if up else ""]
            + [up["settings"]["frame"] if up else "", run.settings["train_share"], run.fs]
            + [run.settings["network"]["depth"], len(run.finished), len(run.repeats)]
            + (numbers or [""] * 2 * (1 + len(classes)))
            + ([theirs.table, *theirs.macro_f1] if theirs else [""] * 3)
            + [_number(row.to_paper), _number(row.gain)]
            + ["; ".join(point.what for point in row.differing)]
        )
    return out.getvalue()


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars and line ends in the cells are made harmless."""
    lines = [header, ["---"] * len(header), *body]
    return "".join("| " + " | ".join(map(plain, line)) + " |\n" for line in lines)


def plain(text: str) -> str:
    """Text for Markdown: on one line, and neither a column's end nor a tag in it."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(text.splitlines())


def mean_std(score: Spread | Score | None) -> str:
    """As the paper prints it: ``.731 ± .019``; the mean alone where there is no deviation."""
    if score is None:
        return DASH
    return f"{fixed(score.mean)}\xa0±\xa0{fixed(score.std) if score.std is not None else DASH}"


def fixed(value: float) -> str:
    """Three decimals without the leading zero."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 0.9995 else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Three decimals with their sign, or a dash."""
    if value is None:
        return DASH
    return ("+" if value >= 0 else MINUS) + fixed(abs(value))


def percent(value: float | None) -> str:
    """A share as a percentage with its sign, or a dash."""
    if value is None:
        return DASH
    return ("+" if value >= 0 else MINUS) + f"{100 * abs(value):.1f} %"


def _macro(run: Run) -> list[float]:
    return [macro_f1(answers.confusion()) for answers in run.scored("test")]


def _comparable(one: Run, other: Run) -> bool:
    if not (one.finished and other.finished) or one.fs != other.fs:
        return False
    settings = [{k: v for k, v in run.settings.items() if k not in _FREE} for run in (one, other)]
    return settings[0] == settings[1] and same_test([one, other])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"
