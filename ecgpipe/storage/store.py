"""Looking into a store: a table of its records, single records, and Dask arrays over all of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..config import digest
from ..errors import Damaged, EcgpipeError
from ..files.paths import exists, file_sizes, to_path
from ..types import Record
from . import samples
from .manifest import MANIFEST, ArchiveRecipe, Manifest, Part, ShardsRecipe, read_manifest
from .parts import PARTS, RECIPE, read_sidecar, read_sidecars
from .shards import FOLDER
from .sidecar import RecordRow, Sidecar
from .zarr_part import GROUP, PartReader, open_group

if TYPE_CHECKING:
    import dask.array
    import pandas as pd


def open_store(path: str | Path) -> Store:
    """Open an archive or a set of shards, by its folder or by a URL such as ``s3://…``.

    Raises
    ------
    EcgpipeError
        The folder is no store, is not finished, or was written by a newer layout.
    """
    return Store(to_path(path))


class Store:
    """An archive or a set of shards.

    Attributes
    ----------
    path
        Its folder.
    manifest
        The content of ``manifest.json``.
    """

    manifest: Manifest

    def __init__(self, path: Path) -> None:
        self.path = path
        if not exists(path / MANIFEST):
            if not exists(path):
                raise EcgpipeError(f"{path}: no such folder; name an archive or a folder of shards")
            state = (
                "not finished; run its command again"
                if exists(path / RECIPE)
                else "no store of ecgpipe"
            )
            raise EcgpipeError(f"{path}: {state}")
        self.manifest = read_manifest(path)

    @property
    def recipe(self) -> ArchiveRecipe | ShardsRecipe:
        """How the store was made: data set, symbols, codec, versions."""
        return self.manifest.recipe

    @property
    def shards_recipe(self) -> ShardsRecipe:
        """How the shards were made.

        Raises
        ------
        EcgpipeError
            The store is an archive.
        """
        if self.recipe.kind != "shards":
            raise EcgpipeError(
                f"{self.path}: is an archive; run `ecgpipe shard` and name its result"
            )
        return self.recipe

    @property
    def parts(self) -> list[str]:
        """Names of the parts, sorted."""
        return [part.name for part in self.manifest.parts]

    def sidecars(self, check_files: bool = False) -> Iterator[Sidecar]:
        """The sidecars of the parts, in the order of the store.

        With ``check_files``, the sizes of all files are compared with what was written, which is
        quick enough before every training.

        Raises
        ------
        Damaged
            A sidecar is not the one that the manifest was merged from, or a file is missing or of
            another size.
        """
        sizes = file_sizes(self.path) if check_files else {}
        for part, sidecar in zip(
            self.manifest.parts, read_sidecars(self.path, self.parts), strict=True
        ):
            self._check(part, sidecar)
            if check_files:
                sidecar.check_sizes(self.path, sizes)
            yield sidecar

    def sidecar(self, name: str) -> Sidecar:
        """The sidecar of a part.

        Raises
        ------
        Damaged
            It is not the one that the manifest was merged from.
        """
        sidecar = read_sidecar(self.path, name)
        self._check(self._part[name], sidecar)
        return sidecar

    @cached_property
    def _part(self) -> dict[str, Part]:
        """Parts of the manifest by name."""
        return {part.name: part for part in self.manifest.parts}

    def _check(self, part: Part, sidecar: Sidecar) -> None:
        if (part.name, part.inputs, part.digest) != (
            sidecar.name,
            digest(sidecar.inputs.plain()),
            sidecar.digest,
        ):
            raise Damaged(
                f"{self.path / PARTS / part.name}.json: changed since the manifest was written; "
                "run the store's command again"
            )

    def rows(self) -> Iterator[RecordRow]:
        """What the sidecars say of each record, in the order of the store."""
        return (row for sidecar in self.sidecars() for row in sidecar.records)

    @cached_property
    def records(self) -> pd.DataFrame:
        """The records as a table, index ``key``; ``start`` and ``stop`` lie in ``signal``."""
        import pandas as pd

        rows = (
            (sidecar.name, at, *(getattr(row, name) for name in COLUMNS))
            for sidecar in self.sidecars()
            for at, row in enumerate(sidecar.records)
        )
        table = pd.DataFrame(rows, columns=["part", "at", *COLUMNS])
        table["stop"] = table["samples"].cumsum()
        table["start"] = table["stop"] - table["samples"]
        table["seconds"] = table["samples"] / table["fs"]
        return table.set_index("key")

    def read(self, key: str) -> Record:
        """Read one record.

        Raises
        ------
        EcgpipeError
            There is no such record.
        """
        name, at = self._find(key)
        if self.recipe.kind == "archive":
            return _part_reader(self, name).read(at)
        return next(self._shard_records(self.sidecar(name), slice(at, at + 1)))

    def _find(self, key: str) -> tuple[str, int]:
        """Part and position of a record; without the table, which is large in a large store."""
        written = json.dumps(key, ensure_ascii=False)
        for part in self.parts:
            if written not in (self.path / PARTS / f"{part}.json").read_text():
                continue
            for at, row in enumerate(self.sidecar(part).records):
                if row.key == key:
                    return part, at
        raise EcgpipeError(f"{self.path}: holds no record {key}; see `ecgpipe inspect`")

    def read_all(self) -> Iterator[Record]:
        """Every record in the order of the store, one part after another."""
        for part in self.parts:
            yield from self.read_part(part)

    def read_part(self, part: str) -> Iterator[Record]:
        """Every record of one part, in order.

        Raises
        ------
        Damaged
            A record is not what was written.
        """
        sidecar = self.sidecar(part)
        if self.recipe.kind == "archive":
            reader = PartReader(self.path, sidecar)
            yield from (reader.read(i) for i in range(len(sidecar.records)))
        elif sidecar.records:
            yield from self._shard_records(sidecar)

    def _shard_records(self, sidecar: Sidecar, at: slice = slice(None)) -> Iterator[Record]:
        """Records of a shard at these positions."""
        rows = sidecar.records[at]
        checksums = {row.key: row.checksum for row in rows}
        found = samples.read_shard(self.shard(sidecar.name), checksums, samples.decode)
        for row, record in zip(rows, found, strict=True):
            with sidecar.checked(self.path, row):
                row.check(record)
            yield record

    def qrs(self, part: str) -> Iterator[NDArray[np.int32]]:
        """Samples of the QRS complexes of every record of a part; no signal is decoded."""
        sidecar = self.sidecar(part)
        if self.recipe.kind == "archive":
            reader = PartReader(self.path, sidecar)
            yield from (reader.qrs(i) for i in range(len(sidecar.records)))
        elif sidecar.records:
            checksums = {row.key: row.checksum for row in sidecar.records}
            yield from samples.read_shard(self.shard(part), checksums, samples.decode_qrs)

    def shard(self, part: str) -> Path:
        """The tar file of a part."""
        return self.path / FOLDER / f"{part}.tar"

    def array(self, name: str, part: str | None = None) -> dask.array.Array:
        """An array of the archive as a Dask array: of one part, or of all parts one after another.

        Parameters
        ----------
        name
            ``signal`` (leads, samples), ``beat_index``, … as in ``storage_layout.md``.
        part
            Name of a part.

        Raises
        ------
        EcgpipeError
            The store holds shards, which have no arrays.
        Damaged
            A file is missing. What else is damaged raises when it is computed.
        """
        import dask.array as da

        if self.recipe.kind != "archive":
            raise EcgpipeError(
                f"{self.path}: shards hold no arrays; open the archive they come from"
            )
        names = [part] if part else [p.name for p in self.manifest.parts if p.records]
        arrays = []
        for name_of_part in names:
            folder = f"{GROUP}/{name_of_part}"
            # Zarr would read a missing file as zeros.
            sizes = file_sizes(self.path / folder)
            in_store = {f"{folder}/{file}": size for file, size in sizes.items()}
            self.sidecar(name_of_part).check_sizes(self.path, in_store)
            stored = open_group(self.path / folder)[name]
            # Chunks of whole files: the inner chunk, Dask's choice, makes 64 times as many tasks.
            arrays.append(da.from_zarr(stored, chunks=stored.shards or stored.chunks))
        return da.concatenate(arrays, axis=-1 if name == "signal" else 0)

    @property
    def signal(self) -> dask.array.Array:
        """All signals of the archive, ADC units, (leads, samples); ``records`` has the edges."""
        return self.array("signal")


COLUMNS = (
    "key", "patient", "fs", "leads", "samples", "gain", "baseline", "statements", "fold",
    "quantisation", "beats", "rhythms", "rhythm_samples", "qrs", "sha256",
)  # fmt: skip


@lru_cache(maxsize=4)
def _part_reader(store: Store, part: str) -> PartReader:
    return PartReader(store.path, store.sidecar(part))
