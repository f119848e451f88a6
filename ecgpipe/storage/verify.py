"""Checking a store: against its own digests, and against what it was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import Damaged, EcgpipeError
from ..files.atomic import read_json, sha256
from ..files.paths import file_sizes
from ..progress import Progress
from .compare import compare, differing
from .manifest import Part, merge
from .parts import PARTS, RECIPE, read_sidecar
from .sidecar import RecordRow, Sidecar
from .store import Store


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


def check_files(store: Store) -> None:
    """Refuse a store whose files are missing or of another size; quick, for use before training.

    Raises
    ------
    EcgpipeError
        Naming the first file.
    """
    there = file_sizes(store.path)
    for part, sidecar in zip(store.manifest.parts, store.sidecars(), strict=True):
        if sidecar.digest != part.digest:
            raise EcgpipeError(
                f"{store.path}: part {part.name} changed since the manifest was written; "
                "run the store's command again"
            )
        for file, expected in sidecar.files.items():
            path, size = store.path / file, there.get(file)
            if size != expected.bytes:
                raise EcgpipeError(
                    f"{path}: {'missing' if size is None else f'{size:,} bytes'} where "
                    f"{expected.bytes:,} bytes were written; run the store's command again"
                )


def _check(store: Store, decode: bool) -> list[str]:
    """A store against its own digests."""
    problems: list[str] = []
    extra = {file.stem for file in (store.path / PARTS).glob("*.json")} - set(store.parts)
    problems += [f"{PARTS}/{name}.json: not in the manifest" for name in sorted(extra)]
    try:
        if read_json(store.path / RECIPE) != store.recipe.plain():
            problems.append(f"{RECIPE}: differs from the manifest's recipe")
    except EcgpipeError as error:
        problems.append(str(error))
    unknown: list[str] = []
    there = file_sizes(store.path)

    def sidecars() -> Iterator[Sidecar]:
        with Progress(f"verify {store.path.name}", len(store.parts), "parts") as progress:
            for part in store.manifest.parts:
                try:
                    sidecar = _sidecar(store, part)
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


def _sidecar(store: Store, part: Part) -> Sidecar:
    """The sidecar that the manifest was merged from."""
    sidecar = read_sidecar(store.path, part.name)
    if sidecar.digest != part.digest:
        raise Damaged(f"{PARTS}/{part.name}.json: changed since the manifest was written")
    return sidecar


def _check_part(
    store: Store, name: str, sidecar: Sidecar, decode: bool, there: Mapping[str, int]
) -> Iterator[str]:
    is_whole = True
    for file, expected in sidecar.files.items():
        path, size = store.path / file, there.get(file)
        if size is None:
            problem = "missing"
        elif size != expected.bytes:
            problem = f"{size:,} bytes, {expected.bytes:,} expected"
        elif sha256(path) != expected.sha256:
            problem = "its bytes changed (SHA-256 differs)"
        else:
            continue
        is_whole = False
        yield f"{file}: {problem}"
    if not is_whole or not decode:
        return  # damaged files are named already; decoding them says nothing new
    recipe = store.recipe
    rows = [RecordRow.of(r, recipe.beats, recipe.rhythms) for r in store.read_part(name)]
    if rows != sidecar.records:
        yield f"part {name}: its records are not what its sidecar says"
