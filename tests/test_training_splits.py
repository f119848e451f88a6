"""Sides of a downstream set: no patient and no copied signal on two of them, for every set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import databases as db
import numpy as np
import pytest

from ecgpipe.config import FinetuneSettings
from ecgpipe.errors import EcgpipeError
from ecgpipe.loading.recordings import Label
from ecgpipe.storage.sidecar import RecordRow
from ecgpipe.training.splits import Split, draw_split, draw_test, has_folds, records_held_back

CINC = {"N": 5076, "A": 758, "O": 2415, "~": 279}  # 8,528 records
Set = tuple[dict[str, RecordRow], dict[str, Label]]


def _cinc(counts: dict[str, int], copies: int = 0) -> Set:
    """One class a record; the first records are copies of each other, in pairs."""
    classes = [at for at, count in enumerate(counts.values()) for _ in range(count)]
    random.Random(0).shuffle(classes)
    keys = [f"A{i:05d}" for i in range(len(classes))]
    sha = {key: key for key in keys}
    for i in range(copies):
        sha[keys[2 * i]] = sha[keys[2 * i + 1]] = f"copy{i}"
    rows = {key: db.row(key, key, sha[key]) for key in keys}
    return rows, dict(zip(keys, classes, strict=True))


def _icbeb(records: int = 1377, seed: int = 0) -> Set:
    """One to three of nine classes, as unequal as in the real set; some copies."""
    rng = np.random.default_rng(seed)
    share = np.array([918, 1221, 722, 236, 1857, 616, 700, 869, 220], float)
    rows, label = {}, {}
    for i in range(records):
        key, number = f"A{i:04d}", int(rng.choice([1, 2, 3], p=[0.92, 0.07, 0.01]))
        chosen = rng.choice(9, number, replace=False, p=share / share.sum())
        label[key] = tuple(sorted(int(at) for at in chosen))
        sha = f"copy{i // 40}" if i % 40 < 2 else key
        rows[key] = db.row(key, key, sha)
    return rows, label


def _ptbxl(records: int = 900, seed: int = 0, strays: bool = True) -> Set:
    """Patients with several records, in folds by patient; with strays, some cross the folds."""
    rng = np.random.default_rng(seed)
    rows, label = {}, {}
    for i in range(records):
        key, patient = f"{i:05d}", int(rng.integers(0, records // 2))
        fold = 1 + patient % 10
        if strays and i % 50 == 0:
            fold = 1 + (patient + 5) % 10
        rows[key] = db.row(key, str(patient), key, fold)
        label[key] = tuple(sorted({int(at) for at in rng.choice(12, int(rng.integers(1, 3)))}))
    if strays:
        for one, other in (("00003", "00400"), ("00005", "00600")):
            rows[one] = replace(rows[one], sha256=rows[other].sha256)
    return rows, label


def _homes(split: Split) -> Iterator[dict[str, str]]:
    """The part that every key is in, for each repeat."""
    for repeat in split.repeats:
        home = {key: name for name in ("train", "validation") for key in getattr(repeat, name)}
        assert len(home) == len(repeat.train) + len(repeat.validation)
        assert not home.keys() & set(split.test)
        yield home | dict.fromkeys(split.test, "test")


SETS = {
    "cinc2017": lambda seed: _cinc({"N": 300, "A": 60, "O": 150, "~": 30}, copies=40),
    "icbeb2018": lambda seed: _icbeb(seed=seed),
    "ptbxl": lambda seed: _ptbxl(seed=seed),
    "ptbxl, drawn": lambda seed: _ptbxl(seed=seed),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("seed", range(12))
def test_nobody_and_no_copy_stands_on_two_sides(name: str, seed: int) -> None:
    rows, label = SETS[name](seed)
    settings = FinetuneSettings(repeats=3, split_seed=seed, official_folds=name != "ptbxl, drawn")
    split = draw_split(rows, label, settings)
    unseen = records_held_back(rows, label, settings.test_share, seed)
    for home in _homes(split):
        for what in ("patient", "sha256"):
            where = {(getattr(rows[key], what), side) for key, side in home.items()}
            assert len(where) == len({value for value, _ in where}), what
        assert set(home.values()) == {"train", "validation", "test"}
    if name != "ptbxl, drawn":
        # Pretraining leaves out all of the test set, and whoever belongs to it.
        assert set(split.test) <= set(unseen)
        rest = rows.keys() - set(unseen)
        for what in ("patient", "sha256"):
            tested = {getattr(rows[key], what) for key in split.test}
            assert not tested & {getattr(rows[key], what) for key in rest}


def test_sides_of_the_paper() -> None:
    rows, label = _cinc(CINC, copies=30)
    split = draw_split(rows, label, FinetuneSettings(repeats=2))
    for home in _homes(split):
        assert Counter(home.values()) == {"train": 6396, "validation": 426, "test": 1706}
        for at, count in enumerate(CINC.values()):
            for side, share in (("train", 0.75), ("validation", 0.05), ("test", 0.2)):
                found = sum(label[key] == at for key in home if home[key] == side)
                assert abs(found - share * count) <= 4  # copies count for their group
    assert split.repeats[0] != split.repeats[1]
    assert draw_test(rows, label, 0.2, 0) == split.test


def test_class_ratio_of_many_labels_is_kept() -> None:
    rows, label = _icbeb(6877)
    split = draw_split(rows, label, FinetuneSettings(repeats=3))
    whole = Counter(at for found in label.values() for at in found)
    for home in _homes(split):
        for side, share in (("train", 0.75), ("validation", 0.05), ("test", 0.2)):
            keys = [key for key in home if home[key] == side]
            assert len(keys) == round(share * 6877)
            found = Counter(at for key in keys for at in label[key])
            for at, count in whole.items():
                assert abs(found[at] - share * count) < 0.02 * count + 6, (side, at)


def test_official_folds() -> None:
    rows, label = _ptbxl(strays=False)
    assert has_folds(rows)
    split = draw_split(rows, label, FinetuneSettings(repeats=2))
    for side in split.repeats:
        assert {rows[key].fold for key in side.train} == set(range(1, 9))
        assert {rows[key].fold for key in side.validation} == {9}
        assert len(side.train) + len(side.validation) + len(split.test) == 900
    assert {rows[key].fold for key in split.test} == {10}
    few = draw_split(rows, label, FinetuneSettings(repeats=2, train_share=0.25))
    assert few.test == split.test
    assert [len(side.train) for side in few.repeats] == [225, 225]
    assert few.repeats[0].train != few.repeats[1].train
    assert few.repeats[0].validation == few.repeats[1].validation
    drawn = draw_split(rows, label, FinetuneSettings(official_folds=False))
    assert len({rows[key].fold for key in drawn.test}) == 10


def test_strays_between_folds_are_left_out_of_the_earlier_side() -> None:
    rows, label = _ptbxl()
    split = draw_split(rows, label, FinetuneSettings(repeats=1))
    assert set(split.test) == {key for key, row in rows.items() if row.fold == 10}
    (home,) = _homes(split)
    left_out = rows.keys() - home.keys()
    assert left_out
    late = {key for key in home if home[key] != "train"}
    for key in left_out:
        same = [other for other in rows if rows[other].patient == rows[key].patient]
        copies = [other for other in rows if rows[other].sha256 == rows[key].sha256]
        assert late & {*same, *copies}


def test_folds_that_leave_a_side_empty() -> None:
    rows, label = _ptbxl(strays=False)
    early = {key: row for key, row in rows.items() if row.fold < 9}
    with pytest.raises(EcgpipeError, match=r"official_folds: .* 0 to validate and 0 to test"):
        draw_split(early, {key: label[key] for key in early}, FinetuneSettings())


SMALL = _cinc({"N": 120, "A": 40, "O": 30, "~": 10})


def test_test_and_validation_do_not_depend_on_repeats_or_train_share() -> None:
    whole = draw_split(*SMALL, FinetuneSettings(repeats=4))
    for share, repeats in ((0.25, 4), (0.5, 2), (0.75, 1)):
        split = draw_split(*SMALL, FinetuneSettings(repeats=repeats, train_share=share))
        assert split.test == whole.test
        for one, other in zip(split.repeats, whole.repeats, strict=False):
            assert one.validation == other.validation
            assert len(one.train) == share * 200
            assert not set(one.train) & {*split.test, *one.validation}
    other = draw_split(*SMALL, FinetuneSettings(repeats=1, split_seed=1))
    assert other.test != whole.test
    same = draw_split(*SMALL, FinetuneSettings(repeats=4, seed=5))
    assert same == whole


@pytest.mark.parametrize(("share", "size"), [(0.25, 2132), (0.5, 4264), (0.75, 6396), (None, 6396)])
def test_smaller_training_sets(share: float | None, size: int) -> None:
    split = draw_split(*_cinc(CINC), FinetuneSettings(repeats=1, train_share=share))
    assert len(split.repeats[0].train) == size


@pytest.mark.parametrize(
    "shares",
    [{"train_share": 0.8}, {"test_share": 0.5, "validation_share": 0.3}, {"test_share": 0.001}],
)
def test_shares_that_cannot_be_drawn(shares: dict[str, float]) -> None:
    with pytest.raises(EcgpipeError, match="train_share, validation_share, test_share"):
        draw_split(*SMALL, FinetuneSettings(**shares))
