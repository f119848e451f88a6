"""The whole way, as `make demo` goes it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ecgpipe.storage.verify import verify

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_demo_ends_with_a_report_and_a_second_call_is_quick(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "flows.reproduce", "--preset", "demo", "--out", str(tmp_path)]
    env = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")}
    first = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.strip().endswith(f"the report is {tmp_path / 'report.html'}")
    page = (tmp_path / "report.html").read_text()
    assert "simulated" in page and "<svg" in page

    for store in sorted(tmp_path.glob("*/*/manifest.json")):
        assert verify(store.parent) == []
    with (tmp_path / "report.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 2
    for start in ("random", "beat-2048"):
        run = tmp_path / "runs" / f"finetune-{start}"
        assert len(list(run.glob("repeat-*/predictions.csv"))) == 2

    made = [
        path for name in ("*.tar", "model.pt", "predictions.csv") for path in tmp_path.rglob(name)
    ]
    before = {path: path.stat().st_mtime_ns for path in made}
    again = subprocess.run(call, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (tmp_path / "report.html").read_text() == page
