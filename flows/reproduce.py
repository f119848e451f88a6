"""Flow: a whole experiment, from recordings to the report."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from ecgpipe.errors import INTERRUPTED, MISTAKE, REFUSED, EcgpipeError, Interrupted
from ecgpipe.experiments.execute import run
from ecgpipe.experiments.plan import Step, plan
from flows.common import (
    KILLED,
    SOME_REFUSED,
    begin_steps,
    end_steps,
    main,
    run_step,
)  # before Prefect: it settles its defaults

from prefect import flow  # isort: skip
from prefect.states import Completed, Failed, State  # isort: skip
from pydantic import Field  # isort: skip

CODES = {KILLED: INTERRUPTED, SOME_REFUSED: REFUSED, "Completed": 0}
Experiment = Literal[
    "table1", "table2", "table3", "table4", "table5", "figure3", "paper",
    "demo", "smoke", "real", "small",
]  # fmt: skip


@flow(name="reproduce")
def reproduce(
    preset: Experiment = "demo",
    out: Path = Path("demo"),
    data: Path | None = None,
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
        steps = plan(preset, out, data, only)
    except EcgpipeError as error:
        return Failed(message=str(error))
    states: dict[str, State] = {}
    context = copy_context()  # steps run in threads, which know nothing of the flow's run

    def one(step: Step) -> int:
        after = [states[name] for name in step.needs]
        call = partial(run_step, step.name, step.command, step.output, after)
        states[step.name] = state = context.copy().run(call)
        return CODES.get(state.name or "", MISTAKE)

    begin_steps()
    try:
        refused = run(steps, one, jobs, end_steps)
    except Interrupted as end:
        return Failed(name=KILLED, message=f"a step was ended from outside; {end}")
    except EcgpipeError:
        failed = {name: s for name, s in states.items() if not s.is_completed()}
        return Failed(message="; ".join(f"step {n}: {s.message}" for n, s in failed.items()))
    message = f"the report is {steps[-1].output.resolve()}"
    if refused:
        names = ", ".join(step.name for step in refused)
        return Completed(name=SOME_REFUSED, message=f"{message}; records were refused by {names}")
    return Completed(message=message)


if __name__ == "__main__":
    main(reproduce, check=lambda preset, out, data, only, jobs: plan(preset, out, data, only))
