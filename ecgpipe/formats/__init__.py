"""File formats of recordings: WFDB, MATLAB, CSV, NumPy and pickles."""
