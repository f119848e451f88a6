"""The paper's results and protocol on CinC 2017, and how a run's own protocol differs from them.

Source: Weimann and Conrad, Transfer learning for ECG classification, Scientific Reports 11, 5251
(2021), Tables 1 to 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .runs import Run


class Score(NamedTuple):
    """Mean and standard deviation over the paper's ten repeats."""

    mean: float
    std: float


class Cell(NamedTuple):
    """One result of the paper on the test set of CinC 2017."""

    table: int
    macro_f1: Score
    class_f1: tuple[Score, ...] = ()  # N, A, O, ~; in Table 1 only


class Difference(NamedTuple):
    """One point of the protocol."""

    what: str
    paper: str
    here: str
    same: bool | None  # None where the paper leaves it open


# Initialisation; configuration (samples of a frame, then context, negatives and offset); macro F1
# and F1 of N, A, O, ~, each with its standard deviation: 75 % train, 250 Hz, ResNet-18.
_TABLE_1 = """
random      -            .731 .019  .898 .005  .711 .027  .701 .017  .613 .062
beat        512          .769 .011  .911 .010  .760 .018  .758 .016  .647 .022
beat        2048         .779 .014  .915 .007  .777 .014  .763 .014  .661 .040
beat        4096         .768 .010  .908 .009  .764 .021  .754 .015  .646 .025
rhythm      512          .742 .017  .896 .007  .721 .026  .716 .032  .636 .045
rhythm      2048         .767 .012  .908 .004  .753 .020  .745 .018  .660 .026
rhythm      4096         .755 .005  .903 .008  .745 .022  .735 .012  .635 .017
heart_rate  512          .766 .011  .915 .004  .759 .019  .756 .015  .635 .029
heart_rate  2048         .753 .013  .910 .005  .743 .037  .738 .011  .619 .039
heart_rate  4096         .751 .010  .909 .006  .744 .019  .739 .016  .611 .025
future      512,8,4,2    .756 .008  .903 .007  .742 .011  .730 .017  .649 .021
future      512,16,8,2   .744 .016  .905 .005  .730 .027  .730 .009  .612 .041
future      512,16,8,8   .758 .013  .908 .005  .753 .021  .745 .012  .627 .026
future      512,16,16,8  .745 .013  .897 .006  .724 .024  .722 .009  .639 .034
"""
# Table, train share, Hz, depth; macro F1 of each initialisation in the order of _BEST, the
# configuration of each that these tables use.
_BEST = {
    "random": "-",
    "beat": "2048",
    "rhythm": "2048",
    "heart_rate": "512",
    "future": "512,16,8,8",
}
_TABLES_2_TO_4 = """
2  .25  250  18   .670 .013  .739 .014  .707 .018  .722 .010  .694 .014
2  .50  250  18   .712 .010  .763 .011  .727 .028  .749 .018  .734 .011
3  .75  128  18   .701 .017  .779 .012  .748 .012  .761 .011  .747 .008
3  .75  300  18   .715 .023  .770 .011  .747 .017  .767 .010  .734 .016
4  .75  250  34   .764 .012  .794 .018  .775 .020  .771 .008  .761 .014
4  .75  250  50   .708 .023  .775 .015  .760 .008  .761 .019  .743 .010
"""


def _cells() -> dict[tuple[str, str, float, float, int], Cell]:
    """Every result by initialisation, configuration, train share, Hz and depth."""
    cells = {}
    for line in _TABLE_1.strip().splitlines():
        name, setup, *numbers = line.split()
        macro, *classes = _scores(numbers)
        cells[name, setup, 0.75, 250.0, 18] = Cell(1, macro, tuple(classes))
    for line in _TABLES_2_TO_4.strip().splitlines():
        table, share, fs, depth, *numbers = line.split()
        for (name, setup), score in zip(_BEST.items(), _scores(numbers), strict=True):
            cells[name, setup, float(share), float(fs), int(depth)] = Cell(int(table), score)
    return cells


def _scores(numbers: list[str]) -> list[Score]:
    values = [float(number) for number in numbers]
    return [Score(*pair) for pair in zip(values[::2], values[1::2], strict=True)]


def lookup(
    initialisation: str,
    frame: int | None,
    train_share: float,
    fs: float,
    depth: int,
    future: tuple[int, int, int] = (16, 8, 8),
) -> Cell | None:
    """The paper's result under the given conditions, or None where it has none.

    Parameters
    ----------
    initialisation
        ``random``, ``beat``, ``rhythm``, ``heart_rate`` or ``future``.
    frame
        Samples of a pretraining frame; without meaning for ``random``.
    train_share
        Share of all recordings that the network is trained on.
    fs
        Hz of the downstream recordings.
    depth
        Layers of the residual network.
    future
        Context frames, negatives and offset of future prediction.
    """
    parts = (frame, *future) if initialisation == "future" else (frame,)
    setup = "-" if initialisation == "random" else ",".join(str(part) for part in parts)
    return _cells().get((initialisation, setup, round(train_share, 6), float(fs), depth))


def cell(run: Run) -> Cell | None:
    """The paper's result under a finetuning run's conditions; none for another or simulated set."""
    settings, upstream = run.settings, run.upstream or {}
    if run.info["dataset"] != "cinc2017" or _simulated(run) or run.fs is None:
        return None
    up = upstream.get("settings", {})
    network = settings["network"]
    conditions = (up.get("frame"), settings["train_share"], run.fs, network["depth"])
    return lookup(run.info["name"], *conditions, *([_future(up)] if up.get("future") else []))


def _future(settings: Mapping[str, Any]) -> tuple[int, int, int]:
    future = settings["future"]
    return future["context"], future["negatives"], future["offset"]


def differences(run: Run) -> list[Difference]:
    """A finetuning run's protocol beside the paper's, point by point, the weightiest first."""
    s, data = run.settings, run.data
    records = sum(data.get(split) or 0 for split in ("train", "validation", "test"))
    done, planned = len(run.finished), len(run.repeats)
    ran = [len(repeat.history["epoch"]) for repeat in run.finished if repeat.history]
    shares = (s["train_share"], s["validation_share"], s["test_share"])
    points = [
        Difference(
            "Recordings",
            "8,528 of CinC 2017",
            f"{records:,} of {run.info['dataset']}" + (", simulated" if _simulated(run) else ""),
            (run.info["dataset"], records, _simulated(run)) == ("cinc2017", 8528, False),
        ),
        Difference("Repeats", "10", f"{done}" if done == planned else f"{done} of {planned}",
                   done >= 10),
        Difference(
            "Epochs",
            "at most 200, patience 50",
            f"at most {s['epochs']}, patience {s['patience']}"
            + (f" (ran {_span(ran)})" if ran else ""),
            (s["epochs"], s["patience"]) == (200, 50),
        ),
        Difference(
            "Train, validation, test",
            "75 % (or 50 %, 25 %), 5 %, 20 %",
            ", ".join(f"{100 * share:g} %" for share in shares),
            shares[0] in (0.25, 0.5, 0.75) and shares[1:] == (0.05, 0.2),
        ),
        *_upstream(run.upstream),
        _network(s["network"]),
        Difference(
            "Input",
            "60 s at 250 Hz (or 128, 300)",
            f"{s['seconds']:g} s at {f'{run.fs:g} Hz' if run.fs else 'an unrecorded rate'}",
            s["seconds"] == 60 and run.fs in (128, 250, 300),
        ),
        Difference("Labels", "REFERENCE.csv, version 2 (in its code)",
                   str(data.get("labels_file", "not recorded")),
                   data.get("labels_file") == "REFERENCE.csv"),
        Difference("Standardisation", "the whole set",
                   "the whole set" if s["statistics"] == "all" else "the training recordings",
                   s["statistics"] == "all"),
        _optimiser("Optimiser", s),
        Difference("Batch", "by GPU memory", str(s["batch"]), None),
        _precision("Precision", run.info),
    ]  # fmt: skip
    return points


def _upstream(info: Mapping[str, Any] | None) -> list[Difference]:
    if info is None:
        return []
    s, data = info["settings"], info.get("data") or {}
    patients = sum(data.get(name) or 0 for name in ("train_patients", "validation_patients"))
    frames = s["epochs"] * s["steps"] * s["batch"] * s.get("accumulate", 1)
    task = info["name"]
    if task == "future":
        frames *= s["future"]["context"] + 1
    simulated = bool(data.get("simulated"))
    sets = info["dataset"] if isinstance(info["dataset"], list) else [info["dataset"]]
    return [
        Difference("Pretraining data", "Icentia11k",
                   " + ".join(sets) + (", simulated" if simulated else ""),
                   sets == ["icentia11k"] and not simulated),
        Difference("Pretraining patients", "11,000", f"{patients:,}", patients == 11_000),
        Difference("Pretraining frames", "42.8 million", _count(frames), frames >= 42_800_000),
        Difference("Pretraining frame", "512, 2048 or 4096 samples at 250 Hz",
                   f"{s['frame']} samples at {s['fs']:g} Hz",
                   s["frame"] in (512, 2048, 4096) and s["fs"] == 250),
        *_of_task(task, info),
        _optimiser("Pretraining optimiser", s),
        Difference("Pretraining batch", "by GPU memory", str(s["batch"]), None),
        _precision("Pretraining precision", info),
    ]  # fmt: skip


def _of_task(task: str, info: Mapping[str, Any]) -> list[Difference]:
    """The points of the protocol that one pretraining task alone has."""
    if task == "beat":
        classes = info["classes"]
        return [Difference("Pretraining classes", "without an undefined class",
                           ", ".join(classes), "undefined" not in classes)]  # fmt: skip
    if task == "future":
        setup = _future(info["settings"])
        rows = [(8, 4, 2), (16, 8, 2), (16, 8, 8), (16, 16, 8)]
        return [Difference("Context, negatives, offset", "16, 8, 8 (or the others of Table 1)",
                           ", ".join(map(str, setup)), setup in rows)]  # fmt: skip
    return []


def _network(network: Mapping[str, Any]) -> Difference:
    version = {"pre": "v2", "post": "v1"}[network.get("order", "pre")]
    stages = network.get("stages", 4)
    here = f"ResNet-{network['depth']}, {version}" + (f", {stages} stages" if stages < 4 else "")
    same = network["depth"] in (18, 34, 50) and version == "v2" and stages == 4
    return Difference("Network", "ResNet-18 (or 34, 50), v2", here, same)


def _optimiser(what: str, settings: Mapping[str, Any]) -> Difference:
    o = settings["optimiser"]
    values = (o["lr"], o["beta1"], o["beta2"], o["eps"])
    here = "Adam, " + ", ".join(f"{v:g}" for v in values)
    return Difference(what, "Adam, default hyperparameters", here,
                      values[:3] == (1e-3, 0.9, 0.999) and values[3] in (1e-7, 1e-8))  # fmt: skip


def _precision(what: str, info: Mapping[str, Any]) -> Difference:
    used = (info.get("environment") or {}).get("precision", info["settings"].get("precision"))
    return Difference(what, "not stated", str(used), None)


def _simulated(run: Run) -> bool:
    return bool(run.data.get("simulated"))


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _count(number: int) -> str:
    return f"{number / 1e6:.3g} million" if number >= 1e6 else f"{number:,}"
