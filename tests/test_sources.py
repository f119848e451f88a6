"""The sources: real files, read back exactly; damaged ones refused by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import databases as db
import numpy as np
import pytest

from ecgpipe.datasets import (
    DATASETS,
    Folder,
    cinc2017,
    find_entries,
    group_parts,
    icentia11k,
    read_records,
)
from ecgpipe.datasets import mitdb as mit
from ecgpipe.errors import BadRecord, EcgpipeError
from ecgpipe.types import Record


def _only(name: str, root: Path) -> Record:
    (record,) = read_records(name, root)
    return record


def _marks(record: Record, symbols: tuple[str, ...], kind: str) -> list[tuple[int, str]]:
    marks = getattr(record, kind)
    return [(int(t), symbols[i]) for t, i in zip(marks.index, marks.label, strict=True)]


def _refused(name: str, root: Path, *words: str) -> str:
    with pytest.raises(BadRecord) as caught:
        list(read_records(name, root))
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert str(root) not in message  # it is stored, and must not depend on where the data lie
    return message


def test_icentia11k_reads_back_what_was_written(tmp_path: Path) -> None:
    for patient, segment, samples in ((12, 0, 1000), (12, 3, 777), (345, 1, 60_000)):
        db.icentia(tmp_path, patient, segment, samples, db.icentia_rows(samples))
    records = list(read_records("icentia11k", tmp_path))
    assert [r.key for r in records] == ["p00012_s00", "p00012_s03", "p00345_s01"]
    assert [r.patient for r in records] == ["p00012", "p00012", "p00345"]
    for record, (patient, segment, samples) in zip(
        records, ((12, 0, 1000), (12, 3, 777), (345, 1, 60_000)), strict=True
    ):
        assert record.fs == 250 and record.leads == ("ecg",) and record.statements == ()
        assert record.signal.dtype == np.int16
        np.testing.assert_array_equal(record.signal, [db.coded(patient, segment, samples)])
        assert record.gain.tolist() == [db.ICENTIA_GAIN] and record.baseline.tolist() == [0]
        rows = db.icentia_rows(samples)
        assert _marks(record, icentia11k.BEATS, "beats") == [r[:2] for r in rows if r[1] != "+"]
        assert _marks(record, icentia11k.RHYTHMS, "rhythms") == [
            (t, note) for t, symbol, note in rows if symbol == "+"
        ]


def test_icentia11k_notes_of_one_beat_and_trailing_nul(tmp_path: Path) -> None:
    notes = [(5, "(N\x00"), (6, ")"), (7, "(AFIB)"), (8, "(AFL)\x00"), (9, "(N)"), (10, "(AFIB"),
             (10, ")\x00"), (11, "(AFL")]  # fmt: skip
    rows = [(t, "+", note) for t, note in notes]
    db.icentia(tmp_path, 1, 0, 100, [(4, "N", "None"), *rows, (12, "N", "")])
    record = _only("icentia11k", tmp_path)
    found = [(t, note.rstrip("\0")) for t, note in notes]
    assert _marks(record, icentia11k.RHYTHMS, "rhythms") == found
    assert _marks(record, icentia11k.BEATS, "beats") == [(4, "N"), (12, "N")]


def test_a_segment_without_annotations_has_no_beats_rather_than_zero(tmp_path: Path) -> None:
    db.icentia(tmp_path, 1, 0)
    db.icentia(tmp_path, 1, 1, rows=[(3, "+", "(N")])
    without, with_file = read_records("icentia11k", tmp_path)
    assert without.beats is None and len(without.rhythms.index) == 0
    assert with_file.beats is not None and len(with_file.beats.index) == 0


def test_every_sample_value_survives_format_16(tmp_path: Path) -> None:
    every = np.arange(-32767, 32768).astype(np.int16)
    db.icentia(tmp_path, 0, 0, every)
    np.testing.assert_array_equal(_only("icentia11k", tmp_path).signal[0], every)


def test_mitdb_reads_back_what_was_written(tmp_path: Path) -> None:
    rows = [(18, "+", "(N"), (20, "N", ""), (25, '"', "MISSB"), (27, "|", ""), (30, "~", ""),
            (40, "+", "(AFIB\x00"), (41, "V", ""), (44, "/", ""), (44, "f", ""), (50, "!", ""),
            (1998, "+", "(VT"), (1999, "e", "")]  # fmt: skip
    first = db.mitdb(tmp_path, "114", ("V5", "MLII"), 2000, rows)
    second = db.mitdb(tmp_path, "201", samples=1001)
    one, other = read_records("mitdb", tmp_path)
    np.testing.assert_array_equal(one.signal, first)
    np.testing.assert_array_equal(other.signal, second)
    assert one.signal.min() < -2000 and one.signal.max() > 2000  # the whole range of 12 bits
    assert one.fs == 360 and one.leads == ("V5", "MLII") and other.leads == ("MLII", "V5")
    assert one.gain.tolist() == [200, 200] and one.baseline.tolist() == [1024, 1024]
    np.testing.assert_allclose(one.millivolts(), (first - 1024.0) / 200, atol=1e-6)
    assert _marks(one, mit.BEATS, "beats") == [
        (20, "N"), (41, "V"), (44, "/"), (44, "f"), (1999, "e")
    ]  # fmt: skip
    assert _marks(one, mit.RHYTHMS, "rhythms") == [(18, "(N"), (40, "(AFIB"), (1998, "(VT")]


def test_mitdb_201_and_202_are_one_person(tmp_path: Path) -> None:
    for record in ("200", "201", "202", "203"):
        db.mitdb(tmp_path, record, samples=400)
    found = find_entries("mitdb", Folder.open(tmp_path))
    assert [e.key for e in found] == ["200", "201", "202", "203"]
    assert [e.patient for e in found] == ["200", "201", "201", "203"]


def test_mitdb_knows_every_beat_symbol_of_the_standard() -> None:
    from wfdb.io.annotation import ann_labels, is_qrs

    beats = {row.symbol for row in ann_labels if is_qrs[row.label_store]}
    assert len(beats) == 20
    # B, a bundle branch block of unknown side, is in other sets alone; ! is a wave of a flutter
    assert beats == {*mit.BEATS, "B", "!"}


def test_cinc2017_reads_back_what_was_written(tmp_path: Path) -> None:
    signals = {
        n: db.cinc(tmp_path, n, 300 * n, label) for n, label in zip((3, 4, 9), "A~O", strict=True)
    }
    records = list(read_records("cinc2017", tmp_path))
    assert (
        [r.key for r in records] == ["A00003", "A00004", "A00009"] == [r.patient for r in records]
    )
    assert [r.statements for r in records] == [("A",), ("~",), ("O",)]
    for record, signal in zip(records, signals.values(), strict=True):
        np.testing.assert_array_equal(record.signal, [signal])
        assert record.fs == 300 and record.leads == ("ECG",) and record.beats is None
        assert record.gain.tolist() == [1000] and record.baseline.tolist() == [0]


def test_cinc2017_takes_the_third_revision_of_the_labels_where_it_is(tmp_path: Path) -> None:
    names = ("REFERENCE-original.csv", "REFERENCE.csv", "REFERENCE-v3.csv")
    for n, (name, label) in enumerate(zip(names, "NAO", strict=True)):
        db.cinc(tmp_path, 1, label=label, reference=name)
        (entry,) = find_entries("cinc2017", Folder.open(tmp_path))
        assert (entry.labels_file, entry.statements) == (name, (label,)), n
        assert cinc2017.reference(Folder.open(tmp_path)) == name


def _icentia(root: Path) -> None:
    db.icentia(root, 7, 1, rows=db.icentia_rows(1000))


def _mitdb(root: Path) -> None:
    db.mitdb(root, "100", samples=1001)


def _cinc(root: Path) -> None:
    db.cinc(root, 1)


P7 = "p00/p00007/p00007_s01"


@pytest.mark.parametrize(
    ("name", "make", "damage", "words"),
    [
        ("icentia11k", _icentia, db.remove("*.dat"), (f"{P7}.dat", "missing", "fetch")),
        ("icentia11k", _icentia, db.cut("*.dat", 1), (f"{P7}.dat", "1,999", "2,000", "fetch")),
        ("icentia11k", _icentia, db.cut("*.dat", 2000), (f"{P7}.dat", "truncated", "fetch")),
        ("icentia11k", _icentia, db.cut("*.atr", 40), (f"{P7}.atr", "not a readable")),
        (
            "icentia11k",
            _icentia,
            db.write("*.hea", "p00007_s01 one 250\n"),
            (f"{P7}.hea", "header"),
        ),
        ("icentia11k", _icentia, db.write("*.hea", ""), (f"{P7}.hea", "header")),
        ("icentia11k", _icentia, db.write("*.hea", "p00007_s01 0 250 0\n"), (f"{P7}.hea",)),
        ("icentia11k", _icentia, db.replace("*.hea", "/mV", "/mmHg"), (f"{P7}.hea", "mmHg", "mV")),
        ("mitdb", _mitdb, db.remove("*.dat"), ("100.dat", "missing", "fetch")),
        ("mitdb", _mitdb, db.cut("*.dat", 3), ("100.dat", "3,003", "truncated", "fetch")),
        ("mitdb", _mitdb, db.remove("*.atr"), ("100.atr", "missing", "fetch")),
        ("cinc2017", _cinc, db.remove("*.mat"), ("A00001.mat", "missing", "fetch")),
        ("cinc2017", _cinc, db.cut("*.mat", 1), ("A00001.mat", "1,823", "1,824", "fetch")),
        ("cinc2017", _cinc, db.remove("*.hea"), ("A00001.hea", "missing", "fetch")),
        (
            "cinc2017",
            _cinc,
            db.write("REFERENCE-v3.csv", "A00001,X\n"),
            ("REFERENCE-v3.csv", "'X'", "A00001", "N A O ~"),
        ),
        (
            "cinc2017",
            _cinc,
            db.write("REFERENCE-v3.csv", "\n"),
            ("A00001", "no label", "REFERENCE-v3.csv", "add"),
        ),
    ],
)
def test_a_damaged_record_is_refused_by_name(
    tmp_path: Path,
    name: str,
    make: Callable[[Path], None],
    damage: db.Damage,
    words: tuple[str, ...],
) -> None:
    make(tmp_path)
    assert len(list(read_records(name, tmp_path))) == 1
    damage(tmp_path)
    _refused(name, tmp_path, *words)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(5, "N", ""), (6, "L", "")], ("unknown label L", "N S a V Q")),
        ([(5, "N", ""), (6, "+", "(VT")], ("unknown rhythm note (VT", "(AFIB")),
        ([(5, "N", ""), (1000, "N", "")], ("1,000", "fetch")),
        ([(5, "N", ""), (1000, "+", "(N")], ("1,000", "fetch")),
    ],
)
def test_marks_that_cannot_be_are_refused(
    tmp_path: Path, rows: db.Rows, words: tuple[str, ...]
) -> None:
    db.icentia(tmp_path, 7, 1, 1000, rows)
    _refused("icentia11k", tmp_path, f"{P7}.atr", *words)


def test_a_mark_on_the_last_sample_is_no_mistake(tmp_path: Path) -> None:
    db.icentia(tmp_path, 7, 1, 1000, [(0, "N", ""), (999, "V", "")])
    assert _only("icentia11k", tmp_path).beats.index.tolist() == [0, 999]


def test_one_lead_of_another_unit_is_enough_to_refuse(tmp_path: Path) -> None:
    _mitdb(tmp_path)
    hea = tmp_path / "100.hea"
    head, first, second = hea.read_text().splitlines()[:3]
    hea.write_text("\n".join([head, first, second.replace("/mV", "/mmHg")]) + "\n")
    _refused("mitdb", tmp_path, "100.hea", "mmHg", "mV")


def test_a_folder_that_does_not_hold_the_set_is_a_mistake_of_the_call(tmp_path: Path) -> None:
    with pytest.raises(EcgpipeError, match=r"unknown data set ludb.*icentia11k, mitdb, cinc2017"):
        find_entries("ludb", Folder.open(tmp_path))
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(EcgpipeError, match="no such folder") as caught:
            find_entries("mitdb", Folder.open(path))
        assert str(path) in str(caught.value)
    for name in ("icentia11k", "mitdb"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(EcgpipeError, match=r"no recordings of .*\.hea"):
            find_entries(name, Folder.open(tmp_path / "empty"))
    with pytest.raises(EcgpipeError, match=r"REFERENCE-v3\.csv"):
        find_entries("cinc2017", Folder.open(tmp_path / "empty"))
    _icentia(tmp_path / "icentia")
    _mitdb(tmp_path / "mit")
    for name, folder in (("mitdb", "icentia"), ("icentia11k", "mit"), ("cinc2017", "mit")):
        with pytest.raises(EcgpipeError, match=folder):
            find_entries(name, Folder.open(tmp_path / folder))
    assert not issubclass(EcgpipeError, BadRecord)


@pytest.mark.parametrize("name", ["icentia11k", "mitdb", "cinc2017"])
def test_parts_are_whole_patients_and_stay_when_patients_arrive_behind(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], patients_per_part=3))
    if name == "icentia11k":
        made = [db.icentia(tmp_path, p, s, 10).name for p in range(4) for s in range(p % 2 + 1)]
    elif name == "mitdb":
        made = [str(n) for n in (100, 200, 201, 202, 203, 205)]
        for record in made:
            db.mitdb(tmp_path, record, samples=500)
    else:
        made = [f"A{n:05d}" for n in range(1, 8)]
        for n in range(1, 8):
            db.cinc(tmp_path, n, 10)
    parts = group_parts(name, find_entries(name, Folder.open(tmp_path)))
    assert sorted(e.key for part in parts.values() for e in part) == sorted(made)
    patients = [{e.patient for e in part} for part in parts.values()]
    assert sum(map(len, patients)) == len(set().union(*patients))  # nobody is in two parts
    assert all(len(some) == 3 for some in patients[:-1]) and len(parts) >= 2
    assert list(parts) == [min(some) for some in patients]
    behind = parts[list(parts)[-1]]
    for entry in behind:  # without the last part the others are what they were
        for file in entry.files:
            (tmp_path / file).unlink(missing_ok=True)
    if name == "cinc2017":
        lines = (tmp_path / "REFERENCE-v3.csv").read_text().splitlines()
        (tmp_path / "REFERENCE-v3.csv").write_text("\n".join(lines[: -len(behind)]) + "\n")
    shorter = group_parts(name, find_entries(name, Folder.open(tmp_path)))
    assert shorter == {part: parts[part] for part in list(parts)[:-1]}


def test_annotations_that_go_back_in_time_are_refused(tmp_path: Path) -> None:
    _icentia(tmp_path)
    beat, skip = 1 << 10, 59 << 10  # header.5's bit layout: 6 bits of code, 10 of time
    words = [beat | 50, skip, 0xFFFF, 0xFFF6, beat, 0]  # at 50, then at 40
    (tmp_path / f"{P7}.atr").write_bytes(np.array(words, "<u2").tobytes())
    _refused("icentia11k", tmp_path, f"{P7}.atr", "out of order", "fetch")


def test_a_key_that_would_split_a_sample_is_a_mistake_of_the_call(tmp_path: Path) -> None:
    db.cinc(tmp_path, 1)
    for end in ("hea", "mat"):
        (tmp_path / f"A00001.2.{end}").write_bytes((tmp_path / f"A00001.{end}").read_bytes())
    with pytest.raises(EcgpipeError, match=r"1 of the key 'A00001\.2'; keys are unique"):
        find_entries("cinc2017", Folder.open(tmp_path))
