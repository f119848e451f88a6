"""The sentences of the report: the result, what it may be compared with, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..tasks import scores
from .runs import Run, read_run
from .tables import Row, Spread, fixed, is_random, mean_std, percent, rows, same_test


def summary(folder: Path) -> str:
    """What a run came to, in a line, from its saved predictions.

    Raises
    ------
    EcgpipeError
        See :func:`ecgpipe.evaluation.runs.read_run`.
    """
    run = read_run(folder)
    if not run.finished:
        return f"{folder}: not finished; run its command again"
    if run.info["kind"] == "pretrain":
        return f"{folder}: {of_frames(run)}"
    (row,) = rows([run])
    by_class = zip(run.classes, row.class_f1, strict=True)
    classes = ", ".join(f"{name} {fixed(score.mean)}" for name, score in by_class)
    assert row.macro_f1
    return f"{folder}: test macro F1 {_score(row)}; {classes}"


def of_frames(run: Run) -> str:
    """Scores of a finished pretraining on its validation items."""
    matrix = run.scored("validation")[0].confusion()
    accuracy = fixed(scores.accuracy(matrix))
    if run.info["name"] == "future":
        return (
            f"{matrix.sum():,} validation contexts: the true future found among {len(matrix)} "
            f"frames with accuracy {accuracy} (by chance {fixed(1 / len(matrix))})"
        )
    return (
        f"{matrix.sum():,} validation frames: accuracy {accuracy}, balanced "
        f"accuracy {fixed(scores.balanced_accuracy(matrix))}, macro F1 "
        f"{fixed(scores.macro_f1(matrix))}"
    )


def headline(table: Sequence[Row], pretrained: Sequence[Run]) -> list[str]:
    """The result in a sentence or two."""
    done = [row for row in table if row.macro_f1]
    if not table:
        finished = [run.folder for run in pretrained if run.finished]
        return [f"Pretraining only ({', '.join(finished) or 'not finished'}); no finetuning run."]
    if not done:
        return ["No repeat has finished yet, so there is no result."]
    simulated = any(row.run.data.get("simulated") for row in table)
    start = "On simulated recordings, which say nothing about patients: " if simulated else ""
    sentences = [start + _gain(row) for row in done if row.gain is not None]
    if not sentences:
        best = [f"{row.label}: test macro F1 {_score(row)}" for row in done]
        sentences = [start + "; ".join(best) + "."]
        if any(not is_random(row.run) for row in done):
            sentences.append(
                "No gain is stated, because there is no run from random weights with the same test "
                "recordings, sampling rate and settings."
            )
        else:
            sentences.append("There is no finished run from pretrained weights to compare with.")
    return sentences


def _gain(row: Row) -> str:
    ours, base = row.macro_f1, row.baseline
    assert ours and base and row.gain is not None
    change = ours.mean - base.mean
    verb = "raises" if change > 0 else "lowers"
    text = (
        f"Pretraining ({row.label}) {verb} the test macro F1 from {mean_std(base)} (random "
        f"weights, {_times(base)}) to {mean_std(ours)} ({_times(ours)}), a relative change of "
        f"{percent(row.gain)}."
    )
    if ours.std is None or base.std is None:
        return text + " With a single repeat the spread between repeats is unknown."
    if abs(change) <= max(ours.std, base.std):
        return text + " That is within one standard deviation of the repeats."
    return text


def _score(row: Row) -> str:
    assert row.macro_f1
    return f"{mean_std(row.macro_f1)} ({_times(row.macro_f1)})"


def _times(score: Spread) -> str:
    return f"{score.n} repeat{'s' if score.n > 1 else ''}"


def to_the_paper(table: Sequence[Row]) -> list[str]:
    """The paper's numbers for the rows, and whether they may be compared."""
    sentences = []
    for row in table:
        if row.macro_f1 is None:
            continue
        if row.paper is None:
            sentences.append(f"{row.label}: the paper has no result under these conditions.")
            continue
        theirs = row.paper.macro_f1
        text = f"{row.label}: the paper reports {mean_std(theirs)} (Table {row.paper.table}). "
        if row.differing:
            points = ", ".join(point.what.lower() for point in row.differing)
            text += f"Not like for like, since the protocols differ in: {points}."
        else:
            inside = abs(row.to_paper or 0) <= theirs.std
            text += (
                f"The protocol is the same in every point that the paper states, and our mean lies "
                f"{'within' if inside else 'outside'} one standard deviation "
                f"(± {fixed(theirs.std)}) of its mean."
            )
        sentences.append(text)
    return sentences


def problems(table: Sequence[Row], pretrained: Sequence[Run]) -> list[str]:
    """What is missing or does not fit together."""
    found = []
    for row in table:
        run = row.run
        left = [str(repeat.number) for repeat in run.repeats if not repeat.predictions]
        if left:
            found.append(
                f"{row.label}: no predictions of repeat {', '.join(left)}, not finished; its "
                f"numbers rest on {len(run.finished)} of {len(run.repeats)} repeats."
            )
        if run.data.get("simulated"):
            found.append(f"{row.label}: the recordings are simulated.")
        if not same_test([run]):
            found.append(f"{row.label}: the repeats were tested on different recordings.")
        here = [other.info.get("digest") for other in pretrained]
        if run.upstream and run.upstream.get("digest") not in here:
            found.append(
                f"{row.label}: its pretraining run is not part of this report, so its curves are "
                "missing."
            )
    done = [row.run for row in table if row.run.finished]
    if done and all(same_test([run]) for run in done) and not same_test(done):
        found.append("The runs were tested on different recordings; their scores do not compare.")
    for run in pretrained:
        if not run.finished:
            found.append(f"Pretraining {run.folder} has no predictions.csv: not finished.")
    return found
