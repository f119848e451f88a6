"""What a command says: progress as a bar or, off a terminal, as lines; results as JSON."""

from __future__ import annotations

import json
import math
import sys
import time
from multiprocessing import parent_process
from types import TracebackType
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


def say(line: str) -> None:
    """Print a line for people, on standard error: standard output is for results."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


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

    def step(self, note: str = "") -> None:
        """One more is done; the note says how it goes."""
        self.done += 1
        if not self._bar.disable:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update()
            return
        now = time.monotonic()
        if self.shown and now - self._spoke >= SECONDS_BETWEEN_LINES:
            self._spoke = now
            say(f"{self.title}: {self.done}/{self.total} {self.unit}  {note}".rstrip())

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
