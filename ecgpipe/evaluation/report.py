"""The report: one HTML file that needs nothing else, with its table as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from ..errors import EcgpipeError
from ..tasks import scores
from . import figures
from .runs import Run, read_run
from .tables import (
    DASH,
    Row,
    csv_text,
    fixed,
    is_random,
    markdown,
    mean_std,
    percent,
    plain,
    rows,
    sets,
    signed,
)
from .wording import headline, of_frames, problems, to_the_paper

CLASS_NAMES = {"N": "Normal", "A": "AF", "O": "Other", "~": "Noisy"}
_EXAMPLES = 6  # recordings drawn at the most


def write_report(runs: Sequence[Path], out: Path) -> dict[str, Path]:
    """Write a report on finetuning runs, beside the paper's numbers, and on pretraining runs.

    The same run folders give the same bytes. Every score is computed from the saved predictions.

    Parameters
    ----------
    runs
        Run folders in the order of the table; pretraining and finetuning in any mixture.
    out
        The page; ``.html`` is added where it is missing.

    Returns
    -------
    The paths written: ``html``, ``csv`` and ``md``, all with the same stem.

    Raises
    ------
    EcgpipeError
        No runs, a folder that is no run, or finetuning runs on different data sets.
    """
    found = [read_run(folder) for folder in dict.fromkeys(path.resolve() for path in runs)]
    if not found:
        raise EcgpipeError("report: no run folders given; name at least one")
    tuned = [run for run in found if run.info["kind"] == "finetune"]
    pretrained = [run for run in found if run.info["kind"] == "pretrain"]
    if len({(run.info["dataset"], *run.classes) for run in tuned}) > 1:
        raise EcgpipeError(
            "report: the finetuning runs are on different data sets ("
            + ", ".join(f"{run.folder}: {run.info['dataset']}" for run in tuned)
            + "); write one report for each data set"
        )
    table = rows(tuned)
    page = _page(table, pretrained)
    stem = out.name.removesuffix(".html")
    paths = {kind: out.with_name(f"{stem}.{kind}") for kind in ("html", "csv", "md")}
    texts = {"html": _html(page), "csv": csv_text(table), "md": _markdown(page)}
    out.parent.mkdir(parents=True, exist_ok=True)
    for kind, path in paths.items():
        path.write_text(texts[kind], encoding="utf-8", newline="\n")
    return paths


def _page(table: Sequence[Row], pretrained: Sequence[Run]) -> dict[str, Any]:
    """Everything the page says, before it is laid out."""
    runs = [row.run for row in table]
    classes = runs[0].classes if runs else []
    return {
        "title": f"ECG classification on {sets(runs[0].info)}" if runs else "Pretraining on ECG",
        "headline": headline(table, pretrained),
        "to_the_paper": to_the_paper(table),
        "problems": problems(table, pretrained),
        "class_names": [f"{CLASS_NAMES[c]} ({c})" if c in CLASS_NAMES else c for c in classes],
        "table": [_result(row) for row in table],
        "protocol": _protocol(table),
        "curves": _validation_curves(table),
        "confusions": [_confusion(row) for row in table if row.macro_f1],
        "pretraining": [_pretraining(run) for run in pretrained],
        "recordings": _recordings(table),
        "provenance": _provenance([(row.label, row.run) for row in table], pretrained),
    }


def _result(row: Row) -> dict[str, Any]:
    cell, n = row.paper, len(row.run.classes)
    theirs = (cell.class_f1 if cell else ()) or (None,) * n
    ours = row.class_f1 or (None,) * n
    return {
        "label": row.label,
        "repeats": f"{len(row.run.finished)} of {len(row.run.repeats)}",
        "scores": [mean_std(score) for score in (row.macro_f1, *ours)],
        "paper": [mean_std(score) for score in (cell.macro_f1, *theirs)] if cell else None,
        "paper_table": cell.table if cell else None,
        "difference": signed(row.to_paper),
        "gain": percent(row.gain),
        "differs": bool(row.differing),
    }


def _protocol(table: Sequence[Row]) -> list[dict[str, Any]]:
    """Points of the protocol, each with the paper's choice and every run's."""
    points = {point.what: point.paper for row in table for point in row.differences}
    lines = []
    for what, paper in points.items():
        here = [next((p for p in row.differences if p.what == what), None) for row in table]
        lines.append({"what": what, "paper": paper, "here": here})
    return lines


def _colours(table: Sequence[Row]) -> list[str]:
    """Red for random weights, blue for pretrained ones, other hues where there are several."""
    left = {True: list(figures.REDS), False: list(figures.BLUES)}
    colours = []
    for row in table:
        hues = left[is_random(row.run)]
        colours.append(hues.pop(0) if len(hues) > 1 else hues[0])
    return colours


def _validation_curves(table: Sequence[Row]) -> Markup | None:
    lines = []
    for row, colour in zip(table, _colours(table), strict=True):
        histories = [repeat.history.get("validation_macro_f1") for repeat in row.run.finished]
        if repeats := [values for values in histories if values is not None and len(values)]:
            lines.append(figures.Curve(row.label, colour, repeats))
    return Markup(figures.curves(lines, "validation macro F1")) if lines else None


def _confusion(row: Row) -> dict[str, Any]:
    answers = row.run.scored("test")
    matrix = np.sum([answer.confusion() for answer in answers], axis=0)
    return {
        "label": row.label,
        "classes": row.run.classes,
        "caption": f"{len(answers[0].keys):,} test recordings, repeats: {len(answers)}",
        "rows": _shares(matrix),
    }


def _shares(matrix: NDArray[np.int64]) -> list[list[tuple[int, float]]]:
    totals = np.maximum(matrix.sum(1), 1)
    return [
        [(int(count), float(count / total)) for count in counts]
        for counts, total in zip(matrix, totals, strict=True)
    ]


def _pretraining(run: Run) -> dict[str, Any]:
    training = run.repeats[0]
    epochs = training.history.get("epoch")
    result: dict[str, Any] = {
        "label": f"{run.folder}: {run.info['name']} on {sets(run.info)}",
        "epochs": 0 if epochs is None else len(epochs),
        "planned": run.settings["epochs"],
        "curves": [Markup(svg) for svg in figures.pretraining_curves(training.history)]
        if epochs is not None
        else [],
        "classes": [],
        "summary": None,
    }
    if training.predictions:
        matrix = training.predictions["validation"].confusion()
        columns = (
            scores.class_precision(matrix),
            scores.class_recall(matrix),
            scores.class_f1(matrix),
        )
        if run.info["name"] != "future":  # whose candidates have no names
            result["classes"] = [
                (name, *(fixed(value) for value in values), f"{support:,}")
                for name, support, *values in zip(run.classes, matrix.sum(1), *columns, strict=True)
            ]
        result["summary"] = of_frames(run)
    return result


def _recordings(table: Sequence[Row]) -> list[dict[str, Any]]:
    """Test recordings with their true label and the mean answer of every run."""
    examples = {example.key: example for row in table for example in row.run.examples}
    result = []
    for key, example in list(examples.items())[:_EXAMPLES]:
        truth, answers = DASH, []
        for row in table:
            scored = [answer for answer in row.run.scored("test") if key in answer.keys]
            if scored:
                places = [answer.keys.index(key) for answer in scored]
                truth = row.run.classes[scored[0].label[places[0]]]
                pairs = zip(scored, places, strict=True)
                mean = np.mean([answer.probability[place] for answer, place in pairs], axis=0)
                answers.append((row.label, [f"{p:.2f}" for p in mean], int(mean.argmax())))
        result.append(
            {
                "key": key,
                "truth": truth,
                "name": CLASS_NAMES.get(truth, ""),
                "seconds": f"{len(example.signal) / example.fs:.1f}",
                "fs": f"{example.fs:g}",
                "answers": answers,
                "classes": table[0].run.classes,
                "svg": Markup(figures.strip(example)),
            }
        )
    return result


def _provenance(named: Sequence[tuple[str, Run]], pretrained: Sequence[Run]) -> dict[str, Any]:
    """What every run read, ran on and was set to; pretrainings known only from an init as well."""
    infos = [(label, run.info) for label, run in named]
    known = [(f"Pretraining {run.folder}", run.info) for run in pretrained]
    for label, run in named:
        upstream = run.upstream
        if upstream and all(upstream.get("digest") != info.get("digest") for _, info in known):
            known.append((f"Pretraining of {label}", upstream))
    groups = []
    for title, members in (("Finetuning", infos), ("Pretraining", known)):
        flat = [dict(_flatten(info["settings"])) for _, info in members]
        keys = list(dict.fromkeys(key for tree in flat for key in tree))
        groups.append(
            {
                "title": title,
                "names": [name for name, _ in members],
                "lines": [(key, [str(tree.get(key, DASH)) for tree in flat]) for key in keys],
            }
        )
    facts = [
        {
            "name": name,
            "digest": str(info.get("digest", DASH)),
            "environment": dict(_flatten(info.get("environment") or {})),
            "versions": dict(_flatten(info.get("versions") or {})),
            "inputs": info.get("inputs") or [],
            "notes": (info.get("data") or {}).get("notes") or [],
        }
        for name, info in (*infos, *known)
    ]
    return {"settings": [group for group in groups if group["names"]], "facts": facts}


def _flatten(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in tree.items():
        pairs += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [
            (prefix + key, value)
        ]  # fmt: skip
    return pairs


def _html(page: dict[str, Any]) -> str:
    environment = Environment(
        loader=PackageLoader("ecgpipe", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page)


def _markdown(page: dict[str, Any]) -> str:
    parts = [f"# {plain(page['title'])}\n", *(f"{plain(text)}\n" for text in page["headline"])]
    if page["table"]:
        body = []
        for row in page["table"]:
            comparison = [row["difference"], row["gain"]]
            body.append([row["label"], row["repeats"], *row["scores"], *comparison])
            if row["paper"]:
                body.append([f"paper, Table {row['paper_table']}", "10", *row["paper"], "", ""])
        f1 = [f"F1 {name}" for name in page["class_names"]]
        header = ["", "repeats", "macro F1", *f1, "to the paper", "gain over random"]
        parts += [markdown(header, body), *(f"{plain(text)}\n" for text in page["to_the_paper"])]
        protocol = [
            [line["what"], line["paper"], *(p.here if p else DASH for p in line["here"])]
            for line in page["protocol"]
        ]
        names = [row["label"] for row in page["table"]]
        parts.append(markdown(["protocol", "paper", *names], protocol))
    parts += [f"- {plain(text)}\n" for text in page["problems"]]
    return "\n".join(parts)
