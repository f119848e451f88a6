"""Looking at data: ECG paper, the data card, `inspect`, and the guide that shows them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import databases as db
import numpy as np
import pytest
from command_line import run
from matplotlib.image import imread
from numpy.typing import NDArray
from test_docs import blocks

from ecgpipe.datasets import DATASETS
from ecgpipe.errors import EcgpipeError
from ecgpipe.labels.beats import CLASS_OF_SYMBOL
from ecgpipe.labels.rhythms import beat_rhythms, note_classes
from ecgpipe.plots.ecg import plot, seconds_of
from ecgpipe.plots.marks import BEAT_NAMES, RHYTHM_NAMES, Stretch, rhythm_stretches
from ecgpipe.progress import clock
from ecgpipe.reports.data_card import count, write_card
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.inspect import inspect, text
from ecgpipe.storage.store import open_store
from ecgpipe.types import Marks

ICENTIA, MITDB = DATASETS["icentia11k"].rhythms, DATASETS["mitdb"].rhythms
INK, ALARM, BLUE = "#16191c", "#b3261e", "#2f6db0"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, stores: Path) -> Path:
    """Simulated stores, where the documents say they are."""
    return shutil.copytree(stores, tmp_path_factory.mktemp("place") / "stores")


@pytest.fixture(scope="module")
def leads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two twelve-lead records and one that is refused."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("leads")
    time = np.arange(5000) / 500
    for number in (1, 2):
        waves = [300 * lead * np.sin(2 * np.pi * number * time) for lead in range(1, 13)]
        db.challenge(raw, f"A000{number}", signal=np.array(waves).astype(np.int16))
    db.challenge(raw, "A0003")
    (raw / "A0003.mat").write_bytes(b"<b>no signal</b>")
    prepare("icbeb2018", raw, folder / "archive", workers=1)
    return folder / "archive"


# Rhythms


@pytest.mark.parametrize(
    ("symbols", "notes", "expected"),
    [
        (ICENTIA, [], []),
        (ICENTIA, [(5, "(N"), (9, ")")], [(5, 10, "N")]),
        (ICENTIA, [(5, "(AFIB)"), (7, "(AFL"), (20, ")")], [(5, 6, "AFIB"), (7, 21, "AFL")]),
        (ICENTIA, [(5, "(N"), (9, "(AFIB"), (12, ")")], [(5, 9, "N"), (9, 13, "AFIB")]),
        (ICENTIA, [(3, ")"), (5, "(N")], [(5, 100, "N")]),
        (MITDB, [(5, "(AFIB"), (9, "(N")], [(0, 9, "AFIB"), (9, 100, "N")]),
        (MITDB, [], []),
    ],
)
def test_where_rhythms_hold(
    symbols: tuple[str, ...], notes: list[tuple[int, str]], expected: list[Any]
) -> None:
    marks = Marks.of([at for at, _ in notes], [symbols.index(note) for _, note in notes])
    assert rhythm_stretches(marks, symbols, 100) == [Stretch(*item) for item in expected]


def test_stretches_are_what_beats_are_labelled_by(recordings: Path, tmp_path: Path) -> None:
    """The drawn rhythm of every beat of real and simulated records is the one that is learnt."""
    prepare("mitdb", recordings / "mitdb", tmp_path / "mitdb", 1, patients="200-203")
    store = open_store(tmp_path / "mitdb")
    symbols = store.recipe.rhythms
    beats, changes = 0, 0
    for record in store.read_all():
        assert record.beats is not None
        drawn = np.zeros(len(record.beats.index), np.uint8)
        found = rhythm_stretches(record.rhythms, symbols, record.samples)
        for start, stop, name in found:
            inside = (record.beats.index >= start) & (record.beats.index < stop)
            drawn[inside] = note_classes([f"({name}"])[0]
        np.testing.assert_array_equal(drawn, beat_rhythms(record.beats, record.rhythms, symbols))
        beats, changes = beats + len(drawn), changes + len(found)
    assert beats > 5000 and changes > 50


def test_everything_has_a_name() -> None:
    for source in DATASETS.values():
        assert set(source.beats) <= BEAT_NAMES.keys()
        assert {note.strip("()") for note in source.rhythms} - {""} <= RHYTHM_NAMES.keys()
    assert set(BEAT_NAMES) == set(CLASS_OF_SYMBOL)


# ECG paper


def millimetres(points: str) -> NDArray[np.float64]:
    return np.array([float(x) for x in re.findall(r"-?[\d.]+", points)]).reshape(-1, 2) / 72 * 25.4


class Drawing:
    """What an SVG holds, in millimetres."""

    def __init__(self, file: Path) -> None:
        root = ElementTree.parse(file).getroot()
        self.width, self.height = (
            float(root.attrib[name].removesuffix("pt")) / 72 * 25.4 for name in ("width", "height")
        )
        self.texts: list[tuple[str, float, float, str]] = []
        self.paths: list[tuple[str, NDArray[np.float64]]] = []
        for node in root.iter():
            style = node.attrib.get("style", "")
            colour = "".join(re.findall(r"(?:stroke|fill): (#\w+)", style)[:1])
            if node.tag.endswith("}text"):
                x, y = (float(node.attrib[name]) / 72 * 25.4 for name in "xy")
                self.texts.append((node.text or "", x, y, colour))
            elif node.tag.endswith("}path") and "stroke:" in style:
                self.paths.append((colour, millimetres(node.attrib["d"])))
        ink = [points for colour, points in self.paths if colour == INK]
        self.pulses = [points for points in ink if len(points) == 6]
        self.traces = [points for points in ink if len(points) > 6]

    def find(self, *words: str) -> list[tuple[str, float, float, str]]:
        return [item for item in self.texts if item[0] in words]


def test_a_strip_is_to_scale_and_its_marks_lie_on_their_samples(
    place: Path, tmp_path: Path
) -> None:
    store = open_store(place / "archive/icentia11k")
    record = store.read("p00002_s01")
    assert record.beats
    drawing = Drawing(plot(store.path, record.key, tmp_path / "strip.svg", "0:20", 25))
    first, last = 20 * 250, 45 * 250

    assert [len(trace) for trace in drawing.traces] == [2501, 2501, 1251]
    for row, trace in enumerate(drawing.traces):
        np.testing.assert_allclose(np.diff(trace[:, 0]), 25 / 250, atol=1e-4)
        shown = record.millivolts()[0, first + 2500 * row :][: len(trace)]
        np.testing.assert_allclose(np.diff(trace[:, 1]), -10 * np.diff(shown), atol=1e-3)
    for pulse in drawing.pulses:
        assert np.ptp(pulse[:, 1]) == pytest.approx(10, abs=1e-3)  # 1 mV
        assert pulse[3, 0] - pulse[2, 0] == pytest.approx(5, abs=1e-3)  # 0.2 s

    def place_of(sample: int) -> tuple[int, float]:
        row, within = divmod(sample - first, 2500)
        return row, round(float(drawing.traces[row][within, 0]), 2)

    labels = [store.recipe.beats[label] for label in record.beats.label]
    inside = [
        (at, symbol)
        for at, symbol in zip(record.beats.index.tolist(), labels, strict=True)
        if first <= at < last
    ]
    assert len({symbol for _, symbol in inside}) > 1
    tops = [trace[:, 1].min() for trace in drawing.traces]
    drawn = [
        (int(sum(top < y for top in tops)), round(x, 2), symbol, colour)
        for symbol, x, y, colour in drawing.texts
        if symbol in "NSaVQ" and colour in (INK, ALARM) and y < drawing.traces[-1][:, 1].max()
    ]
    assert sorted(drawn) == [
        (*place_of(at), symbol, ALARM if symbol in "SaV" else INK) for at, symbol in inside
    ]

    ticks = [points for colour, points in drawing.paths if colour == BLUE]
    lefts = [(row, x) for row, points in enumerate(ticks) for x in points[::2, 0].round(2)]
    wanted = [place_of(at) for at in record.qrs.index.tolist() if first <= at < last]
    np.testing.assert_allclose(lefts, wanted, atol=0.011)

    stretches = rhythm_stretches(record.rhythms, ICENTIA, record.samples)
    names = {s.name for s in stretches if s.start < last and s.stop > first}
    assert len(names) > 1
    for name in names:
        assert drawing.find(f"{name} {RHYTHM_NAMES[name]}")
    for second in (20, 21, 30, 44, 45):
        assert drawing.find(f"0:00:{second:02d}")
    (title, *_), line = drawing.texts[0], drawing.texts[1][0]
    assert title == "p00002_s01"
    for words in (
        "simulated",
        "patient p00002",
        "250 Hz, lead ecg",
        "0:00:20 to 0:00:45 of 0:01:00",
    ):
        assert words in line


def test_the_paper_has_squares_of_a_millimetre_and_of_five(place: Path, tmp_path: Path) -> None:
    out = plot(place / "archive/icentia11k", "p00000_s00", tmp_path / "strip.svg", 0, 4)
    drawing = Drawing(out)
    fine, coarse = (p for c, p in drawing.paths if c in ("#f6d9d4", "#e8a79d"))
    for lines, step in ((fine, 1), (coarse, 5)):
        for axis in (0, 1):
            at = np.unique(lines[:, axis].round(3))
            np.testing.assert_allclose(np.diff(at), step, atol=2e-3)
    corner = coarse.min(axis=0)
    (trace,) = drawing.traces
    assert ((trace[0, 0] - corner[0]) % 5) == pytest.approx(0, abs=2e-3)  # 0 s is on a thick line
    assert trace[:, 1].min() >= corner[1] and trace[:, 1].max() <= coarse[:, 1].max()


def test_all_leads_are_drawn_one_beneath_another(leads: Path, tmp_path: Path) -> None:
    drawing = Drawing(plot(leads, "A0002", tmp_path / "strip.svg"))
    names = [drawing.find(name) for name in db.TWELVE]
    assert all(len(found) == 1 for found in names)
    heights = [found[0][2] for found in names]
    assert heights == sorted(heights) and len(drawing.pulses) == len(drawing.traces) == 12
    for i, trace in enumerate(drawing.traces):
        assert np.ptp(trace[:, 1]) == pytest.approx(6 * (i + 1), rel=0.01)  # ±0.3 (i + 1) mV
    assert "cut beyond 3 mV" in drawing.texts[1][0]
    assert "cut" not in Drawing(plot(leads, "A0001", tmp_path / "one.svg", 0, 0.02)).texts[1][0]


def test_a_picture_has_the_size_of_its_paper(place: Path, tmp_path: Path) -> None:
    """Eight pixels a millimetre, so that no line of the grid falls between two."""
    store, key = place / "archive/cinc2017", "A00001"
    pixels = imread(plot(store, key, tmp_path / "strip.png"))
    drawing = Drawing(plot(store, key, tmp_path / "strip.svg"))
    assert pixels.shape[:2] == (round(8 * drawing.height), round(8 * drawing.width))
    assert round(drawing.width) == 8 + 11 + 10 + 250 + 8


def test_the_same_record_gives_the_same_bytes(place: Path, tmp_path: Path) -> None:
    archive, shards = place / "archive/icentia11k", place / "shards/icentia11k"
    for kind in ("png", "svg", "PDF"):
        one = plot(archive, "p00001_s00", tmp_path / f"one.{kind}", 3, 5).read_bytes()
        assert one == plot(shards, "p00001_s00", tmp_path / f"two.{kind}", "0:03", 5).read_bytes()
        assert b"atplotlib" not in one and b"Date" not in one
    out = tmp_path / "new/other.PDF"
    found = run("plot", shards, "p00001_s00", "--start", "0:03", "--seconds", "5", "--out", out)
    assert found.returncode == 0 and found.stderr == ""
    assert one == out.read_bytes()


def test_a_strip_ends_with_its_record(place: Path, tmp_path: Path) -> None:
    store = place / "archive/cinc2017"
    (trace,) = Drawing(plot(store, "A00001", tmp_path / "strip.svg", 8.5, 20)).traces
    assert len(trace) == 450  # 1.5 s at 300 Hz, and no sample beyond the last
    (trace,) = Drawing(plot(store, "A00001", tmp_path / "strip.svg", "9.9")).traces
    assert len(trace) == 30
    assert plot(store, "A00001", tmp_path / "one.png", 9.9967).is_file()  # a single sample


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"out": "strip.jpg"}, r"strip.jpg: cannot be drawn; name a file that ends in .png"),
        ({"key": "A99999"}, "holds no record A99999"),
        ({"start": 10}, r"--start 10: outside of A00001, which lasts 0:00:10 \(10 s\)"),
        ({"start": "1:00:00"}, "--start 1:00:00: outside of A00001, which lasts 0:00:10"),
        ({"start": -1}, "--start -1: outside"),
        ({"start": "1:2:3:4"}, "no time; write seconds, m:ss or h:mm:ss"),
        ({"start": "1:60"}, "--start 1:60: no time"),
        ({"start": "soon"}, "--start soon: no time"),
        ({"start": "nan"}, "--start nan: no time"),
        ({"seconds": 0}, "--seconds 0: nothing to draw"),
        ({"seconds": float("nan")}, "--seconds nan: nothing to draw"),
    ],
)
def test_what_cannot_be_drawn(
    change: dict[str, Any], words: str, place: Path, tmp_path: Path
) -> None:
    call = {"key": "A00001", "out": "strip.png", **change}
    call["out"] = tmp_path / call["out"]
    with pytest.raises(EcgpipeError, match=words):
        plot(place / "archive/cinc2017", **call)
    assert not list(tmp_path.iterdir())


def test_too_much_for_one_sheet(tmp_path: Path) -> None:
    db.mitdb(tmp_path / "raw", "100", samples=360 * 600)
    prepare("mitdb", tmp_path / "raw", tmp_path / "archive", 1)
    with pytest.raises(EcgpipeError, match=r"--seconds 600: makes a sheet [\d.]+ m tall, and 4 m"):
        plot(tmp_path / "archive", "100", tmp_path / "strip.png", 0, 600)


def test_a_flat_record_can_be_looked_at(tmp_path: Path) -> None:
    db.icentia(tmp_path / "raw", 0, 0, np.full(2500, -7, np.int16))
    prepare("icentia11k", tmp_path / "raw", tmp_path / "archive", 1)
    drawing = Drawing(plot(tmp_path / "archive", "p00000_s00", tmp_path / "strip.svg"))
    assert np.ptp(drawing.traces[0][:, 1]) == 0
    assert "no annotated beats" in drawing.texts[1][0]
    card = write_card(tmp_path / "archive", tmp_path / "card.html").read_text()
    assert "Heart rate" not in card and "Annotated beats" not in card


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("90", 90), (90, 90), (1.5, 1.5), ("1:30", 90), ("90:00", 5400), ("1:02:03.5", 3723.5)],
)
def test_times(time: str | float, seconds: float) -> None:
    assert seconds_of(time) == seconds == seconds_of(clock(seconds))


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
        facts["digest"], "sleepecg", "Heart rate", "all that was asked for could be used",
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
def test_a_card_decodes_no_signal(place: Path, tmp_path: Path, kind: str) -> None:
    store = tmp_path / kind
    shutil.copytree(place / kind / "icentia11k", store)
    before = write_card(store, tmp_path / "card.html").read_bytes()
    for path in store.rglob("records.zarr/*/signal/c/**/*"):
        if path.is_file():
            path.write_bytes(b"broken")
    for path in store.rglob("*.tar"):
        data = bytearray(path.read_bytes())
        for header in re.finditer(rb"p\d{5}_s\d\d\.signal\0", bytes(data)):
            data[header.start() + 512 : header.start() + 1024] = bytes(512)
        path.write_bytes(data)
    with pytest.raises((RuntimeError, ValueError)):
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
