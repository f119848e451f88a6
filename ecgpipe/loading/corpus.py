"""The records that pretraining can use, by shard; records left out are counted."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ..errors import EcgpipeError
from ..labels.qrs import main_lead
from ..storage.sidecar import RecordRow
from ..storage.store import Store

TESTED, BARE = "that finetuning tests on", "without annotated beats"  # reasons to leave out
NOTHING: Mapping[str, Collection[str]] = MappingProxyType({})


class Symbols(NamedTuple):
    """Symbols that the labels of a record's marks are positions in."""

    beats: tuple[str, ...]
    rhythms: tuple[str, ...]


class Source(NamedTuple):
    """A record that frames are cut from."""

    key: str
    patient: str  # "dataset/patient"
    samples: int
    checksum: int | None  # of its sample in the shard


@dataclass(frozen=True)
class Shard:
    """A tar file and the records in it that are used."""

    path: Path
    symbols: Symbols
    main_lead: str | None
    records: tuple[Source, ...]


class Corpus(NamedTuple):
    """The shards of one or more stores, and what was left out of them."""

    shards: list[Shard]
    rows: list[tuple[str, RecordRow, int]]  # "dataset/patient", record, position of its main lead
    notes: list[str]

    @property
    def patients(self) -> list[str]:
        """All patients, sorted."""
        return sorted({record.patient for shard in self.shards for record in shard.records})

    def of(self, patients: Iterable[str]) -> list[Shard]:
        """The shards with the records of these patients only; shards without any are left out."""
        wanted = set(patients)
        chosen = (
            replace(shard, records=tuple(r for r in shard.records if r.patient in wanted))
            for shard in self.shards
        )
        return [shard for shard in chosen if shard.records]


def open_corpus(
    stores: Sequence[Store],
    fs: float,
    span: int,
    annotated: bool,
    unseen: Mapping[str, Collection[str]] = NOTHING,
) -> Corpus:
    """List the records that items of a task can be drawn from.

    Parameters
    ----------
    stores
        Shards of upstream data sets.
    fs
        The sampling rate they must have, Hz.
    span
        Samples from an item's first to its last; shorter records are left out, and counted.
    annotated
        True if frames need annotated beats; records without them are left out and counted.
    unseen
        By data set, records that are left out, and counted, because a network that is trained here
        will be tested on them.

    Raises
    ------
    EcgpipeError
        A store of another kind or rate, damaged files, or nothing left to draw from.
    """
    found = [_records_of(store, fs, span, annotated, unseen) for store in stores]
    corpus = Corpus(
        shards=[shard for one in found for shard in one.shards],
        rows=[row for one in found for row in one.rows],
        notes=[note for one in found for note in one.notes],
    )
    if not corpus.shards:
        raise EcgpipeError(
            "no record to draw frames from: " + "; ".join(corpus.notes or ["the shards are empty"])
        )
    return corpus


def _records_of(
    store: Store, fs: float, span: int, annotated: bool, unseen: Mapping[str, Collection[str]]
) -> Corpus:
    """The records of one store; the parameters are those of :func:`open_corpus`."""
    recipe = store.shards_recipe
    if recipe.fs != fs:
        raise EcgpipeError(
            f"{store.path}: shards at {recipe.fs:g} Hz where the setting fs says {fs:g}"
        )
    rows: list[tuple[str, RecordRow, int]] = []
    shards: list[Shard] = []
    left_out = dict.fromkeys((TESTED, BARE, short := f"under {span} samples"), 0)
    tested = set(unseen.get(recipe.dataset, ()))
    symbols = Symbols(recipe.beats, recipe.rhythms)
    for part in store.sidecars(check_files=True):
        records: list[Source] = []
        for row in part.records:
            if row.key in tested:
                left_out[TESTED] += 1
            elif annotated and row.beats is None:
                left_out[BARE] += 1
            elif row.samples < span:
                left_out[short] += 1
            else:
                patient = f"{recipe.dataset}/{row.patient}"
                records.append(Source(row.key, patient, row.samples, row.checksum))
                rows.append((patient, row, main_lead(row.leads, recipe.main_lead)))
        if records:
            path = store.shard(part.name)
            shards.append(Shard(path, symbols, recipe.main_lead, tuple(records)))
    notes = [
        f"{recipe.dataset}: {count:,} records {why} left out"
        for why, count in left_out.items()
        if count
    ]
    return Corpus(shards, rows, notes)
