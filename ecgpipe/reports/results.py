"""Results of finetuning runs: scores, compared with the paper and with random weights."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_ind_from_stats

from ..config import HOW
from ..metrics import multi_label, single_label
from ..training.predictions import Predictions
from ..training.run_folder import Run
from . import paper, protocol
from .paper import Conditions, Score, Start
from .protocol import Point
from .text import DASH, fixed

# Settings that may differ between compared runs: the initialisation and how a run is computed.
# The training share is compared by its value, since 0.75 may be given or left to the default.
_FREE = {"seed", "repeats", "train_share", *HOW}
T = TypeVar("T")


class Comparison(NamedTuple):
    """A difference of two means over repeats."""

    difference: float
    error: float | None  # standard error; None where a mean is of a single repeat
    p: float | None  # of Welch's test, two-sided


@dataclass(frozen=True, eq=False)
class Result:
    """The result of one finetuning run."""

    run: Run
    label: str
    values: dict[str, list[float]]  # metric -> score of each finished repeat
    thresholds: dict[str, list[float]]  # metric -> threshold of each repeat, where it has one
    baseline: Result | None = None  # the comparable run from random weights

    @cached_property
    def start(self) -> Start:
        """The initialisation."""
        return protocol.start(self.run)

    @cached_property
    def conditions(self) -> Conditions:
        """Data set, training share, sampling rate and network."""
        return protocol.conditions(self.run)

    @cached_property
    def paper(self) -> paper.Cell | None:
        """The paper's result under the same conditions."""
        return protocol.cell(self.run)

    @cached_property
    def points(self) -> list[Point]:
        """The protocol compared with the paper's."""
        return protocol.points(self.run)

    @property
    def differing(self) -> list[Point]:
        """The points in which the protocol differs from the paper's."""
        return [point for point in self.points if point.same is False]

    @cached_property
    def scores(self) -> dict[str, Score]:
        """Mean and standard deviation of every metric that has a value."""
        found = {name: spread(values) for name, values in self.values.items()}
        return {name: score for name, score in found.items() if score}

    @property
    def simulated(self) -> bool:
        """True if the recordings of the finetuning are simulated."""
        return self.run.data.simulated

    @property
    def from_simulated(self) -> bool:
        """True if the recordings of the pretraining are simulated."""
        return protocol.from_simulated(self.run)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The scores of all classes together, the most important first."""
        many_of = ("auc", "fmax", "f_beta", "g_beta", "macro_f1")
        return many_of if self.run.many_of else ("macro_f1",)

    @property
    def main(self) -> str:
        """The most important score that exists."""
        return next((name for name in self.metrics if name in self.scores), self.metrics[0])

    @property
    def undefined(self) -> str:
        """Why finished repeats have no AUC; empty where they have one."""
        if "auc" in self.scores or "auc" not in self.metrics or not self.scores:
            return ""
        return "no AUC, because each class is true of all test records or of none"

    def to_paper(self, metric: str) -> Comparison | None:
        """Our mean minus the paper's."""
        return self._compared(metric, self.paper.scores if self.paper else {})

    def to_random(self, metric: str) -> Comparison | None:
        """Our mean minus that from random weights."""
        return self._compared(metric, self.baseline.scores if self.baseline else {})

    def _compared(self, metric: str, others: dict[str, Score]) -> Comparison | None:
        ours, other = self.scores.get(metric), others.get(metric)
        return compare(ours, other) if ours and other else None

    def gain(self, metric: str) -> float | None:
        """Gain relative to random weights, as the paper states gains."""
        change = self.to_random(metric)
        base = self.baseline.scores[metric].mean if change and self.baseline else 0.0
        return change.difference / base if change and base else None

    def paper_gain(self, metric: str) -> float | None:
        """The paper's own gain under the same conditions."""
        return paper.gain(self.start, self.conditions, metric) if self.paper else None

    def confusion(self) -> NDArray[np.int64]:
        """(classes, classes) counts over all finished repeats; rows are true classes."""
        return np.sum([test.confusion() for test in self.run.scored("test")], axis=0)

    def class_counts(self) -> NDArray[np.int64]:
        """(classes, 4) TP, FN, FP and TN at threshold .5, summed over the finished repeats."""
        total = np.zeros((len(self.run.classes), 4), np.int64)
        for test in self.run.scored("test"):
            true, predicted = test.truth(), test.decision()
            pairs = (true & predicted, true & ~predicted, ~true & predicted, ~true & ~predicted)
            total += np.stack([pair.sum(0) for pair in pairs], axis=1)
        return total

    @property
    def caption(self) -> str:
        """Numbers of test recordings and repeats."""
        test, repeats = self.run.scored("test")[0], len(self.run.finished)
        unlabelled = multi_label.count_unlabelled(test.label) if self.run.many_of else 0
        without = f", {unlabelled:,} of them without a class; " if self.run.many_of else ", "
        return f"{len(test.keys):,} test recordings{without}repeats: {repeats}"

    def threshold_text(self, metric: str) -> str:
        """The threshold of a multi-label score: mean and range over the repeats."""
        if metric == "macro_f1":
            return ".5"
        if metric not in self.thresholds:
            return DASH
        values = self.thresholds[metric]
        split = "test" if metric == "fmax" else "training"
        mean, low, high = (fixed(float(of(values))) for of in (np.mean, min, max))
        return f"{mean} ({low} to {high}), {split} recordings"


def compare(one: Score, other: Score) -> Comparison:
    """Difference of the means of independent repeats, with the p of Welch's test.

    The standard error is the root of ``s1² / n1 + s2² / n2``. There is none, and no p, where a
    mean is of a single repeat; there is no p where both standard deviations are 0.
    """
    difference = one.mean - other.mean
    if one.std is None or other.std is None:
        return Comparison(difference, None, None)
    error = float(np.sqrt(one.std**2 / one.n + other.std**2 / other.n))
    if not error:
        return Comparison(difference, error, None)
    p = ttest_ind_from_stats(*one, *other, equal_var=False).pvalue
    return Comparison(difference, error, float(p))


def spread(values: Sequence[float]) -> Score | None:
    """Mean and standard deviation (ddof = 1) without nan; None if there are no values."""
    exist = [value for value in values if not np.isnan(value)]
    if not exist:
        return None
    std = float(np.std(exist, ddof=1)) if len(exist) > 1 else None
    return Score(float(np.mean(exist)), std, len(exist))


def results(runs: Sequence[Run]) -> list[Result]:
    """The result of each finetuning run, with the first comparable run from random weights.

    Comparable are runs with the same test recordings and labels, the same sampling rate and the
    same settings except seed, number of repeats and how they are computed.
    """
    found = []
    for run, label in zip(runs, protocol.labels(runs), strict=True):
        repeats = [_repeat_scores(repeat.predictions, run) for repeat in run.finished]
        values, thresholds = (_by_metric([repeat[i] for repeat in repeats]) for i in (0, 1))
        found.append(Result(run, label, values, thresholds))
    random = [result for result in found if not result.run.upstream]
    for i, result in enumerate(found):
        same = (other for other in random if _comparable(result.run, other.run))
        if result.run.upstream:
            found[i] = replace(result, baseline=next(same, None))
    return found


def _repeat_scores(
    predictions: dict[str, Predictions], run: Run
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores of one repeat by metric, and thresholds; those of F and G are of the training set."""
    test, thresholds = predictions["test"], {}
    if run.many_of:
        train = predictions["train"]
        values = multi_label.scores_many_of(test.label, test.probability)
        thresholds["fmax"] = multi_label.fmax(test.label, test.probability)[1]
        for metric, score in (("f_beta", multi_label.f_beta), ("g_beta", multi_label.g_beta)):
            at = multi_label.best_threshold(train.label, train.probability, metric)  # type: ignore[arg-type]
            thresholds[metric] = at
            values[metric] = score(test.label, test.probability >= at)
        by_class = {
            "f1": multi_label.class_f1_many(test.label, test.decision()),
            "auc": multi_label.class_auc(test.label, test.probability),
        }
    else:
        matrix = test.confusion()
        values = {"macro_f1": single_label.macro_f1(matrix)}
        by_class = {"f1": single_label.class_f1(matrix)}
    for kind, numbers in by_class.items():
        names = (f"{kind}_{name}" for name in run.classes)
        values |= dict(zip(names, numbers.tolist(), strict=True))
    return values, thresholds


def _by_metric(repeats: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [repeat[name] for repeat in repeats] for name in (repeats or [{}])[0]}


def grouped(items: Iterable[T], key: Callable[[T], Hashable]) -> list[list[T]]:
    """Items with the same key together, in the order of the first ones."""
    groups: dict[Hashable, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def same_test(runs: Sequence[Run]) -> bool:
    """True if all finished repeats were tested on the same recordings with the same labels."""
    tests = {
        frozenset(zip(test.keys, map(str, test.label.tolist()), strict=True))
        for run in runs
        for test in run.scored("test")
    }
    return len(tests) <= 1


def _comparable(one: Run, other: Run) -> bool:
    pairs = [
        (run.fs, run.dataset, run.data.simulated, protocol.train_share(run),
         run.finetuning.model_dump(exclude=_FREE))
        for run in (one, other)
    ]  # fmt: skip
    finished = bool(one.finished and other.finished)
    return finished and pairs[0] == pairs[1] and same_test([one, other])
