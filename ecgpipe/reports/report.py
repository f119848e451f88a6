"""The report: one HTML file that needs nothing else, with its tables as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..errors import EcgpipeError
from ..files.atomic import write_text
from ..training.outputs import Run, read_run
from . import recordings, sections
from .paper import SETS
from .results import Row, rows
from .sentences import headline, problems, to_the_paper
from .tables import csv_text, markdown_cell, other_tables, paper_tables
from .text import markdown, plain


def write_report(runs: Sequence[Path], out: Path) -> dict[str, Path]:
    """Write a report on finetuning runs, beside the paper's numbers, and on pretraining runs.

    The same run folders give the same bytes. Every score is computed from the saved predictions.
    Finetuning runs that meet the conditions of a cell of the paper's Tables 1 to 5 stand in it, of
    several the first; the others stand in tables of their own.

    Parameters
    ----------
    runs
        Run folders; pretraining and finetuning, on any data sets, in any mixture.
    out
        The page; ``.html`` is added where it is missing.

    Returns
    -------
    The paths written: ``html``, ``csv`` and ``md``, all with the same stem.

    Raises
    ------
    EcgpipeError
        No runs, or a folder that is no run.
    """
    found = [read_run(folder) for folder in dict.fromkeys(run.resolve() for run in runs)]
    if not found:
        raise EcgpipeError("report: no run folders given; name at least one")
    table = rows([run for run in found if run.description.kind == "finetune"])
    page = _page(table, [run for run in found if run.description.kind == "pretrain"])
    stem = out.name.removesuffix(".html")
    paths = {kind: out.with_name(f"{stem}.{kind}") for kind in ("html", "csv", "md")}
    texts = {"html": _html(page), "csv": csv_text(table), "md": _markdown(page)}
    for kind, path in paths.items():
        write_text(path, texts[kind])
    return paths


def _page(table: Sequence[Row], pretrained: Sequence[Run]) -> dict[str, Any]:
    """Everything the page says, before it is laid out."""
    done = [row for row in table if row.scores]
    datasets = dict.fromkeys(row.run.dataset for row in table)
    on = ", ".join(SETS.get(name, name) for name in datasets)
    return {
        "title": f"ECG classification on {on}" if on else "Pretraining on ECG",
        "headline": headline(table, pretrained),
        "problems": problems(table, pretrained),
        "tables": paper_tables(table),
        "others": other_tables(table),
        "to_the_paper": to_the_paper(table),
        "protocol": sections.protocol(table),
        "courses": sections.course(table),
        "efficiency": sections.label_efficiency(table),
        "confusions": [sections.confusion(row) for row in done if not row.run.many_of],
        "several": [sections.several_classes(row) for row in done if row.run.many_of],
        "recordings": recordings.sections(table),
        "pretraining": [sections.pretraining(run) for run in pretrained],
        "provenance": sections.provenance(table, pretrained),
    }


def _html(page: dict[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("ecgpipe", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page)


def _markdown(page: dict[str, Any]) -> str:
    parts = [f"# {plain(page['title'])}\n", *(f"{plain(text)}\n" for text in page["headline"])]
    parts += ["\n".join(f"- {plain(text)}" for text in page["problems"]) + "\n"] * bool(
        page["problems"]
    )
    for table in page["tables"]:
        parts.append(f"## Table {table['number']} of the paper: {table['title']}\n")
        parts.append(f"{table['note']} {table['done']} of {table['cells']} cells have a result.\n")
        for block in table["blocks"]:
            parts += [f"**{block['title']}**\n"] if block["title"] else []
            body = [
                [
                    line["label"] + (f"\n{line['setup']}" if line["setup"] else ""),
                    *(markdown_cell(cell) for cell in line["cells"]),
                ]
                for line in block["rows"]
            ]
            parts.append(markdown(["", *block["columns"]], body))
    for table in page["others"]:
        parts.append(f"## Other runs: {plain(table['title'])}\n")
        body = [[row["label"], *row["values"]] for row in table["rows"]]
        parts.append(markdown(["", *table["columns"]], body))
    for run in page["several"]:
        parts.append(f"## {plain(run['label'])}\n")
        parts.append(f"{plain(run['caption'])}\n")
        parts.append(markdown(["", "test", "threshold"], run["scores"]))
    if page["protocol"]:
        parts.append("## Protocol\n")
        parts += [f"{plain(text)}\n" for text in page["to_the_paper"]]
        body = [[line["what"], line["paper"], _here(line["here"])] for line in page["protocol"]]
        parts.append(markdown(["", "paper", "here"], body))
    return "\n".join(parts)


def _here(values: Sequence[dict[str, Any]]) -> str:
    return "\n".join(
        value["text"]
        + (" †" if value["differs"] else "")
        + (f" ({value['runs']})" if value["runs"] else "")
        for value in values
    )
