"""The sentences of the report: the result, what it may be compared with, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..metrics import single_label
from ..training.outputs import Run, read_run
from .paper import SETS, Score
from .protocol import from_simulated
from .results import Row, is_random, metrics, rows, same_test
from .text import METRICS, NAMED, fixed, mean_std, p_value, percent

_SURE = 0.05  # p below which a difference is called one


def summary(folder: Path) -> str:
    """What a run came to, in a line, from its saved predictions.

    Raises
    ------
    EcgpipeError
        See :func:`ecgpipe.training.outputs.read_run`.
    """
    run = read_run(folder)
    if not run.finished:
        return f"{folder}: not finished; run its command again"
    if run.description.kind == "pretrain":
        return f"{folder}: {of_frames(run)}"
    (row,) = rows([run])
    first, *others = metrics(run)
    told = [f"{METRICS[name]} {mean_std(row.scores.get(name))}" for name in others]
    if not others:
        told = [f"{name} {fixed(row.scores[f'f1_{name}'].mean)}" for name in run.classes]
    return f"{folder}: test {NAMED[first]} {_score(row)}; {', '.join(told)}"


def of_frames(run: Run) -> str:
    """Scores of a finished pretraining on its validation items."""
    matrix = run.scored("validation")[0].confusion()
    accuracy = fixed(single_label.accuracy(matrix))
    if run.description.name == "future":
        return (
            f"{matrix.sum():,} validation contexts: the true future found among {len(matrix)} "
            f"frames with accuracy {accuracy} (by chance {fixed(1 / len(matrix))})"
        )
    return (
        f"{matrix.sum():,} validation frames: accuracy {accuracy}, balanced "
        f"accuracy {fixed(single_label.balanced_accuracy(matrix))}, macro F1 "
        f"{fixed(single_label.macro_f1(matrix))}"
    )


def headline(table: Sequence[Row], pretrained: Sequence[Run]) -> list[str]:
    """The result in a few sentences."""
    done = [row for row in table if row.main in row.scores]
    if not table:
        finished = [run.folder for run in pretrained if run.finished]
        return [f"Pretraining only ({', '.join(finished) or 'not finished'}); no finetuning run."]
    if not done:
        return ["No repeat has finished yet, so there is no result."]
    simulated = [row for row in done if row.run.data.simulated]
    start = "On simulated recordings, which say nothing about patients: "
    start = start if len(simulated) == len(done) else ""
    gains = [row for row in done if row.gain(row.main) is not None]
    sentences = _gains([row for row in gains if row not in simulated] or gains)
    if not sentences:
        best = [f"{row.label}: test {NAMED[row.main]} {_score(row)}" for row in done]
        few = len(best) <= 3
        sentences = ["; ".join(best) + "." if few else f"{len(best)} runs have finished repeats."]
        if any(not is_random(row.run) for row in done):
            sentences.append(
                "No gain is stated, because there is no run from random weights with the same test "
                "recordings, sampling rate and settings."
            )
        else:
            sentences.append("There is no finished run from pretrained weights to compare with.")
    return [start + sentences[0], *sentences[1:], *_beside_the_paper(done)]


def _gains(gains: Sequence[Row]) -> list[str]:
    """A sentence for each gain, or for each data set with more than two."""
    sentences: list[str] = []
    for dataset in dict.fromkeys(row.run.dataset for row in gains):
        here = [row for row in gains if row.run.dataset == dataset]
        if len(here) <= 2:
            sentences += [_gain(row) for row in here]
            continue
        values = {row: row.gain(row.main) or 0.0 for row in here}
        best, worst = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
        up = sum(value > 0 for value in values.values())
        sure, lost = _sure(here, 1), _sure(here, -1)
        told = [f"changes of {percent(values[worst])} to {percent(values[best])}"]
        told += [f"p\xa0<\xa0.05 in {sure} of the gains"] if up else []
        told += [f"p\xa0<\xa0.05 in {lost} of the losses"] if lost else []
        base = best.baseline
        assert base
        most = (
            f", most from {mean_std(base.scores[best.main])} to "
            f"{mean_std(best.scores[best.main])} ({best.label})"
        )
        sentences.append(
            f"{SETS.get(dataset, dataset)}: pretraining raises the test {NAMED[best.main]} in "
            f"{up or 'none'} of {len(here)} comparisons with random weights ({'; '.join(told)})"
            f"{most if up else ''}."
        )
    return sentences


def _sure(rows: Sequence[Row], sign: int) -> int:
    """How many gains (sign 1), or losses (-1), are more than chance."""
    changes = [change for row in rows if (change := row.to_random(row.main))]
    return sum(c.p is not None and c.p < _SURE and sign * c.difference > 0 for c in changes)


def _gain(row: Row) -> str:
    change, base = row.to_random(row.main), row.baseline
    assert change and base
    ours, theirs = row.scores[row.main], base.scores[row.main]
    verb = "raises" if change.difference > 0 else "lowers"
    text = (
        f"Pretraining ({row.label}) {verb} the test {NAMED[row.main]} from {mean_std(theirs)} "
        f"(random weights, {_times(theirs)}) to {mean_std(ours)} ({_times(ours)}), a relative "
        f"change of {percent(row.gain(row.main))}."
    )
    if ours.std is None or theirs.std is None:
        return text + " With a single repeat the spread between repeats is unknown."
    if change.p is None:
        return text
    verdict = "may be chance" if change.p >= _SURE else "is more than repeats vary"
    return text + f" That {verdict} (Welch’s test, {p_value(change.p)})."


def _beside_the_paper(done: Sequence[Row]) -> list[str]:
    """How many of the runs that stand in a cell of the paper differ from its number."""
    changes = [change for row in done if (change := row.to_paper(row.main))]
    tested = [change for change in changes if change.p is not None]
    if len(tested) < 3:
        return []
    alike = sum(change.p >= _SURE for change in tested if change.p is not None)
    return [
        f"Of {len(tested)} runs that stand in a cell of the paper’s tables, {len(tested) - alike} "
        f"differ from it at p\xa0<\xa0.05 (Welch’s test over the repeats; where the paper’s "
        f"test recordings are another draw, p leaves out that spread)."
    ]


def _score(row: Row) -> str:
    score = row.scores[row.main]
    return f"{mean_std(score)} ({_times(score)})"


def _times(score: Score) -> str:
    return f"{score.n} repeat{'s' if score.n > 1 else ''}"


def to_the_paper(table: Sequence[Row]) -> list[str]:
    """Which runs stand beside the paper like for like, which do not, which have no cell."""
    done = [row for row in table if row.main in row.scores]
    none = [row.label for row in done if row.paper is None]
    unlike = [row.label for row in done if row.paper and row.differing]
    alike = [row.label for row in done if row.paper and not row.differing]
    sentences = []
    if alike:
        sentences.append(
            f"{'; '.join(alike)}: the protocol is the same in every point that the paper states."
        )
    if unlike:
        sentences.append(
            f"Not like for like, since the protocols differ in points marked below (†): "
            f"{'; '.join(unlike)}."
        )
    if none:
        sentences.append(f"{'; '.join(none)}: the paper has no result under these conditions.")
    return sentences


def _numbers(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 and last - first == len(numbers) - 1:
        return f"{first} to {last}"
    return ", ".join(map(str, numbers))


def problems(table: Sequence[Row], pretrained: Sequence[Run]) -> list[str]:
    """What is missing or does not fit together."""
    found = []
    simulated = [row.label for row in table if row.run.data.simulated]
    if simulated:
        found.append(f"Simulated recordings: {'; '.join(simulated)}.")
    simulated = [row.label for row in table if from_simulated(row.run)]
    if simulated:
        found.append(f"Pretrained on simulated recordings: {'; '.join(simulated)}.")
    for row in table:
        run = row.run
        left = [repeat.number for repeat in run.repeats if not repeat.predictions]
        if left:
            found.append(
                f"{row.label}: no predictions of repeat {_numbers(left)}, not finished; its "
                f"numbers rest on {len(run.finished)} of {len(run.repeats)} repeats."
            )
        if not same_test([run]):
            found.append(f"{row.label}: the repeats were tested on different recordings.")
    here = [other.description.digest for other in pretrained]
    missing = [
        row.label for row in table if row.run.upstream and row.run.upstream.digest not in here
    ]
    if missing:
        found.append(
            "The pretraining run is not part of this report, so its curves are missing: "
            f"{'; '.join(missing)}."
        )
    for dataset in dict.fromkeys(row.run.dataset for row in table):
        done = [row.run for row in table if row.run.finished and row.run.dataset == dataset]
        if all(same_test([run]) for run in done) and not same_test(done):
            found.append(
                f"{SETS.get(dataset, dataset)}: the runs were tested on different recordings; "
                "their scores do not compare."
            )
    for run in pretrained:
        if not run.finished:
            found.append(f"Pretraining {run.folder} has no predictions.csv: not finished.")
    return found
