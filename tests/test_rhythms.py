"""Rhythms of beats and of samples: as the rule says it, and as the real notes have it."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgpipe.datasets import DATASETS, icentia11k, mitdb, read_records
from ecgpipe.labels.rhythms import (
    CLASSES,
    beat_rhythms,
    durations,
    label_frames,
    note_classes,
    stretches,
)
from ecgpipe.types import NO_MARKS, Marks

NAMES = {"(N": "normal", "(SBR": "normal", "(AFIB": "afib", "(AFL": "aflutter"}


def class_of_beat(beat: int, notes: list[tuple[int, str]], spans: bool) -> str:
    """The rule for one beat, in a plain loop over the notes."""
    if not spans:
        holding = notes[0][1] if notes else ""
        for at, note in notes:
            if at <= beat:
                holding = note
        return NAMES.get(holding, "none")
    for i, (first, note) in enumerate(notes):
        if note == ")":
            continue
        behind, closes = notes[i + 1] if i + 1 < len(notes) else (2**40, "")
        if note.endswith(")"):
            last = first
        elif closes == ")":
            last = behind
        else:
            last = behind - 1
        if first <= beat <= last:
            return NAMES.get(note.removesuffix(")"), "none")
    return "none"


def class_of_sample(t: int, beats: list[int], classes: list[str]) -> str:
    """The rule for one sample."""
    if not beats:
        return "none"
    for beat, name in zip(beats, classes, strict=True):
        if beat > t:
            return name
    return classes[-1]


def class_of_frame(of_samples: list[str]) -> str:
    """The rule for one frame, from the rhythms of its samples."""
    found = Counter(of_samples)
    if found["afib"] or found["aflutter"]:
        return "aflutter" if found["aflutter"] > found["afib"] else "afib"
    return "normal" if found["normal"] > found["none"] else "none"


SETS = st.sampled_from([icentia11k.RHYTHMS, mitdb.RHYTHMS])
AT = st.lists(st.integers(0, 59), max_size=12).map(sorted)


@st.composite
def records(draw: st.DrawFn) -> tuple[tuple[str, ...], list[int], list[tuple[int, str]], int]:
    """Symbols, beats, notes that need not be well formed, and a length that holds them."""
    symbols = draw(SETS)
    notes = [(at, draw(st.sampled_from(symbols))) for at in draw(AT)]
    return symbols, draw(AT), notes, draw(st.integers(60, 70))


@settings(deadline=None, max_examples=400)
@given(records())
def test_they_are_what_the_rule_says(
    record: tuple[tuple[str, ...], list[int], list[tuple[int, str]], int],
) -> None:
    symbols, at, notes, samples = record
    beats = Marks.of(at)
    marks = Marks.of([t for t, _ in notes], [symbols.index(note) for _, note in notes])
    of_beats = [class_of_beat(beat, notes, ")" in symbols) for beat in at]
    assert [CLASSES[i] for i in beat_rhythms(beats, marks, symbols)] == of_beats
    of_samples = [class_of_sample(t, at, of_beats) for t in range(samples)]
    edges, classes = stretches(beats, marks, symbols, samples)
    assert [CLASSES[i] for i in np.repeat(classes, np.diff(edges))] == of_samples
    assert durations(beats, marks, symbols, samples) == Counter(of_samples)


def test_a_span_by_hand() -> None:
    symbols = icentia11k.RHYTHMS
    notes = [(20, "(N"), (30, ")"), (40, "(AFIB)"), (50, "(AFL"), (60, ")")]
    marks = Marks.of([t for t, _ in notes], [symbols.index(note) for _, note in notes])
    beats = Marks.of([10, 20, 30, 40, 50, 60])
    names = [CLASSES[i] for i in beat_rhythms(beats, marks, symbols)]
    assert names == ["none", "normal", "normal", "afib", "aflutter", "aflutter"]
    # Samples 0–9 belong to the beat at 10, 10–29 to those at 20 and 30, …, 40–99 to the last two.
    expected = {"none": 10, "normal": 20, "afib": 10, "aflutter": 60}
    assert durations(beats, marks, symbols, 100) == expected
    assert durations(NO_MARKS, marks, symbols, 100) == {"none": 100}
    assert durations(None, marks, symbols, 100) is None


@st.composite
def frames(draw: st.DrawFn, samples: int) -> tuple[list[int], int]:
    """First samples and the length of frames that lie inside a record."""
    frame = draw(st.integers(1, samples))
    return draw(st.lists(st.integers(0, samples - frame), max_size=8)), frame


def labels(
    record: tuple[tuple[str, ...], list[int], list[tuple[int, str]], int],
    starts: list[int],
    frame: int,
    by: int = 0,
) -> list[str]:
    """Labels of frames, everything moved by some samples."""
    symbols, at, notes, samples = record
    beats = Marks.of([t + by for t in at])
    marks = Marks.of([t + by for t, _ in notes], [symbols.index(note) for _, note in notes])
    moved = np.array(starts, np.int64) + by
    found = label_frames(beats, marks, symbols, samples + by, moved, frame)
    assert found.shape == (len(starts),) and found.dtype == np.int64
    return [CLASSES[i] for i in found]


@settings(deadline=None, max_examples=300)
@given(st.data(), records())
def test_frames_are_labelled_as_the_rule_says(
    data: st.DataObject, record: tuple[tuple[str, ...], list[int], list[tuple[int, str]], int]
) -> None:
    symbols, at, notes, samples = record
    starts, frame = data.draw(frames(samples))
    of_beats = [class_of_beat(beat, notes, ")" in symbols) for beat in at]
    of_samples = [class_of_sample(t, at, of_beats) for t in range(samples)]
    wanted = [class_of_frame(of_samples[a : a + frame]) for a in starts]
    assert labels(record, starts, frame) == wanted


@given(st.data(), records(), st.integers(0, 10**6))
def test_frames_moved_with_their_record_keep_their_label(
    data: st.DataObject,
    record: tuple[tuple[str, ...], list[int], list[tuple[int, str]], int],
    by: int,
) -> None:
    starts, frame = data.draw(frames(record[-1]))
    assert labels(record, starts, frame, by) == labels(record, starts, frame)


@pytest.mark.parametrize(
    ("start", "stop", "label"),
    [
        (0, 10, "none"),  # before the first beat
        (9, 10, "none"),
        (9, 11, "afib"),  # one sample is enough
        (0, 70, "afib"),  # a tie
        (0, 71, "aflutter"),
        (10, 30, "afib"),  # a tie
        (11, 30, "aflutter"),
        (10, 29, "afib"),
        (29, 60, "aflutter"),
        (30, 40, "none"),
        (40, 50, "normal"),
        (30, 50, "none"),  # a tie
        (31, 50, "normal"),
        (30, 49, "none"),
        (49, 50, "normal"),
        (60, 70, "none"),
        (60, 71, "aflutter"),  # the record's last rhythm, up to its end
        (90, 100, "aflutter"),
        (99, 100, "aflutter"),
    ],
)
def test_a_frame_by_hand(start: int, stop: int, label: str) -> None:
    at = [10, 20, 30, 40, 50, 50, 60, 70, 80]
    # Samples 10–19 are AFib, 20–29 AFlutter, 40–49 normal, 70–99 AFlutter.
    notes = [(20, "(AFIB)"), (30, "(AFL)"), (50, "(N"), (50, ")"), (80, "(AFL")]
    record = (icentia11k.RHYTHMS, at, notes, 100)
    assert labels(record, [start], stop - start) == [label]


def test_frames_of_a_record_without_beats_or_notes_have_no_rhythm() -> None:
    for symbols in (icentia11k.RHYTHMS, mitdb.RHYTHMS):
        assert labels((symbols, [], [(10, "(AFIB")], 100), [0, 50], 50) == ["none", "none"]
        assert labels((symbols, [10, 60], [], 100), [0, 50], 50) == ["none", "none"]
        assert labels((symbols, [], [], 100), [], 50) == []


def test_which_notes_are_which_class() -> None:
    of = {s: CLASSES[c] for s, c in zip(mitdb.RHYTHMS, note_classes(mitdb.RHYTHMS), strict=True)}
    assert {s for s, name in of.items() if name == "normal"} == {"(N", "(SBR"}
    assert (of["(AFIB"], of["(AFL"], of["(B"], of["(T"]) == ("afib", "aflutter", "none", "none")
    names = [CLASSES[c] for c in note_classes(icentia11k.RHYTHMS)]
    assert names == ["normal", "afib", "aflutter", "none", "normal", "afib", "aflutter"]


def annotations(path: Path, symbols: tuple[str, ...]) -> tuple[list[int], list[tuple[int, str]]]:
    """Beats and notes as `wfdb` reads them."""
    found = wfdb.rdann(str(path), "atr")
    rows = zip(found.sample.tolist(), found.symbol, found.aux_note, strict=True)
    beats, notes = [], []
    for t, symbol, text in rows:
        note = text.rstrip("\0")
        if symbol == "+" and note in symbols:
            notes.append((t, note))
        elif symbol in mitdb.BEATS:
            beats.append(t)
    return beats, notes


def check_record(path: Path, symbols: tuple[str, ...], samples: int) -> Counter[str]:
    """The record's durations, held to the plain loops over every beat and sample."""
    at, notes = annotations(path, symbols)
    marks = Marks.of([t for t, _ in notes], [symbols.index(note) for _, note in notes])
    found = beat_rhythms(Marks.of(at), marks, symbols)
    spans = ")" in symbols
    of_beats = [class_of_beat(beat, notes, spans) for beat in at]
    assert [CLASSES[i] for i in found] == of_beats
    expected: Counter[str] = Counter()
    for i in range(len(at) + 1):
        first = at[i - 1] if i else 0
        stop = at[i] if i < len(at) else samples
        expected[of_beats[min(i, len(at) - 1)]] += stop - first
    assert durations(Marks.of(at), marks, symbols, samples) == +expected
    return expected


def test_real_segments_of_icentia11k(recordings: Path) -> None:
    total: Counter[str] = Counter()
    for segment in (0, 7, 21):
        path = recordings / f"icentia11k/p00/p00000/p00000_s{segment:02d}"
        total += check_record(path, icentia11k.RHYTHMS, 2**20 + 1)
    assert total["afib"] == total["aflutter"] == 0
    assert 0.82 < total["normal"] / total.total() < 1  # facts.md: 82 to 100 % in p00000


def test_in_p00000_a_beat_outside_the_spans_is_an_undefined_one(recordings: Path) -> None:
    for segment in (0, 13, 39):
        path = recordings / f"icentia11k/p00/p00000/p00000_s{segment:02d}"
        found = wfdb.rdann(str(path), "atr")
        symbols = [s for s in found.symbol if s != "+"]
        at, notes = annotations(path, icentia11k.RHYTHMS)
        marks = Marks.of(
            [t for t, _ in notes], [icentia11k.RHYTHMS.index(note) for _, note in notes]
        )
        none = beat_rhythms(Marks.of(at), marks, icentia11k.RHYTHMS) == CLASSES.index("none")
        assert none.tolist() == [symbol == "Q" for symbol in symbols]


def test_real_records_of_mitdb(recordings: Path) -> None:
    seconds = {}
    for record in ("100", "106", "202", "203", "222", "232"):
        path = recordings / "mitdb" / record
        if path.with_suffix(".hea").is_file():
            seconds[record] = check_record(path, mitdb.RHYTHMS, 650_000)
    assert len(seconds) >= 4
    assert seconds["100"] == {"normal": 650_000}
    assert seconds["202"]["aflutter"] / 360 == pytest.approx(47, abs=1.5)  # facts.md: 47 s


@pytest.mark.parametrize("frame", [512, 2048])
@pytest.mark.parametrize(("name", "count"), [("mitdb", None), ("icentia11k", 5)])
def test_real_frames(recordings: Path, name: str, count: int | None, frame: int) -> None:
    symbols = DATASETS[name].rhythms
    rng, seen = np.random.default_rng(0), Counter[str]()
    for record in islice(read_records(name, recordings / name), count):
        assert record.beats is not None
        at = record.beats.index.tolist()
        notes = [(int(t), symbols[i]) for t, i in zip(*record.rhythms, strict=True)]
        of_beats = [class_of_beat(beat, notes, ")" in symbols) for beat in at]
        of_samples = []
        for beat, label in zip(at, of_beats, strict=True):
            of_samples += [label] * (beat - len(of_samples))
        of_samples += of_beats[-1:] * (record.samples - len(of_samples))
        # Anywhere, and around every note.
        anywhere = rng.integers(0, record.samples - frame + 1, 60)
        around = record.rhythms.index - rng.integers(0, frame, len(notes))
        starts = np.append(anywhere, around.clip(0, record.samples - frame)).astype(np.int64)
        found = label_frames(record.beats, record.rhythms, symbols, record.samples, starts, frame)
        wanted = [class_of_frame(of_samples[a : a + frame]) for a in starts]
        assert [CLASSES[i] for i in found] == wanted
        seen.update(wanted)
    assert set(seen) == (set(CLASSES) if name == "mitdb" else {"none", "normal"})


@pytest.mark.slow
def test_every_real_record(recordings: Path) -> None:
    for path in sorted((recordings / "icentia11k").rglob("*.atr")):
        check_record(path.with_suffix(""), icentia11k.RHYTHMS, 2**20 + 1)
    for path in sorted((recordings / "mitdb").glob("*.atr")):
        check_record(path.with_suffix(""), mitdb.RHYTHMS, 650_000)
