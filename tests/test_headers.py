"""Headers that were cut, mistyped or belong to other files: refused by name, or read right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import databases as db
import numpy as np
import pytest
import scipy.io
import wfdb

from ecgpipe.datasets import Folder, find_entries, read_entry, read_records
from ecgpipe.errors import BadRecord
from ecgpipe.formats.wfdb_header import parse_header
from ecgpipe.types import Marks, Record


def _icentia(root: Path) -> None:
    db.icentia(root, 7, 1, rows=db.icentia_rows(1000))


def _mitdb(root: Path) -> None:
    db.mitdb(root, "100", samples=1000)


def _cinc(root: Path) -> None:
    db.cinc(root, 1)


def _icbeb(root: Path) -> None:
    db.challenge(root, "A0001", "59118001", 61)


MAKERS = {"icentia11k": _icentia, "mitdb": _mitdb, "cinc2017": _cinc, "icbeb2018": _icbeb}


def only(name: str, root: Path) -> Record:
    (record,) = read_records(name, root)
    return record


def refused(name: str, root: Path, header: Path, data: bytes, whole: Record) -> bool:
    """True if a header makes its record refused by name; else it must be the whole record."""
    header.write_bytes(data)
    try:
        found = only(name, root)
    except BadRecord as error:
        assert header.name in str(error) or header.stem in str(error)
        return True
    db.equal(found, whole)
    return False


@pytest.mark.parametrize("name", MAKERS)
def test_a_header_cut_anywhere_is_refused_or_complete(tmp_path: Path, name: str) -> None:
    """A broken download: what is left is no record with another scale, length or label."""
    MAKERS[name](tmp_path)
    whole = only(name, tmp_path)
    (header,) = tmp_path.rglob("*.hea")
    data = header.read_bytes()
    for length in range(len(data)):
        if not refused(name, tmp_path, header, data[:length], whole):
            assert data[length - 1 : length] in (b"\n", b"\r")  # only comments are missing


@pytest.mark.parametrize("name", MAKERS)
def test_a_changed_character_of_a_header_is_refused_or_harmless(tmp_path: Path, name: str) -> None:
    """No single character scales, shortens or renames a record and is taken for right."""
    MAKERS[name](tmp_path)
    whole = only(name, tmp_path)
    (header,) = tmp_path.rglob("*.hea")
    data = header.read_bytes()
    rng = np.random.default_rng(20_261_129)
    count = 0
    for at in range(data.index(b"\n")):
        if data[at : at + 1].isdigit():
            continue  # another number may be right
        changed = bytearray(data)
        changed[at] = int(rng.choice(list(b"xQ-,;()/")))
        count += refused(name, tmp_path, header, bytes(changed), whole)
    assert count


GOOD = "A00001 1 300 1000\nA00001.mat 16+24 1000/mV 16 0 0 0 0 ECG\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (" 300 ", " -300 ", "sampling rate -300"),
        (" 300 ", " 0 ", "sampling rate 0 Hz"),
        (" 300 ", " 0.01 ", "sampling rate 0.01 Hz"),
        (" 300 ", " 300000000 ", "sampling rate 3e+08"),
        (" 300 ", " 3e2e1 ", "not a readable"),
        (" 1 300 1000", " 1", "no sampling rate"),
        (" 1 300", " 0 300", "no signals"),
        (" 1 300", "/2 1 300", "several segments"),
        (" 1 300", " 2 300", "1 lines of signals where it says 2"),
        ("1000/mV", "1,000/mV", "line of signal 1"),
        ("1000/mV", "1000/mv)", "mv)"),
        ("1000/mV", "0.000001/mV", "gain of signal 1 1e-06"),
        ("1000/mV", "1e-320/mV", "gain of signal 1"),
        ("1000/mV", "-1000/mV", "gain of signal 1 -1000"),
        ("1000/mV", "1000/mmHg", "mmHg"),
        ("16+24", "16+-24", "line of signal 1"),
        ("ECG", "\x07", "no text"),
    ],
)
def test_what_cannot_be_right_is_refused(old: str, new: str, words: str) -> None:
    assert parse_header("A00001.hea", GOOD.encode()).fs == 300
    assert old in GOOD
    with pytest.raises(BadRecord, match=f"A00001.hea.*{words.replace('+', '.').replace(')', '.')}"):
        parse_header("A00001.hea", GOOD.replace(old, new).encode())


def test_what_the_standard_allows_is_read() -> None:
    text = (
        "# a comment first\r\nfolder/A1.mat 3 360/720(0) 1000 2014-05-08 05:05:15\r\n\r\n"
        "a.dat 212x2:0+0 0.2(-5)/uV 11 1024 995 -22131 0 ECG\r\na.dat 212x2 0\r\n"
        "a.dat 212x2 2.5e2/V 12 7 0 0 0 ECG\r\n# and one at the end"
    )
    header = parse_header("A1.hea", text.encode())
    assert (header.fs, header.frames) == (360, 1000)
    one, two, three = header.signals
    assert [s.name for s in header.signals] == ["ECG", "lead 2", "ECG 2"]
    assert (one.gain, one.baseline, one.per_frame) == (200, -5, 2)
    assert one.checksum == -22131 % 65_536 and one.initial == 995
    assert (two.gain, two.baseline, two.checksum, two.initial) == (200, 0, None, None)
    assert (three.gain, three.baseline) == (0.25, 7)  # the zero of the ADC where there is no other
    assert parse_header("b.hea", b"b 1 100\nb.dat 16\n").frames is None


def test_a_matlab_file_of_another_kind_behind_the_header(tmp_path: Path) -> None:
    """MATLAB 5, doubles, another name: 24 bytes are skipped whatever stands there."""
    signal = db.cinc(tmp_path, 1)[None]
    for content, how in (
        ({"val": signal}, {"format": "5"}),
        ({"val": signal.astype(float)}, {"format": "4"}),
        ({"value": signal}, {"format": "4"}),
        ({"val": signal[:, :-1]}, {"format": "4"}),
        ({"val": np.repeat(signal, 2, 1)}, {"format": "4"}),
    ):
        scipy.io.savemat(tmp_path / "A00001.mat", content, **how)
        with pytest.raises(BadRecord, match=r"A00001\.mat: (is no MATLAB v4|truncated|too long)"):
            only("cinc2017", tmp_path)
    scipy.io.savemat(tmp_path / "A00001.mat", {"val": signal}, format="4")
    np.testing.assert_array_equal(only("cinc2017", tmp_path).signal, signal)


def test_a_record_of_another_rate_or_length_of_frames(tmp_path: Path) -> None:
    """150 frames of two samples a second are 300 Hz, and none of them is averaged."""
    signal = db.cinc(tmp_path, 1, 1000)
    path = tmp_path / "A00001.hea"
    text = path.read_text().replace(" 300 1000", " 150 500").replace("16+24", "16x2+24")
    path.write_text(text)
    record = only("cinc2017", tmp_path)
    assert record.fs == 300
    np.testing.assert_array_equal(record.signal, [signal])


@pytest.mark.parametrize(("resolution", "factor"), [(180, 2), (360, 1), (720, 0.5)])
def test_annotations_have_a_time_resolution_of_their_own(
    tmp_path: Path, resolution: float, factor: float
) -> None:
    rows = [(18, "+", "(N"), (20, "N", ""), (40, "V", "")]
    db.mitdb(tmp_path, "101", samples=2000, rows=rows)
    db.annotate(tmp_path, "101", rows, resolution)
    record = only("mitdb", tmp_path)
    assert record.beats is not None
    assert record.beats.index.tolist() == [20 * factor, 40 * factor]
    assert record.rhythms.index.tolist() == [18 * factor]
    assert (wfdb.rdann(str(tmp_path / "101"), "atr").fs or 360) == resolution


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: db.cut("A00003.hea", 5)(root),
        lambda root: db.write("A00003.hea", "A00003/1 1 300 900\nA00002 900\n")(root),
        lambda root: db.replace("A00003.hea", " 300 ", " 0 ")(root),
        lambda root: db.replace("A00003.hea", " 1000/", " 1e-320/")(root),
        lambda root: db.write("A00003.hea", "A00003 1 300 900\n")(root),
    ],
)
def test_one_bad_record_does_not_end_the_set(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    for number in (2, 3, 4):
        db.cinc(tmp_path, number, 900)
    damage(tmp_path)
    folder = Folder.open(tmp_path)
    reasons, read = [], []
    for entry in find_entries("cinc2017", folder):
        try:
            read.append(read_entry("cinc2017", entry, folder.fetch(entry.files)).key)
        except BadRecord as error:
            reasons.append(str(error))
    assert read == ["A00002", "A00004"]
    assert len(reasons) == 1 and "A00003" in reasons[0]


def test_an_error_that_nobody_foresaw_refuses_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.cinc(tmp_path, 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("ecgpipe.datasets.cinc2017.read_signal", lambda *_: 1 / 0)
    with pytest.raises(BadRecord, match=r"A00001: ZeroDivisionError: .*errors\.log"):
        only("cinc2017", tmp_path)
    assert "ZeroDivisionError" in (tmp_path / "cache/ecgpipe/errors.log").read_text()


def test_a_record_is_checked_when_it_is_made() -> None:
    good = {
        "key": "a", "patient": "p", "fs": 250.0, "leads": ("I", "II"),
        "signal": np.zeros((2, 9), np.int16), "gain": np.ones(2), "baseline": np.zeros(2),
    }  # fmt: skip
    Record(**good)  # type: ignore[arg-type]
    for changes in (
        {"fs": 0.0}, {"fs": float("nan")}, {"fs": -250.0}, {"gain": np.array([1, 1e-320])},
        {"gain": np.array([1, np.nan])}, {"gain": np.ones(1)}, {"baseline": np.array([0, np.inf])},
        {"leads": ("I", "I")}, {"leads": ("I", None)}, {"leads": ("I", "")}, {"leads": ("I",)},
        {"signal": np.zeros((2, 0), np.int16)}, {"signal": np.zeros((2, 9), np.int32)},
        {"signal": np.zeros(9, np.int16)}, {"qrs": Marks.of([3, 2])},
        {"qrs": Marks.of([-1])}, {"beats": Marks.of([9])},
    ):  # fmt: skip
        with pytest.raises(BadRecord, match=r"^a: "):
            Record(**{**good, **changes})  # type: ignore[arg-type]
