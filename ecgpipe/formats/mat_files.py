"""Read MATLAB files with scipy, after bounding what they can expand to."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

COMPRESSED = 15  # type of a compressed element in a MATLAB v5 file
STEP = 2**20  # bytes that are expanded at a time


def load_mat(data: bytes, largest: int, **how: Any) -> dict[str, Any]:
    """The variables of a file, as ``scipy.io.loadmat`` gives them.

    Parameters
    ----------
    data
        Content of the file.
    largest
        Bytes that its compressed parts may expand to.
    how
        Arguments of ``loadmat``.

    Raises
    ------
    Exception
        ValueError if it expands to more; whatever scipy raises if it is damaged.
    """
    from scipy.io import loadmat

    _check_expansion(data, largest)
    found: dict[str, Any] = loadmat(io.BytesIO(data), **how)
    return found


def _check_expansion(data: bytes, largest: int) -> None:
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:  # MATLAB v4 has no compression
        return
    at, left = 128, largest
    while at + 8 <= len(data):
        kind, length = struct.unpack(f"{order}2I", data[at : at + 8])
        if kind == COMPRESSED:
            expand = zlib.decompressobj()
            content = data[at + 8 : at + 8 + length]
            while content and left >= 0:
                left -= len(expand.decompress(content, STEP))
                content = expand.unconsumed_tail
            if left < 0:
                raise ValueError(f"it expands to more than {largest:,} bytes")
        at += 8 + length
