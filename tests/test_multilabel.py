"""Multi-label scores against their definitions, scikit-learn and cases worked by hand."""

from __future__ import annotations

import time
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from ecgpipe.errors import EcgpipeError
from ecgpipe.metrics import multi_label

Set = tuple[NDArray[np.int64], NDArray[np.float64]]


@st.composite
def sets(draw: st.DrawFn) -> Set:
    """Small sets of labels and probabilities, with few distinct ones (many ties) or any."""
    n, c = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    ties = st.sampled_from([0.0, 0.25, 0.5, 0.7, 1.0])
    values = draw(st.sampled_from([ties, st.floats(0, 1)]))
    label = draw(st.lists(st.integers(0, 1), min_size=n * c, max_size=n * c))
    probability = draw(st.lists(values, min_size=n * c, max_size=n * c))
    return np.array(label).reshape(n, c), np.array(probability).reshape(n, c)


def _share(part: Any, whole: Any) -> Fraction:
    return Fraction(part) / Fraction(whole) if whole else Fraction(0)


def _auc_plainly(label: list[int], value: list[float]) -> float:
    pairs = [
        Fraction(1) if inside > outside else Fraction(inside == outside, 2)
        for inside, has in zip(value, label, strict=True)
        for outside, lacks in zip(value, label, strict=True)
        if has and not lacks
    ]
    return float(sum(pairs) / len(pairs)) if pairs else float("nan")


def _item_f1_plainly(label: Any, probability: Any, threshold: float) -> Fraction:
    precisions, recalls = [], []
    for true, p in zip(label.tolist(), probability.tolist(), strict=True):
        if not any(true):
            continue
        answered = [value >= threshold for value in p]
        both = sum(t and a for t, a in zip(true, answered, strict=True))
        if any(answered):
            precisions.append(Fraction(both, sum(answered)))
        recalls.append(Fraction(both, sum(true)))
    precision = _share(sum(precisions), len(precisions))
    recall = _share(sum(recalls), len(recalls))
    return _share(2 * precision * recall, precision + recall)


def _challenge_plainly(label: Any, decision: Any, beta: int) -> tuple[Fraction, Fraction]:
    """Both scores of the 2020 challenge."""
    f, g = [], []
    for place in range(label.shape[1]):
        tp = fp = fn = Fraction(0)
        for true, answered in zip(label.tolist(), decision.tolist(), strict=True):
            weight = Fraction(1, max(sum(true), 1))
            if true[place] and answered[place]:
                tp += weight
            elif answered[place]:
                fp += weight
            elif true[place]:
                fn += weight
        f.append(_share((1 + beta**2) * tp, (1 + beta**2) * tp + fp + beta**2 * fn))
        g.append(_share(tp, tp + fp + beta * fn))
    return sum(f) / Fraction(len(f)), sum(g) / Fraction(len(g))


@given(sets())
def test_auc_is_its_definition(one: Set) -> None:
    label, probability = one
    plainly = [
        _auc_plainly(*pair) for pair in zip(label.T.tolist(), probability.T.tolist(), strict=True)
    ]
    found = multi_label.class_auc(label, probability)
    np.testing.assert_allclose(found, plainly, rtol=1e-12)
    if np.isnan(plainly).all():
        assert np.isnan(multi_label.auc(label, probability))
    else:
        mean = np.nanmean(plainly)
        assert multi_label.auc(label, probability) == pytest.approx(mean, rel=1e-12)


@given(sets())
def test_fmax_is_its_definition(one: Set) -> None:
    label, probability = one
    assert multi_label.count_unlabelled(label) == [sum(row) for row in label.tolist()].count(0)
    assume(label.any())
    plainly = {float(t): _item_f1_plainly(label, probability, t) for t in np.unique(probability)}
    found, threshold = multi_label.fmax(label, probability)
    assert found == pytest.approx(float(max(plainly.values())), rel=1e-12)
    # Only labelled items offer thresholds; the highest that is as good as any is taken.
    offered = set(probability[label.any(1)].ravel().tolist())
    assert threshold == max(t for t in offered if plainly[t] == max(plainly.values()))


@given(sets(), st.integers(0, 3), st.data())
def test_challenge_scores_are_their_definition(one: Set, beta: int, data: st.DataObject) -> None:
    label, probability = one
    threshold = data.draw(st.sampled_from([*np.unique(probability).tolist(), 2.0]))
    decision = probability >= threshold
    f, g = _challenge_plainly(label, decision, beta)
    assert multi_label.f_beta(label, decision, beta) == pytest.approx(float(f), rel=1e-12)
    assert multi_label.g_beta(label, decision, beta) == pytest.approx(float(g), rel=1e-12)
    if beta == 2:
        assert multi_label.f_beta(label, decision) == pytest.approx(float(f), rel=1e-12)
        assert multi_label.g_beta(label, decision) == pytest.approx(float(g), rel=1e-12)


@given(sets())
def test_best_threshold_beats_every_other(one: Set) -> None:
    label, probability = one
    tried = {t: _challenge_plainly(label, probability >= t, 2) for t in np.unique(probability)}
    f = multi_label.best_threshold(label, probability, "f_beta")
    assert f == max(t for t in tried if tried[t][0] == max(both[0] for both in tried.values()))
    g = multi_label.best_threshold(label, probability, "g_beta")
    assert g == max(t for t in tried if tried[t][1] == max(both[1] for both in tried.values()))


@settings(max_examples=40)
@given(sets(), st.randoms(use_true_random=False))
def test_order_of_items_and_scale_do_not_matter(one: Set, random: Any) -> None:
    label, probability = one
    label[0, 0] = 1
    order = random.sample(range(len(label)), len(label))
    best, threshold = multi_label.fmax(label, probability)
    assert multi_label.fmax(label[order], probability[order]) == (pytest.approx(best), threshold)
    for metric in ("f_beta", "g_beta"):
        choose = partial(multi_label.best_threshold, metric=metric)
        assert choose(label[order], probability[order]) == choose(label, probability)
    areas = multi_label.class_auc(label, probability)
    np.testing.assert_array_equal(multi_label.class_auc(label[order], probability[order]), areas)
    # Any strictly increasing transform: places among the distinct values, cubed.
    places = np.searchsorted(np.unique(probability), probability) ** 3 - 40.0
    np.testing.assert_array_equal(multi_label.class_auc(label, places), areas)
    transformed, place = multi_label.fmax(label, places)
    assert transformed == pytest.approx(best, rel=1e-12)
    np.testing.assert_array_equal(places >= place, probability >= threshold)


@pytest.mark.parametrize("seed", range(12))
def test_scores_agree_with_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, c = int(rng.integers(20, 90)), int(rng.integers(2, 10))
    label = (rng.random((n, c)) < rng.uniform(0.1, 0.6, c)).astype(int)
    label[:2] = [[1], [0]]  # every class has both sides
    probability = rng.integers(0, 30, (n, c)) / 30 if seed % 2 else rng.random((n, c))
    areas = metrics.roc_auc_score(label, probability, average=None)
    np.testing.assert_allclose(multi_label.class_auc(label, probability), areas, rtol=1e-12)
    decision = probability >= 0.5
    f1 = metrics.f1_score(label, decision, average=None, zero_division=0)
    np.testing.assert_allclose(multi_label.class_f1_many(label, decision), f1, rtol=1e-12)
    some = label.any(1)  # the weights of the others are a matter of the challenge alone
    pair = label[some], decision[some]
    how: dict[str, Any] = {"average": "macro", "zero_division": 0}
    how["sample_weight"] = 1 / label[some].sum(1)
    weighted = metrics.fbeta_score(*pair, beta=2, **how)
    assert multi_label.f_beta(*pair) == pytest.approx(weighted, rel=1e-12)
    jaccard = metrics.jaccard_score(*pair, **how)
    assert multi_label.g_beta(*pair, beta=1) == pytest.approx(jaccard, rel=1e-12)
    scores = multi_label.scores_many_of(label, probability)
    assert list(scores) == ["auc", "fmax", "macro_f1"]
    macro = metrics.roc_auc_score(label, probability, average="macro")
    assert scores["auc"] == pytest.approx(macro, rel=1e-12)
    assert scores["macro_f1"] == pytest.approx(f1.mean(), rel=1e-12)
    assert scores["fmax"] == multi_label.fmax(label, probability)[0]


LABEL = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
PROBABILITY = np.array([[0.9, 0.6, 0.1], [0.8, 0.3, 0.2], [0.4, 0.4, 0.0], [0.7, 0.1, 0.1]])


def test_class_auc_worked_by_hand() -> None:
    areas = multi_label.class_auc(LABEL, PROBABILITY)
    # Class 0: .9 and .8 lie above .4 and .7. Class 1: .3 is below .6 and above .1, so is .4.
    np.testing.assert_array_equal(areas, [1, 2 / 4, np.nan])
    assert multi_label.auc(LABEL, PROBABILITY) == 0.75  # of the two classes that have one
    assert multi_label.class_auc([[1], [0], [0]], [[0.5], [0.5], [0.1]]).tolist() == [1.5 / 2]
    assert np.isnan(multi_label.auc([[1, 0]], [[0.2, 0.4]]))


def test_fmax_worked_by_hand() -> None:
    # The fourth item has no class. Thresholds, items with an answer, their precisions; recalls:
    # .9: 1, (1); 1 0 0 -> P 1, R 1/3, F .5
    # .8: 2, (1, 1); 1 1/2 0 -> P 1, R 1/2, F 2/3
    # .6: 2, (1/2, 1); 1 1/2 0 -> P 3/4, R 1/2, F 3/5
    # .4: 3, (1/2, 1, 1/2); 1 1/2 1 -> P 2/3, R 5/6, F 20/27
    # .3: 3, (1/2, 1, 1/2); 1 1 1 -> P 2/3, R 1, F 4/5
    # .2: 3, (1/2, 2/3, 1/2); 1 1 1 -> P 5/9, R 1, F 5/7, and lower ones answer still more
    assert multi_label.fmax(LABEL, PROBABILITY) == (pytest.approx(4 / 5, rel=1e-14), 0.3)
    assert multi_label.count_unlabelled(LABEL) == 1
    # A perfect order, one item at each of two thresholds that are equally good: the higher.
    assert multi_label.fmax([[1, 0]], [[0.9, 0.2]]) == (1, 0.9)
    # Never right: P 0 and R 0 at .9, then everything is answered: P 1/2, R 1, F 2/3.
    assert multi_label.fmax([[0, 1]], [[0.9, 0.2]]) == (pytest.approx(2 / 3, rel=1e-14), 0.2)
    assert multi_label.fmax([[1, 0], [0, 1]], [[0.9, 0.2], [0.2, 0.9]]) == (1, 0.9)


def test_challenge_scores_worked_by_hand() -> None:
    decision = PROBABILITY >= 0.4  # 1 1 0 · 1 0 0 · 1 1 0 · 1 0 0
    # Weights 1, 1/2, 1, and 1 for the item without a class.
    # Class 0: TP 1 + 1/2, FP 1 + 1, FN 0 -> F 7.5 / 9.5, G 1.5 / 3.5
    # Class 1: TP 1, FP 1, FN 1/2 -> F 5 / (5 + 1 + 2), G 1 / (1 + 1 + 1)
    # Class 2: nowhere -> 0
    f, g = multi_label.f_beta(LABEL, decision), multi_label.g_beta(LABEL, decision)
    assert f == pytest.approx((7.5 / 9.5 + 5 / 8 + 0) / 3, rel=1e-14)
    assert g == pytest.approx((1.5 / 3.5 + 1 / 3 + 0) / 3, rel=1e-14)
    # Counted without weights: TP 2 FP 2; TP 1 FP 1 FN 1; nowhere.
    assert multi_label.class_f1_many(LABEL, decision).tolist() == [4 / 6, 2 / 4, 0]
    assert multi_label.class_f1_many(LABEL, decision).mean() == pytest.approx((4 / 6 + 2 / 4) / 3)


def test_best_threshold_worked_by_hand() -> None:
    # One class, one label each. p >= .9: TP 1 FN 2 -> F 5 / (5 + 8), G 1 / (1 + 4)
    # .6: TP 1 FP 1 FN 2 -> F 5 / 14, G 1 / 6 · .5: TP 2 FP 1 FN 1 -> F 10 / 15, G 2 / 5
    # .2: TP 2 FP 6 FN 1 -> F 10 / 20, G 2 / 10 · .1: TP 3 FP 6 -> F 15 / 21, G 3 / 9
    label = np.array([[1], [0], [1], [0], [0], [0], [0], [0], [1]])
    probability = np.array([[0.9], [0.6], [0.5], [0.2], [0.2], [0.2], [0.2], [0.2], [0.1]])
    assert multi_label.best_threshold(label, probability, "f_beta") == 0.1
    assert multi_label.best_threshold(label, probability, "g_beta") == 0.5


def test_nothing_true_and_nothing_answered_counts_as_zero() -> None:
    nothing, everything = np.zeros((3, 2), int), np.ones((3, 2), int)
    for decision in (nothing, everything):
        assert multi_label.f_beta(nothing, decision) == multi_label.g_beta(nothing, decision) == 0
        assert not multi_label.class_f1_many(nothing, decision).any()
    assert multi_label.f_beta(everything, nothing) == multi_label.g_beta(everything, nothing) == 0
    assert multi_label.f_beta(everything, everything) == 1
    assert multi_label.g_beta(everything, everything) == 1
    # Every threshold is equally bad, and the highest is taken.
    assert multi_label.best_threshold(nothing, [[0.1, 0.2]] * 3, "f_beta") == 0.2
    assert multi_label.count_unlabelled(nothing) == 3
    with pytest.raises(EcgpipeError, match=r"no item has a true class"):
        multi_label.fmax(nothing, [[0.1, 0.2]] * 3)


def test_thresholds_survive_single_precision() -> None:
    rng = np.random.default_rng(3)
    label, probability = rng.integers(0, 2, (50, 4)), rng.random((50, 4), np.float32)
    threshold = multi_label.best_threshold(label, probability, "g_beta")
    assert threshold in probability.astype(float)
    assert (probability >= threshold).sum() == (probability.astype(float) >= threshold).sum()
    best, threshold = multi_label.fmax(label, probability)
    assert float(_item_f1_plainly(label, probability, threshold)) == pytest.approx(best, rel=1e-12)


def test_a_large_set_is_quick_and_exact() -> None:
    rng = np.random.default_rng(7)
    label = (rng.random((21_000, 12)) < 0.12).astype(int)
    label[np.arange(len(label)), rng.integers(0, 12, len(label))] = 1
    probability = 1 / (1 + np.exp(2.5 - 2 * label - rng.normal(size=label.shape)))
    calls: list[Any] = [
        multi_label.scores_many_of,
        multi_label.fmax,
        partial(multi_label.best_threshold, metric="f_beta"),
        partial(multi_label.best_threshold, metric="g_beta"),
    ]
    results = []
    for call in calls:
        start = time.process_time()
        results.append(call(label, probability))
        assert time.process_time() - start < 3
    scores, (best, threshold), for_f, for_g = results
    plainly = float(_item_f1_plainly(label, probability, threshold))
    assert scores["fmax"] == best == pytest.approx(plainly, rel=1e-11)
    areas = metrics.roc_auc_score(label, probability)
    assert scores["auc"] == pytest.approx(areas, rel=1e-12)
    best_f = multi_label.f_beta(label, probability >= for_f)
    best_g = multi_label.g_beta(label, probability >= for_g)
    near = np.array([threshold, for_f, for_g]) + rng.normal(0, 0.01, (20, 3))
    for other in [*near.ravel(), *np.quantile(probability, np.linspace(0, 1, 40))]:
        decision = probability >= other
        assert _item_f1_of(label, decision) <= best + 1e-11
        assert multi_label.f_beta(label, decision) <= best_f + 1e-11
        assert multi_label.g_beta(label, decision) <= best_g + 1e-11


def _item_f1_of(label: Any, decision: Any) -> float:
    both, count = (label * decision).sum(1), decision.sum(1)
    precision, recall = (both[count > 0] / count[count > 0]).mean(), (both / label.sum(1)).mean()
    return 2 * precision * recall / (precision + recall)


GOOD = [[0.5, 0.5]]


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([[0, 1], [1, 0]], GOOD, r"\(2, 2\) labels for \(1, 2\) predictions"),
        ([[0, 1, 1]], GOOD, r"\(1, 3\) labels for \(1, 2\)"),
        ([[0, 1]], [0.5, 0.5], r"labels for \(2,\)"),
        ([0, 1], GOOD, r"\(items, classes\) labels needed, not \(2,\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), r"labels needed, not \(0, 2\)"),
        (np.zeros((2, 0)), np.zeros((2, 0)), r"labels needed, not \(2, 0\)"),
        ([[0, 2]], GOOD, r"must be 0 or 1"),
        ([[0, 0.5]], GOOD, r"must be 0 or 1"),
        ([[0, np.nan]], GOOD, r"must be 0 or 1"),
        ([[0, 1]], [[np.nan, 0.5]], r"diverged; lower the learning rate"),
        ([[0, 1]], [[np.inf, 0.5]], r"diverged"),
    ],
)
def test_what_cannot_be_scored_is_refused(label: Any, probability: Any, message: str) -> None:
    calls: list[Any] = [
        multi_label.class_auc,
        multi_label.auc,
        multi_label.fmax,
        multi_label.scores_many_of,
        partial(multi_label.best_threshold, metric="f_beta"),
    ]
    for call in calls:
        with pytest.raises(EcgpipeError, match=message):
            call(label, probability)


@pytest.mark.parametrize(
    ("label", "decision", "message"),
    [
        ([[0, 1], [1, 0]], [[True, False]], r"\(2, 2\) labels for \(1, 2\) predictions"),
        ([[0, 1]], GOOD, r"must be 0 or 1"),
        ([[0, 3]], [[True, False]], r"must be 0 or 1"),
        ([[0, 1]], [[np.nan, 1]], r"must be 0 or 1"),
        (np.zeros((0, 2)), np.zeros((0, 2), bool), r"labels needed, not \(0, 2\)"),
    ],
)
def test_what_cannot_be_counted_is_refused(label: Any, decision: Any, message: str) -> None:
    for call in (
        multi_label.f_beta,
        multi_label.g_beta,
        multi_label.class_f1_many,
    ):
        with pytest.raises(EcgpipeError, match=message):
            call(label, decision)
