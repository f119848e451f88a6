"""Flow: runs to a report."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.states import State
from pydantic import Field

from flows.command import main
from flows.common import PathOrUrl, run_step


@flow(name="report", flow_run_name="{out}")
def report(
    runs: Annotated[list[PathOrUrl], Field(min_length=1)], out: PathOrUrl = "report.html"
) -> State:
    """Compare runs in one HTML file, from the predictions that they saved.

    Args:
        runs: folders of pretraining and finetuning runs, or their URLs
        out: the file of the report
    """
    return run_step(("report", *runs, "--out", out), out)


if __name__ == "__main__":
    main(report)
