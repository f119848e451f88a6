"""Predict on a user's recordings, and print predictions as a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRecord
from ..progress import clock, say
from .inputs import InputFormat, read_recording
from .model import Model
from .prediction import Prediction

_NAME_WIDTH = 22  # characters
_MAX_SEGMENTS = 20  # of a recording in the table


def predict_all(
    model: Model,
    paths: Sequence[Path],
    input_format: InputFormat,
    lead: str | None = None,
    every: float | None = None,
    refused: list[str] | None = None,
) -> Iterator[Prediction]:
    """Read recordings and predict their classes, one after the other.

    A recording that cannot be used is named on standard error, and the others go on.

    Parameters
    ----------
    paths, input_format
        See :func:`ecgpipe.inference.inputs.read_recording`.
    lead, every
        See :meth:`ecgpipe.inference.model.Model.of_record`.
    refused
        Filled with the names of recordings that cannot be used.
    """
    for path in paths:
        try:
            record = read_recording(path, input_format)
            prediction = model.of_record(record, lead, every)
        except BadRecord as error:
            say(f"refused {error}")
            if refused is not None:
                refused.append(str(path))
            continue
        used = prediction.record.leads
        if lead is None and len(record.leads) > len(used) == 1:
            say(f"{path}: lead {used[0]} of {', '.join(record.leads)}; --lead names another")
        yield replace(prediction, name=str(path))


def lines(model: Model, predictions: Iterator[Prediction]) -> Iterator[str]:
    """A table for the screen, line by line; below long recordings their segments."""
    widths = [max(5, len(name)) for name in model.classes]
    titles = (name.rjust(width) for name, width in zip(model.classes, widths, strict=True))
    yield "  ".join(["recording".ljust(_NAME_WIDTH), *titles, "answer"])

    def row(title: str, p: NDArray[np.float64], classes: tuple[str, ...], note: str = "") -> str:
        cells = (f"{value:.3f}".rjust(width) for value, width in zip(p, widths, strict=True))
        answer = " ".join(classes) or "-"
        return "  ".join([title.ljust(_NAME_WIDTH), *cells, f"{answer:6}", note]).rstrip()

    for item in predictions:
        count, last = len(item.start), item.stop[-1] - item.start[-1]
        note = f"last {last:g} s of {clock(round(item.seconds))}" if count > 1 else ""
        yield row(item.record.key, item.probability[-1], item.windows[-1], note)
        if count == 1:
            continue
        yield f"  over time, {count:,} windows: {', '.join(item.shares())}"
        found = item.segments()
        for start, stop, classes, probability in found[:_MAX_SEGMENTS]:
            yield row(f"  {clock(round(start))} to {clock(round(stop))}", probability, classes)
        if len(found) > _MAX_SEGMENTS:
            more = len(found) - _MAX_SEGMENTS
            yield f"  and {more:,} more stretches; --csv has every window"


def as_csv(model: Model, predictions: Iterator[Prediction]) -> Iterator[str]:
    """Lines of a CSV table: a row for each window, the last one for the whole recording."""
    yield _csv("record", "start_s", "stop_s", "answer", *(f"p_{name}" for name in model.classes))
    for item in predictions:
        rows = zip(item.start, item.stop, item.windows, item.probability, strict=True)
        for start, stop, classes, row in rows:
            cells = (item.name, f"{start:.3f}", f"{stop:.3f}", " ".join(classes))
            yield _csv(*cells, *(f"{p:.6f}" for p in row))


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _csv(*cells: str) -> str:
    text = io.StringIO()
    # A spreadsheet would take a name that begins like a formula for one.
    safe = [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]
    csv.writer(text, lineterminator="").writerow(safe)
    return text.getvalue()


def as_json(model: Model, predictions: Iterator[Prediction]) -> dict[str, Any]:
    """The predictions as plain values; long recordings with their windows."""

    def window(item: Prediction, at: int) -> dict[str, Any]:
        values = zip(item.classes, item.probability[at], strict=True)
        return {
            "start_s": round(float(item.start[at]), 3),
            "stop_s": round(float(item.stop[at]), 3),
            "answer": list(item.windows[at]) if item.many_of else item.windows[at][0],
            "probability": {name: round(float(p), 6) for name, p in values},
        }

    def recording(item: Prediction) -> dict[str, Any]:
        count = len(item.start)
        return {
            "record": item.name,
            "leads": list(item.record.leads),
            "seconds": round(item.seconds, 3),
            **window(item, -1),
            **({"windows": [window(item, at) for at in range(count)]} if count > 1 else {}),
        }

    return {
        "model": str(model.path),
        "answer": model.answer,
        "classes": list(model.classes),
        "records": [recording(item) for item in predictions],
    }
