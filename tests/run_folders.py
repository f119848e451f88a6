"""Run folders as the trainer writes them, with answers drawn at random."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from ecgpipe.config import FinetuneSettings, PretrainSettings, digest
from ecgpipe.tasks import classes_of

CLASSES = ["N", "A", "O", "~"]
COLUMNS = ["epoch", "train_loss", "validation_loss", "validation_accuracy", "validation_macro_f1"]
TEST = [(f"A{i:05d}", i % 4) for i in range(60)]
VALIDATION = [(f"A{i:05d}", i % 4) for i in range(100, 120)]


def history(folder: Path, epochs: int) -> None:
    lines = [COLUMNS] + [[epoch, *[1 / (epoch + 1)] * 4] for epoch in range(1, epochs + 1)]
    with (folder / "history.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(lines)


def answers(rng: np.random.Generator, label: int, classes: int, skill: float) -> list[float]:
    values = rng.random(classes)
    values[label] += skill
    return list(values / values.sum())


def facts(kind: str, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    info = {
        "kind": kind,
        "settings": settings,
        "inputs": [{"path": "/data/x", "name": "x", "digest": "ab" * 32, "fs": 250.0}],
        "versions": {"ecgpipe": "0.1.0", "torch": "2.13.0"},
        "environment": {"device": "cpu", "precision": "bf16", "machine": "2 cores"},
        **more,
    }
    return {**info, "digest": digest([kind, settings])}


def pretrain(
    folder: Path,
    finished: bool = True,
    dataset: str = "mitdb",
    data: dict[str, Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    chosen = PretrainSettings(**{"epochs": 3, "steps": 10, "batch": 8, **settings})
    classes = classes_of(chosen)
    counts = {"train_patients": 19, "validation_patients": 1, "notes": ["3 records left out"]}
    more = {"name": chosen.task, "dataset": [dataset], "classes": list(classes)}
    info = facts("pretrain", chosen.model_dump(), data={**counts, **(data or {})}, **more)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(info))
    history(folder, 3)
    if finished:
        rng = np.random.default_rng(5)
        with (folder / "predictions.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["key", "start", "label", *(f"p_{name}" for name in classes)])
            for i in range(40):
                given = answers(rng, i % 4, len(classes), 0.5)
                writer.writerow([f"r{i}", i * 10, classes[i % 4], *given])
    return info


def finetune(
    folder: Path,
    name: str = "random",
    upstream: dict[str, Any] | None = None,
    finished: tuple[int, ...] = (0, 1, 2),
    dataset: str = "cinc2017",
    test: list[tuple[str, int]] = TEST,
    data: dict[str, Any] | None = None,
    example: str | None = None,
    skill: float | None = None,
    **settings: Any,
) -> Path:
    if skill is None:
        skill = 0.3 if upstream else 0.1
    tree = FinetuneSettings(**{"repeats": 3, "epochs": 7, **settings}).model_dump()
    counts = {"train": 240, "validation": 20, "test": 60, "labels_file": "REFERENCE-v3.csv"}
    init = {"path": "/runs/beat", "run": upstream} if upstream else None
    more = {"name": name, "dataset": dataset, "classes": CLASSES, "init": init}
    info = facts("finetune", tree, data={**counts, "notes": [], **(data or {})}, **more)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(info))
    for number in finished:
        repeat = folder / f"repeat-{number:02d}"
        repeat.mkdir()
        history(repeat, 4 + number)
        rng = np.random.default_rng([number, len(name)])
        with (repeat / "predictions.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["key", "split", "label", *(f"p_{c}" for c in CLASSES)])
            for split, items in (("validation", VALIDATION), ("test", test)):
                for key, label in items:
                    writer.writerow([key, split, CLASSES[label], *answers(rng, label, 4, skill)])
    if example:
        wave = np.sin(np.arange(6000) / 40).astype(np.float32)
        arrays: dict[str, Any] = {
            f"signal__{example}": wave,
            f"qrs__{example}": np.array([9, 2600], np.int32),
        }
        np.savez(folder / "examples.npz", keys=np.array([example]), fs=250.0, **arrays)
    return folder


STATEMENTS = ["SNR", "AF", "PVC", "STD"]


def finetune_many(folder: Path, skill: float = 1.0, **settings: Any) -> Path:
    """Write a run whose recordings have any number of classes, some of them none."""
    tree = FinetuneSettings(**{"repeats": 2, "network": {"depth": 34}, **settings}).model_dump()
    data = {"train": 40, "validation": 10, "test": 50, "notes": []}
    more = {"name": "random", "dataset": "icbeb2018", "classes": STATEMENTS, "init": None}
    info = facts("finetune", tree, data=data, answer="many_of", **more)
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(info))
    truth = np.random.default_rng(8).random((100, 4)) < 0.35
    truth[90:] = False
    for number in range(2):
        repeat = folder / f"repeat-{number:02d}"
        repeat.mkdir()
        history(repeat, 5)
        rng = np.random.default_rng([number, 4])
        score = rng.normal(0, 1, (100, 4)) + skill * (2 * truth - 1)
        with (repeat / "predictions.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["key", "split", "label", *(f"p_{c}" for c in STATEMENTS)])
            for i, (true, values) in enumerate(zip(truth, 1 / (1 + np.exp(-score)), strict=True)):
                split = "train" if i < 40 else "validation" if i < 50 else "test"
                label = " ".join(c for c, has in zip(STATEMENTS, true, strict=True) if has)
                writer.writerow([f"A{i:04d}", split, label, *values])
    return folder
