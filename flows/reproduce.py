"""Flow: a whole experiment, from recordings to the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextvars import copy_context
from functools import partial
from threading import Lock
from typing import Annotated, Literal

from prefect import flow
from prefect.states import Completed, Failed, State
from pydantic import Field

from ecgpipe.errors import EcgpipeError, Interrupted
from ecgpipe.experiments.execute import Gpus, run
from ecgpipe.experiments.plan import Step, plan
from ecgpipe.files.paths import to_path
from ecgpipe.reports.text import markdown
from flows.artifacts import Live, name_of, spared
from flows.command import main
from flows.common import KILLED, NAMES, SOME_REFUSED, Place, code_of, run_step
from flows.process import begin_steps, end_steps

Experiment = Literal[
    "table1", "table2", "table3", "table4", "table5", "figure3", "paper",
    "demo", "smoke", "real", "small",
]  # fmt: skip


def planned(preset: str, out: str, data: str | None, only: str, jobs: int = 1) -> list[Step]:
    """The plan of the flow with these parameters; see :func:`ecgpipe.experiments.plan.plan`."""
    return plan(preset, to_path(out), to_path(data) if data else None, only)


@flow(name="reproduce", flow_run_name="{out}")
def reproduce(
    preset: Experiment = "demo",
    out: Place = "demo",
    data: Place | None = None,
    only: str = "*",
    jobs: Annotated[int, Field(ge=1)] = 1,
) -> State:
    """Run a whole experiment: recordings, archive, shards, pretraining, finetuning, report.

    What is done is skipped, so running this again continues, also on another machine that has
    the folder. A step that fails stops only those that need it.

    Args:
        preset: a table of the paper, all of them (paper), or a smaller experiment: demo and
            smoke make up their recordings, the others take those in the folder data
        out: folder for everything that the experiment makes
        data: folder with the real data sets, each in a folder of its own name
        only: shell pattern for the names of finetunings, such as random*; the others are left out
        jobs: trainings at once
    """
    try:
        steps = planned(preset, out, data, only)
    except EcgpipeError as error:
        return Failed(message=str(error))
    overview = Overview(steps, out)
    states = overview.states
    context = copy_context()  # steps run in threads, which know nothing of the flow's run
    gpus = Gpus()

    def one(step: Step) -> int:
        after = [states[name] for name in step.needs]
        start = time.monotonic()
        context.copy().run(overview.begun, step)
        with gpus.lent(step) as environment:
            call = partial(run_step, step.name, step.command, str(step.output), after, environment)
            state = context.copy().run(call)
        context.copy().run(overview.ended, step, state, time.monotonic() - start)
        return code_of(state)

    begin_steps()
    try:
        refused = run(steps, one, jobs, end_steps)
    except Interrupted as end:
        return Failed(name=KILLED, message=f"a step was ended from outside; {end}")
    except EcgpipeError as error:
        failed = {name: s for name, s in states.items() if not s.is_completed()}
        message = "; ".join(f"step {n}: {s.message}" for n, s in failed.items())
        return Failed(name=NAMES.get(error.code), message=message)
    message = f"the report is {steps[-1].output.resolve()}"
    if refused:
        names = ", ".join(step.name for step in refused)
        return Completed(name=SOME_REFUSED, message=f"{message}; records were refused by {names}")
    return Completed(message=message)


class Overview:
    """The artifacts of the whole experiment: a table of its steps, and how many are done."""

    def __init__(self, steps: Sequence[Step], out: str) -> None:
        self.states: dict[str, State] = {}
        self._rows = {step.name: ("–", "–", str(step.output)) for step in steps}
        self._table = Live("markdown", name_of(out))
        self._progress = Live("progress", f"{name_of(out)}-progress")
        self._lock = Lock()  # steps run in threads

    def begun(self, step: Step) -> None:
        """Show that a step runs."""
        with self._lock:
            self._rows[step.name] = ("Running", "–", str(step.output))
            self._show()

    def ended(self, step: Step, state: State, seconds: float) -> None:
        """Show how a step ended."""
        with self._lock:
            self.states[step.name] = state
            result = (state.message or "").removeprefix(f"{step.output}: ")  # its own words
            self._rows[step.name] = (state.name or "", f"{seconds:,.0f} s", result)
            self._show()

    def _show(self) -> None:
        done, total = len(self.states), len(self._rows)
        about = f"{done} of {total} steps have ended"
        rows = [(name, *row) for name, row in self._rows.items()]
        with spared(self._table.key):
            self._table.show(markdown(("step", "state", "took", "result"), rows), about)
            self._progress.show(round(100 * done / total, 1), about)


if __name__ == "__main__":
    main(reproduce, check=planned)
