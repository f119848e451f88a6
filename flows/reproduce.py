"""Flow: a whole experiment, from recordings to the report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ecgpipe.errors import EcgpipeError
from ecgpipe.experiments.plan import plan
from flows.common import SOME_REFUSED, main, run_step  # before Prefect: it settles its defaults

from prefect import flow  # isort: skip
from prefect.states import Completed, Failed, State  # isort: skip


@flow(name="reproduce")
def reproduce(
    preset: Literal["demo", "real"] = "demo",
    out: Path = Path("demo"),
    data: Path | None = None,
) -> State:
    """Run a whole experiment: recordings, archive, shards, pretraining, finetuning, report.

    One step runs at a time: each takes the whole machine. What is done is skipped, so running
    this again continues.

    Args:
        preset: demo makes up its recordings, real takes those in the folder data
        out: folder for everything that the experiment makes
        data: folder with the real data sets, each in a folder of its own name
    """
    try:
        steps = plan(preset, out, data)
    except EcgpipeError as error:
        return Failed(message=str(error))
    states: dict[str, State] = {}
    for step in steps:
        after = [states[name] for name in step.needs]
        state = run_step(step.name, step.command, step.output, after)
        if not state.is_completed():
            return Failed(message=f"step {step.name}: {state.message}")
        states[step.name] = state
    message = f"the report is {steps[-1].output.resolve()}"
    refused = [name for name, state in states.items() if state.name == SOME_REFUSED]
    if refused:
        return Completed(
            name=SOME_REFUSED, message=f"{message}; records were refused by {', '.join(refused)}"
        )
    return Completed(message=message)


if __name__ == "__main__":
    main(reproduce, check=plan)
