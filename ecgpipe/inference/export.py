"""Models as ONNX files, for programs without PyTorch: millivolts in, probabilities out."""

from __future__ import annotations

import json
import logging
import warnings
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ..errors import EcgpipeError
from ..files.atomic import write_bytes
from .model import Model

NEEDED = ("onnx", "onnxscript")


class ExportedModel(nn.Module):
    """A network with standardisation and padding before it, and probabilities behind it.

    Parameters
    ----------
    model
        The trained model.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        self.samples = model.samples
        self.mean, self.std = model.standardisation
        self.is_one_of = model.answer == "one_of"

    def forward(self, signal: Tensor) -> Tensor:
        """Probabilities (B, classes) of signals (B, L, T), float32, in mV at the model's rate.

        Shorter signals get zeros in front, after standardisation; of longer ones the end is used.
        Padding every signal and keeping the last samples does both without a branch.
        """
        x = nn.functional.pad((signal - self.mean) / self.std, (self.samples, 0))
        scores = self.network(x[:, :, -self.samples :])
        return scores.softmax(1) if self.is_one_of else scores.sigmoid()


def export(model: Model, out: Path) -> Path:
    """Write a model as ONNX.

    The graph has the input ``signal`` (batch, leads, samples), float32, mV at the model's rate, of
    any batch and number of samples, and the output ``probability`` (batch, classes), float32.
    ``metadata_props`` holds classes, leads (JSON lists), fs (Hz), seconds, answer (one_of or
    many_of), task and the digest of the run.

    Parameters
    ----------
    out
        The file, ``.onnx``.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    EcgpipeError
        A required package is not installed, or ``out`` has another extension.
    """
    if missing := [name for name in NEEDED if not find_spec(name)]:
        raise EcgpipeError(
            f"export: {', '.join(missing)} not installed; pip install 'ecgpipe[onnx]'"
        )
    if out.suffix != ".onnx":
        raise EcgpipeError(f"{out}: name a file that ends in .onnx")
    program = _program(model)
    program.model.metadata_props.update(
        {
            "classes": json.dumps(list(model.classes)),
            "leads": json.dumps(list(model.lead_names)),
            "fs": f"{model.fs:g}",
            "seconds": f"{model.seconds:g}",
            "answer": model.answer,
            "task": model.card.task,
            "run": str(model.card.run.digest),
        }
    )
    with TemporaryDirectory(prefix="ecgpipe-") as folder:
        file = Path(folder) / out.name
        program.save(str(file), external_data=False)
        write_bytes(out, file.read_bytes())
    return out


def _program(model: Model) -> torch.onnx.ONNXProgram:
    """The network as an ONNX program, without the warnings of the exporter."""
    example = torch.zeros(2, len(model.lead_names), model.samples)
    batch, samples = torch.export.Dim("batch"), torch.export.Dim("samples")
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                deepcopy(ExportedModel(model)).cpu().eval(),
                (example,),
                input_names=["signal"],
                output_names=["probability"],
                dynamic_shapes={"signal": {0: batch, 2: samples}},
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.disable(logging.NOTSET)
    assert program
    return program
