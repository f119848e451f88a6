"""What every measurement is made with: a device, networks, batches of noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ecgpipe.config import PretrainSettings, load
from ecgpipe.errors import EcgpipeError
from ecgpipe.storage.store import Store
from ecgpipe.training.device import Device, choose
from ecgpipe.training.loop import new_network
from ecgpipe.training.pretrain import build_network
from ecgpipe.training.processes import ALONE
from ecgpipe.training.train_step import TrainStep
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


NETWORKS = {"ResNet-18": 18, "ResNet-34": 34, "ResNet-50": 50, "future prediction": 18}


def training(bench: Bench, name: str = "ResNet-18", **changes: Any) -> PretrainSettings:
    """Settings of a pretraining; of future prediction the paper's, but as many frames a batch."""
    given: dict[str, Any] = {
        "device": bench.device,
        "network": {"depth": NETWORKS[name]},
        **changes,
    }
    if name == "future prediction":
        given |= {"task": "future", "batch": max(2, given["batch"] // 17)}
    return load(PretrainSettings, **given)


def build(settings: PretrainSettings) -> nn.Module:
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


def train_step_of(settings: PretrainSettings, network: nn.Module | None = None) -> TrainStep:
    device = choose(settings)
    network = (network or build(settings)).to(device.device)
    adam = settings.optimiser
    optimiser = torch.optim.Adam(
        network.parameters(), lr=adam.lr, eps=adam.eps, fused=True, capturable=device.is_gpu
    )
    return TrainStep(network, optimiser, settings, device, ALONE)


def at_250(bench: Bench) -> Store:
    """The shards at 250 Hz, which frames are drawn from."""
    for path in bench.shards:
        if (store := Store(path)).recipe.fs == 250:
            return store
    raise EcgpipeError("--shards: none at 250 Hz, which this needs")
