"""The deployments of prefect.yaml, as docs/server.md says: a server, two pools, two workers."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest
import torch
import yaml
from command_line import wait_until

from ecgpipe.datasets import DATASETS
from ecgpipe.experiments.presets import PRESETS
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.shards import shard
from ecgpipe.storage.store import open_store

ROOT = Path(__file__).parent.parent
DEPLOYMENTS = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
until = partial(wait_until, every=0.3)  # s between two questions to the server


class Server:
    """A server and its workers, and the commands that are typed beside them."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.folder = folder
        self.running: list[subprocess.Popen[str]] = []
        self.env = {
            **os.environ,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_API_PORT": self.port,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        (folder / "prefect").mkdir()

    def type(self, line: str, code: int = 0) -> str:
        """Run a line, or start it where it ends in &; give what it says."""
        line = line.replace("4200", self.port)
        how: Any = {"cwd": ROOT, "env": self.env, "text": True, "stderr": subprocess.STDOUT}
        if line.endswith("&"):
            with (self.folder / "log").open("a") as log:
                started = subprocess.Popen(shlex.split(line[:-1]), stdout=log, **how)
            self.running.append(started)
            return ""
        done = subprocess.run(shlex.split(line), stdout=subprocess.PIPE, timeout=200, **how)
        assert done.returncode == code, done.stdout + (self.folder / "log").read_text()[-3000:]
        return str(done.stdout)

    def ask(self, path: str, body: object = None) -> Any:
        """Ask the server's interface."""
        data = None if body is None else json.dumps(body).encode()
        address = f"http://127.0.0.1:{self.port}/api/{path}"
        with urlopen(Request(address, data, {"Content-Type": "application/json"})) as answer:
            return json.load(answer)

    def log(self, run: str) -> str:
        """All lines in the log of a flow run."""
        wanted = {"logs": {"flow_run_id": {"any_": [run]}}}
        return "\n".join(entry["message"] for entry in self.ask("logs/filter", wanted))

    def artifacts(self, run: str) -> dict[str, tuple[str, str]]:
        """Data and description of a flow run's artifacts, by key."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run]}}}
        found = self.ask("artifacts/filter", wanted)
        assert len({item["key"] for item in found}) == len(found)
        return {item["key"]: (item["data"], item["description"]) for item in found}


def reachable(server: Server) -> bool:
    try:
        return bool(server.ask("health"))
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Type the lines of docs/server.md, but for the last, which runs a deployment."""
    server = Server(tmp_path_factory.mktemp("server"))
    (block,) = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/server.md").read_text(), re.M | re.S)
    *lines, _ = block.splitlines()
    try:
        for line in lines:
            server.type(line)
            if line.startswith("prefect server"):
                until(lambda: reachable(server))
        yield server
    finally:
        for process in reversed(server.running):
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def run_of(output: str) -> str:
    """The number of the flow run that a command created."""
    found = re.search(r"UUID: ([0-9a-f-]{36})", output)
    assert found, output
    return found[1]


def steps(command: str, folder: Path) -> list[str]:
    """Processes of a command of ecgpipe that work in a folder."""
    done = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True)
    lines = (line for line in done.stdout.splitlines() if f"ecgpipe {command} " in line)
    return [line for line in lines if str(folder) in line]


def processes_of(run: str) -> list[int]:
    """Processes that a worker has started for a flow run."""
    return [
        process.pid
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get("PREFECT__FLOW_RUN_ID") == run
    ]


def test_every_flow_and_set_has_a_deployment() -> None:
    there: dict[str, set[str]] = {}
    for one in DEPLOYMENTS:
        flow = Path(one["entrypoint"].partition(":")[0]).stem
        there.setdefault(flow, set()).add(one["name"])
        trains = flow in ("pretrain", "finetune", "reproduce")
        assert one["work_pool"]["name"] == ("gpu" if trains else "cpu")
        assert set(one["tags"]) == {flow, one["name"], *(["gpu"] if trains else [])}
    flows = {path.stem for path in (ROOT / "flows").glob("*.py") if "@flow(" in path.read_text()}
    assert there.keys() == flows
    assert there["prepare"] == there["shard"] == set(DATASETS)
    assert there["pretrain"] == {"beat", "rhythm", "heart_rate", "future"}
    assert there["finetune"] == there["report"] == {"cinc2017", "ptbxl", "icbeb2018"}
    assert there["reproduce"] <= PRESETS.keys()


def test_readme_names_a_deployment_that_exists() -> None:
    text = (ROOT / "README.md").read_text()
    names = re.findall(r"^prefect deployment run (\S+)", text, re.M)
    there = {f"{one['entrypoint'].rpartition(':')[2]}/{one['name']}" for one in DEPLOYMENTS}
    assert names and there.issuperset(names)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_short_path(server: Server, tmp_path: Path, cinc: Path) -> None:
    (block,) = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/server.md").read_text(), re.M | re.S)
    last = block.splitlines()[-1].replace("raw/cinc2017", str(cinc))
    server.type(last.replace("archive/cinc2017", str(tmp_path / "archive")))
    assert open_store(tmp_path / "archive").manifest.totals.records == 40

    named = {"flow_runs": {"name": {"any_": [f"{tmp_path}/archive"]}}}
    (run,) = server.ask("flow_runs/filter", named)
    assert run["state_name"] == "Completed"
    shown = server.artifacts(run["id"])
    (key,) = (key for key in shown if key.endswith("-archive"))
    assert "| records | 40 |" in shown[key][0]
    assert "40 records of 40 patients" in shown[key][1]

    wrong = "prefect deployment run prepare/cinc2017 -p workers=0"
    before = server.ask("flow_runs/count", {})
    assert "workers" in server.type(wrong, code=1)
    assert server.ask("flow_runs/count", {}) == before

    form = server.ask("deployments/name/finetune/cinc2017")["parameter_openapi_schema"]
    seconds = form["definitions"]["FinetuneSettings"]["properties"]["seconds"]
    assert seconds["description"].startswith("length of the input, s") and seconds["default"] == 60
    choices = form["definitions"]["Network"]["properties"]["depth"]
    assert choices["enum"] == [18, 34, 50] and choices["default"] == 18
    assert all("description" in one for one in form["properties"].values())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_failed_run_says_why_in_a_line(server: Server, tmp_path: Path) -> None:
    where = f"-p source={tmp_path}/nowhere -p archive={tmp_path}/archive --watch"
    said = server.type(f"prefect deployment run prepare/mitdb {where}", code=1)
    run = run_of(said)
    state = server.ask(f"flow_runs/{run}")["state"]
    assert state["name"] == "Failed"
    assert f"{tmp_path}/nowhere: no such folder" in state["message"]
    assert "\n" not in state["message"]
    until(lambda: "Finished in state Failed" in server.log(run))
    until(lambda: not processes_of(run))  # which send their last lines before they end
    assert "Traceback" not in server.log(run)
    ((_, about),) = server.artifacts(run).values()
    assert about.startswith("Failed: ") and "no such folder" in about


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cancelled_training_continues(server: Server, tmp_path: Path, cinc: Path) -> None:
    prepare("cinc2017", cinc, tmp_path / "archive", workers=1)
    shard(tmp_path / "archive", tmp_path / "shards", workers=1)
    out, settings = tmp_path / "run", {"repeats": 1, "epochs": 25, "batch": 8, "seconds": 5}
    what = f"-p shards={tmp_path}/shards -p out={out} -p init=random"
    line = f"prefect deployment run finetune/cinc2017 {what} -p 'settings={json.dumps(settings)}'"
    history, last = out / "repeat-00" / "history.csv", out / "repeat-00" / "last.pt"

    def epochs() -> int:
        return len(history.read_text().splitlines()) - 1 if history.is_file() else 0

    run = run_of(server.type(line))
    until(lambda: epochs() >= 3)
    assert processes_of(run)
    assert len(steps("finetune", tmp_path)) == 1
    server.type(f"prefect flow-run cancel {run}")
    until(lambda: server.ask(f"flow_runs/{run}")["state_name"] == "Cancelled")
    assert not steps("finetune", tmp_path)
    done = epochs()
    assert 3 <= done < 25 and not (out / "repeat-00" / "predictions.csv").exists()
    assert len(torch.load(last, weights_only=True)["history"]) == done
    assert not list(out.rglob("*.partial"))
    shown = server.artifacts(run)
    (progress,) = (key for key in shown if key.endswith("-progress"))
    assert 0 < float(shown[progress][0]) < 100
    assert shown[progress.removesuffix("-progress")][1].startswith("Stopped")

    again = run_of(server.type(f"{line} --watch"))
    assert epochs() == 25 and not last.exists()
    assert re.search(r"continuing after .*epoch", server.log(again))
    shown = server.artifacts(again)
    assert float(shown[progress][0]) == 100
    assert "test macro F1" in shown[progress.removesuffix("-progress")][1]
    assert "![curves](data:image/svg+xml;base64," in shown[progress.removesuffix("-progress")][0]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_cancelled_experiment_continues_to_its_report(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "smoke"
    line = f"prefect deployment run reproduce/smoke -p out={out} -p jobs=2"
    run = run_of(server.type(line))
    until(lambda: len(steps("finetune", out)) == 2, seconds=400)
    server.type(f"prefect flow-run cancel {run}")
    until(lambda: server.ask(f"flow_runs/{run}")["state_name"] == "Cancelled")
    assert not steps("finetune", out) and not steps("pretrain", out)
    assert not (out / "report.html").exists()
    assert not list(out.rglob("*.partial"))

    again = run_of(server.type(line))
    until(lambda: server.ask(f"flow_runs/{again}")["state_name"] == "Completed", seconds=600)
    assert "<svg" in (out / "report.html").read_text()
    shown = server.artifacts(again)
    (overview,) = (key for key in shown if key.endswith(out.name))
    assert shown[overview][1] == "12 of 12 steps have ended"
    rows = [row for row in shown[overview][0].splitlines() if row.startswith("| ")]
    assert sum("| Completed |" in row for row in rows) == 12
    assert float(shown[f"{overview}-progress"][0]) == 100
