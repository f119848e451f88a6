"""Prefect flows: parameters, order, retries and artifacts; the work is done by ``ecgpipe``.

The docstrings of the flows are in Google's style, because Prefect shows what they say of the
parameters in its form, and so does the command line (``python -m flows.NAME --help``).
"""
