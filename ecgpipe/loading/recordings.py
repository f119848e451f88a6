"""Downstream batches: whole recordings, padded in front to one length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EcgpipeError
from ..storage.store import Store
from ..storage.verify import check_files
from ..types import Batch, Record

Label = int | tuple[int, ...]  # the class of a record, or all of its classes


@dataclass(frozen=True)
class Recordings:
    """A downstream data set in memory (CinC 2017: 140 MB), int16."""

    records: dict[str, Record]
    rows: dict[str, dict[str, Any]]  # of the sidecars
    label: dict[str, Label]
    classes: tuple[str, ...]
    fs: float  # Hz
    leads: tuple[str, ...]
    notes: list[str]


def load_recordings(store: Store, many_of: bool) -> Recordings:
    """Read all recordings of a downstream data set.

    Raises
    ------
    EcgpipeError
        The store is no shards, is damaged, holds records of different leads, or see
        :func:`read_labels`.
    """
    if store.recipe["kind"] != "shards":
        raise EcgpipeError(f"{store.path}: is an archive; run `ecgpipe shard` and name its result")
    check_files(store)
    rows = {row["key"]: row for row in store.rows()}
    leads = {tuple(row["leads"]) for row in rows.values()}
    if len(leads) != 1:
        raise EcgpipeError(f"{store.path}: records of {len(leads)} sets of leads; one is needed")
    totals = store.manifest["totals"]
    notes = [(totals["refused"], "refused while reading the raw files"),
             (totals["excluded"], "left out of the shards, without a chosen label")]  # fmt: skip
    return Recordings(
        records={record.key: record for record in store.read_all()},
        rows=rows,
        label=read_labels(store.path, rows, store.recipe["statements"], many_of),
        classes=tuple(store.recipe["statements"]),
        fs=store.recipe["fs"],
        leads=leads.pop(),
        notes=[f"{count:,} records {why}" for count, why in notes if count],
    )


def read_labels(
    path: Path, rows: Mapping[str, Mapping[str, Any]], classes: Sequence[str], many_of: bool
) -> dict[str, Label]:
    """The class, or all classes, of every record, as positions in ``classes``.

    Raises
    ------
    EcgpipeError
        A record without exactly one known label, or, with many, one that is unknown.
    """
    place = {name: at for at, name in enumerate(classes)}
    label: dict[str, Label] = {}
    for key, row in rows.items():
        found = row["statements"]
        if not set(found) <= place.keys() or (len(found) != 1 and not many_of):
            raise EcgpipeError(
                f"{path}: record {key} has the labels {found}, "
                f"where {'only some' if many_of else 'one'} of {' '.join(classes)} "
                f"{'are known' if many_of else 'is needed'}"
            )
        chosen = tuple(sorted(place[name] for name in found))
        label[key] = chosen if many_of else chosen[0]
    return label


def targets(labels: Sequence[Label], classes: int) -> NDArray[Any]:
    """What a network is to answer: (n,) int64 classes, or (n, classes) float32 of 0 and 1."""
    if not any(isinstance(label, tuple) for label in labels):
        return np.array(labels, np.int64)
    y = np.zeros((len(labels), classes), np.float32)
    for row, label in zip(y, labels, strict=True):
        row[list(label if isinstance(label, tuple) else (label,))] = 1
    return y


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
        x = np.zeros((len(chosen), len(recordings.leads), samples), np.int16)
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
            y=targets([recordings.label[r.key] for r in chosen], len(recordings.classes)),
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
