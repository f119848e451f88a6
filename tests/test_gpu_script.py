"""`benchmarks/gpu.py`: its small run on a CPU, cut off and continued, and what it keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import wait_until
from scipy.stats import ttest_ind_from_stats

from ecgpipe.experiments.presets import Row
from ecgpipe.simulator.simulate import simulate
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.shards import shard
from ecgpipe.storage.store import Store

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from gpu import LIMITS, Call, fastest  # noqa: E402
from gpu_bench import report, rows  # noqa: E402
from gpu_bench.bench import Bench, training  # noqa: E402
from gpu_bench.speed import work  # noqa: E402

H200 = {"machine": "NVIDIA H200", "gpu": True, "small": False}
XEON = {"machine": "a CPU", "gpu": False, "small": True}


def lines(out: Path) -> list[dict[str, Any]]:
    return report.lines(out)


def killed(out: Path, command: list[str], when: Callable[[], bool]) -> None:
    """Start the script and kill it with all its processes, as a machine that goes away does."""
    process = subprocess.Popen(command, start_new_session=True, cwd=ROOT)
    try:
        wait_until(when, process, seconds=1800)
    finally:
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdecimal() and os.getsid(int(folder.name)) == process.pid:
                    os.kill(int(folder.name), signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_small_run_is_whole_however_often_it_is_cut_off(tmp_path: Path) -> None:
    simulate("cinc2017", tmp_path / "raw", records=160, seconds=30)
    prepare("cinc2017", tmp_path / "raw", tmp_path / "archive", 1)
    for fs in (250, 128):
        shard(tmp_path / "archive", tmp_path / f"shards-{fs}", fs, workers=1)
    out = tmp_path / "gpu"
    command = [sys.executable, "benchmarks/gpu.py", "--out", str(out), "--device", "cpu"]
    command += [
        "--minutes",
        "20",
        "--shards",
        *(str(tmp_path / f"shards-{fs}") for fs in (250, 128)),
    ]

    def ended(stage: str) -> bool:
        return any((line["stage"], line["name"]) == ("stage", stage) for line in lines(out))

    killed(out, command, lambda: ended("right"))
    killed(out, command, lambda: len(rows.Kept(out).repeats) == 3)  # in the middle of a row
    early = {at: one.told["date"] for at, one in rows.Kept(out).repeats.items()}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = lines(out)
    assert not [line for line in found if "error" in line["values"]]
    assert all(line["values"]["right"] for line in found if line["stage"] == "right")
    measured = Counter((line["stage"], line["name"]) for line in found if line["stage"] in LIMITS)
    assert {stage for stage, _ in measured} == set(LIMITS)
    assert set(measured.values()) == {1}, measured  # nothing was lost, nothing made twice
    kept = rows.Kept(out).repeats
    names = [f"small-{row.name}" for row in rows.chosen(small=True)]
    assert len(names) == 7 and set(kept) == {(name, n) for name in names for n in range(2)}
    assert {at: kept[at].told["date"] for at in early} == early
    text = (tmp_path / "gpu.md").read_text()
    assert "**No GPU has been at hand so far.**" in text and "**no**" not in text
    assert text.count("| 0 of 10 |") == len(rows.chosen(small=False))
    assert {path.name for path in out.iterdir()} == {"results.jsonl", "repeats.zip"}
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line["stage"] for line in lines(out)[len(found) :]} == {"call", "stage"}, again.stdout


def repeat(row: Row, number: int, macro: float, small: bool = False, **told: Any) -> rows.Repeat:
    facts = {**H200, "date": "2026-12-01T10:00:00+00:00", "protocol": {"row": row.name}}
    facts |= {"scores": {"macro_f1": macro}, "test_keys": "same", **told}
    content = {name: f"{name} of {number}".encode() for name in rows.FILES}
    return rows.Repeat(row.name, number, facts, content)


def test_rows_stand_beside_the_paper_with_welch_s_test(tmp_path: Path) -> None:
    kept, macro = rows.Kept(tmp_path), np.array([0.66, 0.68, 0.671, 0.69])
    for number, value in enumerate(macro):
        kept.add(repeat(Row(share=0.25), number, float(value)))
    kept.add(repeat(Row(share=0.25), 7, 0.1, test_keys="others"))  # of another test set
    text = report.text([{**H200, "date": "d", "stage": "machine", "name": "x", "values": {}}], kept)
    p = ttest_ind_from_stats(
        macro.mean(), macro.std(ddof=1), 4, 0.670, 0.013, 10, equal_var=False
    ).pvalue
    (line,) = [line for line in text.splitlines() if "| 4 of 10 |" in line]
    assert "random: 25 %, 250 Hz, ResNet-18" in line
    assert ".675\xa0±\xa0.013 | .670\xa0±\xa0.013" in line
    assert f"+.005 p\xa0=\xa0{p:.2f}".replace("0.", ".") in line
    assert "NVIDIA H200, 2026-12-01" in line
    assert "| 1 of 10 | .100 |" in text  # beside it, and not in it
    assert "No GPU has been" not in text


def test_kept_repeats_are_put_back_where_their_protocol_is_wanted(tmp_path: Path) -> None:
    kept, row = rows.Kept(tmp_path), Row(share=0.5)
    for number in (0, 2):
        kept.add(repeat(row, number, 0.7))
    kept.add(repeat(row, 1, 0.7, protocol={"row": "another"}))
    read = rows.Kept(tmp_path)
    assert read.restore(row.name, tmp_path / "run", {"row": row.name}) == 2
    folders = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert folders == ["repeat-00", "repeat-02"]
    put = tmp_path / "run/repeat-02/predictions.csv"
    assert put.read_text() == "predictions.csv of 2"
    before = kept.path.read_bytes()
    rows.Kept(tmp_path).add(kept.repeats[row.name, 0])
    assert kept.path.read_bytes() == before  # no times: the same repeats are the same bytes


def test_protocols_are_the_paper_s_and_differ_where_rows_do(tmp_path: Path) -> None:
    simulate("cinc2017", tmp_path / "raw", records=12, seconds=10)
    prepare("cinc2017", tmp_path / "raw", tmp_path / "archive", 1)
    shard(tmp_path / "archive", tmp_path / "shards", 250, workers=1)
    store, seen = Store(tmp_path / "shards"), set()
    for row in rows.chosen(small=False):
        settings = rows.settings_of(row, False, {"device": "cpu", "parallel": 3})
        assert (settings.repeats, settings.epochs, settings.patience) == (10, 200, 50)
        assert (settings.seconds, settings.statistics) == (60, "all")
        assert settings.train_share == row.share and settings.network.depth == row.depth
        one = rows.protocol(row, settings, store, False)
        other = rows.settings_of(row, False, {"compile": "default"})
        assert rows.protocol(row, other, store, False) == one  # how it is computed is no part of it
        seen.add(json.dumps(one))
        if row.start == "random":
            assert rows.of_paper(row)
    assert len(seen) == len(rows.chosen(small=False))
    assert rows.shards_for(Row(fs=128), [store]) is None


def test_a_line_that_was_cut_off_is_no_line(tmp_path: Path) -> None:
    good = json.dumps({**XEON, "date": "d", "stage": "right", "name": "a", "values": {}})
    (tmp_path / report.RESULTS).write_text(f"{good}\n{good[:40]}")
    assert len(report.lines(tmp_path)) == 1


def test_rows_are_trained_the_way_that_was_fastest(tmp_path: Path) -> None:
    def how(**speeds: dict[str, Any]) -> dict[str, Any]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        out.mkdir()
        call = Call(out, "cuda", [], [], [], {**H200, "date": "d"}, 0.0)
        recording = {"network": "ResNet-18", "samples": 15_000}
        for name, values in speeds.items():
            call.write("speed", name, {**({} if "processes" in values else recording), **values})
        return fastest(call)

    base = {"way": "replayed", "frames_s": 1000.0}
    two, three = ({"processes": n, "frames_s": rate} for n, rate in ((2, 1300.0), (3, 1040.0)))
    assert how() == how(a=base) == {"device": "cuda"}
    assert how(a=base, b={"way": "compiled", "frames_s": 1050.0}) == {"device": "cuda"}
    fast = how(a=base, b={"way": "compiled", "frames_s": 1500.0}, c=two, d=three)
    assert fast == {"device": "cuda", "compile": "default", "parallel": 2}
    assert how(a=base, d=three) == {"device": "cuda"}


def test_operations_and_bytes_of_a_frame() -> None:
    settings = training(Bench("cpu", True, [], [], {}), batch=2, frame=2048)
    flops, traffic = work(settings)
    assert flops == pytest.approx(2.8e9, rel=0.02)
    assert traffic == pytest.approx(11e6, rel=0.15)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shards", "nothing"], "nothing: no such folder; name an archive or a folder of shards"),
        (["--shards", "x", "--again", "spead"], "--again: no stage spead; there are machine"),
    ],
)
def test_mistakes_are_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), "--out", "out", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"gpu.py: error: {said}")
    assert not (tmp_path / "out").exists()
