"""A run's protocol compared with the paper's; the paper's result under the same conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..config import Future, Network, PretrainSettings
from ..training.run_description import RunDescription
from ..training.run_folder import Run
from . import paper


class Point(NamedTuple):
    """One point of the protocol."""

    name: str
    paper: str
    run: str
    same: bool | None  # None where the paper does not state it


class _Downstream(NamedTuple):
    """The paper's protocol on one downstream set."""

    records: int
    records_text: str
    split: str
    train_shares: tuple[float, ...]  # none: the official folds
    classes: tuple[int, str] | None  # number and kind, where they are compared
    depths: tuple[int, ...]
    network: str
    input: str
    seconds: float
    rates: tuple[float, ...]  # Hz


_DOWNSTREAM = {
    "cinc2017": _Downstream(
        8528, "8,528 of CinC 2017", "75 % (or 50 %, 25 %), 5 %, 20 %", (0.25, 0.5, 0.75), None,
        (18, 34, 50), "ResNet-18 (or 34, 50), v2", "60 s at 250 Hz (or 128, 300)", 60,
        (128, 250, 300),
    ),
    "ptbxl": _Downstream(
        21_066, "21,066 of PTB-XL, with a rhythm statement", "folds 1 to 8; 9; 10", (),
        (12, "rhythm statements"), (34,), "ResNet-34, v2", "10 s at 250 Hz", 10, (250,),
    ),
    "icbeb2018": _Downstream(
        6877, "6,877 of ICBEB 2018", "75 %, 5 %, 20 %", (0.75,), (9, "statements"), (34,),
        "ResNet-34, v2", "60 s at 250 Hz", 60, (250,),
    ),
}  # fmt: skip

# Labels of frames, by task: name, the paper's rule, and the rules of other ``labels.rules``.
_LABELS: dict[str, tuple[str, str, dict[str, str]]] = {
    "beat": (
        "Beat labels",
        "the most frequent abnormal beat, else normal",
        {
            "default": "the same, but mostly undefined beats are a class of their own",
            "code": "the same, but mostly undefined beats are a class of their own, and a frame’s "
            "first beat does not count",
        },
    ),
    "rhythm": ("Rhythm labels", "the longer of AFib and flutter, else the longest", {}),
    "heart_rate": (
        "Heart rate labels",
        "intervals in the frame and 1 s around it",
        {"code": "intervals in the frame alone, without its first beat"},
    ),
}
_FRAMES = 42_800_000
_FRAMES_TOLERANCE = 0.03  # relative: epochs are of a fixed number of steps
_FUTURE_SETUPS = [(8, 4, 2), (16, 8, 2), (16, 8, 8), (16, 16, 8)]  # rows of Table 1
_ATTENTION = {"head": "the root of a head’s width", "model": "the root of the model’s width"}


def from_simulated(run: Run) -> bool:
    """True if the pretraining that a run started from had simulated recordings."""
    return run.upstream is not None and run.upstream.data.simulated


def conditions(run: Run) -> paper.Conditions:
    """The conditions of a finetuning, in the paper's terms."""
    depth = run.finetuning.network.depth
    return paper.Conditions(run.dataset, train_share(run), run.fs or 0.0, depth)


def train_share(run: Run) -> float | None:
    """Share of all recordings that a run was trained on; None for all official training folds."""
    given = run.finetuning.train_share
    if given is not None:
        return round(given, 6)
    return None if _by_folds(run) else 0.75


def _by_folds(run: Run) -> bool:
    """True if the split is by the official folds of the data set."""
    if run.data.by_folds is not None:
        return run.data.by_folds
    return run.dataset == "ptbxl" and run.finetuning.official_folds  # in runs before 0.3


def start(run: Run) -> paper.Start:
    """The initialisation of a finetuning, in the paper's terms."""
    settings = run.upstream and run.upstream.pretraining
    frame, future = (settings.frame, settings.future) if settings else (None, Future())
    return paper.start_of(run.description.name, frame, _setup(future))


def _setup(future: Future) -> tuple[int, int, int]:
    return future.context, future.negatives, future.offset


def cell(run: Run) -> paper.Cell | None:
    """The paper's result under a finetuning's conditions; None for simulated recordings."""
    if run.data.simulated or from_simulated(run):
        return None
    return paper.cells().get((start(run), conditions(run)))


def labels(runs: Sequence[Run]) -> list[str]:
    """A name for each run, with the conditions in which it differs from similar runs."""
    names = [start(run).label for run in runs]
    for pairs in zip(*map(_named_conditions, runs), strict=True):
        values = Counter(group for group, value in set(pairs) if value)
        names = [
            f"{name}, {value}" if value and values[group] > 1 else name
            for name, (group, value) in zip(names, pairs, strict=True)
        ]
    return [
        f"{name} ({run.folder})" if names.count(name) > 1 else name
        for name, run in zip(names, runs, strict=True)
    ]


def _named_conditions(run: Run) -> list[tuple[str, str]]:
    """Conditions of a run, each after its group: named where runs of a group differ in it."""
    at, dataset, pretrained = conditions(run), run.dataset, ""
    if run.upstream:
        simulated = " (simulated)" * from_simulated(run)
        pretrained = f"pretrained on {' + '.join(run.upstream.datasets)}{simulated}"
    return [
        (run.description.name, start(run).setup_text),
        ("", at.dataset_text + " (simulated)" * run.data.simulated),
        (dataset, pretrained),
        (dataset, at.share_text),
        (dataset, at.fs_text),
        (dataset, at.network_text),
    ]


def points(run: Run) -> list[Point]:
    """A finetuning's protocol compared with the paper's, the most important points first.

    A data set that the paper does not have is compared with its protocol on CinC 2017.
    """
    s, data = run.finetuning, run.data
    reference = _DOWNSTREAM.get(run.dataset, _DOWNSTREAM["cinc2017"])
    done, planned = len(run.finished), len(run.repeats)
    # The recordings of the data set, of which a smaller training set leaves some out.
    inputs = [item.records for item in run.description.inputs if item.records is not None]
    total = inputs[0] if inputs else data.train + data.validation + data.test
    return [
        Point("Recordings", reference.records_text,
              f"{total:,} of {run.dataset}{', simulated' if data.simulated else ''}",
              run.dataset in _DOWNSTREAM and not data.simulated and total == reference.records),
        Point("Repeats", "10", f"{done}" if done == planned else f"{done} of {planned}",
              done >= paper.REPEATS),
        Point("Epochs", "at most 200, patience 50", f"at most {s.epochs}, patience {s.patience}",
              (s.epochs, s.patience) == (200, 50)),
        _split(run, reference),
        *(_pretraining(run.upstream) if run.upstream else []),
        _network(s.network, reference),
        Point("Input", reference.input,
              f"{s.seconds:g} s at {f'{run.fs:g} Hz' if run.fs else 'an unrecorded rate'}",
              s.seconds == reference.seconds and run.fs in reference.rates),
        _labels(run, reference),
        *_computation(run.description),
    ]  # fmt: skip


def _split(run: Run, reference: _Downstream) -> Point:
    """Shares of all recordings for training, validation and test."""
    s, given = run.finetuning, run.finetuning.train_share
    if _by_folds(run):
        share = "" if given is None else f"{100 * given:g} % of all, from "
        text, same = f"{share}folds 1 to 8; 9; 10", given is None
    else:
        shares = (given or 0.75, s.validation_share, s.test_share)
        text = ", ".join(f"{100 * share:g} %" for share in shares)
        same = shares[0] in reference.train_shares and shares[1:] == (0.05, 0.2)
    return Point("Train, validation, test", reference.split, text, same)


def _network(network: Network, reference: _Downstream) -> Point:
    version = {"pre": "v2", "post": "v1"}[network.order]
    text = f"ResNet-{network.depth}, {version}"
    text += f", {network.stages} stages" if network.stages < 4 else ""
    same = network.depth in reference.depths and version == "v2" and network.stages == 4
    return Point("Network", reference.network, text, same)


def _labels(run: Run, reference: _Downstream) -> Point:
    """The classes; of CinC 2017, which has several versions of its labels, their file."""
    if reference.classes:
        count, kind = reference.classes
        text = f"{len(run.classes)}: {', '.join(run.classes)}"
        return Point("Classes", f"{count} {kind}", text, len(run.classes) == count)
    file = run.data.labels_file
    return Point("Labels", "REFERENCE.csv, version 2 (in its code)", file or "not recorded",
                 file == "REFERENCE.csv")  # fmt: skip


def _pretraining(run: RunDescription) -> list[Point]:
    """The protocol of the pretraining that a finetuning started from."""
    s, data = run.pretraining, run.data
    patients = data.train_patients + data.validation_patients
    frames = s.epochs * s.steps * s.batch * s.accumulate
    if run.name == "future":
        frames *= s.future.context + 1
    frames_text = f"{frames / 1e6:.3g} million" if frames >= 1e6 else f"{frames:,}"
    return [
        Point("Pretraining data", "Icentia11k",
              " + ".join(run.datasets) + (", simulated" if data.simulated else ""),
              run.datasets == ("icentia11k",) and not data.simulated),
        Point("Pretraining patients", "11,000", f"{patients:,}", patients == 11_000),
        Point("Held-out patients", "5 %", f"{100 * s.validation_share:g} %",
              s.validation_share == 0.05),
        Point("Pretraining frames", "42.8 million", frames_text,
              abs(frames / _FRAMES - 1) <= _FRAMES_TOLERANCE),
        Point("Checkpoints", "every couple of thousand steps", f"every {s.steps:,} steps",
              1000 <= s.steps <= 5000),
        Point("Pretraining frame", "512, 2048 or 4096 samples at 250 Hz",
              f"{s.frame} samples at {s.fs:g} Hz", s.frame in (512, 2048, 4096) and s.fs == 250),
        *_task(run.name, s),
        *(point._replace(name=f"Pretraining {point.name.lower()}") for point in _computation(run)),
    ]  # fmt: skip


def _task(task: str, s: PretrainSettings) -> list[Point]:
    """The points that depend on the pretraining task."""
    depth, stages = s.network.depth, s.network.stages
    reference = 3 if (task, depth) == ("future", 50) else 4
    found = [Point("Pretrained stages", f"{reference} of ResNet-{depth}", str(stages),
                   stages == reference)]  # fmt: skip
    if task in _LABELS:
        name, rule, others = _LABELS[task]
        text = others.get(s.labels.rules, rule)
        found.append(Point(name, rule, text, text == rule))
    if task == "future":
        setup, scale = _setup(s.future), s.future.attention_scale
        found += [
            Point("Context, negatives, offset", "16, 8, 8 (or the others of Table 1)",
                  ", ".join(map(str, setup)), setup in _FUTURE_SETUPS),
            Point("Attention divided by", _ATTENTION["head"], _ATTENTION[scale], scale == "head"),
        ]  # fmt: skip
    return found


def _computation(run: RunDescription) -> list[Point]:
    """Standardisation, optimiser, gradients, batch and precision."""
    s, o, whole = run.settings, run.settings.optimiser, run.settings.statistics == "all"
    part = "the training recordings" if run.kind == "finetune" else "the training patients"
    clip = [Point("Gradients", "as they are", f"cut to a norm of {s.clip:g}", False)]
    return [
        Point("Standardisation", "the whole set", "the whole set" if whole else part, whole),
        Point("Optimiser", "Adam, default hyperparameters",
              f"Adam, learning rate {o.lr:g}, β1 {o.beta1:g}, β2 {o.beta2:g}, ε {o.eps:g}",
              (o.lr, o.beta1, o.beta2) == (1e-3, 0.9, 0.999) and o.eps in (1e-7, 1e-8)),
        *(clip if s.clip else []),
        Point("Batch", "by GPU memory", str(s.batch), None),
        Point("Precision", "not stated", run.environment.get("precision", s.precision), None),
    ]  # fmt: skip
