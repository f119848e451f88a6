"""Read pickles of NumPy arrays without running any code that they name."""

from __future__ import annotations

import gzip
import io
import pickle
import pickletools
from itertools import islice
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

# 50 segments of 2^20 samples of 4 bytes are 210 MB, as text in protocol 2 up to 315; their labels
# are a few hundred objects.
LARGEST = 384 * 2**20  # bytes, of a pickle and of the strings in it
MOST = 100_000  # instructions of a pickle, each of which may make an object


def unpickle(data: bytes) -> Any:
    """Read a gzipped pickle of NumPy arrays in lists and dicts, by Python 2 or 3.

    It may call only the few pure functions below, and NumPy restores nothing but numbers from
    bytes. Arrays are read-only. What it can expand to is bounded by ``LARGEST`` and ``MOST``.

    Raises
    ------
    Exception
        UnpicklingError if it names anything else or is too large; any error if it is damaged.
    """
    with gzip.open(io.BytesIO(data)) as stream:
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise pickle.UnpicklingError(f"it expands to more than {LARGEST:,} bytes")
    if any(True for _ in islice(pickletools.genops(content), MOST, None)):
        raise pickle.UnpicklingError(f"it has more than {MOST:,} instructions")
    # Strings of Python 2 are bytes, which latin1 keeps.
    return _plain(_Unpickler(io.BytesIO(content), encoding="latin1").load())


class _Dtype:
    """Replaces ``numpy.dtype``."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        found = np.dtype(self.code).newbyteorder(cast(Any, self.order))
        if found.kind not in "biuf":
            raise pickle.UnpicklingError(f"an array of {self.code}, not of numbers")
        return found


class _Array:
    """Replaces ``numpy.ndarray``."""

    __slots__ = ("values",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, data = state[-4:]
        values = np.frombuffer(_bytes(data), dtype.numpy())
        self.values: NDArray[Any] = values.reshape(shape, order="F" if fortran else "C")


def _bytes(data: str | bytes) -> bytes:
    return data.encode("latin1") if isinstance(data, str) else bytes(data)


class _Unpickler(pickle.Unpickler):
    """Offers its own methods to the pickle, which cannot modify them as it could functions."""

    made = 0  # bytes that strings of the pickle were copied to

    def find_class(self, module: str, name: str) -> Any:
        allowed = {
            "_codecs.encode": self._encode,
            "__builtin__.bytes": self._no_bytes,
            "builtins.bytes": self._no_bytes,
            "numpy.dtype": self._dtype,
            "numpy.ndarray": "ndarray",  # only an argument of _reconstruct
        }
        for core in ("numpy.core", "numpy._core"):
            allowed[f"{core}.multiarray._reconstruct"] = self._reconstruct
            allowed[f"{core}.multiarray.scalar"] = self._scalar
            allowed[f"{core}.numeric._frombuffer"] = self._frombuffer
        if f"{module}.{name}" not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which recordings do not need")
        return allowed[f"{module}.{name}"]

    def _encode(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes as {encoding}")
        self.made += len(text)
        if self.made > LARGEST:
            raise pickle.UnpicklingError(f"its strings make more than {LARGEST:,} bytes")
        return text.encode("latin1")

    def _no_bytes(self) -> bytes:
        return b""

    def _dtype(self, code: str, align: object = False, copy: object = True) -> _Dtype:
        return _Dtype(code)

    def _reconstruct(self, kind: str, shape: object, code: object) -> _Array:
        return _Array()

    def _scalar(self, dtype: _Dtype, data: str | bytes) -> Any:
        return np.frombuffer(_bytes(data), dtype.numpy())[0]

    def _frombuffer(self, data: bytes, dtype: _Dtype, shape: object, order: str) -> _Array:
        array = _Array()
        array.__setstate__((shape, dtype, order == "F", data))
        return array


def _plain(content: Any) -> Any:
    """Replace our arrays by those of NumPy."""
    if isinstance(content, _Array):
        return content.values
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    return content
