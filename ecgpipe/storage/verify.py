"""Checking a store: against its own digests, and against what it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import Damaged, EcgpipeError
from ..files.atomic import json_bytes
from ..files.paths import exists, file_sizes
from ..progress import Progress
from .compare import compare, differing
from .manifest import MANIFEST, merge
from .parts import PARTS, RECIPE
from .sidecar import RecordRow, Sidecar
from .store import Store
from .zarr_part import ROOT, ROOT_CONTENT


def verify(
    path: Path,
    decode: bool = True,
    source: str | Path | None = None,
    patients: str | None = None,
) -> list[str]:
    """Everything that is wrong with a store, each in a sentence; nothing if it is whole.

    Checks that the manifest, its totals included, is what the sidecars add up to, that every file
    is there with its bytes and SHA-256, and, with ``decode``, that every record reads back with the
    counts, sums and signal digest that its sidecar names.

    With a source, a whole store is then compared with it, record by record: the same records, none
    lost and none doubled; those that were refused still unusable; every signal, mark and statement
    the same; and the source's totals (records, samples, beats, rhythm notes, samples of each
    rhythm) those of the manifest.

    Parameters
    ----------
    path
        Folder of an archive or of shards.
    decode
        Whether to read every record back; a source implies it.
    source
        Of an archive, the raw files that it was made from, a folder or a URL. Of shards, the
        archive; its records are resampled once more.
    patients
        Of an archive, the subset of patients that was prepared; see
        :func:`ecgpipe.datasets.select`.

    Raises
    ------
    EcgpipeError
        The folder is no finished store, or the source cannot be read or is of another kind.
    """
    try:
        store = Store(path)
    except Damaged as error:
        return [str(error)]
    problems = _check(store, decode and source is None)
    if problems or source is None:
        return problems  # what is damaged is named already; comparing it says nothing new
    return compare(store, source, patients)


def _check(store: Store, decode: bool) -> list[str]:
    """A store against its own digests."""
    problems: list[str] = []
    extra = {file.stem for file in (store.path / PARTS).glob("*.json")} - set(store.parts)
    problems += [f"{PARTS}/{name}.json: not in the manifest" for name in sorted(extra)]
    problems += _compare_bytes(store, MANIFEST, json_bytes(store.manifest.plain()))
    problems += _compare_bytes(store, RECIPE, json_bytes(store.recipe.plain()))
    if store.recipe.kind == "archive":
        problems += _compare_bytes(store, ROOT, ROOT_CONTENT)
    unknown: list[str] = []
    there = file_sizes(store.path)

    def sidecars() -> Iterator[Sidecar]:
        with Progress(f"verify {store.path.name}", len(store.parts), "parts") as progress:
            for part in store.manifest.parts:
                try:
                    sidecar = store.sidecar(part.name)
                except EcgpipeError as error:
                    problems.append(str(error))
                    unknown.append(part.name)
                else:
                    problems.extend(_check_part(store, part.name, sidecar, decode, there))
                    yield sidecar
                progress.step(part.name)

    merged, stored = merge(store.recipe, sidecars()).plain(), store.manifest.plain()
    if not unknown and merged != stored:
        names = [name for name in differing(merged, stored) if name != "totals"]
        totals = differing(merged["totals"], stored["totals"])
        what = ", ".join([*(f"totals.{name}" for name in totals), *names])
        problems.append(
            f"manifest.json: {what}: not what the sidecars add up to; run the store's command again"
        )
    return problems


def _compare_bytes(store: Store, file: str, content: bytes) -> list[str]:
    path = store.path / file
    if not exists(path):
        return [f"{file}: missing; run the store's command again"]
    if path.read_bytes() != content:
        return [f"{file}: not what was written; run the store's command again"]
    return []


def _check_part(
    store: Store, name: str, sidecar: Sidecar, decode: bool, there: Mapping[str, int]
) -> list[str]:
    if problems := list(sidecar.damaged_files(store.path, there, read=True)):
        return problems  # decoding them would say nothing new
    problems = _compare_bytes(store, f"{PARTS}/{name}.json", json_bytes(sidecar.plain()))
    if problems or not decode:
        return problems
    recipe = store.recipe
    try:
        rows = [RecordRow.of(r, recipe.beats, recipe.rhythms) for r in store.read_part(name)]
    except Damaged as error:
        return [str(error)]
    written = [replace(row, checksum=None) for row in sidecar.records]
    return [] if rows == written else [f"part {name}: its records are not what its sidecar says"]
