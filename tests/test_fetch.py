"""Copies of small data sets: whole, resumed, checked, and honest about what could not be had."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import databases as db
import pytest
import servers

from ecgpipe.datasets import download as module
from ecgpipe.datasets.download import fetch
from ecgpipe.errors import EcgpipeError
from ecgpipe.files import remote
from ecgpipe.files.folder import SUMS
from ecgpipe.storage.archive import prepare


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that follow one another at once."""
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(remote, "LONGEST_WAIT", 0.01)


@pytest.fixture
def mitdb(tmp_path: Path) -> Path:
    """What PhysioNet's folder has, with files that nobody needs."""
    root = tmp_path / "published"
    for record in ("100", "101", "201", "202"):
        db.mitdb(root, record, samples=3000)
    (root / "mitdbdir").mkdir()
    for name in ("LICENSE.txt", "RECORDS", "100.xws", "mitdbdir/intro.htm"):
        (root / name).write_text(name)
    return root


WANTED = {f"{record}.{e}" for record in (100, 101, 201, 202) for e in ("hea", "dat", "atr")}


@pytest.mark.parametrize("published", [True, False])
def test_a_copy_from_a_server_that_fails(tmp_path: Path, mitdb: Path, published: bool) -> None:
    if published:
        servers.publish(mitdb)
    plan = servers.Server(servers.from_folder(mitdb), 5, servers.FAULTS[: 4 if published else 3])
    plan.may_garble = servers.garbles
    dest = tmp_path / "data" / "mitdb"
    with servers.serve(plan):
        line = fetch("mitdb", dest, plan.url)
        extra = {"LICENSE.txt", *([SUMS] if published else [])}
        assert set(db.tree(dest)) == WANTED | extra
        for name in WANTED | {"LICENSE.txt"}:
            assert (dest / name).read_bytes() == (mitdb / name).read_bytes()
        size = sum((mitdb / name).stat().st_size for name in WANTED | {"LICENSE.txt"})
        assert line == f"{dest}: 13 of 13 files, {size / 1e6:,.1f} MB, 0 there already"
        given, plan.every = plan.given.copy(), 0
        line = fetch("mitdb", dest, plan.url)
        assert line.endswith("13 there already")
        assert not {path[1:] for path in plan.given - given} & WANTED
    if published:  # the list is that of the copy, which is whole by it
        listed = dict(reversed(row.split()) for row in (dest / SUMS).read_text().splitlines())
        assert listed == {k: v for k, v in db.tree(dest).items() if k != SUMS}
    assert prepare("mitdb", dest, tmp_path / "a", 1) == prepare("mitdb", mitdb, tmp_path / "b", 1)


def test_an_interrupted_copy_goes_on(
    tmp_path: Path, mitdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.publish(mitdb)
    dest = tmp_path / "copy"
    rename, count = os.replace, 0

    def interrupt(old: Path, new: Path) -> None:
        nonlocal count
        count += Path(new).name != SUMS
        if count > 4:
            raise KeyboardInterrupt
        rename(old, new)

    with servers.serve(servers.Server(servers.from_folder(mitdb))) as web:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupt)
            patch.setattr(module, "THREADS", 1)
            with pytest.raises(KeyboardInterrupt):
                fetch("mitdb", dest, web.url)
        there = WANTED & set(db.tree(dest))
        assert len(there) == 4 and not any(name.endswith(".partial") for name in db.tree(dest))
        damaged = min(there)
        (dest / damaged).write_bytes(b"cut")
        given = web.given.copy()
        assert fetch("mitdb", dest, web.url).endswith("13 of 13 files, 0.0 MB, 3 there already")
        again = {path[1:] for path in web.given - given} & WANTED
        assert again == WANTED - there | {damaged}
    assert set(db.tree(dest)) == WANTED | {"LICENSE.txt", SUMS}


def test_what_could_not_be_copied_is_named(tmp_path: Path, mitdb: Path) -> None:
    dest = tmp_path / "copy"
    with servers.serve(servers.Server(servers.from_folder(servers.publish(mitdb)))) as web:
        web.garbled, web.broken = frozenset({"/100.dat"}), frozenset({"/202.hea"})
        (mitdb / "101.atr").unlink()
        with pytest.raises(EcgpipeError) as error:
            fetch("mitdb", dest, web.url)
        assert (
            "10 of 13 files, 0.0 MB, 0 there already; 3 could not be copied: 100.dat, 101.atr, "
            f"202.hea (100.dat: differs from {SUMS}" in str(error.value)
        )
        assert set(db.tree(dest)) == (WANTED | {"LICENSE.txt", SUMS}) - {
            "100.dat", "101.atr", "202.hea",
        }  # fmt: skip
        web.answer, web.asked = lambda *_: (503, {}, b""), type(web.asked)()
        with pytest.raises(EcgpipeError, match="could not be read in 8 attempts"):
            fetch("mitdb", dest, web.url)


def test_the_files_that_are_copied_are_those_that_are_read(tmp_path: Path) -> None:
    names = {
        "cinc2017": [
            "training/A00/A00001.hea", "training/A00/A00001.mat", "REFERENCE-v3.csv",
            "training/REFERENCE.csv", "-validation/A00001.hea", "-training2017.zip",
            "-sources/x.zip", "-training/A00/RECORDS",
        ],
        "ptbxl": [
            "ptbxl_database.csv", "scp_statements.csv", "records500/00000/00001_hr.hea",
            "records500/21000/21837_hr.dat", "-records100/00000/00001_lr.hea",
            "-example_physionet.py",
        ],
    }  # fmt: skip
    for name, paths in names.items():
        root = tmp_path / name
        for path in paths:
            (root / path.removeprefix("-")).parent.mkdir(parents=True, exist_ok=True)
            (root / path.removeprefix("-")).write_text(path)
        with servers.serve(servers.Server(servers.from_folder(servers.publish(root)))) as web:
            fetch(name, tmp_path / "copies" / name, web.url)
        found = {p for p, kind in db.tree(tmp_path / "copies" / name).items() if kind != "folder"}
        assert found == {p for p in paths if p[0] != "-"} | {SUMS}


def test_mistakes_of_a_copy(tmp_path: Path, mitdb: Path) -> None:
    with pytest.raises(EcgpipeError, match=r"too large .* `ecgpipe prepare icentia11k s3://phys"):
        fetch("icentia11k", tmp_path / "copy")
    with pytest.raises(EcgpipeError, match=r"there are: cinc2017, mitdb, ptbxl"):
        fetch("mitbih", tmp_path / "copy")
    with pytest.raises(EcgpipeError, match="no files of ptbxl; check the address"):
        fetch("ptbxl", tmp_path / "copy", str(mitdb))
    (tmp_path / "file").write_text("")
    with pytest.raises(EcgpipeError, match=r"file.*: cannot be written"):
        fetch("mitdb", tmp_path / "file", str(mitdb))
    assert fetch("mitdb", tmp_path / "copy", str(mitdb)).endswith("0 there already")
    shutil.rmtree(mitdb)
    with pytest.raises(EcgpipeError, match="no such folder"):
        fetch("mitdb", tmp_path / "copy", str(mitdb))
