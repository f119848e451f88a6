"""Settings of a run: one frozen tree, from a file or the command line; unknown keys fail."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import EcgpipeError


class Settings(BaseModel):
    """Base of all settings: immutable, and strict about names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _parse(value: Any) -> Any:
    """Convert ``none`` or an integer given as text; pydantic does neither for Literal and None."""
    if not isinstance(value, str):
        return value
    if value.lower() == "none":
        return None
    return int(value) if value.isdecimal() else value


class Network(Settings):
    """Architecture of the residual network."""

    depth: Annotated[Literal[18, 34, 50], BeforeValidator(_parse)] = Field(
        18, description="number of layers: 18, 34 or 50"
    )
    order: Literal["pre", "post"] = Field(
        "pre", description="normalise before convolutions (v2, the paper) or after (v1, its code)"
    )
    stages: Annotated[Literal[1, 2, 3, 4], BeforeValidator(_parse)] = Field(
        4, description="stages used, of four; the paper predicts futures with 3 of ResNet-50's"
    )


class Optimiser(Settings):
    """Adam; the defaults are those of its authors, which the paper uses."""

    lr: float = Field(1e-3, gt=0, description="learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay rate of the mean gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay rate of the mean squared gradient")
    eps: float = Field(1e-8, gt=0, description="constant added to the denominator")


class Training(Settings):
    """Settings that pretraining and finetuning share."""

    seed: int = Field(0, ge=0, description="random seed of the weights and the order of data")
    network: Network = Network()
    optimiser: Optimiser = Optimiser()
    batch: int = Field(64, ge=2, description="items per batch")
    accumulate: int = Field(
        1, ge=1, description="batches per update; torchrun divides them among its processes"
    )
    statistics: Literal["train", "all"] = Field(
        "train", description="records whose mean and standard deviation standardise the input"
    )
    clip: float = Field(0, ge=0, description="maximum norm of the gradients; 0: no clipping")
    compile: Literal["no", "default", "reduce-overhead", "max-autotune"] = Field(
        "no", description="mode of torch.compile; reduce-overhead uses CUDA graphs"
    )
    cuda_graph: bool = Field(
        True, description="on a GPU, record an update once as a CUDA graph and replay it"
    )
    sync_batchnorm: bool = Field(
        False, description="with torchrun, batch statistics over all GPUs instead of on each"
    )
    tensorboard: bool = Field(False, description="also write the history for TensorBoard")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="number format of the network; auto: bf16 if the device supports it"
    )
    device: str = Field("auto", description="cpu, cuda or cuda:N; auto: a GPU if there is one")


class Labels(Settings):
    """Rules that label frames (see ``ecgpipe/labels``)."""

    rules: Literal["default", "paper_text", "code"] = Field(
        "default",
        description="paper_text: beats without a class count as normal; code: as in the paper's "
        "code, a frame's first beat does not count, nor, for heart rates, beats outside the frame",
    )
    heart_rate_from: Literal["annotated", "detected"] = Field(
        "annotated", description="beats; records without annotated beats use detected ones"
    )


class Future(Settings):
    """Future prediction: choose, among several frames, the one that follows the context."""

    context: int = Field(16, ge=1, description="consecutive frames that the network is given")
    negatives: int = Field(8, ge=1, description="wrong candidates: frames of other patients")
    offset: int = Field(8, ge=0, description="frames between the context and the future frame")
    attention_scale: Literal["head", "model"] = Field(
        "head", description="attention is divided by the root of a head's width, or the model's"
    )


class PretrainSettings(Training):
    """Settings of ``ecgpipe pretrain``; the defaults follow the paper where it is exact."""

    task: Literal["beat", "rhythm", "heart_rate", "future"] = Field(
        "beat", description="what is learnt: beat, rhythm, heart_rate or future"
    )
    labels: Labels = Labels()
    future: Future = Future()
    frame: int = Field(2048, ge=32, description="samples per frame (2048: 8 s at 250 Hz)")
    fs: float = Field(250, gt=0, description="sampling rate, Hz; other shards are refused")
    epochs: int = Field(
        20, ge=1, description="number of epochs; each ends with a validation and a checkpoint"
    )
    steps: int = Field(1000, ge=1, description="updates per epoch")
    batch: int = Field(
        128, ge=2, description="items per batch: frames, or contexts with their future"
    )
    frames_per_visit: int = Field(
        4096, ge=1, description="items drawn from a patient each time its shard is read"
    )
    streams: int = Field(4, ge=1, description="independent data streams, read in turn")
    open_shards: int = Field(8, ge=1, description="patients that a stream mixes at a time")
    shuffle: int = Field(8192, ge=1, description="items in a stream's shuffle buffer")
    workers: int = Field(
        0, ge=0, description="loader processes per GPU; workers times GPUs must divide streams"
    )
    validation_share: float = Field(
        0.05, gt=0, lt=1, description="share of patients held out for validation"
    )
    validation_frames: int = Field(4096, ge=1, description="validation items, fixed for a run")
    split_seed: int = Field(0, ge=0, description="random seed of the choice of those patients")
    held_back: float = Field(
        0.20, gt=0, lt=1, description="share of downstream records never read: their test_share"
    )
    held_back_seed: int = Field(0, ge=0, description="split_seed of the finetuning on them")


class FinetuneSettings(Training):
    """Settings of ``ecgpipe finetune``: the paper's protocol, except that it has statistics=all."""

    seconds: float = Field(
        60, gt=0, description="length of the input, s; shorter records are padded in front"
    )
    repeats: int = Field(
        10, ge=1, description="trainings, each with newly drawn training and validation records"
    )
    epochs: int = Field(200, ge=1, description="maximum number of epochs")
    patience: int = Field(
        50, ge=1, description="stop after so many epochs without a better training accuracy"
    )
    batch: int = Field(64, ge=2, description="records per batch")
    train_share: Annotated[float | None, BeforeValidator(_parse)] = Field(
        None, gt=0, lt=1, description="training share of all records; none: 0.75, or all folds"
    )
    validation_share: float = Field(
        0.05, gt=0, lt=1, description="validation share of all records; chooses the epoch"
    )
    test_share: float = Field(
        0.20, gt=0, lt=1, description="test share of all records; the same ones in every repeat"
    )
    official_folds: bool = Field(
        True, description="use the published split of the data set, if it has one (PTB-XL)"
    )
    split_seed: int = Field(0, ge=0, description="random seed of the choice of test records")
    resident: Literal["auto", "yes", "no"] = Field(
        "auto",
        description="keep the data in GPU memory; auto: if a quarter of what is free is enough",
    )
    parallel: int = Field(1, ge=1, description="repeats trained at a time, on the same device")


# Settings that say how a run is computed; they do not change its result.
HOW = ("device", "workers", "compile", "cuda_graph", "tensorboard", "resident", "parallel")

S = TypeVar("S", bound=Settings)


def load(
    kind: type[S],
    file: Path | None = None,
    assignments: Iterable[str] = (),
    preset: Iterable[str] = (),
    **given: Any,
) -> S:
    """Combine settings; each source overrides those before it.

    Parameters
    ----------
    preset
        Assignments like ``assignments``; the first source.
    file
        TOML, JSON, or the ``run.json`` of an earlier run; the second source.
    assignments
        ``key=value`` with dots for nested keys, such as ``optimiser.lr=3e-4``; the third source.
    given
        Single settings, the last source; None counts as not given.

    Raises
    ------
    EcgpipeError
        An unreadable file, an unknown key or a value out of range.
    """
    tree: dict[str, Any] = {}
    _assign(tree, preset)
    if file:
        _merge(tree, _read(file))
    _assign(tree, assignments)
    tree |= {key: value for key, value in given.items() if value is not None}
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise EcgpipeError(_explain(kind, error, file)) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text("utf-8")
        tree = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        why = f"cannot be read ({error.strerror}); name a settings file"
        raise EcgpipeError(f"{file}: {why}") from None
    except ValueError as error:
        raise EcgpipeError(f"{file}: not valid {file.suffix or 'TOML'} ({error})") from None
    if isinstance(tree, dict) and file.name == "run.json" and "settings" in tree:
        tree = tree["settings"]
    if not isinstance(tree, dict):
        raise EcgpipeError(f"{file}: a settings file holds key = value pairs")
    return tree


def _assign(tree: dict[str, Any], assignments: Iterable[str]) -> None:
    for item in assignments:
        key, found, value = item.partition("=")
        if not found:
            example = "for example optimiser.lr=3e-4"
            raise EcgpipeError(f"--set {item}: write it as key=value, {example}")
        group = tree
        *groups, last = key.strip().split(".")
        for name in groups:
            group = group.setdefault(name, {})
            if not isinstance(group, dict):
                raise EcgpipeError(f"--set {item}: {name} is a value, not a group of settings")
        group[last] = value.strip()


def _merge(tree: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _explain(kind: type[Settings], error: ValidationError, file: Path | None) -> str:
    problems = []
    for item in error.errors():
        name = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            known = ", ".join(key for key, *_ in describe(kind))
            problems.append(f"unknown setting {name}; there are: {known}")
        else:
            problems.append(f"setting {name}: {item['msg']} (got {item['input']!r})")
    return (f"{file}: " if file else "") + "; ".join(problems)


def describe(kind: type[Settings], prefix: str = "") -> list[tuple[str, Any, str]]:
    """List all settings as (dotted key, default, description), in the order of declaration."""
    rows: list[tuple[str, Any, str]] = []
    for name, field in kind.model_fields.items():
        if isinstance(field.default, Settings):
            rows += describe(type(field.default), f"{prefix}{name}.")
        else:
            rows.append((prefix + name, field.default, field.description or ""))
    return rows


def canonical(tree: Any) -> bytes:
    """JSON bytes that depend on the content alone: sorted keys, no spaces."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest(tree: Any) -> str:
    """SHA-256, in hex, of the canonical JSON of a tree of plain values."""
    return hashlib.sha256(canonical(tree)).hexdigest()
