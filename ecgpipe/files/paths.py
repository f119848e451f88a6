"""Paths of this machine or behind a URL: what is there, how large, and how to remove it.

A path behind a URL, such as ``s3://bucket/archive``, is one of universal_pathlib: read and written
like any other, but without locks, and replaced file by file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from ..errors import EcgpipeError

_CLIENTS = {"botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "adlfs"}  # reach URLs


def to_path(name: str | Path) -> Path:
    """The path of a folder or file, given by its name or as a URL that fsspec reads and writes.

    Raises
    ------
    EcgpipeError
        A kind of URL that nothing here reads.
    """
    if not isinstance(name, str):
        return name
    name = name.removeprefix("file://")
    if "://" not in name:
        return Path(name)
    from upath import UPath

    try:
        path = UPath(name.rstrip("/"), use_listings_cache=False)
        path.fs  # noqa: B018  (opens it)
    except ImportError as error:
        how = "pip install 'ecgpipe[s3]'" if name.startswith("s3:") else "install it"
        raise EcgpipeError(f"{name}: needs another package ({error}); {how}") from None
    except ValueError as error:
        raise EcgpipeError(f"{name}: cannot be opened ({error}); check the address") from None
    return cast(Path, path)


def local_path(name: str) -> Path:
    """The path of a folder or file of this machine.

    Raises
    ------
    EcgpipeError
        A URL, which would else become a folder of that name.
    """
    path = to_path(name)
    if is_remote(path):
        raise EcgpipeError(f"{name}: is a URL; name a file or folder of this machine")
    return path


def is_remote(path: Path) -> bool:
    """Whether a place lies behind a URL."""
    return not isinstance(path, Path)


def absolute(path: Path) -> Path:
    """The place, from whatever folder a process works in."""
    return path if is_remote(path) else path.resolve()


def make_folder(path: Path) -> None:
    """Make a folder; behind a URL there are none, only names."""
    if not is_remote(path):
        path.mkdir(parents=True, exist_ok=True)


def exists(path: Path) -> bool:
    """Whether a file or folder is there; what cannot be asked is an error, and not an answer.

    A place behind a URL that says no to everything while the network is away would have finished
    work done anew, over what is there.
    """
    if not is_remote(path):
        return path.exists()
    try:
        file_system(path).info(path_within(path))
    except FileNotFoundError:
        return False
    return True


def is_connection_error(error: BaseException) -> bool:
    """Whether an exception says that a place behind a URL could not be reached."""
    return bool({kind.__module__.partition(".")[0] for kind in type(error).__mro__} & _CLIENTS)


def is_empty(folder: Path) -> bool:
    """Whether nothing is there but what another process has begun to write."""
    if not exists(folder):
        return True
    return folder.is_dir() and all(_is_partial(path.name) for path in folder.iterdir())


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(".partial")


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if is_remote(path):
        if exists(path):
            file_system(path).rm(path_within(path), recursive=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        if path.exists() and not path.is_dir():
            raise
        shutil.rmtree(path, ignore_errors=True)


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by its name from there; one listing behind a URL.

    Of a file its own, without a name.
    """
    if is_remote(folder):
        top = len(path_within(folder)) + 1
        found = file_system(folder).find(path_within(folder), detail=True)
        return {name[top:]: int(info["size"]) for name, info in found.items()}
    if folder.is_file():
        return {"": folder.stat().st_size}
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def cache_folder() -> Path:
    """Where ecgpipe keeps what can be had again: in the user's cache folder, and nowhere else."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecgpipe"


def local_copy(path: Path) -> Path:
    """A file behind a URL as one of this machine, in the user's cache folder; fetched once."""
    if not is_remote(path):
        return path
    info = file_system(path).info(path_within(path))
    version = [str(path), info["size"], str(info.get("ETag") or info.get("mtime"))]
    name = hashlib.sha256(json.dumps(version).encode()).hexdigest()
    cache = cache_folder() / "files"
    copy = cache / f"{name}{path.suffix}"
    if not copy.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f".{name}.{uuid4().hex}.partial"
        try:
            file_system(path).get_file(path_within(path), str(partial))
            os.replace(partial, copy)
        finally:
            partial.unlink(missing_ok=True)
    return copy


def file_system(path: Path) -> Any:
    """The file system of a place, in this process: what a parent opened is not for its forks."""
    import fsspec

    return fsspec.filesystem(cast(Any, path).protocol, **cast(Any, path).storage_options)


def path_within(path: Path) -> str:
    """The name of a place in its file system."""
    return str(cast(Any, path).path).rstrip("/")
