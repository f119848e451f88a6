"""Flow: raw recordings to an archive."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flows.common import Workers, main, option, outcome, run_step  # first: Prefect's defaults

from prefect import flow  # isort: skip
from prefect.states import State  # isort: skip


@flow(name="prepare")
def prepare(
    dataset: Literal["icentia11k", "mitdb", "cinc2017"],
    source: Path,
    archive: Path,
    workers: Workers = None,
) -> State:
    """Read raw recordings, find the heartbeats and write a Zarr archive.

    Parts that are done and whose inputs did not change are skipped. No retry helps against a
    broken recording: it is refused by name, and the others go on.

    Args:
        dataset: which data set the recordings belong to
        source: folder with the raw recordings
        archive: folder of the archive, made or continued
        workers: processes that share the parts; by default one per core
    """
    command = ("prepare", dataset, str(source), str(archive), *option("--workers", workers))
    return outcome(run_step("prepare", command, archive))


if __name__ == "__main__":
    main(prepare)
