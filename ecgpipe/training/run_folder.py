"""Run folders: what a run is, said before it starts; and model files.

A run's ``run.json`` is written first. Its digest covers the kind of run, its settings and the
digests of its inputs; a folder with another digest holds another run, and is refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..config import HOW, digest
from ..errors import Damaged, EcgpipeError
from ..files.atomic import locked, read_json, write_bytes, write_json
from ..files.paths import exists, is_empty
from ..storage.store import Store

RUN, MODEL, HISTORY, PREDICTIONS = "run.json", "model.pt", "history.csv", "predictions.csv"
PACKAGES = ("ecgpipe", "torch", "numpy", "webdataset", "zarr", "numcodecs", "soxr", "sleepecg")


@contextmanager
def claimed(run: Path, description: Mapping[str, Any], writes: bool = True) -> Iterator[None]:
    """Hold a run folder for one process and one run; writes ``run.json`` if it is new.

    Of the processes of one training, only the one that writes holds the folder.

    Raises
    ------
    EcgpipeError
        The folder holds another run or something else, or another process works in it.
    """
    if not writes:
        yield
        return
    path = run / RUN
    if not exists(path):
        if not is_empty(run) and not exists(path):  # another process may just have written it
            raise EcgpipeError(
                f"{run}: is no run of ecgpipe and not empty; name another folder for --out"
            )
        write_json(path, description, new=True)
    with locked(path):
        old = read_json(path)
        if old.get("digest") != description["digest"]:
            raise EcgpipeError(
                f"{run}: already holds another run ({_difference(old, description)}); "
                "name another folder for --out, or give the settings of that run to continue it"
            )
        yield


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    one, two = _flat(identity(old)), _flat(identity(new))
    names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    shown = [f"{name} {one.get(name)} there, {two.get(name)} now" for name in names[:3]]
    return "; ".join(shown) + ("; …" if len(names) > 3 else "")


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, Mapping):
        return {
            k: v for name, part in tree.items() for k, v in _flat(part, f"{prefix}{name}.").items()
        }
    if isinstance(tree, list) and any(isinstance(item, Mapping) for item in tree):
        return _flat(dict(enumerate(tree)), prefix)
    return {prefix.rstrip("."): tree}


def identity(description: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's description that makes it this run and no other."""
    init = description.get("init")
    settings = description.get("settings") or {}
    return {
        "kind": description.get("kind"),
        # Where a run is computed is no part of what it is: it may go on elsewhere.
        "settings": {k: v for k, v in settings.items() if k not in HOW},
        "inputs": [item["digest"] for item in description.get("inputs", [])],
        "init": init and init["model_sha256"],
    }


def describe(description: dict[str, Any]) -> dict[str, Any]:
    """Add versions and the digest to what a run says of itself."""
    described = {**description, "versions": dict(_versions())}
    return {**described, "digest": digest(identity(described))}


def _versions() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:  # a store's codec may be one that this machine does not need
            continue


def describe_input(store: Store) -> dict[str, Any]:
    """How a run names its shards."""
    totals = store.manifest["totals"]
    return {
        "path": str(store.path),
        "name": store.recipe["dataset"],
        "digest": store.manifest["digest"],
        "fs": store.recipe["fs"],
        "records": totals["records"],
        "refused": totals["refused"],
        "hours": totals["hours"],
    }


def save(path: Path, tree: Mapping[str, Any]) -> None:
    """Write tensors and plain values in one step."""
    content = io.BytesIO()
    torch.save(dict(tree), content)
    write_bytes(path, content)


def load(path: Path) -> dict[str, Any]:
    """Read what :func:`save` wrote; nothing in it can run code.

    Raises
    ------
    EcgpipeError
        The file is missing.
    Damaged
        It is no model file, or cut.
    """
    try:
        with path.open("rb") as file:
            content = io.BytesIO(file.read())
        tree: dict[str, Any] = torch.load(content, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise EcgpipeError(f"{path}: missing; has the run finished its first epoch?") from None
    except Exception as error:  # torch raises whatever the damage leads to
        raise Damaged(f"{path}: not a readable model file ({type(error).__name__})") from None
    return tree
