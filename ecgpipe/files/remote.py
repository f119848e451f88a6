"""Read files behind URLs and in zip files with fsspec, and retry errors that may be temporary."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit
from zipfile import BadZipFile

from ..errors import BadRecord, EcgpipeError, Unreachable
from ..progress import say

CONNECT_TIMEOUT, READ_TIMEOUT = 20.0, 60.0  # s, the second between two bytes
LARGEST = 512 * 2**20  # bytes of one file in a zip file
FIRST_WAIT, LONGEST_WAIT = 0.2, 30.0  # s between two attempts, doubled each time

T = TypeVar("T")

_open_lock = threading.Lock()  # one file system per URL, whichever thread opens it


@dataclass(frozen=True)
class RemoteFolder:
    """A folder of an fsspec file system (S3, HTTP, a zip file) with uniform errors.

    Methods raise FileNotFoundError for missing files, PermissionError for forbidden ones and
    EcgpipeError for mistakes; any other error may be temporary.

    Attributes
    ----------
    system
        The fsspec file system.
    base
        Path of the folder in it.
    """

    system: Any
    base: str

    @property
    def _is_http(self) -> bool:
        return "http" in self.system.protocol

    def _path(self, name: str) -> str:
        name = quote(name) if self._is_http else name
        return f"{self.base}/{name}" if self.base else name

    def read(self, name: str) -> bytes:
        """Read a file; BadRecord if it is damaged in its zip file."""
        try:
            if "zip" in self.system.protocol and (size := self.size(name) or 0) > LARGEST:
                raise BadRecord(
                    f"{name}: {size:,} bytes in its zip; {LARGEST:,} can be right; fetch it again"
                )
            with _uniform_errors():
                return self.system.cat_file(self._path(name))
        except (BadZipFile, zlib.error) as error:
            raise BadRecord(f"{name}: damaged in its zip ({error}); fetch it again") from None

    def size(self, name: str) -> int | None:
        """Length of a file in bytes; None if the server does not tell."""
        with _uniform_errors():
            info = self.system.info(self._path(name))
        if info["type"] == "directory":
            raise FileNotFoundError(name)
        return info["size"]

    def has(self, name: str) -> bool:
        """True if the file exists; unreadable files count as absent."""
        try:
            self.size(name)
        except (FileNotFoundError, PermissionError):
            return False
        return True

    def list(self, folder: str) -> tuple[list[str], list[str]]:
        """List the files below a folder, and the subfolders that must be listed separately.

        Only HTTP needs the latter: there, a folder is the page with links to what is in it.
        """
        with _uniform_errors():
            if not self._is_http:
                start = len(self.base) + 1 if self.base else 0
                return [name[start:] for name in self.system.find(self.base)], []
            # fsspec's walk would treat a folder that cannot be listed as an empty one.
            links = self.system.ls(self._path(folder).rstrip("/") + "/", detail=False)
        start = len(unquote(urlsplit(self.base).path)) + 1
        names = {unquote(urlsplit(link).path)[start:] for link in links if "?" not in link}
        names = {name for name in names if len(name) > len(folder) and "/." not in f"/{name}"}
        folders = {name for name in names if name.endswith("/")}
        return sorted(names - folders), sorted(folders)


@contextmanager
def _uniform_errors() -> Iterator[None]:
    import aiohttp

    try:
        yield
    except Exception as error:
        # For a size, fsspec reports every failure as "not found"; the cause has the real error.
        cause = error.__cause__
        failed = isinstance(cause, (aiohttp.ClientError, TimeoutError))
        reason = cause if failed and isinstance(error, FileNotFoundError) else error
        status = getattr(reason, "status", None)
        if status in (404, 410) or isinstance(reason, KeyError):
            raise FileNotFoundError(str(reason)) from None
        if status in (401, 403):
            raise PermissionError(str(reason)) from None
        assert reason is not None
        raise reason from None


def open_remote(root: str) -> RemoteFolder:
    """Open a URL or a zip file; once per process.

    Raises
    ------
    EcgpipeError
        An unknown kind of URL, or a package that it needs is missing.
    Unreachable
        Not a zip file, or a damaged one.
    """
    with _open_lock:
        return _open(root)


def close_all() -> None:
    """Forget all open folders and what fsspec has cached of them."""
    _open.cache_clear()


@lru_cache(maxsize=4)
def _open(root: str) -> RemoteFolder:
    from fsspec.core import url_to_fs

    url = f"zip::{root}" if root.endswith(".zip") and "::" not in root else root
    scheme = url.partition(":")[0]
    options = storage_options(url)
    try:
        with _uniform_errors():
            system, base = url_to_fs(url, **(options if "::" in url else options.get(scheme, {})))
    except BadZipFile as error:
        raise Unreachable(f"{root}: not a zip file, or damaged ({error})") from None
    except ImportError as error:
        how = "run pip install 'ecgpipe[s3]'" if "s3://" in root else "install it"
        raise EcgpipeError(f"{root}: needs another package ({error}); {how}") from None
    except (ValueError, NotImplementedError) as error:
        raise EcgpipeError(f"{root}: cannot be opened ({error}); check the address") from None
    if hasattr(system, "retries"):
        system.retries = 1  # only `retry` retries
    if scheme == "zip":
        # This also reads the zip's index, which fsspec must not do in several threads at once.
        top = system.ls("", detail=True)
        if not base and len(top) == 1 and top[0]["type"] == "directory":
            base = top[0]["name"]  # PhysioNet's zip files have one folder at the top
    return RemoteFolder(system, base.rstrip("/"))


def storage_options(url: str) -> dict[str, dict[str, Any]]:
    """Options of fsspec by protocol of a URL; the user's fsspec settings have priority."""
    import aiohttp
    from fsspec.config import conf

    # Open data are read anonymously, unless the user has set credentials.
    signed = {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & os.environ.keys()
    signed |= {"key", "profile"} & conf.get("s3", {}).keys()
    s3 = {
        "anon": not signed,
        "max_concurrency": 1,  # whole files are read in parallel, not pieces of one
        "use_listings_cache": False,
        "config_kwargs": {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
        },
    }
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT
    )
    http = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    defaults: dict[str, dict[str, Any]] = {"s3": s3, "http": http, "https": http}
    return {
        protocol: {**options, **conf.get(protocol, {})}
        for protocol, options in defaults.items()
        if f"{protocol}://" in url
    }


def retry(root: str, name: str, attempts: int, call: Callable[[RemoteFolder], T]) -> T:
    """Call a function with the opened folder, again after a while if the error may be temporary.

    Raises
    ------
    FileNotFoundError, EcgpipeError
        Permanent errors of the call.
    Unreachable
        Every attempt failed, or permission is denied.
    """
    import tenacity

    path = f"{root.rstrip('/')}/{name}"

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, BadRecord):
            close_all()  # fsspec caches the contents of a zip file, damaged or not
        if state.attempt_number == attempts // 2:
            say(f"{path}: {type(error).__name__}: {error}; trying again")

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        wait=tenacity.wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
        retry=tenacity.retry_if_exception(_may_be_temporary),
        before_sleep=before_sleep,
        reraise=True,
    )
    try:
        return retrying(lambda: call(open_remote(root)))
    except (FileNotFoundError, EcgpipeError):
        raise
    except PermissionError as error:
        raise Unreachable(
            f"{path}: permission denied ({error}); if you may read it, set your "
            "credentials, such as AWS_PROFILE"
        ) from None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise Unreachable(
            f"{path}: could not be read in {attempts} attempts ({reason}); "
            "start the same command again to continue"
        ) from None


def _may_be_temporary(error: BaseException) -> bool:
    if isinstance(error, BadRecord | Unreachable):
        return True
    permanent = FileNotFoundError | PermissionError | EcgpipeError
    return isinstance(error, Exception) and not isinstance(error, permanent)
