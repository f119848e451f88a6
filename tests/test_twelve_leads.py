"""PTB-XL and ICBEB 2018: every recording from files in the real layout, every exclusion listed."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import databases as db
import numpy as np
import pytest
import scipy.io

from ecgpipe.datasets import DATASETS, Folder, find_entries, icbeb2018, ptbxl, read_entry
from ecgpipe.errors import BadRecord, EcgpipeError
from ecgpipe.labels.statements import chosen_classes, select_statements, why_excluded
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.shards import shard
from ecgpipe.types import Record

RHYTHMS = ("SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE", "SVARR", "BIGU", "AFLT", "SVTAC",
           "PSVT", "TRIGU")  # fmt: skip


def _read(name: str, root: Path) -> tuple[dict[str, Record], dict[str, str]]:
    """Records, and the reasons of those that cannot be used, by key."""
    folder = Folder.open(root)
    records, refused = {}, {}
    for entry in find_entries(name, folder):
        try:
            records[entry.key] = read_entry(name, entry, folder.fetch(entry.files))
        except BadRecord as error:
            refused[entry.key] = str(error)
            assert str(root) not in str(error)  # it is stored, wherever the data lie
    return records, refused


def _real(recordings: Path, name: str) -> Path:
    if not (recordings / name).is_dir():
        pytest.skip(f"{recordings} lacks {name}")
    return recordings / name


def test_ptbxl_reads_back_what_was_written(tmp_path: Path) -> None:
    db.ptbxl(tmp_path, 7, "{'NORM': 80.0, 'LVOLT': 0.0, 'SBRAD': 0.0}", "13243.0", "2")
    db.ptbxl(tmp_path, 21837, "{'LAO/LAE': 35.0, 'PRC(S)': 0.0}", "13243.0", "10", samples=77)
    records, refused = _read("ptbxl", tmp_path)
    assert list(records) == ["00007", "21837"] and not refused
    one, other = records.values()
    assert one.patient == other.patient == "13243" and (one.fold, other.fold) == (2, 10)
    assert one.statements == ("NORM", "LVOLT", "SBRAD")  # whatever the likelihood
    assert other.statements == ("LAO/LAE", "PRC(S)")
    np.testing.assert_array_equal(one.signal, db.twelve(7, 60, 500))
    np.testing.assert_array_equal(other.signal, db.twelve(21837, 77, 500))
    assert one.fs == 500 and one.leads == tuple(lead.upper() for lead in db.TWELVE)
    assert one.gain.tolist() == [1000] * 12 and one.baseline.tolist() == [0] * 12
    assert one.beats is None and one.quantisation is None


def test_ptbxl_takes_500_hz_where_there_is_any_and_says_what_lacks(tmp_path: Path) -> None:
    db.ptbxl(tmp_path, 1, rates=(100,), samples=20)
    db.ptbxl(tmp_path, 2, rates=(100,), samples=20)
    records, refused = _read("ptbxl", tmp_path)
    assert [r.fs for r in records.values()] == [100, 100] and not refused
    np.testing.assert_array_equal(records["00002"].signal, db.twelve(2, 20, 100))
    db.ptbxl(tmp_path, 3, rates=(100, 500))
    records, refused = _read("ptbxl", tmp_path)
    assert {key: r.fs for key, r in records.items()} == {"00003": 500}
    np.testing.assert_array_equal(records["00003"].signal, db.twelve(3, 60, 500))
    assert list(refused) == ["00001", "00002"]
    assert all("records500/00000/0000" in why and "missing" in why for why in refused.values())
    assert find_entries("ptbxl", Folder.open(tmp_path))[0].path == "records500/00000/00001_hr"


def test_ptbxl_refuses_by_name_what_table_and_files_do_not_agree_on(tmp_path: Path) -> None:
    db.ptbxl(tmp_path, 1)
    db.ptbxl(tmp_path, 2, rates=())
    db.ptbxl(tmp_path, 3, row=False)
    db.ptbxl(tmp_path, 4, "{'NORM': 100.0, 'SR'")
    db.ptbxl(tmp_path, 5, "__import__('os').system('touch ran')")
    db.ptbxl(tmp_path, 6, "NORM")
    db.ptbxl(tmp_path, 7, patient="unknown")
    db.ptbxl(tmp_path, 8, fold="second")
    db.ptbxl(tmp_path, 9, "{}", fold="")
    db.ptbxl(tmp_path, 10)
    (tmp_path / "records500/00000/00010_hr.dat").unlink()
    records, refused = _read("ptbxl", tmp_path)
    assert list(records) == ["00001", "00009"]
    assert records["00009"].statements == () and records["00009"].fold is None
    for key, words in {
        "00002": ("records500/00000/00002_hr.hea", "missing"),
        "00003": ("records500/00000/00003_hr", "no row in ptbxl_database.csv"),
        "00004": ("ptbxl_database.csv", "00004"),
        "00005": ("ptbxl_database.csv", "00005"),
        "00006": ("ptbxl_database.csv", "00006"),
        "00007": ("ptbxl_database.csv", "00007", "unknown"),
        "00008": ("ptbxl_database.csv", "00008", "second"),
        "00010": ("records500/00000/00010_hr.dat", "missing"),
    }.items():
        assert all(word in refused[key] for word in words), refused[key]
    assert len(refused) == 8 and not list(tmp_path.rglob("ran")) and not Path("ran").exists()


def test_ptbxl_tables_that_cannot_be_used_are_a_mistake_of_the_call(tmp_path: Path) -> None:
    with pytest.raises(EcgpipeError, match=r"no ptbxl_database\.csv"):
        ptbxl.entries(Folder.open(tmp_path))
    db.ptbxl(tmp_path, 1)
    db.ptbxl(tmp_path, 2)
    table = tmp_path / "ptbxl_database.csv"
    whole = table.read_text()
    for text, words in (
        (whole[:-9], "cut off"),
        (whole + whole.splitlines(True)[-2] + whole.splitlines(True)[-1], "twice"),
        (whole.replace("strat_fold", "fold"), "no column strat_fold"),
        (whole.replace("records500/00000/00001_hr", "../../00001_hr"), "cut off"),
    ):
        table.write_text(text)
        with pytest.raises(EcgpipeError, match=words):
            ptbxl.entries(Folder.open(tmp_path))
    (tmp_path / "scp_statements.csv").write_text("code,rhythm\nSR,1.0\n")
    with pytest.raises(EcgpipeError, match=r"scp_statements\.csv: no column"):
        ptbxl.groups(Folder.open(tmp_path))
    (tmp_path / "scp_statements.csv").unlink()
    with pytest.raises(EcgpipeError, match=r"no scp_statements\.csv"):
        ptbxl.groups(Folder.open(tmp_path))


def test_categories_of_statements(tmp_path: Path) -> None:
    db.ptbxl(tmp_path, 1)
    groups = ptbxl.groups(Folder.open(tmp_path))
    codes = tuple(groups["all"])
    assert codes == tuple(db.SCP)
    shuffled = {name: dict(sorted(group.items())) for name, group in groups.items()}  # as in JSON
    chosen = {name: select_statements(name, shuffled, codes) for name in groups}
    assert chosen["rhythm"].classes == RHYTHMS  # the paper's, in its order
    assert chosen["form"].classes == (
        "NDT", "NST_", "ABQRS", "PVC", "LVOLT", "PRC(S)"
    )  # fmt: skip
    assert chosen["superclass"].classes == ("STTC", "NORM", "MI", "HYP", "CD")
    assert chosen["subclass"].classes == (
        "STTC", "NST_", "NORM", "IMI", "AMI", "LVH", "_AVB", "LAO/LAE"
    )  # fmt: skip
    assert set(chosen["diagnostic"].classes) | set(chosen["form"].classes) | set(RHYTHMS) == set(
        codes
    )
    has = ("TRIGU", "IMI", "PVC", "AMI", "SR", "NDT")
    assert {name: chosen_classes(has, selection) for name, selection in chosen.items()} == {
        "all": ("NDT", "IMI", "AMI", "PVC", "SR", "TRIGU"),
        "rhythm": ("SR", "TRIGU"),
        "form": ("NDT", "PVC"),
        "diagnostic": ("NDT", "IMI", "AMI"),
        "superclass": ("STTC", "MI"),
        "subclass": ("STTC", "IMI", "AMI"),
    }
    assert chosen_classes(("NORM", "NEW"), chosen["rhythm"]) == ()
    assert why_excluded(("NORM", "NEW"), chosen["rhythm"]).endswith("statements: NORM NEW")
    assert "it has none" in why_excluded((), chosen["rhythm"])


def test_a_category_that_a_set_does_not_have_is_a_mistake_of_the_call() -> None:
    for words, arguments in (
        (r"no category 'rythm'.*all, form, rhythm", ("rythm", {"form": {}, "rhythm": {}}, ["SR"])),
        (r"no category 'rhythm'.*there are: all", ("rhythm", {}, ["N", "A"])),
        ("no statements", ("all", {}, [])),
    ):
        with pytest.raises(EcgpipeError, match=words):
            select_statements(*arguments)
    assert select_statements("all", {}, ["N", "A", "O"]).classes == ("N", "A", "O")


def test_every_record_of_ptbxl_is_in_the_shards_or_listed(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    db.ptbxl(raw, 1, "{'NORM': 100.0, 'SR': 0.0}", patient="3.0")
    db.ptbxl(raw, 2, "{'AMI': 15.0}", patient="3.0")
    db.ptbxl(raw, 3, "{'IMI': 15.0, 'TRIGU': 0.0, 'AFIB': 0.0}", patient="4.0")
    db.ptbxl(raw, 4, rates=())
    db.ptbxl(raw, 5, "{}")
    archive = prepare("ptbxl", raw, tmp_path / "archive", workers=1)
    assert archive.totals.records == 4 and archive.totals.refused == 1
    assert archive.totals.statements == {
        "AFIB": 1, "AMI": 1, "IMI": 1, "NORM": 1, "SR": 1, "TRIGU": 1
    }  # fmt: skip
    shards = shard(tmp_path / "archive", tmp_path / "rhythm", fs=250, workers=1)
    assert shards.recipe.statements == tuple(RHYTHMS)
    assert shards.totals.statements == {"AFIB": 1, "SR": 1, "TRIGU": 1}
    assert sorted(row.key for row in shards.excluded) == ["00002", "00005"]
    assert [row.key for row in shards.refused] == ["00004"]
    other = shard(tmp_path / "archive", tmp_path / "super", workers=1, statements="superclass")
    assert other.recipe.statements == ("STTC", "NORM", "MI", "HYP", "CD")
    assert other.totals.statements == {"MI": 2, "NORM": 1}
    assert [row.key for row in other.excluded] == ["00005"]
    with pytest.raises(EcgpipeError, match="no category 'ryhthm'"):
        shard(tmp_path / "archive", tmp_path / "none", workers=1, statements="ryhthm")


def test_ptbxl_real_tables_against_pandas(recordings: Path) -> None:
    import ast

    import pandas as pd

    root = _real(recordings, "ptbxl")
    table = pd.read_csv(root / "ptbxl_database.csv", index_col="ecg_id")
    codes = table.scp_codes.apply(lambda text: list(ast.literal_eval(text)))
    scp = pd.read_csv(root / "scp_statements.csv", index_col=0)
    folder = Folder.open(root)
    entries = find_entries("ptbxl", folder)
    groups = ptbxl.groups(folder)
    statements = tuple(groups["all"])
    assert len(entries) == len(table) == 521 and len(statements) == len(scp) == 71
    assert [int(e.key) for e in entries] == table.index.tolist()
    assert [int(e.patient) for e in entries] == table.patient_id.astype(int).tolist()
    assert [e.fold for e in entries] == table.strat_fold.tolist()
    assert [list(e.statements) for e in entries] == codes.tolist()
    assert select_statements("rhythm", groups, statements).classes == RHYTHMS
    columns = {
        "diagnostic": scp.index.to_series()[scp.diagnostic == 1],
        "form": scp.index.to_series()[scp.form == 1],
        "rhythm": scp.index.to_series()[scp.rhythm == 1],
        "all": scp.index.to_series(),
        "superclass": scp.diagnostic_class.dropna(),
        "subclass": scp.diagnostic_subclass.dropna(),
    }
    excluded = {}
    for name, column in columns.items():
        selection = select_statements(name, groups, statements)
        assert selection.classes == tuple(column.drop_duplicates())
        found = [chosen_classes(e.statements, selection) for e in entries]
        for classes, row in zip(found, codes, strict=True):
            assert set(classes) == set(column.reindex(row).dropna())
            assert list(classes) == [c for c in selection.classes if c in classes]
        excluded[name] = sum(not classes for classes in found)
    assert excluded == {
        name: int(codes.apply(set(column.index).isdisjoint).sum())
        for name, column in columns.items()
    }
    assert excluded["rhythm"] == 21 and excluded["all"] == 0


CODES = ",".join(icbeb2018.SNOMED.values())


@pytest.mark.parametrize("year", [2020, 2021])
def test_icbeb_of_the_challenges_reads_back_what_was_written(tmp_path: Path, year: int) -> None:
    first = db.challenge(tmp_path / "g1", "A0001", "59118001, 164889003", 61, year)
    second = db.challenge(tmp_path / "g2", "A6877", CODES, 40, year)
    db.challenge(tmp_path / "g2", "A0300", "427172004,164884008,10370003", 40, year)
    db.challenge(tmp_path, "A0400", "427172004", 40, year)
    db.challenge(tmp_path, "A0500", "Unknown", 40, year)
    records, refused = _read("icbeb2018", tmp_path)
    assert not refused
    assert {key: r.statements for key, r in records.items()} == {
        "A0001": ("RBBB", "AF"),
        "A0300": ("427172004", "PVC", "10370003"),  # not ICBEB's code of PVC: kept, no class
        "A0400": ("427172004",),
        "A0500": (),
        "A6877": icbeb2018.CLASSES,
    }
    np.testing.assert_array_equal(records["A0001"].signal, first)
    np.testing.assert_array_equal(records["A6877"].signal, second)
    for key, record in records.items():
        assert record.patient == key and record.fs == 500 and record.leads == db.TWELVE
        assert record.gain.tolist() == [1000] * 12 and record.quantisation is None
    selection = select_statements("all", {}, icbeb2018.CLASSES)
    assert chosen_classes(records["A0001"].statements, selection) == ("AF", "RBBB")
    assert chosen_classes(records["A0300"].statements, selection) == ("PVC",)
    assert chosen_classes(records["A0400"].statements, selection) == ()


def test_of_a_mixed_folder_only_the_own_records_are_taken(tmp_path: Path) -> None:
    for record in ("Q0001", "HR00002", "HR00003", "E00004", "JS00005", "A0006", "A0007"):
        db.challenge(tmp_path / "all", record)
    db.cinc(tmp_path / "cinc", 8)  # A00008, of CinC 2017
    records, refused = _read("icbeb2018", tmp_path)
    assert list(records) == ["A0006", "A0007"] and not refused
    assert icbeb2018.others(Folder.open(tmp_path)) == {"A": 1, "E": 1, "HR": 2, "JS": 1, "Q": 1}
    for name in ("A0006.hea", "A0007.mat"):
        next(tmp_path.rglob(name)).unlink()
    _, refused = _read("icbeb2018", tmp_path)
    assert list(refused) == ["A0006", "A0007"]
    assert "all/A0006.hea: missing" in refused["A0006"]
    assert "all/A0007.mat: missing" in refused["A0007"]
    db.challenge(tmp_path / "again", "A0007")
    with pytest.raises(EcgpipeError, match=r"A0007 is there twice, again/A0007 and all/A0007"):
        _read("icbeb2018", tmp_path)


def test_icbeb_with_other_leads_is_refused(tmp_path: Path) -> None:
    db.challenge(tmp_path, "A0001")
    db.replace("A0001.hea", " 0 V1\n", " 0 V7\n")(tmp_path)
    _, refused = _read("icbeb2018", tmp_path)
    assert "A0001.hea: leads I II III aVR aVL aVF V7" in refused["A0001"]


def test_icbeb_as_first_published_is_rounded_to_a_microvolt(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    millivolts = rng.normal(0, 1, (12, 300))
    db.icbeb(tmp_path / "TrainingSet1", "A0001", millivolts, "5,2,")
    db.icbeb(tmp_path / "TrainingSet2", "A0002", db.twelve(2, 90) / 1000, "9,,")
    db.icbeb(tmp_path / "TrainingSet2", "A0003", db.twelve(3, 90), None)  # 30 V
    db.reference(tmp_path / "TrainingSet2", "A0003", "3,NaN,NaN")
    records, refused = _read("icbeb2018", tmp_path)
    assert {key: r.statements for key, r in records.items()} == {
        "A0001": ("RBBB", "AF"), "A0002": ("STE",)
    }  # fmt: skip
    one, other = records.values()
    assert one.fs == 500 and one.leads == db.TWELVE and one.gain.tolist() == [1000] * 12
    worst = np.abs(one.signal / 1000 - millivolts).max()
    assert 0.00049 < worst <= 0.0005 + 1e-12
    assert one.quantisation == pytest.approx(worst, rel=1e-9)
    np.testing.assert_array_equal(other.signal, db.twelve(2, 90))  # whole microvolts stay exact
    assert other.quantisation < 1e-12
    assert (
        "TrainingSet2/A0003.mat" in refused["A0003"] and "int16 holds 32.8 mV" in refused["A0003"]
    )


def test_either_form_of_icbeb_gives_the_same_record(tmp_path: Path) -> None:
    for number, (dx, labels) in enumerate((("164931005", "9,,"), (CODES[:29], "1,2,3"))):
        signal = db.challenge(tmp_path / "challenge", f"A{number:04d}", dx, 50 + number)
        db.icbeb(tmp_path / "original", f"A{number:04d}", signal / 1000, labels)
    (one, _), (other, _) = (_read("icbeb2018", tmp_path / n) for n in ("challenge", "original"))
    assert list(one) == list(other) == ["A0000", "A0001"]
    for key in one:
        db.equal(one[key], other[key])


def test_icbeb_as_first_published_refuses_by_name(tmp_path: Path) -> None:
    good = db.twelve(1, 40) / 1000
    with pytest.raises(EcgpipeError, match=r"no labels; put REFERENCE\.csv"):
        scipy.io.savemat(tmp_path / "A0001.mat", {"ECG": {"data": good}})
        _read("icbeb2018", tmp_path)
    for number, (signal, labels) in enumerate(
        [
            (good, "1,,"), (good, None), (good, "10,,"), (good, "1,N,"), (good[:11], "1,,"),
            (good.T, "1,,"), (good * np.nan, "1,,"), (good, "2,,"), (good, "3,,"),
        ],
        1,
    ):  # fmt: skip
        db.icbeb(tmp_path, f"A{number:04d}", signal, labels)
    db.cut("A0008.mat", 200)(tmp_path)
    scipy.io.savemat(tmp_path / "A0009.mat", {"val": good})
    db.reference(tmp_path, "A0011", "4,,")
    records, refused = _read("icbeb2018", tmp_path)
    assert list(records) == ["A0001"]
    for key, words in {
        "A0002": ("A0002.mat", "no label in REFERENCE.csv"),
        "A0003": ("REFERENCE.csv", "unknown label 10 of A0003"),
        "A0004": ("unknown label N of A0004",),
        "A0005": ("A0005.mat", "(11, 40)"),
        "A0006": ("A0006.mat", "(40, 12)"),
        "A0007": ("A0007.mat", "not numbers"),
        "A0008": ("A0008.mat", "no readable MATLAB file"),
        "A0009": ("A0009.mat", "ECG"),
        "A0011": ("A0011.mat", "missing"),
    }.items():
        assert all(word in refused[key] for word in words), refused[key]
    (tmp_path / "more").mkdir()
    shutil.copy(tmp_path / "REFERENCE.csv", tmp_path / "more")  # the same labels again
    assert list(_read("icbeb2018", tmp_path)[0]) == ["A0001"]
    db.replace("REFERENCE.csv", "A0001,1,,", "A0001,2,,")(tmp_path / "more")
    with pytest.raises(EcgpipeError, match=r"more/REFERENCE\.csv: line 2: another label of A0001"):
        _read("icbeb2018", tmp_path)


def test_icbeb_without_one_of_the_nine_is_kept_and_excluded_by_name(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    db.challenge(raw, "A0001", "164889003,427172004")
    db.challenge(raw, "A0002", "427172004")
    archive = prepare("icbeb2018", raw, tmp_path / "archive", workers=1)
    assert archive.totals.statements == {"427172004": 2, "AF": 1}
    assert archive.totals.records == 2
    shards = shard(tmp_path / "archive", tmp_path / "shards", workers=1)
    assert shards.recipe.statements == tuple(icbeb2018.CLASSES)
    assert shards.totals.statements == {"AF": 1} and shards.totals.records == 1
    ((key, reason),) = ((row.key, row.reason) for row in shards.excluded)
    assert key == "A0002" and "427172004" in reason


def test_real_recordings_of_the_challenges(recordings: Path, tmp_path: Path) -> None:
    """Real headers of both styles; the samples are other sets', so they are renamed."""
    counts: Counter[str] = Counter()
    for year, sources in ((2020, 24), (2021, 30)):
        folder = _real(recordings, f"challenge{year}")
        assert sum(icbeb2018.others(Folder.open(folder)).values()) == sources
        assert icbeb2018.entries(Folder.open(folder)) == []
        own = tmp_path / str(year)
        own.mkdir()
        want = {}
        for number, header in enumerate(sorted(folder.glob("*.hea"))):
            text = header.read_text()
            key = f"A{number:04d}"
            (own / f"{key}.hea").write_text(text.replace(header.stem, key))
            shutil.copy(header.with_suffix(".mat"), own / f"{key}.mat")
            want[key] = scipy.io.loadmat(header.with_suffix(".mat"))["val"]
        records, refused = _read("icbeb2018", own)
        assert list(records) == list(want) and not refused
        for key, record in records.items():
            np.testing.assert_array_equal(record.signal, want[key])
            counts.update(record.statements)
    known = {name: counts[name] for name in icbeb2018.CLASSES if counts[name]}
    assert known == {"SNR": 12, "AF": 1, "IAVB": 1, "LBBB": 1, "RBBB": 1, "PAC": 21}


def test_real_recordings_as_first_published(recordings: Path, tmp_path: Path) -> None:
    folder = _real(recordings, "cpsc2018")
    for number, path in enumerate(sorted(folder.glob("*.mat"))):
        shutil.copy(path, tmp_path)
        db.reference(tmp_path, path.stem, f"{number % 9 + 1},,")
    records, refused = _read("icbeb2018", tmp_path)
    assert len(records) == 10 and not refused
    for key, record in records.items():
        exact = scipy.io.loadmat(folder / f"{key}.mat")["ECG"]["data"].item()
        error = np.abs(record.signal / 1000 - exact).max()
        assert error <= 0.0005 + 1e-12 and record.quantisation == pytest.approx(error, rel=1e-6)
    assert [r.samples for r in records.values()] == [
        5000, 7950, 5000, 7500, 9500, 5517, 21500, 6778, 27157, 8500
    ]  # fmt: skip


def test_both_sets_name_a_lead_that_their_records_have(tmp_path: Path) -> None:
    db.ptbxl(tmp_path, 1)
    db.challenge(tmp_path, "A0001")
    for name in ("ptbxl", "icbeb2018"):
        (record,) = _read(name, tmp_path)[0].values()
        assert DATASETS[name].main_lead in record.leads
