"""What the flows share: a step as a task, with its retries, artifacts and final state."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import FailedRun
from prefect.runtime import deployment
from prefect.states import Completed, Failed, State
from prefect.tasks import exponential_backoff
from pydantic import BeforeValidator, Field

from ecgpipe.config import Settings
from ecgpipe.errors import BUSY, DAMAGED, INTERRUPTED, MISTAKE, REFUSED, UNREACHABLE, EcgpipeError
from ecgpipe.files.paths import to_path
from flows.artifacts import StepArtifacts, name_of
from flows.process import ending, execute


def _text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


Place = Annotated[str, BeforeValidator(_text), Field(min_length=1)]  # a path or a URL
Workers = Annotated[int, Field(ge=1)] | None  # processes; None is one per core
# Names of final states, beside Prefect's own: the step refused some records; something outside
# ended it; a remote file could not be read; another process writes to the same folder.
SOME_REFUSED, KILLED, AWAY, TAKEN = "SomeRefused", "Killed", "Unreachable", "Busy"
CODES = {
    "Completed": 0,
    SOME_REFUSED: REFUSED,
    KILLED: INTERRUPTED,
    AWAY: UNREACHABLE,
    TAKEN: BUSY,
}
NAMES = {code: name for name, code in CODES.items()}
TOLD = (MISTAKE, DAMAGED, BUSY, UNREACHABLE)  # exit codes whose reason is the step's last line
TRIES = 6  # the waits between them come to five minutes at least


def _tells_more(record: logging.LogRecord) -> bool:
    """Whether a log record is more than the stack trace of a failed state, logged in words before.

    A worker's flow run raises its final state once more, and Prefect logs where.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


for name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(name).addFilter(_tells_more)


def _may_help(_task: object, run: TaskRun, state: State) -> bool:
    """Whether to try again: what was killed, once; a network that is away, a while longer."""
    if ending():
        return False
    return state.name == AWAY or (state.name == KILLED and run.run_count == 1)


@task(
    retries=TRIES - 1,
    retry_delay_seconds=exponential_backoff(10),
    retry_jitter_factor=0.5,  # so that several that lost the network do not come back at once
    retry_condition_fn=_may_help,
    cache_policy=NO_CACHE,  # ecgpipe knows by itself what is done
)
def step(
    command: Sequence[str], output: str, environment: Mapping[str, str] | None = None
) -> State:
    """Run one ``ecgpipe`` command as a task; its end is a state, never a stack trace."""
    try:
        where = to_path(output).resolve()
    except EcgpipeError as error:
        return Failed(message=str(error))
    logger, shown = get_run_logger(), StepArtifacts(command, where, name_of(output))
    logger.info(shown.command)

    def hear(line: str) -> None:
        logger.info(line)
        shown.hear(line)

    try:
        code, last = execute(command, hear, environment)
    except BaseException:  # the flow run was cancelled, or Ctrl-C
        shown.end("Stopped", "from outside; running it again continues it")
        raise
    state = _end_of(command, where, code, last)
    shown.end(state.name or "", state.message or "", done=state.is_completed())
    return state


def _end_of(command: Sequence[str], output: Path, code: int, last: str) -> State:
    """The state that a command's exit code and last line stand for."""
    if code == 0:  # the command sums up what it made, but for a page
        return Completed(message=last if last and output.suffix != ".html" else str(output))
    if code == REFUSED:
        message = f"{output}, but some records were refused"
        return Completed(name=SOME_REFUSED, message=message)
    written = shlex.join(("ecgpipe", *command))
    if code < 0 or code == INTERRUPTED:
        by = f"signal {-code}" if code < 0 else "a signal, its work saved"
        return Failed(name=KILLED, message=f"{written}: ended by {by}")
    told = code in TOLD and last.removeprefix("ecgpipe: ")
    reason = told or f"exit code {code}, its words are above"
    return Failed(name=NAMES.get(code), message=f"{written}: {reason}")


def run_step(
    name: str,
    command: Sequence[str],
    output: str,
    after: Iterable[State] = (),
    environment: Mapping[str, str] | None = None,
) -> State:
    """Run one ``ecgpipe`` command as a task of that name; give the state it ended in."""
    return step.with_options(task_run_name=name)(
        command, output, environment, wait_for=list(after), return_state=True
    )


def outcome(state: State) -> State:
    """Copy the end of a task as the end of its flow, which would else be a count of its tasks."""
    return State(type=state.type, name=state.name, message=state.message)


def code_of(state: State) -> int:
    """The exit code that says the same as the end of a step or flow."""
    return CODES.get(state.name or "", MISTAKE)


def option(name: str, value: object) -> tuple[str, ...]:
    """Give a command-line option, or nothing where it has no value."""
    return () if value is None else (name, str(value))


def assignments(settings: Settings) -> Iterator[str]:
    """Yield the options ``--set key=value`` for every setting that was given.

    The form of a deployment sends all, with the defaults where nobody chose otherwise. Of those
    only what differs counts, else they would stand over the preset's.
    """
    form = deployment.id and settings.model_fields_set == type(settings).model_fields.keys()

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield from ("--set", f"{prefix}{key}={value}")

    return walk(settings.model_dump(exclude_unset=True, exclude_defaults=bool(form)), "")
