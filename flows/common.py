"""What the flows share: Prefect's defaults, a step as a process of its own, a command line.

A step is ``python -m ecgpipe …`` in a process group of its own: data loader workers never fork
from a process full of Prefect's threads, the same command works without Prefect, and whatever
ends the flow run (cancellation, SIGTERM, Ctrl-C) ends the step with all its workers.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import Annotated, Any
from unittest.mock import patch

# Prefect reads its settings when it is imported, so they are settled before.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("PREFECT_HOME", str(CACHE / "ecgpipe" / "prefect"))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # the server's
os.environ.setdefault("DO_NOT_TRACK", "1")  # the client's
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect makes no parents

from prefect import Flow, get_run_logger, task  # noqa: E402
from prefect.artifacts import create_markdown_artifact  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.client.orchestration import get_client  # noqa: E402
from prefect.exceptions import ParameterTypeError  # noqa: E402
from prefect.states import Completed, Failed, State  # noqa: E402
from prefect.utilities.callables import parameter_docstrings  # noqa: E402
from pydantic import Field  # noqa: E402

from ecgpipe.config import Settings, load  # noqa: E402
from ecgpipe.errors import INTERRUPTED, MISTAKE, REFUSED, EcgpipeError  # noqa: E402

Workers = Annotated[int, Field(ge=1)] | None  # processes; None is one per core
GRACE = 20.0  # s that a step has to end by itself before it is killed
SOME_REFUSED = "SomeRefused"  # name of the final state of a step that refused some records
KILLED = "Killed"  # name of the final state of a step that something outside ended
_RUNNING: set[subprocess.Popen[str]] = set()
_ENDING = Event()


def execute(command: Sequence[str], log: Callable[[str], object]) -> tuple[int, str]:
    """Run ``ecgpipe`` with these arguments and wait for it.

    On a terminal the step writes there by itself, so that its progress bars work; elsewhere its
    lines go to ``log``.

    Returns
    -------
    tuple of int and str
        The exit code (negative: the signal that ended it), and its last line where lines are read.
    """
    if _ENDING.is_set():
        return INTERRUPTED, ""
    inherit = sys.stdout.isatty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ecgpipe", *command],
        stdin=subprocess.DEVNULL,
        stdout=None if inherit else subprocess.PIPE,
        stderr=None if inherit else subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        text=True,
        errors="replace",
        process_group=0,
    )
    last = ""
    _RUNNING.add(process)
    with process:
        try:
            for line in process.stdout or ():
                if line := line.rstrip():
                    log(line)
                    last = line.strip()
            return process.wait(), last
        finally:
            if process.returncode != 0:
                _end(process)
            _RUNNING.discard(process)


def end_steps() -> None:
    """End all steps that run in other threads, and let none begin until :func:`begin_steps`."""
    _ENDING.set()
    for process in list(_RUNNING):
        _end(process)


def begin_steps() -> None:
    """Let steps begin."""
    _ENDING.clear()


def _end(process: subprocess.Popen[str]) -> None:
    """Ask a step and its workers to end; kill what is left of them."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _was_killed(_task: object, _run: object, state: State) -> bool:
    return state.name == KILLED


@task(
    retries=1,  # only where it can help: a step continues where something outside ended it
    retry_delay_seconds=5,
    retry_condition_fn=_was_killed,
    cache_policy=NO_CACHE,  # ecgpipe knows by itself what is done
)
def step(command: Sequence[str], output: Path) -> State:
    """Run one ``ecgpipe`` command as a task; its end is a state, never a stack trace."""
    written = shlex.join(("ecgpipe", *command))
    logger = get_run_logger()
    logger.info(written)
    code, last = execute(command, logger.info)
    create_markdown_artifact(_summary(written, output, code), key=command[0])
    if code == 0:
        return Completed(message=str(output.resolve()))
    if code == REFUSED:
        return Completed(
            name=SOME_REFUSED, message=f"{output.resolve()}, but some records were refused"
        )
    if code < 0 or code == INTERRUPTED:
        by = f"signal {-code}" if code < 0 else "a signal, its work saved"
        return Failed(name=KILLED, message=f"{written}: ended by {by}")
    reason = last if code == MISTAKE and last else f"exit code {code}, its words are above"
    return Failed(message=f"{written}: {reason}")


def run_step(name: str, command: Sequence[str], output: Path, after: Iterable[State] = ()) -> State:
    """Run one ``ecgpipe`` command as a task of that name; give the state it ended in."""
    return step.with_options(task_run_name=name)(
        command, output, wait_for=list(after), return_state=True
    )


def outcome(state: State) -> State:
    """Copy the end of a task as the end of its flow, which would else be a count of its tasks."""
    return State(type=state.type, name=state.name, message=state.message)


def _summary(written: str, output: Path, code: int) -> str:
    """Describe in Markdown what a step did and, if it made a store, what that holds."""
    rows: dict[str, object] = {
        "command": written,
        "output": output.resolve(),
        "exit code": str(code),
    }
    manifest = output / "manifest.json"
    if manifest.is_file():
        rows |= json.loads(manifest.read_text())["totals"]
    lines = [f"| {name.replace('_', ' ')} | `{value}` |" for name, value in rows.items() if value]
    return "\n".join(["| | |", "|---|---|", *lines])


def option(name: str, value: object) -> tuple[str, ...]:
    """Give a command-line option, or nothing where it has no value."""
    return () if value is None else (name, str(value))


def assignments(settings: Settings) -> Iterator[str]:
    """Yield the options ``--set key=value`` for every setting that is not at its default."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield from ("--set", f"{prefix}{key}={value}")

    return walk(settings.model_dump(exclude_defaults=True), "")


def _start_server() -> None:
    """Start Prefect's temporary server, unless a server is set, in a process group of its own.

    Ctrl-C reaches every process of the terminal's group; a server that ended before its flow
    leaves the flow trying to reach it for minutes.
    """
    with patch.object(subprocess, "Popen", partial(subprocess.Popen, process_group=0)):
        get_client(sync_client=True)


def main(
    flow: Flow[..., State],
    settings: type[Settings] | None = None,
    check: Callable[..., object] | None = None,
) -> None:
    """Run a flow with its parameters as command-line options, then leave with an exit code.

    Parameters
    ----------
    flow
        Its parameters become options of the same names.
    settings
        Class of its parameter ``settings``, which becomes ``--config`` and ``--set key=value``.
    check
        Called with the parameters before anything starts; raises EcgpipeError for a mistake.
    """
    # Like Ctrl-C, so that the temporary server ends with this process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    about = inspect.getdoc(flow.fn) or ""
    parser = argparse.ArgumentParser(
        prog=f"python -m flows.{flow.name}", description=about.partition("\n")[0]
    )
    words = parameter_docstrings(about)
    for name, parameter in inspect.signature(flow.fn).parameters.items():
        if name == "settings":
            parser.add_argument(
                "--config", type=Path, metavar="FILE", help=f"{words[name]}: a file"
            )
            parser.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help="one setting; repeat",
            )
            continue
        required = parameter.default is parameter.empty
        parser.add_argument(
            f"--{name}",
            required=required,
            default=None if required else parameter.default,
            nargs="+" if "list" in str(parameter.annotation) else None,
            help=words[name],
        )
    values = vars(parser.parse_args())
    try:
        if settings:
            values["settings"] = load(settings, values.pop("config"), values.pop("set"))
        values = flow.validate_parameters(values)  # before a server starts
        if check:
            check(**values)
        _start_server()
        state = flow(**values, return_state=True)
    except (EcgpipeError, ParameterTypeError) as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        print("stopped; the same command continues where this one ended", file=sys.stderr)
        sys.exit(130)
    if not state.is_completed():
        print(state.message, file=sys.stderr)
        sys.exit(MISTAKE)
    print(state.message)
    sys.exit(REFUSED if state.name == SOME_REFUSED else 0)
