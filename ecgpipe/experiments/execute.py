"""Execute a plan without Prefect; a failure stops only the steps that need the failed one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from signal import SIGKILL

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
from .processes import TRAINING, Gpus, Processes, default_jobs

Runner = Callable[[Step], int]  # returns the exit code of a step's command
GOOD = (0, REFUSED)
RETRY = 10.0  # s between two attempts at a folder that another process writes to


def execute(steps: Sequence[Step], jobs: int | None = None) -> list[Step]:
    """Run the steps as child processes, see :func:`run`; a busy folder is waited for.

    By default, as many trainings run at once as fit in GPU memory.
    """
    processes = Processes(Gpus())

    def runner(step: Step) -> int:
        while (code := processes.run(step.command)[0]) == BUSY:
            time.sleep(RETRY)
        return code

    return run(steps, runner, jobs or default_jobs(), processes.end)


def run(
    steps: Sequence[Step], runner: Runner, jobs: int = 1, stop: Callable[[], None] = lambda: None
) -> list[Step]:
    """Run each step after those it needs: ``jobs`` trainings at a time, and one other step.

    ``stop`` ends the running steps; it is called when this process is interrupted.

    Returns
    -------
    list of Step
        Steps that refused some records.

    Raises
    ------
    EcgpipeError
        Steps failed; the message has the command of the first one.
    Interrupted
        A step was interrupted; its work is saved, and no other step was started.
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
        except BaseException:  # such as Ctrl-C
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
    """Return the steps that refused records; raise an error if any step failed."""
    failed = [step for step in steps if codes.get(step.name, 0) not in GOOD]
    left = [step.name for step in steps if step.name not in codes]
    if failed:
        names = ", ".join(step.name for step in failed)
        ends = {codes[step.name] for step in failed}
        kinds = (kind for kind in (Damaged, Busy, Unreachable) if ends == {kind.code})
        raise next(kinds, EcgpipeError)(
            f"step {names} {_ended(codes[failed[0].name])}; by hand: {failed[0]}"
            + (f"; not started: {', '.join(left)}" if left else "")
        )
    refused = [step for step in steps if codes[step.name] == REFUSED]
    if refused:
        names = ", ".join(step.name for step in refused)
        say(f"finished; some records were refused by: {names}")
    return refused


def _ended(code: int) -> str:
    """Describe how a step ended, by its exit code; a negative one is the signal that killed it."""
    if code >= 0:
        return f"ended with exit code {code}"
    why = ", perhaps because memory ran out" if code == -SIGKILL else ""
    return f"was killed by signal {-code}{why}; the same command continues"
