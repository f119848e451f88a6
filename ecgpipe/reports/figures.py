"""Figures of the report: learning curves, label efficiency, and recordings as ECG plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ..plots import curves
from ..plots.ecg import example_svg
from ..training.examples import Example
from ..training.run_folder import Run
from . import paper
from .paper import BEST, Conditions, Score
from .results import Result, grouped
from .text import CLASS_NAMES, NAMED

MISJUDGED, EXAMPLES = 6, 4  # recordings of a data set, at the most
_COLUMNS = 5  # classes whose probability is shown, and all true ones


@dataclass(frozen=True, slots=True)
class Figure:
    """Plots with a title."""

    title: str
    plots: list[Markup]
    paper: bool = False  # True if results of the paper are drawn too
    paper_differs: bool = False  # True if these have another sampling rate or network


def _title(result: Result, *conditions: str) -> str:
    """Data set and conditions of a figure."""
    simulated = "simulated" if result.simulated else ""
    return ", ".join(filter(None, (result.conditions.dataset_text, *conditions, simulated)))


def learning_curves(results: Sequence[Result]) -> list[Figure]:
    """Validation macro F1 by epoch: a plot for each pretraining, with random weights."""
    figures = []
    for group in grouped(results, lambda result: (result.conditions, result.simulated)):
        lines = [(result.run.upstream, curve) for result in group if (curve := _curve(result))]
        if lines:
            random = next((curve for upstream, curve in lines if not upstream), None)
            pretrained = [curve for upstream, curve in lines if upstream]
            plots = curves.panels(pretrained, random, "validation macro F1")
            same = group[0].conditions
            title = _title(group[0], same.share_text, same.fs_text, same.network_text)
            figures.append(Figure(title, [Markup(svg) for svg in plots]))
    return figures


def _curve(result: Result) -> curves.Curve | None:
    histories = [repeat.history.get("validation_macro_f1") for repeat in result.run.finished]
    repeats = [values for values in histories if values is not None and len(values)]
    label = result.start.label + " (simulated)" * result.from_simulated
    colour = curves.BLUES[0] if result.run.upstream else curves.REDS[0]
    return curves.Curve(label, colour, repeats) if repeats else None


def label_efficiency(results: Sequence[Result]) -> list[Figure]:
    """The main score by number of training recordings, where there are several numbers."""
    figures = []
    done = [result for result in results if result.scores]
    for group in grouped(done, lambda r: (r.conditions._replace(share=None), r.simulated)):
        if len({result.conditions.share for result in group}) > 1:
            series = [_series(s) for s in grouped(group, lambda r: (r.start, r.from_simulated))]
            plot = Markup(curves.efficiency(series, f"test {NAMED[group[0].main]}"))
            same, has_paper = group[0].conditions, any(line.paper for line in series)
            differs = has_paper and (same.fs, same.depth) != (250, 18)
            title = _title(group[0], same.fs_text, same.network_text)
            figures.append(Figure(title, [plot], has_paper, differs))
    return figures


def _series(results: Sequence[Result]) -> curves.Series:
    """One initialisation at several numbers of training recordings; of several runs the first."""
    first, ours = results[0], dict[int, Score]()
    for result in results:
        ours.setdefault(result.run.data.train, result.scores[result.main])
    start, theirs = first.start, dict[int, Score]()
    simulated = first.simulated or first.from_simulated
    if start in BEST and first.run.dataset == "cinc2017" and not simulated:
        for share in (0.25, 0.5, 0.75):  # Table 2
            cell = paper.cells()[start, Conditions("cinc2017", share, 250.0, 18)]
            theirs[round(share * 8528)] = cell.scores["macro_f1"]
    label = start.label
    if start.setup_text and start not in BEST:
        label += f", {start.setup_text}"
    label += " (simulated)" * first.from_simulated
    lines = (
        [(n, score.mean, score.std or 0.0) for n, score in sorted(points.items())]
        for points in (ours, theirs)
    )
    return curves.Series(label, curves.COLOURS.get(start.name, curves.REDS[3]), *lines)


@dataclass(frozen=True, slots=True)
class Predicted:
    """The predictions of all repeats of some runs for one recording."""

    label: str  # initialisation
    probability: NDArray[np.float64]  # (repeats, classes)
    wrong: NDArray[np.bool_]  # (repeats,)


@dataclass(frozen=True, slots=True)
class Recording:
    """A test recording with the predictions for it."""

    example: Example
    run: Run  # one that has it
    truth: NDArray[np.bool_] | None  # (classes,); None if no finished repeat has tested it
    predicted: list[Predicted]

    @property
    def probability(self) -> NDArray[np.float64]:
        """(classes,) means over all repeats of all runs."""
        return np.concatenate([p.probability for p in self.predicted]).mean(0)

    @property
    def true_probability(self) -> float:
        """Mean probability of the true class, 0 to 1; untested recordings come last.

        With many labels, the product over them of the mean probability of the right prediction;
        the rule of :func:`ecgpipe.training.examples.save_misjudged`.
        """
        if self.truth is None:
            return 1.0
        p = self.probability
        right = np.where(self.truth, p, 1 - p) if self.run.many_of else p[self.truth]
        return float(right.prod())

    @property
    def true_text(self) -> str:
        """The true classes."""
        if self.truth is None:
            return "not tested"
        names = [self.run.classes[i] for i in np.flatnonzero(self.truth)]
        known = (f"{n} ({CLASS_NAMES[n]})" if n in CLASS_NAMES else n for n in names)
        return ", ".join(known) or "no class"

    @property
    def wrong_text(self) -> str:
        """The number of wrong repeats."""
        wrong = np.concatenate([p.wrong for p in self.predicted])
        return f"{wrong.sum()} of {len(wrong)} repeats wrong"

    @property
    def columns(self) -> list[int]:
        """Classes whose probability is shown: all true ones, then the most probable ones."""
        assert self.truth is not None
        order = np.lexsort((-self.probability, ~self.truth))
        return sorted(order[: max(_COLUMNS, int(self.truth.sum()))].tolist())

    def chosen(self, probability: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(classes,) True for the classes that mean probabilities predict."""
        if self.run.many_of:
            return np.asarray(probability >= 0.5)
        return np.asarray(probability == probability.max())

    def plot(self, rows: int) -> Markup:
        """The first rows of 10 s as an ECG plot."""
        return Markup(example_svg(self.example, rows))


@dataclass(frozen=True, slots=True)
class Recordings:
    """The recordings of a data set that are drawn."""

    title: str  # empty if there is only one data set
    many: bool  # a recording has any number of classes
    misjudged: list[Recording]  # worst first
    examples: list[Recording]


def recordings(results: Sequence[Result]) -> list[Recordings]:
    """The recordings of every data set: worst first, then examples.

    Every run has kept those on which its own repeats were furthest from the truth; of all these
    the worst over all repeats of all runs are drawn, by the same rule.
    """
    groups = grouped(results, lambda r: (r.run.dataset, r.simulated, r.run.fs, *r.run.classes))
    found = []
    for group in groups:
        run = group[0].run
        title = _title(group[0], group[0].conditions.fs_text) if len(groups) > 1 else ""
        worst = {e.key: _recording(e, group) for r in group for e in r.run.misjudged}
        others = {e.key: _recording(e, group) for r in group for e in r.run.examples
                  if e.key not in worst}  # fmt: skip
        ranked = sorted(worst.values(), key=lambda item: (item.true_probability, item.example.key))
        section = Recordings(title, run.many_of, ranked[:MISJUDGED], [*others.values()][:EXAMPLES])
        if section.misjudged or section.examples:
            found.append(section)
    return found


def _recording(example: Example, results: Sequence[Result]) -> Recording:
    """A recording with every finished repeat's prediction, by initialisation."""
    truth: NDArray[np.bool_] | None = None
    found: dict[str, list[tuple[NDArray[np.float64], bool]]] = {}
    for result in results:
        for test in result.run.scored("test"):
            row = test.row_of.get(example.key)
            if row is not None:
                truth = test.truth()[row]
                wrong = bool((test.decision()[row] != truth).any())
                found.setdefault(result.start.label, []).append((test.probability[row], wrong))
    predicted = [
        Predicted(label, *map(np.array, zip(*repeats, strict=True)))
        for label, repeats in found.items()
    ]
    return Recording(example, results[0].run, truth, predicted)
