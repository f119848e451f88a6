"""Copying a small data set from PhysioNet, so that it can be read again and again."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from ..errors import EcgpipeError
from ..files.atomic import sha256, write_bytes, write_text
from ..files.folder import SUMS, Folder
from ..progress import Progress
from . import cinc2017, ptbxl
from .entry import SIMULATED

AT_ONCE = 8  # files
IN_A_ROW = 20  # files that cannot be had one after another: then nothing more is tried

# Where PhysioNet has each set (``s3://physionet-open/`` has the same below the same names), and
# the files of it that ecgpipe reads.
SETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cinc2017": (
        "https://physionet.org/files/challenge-2017/1.0.0/",
        tuple(
            f"{place}{name}"
            for place in cinc2017.PLACES
            for name in ("A[0-9]*.hea", "A[0-9]*.mat", *cinc2017.REFERENCES)
        ),
    ),
    "mitdb": (
        "https://physionet.org/files/mitdb/1.0.0/",
        ("[0-9][0-9][0-9].hea", "[0-9][0-9][0-9].dat", "[0-9][0-9][0-9].atr"),
    ),
    "ptbxl": (
        "https://physionet.org/files/ptb-xl/1.0.3/",
        (
            ptbxl.TABLE,
            ptbxl.CODES,
            "records500/[0-9]*/[0-9]*_hr.hea",
            "records500/[0-9]*/[0-9]*_hr.dat",
        ),
    ),
}
ALWAYS = ("LICENSE.txt", SIMULATED)
TOO_LARGE = {"icentia11k": "s3://physionet-open/icentia11k-continuous-ecg/1.0/"}


def fetch(name: str, dest: Path, source: str | None = None) -> str:
    """Copy a data set, or continue where a copy ended.

    A file that is there with the published digest, or where none is published with the right size,
    is kept. ``SHA256SUMS.txt`` comes first, with the lines of the files that are copied.

    Parameters
    ----------
    name
        Of the data set, a key of :data:`SETS`.
    dest
        Folder of the copy.
    source
        Another address that has the same files; by default PhysioNet's.

    Returns
    -------
    str
        One line that says what was copied.

    Raises
    ------
    EcgpipeError
        No such set, nothing of it at the address, or some files could not be had; the others are
        there then.
    """
    if name in TOO_LARGE:
        raise EcgpipeError(
            f"{name}: too large to copy; `ecgpipe prepare {name} {TOO_LARGE[name]} ARCHIVE` "
            "streams it into an archive, all or some --patients and --segments of it"
        )
    if name not in SETS:
        raise EcgpipeError(f"{name}: not a set that can be copied; there are: {', '.join(SETS)}")
    address, patterns = SETS[name]
    folder = Folder.open(source or address)
    names = sorted({found for pattern in patterns for found in folder.find(pattern)})
    if not names:
        raise EcgpipeError(f"{folder.root}: no files of {name}; check the address")
    names += [extra for extra in ALWAYS if folder.has(extra)]
    _write_sums(folder.only(names), dest)
    return _copy_all(folder.only(names), dest, names)


def _write_sums(folder: Folder, dest: Path) -> None:
    """The published digests of the copied files alone, so that the copy is whole by its list."""
    lines = [f"{digest}  {name}\n" for name, digest in sorted(folder.digests.items()) if digest]
    if lines:
        try:
            write_text(dest / SUMS, "".join(lines))
        except OSError as error:
            raise _not_written(dest, error) from None


def _copy_all(folder: Folder, dest: Path, names: Iterable[str]) -> str:
    names = list(names)
    size = kept = in_a_row = 0
    failed: dict[str, EcgpipeError] = {}
    with Progress(f"fetch {dest.name}", len(names), "files") as bar:
        pool = ThreadPoolExecutor(AT_ONCE)
        try:
            doing = {pool.submit(_copy, folder, dest, name): name for name in names}
            for future in as_completed(doing):
                name = doing.pop(future)
                try:
                    length, was_there = future.result()
                except OSError as error:
                    raise _not_written(dest, error) from None
                except EcgpipeError as error:
                    failed[name] = error
                    in_a_row += 1
                    if in_a_row == IN_A_ROW:
                        break
                    continue
                in_a_row = 0
                size, kept = size + length, kept + was_there
                bar.step(f"{size / 1e6:,.0f} MB")
        finally:
            pool.shutdown(cancel_futures=True)
    what = f"{bar.done:,} of {len(names):,} files, {size / 1e6:,.1f} MB, {kept:,} there already"
    if not failed:
        return f"{dest}: {what}"
    listed = ", ".join(sorted(failed)[:10])
    more = f" and {len(failed) - 10} more" if len(failed) > 10 else ""
    raise EcgpipeError(
        f"{dest}: {what}; {len(failed)} could not be had: {listed}{more} "
        f"({failed[min(failed)]}); the same command continues"
    )


def _copy(folder: Folder, dest: Path, name: str) -> tuple[int, bool]:
    """Copy one file; gives its length, and whether it was there already."""
    path = dest / name
    if path.is_file() and _is_right(folder, path, name):
        return path.stat().st_size, True
    content = folder.read(name)
    write_bytes(path, content)
    return len(content), False


def _is_right(folder: Folder, path: Path, name: str) -> bool:
    if digest := folder.digests.get(name):
        return sha256(path) == digest
    try:
        return folder.size(name) == path.stat().st_size
    except FileNotFoundError:
        return False


def _not_written(dest: Path, error: OSError) -> EcgpipeError:
    reason = error.strerror or type(error).__name__
    return EcgpipeError(f"{error.filename or dest}: cannot be written ({reason})")
