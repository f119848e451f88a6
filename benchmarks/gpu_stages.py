"""What `gpu.py` measures: a name for every measurement, in the order of their worth."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ecgpipe.config import PretrainSettings, load
from ecgpipe.errors import EcgpipeError
from ecgpipe.loading.corpus import open_corpus
from ecgpipe.loading.epoch import Epoch, Feed
from ecgpipe.models.future import FuturePrediction
from ecgpipe.models.resnet import ResNet, standardise
from ecgpipe.storage.store import Store
from ecgpipe.tasks import frames_of
from ecgpipe.tasks.answers import ONE_OF
from ecgpipe.training.device import Device, choose
from ecgpipe.training.loop import Plan, fit, new_network
from ecgpipe.training.meter import Meter
from ecgpipe.training.passes import Diverged, Pass, Sums
from ecgpipe.training.ranks import ALONE
from ecgpipe.training.replay import WARM_UP
from ecgpipe.training.stop import Stop
from ecgpipe.types import Batch

Measured = dict[str, Any]
GB, TERA = 1e9, 1e12


@dataclass(frozen=True)
class Bench:
    """What the measurements are made with."""

    device: str  # a setting of ecgpipe
    small: bool  # sizes for a CPU, to try the script
    shards: list[Path]
    upstream: list[Path]
    known: Mapping[str, Measured]  # what was measured here before, by stage/name

    def ask(self, **changes: Any) -> Device:
        """The device, in fp32 or bf16."""
        return choose(load(PretrainSettings, device=self.device, **changes))

    def size(self, large: int, small: int) -> int:
        """A size for a GPU, or for trying."""
        return small if self.small else large


def seconds(device: Device, call: Callable[[], Any], times: int) -> float:
    """Median time of a call, s: computed, not only asked for."""
    found = []
    for _ in range(times + 1):  # the first warms up
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        found.append(time.perf_counter() - start)
    return float(np.median(found[1:]))


def wait(device: Device) -> None:
    if device.is_gpu:
        torch.cuda.synchronize()


# a. What the machine gives.


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
    """Time until the host has asked for an update, launched and replayed, and not computed it."""
    found: Measured = {}
    for way in ("launched", "replayed"):
        settings = training(bench, batch=4, frame=64, cuda_graph=way == "replayed")
        one, batch = a_pass(settings), random_batch(settings)
        update = one.replay or (lambda b, one=one: one._compute([b]))
        if way == "replayed" and one.replay is None:
            return found | {"replayed": "on a GPU alone"}
        for _ in range(WARM_UP + 2):
            update(batch)
        wait(one.device)
        times = []
        for _ in range(20):
            start = time.perf_counter()
            update(batch)
            times.append(time.perf_counter() - start)
            wait(one.device)
        found[f"{way}_ms"] = 1e3 * float(np.median(times))
    return found


# b. Right first.

NETWORKS = {"ResNet-18": 18, "ResNet-34": 34, "ResNet-50": 50, "future prediction": 18}


def training(bench: Bench, name: str = "ResNet-18", **changes: Any) -> PretrainSettings:
    """Settings of a pretraining; of future prediction the paper's, but as many frames a batch."""
    given: dict[str, Any] = {"device": bench.device, "network": {"depth": NETWORKS[name]}}
    if name == "future prediction":
        changes["batch"] = max(2, changes.get("batch", 17) // 17)
        given |= {"task": "future", "frame": 512}
    return load(PretrainSettings, **{**given, **changes})


def build(settings: PretrainSettings) -> nn.Module:
    from ecgpipe.training.pretrain import build_network

    return new_network(lambda: build_network(settings), 0)


def random_batch(settings: PretrainSettings, seed: int = 0) -> Batch:
    """A batch on the device, of noise: values of kernels do not matter for their speed."""
    rng, n = np.random.default_rng(seed), settings.batch
    future = settings.task == "future"
    shape = (n, settings.future.context + 1 if future else 1)
    batch = Batch(
        x=rng.normal(0, 200, (*shape, settings.frame)).astype(np.int16),
        scale=np.full(shape, 5e-3, np.float32),
        offset=np.zeros(shape, np.float32),
        length=np.full(n, settings.frame),
        y=rng.integers(0, 5, n),
        keys=np.array([f"noise{i}" for i in range(n)], object),
        candidates=rng.integers(0, n * shape[1], (n, 9)) if future else None,
    )
    return choose(settings).move(batch)


def a_pass(settings: PretrainSettings, network: nn.Module | None = None) -> Pass:
    device = choose(settings)
    network = (network or build(settings)).to(device.device)
    optimiser = torch.optim.Adam(
        network.parameters(), lr=settings.optimiser.lr, fused=True, capturable=device.is_gpu
    )
    return Pass(network, optimiser, settings, device, ALONE)


def right(bench: Bench) -> dict[str, Callable[[], Measured]]:
    found: dict[str, Callable[[], Measured]] = {}
    for precision in ("fp32", "bf16"):
        for name in NETWORKS:
            found[f"{name}, {precision}"] = partial(_against_float64, bench, name, precision)
    return found | {
        "replayed against launched": partial(_replayed, bench),
        "resumed": partial(_resumed, bench),
        "a loss that is no number": partial(_diverged, bench),
        "one process under torchrun": partial(_torchrun, bench),
    }


def _against_float64(bench: Bench, name: str, precision: str) -> Measured:
    """Scores, loss, gradient and updated weights of one update, beside float64 on the CPU."""
    settings = training(bench, name, batch=bench.size(34, 4), precision=precision, frame=512)
    one, batch = a_pass(settings), random_batch(settings)
    exact, y = build(settings).double(), batch.y.cpu()
    scores = forward(exact, Batch(*(c.cpu() if isinstance(c, Tensor) else c for c in batch)))
    loss = ONE_OF.losses(scores, y).mean()
    loss.backward()
    torch.optim.Adam(exact.parameters(), lr=settings.optimiser.lr).step()
    with torch.no_grad(), one.device.autocast():
        one.network.train()
        own = build(settings).to(one.device.device).train()  # statistics move with every forward
        scores_own = forward(own, batch).float()
    outcome = one._compute([batch])[0].tolist()
    gradients = [[p.grad for p in network.parameters()] for network in (one.network, exact)]
    weights = [list(network.parameters()) for network in (one.network, exact)]
    found = {
        "scores": apart([scores_own], [scores]),
        "loss": abs(outcome[0] - float(loss)) / float(loss),
        "gradient": apart(*gradients),
        "weights": apart(*weights),
    }
    limit = 1e-4 if precision == "fp32" else 1e-2
    return found | {"limit": limit, "right": max(found["loss"], found["weights"]) <= limit}


def forward(network: nn.Module, batch: Batch) -> Tensor:
    exact = next(network.parameters()).dtype
    x = standardise(batch.x, batch.scale, batch.offset, batch.length).to(exact)
    scores: Tensor = network(x) if batch.candidates is None else network(x, batch.candidates)
    return scores


def apart(found: list[Any], exact: list[Any]) -> float:
    """Norm of the difference beside the norm of what is exact, all tensors taken as one."""
    pairs = [(a.detach().cpu().double(), b.detach()) for a, b in zip(found, exact, strict=True)]
    norms = [torch.stack([t.norm() for t in part]).norm() for part in
             ([a - b for a, b in pairs], [b for _, b in pairs])]  # fmt: skip
    return float(norms[0] / norms[1])


def _replayed(bench: Bench) -> Measured:
    """Weights after some updates, of which all but the first are replayed."""
    found = []
    for way in (False, True):
        settings = training(bench, batch=8, frame=256, precision="fp32", cuda_graph=way)
        one = a_pass(settings)
        for seed in range(WARM_UP + 5):
            one._update([random_batch(settings, seed)])
        found.append([p.double().cpu() for p in one.network.parameters()])
    off = apart(found[1], found[0])
    return {"weights": off, "updates": WARM_UP + 5, "right": off <= 1e-4, "limit": 1e-4}


def _plan(settings: PretrainSettings, epochs: int) -> Plan:
    batches = [random_batch(settings, seed) for seed in range(6)]
    return Plan("resume", epochs, lambda *_: batches, lambda: batches[:1], "accuracy", None, {})


def _resumed(bench: Bench) -> Measured:
    """Loss of the last of four epochs, of a training in one go and of one in two."""
    settings = training(bench, batch=8, frame=256, precision="fp32")
    losses = []
    with tempfile.TemporaryDirectory() as name:
        for parts in ((4,), (2, 4)):
            run = Path(name) / str(len(parts))
            for epochs in parts:
                fit(build(settings), _plan(settings, epochs), settings, choose(settings), run)
            last = (run / "history.csv").read_text().splitlines()[-1]
            losses.append(float(last.split(",")[1]))
    off = abs(losses[0] - losses[1]) / losses[0]
    return {"loss": off, "limit": 1e-3, "right": off <= 1e-3}


def _diverged(bench: Bench) -> Measured:
    settings = training(bench, batch=8, frame=256)
    batches = [random_batch(settings, seed) for seed in range(WARM_UP + 3)]
    broken = batches[-2]._replace(keys=np.array([f"broken{i}" for i in range(8)], object))
    broken.scale[3] = float("nan")
    one = a_pass(settings)
    try:
        meter = Meter(one.device.device)
        list(one.updates([*batches[:-2], broken, batches[-1]], Sums(), meter, Stop()))
    except Diverged as error:
        return {"right": error.keys == list(broken.keys), "said": str(error)}
    return {"right": False, "said": "nothing"}


def _torchrun(bench: Bench) -> Measured:
    """A small pretraining, by NCCL on a GPU."""
    tiny = ("task=heart_rate", "frame=512", "epochs=1", "steps=4", "batch=8", "workers=0")
    few = ("frames_per_visit=2", "shuffle=32", "validation_frames=16", f"device={bench.device}")
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", "1", "-m", "ecgpipe", "pretrain", str(at_250(bench).path)]
        command += ["--out", f"{name}/run", *(f"--set={s}" for s in (*tiny, *few))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = done.stderr if done.returncode else done.stdout
    return {"right": done.returncode == 0, "said": said.strip()[-400:]}


def at_250(bench: Bench) -> Store:
    """The shards at 250 Hz, which frames are drawn from."""
    for path in bench.shards:
        if (store := Store(path)).recipe["fs"] == 250:
            return store
    raise EcgpipeError("--shards: none at 250 Hz, which this needs")


# c. How fast the device trains, from its own memory.


@dataclass(frozen=True)
class Speed:
    """A network, its input, and how its updates are computed."""

    network: str = "ResNet-18"
    frame: int = 2048
    batch: int = 1024
    way: str = "replayed"  # launched, replayed, or compiled and replayed

    @property
    def name(self) -> str:
        return f"{self.network}, {self.frame} samples, batch {self.batch}, {self.way}"


RECORDING = Speed(frame=15_000, batch=64)  # 60 s at 250 Hz
SPEEDS = (
    *(Speed(way=way) for way in ("replayed", "launched", "compiled")),
    *(replace(RECORDING, way=way) for way in ("replayed", "launched", "compiled")),
    *(Speed(batch=batch) for batch in (128, 512, 4096)),
    *(Speed(batch=batch, way=way) for batch in (128, 4096) for way in ("launched", "compiled")),
    *(Speed(name) for name in ("ResNet-34", "ResNet-50")),
    Speed("future prediction", 512, 4096),
    replace(RECORDING, network="ResNet-34"),
)


def speed(bench: Bench) -> dict[str, Callable[[], Measured]]:
    made = SPEEDS
    if bench.small:
        made = tuple(replace(s, batch=8 if s.frame < 512 else 2) for s in SPEEDS[:6])
        made = tuple(replace(s, frame=min(s.frame, 512)) for s in (*made, *SPEEDS[-4:]))
        made = tuple(replace(s, batch=34 if "future" in s.network else 4) for s in made)
    found: dict[str, Callable[[], Measured]] = {}
    for s in dict.fromkeys(made):
        found[s.name] = partial(_speed, bench, s)
    recording = next(s for s in made if s.frame == max(s.frame for s in made))
    for count in (2, 3):  # behind the first recordings, of whose rate they are a multiple at best
        found[f"{count} processes: {recording.name}"] = partial(_together, bench, recording, count)
    return found


def _together(bench: Bench, what: Speed, count: int) -> Measured:
    """The same in several processes at a time, as repeats side by side do."""
    context = get_context("spawn")
    barrier, rates = context.Barrier(count), context.SimpleQueue()
    beside = [
        context.Process(target=_beside, args=(bench, what, barrier, rates)) for _ in range(count)
    ]
    for process in beside:
        process.start()
    for process in beside:
        process.join()
    if any(process.exitcode for process in beside):
        return {"error": f"exit codes {[process.exitcode for process in beside]}"}
    found = [rates.get() for _ in beside]
    return {"frames_s": sum(found), "processes": count, "least_frames_s": min(found)}


def _beside(bench: Bench, what: Speed, barrier: Any, rates: Any) -> None:
    rates.put(_speed(bench, what, lambda: barrier.wait(120))["frames_s"])


def _speed(bench: Bench, what: Speed, ready: Callable[[], Any] = lambda: None) -> Measured:
    how = {"compile": "default" if what.way == "compiled" else "no"}
    settings = training(
        bench, what.network, batch=what.batch, cuda_graph=what.way != "launched", **how,
        **({} if what.network == "future prediction" else {"frame": what.frame}),
    )  # fmt: skip
    one, batch, start = a_pass(settings), random_batch(settings), time.perf_counter()
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


# d. Pretraining through the loader.


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
    one = a_pass(settings)
    epoch = Epoch(
        corpus.shards, frames, number=1, steps=bench.size(4000, 12), batch=settings.batch,
        frames_per_visit=16, streams=settings.streams, open_shards=8, shuffle=settings.shuffle,
    )  # fmt: skip
    feed = Feed(epoch, workers=workers, pin=one.device.is_gpu)
    # The loader fills its buffers and the update is recorded before anything is measured.
    batches, start = iter(feed), time.monotonic()
    first_few = (next(batches) for _ in range(bench.size(32, 4)))
    for _ in one.updates(first_few, Sums(), Meter(one.device.device), Stop()):
        pass
    first = time.monotonic() - start
    steady = Meter(one.device.device)
    for _ in one.updates(batches, Sums(), steady, Stop()):
        if steady.seconds > (0.5 if bench.small else 12):
            break
    row = steady.row()
    return {
        "frames_s": row["items_per_second"],
        "waited": row["waited"],
        "first_updates_s": first,
        "workers": workers,
    }


STAGES: dict[str, Callable[[Bench], dict[str, Callable[[], Measured]]]] = {
    "machine": machine,
    "right": right,
    "speed": speed,
    "loader": loader,
}


def measure(bench: Bench, stage: str, skip: set[str]) -> Iterator[tuple[str, Measured]]:
    """Measurements of a stage one after another; what fails says so, and the others go on."""
    for name, call in STAGES[stage](bench).items():
        if name in skip:
            continue
        try:
            found = call()
        except Exception as error:  # whatever it is, the next measurement may still work
            found = {"error": f"{type(error).__name__}: {error}"[:1000]}
        yield name, found
