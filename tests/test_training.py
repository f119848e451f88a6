"""Short real trainings: reproducible to the bit, continued exactly, refused where they must be."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import Popen
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from command_line import QUICK, start, wait_until
from command_line import run as call
from sklearn.metrics import f1_score

from ecgpipe.config import FinetuneSettings, PretrainSettings, load
from ecgpipe.errors import EcgpipeError, Interrupted
from ecgpipe.models.resnet import ResNet
from ecgpipe.reports.report import write_report
from ecgpipe.training import train_step
from ecgpipe.training.finetune import finetune
from ecgpipe.training.pretrain import pretrain

BEATS = ["normal", "pac", "aberrated", "pvc", "undefined"]
COMMON = {**QUICK, "epochs": 2}
UP = {
    "frame": 256, "steps": 5, "streams": 2, "shuffle": 32, "frames_per_visit": 16,
    "validation_frames": 16, "validation_share": 0.25, **COMMON,
}  # fmt: skip
DOWN = {"seconds": 2, "repeats": 2, **COMMON}


class Sets(NamedTuple):
    upstream: Path
    downstream: Path


@pytest.fixture(scope="module")
def sets(stores: Path) -> Sets:
    return Sets(stores / "shards/icentia11k", stores / "shards/cinc2017")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # sums, hence bits, may depend on it
    yield
    torch.set_num_threads(before)


def _up(sets: Sets, run: Path, **changes: Any) -> Path:
    pretrain([sets.upstream], run, load(PretrainSettings, **UP | changes))
    return run


def _down(sets: Sets, run: Path, init: Path | None = None, **changes: Any) -> Path:
    finetune(sets.downstream, run, load(FinetuneSettings, **DOWN | changes), init)
    return run


@pytest.fixture(scope="module")
def upstream_run(sets: Sets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _up(sets, tmp_path_factory.mktemp("runs") / "up")


@pytest.fixture(scope="module")
def runs(sets: Sets, upstream_run: Path) -> dict[str, Path]:
    folder = upstream_run.parent
    inits = {"random": None, "beat": upstream_run}
    return {name: _down(sets, folder / name, init) for name, init in inits.items()}


def _model(run: Path) -> dict[str, Any]:
    return torch.load(run / "model.pt", weights_only=True)


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def _history(run: Path) -> list[dict[str, str]]:
    rows = _table(run / "history.csv")
    timing = ("seconds", "items_per_second", "waited")
    return [{name: row[name] for name in row if name not in timing} for row in rows]


def _assert_same_run(one: Path, other: Path) -> None:
    a, b = _model(one)["network"], _model(other)["network"]
    assert all(torch.equal(a[name], b[name]) for name in {**a, **b})
    assert _history(one) == _history(other)
    assert (one / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()


def test_seed_decides_everything(sets: Sets, upstream_run: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # what a caller does with the global generators changes nothing
    np.random.seed(99)
    _assert_same_run(_up(sets, tmp_path / "again"), upstream_run)
    other = _model(_up(sets, tmp_path / "other", seed=1))["network"]
    assert not torch.equal(other["stem.weight"], _model(upstream_run)["network"]["stem.weight"])


def test_loader_processes_change_nothing(sets: Sets, upstream_run: Path, tmp_path: Path) -> None:
    _assert_same_run(_up(sets, tmp_path / "run", workers=2), upstream_run)
    with pytest.raises(
        EcgpipeError, match="setting workers: the 2 streams cannot be dealt evenly to 3"
    ):
        _up(sets, tmp_path / "odd", workers=3)


def _ended(process: Popen[str], run: Path, by: signal.Signals = signal.SIGKILL) -> tuple[int, str]:
    """End a command when the run's first checkpoint is there: its code, last line."""
    with process:
        wait_until((run / "last.pt").exists, process)
        process.send_signal(by)
        said = process.communicate()[1]
    assert not (run / "predictions.csv").exists()
    return process.returncode, "".join(said.splitlines()[-1:])


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pretraining_ends_the_same(
    sets: Sets, tmp_path: Path, by: signal.Signals
) -> None:
    given, run = {"epochs": 4, "steps": 6}, tmp_path / "ended"
    code, last = _ended(start("pretrain", sets.upstream, "--out", run, **UP | given), run, by)
    if by != signal.SIGKILL:
        assert code == 130
        assert re.fullmatch(
            r"ecgpipe: interrupted, saved after (update \d of |the updates of )?epoch \d; "
            "the same command continues",
            last,
        )
    assert 1 <= len(torch.load(run / "last.pt", weights_only=True)["history"]) < 4
    workers = 2 if by == signal.SIGTERM else 0  # it may go on with another number of processes
    _assert_same_run(_up(sets, run, **given, workers=workers), _up(sets, tmp_path / "a", **given))


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    sets: Sets, tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given, run = {"epochs": 4, "steps": 6}, tmp_path / "ended"
    _ended(start("pretrain", sets.upstream, "--out", run, **UP | given), run, signal.SIGINT)
    last = run / "last.pt"
    shutil.copy(last, run / "previous.pt")
    if damage == "other":
        torch.save({"network": {}}, last)
    else:
        last.write_bytes(last.read_bytes()[: 1000 if damage == "cut" else 0])
    _assert_same_run(_up(sets, run, **given), _up(sets, tmp_path / "a", **given))
    assert "last.pt: damaged" in capsys.readouterr().err
    assert not last.exists() and not (run / "previous.pt").exists()


def _kill_children(process: Popen[str]) -> bool:
    """Kill the loader processes of a training, True if it had any."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    except OSError:
        return False
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    return bool(children)


def test_a_killed_loader_process_ends_a_training_that_continues(sets: Sets, tmp_path: Path) -> None:
    given, run = {"epochs": 3, "steps": 100}, tmp_path / "ended"
    with start("pretrain", sets.upstream, "--out", run, **UP | given, workers=2) as process:
        wait_until((run / "last.pt").exists, process)
        wait_until(lambda: not _kill_children(process) and process.poll() is not None)
        said = process.communicate()[1]
    assert process.returncode == 2
    last = said.splitlines()[-1]
    assert re.match(r"ecgpipe: loader process [\d, ]+ was killed, most often because memory", last)
    _assert_same_run(_up(sets, run, **given), _up(sets, tmp_path / "a", **given))


def test_a_killed_finetuning_ends_the_same(
    sets: Sets, runs: dict[str, Path], upstream_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    command = ("finetune", sets.downstream, "--out", run, "--init", upstream_run)
    # Killed in the second repeat: the first is whole, and must stay as it is.
    _ended(start(*command, **DOWN), run / "repeat-01")
    first = (run / "repeat-00/model.pt").stat().st_mtime_ns
    _down(sets, run, upstream_run)
    assert (run / "repeat-00/model.pt").stat().st_mtime_ns == first
    for repeat in ("repeat-00", "repeat-01"):
        _assert_same_run(run / repeat, runs["beat"] / repeat)
    assert (run / "split.json").read_bytes() == (runs["beat"] / "split.json").read_bytes()


def test_asked_in_the_middle_of_a_validation_it_ends_the_same(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last epoch of a repeat, too: the next one is not begun."""
    run, times, trained = tmp_path / "run", 2, False
    settings = {"batch": 2, "validation_share": 0.2, "train_share": 0.4}
    compute = train_step.forward

    def forward(network: Any, batch: Any, device: Any) -> Any:
        nonlocal times, trained
        if network.training:
            trained = True
        elif trained and times:  # at the first batch of a validation
            times, trained = times - 1, False
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(network, batch, device)

    monkeypatch.setattr(train_step, "forward", forward)
    for epoch in (1, 2):
        with pytest.raises(Interrupted, match=rf"^saved after the updates of epoch {epoch}$"):
            _down(sets, run, **settings)
        assert not (run / "repeat-01").exists()
    _down(sets, run, **settings)
    whole = _down(sets, tmp_path / "whole", **settings)
    for repeat in ("repeat-00", "repeat-01"):
        _assert_same_run(run / repeat, whole / repeat)


def test_a_run_goes_on_with_its_own_sides_alone(
    sets: Sets, runs: dict[str, Path], tmp_path: Path
) -> None:
    run = shutil.copytree(runs["random"], tmp_path / "run")
    sides = json.loads((run / "split.json").read_text())
    sides["test"].reverse()
    (run / "split.json").write_text(json.dumps(sides))
    with pytest.raises(EcgpipeError, match=r"split\.json: holds another split than"):
        _down(sets, run)


def test_a_finished_run_is_left_alone(
    sets: Sets, upstream_run: Path, runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for run, again in ((upstream_run, _up), (runs["random"], _down)):
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*.*")}
        again(sets, run)
        assert "finished already" in capsys.readouterr().err
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*.*")} == before


def test_the_model_file_is_complete(upstream_run: Path) -> None:
    model, run = _model(upstream_run), json.loads((upstream_run / "run.json").read_text())
    assert model["classes"] == BEATS
    assert (model["fs"], model["leads"], model["depth"]) == (250, 1, 18)
    assert model["mean_mV"] == run["data"]["mean_mV"]
    assert model["std_mV"] == run["data"]["std_mV"] > 0
    ResNet(5, stages=2).load_state_dict(model["network"])


def test_predictions_are_of_held_out_patients_alone(upstream_run: Path) -> None:
    (held_out,) = json.loads((upstream_run / "run.json").read_text())["data"]["held_out"]
    rows = _table(upstream_run / "predictions.csv")
    assert {f"icentia11k/{row['key'].split('_')[0]}" for row in rows} == {held_out}
    assert len(rows) == 16
    for row in rows:
        assert 0 <= int(row["start"]) <= 15_000 - 256
        assert sum(float(row[f"p_{name}"]) for name in BEATS) == pytest.approx(1, abs=1e-5)


def _assert_best_epoch(run: Path, score: str) -> list[float]:
    scores = [float(row[f"validation_{score}"]) for row in _table(run / "history.csv")]
    assert _model(run)["epoch"] == 1 + scores.index(max(scores))
    return scores


def test_the_best_epoch_is_kept(sets: Sets, tmp_path: Path) -> None:
    run = _up(sets, tmp_path / "run", epochs=5, steps=8, validation_frames=48)
    scores = _assert_best_epoch(run, "accuracy")
    rows = _table(run / "predictions.csv")
    right = [row["label"] == max(BEATS, key=lambda n: float(row[f"p_{n}"])) for row in rows]
    assert np.mean(right) == pytest.approx(max(scores), abs=1e-7)


def test_finetuning_leaves_complete_predictions(runs: dict[str, Path]) -> None:
    names = list("NAO~")
    for run in runs.values():
        sides = json.loads((run / "split.json").read_text())
        assert len(sides["repeats"]) == 2
        assert sides["repeats"][0] != sides["repeats"][1]
        for number, side in enumerate(sides["repeats"]):
            folder = run / f"repeat-{number:02d}"
            rows = _table(folder / "predictions.csv")
            for split, keys in (("validation", side["validation"]), ("test", sides["test"])):
                assert [row["key"] for row in rows if row["split"] == split] == keys
            assert len(rows) == 10
            p = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
            np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
            truth = [names.index(row["label"]) for row in rows]
            scores = _assert_best_epoch(folder, "macro_f1")
            valid = slice(len(side["validation"]))
            how = {"average": "macro", "labels": range(4), "zero_division": 0}
            f1 = f1_score(truth[valid], p[valid].argmax(1), **how)
            assert f1 == pytest.approx(max(scores), abs=1e-6)


def test_the_fate_of_every_tensor_is_listed(runs: dict[str, Path]) -> None:
    fate = json.loads((runs["beat"] / "transfer.json").read_text())
    assert fate["new"] == fate["unused"] == ["head.weight", "head.bias"]
    assert fate["adapted"] == []
    assert sorted(fate["loaded"] + fate["new"]) == sorted(ResNet(4, stages=2).state_dict())
    assert not (runs["random"] / "transfer.json").exists()


@pytest.mark.parametrize("task", ["rhythm", "heart_rate", "future"])
def test_every_task_can_be_finetuned_from(task: str, sets: Sets, tmp_path: Path) -> None:
    future = {"context": 2, "negatives": 2, "offset": 1}
    mixed = {"validation_share": 0.5, "frames_per_visit": 2, "frame": 64, "batch": 16, "steps": 2}
    up = _up(sets, tmp_path / "up", task=task, future=future, epochs=1, **mixed)
    down = _down(sets, tmp_path / "down", up, repeats=1, epochs=1)
    fate = json.loads((down / "transfer.json").read_text())
    assert fate["new"] == ["head.weight", "head.bias"]
    assert any(name.startswith("pooling.") for name in fate["unused"]) == (task == "future")
    page = write_report([up, down], tmp_path / "report.html")["html"].read_text()
    assert "by chance .333" in page if task == "future" else "balanced accuracy" in page


def test_rows_share_their_sides_and_nothing_else(runs: dict[str, Path]) -> None:
    assert len({(run / "split.json").read_bytes() for run in runs.values()}) == 1
    folders = [
        runs["random"] / "repeat-00",
        runs["random"] / "repeat-01",
        runs["beat"] / "repeat-00",
    ]
    stems = {_model(folder)["network"]["stem.weight"].numpy().tobytes() for folder in folders}
    assert len(stems) == 3


def test_patience_stops(sets: Sets, tmp_path: Path) -> None:
    run = _down(sets, tmp_path / "run", repeats=1, epochs=40, patience=2)
    accuracy = [float(row["train_accuracy"]) for row in _table(run / "repeat-00/history.csv")]

    def stalled(rows: list[float]) -> bool:
        return len(rows) > 2 and max(rows[-2:]) <= max(rows[:-2])

    assert len(accuracy) < 40
    assert stalled(accuracy)
    assert not any(stalled(accuracy[:n]) for n in range(1, len(accuracy)))


def test_a_loss_that_is_no_number_names_its_records(sets: Sets, tmp_path: Path) -> None:
    with pytest.raises(EcgpipeError, match=r"training loss became nan .*p0\d+_s0\d@\d+.*lr"):
        _up(sets, tmp_path / "up", optimiser={"lr": 1e30})
    assert len((tmp_path / "up" / "diverged.txt").read_text().splitlines()) == COMMON["batch"]
    with pytest.raises(EcgpipeError, match=r"training loss became nan .*A000\d\d.*lr"):
        _down(sets, tmp_path / "down", optimiser={"lr": 1e30})


def test_folders_of_others_are_refused(
    sets: Sets, upstream_run: Path, runs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(EcgpipeError, match=r"settings\.steps 5 there, 6 now"):
        _up(sets, upstream_run, steps=6)
    with pytest.raises(EcgpipeError, match=r"settings\.optimiser\.lr 0\.001 there, 0\.1 now"):
        _up(sets, upstream_run, optimiser={"lr": 0.1})
    with pytest.raises(EcgpipeError, match=r"already holds another run \(init"):
        _down(sets, runs["random"], upstream_run)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(EcgpipeError, match="is no run of ecgpipe and not empty"):
        _up(sets, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_finetuning_is_no_init(sets: Sets, runs: dict[str, Path], tmp_path: Path) -> None:
    for init in (runs["beat"], runs["beat"] / "repeat-00"):
        with pytest.raises(EcgpipeError, match=r": is (part of )?a finetuning; name a pretraining"):
            _down(sets, tmp_path / "run", init)


def test_an_unusable_init_is_refused(sets: Sets, upstream_run: Path, tmp_path: Path) -> None:
    with pytest.raises(EcgpipeError, match=r"model\.pt: missing"):
        _down(sets, tmp_path / "run", tmp_path / "nothing")
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "model.pt").write_bytes((upstream_run / "model.pt").read_bytes())
    with pytest.raises(EcgpipeError, match="pretraining is not finished"):
        _down(sets, tmp_path / "run", begun)
    (begun / "predictions.csv").write_text("")
    (begun / "model.pt").write_bytes((upstream_run / "model.pt").read_bytes()[:-5000])
    with pytest.raises(EcgpipeError, match=r"model\.pt: not a readable model file"):
        _down(sets, tmp_path / "run", begun)
    assert not (tmp_path / "run").exists()


def test_command_line(sets: Sets, tmp_path: Path) -> None:
    run, shards = str(tmp_path / "run"), str(sets.upstream)
    given = UP | {"epochs": 1, "steps": 1, "network": {}}  # the whole network
    done = call("pretrain", shards, "--out", run, **given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{run}: 16 validation frames: accuracy ")
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "run/predictions.csv").is_file()
    for words in (
        ["pretrain", shards, "--out", run, "--set", "frames=3"],
        ["pretrain", str(tmp_path / "none"), "--out", run],
        ["pretrain", shards, "--out", run],
        ["finetune", str(sets.downstream), "--out", run + "2", "--set", "network.depth=35"],
    ):
        wrong = call(*words)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert wrong.stderr.startswith("ecgpipe: ")
        assert wrong.stderr.count("\n") == 1
    assert call("pretrain", shards).returncode == 2
