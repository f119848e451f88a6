"""The model card: facts and scores of a model file, as plain values and as text."""

from __future__ import annotations

from operator import attrgetter
from pathlib import Path
from typing import Any

from ..config import Training, describe
from ..datasets import DATASETS
from ..files.atomic import sha256
from ..tasks import DOWNSTREAM
from ..tasks.objectives import OBJECTIVES
from ..training.predictions import PREDICTIONS, read_predictions, splits_of
from ..training.run_description import RunInput
from ..training.run_folder import MODEL, RUN
from .model import Model, load_model

NOTE = "for research; no medical device, not for clinical decisions"
_WIDTH = 100  # of the text
_WORDS = {"macro_f1": "macro F1", "auc": "AUC", "fmax": "Fmax"}


def is_model(path: Path) -> bool:
    """True for a model file or a run folder, False for a store."""
    return path.is_file() or any((path / name).is_file() for name in (MODEL, RUN))


def model_card(path: Path) -> dict[str, Any]:
    """The facts of a model as plain values.

    Parameters
    ----------
    path
        As for :func:`ecgpipe.inference.model.load_model`.

    Returns
    -------
    dict
        Classes, input and network; the training data with their digests; scores on the items of
        ``predictions.csv`` if it is in the same folder; settings that differ from the defaults;
        versions.

    Raises
    ------
    EcgpipeError
        See :func:`ecgpipe.inference.model.load_model`; or ``predictions.csv`` does not fit.
    """
    model = load_model(path, "cpu")
    card, run = model.card, model.card.run
    mean, std = model.standardisation
    init, data = run.init, run.data
    return {
        "file": str(model.path),
        "sha256": sha256(model.path),
        "task": card.task,
        "answer": model.answer,
        "classes": list(model.classes),
        "fs_Hz": model.fs,
        "leads": list(model.lead_names),
        "seconds": model.seconds,
        "pads": card.pads,
        "mean_mV": mean,
        "std_mV": std,
        "network": card.model_dump(include={"depth", "order", "stages"}),
        "parameters": model.parameters,
        "epoch": card.epoch,
        "simulated": data.simulated,
        "inputs": [_input(item) for item in run.inputs],
        "items": data.model_dump(include=data.model_fields_set & _COUNTED),
        "init": init
        and {
            "task": init.run.name,
            "inputs": [_input(item) for item in init.run.inputs],
            "model_sha256": init.model_sha256,
        },
        "scores": _scores(model),
        "settings": _changed(run.settings),
        "versions": run.versions,
        "environment": run.environment,
        "run": run.digest,
        "note": NOTE,
    }


_COUNTED = {"train", "validation", "test", "train_patients", "validation_patients"}


def _input(item: RunInput) -> dict[str, Any]:
    source = DATASETS.get(item.name)
    return {
        "name": item.name,
        "title": source.title if source else item.name,
        "licence": source.licence if source else "unknown",
        "fs": item.fs,
        "records": item.records,
        "hours": item.hours,
        "digest": item.digest,
    }


def _changed(settings: Training) -> dict[str, Any]:
    """Settings other than the defaults, by dotted key."""
    values = {key: attrgetter(key)(settings) for key, _, _ in describe(type(settings))}
    defaults = {key: default for key, default, _ in describe(type(settings))}
    return {key: value for key, value in values.items() if value != defaults[key]}


def _scores(model: Model) -> dict[str, dict[str, float]]:
    """Scores of every split in the predictions beside the file, with the number of items."""
    path, many = model.path.with_name(PREDICTIONS), model.answer == "many_of"
    if not path.is_file():
        return {}
    splits = splits_of(model.card.run.kind, many)
    found = {}
    for name, here in read_predictions(path, list(model.classes), splits, many).items():
        scores = OBJECTIVES[model.answer].scores(here.label, here.probability)
        found[name] = {"items": len(here.keys), **{k: float(v) for k, v in scores.items()}}
    return found


def card_text(facts: dict[str, Any]) -> str:
    """The facts as lines that align."""
    one_of, network = facts["answer"] == "one_of", facts["network"]
    what = "one of" if one_of else "any of"
    simulated = " (simulated recordings)" if facts["simulated"] else ""
    shorter = "zeros in front of shorter ones" if facts["pads"] else "no shorter ones"
    lead = "any one lead" if len(facts["leads"]) == 1 else " ".join(facts["leads"])
    lines = [
        f"model of {facts['task']}{simulated}",
        *_filled("answers", [what, *facts["classes"]], " "),
        f"{'input':12}{lead} at {facts['fs_Hz']:g} Hz, the last {facts['seconds']:g} s of a "
        f"recording; {shorter}",
        f"{'':12}standardised by mean {facts['mean_mV']:z.4f} mV, SD {facts['std_mV']:.4f} mV",
        f"{'network':12}ResNet-{network['depth']}, {network['order']}-activation, "
        f"{network['stages']} stages, {facts['parameters']:,} parameters; epoch {facts['epoch']}",
    ]
    for number, item in enumerate(facts["inputs"]):
        lines.append(f"{'' if number else 'trained on':12}{_set(item)}")
    if facts["items"]:
        counts = (f"{name.replace('_', ' ')} {n:,}" for name, n in facts["items"].items())
        lines += _filled("", list(counts), ", ")
    if facts["init"]:
        lines.append(f"{'start':12}weights pretrained on {facts['init']['task']}")
        lines += [f"{'':12}{_set(item)}" for item in facts["init"]["inputs"]]
    elif facts["task"] in DOWNSTREAM:
        lines.append(f"{'start':12}random weights")
    for name, scores in facts["scores"].items():
        values = (
            f"{_WORDS.get(key, key.replace('_', ' '))} {v:.3f}"
            for key, v in scores.items()
            if key != "items"
        )
        lines += _filled(name, [f"{scores['items']:,} items", *values], ", ")
    changed = [f"{name}={value}" for name, value in facts["settings"].items()]
    lines += _filled("settings", changed or ["the defaults"], "  ")
    lines += _filled("versions", [f"{k} {v}" for k, v in facts["versions"].items()], "  ")
    lines += [
        f"{'run':12}{facts['run']}",
        f"{'file':12}{facts['sha256']} (SHA-256)",
        f"{'note':12}{facts['note']}",
    ]
    return "\n".join(lines)


def _set(item: dict[str, Any]) -> str:
    size = f"{item['records']:,} records, {item['hours']:,.1f} h" if item["records"] else ""
    return f"{item['title']} ({item['licence']}), {size}, shards {item['digest'][:12]}"


def _filled(name: str, items: list[str], between: str) -> list[str]:
    """A name and its items, on as many lines as they take."""
    lines: list[str] = []
    for number, item in enumerate(items):
        word = item + (between.rstrip() if number + 1 < len(items) else "")
        if lines and len(lines[-1]) + len(word) < _WIDTH:
            lines[-1] += (between if not between.strip() else " ") + word
        else:
            lines.append(f"{'' if lines else name:12}{word}")
    return lines
