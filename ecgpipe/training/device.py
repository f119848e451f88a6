"""Where the arithmetic happens, and in which precision."""

from __future__ import annotations

import os
import platform
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

    def move(self, batch: Batch) -> Batch:
        """The arrays of a batch as tensors on the device."""

        def tensor(column: Any) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(column)).to(self.device)

        columns = {name: tensor(getattr(batch, name)) for name in Batch._fields if name != "keys"}
        return batch._replace(**columns)

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
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
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
