"""How fast a network trains here: frames a second, waiting, memory, and use of the arithmetic.

    python benchmarks/training.py [--shards SHARDS…] [--seconds 10] [--depth 18 34 50]
        [--precision fp32 bf16] [--compile no …] [--batch 32] [--frame 2048] [--device auto]

Without shards the batch lies in memory, so that the device alone is measured; with them the frames
come through the loader. Utilisation is the network's operations (forward and backward, counted by
PyTorch) over those of large matrix products in the same precision on the same device and threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ecgpipe.config import PretrainSettings, load
from ecgpipe.loading.corpus import open_corpus
from ecgpipe.loading.epoch import Epoch, Feed
from ecgpipe.storage.store import Store
from ecgpipe.tasks import frames_of
from ecgpipe.training.device import Device, choose
from ecgpipe.training.history import Meter
from ecgpipe.training.pretrain import build_network
from ecgpipe.training.processes import ALONE, Stop
from ecgpipe.training.train_step import EpochSums, TrainStep, forward
from ecgpipe.types import Batch


def one_batch(settings: PretrainSettings) -> Batch:
    n, rng = settings.batch, np.random.default_rng(0)
    ones = np.ones((n, 1), np.float32)
    x = rng.integers(-500, 500, (n, 1, settings.frame)).astype(np.int16)
    keys, length = np.array(["k"] * n, object), np.full(n, settings.frame)
    return Batch(x, ones * 1e-3, ones * 0, length, rng.integers(0, 5, n), keys)


def endless(settings: PretrainSettings, stores: list[Store]) -> Iterator[Batch]:
    if not stores:
        batch = one_batch(settings)
        while True:
            yield batch
    frames = frames_of(settings, 0.0, 0.3)
    corpus = open_corpus(stores, settings.fs, frames.span, True)
    for number in range(1_000_000):
        epoch = Epoch(
            corpus.shards, frames, number=number, steps=4000, batch=settings.batch,
            frames_per_visit=settings.frames_per_visit, streams=max(4, settings.workers),
            open_shards=settings.open_shards, shuffle=settings.shuffle,
        )  # fmt: skip
        yield from Feed(epoch, workers=settings.workers, pin=settings.device != "cpu")


def operations(settings: PretrainSettings, device: Device) -> float:
    """Of one frame, forward and backward."""
    network = build_network(settings).to(device.device)
    batch = device.move(one_batch(settings))
    with FlopCounterMode(display=False) as counter:
        forward(network, batch, device).sum().backward()
    return counter.get_total_flops() / settings.batch


def peak(device: Device) -> float:
    """Operations a second of large matrix products, the best of some."""
    size = 8192 if device.is_gpu else 2048
    kind = torch.bfloat16 if device.bf16 else torch.float32
    a = torch.randn(size, size, device=device.device, dtype=kind)
    best = 0.0
    for _ in range(8):
        start = time.perf_counter()
        a @ a
        if device.is_gpu:
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def measure(settings: PretrainSettings, stores: list[Store], seconds: float) -> str:
    device = choose(settings)
    network = build_network(settings).to(device.device)
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    one = TrainStep(network, optimiser, settings, device, ALONE)
    batches, stop = endless(settings, stores), Stop()
    for warm, _ in enumerate(one.updates(batches, EpochSums(), Meter(device.device), stop)):
        if warm == 2:
            break
    meter = Meter(device.device)
    for _ in one.updates(batches, EpochSums(), meter, stop):
        if meter.seconds > seconds:
            break
    row = meter.row()
    rate = row["items_per_second"]
    cells = [
        f"ResNet-{settings.network.depth}",
        "bf16" if device.bf16 else "fp32",
        settings.compile,
        f"{rate:,.0f}",
        f"{100 * row['waited']:.1f} %",
        f"{row['gpu_GB']:.1f} GB" if "gpu_GB" in row else "–",
        f"{100 * rate * operations(settings, device) / peak(device):.0f} %",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", nargs="*", type=Path, default=[])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--depth", nargs="+", type=int, default=[18, 34, 50])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--compile", nargs="+", default=["no"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--frame", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    stores = [Store(path) for path in args.shards]
    print(", ".join(f"{k}: {v}" for k, v in choose(PretrainSettings()).describe().items()))
    print("| network | precision | compile | frames/s | waits | memory | of matrix products |")
    print("|---|---|---|---|---|---|---|")
    for depth, precision, mode in product(args.depth, args.precision, args.compile):
        settings = load(
            PretrainSettings, network={"depth": depth}, precision=precision, compile=mode,
            batch=args.batch, frame=args.frame, workers=args.workers, device=args.device,
        )  # fmt: skip
        print(measure(settings, stores, args.seconds), flush=True)


if __name__ == "__main__":
    main()
