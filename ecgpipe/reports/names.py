"""Runs, setups and data sets in words: the same names in every part of the report."""

from __future__ import annotations

from collections.abc import Sequence

from ..training.outputs import Run
from ..training.run_description import RunDescription
from .paper import SETS, Start
from .protocol import conditions, from_simulated, start, tested_on

NAMES = {
    "random": "Random weights",
    "beat": "Beat classification",
    "rhythm": "Rhythm classification",
    "heart_rate": "Heart rate classification",
    "future": "Future prediction",
    "strodthoff": "Strodthoff et al.",
}


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run, with whatever of its conditions tells the runs apart."""
    tasks = [run.description.name for run in runs]
    setups = [setup_text(start(run)) for run in runs]
    # Setups differ between tasks as a rule; they tell runs apart where one task has several.
    of_task = {task: {s for t, s in zip(tasks, setups, strict=True) if t == task} for task in tasks}
    names = [
        [NAMES.get(task, task)] + [setup] * (len(of_task[task]) > 1)
        for task, setup in zip(tasks, setups, strict=True)
    ]
    places = [conditions(run) for run in runs]
    on = [SETS.get(name, name) + " (simulated)" * made for name, made in map(tested_on, runs)]
    told = [
        [
            f"pretrained on {sets(run.upstream)}" + " (simulated)" * from_simulated(run)
            if run.upstream
            else ""
            for run in runs
        ],
        [share_text(place.share) for place in places],
        [f"{place.fs:g} Hz" if place.fs else "" for place in places],
        [f"ResNet-{place.depth}" for place in places],
    ]
    for i, name in enumerate(names):
        name += [on[i]] if len(set(on)) > 1 else []
        alike = [j for j, place in enumerate(places) if place.dataset == places[i].dataset]
        for values in told:
            if values[i] and len({values[j] for j in alike} - {""}) > 1:
                name.append(values[i])
    joined = [", ".join(name) for name in names]
    return [
        f"{name} ({run.folder})" if joined.count(name) > 1 else name
        for name, run in zip(joined, runs, strict=True)
    ]


def setup_text(start: Start) -> str:
    """A pretraining's configuration in words."""
    if start.name == "future":
        frame, context, negatives, offset = start.setup.split(",")
        return f"frame {frame}, context {context}, {negatives} negatives, offset {offset}"
    return "" if start.setup == "-" else f"frame {start.setup}"


def share_text(share: float | None) -> str:
    """A training share in words."""
    return "official folds" if share is None else f"{100 * share:g} % train"


def sets(run: RunDescription) -> str:
    """The data sets of a run in words."""
    return " + ".join(run.datasets)
