"""A record as a sample of a shard: a few members of a WebDataset tar file, with a checksum.

Layout in ``storage_layout.md``.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ..config import canonical
from ..errors import Damaged
from ..files.atomic import local_copy
from ..files.paths import why_damaged
from ..types import Marks, Record

T = TypeVar("T")

MEMBERS = ("json", "signal", "beats", "rhythms", "qrs")
# Configurations of numcodecs: `numcodecs.get_codec(config).decode(data)` reads a sample.
CODECS: dict[str, dict[str, Any]] = {
    "pcodec": {"id": "pcodec", "level": 8},
    "zstd": {"id": "blosc", "cname": "zstd", "clevel": 3, "shuffle": 1},
    "lz4": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 2},
}


def encode(
    record: Record, codec: Mapping[str, Any], beats: tuple[str, ...], rhythms: tuple[str, ...]
) -> dict[str, bytes]:
    """The members of a record's sample: ``json`` header, ``signal``, and one for each kind of mark.

    Marks are n int32 positions, then n uint8 labels. A record without annotations has no ``beats``.
    """
    header = {
        "key": record.key,
        "patient": record.patient,
        "fs": record.fs,
        "leads": list(record.leads),
        "shape": list(record.signal.shape),
        "dtype": "<i2",
        "codec": dict(codec),
        "gain": record.gain.tolist(),
        "baseline": record.baseline.tolist(),
        "statements": list(record.statements),
        "fold": record.fold,
        "quantisation": record.quantisation,
        "beat_symbols": list(beats),
        "rhythm_symbols": list(rhythms),
    }
    signal = np.ascontiguousarray(record.signal, "<i2")
    members = {
        "json": canonical(header),
        "signal": bytes(_codec(canonical(dict(codec))).encode(signal)),
    }
    for name, marks in (("beats", record.beats), ("rhythms", record.rhythms), ("qrs", record.qrs)):
        if marks is not None:
            members[name] = marks.index.astype("<i4").tobytes() + marks.label.tobytes()
    return members


def checksum(members: Mapping[str, bytes]) -> int:
    """CRC-32C of a sample: of its members one after another, each with its name and length."""
    found = 0
    for name in MEMBERS:
        if name in members:
            data = members[name]
            found = google_crc32c.extend(found, f"{name} {len(data)} ".encode())
            found = google_crc32c.extend(found, data)
    return found


def decode_qrs(members: Mapping[str, bytes]) -> NDArray[np.int32]:
    """Samples of the QRS complexes of a sample; its signal is not decoded."""
    return _marks(members["qrs"]).index


def decode(members: Mapping[str, bytes]) -> Record:
    """The record of a sample as :func:`encode` made it; the exact inverse.

    Only the codecs of this module are run, whatever the header names.
    """
    header = json.loads(members["json"])
    signal = np.empty(header["shape"], "<i2")
    codec = _codec(canonical(header["codec"]))
    # Into an array of the right size, which bounds what damaged bytes can expand to.
    codec.decode(members["signal"], out=signal)
    return Record(
        key=header["key"],
        patient=header["patient"],
        fs=header["fs"],
        leads=tuple(header["leads"]),
        signal=signal,
        gain=np.array(header["gain"]),
        baseline=np.array(header["baseline"]),
        beats=_marks(members["beats"]) if "beats" in members else None,
        rhythms=_marks(members["rhythms"]),
        qrs=_marks(members["qrs"]),
        statements=tuple(header["statements"]),
        fold=header["fold"],
        quantisation=header["quantisation"],
    )


def _marks(data: bytes) -> Marks:
    n = len(data) // 5
    return Marks(np.frombuffer(data, "<i4", n), np.frombuffer(data, "u1", n, 4 * n))


@lru_cache(maxsize=8)
def _codec(config: bytes) -> Any:
    from numcodecs.registry import get_codec

    known = json.loads(config)
    if known not in CODECS.values():
        raise Damaged(f"codec {known} is none of ecgpipe's")
    return get_codec(known)


def read_shard(
    path: Path,
    checksums: Mapping[str, int | None],
    decoder: Callable[[Mapping[str, bytes]], T],
) -> Iterator[T]:
    """Read the samples with these keys, in the order of the shard, each checked by its checksum.

    ``decoder`` makes of a sample what is wanted: :func:`decode` or :func:`decode_qrs`.

    Raises
    ------
    Damaged
        A record is missing or not what was written, or the file cannot be read.
    """
    left, key = dict(checksums), "its first record"
    try:
        for key, members in samples(path, left.__contains__):
            if checksum(members) != left.pop(key):
                raise Damaged("its checksum differs")
            yield decoder(members)
        if left:
            key = min(left)
            raise Damaged("it is missing")
    except Exception as error:  # tarfile and codecs raise whatever damage leads to
        raise Damaged(
            f"{path}: {key} is not what was written ({why_damaged(error)}); run `ecgpipe shard` "
            "into the store again, which makes damaged parts anew"
        ) from None


def samples(
    path: Path, wanted: Callable[[str], bool] = lambda key: True
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Keys and samples of one shard in order, as raw bytes by member name.

    ``wanted`` is asked for each key, before anything of it is read. Nothing is unpickled.
    """
    from webdataset.handlers import reraise_exception
    from webdataset.tariterators import group_by_keys

    for sample in group_by_keys(_members(path, wanted), handler=reraise_exception):
        members = {name: data for name, data in sample.items() if not name.startswith("__")}
        yield sample["__key__"], members


def _members(path: Path, wanted: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """Members of a tar file, as webdataset groups them.

    webdataset's own reading is for pipes, in blocks of 10 kB; in a file whole members can be read,
    and skipped, at once, which takes less than half the time.
    """
    with tarfile.open(local_copy(path), "r:") as tar:
        for member in tar:
            if wanted(member.name.partition(".")[0]):
                file = tar.extractfile(member)
                assert file
                yield {"fname": member.name, "data": file.read(), "__url__": str(path)}
