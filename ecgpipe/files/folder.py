"""Read the files of a data set from a local folder, a zip file or a URL.

A file is read into memory as a whole and checked against its published SHA-256. Nothing of a remote
data set is written to disk.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby, islice, repeat
from operator import methodcaller
from pathlib import Path
from typing import TypeVar

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from ..errors import BadRecord, EcgpipeError
from ..progress import say
from .remote import RemoteFolder, close_all, retry

RECORDS = "RECORDS"  # PhysioNet's list of records, at the root of a data set
SUMS = "SHA256SUMS.txt"  # PhysioNet's list of digests, at the root of a data set
ATTEMPTS = 8  # to read one remote file
AHEAD = 8  # recordings that are downloaded in advance and kept in memory

_SUM = re.compile(rb"([0-9a-f]{64})[ \t]+\*?(?:\./)?(\S.*)")

T = TypeVar("T")


class InputFile(TypedDict, total=False):
    """A raw file as a store's sidecar records it: bytes and sha256, or what is wrong with it."""

    bytes: int
    sha256: str  # hex
    wrong: str


InputFiles = dict[str, InputFile | None]  # by name; None for a file that does not exist


class Files(dict[str, bytes]):
    """Contents of one recording's files by name; a missing or wrong file raises BadRecord.

    Attributes
    ----------
    inputs
        What was found under every name that was asked for.
    errors
        Error message by name of a file that exists and cannot be used.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inputs: InputFiles = {}
        self.errors: dict[str, str] = {}

    def __missing__(self, name: str) -> bytes:
        missing = f"{name}: missing; fetch it again, or take the record off the list"
        raise BadRecord(self.errors.get(name, missing))


@dataclass(frozen=True)
class Folder:
    """The root folder of a data set; picklable.

    Attributes
    ----------
    root
        A local path, or a URL: ``s3://…`` (anonymous, unless credentials are set), ``https://…``,
        ``zip://::…``. A name that ends in ``.zip`` is opened as a zip file.
    digests
        SHA-256 in hex by file name, from ``SHA256SUMS.txt``, which is trusted as the list of
        remote files. Empty digests stand for files that were listed without one.
    """

    root: str
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, root: str | Path) -> Folder:
        """Open a folder and read its list of published digests, if there is one.

        Raises
        ------
        EcgpipeError
            No such folder, or a URL that cannot be read.
        """
        name = str(root).removeprefix("file://")
        # The path is absolute because another process may use it in another directory.
        folder = cls(name if "://" in name else str(Path(name).resolve()))
        if folder.is_local and not Path(folder.root).is_dir():
            raise EcgpipeError(
                f"{root}: no such folder; name the one that holds the raw recordings"
            )
        close_all()  # the files may have changed since this process opened them
        digests: Mapping[str, str] = {}
        try:
            digests = folder._get(SUMS, _parse)
        except FileNotFoundError:
            if folder.is_remote and not folder.is_zip:
                say(f"{root}: no {SUMS}; lists its folders, and checks file sizes only")
        except OSError as error:
            raise EcgpipeError(f"{root}/{SUMS}: cannot be read ({error.strerror})") from None
        if not folder.is_local and (folder.is_zip or not digests):
            # A zip may contain only some of the published files; its own index is right.
            digests = {name: digests.get(name, "") for name in folder._list()}
        return replace(folder, digests=digests)

    def only(self, names: Iterable[str]) -> Folder:
        """The same folder with the digests of these files only; small enough to send to workers."""
        digests = {name: self.digests[name] for name in names if name in self.digests}
        return replace(self, digests=digests)

    @property
    def is_zip(self) -> bool:
        """True for a zip file, local or remote."""
        return self.root.startswith("zip://") or self.root.endswith(".zip")

    @property
    def is_remote(self) -> bool:
        """True if it is read over a network, where errors may be temporary."""
        return "://" in self.root.rpartition("::")[2]

    @property
    def is_local(self) -> bool:
        """True for a folder of the local file system."""
        return not self.is_remote and not self.is_zip

    def find(self, pattern: str) -> list[str]:
        """Names of the files below the root that match a glob of path components, sorted."""
        if self.is_local:
            root = Path(self.root)
            found = (path for path in root.glob(pattern) if path.is_file())
            return sorted(path.relative_to(root).as_posix() for path in found)
        from fsspec.utils import glob_translate

        return sorted(filter(re.compile(glob_translate(pattern)).match, self.digests))

    def _list(self) -> list[str]:
        """List all files below the root."""
        found: list[str] = []
        waiting = [""]
        while waiting:
            name = waiting.pop()
            with suppress(FileNotFoundError):  # a dead link
                files, folders = self._retry(methodcaller("list", name), name)
                found += files
                waiting += folders
        if not found:
            raise EcgpipeError(
                f"{self.root}: nothing there, or it cannot be listed; check the address"
            )
        return found

    def has(self, name: str) -> bool:
        """True if the file exists, listed or not."""
        if self.is_local:
            return (Path(self.root) / name).is_file()
        return name in self.digests or self._retry(methodcaller("has", name), name)

    def size(self, name: str) -> int | None:
        """Length of a file in bytes; None if the server does not tell."""
        if self.is_local:
            return (Path(self.root) / name).stat().st_size
        return self._retry(methodcaller("size", name), name)

    def read(self, name: str) -> bytes:
        """Read one file and check its published digest.

        Raises
        ------
        EcgpipeError
            It does not exist or cannot be read.
        BadRecord
            It differs from its published digest in every attempt.
        Unreachable
            It could not be read in several attempts.
        """
        try:
            return self._read(name)[0]
        except OSError as error:
            reason = error.strerror or "not there"
            raise EcgpipeError(
                f"{self.root.rstrip('/')}/{name}: {reason}; fetch it again"
            ) from None

    def _read(self, name: str) -> tuple[bytes, str]:
        """Read one file; gives its content and digest, or raises FileNotFoundError."""

        def check(data: bytes) -> tuple[bytes, str]:
            digest = hashlib.sha256(data).hexdigest()
            if self.digests.get(name, "") not in ("", digest):
                raise BadRecord(f"{name}: differs from {SUMS}; fetch it again")
            return data, digest

        return self._get(name, check)

    def _get(self, name: str, check: Callable[[bytes], T]) -> T:
        """Apply a check to a file's content; a remote file that fails it is read again."""
        if self.is_local:
            return check((Path(self.root) / name).read_bytes())
        return self._retry(lambda remote: check(remote.read(name)), name)

    def fetch(self, names: Iterable[str]) -> Files:
        """Read the files of one recording.

        Raises
        ------
        Unreachable
            See :meth:`read`.
        """
        files = Files()
        for name in names:
            files.inputs[name] = None
            try:
                files[name], digest = self._read(name)
                files.inputs[name] = {"bytes": len(files[name]), "sha256": digest}
            except FileNotFoundError:
                pass
            except BadRecord as error:
                files.errors[name] = str(error)
                files.inputs[name] = {"wrong": str(error)}
            except OSError as error:
                reason = error.strerror or type(error).__name__
                files.errors[name] = f"{name}: cannot be read ({reason})"
        return files

    def fetch_all(self, recordings: Iterable[Sequence[str]]) -> Iterator[Files]:
        """Read the files of several recordings in order; remote ones are downloaded in advance.

        Consecutive recordings with the same files share one copy.
        """
        groups = ((names, len(list(same))) for names, same in groupby(map(tuple, recordings)))
        if not self.is_remote:
            for names, count in groups:
                yield from repeat(self.fetch(names), count)
            return
        pool = ThreadPoolExecutor(AHEAD)
        futures = ((pool.submit(self.fetch, names), count) for names, count in groups)
        waiting = deque(islice(futures, AHEAD))
        try:
            while waiting:
                future, count = waiting.popleft()
                yield from repeat(future.result(), count)
                waiting.extend(islice(futures, 1))
        finally:
            pool.shutdown(cancel_futures=True)

    def unchanged(self, inputs: InputFiles) -> bool:
        """True if all files are the same as when they were read.

        Local files are read again. Remote ones are compared by published digest, or by size where
        there is none.
        """
        return all(self._unchanged(name, then) for name, then in inputs.items())

    def _unchanged(self, name: str, then: InputFile | None) -> bool:
        try:
            if published := self.is_remote and self.digests.get(name):
                return then is not None and published == then.get("sha256")
            if self.size(name) != (then or {}).get("bytes"):
                return False
            return self.is_remote or self._read(name)[1] == (then or {}).get("sha256")
        except FileNotFoundError:
            return then is None
        except (BadRecord, OSError):
            return False

    def _retry(self, call: Callable[[RemoteFolder], T], name: str) -> T:
        return retry(self.root, name, ATTEMPTS if self.is_remote else 1, call)


def listed(folder: Folder) -> list[str]:
    """Names of records in ``RECORDS``, PhysioNet's list of a data set; empty without the file."""
    if not folder.has(RECORDS):
        return []
    return folder.read(RECORDS).decode("utf-8-sig", errors="replace").split()


def _parse(content: bytes) -> dict[str, str]:
    """SHA-256 by file name, from the lines of SHA256SUMS.txt."""
    digests = {}
    for number, line in enumerate(io.BytesIO(content), 1):  # 1.6 million for Icentia11k
        if found := _SUM.fullmatch(line.rstrip()):
            digests[found[2].decode()] = found[1].decode()
        elif line.strip():
            raise BadRecord(f"{SUMS}: line {number} is no SHA-256 and a name; check the address")
    return digests
