"""Flow: runs to a report."""

from __future__ import annotations

from pathlib import Path

from flows.common import main, outcome, run_step  # before Prefect: it settles Prefect's defaults

from prefect import flow  # isort: skip
from prefect.states import State  # isort: skip


@flow(name="report")
def report(runs: list[Path], out: Path = Path("report.html")) -> State:
    """Compare runs in one HTML file, from the predictions that they saved.

    Args:
        runs: folders of pretraining and finetuning runs
        out: the file of the report
    """
    command = ("report", *(str(run) for run in runs), "--out", str(out))
    return outcome(run_step("report", command, out))


if __name__ == "__main__":
    main(report)
