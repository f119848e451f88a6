"""Options that several commands share, and the settings that their help ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..files.paths import local_path, to_path

Workers = Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Do the parts on a Dask cluster: tcp://host:8786, or local."
    ),
]
Source = Annotated[
    str, typer.Argument(help="Raw files: a folder, s3://…, https://…, or a .zip of them.")
]
Store = Annotated[
    Path, typer.Argument(parser=to_path, help="An archive or a folder of shards, or its URL.")
]
Config = Annotated[
    Path | None, typer.Option(parser=local_path, help="File of settings, TOML or JSON.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="One setting, as listed below; may be repeated."
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Of weights and of the order of data. [0]")]
Out = Annotated[
    Path,
    typer.Option(parser=to_path, help="Folder of the run; one that holds it already is continued."),
]

AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON, for scripts.")]


def settings_help(name: str) -> type[TyperCommand]:
    """A command whose help ends with the settings of ``ecgpipe.config.NAME``."""

    class Command(TyperCommand):
        def format_epilog(self, ctx: Any, formatter: Any) -> None:
            from .. import config

            rows = [
                (key, f"{text} [{default}]")
                for key, default, text in config.describe(getattr(config, name))
            ]
            with formatter.section("Settings, for --set and --config"):
                formatter.write_dl(rows)

    return Command
