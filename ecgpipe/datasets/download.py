"""Copy a small data set from PhysioNet to a local folder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from ..errors import EcgpipeError
from ..files.atomic import sha256, write_bytes, write_text
from ..files.folder import SUMS, Folder
from ..progress import Progress
from . import SIMULATED, cinc2017, ptbxl

THREADS = 8
FAILURES_IN_A_ROW = 20  # files, after which the copy is given up

# Address of each set on PhysioNet (``s3://physionet-open/`` has the same files under the same
# names), and patterns of the files that ecgpipe reads.
SETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cinc2017": (
        "https://physionet.org/files/challenge-2017/1.0.0/",
        tuple(
            f"{parent}{name}"
            for parent in cinc2017.FOLDERS
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
OPTIONAL = ("LICENSE.txt", SIMULATED)
TOO_LARGE = {"icentia11k": "s3://physionet-open/icentia11k-continuous-ecg/1.0/"}


def fetch(name: str, dest: Path, source: str | None = None) -> str:
    """Copy a data set, or continue an interrupted copy.

    A file with the published digest, or with the right size if no digest is published, is kept.
    ``SHA256SUMS.txt`` is written first, with the lines of the copied files.

    Parameters
    ----------
    name
        Of the data set, a key of :data:`SETS`.
    dest
        Folder of the copy.
    source
        Another address with the same files; by default PhysioNet's.

    Returns
    -------
    str
        One line that says what was copied.

    Raises
    ------
    EcgpipeError
        An unknown set, no files of it at the address, or files that could not be copied; the
        others were.
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
    names += [extra for extra in OPTIONAL if folder.has(extra)]
    folder = folder.only(names)
    sums = [f"{digest}  {name}\n" for name, digest in sorted(folder.digests.items()) if digest]
    try:
        if sums:
            write_text(dest / SUMS, "".join(sums))
        return _copy_all(folder, dest, names)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise EcgpipeError(f"{error.filename or dest}: cannot be written ({reason})") from None


def _copy_all(folder: Folder, dest: Path, names: list[str]) -> str:
    size = kept = in_a_row = 0
    failed: dict[str, EcgpipeError] = {}
    with Progress(f"fetch {dest.name}", len(names), "files") as progress:
        pool = ThreadPoolExecutor(THREADS)
        try:
            futures = {pool.submit(_copy, folder, dest, name): name for name in names}
            for future in as_completed(futures):
                name = futures.pop(future)
                try:
                    length, exists = future.result()
                except EcgpipeError as error:
                    failed[name], in_a_row = error, in_a_row + 1
                else:
                    in_a_row = 0
                    size, kept = size + length, kept + exists
                    progress.step(f"{size / 1e6:,.0f} MB")
                if in_a_row == FAILURES_IN_A_ROW:
                    break
        finally:
            pool.shutdown(cancel_futures=True)
    copied = (
        f"{dest}: {progress.done:,} of {len(names):,} files, {size / 1e6:,.1f} MB, "
        f"{kept:,} there already"
    )
    if not failed:
        return copied
    listed = ", ".join(sorted(failed)[:10])
    more = f" and {len(failed) - 10} more" if len(failed) > 10 else ""
    raise EcgpipeError(
        f"{copied}; {len(failed)} could not be copied: {listed}{more} "
        f"({failed[min(failed)]}); the same command continues"
    )


def _copy(folder: Folder, dest: Path, name: str) -> tuple[int, bool]:
    """Copy one file; gives its length, and True if it was there already."""
    path = dest / name
    if path.is_file():
        size = path.stat().st_size
        if folder.unchanged({name: {"bytes": size, "sha256": sha256(path)}}):
            return size, True
    content = folder.read(name)
    write_bytes(path, content)
    return len(content), False
