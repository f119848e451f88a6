"""Which records of a downstream set train, validate and test (paper, "Finetuning")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import FinetuneSettings
from ..errors import EcgpipeError
from ..files.atomic import write_json
from ..files.paths import exists
from ..files.typed import JsonData
from ..labels.splits import groups_by, strata, stratified_split
from ..loading.recordings import Label
from ..storage.sidecar import RecordRow

Rows = Mapping[str, RecordRow]  # by key
SPLIT = "split.json"
TRAINING_FOLDS, VALIDATION_FOLD, TEST_FOLD = range(1, 9), 9, 10  # of PTB-XL
DEFAULT_SHARE = 0.75  # of all records, for training


@dataclass(frozen=True, slots=True)
class RepeatSplit(JsonData):
    """Keys of the records that one repeat trains on and validates with."""

    train: list[str]
    validation: list[str]


@dataclass(frozen=True, slots=True)
class Split(JsonData):
    """``split.json``: keys of the test records, and of the others for every repeat."""

    test: list[str]
    repeats: list[RepeatSplit]

    def keep(self, file: Path) -> None:
        """Write the split; where the file exists, see that it holds the same.

        Raises
        ------
        EcgpipeError
            The file holds another split, which another version of NumPy could draw.
        """
        if not exists(file):
            write_json(file, self.plain())
        elif Split.read(file) != self:
            raise EcgpipeError(
                f"{file}: holds another split than the same settings and data give now; continue "
                "with the versions that run.json names, or name another folder for --out"
            )


def has_folds(rows: Rows) -> bool:
    """True if the set comes with its own split; records without a fold are in none of its parts."""
    return any(row.fold is not None for row in rows.values())


def by_folds(rows: Rows, settings: FinetuneSettings) -> bool:
    """True if the set's own folds are the split."""
    return settings.official_folds and has_folds(rows)


def without_fold(rows: Rows, settings: FinetuneSettings) -> list[str]:
    """A note on the records that are in no part of the split, because they have no fold."""
    keys = sorted(key for key, row in rows.items() if row.fold is None)
    if not keys or not by_folds(rows, settings):
        return []
    named = ", ".join(keys[:3]) + ("…" if len(keys) > 3 else "")
    what = "1 record" if len(keys) == 1 else f"{len(keys):,} records"
    return [f"{what} without a fold left out of the split ({named})"]


def draw_split(rows: Rows, label: Mapping[str, Label], settings: FinetuneSettings) -> Split:
    """Draw the test records, and training and validation records for every repeat.

    The split depends on the data and ``split_seed`` alone, so runs can be compared repeat by
    repeat. Shares are of the whole set. Official folds fix test and validation in every repeat; a
    patient or a signal that is in two parts of them is left out of the earlier part.

    Parameters
    ----------
    rows
        Rows of sidecars by key.
    label
        The class, or classes, of every key.

    Raises
    ------
    EcgpipeError
        Shares that add up to more than 1, or a part without a record.
    """
    share = settings.train_share
    if by_folds(rows, settings):
        return _by_folds(rows, label, settings)
    shares = {
        "train": DEFAULT_SHARE if share is None else share,
        "validation": settings.validation_share,
        "test": settings.test_share,
    }
    count = {name: round(part * len(label)) for name, part in shares.items()}
    if sum(shares.values()) > 1 + 1e-9 or min(count.values()) < 1:
        raise EcgpipeError(
            f"settings train_share, validation_share, test_share: {count} of {len(label)} records "
            "cannot be drawn; each must leave a record, and they must add up to 1 at most"
        )
    count["train"] = min(count["train"], len(label) - count["validation"] - count["test"])
    groups, strata_of = _groups(rows), strata(label)
    test = draw_test(rows, label, settings.test_share, settings.split_seed)
    tested = set(test)
    pool = {key: strata_of[key] for key in label if key not in tested}
    repeats = []
    for number in range(settings.repeats):
        # Validation is drawn first, so that it is the same however small the training set is.
        seed = [settings.split_seed, 2, number]
        (validation,) = stratified_split(pool, groups, [count["validation"]], seed)
        validated = set(validation)
        rest = {key: pool[key] for key in pool if key not in validated}
        repeats.append(RepeatSplit(_part(rest, groups, count["train"], seed), validation))
    return Split(test, repeats)


def draw_test(rows: Rows, label: Mapping[str, Label], share: float, seed: int) -> list[str]:
    """Draw the test records, which no repeat and no pretraining may see."""
    count = round(share * len(label))
    (test,) = stratified_split(strata(label), _groups(rows), [count], [seed, 1])
    return test


def records_held_back(rows: Rows, label: Mapping[str, Label], share: float, seed: int) -> list[str]:
    """All records of a downstream set that a pretraining must not see.

    The drawn test records; with official folds, the last two folds and all of their patients.
    """
    if has_folds(rows):
        groups = _groups(rows)
        late = {groups[key] for key in rows if rows[key].fold not in TRAINING_FOLDS}
        return sorted(key for key in rows if groups[key] in late)
    return draw_test(rows, label, share, seed)


def _groups(rows: Rows) -> dict[str, str]:
    """Records of one patient, or with the same signal, which no split divides."""
    return groups_by(
        {key: row.patient for key, row in rows.items()},
        {key: row.sha256 for key, row in rows.items()},
    )


def _by_folds(rows: Rows, label: Mapping[str, Label], settings: FinetuneSettings) -> Split:
    groups = _groups(rows)
    test = sorted(key for key in rows if rows[key].fold == TEST_FOLD)
    taken = {groups[key] for key in test}
    validation = sorted(
        key for key in rows if rows[key].fold == VALIDATION_FOLD and groups[key] not in taken
    )
    taken |= {groups[key] for key in validation}
    training = [
        key for key in rows if rows[key].fold in TRAINING_FOLDS and groups[key] not in taken
    ]
    if not (test and validation and training):
        raise EcgpipeError(
            f"setting official_folds: the folds hold {len(training)} records to train, "
            f"{len(validation)} to validate and {len(test)} to test; set it to false to draw them"
        )
    strata_of, share = strata(label), settings.train_share
    pool = {key: strata_of[key] for key in training}
    wanted = len(pool) if share is None else max(1, round(share * len(rows)))
    repeats = [
        RepeatSplit(_part(pool, groups, wanted, [settings.split_seed, 2, number]), validation)
        for number in range(settings.repeats)
    ]
    return Split(test, repeats)


def _part(
    pool: Mapping[str, Label], groups: Mapping[str, str], wanted: int, seed: Sequence[int]
) -> list[str]:
    # Groups can have made the parts drawn before larger, so that fewer records are left.
    (part,) = stratified_split(pool, groups, [min(wanted, len(pool))], seed)
    return part
