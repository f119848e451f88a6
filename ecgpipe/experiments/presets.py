"""Literal values: the pretrainings of the paper's Table 1, and what ``ecgpipe reproduce`` runs."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import EcgpipeError


@dataclass(frozen=True)
class Preset:
    """One experiment: pretrain on the upstream sets, finetune on the downstream set, report."""

    upstream: tuple[str, ...]  # data sets for pretraining
    downstream: str  # data set for finetuning
    simulated: bool  # True: recordings are made up; False: they lie in folders named like the sets
    fs: int  # Hz, of all shards
    pretrain: tuple[str, ...]  # settings as key=value
    finetune: tuple[str, ...]  # settings as key=value


PRESETS: dict[str, Preset] = {
    "demo": Preset(
        upstream=("icentia11k",),
        downstream="cinc2017",
        simulated=True,
        fs=250,
        pretrain=(
            *("epochs=4", "steps=24", "batch=64", "frames_per_visit=48", "shuffle=1024"),
            *("validation_share=0.2", "validation_frames=600"),
        ),
        finetune=("repeats=2", "epochs=5", "batch=16"),
    ),
    "real": Preset(
        upstream=("icentia11k", "mitdb"),
        downstream="cinc2017",
        simulated=False,
        fs=250,
        # Half an hour on two cores: a tenth of the records for training, a few epochs.
        pretrain=(
            *("epochs=6", "steps=80", "batch=64", "frames_per_visit=64", "shuffle=2048"),
            *("validation_share=0.15", "validation_frames=1000"),
        ),
        finetune=("repeats=2", "epochs=5", "batch=16", "train_share=0.1"),
    ),
}

# The paper draws 4,096 frames of a patient on average; an item of the future has context + 1.
_CONTEXT_16 = ("task=future", "frame=512", "frames_per_visit=241", "shuffle=2048")

# The rows of the paper's Table 1; in the names of the last four context, negatives and offset.
PRETRAININGS: dict[str, tuple[str, ...]] = {
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
# Those that the paper goes on with, in its Tables 2 to 5.
BEST = {
    "beat": "beat-2048",
    "rhythm": "rhythm-2048",
    "heart_rate": "heart_rate-512",
    "future": "future-16-8-8",
}


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
