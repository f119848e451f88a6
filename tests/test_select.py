"""Subsets of a data set: patients by number, segments spread evenly."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgpipe.datasets import Entry, select
from ecgpipe.errors import EcgpipeError


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=8),
    st.one_of(st.none(), st.integers(1, 70)),
    st.one_of(st.none(), st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)),
)
def test_a_subset_is_spread_evenly(
    lengths: list[int], segments: int | None, numbers: list[int] | None
) -> None:
    found = [
        Entry(f"p{p:05d}_s{s:02d}", f"p{p:05d}", "", ())
        for p, length in enumerate(lengths)
        for s in range(length)
    ]
    first, last = numbers or (0, 9)
    if first >= len(lengths):
        with pytest.raises(EcgpipeError, match="none of them is there"):
            select(found, f"{first}-{last}", segments)
        return
    chosen = select(found, numbers and f"{first}-{last}", segments)
    keys = [entry.key for entry in chosen]
    assert keys == sorted(set(keys))
    assert {int(key[1:6]) for key in keys} == set(range(first, min(last, len(lengths) - 1) + 1))
    for patient in {int(key[1:6]) for key in keys}:
        at = [int(key[-2:]) for key in keys if int(key[1:6]) == patient]
        length = lengths[patient]
        assert len(at) == min(segments or length, length)
        if len(at) > 1:
            steps = [b - a for a, b in pairwise(at)]
            assert at[0] == 0 and at[-1] == length - 1 and max(steps) - min(steps) <= 1


@pytest.mark.parametrize(
    ("text", "patients"),
    [("1-2", [1, 2]), ("0", [0]), ("3, 0-1", [0, 1, 3]), ("2-900", [2, 3]), ("00001", [1])],
)
def test_patients_are_chosen_by_number(text: str, patients: list[int]) -> None:
    found = [Entry(f"p{p:05d}_s{s:02d}", f"p{p:05d}", "", ()) for p in range(4) for s in range(2)]
    assert {e.patient for e in select(found, text, None)} == {f"p{p:05d}" for p in patients}


@pytest.mark.parametrize("text", ["", "a", "-3", "1-", "1-b", "1,,2", "5-9", "2-1"])
def test_other_numbers_are_refused(text: str) -> None:
    found = [Entry(f"p{p:05d}_s00", f"p{p:05d}", "", ()) for p in range(4)]
    with pytest.raises(EcgpipeError, match=f"^--patients {text}: (write it like|none of them)"):
        select(found, text, None)
