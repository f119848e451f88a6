"""What the machine gives, and what pretraining gets through the loader."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ecgpipe.config import PretrainSettings, load
from ecgpipe.loading.corpus import open_corpus
from ecgpipe.loading.epoch import Epoch, Feed
from ecgpipe.storage.store import Store
from ecgpipe.tasks import frames_of
from ecgpipe.training.device import WARM_UP, Device, Replay
from ecgpipe.training.history import Meter
from ecgpipe.training.processes import Stop
from ecgpipe.training.train_step import EpochSums

from .bench import (
    GB,
    TERA,
    Bench,
    Measured,
    at_250,
    random_batch,
    seconds,
    train_step_of,
    training,
    wait,
)


def machine(bench: Bench) -> dict[str, Callable[[], Measured]]:
    return {
        "versions": partial(_versions, bench),
        "copies": partial(_copies, bench),
        "products": partial(_products, bench),
        "an update's cost for the host": partial(_host, bench),
    }


def _versions(bench: Bench) -> Measured:
    device = bench.ask()
    found = {name: version(name) for name in ("torch", "numpy")}
    found |= {"python": platform.python_version(), "cores": os.cpu_count()}
    if device.is_gpu:
        free, total = torch.cuda.mem_get_info()
        found |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        found |= {"memory_GB": total / GB, "free_GB": free / GB}
    return found


def _copies(bench: Bench) -> Measured:
    device, size = bench.ask(), bench.size(2 * 10**9, 10**7)
    a = torch.empty(size, dtype=torch.uint8, device=device.device).random_(0, 255)
    b, found = torch.empty_like(a), {}
    # Bytes read and bytes written.
    found["on_device_GB_s"] = 2 * size / seconds(device, lambda: b.copy_(a), 10) / GB
    if device.is_gpu:
        pinned = torch.empty(size // 8, dtype=torch.uint8).pin_memory()
        to = lambda: b[: len(pinned)].copy_(pinned, non_blocking=True)  # noqa: E731
        found["from_host_GB_s"] = len(pinned) / seconds(device, to, 10) / GB
    return found


def _products(bench: Bench) -> Measured:
    found, n = {}, bench.size(8192, 512)
    for precision, kind in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        device = bench.ask(precision=precision)
        a, b = (torch.randn(n, n, device=device.device, dtype=kind) for _ in range(2))
        found[f"{precision}_TFLOP_s"] = 2 * n**3 / seconds(device, lambda: a @ b, 10) / TERA  # noqa: B023
    return found


def _host(bench: Bench) -> Measured:
    """What the host asks for in an update, launched and replayed, and how long that takes it."""
    settings = training(bench, batch=4, frame=64)
    one, batch = train_step_of(settings), random_batch(settings)
    one._compute([batch])  # the optimiser makes its state
    found: Measured = {"launched_operations": operations(lambda: one._compute([batch]))}
    counted = Replay(lambda b: torch.zeros(2, device=b.x.device), one.device)
    counted.static, counted.result = batch, torch.zeros(2, device=one.device.device)
    counted.done, counted.graph = WARM_UP, cast(torch.cuda.CUDAGraph, Mock())
    found["replayed_operations"] = 1 + operations(lambda: counted(batch))
    found["launched_ms"] = asked(one.device, lambda: one._compute([batch]))
    if one.replay:
        for _ in range(WARM_UP + 1):
            one.replay(batch)
        found["replayed_ms"] = asked(one.device, lambda: one.replay(batch))  # type: ignore[misc]
    return found


class Operations(TorchDispatchMode):
    """Counts what PyTorch is asked to compute: on a GPU about as many launches."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(call: Callable[[], Any]) -> int:
    with Operations() as mode:
        call()
    return mode.count


def asked(device: Device, call: Callable[[], Any]) -> float:
    """Median time until the host has asked for a call, ms; on a CPU it is computed then, too."""
    times = []
    for _ in range(23):
        wait(device)
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    wait(device)
    return float(np.median(times[3:]))


def loader(bench: Bench) -> dict[str, Callable[[], Measured]]:
    workers = [os.cpu_count() or 1] if not bench.small else [0]
    return {f"{n} loader processes": partial(_loader, bench, n) for n in workers}


def _loader(bench: Bench, workers: int) -> Measured:
    stores = [at_250(bench), *map(Store, bench.upstream)]
    settings = load(
        PretrainSettings, task="heart_rate", device=bench.device, workers=workers,
        batch=bench.size(1024, 4), streams=max(4, workers), frames_per_visit=16,
        **({"frame": 512, "shuffle": 64} if bench.small else {}),
    )  # fmt: skip
    frames = frames_of(settings, 0.0, 0.25)
    corpus = open_corpus(stores, settings.fs, frames.span, False)
    one = train_step_of(settings)
    epoch = Epoch(
        corpus.shards, frames, number=1, steps=bench.size(4000, 12), batch=settings.batch,
        frames_per_visit=16, streams=settings.streams, open_shards=8, shuffle=settings.shuffle,
    )  # fmt: skip
    feed = Feed(epoch, workers=workers, pin=one.device.is_gpu)
    # The loader fills its buffers and the update is recorded before anything is measured.
    batches, start = iter(feed), time.monotonic()
    first_few = (next(batches) for _ in range(bench.size(32, 4)))
    for _ in one.updates(first_few, EpochSums(), Meter(one.device.device), Stop()):
        pass
    first = time.monotonic() - start
    steady = Meter(one.device.device)
    for _ in one.updates(batches, EpochSums(), steady, Stop()):
        if steady.seconds > (0.5 if bench.small else 12):
            break
    row = steady.row()
    return {
        "frames_s": row["items_per_second"],
        "waited": row["waited"],
        "first_updates_s": first,
        "workers": workers,
    }
