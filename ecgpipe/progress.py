"""Output of the commands: progress and messages on standard error, results on standard output."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from multiprocessing import parent_process
from typing import Any

_PASSWORD = re.compile(r"([\w.%+-]*):[^/\s:@]+@(?=[\w.-])")
LINE_INTERVAL, NOTE_INTERVAL = 10.0, 0.1  # s between two lines, or two notes of a progress bar


def say(line: str) -> None:
    """Print a message on standard error; standard output has results only."""
    from tqdm import tqdm

    tqdm.write(without_passwords(line), file=sys.stderr)
    sys.stderr.flush()


def without_passwords(text: str) -> str:
    """A text without the passwords of URLs in it."""
    return _PASSWORD.sub(r"\1:***@", text)


def clock(seconds: float) -> str:
    """Time as ``h:mm:ss``, with hundredths of a second where there are any."""
    minutes, rest = divmod(round(100 * seconds), 6000)
    fraction = f".{rest % 100:02d}".rstrip("0").rstrip(".")
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 100:02d}{fraction}"


def print_json(value: Any) -> None:
    """Print plain values as JSON on standard output; NaN and infinities become null."""
    from pydantic_core import to_jsonable_python

    plain = to_jsonable_python(value, inf_nan_mode="null")
    print(json.dumps(plain, indent=1, ensure_ascii=False))


class Progress:
    """Progress bar, or lines off a terminal: ``with Progress(title, total, unit) as bar: …``.

    Only one of several processes that do the same work sets ``shown``.
    """

    def __init__(self, title: str, total: int, unit: str, shown: bool = True) -> None:
        from tqdm import tqdm

        self.title, self.total, self.unit, self.shown = title, total, unit, shown
        self.done, self._last_shown = 0, time.monotonic()
        self._bar = tqdm(
            total=total,
            desc=title,
            unit=f" {unit}",
            leave=False,
            # The bars of concurrent processes would overwrite each other.
            disable=not (shown and sys.stderr.isatty() and parent_process() is None),
        )

    def step(self, note: str | Callable[[], str] = "") -> None:
        """Count one more; the note is called only if it is shown."""
        self.done += 1
        bar, now = not self._bar.disable, time.monotonic()
        if self.shown and now - self._last_shown >= (NOTE_INTERVAL if bar else LINE_INTERVAL):
            self._last_shown = now
            text = note if isinstance(note, str) else note()
            if bar:
                self._bar.set_postfix_str(text, refresh=False)
            else:
                say(f"{self.title}: {self.done}/{self.total} {self.unit}  {text}".rstrip())
        self._bar.update()  # does nothing without a bar

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
