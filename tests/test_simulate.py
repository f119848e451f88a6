"""The simulated data sets: real file formats, reproducible bytes, physiology that can be learnt."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb

from ecgpipe.errors import EcgpipeError
from ecgpipe.simulator import ecgsyn, simulate
from ecgpipe.simulator.ecgsyn import BEATS, RHYTHMS, Beats, Floats, Patient, Span

FS = 250


@pytest.fixture(scope="module")
def icentia(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("sim") / "icentia11k"
    assert simulate.simulate("icentia11k", dest, patients=9, segments=2, seconds=240) == 18
    return dest


@pytest.fixture(scope="module")
def cinc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("sim") / "cinc2017"
    assert simulate.simulate("cinc2017", dest, records=80) == 80
    return dest


def _bytes(dest: Path) -> dict[str, str]:
    files = [p for p in dest.rglob("*") if p.is_file() and p.name != "SIMULATED.json"]
    sums = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return {f.relative_to(dest).as_posix(): s for f, s in zip(files, sums, strict=True)}


def _records(dest: Path) -> list[Any]:
    paths = [str(dest / name) for name in (dest / "RECORDS").read_text().split()]
    return [(wfdb.rdrecord(p, physical=False), wfdb.rdann(p, "atr")) for p in paths]


def _beats(seed: int, span: Span, bpm: float | None = None) -> tuple[Any, Patient, Beats]:
    rng = np.random.default_rng([99, seed])
    heart = ecgsyn.patient(rng, bpm=bpm)
    return rng, heart, ecgsyn.beats(rng, heart, [span])


def _strip(seed: int, span: Span, bpm: float | None = None) -> tuple[Beats, Floats]:
    rng, heart, made = _beats(seed, span, bpm)
    return made, ecgsyn.signal(rng, heart, made, FS, round(span.seconds * FS))


def _around(x: Floats, times: Floats, before: float, after: float) -> Floats:
    """(beats, samples) of the signal around those times that lie well inside it."""
    at = np.rint(times * FS).astype(int)
    at = at[(at > FS) & (at < len(x) - FS)]
    return x[at[:, None] + np.arange(-int(before * FS), int(after * FS) + 1)]


def test_icentia_files_are_those_of_the_real_release(icentia: Path) -> None:
    names = (icentia / "RECORDS").read_text().splitlines()
    assert names[0] == "p00/p00000/p00000_s00" and names[-1] == "p00/p00008/p00008_s01"
    files = _bytes(icentia)
    del files["SHA256SUMS.txt"]
    assert set(files) == {"RECORDS"} | {f"{n}.{e}" for n in names for e in ("hea", "dat", "atr")}
    lines = (icentia / "SHA256SUMS.txt").read_text().splitlines()
    assert files == {path: digest for digest, path in (line.split(" ", 1) for line in lines)}
    x = np.fromfile(icentia / f"{names[3]}.dat", "<i2")
    assert (icentia / f"{names[3]}.hea").read_bytes().decode() == (
        "p00001_s01 1 250 60000\n"
        f"p00001_s01.dat 16 74.36482269503546(0)/mV 16 0 {x[0]} {x.sum() % 65536} 0 ecg\n"
    )
    for record, _ in _records(icentia):
        assert record.checksum == record.calc_checksum() and record.sig_name == ["ecg"]


def test_icentia_files_read_back_what_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Beats, Floats]] = []

    def spy(rng: Any, heart: Any, beats: Any, fs: Any, n: Any) -> Floats:
        made.append(
            (replace(beats, kind=beats.kind.copy()), ecgsyn.signal(rng, heart, beats, fs, n))
        )
        return made[-1][1].copy()

    monkeypatch.setattr(simulate, "ecg", spy)
    monkeypatch.setattr(simulate, "_noise", lambda *a: np.zeros(len(a[-1])))
    simulate.simulate("icentia11k", tmp_path, patients=8, segments=1, seconds=120)
    for (beats, mv), (record, notes) in zip(made, _records(tmp_path), strict=True):
        adc = record.d_signal[:, 0]
        assert np.abs(adc - (mv - mv.mean()) * record.adc_gain[0]).max() <= 0.5
        inside = (beats.time * FS > -0.5) & (beats.time * FS < len(mv) - 0.5)
        is_beat = np.array(notes.symbol) != "+"
        np.testing.assert_array_equal(notes.sample[is_beat], np.rint(beats.time[inside] * FS))
        read = np.array(notes.symbol)[is_beat]
        true = np.array(BEATS)[beats.kind[inside]]
        assert set(read[read != true]) <= {"Q"}


def test_every_beat_and_rhythm_occurs_in_four_patients_in_a_row(icentia: Path) -> None:
    for first in (0, 8):
        pairs = _records(icentia)[first : first + 8]
        assert {s for _, a in pairs for s in a.symbol} == {*BEATS, "+"}
        notes = {n for _, a in pairs for n in a.aux_note}
        assert {"None", ")", "(N", "(AFIB", "(AFL"} <= notes
        assert notes <= {"None", ")"} | {f"({r}{e}" for r in RHYTHMS[1:] for e in ("", ")")}


def test_rhythm_notes_stand_at_beats_and_leave_out_exactly_the_noise(icentia: Path) -> None:
    for record, a in _records(icentia):
        rows = list(zip(a.sample.tolist(), a.symbol, a.aux_note, strict=True))
        beats = [(t, s) for t, s, _ in rows if s != "+"]
        assert np.all(np.diff([t for t, _ in beats]) > 0)
        assert beats[0][0] >= 0 and beats[-1][0] < record.sig_len
        assert {note for _, s, note in rows if s != "+"} == {"None"}
        inside, start = set(), None
        for (t, _, _), (at, symbol, note) in pairwise(rows):
            if symbol == "+":
                assert at == t and (start is None) == note.startswith("(")
                start = at if start is None else start
                if note.endswith(")"):
                    inside |= {t for t, _ in beats if start <= t <= at}
                    start = None
        assert start is None
        assert all((t in inside) == (s != "Q") for t, s in beats)


def test_a_rhythm_of_one_beat_has_one_note() -> None:
    kind = np.array([0, 4, 0, 4, 0, 0, 0], np.uint8)
    rhythm = np.array([1, 0, 2, 0, 1, 1, 3], np.uint8)
    samples, symbols, notes = simulate._notes(np.arange(0, 700, 100), kind, rhythm)
    assert "".join(symbols) == "N+QN+QN+N+N+"
    assert [n for n in notes if n != "None"] == ["(N)", "(AFIB)", "(N", ")", "(AFL)"]
    assert samples == [0, 0, 100, 200, 200, 300, 400, 400, 500, 500, 600, 600]


def test_normal_beats_are_marked_on_the_r_peak_and_q_beats_lie_in_noise(icentia: Path) -> None:
    offsets: list[int] = []
    roughness: dict[str, list[float]] = {s: [] for s in BEATS}
    for record, a in _records(icentia):
        x = record.d_signal[:, 0].astype(float)
        for t, s in zip(a.sample, a.symbol, strict=True):
            if s != "+" and 30 < t < len(x) - 30:
                roughness[s].append(np.diff(x[t - 30 : t + 30], 4).std())
                if s == "N":
                    part = x[t - 15 : t + 16]
                    offsets.append(np.abs(part - np.median(part)).argmax() - 15)
    assert np.mean(np.abs(offsets) <= 2) > 0.97 and abs(np.mean(offsets)) < 0.5
    assert np.median(roughness["Q"]) > 2 * np.median(roughness["N"])
    count = {s: len(values) for s, values in roughness.items()}
    assert 0.05 < count["Q"] / sum(count.values()) < 0.35
    assert all(count[s] > 0.005 * sum(count.values()) for s in "SaV")


def test_cinc_files_are_those_of_the_challenge(cinc: Path) -> None:
    from scipy.io import loadmat

    names = (cinc / "RECORDS").read_text().splitlines()
    assert names == [f"A{i:05d}" for i in range(1, 81)]
    for name in names:
        record = wfdb.rdrecord(str(cinc / name), physical=False)
        val = loadmat(cinc / f"{name}.mat")["val"]
        assert val.dtype == np.int16 and val.shape == (1, record.sig_len)
        np.testing.assert_array_equal(val[0], record.d_signal[:, 0])
        assert record.fs == 300 and record.adc_gain == [1000] and record.fmt == ["16"]
        assert 9 * 300 <= record.sig_len <= 61 * 300
        assert 300 < np.abs(val).max() < 2**15 - 1  # beats, and nothing clipped
        first, second = (cinc / f"{name}.hea").read_bytes().decode().split("\r\n")[:2]
        assert first == f"{name} 1 300 {val.size} 05:05:15 1/05/2000 "
        assert second == f"{name}.mat 16+24 1000/mV 16 0 {val[0, 0]} 0 0 ECG "


def test_cinc_classes_and_polarity(cinc: Path) -> None:
    rows = [line.split(",") for line in (cinc / "REFERENCE-v3.csv").read_text().splitlines()]
    assert [name for name, _ in rows] == (cinc / "RECORDS").read_text().split()
    assert Counter(label for _, label in rows) == {"N": 40, "A": 12, "O": 20, "~": 8}
    upright = []
    for name, label in rows:
        if label == "N":
            x = wfdb.rdrecord(str(cinc / name)).p_signal[:, 0]
            upright.append(np.mean((x - np.median(x)) ** 3) > 0)
    assert 0.6 < np.mean(upright) < 1


@pytest.mark.parametrize("name", ["icentia11k", "cinc2017"])
def test_bytes_follow_from_the_seed_and_the_number_alone(tmp_path: Path, name: str) -> None:
    size = {"patients": 3, "segments": 2, "seconds": 30}
    more = size | {"patients": 4}
    if name == "cinc2017":
        size, more = {"records": 12}, {"records": 30}
    made = []
    for folder, sizes, seed in (("a", size, 5), ("b", size, 5), ("c", size, 6), ("d", more, 5)):
        count = simulate.simulate(name, tmp_path / folder, seed=seed, **sizes)
        made.append(_bytes(tmp_path / folder))
        assert count == len((tmp_path / folder / "RECORDS").read_text().split())
    assert made[0] == made[1]
    assert simulate.simulate(name, tmp_path / "a", seed=5, **size) == len(
        (tmp_path / "a" / "RECORDS").read_text().split()
    )  # made before: left as it is
    with pytest.raises(EcgpipeError, match="something else already"):
        simulate.simulate(name, tmp_path / "a", seed=6, **size)
    data = [path for path in made[0] if path.endswith((".dat", ".mat"))]
    assert len({made[0][p] for p in data} | {made[2][p] for p in data}) == 2 * len(data)
    lists = {"RECORDS", "SHA256SUMS.txt", "REFERENCE-v3.csv"}
    assert all(made[3][p] == made[0][p] for p in set(made[0]) - lists)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("ptbxl", {}, "'ptbxl'.*icentia11k, cinc2017"),
        ("cinc2017", {"patients": 3}, "no patients; set records or seconds"),
        ("icentia11k", {"patients": 0}, "patients=0: choose from 1"),
        ("icentia11k", {"seed": -1}, "seed=-1"),
    ],
)
def test_bad_calls_are_refused(tmp_path: Path, name: str, sizes: Any, message: str) -> None:
    with pytest.raises(EcgpipeError, match=message):
        simulate.simulate(name, tmp_path / "new", **sizes)
    assert not (tmp_path / "new").exists()


def test_existing_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    for dest in (tmp_path, tmp_path / "mine"):
        with pytest.raises(EcgpipeError, match="something else already"):
            simulate.simulate("cinc2017", dest, records=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_the_folder_one_is_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EcgpipeError, match="is the folder you are in; name one below it"):
        simulate.simulate("cinc2017", Path(), records=1)
    assert simulate.simulate("cinc2017", Path("below"), records=1, seconds=10) == 1
    assert (tmp_path / "below" / "RECORDS").read_text() == "A00001\n"


@pytest.mark.parametrize("seed", range(4))
def test_fibrillation_is_irregular_and_flutter_conducts_every_second_to_fourth(seed: int) -> None:
    change = {}
    for rhythm in ("N", "AFIB", "AFL"):
        made = _strip(seed, Span(rhythm, 300))[0]
        rr = np.diff(made.time)
        change[rhythm] = np.abs(np.diff(rr)).mean() / rr.mean()
        assert rr.min() > 0.27 and rr.max() < 2
    assert change["AFIB"] > 0.15 > 3 * change["N"]
    assert set(made.cycles[1:]) == {2, 3, 4}
    rate = 60 * made.cycles[1:] / rr
    assert 250 < rate.mean() < 350 and rate.std() < 10


def test_sinus_rhythm_has_the_rate_and_the_spectrum_of_ecgsyn() -> None:
    for bpm in (45, 70, 120):
        made, _ = _strip(2, Span("N", 1200), bpm)
        rr = np.diff(made.time)
        assert 60 / rr.mean() == pytest.approx(bpm, rel=0.04)
        t = np.arange(0, 1190, 0.25)
        power = np.abs(np.fft.rfft(np.interp(t, made.time[1:], rr - rr.mean()))) ** 2
        f = np.fft.rfftfreq(len(t), 0.25)
        mayer, gap = (power[(f > low) & (f < low + 0.04)].mean() for low in (0.08, 0.13))
        assert mayer > 5 * gap


def test_fibrillation_has_no_p_waves_but_waves_of_4_to_9_hz() -> None:
    shares = {"N": 0.0, "AFIB": 0.0}
    for rhythm in shares:
        for seed in range(6):
            made, x = _strip(seed, Span(rhythm, 120))
            mean = _around(x, made.time, 0.24, 0.0).mean(0)[: int(0.19 * FS)]
            shares[rhythm] += np.abs(mean - np.linspace(mean[0], mean[-1], len(mean))).max()
    assert shares["AFIB"] < 0.35 * shares["N"]
    rng, heart, made = _beats(3, Span("AFIB", 60))
    power = np.abs(np.fft.rfft(ecgsyn._atria(rng, heart, made, FS, 60 * FS))) ** 2
    f = np.arange(len(power)) / 60
    assert power[(f > 3.5) & (f < 9.5)].sum() > 0.7 * power.sum()


@pytest.mark.parametrize("seed", range(4))
def test_ectopic_beats_are_early_and_have_their_widths_and_pauses(seed: int) -> None:
    made, x = _strip(seed, Span("N", 1800, pac=0.05, aberrated=0.05, pvc=0.05), 65)
    rr, width, early, both = np.diff(made.time), {}, {}, {}
    kind = made.kind[1:-1]
    lone = (made.kind[:-2] == 0) & (made.kind[2:] == 0)
    for code, symbol in enumerate(BEATS[:4]):
        mean = np.abs(_around(x, made.time[made.kind == code], 0.07, 0.14).mean(0))
        width[symbol] = (mean > 0.25 * mean.max()).mean()
        early[symbol] = np.median(rr[:-1][kind == code]) / np.median(rr)
        both[symbol] = np.median((rr[:-1] + rr[1:])[lone & (kind == code)]) / np.median(rr)
    assert width["V"] > 1.5 * width["N"] and width["a"] > 1.25 * width["N"]
    assert width["S"] == pytest.approx(width["N"], rel=0.2)
    assert max(early[s] for s in "SaV") < 0.85 < early["N"]
    assert both["V"] == pytest.approx(2, abs=0.07)  # compensatory
    assert max(both["S"], both["a"]) < 1.9


def test_qt_shortens_as_the_heart_speeds_up() -> None:
    peaks = []
    for bpm in (50, 110):
        rng, heart, made = _beats(0, Span("N", 60), bpm)
        *_, t_wave, _ = ecgsyn._complexes(rng, heart, made, FS, 60 * FS)
        mean = _around(t_wave, made.time, 0.0, 0.45).mean(0)
        peaks.append(np.abs(mean).argmax() / FS)
    assert peaks[0] / peaks[1] == pytest.approx((110 / 50) ** 0.5, rel=0.1)
