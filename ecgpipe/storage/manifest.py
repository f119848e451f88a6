"""The manifest: what a store holds, merged from its parts; and a record's row in a sidecar."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ..config import digest
from ..labels.rhythms import durations
from ..types import Marks, Record

FORMAT = 1  # of the layout; storage_layout.md says what belongs to it


def record_row(record: Record, beats: Sequence[str], rhythms: Sequence[str]) -> dict[str, Any]:
    """What a sidecar says of a record: identity, counts by symbol, and exact sums for statistics.

    ``sum`` and ``squares`` are over the ADC values, per lead, as whole numbers, so that merging
    them is exact; :class:`Moments` turns them into mV.
    """
    signal = record.signal
    return {
        "key": record.key,
        "patient": record.patient,
        "fs": record.fs,
        "leads": list(record.leads),
        "samples": record.samples,
        "gain": record.gain.tolist(),
        "baseline": record.baseline.tolist(),
        "statements": list(record.statements),
        "fold": record.fold,
        "quantisation": record.quantisation,
        "beats": None if record.beats is None else _counts(record.beats, beats),
        "rhythms": _counts(record.rhythms, rhythms),
        "rhythm_samples": durations(record.beats, record.rhythms, rhythms, record.samples),
        "qrs": len(record.qrs.index),
        "sha256": hashlib.sha256(np.ascontiguousarray(signal, "<i2").tobytes()).hexdigest(),
        "sum": signal.sum(axis=1, dtype=np.int64).tolist(),
        "squares": [int(np.square(lead, dtype=np.int64).sum()) for lead in signal],
    }


def _counts(marks: Marks, symbols: Sequence[str]) -> dict[str, int]:
    counts = np.bincount(marks.label, minlength=len(symbols))
    return {symbol: int(n) for symbol, n in zip(symbols, counts, strict=True) if n}


@dataclass
class Moments:
    """Mean and standard deviation in mV, added up record by record."""

    samples: int = 0
    total: float = 0.0  # mV
    squares: float = 0.0  # mV squared

    def add(self, row: Mapping[str, Any], lead: int) -> None:
        """Count one lead of a record in; its own sums are exact, as fractions."""
        n, gain, zero = row["samples"], Fraction(row["gain"][lead]), Fraction(row["baseline"][lead])
        total, squares = row["sum"][lead], row["squares"][lead]
        self.samples += n
        self.total += float((total - n * zero) / gain)
        self.squares += float((squares - 2 * zero * total + n * zero**2) / gain**2)

    @property
    def mean(self) -> float:
        """The mean, mV."""
        return self.total / self.samples

    @property
    def std(self) -> float:
        """The standard deviation, mV."""
        return math.sqrt(max(0.0, self.squares / self.samples - self.mean**2))


def moments(
    rows: Iterable[Mapping[str, Any]],
    pick: Callable[[Mapping[str, Any]], Iterable[int]] = lambda row: range(len(row["leads"])),
) -> Moments:
    """Mean and standard deviation over records.

    Parameters
    ----------
    rows
        Rows of sidecars.
    pick
        Positions of the leads to take of a record; all of them by default.
    """
    found = Moments()
    for row in rows:
        for lead in pick(row):
            found.add(row, lead)
    return found


def part_digest(sidecar: Mapping[str, Any]) -> str:
    """Identity of a part: of its bytes and of what was left out."""
    return digest({name: sidecar[name] for name in ("files", "records", "refused", "excluded")})


def merge(recipe: Mapping[str, Any], sidecars: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest of a store from its recipe and its parts' sidecars.

    It holds no times, hosts, absolute paths or numbers of workers: the same input gives the same
    bytes. ``digest`` covers everything else in it, and the parts' digests every byte of the store.
    """
    parts, refused, excluded = [], [], []
    records = samples = stored = raw = qrs = without_beats = 0
    seconds = 0.0
    patients: set[str] = set()
    beats: Counter[str] = Counter()
    rhythms: Counter[str] = Counter()
    rhythm_samples: Counter[str] = Counter()
    statements: Counter[str] = Counter()
    leads: dict[str, Moments] = {}
    for part in sidecars:
        rows = part["records"]
        parts.append(
            {
                "name": part["name"],
                "inputs": digest(part["inputs"]),
                "records": len(rows),
                "refused": len(part["refused"]),
                "digest": part_digest(part),
            }
        )
        refused += part["refused"]
        excluded += part["excluded"]
        stored += sum(file["bytes"] for file in part["files"].values())
        for row in rows:
            records += 1
            samples += row["samples"]
            seconds += row["samples"] / row["fs"]
            raw += 2 * row["samples"] * len(row["leads"])
            patients.add(row["patient"])
            beats.update(row["beats"] or {})
            without_beats += row["beats"] is None
            rhythms.update(row["rhythms"])
            rhythm_samples.update(row["rhythm_samples"] or {})
            statements.update(row["statements"])
            qrs += row["qrs"]
            for i, name in enumerate(row["leads"]):
                leads.setdefault(name, Moments()).add(row, i)
    manifest = {
        "format": FORMAT,
        "recipe": dict(recipe),
        "parts": parts,
        "totals": {
            "records": records,
            "refused": len(refused),
            "excluded": len(excluded),
            "patients": len(patients),
            "samples": samples,
            "hours": round(seconds / 3600, 4),
            "beats": dict(sorted(beats.items())),
            "records_without_annotations": without_beats,
            "rhythms": dict(sorted(rhythms.items())),
            "rhythm_samples": dict(sorted(rhythm_samples.items())),
            "qrs": qrs,
            "statements": dict(sorted(statements.items())),
            "raw_bytes": raw,
            "stored_bytes": stored,
        },
        "statistics": {
            name: {"mean_mV": found.mean, "std_mV": found.std}
            for name, found in sorted(leads.items())
        },
        "refused": refused,
        "excluded": excluded,
    }
    return {**manifest, "digest": digest(manifest)}
