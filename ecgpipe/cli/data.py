"""Commands that make and check stores: from raw recordings to shards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DAMAGED, REFUSED
from ..files.paths import local_path, to_path
from ..progress import print_json
from .options import AsJson, Dask, Store, Workers

if TYPE_CHECKING:
    from ..storage.manifest import Manifest


def simulate(
    name: Annotated[str, typer.Argument(help="icentia11k or cinc2017.")],
    dest: Annotated[Path, typer.Argument(parser=to_path, help="Folder to write, new or empty.")],
    patients: Annotated[int | None, typer.Option(help="icentia11k: patients. [16]")] = None,
    segments: Annotated[
        int | None, typer.Option(help="icentia11k: segments per patient. [3]")
    ] = None,
    records: Annotated[int | None, typer.Option(help="cinc2017: records. [240]")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a record, s.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the patients.")] = 0,
) -> None:
    """Simulate a small data set in the file format of the real one."""
    from ..simulator.simulate import simulate
    from ..storage.inspect import counted

    sizes = {"patients": patients, "segments": segments, "records": records, "seconds": seconds}
    count = simulate(name, dest, seed=seed, **sizes)
    print(f"{dest}: {counted(count, 'simulated record')}")


def fetch(
    name: Annotated[str, typer.Argument(help="cinc2017, mitdb or ptbxl.")],
    dest: Annotated[
        Path,
        typer.Argument(
            parser=local_path, help="Folder of the copy; an interrupted copy is continued."
        ),
    ],
    source: Annotated[
        str | None, typer.Option("--from", help="Address to copy from, instead of PhysioNet's.")
    ] = None,
) -> None:
    """Copy a small data set from PhysioNet and verify its checksums."""
    from ..datasets.download import fetch

    print(fetch(name, dest, source))


def prepare(
    name: Annotated[str, typer.Argument(help="icentia11k, mitdb, cinc2017, ptbxl or icbeb2018.")],
    source: Annotated[
        str, typer.Argument(help="Raw files: a folder, s3://…, https://…, or a .zip of them.")
    ],
    archive: Annotated[
        Path, typer.Argument(parser=to_path, help="Folder of the archive, new or to be continued.")
    ],
    patients: Annotated[
        str | None, typer.Option(help="Patient numbers: 0-999 or 7,12,20-29. [all]")
    ] = None,
    segments: Annotated[
        int | None,
        typer.Option(min=1, help="Recordings per patient, spread evenly over all of them. [all]"),
    ] = None,
    qrs: Annotated[str, typer.Option(help="QRS detector: sleepecg, or gqrs (slow).")] = "sleepecg",
    workers: Workers = None,
    dask: Dask = None,
    as_json: AsJson = False,
) -> None:
    """Convert raw recordings to a Zarr archive; detect QRS complexes."""
    from ..storage.archive import prepare

    manifest = prepare(
        name,
        source,
        archive,
        workers,
        patients=patients,
        segments=segments,
        detector=qrs,
        dask=dask,
    )
    _print_store(archive, manifest, as_json)


def shard(
    archive: Annotated[Path, typer.Argument(parser=to_path, help="Folder of a finished archive.")],
    shards: Annotated[
        Path, typer.Argument(parser=to_path, help="Folder of the shards, new or to be continued.")
    ],
    fs: Annotated[float, typer.Option(min=1, help="Sampling rate of the shards, Hz.")] = 250,
    codec: Annotated[
        str, typer.Option(help="Codec of the signals: pcodec, zstd or lz4.")
    ] = "pcodec",
    statements: Annotated[
        str | None,
        typer.Option(
            help="Statements that are the classes of ptbxl: rhythm, form, diagnostic, superclass, "
            "subclass or all. [rhythm]"
        ),
    ] = None,
    workers: Workers = None,
    dask: Dask = None,
    as_json: AsJson = False,
) -> None:
    """Resample an archive and write it as WebDataset shards."""
    from ..storage.shards import shard

    manifest = shard(archive, shards, fs, codec, workers, statements=statements, dask=dask)
    _print_store(shards, manifest, as_json)


def verify(
    store: Store,
    decode: Annotated[bool, typer.Option(help="Also decode every record.")] = True,
    source: Annotated[
        str | None,
        typer.Option(help="Also compare with the source: the raw files, or the archive."),
    ] = None,
    patients: Annotated[
        str | None, typer.Option(help="With --source: the prepared patients. [all]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a store for damage; the exit code is 4 if there is any."""
    from ..storage.verify import verify

    problems = verify(store, decode, source, patients)
    if as_json:
        print_json({"store": str(store), "source": source, "problems": problems})
    elif not problems:
        print(f"{store}: OK" + (f", verified against {source}" if source else ""))
    else:
        for problem in problems:
            print(f"{store}: {problem}", file=sys.stderr)
        print(f"{store}: {len(problems)} problems; run its command again", file=sys.stderr)
    if problems:
        raise typer.Exit(DAMAGED)


def _print_store(path: Path, manifest: Manifest, as_json: bool) -> None:
    from ..storage.inspect import counted, inspect

    totals = manifest.totals
    if as_json:
        print_json(inspect(path))
    else:
        print(
            f"{path}: {counted(totals.records, 'record')} of "
            f"{counted(totals.patients, 'patient')}, "
            f"{totals.hours:,.1f} h, {totals.stored_bytes / 1e6:,.1f} MB"
        )
    if totals.refused:
        for item in manifest.refused:
            print(f"refused {item.key}: {item.reason}", file=sys.stderr)
        print(f"{totals.refused} records refused; the others are in {path}", file=sys.stderr)
        raise typer.Exit(REFUSED)
