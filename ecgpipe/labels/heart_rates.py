"""The heart rate task: how fast a frame's heart beats (paper, "Heart rate classification")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLASSES = ("normal", "bradycardia", "tachycardia", "noise")
NORMAL, BRADYCARDIA, TACHYCARDIA, NOISE = range(len(CLASSES))
SLOWEST, FASTEST = 60, 100  # beats per minute that are still normal
MARGIN = 1.0  # s by which a frame is lengthened at both ends


def label_frames(
    beats: NDArray[np.int32],
    starts: NDArray[np.int64],
    frame: int,
    fs: float,
    margin: float = MARGIN,
    drop_first: bool = False,
) -> NDArray[np.int64]:
    """Class of each frame ``[start, start + frame)`` of a record.

    Noise with fewer than two beats, or with no time between the first and the last one; else by
    the mean interval between beats: below 60 beats per minute bradycardia, above 100 tachycardia,
    else normal.

    The frame is lengthened by ``margin`` at both ends, as in the paper. Weimann & Conrad's
    released code does not do that, and leaves the first beat of the frame out: ``margin=0`` and
    ``drop_first`` (it also counts a beat on the frame's end).

    Parameters
    ----------
    beats
        Samples of the record's beats, of whatever kind, not decreasing: annotated or detected.
    starts
        First samples of the frames, shape (n,).
    frame
        Length of a frame in samples.
    fs
        Sampling rate in Hz.
    margin
        What a frame is lengthened by at both ends, in s, rounded to whole samples. Where the
        record does not reach that far, there are no beats to find.
    drop_first
        Leave the first beat of each frame out.

    Returns
    -------
    ndarray
        Classes, positions in ``CLASSES``, shape (n,).
    """
    starts = np.asarray(starts)
    if not len(beats):
        return np.full(starts.shape, NOISE)
    more = round(margin * fs)
    first = np.searchsorted(beats, starts - more, side="left") + drop_first
    behind = np.searchsorted(beats, starts + frame + more, side="left")
    count = behind - first
    # Without beats these are two beats around the frame, the wrong way round: time below zero.
    earliest = beats[np.minimum(first, len(beats) - 1)]
    time = beats[np.maximum(behind - 1, 0)].astype(np.int64) - earliest
    # Compared without dividing by the time, so that exactly 60 and 100 are normal.
    rate_by_time = 60 * fs * (count - 1)
    label = np.where(rate_by_time > FASTEST * time, TACHYCARDIA, NORMAL)
    label = np.where(rate_by_time < SLOWEST * time, BRADYCARDIA, label)
    return np.where((count < 2) | (time <= 0), NOISE, label)
