"""Right first: a GPU beside the CPU, and what can go wrong in a training."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ecgpipe.config import PretrainSettings
from ecgpipe.models.resnet import standardise
from ecgpipe.tasks.objectives import SINGLE_LABEL
from ecgpipe.training.device import WARM_UP, choose
from ecgpipe.training.history import Meter
from ecgpipe.training.loop import Plan, fit
from ecgpipe.training.processes import Stop
from ecgpipe.training.train_step import Diverged, EpochSums
from ecgpipe.types import Batch

from .bench import NETWORKS, Bench, Measured, at_250, build, random_batch, train_step_of, training

# Frames of 512 samples; with this eps an update follows the gradient, and not its signs alone.
EXACT = {"frame": 512, "optimiser": {"eps": 1e-3}}


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
    """One update beside float64 on the CPU, and beside what the CPU makes of it in this precision.

    ReLUs make gradients jump where rounding moves a value over 0: a few such places decide how far
    off the gradient of a deep network is. So what the CPU is off allows a multiple of it.
    """
    limit = 1e-4 if precision == "fp32" else 1e-2
    times = {"scores": 2, "loss": 2, "gradient": 10, "weights": 10}  # what the CPU is off
    settings = training(bench, name, batch=bench.size(34, 4), precision=precision, **EXACT)
    batch = random_batch(settings)
    on_cpu = Batch(*(c.cpu() if isinstance(c, Tensor) else c for c in batch))
    exact = build(settings).double()
    scores = forward(exact, on_cpu)
    loss = SINGLE_LABEL.losses(scores, on_cpu.y).mean()
    loss.backward()
    adam = settings.optimiser
    torch.optim.Adam(exact.parameters(), lr=adam.lr, eps=adam.eps).step()
    off = []
    for place, given in ((bench.device, batch), ("cpu", on_cpu)):
        one = train_step_of(settings.model_copy(update={"device": place}))
        fresh = build(settings).to(one.device.device)
        with torch.no_grad(), one.device.autocast():
            found = forward(fresh, given).float()
        value = float(one._compute([given])[0][0])
        off.append({
            "scores": apart([found], [scores]),
            "loss": abs(value - loss.item()) / loss.item(),
            "gradient": apart(*([p.grad for p in n.parameters()] for n in (one.network, exact))),
            "weights": apart(*(list(n.parameters()) for n in (one.network, exact))),
        })  # fmt: skip
    here, cpu = off
    right = all(here[what] <= max(limit, times[what] * cpu[what]) for what in here)
    return here | {f"{what}_on_CPU": value for what, value in cpu.items()} | {"right": right}


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
        one = train_step_of(settings)
        for seed in range(WARM_UP + 5):
            one._update([random_batch(settings, seed)])
        found.append([p.double().cpu() for p in one.network.parameters()])
    off = apart(found[1], found[0])
    return {"weights": off, "right": off <= 1e-4}


def _plan(settings: PretrainSettings, epochs: int) -> Plan:
    batches = [random_batch(settings, seed) for seed in range(6)]
    return Plan("resume", epochs, lambda *_: batches, lambda: batches[:1], "accuracy", None, None)


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
    return {"loss": off, "right": off <= 1e-3}


def _diverged(bench: Bench) -> Measured:
    settings = training(bench, batch=8, frame=256)
    batches = [random_batch(settings, seed) for seed in range(WARM_UP + 3)]
    broken = batches[-2]._replace(keys=np.array([f"broken{i}" for i in range(8)], object))
    broken.scale[3] = float("nan")
    one = train_step_of(settings)
    try:
        meter = Meter(one.device.device)
        list(one.updates([*batches[:-2], broken, batches[-1]], EpochSums(), meter, Stop()))
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
    return {"right": done.returncode == 0, "said": said.strip()[-400:].replace(f"{name}/", "")}
