"""Scores against scikit-learn and against cases worked by hand."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from ecgpipe.errors import EcgpipeError
from ecgpipe.metrics import single_label


@pytest.mark.parametrize("seed", range(12))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes, n = int(rng.integers(2, 7)), int(rng.integers(1, 60))  # few items: some classes miss
    label = rng.integers(0, classes, n)
    probability = rng.random((n, classes))
    predicted = probability.argmax(1)
    names = list(range(classes))
    matrix = single_label.confusion(label, predicted, classes)
    np.testing.assert_array_equal(matrix, metrics.confusion_matrix(label, predicted, labels=names))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        label, predicted, labels=names, zero_division=0
    )
    np.testing.assert_allclose(single_label.class_precision(matrix), precision)
    np.testing.assert_allclose(single_label.class_recall(matrix), recall)
    np.testing.assert_allclose(single_label.class_f1(matrix), f1)
    np.testing.assert_array_equal(matrix.sum(1), support)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted but do not occur
        balanced = metrics.balanced_accuracy_score(label, predicted)
    assert single_label.scores_one_of(label, probability) == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(label, predicted),
            "balanced_accuracy": balanced,
            "macro_f1": f1.mean(),
        }
    )


def test_a_case_worked_by_hand() -> None:
    label, predicted = [0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]
    matrix = single_label.confusion(label, predicted, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert matrix.dtype == np.int64
    # TP 2 FP 0 FN 1; TP 1 FP 1 FN 1; TP 1 FP 1 FN 0; a class that is nowhere.
    assert single_label.class_f1(matrix).tolist() == pytest.approx([4 / 5, 1 / 2, 2 / 3, 0])
    assert single_label.macro_f1(matrix) == pytest.approx((4 / 5 + 1 / 2 + 2 / 3) / 4)
    scores = single_label.scores_one_of(label, np.eye(4)[predicted])
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores["accuracy"] == pytest.approx(4 / 6)


def test_one_class_everywhere() -> None:
    perfect = single_label.scores_one_of([1, 1], [[0.1, 0.9], [0.4, 0.6]])
    assert perfect == {"accuracy": 1.0, "balanced_accuracy": 1.0, "macro_f1": 0.5}
    wrong = single_label.scores_one_of([1, 1], [[0.9, 0.1], [0.5, 0.5]])  # ties: the first
    assert wrong == {"accuracy": 0.0, "balanced_accuracy": 0.0, "macro_f1": 0.0}


def test_an_empty_matrix_is_zero_everywhere() -> None:
    matrix = single_label.confusion([], [], 3)
    assert matrix.shape == (3, 3)
    assert single_label.macro_f1(matrix) == 0


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([0, 1], [[1.0, 0.0]], "labels for"),
        ([2], [[0.5, 0.5]], "from 0 to 1"),
        ([-1], [[0.5, 0.5]], "from 0 to 1"),
        ([0.5], [[0.5, 0.5]], "whole numbers"),
        ([0], [[np.nan, 0.5]], "diverged"),
        ([], np.zeros((0, 2)), "probabilities needed"),
        ([0], [0.5], "probabilities needed"),
    ],
)
def test_what_cannot_be_scored_is_refused(label: Any, probability: Any, message: str) -> None:
    with pytest.raises(EcgpipeError, match=message):
        single_label.scores_one_of(label, probability)
