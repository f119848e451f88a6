"""Splits: sizes, class ratio, nothing divided that belongs together, nothing drawn by accident."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgpipe.labels.splits import FEWEST, groups_by, hold_out, strata, stratified_split

CINC = {"N": 5076, "A": 758, "O": 2415, "~": 279}  # 8,528 records
NAMES = [f"p{i:05d}" for i in range(40)]


def _set(counts: dict[str, int]) -> dict[str, str]:
    classes = [name for name, count in counts.items() for _ in range(count)]
    random.Random(0).shuffle(classes)
    return {f"A{i:05d}": name for i, name in enumerate(classes)}


def _alone(keys: Any) -> dict[str, str]:
    return {key: key for key in keys}


def test_hold_out_does_not_depend_on_order_or_repetition() -> None:
    chosen = hold_out(NAMES, 0.2, 3)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 8
    assert hold_out(NAMES[::-1], 0.2, 3) == chosen
    assert hold_out([*NAMES, *NAMES[:7]], 0.2, 3) == chosen
    assert hold_out(NAMES, 0.2, 4) != chosen


@given(st.integers(2, 60), st.floats(0.001, 0.999), st.integers(0, 99))
def test_hold_out_leaves_both_sides_somebody(count: int, share: float, seed: int) -> None:
    names = [str(i) for i in range(count)]
    chosen = hold_out(names, share, seed)
    assert set(chosen) < set(names)
    assert 1 <= len(chosen) < count
    assert abs(len(chosen) - share * count) <= 1


def test_hold_out_reaches_everybody() -> None:
    seen = Counter(name for seed in range(300) for name in hold_out(NAMES[:10], 0.2, seed))
    assert set(seen) == set(NAMES[:10])
    assert max(seen.values()) < 2 * min(seen.values())


@pytest.mark.parametrize("names", [[], ["p"], ["p", "p"]])
def test_one_patient_cannot_be_held_out(names: list[str]) -> None:
    with pytest.raises(ValueError, match="cannot be split"):
        hold_out(names, 0.05, 0)


@pytest.mark.parametrize("seed", range(5))
def test_sizes_and_ratio_of_the_paper(seed: int) -> None:
    label, sizes = _set(CINC), [6396, 426, 1706]
    sides = stratified_split(label, _alone(label), sizes, [seed])
    assert [len(side) for side in sides] == sizes
    assert set().union(*sides) == set(label)
    for side, size in zip(sides, sizes, strict=True):
        assert side == sorted(side)
        found = Counter(label[key] for key in side)
        for name, count in CINC.items():
            assert abs(found[name] - count * size / 8528) <= 1


def test_seed_decides_and_order_does_not() -> None:
    label = _set({"a": 30, "b": 12})
    one = stratified_split(label, _alone(label), [20, 8], [0, 1])
    backwards = dict(reversed(label.items()))
    assert stratified_split(backwards, _alone(label), [20, 8], [0, 1]) == one
    others = [stratified_split(label, _alone(label), [20, 8], [0, s]) for s in range(2, 8)]
    assert all(other != one for other in others)


def test_more_than_there_is() -> None:
    with pytest.raises(ValueError, match="splits of 5 records from 4"):
        stratified_split(_set({"a": 4}), _alone(_set({"a": 4})), [3, 2], [0])


@st.composite
def _divisions(draw: Any) -> tuple[dict[str, str], list[int], int]:
    counts = draw(st.lists(st.integers(1, 30), min_size=1, max_size=5))
    label = _set({f"c{i}": count for i, count in enumerate(counts)})
    left, sizes = len(label), []
    for _ in range(draw(st.integers(1, 3))):
        sizes.append(draw(st.integers(0, left)))
        left -= sizes[-1]
    return label, sizes, draw(st.integers(0, 999))


@settings(max_examples=300)
@given(_divisions())
def test_any_division_is_exact_disjoint_and_in_proportion(
    division: tuple[dict[str, str], list[int], int],
) -> None:
    label, sizes, seed = division
    sides = stratified_split(label, _alone(label), sizes, [seed])
    assert [len(side) for side in sides] == sizes
    keys = [key for side in sides for key in side]
    assert len(keys) == len(set(keys))
    assert set(keys) <= set(label)
    counts = Counter(label.values())
    for side, size in zip(sides, sizes, strict=True):
        found = Counter(label[key] for key in side)
        # One side at a time, which is how finetuning draws, is the nearest whole numbers.
        allowed = 1 if len(sizes) == 1 else 2
        for name, count in counts.items():
            assert abs(found[name] - count * size / len(label)) < allowed


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(2, 3))
def test_groups_stay_together_and_sizes_exact(seed: int, groups: int, members: int) -> None:
    # Enough single keys in every class to fill up whatever the groups leave open.
    label = _set({"a": 40, "b": 30})
    keys = sorted(label)
    random.Random(seed).shuffle(keys)
    group = _alone(label)
    for i in range(groups):
        for key in keys[i * members : (i + 1) * members]:
            group[key] = f"g{i}"
            label[key] = "ab"[i % 2]
    sizes = [50, 4, 14]
    sides = stratified_split(label, group, sizes, [seed])
    side_of = {key: i for i, side in enumerate(sides) for key in side}
    together = {(group[key], side_of.get(key)) for key in label}
    assert len(together) == len(set(group.values()))
    assert [len(side) for side in sides] == sizes


def _groups(rows: list[tuple[str, str, str]]) -> dict[str, str]:
    """Groups of keys with a patient and a signal each."""
    return groups_by({row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows})


def test_groups_merge_by_patient_and_by_signal_transitively() -> None:
    rows = [
        ("a", "p1", "x"), ("b", "p2", "y"), ("c", "p1", "y"), ("d", "p3", "z"), ("e", "p4", "z"),
        ("f", "p5", "u"), ("g", "p2", "w"),
    ]  # fmt: skip
    for order in range(20):
        random.Random(order).shuffle(rows)
        found = _groups(rows)
        assert found.keys() == set("abcdefg")
        assert {key for key in found if found[key] == found["a"]} == set("abcg")
        assert {key for key in found if found[key] == found["d"]} == set("de")
        assert {key for key in found if found[key] == found["f"]} == {"f"}


PAIRS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20)


@given(PAIRS)
def test_groups_are_connected_components(pairs: list[tuple[int, int]]) -> None:
    found = _groups([(f"k{i}", f"p{p}", f"s{s}") for i, (p, s) in enumerate(pairs)])
    # Independently: powers of the adjacency of records that share something.
    linked = np.array([[a[0] == b[0] or a[1] == b[1] for b in pairs] for a in pairs], int)
    reach = np.linalg.matrix_power(linked, max(1, len(pairs))) if pairs else linked
    for i in range(len(pairs)):
        for j in range(len(pairs)):
            assert (found[f"k{i}"] == found[f"k{j}"]) == bool(reach[i, j])


def test_rare_combinations_count_for_their_rarest_class() -> None:
    label = {f"a{i}": (0,) for i in range(FEWEST)}
    label |= {f"b{i}": (0, 1) for i in range(FEWEST)}
    label |= {f"c{i}": (0, 2) for i in range(FEWEST - 1)} | {"d": (1, 2), "e": (1, 3)}
    found = strata(label)
    assert {found[f"a{i}"] for i in range(FEWEST)} == {(0,)}
    assert {found[f"b{i}"] for i in range(FEWEST)} == {(0, 1)}
    assert {found[f"c{i}"] for i in range(FEWEST - 1)} == {(2,)} == {found["d"]}
    assert found["e"] == (3,)
    single = {"x": 0, "y": 1}
    assert strata(single) == single
