"""Stores, runs and reports behind a URL: the same bytes as here, continued, and damage found."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from command_line import COMMAND, QUICK, run, start, wait_until

from ecgpipe.config import FinetuneSettings, PretrainSettings, load
from ecgpipe.errors import MISTAKE, UNREACHABLE, EcgpipeError
from ecgpipe.files import paths
from ecgpipe.files.atomic import local_copy
from ecgpipe.files.paths import to_path
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.shards import shard
from ecgpipe.storage.store import open_store
from ecgpipe.storage.verify import verify
from ecgpipe.training.finetune import finetune
from ecgpipe.training.pretrain import pretrain

DOWN = {**QUICK, "epochs": 2, "seconds": 2, "repeats": 1}


@pytest.fixture
def s3(moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """An empty bucket, its URL; files fetched from it go to a cache of this test's own."""
    import boto3

    secret = {"AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "secret"}
    given = {**secret, "AWS_ENDPOINT_URL": moto, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**given, "XDG_CACHE_HOME": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid4().hex}"
    client = boto3.client("s3")
    client.create_bucket(Bucket=name)
    yield f"s3://{name}"
    client.close()


def _tree(path: Path) -> dict[str, bytes]:
    """Every file below a place."""
    return {name: (path / name).read_bytes() for name in paths.file_sizes(path)}


def test_stores_have_the_same_bytes_here_and_there(s3: str, cinc: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "here", to_path(f"{s3}/there")
    for top in (here, there):
        prepare("cinc2017", cinc, top / "archive", 1)
        shard(top / "archive", top / "shards", 250, workers=1)
    for name in ("archive", "shards"):
        assert _tree(there / name) == _tree(here / name)
        assert verify(there / name) == []
    one, other = (open_store(f"{top}/archive") for top in (here, there))
    assert other.records.equals(one.records)
    key = one.records.index[3]
    np.testing.assert_array_equal(other.read(key).signal, one.read(key).signal)
    assert float(other.signal.mean().compute()) == float(one.signal.mean().compute())
    assert [r.key for r in open_store(f"{s3}/there/shards").read_all()] == [*one.records.index]


def test_what_is_there_is_kept_and_what_is_damaged_made_again(
    s3: str, icentia: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = to_path(f"{s3}/archive")
    prepare("icentia11k", icentia, archive, 1)
    before = _tree(archive)
    capsys.readouterr()
    prepare("icentia11k", icentia, archive, 1)
    assert "4 of 4 parts were there already" in capsys.readouterr().err

    (archive / "parts" / "p00001.json").unlink()  # as a killed run leaves it
    chunk = next(name for name in before if name.startswith("records.zarr/p00002/signal/c/"))
    (archive / chunk).write_bytes(before[chunk][:-1])
    assert any(chunk in problem for problem in verify(archive))
    prepare("icentia11k", icentia, archive, 1)
    assert "2 of 4 parts were there already" in capsys.readouterr().err
    assert _tree(archive) == before


def test_files_are_fetched_once_and_again_when_they_change(s3: str, tmp_path: Path) -> None:
    path = to_path(f"{s3}/a.tar")
    path.write_bytes(b"one")
    copy = local_copy(path)
    assert copy.read_bytes() == b"one" and tmp_path in copy.parents
    copy.write_bytes(b"mark")
    assert local_copy(path).read_bytes() == b"mark"  # not fetched again
    path.write_bytes(b"two")
    assert local_copy(path).read_bytes() == b"two"
    assert local_copy(copy) == copy


def test_mistakes_name_the_address(s3: str, cinc: Path) -> None:
    with pytest.raises(EcgpipeError, match=r"^s3://nobody-[^ ]+: cannot be written .*bucket"):
        prepare("cinc2017", cinc, to_path(f"s3://nobody-{uuid4().hex}/archive"), 1)
    with pytest.raises(EcgpipeError, match=r"^s3://[^ ]+/nothing: no such folder"):
        open_store(f"{s3}/nothing")
    with pytest.raises(EcgpipeError, match=r"^ftq://x: cannot be opened"):
        to_path("ftq://x")
    to_path(f"{s3}/mine/notes.txt").write_text("mine")
    with pytest.raises(EcgpipeError, match=r"/mine: is not a store of ecgpipe and not empty"):
        prepare("cinc2017", cinc, to_path(f"{s3}/mine"), 1)


def _shards(top: Path, cinc: Path) -> Path:
    prepare("cinc2017", cinc, top / "archive", 1)
    shard(top / "archive", top / "shards", 250, workers=1)
    return top / "shards"


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_a_run_there_is_killed_and_continued_from_another_machine(
    s3: str, cinc: Path, tmp_path: Path
) -> None:
    shards, run = _shards(to_path(s3), cinc), to_path(f"{s3}/run")
    settings: dict[str, Any] = DOWN | {"epochs": 6}
    with start("finetune", shards, "--out", run, **settings) as process:
        wait_until((run / "repeat-00" / "last.pt").exists, process)
        process.kill()
    os.environ["XDG_CACHE_HOME"] = str(tmp_path / "another machine")
    finetune(shards, run, load(FinetuneSettings, **settings))
    finetune(shards, tmp_path / "whole", load(FinetuneSettings, **settings))
    for name in ("predictions.csv",):
        assert (run / "repeat-00" / name).read_text() == (
            tmp_path / "whole" / "repeat-00" / name
        ).read_text()
    losses = [
        [row["validation_loss"] for row in _rows(top / "repeat-00" / "history.csv")]
        for top in (run, tmp_path / "whole")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 6
    assert not (run / "repeat-00" / "last.pt").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_experiment_there(s3: str) -> None:
    command = [*COMMAND, "reproduce", "--preset", "smoke", "--out", f"{s3}/smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    out = to_path(f"{s3}/smoke")
    assert "<svg" in (out / "report.html").read_text()
    assert len(_rows(out / "report.csv")) == 4
    manifest = json.loads((out / "shards" / "cinc2017" / "manifest.json").read_text())
    assert manifest["totals"]["records"] == 80
    assert not any(".partial" in name for name in paths.file_sizes(out))


@pytest.mark.parametrize("fails", [1, 4])
def test_a_part_that_was_sent_by_half_is_no_part(
    fails: int, s3: str, icentia: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, sent = to_path(f"{s3}/archive"), 0
    system = paths.file_system(archive)
    put = system.put_file

    def put_file(*words: Any) -> None:
        nonlocal sent
        sent += 1
        if sent == fails:
            raise OSError("the line was cut")
        put(*words)

    with monkeypatch.context() as patch:
        patch.setattr(system, "put_file", put_file)
        with pytest.raises(EcgpipeError, match="the line was cut"):
            prepare("icentia11k", icentia, archive, 1)
    assert not paths.exists(archive / "parts" / "p00000.json")
    prepare("icentia11k", icentia, archive, 1)
    assert verify(archive) == []


def test_loader_processes_read_there_too(s3: str, icentia: Path, tmp_path: Path) -> None:
    top = to_path(s3)
    prepare("icentia11k", icentia, top / "archive", 1)
    shard(top / "archive", top / "shards", 250, workers=1)
    up = {
        **QUICK, "frame": 256, "epochs": 1, "steps": 2, "streams": 2, "frames_per_visit": 16,
        "validation_frames": 16, "validation_share": 0.25,
    }  # fmt: skip
    runs = [tmp_path / str(workers) for workers in (0, 2)]
    for out in runs:
        given = load(PretrainSettings, **up, workers=int(out.name))
        pretrain([top / "shards"], out, given)
    assert len({(out / "predictions.csv").read_text() for out in runs}) == 1


def test_a_server_that_is_away_is_no_empty_folder(
    s3: str, monkeypatch: pytest.MonkeyPatch, cinc: Path
) -> None:
    to_path(f"{s3}/run/last.pt").write_bytes(b"days of work")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    asked = (
        "import sys; from ecgpipe.files.paths import exists, to_path; "
        "print(exists(to_path(sys.argv[1])))"
    )
    said = subprocess.run(
        [sys.executable, "-c", asked, f"{s3}/run/last.pt"], capture_output=True, text=True
    )
    assert not said.stdout and "EndpointConnectionError" in said.stderr
    for words in (("inspect", f"{s3}/run"), ("prepare", "cinc2017", cinc, f"{s3}/archive")):
        line = [*COMMAND, *map(str, words)]
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == UNREACHABLE, done.stderr
        assert done.stderr.splitlines()[-1].startswith("ecgpipe: a URL could not be reached (")
        assert "Traceback" not in done.stderr and not done.stdout


def test_urls_are_refused_where_files_of_this_machine_are_wanted(tmp_path: Path) -> None:
    for words in (
        ("fetch", "cinc2017", "s3://bucket/x"),
        ("predict", "model.pt", "s3://bucket/A00001"),
        ("pretrain", "shards", "--out", tmp_path / "run", "--config", "s3://bucket/run.json"),
    ):
        done = run(*words)
        assert done.returncode == MISTAKE and not done.stdout
        assert "s3://bucket/" in done.stderr and "is a URL" in done.stderr
    assert not list(Path.cwd().glob("s3:*"))
