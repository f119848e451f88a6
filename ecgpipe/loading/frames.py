"""Frames cut from records at random places, labelled while they are read.

Randomness is keyed by (seed, epoch, stream, visit, record) and never carried along, so what is
drawn depends on nothing before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EcgpipeError
from ..labels.qrs import main_lead
from ..storage.samples import decode, read_shard
from ..types import Batch, Record
from .corpus import Shard, Symbols

# (record, symbols of its marks, first samples (n,), frame length) -> classes (n,)
Labeller = Callable[[Record, Symbols, NDArray[np.int64], int], NDArray[np.int64]]

VALIDATION_BATCH = 128  # whatever the training's is, so that fixed items are fixed


@dataclass(frozen=True)
class Frames:
    """How items are drawn, labelled and standardised; an item is one frame or several of them."""

    frame: int  # samples
    label: Labeller | None  # None where the future is to be predicted
    mean: float  # mV
    std: float  # mV
    seed: int
    places: tuple[int, ...] = (0,)  # of an item's frames, counted in frames from its start
    negatives: int = 0  # frames of other patients among an item's candidates
    margin: int = 0  # samples that a label looks at on both sides of a frame

    @property
    def span(self) -> int:
        """Samples from an item's first to its last."""
        return (self.places[-1] + 1) * self.frame

    def draw(self, shard: Shard, count: int, *place: int) -> Iterator[Batch]:
        """Draw ``count`` items of every patient in a shard, a batch for each record.

        A patient's items are spread over its records by their lengths. ``place`` (epoch, stream,
        visit) keys the randomness.
        """
        patient_of = {record.key: record.patient for record in shard.records}
        counts: dict[str, int] = {}
        for patient in sorted(set(patient_of.values())):
            records = [record for record in shard.records if record.patient == patient]
            weight = np.array([record.samples for record in records], np.float64)
            spread = self._rng(patient, *place).multinomial(count, weight / weight.sum())
            counts |= {r.key: int(n) for r, n in zip(records, spread, strict=True) if n}
        checksums = {r.key: r.checksum for r in shard.records if r.key in counts}
        for record in read_shard(shard.path, checksums, decode):
            starts = self._starts(record, counts[record.key], *place)
            yield self.cut(record, shard, starts, patient_of[record.key])

    def _starts(self, record: Record, count: int, *place: int) -> NDArray[np.int64]:
        """(count,) random first samples; in a long enough record their margins lie in it too."""
        margin = self.margin if record.samples >= self.span + 2 * self.margin else 0
        last = record.samples - self.span - margin
        return self._rng(record.key, *place).integers(margin, last + 1, count)

    def _rng(self, name: str, *place: int) -> np.random.Generator:
        text = ":".join(map(str, (self.seed, *place, name)))
        key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], np.uint64)
        return np.random.Generator(np.random.Philox(key=key))  # a third quicker than a seed

    def cut(self, record: Record, shard: Shard, starts: NDArray[np.int64], patient: str) -> Batch:
        """The items of a record that begin at ``starts``, labelled, as one batch."""
        lead = main_lead(record.leads, shard.main_lead)
        windows = np.lib.stride_tricks.sliding_window_view(record.signal[lead], self.frame)
        gain, zero = record.gain[lead], record.baseline[lead]
        shape = (len(starts), len(self.places))
        return Batch(
            x=windows[starts[:, None] + np.array(self.places) * self.frame],
            scale=np.full(shape, 1 / (gain * self.std), np.float32),
            offset=np.full(shape, -(zero / gain + self.mean) / self.std, np.float32),
            length=np.full(len(starts), self.frame),
            y=self.label(record, shard.symbols, starts, self.frame)
            if self.label
            else np.zeros(len(starts), np.int64),
            keys=np.array([f"{record.key}@{start}" for start in starts.tolist()], object),
            patient=np.full(len(starts), number_of(patient)),
        )

    def complete(self, batch: Batch, *place: int) -> Batch:
        """A batch as it is trained on: with candidates where the future is to be predicted.

        An item's true future is its last frame. The others are frames of other patients in the
        batch, each from another item as long as there are enough. The true one's position among the
        candidates is random, so that a network that learnt nothing is right by chance only.

        Raises
        ------
        EcgpipeError
            All items are of one patient.
        """
        if not self.negatives:
            return batch
        rng = self._rng("candidates", *place)
        n, frames = batch.x.shape[:2]
        order = rng.random((n, n))
        order[batch.patient[:, None] == batch.patient] = 2  # behind those of other patients
        others = (order < 2).sum(1)
        if not others.all():
            raise EcgpipeError(
                "future prediction needs frames of other patients, but a batch holds items of one "
                "alone; raise the settings shuffle and open_shards, lower frames_per_visit, or add "
                "patients"
            )
        turn = np.arange(self.negatives) % others[:, None]
        items = np.take_along_axis(order.argsort(1), turn, 1)
        candidates = np.empty((n, self.negatives + 1), np.int64)
        candidates[:, 1:] = items * frames + rng.integers(0, frames, items.shape)
        candidates[:, 0] = np.arange(1, n + 1) * frames - 1
        y = rng.integers(0, self.negatives + 1, n)
        rows = np.arange(n)
        candidates[rows, 0] = candidates[rows, y]
        candidates[rows, y] = (rows + 1) * frames - 1
        return batch._replace(y=y, candidates=candidates)


def fixed_items(shards: Sequence[Shard], frames: Frames, count: int) -> list[Batch]:
    """About ``count`` items, as many of every patient, the same in every run; for validation."""
    patients = {record.patient for shard in shards for record in shard.records}
    each = max(1, round(count / len(patients)))
    fixed = replace(frames, seed=0)
    merged = concatenate([block for shard in shards for block in fixed.draw(shard, each)])
    # Mixed, or a batch would hold one patient's items, of which none could be another's negative.
    order = np.random.default_rng(0).permutation(len(merged.y))
    chunks = np.array_split(order, -(-len(order) // VALIDATION_BATCH))
    return [fixed.complete(take(merged, at), i) for i, at in enumerate(chunks)]


def number_of(name: str) -> int:
    """A number for a name, the same everywhere: 63 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1


def take(batch: Batch, at: Any) -> Batch:
    """The items of a batch at these positions (a slice or an array)."""
    return Batch(*(None if column is None else column[at] for column in batch))


def put(batch: Batch, at: Any, items: Batch) -> None:
    """Write items into a batch, in place."""
    for column, values in zip(batch, items, strict=True):
        if column is not None:
            column[at] = values


def empty_like(batch: Batch, count: int) -> Batch:
    """An uninitialised batch of ``count`` such items."""
    return Batch(*(c if c is None else np.empty((count, *c.shape[1:]), c.dtype) for c in batch))


def concatenate(batches: Sequence[Batch]) -> Batch:
    """One batch with the items of all batches, in order."""
    columns = zip(*batches, strict=True)
    return Batch(*(None if c[0] is None else np.concatenate(c) for c in columns))
