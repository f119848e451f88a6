"""The result of one run, as a line of text and as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..metrics import single_label
from ..training.run_folder import Run, read_run
from .results import results
from .text import METRICS, NAMED, fixed, mean_std, mean_std_n


def outcome(folder: Path) -> dict[str, Any]:
    """The result of a run as plain values, from its saved predictions.

    The run's name, kind, digest and classes, and under ``scores``, of a finetuning, the mean,
    standard deviation and number of repeats of every score on the test set; of a pretraining,
    accuracy, balanced accuracy, macro F1 and number of items of its validation. A score that does
    not exist is absent, and ``undefined`` says why. Raises what
    :func:`ecgpipe.training.run_folder.read_run` raises.
    """
    run = read_run(folder)
    scores: dict[str, Any] = {}
    undefined = ""
    if run.description.kind == "finetune":
        (result,) = results([run])
        scores = {name: score._asdict() for name, score in result.scores.items()}
        undefined = result.undefined
    elif run.finished:
        scores = _validation_scores(run)
    names = ("kind", "name", "dataset", "digest", "classes")
    facts = {name: run.description.to_json().get(name) for name in names}
    found = {"run": str(folder), **facts, "scores": scores}
    return {**found, "undefined": undefined} if undefined else found


def summary(folder: Path) -> str:
    """The result of a run in one line, from its saved predictions.

    Raises what :func:`ecgpipe.training.run_folder.read_run` raises.
    """
    run = read_run(folder)
    if not run.finished:
        return f"{folder}: not finished; run its command again"
    if run.description.kind == "pretrain":
        return f"{folder}: {pretraining_summary(run)}"
    (result,) = results([run])
    first = result.main
    others = [name for name in result.metrics if name != first and name in result.scores]
    scores = [f"{METRICS[name]} {mean_std(result.scores.get(name))}" for name in others]
    if not others:
        scores = [f"{name} {fixed(result.scores[f'f1_{name}'].mean)}" for name in run.classes]
    if result.undefined:
        scores.append(result.undefined)
    return f"{folder}: test {NAMED[first]} {mean_std_n(result.scores[first])}; {', '.join(scores)}"


def pretraining_summary(run: Run) -> str:
    """Scores of a finished pretraining on its validation items."""
    items, *scores = _validation_scores(run).values()
    accuracy, balanced, macro_f1 = map(fixed, scores)
    if run.description.name == "future":
        frames = run.scored("validation")[0].probability.shape[1]
        return (
            f"{items:,} validation contexts: the true future found among {frames} "
            f"frames with accuracy {accuracy} (by chance {fixed(1 / frames)})"
        )
    return (
        f"{items:,} validation frames: accuracy {accuracy}, balanced accuracy {balanced}, "
        f"macro F1 {macro_f1}"
    )


def _validation_scores(run: Run) -> dict[str, float]:
    """Number of validation items of a finished pretraining, and its scores on them."""
    items = run.scored("validation")[0]
    return {"items": len(items.keys), **single_label.scores_one_of(items.label, items.probability)}
