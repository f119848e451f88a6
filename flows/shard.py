"""Flow: an archive to tar shards for training."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from prefect.states import State
from pydantic import Field

from flows.command import main
from flows.common import PathOrUrl, Positive, options, run_step

Statements = Literal["rhythm", "form", "diagnostic", "superclass", "subclass", "all"]


@flow(name="shard", flow_run_name="{shards}")
def shard(
    archive: PathOrUrl,
    shards: PathOrUrl,
    fs: Annotated[float, Field(ge=1)] = 250,
    codec: Literal["pcodec", "zstd", "lz4"] = "pcodec",
    statements: Statements | None = None,
    workers: Positive | None = None,
    dask: str | None = None,
) -> State:
    """Resample an archive and write it as tar shards for training.

    Args:
        archive: folder of the archive, or its URL
        shards: folder of the shards, or its URL, new or to be continued
        fs: sampling rate of the shards in Hz
        codec: codec of the signals; pcodec makes the smallest files, lz4 is the fastest to read
        statements: statements that are the classes of PTB-XL; by default rhythm
        workers: number of processes; by default one per core
        dask: address of a Dask scheduler that runs the work instead, or local
    """
    choices = options(fs=f"{fs:g}", codec=codec, statements=statements, workers=workers, dask=dask)
    return run_step(("shard", archive, shards, *choices), shards)


if __name__ == "__main__":
    main(shard)
