"""The beat task: which kind of abnormal beat a frame holds (paper, "Beat classification")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import EcgpipeError
from ..types import Marks

CLASSES = ("normal", "pac", "aberrated", "pvc", "undefined")
NORMAL, UNDEFINED = CLASSES.index("normal"), CLASSES.index("undefined")
ABNORMAL = [CLASSES.index(name) for name in ("pac", "aberrated", "pvc")]

# The symbols of Icentia11k and of the MIT-BIH database agree where both have them.
CLASS_OF_SYMBOL = {
    **dict.fromkeys("NLRejn", "normal"),
    **dict.fromkeys("AJS", "pac"),
    "a": "aberrated",
    **dict.fromkeys("VEr", "pvc"),
    **dict.fromkeys("/fFQ?", "undefined"),
}


def beat_classes(symbols: tuple[str, ...]) -> NDArray[np.uint8]:
    """The class of each symbol of a source, as a table to look beat labels up in.

    Raises
    ------
    EcgpipeError
        A symbol without a class.
    """
    missing = [symbol for symbol in symbols if symbol not in CLASS_OF_SYMBOL]
    if missing:
        raise EcgpipeError(f"beat symbols without a class: {' '.join(missing)}")
    return np.array([CLASSES.index(CLASS_OF_SYMBOL[symbol]) for symbol in symbols], np.uint8)


def label_frames(
    beats: Marks, table: NDArray[np.uint8], starts: NDArray[np.int64], frame: int
) -> NDArray[np.int64]:
    """Class of each frame ``[start, start + frame)`` of a record.

    The most frequent of PAC, aberrated and PVC if there is any (the earlier named wins a tie);
    else undefined if undefined beats are at least as many as normal ones, or there are no beats;
    else normal.

    Parameters
    ----------
    beats
        The record's beats, labels as the source's symbols.
    table
        Class of each symbol, from :func:`beat_classes`.
    starts
        First samples of the frames, shape (n,).
    frame
        Length of a frame in samples.

    Returns
    -------
    ndarray
        Classes, positions in ``CLASSES``, shape (n,).
    """
    one_hot = table[beats.label][:, None] == np.arange(len(CLASSES))
    upto = np.zeros((len(beats.index) + 1, len(CLASSES)), np.int64)
    np.cumsum(one_hot, axis=0, out=upto[1:])
    first = np.searchsorted(beats.index, starts, side="left")
    behind = np.searchsorted(beats.index, np.asarray(starts) + frame, side="left")
    count = upto[behind] - upto[first]  # (n, classes)
    abnormal = count[:, ABNORMAL]
    rest = np.where(count[:, UNDEFINED] >= count[:, NORMAL], UNDEFINED, NORMAL)
    return np.where(abnormal.any(axis=1), np.array(ABNORMAL)[abnormal.argmax(axis=1)], rest)
