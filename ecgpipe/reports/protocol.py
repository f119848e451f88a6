"""Which cell of the paper a run belongs to, and how its protocol differs from the paper's."""

from __future__ import annotations

from typing import NamedTuple

from ..config import Future, Network, PretrainSettings, Training
from ..training.outputs import Run
from ..training.run_description import RunDescription
from . import paper


class Difference(NamedTuple):
    """One point of the protocol."""

    what: str
    paper: str
    here: str
    same: bool | None  # None where the paper leaves it open


class _Downstream(NamedTuple):
    """The paper's protocol on one downstream set."""

    records: int
    said: str  # the records in words
    split: str
    depth: tuple[int, ...]
    network: str
    input: str
    seconds: float
    rates: tuple[float, ...]  # Hz


_DOWNSTREAM = {
    "cinc2017": _Downstream(
        8528, "8,528 of CinC 2017", "75 % (or 50 %, 25 %), 5 %, 20 %", (18, 34, 50),
        "ResNet-18 (or 34, 50), v2", "60 s at 250 Hz (or 128, 300)", 60, (128, 250, 300),
    ),
    "ptbxl": _Downstream(
        21_066, "21,066 of PTB-XL, with a rhythm statement", "folds 1 to 8; 9; 10", (34,),
        "ResNet-34, v2", "10 s at 250 Hz", 10, (250,),
    ),
    "icbeb2018": _Downstream(
        6877, "6,877 of ICBEB 2018", "75 %, 5 %, 20 %", (34,),
        "ResNet-34, v2", "60 s at 250 Hz", 60, (250,),
    ),
}  # fmt: skip

# How frames are labelled: the paper's rule, and others where ``labels.rules`` chooses them.
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
_WHOLE_EPOCHS = 0.03  # by which a number of frames may miss the paper's


def is_simulated(run: Run) -> bool:
    """Whether a run, or the pretraining it started from, saw simulated recordings."""
    return run.data.simulated or from_simulated(run)


def from_simulated(run: Run) -> bool:
    """Whether the pretraining that a run started from saw simulated recordings."""
    return run.upstream is not None and run.upstream.data.simulated


def tested_on(run: Run) -> tuple[str, bool]:
    """The downstream set, and whether it is simulated, whatever the pretraining saw."""
    return run.dataset, run.data.simulated


def conditions(run: Run) -> paper.Conditions:
    """What a finetuning was done with and on, in the paper's terms."""
    return paper.Conditions(run.dataset, share(run), run.fs or 0.0, run.finetuning.network.depth)


def share(run: Run) -> float | None:
    """Share of all recordings that a run was trained on; None for all official training folds."""
    given = run.finetuning.train_share
    if given is not None:
        return round(float(given), 6)
    return None if _by_folds(run) else 0.75


def _by_folds(run: Run) -> bool:
    """Whether the set's own folds are the split."""
    return run.dataset == "ptbxl" and run.finetuning.official_folds


def start(run: Run) -> paper.Start:
    """Where a finetuning started from, in the paper's terms."""
    settings = run.upstream and run.upstream.pretraining
    frame, future = (settings.frame, settings.future) if settings else (None, Future())
    return paper.start_of(run.description.name, frame, _future(future))


def cell(run: Run) -> paper.Cell | None:
    """The paper's result under a finetuning run's conditions; none for simulated recordings."""
    return None if is_simulated(run) else paper.cells().get((start(run), conditions(run)))


def differences(run: Run) -> list[Difference]:
    """A finetuning run's protocol beside the paper's, point by point, the weightiest first.

    On a set that the paper does not have, it is laid beside that on CinC 2017.
    """
    s, data, dataset = run.finetuning, run.data, run.dataset
    theirs = _DOWNSTREAM.get(dataset, _DOWNSTREAM["cinc2017"])
    records = data.train + data.validation + data.test
    simulated = data.simulated
    done, planned = len(run.finished), len(run.repeats)
    # A smaller training set leaves recordings out, which is no other data set.
    total = next((i.records for i in run.description.inputs if i.records is not None), records)
    return [
        Difference(
            "Recordings",
            theirs.said,
            f"{total:,} of {dataset}" + (", simulated" if simulated else ""),
            dataset in _DOWNSTREAM and not simulated and total == theirs.records,
        ),
        Difference("Repeats", "10", f"{done}" if done == planned else f"{done} of {planned}",
                   done >= paper.REPEATS),
        Difference(
            "Epochs",
            "at most 200, patience 50",
            f"at most {s.epochs}, patience {s.patience}",
            (s.epochs, s.patience) == (200, 50),
        ),
        _split(run, theirs),
        *_upstream(run.upstream),
        _network(s.network, theirs),
        Difference(
            "Input",
            theirs.input,
            f"{s.seconds:g} s at {f'{run.fs:g} Hz' if run.fs else 'an unrecorded rate'}",
            s.seconds == theirs.seconds and run.fs in theirs.rates,
        ),
        *_labels(run),
        Difference("Standardisation", "the whole set",
                   "the whole set" if s.statistics == "all" else "the training recordings",
                   s.statistics == "all"),
        _optimiser("Optimiser", s),
        *_clip("Gradients", s),
        Difference("Batch", "by GPU memory", str(s.batch), None),
        _precision("Precision", run.description),
    ]  # fmt: skip


def _split(run: Run, theirs: _Downstream) -> Difference:
    """Which shares of all recordings train, validate and test."""
    s, given = run.finetuning, run.finetuning.train_share
    if _by_folds(run):
        part = "" if given is None else f"{100 * given:g} % of all, from "
        here, same = f"{part}folds 1 to 8; 9; 10", given is None
    else:
        shares = (given or 0.75, s.validation_share, s.test_share)
        here = ", ".join(f"{100 * part:g} %" for part in shares)
        theirs_too = (0.75,) if run.dataset == "icbeb2018" else (0.25, 0.5, 0.75)
        same = shares[0] in theirs_too and shares[1:] == (0.05, 0.2)
        same = same and run.dataset != "ptbxl"
    return Difference("Train, validation, test", theirs.split, here, same)


def _labels(run: Run) -> list[Difference]:
    """Where the labels are from, on the set that has several versions of them."""
    if run.dataset in ("ptbxl", "icbeb2018"):
        count = 12 if run.dataset == "ptbxl" else 9
        here = f"{len(run.classes)}: {', '.join(run.classes)}"
        kind = "rhythm statements" if count == 12 else "statements"
        return [Difference("Classes", f"{count} {kind}", here, len(run.classes) == count)]
    file = run.data.labels_file
    return [Difference("Labels", "REFERENCE.csv, version 2 (in its code)",
                       str(file or "not recorded"), file == "REFERENCE.csv")]  # fmt: skip


def _future(future: Future) -> tuple[int, int, int]:
    return future.context, future.negatives, future.offset


def _upstream(run: RunDescription | None) -> list[Difference]:
    if run is None:
        return []
    s, data = run.pretraining, run.data
    patients = data.train_patients + data.validation_patients
    held_out = s.validation_share
    frames = s.epochs * s.steps * s.batch * s.accumulate
    task = run.name
    if task == "future":
        frames *= s.future.context + 1
    simulated, whole = data.simulated, s.statistics == "all"
    return [
        Difference("Pretraining data", "Icentia11k",
                   " + ".join(run.datasets) + (", simulated" if simulated else ""),
                   run.datasets == ("icentia11k",) and not simulated),
        Difference("Pretraining patients", "11,000", f"{patients:,}", patients == 11_000),
        Difference("Held-out patients", "5 %", f"{100 * held_out:g} %", held_out == 0.05),
        Difference("Pretraining frames", "42.8 million", _count(frames),
                   abs(frames / _FRAMES - 1) <= _WHOLE_EPOCHS),
        Difference("Checkpoints", "every couple of thousand steps", f"every {s.steps:,} steps",
                   1000 <= s.steps <= 5000),
        Difference("Pretraining frame", "512, 2048 or 4096 samples at 250 Hz",
                   f"{s.frame} samples at {s.fs:g} Hz",
                   s.frame in (512, 2048, 4096) and s.fs == 250),
        *_of_task(task, s),
        Difference("Pretraining standardisation", "the whole set",
                   "the whole set" if whole else "the training patients", whole),
        _optimiser("Pretraining optimiser", s),
        *_clip("Pretraining gradients", s),
        Difference("Pretraining batch", "by GPU memory", str(s.batch), None),
        _precision("Pretraining precision", run),
    ]  # fmt: skip


def _of_task(task: str, s: PretrainSettings) -> list[Difference]:
    """The points of the protocol that depend on what is learnt in pretraining."""
    depth, stages = s.network.depth, s.network.stages
    theirs = 3 if (task, depth) == ("future", 50) else 4
    found = [Difference("Pretrained stages", f"{theirs} of ResNet-{depth}", str(stages),
                        stages == theirs)]  # fmt: skip
    if task in _LABELS:
        what, rule, others = _LABELS[task]
        here = others.get(s.labels.rules, rule)
        found.append(Difference(what, rule, here, here == rule))
    if task == "future":
        setup, scale = _future(s.future), s.future.attention_scale
        rows = [(8, 4, 2), (16, 8, 2), (16, 8, 8), (16, 16, 8)]
        width = {"head": "the root of a head’s width", "model": "the root of the model’s width"}
        found += [
            Difference("Context, negatives, offset", "16, 8, 8 (or the others of Table 1)",
                       ", ".join(map(str, setup)), setup in rows),
            Difference("Attention divided by", width["head"], width[scale], scale == "head"),
        ]  # fmt: skip
    return found


def _network(network: Network, theirs: _Downstream) -> Difference:
    version = {"pre": "v2", "post": "v1"}[network.order]
    stages = network.stages
    here = f"ResNet-{network.depth}, {version}" + (f", {stages} stages" if stages < 4 else "")
    same = network.depth in theirs.depth and version == "v2" and stages == 4
    return Difference("Network", theirs.network, here, same)


def _optimiser(what: str, settings: Training) -> Difference:
    o = settings.optimiser
    values = (o.lr, o.beta1, o.beta2, o.eps)
    names = ("learning rate", "β1", "β2", "ε")
    here = "Adam, " + ", ".join(f"{n} {v:g}" for n, v in zip(names, values, strict=True))
    return Difference(what, "Adam, default hyperparameters", here,
                      values[:3] == (1e-3, 0.9, 0.999) and values[3] in (1e-7, 1e-8))  # fmt: skip


def _clip(what: str, settings: Training) -> list[Difference]:
    """That gradients are cut, which the paper knows nothing of, where they are."""
    norm = settings.clip
    return [Difference(what, "as they are", f"cut to a norm of {norm:g}", False)] if norm else []


def _precision(what: str, run: RunDescription) -> Difference:
    used = run.environment.get("precision", run.settings.precision)
    return Difference(what, "not stated", used, None)


def _count(number: int) -> str:
    return f"{number / 1e6:.3g} million" if number >= 1e6 else f"{number:,}"
