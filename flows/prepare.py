"""Flow: raw recordings to an archive."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from prefect.states import State
from pydantic import Field

from flows.command import main
from flows.common import PathOrUrl, Workers, options, run_step

DataSet = Literal["icentia11k", "mitdb", "cinc2017", "ptbxl", "icbeb2018"]
Patients = Annotated[str, Field(pattern=r"^\d+(-\d+)?(, *\d+(-\d+)?)*$")] | None
Segments = Annotated[int, Field(ge=1)] | None


@flow(name="prepare", flow_run_name="{archive}")
def prepare(
    dataset: DataSet,
    source: str,
    archive: PathOrUrl,
    patients: Patients = None,
    segments: Segments = None,
    qrs: Literal["sleepecg", "gqrs"] = "sleepecg",
    workers: Workers = None,
    dask: str | None = None,
) -> State:
    """Read raw recordings, find the heartbeats and write a Zarr archive.

    Parts that are done and whose inputs did not change are skipped. No retry helps against a
    broken recording: it is refused by name, and the others go on.

    Args:
        dataset: which data set the recordings belong to
        source: the raw recordings: a folder, s3://…, https://…, or a .zip of them
        archive: folder of the archive, or its URL, made or continued
        patients: numbers of patients, such as 0-999 or 7,12,20-29; by default all
        segments: recordings of each patient, spread evenly over theirs; by default all
        qrs: detector of QRS complexes; gqrs is a hundred times slower
        workers: processes that share the parts; by default one per core
        dask: address of a Dask scheduler that does the parts instead, or local
    """
    choices = options(qrs=qrs, patients=patients, segments=segments, workers=workers, dask=dask)
    return run_step(("prepare", dataset, source, archive, *choices), archive)


if __name__ == "__main__":
    main(prepare)
