"""Run folders: what a run is, said before it starts; and model files.

A run's ``run.json`` is written first. Its digest covers the kind of run, its settings and the
digests of its inputs; a folder with another digest holds another run, and is refused.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import Damaged, EcgpipeError
from ..files.atomic import locked, read_json, write_bytes, write_json
from ..files.paths import exists, is_empty
from .run_description import ModelCard, RunDescription, identity

RUN, MODEL, HISTORY, PREDICTIONS = "run.json", "model.pt", "history.csv", "predictions.csv"


@contextmanager
def claimed(run: Path, description: RunDescription, writes: bool = True) -> Iterator[None]:
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
        write_json(path, description.to_json(), new=True)
    with locked(path):
        old = read_json(path)
        if old.get("digest") != description.digest:
            raise EcgpipeError(
                f"{run}: already holds another run ({_difference(old, description.to_json())}); "
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


def read_model(path: Path) -> tuple[ModelCard, dict[str, torch.Tensor]]:
    """The card and the weights of a model file; raises as :func:`load` and the card do."""
    tree = load(path)
    weights = tree.pop("network", None)
    if weights is None:
        raise EcgpipeError(f"{path}: no model of ecgpipe ('network')")
    return ModelCard.from_tree(tree, path), weights
