"""A part of an archive: one Zarr group, written in one pass and read record by record.

Layout in ``storage_layout.md``. The signals lie one after another along time, the marks likewise,
each with offsets.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec

from ..errors import BadRecord
from ..files.atomic import json_bytes, write_bytes
from ..files.paths import is_remote
from ..types import NO_MARKS, Marks, Record
from .sidecar import RecordRow, Sidecar

GROUP = "records.zarr"
CHUNK = 65_536  # samples; smaller ones cost more to open than to decode
SHARD = 64 * CHUNK  # samples in a file, 8 MiB a lead before compression
COMPRESSION: dict[str, Any] = {"cname": "zstd", "clevel": 3, "shuffle": "shuffle"}
ROOT = f"{GROUP}/zarr.json"
ROOT_CONTENT = json_bytes({"attributes": {}, "zarr_format": 3, "node_type": "group"})
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
            # The checksum lets any Zarr reader notice damage.
            compressors=[BloscCodec(**COMPRESSION), Crc32cCodec()],
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


def open_group(path: Path) -> Any:
    """A Zarr group, here or behind a URL; by Any, since zarr says of no value what it is."""
    how = cast(Any, path).storage_options if is_remote(path) else None
    return zarr.open_group(str(path), mode="r", storage_options=how)


def write_root(archive: Path) -> None:
    """Make the parts one Zarr hierarchy."""
    write_bytes(archive / ROOT, ROOT_CONTENT)


class PartReader:
    """Reads records of one Zarr group, and compares each with the sidecar.

    Identity, units and lengths of a record come from its row; the group's own arrays repeat them
    for readers without ecgpipe.
    """

    def __init__(self, store: Path, sidecar: Sidecar) -> None:
        self.store, self.sidecar = store, sidecar
        rows = sidecar.records
        counts = {
            "signal": [row.samples for row in rows],
            "beat": [sum((row.beats or {}).values()) for row in rows],
            "rhythm": [sum(row.rhythms.values()) for row in rows],
            "qrs": [row.qrs for row in rows],
        }
        self._edge = {name: _offsets(lengths) for name, lengths in counts.items()}

    @cached_property
    def _group(self) -> Any:
        return open_group(self.store / GROUP / self.sidecar.name)

    @cached_property
    def _marks(self) -> dict[str, Marks]:
        """All marks of the part, by kind."""
        return {
            name: Marks(self._group[f"{name}_index"][...], self._group[f"{name}_label"][...])
            for name in MARKS
        }

    def read(self, i: int) -> Record:
        """The record at position i of the part.

        Raises
        ------
        Damaged
            It is not what was written.
        """
        row = self.sidecar.records[i]
        with self.sidecar.checked(self.store, row):
            beats, rhythms, qrs = self._marks_of(i)
            edge = self._edge["signal"]
            record = Record(
                key=row.key,
                patient=row.patient,
                fs=row.fs,
                leads=row.leads,
                signal=self._group["signal"][:, edge[i] : edge[i + 1]],
                gain=np.array(row.gain),
                baseline=np.array(row.baseline),
                beats=beats,
                rhythms=rhythms,
                qrs=qrs,
                statements=row.statements,
                fold=row.fold,
                quantisation=row.quantisation,
            )
            row.check(record)
        return record

    def qrs(self, i: int) -> NDArray[np.int32]:
        """Samples of the QRS complexes of a record; its signal is not read."""
        row = self.sidecar.records[i]
        with self.sidecar.checked(self.store, row):
            beats, rhythms, qrs = self._marks_of(i)
            row.check_marks(beats, rhythms, qrs)
        return qrs.index

    def _marks_of(self, i: int) -> tuple[Marks | None, Marks, Marks]:
        def of(name: str) -> Marks:
            index, label = self._marks[name]
            at = slice(self._edge[name][i], self._edge[name][i + 1])
            return Marks(index[at], label[at])

        beats, rhythms, qrs = map(of, MARKS)
        return beats if self.sidecar.records[i].beats is not None else None, rhythms, qrs
