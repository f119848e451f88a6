"""The report: one HTML file that needs nothing else, with its tables as CSV and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import EcgpipeError
from ..files.atomic import write_text
from ..metrics import single_label
from ..plots.curves import pretraining_curves
from ..training.run_folder import Run, read_run
from . import figures, tables
from .results import Result, grouped, results, same_test
from .summary import pretraining_summary
from .text import METRICS, NAMED, mean_std, mean_std_n, p_value, percent, render

_SIGNIFICANT = 0.05  # p below which a difference counts as significant


def write_report(runs: Sequence[Path], out: Path) -> dict[str, Path]:
    """Write a report on finetuning runs, compared with the paper's numbers, and pretraining runs.

    The same run folders give the same bytes. Every score is computed from the saved predictions.
    Finetuning runs that meet the conditions of a cell of the paper's Tables 1 to 5 are shown in
    it, of several runs the first; the other runs have tables of their own.

    Parameters
    ----------
    runs
        Run folders of pretraining and finetuning, on any data sets.
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
    tuned = results([run for run in found if run.description.kind == "finetune"])
    pretrained = [run for run in found if run.description.kind == "pretrain"]
    values = _page(tuned, pretrained)
    texts = {
        "html": render("report.html.j2", **values),
        "csv": tables.csv_text(tuned),
        "md": render("report.md.j2", **values).rstrip() + "\n",
    }
    paths = {kind: out.with_name(f"{out.name.removesuffix('.html')}.{kind}") for kind in texts}
    for kind, path in paths.items():
        write_text(path, texts[kind])
    return paths


def _page(tuned: Sequence[Result], pretrained: Sequence[Run]) -> dict[str, object]:
    """What the templates of the report show."""
    finetunings, pretrainings = tables.descriptions(tuned, pretrained)
    datasets = dict.fromkeys(result.conditions.dataset_text for result in tuned)
    return {
        "title": f"ECG classification on {', '.join(datasets)}" if tuned else "Pretraining on ECG",
        "headline": headline(tuned, pretrained),
        "problems": problems(tuned, pretrained),
        "tables": tables.paper_tables(tuned),
        "others": tables.other_tables(tuned),
        "comparability": comparability(tuned),
        "protocol": tables.protocol_table(tuned),
        "done": [result for result in tuned if result.scores],
        "METRICS": METRICS,
        "learning_curves": figures.learning_curves(tuned),
        "efficiency": figures.label_efficiency(tuned),
        "recordings": figures.recordings(tuned),
        "pretraining": pretrained,
        "pretraining_summary": pretraining_summary,
        "pretraining_curves": pretraining_curves,
        "metrics": single_label,
        "provenance": tables.provenance([*finetunings, *pretrainings]),
        "settings": {
            "finetuning": tables.settings_table(finetunings),
            "pretraining": tables.settings_table(pretrainings),
        },
    }


def headline(tuned: Sequence[Result], pretrained: Sequence[Run]) -> list[str]:
    """The result in a few sentences."""
    done = [result for result in tuned if result.main in result.scores]
    if not tuned:
        finished = [run.folder for run in pretrained if run.finished]
        return [f"Pretraining only ({', '.join(finished) or 'not finished'}); no finetuning run."]
    if not done:
        return ["No repeat has finished yet, so there is no result."]
    real = [result for result in done if not result.simulated]
    start = "" if real else "On simulated recordings, which say nothing about patients: "
    gains = [result for result in done if result.gain(result.main) is not None]
    sentences = _gains([result for result in gains if result in real] or gains)
    if not sentences:
        best = [f"{r.label}: test {NAMED[r.main]} {mean_std_n(r.scores[r.main])}" for r in done]
        few = len(best) <= 3
        sentences = ["; ".join(best) + "." if few else f"{len(best)} runs have finished repeats."]
        if any(result.run.upstream for result in done):
            sentences.append(
                "No gain is stated, because there is no run from random weights with the same test "
                "recordings, sampling rate and settings."
            )
        else:
            sentences.append("There is no finished run from pretrained weights to compare with.")
    undefined = [f"{r.label}: {r.undefined}." for r in done if r.undefined]
    return [start + sentences[0], *sentences[1:], *undefined, *_differing_from_the_paper(done)]


def _gains(results: Sequence[Result]) -> list[str]:
    """A sentence for each gain, or for each data set with more than two."""
    sentences: list[str] = []
    for group in grouped(results, lambda result: result.run.dataset):
        sentences += map(_gain, group) if len(group) <= 2 else [_several_gains(group)]
    return sentences


def _several_gains(results: Sequence[Result]) -> str:
    gains = {result: result.gain(result.main) or 0.0 for result in results}
    best, worst = max(gains, key=gains.__getitem__), min(gains, key=gains.__getitem__)
    up = sum(gain > 0 for gain in gains.values())
    changes = [change for r in results if (change := r.to_random(r.main))]
    sure = [c.difference for c in changes if c.p is not None and c.p < _SIGNIFICANT]
    gained, lost = sum(d > 0 for d in sure), sum(d < 0 for d in sure)
    details = [f"changes of {percent(gains[worst])} to {percent(gains[best])}"]
    details += [f"p\xa0<\xa0.05 in {gained} of the gains"] if up else []
    details += [f"p\xa0<\xa0.05 in {lost} of the losses"] if lost else []
    base, name = best.baseline, NAMED[best.main]
    assert base
    most = (
        f", most from {mean_std(base.scores[best.main])} to {mean_std(best.scores[best.main])} "
        f"({best.label})"
    )
    return (
        f"{best.conditions.dataset_text}: pretraining raises the test {name} in {up or 'none'} "
        f"of {len(results)} comparisons with random weights ({'; '.join(details)})"
        f"{most if up else ''}."
    )


def _gain(result: Result) -> str:
    change, base = result.to_random(result.main), result.baseline
    assert change and base
    ours, theirs = result.scores[result.main], base.scores[result.main]
    verb = "raises" if change.difference > 0 else "lowers"
    text = (
        f"Pretraining ({result.label}) {verb} the test {NAMED[result.main]} from "
        f"{mean_std_n(theirs, 'random weights, ')} to {mean_std_n(ours)}, a relative "
        f"change of {percent(result.gain(result.main))}."
    )
    if ours.std is None or theirs.std is None:
        return text + " With a single repeat the spread between repeats is unknown."
    if change.p is None:
        return text
    significant = change.p < _SIGNIFICANT
    verdict = "is significant over the repeats" if significant else "may be due to chance"
    return text + f" The difference {verdict} (Welch’s test, {p_value(change.p)})."


def _differing_from_the_paper(done: Sequence[Result]) -> list[str]:
    """How many of the runs with a cell in the paper's tables differ from it."""
    changes = [change for result in done if (change := result.to_paper(result.main))]
    tested = [change.p for change in changes if change.p is not None]
    if len(tested) < 3:
        return []
    return [
        f"Of {len(tested)} runs with a cell in the paper’s tables, "
        f"{sum(p < _SIGNIFICANT for p in tested)} differ from the paper at p\xa0<\xa0.05 (Welch’s "
        f"test over the repeats; where the paper used other test recordings, p does not include "
        f"the variation between test sets)."
    ]


def comparability(tuned: Sequence[Result]) -> list[str]:
    """Which runs have the protocol of the paper, which do not, and which have no cell."""
    done = [result for result in tuned if result.main in result.scores]
    none = [result.label for result in done if result.paper is None]
    unlike = [result.label for result in done if result.paper and result.differing]
    alike = [result.label for result in done if result.paper and not result.differing]
    sentences = (
        (alike, "{}: the protocol is the same in every point that the paper states."),
        (unlike, "Not directly comparable, as the protocols differ in the points marked †: {}."),
        (none, "{}: the paper has no result under these conditions."),
    )
    return [text.format("; ".join(labels)) for labels, text in sentences if labels]


def problems(tuned: Sequence[Result], pretrained: Sequence[Run]) -> list[str]:
    """What is missing or does not fit together."""
    known = [run.description.digest for run in pretrained]
    affected = {
        "Simulated recordings": [r.label for r in tuned if r.simulated],
        "Pretrained on simulated recordings": [r.label for r in tuned if r.from_simulated],
    }
    found = [f"{problem}: {'; '.join(labels)}." for problem, labels in affected.items() if labels]
    for result in tuned:
        run = result.run
        left = [repeat.number for repeat in run.repeats if not repeat.predictions]
        if left:
            found.append(
                f"{result.label}: no predictions of repeat {_numbers(left)}, not finished; its "
                f"scores are from {len(run.finished)} of {len(run.repeats)} repeats."
            )
        if not same_test([run]):
            found.append(f"{result.label}: the repeats were tested on different recordings.")
    missing = [r.label for r in tuned if r.run.upstream and r.run.upstream.digest not in known]
    if missing:
        found.append(
            "The pretraining run is not part of this report, so its curves are missing: "
            f"{'; '.join(missing)}."
        )
    for group in grouped(tuned, lambda result: result.run.dataset):
        done = [result.run for result in group if result.run.finished]
        if all(same_test([run]) for run in done) and not same_test(done):
            found.append(
                f"{group[0].conditions.dataset_text}: the runs were tested on different "
                "recordings; their scores are not comparable."
            )
    for run in pretrained:
        if not run.finished:
            found.append(f"Pretraining {run.folder} has no predictions.csv: not finished.")
    return found


def _numbers(numbers: Sequence[int]) -> str:
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 and last - first == len(numbers) - 1:
        return f"{first} to {last}"
    return ", ".join(map(str, numbers))
