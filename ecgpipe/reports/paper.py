"""The paper's Tables 1 to 5, as literal data: what was measured under which conditions.

Source: Weimann and Conrad, Transfer learning for ECG classification, Scientific Reports 11, 5251
(2021). Tables 1 to 4 are on the test set of CinC 2017, Table 5 on those of PTB-XL and ICBEB 2018.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

REPEATS = 10  # behind every mean of the paper
DATASETS = {"cinc2017": "CinC 2017", "ptbxl": "PTB-XL", "icbeb2018": "ICBEB 2018"}
INITIALISATIONS = {
    "random": "Random weights",
    "beat": "Beat classification",
    "rhythm": "Rhythm classification",
    "heart_rate": "Heart rate classification",
    "future": "Future prediction",
    "strodthoff": "Strodthoff et al.",
}


class Score(NamedTuple):
    """Mean and standard deviation (ddof = 1; None for a single repeat) over ``n`` repeats."""

    mean: float
    std: float | None
    n: int = REPEATS


class Start(NamedTuple):
    """The initialisation of a finetuning."""

    name: str  # random, or the task of the pretraining
    setup: str = "-"  # samples of a frame; of future prediction also context, negatives, offset

    @property
    def label(self) -> str:
        """Name in the report."""
        return INITIALISATIONS.get(self.name, self.name)

    @property
    def setup_text(self) -> str:
        """Setup in the report."""
        if self.name == "future":
            frame, context, negatives, offset = self.setup.split(",")
            return f"frame {frame}, context {context}, {negatives} negatives, offset {offset}"
        return "" if self.setup == "-" else f"frame {self.setup}"


class Conditions(NamedTuple):
    """Data set, training share, sampling rate and network of a finetuning."""

    dataset: str
    share: float | None  # of all recordings, for training; None: the official folds
    fs: float  # Hz; 0: unknown
    depth: int  # layers of the residual network

    @property
    def dataset_text(self) -> str:
        """Name of the data set in the report."""
        return DATASETS.get(self.dataset, self.dataset)

    @property
    def share_text(self) -> str:
        """Training share in the report."""
        return "official folds" if self.share is None else f"{100 * self.share:g} % train"

    @property
    def fs_text(self) -> str:
        """Sampling rate in the report; empty where it is unknown."""
        return f"{self.fs:g} Hz" if self.fs else ""

    @property
    def network_text(self) -> str:
        """Network in the report."""
        return f"ResNet-{self.depth}"


class Column(NamedTuple):
    """A column of a table: one score under the same conditions."""

    title: str
    conditions: Conditions
    metric: str  # macro_f1, f1_CLASS, auc, fmax, f_beta or g_beta


class Table(NamedTuple):
    """A table of the paper."""

    number: int
    title: str
    blocks: dict[str, tuple[Column, ...]]  # columns by the heading above them
    rows: tuple[Start, ...]
    note: str

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of all blocks."""
        return sum(self.blocks.values(), ())

    @property
    def setups(self) -> bool:
        """True if an initialisation has rows for several setups."""
        return len({start.name for start in self.rows}) < len(self.rows)


class Cell(NamedTuple):
    """The paper's result of an initialisation under some conditions."""

    table: int  # the first that contains it
    scores: dict[str, Score]  # by metric


# Initialisation; setup; macro F1 and F1 of N, A, O, ~, each with its standard deviation.
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
# The best setup of each initialisation: the rows of Tables 2 to 5, in this order.
BEST = (
    Start("random"),
    Start("beat", "2048"),
    Start("rhythm", "2048"),
    Start("heart_rate", "512"),
    Start("future", "512,16,8,8"),
)
# Table, train share, Hz, depth; macro F1 of each of BEST.
_TABLES_2_TO_4 = """
2  .25  250  18   .670 .013  .739 .014  .707 .018  .722 .010  .694 .014
2  .50  250  18   .712 .010  .763 .011  .727 .028  .749 .018  .734 .011
3  .75  128  18   .701 .017  .779 .012  .748 .012  .761 .011  .747 .008
3  .75  300  18   .715 .023  .770 .011  .747 .017  .767 .010  .734 .016
4  .75  250  34   .764 .012  .794 .018  .775 .020  .771 .008  .761 .014
4  .75  250  50   .708 .023  .775 .015  .760 .008  .761 .019  .743 .010
"""
# AUC and Fmax on PTB-XL; AUC, Fmax, F and G (beta = 2) on ICBEB 2018; ResNet-34. The last row is
# of Strodthoff et al. 2021, the related work.
_TABLE_5 = """
random      .942 .016  .918 .004   .954 .008  .833 .017  .787 .025  .553 .028
beat        .962 .006  .926 .004   .961 .004  .854 .005  .814 .008  .591 .012
rhythm      .958 .013  .922 .006   .956 .006  .848 .012  .807 .016  .575 .023
heart_rate  .965 .003  .923 .003   .951 .006  .833 .012  .790 .013  .558 .018
future      .955 .004  .920 .003   .955 .005  .844 .011  .802 .017  .572 .021
strodthoff  .957 .015  .917 .008   .974 .005  .855 .020  .819 .028  .602 .044
"""
RELATED = Start("strodthoff")  # no initialisation of the paper; it cannot be run

_CINC = Conditions("cinc2017", 0.75, 250.0, 18)
PTBXL = Conditions("ptbxl", None, 250.0, 34)
ICBEB = Conditions("icbeb2018", 0.75, 250.0, 34)
_COLUMNS_1 = (
    Column("Macro F1", _CINC, "macro_f1"),
    Column("F1 Normal", _CINC, "f1_N"), Column("F1 AF", _CINC, "f1_A"),
    Column("F1 Other", _CINC, "f1_O"), Column("F1 Noisy", _CINC, "f1_~"),
)  # fmt: skip
_COLUMNS_5 = (
    Column("AUC", PTBXL, "auc"), Column("Fmax", PTBXL, "fmax"),
    Column("AUC", ICBEB, "auc"), Column("Fmax", ICBEB, "fmax"),
    Column("F (β = 2)", ICBEB, "f_beta"), Column("G (β = 2)", ICBEB, "g_beta"),
)  # fmt: skip


def _macro_f1(columns: dict[str, Conditions]) -> dict[str, tuple[Column, ...]]:
    """A single block of columns, macro F1 each."""
    return {"": tuple(Column(title, where, "macro_f1") for title, where in columns.items())}


TABLES = (
    Table(
        1,
        "configurations of the pretraining methods",
        {"": _COLUMNS_1},
        tuple(Start(*line.split()[:2]) for line in _TABLE_1.strip().splitlines()),
        "CinC 2017, 75 % for training, 250 Hz, ResNet-18.",
    ),
    Table(
        2,
        "size of the training set",
        _macro_f1({f"{100 * s:g} % train": _CINC._replace(share=s) for s in (0.25, 0.5, 0.75)}),
        BEST,
        "Macro F1 on CinC 2017, 250 Hz, ResNet-18. The 75 % column is of Table 1.",
    ),
    Table(
        3,
        "sampling rate",
        _macro_f1({f"{fs:g} Hz": _CINC._replace(fs=fs) for fs in (128.0, 250.0, 300.0)}),
        BEST,
        "Macro F1 on CinC 2017, 75 % for training, ResNet-18. The 250 Hz column is of Table 1.",
    ),
    Table(
        4,
        "depth of the network",
        _macro_f1({f"ResNet-{depth}": _CINC._replace(depth=depth) for depth in (18, 34, 50)}),
        BEST,
        "Macro F1 on CinC 2017, 75 % for training, 250 Hz. The ResNet-18 column is of Table 1; of "
        "ResNet-50, future prediction pretrained the first 3 stages only.",
    ),
    Table(
        5,
        "other downstream sets",
        {"PTB-XL": _COLUMNS_5[:2], "ICBEB 2018": _COLUMNS_5[2:]},
        (*BEST, RELATED),
        "12 leads, 250 Hz, ResNet-34; PTB-XL by its official folds, 75 % of ICBEB 2018 to train.",
    ),
)


@cache
def cells() -> dict[tuple[Start, Conditions], Cell]:
    """Every result of the paper, by initialisation and conditions."""
    found: dict[tuple[Start, Conditions], Cell] = {}
    for start, line in zip(TABLES[0].rows, _TABLE_1.strip().splitlines(), strict=True):
        metrics = (column.metric for column in _COLUMNS_1)
        scores = dict(zip(metrics, _scores(line.split()[2:]), strict=True))
        found[start, _CINC] = Cell(1, scores)
    for line in _TABLES_2_TO_4.strip().splitlines():
        table, share, fs, depth, *numbers = line.split()
        where = Conditions("cinc2017", float(share), float(fs), int(depth))
        for start, score in zip(BEST, _scores(numbers), strict=True):
            found[start, where] = Cell(int(table), {"macro_f1": score})
    for start, line in zip((*BEST, RELATED), _TABLE_5.strip().splitlines(), strict=True):
        for column, score in zip(_COLUMNS_5, _scores(line.split()[1:]), strict=True):
            cell = found.setdefault((start, column.conditions), Cell(5, {}))
            cell.scores[column.metric] = score
    return found


def _scores(numbers: list[str]) -> list[Score]:
    """Scores of alternating means and standard deviations."""
    values = map(float, numbers)
    return [Score(mean, std) for mean, std in zip(values, values, strict=True)]


def start_of(
    initialisation: str, frame: int | None, future: tuple[int, int, int] = (16, 8, 8)
) -> Start:
    """The row of the tables for ``random`` or for the task of a pretraining.

    ``frame`` has the samples of a pretraining frame, and ``future`` the context frames, negatives
    and offset of future prediction; each is only used where it applies.
    """
    if initialisation == "random":
        return Start("random")
    parts = (frame, *future) if initialisation == "future" else (frame,)
    return Start(initialisation, ",".join(map(str, parts)))


def gain(start: Start, conditions: Conditions, metric: str) -> float | None:
    """The paper's gain relative to random weights under the same conditions.

    Computed from its rounded means, as the paper does: the 6.57 % of its abstract are
    .779 / .731 - 1. None for random weights, and where the paper has no such result.
    """
    if start in (Start("random"), RELATED):
        return None
    found = (cells().get((s, conditions)) for s in (start, Start("random")))
    pretrained, base = (cell and cell.scores.get(metric) for cell in found)
    return pretrained.mean / base.mean - 1 if pretrained and base else None
