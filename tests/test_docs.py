"""What the documents say to type is typed."""

from __future__ import annotations

import os
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(document: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text(), re.M | re.S)
    assert found, f"{document} has no {language} block"
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, stores: Path) -> Path:
    """Simulated stores, where the documents say they are."""
    return shutil.copytree(stores, tmp_path_factory.mktemp("place") / "stores")


@pytest.mark.parametrize("document", ["storage_layout.md", "README.md"])
def test_python_snippets_run(document: str, place: Path) -> None:
    for code in blocks(document, "python"):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=place, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_layout_names_every_array_and_member(place: Path) -> None:
    text = (ROOT / "storage_layout.md").read_text()
    part = place / "archive" / "icentia11k" / "records.zarr" / "p00000"
    names = {path.name for path in part.iterdir() if path.is_dir()}
    assert len(names) == 14
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commands_run_one_document_after_the_other(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(*command: str) -> str:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    for document in ("README.md", "docs/finetuning.md", "docs/predicting.md"):
        run("sh", "-e", "-c", "\n".join(blocks(document, "sh")))
    made = ("report.html", "card.html", "A00001.png", "half.html", "over_time.png", "atrial.onnx")
    for name in made:
        assert (tmp_path / name).stat().st_size > 10_000
    for code in blocks("docs/predicting.md", "python"):
        assert "N 0." in run(sys.executable, "-W", "error", "-c", code)


def test_names_in_the_architecture_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    packages = "|".join(path.stem for path in (ROOT / "ecgpipe").iterdir() if path.stem[0] != "_")
    names = set(re.findall(rf"`((?:{packages})(?:\.\w+)+)`", text))
    assert len(names) > 30
    assert [name for name in sorted(names) if pydoc.locate(f"ecgpipe.{name}") is None] == []


def test_the_architecture_lists_every_folder() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    listed = re.findall(r"^[├└]── (\w+)", text, re.M)
    assert sorted(listed) == sorted(
        path.stem for path in (ROOT / "ecgpipe").iterdir() if path.stem[0] != "_"
    )
