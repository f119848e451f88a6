"""Ratio, speed and layout of codecs on real recordings: ``python benchmarks/codecs.py DATA``.

DATA holds ``icentia11k/``, ``mitdb/``, ``cinc2017/`` and ``challenge2021/`` (12 leads). One thread,
files in the page cache. Every step of every record is timed in seven rounds, of which its quickest
counts, so that other work on the machine matters little; reads are the median over 60 windows and
as many records. Prints Markdown tables.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numcodecs
import numpy as np
import wfdb
import zarr
from numcodecs.registry import get_codec
from numpy.typing import NDArray

from ecgpipe.datasets import Folder, find_entries, read_entry
from ecgpipe.storage.zarr_part import SHARD

PCODEC = {level: {"id": "pcodec", "level": level} for level in (4, 8)}
BLOSC: dict[str, dict[str, Any]] = {
    "blosc zstd 3, shuffle": {"cname": "zstd", "clevel": 3, "shuffle": "shuffle"},
    "blosc zstd 3, bitshuffle": {"cname": "zstd", "clevel": 3, "shuffle": "bitshuffle"},
    "blosc lz4 5, bitshuffle": {"cname": "lz4", "clevel": 5, "shuffle": "bitshuffle"},
}
CODECS = [*(f"pcodec {level}" for level in sorted(PCODEC, reverse=True)), *BLOSC]
CHUNKS = (16_384, 65_536, 262_144)  # samples
LEADS = ("one lead", "all leads")  # that a chunk holds
COUNTS = {"icentia11k": 8, "mitdb": 8, "cinc2017": 400, "challenge2021": 30}  # spread over a set
TITLES = ("Icentia11k", "MIT-BIH", "CinC 2017", "12 leads")
WINDOW = 10  # s
READS = 60  # windows, and records at most, that are read
ROUNDS = 7


class Strip(NamedTuple):
    """The signal of a record, (leads, samples) int16, and its sampling rate in Hz."""

    signal: NDArray[np.int16]
    fs: float


def main(data: Path) -> None:
    numcodecs.blosc.set_nthreads(1)
    zarr.config.set({"threading.max_workers": 1, "async.concurrency": 1})
    warnings.filterwarnings("ignore", message=".*not in the Zarr version 3 specification")
    sets = [list(_strips(data / name, count)) for name, count in COUNTS.items()]
    print("\n| set | records | leads | Hz | samples of a record | MB |\n|---|---|---|---|---|---|")
    for title, strips in zip(TITLES, sets, strict=True):
        lengths = statistics.median(s.signal.shape[1] for s in strips)
        size = sum(s.signal.nbytes for s in strips) / 1e6
        print(
            f"| {title} | {len(strips)} | {len(strips[0].signal)} | {strips[0].fs:g} "
            f"| {lengths:,.0f} | {size:.1f} |"
        )
    print("\n" + _row("codec", *TITLES) + _rule(len(TITLES) + 1))
    for codec in CODECS:
        print(_row(codec, *(_samples(strips, codec) for strips in sets)), end="", flush=True)
    print("\n" + _row("chunk", "codec", *TITLES) + _rule(len(TITLES) + 2))
    for leads, chunk, codec in product(LEADS, CHUNKS, CODECS):
        shape = f"{leads}, {chunk:,}"
        cells = (_layout(strips, codec, chunk, leads == "all leads") for strips in sets)
        print(_row(shape, codec, *cells), end="", flush=True)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _rule(columns: int) -> str:
    return f"|{'---|' * columns}"


def _strips(folder: Path, count: int) -> Iterator[Strip]:
    if folder.name == "challenge2021":  # records of two other sets of 12 leads
        for header in sorted(folder.glob("*.hea"))[:count]:
            record = wfdb.rdrecord(str(header.with_suffix("")), physical=False, return_res=16)
            yield Strip(np.ascontiguousarray(record.d_signal.T, np.int16), record.fs)
        return
    root = Folder.open(folder)
    found = find_entries(folder.name, root)
    for i in np.linspace(0, len(found) - 1, min(count, len(found))).astype(int):
        one = read_entry(folder.name, found[i], root.fetch(found[i].files))
        yield Strip(one.signal, one.fs)


def _samples(strips: list[Strip], codec: str) -> str:
    """Whole records as the samples of a shard: ratio · encode MB/s · decode MB/s."""
    if codec in BLOSC:
        shuffle = {"shuffle": 1, "bitshuffle": 2}[BLOSC[codec]["shuffle"]]
        coder = get_codec({"id": "blosc", **BLOSC[codec], "shuffle": shuffle})
    else:
        coder = get_codec(PCODEC[int(codec.split()[1])])
    encoded = [bytes(coder.encode(strip.signal)) for strip in strips]
    encoding = sum(_quickest([partial(coder.encode, strip.signal) for strip in strips]))
    decoding = sum(_quickest([partial(coder.decode, data) for data in encoded]))
    stored = sum(map(len, encoded))
    raw = sum(strip.signal.nbytes for strip in strips)
    return f"{raw / stored:.2f} · {raw / encoding / 1e6:.0f} · {raw / decoding / 1e6:.0f}"


def _layout(strips: list[Strip], codec: str, chunk: int, together: bool) -> str:
    """A part of the archive: ratio · a window's ms · a record's ms · chunks."""
    if codec in BLOSC:
        how: dict[str, Any] = {"compressors": zarr.codecs.BloscCodec(**BLOSC[codec])}
    else:
        serializer = zarr.codecs.numcodecs.PCodec(level=int(codec.split()[1]))
        how = {"serializer": serializer, "compressors": None}
    signal = np.concatenate([strip.signal for strip in strips], axis=1)
    offset = np.cumsum([0, *(strip.signal.shape[1] for strip in strips)])
    leads = len(signal)
    with tempfile.TemporaryDirectory() as folder:
        shape = (leads if together else 1, chunk)
        array: Any = zarr.create_array(
            folder,
            shape=signal.shape,
            dtype=signal.dtype,
            chunks=shape,
            shards=(leads, SHARD),
            **how,
        )
        array[...] = signal
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        array = zarr.open_array(folder, mode="r")
        np.testing.assert_array_equal(array[...], signal)
        rng = np.random.default_rng(0)
        windows, records = [], []
        for i in rng.integers(len(strips), size=READS):
            length = min(int(WINDOW * strips[i].fs), strips[i].signal.shape[1])
            start = offset[i] + rng.integers(strips[i].signal.shape[1] - length + 1)
            windows.append(partial(array.__getitem__, np.s_[:, start : start + length]))
        for i in rng.permutation(len(strips))[:READS]:
            records.append(partial(array.__getitem__, np.s_[:, offset[i] : offset[i + 1]]))
        window, record = (statistics.median(_quickest(reads)) * 1e3 for reads in (windows, records))
    chunks = leads // shape[0] * -(-signal.shape[1] // chunk)
    return f"{signal.nbytes / stored:.2f} · {window:.2f} · {record:.1f} · {chunks}"


def _quickest(calls: list[Callable[[], Any]]) -> list[float]:
    """Seconds of each call, the least of several rounds over all of them."""
    took = np.empty((ROUNDS, len(calls)))
    for i, j in np.ndindex(took.shape):
        start = time.perf_counter()
        calls[j]()
        took[i, j] = time.perf_counter() - start
    return [float(least) for least in took.min(axis=0)]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
