"""The command line: called in this process, or started as another one and waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any, TypeVar
from unittest.mock import patch

from ecgpipe import cli

T = TypeVar("T")
COMMAND = [sys.executable, "-m", "ecgpipe"]
# Settings of quick trainings, of a network with two of the four stages.
QUICK: dict[str, Any] = {
    "device": "cpu", "precision": "fp32", "batch": 8, "network": {"stages": 2},
}  # fmt: skip
PATIENCE = 240.0  # s; many times what a busy machine takes


def options(settings: dict[str, Any], before: str = "") -> list[str]:
    """``--set`` options for settings, with dots in the names of nested ones."""
    words: list[str] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            words += options(value, f"{before}{name}.")
        else:
            words += ["--set", f"{before}{name}={value}"]
    return words


@contextmanager
def _kept_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(*words: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Call the command line in this process; starting another one takes seconds."""
    line = ["ecgpipe", *map(str, words), *options(settings)]
    out, err, code = StringIO(), StringIO(), 0
    with (
        patch.object(sys, "argv", line), patch.dict(os.environ), _kept_handlers(),
        redirect_stdout(out), redirect_stderr(err),
    ):  # fmt: skip
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())


def start(*words: object, **settings: Any) -> subprocess.Popen[str]:
    """Start the command line as a process, its standard error in a pipe."""
    line = [*COMMAND, *map(str, words), *options(settings)]
    return subprocess.Popen(line, text=True, stderr=subprocess.PIPE)


def wait_until(
    sign: Callable[[], T],
    process: subprocess.Popen[Any] | None = None,
    seconds: float = PATIENCE,
    every: float = 0.005,
) -> T:
    """Wait for a sign, looked for ``every`` s, which a process must not end before; give it."""
    end = time.monotonic() + seconds
    while not (found := sign()):
        assert process is None or process.poll() is None, f"{process} ended before the sign"
        assert time.monotonic() < end, f"no sign in {seconds:g} s"
        time.sleep(every)
    return found
