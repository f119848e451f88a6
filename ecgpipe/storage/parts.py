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

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from ..config import digest
from ..errors import EcgpipeError
from ..files import locked, read_json, sha256, write_json
from ..progress import Progress, say
from .manifest import merge

RECIPE, MANIFEST, PARTS, PARTIAL = "recipe.json", "manifest.json", "parts", ".partial"


class Job(Protocol):
    """What makes one part; picklable, so that any process can do it."""

    @property
    def target(self) -> str:
        """File or folder that the part becomes, below the store."""
        ...

    def inputs(self) -> str:
        """Digest of everything that the part is made from."""
        ...

    def write(self, target: Path) -> dict[str, Any]:
        """Make the part at ``target``; returns its ``records`` and ``refused``."""
        ...


def build(
    store: Path, recipe: Mapping[str, Any], jobs: Mapping[str, Job], workers: int, title: str
) -> dict[str, Any]:
    """Make every part that is not there yet, then the manifest.

    Parameters
    ----------
    store
        The store's folder; new, or begun by the same recipe.
    recipe
        Plain values that decide the bytes of the store.
    jobs
        By the name of the part.
    workers
        Processes; 1 works in this one.
    title
        Of the progress bar.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    EcgpipeError
        The folder holds something else, another process is writing to it, or a worker died.
    """
    with _claimed(store, recipe):
        _refuse_strangers(store, jobs)
        kept = 0
        with Progress(title, len(jobs), "parts") as progress:
            for name, fresh in _results(store, jobs, min(workers, len(jobs))):
                kept += not fresh
                progress.step(name)
        shutil.rmtree(store / PARTIAL, ignore_errors=True)
        if kept:
            say(f"{title}: {kept} of {len(jobs)} parts were there already")
        manifest = merge(recipe, (read_sidecar(store, name) for name in sorted(jobs)))
        write_json(store / MANIFEST, manifest)
        return manifest


def _results(store: Path, jobs: Mapping[str, Job], workers: int) -> Iterator[tuple[str, bool]]:
    if workers <= 1:
        for name, job in jobs.items():
            yield name, build_part(store, name, job)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _die_with_parent, (os.getpid(),))
    try:
        futures = {pool.submit(build_part, store, name, job): name for name, job in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool:
        raise EcgpipeError(
            f"{store}: a worker process died (out of memory?); start the same command again to "
            "continue, with fewer --workers if it happens again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _die_with_parent(parent: int) -> None:
    """End this worker when its parent is gone: an orphan must not write beside the next run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def build_part(store: Path, name: str, job: Job) -> bool:
    """Make one part unless it is there; says whether it was made."""
    sidecar, target = store / PARTS / f"{name}.json", store / job.target
    inputs = job.inputs()
    if _is_whole(store, sidecar, inputs):
        return False
    sidecar.unlink(missing_ok=True)
    partial = store / PARTIAL / name
    for old in (partial, target):
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    content = job.write(partial)
    target.parent.mkdir(parents=True, exist_ok=True)
    if partial.exists():
        os.replace(partial, target)
    files = {
        path.relative_to(store).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted([target, *target.rglob("*")])
        if path.is_file()
    }
    write_json(sidecar, {"name": name, "inputs": inputs, "files": files, **content})
    return True


def _is_whole(store: Path, sidecar: Path, inputs: str) -> bool:
    try:
        content = json.loads(sidecar.read_text())
        return bool(content["inputs"] == inputs) and all(
            (store / path).stat().st_size == file["bytes"]
            and sha256(store / path) == file["sha256"]
            for path, file in content["files"].items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


@contextmanager
def _claimed(store: Path, recipe: Mapping[str, Any]) -> Iterator[None]:
    """Hold the store for one writer with one recipe."""
    path = store / RECIPE
    if store.exists() and not path.exists() and (not store.is_dir() or any(store.iterdir())):
        raise EcgpipeError(f"{store}: is not a store of ecgpipe and not empty; name another folder")
    store.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_json(path, recipe)
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


def _refuse_strangers(store: Path, jobs: Mapping[str, Job]) -> None:
    there = {path.stem for path in (store / PARTS).glob("*.json")}
    strangers = sorted(there - jobs.keys())
    if strangers:
        raise EcgpipeError(
            f"{store}: holds {len(strangers)} parts that the source does not have "
            f"({', '.join(strangers[:3])}…); name another folder, or give the source they came from"
        )


def read_sidecar(store: Path, name: str) -> dict[str, Any]:
    """The sidecar of a part."""
    return read_json(store / PARTS / f"{name}.json")


def versions(*packages: str) -> dict[str, str]:
    """Versions of the packages that decide a store's bytes, ecgpipe among them."""
    return {name: version(name) for name in ("ecgpipe", *packages)}


def inputs_digest(root: Path, files: list[str], listing: Any) -> str:
    """Digest of input files (missing ones count as such) and of what a listing says of them."""
    found = {name: sha256(root / name) if (root / name).is_file() else None for name in files}
    return digest({"files": found, "listing": listing})
