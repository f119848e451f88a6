"""The order of imports, what the command line pulls in, docstrings and lengths of files."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "ecgpipe").rglob("*.py"))
ORDER = (
    {"errors", "types", "config", "progress"}, {"files"}, {"formats"}, {"datasets"}, {"simulator"},
    {"labels"}, {"storage"}, {"loading"}, {"models"}, {"metrics"}, {"tasks"}, {"training"},
    {"inference"}, {"plots"}, {"reports"}, {"experiments"}, {"cli"},
)  # fmt: skip
PLACE = {name: place for place, names in enumerate(ORDER) for name in names}
HEAVY = {"torch", "zarr", "wfdb", "pandas", "prefect", "matplotlib"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _imports(path: Path) -> Iterator[str]:
    """Full names of what a module imports, wherever in it."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            full = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{full}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_follow_the_order(path: Path) -> None:
    part = path.relative_to(ROOT / "ecgpipe").with_suffix("").parts[0]
    imported = {name.split(".")[1] for name in _imports(path) if name.startswith("ecgpipe.")}
    if part in ("__init__", "__main__"):
        assert imported <= PLACE.keys()
        return
    late = {name for name in imported - {"__version__"} if PLACE[name] > PLACE[part]}
    assert not late, f"{part} comes before {', '.join(sorted(late))}"


def test_every_part_has_a_place() -> None:
    parts = {path.relative_to(ROOT / "ecgpipe").with_suffix("").parts[0] for path in FILES}
    assert parts - {"__init__", "__main__"} == PLACE.keys()


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_nothing_imports_flows(path: Path) -> None:
    assert not {name.split(".")[0] for name in _imports(path)} & {"prefect", "flows", "tests"}


def test_the_reader_of_orders_sees_what_is_there() -> None:
    found = set(_imports(ROOT / "ecgpipe" / "training" / "finetune.py"))
    assert {
        "functools.cached_property",
        "ecgpipe.models.transfer.transfer",
        "ecgpipe.training.loop.fit",
    } <= found
    assert "ecgpipe.storage.store.open_store" in set(_imports(ROOT / "ecgpipe" / "__init__.py"))


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
HELP = """
import json, sys
sys.argv = ["ecgpipe", "--help"]
try:
    import ecgpipe
    if {call}:
        from ecgpipe.cli import main
        main()
finally:
    print("\\n" + json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize("call", [False, True], ids=["import", "help"])
def test_light_at_the_start(call: bool) -> None:
    run = subprocess.run(
        [sys.executable, "-c", HELP.format(call=call)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
    )
    loaded = {name.split(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}
    assert "ecgpipe" in loaded
    assert ("finetune" in run.stdout) == call
    assert not loaded & HEAVY
    assert len(json.loads(run.stdout.splitlines()[-1])) < 300  # few modules are what makes it quick


def _undocumented(node: ast.AST, name: str) -> Iterator[str]:
    if ast.get_docstring(node) is None:  # type: ignore[arg-type]
        yield name
    for child in getattr(node, "body", []):
        kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(child, kinds) and not child.name.startswith("_"):
            if isinstance(node, ast.FunctionDef):
                continue
            yield from _undocumented(child, f"{name}.{child.name}")


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_public_things_say_what_they_are(path: Path) -> None:
    assert not list(_undocumented(ast.parse(path.read_text()), path.stem))


def test_no_file_is_long() -> None:
    files = [*FILES, *(ROOT / "flows").rglob("*.py")]
    lengths = {_name(path): len(path.read_text().splitlines()) for path in files}
    assert not {name: length for name, length in lengths.items() if length > 320}
