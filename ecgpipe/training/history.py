"""The history of a training: what every epoch came to, for people, as a table, for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..files.atomic import write_text


def line(title: str, epochs: int, best: str, row: dict[str, float]) -> str:
    """An epoch in words; ``best`` is the score that chooses the epoch."""
    score = "auc" if best == "loss" else best
    return (
        f"{title}: epoch {row['epoch']:.0f}/{epochs}  loss {row['train_loss']:.3f}  "
        f"accuracy {row['train_accuracy']:.3f}  validation loss {row['validation_loss']:.3f}  "
        f"{score} {row[f'validation_{score}']:.3f}  {row['seconds']:.0f} s  "
        f"{row['items_per_second']:,.0f}/s, {100 * row['waited']:.0f} % waiting"
    )


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write a row an epoch, as CSV."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    lines = [",".join(columns)]
    lines += [",".join(f"{row.get(name, np.nan):.8g}" for name in columns) for row in history]
    write_text(path, "\n".join(lines) + "\n")


def write_events(folder: Path, row: dict[str, float]) -> None:
    """Add an epoch to what TensorBoard shows."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=int(row["epoch"])) as writer:
        for name, value in row.items():
            writer.add_scalar(name, value, int(row["epoch"]))
