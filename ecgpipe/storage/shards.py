"""The shards: records at one sampling rate as WebDataset tar files, read in sequence by training.

Layout in ``storage_layout.md``; one part of the archive is one shard.
"""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path

from ..datasets import DATASETS
from ..errors import BadRecord, Damaged, EcgpipeError
from ..files.paths import exists
from ..labels.statements import Selection, chosen_classes, select_statements, why_excluded
from ..types import Record
from .manifest import MANIFEST, ArchiveRecipe, Manifest, ShardsRecipe, read_manifest
from .parts import build, read_sidecar, versions
from .resample import resample
from .samples import CODECS, checksum, encode
from .sidecar import ArchiveInputs, LeftOut, RawInputs, RecordRow, Sidecar
from .zarr_part import PartReader

FOLDER = "shards"


def shard(
    archive: Path,
    shards: Path,
    fs: float = 250.0,
    codec: str = "pcodec",
    workers: int | None = None,
    *,
    statements: str | None = None,
    dask: str | None = None,
) -> Manifest:
    """Make shards from an archive, or continue where a killed run was.

    Parameters
    ----------
    archive
        Folder of a finished archive.
    shards
        Folder of the shards.
    fs
        Sampling rate of the shards, Hz.
    codec
        Of the signals, a key of ``CODECS``.
    workers
        Processes, by default one per core.
    statements
        Category of statements that are the classes, for sets that have several: PTB-XL's are
        rhythm (the default, as in the paper), form, diagnostic, superclass, subclass and all.
        Records without any are excluded by name.
    dask
        Address of a Dask scheduler that does the parts, or ``local``.

    Raises
    ------
    EcgpipeError
        The archive is missing or unfinished, or see :func:`ecgpipe.storage.parts.build`.
    """
    if codec not in CODECS:
        raise EcgpipeError(f"unknown codec {codec}; there are: {', '.join(CODECS)}")
    archive = archive.resolve()
    if not exists(archive / MANIFEST):
        raise EcgpipeError(f"{archive}: no finished archive; run `ecgpipe prepare` into it first")
    source = read_manifest(archive)
    made = source.recipe
    if made.kind != "archive":
        raise EcgpipeError(f"{archive}: holds {made.kind}; name an archive")
    category = statements or DATASETS[made.dataset].category
    selection = select_statements(category, made.groups, made.statements) if category else None
    recipe = _recipe(made, category, selection, float(fs), codec)
    jobs = {
        part.name: ShardJob(
            archive, part.name, part.digest, recipe.fs, codec, selection, made.beats, made.rhythms
        )
        for part in source.parts
    }
    title = f"shard {recipe.dataset}"
    return build(shards, recipe, jobs, title, workers or os.cpu_count() or 1, dask)


def _recipe(
    made: ArchiveRecipe, category: str | None, selection: Selection | None, fs: float, codec: str
) -> ShardsRecipe:
    return ShardsRecipe(
        dataset=made.dataset,
        simulated=made.simulated,
        labels_file=made.labels_file,
        segments=made.segments,
        detector=made.detector,
        beats=made.beats,
        rhythms=made.rhythms,
        category=category,
        statements=selection.classes if selection else made.statements,
        main_lead=made.main_lead,
        fs=fs,
        codec=CODECS[codec],
        versions={**made.versions, **versions("numcodecs", "pcodec", "soxr")},
    )


@dataclass(frozen=True)
class ShardJob:
    """Makes one shard from one part of an archive."""

    archive: Path
    part: str
    digest: str  # of the archive's part
    fs: float
    codec: str
    selection: Selection | None  # of statements; None keeps them all
    beats: tuple[str, ...]  # symbols that labels of beats point into
    rhythms: tuple[str, ...]  # notes that labels of rhythms point into

    @property
    def target(self) -> str:
        """The tar file."""
        return f"{FOLDER}/{self.part}.tar"

    def is_current(self, inputs: RawInputs | ArchiveInputs) -> bool:
        """True if the archive's part is unchanged."""
        return inputs == ArchiveInputs(self.digest)

    def write(self, target: Path) -> Sidecar:
        """Resample and pack the records one at a time; refusals of the archive are passed on."""
        part = read_sidecar(self.archive, self.part)
        if part.digest != self.digest:
            raise Damaged(
                f"{self.archive}: part {self.part} changed since the manifest was written; run "
                "`ecgpipe prepare` into it again"
            )
        rows: list[RecordRow] = []
        excluded: list[LeftOut] = []
        if part.records:
            reader = PartReader(self.archive, part)
            with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
                for i, archived in enumerate(part.records):
                    try:
                        record = convert(reader.read(i), self.selection, self.fs)
                    except BadRecord as error:
                        excluded.append(LeftOut(archived.key, archived.patient, str(error)))
                        continue
                    members = encode(record, CODECS[self.codec], self.beats, self.rhythms)
                    row = RecordRow.of(record, self.beats, self.rhythms)
                    rows.append(replace(row, checksum=checksum(members)))
                    for name, data in members.items():
                        # Time, owner and mode stay at tarfile's fixed defaults.
                        member = tarfile.TarInfo(f"{record.key}.{name}")
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
        return Sidecar(
            name=self.part,
            inputs=ArchiveInputs(self.digest),
            records=rows,
            refused=part.refused,
            excluded=excluded,
        )


def convert(record: Record, selection: Selection | None, fs: float) -> Record:
    """The record of an archive as shards hold it: with the selected classes, at ``fs`` Hz.

    Raises
    ------
    BadRecord
        It has none of the classes.
    """
    if selection is not None:
        classes = chosen_classes(record.statements, selection)
        if not classes:
            raise BadRecord(why_excluded(record.statements, selection))
        record = replace(record, statements=classes)
    return resample(record, fs)
