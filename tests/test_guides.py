"""The guides are followed: their files written, their edits made, their commands run in order."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import test_structure
import yaml
from command_line import wait_until

import ecgpipe
from ecgpipe import errors
from ecgpipe.config import PretrainSettings, load
from ecgpipe.training.processes import check_shares

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A fenced block; its file where the line before it ends with that."""

    language: str
    file: str
    body: str


def blocks(document: str) -> list[Block]:
    text = (ROOT / document).read_text()
    found = list(re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S))
    assert len(found) == text.count("\n```") / 2
    named = (re.search(r"`([\w./]+)`:\n\n\Z", text[: match.start()]) for match in found)
    files = (name[1] if name else "" for name in named)
    return [Block(m[1], file, m[2]) for m, file in zip(found, files, strict=True)]


class Place:
    """A folder like a checkout: a copy of the package, and the README's data sets beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(
            ROOT / "ecgpipe", folder / "ecgpipe", ignore=shutil.ignore_patterns("__pycache__")
        )
        self.env = {
            **os.environ,
            "PATH": f"{folder / 'bin'}:{BIN}:{os.environ['PATH']}",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",  # on a busy machine
            "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}",
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
        }

    def run(self, *command: str, code: int = 0, timeout: float = 280) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=timeout
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def follow(self, document: str) -> list[str]:
        """Do what a page says, in its order; gives what each command printed."""
        said, tests = [], []
        for language, file, body in blocks(document):
            if file:
                self.write(file, body)
                tests += [file] if file.startswith("tests/") else []
            elif language == "diff":
                self.edit(body)
            elif language == "sh":
                said.append(self.run("sh", "-e", "-c", body))
            elif language == "python":
                said.append(self.run(sys.executable, "-W", "error", "-c", body))
        if tests:
            said.append(self.run(sys.executable, "-m", "pytest", "-q", "-W", "error", *tests))
        written = [name for name in ("ecgpipe", "tests") if (self.folder / name).is_dir()]
        how = ("--config", str(ROOT / "pyproject.toml"), *written)
        self.run("ruff", "check", "--ignore", "D,INP", *how)
        self.run("ruff", "format", "--check", *how)
        return said

    def write(self, file: str, text: str, executable: bool = False) -> None:
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if executable else 0o644)

    def edit(self, diff: str) -> None:
        """Make the changes of a diff without line numbers; each must have one place."""
        for part in re.split(r"^--- ", diff, flags=re.M)[1:]:
            name, _, rest = part.partition("\n")
            text = (self.folder / name).read_text()
            for hunk in rest.split("@@\n")[1:]:
                lines = [(line[:1], line[1:]) for line in hunk.splitlines()]
                old = "".join(f"{line}\n" for mark, line in lines if mark != "+")
                new = "".join(f"{line}\n" for mark, line in lines if mark != "-")
                assert text.count(old) == 1, f"{name} has changed: {old}"
                text = text.replace(old, new)
            self.write(name, text)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    where = made.run(sys.executable, "-c", "import ecgpipe; print(ecgpipe.__file__)")
    assert str(tmp_path) in where
    return made


@pytest.fixture
def filled(place: Place, icentia: Path, cinc: Path, stores: Path) -> Place:
    """The place with raw recordings, archives and shards where the README leaves them."""
    for raw in (icentia, cinc):
        shutil.copytree(raw, place.folder / "raw" / raw.name)
    for kind in ("archive", "shards"):
        shutil.copytree(stores / kind, place.folder / kind)
    return place


def clinic(folder: Path) -> dict[str, Any]:
    """The page's data set: 24 recordings of 12 people, 6 s of two leads, in mV at 500 Hz."""
    rng = np.random.default_rng(0)
    signals, lines = {}, ["recording,patient,label"]
    (folder / "recordings").mkdir(parents=True)
    for i in range(24):
        key, time_ = f"r{i + 1:04d}", np.arange(3000) / 500
        beat = np.exp(-(((time_ + 0.3) % (0.8 + 0.02 * i) - 0.4) ** 2) / 2e-4)
        leads = np.stack([beat, -0.4 * beat]) + rng.normal(0, 0.01, (2, 3000))
        np.savetxt(
            folder / "recordings" / f"{key}.csv", leads.T, "%.6f", ",", header="II,V5", comments=""
        )
        lines.append(f"{key},{i // 2},{'afib' if i // 2 % 2 else 'sinus'}")
        signals[key] = leads
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return signals


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_data_set_of_ones_own(place: Place) -> None:
    signals = clinic(place.folder / "raw/clinic")
    prepared, *_ = place.follow("docs/own_data.md")
    assert "24 records of 12 patients" in prepared
    module = (place.folder / "ecgpipe/datasets/clinic.py").read_text()
    assert sum(bool(line.strip()) for line in module.splitlines()) <= 32
    store = ecgpipe.open_store(place.folder / "archive/clinic")
    for key, wanted in signals.items():
        record = store.read(key)
        np.testing.assert_allclose(record.millivolts(), wanted, atol=5.1e-4)
        number = int(key[1:]) - 1
        assert (record.patient, record.fs) == (str(number // 2), 500.0)
        assert record.statements == (("afib",) if number // 2 % 2 else ("sinus",))
        assert len(record.qrs.index) > 3
    # Now that it is finetuned on, its test recordings are kept from other trainings.
    (command,) = (
        c for b in blocks("docs/own_data.md") for c in b.body.splitlines() if "rates" in c
    )
    rates = place.run(*command.replace("clinic-rates", "clinic-fair").split())
    assert "records that finetuning tests on left out" in rates
    wrong = ["finetune", "shards/clinic", "--out", "runs/wrong", "--init", "runs/clinic-rates"]
    assert "test records, such as r00" in place.run("ecgpipe", *wrong, code=errors.MISTAKE)
    # What cannot be read is refused by name.
    raw = place.folder / "raw/clinic/recordings"
    (raw / "r0002.csv").unlink()
    (raw / "r0003.csv").write_text("II,V5\n0.1,0.2\n0.3\n")
    (raw / "r0004.csv").write_text("")
    said = place.run("ecgpipe", "prepare", "clinic", "raw/clinic", "again", code=errors.REFUSED)
    assert "21 records" in said and "r0002.csv: missing" in said
    assert said.count("no table of numbers") == 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_task_of_ones_own(filled: Place) -> None:
    *_, shares, passed = filled.follow("docs/add_a_task.md")
    assert "1 passed" in passed
    told = dict(re.findall(r"^(\w+) +([\d.]+)%$", shares, re.M))
    assert set(told) == {"none", "some", "frequent", "noise"}
    assert sum(map(float, told.values())) == pytest.approx(100, abs=0.3)
    run = json.loads((filled.folder / "runs/ectopy/run.json").read_text())
    assert run["classes"] == [*told] and run["settings"]["task"] == "ectopy"
    assert (filled.folder / "ectopy.html").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_helps_against_trouble(filled: Place) -> None:
    (command,) = (line for line in commands("README.md") if line.startswith("ecgpipe pretrain "))
    filled.run(*command.split())
    tar = filled.folder / "shards/cinc2017/shards/A00001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1000])
    filled.follow("docs/troubleshoot.md")
    assert tar.read_bytes() == whole
    columns = (filled.folder / "runs/beat/history.csv").read_text().partition("\n")[0].split(",")
    assert "waited" in columns
    again = json.loads((filled.folder / "runs/beat-small/run.json").read_text())["settings"]
    assert (again["batch"], again["accumulate"], again["epochs"]) == (8, 2, 1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_cluster(filled: Place) -> None:
    (filled.folder / "prefect").mkdir()
    shutil.rmtree(filled.folder / "archive")
    shutil.rmtree(filled.folder / "shards")
    said = filled.follow("docs/cluster.md")
    assert "OK, verified against raw/icentia11k" in said[1]
    images = (ROOT / "docker/Dockerfile").read_text()
    for name, kind in (("cpu", "cpu"), ("gpu", "cuda")):
        pool = json.loads((filled.folder / f"{name}.json").read_text())
        pod = pool["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
        mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
        assert f"ecgpipe:{kind}" in images and f"Created work pool '{name}'" in said[-1]
    deployed = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert {deployment["work_pool"]["name"] for deployment in deployed} == {"cpu", "gpu"}
    assert "WORKDIR /ecgpipe\n" in images and "UID=10001\n" in images
    help_of: dict[str, str] = {}
    for line in commands("docs/cluster.md"):
        words = [word for word in line.partition("#")[0].split() if word != "…"]
        while words and "=" in words[0]:  # a variable of the environment
            words.pop(0)
        if words[0] not in ("ecgpipe", "prefect", "dask", "torchrun"):
            continue
        depth = {"prefect": 3, "torchrun": 1}.get(words[0], 2)
        name = " ".join(word for word in words[:depth] if word[0] != "-" and "/" not in word)
        if name not in help_of:
            help_of[name] = filled.run(*name.split(), "--help")
        ours = words.index("-m") if "-m" in words else len(words)
        for option in re.findall(r"--[a-z-]+", " ".join(words[:ours])):
            assert option in help_of[name], f"{name} has no {option}"


def commands(document: str) -> Iterator[str]:
    for block in blocks(document):
        if block.language in ("", "sh"):
            yield from block.body.replace("\\\n", " ").splitlines()


SHIMS = {  # what Slurm does with a job of one node, on this machine
    "srun": 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"',
    "scontrol": "echo 127.0.0.1",
    # A copy, as Slurm makes one: dask-jobqueue removes the script once sbatch returns.
    "sbatch": 'cp "$1" job-$$.sh; setsid bash job-$$.sh > sbatch-$$.log 2>&1 < /dev/null & '
    'echo "Submitted batch job $!"',
    "scancel": 'kill -TERM -- "-$1"',
}


@pytest.fixture
def slurm(filled: Place) -> Place:
    for name, text in SHIMS.items():
        filled.write(f"bin/{name}", f"#!/bin/sh\n{text}\n", executable=True)
    for block in blocks("docs/cluster.md"):
        if block.file:
            filled.write(block.file, block.body)
    return filled


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_job_of_slurm_trains_saves_when_its_time_is_up_and_continues(slurm: Place) -> None:
    (slurm.folder / ".venv").symlink_to(BIN.parent)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (slurm.folder / "pretrain.sbatch").read_text()
    slurm.write("pretrain.sbatch", script.replace(":29500", f":{port}"))
    small = "workers=0 streams=4 accumulate=2 batch=8 frame=256 steps=8 epochs=500 shuffle=64"
    small += " frames_per_visit=16 validation_frames=16 validation_share=0.3"
    options = [part for item in small.split() for part in ("--set", item)]
    job = {"NNODES": "1", "GPUS_ON_NODE": "2", "JOB_ID": "7", "JOB_NODELIST": "node"}
    env = slurm.env | {f"SLURM_{name}": value for name, value in job.items()}
    log, history = slurm.folder / "log", slurm.folder / "runs/beat/history.csv"
    for attempt in range(2):
        epochs = len(history.read_text().splitlines()) if history.is_file() else 1
        with log.open("w") as file:
            process = subprocess.Popen(
                ["bash", "pretrain.sbatch", *options],
                **{"cwd": slurm.folder, "env": env, "stdout": file, "stderr": file},
                start_new_session=True,
            )
        wait_until(
            lambda at=epochs: history.is_file() and len(history.read_text().splitlines()) > at,
            process,
        )
        below = psutil.Process(process.pid).children(recursive=True)
        # As Slurm does before the time is up; srun has become torchrun here.
        next(child for child in below if "torchrun" in " ".join(child.cmdline())).terminate()
        assert process.wait(60) == 1, log.read_text()
        assert "ecgpipe: interrupted, saved after" in log.read_text()
        assert ("pretrain beat: continuing after" in log.read_text()) == (attempt == 1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_jobs_of_slurm_convert(slurm: Place) -> None:
    pytest.importorskip("dask_jobqueue")
    text = (slurm.folder / "convert.py").read_text()
    for large, small in (("cores=16", "cores=1"), ("processes=16", "processes=1"),
                         ("32GB", "2GB"), ("jobs=4", "jobs=2")):  # fmt: skip
        assert large in text
        text = text.replace(large, small)
    slurm.write("convert.py", text)
    wanted = {
        path: (slurm.folder / path / "manifest.json").read_bytes()
        for path in ("archive/icentia11k", "shards/icentia11k")
    }
    for path in wanted:
        shutil.rmtree(slurm.folder / path)
    try:
        slurm.run(sys.executable, "convert.py")
    finally:  # shown if the test fails
        print(*(log.read_text() for log in slurm.folder.glob("sbatch-*.log")), sep="\n")
    for path, manifest in wanted.items():
        assert (slurm.folder / path / "manifest.json").read_bytes() == manifest


def test_the_trainings_of_the_cluster_page_can_begin() -> None:
    files = {block.file: block for block in blocks("docs/cluster.md")}
    subprocess.run(["bash", "-n"], input=files["pretrain.sbatch"].body, text=True, check=True)
    compile(files["convert.py"].body, "convert.py", "exec")
    job = yaml.safe_load(files["pretrain.yaml"].body)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    command = [*container["command"], *container["args"]]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(command[3])
    script = files["pretrain.sbatch"].body
    nodes, gpus = (int(re.findall(rf"{o}=(\d+)", script)[0]) for o in ("nodes", "gpus-per-node"))
    for count, text in ((int(command[3]), " ".join(command)), (nodes * gpus, script)):
        assignments = re.findall(r"--set[= ](\S+=\S+)", text)
        s = load(PretrainSettings, assignments=assignments)
        check_shares(count, s.streams, s.workers, s.accumulate)
        assert s.workers and len(assignments) == 4


def templates() -> Iterator[str]:
    """What ecgpipe can say, as regular expressions."""
    for path in (ROOT / "ecgpipe").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            pieces = [p.value if isinstance(p, ast.Constant) else None for p in parts]
            texts = [p or "" for p in pieces if p is None or isinstance(p, str)]
            if len(texts) == len(pieces) and sum(map(len, texts)) >= 20:
                yield ".*".join(map(re.escape, texts))


def test_the_messages_of_troubleshoot_are_those_of_ecgpipe() -> None:
    known = [*templates()]
    libraries = ("UserWarning: ", "torch.")
    lines = [line for block in blocks("docs/troubleshoot.md") if block.language == "text"
             for line in block.body.splitlines()]  # fmt: skip
    unknown = [line for line in lines if not any(re.match(f"(ecgpipe: )?{t}", line) for t in known)]
    assert len(lines) > 20 and [ln for ln in unknown if not ln.startswith(libraries)] == []
    assert len(unknown) == 2
    import torch

    assert issubclass(torch.OutOfMemoryError, RuntimeError)
    with pytest.warns(UserWarning, match=r"DataLoader will create \d+ .*suggested max number of w"):
        torch.utils.data.DataLoader([0], num_workers=(os.cpu_count() or 1) + 1)


def test_every_exit_code_is_explained() -> None:
    text = (ROOT / "docs/troubleshoot.md").read_text()
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)}
    codes = {value for name, value in vars(errors).items() if name.isupper()}
    assert rows == codes | {0, 1}


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_contributing_has_the_order_of_imports() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (line,) = re.findall(r"^types, config.*$", text, re.M)
    order = [set(names.split(", ")) for names in line.split(" < ")]
    assert order == list(test_structure.ORDER)


def test_the_citation_file_is_valid_and_current() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["title"]
    assert cited["authors"] == project["authors"] and cited["license"] == project["license"]
    assert cited["version"] == project["version"]
    (paper,) = cited["references"]
    assert paper["doi"] == "10.1038/s41598-021-84374-8" and paper["type"] == "article"


def test_the_shell_completes(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"}

    def bash(text: str) -> str:
        done = subprocess.run(
            ["bash", "-c", text], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout

    bash("ecgpipe --install-completion; true")
    ask = "COMP_WORDS=(ecgpipe pre); COMP_CWORD=1; _ecgpipe_completion ecgpipe"
    found = bash(f'. ~/.bashrc; {ask}; echo "${{COMPREPLY[@]}}"').split()
    assert found == ["prepare", "pretrain", "predict"]
