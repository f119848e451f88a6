"""Parameter types of the flows, and a step as a Prefect task with retries and artifacts."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ecgpipe.experiments.processes import Processes
from ecgpipe.files.paths import to_path
from flows.artifacts import StepArtifacts, key_of


def _path_to_text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


PathOrUrl = Annotated[str, BeforeValidator(_path_to_text), Field(min_length=1)]
Positive = Annotated[int, Field(ge=1)]
# Names of final states, in addition to Prefect's own, and the exit codes that they stand for.
SOME_REFUSED, KILLED, UNREACHABLE_FILE, LOCKED = "SomeRefused", "Killed", "Unreachable", "Busy"
STOPPED = "Stopped"  # the flow run was cancelled or interrupted
CODES = {
    "Completed": 0,
    SOME_REFUSED: REFUSED,
    KILLED: INTERRUPTED,
    UNREACHABLE_FILE: UNREACHABLE,
    LOCKED: BUSY,
}
NAMES = {code: name for name, code in CODES.items()}
EXPLAINED = (MISTAKE, DAMAGED, BUSY, UNREACHABLE)  # exit codes with the reason in the last line
TRIES = 6  # the delays between them add up to at least five minutes
GRACE = 20.0  # s for a step to end after SIGTERM; Prefect gives a cancelled flow run 30


# A worker raises the final state of a failed flow run, whose message was logged before, as an
# exception. Its stack trace is not logged.
for name in ("prefect.flow_runs", "prefect.engine"):
    logging.getLogger(name).addFilter(
        lambda record: not (record.exc_info and isinstance(record.exc_info[1], FailedRun))
    )


def _may_retry(_task: object, run: TaskRun, state: State) -> bool:
    """True if a retry can help: one for a killed step, several for an unreachable file."""
    return state.name == UNREACHABLE_FILE or (state.name == KILLED and run.run_count == 1)


@task(
    retries=TRIES - 1,
    retry_delay_seconds=exponential_backoff(10),
    retry_jitter_factor=0.5,  # so that several steps do not retry at the same moment
    retry_condition_fn=_may_retry,
    cache_policy=NO_CACHE,  # the commands themselves skip what is done
)
def step(
    command: Sequence[str],
    output: str,
    processes: Processes | None = None,
    on_start: Callable[[], object] | None = None,
) -> State:
    """Run one ``ecgpipe`` command as a task; failures are returned as a state, never raised."""
    try:
        path = to_path(output).resolve()
    except EcgpipeError as error:
        return Failed(message=str(error))
    processes = processes or Processes(grace=GRACE)
    if processes.ending:
        return Failed(name=STOPPED, message="not started, because the flow run ends")
    if on_start:
        on_start()
    logger, artifacts = get_run_logger(), StepArtifacts(command, path, key_of(output))
    logger.info(artifacts.command)

    def on_line(line: str) -> None:
        logger.info(line)
        artifacts.update(line)

    stopped: State = Failed(
        name=STOPPED, message="ended with its flow run; running it again continues it"
    )
    try:
        code, last = processes.run(command, on_line)
    except BaseException:  # the flow run was cancelled, or Ctrl-C
        artifacts.finish(stopped)
        raise
    state = _final_state(command, path, code, last)
    if processes.ending and not state.is_completed():
        state = stopped
    artifacts.finish(state)
    return state


def _final_state(command: Sequence[str], output: Path, code: int, last: str) -> State:
    """Translate a command's exit code and last line into a state."""
    if code == 0:  # the last line sums up what was made; a report prints file names instead
        return Completed(message=last if last and output.suffix != ".html" else str(output))
    if code == REFUSED:
        message = f"{output}, but some records were refused"
        return Completed(name=SOME_REFUSED, message=message)
    typed = shlex.join(("ecgpipe", *command))
    if code < 0 or code == INTERRUPTED:
        by = f"signal {-code}" if code < 0 else "a signal, its work saved"
        return Failed(name=KILLED, message=f"{typed}: ended by {by}")
    reason = code in EXPLAINED and last.removeprefix("ecgpipe: ")
    reason = reason or f"exit code {code}, see the lines above"
    return Failed(name=NAMES.get(code), message=f"{typed}: {reason}")


def run_step(command: Sequence[str], output: str) -> State:
    """Run the only step of a flow; its final state is the flow's."""
    state = step.with_options(task_run_name=command[0])(command, output, return_state=True)
    # A copy: of the state itself, Prefect would make "1/1 states failed".
    return State(type=state.type, name=state.name, message=state.message)


def options(**values: object) -> Iterator[str]:
    """Yield ``--name value`` for each value that is not None."""
    for name, value in values.items():
        if value is not None:
            yield from (f"--{name}", str(value))


def assignments(settings: Settings) -> Iterator[str]:
    """Yield ``--set key=value`` for each setting that was given.

    The web form of a deployment sends all settings; those at their defaults are left out, because
    they would override the preset.
    """
    form = deployment.id and settings.model_fields_set == type(settings).model_fields.keys()

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")
            else:
                yield from ("--set", f"{prefix}{key}={value}")

    return walk(settings.model_dump(exclude_unset=True, exclude_defaults=bool(form)), "")
