"""What a store holds, for people and for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .store import Store


def inspect(path: Path) -> dict[str, Any]:
    """The facts of a store as plain values.

    Raises
    ------
    EcgpipeError
        The folder is no finished store.
    """
    store = Store(path)
    recipe, totals = store.recipe, store.manifest["totals"]
    rates = sorted({row["fs"] for row in store.rows()})
    return {
        "kind": recipe["kind"],
        "dataset": recipe["dataset"],
        "simulated": recipe["simulated"],
        "labels_file": recipe["labels_file"],
        "parts": len(store.parts),
        "fs_Hz": rates,
        "codec": recipe.get("codec", recipe.get("compression")),
        "compression_ratio": round(totals["raw_bytes"] / max(1, totals["stored_bytes"]), 2),
        **totals,
        "statistics": store.manifest["statistics"],
        "refused_records": store.manifest["refused"],
        "versions": recipe["versions"],
        "digest": store.manifest["digest"],
    }


def text(facts: dict[str, Any]) -> str:
    """The facts as lines that align."""
    lines = [
        f"{facts['kind']} of {facts['dataset']}" + (" (simulated)" if facts["simulated"] else ""),
        f"{'records':12}{facts['records']:,} of {facts['patients']:,} patients in "
        f"{facts['parts']:,} parts, {facts['hours']:,.1f} h",
        f"{'rate':12}{', '.join(f'{rate:g}' for rate in facts['fs_Hz'])} Hz",
        f"{'size':12}{facts['stored_bytes'] / 1e6:,.1f} MB, 1/{facts['compression_ratio']:g} "
        f"of the samples' int16 ({_codec(facts['codec'])})",
    ]
    for name in ("beats", "rhythms", "statements"):
        if facts[name]:
            counts = (f"{symbol} {count:,}" for symbol, count in facts[name].items())
            lines.append(f"{name:12}{'  '.join(counts)}")
    lines.append(f"{'qrs':12}{facts['qrs']:,} detected")
    if facts["records_without_annotations"]:
        lines.append(f"{'annotated':12}all but {facts['records_without_annotations']:,} records")
    if facts["labels_file"]:
        lines.append(f"{'labels':12}from {facts['labels_file']}")
    for lead, values in facts["statistics"].items():
        lines.append(
            f"{'lead ' + lead:12}mean {values['mean_mV']:.4f} mV, standard deviation "
            f"{values['std_mV']:.4f} mV"
        )
    lines.append(f"{'refused':12}{facts['refused']:,} records")
    lines += [f"{'':12}{item['key']}: {item['reason']}" for item in facts["refused_records"]]
    lines.append(f"{'digest':12}{facts['digest']}")
    return "\n".join(lines)


def _codec(codec: dict[str, Any]) -> str:
    return " ".join(f"{value}" for value in codec.values())
