"""Plans: what needs what, what is shared, what the paper's tables come to, and what it costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ecgpipe.config import FinetuneSettings, PretrainSettings, load
from ecgpipe.errors import EcgpipeError
from ecgpipe.experiments.cost import cost, script
from ecgpipe.experiments.plan import Step, plan
from ecgpipe.experiments.presets import BEST, PRESETS, Row, pretraining
from ecgpipe.models.resnet import ResNet

SETS = ("icentia11k", "mitdb", "cinc2017", "ptbxl", "icbeb2018")


def folders(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).mkdir(parents=True)
    return path


def assignments(step: Step) -> list[str]:
    return [value for flag, value in pairwise(step.command) if flag == "--set"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return folders(tmp_path / "data", *SETS)


def test_demo_goes_from_nothing_to_a_report() -> None:
    steps = plan("demo", Path("demo"))
    assert [step.name for step in steps] == [
        *("simulate/icentia11k", "prepare/icentia11k", "simulate/cinc2017", "prepare/cinc2017"),
        *("shard/icentia11k", "shard/cinc2017", "pretrain/beat-2048"),
        *("finetune/random", "finetune/beat-2048", "report"),
    ]
    assert steps[1].command == (
        *("prepare", "icentia11k", "demo/raw/icentia11k", "demo/archive/icentia11k"),
    )
    assert steps[-1].output == Path("demo/report.html")
    assert str(steps[0]) == "ecgpipe simulate icentia11k demo/raw/icentia11k"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_step_follows_what_it_needs_and_reads_only_what_was_made(
    preset: str, data: Path, tmp_path: Path
) -> None:
    given = None if PRESETS[preset].simulated else data
    made: dict[str, Path] = {}
    for step in plan(preset, tmp_path / "out", given):
        assert set(step.needs) <= set(made)
        needed = {made[name] for name in step.needs}
        paths = {Path(word) for word in step.command if word.startswith(str(tmp_path))}
        assert {path for path in paths - {step.output} if data not in path.parents} == needed
        assert step.output in paths
        assert step.name not in made and step.output not in made.values()
        made[step.name] = step.output


@pytest.mark.parametrize("preset", PRESETS)
def test_the_settings_of_the_presets_exist(preset: str, data: Path) -> None:
    for step in plan(preset, Path("out"), None if PRESETS[preset].simulated else data):
        if step.stage == "pretrain":
            name = step.command[step.command.index("--preset") + 1]
            load(PretrainSettings, assignments=assignments(step), preset=pretraining(name, None))
        elif step.stage == "finetune":
            load(FinetuneSettings, assignments=assignments(step))


def test_the_paper_has_every_row_of_its_tables_once(data: Path) -> None:
    rows = PRESETS["paper"].rows
    counted = {name: len(PRESETS[name].rows) for name in PRESETS if name.startswith("table")}
    assert counted == {"table1": 14, "table2": 15, "table3": 15, "table4": 15, "table5": 10}
    # Tables 2, 3 and 4 each have one column of Table 1's best rows.
    assert len(rows) == len(set(rows)) == 14 + 10 + 10 + 10 + 10
    assert set(rows) == {row for name in counted for row in PRESETS[name].rows}
    assert set(PRESETS["figure3"].rows) == {Row(start) for start in ("random", *BEST.values())}
    steps = plan("paper", Path("out"), data)
    assert Counter(step.stage for step in steps) == {
        **{"prepare": 4, "shard": 6, "pretrain": 13 + 4 + 4, "finetune": 54, "report": 1},
    }
    # A network is pretrained once, whatever is finetuned from it.
    from_beat = [step.name for step in steps if "pretrain/beat-2048" in step.needs]
    assert from_beat == [
        "finetune/beat-2048",
        *(f"finetune/beat-2048-{what}" for what in ("train25", "train50", "128Hz", "300Hz")),
        "report",
    ]
    future = next(step for step in steps if step.name == "pretrain/future-16-8-8-resnet50")
    assert {"network.depth=50", "network.stages=3"} <= set(assignments(future))


def test_paper_rows_follow_the_protocol(data: Path) -> None:
    steps = {step.name: step for step in plan("paper", Path("out"), data)}
    settings = load(FinetuneSettings, assignments=assignments(steps["finetune/random"]))
    assert (settings.repeats, settings.epochs, settings.patience) == (10, 200, 50)
    assert (settings.train_share, settings.statistics) == (None, "all")
    quarter = assignments(steps["finetune/random-train25-".removesuffix("-")])
    assert "train_share=0.25" in quarter
    assert "seconds=10" in assignments(steps["finetune/random-ptbxl-resnet34"])
    assert "shards/cinc2017-128Hz" in str(steps["finetune/random-128Hz"])
    for name in ("beat-2048", "future-16-8-8", "future-8-4-2"):
        frames = cost(steps[f"pretrain/{name}"]).frames
        assert frames == pytest.approx(42.8e6, rel=0.03)


def test_only_some_rows(data: Path) -> None:
    steps = plan("table2", Path("out"), data, only="random*")
    assert [step.name for step in steps] == [
        *("prepare/cinc2017", "shard/cinc2017", "finetune/random-train25"),
        *("finetune/random-train50", "finetune/random", "report"),
    ]
    with pytest.raises(EcgpipeError, match=r"--only bear\*: matches none of random, beat-512, "):
        plan("table1", Path("out"), data, only="bear*")


@pytest.mark.parametrize("present", [("icentia11k",), ("mitdb",), ("icentia11k", "mitdb")])
def test_real_takes_the_upstream_sets_that_are_there(
    present: tuple[str, ...], tmp_path: Path
) -> None:
    folders(tmp_path, "cinc2017", *present)
    steps = {step.name: step for step in plan("real", Path("out"), tmp_path)}
    assert steps["pretrain/beat-2048"].needs == tuple(f"shard/{name}" for name in present)
    assert not any(step.stage == "simulate" for step in steps.values())
    assert str(tmp_path / "cinc2017") in steps["prepare/cinc2017"].command


@pytest.mark.parametrize(
    ("preset", "present", "message"),
    [
        ("table6", None, r"preset table6: .* take one of table1, table2, "),
        ("demo", (), r"leave it out"),
        ("real", None, r"--data"),
        ("real", ("icentia11k",), r"/cinc2017: no such folder"),
        ("real", ("cinc2017",), r"/icentia11k nor .*/mitdb: no such folder; .*--only 'random\*'"),
        ("table5", ("icentia11k", "icbeb2018"), r"/ptbxl: no such folder; preset table5 needs it"),
    ],
)
def test_mistakes_say_what_is_wrong(
    preset: str, present: tuple[str, ...] | None, message: str, tmp_path: Path
) -> None:
    given = None if present is None else folders(tmp_path, *present)
    with pytest.raises(EcgpipeError, match=message):
        plan(preset, Path("out"), given)


def _of_layers(network: ResNet, x: torch.Tensor) -> float:
    """Multiply-adds of every convolution and of the head, by hooks on a real pass."""
    counted: list[float] = []
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(
                lambda conv, _, out: counted.append(2 * out.numel() * conv.weight[0].numel())
            )
    network(x)
    return sum(counted) + 2 * network.width * 2


def test_costs_are_those_of_the_layers(data: Path) -> None:
    steps = {step.name: step for step in plan("table1", Path("out"), data)}
    beat = cost(steps["pretrain/beat-2048"])
    forward = _of_layers(ResNet(2, 1), torch.zeros(1, 1, 2048))
    assert beat.flops == pytest.approx(3 * beat.frames * forward, rel=1e-6)
    random = cost(steps["finetune/random"])
    assert random.trainings == 10
    # 75, 5 and 20 % of 8,528; every epoch validates, and the epoch kept answers once more.
    assert random.recordings == 10 * (200 * (6396 + 426) + 426 + 1706)
    assert random.hours(10) == pytest.approx(10 * random.hours(100))


def test_what_a_finetuning_reads_follows_its_split(data: Path) -> None:
    steps = {step.name: step for step in plan("table5", Path("out"), data)}
    forward = _of_layers(ResNet(2, 12, depth=34), torch.zeros(1, 12, 2500))
    # PTB-XL by its folds, a tenth each; of many labels the training records answer as well.
    fold, train = 2107, 16853
    read = 200 * (train + fold) + train + 2 * fold
    ptbxl = cost(steps["finetune/random-ptbxl-resnet34"])
    assert ptbxl.recordings == 10 * read
    assert ptbxl.flops == pytest.approx(10 * forward * (read + 2 * 200 * train), rel=1e-6)
    icbeb = cost(steps["finetune/random-icbeb2018-resnet34"])
    assert icbeb.recordings == 10 * (200 * (5158 + 344) + 5158 + 344 + 1375)
    drawn = replace(steps["finetune/random-ptbxl-resnet34"],
                    command=("--set", "official_folds=false", "--set", "seconds=10"))  # fmt: skip
    assert cost(drawn).recordings == 10 * (200 * (15800 + 1053) + 15800 + 1053 + 4213)


def test_a_plan_is_printed_as_a_script_with_costs(data: Path) -> None:
    steps = plan("table2", Path("out"), data)
    lines = list(script(steps, PRESETS["table2"].records, 50))
    assert [line.partition("  #")[0] for line in lines[: len(steps)]] == [str(s) for s in steps]
    assert lines[-2] == (
        "# 2 archives, 2 sets of shards, 4 pretrainings, 15 finetunings (150 trainings)"
    )
    assert "million frames" in lines[-1] and "not a measurement" in lines[-1]
    small = list(script(plan("smoke", Path("out")), PRESETS["smoke"].records, 50))
    assert "(8 trainings)" in small[-2]
