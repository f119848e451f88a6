"""The archive: lossless, reproducible to the byte, and whole after any interruption."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import databases as db
import numpy as np
import pytest
import sleepecg
import zarr
from command_line import run
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgpipe.datasets import read_records
from ecgpipe.errors import BadRecord, EcgpipeError
from ecgpipe.storage import zarr_part
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.manifest import moments
from ecgpipe.storage.sidecar import RecordRow
from ecgpipe.storage.store import open_store
from ecgpipe.storage.verify import verify
from ecgpipe.storage.zarr_part import PartWriter
from ecgpipe.types import NO_MARKS, Record


@pytest.fixture
def mitdb(tmp_path: Path) -> Path:
    root = tmp_path / "mitdb"
    for record in ("100", "101", "102", "103", "105"):
        db.mitdb(root, record, samples=5000)
    db.mitdb(root, "114", ("V5", "MLII"), 5000)
    return root


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return db.small(tmp_path / "small")


@pytest.mark.parametrize("name", ["icentia11k", "mitdb", "cinc2017"])
def test_records_come_back_as_their_source_gives_them(
    tmp_path: Path, icentia: Path, cinc: Path, mitdb: Path, name: str
) -> None:
    source = {"icentia11k": icentia, "mitdb": mitdb, "cinc2017": cinc}[name]
    prepare(name, source, tmp_path / "archive", 1)
    stored = list(open_store(tmp_path / "archive").read_all())
    raw = list(read_records(name, source))
    assert len(stored) == len(raw) > 1
    for found, record in zip(stored, raw, strict=True):
        lead = 0 if name != "mitdb" else record.leads.index("MLII")
        millivolts = (record.signal[lead] - record.baseline[lead]) / record.gain[lead]
        qrs = sleepecg.detect_heartbeats(millivolts, record.fs)
        # By itself it may miss the last beat or misplace it, see ecgpipe.labels.qrs.
        np.testing.assert_array_equal(found.qrs.index[: len(qrs) - 1], qrs[:-1])
        assert len(qrs) > 2 and len(found.qrs.index) - len(qrs) in (0, 1)
        db.equal(replace(found, qrs=NO_MARKS), record)
    assert verify(tmp_path / "archive") == []


def test_plain_zarr_and_dask_read_it_without_ecgpipe(tmp_path: Path, mitdb: Path) -> None:
    prepare("mitdb", mitdb, tmp_path / "archive", 1)
    root = zarr.open_group(tmp_path / "archive" / "records.zarr", mode="r")
    assert sorted(root.group_keys()) == ["100", "105"]
    keys = []
    for name, part in sorted(root.groups()):
        edges: Any = part["signal_offset"][...]
        beat_edges: Any = part["beat_offset"][...]
        assert len(edges) == len(beat_edges) == len(part.attrs["records"]) + 1
        lazy = da.from_zarr(part["signal"])
        for i, row in enumerate(part.attrs["records"]):
            keys.append(row["key"])
            codes = [db.coded(int(row["key"]), 0, 5000, lead).astype(int) for lead in (0, 1)]
            expected = np.stack(codes) % 4095 - 2047
            np.testing.assert_array_equal(part["signal"][:, edges[i] : edges[i + 1]], expected)
            np.testing.assert_array_equal(lazy[:, edges[i] : edges[i + 1]].compute(), expected)
            at = slice(beat_edges[i], beat_edges[i + 1])
            labels = part["beat_label"][at]
            symbols = [part.attrs["beat_symbols"][j] for j in labels]
            assert part["beat_index"][at].tolist() == [77, 370] and symbols == ["N", "V"]
            assert part["fs"][i] == 360 and part["gain"][i].tolist() == [200, 200]
            assert part["baseline"][i].tolist() == [1024, 1024]
        assert part["signal"].metadata.dimension_names == ("lead", "sample"), name
    assert keys == ["100", "101", "102", "103", "105", "114"]


def test_the_manifest_adds_up(tmp_path: Path, small: Path, mitdb: Path) -> None:
    manifest = prepare("icentia11k", small, tmp_path / "archive", 1)
    records = list(read_records("icentia11k", small))
    millivolts = np.concatenate([r.signal[0] / db.ICENTIA_GAIN for r in records])
    found = manifest.statistics["ecg"]
    assert found.mean_mV == pytest.approx(millivolts.mean(), abs=1e-10, rel=1e-10)
    assert found.std_mV == pytest.approx(millivolts.std(), rel=1e-10)
    totals = manifest.totals
    assert (totals.records, totals.patients, totals.refused) == (7, 5, 0)
    assert totals.samples == len(millivolts) and totals.raw_bytes == 2 * len(millivolts)
    assert totals.hours == pytest.approx(len(millivolts) / 250 / 3600, abs=5e-5)
    assert totals.records_without_annotations == 1
    per_segment = [symbol for _, symbol, _ in db.icentia_rows(900) if symbol != "+"]
    assert totals.beats == {s: 6 * per_segment.count(s) for s in set(per_segment)}
    assert totals.rhythms == {"(N": 6, ")": 6}
    on_disk = (tmp_path / "archive" / "records.zarr").glob("p*/**/*")
    assert totals.stored_bytes == sum(f.stat().st_size for f in on_disk if f.is_file())
    assert manifest.plain() == json.loads((tmp_path / "archive" / "manifest.json").read_text())
    by_lead = prepare("mitdb", mitdb, tmp_path / "two", 1).statistics
    for lead in ("MLII", "V5"):  # by name, wherever it lies in a record
        leads = [r.millivolts()[r.leads.index(lead)] for r in read_records("mitdb", mitdb)]
        assert by_lead[lead].mean_mV == pytest.approx(np.mean(leads, dtype=float), abs=1e-6)
        assert by_lead[lead].std_mV == pytest.approx(np.std(leads, dtype=float), rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-32768, 32767), min_size=1, max_size=50),
            st.floats(0.5, 5000),
            st.integers(-2000, 2000),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_statistics_agree_with_numpy(strips: list[tuple[list[int], float, int]]) -> None:
    rows, millivolts = [], []
    for values, gain, baseline in strips:
        signal = np.array([values], np.int16)
        record = Record(
            "k", "p", 250, ("I",), signal, np.array([gain]), np.array([float(baseline)])
        )
        row = RecordRow.of(record, (), ())
        rows.append(RecordRow.parse(json.dumps(row.plain()).encode(), Path("row.json")))
        millivolts += [(value - baseline) / gain for value in values]
    found = moments((row, 0) for row in rows)
    scale = max(map(abs, millivolts)) + 1e-12
    assert found.mean == pytest.approx(np.mean(millivolts), abs=1e-9 * scale)
    assert found.std == pytest.approx(np.std(millivolts), abs=1e-6 * scale)


def test_records_go_over_the_edges_of_zarr_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_part, "CHUNK", 64)
    monkeypatch.setattr(zarr_part, "SHARD", 256)
    lengths = (100, 300, 256, 1, 700, 255, 256, 512, 3)
    root = tmp_path / "raw"
    for segment, samples in enumerate(lengths):
        db.icentia(root, 5, segment, samples)
    prepare("icentia11k", root, tmp_path / "archive", 1)
    for segment, record in enumerate(open_store(tmp_path / "archive").read_all()):
        np.testing.assert_array_equal(record.signal, [db.coded(5, segment, lengths[segment])])
    array: Any = zarr.open_group(tmp_path / "archive/records.zarr/p00005", mode="r")["signal"]
    assert array.shape == (1, sum(lengths)) and array.shards == (1, 256) and array.chunks == (1, 64)
    files = [
        f for f in (tmp_path / "archive/records.zarr/p00005/signal/c").rglob("*") if f.is_file()
    ]
    assert len(files) == -(-sum(lengths) // 256)
    assert verify(tmp_path / "archive") == []


def test_a_record_with_another_number_of_leads_is_refused(tmp_path: Path) -> None:
    db.mitdb(tmp_path / "raw", "100", samples=3000)
    db.mitdb(tmp_path / "raw", "101", ("MLII", "V5", "V1"), 3000)
    last = db.mitdb(tmp_path / "raw", "102", samples=3000)
    manifest = prepare("mitdb", tmp_path / "raw", tmp_path / "archive", 1)
    (refused,) = manifest.refused
    assert refused.key == "101" and "3 leads" in refused.reason and "2" in refused.reason
    store = open_store(tmp_path / "archive")
    assert list(store.records.index) == ["100", "102"]
    np.testing.assert_array_equal(store.read("102").signal, last)


def test_a_refused_record_leaves_no_trace_in_a_part(tmp_path: Path) -> None:
    one = Record("a", "p", 250, ("I",), np.zeros((1, 9), np.int16), np.ones(1), np.zeros(1))
    signal = np.ones((2, 9), np.int16)
    two = Record("b", "p", 250, ("I", "II"), signal, np.ones(2), np.zeros(2))
    with PartWriter(tmp_path / "part", (), ()) as part:
        part.add(one)
        with pytest.raises(BadRecord, match="b: 2 leads"):
            part.add(two)
    assert zarr_part.open_group(tmp_path / "part")["signal"].shape == (1, 9)


def test_a_part_of_refused_records_alone(tmp_path: Path, small: Path) -> None:
    for file in (small / "p00/p00002").glob("*.dat"):
        file.unlink()
    manifest = prepare("icentia11k", small, tmp_path / "archive", 1)
    assert manifest.totals.records == 6 and manifest.totals.patients == 4
    (part,) = [p for p in manifest.parts if p.name == "p00002"]
    assert (part.records, part.refused) == (0, 1)
    assert not (tmp_path / "archive/records.zarr/p00002").exists()
    store = open_store(tmp_path / "archive")
    assert len(list(store.read_all())) == 6 and store.signal.shape[1] == store.records.stop.iloc[-1]
    assert verify(tmp_path / "archive") == []
    before = db.sidecars(tmp_path / "archive")
    prepare("icentia11k", small, tmp_path / "archive", 1)
    assert db.sidecars(tmp_path / "archive") == before


def test_the_same_bytes_with_two_workers_in_another_folder_and_order(
    tmp_path: Path, small: Path
) -> None:
    prepare("icentia11k", small, tmp_path / "one", 1)
    other = tmp_path / "else" / "where"
    for file in sorted(small.rglob("*.*"), reverse=True):
        copy = other / file.relative_to(small)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    assert run("prepare", "icentia11k", other, tmp_path / "two", "--workers", 2).returncode == 0
    one, two = db.tree(tmp_path / "one"), db.tree(tmp_path / "two")
    assert one == two and len(one) > 50


def test_what_is_no_archive_of_this_source_is_refused(
    tmp_path: Path, small: Path, mitdb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "archive"
    prepare("icentia11k", small, store, 1)
    before = db.tree(store)
    with pytest.raises(EcgpipeError, match=r"another recipe.*dataset 'icentia11k' there"):
        prepare("mitdb", mitdb, store, 1)
    monkeypatch.setattr("ecgpipe.storage.archive.CHUNK", 1024)
    with pytest.raises(EcgpipeError, match=r"chunk 65536 there, 1024 now"):
        prepare("icentia11k", small, store, 1)
    monkeypatch.undo()
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("dear")
    for folder in (tmp_path / "papers", tmp_path / "papers" / "thesis.txt"):
        with pytest.raises(EcgpipeError, match="not a store of ecgpipe"):
            prepare("icentia11k", small, folder, 1)
    assert os.listdir(tmp_path / "papers") == ["thesis.txt"]
    shutil.move(small / "p00/p00001", tmp_path / "gone")
    with pytest.raises(EcgpipeError, match=r"1 parts that the source does not have \(p00001"):
        prepare("icentia11k", small, store, 1)
    assert db.tree(store) == before


def test_what_a_mac_leaves_beside_the_files_is_no_record(tmp_path: Path, small: Path) -> None:
    prepare("icentia11k", small, tmp_path / "before", 1)
    for name in ("._p00003_s00.hea", "._p00003_s00.dat", ".DS_Store", "p00003_s00 (copy).hea.part"):
        (small / "p00/p00003" / name).write_bytes(b"\0\5\x16\7Mac OS X")
    (small / "p00/p00009").mkdir()
    (small / "p00/.DS_Store").write_text("")
    prepare("icentia11k", small, tmp_path / "after", 1)
    assert db.tree(tmp_path / "before") == db.tree(tmp_path / "after")
