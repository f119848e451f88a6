"""What makes training fast on a GPU, held to what it replaces: to the bit, on a CPU."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import PATIENCE, QUICK, start, wait_until
from torch.utils._python_dispatch import TorchDispatchMode

from ecgpipe.config import FinetuneSettings, PretrainSettings, load
from ecgpipe.errors import EcgpipeError, Interrupted
from ecgpipe.models.resnet import ResNet
from ecgpipe.training import loop
from ecgpipe.training.device import WARM_UP, Replay, choose
from ecgpipe.training.finetune import finetune
from ecgpipe.training.history import Meter
from ecgpipe.training.loop import new_network
from ecgpipe.training.pretrain import build_network
from ecgpipe.training.processes import ALONE, Stop
from ecgpipe.training.train_step import Diverged, EpochSums, TrainStep
from ecgpipe.types import Batch

DOWN = {**QUICK, "epochs": 2, "seconds": 2, "repeats": 3}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def downstream(stores: Path) -> Path:
    return stores / "shards/cinc2017"


@pytest.fixture(scope="module")
def one_by_one(downstream: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    finetune(downstream, run, load(FinetuneSettings, **DOWN))
    return run


def some_batches(count: int, items: int, task: str = "beat") -> list[Batch]:
    """Batches of random frames; of future prediction items of 3 frames with 4 candidates."""
    rng, frames = np.random.default_rng(0), 3 if task == "future" else 1
    shape = (items, frames)
    return [
        Batch(
            x=rng.integers(-1000, 1000, (*shape, 96)).astype(np.int16),
            scale=np.full(shape, 1e-3, np.float32),
            offset=rng.normal(size=shape).astype(np.float32),
            length=rng.integers(60, 97, items),
            y=rng.integers(0, 4, items),
            keys=np.array([f"b{number}-{item}" for item in range(items)], object),
            candidates=rng.integers(0, items * frames, (items, 4)) if task == "future" else None,
        )
        for number in range(count)
    ]


def train_step_of(task: str, items: int, replayed: bool, **changes: Any) -> TrainStep:
    given = {"future": {"context": 2, "negatives": 3, "offset": 1}, **changes}
    settings = load(
        PretrainSettings, task=task, device="cpu", precision="fp32", batch=items, **given
    )
    network = new_network(lambda: build_network(settings), 7)
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    one = TrainStep(network, optimiser, settings, choose(settings), ALONE)
    assert one.replay is None  # there is nothing to record on a CPU; what is called stays the same
    if replayed:
        one.replay = Replay(lambda batch: one._compute([batch])[0], one.device)
    return one


def run(one: TrainStep, batches: list[Batch], done: EpochSums = EpochSums()) -> EpochSums:  # noqa: B008
    *_, last = one.updates(batches, done, Meter(torch.device("cpu")), Stop())
    return last


@pytest.mark.parametrize("task", ["beat", "future"])
@pytest.mark.parametrize("clip", [0, 0.5])
def test_replayed_updates_are_those_that_are_launched(task: str, clip: float) -> None:
    batches = some_batches(WARM_UP + 3, 6, task)
    batches += some_batches(1, 4, task)  # the last of an epoch is short
    plain, replayed = (train_step_of(task, 6, flag, clip=clip) for flag in (False, True))
    for _ in range(2):  # epochs: the second begins with what the first recorded
        a, b = run(plain, batches), run(replayed, batches)
        assert (a.loss, a.correct, a.seen) == (b.loss, b.correct, b.seen)
    assert replayed.replay and replayed.replay.static is not None
    assert replayed.replay.done == 2 * (WARM_UP + 3)
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, replayed.network.state_dict()[name]), name
    states = [one.optimiser.state_dict()["state"] for one in (plain, replayed)]
    for place, state in states[0].items():
        assert all(torch.equal(state[name], states[1][place][name]) for name in state)


def test_an_update_that_cannot_be_recorded_is_launched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def record(self: Replay, batch: Batch) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors")

    monkeypatch.setattr(Replay, "_record", record)
    batches = some_batches(WARM_UP + 3, 6)
    plain, replayed = (train_step_of("beat", 6, flag) for flag in (False, True))
    assert run(plain, batches).loss == run(replayed, batches).loss
    (line,) = capsys.readouterr().err.splitlines()
    assert "launched; recording one failed (operation not permitted when stream is" in line
    assert line.endswith("capturing)")


def test_batches_of_other_shapes_are_launched() -> None:
    one = train_step_of("beat", 6, True)
    run(one, some_batches(WARM_UP + 2, 6))
    assert one.replay and one.replay.done == WARM_UP + 2
    longer = some_batches(1, 6)[0]
    run(one, [longer._replace(x=np.zeros((6, 1, 128), np.int16)), *some_batches(1, 4)])
    assert one.replay.done == WARM_UP + 2


def test_a_replayed_batch_that_diverges_is_named() -> None:
    batches = some_batches(WARM_UP + 4, 6)
    broken = batches[WARM_UP + 2]
    broken.scale[3] = np.nan
    with pytest.raises(Diverged, match=r"became nan at the batch of b5-0, b5-1, b5-2") as caught:
        run(train_step_of("beat", 6, True), batches)
    assert caught.value.keys == list(broken.keys)


class Ops(TorchDispatchMode):
    """Counts what PyTorch computes; on a GPU about as many launches."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.names[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("task", ["beat", "future"])
def test_an_update_never_waits_for_the_device(task: str) -> None:
    """No value is asked for: that would end a recording, and make the host wait at every update."""
    one = train_step_of(task, 6, False, clip=0.5)
    (batch,) = some_batches(1, 6, task)
    moved = one.device.move(batch)
    with Ops() as ops:
        one._compute([moved])
    assert ops.names.total() > 200
    waits = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default")
    assert not [name for name in ops.names if any(wait in name for wait in waits)]


def test_a_replay_asks_for_a_copy_of_every_column_and_no_more() -> None:
    called = []

    def update(batch: Batch) -> torch.Tensor:
        called.append(batch)
        return torch.zeros(2)

    one = train_step_of("beat", 6, False)
    replay = Replay(update, one.device)
    batches = [one.device.move(batch) for batch in some_batches(WARM_UP + 3, 6)]
    for batch in batches[: WARM_UP + 1]:
        replay(batch)
    static = called[-1]
    with Ops() as ops:
        replay(batches[-1])
    assert called[-1] is static  # the same tensors, with the new batch in them
    assert torch.equal(static.x, batches[-1].x)
    assert ops.names.pop("aten.zeros.default") == 1
    assert ops.names == {"aten.copy_.default": 5}


def same_repeat(one: Path, other: Path) -> None:
    a, b = (torch.load(path / "model.pt", weights_only=True)["network"] for path in (one, other))
    assert all(torch.equal(a[name], b[name]) for name in {**a, **b})
    assert (one / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()


def test_repeats_side_by_side_are_those_one_by_one(
    downstream: Path, one_by_one: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = start("finetune", downstream, "--out", run, **DOWN, parallel=2)
    said = done.communicate(timeout=PATIENCE)[1]
    assert done.returncode == 0, said
    for number in range(3):
        same_repeat(run / f"repeat-{number:02d}", one_by_one / f"repeat-{number:02d}")
    for name in ("split.json", "examples.npz", "misjudged.npz"):
        assert (run / name).read_bytes() == (one_by_one / name).read_bytes()
    # How a run is computed is no part of what it is: the same run, one by one, is finished.
    finetune(downstream, run, load(FinetuneSettings, **DOWN))


def test_repeats_side_by_side_save_when_they_are_asked_to_end(
    downstream: Path, one_by_one: Path, tmp_path: Path
) -> None:
    run, settings = tmp_path / "run", DOWN | {"epochs": 2}
    folders = [run / f"repeat-{number:02d}" for number in range(3)]
    process = start("finetune", downstream, "--out", run, **settings, parallel=2)
    wait_until(lambda: any((folder / "last.pt").exists() for folder in folders), process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130, said
    assert "interrupted, saved behind the last update of each repeat" in said
    finetune(downstream, run, load(FinetuneSettings, **DOWN))
    for number, folder in enumerate(folders):
        same_repeat(folder, one_by_one / f"repeat-{number:02d}")


def test_a_repeat_that_fails_ends_those_beside_it(downstream: Path, tmp_path: Path) -> None:
    settings = DOWN | {"parallel": 2, "epochs": 200}
    process = start("finetune", downstream, "--out", tmp_path, **settings, **{"optimiser.lr": 1e30})
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 2, said
    assert "the training loss became nan at the batch of A0" in said


def test_a_training_process_that_dies_is_told(downstream: Path, tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom functools import partial\nfrom ecgpipe.training.processes import *\n"
        "from ecgpipe.errors import EcgpipeError\n"
        "def die(): os.kill(os.getpid(), 9)\n"
        "if __name__ == '__main__':\n"
        "    try: in_processes(die, [0, 1], 2)\n"
        "    except EcgpipeError as error: print(error)\n"
    )
    file = tmp_path / "dies.py"
    file.write_text(script)
    done = subprocess.run([sys.executable, file], capture_output=True, text=True)
    assert "setting parallel: a training process ended with exit code -9" in done.stdout


def test_checkpoints_are_as_rare_as_the_time_they_take(
    downstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two of them, a training ends the same; its model is one of its history."""
    settings = load(FinetuneSettings, **DOWN | {"epochs": 5, "repeats": 1})
    whole = tmp_path / "whole"
    finetune(downstream, whole, settings)
    written: list[str] = []
    save, line = loop.save, loop.line

    def counted(path: Path, tree: Any) -> None:
        written.append(path.name)
        save(path, tree)

    def killed(title: str, epochs: int, best: str, row: dict[str, float]) -> str:
        if row["epoch"] == 4:
            raise RuntimeError("killed")
        return line(title, epochs, best, row)

    monkeypatch.setattr(loop, "SAVING", 1e-12)  # after the first checkpoint none is due
    monkeypatch.setattr(loop, "save", counted)
    monkeypatch.setattr(loop, "line", killed)
    run = tmp_path / "run"
    with pytest.raises(RuntimeError, match="killed"):
        finetune(downstream, run, settings)
    assert written == ["model.pt", "last.pt"]
    last = torch.load(run / "repeat-00/last.pt", weights_only=True)
    model = torch.load(run / "repeat-00/model.pt", weights_only=True)
    assert [row["epoch"] for row in last["history"]] == [model["epoch"]] == [1]
    monkeypatch.setattr(loop, "line", line)
    written.clear()
    finetune(downstream, run, settings)
    same_repeat(run / "repeat-00", whole / "repeat-00")
    histories = [
        [(row["epoch"], row["train_loss"]) for row in csv.DictReader(text.splitlines())]
        for text in ((at / "repeat-00/history.csv").read_text() for at in (run, whole))
    ]
    assert histories[0] == histories[1] and len(histories[0]) == 5


def test_an_interrupted_training_is_saved_at_once(
    downstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(FinetuneSettings, **DOWN | {"repeats": 1, "epochs": 4})
    line = loop.line

    def asked(title: str, epochs: int, best: str, row: dict[str, float]) -> str:
        if row["epoch"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return line(title, epochs, best, row)

    monkeypatch.setattr(loop, "SAVING", 1e-12)
    monkeypatch.setattr(loop, "line", asked)
    with pytest.raises(Interrupted, match="saved after epoch 3"):
        finetune(downstream, tmp_path, settings)
    last = torch.load(tmp_path / "repeat-00/last.pt", weights_only=True)
    assert len(last["history"]) == 3


def test_a_device_decides_where_a_set_lies(downstream: Path, tmp_path: Path) -> None:
    from ecgpipe.training.finetune import open_trainer

    for resident in ("auto", "yes", "no"):
        trainer = open_trainer(
            downstream, tmp_path, load(FinetuneSettings, **DOWN, resident=resident)
        )
        assert trainer.padded.x.device.type == "cpu"
        assert trainer.padded.x.shape == (len(trainer.recordings.records), 1, 500)
    with pytest.raises(
        EcgpipeError, match="setting resident: Input should be 'auto', 'yes' or 'no'"
    ):
        load(FinetuneSettings, resident="maybe")


def test_networks_are_trained_where_they_are() -> None:
    """A replay holds addresses: nothing may give a parameter or a running statistic new memory."""
    one = train_step_of("beat", 6, True)
    assert isinstance(one.network, ResNet)
    before = {name: value.data_ptr() for name, value in one.network.state_dict().items()}
    run(one, some_batches(WARM_UP + 2, 6))
    state = {name: value.clone() for name, value in one.network.state_dict().items()}
    one.network.load_state_dict(state)
    assert {n: v.data_ptr() for n, v in one.network.state_dict().items()} == before
