"""Finetuning on twelve leads with many labels, from files in the sets' real formats to a report."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import databases as db
import numpy as np
import pytest
import torch
from command_line import QUICK
from sklearn.metrics import f1_score, roc_auc_score
from torch.nn.functional import binary_cross_entropy_with_logits

from ecgpipe.config import FinetuneSettings, PretrainSettings, load
from ecgpipe.errors import EcgpipeError
from ecgpipe.reports.report import write_report
from ecgpipe.reports.summary import summary
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.shards import shard
from ecgpipe.tasks.objectives import OBJECTIVES
from ecgpipe.training.finetune import finetune
from ecgpipe.training.pretrain import pretrain
from ecgpipe.training.splits import draw_split

DX = ("426783006", "164889003", "270492004", "164909002,284470004", "59118001,164884008")
DOWN = {**QUICK, "epochs": 3, "seconds": 1, "repeats": 2}
UP = {**QUICK, "frame": 64, "epochs": 1, "validation_frames": 8, "shuffle": 16, "streams": 1}


@pytest.fixture(scope="module")
def ptbxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty patients with two recordings each in the ten official folds; rhythms as labels."""
    folder = tmp_path_factory.mktemp("ptbxl")
    codes = ("{'NORM': 100.0, 'SR': 0.0}", "{'AFIB': 0.0}", "{'SR': 0.0, 'BIGU': 0.0}")
    for number in range(1, 81):
        patient = (number - 1) // 2
        which = codes[number % 3] if number != 80 else "{'IMI': 15.0}"
        given = {"patient": f"{patient}.0", "fold": str(1 + patient % 10), "samples": 600}
        db.ptbxl(folder / "raw", number, which, **given)
    prepare("ptbxl", folder / "raw", folder / "archive", 1)
    shard(folder / "archive", folder / "shards", 250, workers=1)
    return folder / "shards"


@pytest.fixture(scope="module")
def icbeb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("icbeb")
    for number in range(1, 61):
        db.challenge(folder / "raw", f"A{number:04d}", DX[number % 5], 500 + 20 * number)
    prepare("icbeb2018", folder / "raw", folder / "archive", 1)
    shard(folder / "archive", folder / "shards", 250, workers=1)
    return folder / "shards"


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, stores: Path) -> Path:
    folder = tmp_path_factory.mktemp("upstream")
    given = {**UP, "steps": 2, "frames_per_visit": 8, "validation_share": 0.25}
    pretrain([stores / "shards/icentia11k"], folder / "run", load(PretrainSettings, **given))
    return folder / "run"


@pytest.fixture(scope="module")
def runs(ptbxl: Path, icbeb: Path, pretrained: Path) -> dict[str, Path]:
    made = {}
    for name, shards in (("ptbxl", ptbxl), ("icbeb2018", icbeb)):
        for start, init in (("random", None), ("beat", pretrained)):
            made[f"{name}-{start}"] = run = shards.parent / start
            finetune(shards, run, load(FinetuneSettings, **DOWN), init)
    return made


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def _answers(rows: list[dict[str, str]], classes: list[str]) -> tuple[Any, Any]:
    y = np.array([[name in row["label"].split(" ") for name in classes] for row in rows])
    return y, np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows])


@pytest.mark.parametrize("name", ["ptbxl", "icbeb2018"])
def test_predictions_are_complete_and_true(name: str, runs: dict[str, Path]) -> None:
    run = runs[f"{name}-random"]
    info, sides = (json.loads((run / f).read_text()) for f in ("run.json", "split.json"))
    classes = info["classes"]
    assert (info["answer"], len(classes)) == ("many_of", 12 if name == "ptbxl" else 9)
    truth = {}
    for path in run.parent.glob("shards/parts/*.json"):
        records = json.loads(path.read_text())["records"]
        truth |= {row["key"]: set(row["statements"]) for row in records}
    for number, side in enumerate(sides["repeats"]):
        rows = _rows(run / f"repeat-{number:02d}" / "predictions.csv")
        for split, keys in (*side.items(), ("test", sides["test"])):
            assert [row["key"] for row in rows if row["split"] == split] == keys
        assert all(set(row["label"].split(" ")) == truth[row["key"]] for row in rows)
        p = _answers(rows, classes)[1]
        assert ((p > 0) & (p < 1)).all()
        assert not np.allclose(p.sum(1), 1)  # every class by itself
    assert any(" " in row["label"] for row in rows)


def test_the_epoch_with_the_lowest_validation_loss_is_kept(runs: dict[str, Path]) -> None:
    for run in runs.values():
        for folder in sorted(run.glob("repeat-*")):
            history = _rows(folder / "history.csv")
            loss = [float(row["validation_loss"]) for row in history]
            model = torch.load(folder / "model.pt", weights_only=True)
            assert model["epoch"] == 1 + loss.index(min(loss))
            y, p = _answers(
                [row for row in _rows(folder / "predictions.csv") if row["split"] == "validation"],
                model["classes"],
            )
            entropy = -(y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
            assert entropy == pytest.approx(min(loss), abs=1e-4)
            best = history[model["epoch"] - 1]
            f1 = f1_score(y, p >= 0.5, average="macro", zero_division=0)
            assert float(best["validation_macro_f1"]) == pytest.approx(f1, abs=1e-6)
            told = [c for c in range(y.shape[1]) if 0 < y[:, c].sum() < len(y)]
            if told:
                auc = np.mean([roc_auc_score(y[:, c], p[:, c]) for c in told])
                assert float(best["validation_auc"]) == pytest.approx(auc, abs=1e-5)


def test_official_folds_are_the_sides(runs: dict[str, Path], ptbxl: Path) -> None:
    sides = json.loads((runs["ptbxl-random"] / "split.json").read_text())
    fold = {}
    for path in ptbxl.glob("parts/*.json"):
        fold |= {row["key"]: row["fold"] for row in json.loads(path.read_text())["records"]}
    assert {fold[key] for key in sides["test"]} == {10}
    assert sides["repeats"][0] == sides["repeats"][1]  # all of the training folds, every time
    models = [
        torch.load(runs["ptbxl-random"] / f"repeat-0{n}" / "model.pt", weights_only=True)
        for n in range(2)
    ]
    assert not torch.equal(*(model["network"]["stem.weight"] for model in models))


def test_one_lead_becomes_twelve(runs: dict[str, Path], pretrained: Path) -> None:
    for name in ("ptbxl", "icbeb2018"):
        fate = json.loads((runs[f"{name}-beat"] / "transfer.json").read_text())
        assert fate["adapted"] == ["stem.weight"]
        assert fate["new"] == ["head.weight", "head.bias"]
        model = torch.load(runs[f"{name}-beat"] / "repeat-00" / "model.pt", weights_only=True)
        assert (model["leads"], model["answer"]) == (12, "many_of")
        assert [lead.upper() for lead in model["lead_names"]] == [
            lead.upper() for lead in db.TWELVE
        ]
        assert model["network"]["stem.weight"].shape[1] == 12


def test_misjudged_recordings_are_the_worst(runs: dict[str, Path]) -> None:
    run = runs["icbeb2018-random"]
    classes = json.loads((run / "run.json").read_text())["classes"]
    right: dict[str, list[float]] = {}
    for file in run.glob("repeat-*/predictions.csv"):
        rows = [row for row in _rows(file) if row["split"] == "test"]
        for row, y, p in zip(rows, *_answers(rows, classes), strict=True):
            right.setdefault(row["key"], []).append(p if y is None else np.where(y, p, 1 - p))
    order = sorted(right, key=lambda key: np.prod(np.mean(right[key], axis=0)))
    with np.load(run / "misjudged.npz", allow_pickle=False) as kept:
        assert list(kept["keys"]) == order[:6]
        assert np.isfinite(kept[f"signal__{order[0]}"]).all()


def test_a_report_on_all_of_it(runs: dict[str, Path], tmp_path: Path) -> None:
    pages = write_report([*runs.values()], tmp_path / "report.html")
    text = pages["html"].read_text()
    for words in ("PTB-XL", "ICBEB", "AUC", "F", "training"):
        assert words in text
    for run in runs.values():
        assert "AUC" in summary(run)


def test_what_a_network_is_trained_on_is_not_tested(
    ptbxl: Path, pretrained: Path, tmp_path: Path
) -> None:
    given = {**UP, "steps": 1, "task": "heart_rate", "frames_per_visit": 2}
    pretrain([ptbxl], tmp_path / "up", load(PretrainSettings, **given))
    run = json.loads((tmp_path / "up" / "run.json").read_text())
    folds = {}
    for path in ptbxl.glob("parts/*.json"):
        folds |= {row["key"]: row["fold"] for row in json.loads(path.read_text())["records"]}
    assert run["data"]["held_back"]["ptbxl"] == sorted(k for k, fold in folds.items() if fold > 8)
    assert "ptbxl: 15 records that finetuning tests on left out" in run["data"]["notes"]
    finetune(ptbxl, tmp_path / "ok", load(FinetuneSettings, **DOWN | {"repeats": 1, "epochs": 1}),
             tmp_path / "up")  # fmt: skip
    other = load(FinetuneSettings, **DOWN, official_folds=False)
    with pytest.raises(EcgpipeError, match=r"was pretrained on \d+ of the test records, such as"):
        finetune(ptbxl, tmp_path / "no", other, tmp_path / "up")
    assert not (tmp_path / "no").exists()


def test_many_of_is_the_mean_of_its_decisions() -> None:
    scores = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    y = (torch.arange(28).reshape(7, 4) % 3 == 0).float()
    many = OBJECTIVES["many_of"]
    by_class = [binary_cross_entropy_with_logits(scores[:, c], y[:, c]) for c in range(4)]
    assert many.losses(scores, y).mean() == pytest.approx(float(sum(by_class)) / 4, abs=1e-6)
    decisions = many.probability(scores).numpy() >= 0.5
    assert many.right(scores, y).mean() == pytest.approx((decisions == y.numpy()).mean(), abs=1e-6)


def test_real_tables_of_ptbxl_are_split_by_its_folds(recordings: Path) -> None:
    """The first 520 rows of the real table, every patient on one side."""
    table = _rows(recordings / "ptbxl" / "ptbxl_database.csv")
    rows = {
        row["ecg_id"]: db.row(
            row["ecg_id"], row["patient_id"], row["ecg_id"], int(row["strat_fold"])
        )
        for row in table
    }
    sides = draw_split(rows, dict.fromkeys(rows, (0,)), FinetuneSettings(repeats=1))
    (side,) = sides.repeats
    parts = (side.train, side.validation, sides.test)
    assert sum(map(len, parts)) == len(rows)  # the official folds never divide a patient
    people = [{rows[key].patient for key in part} for part in parts]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
