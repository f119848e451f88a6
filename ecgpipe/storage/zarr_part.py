"""A part of an archive: one Zarr group, written in one pass and read record by record.

Layout in ``storage_layout.md``. The signals lie one after another along time, the marks likewise,
each with offsets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from ..errors import BadRecord
from ..files.paths import is_remote
from ..types import NO_MARKS, Marks, Record
from .sidecar import RecordRow

GROUP = "records.zarr"
CHUNK = 65_536  # samples; smaller ones cost more to open than to decode
SHARD = 64 * CHUNK  # samples in a file, 8 MiB a lead before compression
COMPRESSION: dict[str, Any] = {"cname": "zstd", "clevel": 3, "shuffle": "shuffle"}
MARKS = ("beat", "rhythm", "qrs")


class PartWriter:
    """Writes records into one Zarr group; memory is bounded by a Zarr shard and a record.

    One part has one writer: nothing here is safe to share.
    """

    def __init__(self, path: Path, beats: tuple[str, ...], rhythms: tuple[str, ...]) -> None:
        self.path, self.beats, self.rhythms = path, beats, rhythms
        self.rows: list[RecordRow] = []
        self._pending: list[NDArray[np.int16]] = []
        self._written = 0  # samples in the array so far, whole shards until the end
        self._group: Any = None
        self._marks: dict[str, list[Marks]] = {name: [] for name in MARKS}

    def __enter__(self) -> PartWriter:
        return self

    def add(self, record: Record) -> None:
        """Append a record.

        Raises
        ------
        BadRecord
            It has another number of leads than the ones before it.
        """
        if self.rows and len(record.leads) != len(self.rows[0].leads):
            raise BadRecord(
                f"{record.key}: {len(record.leads)} leads where the records before it have "
                f"{len(self.rows[0].leads)}"
            )
        self.rows.append(RecordRow.of(record, self.beats, self.rhythms))
        for name, marks in zip(MARKS, (record.beats, record.rhythms, record.qrs), strict=True):
            self._marks[name].append(marks or NO_MARKS)
        self._pending.append(record.signal)
        if sum(signal.shape[1] for signal in self._pending) >= SHARD:
            self._flush(whole_shards=True)

    def _flush(self, whole_shards: bool) -> None:
        signal = np.concatenate(self._pending, axis=1)
        count = signal.shape[1] // SHARD * SHARD if whole_shards else signal.shape[1]
        leads = signal.shape[0]
        if self._group is None:
            self._group = zarr.create_group(str(self.path))
            self._create(
                "signal", np.int16, (leads, 0), ("lead", "sample"), (leads, CHUNK), (leads, SHARD)
            )
        array = self._group["signal"]
        array.resize((leads, self._written + count))
        array[:, self._written : self._written + count] = signal[:, :count]
        self._written += count
        self._pending = [signal[:, count:].copy()]

    def _create(
        self,
        name: str,
        dtype: Any,
        shape: tuple[int, ...],
        dimensions: tuple[str, ...],
        chunks: tuple[int, ...],
        shards: tuple[int, ...] | None = None,
    ) -> Any:
        return self._group.create_array(
            name,
            dtype=dtype,
            shape=shape,
            chunks=chunks,
            shards=shards,
            compressors=BloscCodec(**COMPRESSION),
            dimension_names=dimensions,
        )

    def _put(self, name: str, values: NDArray[Any], dimensions: tuple[str, ...]) -> None:
        chunks = tuple(max(1, length) for length in values.shape)
        self._create(name, values.dtype, values.shape, dimensions, chunks)[...] = values

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write what is left; a part without records leaves nothing."""
        if kind is not None or not self.rows:
            return
        self._flush(whole_shards=False)
        rows = self.rows
        self._put("signal_offset", _offsets([row.samples for row in rows]), ("record_edge",))
        self._put("fs", np.array([row.fs for row in rows]), ("record",))
        self._put("gain", np.array([row.gain for row in rows]), ("record", "lead"))
        self._put("baseline", np.array([row.baseline for row in rows]), ("record", "lead"))
        for name, marks in self._marks.items():
            self._put(f"{name}_offset", _offsets([len(m.index) for m in marks]), ("record_edge",))
            self._put(f"{name}_index", np.concatenate([m.index for m in marks]), (name,))
            self._put(f"{name}_label", np.concatenate([m.label for m in marks]), (name,))
        described = ("key", "patient", "leads", "statements", "fold", "quantisation")
        self._group.update_attributes(
            {
                "records": [
                    {
                        **{name: getattr(row, name) for name in described},
                        "annotated": row.beats is not None,
                    }
                    for row in rows
                ],
                "beat_symbols": list(self.beats),
                "rhythm_symbols": list(self.rhythms),
            }
        )


def _offsets(lengths: list[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def open_group(path: Path, mode: Literal["r", "a"] = "r") -> Any:
    """A Zarr group, here or behind a URL; by Any, since zarr says of no value what it is."""
    how = cast(Any, path).storage_options if is_remote(path) else None
    return zarr.open_group(str(path), mode=mode, storage_options=how)


class PartReader:
    """Reads records of one Zarr group."""

    def __init__(self, path: Path) -> None:
        self.group = open_group(path)
        self.described: list[dict[str, Any]] = self.group.attrs["records"]
        self._small: dict[str, Any] = {
            name: array[...] for name, array in self.group.arrays() if name != "signal"
        }

    def read(self, i: int) -> Record:
        """The record at position i of the part."""
        small, described = self._small, self.described[i]
        edge = small["signal_offset"]
        beats, rhythms, qrs = (self._marks(name, i) for name in MARKS)
        return Record(
            key=described["key"],
            patient=described["patient"],
            fs=float(small["fs"][i]),
            leads=tuple(described["leads"]),
            signal=self.group["signal"][:, edge[i] : edge[i + 1]],
            gain=small["gain"][i],
            baseline=small["baseline"][i],
            beats=beats if described["annotated"] else None,
            rhythms=rhythms,
            qrs=qrs,
            statements=tuple(described["statements"]),
            fold=described["fold"],
            quantisation=described["quantisation"],
        )

    def _marks(self, name: str, i: int) -> Marks:
        edge = self._small[f"{name}_offset"]
        at = slice(edge[i], edge[i + 1])
        return Marks(self._small[f"{name}_index"][at], self._small[f"{name}_label"][at])
