"""Processes of a training: those of torchrun, parallel repeats, and signals that ask to stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import wait
from types import FrameType
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ..errors import INTERRUPTED, EcgpipeError, Interrupted
from ..storage.executors import exit_with_parent

TIMEOUT = timedelta(hours=2)  # the other processes wait while the first reads validation items
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # SIGHUP: the terminal was closed


@dataclass(frozen=True)
class Ranks:
    """One process among those of a training; alone it is rank 0 of 1."""

    rank: int = 0
    count: int = 1
    grouped: bool = False  # True if torchrun started it, even as the only one

    @property
    def first(self) -> bool:
        """True for the process that writes files and messages."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """True, in all processes, if the flag is set in one of them."""
        return self.means([float(flag)])[0] > 0

    def means(self, values: list[float]) -> list[float]:
        """The mean of each value over all processes, computed without waiting for a GPU."""
        if self.count == 1:
            return values
        total = self._sum(torch.tensor(values, dtype=torch.float64))
        means: list[float] = (total / self.count).tolist()
        return means

    def average_buffers(self, network: nn.Module) -> None:
        """Set the batch statistics of all processes to their mean."""
        if self.count == 1:
            return
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self._sum(buffer) / self.count)

    def share(self, value: Any) -> Any:
        """Broadcast the value of the first process to all of them."""
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
def process_group(device: torch.device) -> Iterator[Ranks]:
    """Join the process group that torchrun describes in the environment, if there is one."""
    if "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT
    )
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), grouped=True)
    finally:
        distributed.destroy_process_group()


def check_shares(count: int, streams: int, workers: int, accumulate: int) -> None:
    """Check that several processes can share a training and see the same batches as one.

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


class Stop:
    """Record SIGTERM and Ctrl-C: ``with Stop() as stop: … stop.asked``.

    A second Ctrl-C ends the process at once.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            for number in STOP_SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                    self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def in_processes(
    prepare: Callable[[], Callable[[int], None]], numbers: Sequence[int], count: int
) -> None:
    """Train several repeats at a time, each in its own process, on the same device.

    Parameters
    ----------
    prepare
        Called once in every process; gives the function that trains a repeat. It can be pickled.
    numbers
        Of the repeats.
    count
        Processes.

    Raises
    ------
    EcgpipeError
        A training failed; the others end, and what they did is saved.
    Interrupted
        SIGTERM or Ctrl-C came; the same.
    """
    context = get_context("spawn")
    parent, end = context.Pipe(duplex=False)
    queue, failures = context.SimpleQueue(), context.SimpleQueue()
    count = min(count, len(numbers))
    for number in (*numbers, *[None] * count):
        queue.put(number)
    given = (parent, prepare, queue, failures)
    processes = [context.Process(target=_work, args=given) for _ in range(count)]
    code: int | None = None  # exit code of the first that failed; the others are asked to end
    try:
        with Stop() as stop:
            for process in processes:
                process.start()
            while running := [process for process in processes if process.is_alive()]:
                code = code or next((p.exitcode for p in processes if p.exitcode), None)
                if stop.asked or code:
                    for process in running:
                        process.terminate()
                wait([process.sentinel for process in running], timeout=0.2)
    finally:
        end.close()  # processes that still run end with it
        for process in processes:
            process.join()
        parent.close()
    if not failures.empty():
        raise EcgpipeError(failures.get())
    if stop.asked:
        raise Interrupted("saved behind the last update of each repeat")
    if code := code or next((p.exitcode for p in processes if p.exitcode), None):
        raise EcgpipeError(
            f"setting parallel: a training process ended with exit code {code}; if memory is "
            "short, lower it; the same command continues"
        )


def _work(
    parent: Any, prepare: Callable[[], Callable[[int], None]], queue: Any, failures: Any
) -> None:
    """Train repeats until the queue is empty, or one fails or is interrupted."""
    exit_with_parent(parent)
    signal.signal(signal.SIGTERM, _leave)
    try:
        train = prepare()
        for number in iter(queue.get, None):
            train(number)
    except EcgpipeError as error:
        failures.put(str(error))
        sys.exit(1)
    except Interrupted:
        sys.exit(INTERRUPTED)


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process, while no training runs; further signals are ignored."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(INTERRUPTED)
