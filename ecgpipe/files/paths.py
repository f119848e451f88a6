"""Local paths and paths behind URLs: open, inspect and remove them.

A path behind a URL, such as ``s3://bucket/archive``, is a universal_pathlib object with the methods
of pathlib, but without directories, locks and atomic renames.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, cast

from ..errors import Damaged, EcgpipeError, Interrupted, Unreachable

_CLIENTS = {"botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "adlfs"}  # network packages


def to_path(name: str | Path) -> Path:
    """Convert a file name, or a URL that fsspec reads and writes, to a path.

    Raises
    ------
    EcgpipeError
        An unknown kind of URL, or a package that it needs is missing.
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
    """Convert a file name to a local path.

    Raises
    ------
    EcgpipeError
        It is a URL.
    """
    path = to_path(name)
    if is_remote(path):
        raise EcgpipeError(f"{name}: is a URL; name a local file or folder")
    return path


def is_remote(path: Path) -> bool:
    """True for a path behind a URL."""
    return not isinstance(path, Path)


def exists(path: Path) -> bool:
    """True if a file or directory exists; an unreachable server raises its error.

    universal_pathlib would return False then, and finished work would be overwritten.
    """
    if not is_remote(path):
        return path.exists()
    try:
        file_system(path).info(path_within(path))
    except FileNotFoundError:
        return False
    return True


def is_connection_error(error: BaseException) -> bool:
    """True if an exception of a network package says that a URL could not be reached."""
    return bool({kind.__module__.partition(".")[0] for kind in type(error).__mro__} & _CLIENTS)


def why_damaged(error: Exception) -> str:
    """What is wrong with a file, from whatever reading it raised.

    Raises
    ------
    Exception
        The error itself, where it says that the file could not be reached, not that it is damaged.
    """
    if isinstance(error, Interrupted | Unreachable | MemoryError) or is_connection_error(error):
        raise error
    return str(error) if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"


def is_empty(folder: Path) -> bool:
    """True if a folder is absent or empty, apart from files that are being written."""
    if not exists(folder):
        return True
    return folder.is_dir() and all(
        path.name.startswith(".") and path.name.endswith(".partial") for path in folder.iterdir()
    )


def remove(path: Path) -> None:
    """Remove a file, or a directory with its contents, if it exists."""
    if is_remote(path):
        if exists(path):
            file_system(path).rm(path_within(path), recursive=True)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        try:
            path.unlink(missing_ok=True)
        except IsADirectoryError:  # another process has just published it
            shutil.rmtree(path, ignore_errors=True)


def file_sizes(folder: Path) -> dict[str, int]:
    """Size in bytes of every file below a folder, by relative name; for a file, under ``""``."""
    if is_remote(folder):
        start = len(path_within(folder)) + 1
        found = file_system(folder).find(path_within(folder), detail=True)
        return {name[start:]: int(info["size"]) for name, info in found.items()}
    if folder.is_file():
        return {"": folder.stat().st_size}
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def cache_folder() -> Path:
    """The folder of ecgpipe in the user's cache, for files that can be downloaded again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecgpipe"


def file_system(path: Path) -> Any:
    """The fsspec file system of a path; a forked process gets its own."""
    import fsspec

    return fsspec.filesystem(cast(Any, path).protocol, **cast(Any, path).storage_options)


def path_within(path: Path) -> str:
    """The path in its fsspec file system, without the protocol."""
    return str(cast(Any, path).path).rstrip("/")
