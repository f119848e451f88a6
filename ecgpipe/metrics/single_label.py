"""Scores of single-label classification, computed from the confusion matrix with NumPy.

scikit-learn would save about 20 lines in `ecgpipe.metrics`; it has 51 MB and imports in 2 s.

A ratio 0/0 counts as 0, like scikit-learn's ``zero_division=0``: a class that neither occurs nor is
predicted has F1 0 and lowers the macro F1. So a score has the same meaning whichever classes a
small test set happens to hold. Balanced accuracy is the mean recall over the classes that occur.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import EcgpipeError


def confusion(label: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """(classes, classes) counts of items; rows are true classes, columns predicted ones.

    ``label`` and ``predicted`` are (items,) integers from 0 to ``classes - 1``. An `EcgpipeError`
    is raised for different lengths and for a class out of range.
    """
    true, decision = np.asarray(label), np.asarray(predicted)
    if true.shape != decision.shape or true.ndim != 1:
        raise EcgpipeError(f"scores: {true.shape} labels for {decision.shape} predictions")
    for values in (true, decision):
        if values.size and not (
            np.issubdtype(values.dtype, np.integer) and 0 <= values.min() <= values.max() < classes
        ):
            raise EcgpipeError(f"scores: classes must be whole numbers from 0 to {classes - 1}")
    pairs = true.astype(np.int64) * classes + decision.astype(np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(np.int64)


def class_precision(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the items predicted as a class that belong to it, shape (classes,)."""
    return ratio(np.diag(matrix), matrix.sum(0))


def class_recall(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of a class' items that are predicted as it, shape (classes,)."""
    return ratio(np.diag(matrix), matrix.sum(1))


def class_f1(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN), shape (classes,)."""
    return ratio(2 * np.diag(matrix), matrix.sum(0) + matrix.sum(1))


def macro_f1(matrix: NDArray[np.int64]) -> float:
    """Unweighted mean of the F1 of all classes, those that do not occur included."""
    return float(class_f1(matrix).mean())


def scores_one_of(label: ArrayLike, probability: ArrayLike) -> dict[str, float]:
    """Accuracy, balanced accuracy and macro F1 of the most probable classes, see `confusion_of`."""
    matrix = confusion_of(label, probability)
    occurs = matrix.sum(1) > 0
    return {
        "accuracy": float(np.trace(matrix) / matrix.sum()),
        "balanced_accuracy": float(class_recall(matrix)[occurs].mean()),
        "macro_f1": macro_f1(matrix),
    }


def confusion_of(label: ArrayLike, probability: ArrayLike) -> NDArray[np.int64]:
    """`confusion` of the most probable classes; of equally probable ones, the first is predicted.

    ``probability`` is (items, classes), or any values with the same order, such as logits. An
    `EcgpipeError` is also raised for no items and for values that are not finite.
    """
    values = np.asarray(probability)
    if values.ndim != 2 or 0 in values.shape:
        raise EcgpipeError(f"scores: (items, classes) probabilities needed, not {values.shape}")
    check_finite(values)
    return confusion(label, values.argmax(1), values.shape[1])


def check_finite(probability: NDArray[Any]) -> None:
    """Raise an `EcgpipeError` if some probabilities are not finite."""
    if not np.isfinite(probability).all():
        raise EcgpipeError(
            "scores: some probabilities are not finite, so the training diverged; "
            "lower the learning rate (optimiser.lr) or set precision=fp32"
        )


def ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """Quotient in which 0/0 is 0, element by element."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
