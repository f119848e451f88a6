#!/usr/bin/env python3
"""Ask a service for its health: exit code 0 if its URL answers, 1 with a line why not.

``healthy.py URL`` asks once, which is a container's health check; ``healthy.py URL SECONDS`` asks
again every second until it answers or the time is over. Python, for the image has no curl.
"""

from __future__ import annotations

import sys
import time
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

PATIENCE = 5.0  # s for one answer
DIRECT = build_opener(ProxyHandler({}))  # a container's proxy cannot reach its own 127.0.0.1


def trouble(url: str) -> str:
    """Say in a line why a URL gives no good answer; empty if it does."""
    try:
        with DIRECT.open(url, timeout=PATIENCE):  # any status of 400 and more raises
            return ""
    except (OSError, HTTPException, ValueError) as error:
        return f"{url}: {error}"


def main(url: str, seconds: float = 0.0) -> int:
    """Ask until there is a good answer or the time in s is over; give the exit code."""
    end = time.monotonic() + seconds
    while why := trouble(url):
        if time.monotonic() >= end:
            print(why, file=sys.stderr)
            return 1
        time.sleep(1.0)
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: healthy.py URL [SECONDS]")
    sys.exit(main(sys.argv[1], *map(float, sys.argv[2:])))
