"""Every point of the protocol that the paper states, beside what a run has done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_folders import finetune, pretrain

from ecgpipe.reports.protocol import points
from ecgpipe.reports.report import write_report
from ecgpipe.training.run_folder import read_run


def test_the_full_protocol_is_like_for_like(tmp_path: Path) -> None:
    data = {"train": 6396, "validation": 426, "test": 1706, "labels_file": "REFERENCE.csv"}
    protocol: Any = {"repeats": 10, "epochs": 200, "statistics": "all"}
    run = finetune(tmp_path / "full", finished=tuple(range(10)), data=data, **protocol)
    assert [p for p in points(read_run(run)) if p.same is False] == []
    page = write_report([run], tmp_path / "r")["html"].read_text()
    assert "the protocol is the same" in page and "Not directly comparable" not in page


# A pretraining as the paper's, but for the rules of the beats' labels.
LIKE_THE_PAPER: dict[str, Any] = {
    "dataset": "icentia11k",
    "data": {"train_patients": 10_450, "validation_patients": 550},
    **{"epochs": 168, "steps": 2000, "batch": 128, "statistics": "all"},
}
FUTURE = {"task": "future", "frame": 512, "batch": 64, "epochs": 20}


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"labels": {"rules": "paper_text"}}, set()),
        ({}, {"Beat labels"}),
        ({"labels": {"rules": "code"}}, {"Beat labels"}),
        ({"task": "rhythm", "labels": {"rules": "code"}}, set()),  # the same by all rules
        ({"task": "heart_rate", "frame": 512}, set()),
        ({"task": "heart_rate", "labels": {"rules": "code"}}, {"Heart rate labels"}),
        (FUTURE, set()),
        ({**FUTURE, "future": {"attention_scale": "model"}}, {"Attention divided by"}),
        ({**FUTURE, "network": {"depth": 50}}, {"Pretrained stages"}),
        ({**FUTURE, "network": {"depth": 50, "stages": 3}}, set()),
        ({"task": "rhythm", "network": {"stages": 3}}, {"Pretrained stages"}),
        ({"task": "rhythm", "validation_share": 0.1}, {"Held-out patients"}),
        ({"task": "rhythm", "statistics": "train"}, {"Pretraining standardisation"}),
        ({"task": "rhythm", "clip": 1.5}, {"Pretraining gradients"}),
        ({"task": "rhythm", "steps": 100, "epochs": 3360}, {"Checkpoints"}),
        ({"task": "rhythm", "epochs": 200}, {"Pretraining frames"}),
    ],
)
def test_every_stated_point_of_pretraining_is_compared(
    tmp_path: Path, change: dict[str, Any], differing: set[str]
) -> None:
    upstream = pretrain(tmp_path / "pre", **{**LIKE_THE_PAPER, **change})
    folders = finetune(tmp_path / "run", "beat", upstream), finetune(tmp_path / "random")
    unlike, without = (
        {point.name for point in points(read_run(folder)) if point.same is False}
        for folder in folders
    )
    assert unlike - without == differing


def test_gradients_are_told_where_they_are_cut(tmp_path: Path) -> None:
    plain, cut = (read_run(finetune(tmp_path / f"clip{n}", clip=n)) for n in (0, 2.5))
    assert "Gradients" not in {point.name for point in points(plain)}
    (point,) = [point for point in points(cut) if point.name == "Gradients"]
    assert point.run == "cut to a norm of 2.5" and point.same is False


@pytest.mark.parametrize(
    ("settings", "here", "same"),
    [
        ({}, "folds 1 to 8; 9; 10", True),
        ({"train_share": 0.4}, "40 % of all, from folds 1 to 8; 9; 10", False),
        ({"official_folds": False}, "75 %, 5 %, 20 %", False),
    ],
)
def test_folds_are_told_as_what_they_are(
    tmp_path: Path, settings: dict[str, Any], here: str, same: bool
) -> None:
    run = read_run(finetune(tmp_path / "run", dataset="ptbxl", **settings))
    (point,) = [point for point in points(run) if point.name == "Train, validation, test"]
    assert (point.run, point.same) == (here, same)
