"""Ratio and speed of codecs on real recordings: ``python benchmarks/codecs.py DATA``.

DATA holds ``icentia11k/`` and ``mitdb/``. One thread; encoding is timed once, decoding is the best
of three. Prints a Markdown table.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numcodecs
from numcodecs import Blosc
from numcodecs.pcodec import PCodec

from ecgpipe.sources import SOURCES, find_entries, read_entry

CODECS = {
    "pcodec 8": PCodec(level=8),
    "pcodec 4": PCodec(level=4),
    "blosc zstd 3, shuffle": Blosc("zstd", 3, Blosc.SHUFFLE),
    "blosc zstd 3, bitshuffle": Blosc("zstd", 3, Blosc.BITSHUFFLE),
    "blosc lz4, bitshuffle": Blosc("lz4", 5, Blosc.BITSHUFFLE),
}
RECORDS = {"icentia11k": 8, "mitdb": 4}  # of each set, spread over it


def main(data: Path) -> None:
    numcodecs.blosc.set_nthreads(1)
    print("| codec | set | ratio | encode MB/s | decode MB/s |\n|---|---|---|---|---|")
    for name, count in RECORDS.items():
        found = find_entries(name, data / name)
        chosen = found[:: max(1, len(found) // count)][:count]
        signals = [read_entry(name, data / name, entry).signal[0].copy() for entry in chosen]
        raw = sum(signal.nbytes for signal in signals)
        for title, codec in CODECS.items():
            start = time.perf_counter()
            encoded = [codec.encode(signal) for signal in signals]
            encoding = time.perf_counter() - start
            decoding = min(_decode(codec, encoded) for _ in range(3))
            ratio = raw / sum(len(bytes(data)) for data in encoded)
            print(
                f"| {title} | {SOURCES[name].title} | {ratio:.2f} | {raw / encoding / 1e6:.0f} "
                f"| {raw / decoding / 1e6:.0f} |"
            )


def _decode(codec: object, encoded: list[bytes]) -> float:
    start = time.perf_counter()
    for data in encoded:
        codec.decode(data)  # type: ignore[attr-defined]
    return time.perf_counter() - start


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
