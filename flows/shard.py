"""Flow: an archive to tar shards for training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from flows.common import Workers, main, option, outcome, run_step  # first: Prefect's defaults

from prefect import flow  # isort: skip
from prefect.states import State  # isort: skip
from pydantic import Field  # isort: skip


@flow(name="shard")
def shard(
    archive: Path,
    shards: Path,
    fs: Annotated[float, Field(gt=0)] = 250,
    codec: Literal["pcodec", "zstd", "lz4"] = "pcodec",
    statements: str | None = None,
    workers: Workers = None,
    dask: str | None = None,
) -> State:
    """Resample an archive and write it as tar shards for training.

    Args:
        archive: folder of the archive
        shards: folder of the shards, made or continued
        fs: sampling rate of the shards in Hz
        codec: of the signals; pcodec is the smallest, lz4 the fastest to read
        statements: of PTB-XL: rhythm, form, diagnostic, superclass, subclass or all
        workers: processes that share the parts; by default one per core
        dask: address of a Dask scheduler that does the parts instead, or local
    """
    folders = (str(archive), str(shards))
    choices = (
        *("--fs", f"{fs:g}", "--codec", codec),
        *option("--statements", statements),
        *option("--workers", workers),
        *option("--dask", dask),
    )
    command = ("shard", *folders, *choices)
    return outcome(run_step("shard", command, shards))


if __name__ == "__main__":
    main(shard)
