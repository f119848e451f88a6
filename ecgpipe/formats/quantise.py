"""Round millivolts to integer ADC units, for data sets that publish floats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRecord

LARGEST = np.iinfo(np.int16).max


def quantise(
    millivolts: NDArray[np.floating[Any]], gain: float, name: str
) -> tuple[NDArray[np.int16], float]:
    """Round a signal to int16.

    Parameters
    ----------
    millivolts
        The signal, mV, any shape.
    gain
        ADC units per mV.
    name
        Name of the file, for error messages.

    Returns
    -------
    signal : ndarray
        ADC units, of the same shape.
    error : float
        Largest rounding error, mV.

    Raises
    ------
    BadRecord
        Values that are not finite or exceed int16.
    """
    exact = np.asarray(millivolts, np.float64) * gain
    if not np.isfinite(exact).all():
        raise BadRecord(f"{name}: samples that are not numbers")
    rounded = np.rint(exact)
    largest = float(np.abs(rounded).max(initial=0))
    if largest > LARGEST:
        raise BadRecord(
            f"{name}: {largest / gain:.1f} mV, where int16 holds {LARGEST / gain:.1f} mV at most "
            f"({gain:g} units per mV)"
        )
    error = float(np.abs(exact - rounded).max(initial=0)) / gain
    return rounded.astype(np.int16), error
