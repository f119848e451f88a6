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


def _whole(value: Any) -> Any:
    """A number written as text, as --set gives it; pydantic leaves Literals as they are."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def _none(value: Any) -> Any:
    """Nothing written as text, as --set gives it."""
    return None if isinstance(value, str) and value.lower() == "none" else value


class Network(Settings):
    """Which residual network."""

    depth: Annotated[Literal[18, 34, 50], BeforeValidator(_whole)] = Field(
        18, description="layers of the residual network: 18, 34 or 50"
    )
    order: Literal["pre", "post"] = Field(
        "pre", description="normalise before (v2, the paper) or after (v1, its code) convolutions"
    )
    stages: Annotated[Literal[1, 2, 3, 4], BeforeValidator(_whole)] = Field(
        4, description="of the network's four; the paper predicts futures with 3 of ResNet-50's"
    )


class Optimiser(Settings):
    """Adam, by default with the hyperparameters of its authors, as the paper says."""

    lr: float = Field(1e-3, gt=0, description="learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the gradient's mean")
    beta2: float = Field(0.999, ge=0, lt=1, description="decay of the gradient's square")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")


class Training(Settings):
    """What pretraining and finetuning have in common."""

    seed: int = Field(0, ge=0, description="of initial weights, windows and their order")
    network: Network = Network()
    optimiser: Optimiser = Optimiser()
    batch: int = Field(64, ge=2, description="items a batch")
    accumulate: int = Field(
        1, ge=1, description="batches an update, shared by the processes of torchrun"
    )
    statistics: Literal["train", "all"] = Field(
        "train", description="records whose mean and standard deviation standardise the input"
    )
    clip: float = Field(0, ge=0, description="norm that gradients are cut to; 0 leaves them")
    compile: Literal["no", "default", "reduce-overhead", "max-autotune"] = Field(
        "no", description="mode of torch.compile; reduce-overhead replays CUDA graphs"
    )
    cuda_graph: bool = Field(
        True, description="on a GPU, replay an update as one CUDA graph instead of launching it"
    )
    sync_batchnorm: bool = Field(
        False, description="batch statistics over all GPUs of torchrun, not of each"
    )
    tensorboard: bool = Field(False, description="write the history for TensorBoard as well")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of the network's arithmetic; auto takes bf16 where the device has it"
    )
    device: str = Field("auto", description="cpu, cuda or cuda:N; auto takes a GPU if there is one")


class Labels(Settings):
    """By which rules frames are labelled (see ``ecgpipe/labels``)."""

    rules: Literal["default", "paper_text", "code"] = Field(
        "default",
        description="paper_text: beats without a class count as normal; code: as in the paper's "
        "code a frame's first beat does not count, nor, for heart rates, do those around the frame",
    )
    heart_rate_from: Literal["annotated", "detected"] = Field(
        "annotated", description="beats; records without annotated ones take detected ones"
    )


class Future(Settings):
    """The task of future prediction: which of several frames comes after the context."""

    context: int = Field(16, ge=1, description="frames in a row that are known")
    negatives: int = Field(8, ge=1, description="frames of other patients to tell the future from")
    offset: int = Field(8, ge=0, description="frames between the context and the future")
    attention_scale: Literal["head", "model"] = Field(
        "head", description="attention is divided by the root of a head's width, or of all (code)"
    )


class PretrainSettings(Training):
    """Settings of ``ecgpipe pretrain``; the defaults follow the paper where it is exact."""

    task: Literal["beat", "rhythm", "heart_rate", "future"] = Field(
        "beat", description="what is learnt: beat, rhythm, heart_rate or future"
    )
    labels: Labels = Labels()
    future: Future = Future()
    frame: int = Field(2048, ge=32, description="samples of a frame (at 250 Hz about 8 s)")
    fs: float = Field(250, gt=0, description="Hz; shards at another rate are refused")
    epochs: int = Field(20, ge=1, description="checkpoints and validations")
    steps: int = Field(1000, ge=1, description="updates an epoch")
    batch: int = Field(128, ge=2, description="items a batch: frames, or contexts with a future")
    frames_per_visit: int = Field(
        4096, ge=1, description="items drawn from a patient each time its shard is read"
    )
    streams: int = Field(4, ge=1, description="independent streams that batches come from in turn")
    open_shards: int = Field(8, ge=1, description="patients that a stream mixes at a time")
    shuffle: int = Field(8192, ge=1, description="items in a stream's shuffle buffer")
    workers: int = Field(
        0, ge=0, description="loader processes a GPU; times the GPUs they must divide the streams"
    )
    validation_share: float = Field(0.05, gt=0, lt=1, description="share of patients held out")
    validation_frames: int = Field(4096, ge=1, description="fixed items of the patients held out")
    split_seed: int = Field(0, ge=0, description="of the choice of patients held out")
    held_back: float = Field(
        0.20, gt=0, lt=1, description="of a downstream set's records, its test_share: never seen"
    )
    held_back_seed: int = Field(0, ge=0, description="the split_seed of that set's finetuning")


class FinetuneSettings(Training):
    """Settings of ``ecgpipe finetune``: the paper's protocol, but ``statistics`` is all there."""

    seconds: float = Field(60, gt=0, description="s of input; shorter records get zeros in front")
    repeats: int = Field(10, ge=1, description="trainings with fresh train and validation draws")
    epochs: int = Field(200, ge=1, description="passes over the training records at the most")
    patience: int = Field(50, ge=1, description="epochs without a better training accuracy")
    batch: int = Field(64, ge=2, description="records a batch")
    train_share: Annotated[float | None, BeforeValidator(_none)] = Field(
        None, gt=0, lt=1, description="of all records, for training; 0.75, or all training folds"
    )
    validation_share: float = Field(0.05, gt=0, lt=1, description="of all records, for the epoch")
    test_share: float = Field(0.20, gt=0, lt=1, description="of all records, same in every repeat")
    official_folds: bool = Field(
        True, description="the split that comes with the set, where it has one (PTB-XL)"
    )
    split_seed: int = Field(0, ge=0, description="of the test set, shared by the rows of a table")
    resident: Literal["auto", "yes", "no"] = Field(
        "auto", description="the set stays in the GPU's memory; auto: where a quarter of it is free"
    )
    parallel: int = Field(1, ge=1, description="repeats trained at a time, on the same device")


# Settings that say how a run is computed, and not what comes out.
HOW = ("device", "workers", "compile", "cuda_graph", "tensorboard", "resident", "parallel")

S = TypeVar("S", bound=Settings)


def load(
    kind: type[S],
    file: Path | None = None,
    assignments: Iterable[str] = (),
    preset: Iterable[str] = (),
    **given: Any,
) -> S:
    """Settings from a preset, a file, ``key=value`` assignments and options; the later ones win.

    Parameters
    ----------
    kind
        The class of settings.
    file
        TOML, JSON, or the ``run.json`` of an earlier run.
    assignments
        ``key=value`` with dots for nested keys, such as ``optimiser.lr=3e-4``.
    preset
        Assignments that the file and everything else stand over.
    given
        Values that are None count as not given.

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
    for key, value in given.items():
        if value is not None:
            tree[key] = value
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise EcgpipeError(_explain(kind, error, file)) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise EcgpipeError(
            f"{file}: cannot be read ({error.strerror}); name a settings file"
        ) from None
    try:
        text = data.decode()
        tree = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
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
            raise EcgpipeError(
                f"--set {item}: write it as key=value, for example optimiser.lr=3e-4"
            )
        _put(tree, key.strip().split("."), value.strip(), item)


def _merge(tree: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _put(tree: dict[str, Any], path: list[str], value: Any, item: str) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise EcgpipeError(f"--set {item}: {name} is a value, not a group of settings")
    tree[path[-1]] = value


def _explain(kind: type[Settings], error: ValidationError, file: Path | None) -> str:
    problems = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            known = ", ".join(key for key, *_ in describe(kind))
            problems.append(f"unknown setting {name}; there are: {known}")
        else:
            problems.append(f"setting {name}: {item['msg']} (got {item['input']!r})")
    where = f"{file}: " if file else ""
    return where + "; ".join(problems)


def describe(kind: type[Settings], prefix: str = "") -> list[tuple[str, Any, str]]:
    """Every setting as (dotted key, default, what it is), in the order of declaration."""
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
