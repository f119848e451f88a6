"""What a data card counts: a few numbers of every record, from sidecars and detected QRS alone."""

from __future__ import annotations

import math
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..files.atomic import local_copy
from ..storage.archive import GROUP, open_group
from ..storage.parts import read_sidecar
from ..storage.store import Store


@dataclass
class Counts:
    """Numbers of the records of a store, for distributions."""

    seconds: list[float] = field(default_factory=list)  # of each record
    bpm: list[float] = field(default_factory=list)  # of each record with two QRS complexes
    std: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # mV, by lead
    rates: Counter[float] = field(default_factory=Counter)  # records by Hz
    patients: Counter[str] = field(default_factory=Counter)  # records by patient
    rhythm_seconds: Counter[str] = field(default_factory=Counter)  # by class
    # By what is found in them: kind (beats, rhythms, rhythm_samples, statements) and name.
    patients_with: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))


def count(store: Store) -> Counts:
    """Go through a store part by part; no signal is decoded."""
    counts = Counts()
    for part in store.parts:
        rows = read_sidecar(store.path, part)["records"]
        if not rows:
            continue
        for row, qrs in zip(rows, _qrs(store, part), strict=True):
            counts.seconds.append(row["samples"] / row["fs"])
            counts.rates[row["fs"]] += 1
            counts.patients[row["patient"]] += 1
            if len(qrs) > 1:
                counts.bpm.append(60 * row["fs"] / float(np.median(np.diff(qrs))))
            for i, lead in enumerate(row["leads"]):
                # Of whole numbers, hence exact; the baseline cancels.
                squares = row["samples"] * row["squares"][i] - row["sum"][i] ** 2
                std = math.sqrt(squares) / row["samples"] / row["gain"][i]
                counts.std[lead].append(std)
            for name, samples in (row["rhythm_samples"] or {}).items():
                counts.rhythm_seconds[name] += samples / row["fs"]
            for kind in ("beats", "rhythms", "rhythm_samples", "statements"):
                for name in row[kind] or ():
                    counts.patients_with[kind, name].add(row["patient"])
    return counts


def _qrs(store: Store, part: str) -> Iterator[NDArray[np.int32]]:
    """Detected QRS complexes of the records of a part, and nothing else of it."""
    if store.recipe["kind"] == "archive":
        group = open_group(store.path / GROUP / part)
        index, edge = group["qrs_index"][...], group["qrs_offset"][...]
        yield from (index[a:b] for a, b in pairwise(edge))
        return
    with tarfile.open(local_copy(store.shard(part))) as tar:
        for member in tar:  # passes over what is not read
            if member.name.endswith(".qrs"):
                file = tar.extractfile(member)
                assert file
                data = file.read()
                yield np.frombuffer(data, "<i4", len(data) // 5)
