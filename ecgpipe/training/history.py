"""History of a training: scores and speed of every epoch, as text, CSV and for TensorBoard."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from ..files.atomic import write_text

T = TypeVar("T")
GB = 1e9


class Meter:
    """Measure the speed of an epoch, or of the rest of one.

    The time waited is, on a CPU, the time until the next batch is there; on a GPU, by its own
    clock, the time between the end of a step and the start of the next.
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
        """Give the items of a source; the time until each of them counts as waited."""
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
        """Count a step of so many items, given to the device."""
        self.items += items
        if self.device.type == "cuda":
            self._ended = torch.cuda.Event(enable_timing=True)
            self._ended.record()

    def add_gaps(self) -> None:
        """Add up the gaps between steps on a GPU; waits for the GPU."""
        if self._gaps:
            torch.cuda.synchronize(self.device)
            self.waited += sum(a.elapsed_time(b) for a, b in self._gaps) / 1000
            self._gaps = []

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.start

    def row(self) -> dict[str, float]:
        """Columns of the history: items a second, share of time waited, peak GPU memory in GB."""
        self.add_gaps()
        seconds = max(self.seconds, 1e-9)
        row = {
            "items_per_second": self.items / seconds,
            "waited": self.waited / seconds,
        }
        if self.device.type == "cuda":
            row["gpu_GB"] = torch.cuda.max_memory_allocated(self.device) / GB
        return row

    def note(self) -> str:
        """The same as text, for a progress bar."""
        seconds = max(self.seconds, 1e-9)
        words = [f"{self.items / seconds:,.0f}/s", f"waits {100 * self.waited / seconds:.0f} %"]
        if self.device.type == "cuda":
            words.append(f"{torch.cuda.max_memory_allocated(self.device) / GB:.1f} GB")
        return ", ".join(words)


def clock(seconds: float) -> str:
    """Remaining time as text."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def line(title: str, epochs: int, best: str, row: dict[str, float]) -> str:
    """An epoch as a line of text; ``best`` is the score that chooses the epoch."""
    score = "auc" if best == "loss" else best
    found = row[f"validation_{score}"]
    value = "does not exist" if math.isnan(found) else f"{found:.3f}"
    return (
        f"{title}: epoch {row['epoch']:.0f}/{epochs}  loss {row['train_loss']:.3f}  "
        f"accuracy {row['train_accuracy']:.3f}  validation loss {row['validation_loss']:.3f}  "
        f"{score} {value}  {row['seconds']:.0f} s  "
        f"{row['items_per_second']:,.0f}/s, {100 * row['waited']:.0f} % waiting"
    )


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write one CSV row for each epoch."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    lines = [",".join(columns)]
    lines += [",".join(f"{row.get(name, np.nan):.8g}" for name in columns) for row in history]
    write_text(path, "\n".join(lines) + "\n")


def write_events(folder: Path, row: dict[str, float]) -> None:
    """Add an epoch to the TensorBoard events."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=int(row["epoch"])) as writer:
        for name, value in row.items():
            writer.add_scalar(name, value, int(row["epoch"]))
