"""Tables of the report: comparison with the paper, other runs, protocol, settings; the CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from ..training.run_description import RunDescription
from ..training.run_folder import Run
from . import paper
from .paper import RELATED, Column, Conditions, Start
from .results import Comparison, Result, grouped
from .text import CLASS_NAMES, DASH, METRICS, fixed, mean_std, p_value, percent, signed


@dataclass(slots=True)
class Cell:
    """A cell of a table of the paper: our score, then lines that compare it."""

    score: str | None = None
    state: str = ""  # number of repeats, or why there is no score
    differs: bool = False  # the protocol from the paper's
    lines: list[tuple[str, str]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The cell as lines of text."""
        first = f"{self.score} ({self.state})" if self.score else self.state
        first += " †" if self.differs else ""
        lines = [first, *(f"{name} {value}" for name, value in self.lines)]
        return "\n".join(line.strip() for line in lines if line)


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table of the paper with our results."""

    table: paper.Table
    cells: dict[tuple[Start, Column], Cell]
    runs: list[Result]  # that have a cell

    @property
    def done(self) -> list[bool]:
        """True for each cell that has a result, without those of related work."""
        return [cell.score is not None for (s, _), cell in self.cells.items() if s != RELATED]


def filled(results: Sequence[Result]) -> dict[tuple[Start, Conditions], Result]:
    """The run in each cell of the paper; of several for one cell, the first."""
    found: dict[tuple[Start, Conditions], Result] = {}
    for result in results:
        if result.paper:
            found.setdefault((result.start, result.conditions), result)
    return found


def paper_tables(results: Sequence[Result]) -> list[PaperTable]:
    """The tables of the paper in which a cell has a run."""
    found, tables = filled(results), []
    for table in paper.TABLES:
        keys = [(start, column) for start in table.rows for column in table.columns]
        shown = {(start, column): found.get((start, column.conditions)) for start, column in keys}
        if runs := [result for result in shown.values() if result]:
            cells = {key: _cell(*key, result) for key, result in shown.items()}
            tables.append(PaperTable(table, cells, runs))
    return tables


def _cell(start: Start, column: Column, result: Result | None) -> Cell:
    """Our score, the paper's, their difference, and the gains over random weights."""
    metric = column.metric
    cell = Cell(lines=[("Paper", mean_std(paper.cells()[start, column.conditions].scores[metric]))])
    if result is None:
        cell.state = "" if start == RELATED else "not run"
        return cell
    done, planned = len(result.run.finished), len(result.run.repeats)
    cell.state = f"n = {done}" if done == planned else f"{done} of {planned} finished"
    change, paper_gain = result.to_paper(metric), result.paper_gain(metric)
    if change is None:
        return cell
    cell.score = mean_std(result.scores[metric])
    cell.differs = bool(result.differing)
    error = "" if change.error is None else f"\xa0±\xa0{fixed(change.error)}"
    cell.lines.append(("Diff.", _with_p(signed(change.difference) + error, change)))
    if paper_gain is not None:
        cell.lines += [("Gain", _gain(result, metric)), ("", f"paper {percent(paper_gain)}")]
    return cell


def _with_p(text: str, change: Comparison | None) -> str:
    p = p_value(change.p) if change else ""
    return f"{text}, {p}" if p else text


def _gain(result: Result, metric: str) -> str:
    return _with_p(percent(result.gain(metric)), result.to_random(metric))


@dataclass(frozen=True, slots=True)
class OtherRuns:
    """Runs on a data set that have no cell in the paper's tables."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]  # label, values
    same_cell: list[str]  # labels of runs whose cell of the paper has another run


def other_tables(results: Sequence[Result]) -> list[OtherRuns]:
    """The runs that have no cell in the paper's tables, a table for each data set."""
    in_cells = set(filled(results).values())
    others = [result for result in results if result not in in_cells]
    tables = []
    for group in grouped(others, lambda result: (result.run.dataset, *result.run.classes)):
        run, metrics = group[0].run, list(group[0].metrics)
        if not run.many_of:
            metrics += [f"f1_{name}" for name in run.classes]
        rows = []
        for result in group:
            repeats = f"{len(result.run.finished)} of {len(result.run.repeats)}"
            scores = (mean_std(result.scores.get(name)) for name in metrics)
            rows.append((result.label, [repeats, *scores, _gain(result, result.main)]))
        columns = ["Repeats", *map(metric_text, metrics), "Gain over random"]
        same_cell = [result.label for result in group if result.paper]
        tables.append(OtherRuns(group[0].conditions.dataset_text, columns, rows, same_cell))
    return tables


def metric_text(name: str) -> str:
    """Name of a score in the report."""
    kind, _, of = name.partition("_")
    if name in METRICS or kind not in ("f1", "auc"):
        return METRICS.get(name, name)
    return f"{kind.upper()} " + (f"{CLASS_NAMES[of]} ({of})" if of in CLASS_NAMES else of)


@dataclass(frozen=True, slots=True)
class Value:
    """A value of some runs."""

    text: str
    runs: str  # labels; empty for all runs
    differs: bool  # from the paper


def _group(values: Sequence[tuple[str, str, bool]]) -> list[Value]:
    """Group runs (label, text, differs) by value; a value of all runs is listed without names.

    The most frequent value comes last, with "the others" if these are more than 3.
    """
    groups = grouped(values, lambda value: value[1:])
    most = max(groups, key=len)
    found = []
    for group in sorted(groups, key=lambda group: group is most):
        names = "the others" if group is most and len(group) > 3 else "; ".join(g[0] for g in group)
        found.append(Value(group[0][1], names if len(groups) > 1 else "", group[0][2]))
    return found


def protocol_table(results: Sequence[Result]) -> list[tuple[str, str, list[Value]]]:
    """Points of the protocol: name, the paper's choice, the runs' choices."""
    choices = [(result.label, point) for result in results for point in result.points]
    found = []
    for group in grouped(choices, lambda choice: (choice[1].name, choice[1].paper)):
        runs = [(label, point.run, point.same is False) for label, point in group]
        found.append((group[0][1].name, group[0][1].paper, _group(runs)))
    return found


Named = tuple[str, RunDescription]


def descriptions(
    results: Sequence[Result], pretrained: Sequence[Run]
) -> tuple[list[Named], list[Named]]:
    """Labelled finetunings and pretrainings, with those known only from their finetuning."""
    tuned = [(result.label, result.run.description) for result in results]
    known = [(f"Pretraining {run.folder}", run.description) for run in pretrained]
    for label, description in tuned:
        upstream = description.upstream
        if upstream and all(upstream.digest != other.digest for _, other in known):
            known.append((f"Pretraining of {label}", upstream))
    return tuned, known


def settings_table(runs: Sequence[Named]) -> list[tuple[str, list[Value]]]:
    """Settings of runs: dotted key, values."""
    flat = [(label, dict(_flatten(run.settings.model_dump()))) for label, run in runs]
    keys = dict.fromkeys(key for _, tree in flat for key in tree)
    return [
        (key, _group([(label, tree.get(key, DASH), False) for label, tree in flat])) for key in keys
    ]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested settings as text, by dotted key."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            number = f"{value:g}" if isinstance(value, float) else str(value)
            yield prefix + key, DASH if value is None else number


def provenance(runs: Sequence[Named]) -> list[list[Named]]:
    """Group runs with the same environment, versions, inputs and notes."""
    return grouped(
        runs,
        lambda run: repr((run[1].environment, run[1].versions, run[1].inputs, run[1].data.notes)),
    )


def csv_text(results: Sequence[Result]) -> str:
    """All runs with unrounded numbers, one line each, empty where there is no number."""
    if not results:
        return ""
    groups = zip(*map(_csv_groups, results), strict=True)
    table = pd.concat([pd.DataFrame(list(group)) for group in groups], axis=1)
    return str(table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _csv_groups(result: Result) -> list[dict[str, Any]]:
    """A run's line of the CSV, in groups of columns that stay together."""
    run, upstream, conditions = result.run, result.run.upstream, result.conditions
    paper_scores = result.paper.scores if result.paper else {}
    yes_no = {True: "yes", False: "no"}.__getitem__
    means: dict[str, float | None] = {}
    for name in dict.fromkeys([*result.metrics, *result.values]):
        score = result.scores.get(name)
        means |= {name: score and score.mean, f"{name}_std": score and score.std}
    compared: dict[str, float | None] = {
        "paper_table": result.paper.table if result.paper else None
    }
    for name in dict.fromkeys([*result.metrics, *paper_scores]):
        score, change = paper_scores.get(name), result.to_paper(name)
        gain = result.to_random(name)
        compared |= {
            f"paper_{name}": score and score.mean,
            f"paper_{name}_std": score and score.std,
            f"difference_{name}": change and change.difference,
            f"difference_{name}_se": change and change.error,
            f"difference_{name}_p": change and change.p,
            f"gain_{name}": result.gain(name),
            f"gain_{name}_p": gain and gain.p,
            f"paper_gain_{name}": result.paper_gain(name),
        }
    return [
        {
            "run": run.folder,
            "initialisation": run.description.name,
            "dataset": run.dataset,
            "simulated": yes_no(result.simulated),
            "pretraining_data": " + ".join(upstream.datasets) if upstream else "",
            "pretraining_simulated": yes_no(result.from_simulated) if upstream else "",
            "pretraining_setup": result.start.setup.strip("-"),
            "train_share": "official folds" if conditions.share is None else conditions.share,
            "fs": conditions.fs or None,
            "depth": conditions.depth,
            "repeats": len(run.finished),
            "repeats_planned": len(run.repeats),
        },
        means,
        {
            f"threshold_{name}_{end}": value
            for name, values in result.thresholds.items()
            for end, value in (
                ("mean", sum(values) / len(values)),
                ("min", min(values)),
                ("max", max(values)),
            )
        },
        compared,
        {"differs_from_paper_in": "; ".join(point.name for point in result.differing)},
    ]
