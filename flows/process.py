"""A step as a process of its own, and how it is ended.

A step is ``python -m ecgpipe …`` in a process group of its own: data loader workers never fork
from a process full of Prefect's threads, the same command works without Prefect, and whatever
ends the flow run (cancellation, SIGTERM, Ctrl-C) ends the step with all its workers.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Event, Lock

from ecgpipe.errors import INTERRUPTED

GRACE = 20.0  # s that a step has to end by itself before it is killed; Prefect gives the flow 30
_RUNNING: set[subprocess.Popen[str]] = set()
_ENDING = Event()
_LOCK = Lock()  # so that no step begins unseen while all are ended


def execute(
    command: Sequence[str],
    hear: Callable[[str], object],
    environment: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """Run ``ecgpipe`` with these arguments and wait for it.

    On a terminal the step writes there by itself, so that its progress bars work; elsewhere
    ``hear`` gets its lines. What ``environment`` holds stands over this process's variables.

    Returns
    -------
    tuple of int and str
        The exit code (negative: the signal that ended it), and its last line where lines are read.
    """
    inherit = sys.stdout.isatty()
    with _LOCK:
        if _ENDING.is_set():
            return INTERRUPTED, ""
        process = subprocess.Popen(
            [sys.executable, "-m", "ecgpipe", *command],
            stdin=subprocess.DEVNULL,
            stdout=None if inherit else subprocess.PIPE,
            stderr=None if inherit else subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            text=True,
            errors="replace",
            process_group=0,
        )
        _RUNNING.add(process)
    last = ""
    with process:
        try:
            for line in process.stdout or ():
                if line := line.rstrip():
                    hear(line)
                    last = line.strip()
            return process.wait(), last
        except BaseException:  # whatever ends the flow; the step's last words say what it saved
            _end(process)
            for line in process.stdout or ():
                hear(line.rstrip())
            raise
        finally:
            if process.returncode != 0:  # its workers may be left
                _end(process)
            _RUNNING.discard(process)


def end_steps() -> None:
    """End all steps that run in other threads, and let none begin until :func:`begin_steps`."""
    with _LOCK:
        _ENDING.set()
        running = list(_RUNNING)
    _end(*running)


def begin_steps() -> None:
    """Let steps begin."""
    _ENDING.clear()


def ending() -> bool:
    """Whether :func:`end_steps` was called: no step is to be tried again then."""
    return _ENDING.is_set()


def _end(*processes: subprocess.Popen[str]) -> None:
    """Ask steps and their workers to end, all at once; kill what is left of them."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
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
