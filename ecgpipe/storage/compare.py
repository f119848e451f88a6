"""A store against what it was made from: raw files of an archive, the archive of shards.

Part by part, and of each part record by record, so that memory is bounded by a record of each side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..datasets import Folder, find_entries, read_entry, select
from ..errors import BadRecord, EcgpipeError
from ..files.paths import to_path
from ..labels.statements import select_statements
from ..progress import Progress
from ..types import Marks, Record
from .manifest import merge
from .shards import convert
from .sidecar import RecordRow, Sidecar
from .store import Store
from .zarr_part import PartReader

Original = Record | BadRecord | None  # as the source gives it, why it cannot be used, or not there


def compare(store: Store, source: str | Path, patients: str | None = None) -> list[str]:
    """What differs between a store and its source, each in a sentence.

    See :func:`ecgpipe.storage.verify.verify`.
    """
    is_archive = store.recipe.kind == "archive"
    origin: _Origin = (
        _RawFiles(store, source, patients) if is_archive else _Archived(store, to_path(source))
    )
    problems: list[str] = []
    seen: Counter[str] = Counter()

    def parts() -> Iterator[Sidecar]:
        """The parts as they were if made from what the source holds now."""
        with Progress(f"compare {store.path.name}", len(store.parts), "parts") as progress:
            for name in store.parts:
                sidecar = store.sidecar(name)
                seen.update(row.key for row in sidecar.records)
                seen.update(item.key for item in sidecar.left_out)
                rows, found = _compare_part(store, origin, name, sidecar)
                problems.extend(found)
                yield replace(sidecar, records=rows)
                progress.step(name)

    of_source = merge(store.recipe, parts()).totals.plain()
    if lost := sorted(origin.keys - seen.keys()):
        problems.append(
            f"{len(lost):,} records of {source} are not in it ({', '.join(lost[:3])}…); if only "
            "some patients were wanted, say --patients as they were prepared"
        )
    problems += [f"{key}: {count} times in it" for key, count in seen.items() if count > 1]
    made, here = store.recipe.versions.get("soxr"), version("soxr")
    if problems and made not in (None, here):
        problems.append(f"resampled by soxr {made}; {here}, which is here, may round differently")
    if not problems:  # else sums differ too
        in_store = store.manifest.totals.plain()
        problems += [
            f"totals.{name}: {in_store[name]}, but {of_source[name]} in {source}"
            for name in differing(of_source, in_store)
        ]
    return problems


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names that two trees do not have in common, or with other values."""
    return [name for name in {**one, **other} if one.get(name) != other.get(name)]


def _compare_part(
    store: Store, origin: _Origin, part: str, sidecar: Sidecar
) -> tuple[list[RecordRow], list[str]]:
    """The rows of a part's records as the source has them, and what differs."""
    of_source: list[RecordRow] = []
    problems: list[str] = []
    rows, left_out = sidecar.records, sidecar.left_out
    keys = [row.key for row in rows] + [item.key for item in left_out]
    originals = origin.read(part, keys)
    for row, stored in zip_longest(rows, store.read_part(part)):
        if row is None or stored is None or stored.key != row.key:
            return [], [f"part {part}: its records are not those that its sidecar names"]
        original = next(originals)
        if original is None:
            problems.append(f"{stored.key}: not in the source")
        elif isinstance(original, BadRecord):
            problems.append(f"{stored.key}: in the store, but cannot be used now: {original}")
        else:
            if not origin.has_qrs:
                original = replace(original, qrs=stored.qrs)
            row_of_source = replace(
                RecordRow.of(original, store.recipe.beats, store.recipe.rhythms),
                checksum=row.checksum,  # of the encoded bytes, which the source does not have
            )
            of_source.append(row_of_source)
            names = _differences(stored, original) or differing(row_of_source.plain(), row.plain())
            if names:
                problems.append(f"{stored.key}: {', '.join(names)}: not as in the source")
    for item in left_out:
        original = next(originals)
        if original is None:
            problems.append(f"{item.key}: left out of the store, and not in the source either")
        elif isinstance(original, Record):
            problems.append(
                f"{item.key}: left out ({item.reason}), but can be used now; run the "
                "store's command again"
            )
    return of_source, problems


def _differences(stored: Record, original: Record) -> list[str]:
    """Names of the fields in which two records differ."""
    plain = ("patient", "fs", "leads", "statements", "fold", "quantisation")
    found = [name for name in plain if getattr(stored, name) != getattr(original, name)]
    for name in ("gain", "baseline", "signal"):
        if not np.array_equal(getattr(stored, name), getattr(original, name)):
            found.append(name)
    for name in ("beats", "rhythms", "qrs"):
        if not _same(getattr(stored, name), getattr(original, name)):
            found.append(name)
    return found


def _same(one: Marks | None, other: Marks | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one.index, other.index) and np.array_equal(one.label, other.label)


class _Origin(Protocol):
    """What a store was made from."""

    keys: set[str]  # of all records that must be in the store, or left out of it by name
    has_qrs: bool  # detected complexes; else the store's own are taken

    def read(self, part: str, keys: Sequence[str]) -> Iterator[Original]:
        """Records of one part, one at a time, in the order of ``keys``."""
        ...


class _RawFiles:
    """What an archive was made from."""

    has_qrs = False

    def __init__(self, store: Store, source: str | Path, patients: str | None) -> None:
        self.dataset = store.recipe.dataset
        self.folder = Folder.open(source)
        found = find_entries(self.dataset, self.folder)
        self.entries = {e.key: e for e in select(found, patients, store.recipe.segments)}
        self.keys = set(self.entries)

    def read(self, part: str, keys: Sequence[str]) -> Iterator[Original]:
        entries = [self.entries.get(key) for key in keys]
        all_files = self.folder.fetch_all(entry.files if entry else () for entry in entries)
        for entry, files in zip(entries, all_files, strict=True):
            try:
                yield read_entry(self.dataset, entry, files) if entry else None
            except BadRecord as error:
                yield error


class _Archived:
    """What shards were made from."""

    has_qrs = True

    def __init__(self, store: Store, source: Path) -> None:
        recipe = store.shards_recipe
        self.archive, self.fs = Store(source), recipe.fs
        made = self.archive.recipe
        if made.kind != "archive" or made.dataset != recipe.dataset:
            raise EcgpipeError(
                f"{source}: holds {made.kind} of {made.dataset}; name the archive that "
                f"{store.path} was made from"
            )
        category = recipe.category
        self.selection = (
            select_statements(category, made.groups, made.statements) if category else None
        )
        self.keys = {row.key for row in self.archive.rows()}
        self.keys |= {item.key for item in self.archive.manifest.refused}

    def read(self, part: str, keys: Sequence[str]) -> Iterator[Original]:
        if part not in self.archive.parts:
            yield from (None for _ in keys)
            return
        sidecar = self.archive.sidecar(part)
        refused = {item.key: BadRecord(item.reason) for item in sidecar.refused}
        position = {row.key: i for i, row in enumerate(sidecar.records)}
        reader = PartReader(self.archive.path, sidecar) if position else None
        for key in keys:
            at = position.get(key)
            if reader is None or at is None:
                yield refused.get(key)
            else:
                try:
                    yield convert(reader.read(at), self.selection, self.fs)
                except BadRecord as error:
                    yield error
