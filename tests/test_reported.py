"""Inputs after public bug reports of people who do this job: read right, or refused by name."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from command_line import run
from conftest import ROOT

from ecgpipe.storage.store import open_store

CASES = ROOT.parent / "shared" / "cases" / "reports.tar.xz"
REFUSED, DAMAGED = 3, 4


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not CASES.is_file():
        pytest.skip("no inputs of bug reports beside the checkout")
    folder = tmp_path_factory.mktemp("cases")
    with tarfile.open(CASES) as packed:
        packed.extractall(folder, filter="data")
    return folder / "reports"


def prepared(name: str, case: Path, out: Path) -> tuple[int, dict[str, str], list[str]]:
    """Exit code, refused records with reasons, and kept records of ``ecgpipe prepare``."""
    raw = out.parent / "raw"
    shutil.copytree(case, raw, ignore=shutil.ignore_patterns("README"))
    done = run("prepare", name, raw, out, "--workers", 1)
    assert "Traceback" not in done.stderr
    if not (out / "manifest.json").exists():
        return done.returncode, {}, [done.stderr]
    store = open_store(out)
    refused = {item.key: item.reason for item in store.manifest.refused}
    return done.returncode, refused, list(store.records.index)


@pytest.mark.parametrize(
    ("name", "case", "refused", "kept"),
    [
        ("cinc2017", "first_record_has_two_leads", {"A00001": "2 leads"}, 5),
        ("cinc2017", "fs_zero", {"A00028": "sampling rate 0"}, 1),
        (
            "cinc2017",
            "header_rest_of_line",
            {
                "A00005": "sampling rate -300",
                "A00007": "sampling rate 0.01",
                "A00008": "sampling rate 3e+08",
                "A00009": "mv)",
                "A00010": "gain of signal 1 1e-06",
                "A00016": "16+-24",
            },
            0,
        ),
        ("cinc2017", "longer_than_header", {"A00026": "too long"}, 0),
        ("cinc2017", "mat_v5_behind_header", {"A00004": "A00004.mat"}, 0),
        ("cinc2017", "multi_segment_header", {"A00001": "several segments"}, 1),
        ("icentia11k", "icentia_hea_missing", {"p00007_s01": "missing"}, 1),
        (
            "icentia11k",
            "icentia_pickles_dropped",
            dict.fromkeys(["p00001", "p00002", "p00003", "p00004", "p00005"], "pkl.gz"),
            None,
        ),
        (
            "cinc2017",
            "invalid_samples",
            dict.fromkeys(["A00006", "A00023"], "missing") | {"A00013": "15 samples"},
            0,
        ),
    ],
)
def test_what_cannot_be_right_is_refused_and_the_others_go_on(
    cases: Path, tmp_path: Path, name: str, case: str, refused: dict[str, str], kept: int | None
) -> None:
    code, found, records = prepared(name, cases / case, tmp_path / "archive")
    assert code == REFUSED
    assert found.keys() == refused.keys()
    assert all(word in found[key] for key, word in refused.items()), found
    assert kept is None or len(records) == kept


def test_annotations_of_another_time_resolution(cases: Path, tmp_path: Path) -> None:
    import wfdb

    code, refused, _ = prepared("mitdb", cases / "annotation_time_resolution", tmp_path / "archive")
    assert code == 0 and not refused
    record = open_store(tmp_path / "archive").read("101")
    written = wfdb.rdann(str(cases / "annotation_time_resolution" / "101"), "atr")
    assert written.fs == 180 and record.beats is not None
    kept = set(record.beats.index.tolist()) | set(record.rhythms.index.tolist())
    assert kept == {2 * at for at in written.sample.tolist()}


def test_frames_of_two_samples(cases: Path, tmp_path: Path) -> None:
    code, _, _ = prepared("cinc2017", cases / "frames_x2", tmp_path / "archive")
    record = open_store(tmp_path / "archive").read("A00012")
    assert code == 0 and record.fs == 300
    stored = scipy.io.loadmat(cases / "frames_x2" / "A00012.mat")["val"]
    np.testing.assert_array_equal(record.signal, stored.reshape(1, -1))


def test_a_date_that_nobody_uses(cases: Path, tmp_path: Path) -> None:
    assert prepared("cinc2017", cases / "iso_date", tmp_path / "archive") == (0, {}, ["A00001"])


def test_two_labels_for_one_record(cases: Path, tmp_path: Path) -> None:
    code, _, (said,) = prepared(
        "cinc2017", cases / "cinc_reference_dup_conflict", tmp_path / "archive"
    )
    assert code == 2 and "REFERENCE-v3.csv: line 3: A00001 is O, and N above" in said


def test_a_table_in_utf_16(cases: Path, tmp_path: Path) -> None:
    code, refused, records = prepared(
        "cinc2017", cases / "cinc_reference_utf16", tmp_path / "archive"
    )
    assert (code, refused, records) == (0, {}, ["A00001", "A00002"])


def test_a_missing_chunk_of_an_archive(cases: Path, tmp_path: Path) -> None:
    """The store is of format 1, whose records had no checksums: it must be made anew."""
    done = run("shard", cases / "archive_chunk_missing", tmp_path / "shards")
    assert done.returncode != 0 and "format 1" in done.stderr and "ecgpipe prepare" in done.stderr


def test_one_fold_of_ptbxl_is_missing(cases: Path, tmp_path: Path) -> None:
    prepared("ptbxl", cases / "ptbxl_one_fold_missing", tmp_path / "archive")
    shards, out = tmp_path / "shards", tmp_path / "run"
    run("shard", tmp_path / "archive", shards)
    quick = ("--repeats", 1, "--set", "epochs=1", "--set", "batch=8", "--set", "seconds=4")
    done = run("finetune", shards, "--out", out, *quick, "--set", "network.stages=2")
    assert done.returncode == 0, done.stderr
    table = open_store(shards).records
    test = (out / "repeat-00" / "predictions.csv").read_text()
    rows = list(csv.DictReader(test.splitlines()))
    tested = {row["key"] for row in rows if row["split"] == "test"}
    assert tested == set(table.index[table["fold"] == 10])
    assert "1 record without a fold left out of the split (00" in done.stderr


def test_a_test_fold_of_one_class(cases: Path, tmp_path: Path) -> None:
    prepared("ptbxl", cases / "ptbxl_test_fold_one_class", tmp_path / "archive")
    shards, out = tmp_path / "shards", tmp_path / "run"
    run("shard", tmp_path / "archive", shards)
    quick = ("--repeats", 1, "--set", "epochs=1", "--set", "batch=8", "--set", "seconds=4")
    why = "no AUC, because each class is true of all test records or of none"
    for _ in range(2):  # also when it is finished already
        done = run("finetune", shards, "--out", out, *quick, "--set", "network.stages=2")
        assert done.returncode == 0 and why in done.stdout, done.stderr
    assert run("report", out, "--out", tmp_path / "r.html").returncode == 0
    assert why in " ".join((tmp_path / "r.html").read_text().split())
    assert json.loads(run("inspect", out, "--json").stdout)
