"""Answers for recordings of one's own: on the screen, as CSV, as JSON."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRecord
from ..progress import say
from ..types import Record
from .inputs import InputFormat, read_recording
from .model import YES, Answer, Model

WIDE = 22  # characters for the names of recordings
MOST = 20  # stretches of a recording that the screen has room for


class Answered(NamedTuple):
    """A recording and what the model says of it."""

    name: str  # as the caller gave it
    record: Record  # with the leads that were used
    answer: Answer


class Stretch(NamedTuple):
    """Windows in a row with the same answer."""

    start: float  # s
    stop: float  # s
    answer: tuple[str, ...]
    probability: NDArray[np.float64]  # (classes,) mean over the windows


def answer_all(
    model: Model,
    paths: Sequence[Path],
    told: InputFormat,
    lead: str | None = None,
    every: float | None = None,
    refused: list[str] | None = None,
) -> Iterator[Answered]:
    """Read recordings and answer them, one after the other.

    One that cannot be used is named on standard error, and put on the list of ``refused``; the
    others go on.

    Parameters
    ----------
    model
        What answers.
    paths, told
        See :func:`ecgpipe.inference.inputs.read_recording`.
    lead, every
        See :meth:`ecgpipe.inference.model.Model.of_record`.
    refused
        Filled with the names of recordings that cannot be used.
    """
    for path in paths:
        try:
            record = read_recording(path, told)
            used = model.pick(record, lead)
            answer = model.of_record(used, every=every)
        except BadRecord as error:
            say(f"refused {error}")
            if refused is not None:
                refused.append(str(path))
            continue
        if lead is None and len(record.leads) > len(used.leads) == 1:
            say(f"{path}: lead {used.leads[0]} of {', '.join(record.leads)}; --lead names another")
        yield Answered(str(path), used, answer)


def chosen(model: Model, probability: NDArray[np.float64]) -> tuple[str, ...]:
    """The classes that are answered: the most probable, or of many, those from 0.5 on."""
    if model.answer == "one_of":
        return (model.classes[int(probability.argmax())],)
    return tuple(name for name, p in zip(model.classes, probability, strict=True) if p >= YES)


def edges(answer: Answer) -> NDArray[np.float64]:
    """Times between which each window speaks, shape (windows + 1,) s.

    Where windows overlap they meet half way between their middles, so that each moment has one
    answer.
    """
    middle = (answer.start + answer.stop) / 2
    return np.concatenate([[answer.start[0]], (middle[1:] + middle[:-1]) / 2, [answer.stop[-1]]])


def stretches(model: Model, answer: Answer) -> list[Stretch]:
    """The windows with those beside them that have the same answer, in the order of time."""
    names = [chosen(model, row) for row in answer.probability]
    border, found, first = edges(answer), [], 0
    for at in range(1, len(names) + 1):
        if at == len(names) or names[at] != names[first]:
            mean = answer.probability[first:at].mean(0)
            found.append(Stretch(border[first], border[at], names[first], mean))
            first = at
    return found


def clock(seconds: float) -> str:
    """``h:mm:ss``, rounded to seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def lines(model: Model, answers: Iterator[Answered]) -> Iterator[str]:
    """A table for the screen, a line as soon as it is known; under long recordings their course."""
    columns = [max(5, len(name)) for name in model.classes]
    titles = zip(model.classes, columns, strict=True)
    yield "  ".join(["recording".ljust(WIDE), *(n.rjust(w) for n, w in titles), "answer"])

    def row(title: str, probability: NDArray[np.float64], more: str = "") -> str:
        cells = (f"{p:.3f}".rjust(w) for p, w in zip(probability, columns, strict=True))
        answer = " ".join(chosen(model, probability)) or "-"
        return "  ".join([title.ljust(WIDE), *cells, f"{answer:6}", more]).rstrip()

    for _, record, answer in answers:
        windows = len(answer.start)
        last = f"last {answer.stop[-1] - answer.start[-1]:g} s of {clock(answer.seconds)}"
        yield row(record.key, answer.probability[-1], last if windows > 1 else "")
        if windows == 1:
            continue
        yield f"  over time, {windows:,} windows: {shares(model, answer)}"
        found = stretches(model, answer)
        for part in found[:MOST]:
            yield row(f"  {clock(part.start)} to {clock(part.stop)}", part.probability)
        if len(found) > MOST:
            yield f"  and {len(found) - MOST:,} more stretches; --csv has every window"


def shares(model: Model, answer: Answer) -> str:
    """How often which class is answered, the most frequent first."""
    count = Counter(name for row in answer.probability for name in chosen(model, row) or ("-",))
    total = len(answer.start)
    return ", ".join(f"{name} {100 * n / total:.0f} %" for name, n in count.most_common())


def as_csv(model: Model, answers: Iterator[Answered]) -> Iterator[str]:
    """Lines of a CSV table: a row a window, the last of a recording being its answer as a whole."""
    yield _csv("record", "start_s", "stop_s", "answer", *(f"p_{name}" for name in model.classes))
    for name, _, answer in answers:
        for start, stop, row in zip(answer.start, answer.stop, answer.probability, strict=True):
            place = (name, f"{start:.3f}", f"{stop:.3f}", " ".join(chosen(model, row)))
            yield _csv(*place, *(f"{p:.6f}" for p in row))


def _csv(*cells: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def as_json(model: Model, answers: Iterator[Answered]) -> dict[str, Any]:
    """The answers as a tree of plain values; long recordings with their windows."""

    def window(answer: Answer, at: int) -> dict[str, Any]:
        row = answer.probability[at]
        names = chosen(model, row)
        return {
            "start_s": round(float(answer.start[at]), 3),
            "stop_s": round(float(answer.stop[at]), 3),
            "answer": names[0] if model.answer == "one_of" else list(names),
            "probability": {
                name: round(float(p), 6) for name, p in zip(model.classes, row, strict=True)
            },
        }

    def record(found: Answered) -> dict[str, Any]:
        answer, count = found.answer, len(found.answer.start)
        tree: dict[str, Any] = {"record": found.name, "leads": list(answer.leads)}
        tree |= {"seconds": round(answer.seconds, 3), **window(answer, -1)}
        return tree | (
            {"windows": [window(answer, at) for at in range(count)]} if count > 1 else {}
        )

    return {
        "model": str(model.path),
        "answer": model.answer,
        "classes": list(model.classes),
        "records": [record(found) for found in answers],
    }
