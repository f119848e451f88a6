"""How fast a device trains, from its own memory, and what bounds it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection, get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ecgpipe.config import PretrainSettings
from ecgpipe.models.future import FuturePrediction
from ecgpipe.models.resnet import ResNet
from ecgpipe.training.device import WARM_UP, choose

from .bench import (
    GB,
    NETWORKS,
    TERA,
    Bench,
    Measured,
    build,
    random_batch,
    train_step_of,
    training,
    wait,
)


@dataclass(frozen=True)
class Speed:
    """A network, its input, and how its updates are computed."""

    network: str = "ResNet-18"
    frame: int = 2048
    batch: int = 1024
    way: str = "replayed"  # launched, replayed, or compiled and replayed
    stages: int = 4  # of the network

    @property
    def name(self) -> str:
        part = "" if self.stages == 4 else f" (stages: {self.stages})"
        return f"{self.network}{part}, {self.frame} samples, batch {self.batch}, {self.way}"


RECORDING = Speed(frame=15_000, batch=64)  # 60 s at 250 Hz
WAYS = ("replayed", "launched", "compiled")
SPEEDS = (
    *(Speed(way=way) for way in WAYS),
    *(replace(RECORDING, way=way) for way in WAYS),
)
SWEEP = (
    *(Speed(batch=batch) for batch in (128, 512, 4096)),
    *(Speed(name) for name in ("ResNet-34", "ResNet-50")),
    Speed("future prediction", 512, 4096),
    replace(RECORDING, network="ResNet-34"),
    *(Speed(batch=batch, way="launched") for batch in (128, 4096)),
    *(Speed(batch=batch, way="compiled") for batch in (4096, 128)),
)
SMALL_SPEEDS = (
    *(Speed(frame=256, batch=4, way=way) for way in ("replayed", "launched")),
    Speed(frame=256, batch=4, way="compiled", stages=1),  # a minute less
)
SMALL_SWEEP = (
    *(Speed(name, 256, 4) for name in ("ResNet-34", "ResNet-50")),
    Speed("future prediction", 512, 34),
)


def speed(bench: Bench) -> dict[str, Callable[[], Measured]]:
    """The paper's main frames, and recordings of CinC 2017, which decide how rows are trained."""
    made = SMALL_SPEEDS if bench.small else SPEEDS
    recording = made[0] if bench.small else RECORDING
    together = {
        f"{count} processes: {recording.name}": partial(_together, bench, recording, count)
        for count in (2, 3)
    }
    return {what.name: partial(_speed, bench, what) for what in made} | together


def sweep(bench: Bench) -> dict[str, Callable[[], Measured]]:
    """Other batches and networks."""
    made = SMALL_SWEEP if bench.small else SWEEP
    return {what.name: partial(_speed, bench, what) for what in made}


def _together(bench: Bench, what: Speed, count: int) -> Measured:
    """The same in several processes at a time, as repeats side by side do."""
    context = get_context("spawn")
    barrier, rates = context.Barrier(count), context.SimpleQueue()
    beside = [
        context.Process(target=_beside, args=(bench, what, barrier, rates)) for _ in range(count)
    ]
    for process in beside:
        process.start()
    running = list(beside)
    while running:
        connection.wait([process.sentinel for process in running])
        if any(process.exitcode for process in running):
            barrier.abort()  # else the others wait for the one that failed
        running = [process for process in running if process.exitcode is None]
    if any(process.exitcode for process in beside):
        return {"error": f"exit codes {[process.exitcode for process in beside]}"}
    found = [rates.get() for _ in beside]
    return {"frames_s": sum(found), "processes": count, "least_frames_s": min(found)}


def _beside(bench: Bench, what: Speed, barrier: Any, rates: Any) -> None:
    rates.put(_speed(bench, what, lambda: barrier.wait())["frames_s"])


def _speed(bench: Bench, what: Speed, ready: Callable[[], Any] = lambda: None) -> Measured:
    settings = training(
        bench,
        what.network,
        batch=what.batch,
        frame=what.frame,
        network={"depth": NETWORKS[what.network], "stages": what.stages},
        compile="default" if what.way == "compiled" else "no",
        cuda_graph=what.way != "launched",
    )
    one, batch, start = train_step_of(settings), random_batch(settings), time.perf_counter()
    frames = batch.x.shape[0] * batch.x.shape[1]
    if one.device.is_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(WARM_UP + 2):
        one._update([batch])
    wait(one.device)
    warm = time.perf_counter() - start
    ready()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < (0.2 if bench.small else 2):
        for _ in range(bench.size(10, 1)):
            outcome = one._update([batch])[0]
        wait(one.device)
        count += bench.size(10, 1)
    rate = count * frames / (time.perf_counter() - start)
    found: Measured = {"frames_s": rate, "warm_up_s": warm, "loss": float(outcome[0])}
    found |= {"network": what.network, "samples": settings.frame, "way": what.way}
    if one.device.is_gpu:
        found["memory_GB"] = torch.cuda.max_memory_allocated() / GB
    return found | bounds(bench, settings, rate)


def bounds(bench: Bench, settings: PretrainSettings, rate: float) -> Measured:
    """What the arithmetic and the memory of the device would allow, frames a second."""
    flops, traffic = work(settings)
    found: Measured = {"GFLOP_a_frame": flops / 1e9, "MB_a_frame": traffic / 1e6}
    products, copies = (bench.known.get(f"machine/{name}") for name in ("products", "copies"))
    if products and copies:
        precision = "bf16" if choose(settings).bf16 else "fp32"
        arithmetic = products[f"{precision}_TFLOP_s"] * TERA / flops
        memory = copies["on_device_GB_s"] * GB / traffic
        found |= {
            "bound_by": "arithmetic" if arithmetic < memory else "memory",
            "bound_frames_s": min(arithmetic, memory),
            "share_of_arithmetic": rate / arithmetic,
            "share_of_memory": rate / memory,
        }
    return found


def work(settings: PretrainSettings) -> tuple[float, float]:
    """Operations, and bytes of activations in bf16, of a frame and its share of an update.

    Bytes: each convolution reads and writes its input and output once forwards; backwards it reads
    the output's gradient twice and the input once, and writes the input's gradient. Batch norm
    reads its input once more in either direction. Everything else is taken as fused into these.
    """
    network = build(settings)
    encoder = network.encoder if isinstance(network, FuturePrediction) else network
    assert isinstance(encoder, ResNet)
    values = [0]

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        read, written = inputs[0].numel(), output.numel()
        if isinstance(module, nn.Conv2d):
            values[0] += 3 * (read + written)
        else:
            values[0] += 2 * read

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(count)
    with FlopCounterMode(display=False) as counter:
        encoder(torch.zeros(2, 1, settings.frame)).sum().backward()
    return counter.get_total_flops() / 2, 2 * values[0] / 2
