"""Building a store part by part: the unit of parallelism, of resumption and of failure.

A store, archive or shards alike, is a folder::

    recipe.json      how it is made, written first; another recipe is refused
    parts/NAME.json  sidecar of a part: inputs, files with bytes and SHA-256, records, refusals
    manifest.json    merged from the sidecars at the end; its digest is the store's identity

One part has one writer. It is written under ``.partial/`` and renamed, and its sidecar comes last:
a part with a sidecar is whole. A killed run leaves nothing else behind, and the next one redoes
only the parts without a valid sidecar. Two runs at once are refused by a lock on the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from ..errors import Damaged, EcgpipeError
from ..files.atomic import locked, publish, read_json, sha256, staging_directory, write_json
from ..files.paths import exists, file_sizes, is_empty, is_remote, remove
from ..progress import Progress, say
from .executors import run
from .manifest import MANIFEST, ArchiveRecipe, Manifest, ShardsRecipe, merge, read_manifest
from .sidecar import ArchiveInputs, RawInputs, Sidecar, StoredFile

RECIPE, PARTS, PARTIAL = "recipe.json", "parts", ".partial"
AHEAD = 32  # sidecars that are read at once behind a URL


class Job(Protocol):
    """What makes one part; picklable, so that any process can do it."""

    @property
    def target(self) -> str:
        """File or folder that the part becomes, below the store."""
        ...

    def is_current(self, inputs: RawInputs | ArchiveInputs) -> bool:
        """True if the inputs are the same as when the part was made."""
        ...

    def write(self, target: Path) -> Sidecar:
        """Make the part at ``target``; gives its sidecar, still without the files."""
        ...


def build(
    store: Path,
    recipe: ArchiveRecipe | ShardsRecipe,
    jobs: Mapping[str, Job],
    title: str,
    workers: int,
    dask: str | None = None,
) -> Manifest:
    """Make every part that is not there yet, then the manifest.

    Parameters
    ----------
    store
        The store's folder; new, or begun by the same recipe.
    recipe
        What decides the bytes of the store.
    jobs
        By the name of the part.
    title
        Of the progress bar.
    workers
        Processes; 1 works in this one.
    dask
        Address of a Dask scheduler, or ``local``; see :func:`ecgpipe.storage.executors.run`.

    Raises
    ------
    EcgpipeError
        The folder holds something else, another process is writing to it, or some parts could not
        be made; the others are there then.
    """
    with _claimed(store, recipe.plain()):
        _refuse_unknown_parts(store, jobs)
        kept = 0
        try:
            outcomes = run(partial(build_part, store.resolve()), jobs, workers, dask)
            with Progress(title, len(jobs), "parts") as progress, closing(outcomes):
                for name, fresh in outcomes:
                    kept += not fresh
                    progress.step(name)
        finally:
            if not is_remote(store):  # where parts are made elsewhere
                remove(store / PARTIAL)
        if kept:
            say(f"{title}: {kept} of {len(jobs)} parts were there already")
        manifest = merge(recipe, read_sidecars(store, sorted(jobs)))
        write_json(store / MANIFEST, manifest.plain())
        return manifest


def build_part(store: Path, name: str, job: Job) -> bool:
    """Make one part unless it is there; says whether it was made.

    Several attempts at a part may overlap on a cluster, where a worker that was believed dead may
    not be: each writes by itself, and as the bytes are the same, any of them may win.
    """
    sidecar, target = store / PARTS / f"{name}.json", store / job.target
    if _is_whole(store, sidecar, job):
        return False
    with staging_directory(store / PARTIAL) as bench:
        own = bench / name
        made = job.write(own)
        written = sorted(path for path in [own, *own.rglob("*")] if path.is_file())
        files = {
            f"{job.target}/{path.relative_to(own).as_posix()}".removesuffix("/."): StoredFile(
                path.stat().st_size, sha256(path)
            )
            for path in written
        }
        if not _is_whole(store, sidecar, job):
            remove(sidecar)
            if written:
                publish(own, target, replace=True)
            else:
                remove(target)
            # Written beside the part, so that a kill leaves nothing among the sidecars.
            write_json(bench / sidecar.name, replace(made, files=files).plain())
            publish(bench / sidecar.name, sidecar)
    return True


def _is_whole(store: Path, sidecar: Path, job: Job) -> bool:
    try:
        content = Sidecar.read(sidecar)
        if not job.is_current(content.inputs):
            return False
        if is_remote(store):  # where reading it all back would cost as much as making it
            return _holds(store, job.target, content.files)
        return all(
            (store / path).stat().st_size == file.bytes and sha256(store / path) == file.sha256
            for path, file in content.files.items()
        )
    except (OSError, EcgpipeError):  # a file is missing, or the sidecar is damaged
        return False


def _holds(store: Path, target: str, files: Mapping[str, StoredFile]) -> bool:
    """True if all files of a part exist with their recorded sizes."""
    try:
        found = file_sizes(store / target)
    except FileNotFoundError:  # it is being taken away
        return False
    there = {f"{target}/{name}".removesuffix("/"): size for name, size in found.items()}
    return all(there.get(name) == file.bytes for name, file in files.items())


@contextmanager
def _claimed(store: Path, recipe: Mapping[str, Any]) -> Iterator[None]:
    """Hold the store for one writer with one recipe."""
    path = store / RECIPE
    if not exists(path):
        lost = exists(store / MANIFEST)  # a finished store's, which the manifest repeats
        # Asked again: another process may just have written it.
        if not lost and not is_empty(store) and not exists(path):
            raise EcgpipeError(
                f"{store}: is not a store of ecgpipe and not empty; name another folder"
            )
        write_json(path, read_manifest(store).recipe.plain() if lost else recipe, new=True)
    with locked(path):
        _compare(store, read_json(path), recipe)
        yield


def _compare(store: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    differing = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if differing:
        what = "; ".join(f"{key} {old.get(key)!r} there, {new.get(key)!r} now" for key in differing)
        raise EcgpipeError(
            f"{store}: made by another recipe ({what}); name another folder or remove it"
        )


def _refuse_unknown_parts(store: Path, jobs: Mapping[str, Job]) -> None:
    there = {path.stem for path in (store / PARTS).glob("*.json")}
    unknown = sorted(there - jobs.keys())
    if unknown:
        raise EcgpipeError(
            f"{store}: holds {len(unknown)} parts that the source does not have "
            f"({', '.join(unknown[:3])}…); name another folder, or give the source they came from"
        )


def read_sidecar(store: Path, name: str) -> Sidecar:
    """The sidecar of a part.

    Raises
    ------
    Damaged
        It is missing or not what was written.
    """
    path = store / PARTS / f"{name}.json"
    if not exists(path):
        raise Damaged(f"{path}: missing; run the store's command again")
    return Sidecar.read(path)


def read_sidecars(store: Path, names: Sequence[str]) -> Iterator[Sidecar]:
    """The sidecars of parts, in order; behind a URL some are read ahead."""
    if not is_remote(store):
        yield from (read_sidecar(store, name) for name in names)
        return
    with ThreadPoolExecutor(AHEAD) as pool:
        for start in range(0, len(names), AHEAD):
            yield from pool.map(partial(read_sidecar, store), names[start : start + AHEAD])


def versions(*packages: str) -> dict[str, str]:
    """Versions of the packages that decide a store's bytes, ecgpipe among them."""
    return {name: version(name) for name in ("ecgpipe", *packages)}
