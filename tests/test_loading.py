"""Batches from hand-made recordings whose samples say which record and which place they are of."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.io
import wfdb

from ecgpipe.config import PretrainSettings, load
from ecgpipe.errors import EcgpipeError
from ecgpipe.labels.splits import hold_out
from ecgpipe.loading.corpus import Corpus, open_corpus
from ecgpipe.loading.epoch import Epoch, Feed
from ecgpipe.loading.frames import Frames, fixed_items
from ecgpipe.loading.recordings import (
    PaddedSet,
    chunks,
    load_recordings,
    read_labels,
    shuffled,
    targets,
)
from ecgpipe.models.resnet import standardise
from ecgpipe.storage.archive import prepare
from ecgpipe.storage.shards import shard
from ecgpipe.storage.store import Store
from ecgpipe.tasks import TASKS, frames_of
from ecgpipe.types import Batch

FRAME = 100
PLACES = 4000  # a sample of record r at place i is r * PLACES + i - ZERO
ZERO = 30_000
GAIN, BASELINE = 150.0, -21.0
LENGTHS = {f"p{p:05d}_s{s:02d}": 900 + 40 * p for p in range(8) for s in range(1 + (p == 3))}
LENGTHS |= {"p00003_s01": 3900, "p00004_s01": FRAME, "p00005_s01": FRAME - 1, "p00006_s01": 700}
ORDER = sorted(LENGTHS)
BARE, SHORT = "p00006_s01", "p00005_s01"
MEANING = {"N": "normal", "S": "pac", "a": "aberrated", "V": "pvc", "Q": "undefined"}


class Data(NamedTuple):
    archive: Path
    shards: Path
    beats: dict[str, list[tuple[int, str]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder, rng, beats = tmp_path_factory.mktemp("coded"), np.random.default_rng(0), {}
    for number, key in enumerate(ORDER):
        place = folder / "raw" / key[:3] / key[:6]
        place.mkdir(parents=True, exist_ok=True)
        values = np.arange(LENGTHS[key]) + number * PLACES - ZERO
        wfdb.wrsamp(
            key, fs=250, units=["mV"], sig_name=["ECG"], d_signal=values[:, None], fmt=["16"],
            adc_gain=[GAIN], baseline=[int(BASELINE)], write_dir=str(place),
        )  # fmt: skip
        if key != BARE:
            at = np.flatnonzero(rng.random(LENGTHS[key]) < 0.03)
            at = np.r_[at[at > 0], LENGTHS[key] - 1] if len(at) else np.array([50])
            symbols = rng.choice([*MEANING], len(at), p=[0.6, 0.08, 0.05, 0.07, 0.2]).tolist()
            wfdb.wrann(key, "atr", at, symbols, fs=250, write_dir=str(place))
            beats[key] = list(zip(at.tolist(), symbols, strict=True))
    prepare("icentia11k", folder / "raw", folder / "archive", 1)
    shard(folder / "archive", folder / "shards", 250, workers=1)
    return Data(folder / "archive", folder / "shards", beats)


@pytest.fixture(scope="module")
def corpus(data: Data) -> Corpus:
    return open_corpus([Store(data.shards)], 250, FRAME, annotated=True)


def _frames(seed: int = 0) -> Frames:
    settings = PretrainSettings(task="beat", frame=FRAME, seed=seed)
    return frames_of(settings, mean=1.5, std=2.5)


def _epoch(corpus: Corpus, number: int = 1, seed: int = 0, **changes: Any) -> Epoch:
    how = {"steps": 41, "batch": 16, "frames_per_visit": 24, "streams": 4, "open_shards": 3}
    return Epoch(corpus.shards, _frames(seed), number=number, **how | {"shuffle": 50} | changes)


def _assert_same(one: Iterable[Batch], other: Iterable[Batch]) -> None:
    for a, b in zip(one, other, strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


def _keys(run: Iterable[Batch]) -> list[str]:
    return [key for batch in run for key in batch.keys]


def _plain_label(beats: list[tuple[int, str]], start: int) -> str:
    inside = Counter(MEANING[s] for r, s in beats if start <= r < start + FRAME)
    abnormal = [inside["pac"], inside["aberrated"], inside["pvc"]]
    if any(abnormal):
        return ["pac", "aberrated", "pvc"][abnormal.index(max(abnormal))]
    return "undefined" if inside["undefined"] >= inside["normal"] else "normal"


def test_frames_are_the_samples_that_their_key_names(data: Data, corpus: Corpus) -> None:
    classes = set()
    for batch in _epoch(corpus):
        assert batch.x.shape == (16, 1, FRAME)
        assert batch.x.dtype == np.int16
        for x, scale, offset, length, y, name in zip(*batch[:6], strict=True):
            key, start = name.split("@")
            counts = ORDER.index(key) * PLACES - ZERO + int(start) + np.arange(FRAME)
            np.testing.assert_array_equal(x[0], counts)
            assert 0 <= int(start) <= LENGTHS[key] - FRAME
            standard = ((counts - BASELINE) / GAIN - 1.5) / 2.5
            np.testing.assert_allclose(x[0] * scale + offset, standard, rtol=1e-5, atol=1e-4)
            assert length == FRAME
            label = _plain_label(data.beats[key], int(start))
            assert TASKS["beat"].classes[y] == label
            classes.add(label)
    assert classes == set(MEANING.values())


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"steps": 1}, {"steps": 3, "streams": 8}, {"shuffle": 1, "open_shards": 1},
        {"shuffle": 10_000}, {"frames_per_visit": 1}, {"frames_per_visit": 2000, "shuffle": 7},
        {"batch": 2, "open_shards": 50, "streams": 1},
    ],
)  # fmt: skip
def test_an_epoch_has_its_batches(corpus: Corpus, changes: dict[str, int]) -> None:
    epoch = _epoch(corpus, **changes)
    assert [len(batch.y) for batch in epoch] == [epoch.batch] * epoch.steps
    assert len(epoch) == epoch.steps
    _assert_same(epoch, epoch)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("steps", [3, 41])
def test_streams_run_apart_make_the_same_epoch(corpus: Corpus, workers: int, steps: int) -> None:
    epoch = _epoch(corpus, steps=steps)
    apart = [epoch.run(range(w, epoch.streams, workers)) for w in range(workers)]
    _assert_same(epoch, [next(apart[step % workers]) for step in range(steps)])
    assert all(next(run, None) is None for run in apart)


def test_loader_processes_change_nothing(corpus: Corpus) -> None:
    epoch = _epoch(corpus, steps=13)
    _assert_same(epoch, Feed(epoch, workers=2))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than cores
@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (1, 4), (2, 0), (2, 2), (4, 1)])
@pytest.mark.parametrize("first", [0, 4, 12])
def test_processes_share_the_batches_of_an_epoch(
    corpus: Corpus, ranks: int, workers: int, first: int
) -> None:
    epoch = _epoch(corpus, steps=24)
    feeds = [Feed(epoch, rank, ranks, workers, first) for rank in range(ranks)]
    assert [len(feed) for feed in feeds] == [(24 - first) // ranks] * ranks
    runs = [iter(feed) for feed in feeds]
    _assert_same([*epoch][first:], [next(runs[i % ranks]) for i in range(24 - first)])
    assert all(next(run, None) is None for run in runs)


CONTEXT, NEGATIVES, OFFSET = 3, 4, 2


def _futures(corpus: Corpus, **changes: Any) -> Epoch:
    future = {"context": CONTEXT, "negatives": NEGATIVES, "offset": OFFSET}
    settings = load(PretrainSettings, task="future", frame=32, future=future)
    drawn = frames_of(settings, mean=1.5, std=2.5)
    long = [
        replace(shard, records=tuple(r for r in shard.records if r.samples >= drawn.span))
        for shard in corpus.shards
    ]
    return replace(_epoch(corpus, frames_per_visit=6, **changes), shards=long, frames=drawn)


def test_a_future_lies_behind_its_context(corpus: Corpus) -> None:
    for batch in _futures(corpus):
        assert batch.x.shape == (16, CONTEXT + 1, 32)
        assert batch.candidates.shape == (16, NEGATIVES + 1)
        for x, name in zip(batch.x, batch.keys, strict=True):
            key, start = name.split("@")
            at = int(start) + 32 * np.array([*range(CONTEXT), CONTEXT + OFFSET])
            counts = ORDER.index(key) * PLACES - ZERO + at[:, None] + np.arange(32)
            np.testing.assert_array_equal(x, counts)
            assert int(start) + 32 * (CONTEXT + OFFSET + 1) <= LENGTHS[key]


def test_negatives_are_frames_of_other_patients(corpus: Corpus) -> None:
    places: Counter[int] = Counter()
    for batch in _futures(corpus, steps=200):
        patients = [key[:6] for key in batch.keys]
        for item, (y, candidates) in enumerate(zip(batch.y, batch.candidates, strict=True)):
            assert candidates[y] == item * (CONTEXT + 1) + CONTEXT
            others = np.delete(candidates, y) // (CONTEXT + 1)
            assert patients[item] not in {patients[other] for other in others}
            foreign = sum(patient != patients[item] for patient in patients)
            assert len(set(others)) == min(NEGATIVES, foreign)
            places[int(y)] += 1
    assert min(places.values()) > 0.8 * max(places.values())  # the place gives nothing away


def test_fixed_futures_are_fixed(corpus: Corpus) -> None:
    epoch = _futures(corpus)
    one = fixed_items(epoch.shards, epoch.frames, 300)
    again = fixed_items(epoch.shards, replace(epoch.frames, seed=9), 300)
    _assert_same(one, again)
    assert all(batch.candidates.shape[1] == NEGATIVES + 1 for batch in one)


def test_heart_rates_look_beyond_their_frames(corpus: Corpus) -> None:
    settings = PretrainSettings(task="heart_rate", frame=FRAME)
    drawn = frames_of(settings)
    starts = defaultdict(list)
    for name in _keys(replace(_epoch(corpus, steps=100), frames=drawn)):
        key, start = name.split("@")
        starts[key].append(int(start))
    for key, found in starts.items():
        margin = 250 if LENGTHS[key] >= FRAME + 500 else 0
        assert margin <= min(found) <= max(found) <= LENGTHS[key] - FRAME - margin


def test_epoch_and_seed_decide(corpus: Corpus) -> None:
    one = _keys(_epoch(corpus))
    assert _keys(_epoch(corpus)) == one
    for other in (_epoch(corpus, 2), _epoch(corpus, seed=1)):
        # p00004_s01 has one place alone; elsewhere two draws meet by chance only.
        keys = {key for key in _keys(other) if not key.startswith("p00004_s01")}
        assert len(keys & set(one)) < 0.12 * len(keys)


def test_frames_are_not_drawn_twice_by_two_streams(corpus: Corpus) -> None:
    epoch = _epoch(corpus, steps=40)
    streams = [set(_keys(epoch.run([stream]))) for stream in range(4)]
    assert all(len(one & other) < 0.2 * len(one) for one, other in combinations(streams, 2))


def test_patients_are_drawn_alike_and_their_records_by_length(corpus: Corpus) -> None:
    keys = _keys(_epoch(corpus, steps=400, frames_per_visit=16))
    patients = Counter(key[:6] for key in keys)
    assert set(patients) == {f"p{p:05d}" for p in range(8)}
    each = len(keys) / 8
    assert all(abs(count - each) < 0.15 * each for count in patients.values())
    share = 3900 / (3900 + LENGTHS["p00003_s00"])
    long, total = sum(key.startswith("p00003_s01") for key in keys), patients["p00003"]
    assert abs(long - share * total) < 4 * (total * share * (1 - share)) ** 0.5


def test_every_place_of_a_record_is_drawn(corpus: Corpus) -> None:
    starts = defaultdict(list)
    for name in _keys(_epoch(corpus, steps=600)):
        key, start = name.split("@")
        starts[key].append(int(start))
    assert set(starts.pop("p00004_s01")) == {0}
    for key, found in starts.items():
        last = LENGTHS[key] - FRAME
        assert min(found) <= 0.02 * last < 0.98 * last <= max(found)
        quarters = np.histogram(found, 4, (0, last + 1))[0]
        assert quarters.min() > 0.6 * quarters.mean()


def test_held_out_patients_are_never_drawn(corpus: Corpus) -> None:
    held_out = hold_out(corpus.patients, 0.25, 0)
    training = corpus._replace(shards=corpus.of(set(corpus.patients) - set(held_out)))
    names = {patient.split("/")[1] for patient in held_out}
    drawn = {key[:6] for key in _keys(_epoch(training, steps=120))}
    assert drawn == {f"p{p:05d}" for p in range(8)} - names
    fixed = _keys(fixed_items(corpus.of(held_out), _frames(), 60))
    assert Counter(key[:6] for key in fixed) == dict.fromkeys(names, 30)


def test_fixed_frames_are_fixed(corpus: Corpus) -> None:
    one = fixed_items(corpus.shards, _frames(0), 400)
    _assert_same(one, fixed_items(corpus.shards, _frames(7), 400))
    assert [len(batch.y) for batch in one] == [100] * 4


def test_shuffle_mixes_patients(corpus: Corpus) -> None:
    def mixed(**changes: int) -> float:
        epoch = _epoch(corpus, steps=60, **changes)
        return float(np.mean([len({key[:6] for key in batch.keys}) for batch in epoch]))

    assert mixed(shuffle=400, open_shards=8, streams=1) > 6
    assert mixed(shuffle=1, open_shards=1) < 3


def test_unusable_records_are_left_out_and_counted(data: Data, corpus: Corpus) -> None:
    used = {record.key for shard in corpus.shards for record in shard.records}
    assert used == set(LENGTHS) - {BARE, SHORT}
    assert len(corpus.notes) == 2
    assert "1 records without annotated beats" in corpus.notes[0]
    assert f"1 records under {FRAME} samples" in corpus.notes[1]
    free = open_corpus([Store(data.shards)], 250, FRAME, annotated=False)
    assert {r.key for shard in free.shards for r in shard.records} == set(LENGTHS) - {SHORT}
    with pytest.raises(EcgpipeError, match="no record to draw frames from"):
        open_corpus([Store(data.shards)], 250, 4000, annotated=True)


def test_wrong_stores_are_refused(data: Data, tmp_path: Path) -> None:
    with pytest.raises(EcgpipeError, match=r"250 Hz where the setting fs says 300"):
        open_corpus([Store(data.shards)], 300, FRAME, annotated=True)
    with pytest.raises(EcgpipeError, match="is an archive; run `ecgpipe shard`"):
        open_corpus([Store(data.archive)], 250, FRAME, annotated=True)
    shard(data.archive, tmp_path / "s", 250, workers=1)
    tar = sorted((tmp_path / "s" / "shards").glob("*.tar"))[2]
    tar.write_bytes(tar.read_bytes()[:-512])
    for damage in (rf"{tar.name}: [\d,]+ bytes, [\d,]+ expected", rf"{tar.name}: missing"):
        with pytest.raises(EcgpipeError, match=damage):
            open_corpus([Store(tmp_path / "s")], 250, FRAME, annotated=True)
        tar.unlink(missing_ok=True)


CINC = {"A00001": 500, "A00002": 1200, "A00003": 800, "A00004": 1, "A00005": 801}


@pytest.fixture(scope="module")
def cinc_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coded") / "cinc"
    folder.mkdir()
    for number, (key, samples) in enumerate(CINC.items()):
        values = (np.arange(samples) + number * PLACES + 1).astype(np.int16)
        scipy.io.savemat(folder / f"{key}.mat", {"val": values[None]}, format="4")
        line = f"{key}.mat 16+24 {GAIN:g}({BASELINE:g})/mV 16 0 {values[0]} 0 0 ECG"
        (folder / f"{key}.hea").write_text(f"{key} 1 300 {samples}\n{line}\n")
    labels = zip(CINC, "NAO~N", strict=True)
    (folder / "REFERENCE-v3.csv").write_text("".join(f"{k},{label}\n" for k, label in labels))
    prepare("cinc2017", folder, folder.parent / "archive", 1)
    shard(folder.parent / "archive", folder.parent / "shards", 300, workers=1)
    return folder.parent / "shards"


def test_recordings_are_padded_in_front_and_keep_their_end(cinc_shards: Path) -> None:
    recordings = load_recordings(Store(cinc_shards), many_of=False)
    assert recordings.label == dict(zip(CINC, (0, 1, 2, 3, 0), strict=True))
    assert (recordings.fs, recordings.leads) == (300, ("ECG",))
    assert recordings.classes == ("N", "A", "O", "~")
    keys = [f"A0000{i}" for i in (5, 1, 4, 2, 3)]
    padded = PaddedSet.of(recordings, 800).standardised(mean=-0.7, std=1.9)
    for batch in padded.batches(keys, 3):
        values = standardise(batch.x, batch.scale, batch.offset, batch.length).numpy()
        for key, value, y in zip(batch.keys, values, batch.y, strict=True):
            kept = min(CINC[key], 800)
            counts = (np.arange(CINC[key]) + [*CINC].index(key) * PLACES + 1)[-kept:]
            standard = ((counts - BASELINE) / GAIN + 0.7) / 1.9
            assert value.shape == (1, 800)
            assert not value[0, : 800 - kept].any()
            np.testing.assert_allclose(value[0, 800 - kept :], standard, rtol=1e-5, atol=1e-4)
            assert y == recordings.label[key]
    assert _keys(padded.batches(keys, 3)) == keys
    assert len(padded.batches(keys, 2, first=1)) == 1  # the fifth joins the second batch
    assert _keys(padded.batches(keys, 2, first=1)) == keys[2:]


def test_labels_must_be_known(cinc_shards: Path, data: Data) -> None:
    rows = {row.key: row for row in Store(cinc_shards).rows()}
    with pytest.raises(EcgpipeError, match=r"A00004 has the labels \['~'\], where one of N A O is"):
        read_labels(cinc_shards, rows, "NAO", many_of=False)
    with pytest.raises(EcgpipeError, match=r"A00004 has .* only some of N A O are known"):
        read_labels(cinc_shards, rows, "NAO", many_of=True)
    assert read_labels(cinc_shards, rows, "~OAN", many_of=True)["A00002"] == (2,)
    with pytest.raises(EcgpipeError, match="is an archive"):
        load_recordings(Store(data.archive), many_of=False)


def test_targets() -> None:
    assert targets([2, 0], 3).tolist() == [2, 0]
    assert targets([(2,), (0, 1), ()], 3).tolist() == [[0, 0, 1], [1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("size", [2, 3, 64])
def test_no_batch_of_one(size: int) -> None:
    for count in range(1, 200):
        lengths = [len(range(count)[at]) for at in chunks(count, size)]
        assert sum(lengths) == count
        assert all(at.start < at.stop for at in chunks(count, size))
        assert count == 1 or min(lengths) > 1
        assert all(length == size for length in lengths[:-1])
        assert lengths[-1] <= size + 1


def test_order_of_recordings() -> None:
    keys = [str(i) for i in range(50)]
    assert sorted(shuffled(keys, 1, 2)) == sorted(keys)
    assert shuffled(keys, 1, 2) != shuffled(keys, 1, 3)
