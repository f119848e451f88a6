"""The page of a step as Markdown text, from the files in its output."""

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

MAX_ROWS = 1000  # of a table of refused records; the manifest has all
FIRST_COUNTS = ("records", "refused", "excluded", "patients", "hours")  # then the others
SCORES = {  # the first one in a history is shown
    "validation_auc": "AUC",
    "validation_macro_f1": "macro F1",
    "validation_accuracy": "accuracy",
}
FILES = ("manifest.json", "recipe.json", "run.json", "model.pt", "predictions.csv", "split.json")
UNREADABLE = (EcgpipeError, OSError, ValueError, KeyError)  # incomplete or unreachable
COLOUR, INCHES = "#8b93a1", (4.4, 2.9)  # of figures; for dark and light pages
_DRAWING = Lock()  # steps draw in several threads, but Matplotlib's style is global


def import_plots() -> None:
    """Import what the page of a training needs: a cancellation could break the import later."""
    import ecgpipe.plots.curves
    import ecgpipe.reports.results  # noqa: F401


def page_text(command: str, output: Path) -> str:
    """Describe what a command has made so far; its output is a store, a run or a report.html."""
    parts = [f"```\n{command}\n```"]
    with suppress(*UNREADABLE):
        parts += _results(output)
    with suppress(*UNREADABLE):
        parts.append(_files(output))
    return "\n\n".join(parts)


def refused_records(output: Path) -> list[dict[str, str]]:
    """The refused records of a store, from its manifest: key, patient, reason."""
    with suppress(*UNREADABLE):
        rows: list[dict[str, str]] = json.loads((output / "manifest.json").read_text())["refused"]
        return rows[:MAX_ROWS]
    return []


def _results(output: Path) -> Iterator[str]:
    """The counts of a store, the scores of a run, or the tables of a report."""
    if output.suffix == ".html" and (table := output.with_suffix(".md")).is_file():
        yield table.read_text()
    if (output / "manifest.json").is_file():
        yield _counts(json.loads((output / "manifest.json").read_text())["totals"])
    if (output / "run.json").is_file():
        yield from _training(output)


def _counts(totals: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{name} {text(number)}" for name, number in value.items())
        return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"

    names = dict.fromkeys((*FIRST_COUNTS, *totals))
    rows = [(name.replace("_", " "), text(totals[name])) for name in names if totals[name] != {}]
    return markdown(("", "count"), rows)


def _training(output: Path) -> Iterator[str]:
    from ecgpipe.reports.summary import summary
    from ecgpipe.training.run_folder import read_run

    run = read_run(output)
    if run.finished:
        yield f"### Result\n\n{plain(summary(output).partition(': ')[2])}"
    repeats = [repeat for repeat in run.repeats if repeat.history]
    if not repeats:
        return
    yield "### Learning curves"
    score = next(name for name in SCORES if name in repeats[0].history)
    histories = [repeat.history for repeat in repeats]
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
            for repeat in repeats
        ],
    )


def _curves(histories: list[dict[str, Any]], score: str) -> Iterator[str]:
    """Draw loss and score over the epochs, as images embedded in the text."""
    from ecgpipe.plots.curves import BLUES, REDS, Curve, curves

    def curve(label: str, colour: str, column: str) -> Curve:
        return Curve(label, colour, [history[column] for history in histories])

    train = curve("train", REDS[1], "train_loss")
    losses = [train, curve("validation", BLUES[0], "validation_loss")]
    scores = [curve("train accuracy", REDS[1], "train_accuracy")]
    scores += [curve(f"validation {SCORES[score]}", BLUES[0], score)]
    with _DRAWING:
        figures = [curves(losses, "loss (nats)", *INCHES), curves(scores, "score", *INCHES)]
    width, height = (96 * inches for inches in INCHES)
    size = f'width="{width:g}" height="{height:g}"'
    # In a report the figure takes its colour from the HTML page around it.
    svg_tag = f'<svg xmlns="http://www.w3.org/2000/svg" color="{COLOUR}" {size} '
    for svg in figures:
        svg = svg.replace("<svg ", svg_tag, 1).replace("var(--rule)", f"{COLOUR}55")
        yield f"![curves](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"


def _files(output: Path) -> str:
    """List the files as paths; a browser cannot open files of another machine."""
    if output.suffix == ".html":
        found = [output.with_suffix(end) for end in (".html", ".csv", ".md")]
    else:
        found = [output / name for name in FILES] + sorted(output.glob("repeat-*/model.pt"))
    found = [path for path in found if path.is_file()]
    return "\n".join(["### Files\n", *(f"- `{path}`" for path in found or [output])])
