"""The files of a data set, wherever they lie: a local folder, or any URL that fsspec reads.

A recording's files are read whole, checked, and handed on as bytes: nothing of a remote data set
lands on the disk, and whatever reads a format is a function of bytes.
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
from itertools import groupby
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar

from ..errors import BadRecord, EcgpipeError
from ..progress import say
from .address import Address, forget, retried

SUMS = "SHA256SUMS.txt"  # PhysioNet's list of digests, at the root of a data set
ATTEMPTS = 8  # at one remote file
AHEAD = 8  # recordings that are downloaded at once, and held until their turn comes

_SUM = re.compile(rb"([0-9a-f]{64})[ \t]+\*?(?:\./)?(\S.*)")

T = TypeVar("T")
Seen = dict[str, dict[str, Any] | None]  # by name: bytes and sha256 of a file; None: not there


class Files(Mapping[str, bytes]):
    """The files of one recording; asking for one that is missing or wrong raises BadRecord."""

    def __init__(self, content: Mapping[str, bytes], wrong: Mapping[str, str], seen: Seen) -> None:
        self._content, self._wrong, self.seen = content, wrong, seen

    def __getitem__(self, name: str) -> bytes:
        if name in self._wrong:
            raise BadRecord(self._wrong[name])
        if name not in self._content:
            raise BadRecord(f"{name}: missing; fetch it again, or take the record off the list")
        return self._content[name]

    def __contains__(self, name: object) -> bool:
        return name in self._content

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def __len__(self) -> int:
        return len(self._content)


@dataclass(frozen=True)
class Folder:
    """The root of a data set; picklable.

    Attributes
    ----------
    root
        A local path, or a URL: ``s3://…`` (anonymous, unless credentials are set), ``https://…``,
        ``zip://::…``. A name that ends in ``.zip`` is looked into.
    digests
        SHA-256 by name, from ``SHA256SUMS.txt``, which is trusted as the list of remote files.
        Empty ones stand for files that were listed where none are published.
    """

    root: str
    digests: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, root: str | Path) -> Folder:
        """The folder with the digests that its makers publish, where they do.

        Raises
        ------
        EcgpipeError
            No such folder, or a URL that cannot be read.
        """
        name = str(root).removeprefix("file://")
        # Whoever gets the folder may work elsewhere: a process on another machine, say.
        folder = cls(name if "://" in name else str(Path(name).resolve()))
        if folder.is_local and not Path(folder.root).is_dir():
            raise EcgpipeError(
                f"{root}: no such folder; name the one that holds the raw recordings"
            )
        forget()  # what lies there may have changed since this process looked
        digests: Mapping[str, str] = {}
        try:
            digests = folder._get(SUMS, _parse)
        except FileNotFoundError:
            if folder.is_remote and not folder.is_zip:
                say(f"{root}: no {SUMS}; looks through its folders, and checks lengths alone")
        except OSError as error:
            raise EcgpipeError(f"{root}/{SUMS}: cannot be read ({error.strerror})") from None
        if not folder.is_local and (folder.is_zip or not digests):
            # A zip has a list of its own, which is right even if only some files were packed.
            digests = {name: digests.get(name, "") for name in folder._list()}
        return replace(folder, digests=digests)

    def only(self, names: Iterable[str]) -> Folder:
        """The same folder with the digests of these files alone, to send to a worker."""
        digests = {name: self.digests[name] for name in names if name in self.digests}
        return replace(self, digests=digests)

    @property
    def is_zip(self) -> bool:
        """Whether it is a zip file, here or elsewhere."""
        return self.root.startswith("zip://") or self.root.endswith(".zip")

    @property
    def is_remote(self) -> bool:
        """Whether it is reached through a network, so that asking again may help."""
        return "://" in self.root.rpartition("::")[2]

    @property
    def is_local(self) -> bool:
        """Whether it is a plain folder of this machine."""
        return not self.is_remote and not self.is_zip

    def find(self, pattern: str) -> list[str]:
        """Names of the files below the root that match a glob of path components, sorted."""
        if self.is_local:
            root = Path(self.root)
            found = (path for path in root.glob(pattern) if path.is_file())
            return sorted(path.relative_to(root).as_posix() for path in found)
        matches = re.compile(_glob(pattern)).fullmatch
        return sorted(filter(matches, self.digests))

    def _list(self) -> list[str]:
        """Names of all files below a root that has no list of digests."""
        found: list[str] = []
        waiting = [""]
        while waiting:
            below = waiting.pop()
            with suppress(FileNotFoundError):  # a link to nothing
                files, folders = self._retried(methodcaller("list", below), below)
                found += files
                waiting += folders
        if not found:
            raise EcgpipeError(
                f"{self.root}: nothing there, or it cannot be listed; check the address"
            )
        return found

    def has(self, name: str) -> bool:
        """Whether there is such a file, listed or not."""
        if self.is_local:
            return (Path(self.root) / name).is_file()
        return name in self.digests or self._retried(methodcaller("has", name), name)

    def size(self, name: str) -> int | None:
        """Length of a file, bytes; None if the server does not tell; FileNotFoundError if none."""
        if self.is_local:
            return (Path(self.root) / name).stat().st_size
        return self._retried(methodcaller("size", name), name)

    def read(self, name: str) -> bytes:
        """One file, checked against the published digest.

        Raises
        ------
        EcgpipeError
            There is none, or it cannot be read.
        BadRecord
            It differs from its published digest, however often it is read.
        Unreachable
            It may be there, but could not be read in several attempts.
        """
        try:
            return self._read(name)[0]
        except OSError as error:
            reason = error.strerror or "not there"
            raise EcgpipeError(
                f"{self.root.rstrip('/')}/{name}: {reason}; fetch it again"
            ) from None

    def _read(self, name: str) -> tuple[bytes, str]:
        """A file and its digest; FileNotFoundError if there is none."""

        def check(data: bytes) -> tuple[bytes, str]:
            digest = hashlib.sha256(data).hexdigest()
            if self.digests.get(name, "") not in ("", digest):
                raise BadRecord(f"{name}: differs from {SUMS}; fetch it again")
            return data, digest

        return self._get(name, check)

    def _get(self, name: str, check: Callable[[bytes], T]) -> T:
        """What a check gives for a file; a remote one that does not pass is read again."""
        if self.is_local:
            return check((Path(self.root) / name).read_bytes())
        return self._retried(lambda address: check(address.read(name)), name)

    def fetch(self, names: Iterable[str]) -> Files:
        """The files of one recording, read whole.

        Raises
        ------
        Unreachable
            See :meth:`read`.
        """
        content: dict[str, bytes] = {}
        wrong: dict[str, str] = {}
        seen: Seen = {}
        for name in names:
            seen[name] = None
            try:
                content[name], digest = self._read(name)
            except FileNotFoundError:
                continue
            except BadRecord as error:
                wrong[name] = str(error)
                seen[name] = {"wrong": str(error)}
                continue
            except OSError as error:
                reason = error.strerror or type(error).__name__
                wrong[name] = f"{name}: cannot be read ({reason})"
                continue
            seen[name] = {"bytes": len(content[name]), "sha256": digest}
        return Files(content, wrong, seen)

    def fetch_all(self, recordings: Iterable[Sequence[str]]) -> Iterator[Files]:
        """The files of one recording after another; remote ones are read some recordings ahead.

        Neighbours that share all their files are read once.
        """
        groups = ((names, len(list(same))) for names, same in groupby(map(tuple, recordings)))
        if not self.is_remote:
            for names, count in groups:
                files = self.fetch(names)
                yield from (files for _ in range(count))
            return
        waiting: deque[tuple[Any, int]] = deque()
        pool = ThreadPoolExecutor(AHEAD)
        try:
            for names, count in groups:
                waiting.append((pool.submit(self.fetch, names), count))
                if len(waiting) >= AHEAD:
                    yield from _first(waiting)
            while waiting:
                yield from _first(waiting)
        finally:
            pool.shutdown(cancel_futures=True)

    def unchanged(self, seen: Seen) -> bool:
        """Whether files are what they were when they were read.

        Local ones are read again. Remote ones are compared with the published digests, and where
        there are none, by their sizes.
        """
        return all(self._unchanged(name, then) for name, then in seen.items())

    def _unchanged(self, name: str, then: dict[str, Any] | None) -> bool:
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

    def _retried(self, call: Callable[[Address], T], name: str) -> T:
        return retried(self.root, call, name, ATTEMPTS if self.is_remote else 1)


def _first(waiting: deque[tuple[Any, int]]) -> Iterator[Files]:
    future, count = waiting.popleft()
    files = future.result()
    yield from (files for _ in range(count))


def _parse(content: bytes) -> dict[str, str]:
    """SHA-256 by name, from lines of both."""
    digests = {}
    for number, line in enumerate(io.BytesIO(content), 1):  # Icentia11k has 1.6 million
        if found := _SUM.fullmatch(line.rstrip()):
            digests[found[2].decode()] = found[1].decode()
        elif line.strip():
            raise BadRecord(f"{SUMS}: line {number} is no SHA-256 and a name; check the address")
    return digests


def _glob(pattern: str) -> str:
    """A glob of path components as a regular expression; ``**`` is any number of folders."""
    out = []
    for part in pattern.split("/"):
        if part == "**":
            out.append("(?:[^/]+/)*")
            continue
        text = re.escape(part).replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
        text = re.sub(r"\\\[(.*?)\\\]", lambda found: f"[{found[1].replace(chr(92), '')}]", text)
        out.append(text + "/")
    return "".join(out).removesuffix("/")
