"""Runs beside the paper's tables: its numbers, the comparison, recordings with several classes."""

from __future__ import annotations

import csv
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import CLASSES, STATEMENTS, TEST, finetune, finetune_many, pretrain
from scipy.stats import t as student
from sklearn.metrics import f1_score, roc_auc_score

from ecgpipe.errors import EcgpipeError
from ecgpipe.reports import paper, tables
from ecgpipe.reports.figures import label_efficiency, recordings
from ecgpipe.reports.paper import BEST, ICBEB, PTBXL, Conditions, Score, Start
from ecgpipe.reports.report import write_report
from ecgpipe.reports.results import compare, results
from ecgpipe.reports.summary import summary
from ecgpipe.training.run_folder import read_run

RESNET_18 = Conditions("cinc2017", 0.75, 250.0, 18)


def test_cells_of_the_paper() -> None:
    cells = paper.cells()
    best = cells[Start("beat", "2048"), RESNET_18]
    assert best.scores["macro_f1"] == (0.779, 0.014, 10)
    assert best.scores["f1_~"] == (0.661, 0.040, 10)
    for start, where, table, macro in (
        (Start("random"), (0.25, 250, 18), 2, (0.670, 0.013, 10)),
        (Start("rhythm", "2048"), (0.75, 300, 18), 3, (0.747, 0.017, 10)),
        (Start("heart_rate", "512"), (0.75, 128.0, 18), 3, (0.761, 0.011, 10)),
        (Start("future", "512,16,8,8"), (0.75, 250, 50), 4, (0.743, 0.010, 10)),
        (Start("random"), (0.75, 250, 34), 4, (0.764, 0.012, 10)),
    ):
        assert cells[start, Conditions("cinc2017", *where)] == (table, {"macro_f1": macro})
    # Table 2 has the best frame only.
    assert (Start("beat", "512"), RESNET_18._replace(share=0.25)) not in cells
    assert (Start("beat", "2048"), RESNET_18._replace(share=0.6)) not in cells
    ptbxl = cells[paper.start_of("heart_rate", 512), PTBXL]
    assert ptbxl.scores == {"auc": (0.965, 0.003, 10), "fmax": (0.923, 0.003, 10)}
    icbeb = cells[paper.start_of("future", 512), ICBEB]
    assert [score.mean for score in icbeb.scores.values()] == [0.955, 0.844, 0.802, 0.572]
    assert (Start("random"), PTBXL._replace(share=0.75)) not in cells  # no drawn split
    # Table 1's macro F1 is the mean of its four class F1s, up to rounding.
    for cell in cells.values():
        if "f1_N" in cell.scores:
            mean = np.mean([cell.scores[f"f1_{name}"].mean for name in CLASSES])
            assert mean == pytest.approx(cell.scores["macro_f1"].mean, abs=0.0016)


def test_the_percentages_in_the_papers_text_come_out() -> None:
    _, *pretrained = BEST
    for conditions, metric, stated in (
        (RESNET_18, "macro_f1", (6.57, 4.92, 4.79, 3.69)),
        (PTBXL, "auc", (2.12, 1.70, 2.44, 1.38)),
        (ICBEB, "auc", (0.73, 0.21, -0.31, 0.10)),
    ):
        for start, percent in zip(pretrained, stated, strict=True):
            gain = paper.gain(start, conditions, metric)
            assert gain is not None and round(100 * gain, 2) == percent
    # "Architecture of the residual network" and "Sampling frequency" state changes of a row.
    deeper = {"random": (4.51, -7.33), "beat": (1.93, -2.39)}
    for start, stated in zip(BEST, (*deeper.values(), (1.04,), (0.65,), (0.40,)), strict=True):
        row = [paper.cells()[start, RESNET_18._replace(depth=d)] for d in (18, 34, 50)]
        means = [cell.scores["macro_f1"].mean for cell in row]
        for (before, after), percent in zip(pairwise(means), stated, strict=False):
            assert round(100 * (after / before - 1), 2) == percent
    slower = paper.cells()[Start("random"), RESNET_18._replace(fs=300.0)].scores["macro_f1"].mean
    assert round(100 * (slower / 0.731 - 1), 2) == -2.19
    assert paper.gain(paper.RELATED, PTBXL, "auc") is None
    assert paper.gain(Start("random"), PTBXL, "auc") is None


def test_every_column_of_every_table_has_every_row() -> None:
    sizes = []
    for table in paper.TABLES:
        found = [
            paper.cells()[start, column.conditions].scores[column.metric]
            for start in table.rows
            for column in table.columns
        ]
        sizes.append((len(table.rows), len(table.columns), len(found)))
        assert all(0.5 < score.mean < 1 and score.std and score.std < 0.1 for score in found)
    assert sizes == [(14, 5, 70), (5, 3, 15), (5, 3, 15), (5, 3, 15), (6, 6, 36)]
    # The columns that are said to be of Table 1 are.
    for start in BEST:
        assert paper.cells()[start, RESNET_18].table == 1


def test_a_comparison_is_welchs() -> None:
    one, other = Score(0.74, 0.02, 4), Score(0.731, 0.019, 10)
    a, b = 0.02**2 / 4, 0.019**2 / 10
    freedom = (a + b) ** 2 / (a**2 / 3 + b**2 / 9)
    result = compare(one, other)
    assert result.error == pytest.approx(np.sqrt(a + b))
    p = 2 * student.sf(abs(0.74 - 0.731) / np.sqrt(a + b), freedom)
    assert result.p == pytest.approx(p, rel=1e-9)
    assert compare(Score(0.7, None, 1), other)[1:] == (None, None)
    assert compare(Score(0.7, 0.0, 3), Score(0.6, 0.0, 3))[1:] == (0.0, None)


def table_text(page: str, number: int) -> str:
    """The HTML of one of the paper's tables."""
    return page.split(f"<h3>Table {number}:")[1].split("<h")[0]


def test_a_filled_table_is_shown_whole(tmp_path: Path) -> None:
    half = finetune(tmp_path / "half", train_share=0.5, finished=(0, 1))
    beat = finetune(tmp_path / "beat", "beat", pretrain(tmp_path / "pre"), train_share=0.25)
    again = finetune(tmp_path / "again", train_share=0.5)
    unlike = finetune(tmp_path / "unlike", train_share=0.25, data={"simulated": True})
    paths = write_report([half, beat, again, unlike], tmp_path / "r.html")
    page = paths["html"].read_text()
    text = table_text(page, 2)
    assert text.count("not run") == 13 and "2 of 3 finished" in text and "n = 3" in text
    assert "2 of 15 cells have a result" in text
    assert text.count("†") == 2
    # The paper's gain stands there though ours has nothing to be laid beside.
    assert "paper +10.3\xa0%" in text
    # Of two runs for one cell the first stands in it; the other is not lost.
    assert "In the same cell of the paper" in page and "(again)" in page
    assert "Simulated recordings" in page
    for number in (1, 3, 4, 5):
        assert f"<h3>Table {number}:" not in page
    notes = paths["md"].read_text()
    assert "2 of 15 cells have a result" in notes
    assert notes.count("not run") == 13 and "| Beat classification | " in notes


def test_table_5_holds_the_related_work(tmp_path: Path) -> None:
    page = write_report([finetune_many(tmp_path / "many")], tmp_path / "r.html")["html"].read_text()
    text = table_text(page, 5)
    related = text.split("Strodthoff et al.")[-1]
    for value in (
        ".974\xa0±\xa0.005",
        ".855\xa0±\xa0.020",
        ".819\xa0±\xa0.028",
        ".602\xa0±\xa0.044",
    ):
        assert value in related
    assert "not run" not in related
    assert "over 10 (related work: as the paper cites it)" in page
    assert text.count("not run") == 5 * 2 + 4 * 4


def answers(folder: Path, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Labels and probabilities of every repeat, straight from the files."""
    found = []
    for file in sorted(folder.glob("repeat-*/predictions.csv")):
        with file.open(newline="") as stream:
            lines = [row for row in csv.DictReader(stream) if row["split"] == split]
        true = [[name in row["label"].split() for name in STATEMENTS] for row in lines]
        p = [[float(row[f"p_{name}"]) for name in STATEMENTS] for row in lines]
        found.append((np.array(true), np.array(p)))
    return found


def challenge(true: np.ndarray, answer: np.ndarray) -> tuple[float, float]:
    """F and G of the 2020 challenge (beta = 2), one record and class at a time."""
    f, g = [], []
    for c in range(true.shape[1]):
        tp = fp = fn = 0.0
        for has, said in zip(true, answer, strict=True):
            weight = 1 / max(has.sum(), 1)
            tp += weight * (has[c] and said[c])
            fp += weight * (not has[c] and said[c])
            fn += weight * (has[c] and not said[c])
        f.append(5 * tp / (5 * tp + fp + 4 * fn) if tp else 0.0)
        g.append(tp / (tp + fp + 2 * fn) if tp else 0.0)
    return float(np.mean(f)), float(np.mean(g))


def test_scores_where_recordings_have_several_classes(tmp_path: Path) -> None:
    folder = finetune_many(tmp_path / "many")
    (row,) = results([read_run(folder)])
    test, train = answers(folder, "test"), answers(folder, "train")
    auc = [roc_auc_score(true, p, average="macro") for true, p in test]
    macro = [f1_score(true, p >= 0.5, average="macro") for true, p in test]
    assert row.scores["auc"].mean == pytest.approx(np.mean(auc))
    assert row.scores["auc"].std == pytest.approx(np.std(auc, ddof=1))
    assert row.scores["macro_f1"].mean == pytest.approx(np.mean(macro))
    for place, name in enumerate(STATEMENTS):
        each = [roc_auc_score(true[:, place], p[:, place]) for true, p in test]
        assert row.scores[f"auc_{name}"].mean == pytest.approx(np.mean(each))
    for place, metric in enumerate(("f_beta", "g_beta")):
        reached = []
        for (true, p), (true_train, p_train) in zip(test, train, strict=True):
            best = max(np.unique(p_train), key=lambda t: challenge(true_train, p_train >= t)[place])
            reached.append(challenge(true, p >= best)[place])
        assert row.values[metric] == pytest.approx(reached)
    line = summary(folder)
    assert re.search(r"test AUC \.\d+\xa0±\xa0\.\d+ \(2 repeats\); Fmax \.\d+.*, G\xa0\(β", line)
    page = write_report([folder], tmp_path / "r.html")["html"].read_text()
    unlabelled = int((~test[0][0].any(1)).sum())
    assert unlabelled >= 10
    assert f"50 test recordings, {unlabelled} of them without a class" in page
    # Sums of the four counts over two repeats of 50 recordings.
    table = page.split("<th>FN</th><th>FP</th><th>TN</th>")[1].split("</table>")[0]
    for name in STATEMENTS:
        counts = re.findall(r"<td>(\d+)</td>", table.split(f"<th>{name}</th>")[1].split("</tr>")[0])
        assert sum(map(int, counts)) == 100


def test_training_answers_are_needed_for_the_thresholds(tmp_path: Path) -> None:
    folder = finetune_many(tmp_path / "many")
    file = folder / "repeat-01" / "predictions.csv"
    file.write_text(file.read_text().replace(",train,", ",validation,"))
    with pytest.raises(EcgpipeError, match="no rows of the split train"):
        read_run(folder)


def test_the_worst_recordings_come_first_over_all_runs(tmp_path: Path) -> None:
    one, two = finetune(tmp_path / "one"), finetune(tmp_path / "two", seed=4, batch=32)
    keys = [key for key, _ in TEST[:9]]
    wave = np.sin(np.arange(9000) / 40).astype(np.float32)
    for folder, kept in ((one, keys[:5]), (two, keys[3:])):
        arrays: dict[str, Any] = {f"signal__{key}": wave for key in kept}
        arrays |= {f"qrs__{key}": np.array([9, 2600], np.int32) for key in kept}
        np.savez(folder / "misjudged.npz", keys=np.array(kept), fs=250.0, **arrays)
    trust: dict[str, list[float]] = {key: [] for key in keys}
    wrong = dict.fromkeys(keys, 0)
    for file in [*one.glob("*/predictions.csv"), *two.glob("*/predictions.csv")]:
        with file.open(newline="") as stream:
            for row in csv.DictReader(stream):
                if row["split"] == "test" and row["key"] in trust:
                    p = {name: float(row[f"p_{name}"]) for name in CLASSES}
                    trust[row["key"]].append(p[row["label"]])
                    wrong[row["key"]] += max(p, key=p.__getitem__) != row["label"]
    (section,) = recordings(results([read_run(one), read_run(two)]))
    shown = section.misjudged
    assert [item.example.key for item in shown] == sorted(keys, key=lambda k: np.mean(trust[k]))[:6]
    for item in shown:
        assert item.wrong_text == f"{wrong[item.example.key]} of 6 repeats wrong"
    page = write_report([one, two], tmp_path / "r.html")["html"].read_text()
    assert page.count(shown[0].plot(3)) == 6  # the same signal in all; 30 of their 36 s
    assert page.count("36.0 s at 250 Hz, the first 30 s drawn") == 6


def test_of_many_labels_the_worst_are_furthest_from_all_of_the_truth(tmp_path: Path) -> None:
    """By the rule that runs keep them by, which looks at the classes they do not have as well."""
    folder = finetune_many(tmp_path / "many")
    test = answers(folder, "test")
    true, p = test[0][0], np.mean([p for _, p in test], axis=0)
    keys = [f"A{i:04d}" for i in range(50, 100)]  # 90 to 99 are without a class
    right = {
        key: np.prod([given if has else 1 - given for has, given in zip(row, one, strict=True)])
        for key, row, one in zip(keys, true, p, strict=True)
    }
    kept = keys[30:]
    arrays: dict[str, Any] = {f"signal__{key}": np.ones(500, np.float32) for key in kept}
    arrays |= {f"qrs__{key}": np.array([9], np.int32) for key in kept}
    np.savez(folder / "misjudged.npz", keys=np.array(kept), fs=250.0, **arrays)
    (section,) = recordings(results([read_run(folder)]))
    shown = [item.example.key for item in section.misjudged]
    assert shown == sorted(kept, key=right.__getitem__)[:6]
    assert any(key >= "A0090" for key in shown)
    page = write_report([folder], tmp_path / "r.html")["html"].read_text()
    assert "the product over the classes" in page and "Multi-label results</h2>" in page


def test_label_efficiency_needs_two_sizes(tmp_path: Path) -> None:
    quarter = finetune(tmp_path / "quarter", train_share=0.25, data={"train": 80})
    half = finetune(tmp_path / "half", train_share=0.5, data={"train": 160})
    runs = [read_run(quarter), read_run(half)]
    (plot,) = label_efficiency(results(runs))
    assert "160" in plot.plots[0] and "the paper" in plot.plots[0] and not plot.paper_differs
    assert label_efficiency(results(runs[:1])) == []
    page = write_report([quarter, half], tmp_path / "r.html")["html"].read_text()
    assert "Label efficiency" in page


def test_figure_3_has_a_panel_for_each_pretraining(tmp_path: Path) -> None:
    upstream = pretrain(tmp_path / "pre")
    runs = [
        finetune(tmp_path / "random"),
        finetune(tmp_path / "beat", "beat", upstream),
        finetune(tmp_path / "rhythm", "rhythm", {**upstream, "name": "rhythm"}),
    ]
    page = write_report(runs, tmp_path / "r.html")["html"].read_text()
    part = page.split("Validation during finetuning</h2>")[1].split("<h2")[0]
    panels = part.split("<figure>")[1:]
    assert len(panels) == 2
    assert all("Random weights" in panel for panel in panels)
    assert "Beat classification" in panels[0] and "Rhythm classification" in panels[1]
    ticks = [re.findall(r"<text[^>]*>(0\.\d+)</text>", panel) for panel in panels]
    assert ticks[0] and ticks[0] == ticks[1]  # the same axes


def test_several_data_sets_in_one_report(tmp_path: Path) -> None:
    runs = [finetune(tmp_path / "cinc"), finetune_many(tmp_path / "icbeb")]
    runs.append(finetune(tmp_path / "own", dataset="own"))
    paths = write_report(runs, tmp_path / "r.html")
    page = paths["html"].read_text()
    assert "ECG classification on CinC 2017, ICBEB 2018, own" in page
    assert "<h3>Table 1:" in page and "<h3>Table 5:" in page and "<h2>Other runs</h2>" in page
    with paths["csv"].open(newline="") as stream:
        cinc, icbeb, own = csv.DictReader(stream)
    assert cinc["macro_f1"] and cinc["f1_O"] and not cinc["auc"] and not cinc["f1_PVC"]
    assert icbeb["auc"] and icbeb["paper_g_beta"] == "0.553" and not icbeb["f1_O"]
    assert own["macro_f1"] and not own["paper_table"]


def test_runs_of_an_older_version_are_read(tmp_path: Path) -> None:
    folder = finetune(tmp_path / "old", train_share=0.75)
    new = write_report([folder], tmp_path / "new.html")["html"].read_text()
    info = json.loads((folder / "run.json").read_text())
    for name in ("official_folds", "clip", "tensorboard"):
        info["settings"].pop(name)
    assert "answer" not in info
    (folder / "run.json").write_text(json.dumps(info))
    assert write_report([folder], tmp_path / "old.html")["html"].read_text() == new
    info["settings"]["epochs"] = "many"
    (folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(EcgpipeError, match=r"run.json: setting epochs: .* another version"):
        read_run(folder)


def test_a_share_left_to_its_default_is_the_papers(tmp_path: Path) -> None:
    random = finetune(tmp_path / "random")
    beat = finetune(tmp_path / "beat", "beat", pretrain(tmp_path / "pre"), train_share=0.75)
    table = results([read_run(random), read_run(beat)])
    assert table[1].baseline is table[0]
    assert set(tables.filled(table)) == {(Start("random"), RESNET_18), (BEST[1], RESNET_18)}
