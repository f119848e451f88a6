"""The processes that torchrun starts, one a GPU, as one training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ..errors import EcgpipeError

PATIENCE = timedelta(hours=2)  # the others wait while the first process reads validation items


@dataclass(frozen=True)
class Ranks:
    """One process among those of a training; alone it is rank 0 of 1."""

    rank: int = 0
    count: int = 1
    grouped: bool = False  # whether torchrun started it, even if it is the only one

    @property
    def first(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process, so that all of them do the same."""
        return self.means([float(flag)])[0] > 0

    def means(self, values: list[float]) -> list[float]:
        """The mean of each value over all processes, by way of the CPU: no GPU is waited for."""
        if self.count == 1:
            return values
        total = self._sum(torch.tensor(values, dtype=torch.float64))
        means: list[float] = (total / self.count).tolist()
        return means

    def average_buffers(self, network: nn.Module) -> None:
        """Give all processes the mean of their batch statistics, which each gathers by itself."""
        if self.count == 1:
            return
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self._sum(buffer) / self.count)

    def share(self, value: Any) -> Any:
        """What the first process has, in all of them."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box)
        return box[0]

    @staticmethod
    def _sum(tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total


ALONE = Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes of torchrun, whose environment says who they are; alone without it."""
    if "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE
    )
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), grouped=True)
    finally:
        distributed.destroy_process_group()


def check_shares(count: int, streams: int, workers: int, accumulate: int) -> None:
    """See that so many processes can share a training, and come to the same batches as one.

    Raises
    ------
    EcgpipeError
        Naming the setting that does not fit.
    """
    if accumulate % count:
        raise EcgpipeError(
            f"setting accumulate: {accumulate} batches an update cannot be shared by {count} "
            f"processes; take a multiple of {count} and a smaller batch"
        )
    if streams % (count * max(workers, 1)):
        by = f"{workers} workers" + (f" in each of {count} processes" if count > 1 else "")
        what = "workers" if workers else "streams"
        raise EcgpipeError(
            f"setting {what}: the {streams} streams cannot be dealt evenly to "
            f"{by if workers else f'{count} processes'}"
        )
