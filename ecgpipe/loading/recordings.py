"""Downstream batches: whole recordings, padded in front to one length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import EcgpipeError
from ..storage.sidecar import RecordRow
from ..storage.store import Store
from ..types import Batch, Record

Label = int | tuple[int, ...]  # the class of a record, or all of its classes
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Recordings:
    """A downstream data set in memory (CinC 2017: 140 MB), int16."""

    records: dict[str, Record]
    rows: dict[str, RecordRow]
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
    recipe = store.shards_recipe
    rows = {row.key: row for part in store.sidecars(check_files=True) for row in part.records}
    leads = {row.leads for row in rows.values()}
    if len(leads) != 1:
        raise EcgpipeError(f"{store.path}: records of {len(leads)} sets of leads; one is needed")
    totals = store.manifest.totals
    notes = [(totals.refused, "refused while reading the raw files"),
             (totals.excluded, "left out of the shards, without a chosen label")]  # fmt: skip
    return Recordings(
        records={record.key: record for record in store.read_all()},
        rows=rows,
        label=read_labels(store.path, rows, recipe.statements, many_of),
        classes=recipe.statements,
        fs=recipe.fs,
        leads=leads.pop(),
        notes=[f"{count:,} records {why}" for count, why in notes if count],
    )


def read_labels(
    path: Path, rows: Mapping[str, RecordRow], classes: Sequence[str], many_of: bool
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
        found = row.statements
        if not set(found) <= place.keys() or (len(found) != 1 and not many_of):
            raise EcgpipeError(
                f"{path}: record {key} has the labels {list(found)}, "
                f"where {'only some' if many_of else 'one'} of {' '.join(classes)} "
                f"{'are known' if many_of else 'is needed'}"
            )
        chosen = tuple(sorted(place[name] for name in found))
        label[key] = chosen if many_of else chosen[0]
    return label


def targets(labels: Sequence[Label], classes: int) -> NDArray[Any]:
    """True classes as an array: (n,) int64, or (n, classes) float32 of 0 and 1."""
    if not any(isinstance(label, tuple) for label in labels):
        return np.array(labels, np.int64)
    y = np.zeros((len(labels), classes), np.float32)
    for row, label in zip(y, labels, strict=True):
        row[list(label if isinstance(label, tuple) else (label,))] = 1
    return y


@dataclass(frozen=True, eq=False)
class PaddedSet:
    """Recordings of one length as tensors of a device, where a batch is a selection of rows.

    A recording longer than that keeps its last samples; a shorter one gets zeros in front, after
    standardisation, as in the released code. CinC 2017 (60 s at 250 Hz) takes 256 MB, PTB-XL (12
    leads, 10 s) 1.3 GB, ICBEB 2018 (12 leads, 60 s) 2.5 GB.
    """

    row: Mapping[str, int]  # of every key
    x: Tensor  # (n, leads, samples) int16, ADC units
    scale: Tensor  # (n, leads) float32, of the standardisation: 1 and 0 until it is chosen
    offset: Tensor  # (n, leads) float32
    length: Tensor  # (n,) int64, samples at the end of x that are signal
    y: Tensor  # (n,) int64 class, or (n, classes) float32 of 0 and 1
    gain: NDArray[np.float64]  # (n, leads) ADC units per mV
    baseline: NDArray[np.float64]  # (n, leads) ADC value of 0 mV

    @classmethod
    def of(cls, recordings: Recordings, samples: int, device: torch.device = CPU) -> PaddedSet:
        """All recordings of a set, at a length in samples."""
        records = list(recordings.records.values())
        x = np.zeros((len(records), len(recordings.leads), samples), np.int16)
        for row, record in zip(x, records, strict=True):
            kept = record.signal[:, -samples:]
            row[:, samples - kept.shape[1] :] = kept
        labels = [recordings.label[record.key] for record in records]
        lengths = np.array([min(record.samples, samples) for record in records])
        return cls(
            row={record.key: row for row, record in enumerate(records)},
            x=torch.from_numpy(x).to(device),
            scale=torch.ones(x.shape[:2], device=device),
            offset=torch.zeros(x.shape[:2], device=device),
            length=torch.from_numpy(lengths).to(device),
            y=torch.from_numpy(targets(labels, len(recordings.classes))).to(device),
            gain=np.stack([record.gain for record in records]),
            baseline=np.stack([record.baseline for record in records]),
        )

    def standardised(self, mean: float, std: float) -> PaddedSet:
        """The same recordings, to be standardised by a mean and a standard deviation in mV."""
        scale = (1 / (self.gain * std)).astype(np.float32)
        offset = (-(self.baseline / self.gain + mean) / std).astype(np.float32)
        return replace(
            self,
            scale=torch.from_numpy(scale).to(self.x.device),
            offset=torch.from_numpy(offset).to(self.x.device),
        )

    def batches(self, keys: Sequence[str], size: int, first: int = 0) -> Selection:
        """Batches of these recordings, in this order, from batch ``first`` on."""
        return Selection(self, keys, chunks(len(keys), size)[first:])


@dataclass(frozen=True)
class Selection:
    """Batches of a padded set, made on its device when they are asked for."""

    padded: PaddedSet
    keys: Sequence[str]
    slices: list[slice]  # of the keys

    def __len__(self) -> int:
        return len(self.slices)

    def __iter__(self) -> Iterator[Batch]:
        whole, keys = self.padded, np.array(self.keys, object)
        order = torch.tensor([whole.row[key] for key in self.keys]).to(whole.x.device)
        for at in self.slices:
            rows = order[at]
            yield Batch(
                x=whole.x.index_select(0, rows),
                scale=whole.scale.index_select(0, rows),
                offset=whole.offset.index_select(0, rows),
                length=whole.length.index_select(0, rows),
                y=whole.y.index_select(0, rows),
                keys=keys[at],
            )


def chunks(count: int, size: int) -> list[slice]:
    """Slices of ``size`` over ``count`` items; a single item left over joins the last slice.

    Batch statistics of one item mean nothing.
    """
    starts = list(range(0, count, size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], count], strict=True)]


def shuffled(keys: Sequence[str], *seed: int) -> list[str]:
    """The keys in an order that the seed decides."""
    order: NDArray[np.intp] = np.random.default_rng(list(seed)).permutation(len(keys))
    return [keys[i] for i in order]
