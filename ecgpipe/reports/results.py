"""What finetuning runs came to: scores of every repeat, beside the paper's and random weights'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_ind_from_stats

from ..config import HOW
from ..metrics import multi_label, single_label
from ..training.outputs import Predictions, Run, read_run
from . import paper
from .names import labels
from .paper import Cell, Conditions, Score, Start
from .protocol import Difference, cell, conditions, differences, share, start, tested_on

# What may differ between two runs that are compared: where they start and how they are computed.
# The training share is compared as it came out, since 0.75 may be written or left to the default.
_FREE = {"seed", "repeats", "train_share", *HOW}
_MANY_OF = ("auc", "fmax", "f_beta", "g_beta", "macro_f1")


class Comparison(NamedTuple):
    """A difference of two means over repeats."""

    difference: float
    error: float | None  # standard error; None where a mean is of a single repeat
    p: float | None  # of Welch's test, two-sided


@dataclass(frozen=True, eq=False)
class Row:
    """One finetuning run."""

    run: Run
    label: str
    values: dict[str, list[float]]  # metric -> score of each finished repeat
    thresholds: dict[str, list[float]]  # metric -> threshold of each repeat, where it has one
    paper: Cell | None
    differences: tuple[Difference, ...]  # the whole protocol, point by point
    baseline: Row | None  # the comparable run from random weights
    scores: dict[str, Score] = field(init=False)

    def __post_init__(self) -> None:
        """Sum the repeats up."""
        means = {name: spread(values) for name, values in self.values.items()}
        found = {name: score for name, score in means.items() if score}
        object.__setattr__(self, "scores", found)

    @property
    def main(self) -> str:
        """The score that the run is judged by."""
        return main_metric(self.run)

    @property
    def place(self) -> tuple[Start, Conditions]:
        """The cell of the paper it would stand in."""
        return start(self.run), conditions(self.run)

    @property
    def differing(self) -> list[Difference]:
        """The points in which the protocol is known to differ from the paper's."""
        return [point for point in self.differences if point.same is False]

    def to_paper(self, metric: str) -> Comparison | None:
        """Our mean minus the paper's."""
        ours, theirs = (
            self.scores.get(metric),
            self.paper and self.paper.scores.get(metric),
        )
        return compare(ours, theirs) if ours and theirs else None

    def to_random(self, metric: str) -> Comparison | None:
        """Our mean minus that from random weights."""
        ours, base = (
            self.scores.get(metric),
            self.baseline and self.baseline.scores.get(metric),
        )
        return compare(ours, base) if ours and base else None

    def gain(self, metric: str) -> float | None:
        """Gain relative to random weights, the way the paper states gains."""
        change = self.to_random(metric)
        if change is None or self.baseline is None or not self.baseline.scores[metric].mean:
            return None
        return change.difference / self.baseline.scores[metric].mean

    def paper_gain(self, metric: str) -> float | None:
        """The paper's own gain under the same conditions."""
        return paper.gain(*self.place, metric) if self.paper else None


def compare(one: Score, other: Score) -> Comparison:
    """Difference of two means with its standard error and the p of Welch's test.

    The standard error is the root of ``s1² / n1 + s2² / n2``. There is none, and no p, where a
    mean is of a single repeat; without any spread p does not exist.

    Parameters
    ----------
    one, other
        Means of independent repeats; ``one`` minus ``other`` is the difference.
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
    """Mean and standard deviation (ddof = 1) of the values that exist; None of none."""
    exist = [value for value in values if not np.isnan(value)]
    if not exist:
        return None
    std = float(np.std(exist, ddof=1)) if len(exist) > 1 else None
    return Score(float(np.mean(exist)), std, len(exist))


def main_metric(run: Run) -> str:
    """The score that a run is judged by: macro F1, or AUC where recordings have several classes."""
    return "auc" if run.many_of else "macro_f1"


def metrics(run: Run) -> tuple[str, ...]:
    """The scores of all classes together, the weightiest first."""
    return _MANY_OF if run.many_of else ("macro_f1",)


def rows(runs: Sequence[Run]) -> list[Row]:
    """One row for each finetuning run; gains where a comparable run from random weights is there.

    Comparable are runs with the same test recordings and labels, the same sampling rate and the
    same settings but for seed, number of repeats and where they are computed.
    """
    made: dict[int, Row] = {}
    named = dict(zip(map(id, runs), labels(runs), strict=True))
    for run in sorted(runs, key=lambda run: not is_random(run)):  # stable; random weights first
        bases = [row for row in made.values() if is_random(row.run) and _comparable(run, row.run)]
        base = bases[0] if bases and not is_random(run) else None
        values, thresholds = _scored(run)
        points = tuple(differences(run))
        made[id(run)] = Row(run, named[id(run)], values, thresholds, cell(run), points, base)
    return [made[id(run)] for run in runs]


def _scored(run: Run) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Scores and thresholds of the finished repeats, by metric."""
    found: list[dict[str, float]] = []
    thresholds: list[dict[str, float]] = []
    for repeat in run.finished:
        test = repeat.predictions["test"]
        if run.many_of:
            values, at = _many_of(repeat.predictions["train"], test)
            thresholds.append(at)
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
        found.append(values)
    return _transposed(found), _transposed(thresholds)


def _many_of(train: Predictions, test: Predictions) -> tuple[dict[str, float], dict[str, float]]:
    """Scores of one repeat and their thresholds; F's and G's are found on the training records."""
    values = multi_label.scores_many_of(test.label, test.probability)
    at = {"fmax": multi_label.fmax(test.label, test.probability)[1]}
    for metric, score in (("f_beta", multi_label.f_beta), ("g_beta", multi_label.g_beta)):
        at[metric] = multi_label.best_threshold(train.label, train.probability, metric)  # type: ignore[arg-type]
        values[metric] = score(test.label, test.probability >= at[metric])
    return values, at


def _transposed(repeats: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [repeat[name] for repeat in repeats] for name in (repeats[0] if repeats else ())}


def outcome(folder: Path) -> dict[str, Any]:
    """What a run came to, as plain values, from its saved predictions.

    Returns
    -------
    dict
        The run's name, kind, digest and classes, and under ``scores``, of a finetuning, the mean,
        standard deviation and number of repeats of every score on the test set; of a pretraining,
        accuracy, balanced accuracy, macro F1 and number of items of its validation.

    Raises
    ------
    EcgpipeError
        See :func:`ecgpipe.training.outputs.read_run`.
    """
    run = read_run(folder)
    if run.description.kind == "pretrain":
        found = [_of_validation(repeat.predictions["validation"]) for repeat in run.finished]
        values: dict[str, Any] = found[0] if found else {}
    else:
        (row,) = rows([run])
        values = {name: score._asdict() for name, score in row.scores.items()}
    names = ("kind", "name", "dataset", "digest", "classes")
    facts = {name: run.description.to_json().get(name) for name in names}
    return {"run": str(folder), **facts, "scores": values}


def _of_validation(answers: Predictions) -> dict[str, float]:
    matrix = answers.confusion()
    measures = (single_label.accuracy, single_label.balanced_accuracy, single_label.macro_f1)
    return {"items": int(matrix.sum()), **{of.__name__: of(matrix) for of in measures}}


def counts(run: Run) -> NDArray[np.int64]:
    """(classes, 4) TP, FN, FP and TN at threshold .5, summed over the finished repeats."""
    total = np.zeros((len(run.classes), 4), np.int64)
    for test in run.scored("test"):
        true, answer = test.truth(), test.decision()
        pairs = ((true & answer), (true & ~answer), (~true & answer), (~true & ~answer))
        total += np.stack([pair.sum(0) for pair in pairs], axis=1)
    return total


def is_random(run: Run) -> bool:
    """Whether a finetuning started from random weights."""
    return run.upstream is None


def same_test(runs: Sequence[Run]) -> bool:
    """Whether all finished repeats were tested on the same recordings with the same labels."""
    tests = {
        frozenset(zip(answers.keys, map(str, answers.label.tolist()), strict=True))
        for run in runs
        for answers in run.scored("test")
    }
    return len(tests) <= 1


def _comparable(one: Run, other: Run) -> bool:
    if not (one.finished and other.finished) or one.fs != other.fs:
        return False
    if tested_on(one) != tested_on(other):
        return False
    if share(one) != share(other):
        return False
    settings = [run.finetuning.model_dump(exclude=_FREE) for run in (one, other)]
    return settings[0] == settings[1] and same_test([one, other])
