"""Small simulated data sets in the files that the real ones are published in.

The hearts are those of :mod:`ecgpipe.simulator.ecgsyn`; here they get an electrode with its noise,
a diagnosis, and the files of Icentia11k (PhysioNet, 1.0) and of the PhysioNet/CinC Challenge 2017.
Everything random about a patient or record follows from the seed and its number alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.io import savemat

from ..datasets import SIMULATED
from ..errors import EcgpipeError
from ..files.atomic import publish, read_json, sha256, staging_directory, write_json
from ..files.paths import is_empty, is_remote, remove
from .ecgsyn import BEATS, RHYTHMS, Beats, Floats, Span, beats, patient, slow
from .ecgsyn import signal as ecg


class Electrode(NamedTuple):
    """What a recorder adds to the ECG."""

    muscle: float  # mV
    wander: float  # mV
    hum: tuple[float, float]  # Hz and mV of the mains
    high: float  # Hz, its upper cut-off


class Diagnosis(NamedTuple):
    """A patient's heart rate, rhythms and ectopic beats (as probability per beat)."""

    bpm: tuple[float, float] = (58, 95)  # range, beats per minute
    other: str = ""  # a rhythm beside sinus rhythm
    permanent: bool = False  # instead of sinus rhythm
    pac: float = 0.0
    aberrated: float = 0.0
    pvc: float = 0.0
    wide: bool = False  # bundle branch block


# Each four patients, from the first on, show every beat and rhythm in a few minutes
_HOLTER = (
    Diagnosis(),
    Diagnosis(pac=0.07, aberrated=0.03),
    Diagnosis(other="AFIB", pvc=0.03),
    Diagnosis(other="AFL", pac=0.02),
    Diagnosis(pvc=0.09),
    Diagnosis(bpm=(44, 56), other="AFL", pac=0.04),
    Diagnosis(bpm=(102, 125), aberrated=0.03, pvc=0.02),
    Diagnosis(other="AFIB", permanent=True, aberrated=0.03, pvc=0.03),
)
_CHALLENGE = {
    "N": (Diagnosis(bpm=(60, 95)),),
    "A": (Diagnosis(other="AFIB", permanent=True),) * 4 + (Diagnosis(other="AFIB"),),
    "O": (
        Diagnosis(pac=0.15),
        Diagnosis(pvc=0.15),
        Diagnosis(aberrated=0.15),
        Diagnosis(other="AFL", permanent=True),
        Diagnosis(bpm=(40, 52)),
        Diagnosis(bpm=(108, 140)),
        Diagnosis(wide=True),
    ),
    "~": (Diagnosis(), Diagnosis(), Diagnosis(other="AFIB", permanent=True), Diagnosis(pvc=0.1)),
}


def _spans(rng: np.random.Generator, has: Diagnosis, seconds: float) -> list[Span]:
    """Draw the rhythms of a recording of ``seconds``; a passing rhythm comes up in each."""
    ectopic = has.pac, has.aberrated, has.pvc
    if not has.other or has.permanent:
        return [Span(has.other or "N", seconds, *ectopic)]
    spans: list[Span] = []
    rhythms = ["N", has.other]
    rng.shuffle(rhythms)
    while seconds > 0:
        lasts = min(rng.uniform(0.2, 0.4) * min(seconds + 5 * len(spans), 900), seconds)
        lasts = seconds if seconds - lasts < 5 and spans else lasts
        spans.append(Span(rhythms[len(spans) % 2], lasts, *ectopic))
        seconds -= lasts
    return spans


def _noisy(rng: np.random.Generator, n: int, fs: float, share: float) -> Floats:
    """Strength (0, or 0.4 to 1) of bursts of noise in about ``share`` of ``n`` samples."""
    out = np.zeros(n)
    at = rng.exponential(8 / share) - 8
    while at < n / fs:
        lasts = rng.uniform(2, 14)
        start, stop = max(int(at * fs), 0), int((at + lasts) * fs)
        out[start:stop] = rng.uniform(0.4, 1)
        again = rng.random() < 0.25  # the electrode is still loose: hardly a beat in between
        at += lasts + (rng.uniform(0.8, 2.5) if again else rng.exponential(10 * (1 / share - 1)))
    return out


def _band(rng: np.random.Generator, n: int, fs: float, low: float, high: float) -> Floats:
    """Gaussian noise of ``n`` samples between two frequencies (Hz), standard deviation 1."""
    size = next_fast_len(n, real=True)
    spectrum = np.fft.rfft(rng.standard_normal(size))
    f = np.fft.rfftfreq(size, 1 / fs)
    shape = np.exp(-((np.maximum(f / high, low / np.maximum(f, 1e-9))) ** 4))
    out = np.fft.irfft(spectrum * shape, size)[:n]
    return np.asarray(out / (out.std() + 1e-12))


def _noise(
    rng: np.random.Generator, by: Electrode, breath: float, fs: int, noisy: Floats
) -> Floats:
    """Draw what the electrode adds to the ECG, mV; ``noisy`` is the strength of its bursts."""
    n = len(noisy)
    t = np.arange(n) / fs
    breathing = np.sin(2 * np.pi * breath * t + slow(rng, n, fs, 8))
    out = by.wander * (breathing + 0.7 * _band(rng, n, fs, 0.03, 0.5))
    tension = np.exp(0.6 * slow(rng, n, fs, 3))
    muscle = _band(rng, n, fs, 12, by.high)
    hum, level = by.hum
    out += by.muscle * tension * muscle + level * np.sin(2 * np.pi * hum * t)
    # The electrode moves: slow swings, jumps that decay, and tense muscles
    swing = _band(rng, n, fs, 0.4, 6) * np.exp(0.4 * slow(rng, n, fs, 0.7))
    out += noisy * (0.5 * swing + 0.12 * tension * muscle)
    for at in np.flatnonzero((rng.random(n) < 0.35 / fs) & (noisy > 0)):
        tail = t[: min(n - at, int(fs))]
        out[at : at + len(tail)] += rng.normal(0, 0.7) * np.exp(-tail / 0.2) * noisy[at]
    return out


def _notes(
    sample: NDArray[np.int64], kind: NDArray[np.uint8], rhythm: NDArray[np.uint8]
) -> tuple[list[int], list[str], list[str]]:
    """List samples, symbols and notes of an annotation file; rhythm 0 is none."""
    edges = np.concatenate(([0], rhythm, [0]))
    opens, closes = edges[1:-1] != edges[:-2], edges[1:-1] != edges[2:]
    rows: list[tuple[int, str, str]] = []
    for i, at in enumerate(sample.tolist()):
        rows.append((at, BEATS[kind[i]], "None"))
        if rhythm[i] and (opens[i] or closes[i]):
            note = "(" + RHYTHMS[rhythm[i]] if opens[i] else ""
            rows.append((at, "+", note + ")" if closes[i] else note))
    samples, symbols, notes = zip(*rows, strict=True)
    return list(samples), list(symbols), list(notes)


def _icentia11k(
    dest: Path, seed: int, *, patients: int = 16, segments: int = 3, seconds: float = 600.0
) -> int:
    """Write ``pXX/pXXXXX/pXXXXX_sYY.{hea,dat,atr}`` and the lists at the root."""
    fs, n = 250, round(seconds * 250)
    records = []
    for number in range(patients):
        name = f"p{number:05d}"
        folder = dest / name[:3] / name
        folder.mkdir(parents=True)
        has = _HOLTER[number % len(_HOLTER)]
        rng = np.random.default_rng([seed, 11, number])
        heart = patient(rng, bpm=rng.uniform(*has.bpm), wide=has.wide)
        mains = (rng.choice([50.0, 60.0]), rng.uniform(0, 0.01))
        by = Electrode(rng.uniform(0.004, 0.018), rng.uniform(0.02, 0.08), mains, 0.4 * fs)
        loose = rng.uniform(0.04, 0.25)
        for segment in range(segments):
            rng = np.random.default_rng([seed, 11, number, segment + 1])
            made = beats(rng, heart, _spans(rng, has, seconds))
            noisy = _noisy(rng, n, fs, loose)
            mv = ecg(rng, heart, made, fs, n) + _noise(rng, by, heart.breath, fs, noisy)
            record = f"{name}_s{segment:02d}"
            _write_holter_record(folder, record, mv, made, noisy)
            records.append(f"{name[:3]}/{name}/{record}")
    _write_lines(dest / "RECORDS", records)
    files = sorted(path for path in dest.rglob("*") if path.is_file())
    sums = [f"{sha256(path)} {path.relative_to(dest).as_posix()}" for path in files]
    _write_lines(dest / "SHA256SUMS.txt", sums)
    return len(records)


def _write_holter_record(folder: Path, record: str, mv: Floats, made: Beats, noisy: Floats) -> None:
    """Write a WFDB record with its annotations; beats within noise get no rhythm and class Q."""
    import wfdb  # half a second, which only this set needs

    fs, gain = 250, 74.36482269503546
    adc = _quantised(mv, gain)
    wfdb.wrsamp(
        record, fs, ["mV"], ["ecg"], d_signal=adc[:, None], fmt=["16"], adc_gain=[gain],
        baseline=[0], write_dir=folder,
    )  # fmt: skip
    sample = np.rint(made.time * fs).astype(np.int64)
    kept = (sample >= 0) & (sample < len(mv))
    sample, kind, rhythm = sample[kept], made.kind[kept], made.rhythm[kept]
    lost = noisy[sample] > 0
    kind[lost], rhythm[lost] = BEATS.index("Q"), 0
    samples, symbols, notes = _notes(sample, kind, rhythm)
    wfdb.wrann(record, "atr", np.array(samples), symbols, aux_note=notes, fs=fs, write_dir=folder)


def _quantised(mv: Floats, gain: float) -> NDArray[np.int16]:
    """ADC units of a signal, less its mean: the recorders are AC-coupled."""
    return np.rint((mv - mv.mean()) * gain).astype("<i2")


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), newline="\n")


def _cinc2017(dest: Path, seed: int, *, records: int = 240, seconds: float | None = None) -> int:
    """Write ``A00001.{mat,hea}`` and so on, ``RECORDS`` and ``REFERENCE-v3.csv``."""
    fs = 300
    deal = "N" * 10 + "A" * 3 + "O" * 5 + "~" * 2  # the classes of 20 records
    labels = {}
    for number in range(records):
        block, place = divmod(number, len(deal))
        label = deal[np.random.default_rng([seed, 20, block]).permutation(len(deal))[place]]
        rng = np.random.default_rng([seed, 17, number])
        has = _CHALLENGE[label][rng.integers(len(_CHALLENGE[label]))]
        heart = patient(rng, bpm=rng.uniform(*has.bpm), wide=has.wide)
        lasts = seconds or rng.choice([30, 60, rng.uniform(9, 60)], p=[0.7, 0.1, 0.2])
        n = round(lasts * fs)
        if label == "~":
            noisy = rng.uniform(0.5, 1) * np.clip(slow(rng, n, fs, 2) + 1.5, 0.4, 1)
        else:
            noisy = 0.4 * _noisy(rng, n, fs, 0.03)
        by = Electrode(rng.uniform(0.003, 0.015), rng.uniform(0.01, 0.08), (50.0, 0.0), 40.0)
        made = beats(rng, heart, _spans(rng, has, lasts))
        polarity = -1 if rng.random() < 0.1 else 1  # the device held the wrong way round
        mv = polarity * ecg(rng, heart, made, fs, n) + _noise(rng, by, heart.breath, fs, noisy)
        adc = _quantised(mv, 1000)
        record = f"A{number + 1:05d}"
        savemat(dest / f"{record}.mat", {"val": adc[None]}, format="4")
        (dest / f"{record}.hea").write_bytes(
            f"{record} 1 {fs} {n} 05:05:15 1/05/2000 \r\n"
            f"{record}.mat 16+24 1000/mV 16 0 {adc[0]} 0 0 ECG \r\n".encode()
        )
        labels[record] = label
    _write_lines(dest / "RECORDS", labels)
    _write_lines(dest / "REFERENCE-v3.csv", (f"{r},{label}" for r, label in labels.items()))
    return records


_SETS: dict[str, Callable[..., int]] = {"icentia11k": _icentia11k, "cinc2017": _cinc2017}
_RANGES = {"patients": (1, 99999), "segments": (1, 50), "records": (1, 99999), "seconds": (9, 7200)}


def simulate(name: str, dest: Path, *, seed: int = 0, **sizes: float | None) -> int:
    """Write a simulated data set; the same call writes the same bytes on any day.

    ``SIMULATED.json`` at its root says that it is simulated, and by which call; a folder that the
    same call made before is left as it is.

    Parameters
    ----------
    name
        ``icentia11k`` or ``cinc2017``.
    dest
        Folder to write; new or empty.
    seed
        Not negative; another seed makes other patients.
    sizes
        Of Icentia11k ``patients`` (16), ``segments`` of each (3, at most 50) and ``seconds`` of a
        segment (600). Of CinC 2017 ``records`` (240; 50 % N, 15 % A, 25 % O, 10 % ~) and
        ``seconds`` of a record (from 9 to 60, mostly 30). Those that are None count as not given.

    Returns
    -------
    int
        Records written.

    Raises
    ------
    EcgpipeError
        For an unknown name, a size that the set does not have or that is out of range, or a
        ``dest`` that is a file or a folder with something else in it.
    """
    given = {key: value for key, value in sizes.items() if value is not None}
    _check_call(name, seed, given)
    call = {"name": name, "seed": seed, **given}
    dest = dest.resolve()
    if (dest / SIMULATED).is_file():
        made = read_json(dest / SIMULATED)
        if made["call"] == call:
            return int(made["records"])
    _check_free(dest)
    partial = dest.with_name(f".{dest.name}.partial")
    remove(partial)  # of a killed call
    with staging_directory(partial) as staging:
        count = _SETS[name](staging, seed, **given)
        write_json(staging / SIMULATED, {"call": call, "records": count})
        publish(staging, dest)  # replaces an empty folder
    remove(partial)
    return count


def _check_call(name: str, seed: int, sizes: Mapping[str, float]) -> None:
    if name not in _SETS:
        raise EcgpipeError(f"no simulated data set {name!r}; there are: {', '.join(_SETS)}")
    known = _SETS[name].__kwdefaults__ or {}
    for key, value in sizes.items():
        if key not in known:
            raise EcgpipeError(f"{name} has no {key}; set {' or '.join(sorted(known))}")
        low, high = _RANGES[key]
        if not low <= value <= high:
            raise EcgpipeError(f"{key}={value}: choose from {low} to {high}")
    if seed < 0:
        raise EcgpipeError(f"seed={seed}: choose 0 or more")


def _check_free(dest: Path) -> None:
    if not is_remote(dest) and dest == Path.cwd():  # the working directory would be replaced
        raise EcgpipeError(f"{dest}: is the folder you are in; name one below it")
    if not is_empty(dest):
        raise EcgpipeError(f"{dest}: there is something else already; choose a new or empty folder")
