"""Flow: shards to a pretrained network."""

from __future__ import annotations

from pathlib import Path

from ecgpipe.config import PretrainSettings
from flows.common import (
    assignments,
    main,
    outcome,
    run_step,
)  # before Prefect: it settles its defaults

from prefect import flow  # isort: skip
from prefect.states import State  # isort: skip

DEFAULTS = PretrainSettings()


@flow(name="pretrain")
def pretrain(shards: list[Path], out: Path, settings: PretrainSettings = DEFAULTS) -> State:
    """Pretrain a network on one or several sets of shards.

    A run that was interrupted continues from its last checkpoint.

    Args:
        shards: folders of the shards, all at the sampling rate of the settings
        out: folder of the run, made or continued
        settings: of the run; what is left out has the paper's value
    """
    folders = [str(folder) for folder in shards]
    command = ("pretrain", *folders, "--out", str(out), *assignments(settings))
    return outcome(run_step("pretrain", command, out))


if __name__ == "__main__":
    main(pretrain, PretrainSettings)
