"""Tables of results: the paper's, filled with what was run, the other runs, and all runs as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from . import paper
from .names import NAMES, sets, setup_text
from .paper import RELATED, SETS, Column, Conditions, Start, Table
from .protocol import from_simulated
from .results import Row, metrics
from .text import CLASS_NAMES, METRICS, fixed, mean_std, p_value, percent, signed

Filled = dict[tuple[Start, Conditions], Row]


def filled(rows: Sequence[Row]) -> Filled:
    """Which run stands in which cell of the paper; of several for one cell, the first."""
    found: Filled = {}
    for row in rows:
        if row.paper:
            found.setdefault(row.place, row)
    return found


def paper_tables(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every table of the paper in which a cell has a run, whole, cell by cell."""
    found = filled(rows)
    shown = []
    for table in paper.TABLES:
        columns = [column for _, block in table.blocks for column in block]
        used = [found[place] for place in _places(table, columns) if place in found]
        if used:
            blocks = [_block(table, title, block, found) for title, block in table.blocks]
            cells = [cell for block in blocks for line in block["rows"] for cell in line["cells"]]
            ours = [cell for cell in cells if not cell["related"]]
            shown.append(
                {
                    "number": table.number,
                    "title": table.title,
                    "note": table.note,
                    "blocks": blocks,
                    "runs": list(dict.fromkeys(used)),
                    "done": sum(cell["score"] is not None for cell in ours),
                    "cells": len(ours),
                }
            )
    return shown


def _places(table: Table, columns: Sequence[Column]) -> Iterator[tuple[Start, Conditions]]:
    for start in table.rows:
        for column in columns:
            yield start, column.conditions


def _block(table: Table, title: str, columns: Sequence[Column], found: Filled) -> dict[str, Any]:
    several = len({start.name for start in table.rows}) < len(table.rows)
    lines = [
        {
            "label": NAMES[start.name],
            "setup": setup_text(start) if several else "",
            "group": several and [s.name for s in table.rows].index(start.name) == place,
            "cells": [_cell(start, column, found) for column in columns],
        }
        for place, start in enumerate(table.rows)
    ]
    return {"title": title, "columns": [column.title for column in columns], "rows": lines}


def _cell(start: Start, column: Column, found: Filled) -> dict[str, Any]:
    """One cell: our score and how many repeats it rests on, then lines that compare it."""
    row = found.get((start, column.conditions))
    theirs = paper.cells()[start, column.conditions].scores[column.metric]
    cell: dict[str, Any] = {
        "column": column.title,
        "related": start == RELATED,
        "score": None,
        "state": "" if start == RELATED else "not run",
        "differs": False,
        "lines": [("Paper", mean_std(theirs))],
    }
    if row is None:
        return cell
    done, planned = len(row.run.finished), len(row.run.repeats)
    cell["state"] = f"n = {done}" if done == planned else f"{done} of {planned} finished"
    change = row.to_paper(column.metric)
    if change is None:
        return cell
    cell["score"] = mean_std(row.scores[column.metric])
    cell["differs"] = bool(row.differing)
    error = "" if change.error is None else f"\xa0±\xa0{fixed(change.error)}"
    cell["lines"].append(("Diff.", _join(signed(change.difference) + error, p_value(change.p))))
    theirs_gain = paper.gain(start, column.conditions, column.metric)
    if theirs_gain is not None:
        change = row.to_random(column.metric)
        tested = p_value(change.p) if change else ""
        cell["lines"] += [
            ("Gain", _join(percent(row.gain(column.metric)), tested)),
            ("", f"paper {percent(theirs_gain)}"),
        ]
    return cell


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def other_tables(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The runs that stand in no cell of the paper, a table for each data set."""
    placed = set(filled(rows).values())
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row not in placed:
            groups.setdefault((row.run.dataset, *row.run.classes), []).append(row)
    tables = []
    for (dataset, *classes), members in groups.items():
        many = members[0].run.many_of
        names = [*metrics(members[0].run), *([] if many else [f"f1_{name}" for name in classes])]
        tables.append(
            {
                "title": SETS.get(dataset, dataset),
                "columns": ["Repeats", *map(metric_text, names), "Gain over random"],
                "rows": [_flat(row, names) for row in members],
                "twice": [row.label for row in members if row.paper],
            }
        )
    return tables


def _flat(row: Row, names: Sequence[str]) -> dict[str, Any]:
    change = row.to_random(row.main)
    gain = _join(percent(row.gain(row.main)), p_value(change.p) if change else "")
    repeats = f"{len(row.run.finished)} of {len(row.run.repeats)}"
    values = [repeats, *(mean_std(row.scores.get(name)) for name in names), gain]
    return {"label": row.label, "values": values}


def metric_text(name: str) -> str:
    """A score's name in words."""
    kind, _, of = name.partition("_")
    if name in METRICS or kind not in ("f1", "auc"):
        return METRICS.get(name, name)
    known = f"{CLASS_NAMES[of]} ({of})" if of in CLASS_NAMES else of
    return f"{METRICS.get(kind, kind.upper())} {known}"


def csv_text(rows: Sequence[Row]) -> str:
    """All runs with unrounded numbers, one line each, empty where there is no number."""
    lines = [_groups(row) for row in rows]
    columns = list(
        dict.fromkeys(
            name for groups in zip(*lines, strict=True) for group in groups for name in group
        )
    )
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    if columns:
        writer.writeheader()
    for groups in lines:
        writer.writerow({name: _plain(v) for group in groups for name, v in group.items()})
    return out.getvalue()


def _groups(row: Row) -> list[dict[str, Any]]:
    """A run's line of the CSV, in groups of columns that stay together."""
    run, up, place = row.run, row.run.upstream, row.place[1]
    overall = metrics(run)
    theirs = row.paper.scores if row.paper else {}
    compared = dict.fromkeys([*overall, *theirs])
    means: dict[str, Any] = {}
    for name in dict.fromkeys([*overall, *row.values]):
        score = row.scores.get(name)
        means |= {name: score and score.mean, f"{name}_std": score and score.std}
    beside: dict[str, Any] = {"paper_table": row.paper.table if row.paper else None}
    for name in compared:
        score, change, gain = theirs.get(name), row.to_paper(name), row.to_random(name)
        beside |= {
            f"paper_{name}": score and score.mean,
            f"paper_{name}_std": score and score.std,
            f"difference_{name}": change and change.difference,
            f"difference_{name}_se": change and change.error,
            f"difference_{name}_p": change and change.p,
            f"gain_{name}": row.gain(name),
            f"gain_{name}_p": gain and gain.p,
            f"paper_gain_{name}": row.paper_gain(name),
        }
    return [
        {
            "run": run.folder,
            "initialisation": run.description.name,
            "dataset": sets(run.description),
            "simulated": "yes" if run.data.simulated else "no",
            "pretraining_data": sets(up) if up else "",
            "pretraining_simulated": ("yes" if from_simulated(run) else "no") if up else "",
            "pretraining_setup": row.place[0].setup.strip("-"),
            "train_share": "official folds" if place.share is None else place.share,
            "fs": place.fs or None,
            "depth": place.depth,
            "repeats": len(run.finished),
            "repeats_planned": len(run.repeats),
        },
        means,
        {
            f"threshold_{name}_{end}": value
            for name, values in row.thresholds.items()
            for end, value in (
                ("mean", sum(values) / len(values)),
                ("min", min(values)),
                ("max", max(values)),
            )
        },
        beside,
        {"differs_from_paper_in": "; ".join(point.what for point in row.differing)},
    ]


def _plain(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def markdown_cell(cell: dict[str, Any]) -> str:
    """A cell of a paper's table as lines of text."""
    first = cell["score"] or ""
    if cell["state"]:
        first += f" ({cell['state']})" if first else cell["state"]
    first += " †" if cell["differs"] else ""
    lines = [f"{name} {value}".strip() for name, value in cell["lines"]]
    return "\n".join([first, *lines] if first else lines)
