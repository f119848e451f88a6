"""Looking into a store: the table, single records, Dask over all of it, `inspect`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import databases as db
import numpy as np
import pytest
from command_line import run

from ecgpipe.datasets import read_records
from ecgpipe.errors import EcgpipeError
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.inspect import inspect, text
from ecgpipe.storage.shards import shard
from ecgpipe.storage.store import open_store


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = db.small(tmp_path_factory.mktemp("raw") / "icentia11k")
    (root / "p00/p00003/p00003_s01.dat").unlink()
    return root


@pytest.fixture(scope="module")
def stores(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    prepare("icentia11k", raw, folder / "archive", 1)
    shard(folder / "archive", folder / "shards", 250, "zstd", 1)
    return {"archive": folder / "archive", "shards": folder / "shards"}


KEYS = ["p00000_s00", "p00000_s02", "p00001_s00", "p00002_s01", "p00003_s00", "p00004_s00"]


@pytest.mark.parametrize("kind", ["archive", "shards"])
def test_the_table_and_single_records(stores: dict[str, Path], kind: str) -> None:
    store = open_store(str(stores[kind]))
    table = store.records
    assert list(table.index) == KEYS
    assert list(table["patient"]) == [key[:6] for key in KEYS] == list(table["part"])
    lengths = [900 + 10 * int(key[1:6]) for key in KEYS]
    assert list(table["samples"]) == lengths and list(table["stop"]) == list(np.cumsum(lengths))
    assert list(table["stop"] - table["start"]) == lengths
    assert list(table["seconds"]) == [n / 250 for n in lengths]
    assert table.loc["p00000_s02", "beats"] is None and table.loc["p00000_s00", "beats"]["N"] == 2
    for key in reversed(KEYS):
        record = store.read(key)
        assert record.key == key
        expected = db.coded(int(key[1:6]), int(key[-2:]), record.samples)
        np.testing.assert_array_equal(record.signal, [expected])
    assert [record.key for record in store.read_all()] == KEYS
    with pytest.raises(EcgpipeError, match=r"no record p00003_s01; see `ecgpipe inspect`"):
        store.read("p00003_s01")


@pytest.mark.parametrize("kind", ["archive", "shards"])
def test_the_digest_is_the_sha256_of_the_rest_of_the_manifest(
    stores: dict[str, Path], kind: str
) -> None:
    manifest = json.loads((stores[kind] / "manifest.json").read_text())
    digest = manifest.pop("digest")
    rest = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert digest == hashlib.sha256(rest.encode()).hexdigest()


def test_dask_over_all_parts(raw: Path, stores: dict[str, Path]) -> None:
    store = open_store(stores["archive"])
    everything = np.concatenate([store.read(key).signal for key in KEYS], axis=1)
    assert store.signal.shape == everything.shape and store.signal.dtype == np.int16
    np.testing.assert_array_equal(store.signal.compute(), everything)
    assert store.signal.mean().compute() == pytest.approx(everything.mean(), abs=1e-9)
    row = store.records.loc["p00002_s01"]
    piece = store.signal[:, row["start"] : row["stop"]].compute()
    np.testing.assert_array_equal(piece, [db.coded(2, 1, 920)])
    np.testing.assert_array_equal(store.array("signal", "p00002").compute(), piece)
    beats = [store.read(key).beats for key in KEYS]
    indices = np.concatenate([marks.index for marks in beats if marks is not None])
    np.testing.assert_array_equal(store.array("beat_index").compute(), indices)
    assert store.array("gain").compute().tolist() == [[db.ICENTIA_GAIN]] * len(KEYS)
    with pytest.raises(EcgpipeError, match="shards hold no arrays; open the archive"):
        open_store(stores["shards"]).signal  # noqa: B018


@pytest.mark.parametrize("kind", ["archive", "shards"])
def test_inspect_counts_what_is_there(raw: Path, stores: dict[str, Path], kind: str) -> None:
    found = run("inspect", "--json", stores[kind])
    assert found.returncode == 0 and found.stderr == ""
    facts = json.loads(found.stdout)
    assert facts == json.loads(json.dumps(inspect(stores[kind])))
    assert (facts["kind"], facts["dataset"], facts["simulated"]) == (kind, "icentia11k", False)
    assert (facts["records"], facts["patients"], facts["parts"]) == (6, 5, 5)
    assert facts["fs_Hz"] == [250] and facts["refused"] == 1
    assert facts["records_without_annotations"] == 1
    assert facts["beats"] == {"N": 10, "S": 10, "a": 10, "V": 10, "Q": 5}
    assert facts["rhythms"] == {"(N": 5, ")": 5}
    assert facts["qrs"] == sum(len(r.qrs.index) for r in open_store(stores[kind]).read_all())
    assert [item["key"] for item in facts["refused_records"]] == ["p00003_s01"]
    shown = run("inspect", stores[kind])
    assert shown.returncode == 0 and shown.stdout.rstrip("\n") == text(facts)
    for words in ("6 of 5 patients", "250 Hz", "N 10", "(N 5", "p00003_s01.dat: missing"):
        assert words in shown.stdout
    assert "simulated" not in shown.stdout


def test_what_is_simulated_says_so(tmp_path: Path, cinc: Path) -> None:
    manifest = prepare("cinc2017", cinc, tmp_path / "archive", 1)
    facts = inspect(tmp_path / "archive")
    assert facts["simulated"] and "(simulated)" in text(facts).splitlines()[0]
    assert facts["labels_file"] == "REFERENCE-v3.csv" and "REFERENCE-v3.csv" in text(facts)
    labels = [record.statements[0] for record in read_records("cinc2017", cinc)]
    assert facts["statements"] == {c: labels.count(c) for c in sorted(set(labels))}
    assert facts["digest"] == manifest.digest


def test_what_is_no_store(tmp_path: Path, stores: dict[str, Path]) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/recipe.json").write_text("{}")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/manifest.json").write_text('{"format": 1,')
    (tmp_path / "newer").mkdir()
    manifest = json.loads((stores["archive"] / "manifest.json").read_text())
    (tmp_path / "newer/manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    for name, words in (
        ("nowhere", "no such folder"),
        (".", "no store of ecgpipe"),
        ("begun", "not finished; run its command again"),
        ("broken", "damaged"),
        ("newer", "newer ecgpipe; update"),
    ):
        with pytest.raises(EcgpipeError, match=words) as caught:
            open_store(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    for command in ("inspect", "verify"):
        found = run(command, tmp_path / "begun")
        assert found.returncode == 2 and found.stdout == ""
        assert found.stderr.startswith("ecgpipe: ") and found.stderr.count("\n") == 1
