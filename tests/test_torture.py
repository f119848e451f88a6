"""The short form of ``make torture``."""

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_nothing_is_wrong_in_silence() -> None:
    command = [sys.executable, "tests/torture/torture.py", "--minutes", "2", "--seed", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| kill prepare |" in done.stdout and "| shards train |" in done.stdout
