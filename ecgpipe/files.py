"""Small files that others rely on: written in one step, read with clear errors, locked."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from .errors import Busy, EcgpipeError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a store.

    Raises
    ------
    EcgpipeError
        It is missing or broken.
    """
    try:
        tree = json.loads(path.read_text())
    except OSError as error:
        raise EcgpipeError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise EcgpipeError(f"{path}: not valid JSON; the file is damaged") from None
    assert isinstance(tree, dict)
    return tree


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """Write a JSON file in one step, so that nobody ever reads half of it."""
    write_text(path, json.dumps(tree, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two who write the same file at once must not take each other's half.
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's folder as its only writer.

    Raises
    ------
    Busy
        Another process holds it.
    """
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{path.parent}: another process is writing to it; wait for it") from None
        yield
