"""Damage everything that can be damaged, at random, and count what goes wrong in silence.

    python tests/torture/torture.py --minutes 10 --seed 1

Three kinds of tries, in turn: a damaged file of a store and one use of it; a mutated raw file and
its reading; a command that is killed at a random moment and run again. A try ends as ``right``
(the records or bytes that were written; of a raw file, whatever was read), ``refused`` (by an error
that ecgpipe foresaw), or as an outcome that must not be: ``silent`` (other records, no error),
``trace`` (an error that nobody foresaw), ``hang``. It exits with 1 if there was one, and prints the
seed and the number of the try.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

import databases as db  # noqa: E402
from test_damage import USES, read  # noqa: E402

from ecgpipe.datasets import Folder, find_entries, read_entry  # noqa: E402
from ecgpipe.errors import EcgpipeError  # noqa: E402
from ecgpipe.storage.archive import prepare  # noqa: E402
from ecgpipe.storage.shards import shard  # noqa: E402
from ecgpipe.storage.verify import verify  # noqa: E402
from ecgpipe.types import Record  # noqa: E402

LONGEST = 60.0  # s that a try may take
BAD = ("silent", "trace", "hang")

Rng = np.random.Generator
Outcome = tuple[str, str]  # what was tried, and how it ended


class Hang(Exception):
    """A try took longer than LONGEST."""


def mutate(data: bytes, rng: Rng) -> bytes:
    """The content of a file with one random change."""
    at, size = int(rng.integers(len(data) + 1)), int(rng.integers(1, 40))
    kind = rng.integers(6)
    if kind == 0 or not data:
        return data[:at]
    if kind == 1:
        changed = bytearray(data)
        changed[at - 1] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    if kind == 2:
        return data[:at] + data[at + size :]
    if kind == 3:
        return data[:at] + data[at : at + size] + data[at:]
    if kind == 4:
        return data[:at] + rng.bytes(size) + data[at + size :]
    digits = [i for i, byte in enumerate(data[:4000]) if chr(byte).isdigit()]
    at = int(rng.choice(digits)) if digits else 0
    return (
        data[:at] + rng.choice([b"-1", b"1e99", b"nan", b"0", b"", b"99999999999"]) + data[at + 1 :]
    )


class Torture:
    """The stores and raw files that are damaged, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for patient, segment in ((0, 0), (1, 0), (1, 1)):
            rows = db.icentia_rows(900) if segment < 1 else None
            db.icentia(folder / "raw/icentia11k", patient, segment, 900, rows)
        noise = np.random.default_rng(0).normal(size=(2, 900)).astype(np.float32)
        db.batched(folder / "raw/pickles", 0, noise)
        db.mitdb(folder / "raw/mitdb", "100", samples=900)
        db.cinc(folder / "raw/cinc2017", 1, 900)
        db.challenge(folder / "raw/icbeb2018", "A0001", signal=600)
        prepare("icentia11k", folder / "raw/icentia11k", folder / "archive", 1)
        shard(folder / "archive", folder / "shards", 250, workers=1)
        self.right = {record.key: record for record in read(folder / "archive")}

    def store(self, rng: Rng) -> Outcome:
        """Damage one file of a store and use it; ``verify`` must find every change."""
        kind, use = USES[rng.integers(len(USES))]
        store = self.folder / "damaged" / kind
        shutil.rmtree(store.parent, ignore_errors=True)
        shutil.copytree(self.folder / kind, store)
        files = sorted(path for path in store.rglob("*") if path.is_file())
        file = files[rng.integers(len(files))]
        data = file.read_bytes()
        changed = mutate(data, rng)
        file.unlink() if rng.random() < 0.1 else file.write_bytes(changed)
        if file.exists() and changed == data:
            return f"{kind} {use.__name__}", "right"
        try:
            found_by_verify = bool(verify(store))
        except EcgpipeError:  # without a manifest it is no finished store
            found_by_verify = True
        if not found_by_verify:
            return f"verify {kind}", "silent"
        try:
            found = use(store)
        except EcgpipeError:
            return f"{kind} {use.__name__}", "refused"
        return f"{kind} {use.__name__}", "right" if self._same(found) else "silent"

    def _same(self, found: list[Record]) -> bool:
        try:
            for record in found:
                db.equal(record, self.right[record.key])
        except AssertionError:
            return False
        return True

    def raw(self, rng: Rng) -> Outcome:
        """Mutate one raw file and read its data set; another plausible number is not noticed."""
        sets = sorted(path.name for path in (self.folder / "raw").iterdir())
        name = sets[rng.integers(len(sets))]
        root = self.folder / "mutated"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.folder / "raw" / name, root)
        files = sorted(path for path in root.rglob("*") if path.is_file())
        file = files[rng.integers(len(files))]
        file.write_bytes(mutate(file.read_bytes(), rng))
        dataset = "icentia11k" if name == "pickles" else name
        refused = 0
        try:
            folder = Folder.open(root)
            for entry in find_entries(dataset, folder):
                try:
                    read_entry(dataset, entry, folder.fetch(entry.files))
                except EcgpipeError as error:
                    refused += 1
                    if "not foreseen" in str(error):
                        return f"{name} {file.suffix}", "trace"
        except EcgpipeError:
            refused += 1
        return f"{name} {file.suffix}", "refused" if refused else "right"

    def kill(self, rng: Rng) -> Outcome:
        """Kill a command at a random moment, and run it again to the end."""
        command = ("prepare", "shard")[rng.integers(2)]
        out = self.folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        source = self.folder / ("archive" if command == "shard" else "raw/icentia11k")
        words = [source, out] if command == "shard" else ["icentia11k", source, out]
        line = [sys.executable, "-m", "ecgpipe", command, *map(str, words), "--workers", "2"]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(1, 8))
        process.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[rng.integers(3)])
        process.wait(LONGEST)
        done = subprocess.run(line, capture_output=True, text=True, timeout=LONGEST, check=False)
        if done.returncode or "Traceback" in done.stderr:
            return f"kill {command}", "trace"
        whole = self.folder / ("shards" if command == "shard" else "archive")
        return f"kill {command}", "right" if db.tree(out) == db.tree(whole) else "silent"


def attempt(call: Callable[[Rng], Outcome], rng: Rng) -> Outcome:
    """One try; an error that nobody foresaw is an outcome, too."""

    def stop(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(2 * LONGEST))
    try:
        return call(rng)
    except (Hang, subprocess.TimeoutExpired):
        return call.__name__, "hang"
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return call.__name__, "trace"
    finally:
        signal.alarm(0)


def main() -> int:
    """Try for some minutes and print a table."""
    parser = argparse.ArgumentParser(description="Damage at random; count what is silent.")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    counts: dict[str, Counter[str]] = {}
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        torture = Torture(Path(name))
        kinds = [*[torture.store] * 10, *[torture.raw] * 20, torture.kill]
        end, number = time.monotonic() + 60 * args.minutes, 0
        while time.monotonic() < end:
            number += 1
            call = kinds[number % len(kinds)]
            what, how = attempt(call, np.random.default_rng([args.seed, number]))
            counts.setdefault(what, Counter())[how] += 1
            if how in BAD:
                bad += 1
                print(f"try {number} of seed {args.seed}: {what}: {how}", file=sys.stderr)
    columns = ("right", "refused", *BAD)
    print(f"seed {args.seed}, {number:,} tries in {args.minutes:g} minutes\n")
    print("| what | tries |", *(f"{name} |" for name in columns))
    print("|---|" + "---|" * (len(columns) + 1))
    for what, found in sorted(counts.items()):
        print(f"| {what} | {found.total():,} |", *(f"{found[name]:,} |" for name in columns))
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
