"""The archive: every record of a data set, losslessly, at its own sampling rate, in Zarr.

Layout in ``storage_layout.md``.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ..config import digest
from ..datasets import (
    DATASETS,
    SIMULATED,
    Entry,
    Folder,
    find_entries,
    group_parts,
    read_entry,
    refusing,
    select,
)
from ..errors import BadRecord
from ..files.folder import InputFiles
from ..labels.qrs import detect_qrs
from ..progress import say
from .manifest import ArchiveRecipe, Manifest
from .parts import build, versions
from .sidecar import ArchiveInputs, LeftOut, RawInputs, Sidecar
from .zarr_part import CHUNK, COMPRESSION, GROUP, SHARD, PartWriter, write_root


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
    write_root(archive)
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

    def is_current(self, inputs: RawInputs | ArchiveInputs) -> bool:
        """True if files, and what the data set's tables say of them, are unchanged."""
        return (
            isinstance(inputs, RawInputs)
            and inputs.listing == self._listing
            and self.folder.unchanged(inputs.files)
        )

    @property
    def _listing(self) -> str:
        return digest([asdict(entry) for entry in self.entries])

    def write(self, target: Path) -> Sidecar:
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
                    with refusing(entry):
                        record = replace(
                            record, qrs=detect_qrs(record, facts.main_lead, self.detector)
                        )
                    part.add(record)
                except BadRecord as error:
                    refused.append(LeftOut(entry.key, entry.patient, str(error)))
        inputs = RawInputs(self._listing, dict(sorted(seen.items())))
        return Sidecar(
            name=self.part, inputs=inputs, records=part.rows, refused=refused, excluded=[]
        )
