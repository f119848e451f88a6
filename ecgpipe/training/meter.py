"""How fast a training goes: items a second, the share of time it waits for data, memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")
GB = 1e9


class Meter:
    """Measures a stretch of training, an epoch or what is left of one.

    On a CPU the time waited is that spent on the next batch; on a GPU it is the time between the
    end of one step and the start of the next on the GPU itself, by its own clock.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.items = 0
        self.waited = 0.0  # s
        self.start = time.monotonic()
        self._ended: torch.cuda.Event | None = None
        self._gaps: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def waiting(self, source: Iterable[T]) -> Iterator[T]:
        """The items of a source, the time until each of them counted as waited."""
        items = iter(source)
        while True:
            start = time.monotonic()
            try:
                item = next(items)
            except StopIteration:
                return
            if self.device.type == "cuda":
                self._gap()
            else:
                self.waited += time.monotonic() - start
            yield item

    def _gap(self) -> None:
        if self._ended is not None:
            if self._gaps and self._gaps[-1][0] is self._ended:
                self._gaps.pop()  # the step waits for several batches
            started = torch.cuda.Event(enable_timing=True)
            started.record()
            self._gaps.append((self._ended, started))

    def step(self, items: int) -> None:
        """A step with so many items has been given to the device."""
        self.items += items
        if self.device.type == "cuda":
            self._ended = torch.cuda.Event(enable_timing=True)
            self._ended.record()

    def settle(self) -> None:
        """Count the gaps on a GPU whose end has been reached; call it where it is waited for."""
        if self._gaps:
            torch.cuda.synchronize(self.device)
            self.waited += sum(a.elapsed_time(b) for a, b in self._gaps) / 1000
            self._gaps = []

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.start

    def row(self) -> dict[str, float]:
        """Columns of the history: items a second, share waited, and GB of GPU memory at most."""
        self.settle()
        seconds = max(self.seconds, 1e-9)
        row = {
            "items_per_second": self.items / seconds,
            "waited": self.waited / seconds,
        }
        if self.device.type == "cuda":
            row["gpu_GB"] = torch.cuda.max_memory_allocated(self.device) / GB
        return row

    def note(self) -> str:
        """The same in words, for a progress bar."""
        seconds = max(self.seconds, 1e-9)
        words = [f"{self.items / seconds:,.0f}/s", f"waits {100 * self.waited / seconds:.0f} %"]
        if self.device.type == "cuda":
            words.append(f"{torch.cuda.max_memory_allocated(self.device) / GB:.1f} GB")
        return ", ".join(words)


def clock(seconds: float) -> str:
    """A time to go, as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
