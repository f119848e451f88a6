"""Splits by patient: held-out patients upstream, stratified splits downstream."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

FEWEST = 20  # of a combination of classes: one of them for a validation set of 5 %


def hold_out(patients: Sequence[str], share: float, seed: int, fewest: int = 1) -> list[str]:
    """Choose a share of the patients for validation; at least ``fewest`` in either split.

    The order of ``patients`` does not matter. The result is sorted.

    Raises
    ------
    ValueError
        Too few patients to hold some out.
    """
    names = sorted(set(patients))
    if len(names) < 2 * fewest:
        what = f"patient{'s' if len(names) > 1 else ''}"
        raise ValueError(
            f"{len(names)} {what} cannot be split into training and validation"
            + (f" of at least {fewest} each" if fewest > 1 else "")
        )
    count = min(max(fewest, round(share * len(names))), len(names) - fewest)
    chosen = np.random.default_rng([seed, len(names)]).permutation(len(names))[:count]
    return sorted(names[i] for i in chosen)


def groups_by(*properties: Mapping[str, str]) -> dict[str, str]:
    """Groups of keys that must never be divided, because they share the value of a property.

    Parameters
    ----------
    properties
        Each a value of every key, such as its patient, or the digest of its signal.

    Returns
    -------
    dict
        The group of every key, named after one of its records.
    """
    # A key's group is found by following it to a key that leads itself.
    leader = {key: key for key in properties[0]}

    def find(key: str) -> str:
        while leader[key] != key:
            key = leader[key]
        return key

    for values in properties:
        first: dict[str, str] = {}
        for key, value in values.items():
            leader[find(first.setdefault(value, key))] = find(key)
    return {key: find(key) for key in leader}


def strata(
    label: Mapping[str, int | tuple[int, ...]], fewest: int = FEWEST
) -> dict[str, int | tuple[int, ...]]:
    """The stratum of every key in a stratified split: its class, or its combination of classes.

    A combination with fewer than ``fewest`` keys cannot be spread over all splits; the stratum of
    its keys is the rarest of their classes instead. Single classes stay as they are.
    """
    combined = Counter(label.values())
    single = Counter(at for found in label.values() if isinstance(found, tuple) for at in found)

    def stratum(found: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if not isinstance(found, tuple) or combined[found] >= fewest or not found:
            return found
        return (min(found, key=lambda at: (single[at], at)),)

    return {key: stratum(found) for key, found in label.items()}


def stratified_split(
    label_of: Mapping[str, Hashable],
    group_of: Mapping[str, str],
    sizes: Sequence[int],
    seed: Sequence[int],
) -> list[list[str]]:
    """Divide keys into splits of given sizes, stratified by class; groups are never divided.

    Parameters
    ----------
    label_of
        Class of every key to divide.
    group_of
        Group of every key: recordings of one patient, or copies of one recording, stay together.
    sizes
        Number of keys of each split; the remaining keys are in none.
    seed
        Any sequence of integers.

    Returns
    -------
    list of list
        Keys of each split, sorted. Sizes are exact as long as there are ungrouped keys to fill
        them with.

    Raises
    ------
    ValueError
        The sizes add up to more than there is.
    """
    keys = sorted(label_of)
    if sum(sizes) > len(keys):
        raise ValueError(f"splits of {sum(sizes)} records from {len(keys)}")
    groups: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        groups[group_of[key]].append(key)
    # A group counts for the class of its first key: copies share theirs in all but freak cases.
    strata: dict[str, list[list[str]]] = defaultdict(list)
    for members in groups.values():
        strata[repr(label_of[members[0]])].append(members)
    names = sorted(strata)
    counts = [sum(map(len, strata[name])) for name in names]
    quotas = _quotas(counts, [*sizes, len(keys) - sum(sizes)])
    rng = np.random.default_rng(list(seed))
    splits: list[list[str]] = [[] for _ in range(len(sizes) + 1)]
    for name, quota in zip(names, quotas, strict=True):
        left = quota.copy()
        shuffled = [strata[name][i] for i in rng.permutation(len(strata[name]))]
        # Larger groups first, while there is room anywhere; single keys then fill up exactly.
        for members in sorted(shuffled, key=len, reverse=True):
            if len(members) > 1:
                room = np.where(left >= len(members), left, 0)
                fits = room.any()
                split = int(rng.choice(len(left), p=room / room.sum()) if fits else left.argmax())
            else:
                split = int(np.flatnonzero(left > 0)[0]) if (left > 0).any() else int(left.argmax())
            splits[split] += members
            left[split] -= len(members)
    return [sorted(split) for split in splits[: len(sizes)]]


def _quotas(counts: Sequence[int], sizes: Sequence[int]) -> list[np.ndarray]:
    """How many keys of each class each split gets: rows add up to counts, columns to sizes."""
    total = sum(sizes)
    exact = np.outer(counts, sizes) / total
    quota = np.floor(exact).astype(np.int64)
    # Give the remaining ones out by largest remainder, row and column sums kept.
    for row, split in sorted(
        np.ndindex(*quota.shape), key=lambda at: (-(exact - np.floor(exact))[at], at)
    ):
        if quota[row].sum() < counts[row] and quota[:, split].sum() < sizes[split]:
            quota[row, split] += 1
    # The greedy pass can leave a row and a column short of each other; any cell mends that.
    for row in range(len(counts)):
        while (short := counts[row] - quota[row].sum()) > 0:
            split = int(np.argmax(np.asarray(sizes) - quota.sum(axis=0)))
            quota[row, split] += min(short, sizes[split] - quota[:, split].sum())
    return list(quota)
