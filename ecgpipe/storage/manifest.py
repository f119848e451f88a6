"""The manifest: what a store holds, merged from the sidecars of its parts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field as JsonField

from ..config import digest
from ..errors import Damaged, EcgpipeError
from ..files.atomic import read_json
from ..files.typed import JsonData, Name
from .sidecar import LeftOut, RecordRow, Sidecar

FORMAT = 2  # of the layout; storage_layout.md says what belongs to it
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(JsonData):
    """How a store is made: everything that decides its bytes, beside the source's files."""

    dataset: str  # key of DATASETS
    simulated: bool
    labels_file: str | None  # the source's file that statements come from
    segments: int | None  # recordings of each patient at the most; None: all
    detector: str  # of QRS complexes, key of DETECTORS
    beats: tuple[str, ...]  # symbols that labels of beats point into
    rhythms: tuple[str, ...]  # notes that labels of rhythms point into
    statements: tuple[str, ...]  # labels of whole records; in shards the classes
    main_lead: str | None  # where one lead is wanted; the first one where a record lacks it
    versions: dict[str, str]  # of the packages that decide bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveRecipe(Recipe):
    """How an archive is made from raw files."""

    kind: Literal["archive"] = "archive"
    groups: dict[str, dict[str, str]]  # category of statements -> statement -> class
    compression: dict[str, Any]  # parameters of zarr's BloscCodec
    chunk: int  # samples
    shard: int  # samples of a file: a whole number of chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsRecipe(Recipe):
    """How shards are made from an archive."""

    kind: Literal["shards"] = "shards"
    category: str | None  # of the statements that are the classes
    fs: float  # Hz
    codec: dict[str, Any]  # configuration of numcodecs


@dataclass(frozen=True, slots=True)
class Part(JsonData):
    """What the manifest says of a part."""

    name: Name
    inputs: str  # digest of what it was made from
    records: int
    refused: int
    digest: str  # of its bytes and of what was left out


@dataclass(frozen=True, slots=True)
class Totals(JsonData):
    """What a store holds altogether; numbers by name are sorted by name."""

    beats: dict[str, int]  # by symbol
    excluded: int  # records without any of the chosen statements
    hours: float
    patients: int
    qrs: int  # detected complexes
    raw_bytes: int  # of the signals as int16
    records: int
    records_without_annotations: int
    refused: int  # records that cannot be used
    rhythm_samples: dict[str, int]  # by class of rhythm
    rhythms: dict[str, int]  # notes by symbol
    samples: int  # of one lead
    statements: dict[str, int]  # records by statement
    stored_bytes: int  # of the parts' files


@dataclass(frozen=True, slots=True)
class LeadStatistics(JsonData):
    """Mean and standard deviation of a lead over all records, mV."""

    mean_mV: float  # noqa: N815
    std_mV: float  # noqa: N815


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(JsonData):
    """What a store holds, merged from its parts; ``digest`` is the store's identity."""

    format: int
    recipe: Annotated[ArchiveRecipe | ShardsRecipe, JsonField(discriminator="kind")]
    parts: list[Part]  # sorted by name
    totals: Totals
    statistics: dict[str, LeadStatistics]  # by lead
    refused: list[LeftOut]
    excluded: list[LeftOut]
    digest: str = ""


def read_manifest(store: Path) -> Manifest:
    """The manifest of a finished store.

    Raises
    ------
    EcgpipeError
        There is none, it is not one of ecgpipe, or another version of ecgpipe wrote it.
    Damaged
        It is not what was written.
    """
    tree = read_json(store / MANIFEST)
    if not isinstance(form := tree.get("format"), int):
        raise EcgpipeError(f"{store}: no store of ecgpipe, whose manifest says its format")
    if form > FORMAT:
        raise EcgpipeError(f"{store}: written by a newer ecgpipe; update to read it")
    if form < FORMAT:
        raise EcgpipeError(
            f"{store}: of format {form}, which had no checksums of records; make it anew in "
            "another folder with `ecgpipe prepare` and `ecgpipe shard`"
        )
    manifest = Manifest.parse(tree, store / MANIFEST)
    if manifest.digest != digest({name: tree[name] for name in tree if name != "digest"}):
        raise Damaged(
            f"{store / MANIFEST}: not what was written (its digest differs); run the store's "
            "command again"
        )
    return manifest


@dataclass
class Moments:
    """Mean and standard deviation in mV, added up record by record."""

    samples: int = 0
    total: float = 0.0  # mV
    squares: float = 0.0  # mV squared

    def add(self, row: RecordRow, lead: int) -> None:
        """Count one lead of a record in; its own sums are exact, as fractions."""
        n, gain, zero = row.samples, Fraction(row.gain[lead]), Fraction(row.baseline[lead])
        total, squares = row.sum[lead], row.squares[lead]
        self.samples += n
        self.total += float((total - n * zero) / gain)
        self.squares += float((squares - 2 * zero * total + n * zero**2) / gain**2)

    @property
    def mean(self) -> float:
        """The mean, mV."""
        return self.total / self.samples

    @property
    def std(self) -> float:
        """The standard deviation, mV."""
        return math.sqrt(max(0.0, self.squares / self.samples - self.mean**2))


def moments(chosen: Iterable[tuple[RecordRow, int]]) -> Moments:
    """Mean and standard deviation over leads of records, each a row and a lead's position."""
    found = Moments()
    for row, lead in chosen:
        found.add(row, lead)
    return found


def merge(recipe: ArchiveRecipe | ShardsRecipe, sidecars: Iterable[Sidecar]) -> Manifest:
    """The manifest of a store from its recipe and its parts' sidecars.

    It holds no times, hosts, absolute paths or numbers of workers: the same input gives the same
    bytes. ``digest`` covers everything else in it, and the parts' digests every byte of the store.
    """
    parts: list[Part] = []
    refused: list[LeftOut] = []
    excluded: list[LeftOut] = []
    totals = _Totals()
    for part in sidecars:
        parts.append(
            Part(
                name=part.name,
                inputs=digest(part.inputs.plain()),
                records=len(part.records),
                refused=len(part.refused),
                digest=part.digest,
            )
        )
        refused += part.refused
        excluded += part.excluded
        totals.stored_bytes += sum(file.bytes for file in part.files.values())
        for row in part.records:
            totals.add(row)
    manifest = Manifest(
        format=FORMAT,
        recipe=recipe,
        parts=parts,
        totals=totals.result(len(refused), len(excluded)),
        statistics={
            name: LeadStatistics(found.mean, found.std)
            for name, found in sorted(totals.leads.items())
        },
        refused=refused,
        excluded=excluded,
    )
    tree = manifest.plain()
    del tree["digest"]
    return replace(manifest, digest=digest(tree))


@dataclass
class _Totals:
    """Adds up the rows of a store's records."""

    records: int = 0
    without_beats: int = 0
    samples: int = 0
    seconds: float = 0.0
    raw_bytes: int = 0
    stored_bytes: int = 0
    qrs: int = 0
    patients: set[str] = field(default_factory=set)
    beats: Counter[str] = field(default_factory=Counter)
    rhythms: Counter[str] = field(default_factory=Counter)
    rhythm_samples: Counter[str] = field(default_factory=Counter)
    statements: Counter[str] = field(default_factory=Counter)
    leads: dict[str, Moments] = field(default_factory=dict)

    def add(self, row: RecordRow) -> None:
        """Count a record in."""
        self.records += 1
        self.without_beats += row.beats is None
        self.samples += row.samples
        self.seconds += row.samples / row.fs
        self.raw_bytes += 2 * row.samples * len(row.leads)
        self.qrs += row.qrs
        self.patients.add(row.patient)
        self.beats.update(row.beats or {})
        self.rhythms.update(row.rhythms)
        self.rhythm_samples.update(row.rhythm_samples or {})
        self.statements.update(row.statements)
        for i, name in enumerate(row.leads):
            self.leads.setdefault(name, Moments()).add(row, i)

    def result(self, refused: int, excluded: int) -> Totals:
        """The totals, with the numbers of records that were left out."""
        return Totals(
            beats=dict(sorted(self.beats.items())),
            excluded=excluded,
            hours=round(self.seconds / 3600, 4),
            patients=len(self.patients),
            qrs=self.qrs,
            raw_bytes=self.raw_bytes,
            records=self.records,
            records_without_annotations=self.without_beats,
            refused=refused,
            rhythm_samples=dict(sorted(self.rhythm_samples.items())),
            rhythms=dict(sorted(self.rhythms.items())),
            samples=self.samples,
            statements=dict(sorted(self.statements.items())),
            stored_bytes=self.stored_bytes,
        )
