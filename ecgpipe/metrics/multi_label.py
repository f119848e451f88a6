"""Scores of multi-label classification: an item has any number of classes.

A class is predicted where its probability p reaches the threshold, p >= t. A maximum over the
thresholds is taken over all distinct probabilities: other thresholds give the same predictions, or
none at all, where every score is 0. A ratio 0/0 counts as 0, as in `ecgpipe.metrics.single_label`.

Sources: Weimann & Conrad 2021 (which scores); Strodthoff et al. 2020, "Deep learning for ECG
analysis: benchmarks and insights from PTB-XL" (mean AUC, Fmax); Alday et al. 2020,
"Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge 2020" (F and G).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import EcgpipeError
from .single_label import check_finite, ratio

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def class_auc(label: ArrayLike, probability: ArrayLike) -> Floats:
    """Area under the ROC curve of every class.

    It is the probability that an item of the class has a higher value than one that is not of it,
    where equal values count half (Mann & Whitney's statistic).

    Parameters
    ----------
    label
        (n, c) 1 where an item has a class, else 0.
    probability
        (n, c) probabilities or anything that orders the items of a class alike.

    Returns
    -------
    (c,) areas from 0 to 1; nan where all or none of the items have the class.

    Raises
    ------
    EcgpipeError
        No items, shapes that do not fit, labels other than 0 and 1, or values that are not finite.
    """
    true, p = _checked(label, probability)
    areas = np.full(true.shape[1], np.nan)
    for place, (has, value) in enumerate(zip(true.T, p.T, strict=True)):
        inside, outside = value[has], np.sort(value[~has])
        if inside.size and outside.size:
            lower = np.searchsorted(outside, inside, "left").sum()  # pairs in the right order
            up_to = np.searchsorted(outside, inside, "right").sum()  # and those of equal values
            areas[place] = (lower + up_to) / (2 * inside.size * outside.size)
    return areas


def auc(label: ArrayLike, probability: ArrayLike) -> float:
    """Unweighted mean of `class_auc` over the classes that have one.

    Parameters and errors are those of `class_auc`; nan where no class has one.
    """
    areas = class_auc(label, probability)
    defined = areas[~np.isnan(areas)]
    return float(defined.mean()) if defined.size else float("nan")


def fmax(label: ArrayLike, probability: ArrayLike) -> tuple[float, float]:
    """Highest item-centred F1 over all thresholds, and the threshold that gives it.

    At a threshold an item's precision is the share of its predicted classes that are true, its
    recall the share of its true classes that are predicted. F1 is the harmonic mean of the mean
    precision, over the items with a predicted class, and the mean recall, over all items. Items
    without a true class have no recall and are left out (`count_unlabelled`).

    Parameters
    ----------
    label
        (n, c) 1 where an item has a class, else 0.
    probability
        (n, c) probabilities, or anything that orders all pairs of item and class alike.

    Returns
    -------
    F1, from 0 to 1, and the threshold; of thresholds that are equally good the highest.

    Raises
    ------
    EcgpipeError
        Those of `class_auc`, or no item has a true class.
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
    """Number of items without a true class, of (n, c) labels 0 or 1; `fmax` leaves them out."""
    return int((~_flags(label).any(1)).sum())


def f_beta(label: ArrayLike, decision: ArrayLike, beta: float = 2.0) -> float:
    """Mean over the classes of (1 + beta²) TP / ((1 + beta²) TP + FP + beta² FN).

    In TP, FP and FN an item weighs 1 / the number of its true classes (1 if it has none), as in
    the 2020 challenge. A class that is neither true nor predicted anywhere counts as 0; the
    challenge's own code leaves it out of the mean.

    Parameters
    ----------
    label, decision
        (n, c) 0 or 1, or bool: 1 where an item has a class, and where the class is predicted.
    beta
        Weight of recall against precision.

    Returns
    -------
    From 0 to 1.

    Raises
    ------
    EcgpipeError
        No items, shapes that do not fit, or values other than 0 and 1.
    """
    return float(_f_beta(*_weighted_counts(label, decision), beta).mean())


def g_beta(label: ArrayLike, decision: ArrayLike, beta: float = 2.0) -> float:
    """Mean over the classes of TP / (TP + FP + beta FN), at beta = 1 the Jaccard index.

    Weights, parameters and errors are those of `f_beta`; ``beta`` is the weight of a missed class
    against a false one.
    """
    return float(_g_beta(*_weighted_counts(label, decision), beta).mean())


def best_threshold(
    label: ArrayLike, probability: ArrayLike, metric: Literal["f_beta", "g_beta"]
) -> float:
    """Threshold, one for all classes, at which `f_beta` or `g_beta` is highest with beta = 2.

    Parameters
    ----------
    label
        (n, c) 1 where an item has a class, else 0.
    probability
        (n, c) probabilities.

    Returns
    -------
    One of the probabilities; of thresholds that are equally good the highest.

    Raises
    ------
    EcgpipeError
        Those of `class_auc`.
    """
    true, p = _checked(label, probability)
    weight = _weights(true)
    thresholds = np.unique(p)[::-1]
    total = np.zeros(len(thresholds))
    for has, value in zip(true.T, p.T, strict=True):
        sums = _reaching(value, np.stack([weight * has, weight], axis=-1), thresholds)
        total += _BY_NAME[metric](sums[:, 0], sums[:, 1], (weight * has).sum(), 2.0)
    return float(thresholds[_first_best(total)])


def class_f1_many(label: ArrayLike, decision: ArrayLike) -> Floats:
    """F1 of every class, 2 TP / (2 TP + FP + FN), shape (c,); arguments and errors of `f_beta`."""
    true, predicted = _flags(label), _flags(decision)
    _check_shapes(true, predicted)
    return ratio(2 * (true & predicted).sum(0), true.sum(0) + predicted.sum(0))


def scores_many_of(label: ArrayLike, probability: ArrayLike) -> dict[str, float]:
    """Scores where every item has any number of classes.

    Parameters
    ----------
    label
        (n, c) 1 where an item has a class, else 0.
    probability
        (n, c) probabilities.

    Returns
    -------
    ``auc`` and ``fmax``, and ``macro_f1`` of the classes with a probability of .5 or more.

    Raises
    ------
    EcgpipeError
        Those of `fmax`.
    """
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


_BY_NAME: dict[str, Callable[[Floats, Floats, Floats, float], Floats]] = {
    "f_beta": _f_beta,
    "g_beta": _g_beta,
}


def _weighted_counts(label: ArrayLike, decision: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Sums of item weights, (c,) each: true positives, predicted, true."""
    true, predicted = _flags(label), _flags(decision)
    _check_shapes(true, predicted)
    weight = _weights(true)[:, None]
    return (
        (weight * (true & predicted)).sum(0),
        (weight * predicted).sum(0),
        (weight * true).sum(0),
    )


def _weights(true: Flags) -> Floats:
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
