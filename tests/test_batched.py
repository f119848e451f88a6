"""Icentia11k's older release: the same records as from WFDB, and pickles that can do no harm."""

from __future__ import annotations

import gzip
import os
import pickle
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import databases as db
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgpipe.datasets import Folder, find_entries, icentia11k, read_entry
from ecgpipe.errors import BadRecord
from ecgpipe.formats.pickles import unpickle
from ecgpipe.storage.archive import prepare
from ecgpipe.types import Record

GAIN = db.ICENTIA_GAIN
BTYPES, RTYPES = "QNSaV", ("", "", "", "N", "AFIB", "AFL")
Beats = list[tuple[int, int, int]]  # sample, btype, rtype


def _read(root: Path) -> tuple[dict[str, Record], dict[str, str]]:
    """Records, and the reasons of those that cannot be used, by key."""
    folder = Folder.open(root)
    entries = find_entries("icentia11k", folder)
    records, refused = {}, {}
    for entry, files in zip(entries, folder.fetch_all(e.files for e in entries), strict=True):
        try:
            records[entry.key] = read_entry("icentia11k", entry, files)
        except BadRecord as error:
            refused[entry.key] = str(error)
            assert str(root) not in str(error)
    return records, refused


def _labels(beats: Beats) -> dict[str, list[np.ndarray]]:
    """Labels of one segment as the older release has them."""
    return {
        "btype": [np.array([t for t, b, _ in beats if b == k], np.int32) for k in range(5)],
        "rtype": [np.array([t for t, _, r in beats if r == k], np.int32) for k in range(6)],
    }


def _rows(beats: Beats) -> db.Rows:
    """The same as WFDB annotations: notes beat by beat, from what comes before and behind."""
    rows: db.Rows = []
    names = ["", *(RTYPES[r] for _, _, r in beats), ""]
    for (t, b, _), before, name, after in zip(
        beats, names[:-2], names[1:-1], names[2:], strict=True
    ):
        rows.append((t, BTYPES[b], "None"))
        opens, closes = name != before, name != after
        if name and (opens or closes):
            note = f"({name})" if opens and closes else f"({name}" if opens else ")"
            rows.append((t, "+", note))
    return rows


def _some_beats(seed: int, samples: int, count: int = 40) -> Beats:
    rng = np.random.default_rng(seed)
    at = np.sort(rng.choice(samples, count, replace=False))
    rhythm = np.repeat(rng.integers(0, 6, count), rng.integers(1, 5, count))[:count]
    return [(int(t), int(b), int(r)) for t, b, r in zip(at, rng.integers(0, 5, count), rhythm)]  # noqa: B905


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_same_records_from_either_form(tmp_path: Path, kind: type) -> None:
    segments = [db.coded(7, s, 900) for s in range(4)]
    beats = [_some_beats(s, 900) for s in range(4)]
    for s in range(4):
        db.icentia(tmp_path / "wfdb", 7, s, segments[s], _rows(beats[s]) if s != 2 else None)
    labels = [_labels(found) for found in beats]
    labels[2] = _labels([])  # nobody labelled it: WFDB has no file then
    signal = np.stack(segments).astype(kind) / kind(GAIN)
    db.batched(tmp_path / "batched", 7, signal, labels)
    (one, _), (other, refused) = _read(tmp_path / "wfdb"), _read(tmp_path / "batched")
    assert list(one) == list(other) == [f"p00007_s0{s}" for s in range(4)] and not refused
    for key in one:
        db.equal(one[key], other[key])
    assert other["p00007_s02"].beats is None and len(other["p00007_s01"].rhythms.index) > 10
    assert 0 < other["p00007_s00"].quantisation < (1e-4 if kind is np.float32 else 1e-12)
    a = prepare("icentia11k", tmp_path / "wfdb", tmp_path / "a", workers=1)
    b = prepare("icentia11k", tmp_path / "batched", tmp_path / "b", workers=1)
    for name in ("records", "samples", "beats", "rhythms", "qrs", "raw_bytes"):
        assert getattr(a.totals, name) == getattr(b.totals, name), name
    first, second = db.tree(tmp_path / "a/records.zarr"), db.tree(tmp_path / "b/records.zarr")
    bytes_of = {k: v for k, v in first.items() if "/c/" in k}
    assert bytes_of and bytes_of == {k: v for k, v in second.items() if "/c/" in k}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_adc_value_comes_back(tmp_path: Path, kind: type) -> None:
    every = np.arange(-32767, 32768).astype(np.int16)
    db.batched(tmp_path, 0, every[None].astype(kind) / kind(GAIN))
    np.testing.assert_array_equal(_read(tmp_path)[0]["p00000_s00"].signal, every[None])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4), st.integers(0, 5)), min_size=1))
def test_notes_follow_every_beat(drawn: Beats) -> None:
    """Also where several beats lie on one sample, which happens: in the order of WFDB's symbols."""
    labels = _labels(drawn)
    found = icentia11k.beats_and_notes(labels, 31, "here")
    assert found is not None
    (at, symbols), (note_at, notes) = found
    assert list(zip(at.tolist(), symbols, strict=True)) == sorted(
        (t, BTYPES[b]) for t, b, _ in drawn
    )
    rhythms = sorted((t, RTYPES[r]) for t, _, r in drawn)
    want = [
        (t, note)
        for t, symbol, note in _rows([(t, 0, RTYPES.index(name)) for t, name in rhythms])
        if symbol == "+"
    ]
    assert list(zip(note_at.tolist(), notes, strict=True)) == want


def test_a_beat_without_a_rhythm_interrupts_it() -> None:
    labels = _labels([(t, 1, 3) for t in (10, 20, 30, 40)])
    labels["rtype"][3] = np.array([10, 20, 40, 45], np.int32)  # and one rhythm without a beat
    found = icentia11k.beats_and_notes(labels, 50, "here")
    assert found is not None
    (at, symbols), (note_at, notes) = found
    assert at.tolist() == [10, 20, 30, 40] and symbols == ["N"] * 4
    assert (note_at.tolist(), notes) == ([10, 20, 40, 45], ["(N", ")", "(N", ")"])


def test_labels_of_fewer_or_more_segments_than_the_signal(tmp_path: Path) -> None:
    signal = np.zeros((3, 50), np.float32)
    one = _labels([(5, 1, 3)])
    db.batched(tmp_path, 0, signal, [one])
    db.batched(tmp_path, 1, signal, [one, None, {}, one, one])
    db.batched(tmp_path, 2, signal)
    records, refused = _read(tmp_path)
    assert not refused and list(records) == [f"p0000{p}_s0{s}" for p in range(3) for s in range(3)]
    annotated = [key for key, record in records.items() if record.beats is not None]
    assert annotated == ["p00000_s00", "p00001_s00"]
    assert records["p00002_s02"].patient == "p00002" and records["p00002_s02"].leads == ("ecg",)


def test_patients_that_cannot_be_used_are_refused_by_name(tmp_path: Path) -> None:
    one = _labels([(5, 1, 3)])
    for patient in (0, 2, 4, 5, 6, 7, 8):
        noise = np.random.default_rng(1).normal(size=(2, 4000)).astype(np.float32)
        db.batched(tmp_path, patient, noise, [one, one])
    db.batched(tmp_path, 1, None, [one, one])
    db.cut("00002_batched.pkl.gz", 900)(tmp_path)
    (tmp_path / "00003_batched.pkl.gz").write_bytes(b"<html>not here</html>")
    db.batched(tmp_path, 4, None, [_labels([(50_000, 1, 3)]), one])
    db.batched(tmp_path, 5, None, [{"btype": one["btype"]}, one])
    db.batched(tmp_path, 6, np.full((2, 4000), np.nan, np.float32))
    db.batched(tmp_path, 7, np.full((2, 4000), 500, np.float32))
    db.batched(tmp_path, 8, {"signal": 1})
    records, refused = _read(tmp_path)
    assert list(records) == ["p00000_s00", "p00000_s01", "p00004_s01", "p00005_s01"]
    for key, words in {
        "p00001": ("00001_batched.pkl.gz", "missing", "fetch"),
        "p00002_s00": ("00002_batched.pkl.gz", "cannot be unpickled", "fetch"),
        "p00002_s01": ("00002_batched.pkl.gz", "cannot be unpickled", "fetch"),
        "p00003": ("00003_batched.pkl.gz", "cannot be unpickled"),
        "p00004_s00": ("00004_batched_lbls.pkl.gz: segment 0", "50,000 of 4,000"),
        "p00005_s00": ("00005_batched_lbls.pkl.gz: segment 0", "rtype"),
        "p00006_s00": ("00006_batched.pkl.gz", "not numbers"),
        "p00006_s01": ("00006_batched.pkl.gz", "not numbers"),
        "p00007_s00": ("00007_batched.pkl.gz", "500.0 mV", "440.6 mV"),
        "p00007_s01": ("00007_batched.pkl.gz", "500.0 mV", "440.6 mV"),
        "p00008": ("00008_batched.pkl.gz", "no array of floats"),
    }.items():
        reason = refused.pop(key)
        assert all(word in reason for word in words), reason
    assert not refused


def test_a_patient_is_unpickled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for patient in range(2):
        db.batched(tmp_path, patient, np.full((5, 30), patient, np.float32), [_labels([])] * 5)
    calls = []

    def counted(data: bytes) -> Any:
        calls.append(len(data))
        return unpickle(data)

    monkeypatch.setattr(icentia11k, "unpickle", counted)
    records, _ = _read(tmp_path)
    assert len(calls) == 4  # two patients of two files
    assert [r.signal[0, 0] for r in records.values()] == [0] * 5 + [74] * 5


CONTENT = [{"btype": [np.arange(3, dtype="<i4"), np.array([], "<i8")], "rtype": ()},
           np.arange(6, dtype=">f4").reshape(2, 3), np.asfortranarray(np.eye(3)[:2]),
           {"n": np.float32(1.5), "b": b"", "t": "tä"}]  # fmt: skip


def _same(a: Any, b: Any) -> None:
    assert type(a) is type(b) or {type(a), type(b)} <= {list, tuple}
    if isinstance(a, np.ndarray | np.generic):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            _same(a[key], b[key])
    elif isinstance(a, list | tuple):
        for one, other in zip(a, b, strict=True):
            _same(one, other)
    else:
        assert a == b


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_lists_and_dicts_of_every_protocol(protocol: int) -> None:
    data = pickle.dumps(CONTENT, protocol)
    _same(CONTENT, unpickle(gzip.compress(data)))
    if protocol < 4:  # names end with a line there, so their lengths do not matter
        for old, new in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
            _same(CONTENT, unpickle(gzip.compress(data.replace(old, new))))


@pytest.mark.parametrize("protocol", range(6))
def test_the_number_of_segments_is_read_off_the_beginning(tmp_path: Path, protocol: int) -> None:
    signal = np.random.default_rng(0).normal(size=(37, 3000)).astype(np.float32)
    db.batched(tmp_path, 3, signal, old=protocol)
    size = (tmp_path / "00003_batched.pkl.gz").stat().st_size
    assert size > 10 * icentia11k.HEAD
    records, refused = _read(tmp_path)
    assert len(records) == 37 and not refused
    np.testing.assert_array_equal(records["p00003_s36"].signal[0], np.rint(signal[36] * GAIN))


def test_pickles_of_python_2() -> None:
    """Strings are bytes there, and so are an array's samples."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x03\x85"
        b"cnumpy\ndtype\n(U\x02i4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
        b"tb\x89U\x0c" + np.array([1, -2, 300], "<i4").tobytes() + b"tb"
    )
    found = unpickle(gzip.compress(b"\x80\x02}U\x05btype](" + array + b"es."))
    _same({"btype": [np.array([1, -2, 300], "<i4")]}, found)


class _Call:
    """What a pickle of it makes pickle.load call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("where", ["signal", "labels"])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("function", [os.system, eval])
def test_a_pickle_that_calls_anything_is_refused_and_nothing_runs(
    tmp_path: Path, where: str, protocol: int, function: Any
) -> None:
    ran = tmp_path / "ran"
    touch = f"__import__('pathlib').Path({str(ran)!r}).touch()"
    call = _Call(function, touch if function is eval else f"touch {ran}")
    pickle.loads(pickle.dumps(call, protocol))
    assert ran.exists()  # so it would have run
    ran.unlink()
    raw = tmp_path / "raw"
    db.batched(raw, 0, np.zeros((2, 30), np.float32), [_labels([])] * 2)
    db.batched(raw, 0, **{where: [call]}, old=protocol)
    records, refused = _read(raw)
    assert not records and refused
    module = "__builtin__" if protocol == 2 and function is eval else function.__module__
    for reason in refused.values():
        assert f"it names {module}.{function.__name__}" in reason
    assert not ran.exists()


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(_Call(subprocess.Popen, ["true"])),
        pickle.dumps(_Call(np.load, "file")),
        pickle.dumps(_Call(getattr, "a", "upper")),
        pickle.dumps(np.array([1, "a"], object)),
        pickle.dumps(np.array(["text"])),
        pickle.dumps(np.zeros(2, [("a", "i4")])),
        b"cos\nsystem\n(S'true'\ntR.",
        b"c_codecs\nencode\n(Vtext\nVzlib\ntR.",
        b"c__builtin__\nbytes\n(I99999999999\ntR.",
        b"cnumpy\nndarray\n((I99999999999\ntI0\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x80\x04\x8c\x16numpy.core.multiarray\x8c\x15_reconstruct.__self__\x93.",
        b"\x82\x01.",
        b"Vid\nQ.",
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
    ],
)
def test_what_else_pickles_should_not_do(data: bytes) -> None:
    with pytest.raises((pickle.UnpicklingError, ValueError, TypeError, RecursionError)):
        unpickle(gzip.compress(data))


@pytest.mark.parametrize("name", ["_codecs\nencode", "numpy\ndtype", "numpy\nndarray"])
def test_a_pickle_changes_nothing_for_the_next_one(name: str) -> None:
    for state in (b"(Vfind_class\nI1\nd", b"(N(V__defaults__\nI1\nV__code__\nI1\ndt"):
        with suppress(AttributeError):
            unpickle(gzip.compress(f"c{name}\n".encode() + state + b"b."))
    _same(CONTENT, unpickle(gzip.compress(pickle.dumps(CONTENT, 2))))


def _real(recordings: Path) -> Path:
    folder = recordings / "icentia11k-batched"
    if not folder.is_dir():
        pytest.skip(f"{recordings} lacks icentia11k-batched")
    return folder


def test_real_labels_of_p00000_are_those_of_wfdb(recordings: Path, tmp_path: Path) -> None:
    """40 real segments: every beat, class and note; some signals, written from WFDB's, as well."""
    path = _real(recordings) / "00000_batched_lbls.pkl.gz"
    wfdb, _ = _read(recordings / "icentia11k")
    wfdb = {key: record for key, record in wfdb.items() if record.patient == "p00000"}
    labels = unpickle(path.read_bytes())
    beats = 0
    for (key, record), segment in zip(wfdb.items(), labels[:40], strict=True):
        found = icentia11k.beats_and_notes(segment, record.samples, key)
        assert found is not None and record.beats is not None
        (at, symbols), (note_at, notes) = found
        np.testing.assert_array_equal(at, record.beats.index)
        assert symbols == [icentia11k.BEATS[i] for i in record.beats.label]
        np.testing.assert_array_equal(note_at, record.rhythms.index)
        assert notes == [icentia11k.RHYTHMS[i] for i in record.rhythms.label]
        beats += len(at)
    assert beats == 223_133
    (tmp_path / path.name).write_bytes(path.read_bytes())
    signal = np.concatenate([wfdb[f"p00000_s{s:02d}"].signal for s in range(5)])
    with gzip.open(tmp_path / "00000_batched.pkl.gz", "wb", 1) as file:
        pickle.dump(signal.astype(np.float32) / np.float32(GAIN), file, 2)
    batched, refused = _read(tmp_path)
    assert list(batched) == list(wfdb)[:5] and not refused
    for key, record in batched.items():
        db.equal(wfdb[key], record)


def test_real_labels_all_load(recordings: Path) -> None:
    files = sorted(_real(recordings).glob("*_batched_lbls.pkl.gz"))
    assert len(files) == 14
    beats = unlabelled = 0
    notes: set[str] = set()
    for path in files:
        segments = unpickle(path.read_bytes())
        assert len(segments) == 50
        for labels in segments:
            found = icentia11k.beats_and_notes(labels, 2**20 + 1, path.name)
            unlabelled += found is None
            beats += len(found[0][0]) if found else 0
            assert sum(map(len, labels["btype"])) == (len(found[0][0]) if found else 0)
            notes |= set(found[1][1]) if found else set()
    assert (beats, unlabelled) == (3_545_483, 1)
    assert notes == {"(N", "(N)", "(AFIB", "(AFL", "(AFL)", ")"}
