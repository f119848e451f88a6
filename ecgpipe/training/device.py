"""The device that a network computes on: its precision, moving batches, CUDA graphs.

An update launches hundreds of kernels, which takes the host as long as a GPU computes on a small
batch. A CUDA graph holds all of them with their addresses, so a replay works on tensors that keep
their memory: weights, optimiser state, and one static batch, into which every batch is copied.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import Training
from ..errors import EcgpipeError
from ..progress import say
from ..types import Batch

WARM_UP = 3  # updates before one is recorded, in which libraries choose their kernels


@dataclass(frozen=True)
class Device:
    """A device and the precision of its autocast."""

    device: torch.device
    bf16: bool

    def autocast(self) -> torch.autocast:
        """The context that forward passes run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @property
    def is_gpu(self) -> bool:
        """True for CUDA devices, which compute asynchronously."""
        return self.device.type == "cuda"

    def move(self, batch: Batch) -> Batch:
        """Move the arrays of a batch to the device, as tensors."""

        def moved(column: Any) -> Any:
            if isinstance(column, np.ndarray) and column.dtype != object:
                column = torch.from_numpy(np.ascontiguousarray(column))
            if not isinstance(column, torch.Tensor) or column.device == self.device:
                return column
            if self.is_gpu and not column.is_pinned():
                column = column.pin_memory()  # else the CPU would wait for the copy
            return column.to(self.device, non_blocking=True)

        return Batch(*map(moved, batch))

    def prefetch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Move batches to the device; a GPU gets the next one while it computes on this one."""
        if not self.is_gpu:
            yield from map(self.move, batches)
            return
        copying = torch.cuda.Stream(self.device)
        previous: tuple[Batch, torch.cuda.Event] | None = None
        for arrays in batches:
            if isinstance(arrays.x, torch.Tensor) and arrays.x.device == self.device:
                yield arrays
                continue
            with torch.cuda.stream(copying):
                batch = self.move(arrays)
                copied = copying.record_event()
            if previous:
                yield self._wait_for(*previous)
            previous = batch, copied
        if previous:
            yield self._wait_for(*previous)

    def _wait_for(self, batch: Batch, copied: torch.cuda.Event) -> Batch:
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(copied)
        for column in batch:
            if isinstance(column, torch.Tensor):
                column.record_stream(computing)  # keeps its memory until then
        return batch

    def has_room(self, size: int) -> bool:
        """True if so many bytes are at most a quarter of the free GPU memory; always on a CPU."""
        return not self.is_gpu or size <= torch.cuda.mem_get_info(self.device)[0] // 4

    def describe(self) -> dict[str, str]:
        """Facts for ``run.json``."""
        name = (
            torch.cuda.get_device_name(self.device)
            if self.device.type == "cuda"
            else f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
        )
        return {
            "device": self.device.type,
            "machine": name,
            "precision": "bf16" if self.bf16 else "fp32",
            "python": platform.python_version(),
        }


def choose(settings: Training) -> Device:
    """The device and precision that the settings ask for.

    Raises
    ------
    EcgpipeError
        A GPU is asked for that is not there.
    """
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":  # torchrun says which GPU of its machine is whose
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.backends.cudnn.benchmark = True  # batches have one shape: choose kernels by time
            torch.backends.cudnn.allow_tf32 = False  # precision fp32 means what it says
    except (RuntimeError, AssertionError) as error:
        raise EcgpipeError(
            f"setting device: {name} cannot be used ({str(error).splitlines()[0]})"
        ) from None
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and _has_bf16(device))
    return Device(device, bf16)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Processors without bf16 instructions emulate them, several times slower than fp32.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and "avx512_bf16" in _cpu_flags()


def _cpu_flags() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.is_file() else ""


def _processor() -> str:
    for line in _cpu_flags().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


class Replay:
    """An update of one static batch, recorded as a CUDA graph; on a CPU it is just called.

    Parameters
    ----------
    update
        Updates the weights by a batch; gives the outcome as a tensor on the device. It must not
        wait for the device, nor depend on the values of the batch.
    device
        Of the batches.
    """

    def __init__(self, update: Callable[[Batch], Tensor], device: Device) -> None:
        self.update, self.device = update, device
        self.done = 0
        self.static: Batch | None = None
        self.result: Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.failed = False
        # One stream for all warm-up updates: a stream keeps the memory that was used on it.
        self.warm_up_stream = torch.cuda.Stream(device.device) if device.is_gpu else None

    def fits(self, batch: Batch) -> bool:
        """True if a batch has the shapes of the recorded one, or none is recorded yet."""
        if self.failed:
            return False
        return self.static is None or all(
            old is None or old.shape == new.shape
            for old, new in zip(_tensors(self.static), _tensors(batch), strict=True)
        )

    def __call__(self, batch: Batch) -> Tensor:
        """Update by a batch on the device; gives the outcome."""
        self.done += 1
        if self.done <= WARM_UP:
            with self._on_warm_up_stream():
                return self.update(batch)
        if self.static is None:
            try:
                self._record(batch)
            except RuntimeError as error:  # nothing has been computed while it was recorded
                why = str(error).partition("\n")[0]
                say(f"setting cuda_graph: updates are launched; recording one failed ({why})")
                self.failed = True
                return self.update(batch)
        assert self.static is not None
        for old, new in zip(_tensors(self.static), _tensors(batch), strict=True):
            if old is not None:
                old.copy_(new)
        if self.graph is None:
            return self.update(self.static)
        assert self.result is not None
        self.graph.replay()
        return self.result.clone()

    def _record(self, batch: Batch) -> None:
        self.static = Batch(*(c if c is None else c.clone() for c in _tensors(batch)))
        if self.device.is_gpu:
            graph = torch.cuda.CUDAGraph()
            # Other threads, such as the one that pins batches, go on calling CUDA meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.result = self.update(self.static)
            self.graph = graph

    @contextmanager
    def _on_warm_up_stream(self) -> Iterator[None]:
        """Use a stream other than the default one, as CUDA graphs require for warm-up updates."""
        if self.warm_up_stream is None:
            yield
            return
        computing = torch.cuda.current_stream()
        self.warm_up_stream.wait_stream(computing)
        with torch.cuda.stream(self.warm_up_stream):
            yield
        computing.wait_stream(self.warm_up_stream)


def _tensors(batch: Batch) -> Batch:
    return batch._replace(keys=None)
