from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import get_args
from xml.etree import ElementTree

import pytest

from flows import artifacts, common, process  # before Prefect: they settle its defaults

from prefect.artifacts import Artifact  # isort: skip
from prefect.client.orchestration import get_client  # isort: skip
from prefect.exceptions import ParameterTypeError  # isort: skip
from prefect.flow_engine import run_flow  # isort: skip
from prefect.settings import PREFECT_API_URL  # isort: skip
from prefect.testing.utilities import prefect_test_harness  # isort: skip

from run_folders import finetune as finetuned

from ecgpipe.config import FinetuneSettings, PretrainSettings, load
from ecgpipe.evaluation.wording import summary
from ecgpipe.experiments.execute import rooms
from ecgpipe.experiments.presets import PRESETS, PRETRAININGS
from ecgpipe.sources import SOURCES
from ecgpipe.sources.simulate import simulate
from ecgpipe.storage.store import open_store
from flows.finetune import finetune
from flows.prepare import DataSet, prepare
from flows.pretrain import Pretraining, pretrain
from flows.reproduce import Experiment, reproduce
from flows.shard import shard
from flows.story import story

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def server() -> Iterator[None]:
    """Give the flows a server and a database of their own."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a shell script in the place of ``python -m ecgpipe``, to choose how a step ends."""

    def make(script: str) -> None:
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))

    return make


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that ended and that nobody waited for does not."""
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip() not in ("", "Z")


def test_lines_of_a_step_go_into_the_log_as_they_come(stand_in):
    stand_in('echo "$@"; echo warning >&2; echo; echo done; exit 3')
    lines: list[str] = []
    assert process.execute(("verify", "a store"), lines.append) == (3, "done")
    assert lines == ["-m ecgpipe verify a store", "warning", "done"]


def test_what_stops_a_flow_ends_the_step_and_its_workers(stand_in):
    stand_in("sleep 300 & echo $$ $!; wait")
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.extend(map(int, line.split()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.execute((), stop)
    assert len(pids) == 2
    assert not any(map(alive, pids))


def test_a_step_that_does_not_end_is_killed(stand_in, monkeypatch):
    monkeypatch.setattr(process, "GRACE", 0.5)
    stand_in("trap '' TERM; echo $$; while :; do sleep 0.1; done")
    pids: list[int] = []

    def stop(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.execute((), stop)
    deadline = time.monotonic() + 10
    while alive(pids[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pids[0])


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


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("exit 0", "Completed", "/archive"),
        ("exit 3", "SomeRefused", "/archive, but some records were refused"),
        (
            "echo 'raw: no such folder; name it' >&2; exit 2",
            "Failed",
            "raw: no such folder; name it",
        ),
        ("echo 'ecgpipe: a.json: damaged'; exit 4", "Failed", ": a.json: damaged"),
        ("echo 'ecgpipe: a: taken'; exit 5", "Busy", ": a: taken"),
        ("exit 1", "Failed", "exit code 1"),
    ],
)
def test_a_step_ends_in_a_state_that_says_why(server, stand_in, tmp_path, script, kind, message):
    stand_in(script)
    state = prepare("cinc2017", str(tmp_path / "raw"), tmp_path / "archive", return_state=True)
    assert state.name == kind
    assert message in state.message
    assert "\n" not in state.message


@pytest.mark.parametrize(
    ("end", "state", "tries"),
    [
        ("kill -9 $$", "Killed", 2),
        ("exit 130", "Killed", 2),
        ("echo 'ecgpipe: s3://x: not to be had'; exit 6", "Unreachable", common.TRIES),
        ("echo 'ecgpipe: the folder is taken'; exit 5", "Busy", 1),
        ("exit 2", "Failed", 1),
        ("exit 1", "Failed", 1),
    ],
)
def test_only_where_it_can_help_a_step_is_tried_again(
    server, stand_in, tmp_path, monkeypatch, end, state, tries
):
    monkeypatch.setattr(common, "step", common.step.with_options(retry_delay_seconds=0))
    stand_in(f"echo >> {tmp_path}/tried; {end}")
    ended = shard(tmp_path / "archive", tmp_path / "shards", return_state=True)
    assert ended.name == state
    assert len((tmp_path / "tried").read_text()) == tries


def test_the_network_comes_back(server, stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "step", common.step.with_options(retry_delay_seconds=0))
    stand_in(f"test -e {tmp_path}/tried && exit 0; touch {tmp_path}/tried; exit 6")
    source = "https://example.org/mitdb"
    assert prepare("mitdb", source, tmp_path / "archive", return_state=True).is_completed()


def test_retries_wait_ever_longer():
    delays = common.step.retry_delay_seconds
    assert delays == [10, 20, 40, 80, 160] and sum(delays) >= 300
    assert len(delays) == common.step.retries == common.TRIES - 1
    assert common.step.retry_jitter_factor


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("prepare mitdb: 3/12 parts  p00100", 3 / 12),
        ("shard cinc2017: 18/18 parts  p0", 1.0),
        ("pretrain beat epoch 3/20: 250/1000 updates  loss 0.412, 9 left", (2 + 0.25) / 20),
        ("pretrain heart_rate: epoch 3/20  loss 0.4  accuracy 0.8", 3 / 20),
        ("finetune beat 2/10 epoch 3/200: 12/90 updates  loss .3", (1 + (2 + 12 / 90) / 200) / 10),
        ("finetune random 10/10: epoch 200/200  loss 0.1", 1.0),
        ("prepare mitdb: 3 of 12 parts were there already", None),
        ("prepare mitdb: 0/0 parts", None),
        ("ecgpipe: runs/1/2: no such folder", None),
        ("refused A00001: 3/4 of it is missing", None),
        ("runs/finetune/1/2: finished already", None),
    ],
)
def test_a_line_says_how_much_of_a_step_is_done(line, part):
    assert artifacts.share(line) == (part if part is None else pytest.approx(part))


def test_artifacts_are_named_after_what_a_step_makes():
    assert artifacts.name_of("data/archive/mitdb") == "data-archive-mitdb"
    assert artifacts.name_of("/srv/ecg/Demo/runs/beat_2048 (1)") == "demo-runs-beat-2048-1"
    assert artifacts.name_of("demo/report.html") == "demo-report-html"
    assert artifacts.name_of("s3://bucket/ecg/archive/mitdb/") == "ecg-archive-mitdb"


def shown(key: str) -> list[tuple[str, str]]:
    """Data and description of all artifacts of a key."""
    with get_client(sync_client=True) as client:
        found = [artifact for artifact in client.read_artifacts() if artifact.key == key]
    return [(artifact.data, artifact.description) for artifact in found]


def test_progress_and_page_are_made_once_and_kept_up_to_date(
    server, stand_in, tmp_path, monkeypatch
):
    monkeypatch.setattr(artifacts, "EVERY", 0)
    monkeypatch.setattr(artifacts, "REDRAWN", 0)
    seen: list[tuple[str, str]] = []
    keep = artifacts.StepArtifacts.hear

    def hear(self, line):
        keep(self, line)
        seen.extend(shown(self.progress.key))

    monkeypatch.setattr(artifacts.StepArtifacts, "hear", hear)
    stand_in("for i in 1 2 3 4; do echo prepare mitdb: $i/4 parts  p$i; done; echo 48 records")
    out = tmp_path / "progress" / "mitdb"
    assert prepare("mitdb", "raw", out, return_state=True).is_completed()
    assert [float(data) for data, _ in seen] == [25, 50, 75, 100, 100]
    assert seen[0][1] == "prepare mitdb: 1/4 parts p1"
    key = artifacts.name_of(str(out))
    ((data, about),) = shown(f"{key}-progress")
    assert (float(data), about) == (100, "done")
    ((page, about),) = shown(key)
    assert about == "Completed: 48 records"
    assert "ecgpipe prepare mitdb raw" in page


def test_no_page_is_worth_the_end_of_a_step(server, stand_in, tmp_path, monkeypatch):
    def away(**kwargs):
        raise OSError("the server is away")

    monkeypatch.setattr(artifacts, "KINDS", dict.fromkeys(artifacts.KINDS, away))
    stand_in("echo prepare mitdb: 1/4 parts; exit 0")
    assert prepare("mitdb", "raw", tmp_path / "archive", return_state=True).is_completed()


def test_a_page_that_cannot_be_drawn_ends_no_step(server, stand_in, tmp_path):
    out = tmp_path / "undrawn" / "mitdb"
    stand_in(
        f"mkdir -p {out}; echo '[]' > {out}/manifest.json;"  # of a kind that no page is ready for
        "echo prepare mitdb: 1/4 parts; sleep 1; echo 48 records"
    )
    state = prepare("mitdb", "raw", out, return_state=True)
    assert state.is_completed() and state.message == "48 records"
    ((data, _),) = shown(f"{artifacts.name_of(str(out))}-progress")
    assert float(data) == 100
    with pytest.raises(TypeError):
        story("ecgpipe prepare", out)


def test_the_page_of_a_training_shows_its_curves_and_its_result(tmp_path):
    finetuned(tmp_path / "run", repeats=2, epochs=200, finished=(0, 1))
    columns = (
        "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,"
        "validation_macro_f1,items_per_second,waited,seconds\n"
    )
    for number in range(2):
        rows = [f"{n},{1 / n},{1 - 1 / n},{2 / n},.5,.{n}25,9,0,{n}\n" for n in range(1, 6)]
        (tmp_path / "run" / f"repeat-{number:02d}" / "history.csv").write_text(
            columns + "".join(rows)
        )
    page = story("ecgpipe finetune", tmp_path / "run")
    assert summary(tmp_path / "run").partition(": ")[2].replace("~", r"\~") in page
    assert "| 2 | 5 of 200 | 0.200 | 0.400 | 0.800 | 0.525 | 3 |" in page
    assert f"- `{tmp_path}/run/run.json`" in page
    images = re.findall(r"!\[curves\]\(data:image/svg\+xml;base64,([\w+/=]+)\)", page)
    for image, words in zip(images, (("loss", "validation"), ("macro F1",)), strict=True):
        text = base64.b64decode(image).decode()
        svg = ElementTree.fromstring(text)
        assert svg.tag == "{http://www.w3.org/2000/svg}svg" and svg.get("width") == "422.4"
        text = " ".join(svg.itertext())
        assert (
            all(word in text for word in words) and "var(" not in base64.b64decode(image).decode()
        )


def test_a_page_is_written_of_a_folder_in_the_making(tmp_path):
    assert story("ecgpipe prepare", tmp_path / "none").count("\n- `") == 1
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "manifest.json").write_text('{"totals": {')
    assert "ecgpipe finetune" in story("ecgpipe finetune", tmp_path)


def test_reproduce_runs_the_plan_and_names_the_report(server, stand_in, tmp_path):
    stand_in(f'echo "$3" >> {tmp_path}/ran; test "$3" != prepare || exit 3')
    state = reproduce("demo", tmp_path / "out", return_state=True)
    ran = (tmp_path / "ran").read_text().split()
    assert ran == [
        *("simulate", "prepare") * 2,
        *("shard", "shard", "pretrain", "finetune", "finetune", "report"),
    ]
    assert state.is_completed(), state.message
    assert state.message == (
        f"the report is {tmp_path}/out/report.html; "
        "records were refused by prepare/icentia11k, prepare/cinc2017"
    )


def test_a_failure_stops_what_needs_the_failed_step(server, stand_in, tmp_path):
    stand_in(f'echo "$3" >> {tmp_path}/ran; test "$3" != pretrain || exit 1')
    state = reproduce("smoke", tmp_path / "out", only="*train25", jobs=2, return_state=True)
    ran = (tmp_path / "ran").read_text().split()
    assert sorted(ran[-2:]) == ["finetune", "pretrain"]  # at once, but not the one that needs both
    assert ran[:-2] == [*("simulate", "prepare") * 2, "shard", "shard"]
    assert state.is_failed()
    assert state.message.startswith("step pretrain/beat-512: ecgpipe pretrain")
    assert "finetune" not in state.message


def test_what_ends_a_flow_ends_steps_in_other_threads(stand_in):
    stand_in("echo started; exec sleep 300")
    lines: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(process.execute, (), lines.append) for _ in range(2)]
        while len(lines) < 2:
            time.sleep(0.05)
        process.end_steps()
        assert [run.result(30)[0] for run in runs] == [-signal.SIGTERM] * 2
    assert process.execute((), lines.append) == (130, "")  # not even a retry begins
    process.begin_steps()
    stand_in("exit 0")
    assert process.execute((), lines.append) == (0, "")


def test_a_step_that_is_just_starting_is_ended_too(stand_in, monkeypatch):
    stand_in("exec sleep 300")
    starting = Event()

    class Slow(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            starting.set()
            time.sleep(1)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(process.subprocess, "Popen", Slow)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(process.execute, (), print)
        assert starting.wait(30)
        process.end_steps()
        process.begin_steps()
        assert run.result(30)[0] == -signal.SIGTERM


def test_a_failed_experiment_says_whether_the_network_is_away(
    server, stand_in, tmp_path, monkeypatch
):
    monkeypatch.setattr(common, "step", common.step.with_options(retry_delay_seconds=0))
    stand_in("echo 'ecgpipe: s3://x: not to be had'; exit 6")
    state = reproduce("smoke", tmp_path / "out", only="random*", return_state=True)
    assert state.is_failed() and state.name == "Unreachable"
    assert common.code_of(state) == 6
    assert "s3://x: not to be had" in state.message


def test_trainings_of_an_experiment_are_dealt_to_the_gpus(server, stand_in, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    rooms.cache_clear()
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
        rooms.cache_clear()
    ran = (tmp_path / "ran").read_text().splitlines()
    assert sorted(ran[-3:-1]) == ["finetune 0", "finetune 1"]
    assert all(line.endswith(" all") for line in (*ran[:-3], ran[-1]))


def test_the_choices_of_the_flows_are_those_of_the_commands():
    assert get_args(Experiment) == tuple(PRESETS)
    assert get_args(Pretraining) == tuple(PRETRAININGS)
    assert get_args(DataSet) == tuple(SOURCES)


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


@pytest.mark.parametrize(("shell", "goes_on"), [("exec", False), ("trap '' HUP; exec", True)])
def test_a_flow_heeds_the_end_of_its_terminal_but_under_nohup(shell, goes_on):
    code = (
        "import atexit, os, signal; from flows.report import main, report;"
        "atexit.register(lambda: (os.kill(os.getpid(), signal.SIGHUP), print('goes on')));"
        "main(report)"
    )
    line = f"{shell} {shlex.join([sys.executable, '-c', code, '--help'])}"
    call = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert call.returncode == 0, call.stderr
    assert call.stdout.endswith("goes on\n") == goes_on
    assert ("KeyboardInterrupt" in call.stderr) == (not goes_on)


def test_the_flow_prepares_an_archive_and_shows_its_counts_and_what_it_refused(server, tmp_path):
    simulate("cinc2017", tmp_path / "raw", records=6)
    os.truncate(tmp_path / "raw" / "A00002.mat", 100)
    out = tmp_path / "counts" / "archive"
    state = prepare("cinc2017", str(tmp_path / "raw"), out, return_state=True)
    assert state.is_completed() and state.name == "SomeRefused", state.message
    assert open_store(out).manifest["totals"]["records"] == 5
    page = Artifact.get(artifacts.name_of(str(out)))
    assert page is not None and "| records | 5 |\n| refused | 1 |" in page.data
    refused = Artifact.get(f"{artifacts.name_of(str(out))}-refused")
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


def test_stores_and_runs_may_lie_behind_urls(server, stand_in, tmp_path):
    stand_in(f'echo "$@" > {tmp_path}/said; echo "it is there"')
    state = shard("memory://ecg/archive/mitdb", "memory://ecg/shards/mitdb", return_state=True)
    assert state.is_completed() and state.message == "it is there"
    said = (tmp_path / "said").read_text()
    assert "shard memory://ecg/archive/mitdb memory://ecg/shards/mitdb" in said
    ((page, _),) = shown("ecg-shards-mitdb")
    assert "- `memory://ecg/shards/mitdb`" in page
    state = shard("memory://a", "nonsense://b/c", return_state=True)
    assert state.is_failed() and "nonsense://b/c" in state.message


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_ends_the_flow_its_step_and_its_server(tmp_path, number):
    python, output = tmp_path / "python", tmp_path / "output"
    python.write_text(
        "#!/bin/sh\n"
        'if test "$2" = uvicorn; then\n'
        f'echo $$ > {tmp_path}/server; exec {sys.executable} "$@"; fi\n'
        f"trap 'sleep 2; echo saved > {tmp_path}/saved; exit 130' TERM\n"
        'echo "step $$"; while :; do sleep 0.1; done\n'
    )
    python.chmod(0o755)
    call = (
        f"import signal, sys; sys.executable = {str(python)!r};"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from flows.shard import main, shard; main(shard)"
    )
    with output.open("w") as file:
        flow = subprocess.Popen(
            [sys.executable, "-c", call, "--archive", "a", "--shards", "b"],
            cwd=ROOT,
            env={**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while not (found := re.search(r"step (\d+)", output.read_text())):
            assert flow.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.1)
        os.killpg(flow.pid, number)  # as a terminal does: the whole group
        if number == signal.SIGHUP:  # which a shell sends its jobs, and the system once more
            time.sleep(0.5)
            os.killpg(flow.pid, number)
        assert flow.wait(30) == 130, output.read_text()
    finally:
        if flow.poll() is None:
            flow.kill()
            flow.wait()
    assert (tmp_path / "saved").exists()
    assert not alive(int(found[1]))
    assert not alive(int((tmp_path / "server").read_text()))
    assert "Traceback" not in output.read_text()
