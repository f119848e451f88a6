"""Load a trained model, and predict the classes of recordings.

Recordings are treated as in training: mV, standardised, resampled to the model's rate, zeros in
front up to the model's ``seconds``; of a longer one the last ``seconds`` count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..config import Training
from ..errors import BadRecord, EcgpipeError
from ..files.paths import to_path
from ..loading.recordings import PaddedSet, Recordings, chunks
from ..models.resnet import ResNet
from ..storage.resample import resample
from ..tasks import TASKS
from ..tasks.objectives import OBJECTIVES
from ..training.device import Device, choose
from ..training.predictions import PREDICTIONS
from ..training.run_description import ModelCard, RunDescription
from ..training.run_folder import HISTORY, MODEL, RUN, read_model
from ..training.train_step import predict
from ..types import Batch, Record
from .inputs import from_millivolts
from .prediction import Prediction

BATCH = 32  # windows
# The lead that a model of one lead takes of several: that of hand-held recorders and of the
# Icentia11k patch (modified), then those of Holter monitors.
PREFERRED = ("i", "mlii", "ii")


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network, and how its input is prepared.

    Attributes
    ----------
    path
        The model file.
    card
        Classes, rate, leads, standardisation and the run, from the model file.
    network
        In evaluation mode.
    device
        Computes in float32.
    """

    path: Path
    card: ModelCard
    network: ResNet
    device: Device

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return tuple(self.card.classes)

    @property
    def answer(self) -> str:
        """``one_of``: the probabilities add up to 1; ``many_of``: each class has its own."""
        return self.card.answer

    @property
    def fs(self) -> float:
        """Sampling rate of the input, Hz."""
        return self.card.fs

    @property
    def lead_names(self) -> tuple[str, ...]:
        """Leads of the input, in this order; a model of one lead accepts any lead."""
        return tuple(self.card.lead_names)

    @property
    def seconds(self) -> float:
        """Length of the input, s."""
        return self.samples / self.fs

    @property
    def samples(self) -> int:
        """Length of the input, samples."""
        return self.card.samples

    @property
    def standardisation(self) -> tuple[float, float]:
        """Mean and standard deviation by which the input is standardised, mV."""
        return self.card.mean_mV, self.card.std_mV

    @cached_property
    def parameters(self) -> int:
        """Number of trained weights."""
        return sum(tensor.numel() for tensor in self.network.parameters())

    def predict(
        self, signal: Any, fs: float, leads: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        """Probabilities of the classes for a whole recording, shape (classes,) float64.

        Parameters
        ----------
        signal
            mV, (samples,) or (leads, samples), any length from one second on.
        fs
            Its sampling rate, Hz; it is resampled to the model's.
        leads
            Names of its rows, in any order and case; a model of several leads needs them.

        Raises
        ------
        EcgpipeError
            Samples that are no numbers, too few of them, or leads that do not fit.
        """
        return self.of_record(from_millivolts(signal, fs, leads), windows=False).probability[-1]

    def over_time(
        self,
        signal: Any,
        fs: float,
        leads: Sequence[str] | None = None,
        every: float | None = None,
    ) -> Prediction:
        """Probabilities of the windows of a long recording.

        Parameters
        ----------
        signal, fs, leads
            As in :meth:`predict`.
        every
            Seconds from the start of a window to that of the next; by default, windows do
            not overlap.

        Raises
        ------
        EcgpipeError
            As in :meth:`predict`, or an ``every`` that is not above 0.
        """
        return self.of_record(from_millivolts(signal, fs, leads), every=every)

    def of_record(
        self,
        record: Record,
        lead: str | None = None,
        every: float | None = None,
        windows: bool = True,
    ) -> Prediction:
        """Predict the classes of a record.

        Parameters
        ----------
        record
            At any rate; other leads than those of the model are ignored.
        lead
            For a model of one lead: which of several is used; by default I, MLII, II or else the
            first.
        every
            As in :meth:`over_time`.
        windows
            False to use only the end of a recording that is longer than the input.

        Raises
        ------
        BadRecord
            Leads that are missing, or a recording that a model of frames cannot fill.
        EcgpipeError
            An ``every`` that is not above 0.
        """
        if every is not None and not every * self.fs >= 1:
            raise EcgpipeError(f"--every {every:g}: at least a sample, {1 / self.fs:g} s")
        used = self.pick(record, lead)
        record = resample(used, self.fs)
        size, extra = self.samples, record.samples - self.samples
        if extra < 0 and not self.card.pads:
            raise BadRecord(
                f"{record.key}: {record.samples / self.fs:g} s, where this network has only seen "
                f"frames of {self.seconds:g} s; give it a longer recording"
            )
        step = size if every is None else round(every * self.fs)
        last = max(extra, 0)
        at = np.array([*(range(0, last, step) if windows else ()), last])
        stop = np.minimum(at + size, record.samples)
        cut = [record.cut(*edges) for edges in zip(at, stop, strict=True)]
        return Prediction(
            name=record.key,
            record=used,
            classes=self.classes,
            many_of=self.answer == "many_of",
            seconds=record.samples / self.fs,
            start=at / self.fs,
            stop=stop / self.fs,
            probability=self._probability(cut),
        )

    def pick(self, record: Record, lead: str | None = None) -> Record:
        """Select the leads of the model, in the order of the model.

        Raises
        ------
        BadRecord
            Some are missing.
        """
        names = {name.lower(): at for at, name in enumerate(record.leads)}
        wanted = self.lead_names
        if len(wanted) == 1:
            preferred = next((names[name] for name in PREFERRED if name in names), 0)
            wanted = (lead or record.leads[preferred],)
        elif lead is not None:
            raise EcgpipeError(f"--lead {lead}: the model wants {len(wanted)} leads; leave it out")
        if missing := [name for name in wanted if name.lower() not in names]:
            raise BadRecord(
                f"{record.key}: lacks {', '.join(missing)} of the leads that are wanted; it has "
                f"{', '.join(record.leads)}"
            )
        at = [names[name.lower()] for name in wanted]
        return replace(
            record,
            leads=tuple(record.leads[i] for i in at),
            signal=record.signal[at],
            gain=record.gain[at],
            baseline=record.baseline[at],
        )

    def _probability(self, windows: Sequence[Record]) -> NDArray[np.float64]:
        batches = (self._batch(windows[at]) for at in chunks(len(windows), BATCH))
        return predict(self.network, batches, self.device, OBJECTIVES[self.answer])[1]

    def _batch(self, windows: Sequence[Record]) -> Batch:
        of = {
            str(number): replace(window, key=str(number)) for number, window in enumerate(windows)
        }
        recordings = Recordings(
            records=of,
            rows={},
            label=dict.fromkeys(of, () if self.answer == "many_of" else 0),
            classes=self.classes,
            fs=self.fs,
            leads=self.lead_names,
            notes=[],
        )
        padded = PaddedSet.of(recordings, self.samples).standardised(*self.standardisation)
        (batch,) = padded.batches(list(of), len(of))
        return batch


def load_model(path: str | Path, device: str = "auto") -> Model:
    """Load a model that `ecgpipe finetune` or `ecgpipe pretrain` made.

    Parameters
    ----------
    path
        A ``model.pt``, or a folder of a run; see :func:`find_model`.
    device
        auto, cpu or cuda; a GPU is taken if there is one.

    Raises
    ------
    EcgpipeError
        No model there, or one that has no classes, such as one pretrained to predict a future.
    """
    file = find_model(to_path(path))
    card, weights = read_model(file)
    if TASKS[card.task].kind == "contrastive":
        raise EcgpipeError(
            f"{file}: was pretrained to tell futures apart and has no classes; "
            "finetune it first, with --init"
        )
    try:
        network = card.network()
        network.load_state_dict(weights)
    except (RuntimeError, ValueError) as error:
        raise EcgpipeError(f"{file}: no model of ecgpipe ({error})") from None
    chosen = choose(Training.model_validate({"device": device, "precision": "fp32"}))
    return Model(file, card, network.to(chosen.device).eval(), chosen)


def find_model(path: Path) -> Path:
    """Find the model file of a path: itself, that of a run, or that of a run's best repeat.

    Of a finetuning's repeats the one with the best validation score is taken, by what chose its
    epoch: macro F1, or the loss where an item has any number of classes. Repeats that are not
    finished count only if none is.

    Raises
    ------
    EcgpipeError
        There is no model.
    """
    if not path.exists():
        raise EcgpipeError(f"{path}: no such model; name a model.pt or the folder of a run")
    if path.is_file() or (path / MODEL).is_file():
        return path if path.is_file() else path / MODEL
    repeats = [folder for folder in sorted(path.glob("repeat-*")) if (folder / MODEL).is_file()]
    if not repeats or not (path / RUN).is_file():
        raise EcgpipeError(f"{path}: no model in it; has the run finished its first epoch?")
    best = TASKS[RunDescription.read(path / RUN).datasets[0]].best
    finished = [folder for folder in repeats if (folder / PREDICTIONS).is_file()]

    def score(folder: Path) -> float:
        values = pd.read_csv(folder / HISTORY)[f"validation_{best}"]
        return -values.min() if best == "loss" else values.max()

    return max(finished or repeats, key=score) / MODEL
