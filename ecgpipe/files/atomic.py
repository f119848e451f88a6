"""Write files and directories completely or not at all; read them with clear errors."""

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
from .paths import cache_folder, file_sizes, file_system, is_remote, path_within, remove

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
    for path in [made, *made.rglob("*")]:
        _sync(path)
    for attempts_left in reversed(range(PUBLISH_ATTEMPTS)):
        try:
            os.replace(made, target)
            return _sync(target.parent)
        except OSError:  # another process has published a directory there
            if not replace or not attempts_left:
                raise
            time.sleep(0.05)  # it may be removing the old one
            with suppress(FileNotFoundError):
                if file_sizes(target) == file_sizes(made):
                    return
            remove(target)


def _sync(path: Path) -> None:
    """Have the disk hold a file or directory before what says that it is complete."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def staging_directory(folder: Path) -> Iterator[Path]:
    """Create a temporary directory below a folder, or a local one for a URL; removed at the end."""
    if is_remote(folder):
        own = Path(tempfile.mkdtemp(prefix="ecgpipe-"))
    else:
        own = folder / uuid4().hex
        own.mkdir(parents=True)
    # A terminated worker process runs its multiprocessing finalizers and nothing else.
    cleanup = util.Finalize(None, shutil.rmtree, (own, True), exitpriority=0)
    try:
        yield own
    finally:
        cleanup()


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A new temporary path beside a local file; removed at the end if it still exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name is unique: another process may write the same file at the same time.
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        yield partial
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes | io.BytesIO, new: bool = False) -> None:
    """Write a file atomically: readers see the old or the new content, never a part of it.

    Parameters
    ----------
    path
        The file; its folder is created.
    data
        The content.
    new
        Keep a file that exists: if several processes write it, one does. Local files only.

    Raises
    ------
    EcgpipeError
        A URL that cannot be written to.
    """
    content = data.getbuffer() if isinstance(data, io.BytesIO) else data
    if is_remote(path):
        try:
            path.write_bytes(bytes(content))
        except OSError as error:
            raise EcgpipeError(
                f"{path}: cannot be written ({error}); does the bucket exist, and may you write "
                "to it?"
            ) from None
        return
    with _partial(path) as partial:
        partial.write_bytes(content)
        _sync(partial)
        if not new:
            os.replace(partial, path)
        elif not path.exists():
            with suppress(FileExistsError):
                try:
                    os.link(partial, path)
                except FileExistsError:
                    raise
                except OSError:  # no hard links on this file system
                    with path.open("xb") as file:
                        file.write(content)
        _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, as UTF-8 and without changing line ends."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Mapping[str, Any], new: bool = False) -> None:
    """Write a JSON file atomically; ``new`` as in :func:`write_bytes`."""
    write_bytes(path, json_bytes(content), new)


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file, which depend on the content alone."""
    text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return text.encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    EcgpipeError
        The file is missing.
    Damaged
        It is not a JSON object.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        why = error.strerror or str(error)
        raise EcgpipeError(f"{path}: cannot be read ({why})") from None
    except ValueError:
        raise Damaged(f"{path}: not valid JSON; the file is damaged") from None
    if not isinstance(content, dict):
        raise Damaged(f"{path}: no JSON object; the file is damaged")
    return content


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def local_copy(path: Path) -> Path:
    """Download a file behind a URL into the user's cache, once per version; gives the local path.

    A version is an address with the size and the ETag or time of its file.
    """
    if not is_remote(path):
        return path
    info = file_system(path).info(path_within(path))
    version = [str(path), info["size"], str(info.get("ETag") or info.get("mtime"))]
    name = hashlib.sha256(json.dumps(version).encode()).hexdigest()
    copy = cache_folder() / "files" / f"{name}{path.suffix}"
    if not copy.is_file():
        with _partial(copy) as partial:
            file_system(path).get_file(path_within(path), str(partial))
            os.replace(partial, copy)
    return copy


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a local file, which makes this process the only writer of its folder.

    Raises
    ------
    Busy
        Another process holds the lock.
    """
    if is_remote(path):
        yield
        return
    with path.open("r+b") as file:  # on NFS, only a file opened for writing can be locked
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{path.parent}: another process is writing to it; wait for it") from None
        yield
