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
    beats: Marks,
    table: NDArray[np.uint8],
    starts: NDArray[np.int64],
    frame: int,
    *,
    undefined_is_normal: bool = False,
    drop_first: bool = False,
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
    undefined_is_normal
        As the paper's text has it: every frame without an abnormal beat is normal, also one
        without beats.
    drop_first
        As Weimann & Conrad's released code has it: the first beat of a frame does not count.

    Returns
    -------
    ndarray
        Classes, positions in ``CLASSES``, shape (n,).
    """
    first = np.searchsorted(beats.index, starts, side="left")
    behind = np.searchsorted(beats.index, np.asarray(starts) + frame, side="left")
    if drop_first:
        first = np.minimum(first + 1, behind)
    bounds = np.array([first, behind])
    # Counted by searching each class' beats: sums over a whole record take seven times as long.
    of_beats = table[beats.label]
    places = (np.flatnonzero(of_beats == c) for c in range(len(CLASSES)))
    upto = np.array([np.searchsorted(place, bounds) for place in places])  # (classes, 2, n)
    count = upto[:, 1] - upto[:, 0]
    abnormal = count[ABNORMAL]
    undefined = (count[UNDEFINED] >= count[NORMAL]) & (not undefined_is_normal)
    rest = np.where(undefined, UNDEFINED, NORMAL)
    return np.where(abnormal.any(axis=0), np.array(ABNORMAL)[abnormal.argmax(axis=0)], rest)
