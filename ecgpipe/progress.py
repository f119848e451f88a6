"""What a command says: progress as a bar or, off a terminal, as lines; results as JSON."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from multiprocessing import parent_process
from types import TracebackType
from typing import Any

SECONDS_BETWEEN_LINES, SECONDS_BETWEEN_NOTES = 10.0, 0.1


def say(line: str) -> None:
    """Print a message on standard error; standard output has results only."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def clock(seconds: float) -> str:
    """Time as ``h:mm:ss``, with hundredths of a second where there are any."""
    minutes, rest = divmod(round(100 * seconds), 6000)
    fraction = f".{rest % 100:02d}".rstrip("0").rstrip(".")
    return f"{minutes // 60}:{minutes % 60:02d}:{rest // 100:02d}{fraction}"


def print_json(value: Any) -> None:
    """Print plain values on standard output; a number that does not exist is null."""

    def known(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: known(inner) for key, inner in item.items()}
        if isinstance(item, (list, tuple)):
            return [known(inner) for inner in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    print(json.dumps(known(value), indent=1, ensure_ascii=False))


class Progress:
    """Counts work done: ``with Progress("prepare", total, "parts") as bar: bar.step()``."""

    def __init__(self, title: str, total: int, unit: str, shown: bool = True) -> None:
        from tqdm import tqdm

        self.shown = shown  # of several processes that do the same, one speaks

        self.title, self.total, self.unit, self.done = title, total, unit, 0
        self._spoke = time.monotonic()
        self._bar = tqdm(
            total=total,
            desc=title,
            unit=f" {unit}",
            leave=False,
            # Processes side by side would draw their bars over each other.
            disable=not (shown and sys.stderr.isatty() and parent_process() is None),
        )

    def step(self, note: str | Callable[[], str] = "") -> None:
        """One more is done; the note, made only where it is shown, says how it goes."""
        self.done += 1
        bar, now = not self._bar.disable, time.monotonic()
        due = now - self._spoke >= (SECONDS_BETWEEN_NOTES if bar else SECONDS_BETWEEN_LINES)
        if due and self.shown:
            self._spoke = now
            text = note if isinstance(note, str) else note()
            if bar:
                self._bar.set_postfix_str(text, refresh=False)
            else:
                say(f"{self.title}: {self.done}/{self.total} {self.unit}  {text}".rstrip())
        self._bar.update()  # nothing where there is no bar

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
