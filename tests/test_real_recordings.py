"""Real recordings: every sample and mark as `wfdb` and SciPy read them, and their known numbers."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import databases as db
import numpy as np
import pytest
import scipy.io
import wfdb

from ecgpipe.datasets import icentia11k, mitdb
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.store import Store, open_store
from ecgpipe.storage.verify import verify
from ecgpipe.types import Marks, Record


def link(source: Path, target: Path, files: list[str]) -> Path:
    """A folder with some of the files of a data set."""
    for name in files:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to(source / name)
    return target


def same_signal(record: Record, path: Path) -> None:
    strip = wfdb.rdrecord(str(path), physical=False)
    np.testing.assert_array_equal(record.signal, strip.d_signal.T)
    assert (record.fs, list(record.leads)) == (strip.fs, strip.sig_name)
    assert record.gain.tolist() == strip.adc_gain and record.baseline.tolist() == strip.baseline
    assert set(strip.units) == {"mV"}


def named(marks: Marks | None, symbols: tuple[str, ...]) -> list[tuple[int, str]]:
    assert marks is not None
    return [(int(t), symbols[i]) for t, i in zip(marks.index, marks.label, strict=True)]


def same_marks(record: Record, path: Path, module: Any) -> Counter[str]:
    found = wfdb.rdann(str(path), "atr")
    rows = list(zip(found.sample.tolist(), found.symbol, found.aux_note, strict=True))
    beats = [(t, symbol) for t, symbol, _ in rows if symbol in module.BEATS]
    notes = [(t, note.rstrip("\0")) for t, symbol, note in rows if symbol == "+"]
    assert named(record.beats, module.BEATS) == beats
    assert named(record.rhythms, module.RHYTHMS) == [n for n in notes if n[1] != "MISSB"]
    return Counter(symbol for _, symbol in beats) + Counter(note for _, note in notes)


@pytest.fixture(scope="module")
def mit(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("mitdb")
    prepare("mitdb", recordings / "mitdb", folder, 1)
    return open_store(folder)


def test_mitdb_is_what_wfdb_reads(recordings: Path, mit: Store) -> None:
    counts: Counter[str] = Counter()
    for record in mit.read_all():
        path = recordings / "mitdb" / record.key
        same_signal(record, path)
        counts += same_marks(record, path, mitdb)
    totals = mit.manifest.totals
    assert (totals.records, totals.refused) == (38, 0)
    expected = {
        **{"N": 59672, "L": 6618, "R": 7173, "e": 16, "j": 16, "A": 2216, "J": 82, "S": 2},
        **{"a": 126, "V": 4904, "/": 4106, "f": 56, "F": 779, "Q": 11},
        **{"(N": 407, "(B": 155, "(PREX": 103, "(T": 80, "(VT": 29, "(AFIB": 29, "(SVTA": 21},
        **{"(NOD": 5, "(BII": 5, "(P": 4, "(IVR": 3, "(AFL": 1, "(SBR": 1},
    }
    assert {symbol: n for symbol, n in counts.items() if symbol in expected} == expected
    assert {**totals.beats, **totals.rhythms} == expected
    assert verify(mit.path) == []


def detected(record: Record) -> tuple[int, int, int]:
    """Found beats, annotated beats and detections, matched one to one within 150 ms."""
    assert record.beats is not None
    reach, hits, at = 0.15 * record.fs, 0, 0
    qrs = record.qrs.index.tolist()
    for beat in record.beats.index.tolist():
        while at < len(qrs) and qrs[at] < beat - reach:
            at += 1
        if at < len(qrs) and qrs[at] <= beat + reach:
            hits, at = hits + 1, at + 1
    return hits, len(record.beats.index), len(qrs)


def test_qrs_detection_on_mitdb_and_its_marks(recordings: Path, tmp_path: Path) -> None:
    names = ("100", "103", "114", "119", "201", "202", "213", "230")
    there = [n for n in names if (recordings / "mitdb" / f"{n}.hea").is_file()]
    assert len(there) >= 5
    files = [f"{n}.{e}" for n in there for e in ("hea", "dat", "atr")]
    prepare("mitdb", link(recordings / "mitdb", tmp_path / "raw", files), tmp_path / "archive", 1)
    counts = []
    for record in open_store(tmp_path / "archive").read_all():
        same_signal(record, recordings / "mitdb" / record.key)
        same_marks(record, recordings / "mitdb" / record.key, mitdb)
        assert record.patient == ("201" if record.key in ("201", "202") else record.key)
        counts.append(detected(record))
    hits, beats, detections = np.sum(counts, axis=0)
    assert hits / beats > 0.97 and hits / detections > 0.97


def test_icentia11k_is_what_wfdb_reads(recordings: Path, tmp_path: Path) -> None:
    names = [f"p00/p00000/p00000_s{n:02d}" for n in (0, 7, 21)]
    files = [f"{name}.{e}" for name in names for e in ("hea", "dat", "atr")]
    files.remove(f"{names[1]}.atr")
    raw = link(recordings / "icentia11k", tmp_path / "raw", files)
    manifest = prepare("icentia11k", raw, tmp_path / "archive", 1)
    assert manifest.totals.records == 3
    records = list(open_store(tmp_path / "archive").read_all())
    for name, record in zip(names, records, strict=True):
        same_signal(record, raw / name)
        assert record.samples == 2**20 + 1 and record.fs == 250
        assert record.gain.tolist() == [db.ICENTIA_GAIN] and record.baseline.tolist() == [0]
    assert records[1].beats is None and len(records[1].qrs.index) > 2000
    counts = [same_marks(records[i], raw / names[i], icentia11k) for i in (0, 2)]
    assert all(count["N"] > 1000 for count in counts)
    assert set(counts[0] + counts[1]) <= {"N", "Q", "S", "V", "(N", ")", "(N)"}
    data = np.stack([np.fromfile(raw / f"{name}.dat", "<i2") for name in names])
    np.testing.assert_array_equal(data, np.stack([r.signal[0] for r in records]))
    assert verify(tmp_path / "archive") == []


def same_cinc(record: Record, root: Path, labels: dict[str, str]) -> None:
    mat = scipy.io.loadmat(root / f"{record.key}.mat")["val"]
    np.testing.assert_array_equal(record.signal, mat)
    assert record.statements == (labels[record.key],)
    assert record.fs == 300 and record.gain.tolist() == [1000]


def labels_of(root: Path, name: str = "REFERENCE-v3.csv") -> dict[str, str]:
    lines = (root / name).read_text().split()
    return dict(line.split(",") for line in lines)


def test_two_hundred_records_of_cinc2017_are_what_scipy_reads(
    recordings: Path, tmp_path: Path
) -> None:
    root = recordings / "cinc2017"
    labels = labels_of(root)
    keys = sorted({*sorted(labels)[::43], "A00227", "A01176"})
    assert len(keys) >= 200
    raw = link(root, tmp_path / "raw", [f"{key}.{e}" for key in keys for e in ("hea", "mat")])
    lines = [f"{key},{labels[key]}\n" for key in keys]
    (raw / "REFERENCE-v3.csv").write_text("".join(lines))
    prepare("cinc2017", raw, tmp_path / "archive", 1)
    store = open_store(tmp_path / "archive")
    assert list(store.records.index) == keys
    for record in store.read_all():
        same_cinc(record, root, labels)
    assert store.records.loc["A00227", "sha256"] == store.records.loc["A01176", "sha256"]


@pytest.mark.slow
def test_cinc2017_whole(recordings: Path, tmp_path: Path) -> None:
    root = recordings / "cinc2017"
    labels = labels_of(root)
    manifest = prepare("cinc2017", root, tmp_path / "archive", 1)
    store = open_store(tmp_path / "archive")
    samples, total, squares, lengths = 0, 0.0, 0.0, Counter[int]()
    for record in store.read_all():
        same_cinc(record, root, labels)
        millivolts = record.signal[0] / 1000
        samples += record.samples
        total, squares = total + millivolts.sum(), squares + np.square(millivolts).sum()
        lengths[record.samples] += 1
    assert manifest.totals.statements == {"N": 5076, "A": 758, "O": 2415, "~": 279}
    assert manifest.totals.records == 8528 and manifest.totals.refused == 0
    found = manifest.statistics["ECG"]
    assert found.mean_mV == pytest.approx(total / samples, abs=1e-9)
    assert found.std_mV == pytest.approx(np.sqrt(squares / samples - (total / samples) ** 2))
    assert round(found.mean_mV, 6) == 0.007536 and round(found.std_mV, 6) == 0.237287
    assert lengths[9000] == 5977 and sum(n for k, n in lengths.items() if k > 18000) == 39
    by_digest = store.records.groupby("sha256").groups.values()
    pairs = {tuple(keys) for keys in by_digest if len(keys) > 1}
    assert pairs == {("A00227", "A01176"), ("A02656", "A03123")}
    for pair in pairs:
        one, other = (hashlib.sha256((root / f"{key}.mat").read_bytes()).digest() for key in pair)
        assert one == other


def test_the_revisions_of_the_labels_of_cinc2017(recordings: Path) -> None:
    counts = {
        name: [Counter(labels_of(recordings / "cinc2017", name).values())[c] for c in "NAO~"]
        for name in ("REFERENCE-original.csv", "REFERENCE.csv", "REFERENCE-v3.csv")
    }
    assert counts == {
        "REFERENCE-original.csv": [5154, 771, 2557, 46],
        "REFERENCE.csv": [5050, 738, 2456, 284],
        "REFERENCE-v3.csv": [5076, 758, 2415, 279],
    }


@pytest.mark.slow
def test_icentia11k_whole(recordings: Path, tmp_path: Path) -> None:
    raw = recordings / "icentia11k"
    prepare("icentia11k", raw, tmp_path / "archive", 1)
    counts: Counter[str] = Counter()
    for record in open_store(tmp_path / "archive").read_all():
        path = raw / record.patient[:3] / record.patient / record.key
        same_signal(record, path)
        counts += same_marks(record, path, icentia11k)
    assert counts == {"N": 215931, "Q": 7201, "S": 1, "(N": 636, ")": 636}
