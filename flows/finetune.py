"""Flow: shards and a pretrained network to repeated finetunings."""

from __future__ import annotations

from pathlib import Path

from ecgpipe.config import FinetuneSettings
from flows.common import (
    assignments,
    main,
    outcome,
    run_step,
)  # before Prefect: it settles its defaults

from prefect import flow  # isort: skip
from prefect.states import State  # isort: skip

DEFAULTS = FinetuneSettings()


@flow(name="finetune")
def finetune(
    shards: Path, out: Path, init: str = "random", settings: FinetuneSettings = DEFAULTS
) -> State:
    """Finetune a network several times, each with fresh training and validation records.

    Repeats that are done are skipped; an interrupted one continues from its last checkpoint.

    Args:
        shards: folder of the shards
        out: folder of the run, made or continued
        init: first weights: the folder of a pretraining run, or random
        settings: of the run; what is left out has the paper's value
    """
    command = ("finetune", str(shards), "--out", str(out), "--init", init, *assignments(settings))
    return outcome(run_step("finetune", command, out))


if __name__ == "__main__":
    main(finetune, FinetuneSettings)
