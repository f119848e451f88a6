"""How fast raw recordings become shards, and where the time goes: see ``preparing.md``.

``python benchmarks/preparing.py DATA``; DATA holds ``icentia11k/``, ``mitdb/`` and ``cinc2017/``.
The parts are made by the product's own code, in this process, with a clock around the functions
named in ``STAGES``. A stage's time is without that of the stages it calls. The clock counts the
processor's time in all threads, so that neighbours on the machine disturb little; MB are 10^6 bytes
of int16 samples at the recordings' own rate. Memory is the peak of a fresh process that makes one
part. Prints Markdown.
"""

from __future__ import annotations

import hashlib
import resource
import sys
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import wfdb

from ecgpipe.files import folder
from ecgpipe.formats import annotations, wfdb_record
from ecgpipe.labels import qrs
from ecgpipe.storage import resample, shards, sidecar, zarr_part
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.shards import shard

STAGES: dict[str, list[tuple[Any, str]]] = {
    "read the files": [(folder.Folder, "fetch")],
    "SHA-256 of files and signals": [(hashlib, "sha256"), (hashlib, "file_digest")],
    "parse header and samples": [(wfdb_record, "read_signal")],
    "parse annotations": [(wfdb_record, "read_marks")],
    "detect QRS": [(qrs, "detect_qrs")],
    "counts, sums, rhythms": [(sidecar.RecordRow, "of")],
    "compress and write Zarr": [(zarr_part.PartWriter, "add"), (zarr_part.PartWriter, "__exit__")],
    "read Zarr": [(zarr_part.PartReader, "__init__"), (zarr_part.PartReader, "read")],
    "resample": [(resample, "resample")],
    "encode": [(shards, "encode")],
    "write tar": [(tarfile.TarFile, "addfile"), (tarfile.TarFile, "close")],
}
# What is measured of a set: all of it, or the patients with these numbers.
SETS = {"icentia11k": None, "mitdb": None, "cinc2017": "1-1500"}
RECORDS, SAMPLES = 541_794, 2**20 + 1  # of Icentia11k, and of each of its records


class Clock:
    """Seconds of each stage, without those of the stages inside."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def around(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                took = time.process_time() - start
                self.seconds[stage] += took - self._inner.pop()
                self._inner[-1] += took

        return timed


def watch(clock: Clock) -> None:
    """Put the clock around every stage, wherever ecgpipe has its function by name."""
    modules = [module for name, module in sys.modules.items() if name.startswith("ecgpipe")]
    for stage, places in STAGES.items():
        for owner, name in places:
            call = getattr(owner, name)
            timed = clock.around(stage, call)
            setattr(owner, name, timed)
            for module in modules:
                if getattr(module, name, None) is call:
                    setattr(module, name, timed)


def measure(clock: Clock, title: str, raw_bytes: int, work: Callable[[], Any]) -> float:
    """Print where the time of making a store goes; gives MB/s."""
    clock.seconds.clear()
    wall, start = time.perf_counter(), time.process_time()
    work()
    took, wall = time.process_time() - start, time.perf_counter() - wall
    size = raw_bytes / 1e6
    found = dict(clock.seconds)
    found["everything else"] = took - sum(found.values())
    print(f"\n**{title}**: {size:.1f} MB in {took:.1f} s of processor time ", end="")
    print(f"({wall:.1f} s by the wall), {size / took:.1f} MB/s\n")
    print("| stage | MB/s | share |\n|---|---:|---:|")
    for stage in [*STAGES, "everything else"]:
        if found.get(stage, 0.0) > 0.002 * took:
            share = 100 * found[stage] / took
            print(f"| {stage} | {size / found[stage]:,.0f} | {share:.1f} % |")
    return size / took


def annotation_readers(data: Path) -> None:
    """The product's reader beside wfdb's, on every file."""
    print("\n**Reading annotations**\n")
    print("| set | files | annotations | ours, ms per file | wfdb.rdann | times faster |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in ("icentia11k", "mitdb"):
        paths = sorted((data / name).rglob("*.atr"))
        start = time.process_time()
        count = sum(len(annotations.parse(path.read_bytes())[0]) for path in paths)
        ours = time.process_time() - start
        start = time.process_time()
        for path in paths:
            wfdb.rdann(str(path.with_suffix("")), "atr")
        theirs = time.process_time() - start
        each = [1000 * seconds / len(paths) for seconds in (ours, theirs)]
        print(
            f"| {name} | {len(paths)} | {count:,} | {each[0]:.2f} | {each[1]:.1f} "
            f"| {theirs / ours:.0f} |"
        )


def peak(name: str, root: Path, into: Path, segments: int | None) -> None:
    """Make one part in this process; prints its peak memory before and after."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    made = prepare(name, root, into / "archive", 1, segments=segments)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    shard(into / "archive", into / "shards", 128, workers=1)
    last = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    largest = made.totals.raw_bytes / len(made.parts) / 1e6
    print(
        f"| {name} | {largest:.1f} MB in {made['totals']['records'] // len(made['parts'])} records "
        f"| {before:.0f} | {after:.0f} | {last:.0f} |",
        flush=True,
    )


def scaling(data: Path, into: Path) -> None:
    """Prints the wall time of one and two processes on Icentia11k, each segment in 3 patients."""
    headers = 3 * sorted((data / "icentia11k").rglob("*.hea"))
    for i, header in enumerate(headers):
        patient = f"p{i % 24:05d}"
        name = f"{patient}_s{i // 24:02d}"
        target = into / "raw" / "p00" / patient
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{name}.hea").write_text(header.read_text().replace(header.stem, name))
        for extension in (".dat", ".atr"):
            (target / f"{name}{extension}").symlink_to(header.with_suffix(extension).resolve())
    took = {}
    for workers in (1, 2):
        wall, processor = time.perf_counter(), _processor()
        prepare("icentia11k", into / "raw", into / str(workers), workers)
        took[workers] = time.perf_counter() - wall, _processor() - processor
    print(
        f"\n**Processes**: preparing {len(headers)} segments of 24 patients takes "
        f"{took[1][0]:.1f} s in one process, which is running already, and {took[2][0]:.1f} s in "
        f"two, which have to start; of processor time {took[1][1]:.1f} s and {took[2][1]:.1f} s."
    )


def _processor() -> float:
    """Processor time of this process and of those it has seen end, s."""
    every = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in every)


def main(data: Path) -> None:
    speed: dict[tuple[str, str], float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        print("**Peak memory of a worker**\n")
        print("| set | a part | with nothing done, MB | after preparing | after shards |")
        print("|---|---|---:|---:|---:|", flush=True)
        for number, (name, segments) in enumerate(
            [("icentia11k", 5), ("icentia11k", 20), ("icentia11k", None), ("mitdb", None)]
        ):
            into = Path(scratch) / f"memory{number}"
            arguments = (name, data / name, into, segments)
            process = get_context("spawn").Process(target=peak, args=arguments)
            process.start()
            process.join()
        annotation_readers(data)
        scaling(data, Path(scratch) / "scaling")
        clock = Clock()
        watch(clock)
        for name, patients in SETS.items():
            into = Path(scratch) / name
            make = partial(prepare, name, data / name, workers=1, patients=patients)
            warm = make(archive=into / "warm")
            shard(into / "warm", into / "warm shards", 250, workers=1)
            size = warm.totals.raw_bytes
            title = f"{name}, {warm['totals']['records']:,} records"
            speed[name, "prepare"] = measure(
                clock, f"{title}: prepare", size, partial(make, archive=into / "made")
            )
            for fs in (250.0, 128.0) if name == "icentia11k" else (250.0,):
                step = f"shard at {fs:g} Hz"
                work = partial(shard, into / "made", into / step, fs, workers=1)
                speed[name, step] = measure(clock, f"{title}: {step}", size, work)
    print("\n**All of Icentia11k**\n\n| step | MB/s per core | 2 cores | 16 cores |")
    print("|---|---:|---:|---:|")
    size = 2e-6 * RECORDS * SAMPLES
    for (name, step), found in speed.items():
        if name == "icentia11k":
            hours = size / found / 3600
            print(f"| {step} | {found:.0f} | {hours / 2:.1f} h | {hours / 16:.2f} h |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
