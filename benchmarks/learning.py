"""Does pretraining learn? Each task on held-out patients, beside its trivial baseline.

    python benchmarks/learning.py SHARDS… --out RUNS [--task beat …] [--folds 2]

Trains in small (see SETTINGS), continues what was interrupted, and writes RUNS/learning.md and
RUNS/learning.svg. A fold holds out other patients; a class counts for the balanced accuracy where
at least ENOUGH of the held-out frames are of it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ecgpipe.config import PretrainSettings, load
from ecgpipe.experiments.presets import pretraining
from ecgpipe.metrics.single_label import class_recall
from ecgpipe.training.pretrain import pretrain
from ecgpipe.training.run_folder import Run, read_run

ENOUGH = 50
SMALL = ("validation_share=0.3", "validation_frames=3000", "open_shards=16", "streams=2")
FRAMES = (*SMALL, "epochs=10", "steps=60", "batch=128", "frames_per_visit=64", "shuffle=4096")
SETTINGS = {
    "beat": ("beat-512", FRAMES),
    "rhythm": ("rhythm-512", FRAMES),
    "heart_rate": ("heart_rate-512", FRAMES),
    "future": (
        "future-8-4-2",
        (*SMALL, "epochs=10", "steps=20", "batch=32", "frames_per_visit=8", "shuffle=512"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--task", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--folds", type=int, default=1)
    args = parser.parse_args()
    runs = []
    for fold in range(args.folds):
        for task in args.task:
            preset, small = SETTINGS[task]
            given = (*small, f"split_seed={fold}")
            settings = load(PretrainSettings, assignments=given, preset=pretraining(preset, None))
            folder = args.out / f"{task}-{fold}"
            pretrain(args.shards, folder, settings)
            runs.append((task, fold, read_run(folder)))
    text = "\n".join([*summary(runs), "", *by_class(runs), "", *curves(runs)])
    (args.out / "learning.md").write_text(text + "\n")
    draw(runs, args.out / "learning.svg")
    print(text)


def summary(runs: list[tuple[str, int, Run]]) -> list[str]:
    """A row for each run: what it came to, and what guessing comes to."""
    lines = [
        "| task | fold | held-out patients | items | score | reached | by chance | accuracy "
        "| always the commonest |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, fold, run in runs:
        matrix = run.scored("validation")[0].confusion()
        counts, patients = matrix.sum(1), run.data.validation_patients
        accuracy = np.trace(matrix) / matrix.sum()
        if task == "future":
            row = ["accuracy", f"{accuracy:.3f}", f"{1 / len(matrix):.3f}", f"{accuracy:.3f}", "–"]
        else:
            enough = counts >= ENOUGH
            balanced = class_recall(matrix)[enough].mean()
            row = [
                f"balanced accuracy, {enough.sum()} classes",
                *(f"{balanced:.3f}", f"{1 / enough.sum():.3f}", f"{accuracy:.3f}"),
                f"{counts.max() / counts.sum():.3f}",
            ]
        lines.append(f"| {task} | {fold} | {patients} | {matrix.sum()} | {' | '.join(row)} |")
    return lines


def by_class(runs: list[tuple[str, int, Run]]) -> list[str]:
    """A row for each class of each run, the rare ones included."""
    lines = ["| task | fold | class | held-out frames | recall | F1 |", "|---|---|---|---|---|---|"]
    for task, fold, run in runs:
        if task == "future":
            continue
        matrix = run.scored("validation")[0].confusion()
        for i, name in enumerate(run.classes):
            count, right = matrix[i].sum(), matrix[i, i]
            of_both = count + matrix[:, i].sum()
            rare = "" if count >= ENOUGH else " (rare)"
            recall = f"{right / count:.3f}" if count else "–"
            f1 = f"{2 * right / of_both:.3f}" if of_both else "–"
            lines.append(f"| {task} | {fold} | {name}{rare} | {count} | {recall} | {f1} |")
    return lines


def curves(runs: list[tuple[str, int, Run]]) -> list[str]:
    """Validation accuracy by epoch."""
    epochs = max(len(run.repeats[0].history["epoch"]) for *_, run in runs)
    lines = [
        f"| validation accuracy, epoch | {' | '.join(str(i + 1) for i in range(epochs))} |",
        f"|---|{'---|' * epochs}",
    ]
    for task, fold, run in runs:
        values = run.repeats[0].history["validation_accuracy"]
        lines.append(f"| {task}, fold {fold} | {' | '.join(f'{v:.3f}' for v in values)} |")
    return lines


def draw(runs: list[tuple[str, int, Run]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks = list(dict.fromkeys(task for task, *_ in runs))
    figure, axes = plt.subplots(1, len(tasks), figsize=(3 * len(tasks), 2.6), squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for name, fold, run in runs:
            if name == task:
                history = run.repeats[0].history
                axis.plot(history["epoch"], history["validation_loss"], label=f"fold {fold}")
                axis.plot(history["epoch"], history["train_loss"], ":", color="grey")
        axis.set(title=task, xlabel="epoch", yscale="log")
    axes[0][0].set_ylabel("loss (training dotted)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
