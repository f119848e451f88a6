"""Data sets streamed from servers that fail: nothing lost, nothing doubled."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import databases as db
import pytest
import servers
from command_line import start
from fsspec.config import conf

from ecgpipe.errors import EcgpipeError, Unreachable
from ecgpipe.files import remote
from ecgpipe.files.folder import Folder
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.verify import verify


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that follow one another at once."""
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(remote, "LONGEST_WAIT", 0.01)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return db.small(tmp_path / "small")


@pytest.fixture
def bucket(moto: str) -> Iterator[Callable[[Path], str]]:
    """Copies a folder into a bucket that anyone may read; gives its URL."""
    import boto3

    client = boto3.client(
        "s3", endpoint_url=moto, region_name="us-east-1",
        aws_access_key_id="owner", aws_secret_access_key="secret",
    )  # fmt: skip

    def upload(root: Path) -> str:
        name = f"open-{hashlib.md5(str(root).encode()).hexdigest()}"
        client.create_bucket(Bucket=name, ACL="public-read")
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            key = f"set/1.0/{path.relative_to(root).as_posix()}"
            client.put_object(Bucket=name, Key=key, Body=path.read_bytes(), ACL="public-read")
        return f"s3://{name}/set/1.0"

    yield upload
    client.close()


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("place", ["web", "s3"])
def test_a_server_that_fails_one_request_in_five_gives_the_same_archive(
    tmp_path: Path,
    small: Path,
    moto: str,
    bucket: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    published: bool,
) -> None:
    if published:
        servers.publish(small)
    kinds = servers.FAULTS if published else servers.FAULTS[:3]
    answer = servers.from_folder(small) if place == "web" else servers.from_server(moto)
    plan = servers.Server(answer, 5, kinds)
    plan.may_garble = servers.garbles
    here, there = tmp_path / "local", tmp_path / "streamed"
    prepare("icentia11k", small, here, 1)
    with servers.serve(plan):
        source = plan.url if place == "web" else bucket(small)
        monkeypatch.setitem(conf, "s3", {"endpoint_url": plan.url})
        prepare("icentia11k", source, there, 1)
        assert db.tree(there) == db.tree(here) and verify(there) == []
        assert set(plan.failed) == set(kinds)
        data = {path for path in plan.given if path.endswith((".hea", ".dat", ".atr"))}
        assert len(data) == 7 + 7 + 6 and {plan.given[path] for path in data} == {1}
        written, given, plan.every = db.sidecars(there), plan.given.copy(), 0
        prepare("icentia11k", source, there, 1)
        assert db.sidecars(there) == written
        assert not data & (plan.given - given).keys()  # it knows without downloading
        (there / "parts" / "p00003.json").unlink()
        prepare("icentia11k", source, there, 1)
        again = {path for path in data if plan.given[path] > given[path]}
        assert again == {path for path in data if "p00003" in path} and db.tree(there) == db.tree(
            here
        )


@pytest.mark.slow
def test_workers_stream_from_s3(
    tmp_path: Path, small: Path, moto: str, bucket: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plan = servers.Server(servers.from_server(moto), 5)
    plan.may_garble = servers.garbles
    source = bucket(servers.publish(small))
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with servers.serve(plan):
        monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", plan.url)
        # A process of its own, because fsspec reads its variables when it is imported.
        with start("prepare", "icentia11k", source, tmp_path / "streamed", "--workers", 2) as ran:
            _, printed = ran.communicate()
        assert ran.returncode == 0, printed
        assert set(plan.failed) == set(servers.FAULTS)
    prepare("icentia11k", small, tmp_path / "local", 1)
    assert db.tree(tmp_path / "streamed") == db.tree(tmp_path / "local")


def test_what_cannot_be_had_fails_its_part_alone(tmp_path: Path, small: Path) -> None:
    plan = servers.Server(servers.from_folder(servers.publish(small)))
    there = tmp_path / "streamed"
    with servers.serve(plan):
        plan.broken = frozenset({"/p00/p00001/p00001_s00.dat"})
        with pytest.raises(Unreachable, match=r"1 of 5 parts .*p00001_s00\.dat: could not be read"):
            prepare("icentia11k", plan.url, there, 1)
        assert sorted(db.sidecars(there)) == ["p00000", "p00002", "p00003", "p00004"]
        plan.broken = frozenset()
        given = plan.given.copy()
        prepare("icentia11k", plan.url, there, 1)
        assert {p for p in plan.given - given if "/p0" in p} == {
            f"/p00/p00001/p00001_s00.{e}" for e in ("hea", "dat", "atr")
        }
    prepare("icentia11k", small, tmp_path / "local", 1)
    assert db.tree(there) == db.tree(tmp_path / "local")


def test_wrong_bytes_refuse_their_record_until_they_are_mended(tmp_path: Path, small: Path) -> None:
    plan = servers.Server(servers.from_folder(servers.publish(small)))
    there = tmp_path / "streamed"
    with servers.serve(plan):
        plan.garbled = frozenset({"/p00/p00003/p00003_s01.dat"})
        refused = prepare("icentia11k", plan.url, there, 1).refused
        assert [row.key for row in refused] == ["p00003_s01"]
        assert refused[0].reason.startswith("p00/p00003/p00003_s01.dat: differs from SHA256SUMS")
        plan.garbled = frozenset()
        assert prepare("icentia11k", plan.url, there, 1).totals.refused == 0
    prepare("icentia11k", small, tmp_path / "local", 1)
    assert db.tree(there) == db.tree(tmp_path / "local")


def test_the_same_archive_from_a_zip_and_from_a_simulated_set_elsewhere(
    tmp_path: Path, cinc: Path
) -> None:
    packed = tmp_path / "training2017.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for path in sorted(cinc.rglob("*")):
            file.write(path, f"training2017/{path.relative_to(cinc)}")
    with servers.serve(servers.Server(servers.from_folder(tmp_path))) as web:
        made = [
            prepare("cinc2017", source, tmp_path / f"archive-{i}", 1)
            for i, source in enumerate([cinc, packed, f"{web.url}/training2017.zip"])
        ]
    assert made[0] == made[1] == made[2]
    assert made[0].totals.records == 40 and made[0].recipe.simulated


def test_a_simulated_set_is_known_as_such_elsewhere(tmp_path: Path, icentia: Path) -> None:
    with servers.serve(servers.Server(servers.from_folder(icentia))) as web:
        prepare("icentia11k", web.url, tmp_path / "archive", 1, patients="1-2", segments=1)
        asked = "".join(web.given)
    recipe = json.loads((tmp_path / "archive" / "recipe.json").read_text())
    assert recipe["simulated"] and recipe["segments"] == 1
    assert sorted(db.sidecars(tmp_path / "archive")) == ["p00001", "p00002"]
    assert "p00002_s00.dat" in asked and "_s01.dat" not in asked and "p00003" not in asked


def test_patients_and_segments_choose(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for patient in range(4):
        for segment in (0, 1, 2, 5, 7):
            db.icentia(root, patient, segment, 600)
    with servers.serve(servers.Server(servers.from_folder(servers.publish(root)))) as web:
        prepare("icentia11k", web.url, tmp_path / "some", 1, patients="1-2", segments=3)
        downloaded = {path[-14:-4] for path in web.given if path.endswith(".dat")}
    chosen = {f"p{p:05d}_s{s:02d}" for p in (1, 2) for s in (0, 2, 7)}
    assert downloaded == chosen
    totals = json.loads((tmp_path / "some" / "manifest.json").read_text())["totals"]
    assert totals["records"] == 6 and totals["patients"] == 2


@pytest.mark.parametrize("place", ["web", "s3", "mistyped"])
def test_no_such_address(
    tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setitem(conf, "s3", {"endpoint_url": moto})
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    url = {"web": f"{moto}/none/at/all/", "s3": "s3://none-such/1.0", "mistyped": "s4://x"}[place]
    with pytest.raises(EcgpipeError, match=r"^s?\w+://.*(check the address|permission denied)"):
        Folder.open(url)
