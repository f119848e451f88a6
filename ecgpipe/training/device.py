"""Where the arithmetic happens, and in which precision."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import Training
from ..errors import EcgpipeError
from ..types import Batch


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
        """Whether what it is given is computed while the CPU goes on."""
        return self.device.type == "cuda"

    def move(self, batch: Batch) -> Batch:
        """The arrays of a batch as tensors on the device; what is there already stays."""

        def moved(column: Any) -> Any:
            if isinstance(column, np.ndarray) and column.dtype != object:
                column = torch.from_numpy(np.ascontiguousarray(column))
            if not isinstance(column, torch.Tensor) or column.device == self.device:
                return column
            if self.is_gpu and not column.is_pinned():
                column = column.pin_memory()  # else the CPU would wait for the copy
            return column.to(self.device, non_blocking=True)

        return Batch(*map(moved, batch))

    def ahead(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches on the device; a GPU gets the next one while it computes on this one."""
        if not self.is_gpu:
            yield from map(self.move, batches)
            return
        copying = torch.cuda.Stream(self.device)
        held: tuple[Batch, torch.cuda.Event] | None = None
        for arrays in batches:
            if isinstance(arrays.x, torch.Tensor) and arrays.x.device == self.device:
                yield arrays
                continue
            with torch.cuda.stream(copying):
                batch = self.move(arrays)
                copied = copying.record_event()
            if held:
                yield self._arrived(*held)
            held = batch, copied
        if held:
            yield self._arrived(*held)

    def _arrived(self, batch: Batch, copied: torch.cuda.Event) -> Batch:
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(copied)
        for column in batch:
            if isinstance(column, torch.Tensor):
                column.record_stream(computing)  # its memory is in use there too
        return batch

    def has_room(self, size: int) -> bool:
        """True where so many bytes are at most a quarter of the memory that is free; on a CPU."""
        return not self.is_gpu or size <= torch.cuda.mem_get_info(self.device)[0] // 4

    def describe(self) -> dict[str, str]:
        """What it is, for a report."""
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
