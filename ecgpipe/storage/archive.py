"""The archive: every record of a data set, losslessly, at its own sampling rate, in Zarr.

Layout in ``storage_layout.md``. A part is one Zarr group; its signals lie one after another along
time, its marks likewise, each with offsets.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from ..config import digest
from ..datasets import (
    DATASETS,
    SIMULATED,
    Entry,
    Folder,
    find_entries,
    group_parts,
    read_entry,
    select,
)
from ..errors import BadRecord
from ..files.folder import InputFiles
from ..files.paths import is_remote
from ..labels.qrs import detect_qrs
from ..progress import say
from ..types import NO_MARKS, Marks, Record
from .manifest import ArchiveRecipe, Manifest, record_row
from .parts import build, versions

GROUP = "records.zarr"
CHUNK = 65_536  # samples; smaller ones cost more to open than to decode
SHARD = 64 * CHUNK  # samples in a file, 8 MiB a lead before compression
COMPRESSION: dict[str, Any] = {"cname": "zstd", "clevel": 3, "shuffle": "shuffle"}
MARKS = ("beat", "rhythm", "qrs")


def prepare(
    name: str,
    source: str | Path,
    archive: Path,
    workers: int | None = None,
    *,
    patients: str | None = None,
    segments: int | None = None,
    detector: str = "sleepecg",
    dask: str | None = None,
) -> Manifest:
    """Convert a data set into an archive, or continue where a killed run was.

    Parameters
    ----------
    name
        Of the data set, a key of ``DATASETS``.
    source
        Its raw files: a folder, or a URL that fsspec reads.
    archive
        Folder of the archive.
    workers
        Processes, by default one per core.
    patients, segments
        A subset, see :func:`ecgpipe.datasets.select`.
    detector
        Of QRS complexes, a key of :data:`ecgpipe.labels.qrs.DETECTORS`.
    dask
        Address of a Dask scheduler that makes the parts, or ``local``.

    Returns
    -------
    Manifest
        ``totals.refused`` counts the records that could not be used.

    Raises
    ------
    EcgpipeError
        See :func:`ecgpipe.datasets.find_entries`, :func:`ecgpipe.datasets.select` and
        :func:`ecgpipe.storage.parts.build`.
    """
    folder = Folder.open(source)
    found = select(find_entries(name, folder), patients, segments)
    facts = DATASETS[name]
    if facts.others and (others := facts.others(folder)):
        counts = ", ".join(f"{count:,} {prefix}…" for prefix, count in others.items())
        say(f"{folder.root}: recordings of other sets are left alone: {counts}")
    recipe = _recipe(name, folder, found[0].labels_file, segments, detector)
    jobs = {}
    for part, entries in group_parts(name, found).items():
        files = folder.only(file for entry in entries for file in entry.files)
        jobs[part] = PrepareJob(name, files, tuple(entries), part, detector)
    title = f"prepare {name}"
    manifest = build(archive, recipe, jobs, title, workers or os.cpu_count() or 1, dask)
    open_group(archive / GROUP, "a")  # so that the parts open as one hierarchy
    return manifest


def _recipe(
    name: str, folder: Folder, labels_file: str | None, segments: int | None, detector: str
) -> ArchiveRecipe:
    facts = DATASETS[name]
    groups = facts.groups(folder) if facts.groups else {}
    return ArchiveRecipe(
        dataset=name,
        simulated=folder.has(SIMULATED),
        labels_file=labels_file,
        segments=segments,
        detector=detector,
        beats=facts.beats,
        rhythms=facts.rhythms,
        statements=facts.statements or tuple(groups.get("all", ())),
        groups=groups,
        main_lead=facts.main_lead,
        compression=COMPRESSION,
        chunk=CHUNK,
        shard=SHARD,
        versions=versions("wfdb", "zarr", "numcodecs", "sleepecg", "numpy", "scipy"),
    )


@dataclass(frozen=True)
class PrepareJob:
    """Makes one part of an archive from raw files."""

    dataset: str
    folder: Folder
    entries: tuple[Entry, ...]
    part: str
    detector: str

    @property
    def target(self) -> str:
        """The part's Zarr group."""
        return f"{GROUP}/{self.part}"

    def is_current(self, inputs: dict[str, Any]) -> bool:
        """Whether files, and what the data set's tables say of them, are what they were."""
        return bool(inputs["listing"] == self._listing) and self.folder.unchanged(inputs["files"])

    @property
    def _listing(self) -> str:
        return digest([asdict(entry) for entry in self.entries])

    def write(self, target: Path) -> dict[str, Any]:
        """Read the records one at a time and write them; a bad one is refused by name."""
        facts = DATASETS[self.dataset]
        refused = []
        seen: InputFiles = {}
        with PartWriter(target, facts.beats, facts.rhythms) as part:
            all_files = self.folder.fetch_all(entry.files for entry in self.entries)
            for entry, files in zip(self.entries, all_files, strict=True):
                seen.update(files.inputs)
                try:
                    record = read_entry(self.dataset, entry, files)
                    qrs = detect_qrs(record, facts.main_lead, self.detector)
                    part.add(replace(record, qrs=qrs))
                except BadRecord as error:
                    refused.append(
                        {"key": entry.key, "patient": entry.patient, "reason": str(error)}
                    )
        inputs = {"listing": self._listing, "files": dict(sorted(seen.items()))}
        return {"inputs": inputs, "records": part.rows, "refused": refused, "excluded": []}


class PartWriter:
    """Writes records into one Zarr group; memory is bounded by a Zarr shard and a record.

    One part has one writer: nothing here is safe to share.
    """

    def __init__(self, path: Path, beats: tuple[str, ...], rhythms: tuple[str, ...]) -> None:
        self.path, self.beats, self.rhythms = path, beats, rhythms
        self.rows: list[dict[str, Any]] = []
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
        if self.rows and len(record.leads) != len(self.rows[0]["leads"]):
            raise BadRecord(
                f"{record.key}: {len(record.leads)} leads where the records before it have "
                f"{len(self.rows[0]['leads'])}"
            )
        self.rows.append(record_row(record, self.beats, self.rhythms))
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
        self._put("signal_offset", _offsets([row["samples"] for row in rows]), ("record_edge",))
        self._put("fs", np.array([row["fs"] for row in rows]), ("record",))
        self._put("gain", np.array([row["gain"] for row in rows]), ("record", "lead"))
        self._put("baseline", np.array([row["baseline"] for row in rows]), ("record", "lead"))
        for name, marks in self._marks.items():
            self._put(f"{name}_offset", _offsets([len(m.index) for m in marks]), ("record_edge",))
            self._put(f"{name}_index", np.concatenate([m.index for m in marks]), (name,))
            self._put(f"{name}_label", np.concatenate([m.label for m in marks]), (name,))
        described = ("key", "patient", "leads", "statements", "fold", "quantisation")
        self._group.update_attributes(
            {
                "records": [
                    {
                        **{name: row[name] for name in described},
                        "annotated": row["beats"] is not None,
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
