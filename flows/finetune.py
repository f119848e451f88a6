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

    Finished repeats are skipped; an interrupted one continues from its last checkpoint.

    Args:
        shards: folder of the shards, or its URL
        out: folder of the run, new or to be continued
        init: initial weights: the folder of a pretraining run, or random
        settings: settings of the run; the defaults follow the paper, which has statistics=all
    """
    choices = (*options(out=out, init=init), *assignments(settings))
    return run_step(("finetune", shards, *choices), out)


if __name__ == "__main__":
    main(finetune)
