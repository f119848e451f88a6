"""The flows: their parameters, the plan of an experiment, and flows as commands."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from flows import artifacts, common  # before Prefect: they settle its defaults

from prefect.artifacts import Artifact  # isort: skip
from prefect.client.orchestration import get_client  # isort: skip
from prefect.exceptions import ParameterTypeError  # isort: skip
from prefect.flow_engine import run_flow  # isort: skip
from prefect.settings import PREFECT_API_URL  # isort: skip


from ecgpipe.config import FinetuneSettings, PretrainSettings, load
from ecgpipe.datasets import DATASETS
from ecgpipe.experiments.presets import PRESETS, PRETRAININGS
from ecgpipe.experiments.processes import gpu_capacity
from ecgpipe.simulator.simulate import simulate
from ecgpipe.storage.store import open_store
from flows.finetune import finetune
from flows.prepare import DataSet, prepare
from flows.pretrain import Pretraining, pretrain
from flows.reproduce import Experiment, reproduce
from flows.shard import shard

ROOT = Path(__file__).parent.parent


def test_settings_that_are_given_become_options():
    assert list(common.assignments(PretrainSettings())) == []
    typed = ["epochs=3", "frame=2048", "optimiser.lr=3e-4"]  # a frame of 2048 is the default
    given = load(PretrainSettings, assignments=typed)
    options = list(common.assignments(given))
    assert options[::2] == ["--set"] * 3
    assert sorted(options[1::2]) == ["epochs=3", "frame=2048", "optimiser.lr=0.0003"]
    assert load(PretrainSettings, assignments=options[1::2]) == given
    share = load(FinetuneSettings, assignments=["train_share=none"])
    assert list(common.assignments(share)) == ["--set", "train_share=None"]
    assert load(FinetuneSettings, assignments=["train_share=None"]) == share


def test_reproduce_runs_the_plan_and_names_the_report(server, stand_in, tmp_path):
    stand_in(f'echo "$3" >> {tmp_path}/ran; test "$3" != prepare || exit 3')
    state = reproduce("demo", tmp_path / "out", return_state=True)
    ran = (tmp_path / "ran").read_text().split()
    assert ran[:5] == [*("simulate", "prepare") * 2, "shard"]
    assert sorted(ran[5:7]) == ["pretrain", "shard"]  # which do not need each other
    assert ran[7:] == ["finetune", "finetune", "report"]
    assert state.is_completed(), state.message
    assert state.message == (
        f"the report is {tmp_path}/out/report.html; "
        "records were refused by prepare/icentia11k, prepare/cinc2017"
    )


def test_a_failure_stops_what_needs_the_failed_step(server, stand_in, tmp_path):
    stand_in(f'echo "$3" >> {tmp_path}/ran; test "$3" != pretrain || exit 1')
    state = reproduce("smoke", tmp_path / "out", only="*train25", jobs=2, return_state=True)
    ran = (tmp_path / "ran").read_text().split()
    # The one that needs both is not among them.
    assert sorted(ran[-3:]) == ["finetune", "pretrain", "shard"]
    assert ran[:-3] == [*("simulate", "prepare") * 2, "shard"]
    assert state.is_failed()
    assert state.message.startswith("step pretrain/beat-512: ecgpipe pretrain")
    assert "finetune" not in state.message


def test_a_failed_experiment_says_whether_the_network_is_away(
    server, stand_in, tmp_path, monkeypatch
):
    monkeypatch.setattr(common, "step", common.step.with_options(retry_delay_seconds=0))
    stand_in("echo 'ecgpipe: s3://x: could not be read'; exit 6")
    state = reproduce("smoke", tmp_path / "out", only="random*", return_state=True)
    assert state.is_failed() and state.name == "Unreachable"
    assert common.CODES[state.name] == 6
    assert "s3://x: could not be read" in state.message


def test_trainings_of_an_experiment_are_dealt_to_the_gpus(server, stand_in, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    gpu_capacity.cache_clear()
    stand_in(
        'if test "$1" = -c; then echo 79000000000; echo 78000000000; exit; fi;'  # free, of two GPUs
        f'echo "$3 ${{CUDA_VISIBLE_DEVICES-all}}" >> {tmp_path}/ran;'
        'test "$3" = finetune || exit 0;'
        f"while test $(grep -c finetune {tmp_path}/ran) -lt 2; do sleep 0.05; done"
    )
    try:
        out = tmp_path / "dealt"
        assert reproduce("smoke", out, only="random*", jobs=2, return_state=True).is_completed()
    finally:
        gpu_capacity.cache_clear()
    ran = (tmp_path / "ran").read_text().splitlines()
    assert sorted(ran[-3:-1]) == ["finetune 0", "finetune 1"]
    assert all(line.endswith(" all") for line in (*ran[:-3], ran[-1]))


def test_the_choices_of_the_flows_are_those_of_the_commands():
    assert get_args(Experiment) == tuple(PRESETS)
    assert get_args(Pretraining) == tuple(PRETRAININGS)
    assert get_args(DataSet) == tuple(DATASETS)


def test_settings_stand_over_the_preset(server, stand_in, tmp_path):
    stand_in(f'echo "$@" > {tmp_path}/said')
    settings = PretrainSettings(epochs=3)
    pretrain([Path("a"), Path("b")], Path("out"), "future-16-8-8", settings, return_state=True)
    said = (tmp_path / "said").read_text().split()
    assert " ".join(said[3:]) == "a b --out out --preset future-16-8-8 --set epochs=3"


def test_a_setting_that_equals_its_default_stands_over_the_preset(server, stand_in, tmp_path):
    stand_in(f'echo "$@" > {tmp_path}/said')
    settings = load(PretrainSettings, assignments=["frame=2048"])
    pretrain(["a"], "out", "beat-512", settings, return_state=True)
    said = (tmp_path / "said").read_text().split()
    assert " ".join(said[3:]) == "a --out out --preset beat-512 --set frame=2048"


def sent_by_the_form(settings):
    """Everything, as both of the server's pages send it."""
    return PretrainSettings(**settings).model_dump(mode="json")


@pytest.mark.parametrize(
    ("sent", "options"),
    [
        ({}, ""),
        ({"frame": 2048, "epochs": 3}, " --set epochs=3 --set frame=2048"),
        (sent_by_the_form({}), ""),
        (sent_by_the_form({"epochs": 3}), " --set epochs=3"),
        (sent_by_the_form({"network": {"depth": 34}}), " --set network.depth=34"),
    ],
)
def test_a_form_left_at_its_defaults_leaves_the_preset_alone(
    server, stand_in, tmp_path, sent, options
):
    stand_in(f'echo "$@" > {tmp_path}/said')
    with get_client(sync_client=True) as client:
        name = f"test-{tmp_path.name}"
        deployment = client.create_deployment(client.create_flow(pretrain), name)
        given = {"shards": ["a"], "out": "out", "preset": "beat-512", "settings": sent}
        flow_run = client.create_flow_run_from_deployment(deployment, parameters=given)
    state = run_flow(pretrain, flow_run, return_type="state")
    assert state.is_completed(), state.message
    _, _, _, *said = (tmp_path / "said").read_text().split()
    words = " ".join(said).partition("a --out out --preset beat-512")[2]
    assert sorted(words.split()) == sorted(options.split())


WRONG = [
    (pretrain, {"shards": ["a"], "out": "b", "settings": {"epochs": 0}}, "epochs"),
    (pretrain, {"shards": [], "out": "b"}, "shards"),
    (pretrain, {"shards": ["a"], "out": "b", "preset": "beat-1024"}, "preset"),
    (finetune, {"shards": "a", "out": "b", "settings": {"epoch": 3}}, "epoch"),
    (prepare, {"dataset": "mitbih", "source": "a", "archive": "b"}, "dataset"),
    (prepare, {"dataset": "mitdb", "source": "a", "archive": "b", "patients": "a-b"}, "patients"),
    (shard, {"archive": "a", "shards": "b", "statements": "rythm"}, "statements"),
    (reproduce, {"jobs": 0}, "jobs"),
]


@pytest.mark.parametrize(("flow", "parameters", "message"), WRONG)
def test_a_wrong_value_is_refused_before_a_run_exists(flow, parameters, message):
    with pytest.raises(ParameterTypeError, match=message):
        flow.validate_parameters(parameters)


def test_the_patients_that_the_form_takes_are_those_of_the_command():
    for text in ("7", "0-999", "7,12,20-29", "7, 12"):
        prepare.validate_parameters(
            {"dataset": "mitdb", "source": "a", "archive": "b", "patients": text}
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("reproduce", "--preset", "real", "--data", "nowhere"),
            "nowhere/cinc2017: no such folder",
        ),
        (("reproduce", "--preset", "paper"), "name the folder of the recordings with --data"),
        (("reproduce", "--preset", "table9"), "preset"),
        (("pretrain", "--shards", "a", "--out", "b", "--set", "epoch=3"), "unknown setting epoch"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_without_a_stack_trace(options, message):
    name, *rest = options
    call = subprocess.run(
        [sys.executable, "-m", f"flows.{name}", *rest], cwd=ROOT, capture_output=True, text=True
    )
    assert call.returncode == 2
    assert message in call.stderr
    assert "Traceback" not in call.stderr and "temporary server" not in call.stderr


def test_a_server_that_does_not_answer_is_told_in_a_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
        call = subprocess.run(
            [sys.executable, "-m", "flows.report", "--runs", "a"],
            cwd=ROOT,
            env={**os.environ, "PREFECT_API_URL": url},
            capture_output=True,
            text=True,
        )
    assert call.returncode == 2
    assert re.fullmatch(
        rf"PREFECT_API_URL {url}: no server answers \(.*refused\); start it, "
        r"or unset the variable to run without one\n",
        call.stderr,
    )


def test_the_flow_prepares_an_archive_and_shows_its_counts_and_what_it_refused(server, tmp_path):
    simulate("cinc2017", tmp_path / "raw", records=6)
    os.truncate(tmp_path / "raw" / "A00002.mat", 100)
    out = tmp_path / "counts" / "archive"
    state = prepare("cinc2017", str(tmp_path / "raw"), out, return_state=True)
    assert state.is_completed() and state.name == "SomeRefused", state.message
    assert open_store(out).manifest.totals.records == 5
    page = Artifact.get(artifacts.key_of(str(out)))
    assert page is not None and "| records | 5 |\n| refused | 1 |" in page.data
    refused = Artifact.get(f"{artifacts.key_of(str(out))}-refused")
    assert refused is not None
    (row,) = json.loads(refused.data)
    assert row["key"] == "A00002" and row["reason"]


def test_a_flow_is_a_command_too(server, tmp_path):
    settings = {"PREFECT_API_URL": PREFECT_API_URL.value(), "PREFECT_HOME": str(tmp_path / "home")}
    call = subprocess.run(
        [sys.executable, "-m", "flows.report", "--runs", "none", "other", "--out", "x.html"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )
    assert call.returncode == 2, call.stderr
    last = call.stderr.splitlines()[-1]
    assert last.startswith("ecgpipe report none other --out x.html: ")
    assert "none: no run folder" in last
    assert "Traceback" not in call.stderr
