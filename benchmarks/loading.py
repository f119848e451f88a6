"""How many labelled frames a second one core loads, beside other ways to the same frames.

    python benchmarks/loading.py ARCHIVE [--rounds 5]

ARCHIVE holds Icentia11k (its first patient is used). Frames of 2,048 samples with their beat label,
at the paper's density of 4,096 frames per 50 segments. Files lie in the page cache, one thread.
Rounds of all ways alternate, so that other work on the machine meets them alike; the table has the
median and the best round. The released code's way is re-stated plainly: a patient's whole file,
gzipped or not, is loaded, its frames are drawn and labelled one at a time and go through a shuffle
buffer of 16 visits, 1,000 frames a visit (its default) or as many as here.
"""

from __future__ import annotations

import argparse
import gzip
import pickle
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from ecgpipe.config import PretrainSettings
from ecgpipe.labels.beats import ABNORMAL, NORMAL, UNDEFINED, beat_classes
from ecgpipe.loading.corpus import Corpus, open_corpus
from ecgpipe.loading.epoch import Epoch
from ecgpipe.storage.samples import CODECS, decode, samples
from ecgpipe.storage.shards import shard
from ecgpipe.storage.store import Store
from ecgpipe.storage.zarr_part import GROUP, PartReader
from ecgpipe.tasks import frames_of

FRAME, DENSITY, BATCH = 2048, 4096 / 50, 128  # samples; frames a segment; frames


def ours(corpus: Corpus, segments: int, number: int) -> int:
    """Frames of one visit through the loader, a few epochs' worth apart."""
    visit = round(DENSITY * segments)
    epoch = Epoch(
        corpus.shards[:1], frames_of(PretrainSettings()), number=number,
        steps=3 * visit // BATCH, batch=BATCH, frames_per_visit=visit, streams=1, open_shards=1,
        shuffle=4096,
    )  # fmt: skip
    return sum(len(batch.y) for batch in epoch)


def bare(corpus: Corpus) -> int:
    """Decode the same segments, and draw nothing."""
    found = sum(1 for _, sample in samples(corpus.shards[0].path) if decode(sample).samples)
    return round(found * DENSITY)


def released(path: Path, visit: int, open_file: Callable[..., object]) -> int:
    """The released code's way, one frame at a time."""

    def frames() -> Iterator[tuple[np.ndarray, int]]:
        for _ in range(2):
            with open_file(path, "rb") as file:  # type: ignore[attr-defined]
                signal, beats = pickle.load(file)
            for _ in range(visit):
                segment = random.randrange(len(signal))
                start = random.randrange(signal.shape[1] - FRAME)
                index, kind = beats[segment]
                inside = kind[(index >= start) & (index < start + FRAME)]
                counts = np.bincount(inside, minlength=5)
                label = int(counts[UNDEFINED] >= counts[NORMAL]) * UNDEFINED
                if counts[ABNORMAL].any():
                    label = ABNORMAL[int(counts[ABNORMAL].argmax())]
                yield signal[segment, start : start + FRAME], label

    buffer: list[tuple[np.ndarray, int]] = []
    given = 0
    for frame in frames():
        buffer.append(frame)
        if len(buffer) > min(16 * visit, 2048):
            at = random.randrange(len(buffer))
            buffer[at], buffer[-1] = buffer[-1], buffer[at]
            buffer.pop()
        given += 1
    return given


def random_access(reader: PartReader, count: int = 300) -> int:
    """Windows at random places of the archive."""
    signal = reader.group["signal"]
    for start in np.random.default_rng(0).integers(0, signal.shape[1] - FRAME, count):
        signal[0, int(start) : int(start) + FRAME]
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    store = Store(args.archive)
    part = store.parts[0]
    reader = PartReader(args.archive / GROUP / part)
    segments = len(reader.described)
    ways: dict[str, Callable[[int], int]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for codec in CODECS:
            shard(args.archive, folder / codec, 250, codec, 1)
            corpus = open_corpus([Store(folder / codec)], 250, FRAME, True)
            ways[f"shards, {codec}"] = partial(ours, corpus, segments)
            ways[f"shards, {codec}: decoding alone"] = lambda _, corpus=corpus: bare(corpus)
        records = [reader.read(i) for i in range(segments)]
        table = beat_classes(store.recipe.beats)
        signal = np.stack([record.millivolts()[0] for record in records])
        beats = [(r.beats.index, table[r.beats.label]) for r in records if r.beats]
        plain, zipped = folder / "patient.pkl", folder / "patient.pkl.gz"
        plain.write_bytes(pickle.dumps((signal, beats)))
        zipped.write_bytes(gzip.compress(plain.read_bytes(), 6))
        for visit in (1000, round(DENSITY * segments)):
            for title, path, opened in (("gzipped", zipped, gzip.open), ("plain", plain, open)):
                way = partial(released, path, visit, opened)
                ways[f"released code's way, {title}, {visit} a visit"] = lambda _, way=way: way()
        ways["windows at random from the archive"] = lambda _: random_access(reader)
        rates: dict[str, list[float]] = {title: [] for title in ways}
        for number in range(args.rounds):
            for title, way in ways.items():
                start = time.perf_counter()
                count = way(number)
                rates[title].append(count / (time.perf_counter() - start))
    print("| way | frames/s, median | best |\n|---|---|---|")
    for title, found in rates.items():
        print(f"| {title} | {statistics.median(found):,.0f} | {max(found):,.0f} |")


if __name__ == "__main__":
    main()
