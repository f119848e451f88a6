"""The rows of the paper that `gpu.py` trains: repeats that add up over calls and machines.

A finished repeat is kept in ``repeats.zip`` as three files of a folder ``ROW/NN``: its scores,
history and predictions. A call puts those of a row back into the run's folder, so that `ecgpipe
finetune` trains the others.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgpipe.config import HOW, FinetuneSettings, PretrainSettings, Training, digest, load
from ecgpipe.experiments.presets import PRETRAININGS, Row
from ecgpipe.metrics.single_label import scores_one_of
from ecgpipe.reports.paper import Cell, Conditions, Score, Start, cells
from ecgpipe.reports.results import spread
from ecgpipe.storage.store import Store
from ecgpipe.training.predictions import read_predictions

FILES = ("history.csv", "predictions.csv")
# In the order of their worth: random weights first, which the paper has numbers of; then the same
# from pretrainings on what is at hand, which it has not.
RANDOM = (
    Row(share=0.25), Row(share=0.5), Row(), Row(fs=128), Row(depth=34),
)  # fmt: skip
STARTS = ("heart_rate-512", "future-8-4-2")  # an item of the others is longer than 30 s
PRETRAINED = tuple(Row(start, share=share) for share in (0.25, 0.5, None) for start in STARTS)


def chosen(small: bool) -> tuple[Row, ...]:
    """The rows to train, in this order; to try the script all kinds of them."""
    return (*RANDOM, *(PRETRAINED[: len(STARTS)] if small else PRETRAINED))


# Some minutes of a GPU: 5.1 and 4.6 million frames.
PRETRAIN = {
    "heart_rate-512": ("epochs=10", "steps=500", "batch=1024", "frames_per_visit=16"),
    "future-8-4-2": ("epochs=10", "steps=200", "batch=256", "frames_per_visit=2"),
}
SMALL = ("repeats=2", "epochs=2", "batch=8", "seconds=5", "train_share=0.01",
         "validation_share=0.01", "test_share=0.01")  # fmt: skip
SMALL_PRETRAIN = ("epochs=1", "steps=4", "batch=32", "frames_per_visit=2", "shuffle=64",
                  "validation_frames=32")  # fmt: skip


@dataclass(frozen=True)
class Repeat:
    """A finished repeat that was kept."""

    row: str
    number: int
    told: dict[str, Any]  # repeat.json
    files: Mapping[str, bytes]


def conditions(row: Row) -> Conditions:
    return Conditions(row.downstream, row.share or 0.75, float(row.fs), row.depth)


def of_paper(row: Row) -> Cell | None:
    """The paper's scores of a row; of other pretrainings than its own there are none."""
    return cells().get((Start("random"), conditions(row))) if row.start == "random" else None


def settings_of(row: Row, small: bool, how: Mapping[str, Any]) -> FinetuneSettings:
    """The paper's protocol; ``how`` says how it is computed."""
    given = ["statistics=all"]
    if row.share is not None:
        given.append(f"train_share={row.share:g}")
    if row.depth != 18:
        given.append(f"network.depth={row.depth}")
    given += SMALL if small else ()
    return load(FinetuneSettings, assignments=given, **how)


def pretrain_settings(start: str, small: bool, **how: Any) -> PretrainSettings:
    given = (*PRETRAIN[start], *(SMALL_PRETRAIN if small else ()))
    return load(PretrainSettings, assignments=given, preset=PRETRAININGS[start], **how)


def protocol(row: Row, settings: FinetuneSettings, store: Store, small: bool) -> dict[str, Any]:
    """What makes repeats of different calls repeats of one row."""
    recipe, pretrained = store.recipe, None
    if row.start != "random":
        pretrained = what(pretrain_settings(row.start, small))
    return {
        "row": row.name,
        "settings": what(settings),
        "pretraining": pretrained,
        "records": store.manifest.totals.records,
        "fs": recipe.fs,
        "labels_file": recipe.labels_file,
    }


def what(settings: Training) -> dict[str, Any]:
    """Settings without those that say how, or how often."""
    return {k: v for k, v in settings.model_dump().items() if k not in (*HOW, "repeats", "streams")}


def at_250(shards: list[Path]) -> list[Path]:
    """The shards that can be pretrained on."""
    return [path for path in shards if Store(path).recipe.fs == 250]


def last_epoch(history: Path) -> dict[str, float]:
    """The last row of a history."""
    header, *_, last = history.read_text().splitlines()
    return dict(zip(header.split(","), map(float, last.split(",")), strict=True))


def shards_for(row: Row, stores: list[Store]) -> Store | None:
    for store in stores:
        if store.recipe.dataset == row.downstream and store.recipe.fs == row.fs:
            return store
    return None


class Kept:
    """The repeats in ``repeats.zip``."""

    def __init__(self, out: Path) -> None:
        self.path = out / "repeats.zip"
        self.repeats: dict[tuple[str, int], Repeat] = {}
        if self.path.exists():
            with zipfile.ZipFile(self.path) as archive:
                for name in archive.namelist():
                    row, number, file = name.split("/")
                    if file == "repeat.json":
                        content = {f: archive.read(f"{row}/{number}/{f}") for f in FILES}
                        told = json.loads(archive.read(name))
                        self.repeats[row, int(number)] = Repeat(row, int(number), told, content)

    def of(self, row: str) -> list[Repeat]:
        return [self.repeats[at] for at in sorted(self.repeats) if at[0] == row]

    def add(self, repeat: Repeat) -> None:
        """Keep a repeat, in one step: whoever kills this process leaves the old file or the new."""
        self.repeats[repeat.row, repeat.number] = repeat
        partial = self.path.with_suffix(".partial")
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_LZMA) as archive:
            for at in sorted(self.repeats):
                one = self.repeats[at]
                content = {"repeat.json": json.dumps(one.told, indent=1).encode(), **one.files}
                for name, data in content.items():
                    info = zipfile.ZipInfo(f"{one.row}/{one.number:02d}/{name}")
                    info.compress_type = zipfile.ZIP_LZMA
                    archive.writestr(info, data)
        os.replace(partial, self.path)

    def restore(self, row: str, run: Path, wanted: Mapping[str, Any]) -> int:
        """Put the repeats of a row with this protocol into a run's folder; gives their number."""
        found = [one for one in self.of(row) if one.told["protocol"] == wanted]
        for one in found:
            folder = run / f"repeat-{one.number:02d}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in one.files.items():
                (folder / name).write_bytes(data)
        return len(found)

    def take(self, row: str, run: Path, told: Mapping[str, Any]) -> Iterator[Repeat]:
        """Keep what a run has finished since."""
        if not (run / "run.json").exists():
            return
        info = json.loads((run / "run.json").read_text())
        for folder in sorted(run.glob("repeat-*")):
            number = int(folder.name.removeprefix("repeat-"))
            if (row, number) in self.repeats or not (folder / "predictions.csv").exists():
                continue
            files = {name: (folder / name).read_bytes() for name in FILES}
            facts = {
                **told,
                "scores": score(folder / "predictions.csv", info["classes"]),
                "environment": info["environment"],
                "versions": info["versions"],
                "test_keys": keys_digest(folder / "predictions.csv"),
            }
            repeat = Repeat(row, number, facts, files)
            self.add(repeat)
            yield repeat


def score(file: Path, classes: list[str]) -> dict[str, float]:
    """Scores on the test records."""
    test = read_predictions(file, classes, ["validation", "test"], False)["test"]
    return scores_one_of(test.label, test.probability)


def keys_digest(file: Path) -> str:
    """The test records of a repeat, which all repeats of a row share."""
    rows = [line.split(",")[:2] for line in file.read_text().splitlines()]
    return hashlib.sha256(
        " ".join(key for key, split in rows if split == "test").encode()
    ).hexdigest()


def groups(kept: Kept, row: str) -> list[tuple[list[Repeat], Score]]:
    """Repeats of a row by protocol and test records, the largest group first, with their score."""
    found: dict[str, list[Repeat]] = {}
    for one in kept.of(row):
        found.setdefault(digest([one.told["protocol"], one.told["test_keys"]]), []).append(one)
    scored = []
    for members in sorted(found.values(), key=len, reverse=True):
        macro = spread([one.told["scores"]["macro_f1"] for one in members])
        assert macro is not None
        scored.append((members, macro))
    return scored
