"""Flow: shards to a pretrained network."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from prefect.states import State
from pydantic import Field

from ecgpipe.config import PretrainSettings
from flows.command import main
from flows.common import PathOrUrl, assignments, options, run_step

DEFAULTS = PretrainSettings()
Pretraining = Literal[
    "beat-512", "beat-2048", "beat-4096",
    "rhythm-512", "rhythm-2048", "rhythm-4096",
    "heart_rate-512", "heart_rate-2048", "heart_rate-4096",
    "future-8-4-2", "future-16-8-2", "future-16-8-8", "future-16-16-8",
]  # fmt: skip


@flow(name="pretrain", flow_run_name="{out}")
def pretrain(
    shards: Annotated[list[PathOrUrl], Field(min_length=1)],
    out: PathOrUrl,
    preset: Pretraining | None = None,
    settings: PretrainSettings = DEFAULTS,
) -> State:
    """Pretrain a network on one or several sets of shards.

    A run that was interrupted continues from its last checkpoint.

    Args:
        shards: folders of the shards, or their URLs, all at the sampling rate of the settings
        out: folder of the run, new or to be continued
        preset: a row of the paper's Table 1, such as beat-2048: task and samples per frame
        settings: settings that override those of the preset (in a web form, the changed ones)
    """
    choices = (*options(out=out, preset=preset), *assignments(settings))
    return run_step(("pretrain", *shards, *choices), out)


if __name__ == "__main__":
    main(pretrain)
