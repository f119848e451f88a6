"""Recordings drawn in the report: those furthest from the truth, and examples chosen beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ..plots import curves
from ..training.outputs import Example
from .names import NAMES
from .paper import SETS
from .results import Row
from .text import CLASS_NAMES

MISJUDGED, EXAMPLES = 6, 4  # recordings of a data set drawn at the most
_ROWS = {MISJUDGED: 3, EXAMPLES: 1}  # of 10 s
_COLUMNS = 5  # classes whose probability is shown


class _Answers(NamedTuple):
    """What all repeats of all runs on a data set answered for one recording."""

    truth: NDArray[np.bool_]  # (classes,)
    probability: dict[str, NDArray[np.float64]]  # initialisation -> (repeats, classes)
    wrong: dict[str, list[bool]]  # initialisation -> whether each repeat was


def sections(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The recordings of every data set: worst first, then examples.

    Every run has kept those on which its own repeats were furthest from the truth; of all these
    the worst over all repeats of all runs are drawn, by the same rule (see :func:`_trust`).
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        simulated = row.run.data.simulated
        key = (row.run.dataset, simulated, row.run.fs, *row.run.classes)
        groups.setdefault(key, []).append(row)
    several = len(groups) > 1
    found = []
    for (dataset, simulated, fs, *_), members in groups.items():
        title = ""
        if several:
            title = f"{SETS.get(dataset, dataset)}{', simulated' if simulated else ''}"
            title += f", {fs:g} Hz" if fs else ""
        worst = {e.key: e for row in members for e in row.run.misjudged}
        other = {e.key: e for row in members for e in row.run.examples if e.key not in worst}
        answers = {key: _answers(key, members) for key in (*worst, *other)}
        many = members[0].run.many_of
        ranked = sorted(worst, key=lambda key: (_trust(answers[key], many), key))
        section = {
            "title": title,
            "many": many,
            "misjudged": [_item(worst[key], answers[key], members, MISJUDGED)
                          for key in ranked[:MISJUDGED]],
            "examples": [_item(example, answers[key], members, EXAMPLES)
                         for key, example in list(other.items())[:EXAMPLES]],
        }  # fmt: skip
        if section["misjudged"] or section["examples"]:
            found.append(section)
    return found


def _answers(key: str, rows: Sequence[Row]) -> _Answers | None:
    """Every repeat's answer; None of a recording that no finished repeat has tested."""
    truth: NDArray[np.bool_] | None = None
    probability: dict[str, list[NDArray[np.float64]]] = {}
    wrong: dict[str, list[bool]] = {}
    for row in rows:
        for test in row.run.scored("test"):
            place = test.place.get(key)
            if place is None:
                continue
            truth = test.truth()[place]
            start = row.run.description.name
            probability.setdefault(start, []).append(test.probability[place])
            wrong.setdefault(start, []).append(bool((test.decision()[place] != truth).any()))
    if truth is None:
        return None
    return _Answers(truth, {name: np.array(p) for name, p in probability.items()}, wrong)


def _trust(answers: _Answers | None, many: bool) -> float:
    """How near the repeats came to the truth, 0 to 1; untested recordings come last.

    By the rule of :func:`ecgpipe.training.examples.save_misjudged`: the mean probability of the
    true class; with many labels, the product over them of the mean probability of the right answer.
    """
    if answers is None:
        return 1.0
    p = np.concatenate(list(answers.probability.values())).mean(0)
    right = np.where(answers.truth, p, 1 - p) if many else p[answers.truth]
    return float(right.prod())


def _item(
    example: Example, answers: _Answers | None, rows: Sequence[Row], kind: int
) -> dict[str, Any]:
    classes, many = rows[0].run.classes, rows[0].run.many_of
    seconds, shown = len(example.signal) / example.fs, _ROWS[kind] * 10
    item: dict[str, Any] = {
        "key": example.key,
        "truth": "not tested",
        "said": f"{seconds:.1f} s at {example.fs:g} Hz"
        + (f", the first {shown} s drawn" if seconds > shown else ""),
        "wrong": "",
        "columns": [],
        "answers": [],
        "svg": Markup(curves.strip(example, _ROWS[kind])),
    }
    if answers is None:
        return item
    true = [classes[place] for place in np.flatnonzero(answers.truth)]
    item["truth"] = ", ".join(f"{c} ({CLASS_NAMES[c]})" if c in CLASS_NAMES else c for c in true)
    item["truth"] = item["truth"] or "no class"
    every = np.concatenate(list(answers.probability.values()))
    flat = [one for repeats in answers.wrong.values() for one in repeats]
    item["wrong"] = f"{sum(flat)} of {len(flat)} repeats wrong"
    # All true classes, then the most probable ones, in the order of the classes.
    order = np.lexsort((-every.mean(0), ~answers.truth))
    columns = sorted(order[: max(_COLUMNS, int(answers.truth.sum()))].tolist())
    item["columns"] = [(classes[place], bool(answers.truth[place])) for place in columns]
    for name, probability in answers.probability.items():
        mean = probability.mean(0)
        chosen = mean >= 0.5 if many else mean == mean.max()
        item["answers"].append(
            {
                "label": NAMES.get(name, name),
                "wrong": f"{sum(answers.wrong[name])} of {len(answers.wrong[name])}",
                "values": [(f"{mean[place]:.2f}".lstrip("0") if mean[place] < 0.995 else "1.00",
                            bool(chosen[place])) for place in columns],
            }
        )  # fmt: skip
    return item
