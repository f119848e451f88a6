"""The pretrainings and tables of the paper, and the presets of ``ecgpipe reproduce``.

A preset lists finetunings. The pretrained networks and the shards that it needs follow from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import EcgpipeError


@dataclass(frozen=True)
class Row:
    """One finetuning: its initial weights, its data and its settings."""

    start: str = "random"  # or a key of PRETRAININGS
    downstream: str = "cinc2017"
    share: float | None = None  # of all records, for training; None is the protocol's
    fs: int = 250  # Hz
    depth: int = 18
    settings: tuple[str, ...] = ()  # as key=value

    @property
    def name(self) -> str:
        """Unique in an experiment; lists what differs from the paper's main configuration."""
        parts = [
            self.start,
            self.downstream if self.downstream != "cinc2017" else "",
            f"train{100 * self.share:g}" if self.share else "",
            f"{self.fs}Hz" if self.fs != 250 else "",
            f"resnet{self.depth}" if self.depth != 18 else "",
        ]
        return "-".join(filter(None, parts))


RECORDS = {"cinc2017": 8528, "ptbxl": 21066, "icbeb2018": 6877}  # as the paper counts them


@dataclass(frozen=True)
class Preset:
    """One experiment: pretrain on the upstream sets, finetune, report."""

    rows: tuple[Row, ...]
    upstream: tuple[str, ...] = ("icentia11k",)  # data sets for pretraining, at 250 Hz
    pretrain: tuple[str, ...] | None = None  # as key=value; None trains as long as the paper does
    finetune: tuple[str, ...] = ("statistics=all",)  # as key=value; else the paper's protocol
    # Options of ecgpipe simulate for each data set; empty if the recordings are real.
    simulate: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    records: Mapping[str, int] = field(default_factory=RECORDS.copy)  # in the downstream sets

    @property
    def simulated(self) -> bool:
        """True if the recordings are simulated."""
        return bool(self.simulate)


# The rows of the paper's Table 1. A name ends with the samples per frame; for future prediction,
# with context, negatives and offset.
PRETRAININGS: dict[str, tuple[str, ...]] = {
    **{
        f"{task}-{frame}": ("statistics=all", f"task={task}", f"frame={frame}")
        for task in ("beat", "rhythm", "heart_rate")
        for frame in (512, 2048, 4096)
    },
    **{
        f"future-{context}-{negatives}-{offset}": (
            *("statistics=all", "task=future", "frame=512"),
            # The paper draws 4,096 frames of a patient on average; an item has context + 1.
            f"frames_per_visit={round(4096 / (context + 1))}",
            f"shuffle={2**15 // context}",
            f"future.context={context}",
            f"future.negatives={negatives}",
            f"future.offset={offset}",
        )
        for context, negatives, offset in ((8, 4, 2), (16, 8, 2), (16, 8, 8), (16, 16, 8))
    },
}
# The best row of each task, with which the paper continues in its Tables 2 to 5.
BEST = {
    "beat": "beat-2048",
    "rhythm": "rhythm-2048",
    "heart_rate": "heart_rate-512",
    "future": "future-16-8-8",
}

_STARTS = ("random", *BEST.values())
_TABLES: dict[str, tuple[Row, ...]] = {
    # configurations of the pretrainings
    "table1": tuple(Row(start) for start in ("random", *PRETRAININGS)),
    # training on 25, 50 and 75 % of the set
    "table2": tuple(Row(start, share=share) for share in (0.25, 0.5, None) for start in _STARTS),
    # sampling rates
    "table3": tuple(Row(start, fs=fs) for fs in (128, 250, 300) for start in _STARTS),
    # depths of the network
    "table4": tuple(Row(start, depth=depth) for depth in (18, 34, 50) for start in _STARTS),
    # PTB-XL and ICBEB 2018
    "table5": tuple(
        Row(start, downstream, depth=34, settings=settings)
        for downstream, settings in (("ptbxl", ("seconds=10",)), ("icbeb2018", ()))
        for start in _STARTS
    ),
    # validation during finetuning
    "figure3": tuple(Row(start) for start in _STARTS),
}

PRESETS: dict[str, Preset] = {
    **{name: Preset(rows) for name, rows in _TABLES.items()},
    # all tables and the figure
    "paper": Preset(tuple(dict.fromkeys(row for rows in _TABLES.values() for row in rows))),
    # from recordings to report, on simulated recordings
    "demo": Preset(
        (Row(), Row("beat-2048")),
        pretrain=(
            *("epochs=4", "steps=16", "batch=64", "frames_per_visit=48", "shuffle=1024"),
            *("validation_share=0.2", "validation_frames=300"),
        ),
        finetune=("repeats=2", "epochs=6", "batch=16", "seconds=10"),
        simulate={"icentia11k": (), "cinc2017": ()},
        records={"cinc2017": 240},
    ),
    # every kind of step, as small as possible, on simulated recordings
    "smoke": Preset(
        tuple(
            Row(start, share=share) for share in (0.25, None) for start in ("random", "beat-512")
        ),
        pretrain=(
            *("epochs=2", "steps=4", "batch=16", "frames_per_visit=16", "shuffle=128"),
            *("validation_share=0.3", "validation_frames=32"),
        ),
        finetune=("repeats=2", "epochs=2", "batch=8", "seconds=10"),
        simulate={
            "icentia11k": ("--patients", "4", "--segments", "2", "--seconds", "60"),
            "cinc2017": ("--records", "80", "--seconds", "10"),
        },
        records={"cinc2017": 80},
    ),
    # from recordings to report, on the real recordings found; half an hour on two cores
    "real": Preset(
        (Row(share=0.1), Row("beat-2048", share=0.1)),
        upstream=("icentia11k", "mitdb"),
        pretrain=(
            *("epochs=6", "steps=80", "batch=64", "frames_per_visit=64", "shuffle=2048"),
            *("validation_share=0.15", "validation_frames=1000"),
        ),
        finetune=("repeats=2", "epochs=5", "batch=16"),
    ),
    # pretraining on heart rates, then training on 25, 50 and 75 % of CinC 2017; on two cores
    "small": Preset(
        tuple(
            Row(start, share=share, fs=128, settings=(f"repeats={repeats}", f"epochs={epochs}"))
            for share, repeats, epochs in ((0.25, 3, 15), (0.5, 2, 6), (0.75, 2, 4))
            for start in ("random", "heart_rate-512")
        ),
        upstream=("icentia11k", "mitdb", "cinc2017"),
        pretrain=("epochs=8", "steps=250", "frames_per_visit=16"),
        finetune=("statistics=all", "seconds=30", "batch=32"),
    ),
}


def paper_length(start: str) -> tuple[str, ...]:
    """Settings, as key=value, that train on 42.8 million frames, as the paper does.

    ``start`` is a key of PRETRAININGS. An item of future prediction has context + 1 frames.
    """
    batch, epochs = 128, 168
    if start.startswith("future"):
        batch, epochs = 64, 38 if start.startswith("future-8-") else 20
    return ("steps=2000", f"batch={batch}", f"epochs={epochs}")


def pretraining(preset: str | None, task: str | None) -> tuple[str, ...]:
    """Settings, as key=value, of a preset or of the best one of a task.

    Raises
    ------
    EcgpipeError
        An unknown preset or task, or a preset of another task.
    """
    if preset is None:
        if task not in BEST:
            raise EcgpipeError(f"--task {task}: unknown; take one of {', '.join(BEST)}")
        preset = BEST[task]
    if preset not in PRETRAININGS:
        raise EcgpipeError(f"--preset {preset}: unknown; take one of {', '.join(PRETRAININGS)}")
    settings = PRETRAININGS[preset]
    if task and f"task={task}" not in settings:
        raise EcgpipeError(
            f"--preset {preset}: belongs to another task than --task {task}; leave one out"
        )
    return settings
