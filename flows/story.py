"""The page of a step in Markdown, from the files of its output."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from ecgpipe.errors import EcgpipeError
from ecgpipe.reports.text import markdown, plain

MOST = 1000  # rows of a table of refused records; the manifest has them all
FIRST = ("records", "refused", "excluded", "patients", "hours")  # of the counts
SCORES = {  # the first that a history has is shown
    "validation_auc": "AUC",
    "validation_macro_f1": "macro F1",
    "validation_accuracy": "accuracy",
}
FILES = ("manifest.json", "recipe.json", "run.json", "model.pt", "predictions.csv", "split.json")
UNREADABLE = (EcgpipeError, OSError, ValueError, KeyError)  # what is still being written, or away
INK, INCHES = "#8b93a1", (4.4, 2.9)  # of a figure of learning curves
_DRAWING = Lock()  # Matplotlib's style is one for all threads


def story(command: str, output: Path) -> str:
    """What a step did, so far or in the end.

    Parameters
    ----------
    command
        As one types it.
    output
        What it makes: a store, the folder of a run, or the page of a report.
    """
    parts = [f"```\n{command}\n```"]
    with suppress(*UNREADABLE):
        parts += _report(output) if output.suffix == ".html" else _folder(output)
    with suppress(*UNREADABLE):
        parts.append(_files(output))
    return "\n\n".join(parts)


def refused(output: Path) -> list[dict[str, str]]:
    """The records that a store's manifest lists as refused: key, patient, reason."""
    with suppress(*UNREADABLE):
        rows: list[dict[str, str]] = json.loads((output / "manifest.json").read_text())["refused"]
        return rows[:MOST]
    return []


def _folder(output: Path) -> Iterator[str]:
    if (output / "manifest.json").is_file():
        yield _counts(json.loads((output / "manifest.json").read_text())["totals"])
    if (output / "run.json").is_file():
        yield from _training(output)


def _counts(totals: Mapping[str, Any]) -> str:
    def told(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{name} {told(number)}" for name, number in value.items())
        return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"

    names = dict.fromkeys((*FIRST, *totals))
    rows = [(name.replace("_", " "), told(totals[name])) for name in names if totals[name] != {}]
    return markdown(("", "count"), rows)


def _training(output: Path) -> Iterator[str]:
    from ecgpipe.reports.results import summary
    from ecgpipe.training.run_folder import read_run

    run = read_run(output)
    if run.finished:
        yield f"### Result\n\n{plain(summary(output).partition(': ')[2])}"
    courses = [repeat for repeat in run.repeats if repeat.history]
    if not courses:
        return
    yield "### Learning curves"
    score = next(name for name in SCORES if name in courses[0].history)
    histories = [repeat.history for repeat in courses]
    yield " ".join(_curves(histories, score))
    columns = {"train_loss": "train loss", "validation_loss": "validation loss"}
    columns |= {"train_accuracy": "train accuracy", score: f"validation {SCORES[score]}"}
    yield markdown(
        ("repeat", "epochs", *columns.values(), "s an epoch"),
        [
            (
                str(repeat.number + 1),
                f"{len(repeat.history['epoch'])} of {run.description.settings.epochs}",
                *(f"{repeat.history[name][-1]:.3f}" for name in columns),
                f"{repeat.history['seconds'].mean():.0f}",
            )
            for repeat in courses
        ],
    )


def _curves(histories: list[dict[str, Any]], score: str) -> Iterator[str]:
    """Loss and score over the epochs, as images that are part of the text."""
    from ecgpipe.plots.curves import BLUES, REDS, Curve, curves

    def curve(label: str, colour: str, column: str) -> Curve:
        return Curve(label, colour, [history[column] for history in histories])

    train = curve("train", REDS[1], "train_loss")
    losses = [train, curve("validation", BLUES[0], "validation_loss")]
    accuracies = [curve("train accuracy", REDS[1], "train_accuracy")]
    accuracies += [curve(f"validation {SCORES[score]}", BLUES[0], score)]
    with _DRAWING:
        drawn = [curves(losses, "loss (nats)", *INCHES), curves(accuracies, "score", *INCHES)]
    width, height = (96 * inches for inches in INCHES)
    # The ink comes from the page where a figure is part of it; here it has to suit dark and light.
    how = f'xmlns="http://www.w3.org/2000/svg" color="{INK}" width="{width:g}" height="{height:g}"'
    for svg in drawn:
        svg = svg.replace("<svg ", f"<svg {how} ", 1).replace("var(--rule)", f"{INK}55")
        yield f"![curves](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _report(output: Path) -> Iterator[str]:
    """The report's own Markdown: its result and the table beside the paper's."""
    table = output.with_suffix(".md")
    if table.is_file():
        yield table.read_text()


def _files(output: Path) -> str:
    """Where what was made lies; a browser opens no files of other machines, so there are paths."""
    if output.suffix == ".html":
        found = [output.with_suffix(end) for end in (".html", ".csv", ".md")]
    else:
        found = [output / name for name in FILES] + sorted(output.glob("repeat-*/model.pt"))
    found = [path for path in found if path.is_file()]
    return "\n".join(["### Files\n", *(f"- `{path}`" for path in found or [output])])
