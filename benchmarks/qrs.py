"""How far the detected QRS complexes can be trusted: ``python benchmarks/qrs.py DATA``.

DATA holds ``mitdb/``, ``icentia11k/``, and the 12-lead samples ``challenge2020/``,
``challenge2021/`` and ``cpsc2018/``. One thread, about ten minutes. Prints Markdown tables.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from ecgpipe.datasets import DATASETS, Entry, Folder, icbeb2018, read_records
from ecgpipe.formats.wfdb_record import read_signal
from ecgpipe.labels.beats import CLASSES, beat_classes
from ecgpipe.labels.qrs import DETECTORS, _vote, detect_qrs
from ecgpipe.types import Record

REACH = 0.15  # s between a mark and its beat
PIECE = 10  # s, as long as most 12-lead recordings
Rule = Callable[[Record], NDArray[np.int64]]


def match(
    found: NDArray[np.integer], beats: NDArray[np.integer], reach: float
) -> list[tuple[int, int]]:
    """Pair marks and beats no further apart than ``reach``, each in one pair at most.

    Both sorted; pairs are positions in them. Whichever comes first of the next two has no better
    partner than the other one, so taking pairs as they come gives as many as there can be.
    """
    i = j = 0
    pairs = []
    while i < len(found) and j < len(beats):
        if abs(found[i] - beats[j]) <= reach:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif found[i] < beats[j]:
            i += 1
        else:
            j += 1
    return pairs


def count(found: NDArray[np.integer], beats: NDArray[np.integer], fs: float) -> NDArray[np.int64]:
    """Pairs, marks, beats, and marks less than 300 ms behind another."""
    near = int((np.diff(found) < 0.3 * fs).sum())
    return np.array([len(match(found, beats, REACH * fs)), len(found), len(beats), near])


def percent(counts: NDArray[np.int64]) -> str:
    """Sensitivity and positive predictivity."""
    pairs, marks, beats, _ = counts
    return f"{100 * pairs / beats:.2f} | {100 * pairs / max(marks, 1):.2f}"


def errors(counts: NDArray[np.int64]) -> float:
    """Beats missed and marks that are none, in percent of the beats."""
    pairs, marks, beats, _ = counts
    return 100 * float(marks + beats - 2 * pairs) / float(beats)


def table(*columns: str) -> None:
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))


def alone(record: Record, lead: int) -> Record:
    """The record with one lead."""
    at = slice(lead, lead + 1)
    return replace(
        record,
        leads=record.leads[at],
        signal=record.signal[at],
        gain=record.gain[at],
        baseline=record.baseline[at],
    )


def cut(record: Record, start: int, stop: int) -> Record:
    """Some samples of the record."""
    return replace(record, signal=record.signal[:, start:stop])


def main_of(record: Record) -> int:
    """The lead that is looked at first."""
    return next((i for i, name in enumerate(record.leads) if name in ("MLII", "II")), 0)


def annotated(record: Record) -> NDArray[np.int32]:
    assert record.beats is not None
    return record.beats.index


def detect(record: Record, detector: str = "sleepecg") -> NDArray[np.int64]:
    """Marks of the package's own rule."""
    return detect_qrs(record, record.leads[main_of(record)], detector).index.astype(np.int64)


# Rules for several leads, to compare the package's with.


def band_passed(record: Record) -> NDArray[np.float64]:
    """All leads from 5 to 30 Hz, over the median of their largest values in 2 s."""
    sos = scipy.signal.butter(2, (5, 30), "bandpass", output="sos", fs=record.fs)
    filtered = scipy.signal.sosfiltfilt(sos, record.millivolts().astype(np.float64))
    block = int(2 * record.fs)
    blocks = filtered[:, : record.samples // block * block].reshape(len(filtered), -1, block)
    size = np.median(np.abs(blocks).max(axis=2), axis=1)
    return filtered / np.where(size > 0, size, np.inf)[:, None]


def magnitude(record: Record) -> NDArray[np.int64]:
    """Detection in the root of the leads' summed squares."""
    return DETECTORS["sleepecg"](np.sqrt((band_passed(record) ** 2).sum(axis=0)), record.fs)


def clearest(record: Record) -> NDArray[np.int64]:
    """Detection in the lead that is quietest between its largest deflections."""
    rest = np.abs(band_passed(record)).mean(axis=1)
    return detect(alone(record, int(np.argmin(np.where(rest > 0, rest, np.inf)))))


def one(lead: int) -> Rule:
    return lambda record: detect(alone(record, lead))


def main_lead(record: Record) -> NDArray[np.int64]:
    return detect(alone(record, main_of(record)))


def other_lead(record: Record) -> NDArray[np.int64]:
    return detect(alone(record, 1 - main_of(record)))


def both(record: Record) -> NDArray[np.int64]:
    """Beats on which two leads agree."""
    return _vote([detect(alone(record, lead)) for lead in range(len(record.leads))], record.fs)


# Faults of a lead, in mV.


def noise(x: NDArray[np.float64], fs: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """White, and as strong as the signal from 5 to 30 Hz."""
    sos = scipy.signal.butter(2, (5, 30), "bandpass", output="sos", fs=fs)
    strength = scipy.signal.sosfiltfilt(sos, x).std() * np.sqrt(fs / 2 / 25)
    return x + rng.normal(0, strength, len(x))


def jumps(x: NDArray[np.float64], fs: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A jump of the electrode every three seconds, of 3 mV, gone after half a second."""
    kicks = rng.normal(0, 3, len(x)) * (rng.random(len(x)) < 1 / (3 * fs))
    return x + scipy.signal.lfilter([1], [1, -np.exp(-1 / (0.5 * fs))], kicks)


def off(x: NDArray[np.float64], fs: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Still for a third of every minute, or of a shorter record."""
    period = min(int(60 * fs), len(x))
    t = (np.arange(len(x)) + rng.integers(period)) % period
    return np.where(t < period // 3, x[0], x)


FAULTS = {"none": None, "noise": noise, "jumps": jumps, "off": off}


def spoilt(record: Record, fault: str, leads: Iterable[int]) -> Record:
    """The record with a fault in some leads, the same in every run."""
    disturb = FAULTS[fault]
    if disturb is None:
        return record
    rng = np.random.default_rng([*record.key.encode(), *fault.encode()])
    signal = record.signal.copy()
    for lead in leads:
        gain, baseline = record.gain[lead], record.baseline[lead]
        x = disturb((record.signal[lead] - baseline) / gain, record.fs, rng)
        signal[lead] = np.clip(np.rint(x * gain + baseline), -32768, 32767)
    return replace(record, signal=signal)


def twelve_leads(data: Path) -> Iterator[Record]:
    """The samples, whatever sets they come from; none has annotated beats."""
    for name in ("challenge2020", "challenge2021"):
        folder = Folder.open(data / name)
        for header in folder.find("*.hea"):
            key = header.removesuffix(".hea")
            strip = read_signal(key, folder.fetch((header, f"{key}.mat")))
            yield Record(key, key, *strip)
    folder = Folder.open(data / "cpsc2018")
    for file in folder.find("*.mat"):
        key = file.removesuffix(".mat")
        # They come without labels, and are not read without one.
        entry = Entry(key, key, key, (file,), ("SNR",), labels_file=icbeb2018.REFERENCE)
        yield icbeb2018.read(entry, folder.fetch(entry.files))


def report_records(mitdb: list[Record]) -> None:
    print("\n## MIT-BIH, record by record")
    table("record", "lead", "beats", "sleepecg Se", "+P", "gqrs Se", "+P")
    sums: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(4, np.int64))
    matched: dict[str, NDArray[np.int64]] = defaultdict(lambda: np.zeros(len(CLASSES), np.int64))
    classes = beat_classes(DATASETS["mitdb"].beats)
    for record in mitdb:
        assert record.beats is not None
        row = []
        kinds = classes[record.beats.label]
        matched["beats"] += np.bincount(kinds, minlength=len(CLASSES))
        for name in DETECTORS:
            found = detect(record, name)
            counts = count(found, annotated(record), record.fs)
            pairs = match(found, annotated(record), REACH * record.fs)
            matched[name] += np.bincount(kinds[[j for _, j in pairs]], minlength=len(CLASSES))
            sums[name] += counts
            row.append(percent(counts))
        sums["sleepecg, channel 0"] += count(detect(alone(record, 0)), annotated(record), record.fs)
        lead = record.leads[main_of(record)]
        print(f"| {record.key} | {lead} | {len(annotated(record)):,} | {' | '.join(row)} |")
    table("all", "beats", "Se", "+P")
    for name, counts in sums.items():
        print(f"| {name} | {counts[2]:,} | {percent(counts)} |")
    table("Se of", *CLASSES)
    for name, numbers in matched.items():
        shares = 100 * numbers / matched["beats"]
        cells = [f"{n:,}" if name == "beats" else f"{share:.2f}"
                 for n, share in zip(numbers, shares, strict=True)]  # fmt: skip
        print(f"| {name} | {' | '.join(cells)} |")


def report_pieces(mitdb: list[Record]) -> None:
    print(f"\n## MIT-BIH in pieces of {PIECE} s, every fifth")
    table("detector", "Se", "+P")
    for name in DETECTORS:
        total = np.zeros(4, np.int64)
        for record in mitdb:
            length = int(PIECE * record.fs)
            beats = annotated(record)
            for start in range(0, record.samples - length + 1, 5 * length):
                inside = beats[(beats >= start) & (beats < start + length)] - start
                found = detect(cut(record, start, start + length), name)
                total += count(found, inside, record.fs)
        print(f"| {name} | {percent(total)} |")


def report_icentia(data: Path) -> None:
    print("\n## Icentia11k, p00000")
    table("detector", "beats", "Se", "+P", "worst segments, errors in % of beats")
    totals = {name: np.zeros(4, np.int64) for name in DETECTORS}
    worst: dict[str, list[tuple[float, str]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    samples = 0
    for record in read_records("icentia11k", data / "icentia11k"):
        samples += record.samples
        for name in DETECTORS:
            start = time.perf_counter()
            found = detect(record, name)
            seconds[name] += time.perf_counter() - start
            counts = count(found, annotated(record), record.fs)
            totals[name] += counts
            worst[name].append((errors(counts), record.key[-3:]))
    for name, counts in totals.items():
        named = ", ".join(f"{key} {share:.1f}" for share, key in sorted(worst[name])[:-4:-1])
        print(f"| {name} | {counts[2]:,} | {percent(counts)} | {named} |")
    table("detector", "million samples/s")
    for name, took in seconds.items():
        print(f"| {name} | {samples / took / 1e6:.2f} |")


def report_rules(title: str, rules: dict[str, Rule], cases: list[tuple[Record, NDArray]],
                 broken: Callable[[Record], Iterable[int]]) -> None:  # fmt: skip
    """Every rule on the records as they are and with every fault in the ``broken`` leads."""
    print(f"\n## {title}")
    table(
        "rule", "Se", "+P", "RR < 300 ms", *(f"errors %, {fault}" for fault in FAULTS), "ms/record"
    )
    for name, rule in rules.items():
        totals, took = {}, 0.0
        for fault in FAULTS:
            totals[fault] = np.zeros(4, np.int64)
            for record, beats in cases:
                given = spoilt(record, fault, broken(record))
                start = time.perf_counter()
                found = rule(given)
                took += time.perf_counter() - start
                totals[fault] += count(found, beats, record.fs)
        wrong = " | ".join(f"{errors(total):.2f}" for total in totals.values())
        each = 1000 * took / len(cases) / len(FAULTS)
        print(
            f"| {name} | {percent(totals['none'])} | {totals['none'][3]} | {wrong} | {each:.1f} |"
        )


def some_leads(record: Record) -> list[int]:
    """Three leads in ten, drawn by the record's name."""
    rng = np.random.default_rng([*record.key.encode()])
    return np.flatnonzero(rng.random(len(record.leads)) < 0.3).tolist()


def report_rounding(records: Iterable[Record]) -> None:
    print("\n## Marks that move when every sample is off by a relative 1e-12")
    rng = np.random.default_rng(0)
    total = moved = 0
    for record in records:
        lead = main_of(record)
        x = (record.signal[lead] - record.baseline[lead]) / record.gain[lead]
        found = DETECTORS["sleepecg"](x, record.fs)
        again = DETECTORS["sleepecg"](x * (1 + 1e-12 * rng.normal(size=len(x))), record.fs)
        total, moved = total + len(found), moved + len(np.setxor1d(found, again))
    print(f"\n{moved} of {total:,}")


def main(data: Path) -> None:
    mitdb = list(read_records("mitdb", data / "mitdb"))
    report_records(mitdb)
    report_pieces(mitdb)
    report_icentia(data)
    two_leads: dict[str, Rule] = {
        "main lead": main_lead,
        "other lead": other_lead,
        "clearest lead": clearest,
        "magnitude of both": magnitude,
        "where both agree": both,
    }
    cases = [(record, annotated(record)) for record in mitdb]
    report_rules("MIT-BIH, two leads, fault in the main one", two_leads, cases,
                 lambda record: [main_of(record)])  # fmt: skip
    samples = list(twelve_leads(data))
    rules: dict[str, Rule] = {
        "vote of the leads": detect,
        **{name: one(lead) for lead, name in enumerate(samples[0].leads)},
        "clearest lead": clearest,
        "magnitude": magnitude,
    }
    report_rules(
        f"{len(samples)} records of 12 leads against gqrs's vote, fault in three leads of ten",
        rules, [(record, detect(record, "gqrs")) for record in samples], some_leads,
    )  # fmt: skip
    report_rounding([*mitdb, *read_records("icentia11k", data / "icentia11k")])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
