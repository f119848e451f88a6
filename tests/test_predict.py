"""Using what was trained: own recordings in any format, answers over time, ONNX, the model card."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import databases
import numpy as np
import pytest
import scipy.io
import torch
from command_line import QUICK
from command_line import run as call
from sklearn.metrics import f1_score

import ecgpipe
from ecgpipe.config import FinetuneSettings, PretrainSettings, load
from ecgpipe.datasets.icbeb2018 import LEADS
from ecgpipe.errors import BadRecord, EcgpipeError
from ecgpipe.inference.export import export
from ecgpipe.inference.inputs import InputFormat, from_millivolts, read_recording
from ecgpipe.inference.model import Model, find_model, load_model
from ecgpipe.inference.model_card import card_text, model_card
from ecgpipe.models.resnet import ResNet
from ecgpipe.plots.timeline import plot_prediction
from ecgpipe.storage.resample import resample
from ecgpipe.storage.shards import shard
from ecgpipe.training.finetune import finetune
from ecgpipe.training.pretrain import pretrain

UP: dict[str, Any] = {
    "frame": 256, "steps": 2, "streams": 2, "shuffle": 32, "frames_per_visit": 2,
    "validation_frames": 16, "validation_share": 0.5, "epochs": 1, **QUICK,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def runs(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: beat, future, short (inputs of 5 s) and long (of 12 s)."""
    folder = tmp_path_factory.mktemp("using")
    shard(stores / "archive/cinc2017", folder / "cinc2017", 125, workers=1)
    for task, more in (("beat", {}), ("future", {"future": {"context": 4, "negatives": 2}})):
        settings = load(PretrainSettings, **UP, **more, task=task)
        pretrain([stores / "shards/icentia11k"], folder / task, settings)
    for name, init, seconds in (("short", None, 5), ("long", folder / "beat", 12)):
        # Slow and long enough that probabilities lie between 0 and 1, or they would show nothing.
        how = {**QUICK, "epochs": 6, "seconds": seconds, "repeats": 2 if init is None else 1}
        how |= {"optimiser": {"lr": 1e-4}, "train_share": 0.6, "validation_share": 0.2}
        finetune(folder / "cinc2017", folder / name, load(FinetuneSettings, **how), init)
    return folder


@pytest.fixture(scope="module")
def model(runs: Path) -> Model:
    return ecgpipe.load_model(str(runs / "short"), "cpu")


def _twelve_leads(path: Path, classes: int = 3) -> Model:
    """A model of twelve leads and any number of classes, with random weights."""
    torch.manual_seed(3)
    network = ResNet(classes, len(LEADS))
    description: dict[str, Any] = {
        "kind": "finetune", "name": "random", "dataset": "icbeb2018", "answer": "many_of",
        "classes": ["SNR", "AF", "PVC"][:classes],
        "settings": FinetuneSettings(seconds=4).model_dump(), "digest": "0" * 64,
    }  # fmt: skip
    card = {
        "task": "icbeb2018", "answer": "many_of", "classes": ["SNR", "AF", "PVC"][:classes],
        "fs": 125.0, "leads": 12, "lead_names": list(LEADS), "seconds": 4.0, "depth": 18,
        "order": "pre", "stages": 4, "mean_mV": 0.01, "std_mV": 0.3, "run": description, "epoch": 1,
    }  # fmt: skip
    torch.save({**card, "network": network.state_dict()}, path)
    return load_model(path, "cpu")


@pytest.mark.parametrize("run", ["short", "long"])
def test_raw_files_give_what_training_has_predicted(run: str, runs: Path, cinc: Path) -> None:
    """At 300 Hz on disk, shards at 125 Hz in training; longer and shorter than the input."""
    chosen = load_model(runs / run, "cpu")
    rows = csv.DictReader((chosen.path.parent / "predictions.csv").read_text().splitlines())
    tested = [row for row in rows if row["split"] == "test"]
    assert len(tested) == 8
    assert np.ptp([float(row["p_N"]) for row in tested]) > 0.05
    for row in tested:
        record = read_recording(cinc / row["key"])
        assert record.fs == 300 and chosen.fs == 125
        expected = [float(row[f"p_{name}"]) for name in chosen.classes]
        np.testing.assert_allclose(chosen.of_record(record).probability[-1], expected, atol=1e-5)
        got = chosen.predict(record.millivolts(), record.fs)
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_every_format_gives_the_same_counts(tmp_path: Path, cinc: Path) -> None:
    wfdb = read_recording(cinc / "A00001.hea")
    counts = wfdb.signal[0].astype(np.int64)
    assert np.array_equal(read_recording(cinc / "A00001").signal, wfdb.signal)
    assert np.array_equal(read_recording(cinc / "A00001.mat").signal, wfdb.signal)
    shutil.copy(cinc / "A00001.mat", tmp_path / "bare.mat")
    np.save(tmp_path / "column.npy", counts[:, None])
    np.savez(tmp_path / "named.npz", signal=counts / 1000, fs=300, leads=["V2"])
    times = np.arange(len(counts)) / 300
    comma = [f"{t:.3f},{c / 1000:.3f}" for t, c in zip(times, counts, strict=True)]
    (tmp_path / "timed.csv").write_text("\n".join(["time,V2", *comma]))
    german = [f"{1000 * t:.1f};{c / 1000:.3f}".replace(".", ",") for t, c in
              zip(times, counts, strict=True)]  # fmt: skip
    (tmp_path / "german.csv").write_text("\n".join(["time (ms);V2", *german]))
    (tmp_path / "plain.txt").write_text("\n".join(map(str, counts)))
    of = {
        "bare.mat": InputFormat(fs=300, gain=1000),
        "column.npy": InputFormat(fs=300, unit="uV"),
        "named.npz": InputFormat(),
        "timed.csv": InputFormat(),
        "german.csv": InputFormat(),
        "plain.txt": InputFormat(fs=300, unit="µV", leads=("V2",)),
    }
    for name, given in of.items():
        record = read_recording(tmp_path / name, given)
        assert record.fs == 300, name
        assert record.leads == (("ecg",) if name in ("bare.mat", "column.npy") else ("V2",)), name
        assert np.array_equal(record.signal, wfdb.signal), name


def test_cpsc_in_its_original_form(tmp_path: Path) -> None:
    millivolts = np.random.default_rng(1).normal(0, 0.3, (12, 1500)).round(3)
    databases.icbeb(tmp_path, "A0001", millivolts)
    (path,) = tmp_path.rglob("A0001.mat")
    record = read_recording(path)
    assert (record.fs, record.leads) == (500, LEADS)
    np.testing.assert_allclose(record.millivolts(), millivolts, atol=1e-6)


def _save(path: Path, array: Any) -> None:
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **array)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, array)
    else:
        path.write_text(array)


LONG = np.zeros(900)
BROKEN: list[tuple[str, Any, InputFormat, str]] = [
    ("a.npy", LONG, InputFormat(), r"a\.npy: does not say its sampling rate; give it with --fs"),
    ("a.npy", LONG[:80], InputFormat(fs=100), r"80 samples at 100 Hz, less than 1 s"),
    ("a.npy", np.append(LONG, np.nan), InputFormat(fs=100), r"1 samples are no numbers; fill them"),
    ("a.npy", LONG + 900, InputFormat(fs=100), r"900\.0 mV, where int16 .* with --unit or --gain"),
    ("a.npy", np.zeros((2, 3, 400)), InputFormat(fs=100), r"shape \(2, 3, 400\); leads by samples"),
    ("a.npy", LONG.astype(str), InputFormat(fs=100), r"holds no real numbers"),
    ("a.npy", np.zeros((2, 400)), InputFormat(fs=100, leads=("I",)), r"1 names \(I\) for 2 leads"),
    ("a.npz", {"x": LONG, "y": LONG}, InputFormat(fs=100), r"which of x, y is the signal\?"),
    ("a.npz", {"signal": LONG, "fs": 250}, InputFormat(fs=100), r"says 250 Hz, and --fs 100"),
    ("a.mat", {"a": LONG, "b": LONG}, InputFormat(fs=100), r"which of a, b is the signal"),
    ("b.mat", None, InputFormat(fs=100), r"b\.mat: no such recording; name a file of one of WFDB"),
    ("a.csv", "", InputFormat(fs=100), r"a\.csv: no table of numbers"),
    ("a.csv", "I,II\n1,x\n2,3", InputFormat(fs=100), r"'x' in column 2 is no number"),
    ("a.csv", "I,II\n1,2,3\n2,3,4", InputFormat(fs=100), r"3 columns under 2 names"),
    ("a.csv", "1,2\n1,2,3\n2,3,4", InputFormat(fs=100), r"no table of numbers \("),
    ("a.csv", "time,I\n0,1\n0.1,1\n0.9,1\n1,1", InputFormat(), r"column time is not evenly spaced"),
    ("a.csv", "time,I\n1,1\n1,1\n1,1", InputFormat(), r"column time does not rise"),
    ("a.csv", "I,II\n" + "1,2\n" * 200, InputFormat(fs=100, leads=("I", "V")), "leave --leads out"),
    ("a.doc", "1 2 3", InputFormat(fs=100), r"a\.doc: of an unknown kind; there are WFDB"),
    ("a.hea", "a/2 1 250 4000\n", InputFormat(), r"a record of several segments"),
    ("a.hea", "a 1 250 4000\na.dat 16 200/mV 16 0 0 0 0 I\n", InputFormat(), r"a\.dat: missing"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "given", "match"), BROKEN)
def test_what_cannot_be_read_says_why(
    name: str, content: Any, given: InputFormat, match: str, tmp_path: Path
) -> None:
    if content is not None:
        _save(tmp_path / name, content)
    with pytest.raises(BadRecord, match=match) as error:
        read_recording(tmp_path / name, given)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"unit": "kg"}, r"--unit kg: unknown; there are: mV, uV"),
        ({"unit": "V", "gain": 2.0}, r"give one of them"),
        ({"fs": 0.0}, r"--fs 0: give a number above 0"),
        ({"gain": float("nan")}, r"--gain nan: give a number above 0"),
    ],
)
def test_what_is_told_must_make_sense(given: dict[str, Any], match: str) -> None:
    with pytest.raises(EcgpipeError, match=match):
        InputFormat(**given)


def test_each_window_is_answered_by_itself(model: Model) -> None:
    signal = np.random.default_rng(0).normal(0, 0.2, 1850)
    answer = model.over_time(signal, 125, every=2)
    assert answer.start.tolist() == [0, 2, 4, 6, 8, 9.8]
    assert answer.stop.tolist() == [5, 7, 9, 11, 13, 14.8]
    for start, row in zip(answer.start, answer.probability, strict=True):
        first = round(start * 125)
        alone = model.predict(signal[first : first + 625], 125)
        np.testing.assert_allclose(row, alone, atol=1e-6)
    np.testing.assert_allclose(model.predict(signal, 125), answer.probability[-1], atol=1e-6)
    np.testing.assert_allclose(answer.probability.sum(1), 1)
    assert model.over_time(signal, 125).start.tolist() == [0, 5, 9.8]
    assert model.over_time(signal[:625], 125).start.tolist() == [0]
    with pytest.raises(EcgpipeError, match=r"--every 0: at least a sample, 0\.008 s"):
        model.over_time(signal, 125, every=0)


def test_stretches_cover_the_recording_once(model: Model) -> None:
    answer = model.over_time(np.random.default_rng(0).normal(0, 0.2, 4501), 125, every=1.5)
    border = answer.edges
    assert (np.diff(border) > 0).all()
    assert (border[0], border[-1]) == (0, 4501 / 125)
    found = answer.segments()
    assert [part.stop for part in found[:-1]] == [part.start for part in found[1:]]
    assert (found[0].start, found[-1].stop) == (0, 4501 / 125)
    assert all(one.classes != other.classes for one, other in pairwise(found))


def test_leads_in_any_order_and_case(tmp_path: Path) -> None:
    model = _twelve_leads(tmp_path / "model.pt")
    signal = np.random.default_rng(2).normal(0, 0.3, (12, 1000))
    expected = model.predict(signal, 250, LEADS)
    order = np.random.default_rng(3).permutation(12)
    shuffled = [LEADS[i].upper() for i in order]
    np.testing.assert_array_equal(model.predict(signal[order], 250, shuffled), expected)
    extra = np.concatenate([np.ones((1, 1000)), signal])
    np.testing.assert_array_equal(model.predict(extra, 250, ["X", *LEADS]), expected)
    with pytest.raises(BadRecord, match=r"lacks aVF, V6 of the leads .* it has I, II, III"):
        kept = [i for i, name in enumerate(LEADS) if name not in ("aVF", "V6")]
        model.predict(signal[kept], 250, [LEADS[i] for i in kept])
    with pytest.raises(BadRecord, match=r"it has 1, 2, 3"):
        model.predict(signal, 250)


def test_one_lead_of_several(model: Model) -> None:
    signal = np.random.default_rng(4).normal(0, 0.3, (3, 2000))
    record = from_millivolts(signal, 125, ["V1", "II", "V5"])
    for lead, at in ((None, 1), ("v5", 2), ("V1", 0)):
        row = model.of_record(record, lead).probability[-1]
        np.testing.assert_allclose(row, model.predict(signal[at], 125), atol=1e-7)
    assert model.pick(from_millivolts(signal, 125)).leads == ("1",)
    with pytest.raises(BadRecord, match=r"lacks aVR of the leads that are wanted; it has V1, II"):
        model.of_record(record, "aVR")


def test_of_many_classes_each_answers_for_itself(tmp_path: Path) -> None:
    model = _twelve_leads(tmp_path / "model.pt")
    signal = np.random.default_rng(5).normal(0, 0.3, (12, 500))
    record = from_millivolts(signal, 125, LEADS)
    x = (torch.from_numpy(record.millivolts())[None] - 0.01) / 0.3
    with torch.no_grad():
        expected = torch.sigmoid(model.network(x))[0].numpy()
    prediction = model.of_record(record)
    np.testing.assert_allclose(prediction.probability[-1], expected, atol=1e-5)
    assert prediction.predicted(np.array([0.5, 0.49, 0.9])) == ("SNR", "PVC")
    assert prediction.predicted(np.array([0.1, 0.2, 0.3])) == ()


def test_a_run_stands_for_its_best_repeat(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "short", tmp_path / "run")
    for best in (1, 0):
        for number in (0, 1):
            history = run / f"repeat-{number:02d}" / "history.csv"
            score = 0.9 if number == best else 0.2
            history.write_text(f"epoch,validation_macro_f1\n1,{score}\n2,0.1\n")
        assert find_model(run) == run / f"repeat-{best:02d}" / "model.pt"
    (run / "repeat-00" / "predictions.csv").unlink()  # not finished, so it does not count
    assert find_model(run) == run / "repeat-01" / "model.pt"
    assert find_model(run / "repeat-00") == run / "repeat-00" / "model.pt"


def test_models_that_are_none(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"nothing")
    for path, match in (
        (tmp_path / "nix", r"nix: no such model; name a model\.pt or the folder of a run"),
        (tmp_path / "model.pt", r"model\.pt: not a readable model file"),
        (runs, r"no model in it"),
        (runs / "future", r"pretrained to tell futures apart and has no classes; finetune"),
    ):
        with pytest.raises(EcgpipeError, match=match):
            load_model(path, "cpu")


def test_a_pretrained_network_answers_by_frames(runs: Path, icentia: Path) -> None:
    model = load_model(runs / "beat", "cpu")
    (path, *_) = sorted(icentia.rglob("*_s00.hea"))
    answer = model.of_record(read_recording(path))
    assert model.classes == ("normal", "pac", "aberrated", "pvc", "undefined")
    assert len(answer.start) == -(-15000 // 256)
    with pytest.raises(BadRecord, match=r"1 s, where this network has only seen frames of 1\.024"):
        model.predict(np.zeros(250), 250)


@pytest.mark.parametrize("leads", [1, 12])
def test_onnx_gives_the_same_numbers(leads: int, runs: Path, tmp_path: Path) -> None:
    import onnxruntime

    model = _twelve_leads(tmp_path / "m.pt") if leads == 12 else load_model(runs / "short", "cpu")
    path = export(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for samples in (model.samples // 3, model.samples, 2 * model.samples + 7):
        signals = np.random.default_rng(samples).normal(0.1, 0.4, (3, leads, samples)).round(3)
        (got,) = session.run(None, {"signal": signals.astype(np.float32)})
        expected = [model.predict(signal, model.fs, model.lead_names) for signal in signals]
        np.testing.assert_allclose(got, expected, atol=1e-5)
    (alone,) = session.run(None, {"signal": signals[:1].astype(np.float32)})
    np.testing.assert_allclose(alone[0], got[0], atol=1e-6)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list(model.classes)
    assert json.loads(facts["leads"]) == list(model.lead_names)
    assert (float(facts["fs"]), float(facts["seconds"])) == (model.fs, model.seconds)
    assert [item.name for item in tmp_path.iterdir() if "onnx" in item.name] == ["model.onnx"]
    with pytest.raises(EcgpipeError, match=r"name a file that ends in \.onnx"):
        export(model, tmp_path / "model.bin")


def test_one_bad_record_does_not_stop_the_others(
    runs: Path, cinc: Path, model: Model, tmp_path: Path
) -> None:
    np.save(tmp_path / "bad.npy", np.full(900, np.nan))
    names = [cinc / "A00001", tmp_path / "bad.npy", cinc / "A00002.mat"]
    run = call("predict", runs / "short", *names, "--fs", 300, "--json")
    assert run.returncode == 3
    (line,) = run.stderr.splitlines()
    assert "bad.npy: 900 samples are no numbers" in line
    tree = json.loads(run.stdout)
    assert [item["record"] for item in tree["records"]] == [str(names[0]), str(names[2])]
    for item in tree["records"]:
        answer = model.of_record(read_recording(Path(item["record"])))
        assert [len(item["windows"]), item["stop_s"]] == [2, 10]
        expected = dict(zip(model.classes, answer.probability[-1].round(6), strict=True))
        assert item["probability"] == pytest.approx(expected, abs=2e-6)
        assert item["answer"] == max(expected, key=expected.__getitem__)


def test_tables_for_the_screen_and_for_programs(runs: Path, cinc: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    run = call("predict", runs / "short", cinc / "A00003", "--csv", "--plot", picture)
    assert run.returncode == 0, run.stderr
    rows = list(csv.DictReader(run.stdout.splitlines()))
    times = [(row["start_s"], row["stop_s"]) for row in rows]
    assert times == [("0.000", "5.000"), ("5.000", "10.000")]
    assert picture.read_bytes()[:4] == b"\x89PNG"
    shown = call("predict", runs / "short", cinc / "A00003", cinc / "A00004").stdout.splitlines()
    assert shown[0].split() == ["recording", "N", "A", "O", "~", "answer"]
    last = [f"{float(rows[-1][f'p_{name}']):.3f}" for name in "NAO~"]
    assert shown[1].split()[:6] == ["A00003", *last, rows[-1]["answer"]]
    assert shown[2].startswith("  over time, 2 windows: ")
    wrong = call("predict", runs / "short", cinc / "A00003", cinc / "A00004", "--plot", picture)
    assert (wrong.returncode, "draws one recording, and 2" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(("samples", "leads"), [(450, 12), (4000, 12), (450, 1), (9000, 1)])
def test_pictures_are_made_and_the_same(
    samples: int, leads: int, tmp_path: Path, model: Model
) -> None:
    chosen = _twelve_leads(tmp_path / "model.pt") if leads == 12 else model
    signal = np.random.default_rng(6).normal(0, 0.3, (leads, samples))
    record = from_millivolts(signal, 125, LEADS if leads == 12 else None, "noise")
    found = chosen.of_record(record)
    one, other = (plot_prediction(chosen, found, tmp_path / name) for name in ("a.svg", "b.svg"))
    assert one.read_bytes() == other.read_bytes()
    text = one.read_text()
    assert ("Prediction over time" in text) == (samples / 125 > chosen.seconds)
    assert all(f">{name}<" in text for name in (*chosen.classes, *record.leads))
    with pytest.raises(EcgpipeError, match=r"a\.txt: cannot be drawn"):
        plot_prediction(chosen, found, tmp_path / "a.txt")


def test_the_card_says_what_the_model_is(runs: Path) -> None:
    facts = model_card(runs / "long")
    model = load_model(runs / "long", "cpu")
    parameters = sum(p.numel() for p in ResNet(4, stages=2).parameters())
    assert facts["parameters"] == parameters
    assert (facts["fs_Hz"], facts["seconds"], facts["classes"]) == (125, 12, ["N", "A", "O", "~"])
    assert facts["settings"]["seconds"] == 12 and "test_share" not in facts["settings"]
    assert facts["init"]["task"] == "beat" and facts["simulated"]
    rows = list(csv.DictReader((model.path.parent / "predictions.csv").read_text().splitlines()))
    for split in ("validation", "test"):
        here = [row for row in rows if row["split"] == split]
        best = [max(model.classes, key=lambda name: float(row[f"p_{name}"])) for row in here]
        expected = f1_score([r["label"] for r in here], best, labels=list(model.classes),
                            average="macro", zero_division=0.0)  # fmt: skip
        assert facts["scores"][split]["items"] == len(here)
        assert facts["scores"][split]["macro_f1"] == pytest.approx(expected)
    shown = card_text(facts)
    assert max(map(len, shown.splitlines())) <= 120
    said = "model of cinc2017 (simulated recordings)", "one of N A O ~", "ODC-By 1.0"
    mean, std = model.standardisation
    assert f"standardised by mean {mean:z.4f} mV, SD {std:.4f} mV" in shown
    for part in (*said, "pretrained on beat", "medical device", facts["inputs"][0]["digest"][:12]):
        assert part in shown
    run = call("inspect", runs / "long", "--json")
    assert json.loads(run.stdout) == json.loads(json.dumps(facts))
    assert call("inspect", runs / "long").stdout == shown + "\n"
    assert call("inspect", runs / "cinc2017").stdout.startswith("shards of cinc2017")
    assert "pretrained on beat" not in card_text(model_card(runs / "beat"))


def test_a_card_refuses_predictions_of_something_else(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "long", tmp_path / "run")
    file = find_model(run).with_name("predictions.csv")
    good = file.read_text()
    first = good.splitlines()[1].split(",")
    unlabelled = ",".join([*first[:2], "", *first[3:]])
    for old, new, match in (
        (",".join(first), unlabelled, r"predictions\.csv, line 2: cannot be used"),
        ("p_A", "q_A", r"predictions\.csv: column p_A is missing"),
    ):
        file.write_text(good.replace(old, new))
        with pytest.raises(EcgpipeError, match=match):
            model_card(run)


def test_resampling_is_that_of_the_shards(model: Model, cinc: Path) -> None:
    record = read_recording(cinc / "A00002")
    at_its_rate = resample(record, model.fs)
    np.testing.assert_array_equal(
        model.of_record(record).probability, model.of_record(at_its_rate).probability
    )
