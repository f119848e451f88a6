"""What an update does, alone or shared by processes; tasks learnt by heart."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from command_line import PATIENCE, QUICK, options
from torch import nn

from ecgpipe.config import PretrainSettings, load
from ecgpipe.errors import EcgpipeError
from ecgpipe.experiments.presets import BEST, PRETRAININGS, pretraining
from ecgpipe.loading.corpus import open_corpus
from ecgpipe.loading.epoch import Epoch
from ecgpipe.loading.frames import concatenate, take
from ecgpipe.reports.paper import Conditions, cells, start_of
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.shards import shard
from ecgpipe.storage.store import Store
from ecgpipe.tasks import TASKS, frames_of
from ecgpipe.training.device import choose
from ecgpipe.training.history import Meter, clock
from ecgpipe.training.loop import Plan, fit, new_network
from ecgpipe.training.pretrain import build_network, pretrain
from ecgpipe.training.processes import ALONE, Stop, check_shares
from ecgpipe.training.train_step import TrainStep
from ecgpipe.types import Batch

SMALL = {
    **QUICK, "epochs": 2, "steps": 3, "frame": 128,
    "streams": 4, "shuffle": 64, "frames_per_visit": 4, "validation_frames": 32,
    "validation_share": 0.5, "future": {"context": 3, "negatives": 3, "offset": 1},
}  # fmt: skip
MIXED = {"batch": 16, "frames_per_visit": 2}  # so that a batch has items of both patients
TIMING = ("seconds", "items_per_second", "waited")


@pytest.fixture(scope="module")
def shards(stores: Path) -> Path:
    return stores / "shards/icentia11k"


def settings_of(**changes: Any) -> PretrainSettings:
    return load(PretrainSettings, **SMALL | changes)


def weights(run: Path) -> dict[str, torch.Tensor]:
    network: dict[str, torch.Tensor] = torch.load(run / "model.pt", weights_only=True)["network"]
    return network


def history(run: Path) -> list[dict[str, float]]:
    rows = csv.DictReader((run / "history.csv").read_text().splitlines())
    return [{name: float(row[name]) for name in row if name not in TIMING} for row in rows]


@pytest.mark.parametrize("task", list(BEST))
def test_32_items_can_be_learnt_by_heart(task: str, shards: Path, tmp_path: Path) -> None:
    settings = settings_of(task=task, frame=64, steps=1, batch=32, streams=1, frames_per_visit=8)
    corpus = open_corpus([Store(shards)], 250, frames_of(settings).span, True)
    names = ("steps", "batch", "frames_per_visit", "streams", "open_shards", "shuffle")
    how = {name: getattr(settings, name) for name in names}
    epoch = Epoch(corpus.shards, frames_of(settings, 0.0, 0.3), number=1, **how)
    (batch,) = epoch
    assert len(set(batch.y)) > 1
    plan = Plan("heart", 50, lambda *_: [batch], lambda: [batch], "accuracy", None, None)
    network = new_network(lambda: build_network(settings), 0)
    fit(network, plan, settings, choose(settings), tmp_path)
    last = history(tmp_path)[-1]
    assert last["train_loss"] < 0.05
    assert last["train_accuracy"] == 1


@pytest.mark.parametrize("task", ["rhythm", "heart_rate", "future"])
def test_a_seed_decides_every_task(task: str, shards: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pretrain([shards], tmp_path / name, settings_of(task=task, epochs=1, **MIXED))
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert history(tmp_path / "one") == history(tmp_path / "two")
    answers = [(tmp_path / name / "predictions.csv").read_bytes() for name in ("one", "two")]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("task", ["beat", "future"])
def test_two_processes_are_one_that_accumulates(task: str, shards: Path, tmp_path: Path) -> None:
    changes = {"task": task, "accumulate": 2, **MIXED, "workers": 0, "optimiser": {"eps": 0.1}}
    pretrain([shards], tmp_path / "one", settings_of(**changes))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "ecgpipe", "pretrain", str(shards)]
    ended = subprocess.run(
        [*command, "--out", str(tmp_path / "two"), *options(SMALL | changes)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(" validation ") == 1
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        if one[name].is_floating_point():
            torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4, msg=name)
    for a, b in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        assert a == pytest.approx(b, rel=2e-3)


def test_shares_that_do_not_fit_are_refused() -> None:
    check_shares(2, 4, 2, 4)
    with pytest.raises(EcgpipeError, match=r"setting accumulate: 1 batches .* multiple of 2"):
        check_shares(2, 4, 0, 1)
    with pytest.raises(EcgpipeError, match=r"setting streams: the 4 streams .* 3 processes"):
        check_shares(3, 4, 0, 3)
    with pytest.raises(EcgpipeError, match=r"setting workers: the 4 streams .* in each of 2 proc"):
        check_shares(2, 4, 4, 2)


def some_batches(count: int, items: int = 6) -> list[Batch]:
    rng = np.random.default_rng(0)
    x = rng.integers(-1000, 1000, (count, items, 1, 64)).astype(np.int16)
    scale, zero = np.full((items, 1), 1e-3, np.float32), np.zeros((items, 1), np.float32)
    length, keys = np.full(items, 64), np.array(["k"] * items, object)
    return [Batch(part, scale, zero, length, rng.integers(0, 5, items), keys) for part in x]


class Net(nn.Module):
    """One batch norm, whose statistics of the input alone can be told by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(1), nn.Linear(64, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.norm(x.unsqueeze(2)).flatten(1))
        return scores


def run_pass(batches: list[Batch], **changes: Any) -> tuple[Net, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network, settings = Net(), settings_of(**changes)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    one = TrainStep(network, optimiser, settings, choose(settings), ALONE)
    meter = Meter(torch.device("cpu"))
    done = list(one.updates(batches, one_sum(), meter, Stop()))
    assert len(done) == -(-len(batches) // settings.accumulate)
    assert done[-1].seen == sum(len(batch.y) for batch in batches)
    return network, optimiser


def one_sum() -> Any:
    from ecgpipe.training.train_step import EpochSums

    return EpochSums()


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_an_update_moves_statistics_once_by_the_mean_of_its_batches(count: int) -> None:
    batches = some_batches(count)
    network, _ = run_pass(batches, accumulate=5)
    values = np.stack([batch.x * 1e-3 for batch in batches]).reshape(count, -1)
    if count < 5:  # an update that the epoch ends in counts as a whole one
        assert len(values) == count
    mean, var = values.mean(1).mean(), values.var(1, ddof=1).mean()
    assert float(network.norm.running_mean) == pytest.approx(0.1 * mean, abs=1e-6)
    assert float(network.norm.running_var) == pytest.approx(0.9 + 0.1 * var, abs=1e-6)


def test_accumulated_gradients_are_those_of_all_items() -> None:
    batches = [*some_batches(2, 6), *(take(b, slice(2)) for b in some_batches(1, 6))]
    network, _ = run_pass(batches, accumulate=3)
    torch.manual_seed(0)
    plain = Net().train()
    total = sum(len(batch.y) for batch in batches)
    loss: Any = 0
    for batch in batches:
        x = torch.from_numpy(batch.x * np.float32(1e-3))
        wanted = torch.from_numpy(batch.y)
        loss = loss + nn.functional.cross_entropy(plain(x), wanted, reduction="sum") / total
    loss.backward()
    for a, b in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped() -> None:
    def norm(network: nn.Module) -> float:
        return float(torch.stack([p.grad.norm() for p in network.parameters()]).norm())  # type: ignore[union-attr]

    free, _ = run_pass(some_batches(1))
    cut, _ = run_pass(some_batches(1), clip=0.01)
    assert norm(free) > 0.05
    assert norm(cut) == pytest.approx(0.01, rel=1e-3)


def test_a_stop_ends_behind_its_update() -> None:
    torch.manual_seed(0)
    network, settings = Net(), settings_of()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    one = TrainStep(network, optimiser, settings, choose(settings), ALONE)
    with Stop() as stop:
        given = one.updates(some_batches(9), one_sum(), Meter(torch.device("cpu")), stop)
        assert [sums.steps for sums in islice(given, 3)] == [1, 2, 3]
        os.kill(os.getpid(), signal.SIGTERM)
        assert [sums.steps for sums in given] == [4]
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_code_s_optimiser_and_rules_are_settings() -> None:
    settings = settings_of(labels={"rules": "code"}, network={"order": "post"})
    assert frames_of(settings).margin == 0
    assert frames_of(settings_of(task="heart_rate")).margin == 250
    assert frames_of(settings_of(task="heart_rate", labels={"rules": "code"})).margin == 0


@pytest.mark.parametrize("name", list(PRETRAININGS))
def test_presets_are_the_rows_of_table_1(name: str) -> None:
    settings = load(PretrainSettings, preset=PRETRAININGS[name])
    future = settings.future
    triple = (future.context, future.negatives, future.offset)
    start = start_of(settings.task, settings.frame, triple)
    assert cells()[start, Conditions("cinc2017", 0.75, 250.0, 18)].table == 1
    told = name.split("-")[1:]
    wanted = [str(settings.frame)] if settings.task != "future" else [str(n) for n in triple]
    assert told == wanted
    assert pretraining(name, settings.task) == PRETRAININGS[name]


def test_deployments_take_the_best_presets() -> None:
    tree = yaml.safe_load((Path(__file__).parent.parent / "prefect.yaml").read_text())
    found = [d for d in tree["deployments"] if d["entrypoint"].endswith(":pretrain")]
    assert {d["name"]: d["parameters"]["preset"] for d in found} == BEST
    assert not any("settings" in deployment["parameters"] for deployment in found)


def test_presets_that_do_not_fit_are_refused() -> None:
    assert len(PRETRAININGS) == 13
    for given, words in (
        (("beat-100", None), "--preset beat-100: unknown; take one of beat-512"),
        (("beat-512", "rhythm"), "belongs to another task than --task rhythm"),
        ((None, "rhythms"), "--task rhythms: unknown; take one of beat, rhythm"),
    ):
        with pytest.raises(EcgpipeError, match=words):
            pretraining(*given)


def test_what_is_given_stands_over_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("steps = 7\n[future]\nnegatives = 5\n")
    preset = PRETRAININGS["future-16-8-8"]
    settings = load(PretrainSettings, file, ["future.offset=3"], preset)
    assert (settings.task, settings.steps, settings.frame) == ("future", 7, 512)
    future = settings.future
    assert (future.context, future.negatives, future.offset) == (16, 5, 3)


def test_histories_for_tensorboard(shards: Path, tmp_path: Path) -> None:
    pretrain([shards], tmp_path / "run", settings_of(tensorboard=True))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    rows = history(tmp_path / "run")
    told = [event.value for event in events.Scalars("validation_loss")]
    assert told == pytest.approx([row["validation_loss"] for row in rows], rel=1e-5)


def test_one_patient_has_no_negatives(shards: Path, tmp_path: Path) -> None:
    settings = settings_of(task="future")
    drawn = frames_of(settings)
    corpus = open_corpus([Store(shards)], 250, drawn.span, False)
    blocks = [next(drawn.draw(shard, 8, 1)) for shard in corpus.shards[:2]]
    with pytest.raises(EcgpipeError, match="frames of other patients"):
        drawn.complete(blocks[0], 1)
    batch = drawn.complete(concatenate(blocks), 1)
    assert batch.candidates.shape == (len(batch.y), 4)
    with pytest.raises(EcgpipeError, match=r"cannot be split .* at least 2 each"):
        only = tmp_path / "two"
        prepare_patients(only)
        pretrain([only], tmp_path / "run", settings)


def prepare_patients(only: Path) -> None:
    """Shards of two patients."""
    raw = only.parent / "raw-two"
    from ecgpipe.simulator.simulate import simulate

    simulate("icentia11k", raw, patients=2, segments=1, seconds=20)
    prepare("icentia11k", raw, only.parent / "archive-two", 1)
    shard(only.parent / "archive-two", only, 250, workers=1)


def test_a_time_to_go() -> None:
    told = [clock(s) for s in (0.4, 89, 90, 600, 6000, 3600 * 26 + 60 * 5)]
    assert told == ["0 s", "89 s", "2 min", "10 min", "1 h 40 min", "26 h 05 min"]


def test_tasks_are_of_three_kinds() -> None:
    kinds = {name: task.kind for name, task in TASKS.items()}
    assert {name for name, kind in kinds.items() if kind != "records"} == set(BEST)
    assert kinds["future"] == "contrastive"
