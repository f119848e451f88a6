"""Downstream batches: whole recordings, padded in front to one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EcgpipeError
from ..storage.store import Store
from ..storage.verify import check_files
from ..types import Batch, Record


@dataclass(frozen=True)
class Recordings:
    """A downstream data set in memory (CinC 2017: 140 MB), int16."""

    records: dict[str, Record]
    rows: dict[str, dict[str, Any]]  # of the sidecars
    label: dict[str, int]  # class of each record
    fs: float  # Hz
    leads: int
    manifest: dict[str, Any]
    notes: list[str]


def load_recordings(store: Store, classes: Sequence[str]) -> Recordings:
    """Read all recordings of a downstream data set.

    Raises
    ------
    EcgpipeError
        The store is no shards, is damaged, or holds a record without exactly one known label.
    """
    if store.recipe["kind"] != "shards":
        raise EcgpipeError(f"{store.path}: is an archive; run `ecgpipe shard` and name its result")
    check_files(store)
    rows = {row["key"]: row for row in store.rows()}
    label = {}
    for key, row in rows.items():
        if len(row["statements"]) != 1 or row["statements"][0] not in classes:
            raise EcgpipeError(
                f"{store.path}: record {key} has the labels {row['statements']}, "
                f"where one of {' '.join(classes)} is needed"
            )
        label[key] = classes.index(row["statements"][0])
    refused = store.manifest["totals"]["refused"]
    return Recordings(
        records={record.key: record for record in store.read_all()},
        rows=rows,
        label=label,
        fs=store.recipe["fs"],
        leads=len(next(iter(rows.values()))["leads"]),
        manifest=store.manifest,
        notes=[f"{refused} records refused while reading the raw files"] if refused else [],
    )


def batches(
    recordings: Recordings,
    keys: Sequence[str],
    samples: int,
    batch: int,
    mean: float,
    std: float,
) -> Iterator[Batch]:
    """Batches of these recordings, in this order.

    A recording longer than ``samples`` keeps its last samples; a shorter one gets zeros in front,
    after standardisation, as in the released code. A last batch of one item is joined to the one
    before it, because batch statistics of one item mean nothing.
    """
    for at in chunks(len(keys), batch):
        chosen = [recordings.records[key] for key in keys[at]]
        x = np.zeros((len(chosen), recordings.leads, samples), np.int16)
        for i, record in enumerate(chosen):
            kept = record.signal[:, -samples:]
            x[i, :, samples - kept.shape[1] :] = kept
        gain = np.stack([record.gain for record in chosen])
        zero = np.stack([record.baseline for record in chosen])
        yield Batch(
            x=x,
            scale=(1 / (gain * std)).astype(np.float32),
            offset=(-(zero / gain + mean) / std).astype(np.float32),
            length=np.array([min(record.samples, samples) for record in chosen]),
            y=np.array([recordings.label[record.key] for record in chosen]),
            keys=np.array([record.key for record in chosen], object),
        )


def chunks(count: int, size: int) -> list[slice]:
    """Slices of ``size`` over ``count`` items; a single item left over joins the last slice."""
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]


def shuffled(keys: Sequence[str], *seed: int) -> list[str]:
    """The keys in an order that the seed decides."""
    order: NDArray[np.intp] = np.random.default_rng(list(seed)).permutation(len(keys))
    return [keys[i] for i in order]
