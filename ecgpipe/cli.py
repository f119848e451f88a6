"""The command line: each command thin over a plain function, imported when it is called.

Exit codes: 0 done, 2 a mistake of the call, its settings or its files, 3 done but some records were
refused, 4 a store is damaged, 5 another process writes to the same folder,
6 a remote file cannot be reached, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from . import using
from .errors import DAMAGED, INTERRUPTED, MISTAKE, REFUSED, EcgpipeError, Interrupted
from .files import place
from .options import Assignments, Config, Dask, Out, Seed, Source, Store, Workers, settings_help

FIRST = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun one speaks

app = typer.Typer(
    help="From raw ECG recordings to finetuned classifiers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; mistakes are one line, not a stack trace."""
    try:
        app()
    except EcgpipeError as error:
        print(f"ecgpipe: {error}", file=sys.stderr)
        sys.exit(error.code)
    except OSError as error:  # a full disk, a bucket that is not there
        print(f"ecgpipe: {error}", file=sys.stderr)
        sys.exit(MISTAKE)
    except Interrupted as end:
        if FIRST:
            print(f"ecgpipe: interrupted, {end}; the same command continues", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        # Typer catches Ctrl-C itself and leaves with this code, without a word.
        if end.code == INTERRUPTED:
            print("ecgpipe: interrupted; the same command continues", file=sys.stderr)
        raise


@app.command()
def simulate(
    name: Annotated[str, typer.Argument(help="icentia11k or cinc2017.")],
    dest: Annotated[Path, typer.Argument(parser=place, help="Folder to write, new or empty.")],
    patients: Annotated[int | None, typer.Option(help="icentia11k: patients. [16]")] = None,
    segments: Annotated[int | None, typer.Option(help="icentia11k: segments of each. [3]")] = None,
    records: Annotated[int | None, typer.Option(help="cinc2017: records. [240]")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length of a record, s.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another one makes other patients.")] = 0,
) -> None:
    """Write a small simulated data set in the files of the real one."""
    from .sources.simulate import simulate

    sizes: Any = {
        "patients": patients,
        "segments": segments,
        "records": records,
        "seconds": seconds,
    }
    count = simulate(name, dest, **sizes, seed=seed)
    print(f"{dest}: {count} simulated records")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="cinc2017, mitdb or ptbxl.")],
    dest: Annotated[Path, typer.Argument(help="Folder of the copy, new or to be continued.")],
    source: Annotated[
        str | None, typer.Option("--from", help="Another address than PhysioNet's.")
    ] = None,
) -> None:
    """Copy a small data set from PhysioNet, checked against its digests."""
    from .sources.fetch import fetch

    print(fetch(name, dest, source))


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="icentia11k, mitdb, cinc2017, ptbxl or icbeb2018.")],
    source: Source,
    archive: Annotated[
        Path, typer.Argument(parser=place, help="Folder of the archive, new or to be continued.")
    ],
    patients: Annotated[
        str | None, typer.Option(help="Numbers of patients: 0-999 or 7,12,20-29. [all]")
    ] = None,
    segments: Annotated[
        int | None,
        typer.Option(min=1, help="Recordings of each patient, spread evenly over theirs. [all]"),
    ] = None,
    qrs: Annotated[str, typer.Option(help="QRS detector: sleepecg, or gqrs (slow).")] = "sleepecg",
    workers: Workers = None,
    dask: Dask = None,
) -> None:
    """Convert raw recordings into a Zarr archive, with QRS complexes detected."""
    from .storage.archive import prepare

    subset: Any = {"patients": patients, "segments": segments}
    manifest = prepare(name, source, archive, workers, **subset, detector=qrs, dask=dask)
    _say_store(archive, manifest)


@app.command()
def shard(
    archive: Annotated[Path, typer.Argument(parser=place, help="Folder of a finished archive.")],
    shards: Annotated[
        Path, typer.Argument(parser=place, help="Folder of the shards, new or to be continued.")
    ],
    fs: Annotated[float, typer.Option(min=1, help="Sampling rate of the shards, Hz.")] = 250,
    codec: Annotated[str, typer.Option(help="Of the signals: pcodec, zstd or lz4.")] = "pcodec",
    statements: Annotated[
        str | None,
        typer.Option(help="ptbxl: rhythm, form, diagnostic, superclass, subclass or all. [rhythm]"),
    ] = None,
    workers: Workers = None,
    dask: Dask = None,
) -> None:
    """Make WebDataset shards from an archive, at one sampling rate."""
    from .storage.shards import shard

    manifest = shard(archive, shards, fs, codec, workers, statements=statements, dask=dask)
    _say_store(shards, manifest)


@app.command()
def verify(
    store: Store,
    decode: Annotated[bool, typer.Option(help="Read every record back as well.")] = True,
    source: Annotated[
        str | None,
        typer.Option(help="Compare with what it was made from: raw files, or the archive."),
    ] = None,
    patients: Annotated[
        str | None, typer.Option(help="With --source: those that were prepared. [all]")
    ] = None,
) -> None:
    """Check a store against its digests; exit code 4 if it is damaged."""
    from .storage.verify import verify

    problems = verify(store, decode, source, patients)
    for problem in problems:
        print(f"{store}: {problem}", file=sys.stderr)
    if problems:
        print(f"{store}: {len(problems)} problems; run its command again", file=sys.stderr)
        raise typer.Exit(DAMAGED)
    print(f"{store}: whole" + (f", and all that is in {source}" if source else ""))


app.command()(using.inspect)


app.command()(using.plot)
app.command()(using.card)


@app.command(cls=settings_help("PretrainSettings"))
def pretrain(
    shards: Annotated[
        list[Path], typer.Argument(parser=place, help="Folders of shards of upstream data sets.")
    ],
    out: Out,
    task: Annotated[
        str | None,
        typer.Option(help="beat, rhythm, heart_rate or future, as the paper's best preset. [beat]"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="A row of the paper's Table 1, such as beat-512 or future-16-8-8."),
    ] = None,
    config: Config = None,
    assignments: Assignments = None,
    seed: Seed = None,
) -> None:
    """Pretrain a network on frames of upstream recordings."""
    from .config import PretrainSettings, load
    from .experiments.presets import pretraining

    base = pretraining(preset, task) if preset or task else ()
    settings = load(PretrainSettings, config, assignments or (), base, task=task, seed=seed)
    from .training.pretrain import pretrain

    pretrain(shards, out, settings)
    if FIRST:
        _say_run(out)


@app.command(cls=settings_help("FinetuneSettings"))
def finetune(
    shards: Annotated[
        Path, typer.Argument(parser=place, help="Folder of shards of a downstream data set.")
    ],
    out: Out,
    init: Annotated[str, typer.Option(help="A pretraining run, or random.")] = "random",
    repeats: Annotated[int | None, typer.Option(min=1, help="Trainings. [10]")] = None,
    config: Config = None,
    assignments: Assignments = None,
    seed: Seed = None,
) -> None:
    """Finetune on a downstream data set, several times."""
    from .config import FinetuneSettings, load

    settings = load(FinetuneSettings, config, assignments or (), repeats=repeats, seed=seed)
    from .training.finetune import finetune

    finetune(shards, out, settings, None if init == "random" else place(init))
    _say_run(out)


app.command()(using.predict)
app.command()(using.export)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(parser=place, help="Folders of pretraining and finetuning runs.")
    ],
    out: Annotated[
        Path, typer.Option(parser=place, help="The page; its table goes beside it as .csv and .md.")
    ],
) -> None:
    """Write a report on runs: one HTML page, its table as CSV and Markdown."""
    from .evaluation.report import write_report

    for path in write_report(runs, out).values():
        print(path)


@app.command()
def reproduce(
    preset: Annotated[
        str,
        typer.Option(
            help="table1 to table5, figure3, paper (all of them); small, real (on two cores); "
            "demo, smoke (on simulated recordings)."
        ),
    ],
    out: Annotated[Path, typer.Option(parser=place, help="Folder for everything that is made.")],
    data: Annotated[
        Path | None,
        typer.Option(parser=place, help="Folder of the real data sets, each in one of its name."),
    ] = None,
    only: Annotated[
        str, typer.Option(help="Finetunings whose names match, such as 'random*'.")
    ] = "*",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainings at once. [as many as the GPU has room for]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the commands, with their cost.")
    ] = False,
    tflops: Annotated[
        float, typer.Option(min=0.001, help="With --dry-run: 10^12 operations a second of the GPU.")
    ] = 50,
) -> None:
    """Run a whole experiment, from raw recordings to the report; what is done is skipped."""
    from .experiments.plan import plan
    from .experiments.presets import PRESETS

    steps = plan(preset, out, data, only)
    if dry_run:
        from .experiments.cost import told

        for line in told(steps, PRESETS[preset].records, tflops):
            print(line)
        return
    from .experiments.execute import Processes, room, run

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the steps as Ctrl-C does
    processes = Processes()
    if run(steps, processes.run, jobs or room(), processes.stop):
        raise typer.Exit(REFUSED)


def _say_run(path: Path) -> None:
    from .evaluation.wording import summary

    print(summary(path))


def _say_store(path: Path, manifest: dict[str, Any]) -> None:
    totals = manifest["totals"]
    print(
        f"{path}: {totals['records']:,} records of {totals['patients']:,} patients, "
        f"{totals['hours']:,.1f} h, {totals['stored_bytes'] / 1e6:,.1f} MB"
    )
    if totals["refused"]:
        for item in manifest["refused"]:
            print(f"refused {item['key']}: {item['reason']}", file=sys.stderr)
        print(f"{totals['refused']} records refused; the others are in {path}", file=sys.stderr)
        raise typer.Exit(REFUSED)
