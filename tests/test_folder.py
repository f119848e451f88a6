"""The files of a data set from anywhere: the same names and bytes, and clear words for faults."""

from __future__ import annotations

import hashlib
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from operator import length_hint
from pathlib import Path

import pytest
import servers
from fsspec.config import conf

from ecgpipe.errors import BadRecord, EcgpipeError, Unreachable
from ecgpipe.files import folder, remote
from ecgpipe.files.folder import SUMS, Folder


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that follow one another at once."""
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(remote, "LONGEST_WAIT", 0.01)


def content(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest() * 50


NAMES = [
    *(f"p0{p}/p0{p}00{q}/p0{p}00{q}_s{s:02d}.{e}" for p in "01" for q in "05" for s in (0, 3)
      for e in ("hea", "dat")),
    "A0001.hea", "A0001.mat", "training/A00001.hea", "training/A00/A00002.hea", "REFERENCE-v3.csv",
    "odd names/100 % of#it?.hea",
]  # fmt: skip
PATTERNS = [
    "p[0-9][0-9]/p[0-9]*/p[0-9]*_s[0-9][0-9].*", "A[0-9]*.hea", "**/A[0-9]*.hea", "**/*.hea",
    "training/A[0-9]*/A[0-9]*.hea", "REFERENCE*.csv", "*", "p0?/*/*_s03.dat", "nothing*",
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content(name))
    return root


def publish(root: Path) -> None:
    lines = (f"{hashlib.sha256(content(name)).hexdigest()} {name}\n" for name in NAMES)
    (root / SUMS).write_text("".join(lines))


def pack(root: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(p for p in root.rglob("*") if p.is_file()):
            packed.write(file, inside + file.relative_to(root).as_posix())
    return path


@pytest.fixture
def web(root: Path) -> Iterator[servers.Server]:
    with servers.serve(servers.Server(servers.from_folder(root))) as server:
        yield server


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("place", ["web", "zip", "zip with a folder", "zip://", "zip on the web"])
def test_the_same_names_and_bytes_from_anywhere(
    root: Path, tmp_path: Path, web: servers.Server, place: str, published: bool
) -> None:
    if published:
        publish(root)
    here = Folder.open(root)
    inside = {"zip with a folder": "mit-bih-1.0.0/", "zip://": "a/b/"}.get(place, "")
    url = str(pack(root, tmp_path / "packed.zip", inside))
    if place == "web":
        url = web.url + "/"
    elif place == "zip://":
        url = f"zip://a/b::{url}"
    elif place == "zip on the web":
        Path(url).rename(root / "packed.zip")
        url = web.url + "/packed.zip"
    there = Folder.open(url)
    for pattern in PATTERNS:
        found = set(here.find(pattern)) - {"packed.zip", SUMS}
        assert found == set(there.find(pattern)) - {SUMS}, pattern
        assert found or pattern == "nothing*"
    assert here.find("**/*.hea") == Folder.open(f"file://{root}").find("**/*.hea")
    assert there.find("**/*.hea") == sorted(there.find("**/*.hea"))
    assert {name: there.read(name) for name in NAMES} == {name: content(name) for name in NAMES}
    assert there.has("A0001.mat") and not there.has("A0002.mat")
    assert place == "web" or not there.has("training")
    assert [there.size(name) for name in NAMES] == [len(content(name)) for name in NAMES]
    files = there.fetch([NAMES[0], "p00/none.hea"])
    assert dict(files) == {NAMES[0]: content(NAMES[0])} and "p00/none.hea" not in files
    assert files.inputs == here.fetch([NAMES[0], "p00/none.hea"]).inputs
    with pytest.raises(BadRecord, match=r"^p00/none\.hea: missing"):
        files["p00/none.hea"]
    with pytest.raises(EcgpipeError, match=r"p00/none\.hea: .*fetch it again"):
        there.read("p00/none.hea")
    together = there.fetch_all([NAMES[:2], NAMES[:2], NAMES[2:3], ["none"], NAMES[3:]])
    assert [len(f) for f in together] == [2, 2, 1, 0, len(NAMES) - 3]
    assert there.unchanged(files.inputs) and there.only(files.inputs).unchanged(files.inputs)
    assert not there.unchanged({NAMES[0]: None}) and not there.unchanged({"none": {"bytes": 3}})
    assert pickle.loads(pickle.dumps(there)) == there


def _from_worker(there: Folder) -> list[bytes]:
    return [f[name] for f, name in zip(there.fetch_all([n] for n in NAMES), NAMES, strict=True)]


@pytest.mark.slow
def test_a_spawned_worker_reads_the_same(root: Path, web: servers.Server) -> None:
    publish(root)
    there = Folder.open(web.url)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(_from_worker, there).result() == _from_worker(there)


@pytest.mark.parametrize("published", [True, False])
def test_nothing_is_lost_where_one_request_in_five_fails(
    root: Path, web: servers.Server, published: bool
) -> None:
    if published:
        publish(root)
    web.every, web.may_garble = 5, lambda path: published and path != f"/{SUMS}"
    there = Folder.open(web.url)
    assert there.find("**/*") == sorted(NAMES)
    for _ in range(3):
        assert _from_worker(there) == [content(name) for name in NAMES]
    assert all(web.failed[fault] > 1 for fault in servers.FAULTS if published or fault != "garble")


def test_a_zip_is_read_through_faults(root: Path, tmp_path: Path) -> None:
    pack(root, tmp_path / "packed.zip")
    with servers.serve(servers.Server(servers.from_folder(tmp_path))) as web:
        web.every = 5
        for _ in range(8):
            there = Folder.open(web.url + "/packed.zip")
            assert there.find("**/*") == sorted(NAMES)
            assert _from_worker(there) == [content(name) for name in NAMES]
        assert all(web.failed[fault] for fault in servers.FAULTS)


def test_a_dead_link_hides_nothing(root: Path, web: servers.Server) -> None:
    given = web.answer
    web.answer = lambda method, target, headers: (
        (404, {}, b"") if "/p01/" in target else given(method, target, headers)
    )
    assert Folder.open(web.url).find("**/*") == sorted(n for n in NAMES if "p01" not in n)


def test_wrong_bytes_are_refused_by_name(root: Path, web: servers.Server) -> None:
    publish(root)
    (root / NAMES[0]).write_bytes(b"x" + content(NAMES[0])[1:])
    for there in (Folder.open(root), Folder.open(web.url)):
        files = there.fetch(NAMES[:2])
        assert NAMES[0] not in files and files[NAMES[1]] == content(NAMES[1])
        with pytest.raises(BadRecord, match=f"^{NAMES[0]}: differs from {SUMS}"):
            files[NAMES[0]]
        assert not there.unchanged(files.inputs)
    assert web.asked[f"/{NAMES[0]}"] == folder.ATTEMPTS
    packed = pack(root, root / "packed.zip")
    stored = bytearray(packed.read_bytes())
    stored[stored.index(b"A0001.mat") + 12] ^= 255
    packed.write_bytes(stored)
    files = Folder.open(packed).fetch(["A0001.hea", "A0001.mat"])
    assert files["A0001.hea"] == content("A0001.hea")
    with pytest.raises(BadRecord, match=r"^A0001\.mat: damaged in its zip"):
        files["A0001.mat"]


def test_what_is_not_there_is_asked_for_once(root: Path, web: servers.Server) -> None:
    publish(root)
    (root / NAMES[0]).unlink()
    there = Folder.open(web.url)
    assert NAMES[0] in there.find("p00/*/*") and NAMES[0] not in there.fetch(NAMES[:1])
    assert web.asked[f"/{NAMES[0]}"] == 1


def test_after_all_attempts_it_is_unreachable(root: Path, web: servers.Server) -> None:
    publish(root)
    there = Folder.open(web.url)
    web.every, web.faults = 1, cycle(["drop", "unavailable", "truncate"])
    with pytest.raises(Unreachable, match=rf"{NAMES[0]}: could .* 8 attempts .*continue"):
        there.fetch(NAMES[:1])
    with pytest.raises(Unreachable):
        list(there.fetch_all([NAMES[:1], NAMES[1:2]]))
    web.faults = cycle(["drop"])
    with pytest.raises(Unreachable):
        there.unchanged({"unlisted": {"bytes": 1}})
    with pytest.raises(Unreachable, match=r"SHA256SUMS\.txt: could not be read"):
        Folder.open(web.url)


def test_a_server_that_stops_sending_is_given_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "READ_TIMEOUT", 0.05)
    with servers.serve(servers.Server(servers.from_folder(root), 1, ("stall",))) as web:
        with pytest.raises(Unreachable, match="Timeout"):
            Folder.open(web.url)
        assert web.failed["stall"] == folder.ATTEMPTS


def _refuse(status: int) -> Callable[..., servers.Answer]:
    return lambda *_: (status, {}, b"")


def test_mistakes_are_said_in_one_line(
    root: Path, tmp_path: Path, web: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_zip, empty = tmp_path / "no.zip", tmp_path / "empty.zip"
    no_zip.write_bytes(b"<html>please log in</html>")
    zipfile.ZipFile(empty, "w").close()
    (root / "no.zip").write_bytes(no_zip.read_bytes())
    cases = [
        (tmp_path / "none", "no such folder; name the one"),
        (tmp_path / "none.zip", "nothing there, or it cannot be listed; check the address"),
        (no_zip, "not a zip file, or damaged"),
        (empty, "nothing there"),
        (web.url + "/no.zip", "not a zip file, or damaged"),
        (web.url + "/none/", "nothing there, or it cannot be listed; check the address"),
        ("nowhere://at/all", r"cannot be opened \(Protocol not known: nowhere"),
        ("http://127.0.0.1:9/none", r"could not be read in 8 attempts \(Client"),
    ]
    for url, words in cases:
        with pytest.raises(EcgpipeError, match=f"^{re.escape(str(url))}.*{words}"):
            Folder.open(url)
    (root / SUMS).write_text("<html>please log in</html>\n")
    with pytest.raises(EcgpipeError, match=r"SHA256SUMS\.txt: line 1 is no SHA-256 and a name"):
        Folder.open(web.url)
    for status in (401, 403):
        web.answer = _refuse(status)
        asked = web.asked.total()
        with pytest.raises(Unreachable, match=r"permission denied .* set your credentials"):
            Folder.open(web.url)
        assert web.asked.total() == asked + 1
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(EcgpipeError, match=r"run pip install 'ecgpipe\[s3\]'"):
        Folder.open("s3://physionet-open/none")


def test_recordings_are_read_ahead_but_not_far(root: Path, web: servers.Server) -> None:
    for number in range(60):
        (root / f"{number:03d}.hea").write_bytes(b"%d" % number)
    there = Folder.open(web.url)
    before = web.asked.total()
    numbers = iter(range(60))
    all_files = there.fetch_all([f"{n:03d}.hea"] for n in numbers)
    for number in range(60):
        assert next(all_files)[f"{number:03d}.hea"] == b"%d" % number
        assert web.asked.total() - before <= number + folder.AHEAD
        # One more is taken, to compare its files with those of the last.
        assert 60 - length_hint(numbers) <= number + folder.AHEAD + 1
    with pytest.raises(StopIteration):
        next(all_files)
    assert web.asked.total() == before + 60


def test_what_changed_since_is_seen(root: Path, tmp_path: Path, web: servers.Server) -> None:
    name = "A0001.mat"
    path = pack(root, tmp_path / "packed.zip")
    roots = [str(root), web.url, str(path)]
    seen = [Folder.open(r).fetch([name]).inputs for r in roots]
    (root / name).write_bytes(content(name) + b"more")
    pack(root, path)
    assert [Folder.open(r).unchanged(s) for r, s in zip(roots, seen, strict=True)] == [False] * 3
    (root / name).write_bytes(content("other"))
    pack(root, path)
    # Where nothing is published, a remote file of the same size is taken for the same.
    assert [Folder.open(r).unchanged(s) for r, s in zip(roots, seen, strict=True)] == [
        False, True, False,
    ]  # fmt: skip
    publish(root)
    assert Folder.open(web.url).unchanged(seen[1])


@pytest.mark.parametrize("given", [{}, {"AWS_PROFILE": "mine"}, {"key": "me", "secret": "it"}])
def test_open_buckets_are_read_anonymously(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setitem(conf, "s3", {k: v for k, v in given.items() if k.islower()})
    for name in given.keys() - conf["s3"].keys():
        monkeypatch.setenv(name, given[name])
    remote.close_all()
    opened = remote.open_remote("s3://physionet-open/mitdb/1.0.0/")
    assert opened.base == "physionet-open/mitdb/1.0.0" and opened.system.anon is not bool(given)
    packed = remote.storage_options("zip::s3://physionet-open/x.zip")
    assert packed.keys() == {"s3"} and packed["s3"]["anon"] is not bool(given)
