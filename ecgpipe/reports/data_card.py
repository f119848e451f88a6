"""The data card of a store: one HTML page that describes it, without any other file."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from ..datasets import DATASETS
from ..files.atomic import write_text
from ..labels.rhythms import CLOSE
from ..plots.curves import BLUES
from ..plots.marks import BEAT_NAMES, RHYTHM_NAMES
from ..plots.style import PAGE_STYLE, svg
from ..storage.inspect import codec_name, inspect
from ..storage.store import Store, open_store
from .text import CLASS_NAMES, render

_RHYTHM_CLASSES = {"normal": "sinus rhythm", "afib": "atrial fibrillation",
                   "aflutter": "atrial flutter",
                   "none": "another rhythm, noise, or not noted"}  # fmt: skip
_BPM = np.arange(20.0, 205.0, 5.0)  # bins
_MV = np.logspace(-2.5, 1, 36)  # bins


@dataclass
class Counts:
    """Values and counts over the records of a store."""

    seconds: list[float] = field(default_factory=list)  # of each record
    bpm: list[float] = field(default_factory=list)  # of each record with two QRS complexes
    std: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # mV, by lead
    rates: Counter[float] = field(default_factory=Counter)  # records by Hz
    patients: Counter[str] = field(default_factory=Counter)  # records by patient
    rhythm_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    # Patients by kind of annotation (beats, rhythms, rhythm_samples, statements) and class.
    patients_with: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))

    @property
    def all_std(self) -> list[float]:
        """Standard deviations of all leads, mV, without flat ones."""
        return [value for values in self.std.values() for value in values if value]


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Annotations of one kind, by class."""

    title: str
    note: str
    unit: str  # of the amounts
    kind: str  # of annotation, as in ``Counts.patients_with``
    amounts: Mapping[str, float]  # by class
    total: float  # that shares refer to
    names: Mapping[str, str]  # by class

    def rows(self) -> list[tuple[str, float]]:
        """Classes with their amounts, the most frequent first."""
        return sorted(self.amounts.items(), key=lambda item: (-item[1], item[0]))


def write_card(store: Path, out: Path) -> Path:
    """Write the data card of a store, an archive or a folder of shards; returns ``out``.

    Counts come from the sidecars, heart rates from the detected QRS complexes; no signal is
    decoded. The same store gives the same bytes. An `EcgpipeError` is raised for a folder that is
    no finished store.
    """
    opened, facts = open_store(store), inspect(store)
    source = DATASETS.get(facts["dataset"])
    counts = count(opened)
    unit, unit_name = _unit(counts.seconds)
    text = render(
        "card.html.j2",
        title=source.title if source else facts["dataset"],
        licence=source.licence if source else None,
        facts=facts,
        codec=codec_name(facts["codec"]),
        length=_summary([seconds / unit for seconds in counts.seconds]),
        unit=unit_name,
        per_patient=_summary([*counts.patients.values()]),
        counts=counts,
        bpm=_summary(counts.bpm),
        std=_summary(counts.all_std),
        figures=_figures(counts),
        tables=_tables(facts, counts),
        leads={name: _summary(values) for name, values in counts.std.items()},
        recipe={
            name: value
            for name, value in sorted(opened.recipe.plain().items())
            if isinstance(value, str | float | int) and name not in ("kind", "simulated")
        },
    )
    write_text(out, text)
    return out


def count(store: Store) -> Counts:
    """Collect the values of all records, part by part; no signal is decoded."""
    counts = Counts()
    for part in store.parts:
        for row, qrs in zip(store.sidecar(part).records, store.qrs(part), strict=True):
            counts.seconds.append(row.samples / row.fs)
            counts.rates[row.fs] += 1
            counts.patients[row.patient] += 1
            if len(qrs) > 1:
                counts.bpm.append(60 * row.fs / float(np.median(np.diff(qrs))))
            for i, lead in enumerate(row.leads):
                # Integers, hence exact; the baseline cancels.
                squares = row.samples * row.squares[i] - row.sum[i] ** 2
                counts.std[lead].append(math.sqrt(squares) / row.samples / row.gain[i])
            for name, samples in (row.rhythm_samples or {}).items():
                counts.rhythm_seconds[name] += samples / row.fs
            for kind in ("beats", "rhythms", "rhythm_samples", "statements"):
                for name in getattr(row, kind) or ():
                    counts.patients_with[kind, name].add(row.patient)
    return counts


def _summary(values: Sequence[float]) -> dict[str, float]:
    """Number, extremes and quantiles; empty where there are no values."""
    if not values:
        return {}
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return {
        "n": len(values), "min": min(values), "max": max(values),
        "low": low, "median": median, "high": high,
    }  # fmt: skip


def _tables(facts: Mapping[str, Any], counts: Counts) -> list[ClassTable]:
    """Tables of the kinds of annotation that the store has."""
    beats, statements = facts["beats"], facts["statements"]
    notes = {note: n for note, n in facts["rhythms"].items() if note != CLOSE}
    note_names = {
        note: RHYTHM_NAMES.get(note.strip("()"), "") + " of one beat" * note.endswith(CLOSE)
        for note in notes
    }
    hours = {name: seconds / 3600 for name, seconds in counts.rhythm_seconds.items()}
    unannotated = facts["records_without_annotations"]
    tables = (
        ClassTable(
            "Annotated beats",
            f"{sum(beats.values()):,} beats"
            + (f"; {unannotated:,} recordings are not annotated" if unannotated else ""),
            "Beats", "beats", beats, sum(beats.values()), BEAT_NAMES,
        ),
        ClassTable(
            "Rhythms",
            f"{sum(hours.values()):,.1f} annotated hours, by the classes of the rhythm task",
            "Hours", "rhythm_samples", hours if notes else {}, sum(hours.values()), _RHYTHM_CLASSES,
        ),
        ClassTable(
            "Rhythm notes",
            f"{sum(notes.values()):,} notes of the source, each where a rhythm begins",
            "Notes", "rhythms", notes, sum(notes.values()), note_names,
        ),
        ClassTable(
            "Labels of whole recordings",
            "A recording may have several" if sum(statements.values()) > facts["records"] else "",
            "Recordings", "statements", statements, facts["records"],
            CLASS_NAMES if facts["dataset"] == "cinc2017" else {},
        ),
    )  # fmt: skip
    return [table for table in tables if table.amounts]


def _figures(counts: Counts) -> dict[str, Markup]:
    """Histograms of heart rate, length and standard deviation, where the values differ."""
    figures = {}
    if counts.bpm:
        figures["bpm"] = _histogram(counts.bpm, _BPM, "bpm")
    if counts.seconds and max(counts.seconds) > 1.02 * min(counts.seconds):
        unit, name = _unit(counts.seconds)
        lengths = np.array(counts.seconds) / unit
        figures["length"] = _histogram(lengths, np.linspace(0, lengths.max(), 31), name)
    if counts.all_std:
        what = "recordings" if len(counts.std) == 1 else "leads of recordings"
        figures["std"] = _histogram(counts.all_std, _MV, "mV", what, log=True)
    return figures


def _unit(seconds: Sequence[float]) -> tuple[int, str]:
    """Unit in which lengths are shown: its seconds and its name."""
    middle = np.median(seconds) if seconds else 0
    return (3600, "h") if middle >= 7200 else (60, "min") if middle >= 120 else (1, "s")


def _histogram(
    values: ArrayLike,
    edges: NDArray[np.float64],
    xlabel: str,
    ylabel: str = "recordings",
    log: bool = False,
) -> Markup:
    """A histogram; values outside of the edges count in the first and last bin."""
    with matplotlib.rc_context(PAGE_STYLE):
        figure = Figure(figsize=(4.2, 2.6), layout="constrained")
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
        axes.hist(np.clip(values, edges[0], edges[-1]), edges.tolist(), color=BLUES[0], rwidth=0.92)
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
