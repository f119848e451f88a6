"""Executing a plan: some trainings at once; a failure stops only what needs the failed step."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from signal import SIGKILL
from threading import Lock

from ..errors import (
    BUSY,
    INTERRUPTED,
    REFUSED,
    Busy,
    Damaged,
    EcgpipeError,
    Interrupted,
    Unreachable,
)
from ..progress import say
from .plan import Step

Runner = Callable[[Step], int]  # gives the exit code of a step's command
TRAINING = ("pretrain", "finetune")
GOOD = (0, REFUSED)
GB_A_TRAINING = 12  # of GPU memory, for one of several at once
RETRY = 10.0  # s between two looks at a folder that another process writes to
ASK = """
import torch
for number in range(torch.cuda.device_count()):
    try:
        print(torch.cuda.mem_get_info(number)[0])
    except RuntimeError:  # it is so full that it cannot even be asked
        print(0)
"""


@cache
def rooms() -> dict[str, int]:
    """How many trainings fit every visible GPU, by its name in ``CUDA_VISIBLE_DEVICES``.

    Another process asks, for whoever asks a GPU holds memory of it from then on; and only once,
    while none of it is taken by the trainings themselves.
    """
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=False)
    free = done.stdout.split() if done.returncode == 0 else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = map(str, range(len(free))) if visible is None else map(str.strip, visible.split(","))
    there = zip(names, map(int, free), strict=False)  # after a wrong name none is visible
    return {name: size // (GB_A_TRAINING * 10**9) for name, size in there}


def room() -> int:
    """How many trainings fit the machine at once: by its GPUs' free memory; without a GPU, one."""
    return max(1, sum(rooms().values()))


class Gpus:
    """Deals the visible GPUs, if there are several, to trainings; with device auto they take it.

    Each gets the one with the fewest trainings, of those with room for another if there are any.
    ``ask`` tells how many trainings fit every GPU.
    """

    def __init__(self, ask: Callable[[], Mapping[str, int]] = rooms) -> None:
        self._ask, self._lock = ask, Lock()
        self._used: Counter[str] = Counter()

    @contextmanager
    def lent(self, step: Step) -> Iterator[dict[str, str]]:
        """Lend a step its GPU; gives the environment variables that say so."""
        if step.stage not in TRAINING or (name := self._take()) is None:
            yield {}
            return
        try:
            yield {"CUDA_VISIBLE_DEVICES": name}
        finally:
            with self._lock:
                self._used[name] -= 1

    def _take(self) -> str | None:
        with self._lock:
            fit, used = self._ask(), self._used
            if len(fit) < 2:
                return None
            name = min(fit, key=lambda name: (used[name] >= fit[name], used[name]))
            used[name] += 1
            return name


def run(
    steps: Sequence[Step], runner: Runner, jobs: int = 1, stop: Callable[[], None] = lambda: None
) -> list[Step]:
    """Execute the steps, each after those it needs.

    A step that fails does not stop those that do not need it. Trainings run ``jobs`` at a time;
    of the others, which take the whole machine, one.

    Parameters
    ----------
    steps
        A plan; each step after those it needs.
    runner
        Runs one step and gives its exit code.
    jobs
        Trainings at once.
    stop
        Ends the steps that run, when this process is asked to end.

    Returns
    -------
    list of Step
        Those that finished, but had to refuse some records.

    Raises
    ------
    EcgpipeError
        Steps failed; the message holds the command to run the first of them by hand.
    Interrupted
        A step was; what it did is saved, and no other one was begun.
    """
    codes: dict[str, int] = {}
    running: dict[Future[int], Step] = {}
    waiting = list(steps)
    with ThreadPoolExecutor(jobs + 1) as pool:
        try:
            while True:
                if INTERRUPTED in codes.values():
                    waiting = []
                for step in list(waiting):
                    if _may_start(step, codes, running.values(), jobs):
                        number = len(codes) + len(running) + 1
                        say(f"[{number}/{len(steps)}] {step}")
                        running[pool.submit(runner, step)] = step
                        waiting.remove(step)
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    codes[running.pop(future).name] = future.result()
        except BaseException:  # Ctrl-C, or whatever ends a flow
            stop()
            raise
    if INTERRUPTED in codes.values():
        raise Interrupted(f"{sum(code in GOOD for code in codes.values())} of {len(steps)} done")
    return _refused(steps, codes)


def _may_start(step: Step, codes: dict[str, int], running: Iterable[Step], jobs: int) -> bool:
    if any(codes.get(need) not in GOOD for need in step.needs):
        return False
    trains = [other.stage in TRAINING for other in running]
    return trains.count(True) < jobs if step.stage in TRAINING else False not in trains


def _refused(steps: Sequence[Step], codes: dict[str, int]) -> list[Step]:
    failed = [step for step in steps if codes.get(step.name, 0) not in GOOD]
    left = [step.name for step in steps if step.name not in codes]
    if failed:
        names = ", ".join(step.name for step in failed)
        ends = {codes[step.name] for step in failed}
        kinds = (kind for kind in (Damaged, Busy, Unreachable) if ends == {kind.code})
        raise next(kinds, EcgpipeError)(
            f"step {names} {_ended(codes[failed[0].name])}; by hand: {failed[0]}"
            + (f"; not begun: {', '.join(left)}" if left else "")
        )
    refused = [step for step in steps if codes[step.name] == REFUSED]
    if refused:
        names = ", ".join(step.name for step in refused)
        say(f"finished; some records were refused, and named, by: {names}")
    return refused


def _ended(code: int) -> str:
    """How a step ended, by its exit code; a negative one is the signal that killed it."""
    if code >= 0:
        return f"ended with exit code {code}"
    why = ", for want of memory perhaps" if code == -SIGKILL else ""
    return f"was killed by signal {-code}{why}; the same command continues"


class Processes:
    """Runs steps, each as a process of this Python."""

    def __init__(self) -> None:
        self._lock, self._ended, self._gpus = Lock(), False, Gpus()
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, step: Step) -> int:
        """Run a step and give its exit code; a folder that another process writes to is awaited."""
        with self._gpus.lent(step) as environment:
            while (code := self._once(step, environment)) == BUSY:
                time.sleep(RETRY)
        return code

    def _once(self, step: Step, environment: Mapping[str, str]) -> int:
        with self._lock:
            if self._ended:
                return INTERRUPTED
            command = [sys.executable, "-m", "ecgpipe", *step.command]
            process = subprocess.Popen(command, env={**os.environ, **environment})
            self._running.add(process)
        code = process.wait()
        self._running.discard(process)
        return code

    def stop(self) -> None:
        """Ask all that run to end: trainings save what they have."""
        with self._lock:
            self._ended = True
            for process in list(self._running):
                process.terminate()
