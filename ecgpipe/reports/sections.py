"""Parts of the report beside its tables of results: protocol, figures, classes, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ..metrics import multi_label, single_label
from ..plots import curves
from ..training.outputs import Run
from ..training.run_description import RunInput
from . import paper
from .names import NAMES, sets, setup_text, share_text
from .paper import BEST, SETS
from .protocol import from_simulated, tested_on
from .results import Row, counts, is_random, main_metric, metrics
from .sentences import of_frames
from .text import DASH, METRICS, NAMED, fixed, mean_std

_FROM_SIMULATED = " (simulated)"


def _distinct(pairs: Sequence[tuple[str, Any]]) -> list[tuple[Any, str]]:
    """Values, each with the runs that have it; a value of all of them is nobody's in particular."""
    of_value: dict[Any, list[str]] = {}
    for label, value in pairs:
        of_value.setdefault(value, []).append(label)
    if len(of_value) == 1:
        return [(value, "") for value in of_value]
    most = max(of_value, key=lambda value: len(of_value[value]))
    return [
        (value, "the others" if value == most and len(names) > 3 else "; ".join(names))
        for value, names in sorted(of_value.items(), key=lambda item: item[0] == most)
    ]


def protocol(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Points of the protocol, each with the paper's choice and those of the runs."""
    points: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    for row in rows:
        for point in row.differences:
            told = (point.here, point.same)
            points.setdefault((point.what, point.paper), []).append((row.label, told))
    return [
        {
            "what": what,
            "paper": theirs,
            "here": [
                {"text": text, "differs": same is False, "runs": runs}
                for (text, same), runs in _distinct(pairs)
            ],
        }
        for (what, theirs), pairs in points.items()
    ]


def _groups(rows: Sequence[Row], by_share: bool) -> dict[tuple[Any, ...], list[Row]]:
    """Runs under the same conditions, those at several training shares together or apart."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        place = row.place[1] if by_share else row.place[1]._replace(share=None)
        found.setdefault((place, tested_on(row.run)[1]), []).append(row)
    return found


def course(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Validation macro F1 over the epochs: a panel for each pretraining, against random weights."""
    groups = []
    for (place, simulated), members in _groups(rows, by_share=True).items():
        lines = [(row, line) for row in members if (line := _curve(row))]
        base = next((line for row, line in lines if is_random(row.run)), None)
        pretrained = [line for row, line in lines if not is_random(row.run)]
        if lines:
            where = [SETS.get(place.dataset, place.dataset), share_text(place.share)]
            where += [f"{place.fs:g} Hz"] if place.fs else []
            where += [f"ResNet-{place.depth}", *(["simulated"] if simulated else [])]
            drawn = curves.panels(pretrained, base, "validation macro F1")
            groups.append({"title": ", ".join(where), "panels": [Markup(svg) for svg in drawn]})
    return groups


def _curve(row: Row) -> curves.Curve | None:
    histories = [repeat.history.get("validation_macro_f1") for repeat in row.run.finished]
    repeats = [values for values in histories if values is not None and len(values)]
    name = NAMES.get(row.run.description.name, row.run.description.name)
    name += _FROM_SIMULATED * from_simulated(row.run)
    colour = curves.REDS[0] if is_random(row.run) else curves.BLUES[0]
    return curves.Curve(name, colour, repeats) if repeats else None


def label_efficiency(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The main score against the number of training records, where there are several numbers."""
    plots = []
    for (place, simulated), members in _groups(rows, by_share=False).items():
        done = [row for row in members if row.scores]
        if len({row.place[1].share for row in done}) < 2:
            continue
        metric = main_metric(done[0].run)
        series = []
        for start, made_up in dict.fromkeys(map(_beginning, done)):
            points: dict[int, tuple[float, float]] = {}
            for row in done:
                if _beginning(row) == (start, made_up):
                    score = row.scores[metric]
                    points.setdefault(row.run.data.train,
                                      (score.mean, score.std or 0.0))  # fmt: skip
            ours = [(n, *point) for n, point in sorted(points.items())]
            label, setup = NAMES.get(start.name, start.name), setup_text(start)
            told = f"{label}, {setup}" if setup and start not in BEST else label
            told += _FROM_SIMULATED * made_up
            colour = curves.colour_of(start.name)
            unlike = simulated or made_up or place.dataset != "cinc2017"
            theirs = [] if unlike else _table_2(start)
            series.append(curves.Series(told, colour, ours, theirs))
        hollow = any(line.paper for line in series)
        plots.append(
            {
                "title": f"{SETS.get(place.dataset, place.dataset)}, {place.fs:g} Hz, "
                f"ResNet-{place.depth}" + (", simulated" if simulated else ""),
                "svg": Markup(curves.efficiency(series, f"test {NAMED[metric]}")),
                "paper": hollow,
                "unlike": hollow and (place.fs, place.depth) != (250, 18),
            }
        )
    return plots


def _beginning(row: Row) -> tuple[paper.Start, bool]:
    """Where a run started from, and whether that had seen simulated recordings."""
    return row.place[0], from_simulated(row.run)


def _table_2(start: paper.Start) -> list[tuple[int, float, float]]:
    """The paper's macro F1 by training records."""
    found = []
    for share in (0.25, 0.5, 0.75):
        cell = paper.cells().get((start, paper.Conditions("cinc2017", share, 250.0, 18)))
        if cell and start in BEST:
            score = cell.scores["macro_f1"]
            found.append((round(share * 8528), score.mean, score.std or 0.0))
    return found


def confusion(row: Row) -> dict[str, Any]:
    """The confusion matrix over all repeats, of a run whose recordings have one class."""
    answers = row.run.scored("test")
    matrix = np.sum([answer.confusion() for answer in answers], axis=0)
    totals = np.maximum(matrix.sum(1), 1)
    return {
        "label": row.label,
        "classes": row.run.classes,
        "caption": f"{len(answers[0].keys):,} test recordings, repeats: {len(answers)}",
        "rows": [
            [(int(count), float(count / total)) for count in line]
            for line, total in zip(matrix, totals, strict=True)
        ],
    }


def several_classes(row: Row) -> dict[str, Any]:
    """Scores, thresholds and classes of a run whose recordings have any number of classes."""
    test = row.run.scored("test")[0]
    total = counts(row.run)
    lines = []
    for name, (tp, fn, fp, tn) in zip(row.run.classes, total.tolist(), strict=True):
        rates = [part / whole if whole else None
                 for part, whole in ((tp, tp + fn), (tn, tn + fp), (tp, tp + fp))]  # fmt: skip
        per_class = [mean_std(row.scores.get(f"{kind}_{name}")) for kind in ("auc", "f1")]
        found = [f"{count:,}" for count in (tp, fn, fp, tn)]
        lines.append((name, [*found, *(fixed(rate) for rate in rates), *per_class]))
    unlabelled = multi_label.count_unlabelled(test.label)
    return {
        "label": row.label,
        "caption": f"{len(test.keys):,} test recordings, {unlabelled:,} of them without a class; "
        f"repeats: {len(row.run.finished)}",
        "scores": [(METRICS[name], mean_std(row.scores.get(name)), _threshold(row, name))
                   for name in metrics(row.run)],
        "classes": lines,
    }  # fmt: skip


def _threshold(row: Row, metric: str) -> str:
    if metric == "macro_f1":
        return ".5"
    values = row.thresholds.get(metric)
    if not values:
        return DASH
    low, high, mean = min(values), max(values), float(np.mean(values))
    where = "test" if metric == "fmax" else "training"
    return f"{fixed(mean)} ({fixed(low)} to {fixed(high)}), {where} recordings"


def pretraining(run: Run) -> dict[str, Any]:
    """How a pretraining went and what it came to."""
    training = run.repeats[0]
    epochs = training.history.get("epoch")
    drawn = [] if epochs is None else curves.pretraining_curves(training.history)
    result: dict[str, Any] = {
        "label": f"{run.folder}: {run.description.name} on {sets(run.description)}",
        "epochs": 0 if epochs is None else len(epochs),
        "planned": run.description.settings.epochs,
        "curves": [Markup(svg) for svg in drawn],
        "classes": [],
        "summary": None,
    }
    if training.predictions:
        matrix = training.predictions["validation"].confusion()
        columns = (single_label.class_precision(matrix), single_label.class_recall(matrix),
                   single_label.class_f1(matrix))  # fmt: skip
        if run.description.name != "future":  # whose candidates have no names
            result["classes"] = [
                (name, *(fixed(value) for value in values), f"{support:,}")
                for name, support, *values in zip(run.classes, matrix.sum(1), *columns, strict=True)
            ]
        result["summary"] = of_frames(run)
    return result


def provenance(rows: Sequence[Row], pretrained: Sequence[Run]) -> dict[str, Any]:
    """What every run read, ran on and was set to; pretrainings known only from an init as well."""
    tuned = [(row.label, row.run.description) for row in rows]
    known = [(f"Pretraining {run.folder}", run.description) for run in pretrained]
    for row in rows:
        upstream = row.run.upstream
        if upstream and all(upstream.digest != other.digest for _, other in known):
            known.append((f"Pretraining of {row.label}", upstream))
    groups = []
    for title, members in (("finetuning", tuned), ("pretraining", known)):
        flat = [(name, dict(_flatten(run.settings.model_dump()))) for name, run in members]
        keys = dict.fromkeys(key for _, tree in flat for key in tree)
        lines = [(key, _distinct([(name, _value(tree.get(key))) for name, tree in flat]))
                 for key in keys]  # fmt: skip
        groups.append({"title": title, "lines": lines})
    alike: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    for name, run in (*tuned, *known):
        facts = (
            _listed(run.environment, "; "),
            _listed(run.versions, ", "),
            run.inputs,
            tuple(run.data.notes),
        )
        alike.setdefault(facts, []).append((name, run.digest or DASH))
    return {
        "settings": [group for group in groups if group["lines"]],
        "facts": [
            {
                "runs": runs,
                "environment": environment,
                "versions": versions,
                "inputs": [_input(item) for item in inputs],
                "notes": notes,
            }
            for (environment, versions, inputs, notes), runs in alike.items()
        ],
    }


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else DASH if value is None else str(value)


def _listed(tree: dict[str, Any] | None, between: str) -> str:
    return between.join(f"{key} {value}" for key, value in _flatten(tree or {}))


def _input(item: RunInput) -> dict[str, str]:
    said = [item.name]
    said += [f"{item.records:,} records"] if item.records is not None else []
    said += [f"{item.fs:g} Hz"] if item.fs else []
    return {"said": ", ".join(said), "digest": item.digest or DASH}


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        pairs += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [
            (prefix + key, str(value) if isinstance(value, list) else value)
        ]  # fmt: skip
    return pairs
