"""Flow: raw recordings to an archive."""

from __future__ import annotations

from typing import Annotated, Literal

from prefect import flow
from prefect.states import State
from pydantic import Field

from flows.command import main
from flows.common import PathOrUrl, Positive, options, run_step

DataSet = Literal["icentia11k", "mitdb", "cinc2017", "ptbxl", "icbeb2018"]
Patients = Annotated[str, Field(pattern=r"^\d+(-\d+)?(, *\d+(-\d+)?)*$")] | None


@flow(name="prepare", flow_run_name="{archive}")
def prepare(
    dataset: DataSet,
    source: str,
    archive: PathOrUrl,
    patients: Patients = None,
    segments: Positive | None = None,
    qrs: Literal["sleepecg", "gqrs"] = "sleepecg",
    workers: Positive | None = None,
    dask: str | None = None,
) -> State:
    """Convert raw recordings to a Zarr archive, and detect QRS complexes.

    Finished parts whose inputs did not change are skipped. A broken recording is refused by name;
    the others are converted.

    Args:
        dataset: which data set the recordings belong to
        source: the raw recordings: a folder, s3://…, https://…, or a .zip of them
        archive: folder of the archive, or its URL, new or to be continued
        patients: patient numbers, such as 0-999 or 7,12,20-29; by default all
        segments: recordings per patient, spread evenly over all of them; by default all
        qrs: QRS detector; gqrs is a hundred times slower
        workers: number of processes; by default one per core
        dask: address of a Dask scheduler that runs the work instead, or local
    """
    choices = options(qrs=qrs, patients=patients, segments=segments, workers=workers, dask=dask)
    return run_step(("prepare", dataset, source, archive, *choices), archive)


if __name__ == "__main__":
    main(prepare)
