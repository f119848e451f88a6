"""What a run says of itself: ``run.json``, and the card inside ``model.pt``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr, ValidationError

from ..config import HOW, FinetuneSettings, PretrainSettings, digest
from ..errors import EcgpipeError
from ..files.atomic import read_json
from ..models.resnet import ResNet
from ..storage.manifest import Moments
from ..storage.store import Store
from ..tasks import DOWNSTREAM

PACKAGES = ("ecgpipe", "torch", "numpy", "webdataset", "zarr", "numcodecs", "soxr", "sleepecg")
REQUIRED = ("kind", "name", "dataset", "classes", "settings")
# Settings that every version has written; later ones have their defaults in older runs.
SETTINGS = {
    "pretrain": "frame fs epochs steps batch optimiser network",
    "finetune": "seconds repeats epochs patience batch train_share validation_share test_share "
    "statistics optimiser network",
}
Number = int | float  # an integer stays one in the file
AnswerKind = Literal["one_of", "many_of", "contrastive"]


class _Facts(BaseModel):
    """Immutable; fields that only another version knows are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RunInput(_Facts):
    """The shards of a data set that a run reads."""

    path: str = ""
    name: str = ""
    digest: str = ""  # of their manifest
    fs: Number | None = None  # Hz
    records: int | None = None
    refused: int | None = None  # records
    hours: float | None = None

    @classmethod
    def of(cls, store: Store) -> RunInput:
        """Describe the shards of a store."""
        totals = store.manifest.totals
        return cls(
            path=str(store.path),
            name=store.recipe.dataset,
            digest=store.manifest.digest,
            fs=store.shards_recipe.fs,
            records=totals.records,
            refused=totals.refused,
            hours=totals.hours,
        )


class RunData(_Facts):
    """Counts and notes on the data of a run; a kind of run has some of them."""

    train_patients: int = 0
    validation_patients: int = 0
    held_out: list[str] = []  # patients that validate
    held_back: dict[str, list[str]] = {}  # records of downstream sets, not trained on
    mean_mV: float | None = None  # noqa: N815
    std_mV: float | None = None  # noqa: N815
    # of a finetuning: records
    train: int = 0
    validation: int = 0
    test: int = 0
    by_folds: bool | None = None  # the set's own folds are the split; None: not recorded
    # of both, but for the file of labels
    simulated: bool = False
    labels_file: str | None = None
    notes: list[str] = []


class RunDescription(_Facts):
    """``run.json``: what a run is, written before it starts.

    The digest covers what makes it this run and no other: the kind, the settings, and the digests
    of its inputs and of the weights it starts from (see :func:`identity`).
    """

    kind: Literal["pretrain", "finetune"]
    name: str  # a task of pretraining; of a finetuning, that of its initial weights, or random
    dataset: str | tuple[str, ...]  # of a pretraining several
    answer: AnswerKind = "one_of"
    classes: tuple[str, ...]
    settings: PretrainSettings | FinetuneSettings
    init: InitialWeights | None = None  # None: random weights
    inputs: tuple[RunInput, ...] = ()
    environment: dict[str, str] = {}
    data: RunData = RunData()
    versions: dict[str, str] = {}  # of packages
    digest: str | None = None
    _json: dict[str, Any] = PrivateAttr()  # as read or written, so that copies keep their bytes

    @classmethod
    def from_json(cls, tree: Any, source: Path) -> RunDescription:
        """Check plain values; ``source`` is the file that messages name.

        Raises
        ------
        EcgpipeError
            It is not the description of a run, or a setting has a value that is not allowed.
        """
        missing = [name for name in REQUIRED if not isinstance(tree, dict) or name not in tree]
        if not missing and tree["kind"] in SETTINGS:
            always = SETTINGS[tree["kind"]].split()
            missing = [f"settings.{name}" for name in always if name not in tree["settings"]]
        elif not missing:
            missing = ["a kind that is pretrain or finetune"]
        if missing:
            raise EcgpipeError(
                f"{source}: not the run.json of a pretraining or finetuning; missing: "
                f"{', '.join(missing)}; name another folder or run the training again"
            )
        kind = PretrainSettings if tree["kind"] == "pretrain" else FinetuneSettings
        what = "setting "
        try:
            settings = kind.model_validate(tree["settings"])
            what = ""
            init = tree.get("init") or None
            run = cls.from_json(init.get("run"), source) if init else None
            init = init and InitialWeights.model_validate({**init, "run": run})
            found = cls.model_validate({**tree, "settings": settings, "init": init})
        except ValidationError as error:
            raise EcgpipeError(
                f"{source}: {what}{_first(error)}; written by another version of ecgpipe? Use that "
                "version to read it"
            ) from None
        found._json = tree
        return found

    @classmethod
    def read(cls, file: Path) -> RunDescription:
        """Read a ``run.json``; raises as :meth:`from_json` and a missing file do."""
        return cls.from_json(read_json(file), file)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as they were read or are to be written."""
        return self._json

    @property
    def pretraining(self) -> PretrainSettings:
        """The settings of a run that is a pretraining."""
        assert isinstance(self.settings, PretrainSettings)
        return self.settings

    @property
    def finetuning(self) -> FinetuneSettings:
        """The settings of a run that is a finetuning."""
        assert isinstance(self.settings, FinetuneSettings)
        return self.settings

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names of the data sets."""
        return (self.dataset,) if isinstance(self.dataset, str) else self.dataset

    @property
    def upstream(self) -> RunDescription | None:
        """The pretraining it starts from; None for random weights."""
        return self.init.run if self.init else None

    @property
    def fs(self) -> float | None:
        """Sampling rate of the inputs, Hz; None where it is not known or they differ."""
        rates = {item.fs for item in self.inputs if item.fs}
        return rates.pop() if len(rates) == 1 else None


class InitialWeights(_Facts):
    """The pretraining that a finetuning starts from."""

    path: str  # of its folder
    run: RunDescription
    model_sha256: str | None = None  # of its model.pt


def describe(
    settings: PretrainSettings | FinetuneSettings,
    stores: Sequence[Store],
    *,
    name: str,
    answer: AnswerKind,
    classes: Sequence[str],
    environment: dict[str, str],
    data: RunData,
    init: InitialWeights | None = None,
) -> RunDescription:
    """Describe a new run on the shards of some stores; versions and the digest are added."""
    inputs = [RunInput.of(store).model_dump() for store in stores]
    tree: dict[str, Any] = {
        "kind": "pretrain",
        "name": name,
        "dataset": [item["name"] for item in inputs],
        "answer": answer,
        "classes": list(classes),
        "settings": settings.model_dump(),
    }
    if isinstance(settings, FinetuneSettings):
        started = init and {**dict(init), "run": init.run.to_json()}
        tree |= {"kind": "finetune", "dataset": inputs[0]["name"], "init": started}
    tree |= {
        "inputs": inputs,
        "environment": environment,
        "data": data.model_dump(exclude_unset=True),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
    }
    return RunDescription.from_json({**tree, "digest": digest(identity(tree))}, Path("run.json"))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # the codec of a store may be one that is not needed
        return None


def identity(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a ``run.json`` that makes it this run and no other."""
    init = tree.get("init")
    settings = tree.get("settings") or {}
    return {
        "kind": tree.get("kind"),
        # How and where a run is computed may change when it is continued.
        "settings": {k: v for k, v in settings.items() if k not in HOW},
        "inputs": [item["digest"] for item in tree.get("inputs", [])],
        "init": init and init["model_sha256"],
    }


class ModelCard(_Facts):
    """What ``model.pt`` holds beside the weights."""

    task: str  # of a finetuning, the data set
    answer: AnswerKind = "one_of"
    classes: list[str]
    fs: Number  # Hz
    leads: int
    lead_names: list[str] = ["ecg"]
    seconds: Number | None = None  # of input
    depth: int  # of the network, as are order and stages: see ResNet
    order: str
    stages: int
    mean_mV: float  # noqa: N815, of the signals that the input is standardised with
    std_mV: float  # noqa: N815
    run: RunDescription
    epoch: int | None = None  # the best one

    @classmethod
    def of(
        cls, run: RunDescription, spread: Moments, fs: float, leads: Sequence[str], seconds: float
    ) -> ModelCard:
        """The card of a training: signal statistics, rate in Hz, leads, seconds of input."""
        if not spread.std > 0:
            raise EcgpipeError("the training signals do not vary: standard deviation 0 mV")
        tree = run.to_json()
        return cls(
            task=run.name if run.kind == "pretrain" else run.datasets[0],
            answer=run.answer,
            classes=tree["classes"],
            fs=fs,
            leads=len(leads),
            lead_names=list(leads),
            seconds=seconds,
            **tree["settings"]["network"],
            mean_mV=spread.mean,
            std_mV=spread.std,
            run=run,
        )

    @classmethod
    def from_tree(cls, tree: dict[str, Any], source: Path) -> ModelCard:
        """Check the plain values of a model file; raises EcgpipeError if it has others."""
        try:
            run = RunDescription.from_json(tree.get("run"), source)
            return cls.model_validate({**tree, "run": run})
        except ValidationError as error:
            raise EcgpipeError(f"{source}: no model of ecgpipe ({_first(error)})") from None

    def to_tree(self) -> dict[str, Any]:
        """Plain values, in the order that model files have them in."""
        tree = self.model_dump(exclude={"run", "epoch"})
        if self.run.kind == "finetune":
            for name in ("seconds", "mean_mV", "std_mV"):
                tree[name] = tree.pop(name)
        return {**tree, "run": self.run.to_json()}

    @property
    def pads(self) -> bool:
        """True for models of whole recordings, which get zeros in front of shorter ones."""
        return self.task in DOWNSTREAM

    @property
    def samples(self) -> int:
        """Length of the input, samples."""
        if self.pads:
            return round(self.run.finetuning.seconds * self.fs)
        return self.run.pretraining.frame

    def network(self) -> ResNet:
        """The network of the model, with new weights."""
        return ResNet(len(self.classes), self.leads, self.depth, self.order, self.stages)


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


RunDescription.model_rebuild()
