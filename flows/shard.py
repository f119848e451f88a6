"""Flow: an archive to tar shards for training."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from prefect.states import State
from pydantic import Field

from flows.command import main
from flows.common import PathOrUrl, Workers, options, run_step

Statements = Literal["rhythm", "form", "diagnostic", "superclass", "subclass", "all"]


@flow(name="shard", flow_run_name="{shards}")
def shard(
    archive: PathOrUrl,
    shards: PathOrUrl,
    fs: Annotated[float, Field(ge=1)] = 250,
    codec: Literal["pcodec", "zstd", "lz4"] = "pcodec",
    statements: Statements | None = None,
    workers: Workers = None,
    dask: str | None = None,
) -> State:
    """Resample an archive and write it as tar shards for training.

    Args:
        archive: folder of the archive, or its URL
        shards: folder of the shards, or its URL, made or continued
        fs: sampling rate of the shards in Hz
        codec: of the signals; pcodec is the smallest, lz4 the fastest to read
        statements: of PTB-XL, those that are the classes; by default rhythm
        workers: processes that share the parts; by default one per core
        dask: address of a Dask scheduler that does the parts instead, or local
    """
    choices = options(fs=f"{fs:g}", codec=codec, statements=statements, workers=workers, dask=dask)
    return run_step(("shard", archive, shards, *choices), shards)


if __name__ == "__main__":
    main(shard)
