"""Literal values: the paper's pretrainings, its tables, and what ``ecgpipe reproduce`` runs.

An experiment is a list of finetunings. What they start from, and the shards they read, follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import EcgpipeError


@dataclass(frozen=True)
class Row:
    """A finetuning: where it starts, on what, and what of the settings is its own."""

    start: str = "random"  # or a key of PRETRAININGS
    downstream: str = "cinc2017"
    share: float | None = None  # of all records, for training; None is the protocol's
    fs: int = 250  # Hz
    depth: int = 18
    settings: tuple[str, ...] = ()  # as key=value

    @property
    def name(self) -> str:
        """Unique in an experiment; says what differs from the paper's main configuration."""
        parts = [
            self.start,
            self.downstream if self.downstream != "cinc2017" else "",
            f"train{100 * self.share:g}" if self.share else "",
            f"{self.fs}Hz" if self.fs != 250 else "",
            f"resnet{self.depth}" if self.depth != 18 else "",
        ]
        return "-".join(filter(None, parts))


@dataclass(frozen=True)
class Preset:
    """One experiment: pretrain on the upstream sets, finetune, report."""

    about: str
    rows: tuple[Row, ...]
    upstream: tuple[str, ...] = ("icentia11k",)  # data sets for pretraining, at 250 Hz
    pretrain: tuple[str, ...] | None = None  # as key=value; None trains as long as the paper does
    finetune: tuple[str, ...] = ("statistics=all",)  # as key=value; else the paper's protocol
    simulate: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)  # options

    @property
    def simulated(self) -> bool:
        """Whether the recordings are made up, or lie in folders named like the sets."""
        return bool(self.simulate)

    @property
    def records(self) -> Mapping[str, int]:
        """How many recordings the downstream sets have: those of the paper, or the simulated."""
        made = self.simulate.get("cinc2017", ())
        number = made[made.index("--records") + 1] if "--records" in made else 240
        return {"cinc2017": int(number)} if self.simulated else RECORDS


# The paper draws 4,096 frames of a patient on average; an item of the future has context + 1.
_CONTEXT_16 = ("task=future", "frame=512", "frames_per_visit=241", "shuffle=2048")

# The rows of the paper's Table 1; in the names of the last four context, negatives and offset.
_TABLE_1 = {
    "beat-512": ("task=beat", "frame=512"),
    "beat-2048": ("task=beat", "frame=2048"),
    "beat-4096": ("task=beat", "frame=4096"),
    "rhythm-512": ("task=rhythm", "frame=512"),
    "rhythm-2048": ("task=rhythm", "frame=2048"),
    "rhythm-4096": ("task=rhythm", "frame=4096"),
    "heart_rate-512": ("task=heart_rate", "frame=512"),
    "heart_rate-2048": ("task=heart_rate", "frame=2048"),
    "heart_rate-4096": ("task=heart_rate", "frame=4096"),
    "future-8-4-2": (
        *("task=future", "frame=512", "frames_per_visit=455", "shuffle=4096"),
        *("future.context=8", "future.negatives=4", "future.offset=2"),
    ),
    "future-16-8-2": (
        *_CONTEXT_16,
        *("future.context=16", "future.negatives=8", "future.offset=2"),
    ),
    "future-16-8-8": (
        *_CONTEXT_16,
        *("future.context=16", "future.negatives=8", "future.offset=8"),
    ),
    "future-16-16-8": (
        *_CONTEXT_16,
        *("future.context=16", "future.negatives=16", "future.offset=8"),
    ),
}
PRETRAININGS: dict[str, tuple[str, ...]] = {
    name: ("statistics=all", *settings) for name, settings in _TABLE_1.items()
}
# Those that the paper goes on with, in its Tables 2 to 5.
BEST = {
    "beat": "beat-2048",
    "rhythm": "rhythm-2048",
    "heart_rate": "heart_rate-512",
    "future": "future-16-8-8",
}

# As long as the paper: 42.8 million frames. An item of the future has context + 1 of them.
LENGTH = {
    "frames": ("steps=2000", "batch=128", "epochs=168"),
    "future-8": ("steps=2000", "batch=64", "epochs=38"),
    "future-16": ("steps=2000", "batch=64", "epochs=20"),
}
RECORDS = {"cinc2017": 8528, "ptbxl": 21066, "icbeb2018": 6877}  # as the paper counts them

_STARTS = ("random", *BEST.values())
_TABLES: dict[str, tuple[Row, ...]] = {
    "table1": tuple(Row(start) for start in ("random", *PRETRAININGS)),
    "table2": tuple(Row(start, share=share) for share in (0.25, 0.5, None) for start in _STARTS),
    "table3": tuple(Row(start, fs=fs) for fs in (128, 250, 300) for start in _STARTS),
    "table4": tuple(Row(start, depth=depth) for depth in (18, 34, 50) for start in _STARTS),
    "table5": tuple(
        Row(start, downstream, depth=34, settings=settings)
        for downstream, settings in (("ptbxl", ("seconds=10",)), ("icbeb2018", ()))
        for start in _STARTS
    ),
    "figure3": tuple(Row(start) for start in _STARTS),
}
_ABOUT = {
    "table1": "configurations of the pretrainings",
    "table2": "training on 25, 50 and 75 % of the set",
    "table3": "128, 250 and 300 Hz",
    "table4": "ResNet-18, -34 and -50",
    "table5": "PTB-XL and ICBEB 2018",
    "figure3": "validation during finetuning",
}

PRESETS: dict[str, Preset] = {
    **{name: Preset(f"the paper: {_ABOUT[name]}", rows) for name, rows in _TABLES.items()},
    "paper": Preset(
        "all tables of the paper, and its Figure 3",
        tuple(dict.fromkeys(row for rows in _TABLES.values() for row in rows)),
    ),
    "demo": Preset(
        "the whole way, on simulated recordings",
        (Row(), Row("beat-2048")),
        pretrain=(
            *("epochs=4", "steps=24", "batch=64", "frames_per_visit=48", "shuffle=1024"),
            *("validation_share=0.2", "validation_frames=600"),
        ),
        finetune=("repeats=2", "epochs=6", "batch=16", "seconds=10"),
        simulate={"icentia11k": (), "cinc2017": ()},
    ),
    "smoke": Preset(
        "every step once, small, on simulated recordings",
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
    ),
    "real": Preset(
        "the whole way, on the real recordings that are there, in half an hour on two cores",
        (Row(share=0.1), Row("beat-2048", share=0.1)),
        upstream=("icentia11k", "mitdb"),
        pretrain=(
            *("epochs=6", "steps=80", "batch=64", "frames_per_visit=64", "shuffle=2048"),
            *("validation_share=0.15", "validation_frames=1000"),
        ),
        finetune=("repeats=2", "epochs=5", "batch=16"),
    ),
    "small": Preset(
        "what heart rates teach, at 25, 50 and 75 % of CinC 2017, on two cores",
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


def length(start: str) -> tuple[str, ...]:
    """Settings, as key=value, that train a preset of PRETRAININGS as long as the paper does."""
    return LENGTH[next((name for name in LENGTH if start.startswith(name)), "frames")]


def pretraining(preset: str | None, task: str | None) -> tuple[str, ...]:
    """Settings, as key=value, of a preset, or of a task's best one.

    Raises
    ------
    EcgpipeError
        There is no such preset or task, or the preset is of another task.
    """
    if preset is None:
        if task not in BEST:
            raise EcgpipeError(f"--task {task}: there is none; take one of {', '.join(BEST)}")
        preset = BEST[task]
    if preset not in PRETRAININGS:
        raise EcgpipeError(f"--preset {preset}: there is none; take {', '.join(PRETRAININGS)}")
    settings = PRETRAININGS[preset]
    if task and f"task={task}" not in settings:
        raise EcgpipeError(f"--preset {preset}: is not of --task {task}; leave one of them out")
    return settings
