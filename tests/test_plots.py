"""ECG plots: to scale, with every mark on its sample, and what cannot be drawn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import databases as db
import numpy as np
import pytest
from command_line import run
from matplotlib.image import imread
from numpy.typing import NDArray

from ecgpipe.datasets import DATASETS
from ecgpipe.errors import EcgpipeError
from ecgpipe.labels.beats import CLASS_OF_SYMBOL
from ecgpipe.labels.rhythms import beat_rhythms, note_classes
from ecgpipe.plots.ecg import plot, seconds_of
from ecgpipe.plots.marks import BEAT_NAMES, RHYTHM_NAMES, Stretch, rhythm_stretches
from ecgpipe.progress import clock
from ecgpipe.reports.data_card import write_card
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.store import open_store
from ecgpipe.types import Marks

ICENTIA, MITDB = DATASETS["icentia11k"].rhythms, DATASETS["mitdb"].rhythms
INK, ALARM, BLUE = "#16191c", "#b3261e", "#2f6db0"


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


def test_a_plot_is_to_scale_and_its_marks_lie_on_their_samples(place: Path, tmp_path: Path) -> None:
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


def test_a_plot_ends_with_its_record(place: Path, tmp_path: Path) -> None:
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


def test_too_much_for_one_plot(tmp_path: Path) -> None:
    db.mitdb(tmp_path / "raw", "100", samples=360 * 600)
    prepare("mitdb", tmp_path / "raw", tmp_path / "archive", 1)
    with pytest.raises(EcgpipeError, match=r"--seconds 600: makes a plot [\d.]+ m tall, and 4 m"):
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
