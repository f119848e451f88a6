"""An epoch of pretraining: shards mixed into streams, streams into batches.

Its batches come from a fixed number of logical streams, batch i from stream i mod their number,
each with its own shards, shuffle buffer and negatives. Processes, of a loader or of torchrun, only
run streams, so their number changes nothing.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..errors import EcgpipeError, LoaderDied
from ..types import Batch
from .corpus import Shard
from .frames import Frames, empty_like, put, take

_DEAD = re.compile(r"DataLoader worker \(pid\(?s?\)? ([\d, ]+)\)")


@dataclass(frozen=True)
class Epoch:
    """The batches of one epoch; iterates in the same order for any number of processes."""

    shards: Sequence[Shard]
    frames: Frames
    number: int
    steps: int  # batches
    batch: int  # items
    frames_per_visit: int
    streams: int
    open_shards: int
    shuffle: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return self.run(range(self.streams))

    def run(self, streams: Sequence[int], first: int = 0) -> Iterator[Batch]:
        """The batches of some of the streams, in turn, from batch ``first`` of the epoch on.

        Earlier batches are drawn and dropped.
        """
        running = {stream: self._stream(stream) for stream in streams}
        for step in range(self.steps):
            if step % self.streams in running:
                batch = next(running[step % self.streams])
                if step >= first:
                    yield batch

    def _stream(self, stream: int) -> Iterator[Batch]:
        """The batches of one stream, complete."""
        for turn, batch in enumerate(self._shuffled(stream)):
            yield self.frames.complete(batch, self.number, stream, turn)

    def _shuffled(self, stream: int) -> Iterator[Batch]:
        """Items of a stream, swapped through a shuffle buffer, in batches."""
        total = len(range(stream, self.steps, self.streams)) * self.batch
        size = min(self.shuffle, total)
        rng = np.random.default_rng([self.frames.seed, self.number, stream])
        buffer = out = None
        read = filled = ready = 0  # items read, in the buffer, and in the batch that is growing
        for block in self._interleaved(stream):
            block = take(block, slice(total - read))
            read += len(block.y)
            if buffer is None or out is None:
                buffer, out = empty_like(block, size), empty_like(block, self.batch)
            room = min(size - filled, len(block.y))
            put(buffer, slice(filled, filled + room), take(block, slice(room)))
            filled += room
            at = room
            while at < len(block.y):
                piece = take(block, slice(at, at + min(size, self.batch - ready)))
                slots = rng.choice(size, len(piece.y), replace=False)
                put(out, slice(ready, ready + len(slots)), take(buffer, slots))
                put(buffer, slots, piece)
                at, ready = at + len(slots), ready + len(slots)
                if ready == self.batch:
                    yield out
                    out, ready = empty_like(block, self.batch), 0
            if read == total:
                break
        if buffer is None or out is None:
            return
        left = rng.permutation(filled)
        put(out, slice(ready, None), take(buffer, left[: self.batch - ready]))
        yield out
        for start in range(self.batch - ready, filled, self.batch):
            yield take(buffer, left[start : start + self.batch])

    def _interleaved(self, stream: int) -> Iterator[Batch]:
        """Items of a stream's shards: several open at a time, one record of each in turn."""
        visits = self._visits(stream)
        running = list(islice(visits, min(self.open_shards, len(self.shards))))
        while True:
            for i, visit in enumerate(running):
                while (block := next(visit, None)) is None:
                    running[i] = visit = next(visits)
                yield block

    def _visits(self, stream: int) -> Iterator[Iterator[Batch]]:
        """Deal all shards to the streams in turn, endlessly, in a new order in each pass."""
        position = stream
        while True:
            turn, at = divmod(position, len(self.shards))
            order = np.random.default_rng([self.frames.seed, self.number, turn]).permutation(
                len(self.shards)
            )
            shard = self.shards[order[at]]
            yield self.frames.draw(shard, self.frames_per_visit, self.number, stream, turn)
            position += self.streams


@dataclass(frozen=True)
class Feed:
    """The batches of an epoch that fall to one process of several, from loader processes if any."""

    epoch: Epoch
    rank: int = 0
    ranks: int = 1
    workers: int = 0
    first: int = 0  # batch of the epoch; those before it are skipped
    pin: bool = False  # into memory that a GPU copies from

    def __len__(self) -> int:
        return len(range(self.first + self.rank, self.epoch.steps, self.ranks))

    def __iter__(self) -> Iterator[Batch]:
        if not self.workers:
            return self.epoch.run(self.streams, self.first)
        return self._from_processes()

    def _from_processes(self) -> Iterator[Batch]:
        """The batches, from loader processes.

        Raises
        ------
        LoaderDied
            One of them was killed; noticed within 5 s, and only here, between two updates.
        """
        handler = signal.getsignal(signal.SIGCHLD)
        batches = iter(
            DataLoader(
                _Streams(self),
                batch_size=None,
                num_workers=self.workers,
                collate_fn=_same,
                pin_memory=self.pin,
                prefetch_factor=4,
                worker_init_fn=_handle_signals,
            )
        )
        if threading.current_thread() is threading.main_thread():
            # The loader's own handler raises wherever the training is, also within an update.
            signal.signal(signal.SIGCHLD, handler)
        while True:
            try:
                batch = next(batches, None)
            except RuntimeError as error:
                if not (found := _DEAD.search(str(error))):
                    raise
                raise LoaderDied(
                    f"loader process {found[1]} was killed, most often because memory ran out; "
                    "use fewer workers (setting workers), or a smaller shuffle or open_shards, and "
                    "start the same command again to continue"
                ) from None
            if batch is None:
                return
            if isinstance(batch, EcgpipeError):
                raise batch
            yield batch

    @property
    def streams(self) -> range:
        """Numbers of the streams of this process."""
        return range(self.rank, self.epoch.streams, self.ranks)


class _Streams(IterableDataset[Batch]):
    """The streams that fall to one loader process of a feed."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        assert info is not None, "only loader processes iterate this"
        # The loader asks its processes in turn, so they take turns from the first batch wanted on.
        skipped = self.feed.first // self.feed.ranks
        own = self.feed.streams[(info.id + skipped) % info.num_workers :: info.num_workers]
        try:
            yield from map(_tensors, self.feed.epoch.run(own, self.feed.first))
        except EcgpipeError as error:  # raised here, its message would be a trace
            yield cast(Batch, error)


def _tensors(batch: Batch) -> Batch:
    """The batch as tensors, which processes exchange in shared memory instead of a pipe."""
    columns: Iterable[Any] = (
        column if column is None or column.dtype == object else torch.from_numpy(column)
        for column in batch
    )
    return Batch(*columns)


def _same(batch: Any) -> Any:
    return batch


def _handle_signals(worker: int) -> None:
    """Ignore Ctrl-C and the first SIGTERM, which all processes of a group receive.

    The training process saves its work then, and ends its loader processes itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
