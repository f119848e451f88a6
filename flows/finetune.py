"""Flow: shards and a pretrained network to repeated finetunings."""

from __future__ import annotations

from prefect import flow
from prefect.states import State

from ecgpipe.config import FinetuneSettings
from flows.command import main
from flows.common import PathOrUrl, assignments, options, run_step

DEFAULTS = FinetuneSettings()


@flow(name="finetune", flow_run_name="{out}")
def finetune(
    shards: PathOrUrl,
    out: PathOrUrl,
    init: PathOrUrl = "random",
    settings: FinetuneSettings = DEFAULTS,
) -> State:
    """Finetune a network several times, each with fresh training and validation records.

    Repeats that are done are skipped; an interrupted one continues from its last checkpoint.

    Args:
        shards: folder of the shards, or its URL
        out: folder of the run, made or continued
        init: first weights: the folder of a pretraining run, or random
        settings: of the run; what is left out has the paper's value, but statistics is all there
    """
    choices = (*options(out=out, init=init), *assignments(settings))
    return run_step(("finetune", shards, *choices), out)


if __name__ == "__main__":
    main(finetune, FinetuneSettings)
