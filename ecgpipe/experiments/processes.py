"""``ecgpipe`` commands as child processes: which GPU they get, and how they are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from math import inf
from threading import Lock

from ..errors import INTERRUPTED

TRAINING = ("pretrain", "finetune")  # commands that use a GPU; the others use all CPU cores
GB_PER_TRAINING = 12  # GPU memory reserved for each of several concurrent trainings
FREE_MEMORY = """
import torch
for number in range(torch.cuda.device_count()):
    try:
        print(torch.cuda.mem_get_info(number)[0])
    except RuntimeError:  # so full that it cannot be asked
        print(0)
"""


@cache
def gpu_capacity() -> dict[str, int]:
    """Number of trainings that fit each visible GPU, by its name in ``CUDA_VISIBLE_DEVICES``.

    A child process asks, because a process that has asked a GPU keeps some of its memory. The
    result is cached, because later the trainings themselves take memory.
    """
    command = [sys.executable, "-c", FREE_MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    free = done.stdout.split() if done.returncode == 0 else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(len(free))) if visible is None else map(str.strip, visible.split(","))
    sizes = zip(names, map(int, free), strict=False)  # CUDA ignores the names after a wrong one
    return {name: size // (GB_PER_TRAINING * 10**9) for name, size in sizes}


def default_jobs() -> int:
    """Number of trainings that fit the machine: by free GPU memory; one without a GPU."""
    return max(1, sum(gpu_capacity().values()))


class Gpus:
    """Assigns one GPU to each training, if several are visible.

    A training gets the GPU with the fewest trainings; full GPUs come last. ``capacity`` gives the
    number of trainings that fit each GPU.
    """

    def __init__(self, capacity: Callable[[], Mapping[str, int]] = gpu_capacity) -> None:
        self._capacity, self._lock = capacity, Lock()
        self._used: Counter[str] = Counter()

    @contextmanager
    def assigned(self, command: str) -> Iterator[dict[str, str]]:
        """Reserve a GPU for a command; yields the environment variables that select it."""
        used = self._used
        with self._lock:
            fit = self._capacity() if command in TRAINING else {}
            name = min(fit, key=lambda name: (used[name] >= fit[name], used[name]), default="")
            used[name] += 1
        try:
            yield {"CUDA_VISIBLE_DEVICES": name} if len(fit) > 1 else {}
        finally:
            with self._lock:
                used[name] -= 1


class Processes:
    """Runs ``ecgpipe`` commands as child processes, from one or several threads.

    Each is the leader of a process group, so that it can be ended with its loader workers. Without
    ``gpus`` the commands see all GPUs; ``grace`` is the time in s to end after SIGTERM.
    """

    def __init__(self, gpus: Gpus | None = None, grace: float = inf) -> None:
        self._gpus, self._grace = gpus or Gpus(dict), grace
        self._running: set[subprocess.Popen[str]] = set()
        self.ending = False  # True once end() was called

    def run(
        self, command: Sequence[str], on_line: Callable[[str], object] | None = None
    ) -> tuple[int, str]:
        """Run ``ecgpipe`` with these arguments and wait for it.

        ``on_line`` gets each line of its output, except on a terminal: there the command writes
        directly, so that its progress bars work.

        Returns
        -------
        tuple of int and str
            The exit code (negative: the signal that ended it), and the last line if lines are read.
        """
        with self._gpus.assigned(command[0]) as environment:
            if self.ending:
                return INTERRUPTED, ""
            with self._start(command, environment, on_line is not None) as process:
                self._running.add(process)
                try:
                    if self.ending:  # end() may have missed a process that was just starting
                        self._end(process)
                    last = ""
                    for line in map(str.rstrip, process.stdout or ()):
                        if line and on_line:
                            on_line(line)
                            last = line.strip()
                    return process.wait(), last
                except BaseException:  # such as Ctrl-C; the last lines say what was saved
                    self._end(process)
                    for line in process.stdout or ():
                        on_line and on_line(line.rstrip())
                    raise
                finally:
                    if process.returncode != 0:  # its workers may be left
                        self._end(process)
                    self._running.discard(process)

    @staticmethod
    def _start(
        command: Sequence[str], environment: Mapping[str, str], read: bool
    ) -> subprocess.Popen[str]:
        pipe = read and not sys.stdout.isatty()
        return subprocess.Popen(
            [sys.executable, "-m", "ecgpipe", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if pipe else None,
            stderr=subprocess.STDOUT if pipe else None,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            text=True,
            errors="replace",
            process_group=0,
        )

    def end(self) -> None:
        """End all running commands, and let no other one start."""
        self.ending = True
        self._end(*self._running.copy())

    def _end(self, *processes: subprocess.Popen[str]) -> None:
        """Send SIGTERM to commands and their workers, and SIGKILL to what is left of them."""
        for process in processes:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + self._grace
        try:
            for process in processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for process in processes:
                _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen[str], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
