"""Flow: a whole experiment, from recordings to the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from prefect import flow
from prefect.futures import PrefectConcurrentFuture, wait
from prefect.states import Completed, Failed, State
from prefect.task_runners import ThreadPoolTaskRunner

from ecgpipe.errors import EcgpipeError
from ecgpipe.experiments.plan import Step, plan
from ecgpipe.experiments.processes import TRAINING, Gpus, Processes
from ecgpipe.files.paths import to_path
from ecgpipe.reports.text import DASH, markdown
from flows import common
from flows.artifacts import PROGRESS_INTERVAL, Artifact, errors_as_warnings, key_of
from flows.command import main
from flows.common import GRACE, SOME_REFUSED, PathOrUrl, Positive

Experiment = Literal[
    "table1", "table2", "table3", "table4", "table5", "figure3", "paper",
    "demo", "smoke", "real", "small",
]  # fmt: skip
Row = tuple[str, str, str, str]  # step, state, duration, result
Future = PrefectConcurrentFuture[Any]


def planned(preset: str, out: str, data: str | None, only: str, jobs: int = 1) -> list[Step]:
    """The plan of the flow with these parameters; see :func:`ecgpipe.experiments.plan.plan`."""
    return plan(preset, to_path(out), to_path(data) if data else None, only)


@flow(name="reproduce", flow_run_name="{out}")
def reproduce(
    preset: Experiment = "demo",
    out: PathOrUrl = "demo",
    data: PathOrUrl | None = None,
    only: str = "*",
    jobs: Positive = 1,
) -> State:
    """Run a whole experiment: recordings, archive, shards, pretraining, finetuning, report.

    Finished steps are skipped, so running this again continues, also on another machine that has
    the folder. A step that fails stops only the steps that need it.

    Args:
        preset: a table of the paper, all of them (paper), or a smaller experiment: demo and
            smoke simulate their recordings, the others take those in the folder data
        out: folder for everything that the experiment makes
        data: folder with the real data sets, each in a folder of its own name
        only: shell pattern for the names of finetunings, such as random*; the others are left out
        jobs: number of concurrent trainings
    """
    try:
        steps = planned(preset, out, data, only)
    except EcgpipeError as error:
        return Failed(message=str(error))
    overview = Overview(steps, out)
    futures: dict[str, Future] = {}
    processes = Processes(Gpus(), GRACE)
    # Trainings share the GPUs; each of the other steps uses all cores, so one runs at a time.
    trainings, others = ThreadPoolTaskRunner[State](jobs), ThreadPoolTaskRunner[State](1)
    with trainings, others:
        try:
            for step in _submission_order(steps):
                parameters = {
                    "command": step.command,
                    "output": str(step.output),
                    "processes": processes,
                    "on_start": partial(overview.start, step.name),
                }
                runner = trainings if step.stage in TRAINING else others
                needs = [futures[name] for name in step.needs]
                task = common.step.with_options(task_run_name=step.name)
                futures[step.name] = runner.submit(task, parameters, needs)
            overview.follow(futures)
        except BaseException:  # cancelled, SIGTERM or Ctrl-C
            processes.end()
            wait(list(futures.values()))  # steps that have not started end at once
            raise
    return _final_state(steps, {name: future.state for name, future in futures.items()})


def _submission_order(steps: Sequence[Step]) -> list[Step]:
    """Put each training right after the last step it needs: a waiting task occupies a thread."""
    index = {step.name: number for number, step in enumerate(steps)}

    def position(step: Step) -> float:
        last_need = max((index[name] for name in step.needs), default=-1)
        return last_need + 0.5 if step.stage in TRAINING else index[step.name]

    return sorted(steps, key=position)


def _final_state(steps: Sequence[Step], states: dict[str, State]) -> State:
    """Combine the states of the steps; steps that were not started are left out."""
    ended = {name: state for name, state in states.items() if state.is_final()}
    failed = {name: state for name, state in ended.items() if not state.is_completed()}
    if failed:
        message = "; ".join(f"step {name}: {state.message}" for name, state in failed.items())
        names = {state.name for state in failed.values()}
        return Failed(name=names.pop() if len(names) == 1 else None, message=message)
    message = f"the report is {steps[-1].output.resolve()}"
    refused = [name for name, state in states.items() if state.name == SOME_REFUSED]
    if refused:
        message += f"; records were refused by {', '.join(refused)}"
        return Completed(name=SOME_REFUSED, message=message)
    return Completed(message=message)


class Overview:
    """The artifacts of the whole experiment: a table of its steps, and how many have ended."""

    def __init__(self, steps: Sequence[Step], out: str) -> None:
        self._outputs = {step.name: step.output for step in steps}
        self._started: dict[str, datetime] = {}
        self._table = Artifact("markdown", key_of(out))
        self._progress = Artifact("progress", f"{key_of(out)}-progress")
        self._rows: list[Row] = []  # as shown

    def start(self, name: str) -> None:
        """Record the start of a step; called in its thread."""
        self._started.setdefault(name, datetime.now(UTC))  # a retry does not count

    def follow(self, futures: Mapping[str, Future]) -> None:
        """Keep the artifacts up to date until all steps have ended."""
        while running := [f for f in futures.values() if not f.wrapped_future.done()]:
            running[0].wait(PROGRESS_INTERVAL)
            self._show(futures)

    def _show(self, futures: Mapping[str, Future]) -> None:
        rows = [self._row(name, future) for name, future in futures.items()]
        if rows == self._rows:
            return
        self._rows = rows
        ended = sum(row[2] != DASH for row in rows)
        description = f"{ended} of {len(rows)} steps have ended"
        with errors_as_warnings(self._table.key):
            table = markdown(("step", "state", "took", "result"), rows)
            self._table.show(table, description)
            self._progress.show(round(100 * ended / len(rows), 1), description)

    def _row(self, name: str, future: Future) -> Row:
        started, output = self._started.get(name), str(self._outputs[name])
        if started is None:
            return name, DASH, DASH, output
        if not future.wrapped_future.done():
            return name, "Running", DASH, output
        state: State = future.wrapped_future.result()
        seconds = (state.timestamp - started).total_seconds()
        result = (state.message or "").removeprefix(f"{output}: ")
        return name, state.name or "", f"{seconds:,.0f} s", result


if __name__ == "__main__":
    main(reproduce, check=planned)
