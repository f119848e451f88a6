"""Files that others rely on: written whole or not at all, read with clear errors."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import util
from pathlib import Path
from typing import Any
from uuid import uuid4

from ..errors import Busy, Damaged, EcgpipeError
from .paths import file_sizes, file_system, is_remote, path_within, remove

PUBLISH_ATTEMPTS = 10  # where several processes publish the same directory


def publish(made: Path, target: Path, replace: bool = False) -> None:
    """Move a finished file or directory to its final path.

    A local one is renamed. The files of one behind a URL are uploaded one after another. With
    ``replace``, a directory that is there is removed, and other processes may publish the same
    content at the same time.
    """
    if replace:
        remove(target)
    if is_remote(target):
        files = [made] if made.is_file() else sorted(p for p in made.rglob("*") if p.is_file())
        for file in files:
            final = target if file == made else target / file.relative_to(made).as_posix()
            file_system(target).put_file(str(file), path_within(final))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempts_left in reversed(range(PUBLISH_ATTEMPTS)):
        try:
            return os.replace(made, target)
        except OSError:  # another process has published a directory there
            if not replace or not attempts_left:
                raise
            time.sleep(0.05)  # it may be removing the old one
            with suppress(FileNotFoundError):
                if file_sizes(target) == file_sizes(made):
                    return
            remove(target)


@contextmanager
def staging_directory(folder: Path) -> Iterator[Path]:
    """A folder of one's own below another, or on this machine, for what is published once made.

    Nothing of it stays.
    """
    if is_remote(folder):
        own = Path(tempfile.mkdtemp(prefix="ecgpipe-"))
    else:
        own = folder / uuid4().hex
        own.mkdir(parents=True)
    # A worker process that is made to leave in the middle runs its finalizers, and no more.
    cleared = util.Finalize(None, shutil.rmtree, (own, True), exitpriority=0)
    try:
        yield own
    finally:
        cleared()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a store.

    Raises
    ------
    EcgpipeError
        It is missing.
    Damaged
        It is broken.
    """
    try:
        tree = json.loads(path.read_text())
    except OSError as error:
        why = error.strerror or str(error)
        raise EcgpipeError(f"{path}: cannot be read ({why})") from None
    except ValueError:
        raise Damaged(f"{path}: not valid JSON; the file is damaged") from None
    if not isinstance(tree, dict):
        raise Damaged(f"{path}: no JSON object; the file is damaged")
    return tree


def write_json(path: Path, tree: Mapping[str, Any], new: bool = False) -> None:
    """Write a JSON file in one step, so that nobody ever reads half of it.

    With ``new``, one that is there is left: of several processes that write it, one does.
    """
    text = json.dumps(tree, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_bytes(path, text.encode(), new)


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step, as UTF-8 with lines as they are."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes | io.BytesIO, new: bool = False) -> None:
    """Write a file in one step; a store behind a URL shows it when it is whole.

    With ``new``, one that is there is left, which only a file system of this machine can promise.

    Raises
    ------
    EcgpipeError
        A URL that nothing can be written to.
    """
    content = data.getbuffer() if isinstance(data, io.BytesIO) else data
    if is_remote(path):
        try:
            path.write_bytes(bytes(content))
        except OSError as error:
            raise EcgpipeError(
                f"{path}: cannot be written ({error}); is the bucket there, and yours to write to?"
            ) from None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: two who write the same file at once must not take each other's half.
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        partial.write_bytes(content)
        if not new:
            os.replace(partial, path)
        elif not path.exists():
            try:
                os.link(partial, path)
            except FileExistsError:
                pass
            except OSError:  # a file system without links, where the first may not win
                os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's folder as its only writer; behind a URL nobody can.

    Raises
    ------
    Busy
        Another process holds it.
    """
    if is_remote(path):
        yield
        return
    with path.open("r+b") as file:  # NFS locks only what is open for writing
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{path.parent}: another process is writing to it; wait for it") from None
        yield
