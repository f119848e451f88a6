"""The data card of a store: one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from ..datasets import DATASETS
from ..files.atomic import write_text
from ..labels.rhythms import CLOSE
from ..plots.curves import BLUES, STYLE, svg
from ..plots.marks import BEAT_NAMES, RHYTHM_NAMES
from ..storage.inspect import codec_name, inspect
from ..storage.store import Store, open_store
from .counts import Counts, count
from .text import CLASS_NAMES

_CLASSES = {"normal": "sinus rhythm", "afib": "atrial fibrillation", "aflutter": "atrial flutter",
            "none": "another rhythm, noise, or not noted"}  # fmt: skip
_BPM = np.arange(20, 205, 5)
_MV = np.logspace(-2.5, 1, 36)


def write_card(store: Path, out: Path) -> Path:
    """Write the data card of a store: what it is, what it holds, and how that is distributed.

    Counts come from the sidecars, heart rates from the detected QRS complexes; no signal is
    decoded. The same store gives the same bytes.

    Parameters
    ----------
    store
        An archive or a folder of shards.
    out
        The page.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    EcgpipeError
        The folder is no finished store.
    """
    opened = open_store(store)
    environment = Environment(
        loader=PackageLoader("ecgpipe", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = _page(opened, inspect(store), count(opened))
    text = environment.get_template("card.html.j2").render(page)
    write_text(out, text)
    return out


def _page(store: Store, facts: dict[str, Any], counts: Counts) -> dict[str, Any]:
    """Everything the page says, before it is laid out."""
    source = DATASETS.get(facts["dataset"])
    unit, unit_name = _unit(counts.seconds)
    return {
        "title": source.title if source else facts["dataset"],
        "licence": source.licence if source else None,
        "facts": facts,
        "codec": codec_name(facts["codec"]),
        "excluded": store.manifest["excluded"],
        "length": _summary([seconds / unit for seconds in counts.seconds]),
        "unit": unit_name,
        "per_patient": _summary([*counts.patients.values()]),
        "rates": sorted(counts.rates.items()),
        "bpm": _summary(counts.bpm),
        "std": _summary([value for values in counts.std.values() for value in values if value]),
        "figures": _figures(counts),
        "tables": _tables(facts, counts),
        "leads": [
            {"name": name, "flat": values.count(0), **facts["statistics"][name], **_summary(values)}
            for name, values in counts.std.items()
        ],
        "recipe": {
            name: value
            for name, value in store.recipe.items()
            if isinstance(value, str | float | int) and name not in ("kind", "simulated")
        },
    }


def _summary(values: Sequence[float]) -> dict[str, float]:
    """Extremes and quantiles; nothing of no values."""
    if not values:
        return {}
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return {
        "n": len(values), "min": min(values), "max": max(values),
        "low": low, "median": middle, "high": high,
    }  # fmt: skip


def _tables(facts: Mapping[str, Any], counts: Counts) -> list[dict[str, Any]]:
    """What is annotated, by class; the most frequent first."""
    beats, statements = facts["beats"], facts["statements"]
    notes = {note: n for note, n in facts["rhythms"].items() if note != CLOSE}
    rhythms = {name: seconds / 3600 for name, seconds in counts.rhythm_seconds.items()}
    without, many = facts["records_without_annotations"], sum(statements.values())
    tables = (
        (
            "Annotated beats",
            f"{sum(beats.values()):,} beats"
            + (f"; {without:,} recordings are not annotated" if without else ""),
            "Beats", "beats", beats, sum(beats.values()), BEAT_NAMES,
        ),
        (
            "Rhythms",
            f"{sum(rhythms.values()):,.1f} annotated hours, by the classes of the rhythm task",
            "Hours", "rhythm_samples", rhythms if notes else {}, sum(rhythms.values()), _CLASSES,
        ),
        (
            "Rhythm notes",
            f"{sum(notes.values()):,} notes of the source, each where a rhythm begins",
            "Notes", "rhythms", notes, sum(notes.values()), _note_names(notes),
        ),
        (
            "Labels of whole recordings",
            "A recording may have several" if many > facts["records"] else "",
            "Recordings", "statements", statements, facts["records"],
            CLASS_NAMES if facts["dataset"] == "cinc2017" else {},
        ),
    )  # fmt: skip
    return [
        {
            "title": title,
            "note": note,
            "column": column,
            "rows": [
                (sign, names.get(sign, ""), n, len(counts.patients_with[kind, sign]), n / total)
                for sign, n in sorted(found.items(), key=lambda item: (-item[1], item[0]))
            ],
        }
        for title, note, column, kind, found, total, names in tables
        if found
    ]


def _note_names(notes: Iterable[str]) -> dict[str, str]:
    return {
        note: RHYTHM_NAMES.get(note.strip("()"), "") + " of one beat" * note.endswith(CLOSE)
        for note in notes
    }


def _figures(counts: Counts) -> dict[str, Any]:
    """Histograms, those that have something to show."""
    figures: dict[str, Any] = {}
    if counts.bpm:
        figures["bpm"] = _histogram(counts.bpm, _BPM, "bpm")
    if counts.seconds and max(counts.seconds) > 1.02 * min(counts.seconds):
        unit, name = _unit(counts.seconds)
        lengths = np.array(counts.seconds) / unit
        figures["length"] = _histogram(lengths, np.linspace(0, lengths.max(), 31), name)
    std = [value for values in counts.std.values() for value in values if value]
    if std:
        many = "recordings" if len(counts.std) == 1 else "leads of recordings"
        figures["std"] = _histogram(std, _MV, "mV", many, log=True)
    return figures


def _unit(seconds: Sequence[float]) -> tuple[int, str]:
    """What lengths are best told in."""
    middle = np.median(seconds) if seconds else 0
    return (3600, "h") if middle >= 7200 else (60, "min") if middle >= 120 else (1, "s")


def _histogram(
    values: Any, edges: Any, xlabel: str, ylabel: str = "recordings", log: bool = False
) -> Markup:
    """How many values lie between the edges; those outside of them count at the ends."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 2.6), layout="constrained")
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
        axes.hist(np.clip(values, edges[0], edges[-1]), edges, color=BLUES[0], rwidth=0.92)
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator())
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlim(edges[0], edges[-1])
        return Markup(svg(figure))
