"""The report on run folders in the layout that the trainer writes."""

from __future__ import annotations

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import CLASSES, TEST, finetune, pretrain
from scipy.stats import ttest_ind
from sklearn.metrics import f1_score

from ecgpipe.errors import EcgpipeError
from ecgpipe.plots.ecg import example_svg
from ecgpipe.reports.figures import label_efficiency
from ecgpipe.reports.paper import Score
from ecgpipe.reports.report import write_report
from ecgpipe.reports.results import results
from ecgpipe.reports.text import fixed, mean_std, percent, signed
from ecgpipe.training.examples import Example
from ecgpipe.training.run_folder import read_run


def f1_of_files(folder: Path, average: str | None = "macro") -> list[Any]:
    """F1 of every repeat's test rows, by scikit-learn, straight from the files."""
    result = []
    for file in sorted(folder.glob("repeat-*/predictions.csv")):
        with file.open(newline="") as stream:
            lines = [row for row in csv.DictReader(stream) if row["split"] == "test"]
        values = [[float(row[f"p_{name}"]) for name in CLASSES] for row in lines]
        predicted = [CLASSES[place] for place in np.argmax(values, 1)]
        true = [row["label"] for row in lines]
        result.append(f1_score(true, predicted, labels=CLASSES, average=average))
    return result


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    upstream = pretrain(tmp_path / "pre")
    random = finetune(tmp_path / "random", example="A00001")
    beat = finetune(tmp_path / "beat", "beat", upstream)
    return [random, beat, tmp_path / "pre"]


def test_numbers_are_those_of_the_files(pair: list[Path], tmp_path: Path) -> None:
    paths = write_report(pair, tmp_path / "out" / "report.html")
    assert [path.name for path in paths.values()] == ["report.html", "report.csv", "report.md"]
    table = read_table(paths["csv"])
    macro = [f1_of_files(folder) for folder in pair[:2]]
    for row, folder, values, theirs in zip(table, pair, macro, (0.731, 0.779), strict=False):
        assert float(row["macro_f1"]) == pytest.approx(np.mean(values), abs=1e-6)
        assert float(row["macro_f1_std"]) == pytest.approx(np.std(values, ddof=1), abs=1e-6)
        by_class = np.array(f1_of_files(folder, None))
        for name, column in zip(CLASSES, by_class.T, strict=True):
            assert float(row[f"f1_{name}"]) == pytest.approx(column.mean(), abs=1e-6)
            assert float(row[f"f1_{name}_std"]) == pytest.approx(column.std(ddof=1), abs=1e-6)
        assert float(row["paper_macro_f1"]) == theirs
        assert float(row["difference_macro_f1"]) == pytest.approx(
            np.mean(values) - theirs, abs=1e-6
        )
        assert {"Recordings", "Repeats", "Epochs"} <= set(row["differs_from_paper_in"].split("; "))
    gain = np.mean(macro[1]) / np.mean(macro[0]) - 1
    assert float(table[1]["gain_macro_f1"]) == pytest.approx(gain, abs=1e-5)
    assert table[0]["gain_macro_f1"] == ""
    welch = ttest_ind(macro[1], macro[0], equal_var=False).pvalue
    assert float(table[1]["gain_macro_f1_p"]) == pytest.approx(welch, rel=1e-5)
    assert float(table[1]["paper_gain_macro_f1"]) == pytest.approx(0.0656635, abs=1e-6)
    page, notes = (paths[kind].read_text() for kind in ("html", "md"))
    mean = f"{np.mean(macro[1]):.3f}".removeprefix("0")
    for expected in (
        mean,
        f"{100 * gain:.1f}\xa0%",
        "Not directly comparable",
        "the paper’s 20 % for testing are another draw",
        "Adam, learning rate 0.001, β1 0.9, β2 0.999, ε 1e-08",
        "A00001",
        "320 of cinc2017",
    ):
        assert expected in page
    assert mean in notes


def test_the_page_stands_alone_and_repeats_to_the_byte(pair: list[Path], tmp_path: Path) -> None:
    first = write_report(pair, tmp_path / "one" / "report")
    second = write_report(pair, tmp_path / "two" / "report.html")
    assert all(first[kind].read_bytes() == second[kind].read_bytes() for kind in first)
    page = first["html"].read_text()
    assert "http" not in page and "<script" not in page and "@import" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert str(tmp_path) not in page


def test_missing_repeats_and_pretraining_are_said(tmp_path: Path) -> None:
    upstream = pretrain(tmp_path / "pre", finished=False)
    random = finetune(tmp_path / "random", finished=(0, 2))
    (random / "repeat-01").mkdir()
    beat = finetune(tmp_path / "beat", "beat", {**upstream, "digest": "other"}, finished=(1,))
    page = write_report([random, beat, tmp_path / "pre"], tmp_path / "r")["html"].read_text()
    assert "no predictions of repeat 1, not finished" in page
    assert "scores are from 2 of 3 repeats" in page
    assert "no predictions of repeat 0, 2" in page
    assert "With a single repeat the spread" in page
    assert "±\xa0\N{EN DASH}" not in page
    assert "The pretraining run is not part of this report" in page
    assert "Pretraining pre has no predictions.csv" in page


def test_one_run_alone(tmp_path: Path) -> None:
    paths = write_report([finetune(tmp_path / "random")], tmp_path / "r.html")
    assert "no finished run from pretrained weights" in paths["html"].read_text()
    assert "Pretraining</h2>" not in paths["html"].read_text()
    only = write_report([finetune(tmp_path / "none", finished=())], tmp_path / "n.html")
    assert "No repeat has finished yet" in only["md"].read_text()
    assert read_table(only["csv"])[0]["macro_f1"] == ""
    pretrain(tmp_path / "pre")
    page = write_report([tmp_path / "pre"], tmp_path / "p.html")["html"].read_text()
    assert "Pretraining only" in page and "40 validation frames" in page


def test_conditions_without_a_cell_and_simulated_data(tmp_path: Path) -> None:
    odd = finetune(tmp_path / "odd", train_share=0.6, validation_share=0.2)
    fake = finetune(tmp_path / "fake", data={"simulated": True})
    for folder in (odd, fake):
        paths = write_report([folder], tmp_path / "r.html")
        assert "the paper has no result under these conditions" in paths["html"].read_text()
        assert read_table(paths["csv"])[0]["difference_macro_f1"] == ""
        assert "Comparison with the paper" not in paths["html"].read_text()
    assert "On simulated recordings" in paths["html"].read_text()


@pytest.mark.parametrize("change", [{"test": TEST[:-4]}, {"batch": 32}])
def test_no_gain_unless_like_for_like(tmp_path: Path, change: dict[str, Any]) -> None:
    upstream = pretrain(tmp_path / "pre")
    random = finetune(tmp_path / "random", **change)
    beat = finetune(tmp_path / "beat", "beat", upstream, seed=3)
    paths = write_report([random, beat], tmp_path / "r.html")
    assert [row["gain_macro_f1"] for row in read_table(paths["csv"])] == ["", ""]
    assert "No gain is stated" in paths["html"].read_text()


def test_hostile_text_is_escaped(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>|$x$"
    test = [(evil, 0), *TEST[1:]]
    random = finetune(tmp_path / "random", test=test, example=evil, data={"notes": [evil]})
    named = finetune(tmp_path / "named", evil, pretrain(tmp_path / "pre"), test=test)
    paths = write_report([random, named], tmp_path / "r.html")
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(paths["html"].read_text())
    assert "svg" in tags and "img" not in tags
    assert "<img" not in paths["md"].read_text()


def test_what_is_no_run_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EcgpipeError, match=r"empty: no run folder .* name a folder"):
        write_report([tmp_path / "empty"], tmp_path / "r")
    with pytest.raises(EcgpipeError, match="no run folders given"):
        write_report([], tmp_path / "r")
    (tmp_path / "empty" / "run.json").write_text('{"kind": "archive"}')
    with pytest.raises(EcgpipeError, match="missing: name"):
        write_report([tmp_path / "empty"], tmp_path / "r")
    finetune(tmp_path / "a")
    answers_file = tmp_path / "a" / "repeat-00" / "predictions.csv"
    good = answers_file.read_text()
    for old, new, message in (
        ("p_A", "q_A", "column p_A is missing"),
        (",test,", ",trial,", "line 22: cannot be used"),
        ("A00000,test,N,", "A00000,test,N,nan,", "not finite"),
    ):
        answers_file.write_text(good.replace(old, new))
        with pytest.raises(EcgpipeError, match=message):
            write_report([tmp_path / "a"], tmp_path / "r")
    assert not (tmp_path / "r.html").exists()


def test_pretrained_on_simulated_recordings_and_tested_on_real_ones(tmp_path: Path) -> None:
    upstream = pretrain(tmp_path / "pre", data={"simulated": True})
    folders = [
        finetune(tmp_path / f"{name}{share}", name, init, train_share=share, data={"train": n})
        for share, n in ((0.25, 80), (0.5, 160))
        for name, init in (("random", None), ("beat", upstream))
    ]
    table = results([read_run(folder) for folder in folders])
    assert [row.baseline for row in table] == [None, table[0], None, table[2]]
    assert not any("simulated" in row.label for row in table)
    assert [bool(row.paper) for row in table] == [True, False, True, False]
    (plot,) = label_efficiency(table)
    assert "Beat classification (simulated)" in plot.plots[0]
    assert "Random weights (simulated)" not in plot.plots[0]
    # The paper's line stands beside that from random weights alone.
    (alone,) = label_efficiency(table[::2])
    assert plot.plots[0].count("stroke-dasharray") == alone.plots[0].count("stroke-dasharray") > 0
    paths = write_report(folders, tmp_path / "r.html")
    page, told = paths["html"].read_text(), read_table(paths["csv"])
    assert f"Pretrained on simulated recordings: {table[1].label}; {table[3].label}." in page
    assert "On simulated recordings" not in page and "Simulated recordings:" not in page
    assert [row["simulated"] for row in told] == ["no"] * 4
    assert [row["pretraining_simulated"] for row in told] == ["", "yes", "", "yes"]
    gain = np.mean(f1_of_files(folders[1])) / np.mean(f1_of_files(folders[0])) - 1
    assert float(told[1]["gain_macro_f1"]) == pytest.approx(gain, abs=1e-5)
    # Of two pretrainings that differ in nothing else, the names say which is which.
    real = finetune(tmp_path / "real", "beat", pretrain(tmp_path / "real-pre"), train_share=0.25)
    names = [row.label for row in results([read_run(real), read_run(folders[1])])]
    assert names == [f"Beat classification, pretrained on mitdb{s}" for s in ("", " (simulated)")]


@pytest.mark.parametrize("skills", [(0.9, 0.6, 0.0), (0.0, 0.0, 0.05)])
def test_gains_and_losses_are_counted_apart(tmp_path: Path, skills: tuple[float, ...]) -> None:
    upstream = pretrain(tmp_path / "pre")
    ten: dict[str, Any] = {"repeats": 10, "finished": tuple(range(10))}
    random = finetune(tmp_path / "random", skill=0.4, **ten)
    names = ("beat", "rhythm", "heart_rate")
    folders = [
        finetune(tmp_path / name, name, {**upstream, "name": name}, skill=skill, **ten)
        for name, skill in zip(names, skills, strict=True)
    ]
    base = f1_of_files(random)
    changes = [(np.mean(f1) / np.mean(base) - 1, ttest_ind(f1, base, equal_var=False).pvalue)
               for f1 in map(f1_of_files, folders)]  # fmt: skip
    gains = [p < 0.05 for change, p in changes if change > 0]
    losses = [p < 0.05 for change, p in changes if change < 0]
    assert sum(losses)
    page = write_report([random, *folders], tmp_path / "r.md")
    told = page["md"].read_text().replace("&lt;", "<").replace("\xa0", " ")
    lowest, highest = (of(change for change, _ in changes) for of in (min, max))
    changed = f"{percent(lowest)} to {percent(highest)}".replace("\xa0", " ")
    if gains:
        assert f"in {len(gains)} of 3 comparisons" in told
        assert f"p < .05 in {sum(gains)} of the gains" in told and ", most from ." in told
    else:
        assert "raises the test macro F1 in none of 3 comparisons" in told
        assert "of the gains" not in told and ", most from" not in told
    assert f"changes of {changed};" in told
    assert f"p < .05 in {sum(losses)} of the losses" in told
    assert "Of 4 runs with a cell" in told and "p does not include the variation" in told


def test_numbers_as_text() -> None:
    assert mean_std(Score(0.731, 0.019)) == ".731\xa0±\xa0.019"
    assert mean_std(Score(0.731, None, 1)) == ".731"
    assert [fixed(x) for x in (-0.0001, -0.5, 0.9996, 1.25)] == [".000", "-.500", "1.000", "1.250"]
    assert [signed(x) for x in (-0.0001, -0.0123)] == ["+.000", "\N{MINUS SIGN}.012"]
    assert [percent(x) for x in (-0.0001, -0.0123)] == ["+0.0\xa0%", "\N{MINUS SIGN}1.2\xa0%"]


def test_an_example_keeps_time_voltage_and_marks() -> None:
    signal = np.zeros(3000, np.float32)
    signal[1250] = 1.0  # 5 s, 1 mV
    svg = example_svg(Example("x", 250.0, signal, np.array([1250, 2600], np.int32)), 5)
    by_colour: dict[str, list[Any]] = {"currentColor": [], "rgb(var(--tint))": []}
    for points, colour in re.findall(r'<path d="([^"]*)"[^>]*?stroke: ([^;"]*)', svg):
        pairs = np.reshape([float(x) for x in re.findall(r"-?[\d.]+", points)], (-1, 2))
        by_colour.setdefault(colour, []).append(pairs / 72 * 25.4)  # mm
    first, second = by_colour["currentColor"]  # rows of 10 s
    ticks = [tick[0, 0] for tick in by_colour["rgb(var(--tint))"]]
    assert ticks == pytest.approx([5 + 125, 5 + 10], abs=0.02)
    x, y = first.T
    assert x[y.argmin()] == pytest.approx(5 + 125, abs=0.01)  # 25 mm/s
    assert np.ptp(y) == pytest.approx(10, abs=0.01)  # mm/mV
    assert x[-1] == pytest.approx(5 + 250, abs=0.01)
    assert second[-1, 0] == pytest.approx(5 + 1.996 * 25, abs=0.01)
