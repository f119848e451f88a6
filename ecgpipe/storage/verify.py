"""Checking a store against its own digests, byte by byte and record by record."""

from __future__ import annotations

from pathlib import Path

from ..config import digest
from ..errors import EcgpipeError
from ..files import sha256
from ..progress import Progress
from .manifest import merge, record_row
from .parts import PARTS, read_sidecar
from .store import Store


def verify(path: Path, decode: bool = True) -> list[str]:
    """Everything that is wrong with a store, each in a sentence; nothing if it is whole.

    Checks that the manifest is what its sidecars add up to, that every file is there with its bytes
    and SHA-256, and, with ``decode``, that every record reads back with the counts, sums and
    signal digest that its sidecar names.

    Raises
    ------
    EcgpipeError
        The folder is no finished store.
    """
    store = Store(path)
    problems: list[str] = []
    extra = {file.stem for file in (path / PARTS).glob("*.json")} - set(store.parts)
    problems += [f"{PARTS}/{name}.json: not in the manifest" for name in sorted(extra)]
    sidecars = []
    with Progress(f"verify {path.name}", len(store.parts), "parts") as progress:
        for name in store.parts:
            try:
                sidecars.append(read_sidecar(path, name))
                problems += _check_part(store, name, decode)
            except EcgpipeError as error:
                problems.append(str(error))
            progress.step(name)
    if len(sidecars) == len(store.parts) and merge(store.recipe, sidecars) != store.manifest:
        problems.append(
            "manifest.json: is not what the sidecars add up to; run the store's command again"
        )
    return problems


def check_files(store: Store) -> None:
    """Refuse a store whose files are missing or of another size; quick, for use before training.

    Raises
    ------
    EcgpipeError
        Naming the first file.
    """
    for part in store.manifest["parts"]:
        sidecar = read_sidecar(store.path, part["name"])
        if (
            digest({name: sidecar[name] for name in ("files", "records", "refused")})
            != part["digest"]
        ):
            raise EcgpipeError(
                f"{store.path}: part {part['name']} changed since the manifest was written; "
                "run the store's command again"
            )
        for file, expected in sidecar["files"].items():
            path = store.path / file
            size = path.stat().st_size if path.is_file() else None
            if size != expected["bytes"]:
                raise EcgpipeError(
                    f"{path}: {'missing' if size is None else f'{size:,} bytes'} where "
                    f"{expected['bytes']:,} bytes were written; run the store's command again"
                )


def _check_part(store: Store, name: str, decode: bool) -> list[str]:
    problems = []
    sidecar = read_sidecar(store.path, name)
    for file, expected in sidecar["files"].items():
        path = store.path / file
        if not path.is_file():
            problems.append(f"{file}: missing")
        elif path.stat().st_size != expected["bytes"]:
            problems.append(
                f"{file}: {path.stat().st_size:,} bytes, {expected['bytes']:,} expected"
            )
        elif sha256(path) != expected["sha256"]:
            problems.append(f"{file}: its bytes changed (SHA-256 differs)")
    if problems or not decode:
        return problems  # damaged files are named already; decoding them says nothing new
    rows = [
        record_row(record, store.recipe["beats"], store.recipe["rhythms"])
        for record in store.read_part(name)
    ]
    if rows != sidecar["records"]:
        problems.append(f"part {name}: its records are not what its sidecar says")
    return problems
