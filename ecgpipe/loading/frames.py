"""Upstream batches: short frames drawn at random from shards, labelled while they are read.

Randomness is keyed by (seed, epoch, stream, visit, record) and never carried along, so an epoch
depends on nothing before it. Its batches come from a fixed number of logical streams, batch i from
stream i mod their number; loader processes only run streams, so their number changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import EcgpipeError
from ..labels.qrs import main_lead
from ..storage.shards import decode, samples
from ..storage.store import Store
from ..storage.verify import check_files
from ..types import Batch, Record

# (record, symbols of its beats, first samples (n,), frame length) -> classes (n,)
Labeller = Callable[[Record, tuple[str, ...], NDArray[np.int64], int], NDArray[np.int64]]


class Source(NamedTuple):
    """A record that frames can be drawn from."""

    key: str
    patient: str  # "dataset/patient"
    samples: int


@dataclass(frozen=True)
class Shard:
    """A tar file and the records in it that are used."""

    path: Path
    beats: tuple[str, ...]  # symbols of its beat labels
    main_lead: str | None
    records: tuple[Source, ...]


class Corpus(NamedTuple):
    """The shards of one or more stores, and what was left out of them."""

    shards: list[Shard]
    rows: dict[str, dict[str, Any]]  # by record: its row in the sidecar, with `lead` picked
    notes: list[str]

    @property
    def patients(self) -> list[str]:
        """All patients, sorted."""
        return sorted({record.patient for shard in self.shards for record in shard.records})

    def of(self, patients: Iterable[str]) -> list[Shard]:
        """The shards with the records of these patients only; shards without any are left out."""
        wanted = set(patients)
        chosen = (
            replace(shard, records=tuple(r for r in shard.records if r.patient in wanted))
            for shard in self.shards
        )
        return [shard for shard in chosen if shard.records]


def open_corpus(stores: Sequence[Store], fs: float, frame: int, annotated: bool) -> Corpus:
    """List the records that frames of a task can be drawn from.

    Parameters
    ----------
    stores
        Shards of upstream data sets.
    fs
        The sampling rate they must have, Hz.
    frame
        Samples of a frame; shorter records are left out, and counted.
    annotated
        Whether a record needs annotated beats; one without is left out, and counted.

    Raises
    ------
    EcgpipeError
        A store of another kind or rate, damaged files, or nothing left to draw from.
    """
    shards, rows, notes = [], {}, []
    for store in stores:
        recipe = store.recipe
        if recipe["kind"] != "shards":
            raise EcgpipeError(
                f"{store.path}: is an archive; run `ecgpipe shard` and name its result"
            )
        if recipe["fs"] != fs:
            raise EcgpipeError(
                f"{store.path}: shards at {recipe['fs']:g} Hz where the setting fs says {fs:g}"
            )
        check_files(store)
        by_part: dict[str, list[Source]] = {}
        bare = short = 0
        for row in store.rows():
            if annotated and row["beats"] is None:
                bare += 1
            elif row["samples"] < frame:
                short += 1
            else:
                patient = f"{recipe['dataset']}/{row['patient']}"
                by_part.setdefault(row["part"], []).append(
                    Source(row["key"], patient, row["samples"])
                )
                lead = main_lead(tuple(row["leads"]), recipe["main_lead"])
                rows[f"{patient}/{row['key']}"] = {**row, "lead": lead, "patient_id": patient}
        shards += [
            Shard(store.shard(part), tuple(recipe["beats"]), recipe["main_lead"], tuple(records))
            for part, records in by_part.items()
        ]
        for count, why in ((bare, "without annotated beats"), (short, f"under {frame} samples")):
            if count:
                notes.append(f"{recipe['dataset']}: {count} records {why} left out")
    if not shards:
        raise EcgpipeError(
            "no record to draw frames from: " + "; ".join(notes or ["the shards are empty"])
        )
    return Corpus(shards, rows, notes)


@dataclass(frozen=True)
class Frames:
    """How frames are drawn and standardised."""

    frame: int  # samples
    label: Labeller
    mean: float  # mV
    std: float  # mV
    seed: int

    def draw(self, shard: Shard, count: int, *place: int) -> Iterator[Batch]:
        """Draw ``count`` frames of every patient in a shard, a batch for each record.

        A patient's frames are spread over its records by their lengths. ``place`` (epoch, stream,
        visit) keys the randomness.
        """
        counts: dict[str, int] = {}
        for patient in sorted({record.patient for record in shard.records}):
            records = [record for record in shard.records if record.patient == patient]
            weight = np.array([record.samples for record in records], np.float64)
            spread = self._rng(patient, *place).multinomial(count, weight / weight.sum())
            counts |= {r.key: int(n) for r, n in zip(records, spread, strict=True) if n}
        for sample in samples(shard.path, counts.__contains__):
            record = decode(sample)
            rng = self._rng(record.key, *place)
            starts = rng.integers(0, record.samples - self.frame + 1, counts[record.key])
            yield self.cut(record, shard, starts)

    def _rng(self, name: str, *place: int) -> np.random.Generator:
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        return np.random.default_rng([self.seed, *place, key])

    def cut(self, record: Record, shard: Shard, starts: NDArray[np.int64]) -> Batch:
        """The frames of a record that begin at ``starts``, labelled, as one batch."""
        lead = main_lead(record.leads, shard.main_lead)
        windows = np.lib.stride_tricks.sliding_window_view(record.signal[lead], self.frame)
        gain, zero = record.gain[lead], record.baseline[lead]
        n = len(starts)
        return Batch(
            x=windows[starts][:, None],
            scale=np.full((n, 1), 1 / (gain * self.std), np.float32),
            offset=np.full((n, 1), -(zero / gain + self.mean) / self.std, np.float32),
            length=np.full(n, self.frame),
            y=self.label(record, shard.beats, starts, self.frame),
            keys=np.array([f"{record.key}@{start}" for start in starts], object),
        )


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch; iterates in the same order for any number of processes."""

    shards: Sequence[Shard]
    frames: Frames
    number: int
    steps: int
    batch: int
    frames_per_visit: int
    streams: int
    open_shards: int
    shuffle: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return self.run(range(self.streams))

    def run(self, streams: Sequence[int]) -> Iterator[Batch]:
        """The batches of some of the streams, in turn; all of them make the epoch."""
        running = {stream: self._stream(stream) for stream in streams}
        for step in range(self.steps):
            if step % self.streams in running:
                yield next(running[step % self.streams])

    def _stream(self, stream: int) -> Iterator[Batch]:
        """The batches of one stream: shards mixed, then swapped through a shuffle buffer."""
        total = len(range(stream, self.steps, self.streams)) * self.batch
        size = min(self.shuffle, total)
        rng = np.random.default_rng([self.frames.seed, self.number, stream])
        buffer: Batch | None = None
        read = filled = 0
        ready: list[Batch] = []
        for block in self._interleaved(stream):
            block = take(block, slice(total - read))
            read += len(block.y)
            if buffer is None:
                buffer = Batch(*(np.empty((size, *c.shape[1:]), c.dtype) for c in block))
            room = min(size - filled, len(block.y))
            put(buffer, slice(filled, filled + room), take(block, slice(room)))
            filled += room
            for start in range(room, len(block.y), size):
                piece = take(block, slice(start, start + size))
                slots = rng.choice(size, len(piece.y), replace=False)
                ready.append(take(buffer, slots))
                put(buffer, slots, piece)
            if read == total:
                ready.append(take(buffer, rng.permutation(filled)))
            waiting = sum(len(some.y) for some in ready)
            if waiting >= self.batch:
                merged = concatenate(ready)
                whole = waiting // self.batch * self.batch
                for start in range(0, whole, self.batch):
                    yield take(merged, slice(start, start + self.batch))
                ready = [take(merged, slice(whole, waiting))]
            if read == total:
                return

    def _interleaved(self, stream: int) -> Iterator[Batch]:
        """Frames of a stream's shards: several open at a time, one record of each in turn."""
        visits = self._visits(stream)
        running = list(islice(visits, min(self.open_shards, len(self.shards))))
        while True:
            for i, visit in enumerate(running):
                while (block := next(visit, None)) is None:
                    running[i] = visit = next(visits)
                yield block

    def _visits(self, stream: int) -> Iterator[Iterator[Batch]]:
        """An epoch deals an endless row of shards to its streams, each pass in a new order."""
        place = stream
        while True:
            turn, at = divmod(place, len(self.shards))
            order = np.random.default_rng([self.frames.seed, self.number, turn]).permutation(
                len(self.shards)
            )
            shard = self.shards[order[at]]
            yield self.frames.draw(shard, self.frames_per_visit, self.number, stream, turn)
            place += self.streams


def fixed_frames(shards: Sequence[Shard], frames: Frames, count: int, batch: int) -> list[Batch]:
    """About ``count`` frames, as many of every patient, the same in every run; for validation."""
    patients = {record.patient for shard in shards for record in shard.records}
    each = max(1, round(count / len(patients)))
    fixed = replace(frames, seed=0)
    merged = concatenate([block for shard in shards for block in fixed.draw(shard, each)])
    return [take(merged, slice(start, start + batch)) for start in range(0, len(merged.y), batch)]


def take(batch: Batch, at: Any) -> Batch:
    """The items of a batch at these positions (a slice or an array)."""
    return Batch(*(column[at] for column in batch))


def put(batch: Batch, at: Any, items: Batch) -> None:
    """Write items into a batch, in place."""
    for column, values in zip(batch, items, strict=True):
        column[at] = values


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Batches one after another."""
    return Batch(*(np.concatenate(column) for column in zip(*batches, strict=True)))
