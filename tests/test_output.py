"""What scripts get: results alone on standard output, as JSON where asked, and exit codes."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import QUICK, options, run
from sklearn.metrics import accuracy_score, f1_score

from ecgpipe.errors import DAMAGED, MISTAKE, REFUSED
from ecgpipe.progress import without_passwords

Done = subprocess.CompletedProcess[str]
DOWN = options({**QUICK, "epochs": 1})
UP = (*DOWN, *options({"steps": 2, "validation_frames": 16, "frames_per_visit": 16}))
UP = (*UP, "--set", "validation_share=0.3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, icentia: Path, cinc: Path) -> dict[str, Done]:
    """Every command that makes something, off a terminal, with ``--json``."""
    out = tmp_path_factory.mktemp("made")
    done: dict[str, Done] = {}
    for name, raw in (("icentia11k", icentia), ("cinc2017", cinc)):
        archive, shards = out / "archive" / name, out / "shards" / name
        done[f"prepare/{name}"] = run("prepare", name, raw, archive, "--json")
        done[f"shard/{name}"] = run("shard", archive, shards, "--json")
        done[f"verify/{name}"] = run("verify", archive, "--source", raw, "--json")
    shards = out / "shards"
    pretrain = ("pretrain", shards / "icentia11k", "--out", out / "beat", *UP, "--json")
    finetune = ("finetune", shards / "cinc2017", "--out", out / "random", "--repeats", "2", *DOWN)
    done["pretrain"] = run(*pretrain)
    done["finetune"] = run(*finetune, "--set", "seconds=10", "--json")
    done["inspect"] = run("inspect", out / "random", "--json")
    done["predict"] = run("predict", out / "random", cinc / "A00001", "--json")
    return done


def test_standard_output_is_json_and_nothing_more(made: dict[str, Done]) -> None:
    for name, done in made.items():
        assert done.returncode == 0, (name, done.stderr)
        assert json.loads(done.stdout), name
        assert "\x1b" not in done.stdout + done.stderr and "\r" not in done.stderr, name


def test_a_store_is_told_as_inspect_tells_it(made: dict[str, Done]) -> None:
    facts = json.loads(made["shard/cinc2017"].stdout)
    assert (facts["kind"], facts["records"], facts["refused_records"]) == ("shards", 40, [])
    verified = json.loads(made["verify/icentia11k"].stdout)
    assert verified["problems"] == [] and verified["source"].endswith("icentia11k")


def test_scores_are_those_of_the_predictions(made: dict[str, Done]) -> None:
    facts = json.loads(made["pretrain"].stdout)
    table = pd.read_csv(Path(facts["run"]) / "predictions.csv", keep_default_na=False)
    answer = table[[f"p_{name}" for name in facts["classes"]]].to_numpy().argmax(1)
    answer = np.array(facts["classes"])[answer]
    assert facts["scores"]["items"] == len(table)
    assert facts["scores"]["accuracy"] == pytest.approx(accuracy_score(table.label, answer))
    recalls = [(answer == table.label)[table.label == name].mean() for name in set(table.label)]
    assert facts["scores"]["balanced_accuracy"] == pytest.approx(np.mean(recalls))

    facts = json.loads(made["finetune"].stdout)
    found = []
    for number in range(2):
        table = pd.read_csv(Path(facts["run"]) / f"repeat-{number:02d}" / "predictions.csv")
        table = table[table.split == "test"]
        answer = table[[f"p_{name}" for name in facts["classes"]]].to_numpy().argmax(1)
        answer = np.array(facts["classes"])[answer]
        labels = facts["classes"]
        found.append(f1_score(table.label, answer, labels=labels, average="macro", zero_division=0))
    score = facts["scores"]["macro_f1"]
    assert (score["mean"], score["n"]) == (pytest.approx(np.mean(found)), 2)
    assert score["std"] == pytest.approx(np.std(found, ddof=1))


def test_what_is_damaged_is_listed(made: dict[str, Done], tmp_path: Path, cinc: Path) -> None:
    raw = shutil.copytree(cinc, tmp_path / "raw")
    (raw / "A00007.mat").unlink()
    done = run("prepare", "cinc2017", raw, tmp_path / "archive", "--json")
    assert done.returncode == REFUSED and "refused A00007" in done.stderr
    (refused,) = json.loads(done.stdout)["refused_records"]
    assert refused["key"] == "A00007"

    part = tmp_path / "archive" / "parts" / "A00001.json"
    part.write_text(part.read_text().replace('"qrs"', '"qsr"', 1))
    done = run("verify", tmp_path / "archive", "--json")
    assert done.returncode == DAMAGED and not done.stderr
    (problem,) = json.loads(done.stdout)["problems"]
    assert "parts/A00001.json: records.0.qrs: Field required" in problem


def test_a_plan_as_json_is_the_plan_as_a_script() -> None:
    words = ("reproduce", "--preset", "smoke", "--out", "out")
    script = run(*words, "--dry-run").stdout.splitlines()
    steps: list[dict[str, Any]] = json.loads(run(*words, "--dry-run", "--json").stdout)
    commands = [line.partition("  #")[0] for line in script if not line.startswith("#")]
    assert commands == [shlex.join(step["command"]) for step in steps]
    assert sum(step["trainings"] for step in steps if step["stage"] == "finetune") == 8
    names = {step["name"] for step in steps}
    assert all(set(step["needs"]) <= names for step in steps)
    alone = run(*words, "--json")
    assert alone.returncode == MISTAKE and alone.stderr.startswith(
        "ecgpipe: --json: goes with --dry-run"
    )
    assert not alone.stdout


def test_numbers_that_do_not_exist_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    from ecgpipe.progress import print_json

    print_json({"auc": [float("nan"), 1.5, (float("inf"), 2)], "é": "é"})
    told = capsys.readouterr().out
    assert json.loads(told) == {"auc": [None, 1.5, [None, 2]], "é": "é"}
    assert "é" in told


def test_passwords_are_in_no_message() -> None:
    for url in ("s3://me:secret@host.example/bucket", '"me:secret@host.example"'):
        assert "secret" not in without_passwords(url) and "me:***@host" in without_passwords(url)
