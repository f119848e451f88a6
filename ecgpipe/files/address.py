"""What fsspec reads, with its differences evened out: S3, HTTP, zip files here and elsewhere.

Every method raises FileNotFoundError for what is not there, PermissionError for what is denied and
EcgpipeError for a mistake; any other error may be gone in a while.
"""

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

CONNECT, SILENCE = 20.0, 60.0  # s that a server may take to answer, and between two bytes
FIRST, LONGEST = 0.2, 30.0  # s between two attempts, doubling from the first on

T = TypeVar("T")

_opening = threading.Lock()  # so that threads do not open the same address twice


@dataclass(frozen=True)
class Address:
    """A folder of an fsspec file system.

    Attributes
    ----------
    system
        The file system.
    base
        The folder's path in it.
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
        """The bytes of a file; BadRecord if it is damaged in its zip."""
        try:
            with _plain_errors():
                return self.system.cat_file(self._path(name))
        except (BadZipFile, zlib.error) as error:
            raise BadRecord(f"{name}: damaged in its zip ({error}); fetch it again") from None

    def size(self, name: str) -> int | None:
        """Length of a file, bytes; None if the server does not tell."""
        with _plain_errors():
            found = self.system.info(self._path(name))
        if found["type"] == "directory":
            raise FileNotFoundError(name)
        return found["size"]

    def has(self, name: str) -> bool:
        """Whether there is such a file; one that nobody may read is as good as none."""
        try:
            self.size(name)
        except (FileNotFoundError, PermissionError):
            return False
        return True

    def list(self, below: str) -> tuple[list[str], list[str]]:
        """Names of files below a folder, and of the folders that are still to be listed.

        Of a web server's folder, the links of its page that lead below it.
        """
        with _plain_errors():
            if not self._is_http:
                start = len(self.base) + 1 if self.base else 0
                return [name[start:] for name in self.system.find(self.base)], []
            links = self.system.ls(self._path(below).rstrip("/") + "/", detail=False)
        # fsspec's own walk takes a folder that fails for an empty one.
        start = len(unquote(urlsplit(self.base).path)) + 1
        names = {unquote(urlsplit(link).path)[start:] for link in links if "?" not in link}
        names = {name for name in names if len(name) > len(below) and "/." not in f"/{name}"}
        folders = {name for name in names if name.endswith("/")}
        return sorted(names - folders), sorted(folders)


@contextmanager
def _plain_errors() -> Iterator[None]:
    import aiohttp

    try:
        yield
    except Exception as error:
        # fsspec calls every failed question for a size "not found", and says why in the cause.
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


def open_address(root: str) -> Address:
    """The folder that a URL, or the name of a zip file, leads to; opened once in a process.

    Raises
    ------
    EcgpipeError
        No such kind of address, or a package that it needs is missing.
    Unreachable
        Not a zip file, or it came damaged.
    """
    with _opening:
        return _open(root)


def forget() -> None:
    """Open addresses anew from here on."""
    _open.cache_clear()


@lru_cache(maxsize=4)
def _open(root: str) -> Address:
    from fsspec.core import url_to_fs

    is_zip = root.endswith(".zip") and "::" not in root
    url = f"zip::{root}" if is_zip else root
    options = _options(url)
    scheme = url.partition(":")[0]
    try:
        with _plain_errors():
            if "::" not in url:
                options = options.get(scheme, {})
            system, base = url_to_fs(url, **options)
    except BadZipFile as error:
        raise Unreachable(f"{root}: not a zip file, or damaged ({error})") from None
    except ImportError as error:
        extra = "s3" if "s3://" in root else None
        how = f"run pip install 'ecgpipe[{extra}]'" if extra else "install it"
        raise EcgpipeError(f"{root}: needs another package ({error}); {how}") from None
    except (ValueError, NotImplementedError) as error:
        raise EcgpipeError(f"{root}: cannot be opened ({error}); check the address") from None
    if hasattr(system, "retries"):
        system.retries = 1  # one place tries again, and knows when to stop
    if scheme == "zip":
        # This also reads the zip's list, which fsspec must not do in several threads at once.
        top = system.ls("", detail=True)
        if not base and len(top) == 1 and top[0]["type"] == "directory":
            base = top[0]["name"]  # PhysioNet packs a folder, not its files
    return Address(system, base.rstrip("/"))


def _options(url: str) -> dict[str, dict[str, Any]]:
    """What the file systems of a URL are opened with, by protocol; fsspec's settings come first."""
    import aiohttp
    from fsspec.config import conf

    # Open data need no credentials; a user's own buckets do, and then they are set.
    own = conf.get("s3", {})
    signed = {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"} & os.environ.keys() or {
        "key",
        "profile",
    } & own.keys()
    s3 = {
        "anon": not signed,
        "max_concurrency": 1,  # recordings are read side by side, not pieces of one
        "use_listings_cache": False,
        "config_kwargs": {
            "retries": {"total_max_attempts": 1},
            "connect_timeout": CONNECT,
            "read_timeout": SILENCE,
        },
        **own,
    }
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
    http = {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    return {
        protocol: options
        for protocol, options in {
            "s3": s3,
            "http": {**http, **conf.get("http", {})},
            "https": {**http, **conf.get("https", {})},
        }.items()
        if f"{protocol}://" in url
    }


def retried(root: str, call: Callable[[Address], T], name: str, attempts: int) -> T:
    """What a call on an address gives; if it fails for now, it is tried again after a while.

    Raises
    ------
    FileNotFoundError, EcgpipeError
        Final ones of the call.
    Unreachable
        It failed however often it was tried, or permission is denied.
    """
    import tenacity

    place = f"{root.rstrip('/')}/{name}"

    def before(state: Any) -> None:
        error = state.outcome.exception()
        if isinstance(error, BadRecord):
            forget()  # fsspec holds on to what came of a zip, wrong as it may be
        if state.attempt_number == attempts // 2:
            say(f"{place}: {_sentence(error)}; trying again")

    again = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(attempts),
        wait=tenacity.wait_random_exponential(multiplier=FIRST, max=LONGEST),
        retry=tenacity.retry_if_exception(_may_pass),
        before_sleep=before,
        reraise=True,
    )
    try:
        return again(lambda: call(open_address(root)))
    except (FileNotFoundError, EcgpipeError):
        raise
    except PermissionError as error:
        raise Unreachable(
            f"{place}: permission denied ({error}); if you may read it, set your "
            "credentials, such as AWS_PROFILE"
        ) from None
    except Exception as error:
        raise Unreachable(
            f"{place}: not to be had in {attempts} attempts ({_sentence(error)}); "
            "start the same command again to continue"
        ) from None


def _may_pass(error: BaseException) -> bool:
    """Whether asking again may give another answer."""
    if isinstance(error, BadRecord | Unreachable):
        return True
    return isinstance(error, Exception) and not isinstance(
        error, FileNotFoundError | PermissionError | EcgpipeError
    )


def _sentence(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
