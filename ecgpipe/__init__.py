"""ecgpipe: from raw ECG recordings to finetuned classifiers, after Weimann & Conrad (2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.2.0"
__all__ = ["__version__", "load_model", "open_store"]

if TYPE_CHECKING:
    from .inference.model import Model
    from .storage.store import Store


def open_store(path: str) -> Store:
    """Open an archive or a set of shards; see :func:`ecgpipe.storage.store.open_store`."""
    from .storage.store import open_store  # imported late: zarr and pandas cost half a second

    return open_store(path)


def load_model(path: str, device: str = "auto") -> Model:
    """Load a trained model; see :func:`ecgpipe.inference.model.load_model`."""
    from .inference.model import load_model  # imported late: torch costs more than a second

    return load_model(path, device)
