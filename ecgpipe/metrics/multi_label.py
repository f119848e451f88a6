"""Scores of multi-label classification: an item has any number of classes.

Labels and decisions are (items, classes), 0 or 1 or bool. Probabilities are (items, classes); where
only their order counts, any values will do. Every function raises `EcgpipeError` for no items, for
shapes that differ, for labels other than 0 and 1, and for probabilities that are not finite.

A class is predicted where its probability p reaches the threshold, p >= t. A maximum over the
thresholds is taken over all distinct probabilities: other thresholds give the same predictions, or
none at all, where every score is 0. Of equally good thresholds, the highest is taken. A ratio 0/0
counts as 0, as in `ecgpipe.metrics.single_label`.

Sources: Weimann & Conrad 2021 (which scores); Strodthoff et al. 2020, "Deep learning for ECG
analysis: benchmarks and insights from PTB-XL" (mean AUC, Fmax); Alday et al. 2020,
"Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge 2020" (F and G).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import EcgpipeError
from .single_label import check_finite, ratio

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def class_auc(label: ArrayLike, probability: ArrayLike) -> Floats:
    """Area under the ROC curve of every class, (classes,); nan where all or no items have it.

    It is the probability that an item with the class has a higher value than an item without it;
    equal values count half (Mann-Whitney statistic).
    """
    true, p = _checked(label, probability)
    areas = np.full(true.shape[1], np.nan)
    for c, (has, value) in enumerate(zip(true.T, p.T, strict=True)):
        inside, outside = value[has], np.sort(value[~has])
        if inside.size and outside.size:
            lower = np.searchsorted(outside, inside, "left").sum()  # pairs in the right order
            up_to = np.searchsorted(outside, inside, "right").sum()  # and those of equal values
            areas[c] = (lower + up_to) / (2 * inside.size * outside.size)
    return areas


def auc(label: ArrayLike, probability: ArrayLike) -> float:
    """Unweighted mean of `class_auc` over the classes that have one; nan if none has."""
    areas = class_auc(label, probability)
    defined = areas[~np.isnan(areas)]
    return float(defined.mean()) if defined.size else float("nan")


def fmax(label: ArrayLike, probability: ArrayLike) -> tuple[float, float]:
    """Highest item-centred F1 over all thresholds, and the threshold that gives it.

    At a threshold an item's precision is the share of its predicted classes that are true, its
    recall the share of its true classes that are predicted. F1 is the harmonic mean of the mean
    precision, over the items with a predicted class, and the mean recall, over all items. Items
    without a true class have no recall and are left out (`count_unlabelled`); an `EcgpipeError` is
    raised if no item has one.
    """
    true, p = _checked(label, probability)
    labelled = true.any(1)
    if not labelled.any():
        raise EcgpipeError("scores: no item has a true class, so Fmax does not exist; label some")
    true, p = true[labelled], p[labelled]
    # As the threshold falls, an item's classes are predicted one by one, the most probable
    # first. Each changes the item's precision and recall; sums of the changes are sums over items.
    order = np.argsort(-p, 1)
    p, true = np.take_along_axis(p, order, 1), np.take_along_axis(true, order, 1)
    count = np.arange(1, p.shape[1] + 1)
    precision = np.diff(true.cumsum(1) / count, axis=1, prepend=0)
    recall = true / true.sum(1, keepdims=True)
    first = np.broadcast_to(count == 1, p.shape)
    changes = np.stack([precision, recall, first], axis=-1)
    thresholds = np.unique(p)[::-1]
    sums = _reaching(p.ravel(), changes.reshape(p.size, 3), thresholds)
    mean_precision, mean_recall = sums[:, 0] / sums[:, 2], sums[:, 1] / len(p)
    f1 = ratio(2 * mean_precision * mean_recall, mean_precision + mean_recall)
    best = _first_best(f1)
    return float(f1[best]), float(thresholds[best])


def count_unlabelled(label: ArrayLike) -> int:
    """Number of items without a true class."""
    return int((~_flags(label).any(1)).sum())


def f_beta(label: ArrayLike, decision: ArrayLike, beta: float = 2.0) -> float:
    """Mean over the classes of (1 + beta²) TP / ((1 + beta²) TP + FP + beta² FN).

    In TP, FP and FN an item weighs 1 / the number of its true classes (1 if it has none), as in
    the 2020 challenge. A class that is neither true nor predicted anywhere counts as 0; the
    challenge's own code leaves it out of the mean.
    """
    return float(_f_beta(*_weighted_counts(label, decision), beta).mean())


def g_beta(label: ArrayLike, decision: ArrayLike, beta: float = 2.0) -> float:
    """Mean over the classes of TP / (TP + FP + beta FN), at beta = 1 the Jaccard index.

    Items have the weights of `f_beta`.
    """
    return float(_g_beta(*_weighted_counts(label, decision), beta).mean())


def best_threshold(
    label: ArrayLike, probability: ArrayLike, metric: Literal["f_beta", "g_beta"]
) -> float:
    """Threshold, one for all classes, at which `f_beta` or `g_beta` is highest with beta = 2."""
    true, p = _checked(label, probability)
    class_score = {"f_beta": _f_beta, "g_beta": _g_beta}[metric]
    weight = _weights(true)
    thresholds = np.unique(p)[::-1]
    total = np.zeros(len(thresholds))
    for has, value in zip(true.T, p.T, strict=True):
        sums = _reaching(value, np.stack([weight * has, weight], axis=-1), thresholds)
        total += class_score(sums[:, 0], sums[:, 1], (weight * has).sum(), 2.0)
    return float(thresholds[_first_best(total)])


def class_f1_many(label: ArrayLike, decision: ArrayLike) -> Floats:
    """F1 of every class, 2 TP / (2 TP + FP + FN), (classes,)."""
    true, predicted = _flags(label), _flags(decision)
    _check_shapes(true, predicted)
    return ratio(2 * (true & predicted).sum(0), true.sum(0) + predicted.sum(0))


def scores_many_of(label: ArrayLike, probability: ArrayLike) -> dict[str, float]:
    """`auc` and `fmax`, and ``macro_f1`` of the classes with a probability of .5 or more."""
    true, p = _checked(label, probability)
    return {
        "auc": auc(true, p),
        "fmax": fmax(true, p)[0],
        "macro_f1": float(class_f1_many(true, p >= 0.5).mean()),
    }


def _reaching(value: Floats, amount: Floats, threshold: Floats) -> Floats:
    """Sums (t, k) of the amounts (m, k) whose value (m,) reaches each threshold (t,)."""
    order = np.argsort(-value)
    sums = np.concatenate([np.zeros((1, amount.shape[1])), amount[order].cumsum(0)])
    return sums[np.searchsorted(-value[order], -threshold, "right")]


def _first_best(score: Floats) -> np.intp:
    """Position of the first of the highest scores."""
    # The sums' last digits depend on the order of the items; the choice must not.
    return np.argmax(score >= score.max() * (1 - 1e-12))


def _f_beta(true_positive: Floats, predicted: Floats, occurs: Floats, beta: float) -> Floats:
    return ratio((1 + beta**2) * true_positive, predicted + beta**2 * occurs)


def _g_beta(true_positive: Floats, predicted: Floats, occurs: Floats, beta: float) -> Floats:
    return ratio(true_positive, predicted + beta * (occurs - true_positive))


def _weighted_counts(label: ArrayLike, decision: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Sums of item weights, (classes,) each: true positives, predicted, true."""
    true, predicted = _flags(label), _flags(decision)
    _check_shapes(true, predicted)
    weight = _weights(true)[:, None]
    return (
        (weight * (true & predicted)).sum(0),
        (weight * predicted).sum(0),
        (weight * true).sum(0),
    )


def _weights(true: Flags) -> Floats:
    """Weight of each item, 1 / the number of its true classes."""
    return 1 / np.maximum(true.sum(1), 1)


def _flags(values: ArrayLike) -> Flags:
    flags = np.asarray(values)
    if flags.ndim != 2 or 0 in flags.shape:
        raise EcgpipeError(f"scores: (items, classes) labels needed, not {flags.shape}")
    if not np.isin(flags, (0, 1)).all():
        raise EcgpipeError("scores: labels and decisions must be 0 or 1 for every class")
    return flags.astype(bool)


def _check_shapes(true: Flags, predicted: NDArray[Any]) -> None:
    if true.shape != predicted.shape:
        raise EcgpipeError(f"scores: {true.shape} labels for {predicted.shape} predictions")


def _checked(label: ArrayLike, probability: ArrayLike) -> tuple[Flags, Floats]:
    true, p = _flags(label), np.asarray(probability, np.float64)
    _check_shapes(true, p)
    check_finite(p)
    return true, p
