"""One recording as its source lists it, before anything of it is read."""

from __future__ import annotations

from dataclasses import dataclass

SIMULATED = "SIMULATED.json"  # at the root of a data set that nobody recorded: how it was made


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording that a source found, and the files it is made of."""

    key: str  # the record's key, unique in its data set
    patient: str
    path: str  # below the data set's folder, without extension
    files: tuple[str, ...]  # below the data set's folder; their digests are the record's inputs
    statements: tuple[str, ...] = ()
    fold: int | None = None
    labels_file: str | None = None  # where the statements come from
    refusal: str | None = None  # why it cannot be used, where the listing says so already
