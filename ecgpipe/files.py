"""Files that others rely on, here or behind a URL: written in one step, read with clear errors.

A place is a path. That of a URL, such as ``s3://bucket/archive``, is one of universal_pathlib: read
and written like any other, but it has no locks, and is replaced file by file.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import util
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from .errors import Busy, Damaged, EcgpipeError

_CLIENTS = {"botocore", "aiobotocore", "aiohttp", "s3fs", "gcsfs", "adlfs"}  # reach URLs


def place(name: str | Path) -> Path:
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


def here(name: str) -> Path:
    """The path of a folder or file of this machine.

    Raises
    ------
    EcgpipeError
        A URL, which would else become a folder of that name.
    """
    path = place(name)
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


def is_there(path: Path) -> bool:
    """Whether a file or folder is there; what cannot be asked is an error, and not an answer.

    A place behind a URL that says no to everything while the network is away would have finished
    work done anew, over what is there.
    """
    if not is_remote(path):
        return path.exists()
    try:
        _system(path).info(_inside(path))
    except FileNotFoundError:
        return False
    return True


def is_away(error: BaseException) -> bool:
    """Whether an exception says that a place behind a URL could not be reached."""
    return bool({kind.__module__.partition(".")[0] for kind in type(error).__mro__} & _CLIENTS)


def is_empty(folder: Path) -> bool:
    """Whether nothing is there but what another process has begun to write."""
    if not is_there(folder):
        return True
    return folder.is_dir() and all(_is_partial(path.name) for path in folder.iterdir())


def _is_partial(name: str) -> bool:
    return name.startswith(".") and name.endswith(".partial")


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there."""
    if is_remote(path):
        if is_there(path):
            _system(path).rm(_inside(path), recursive=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        if path.exists() and not path.is_dir():
            raise
        shutil.rmtree(path, ignore_errors=True)


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by its name from there; one listing behind a URL.

    Of a file its own, without a name.
    """
    if is_remote(folder):
        top = len(_inside(folder)) + 1
        found = _system(folder).find(_inside(folder), detail=True)
        return {name[top:]: int(info["size"]) for name, info in found.items()}
    if folder.is_file():
        return {"": folder.stat().st_size}
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def publish(made: Path, target: Path) -> None:
    """Put a file or folder of this machine in its place, which must be free.

    Here it is renamed. Behind a URL its files are sent one after another.
    """
    if not is_remote(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(made, target)
        return
    files = [made] if made.is_file() else sorted(p for p in made.rglob("*") if p.is_file())
    for file in files:
        name = file.relative_to(made).as_posix()
        goal = target if made.is_file() else target / name
        _system(target).put_file(str(file), _inside(goal))


def cache_folder() -> Path:
    """Where ecgpipe keeps what can be had again: in the user's cache folder, and nowhere else."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecgpipe"


def local_copy(path: Path) -> Path:
    """A file behind a URL as one of this machine, in the user's cache folder; fetched once."""
    if not is_remote(path):
        return path
    info = _system(path).info(_inside(path))
    version = [str(path), info["size"], str(info.get("ETag") or info.get("mtime"))]
    name = hashlib.sha256(json.dumps(version).encode()).hexdigest()
    cache = cache_folder() / "files"
    copy = cache / f"{name}{path.suffix}"
    if not copy.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f".{name}.{uuid4().hex}.partial"
        try:
            _system(path).get_file(_inside(path), str(partial))
            os.replace(partial, copy)
        finally:
            partial.unlink(missing_ok=True)
    return copy


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
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


def _system(path: Path) -> Any:
    """The file system of a place, in this process: what a parent opened is not for its forks."""
    import fsspec

    return fsspec.filesystem(cast(Any, path).protocol, **cast(Any, path).storage_options)


def _inside(path: Path) -> str:
    """The name of a place in its file system."""
    return str(cast(Any, path).path).rstrip("/")


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
