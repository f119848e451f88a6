"""Options that several commands share, and the list of settings at the end of a help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..files.paths import local_path, to_path

Workers = Annotated[int | None, typer.Option(min=1, help="Number of processes. [one per core]")]
Dask = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Dask scheduler that runs the work: tcp://host:8786, or local."
    ),
]
Store = Annotated[
    Path, typer.Argument(parser=to_path, help="An archive or a folder of shards, or its URL.")
]
Model = Annotated[
    Path, typer.Argument(parser=to_path, help="A model.pt, or a run, whose best repeat is used.")
]
Config = Annotated[
    Path | None, typer.Option(parser=local_path, help="Settings file: TOML or JSON.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting of the list below; repeatable."),
]
Seed = Annotated[
    int | None, typer.Option(min=0, help="Random seed of the weights and the order of data. [0]")
]
Out = Annotated[
    Path, typer.Option(parser=to_path, help="Folder of the run; an interrupted run is continued.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class Command(TyperCommand):
    """A command; the help of one that trains ends with its settings."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """List key, description and default of each setting."""
        if self.name not in ("pretrain", "finetune"):
            return
        from .. import config

        settings: dict[str, type[config.Settings]] = {
            "pretrain": config.PretrainSettings,
            "finetune": config.FinetuneSettings,
        }
        found = config.describe(settings[self.name])
        with formatter.section("Settings, for --set and --config"):
            formatter.write_dl([(key, f"{text} [{default}]") for key, default, text in found])
