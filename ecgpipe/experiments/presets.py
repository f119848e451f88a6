"""The experiments that ``ecgpipe reproduce`` knows: literal values, and nothing computed."""

from __future__ import annotations

from dataclasses import dataclass


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
