"""What a store holds, for people and for scripts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from .store import Store

_WIDTH = 100  # of the text
_NAMED = 10  # records that the text names where they were left out


def inspect(path: Path) -> dict[str, Any]:
    """The facts of a store as plain values.

    Raises
    ------
    EcgpipeError
        The folder is no finished store.
    """
    store = Store(path)
    recipe, manifest = store.recipe, store.manifest.plain()
    totals = manifest["totals"]
    rates: Counter[float] = Counter()
    leads: Counter[str] = Counter()
    rhythms: defaultdict[str, float] = defaultdict(float)  # hours
    seconds = []
    for row in store.rows():
        rates[row.fs] += 1
        leads.update(row.leads)
        seconds.append(row.samples / row.fs)
        for name, samples in (row.rhythm_samples or {}).items():
            rhythms[name] += samples / row.fs / 3600
    lengths = (min(seconds), median(seconds), max(seconds)) if seconds else (0.0, 0.0, 0.0)
    return {
        "kind": recipe.kind,
        "dataset": recipe.dataset,
        "simulated": recipe.simulated,
        "labels_file": recipe.labels_file,
        "parts": len(store.parts),
        "fs_Hz": sorted(rates),
        "leads": dict(leads),
        "seconds": dict(zip(("min", "median", "max"), lengths, strict=True)),
        "codec": recipe.compression if recipe.kind == "archive" else recipe.codec,
        "compression_ratio": round(totals["raw_bytes"] / max(1, totals["stored_bytes"]), 2),
        **totals,
        "rhythm_hours": {name: round(hours, 4) for name, hours in sorted(rhythms.items())},
        "statistics": manifest["statistics"],
        "refused_records": manifest["refused"],
        "excluded_records": manifest["excluded"],
        "versions": recipe.versions,
        "digest": manifest["digest"],
    }


def text(facts: dict[str, Any]) -> str:
    """The facts as lines that align; of many records left out the first ten."""
    shortest, middle, longest = (_plain(facts["seconds"][at]) for at in ("min", "median", "max"))
    without = facts["records_without_annotations"]
    lines = [
        f"{facts['kind']} of {facts['dataset']}" + (" (simulated)" if facts["simulated"] else ""),
        f"{'records':12}{facts['records']:,} of {counted(facts['patients'], 'patient')} in "
        f"{counted(facts['parts'], 'part')}, {facts['hours']:,.1f} h",
        f"{'length':12}{shortest} s"
        + ("" if shortest == longest else f" to {longest} s, median {middle} s"),
        f"{'rate':12}{', '.join(f'{rate:g}' for rate in facts['fs_Hz'])} Hz",
        f"{'size':12}{facts['stored_bytes'] / 1e6:,.1f} MB, 1/{facts['compression_ratio']:g} "
        f"of the samples' int16 ({codec_name(facts['codec'])})",
    ]
    lines += _filled("beats", _counts(facts["beats"]))
    if without:
        which = f"in {counted(without, 'record')}" if without < facts["records"] else ""
        lines.append(f"{'' if facts['beats'] else 'beats':12}not annotated {which}".rstrip())
    for name in ("rhythms", "statements"):
        lines += _filled(name, _counts(facts[name]))
    hours = sorted(facts["rhythm_hours"].items(), key=lambda item: -item[1])
    if facts["rhythms"]:
        lines += _filled("hours of", (f"{name} {value:,.2f}" for name, value in hours))
    lines.append(f"{'qrs':12}{facts['qrs']:,} detected")
    if facts["labels_file"]:
        lines.append(f"{'labels':12}from {facts['labels_file']}")
    for lead, count in facts["leads"].items():
        values = facts["statistics"][lead]
        lines.append(
            f"{'lead ' + lead:12}mean {values['mean_mV']:z.4f} mV, standard deviation "
            f"{values['std_mV']:.4f} mV"
            + (f", in {counted(count, 'record')}" if count < facts["records"] else "")
        )
    for name in ("refused", "excluded"):
        items = facts[f"{name}_records"]
        if items or name == "refused":
            lines.append(f"{name:12}{counted(len(items), 'record')}")
        lines += [f"{'':12}{item['key']}: {item['reason']}" for item in items[:_NAMED]]
        if len(items) > _NAMED:
            lines.append(f"{'':12}and {len(items) - _NAMED:,} more; --json names them all")
    lines.append(f"{'digest':12}{facts['digest']}")
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> Iterator[str]:
    """The most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return (f"{name} {count:,}" for name, count in ordered)


def _filled(name: str, items: Iterable[str]) -> list[str]:
    """A name and its items, on as many lines as they take."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + 2 + len(item) <= _WIDTH:
            lines[-1] += f"  {item}"
        else:
            lines.append(f"{'' if lines else name:12}{item}")
    return lines


def counted(count: int, what: str) -> str:
    """A number with its noun: ``1 record``, ``2,000 records``."""
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _plain(seconds: float) -> str:
    return f"{seconds:,.2f}".rstrip("0").rstrip(".")


def codec_name(codec: dict[str, Any]) -> str:
    """A codec's settings in a few words."""
    order = ("id", "cname", "level", "clevel", "shuffle")
    return " ".join(str(codec[name]) for name in order if name in codec)
