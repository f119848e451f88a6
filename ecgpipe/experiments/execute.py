"""Executing a plan: some trainings at once; a failure stops only what needs the failed step."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Lock

from ..errors import BUSY, INTERRUPTED, REFUSED, EcgpipeError, Interrupted
from ..progress import say
from .plan import Step

Runner = Callable[[Step], int]  # gives the exit code of a step's command
TRAINING = ("pretrain", "finetune")
GOOD = (0, REFUSED)
GB_A_TRAINING = 12  # of GPU memory, for one of several at once
RETRY = 10.0  # s between two looks at a folder that another process writes to


def room() -> int:
    """How many trainings fit the machine at once: by the GPU's free memory; without a GPU, one."""
    import torch

    if not torch.cuda.is_available():
        return 1
    free, _ = torch.cuda.mem_get_info()
    return max(1, int(free / 1e9 // GB_A_TRAINING))


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
        raise EcgpipeError(
            f"step {names} ended with exit code {codes[failed[0].name]}; by hand: {failed[0]}"
            + (f"; not begun: {', '.join(left)}" if left else "")
        )
    refused = [step for step in steps if codes[step.name] == REFUSED]
    if refused:
        names = ", ".join(step.name for step in refused)
        say(f"finished; some records were refused, and named, by: {names}")
    return refused


class Processes:
    """Runs steps, each as a process of this Python."""

    def __init__(self) -> None:
        self._lock, self._ended = Lock(), False
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, step: Step) -> int:
        """Run a step and give its exit code; a folder that another process writes to is awaited."""
        while (code := self._once(step)) == BUSY:
            time.sleep(RETRY)
        return code

    def _once(self, step: Step) -> int:
        with self._lock:
            if self._ended:
                return INTERRUPTED
            process = subprocess.Popen([sys.executable, "-m", "ecgpipe", *step.command])
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
