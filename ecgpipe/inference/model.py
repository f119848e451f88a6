"""A trained network as a thing to use: recordings in, probabilities out.

A recording goes the way that the training's recordings went: mV, standardised, at the model's
rate, zeros in front up to the model's ``seconds``; a longer one keeps its last ``seconds``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BadRecord, EcgpipeError
from ..loading.recordings import PaddedSet, Recordings, chunks
from ..models.resnet import ResNet
from ..storage.resample import resample
from ..tasks.objectives import OBJECTIVES
from ..training.device import Device
from ..training.loop import predict
from ..training.run_description import ModelCard
from ..types import Batch, Record
from .inputs import from_millivolts

BATCH = 32  # windows that are computed at once
YES = 0.5  # probability from which a class of many is answered
# Of several leads, for a model of one: the lead of hand-held recorders and of the Icentia11k patch
# (modified), then those of Holter monitors.
PREFERRED = ("i", "mlii", "ii")


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model says of a recording, over windows one after another.

    Attributes
    ----------
    key
        The recording.
    leads
        Those that were used.
    seconds
        Its length, s.
    start, stop
        (windows,) s from its start; the last window ends with the recording.
    probability
        (windows, classes); the last row is the model's own answer for the whole recording, since
        training, too, keeps the last ``seconds`` of what is longer.
    """

    key: str
    leads: tuple[str, ...]
    seconds: float
    start: NDArray[np.float64]
    stop: NDArray[np.float64]
    probability: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network with all that its use takes.

    Attributes
    ----------
    path
        Its file.
    card
        What the file holds beside the weights: classes, rate, leads, statistics, the run.
    network
        The network, ready to answer.
    device
        Where it computes; always in float32.
    """

    path: Path
    card: ModelCard
    network: ResNet
    device: Device

    @property
    def classes(self) -> tuple[str, ...]:
        """What it tells apart, in the order of the probabilities."""
        return tuple(self.card.classes)

    @property
    def answer(self) -> str:
        """``one_of``: the probabilities add up to 1; ``many_of``: each class has its own."""
        return self.card.answer

    @property
    def fs(self) -> float:
        """Sampling rate of its input, Hz."""
        return self.card.fs

    @property
    def lead_names(self) -> tuple[str, ...]:
        """The leads it wants, in this order; where it is one, any lead will do."""
        return tuple(self.card.lead_names)

    @property
    def seconds(self) -> float:
        """Length of its input, s."""
        return self.samples / self.fs

    @property
    def samples(self) -> int:
        """Length of its input, samples."""
        return self.card.samples

    @property
    def standardisation(self) -> tuple[float, float]:
        """Mean and standard deviation that its input is standardised with, mV."""
        return self.card.mean_mV, self.card.std_mV

    @cached_property
    def parameters(self) -> int:
        """Number of weights that were learnt."""
        return sum(tensor.numel() for tensor in self.network.parameters())

    def predict(
        self, signal: Any, fs: float, leads: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        """Probabilities of the classes for a recording as a whole, shape (classes,).

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
    ) -> Answer:
        """Probabilities over the time of a long recording, window by window.

        Parameters
        ----------
        signal, fs, leads
            As in :meth:`predict`.
        every
            Seconds from the start of a window to that of the next; without it windows lie one
            behind the other.

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
    ) -> Answer:
        """What the model says of a record.

        Parameters
        ----------
        record
            At any rate, with the leads the model wants among its own.
        lead
            For a model of one lead: which of several is taken; MLII, II or else the first, if
            nothing is said.
        every
            As in :meth:`over_time`.
        windows
            Whether a recording longer than the input is gone through from its start; else its
            end alone is.

        Raises
        ------
        BadRecord
            Leads that are missing, or a recording that a model of frames cannot fill.
        EcgpipeError
            An ``every`` that is not above 0.
        """
        if every is not None and not every * self.fs >= 1:
            raise EcgpipeError(f"--every {every:g}: at least a sample, {1 / self.fs:g} s")
        record = resample(self.pick(record, lead), self.fs)
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
        return Answer(
            record.key,
            record.leads,
            record.samples / self.fs,
            at / self.fs,
            stop / self.fs,
            self._probability([_cut(record, *edges) for edges in zip(at, stop, strict=True)]),
        )

    def pick(self, record: Record, lead: str | None = None) -> Record:
        """The record with the model's leads alone, in the model's order.

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


def _cut(record: Record, start: int, stop: int) -> Record:
    return replace(record, signal=record.signal[:, start:stop])
