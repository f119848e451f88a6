"""An update as one CUDA graph: recorded once, then replayed by a single call of the host.

A network of this size asks for hundreds of kernels an update, and the host takes milliseconds to
launch them, as long as a GPU takes to compute a small batch. A graph holds all of them with their
addresses. So a replayed update works on tensors that stay where they are: the weights, the state of
the optimiser, and one batch, into which every batch is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..progress import say
from ..types import Batch
from .device import Device

WARM_UP = 3  # updates that are computed before one is recorded: libraries choose kernels in them


class Replay:
    """An update that is recorded on a GPU, and called on a CPU, over one static batch.

    Parameters
    ----------
    update
        Updates the weights by a batch; gives what it came to as a tensor on the device. It must not
        wait for the device, and do the same whatever the values of the batch are.
    device
        Where the batches lie.
    """

    def __init__(self, update: Callable[[Batch], Tensor], device: Device) -> None:
        self.update, self.device = update, device
        self.done = 0
        self.static: Batch | None = None
        self.result: Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.failed = False
        # One stream for all of them: each keeps the memory that was used on it.
        self.beside = torch.cuda.Stream(device.device) if device.is_gpu else None

    def fits(self, batch: Batch) -> bool:
        """Whether a batch has the shapes of the recorded one, if there is one yet."""
        if self.failed:
            return False
        return self.static is None or all(
            old is None or old.shape == new.shape
            for old, new in zip(_tensors(self.static), _tensors(batch), strict=True)
        )

    def __call__(self, batch: Batch) -> Tensor:
        """Update by a batch on the device; gives what the update came to."""
        self.done += 1
        if self.done <= WARM_UP:
            with self._beside():
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
    def _beside(self) -> Iterator[None]:
        """Compute on a stream that is not the default one, as recording asks of warm-ups."""
        if self.beside is None:
            yield
            return
        computing = torch.cuda.current_stream()
        self.beside.wait_stream(computing)
        with torch.cuda.stream(self.beside):
            yield
        computing.wait_stream(self.beside)


def _tensors(batch: Batch) -> Batch:
    return batch._replace(keys=None)
