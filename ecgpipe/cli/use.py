"""Commands that show stores and models, and that use a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import REFUSED, EcgpipeError
from ..files.paths import local_path, to_path
from ..progress import print_json, say
from .options import AsJson, Model, Store


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            parser=to_path, help="An archive, a folder of shards, a model.pt, or a run."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show what a store contains, or what a model is.

    For a model: its classes, input, training data and scores.
    """
    from ..storage.inspect import inspect, text

    if path.is_file() or not (path / "recipe.json").is_file():
        from ..inference.model_card import card_text, is_model, model_card

        if is_model(path):
            model = model_card(path)
            print_json(model) if as_json else print(card_text(model))
            return
    facts = inspect(path)
    print_json(facts) if as_json else print(text(facts))


def plot(
    store: Store,
    key: Annotated[str, typer.Argument(help="Key of the record.")],
    out: Annotated[Path, typer.Option(parser=to_path, help="Image file: .png, .svg or .pdf.")],
    start: Annotated[str, typer.Option(help="Start in the record: s, m:ss or h:mm:ss.")] = "0",
    seconds: Annotated[float, typer.Option(help="Duration, s.")] = 10,
) -> None:
    """Draw part of a record on ECG paper, with its annotations."""
    from ..plots.ecg import plot

    print(plot(store, key, out, start, seconds))


def card(
    store: Store,
    out: Annotated[Path, typer.Option(parser=to_path, help="HTML file to write.")],
) -> None:
    """Write a data card: one HTML page that describes a store."""
    from ..reports.data_card import write_card

    print(write_card(store, out))


def predict(
    model: Model,
    records: Annotated[
        list[Path],
        typer.Argument(parser=local_path, help="WFDB, .mat, .csv, .npy or .npz files."),
    ],
    fs: Annotated[
        float | None, typer.Option(help="Sampling rate, Hz, of files that lack it.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Unit in files without a header: mV, uV or V. [mV]")
    ] = None,
    gain: Annotated[float | None, typer.Option(help="Instead of --unit: ADC units per mV.")] = None,
    leads: Annotated[
        str | None, typer.Option(help="Leads of columns without names: I,II,III,…")
    ] = None,
    lead: Annotated[
        str | None, typer.Option(help="Lead for a model of one lead. [I, MLII, II]")
    ] = None,
    every: Annotated[
        float | None, typer.Option(help="Step between windows, s. [length of the input]")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(parser=to_path, help="Draw recording and prediction: .png, .svg or .pdf."),
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print a row per window.")] = False,
) -> None:
    """Predict the classes of recordings.

    A recording longer than the model's input is predicted window by window.
    """
    if as_json and as_csv:
        raise EcgpipeError("--json and --csv: give one of them")
    if plot and len(records) > 1:
        raise EcgpipeError(f"--plot {plot}: draws one recording, and {len(records)} are named")
    from ..inference import predict as output
    from ..inference.inputs import InputFormat
    from ..inference.model import load_model

    names = tuple(name.strip() for name in leads.split(",")) if leads else None
    network = load_model(model)
    refused: list[str] = []
    predictions = output.predict_all(
        network, records, InputFormat(fs, unit, gain, names), lead, every, refused
    )
    if plot:
        from ..plots.timeline import plot_prediction

        drawn = [*predictions]
        for item in drawn:
            say(f"{plot_prediction(network, item, plot)}: the recording and its prediction")
        predictions = iter(drawn)
    if as_json:
        print_json(output.as_json(network, predictions))
    else:
        for line in (output.as_csv if as_csv else output.lines)(network, predictions):
            print(line, flush=True)
    if refused:
        raise typer.Exit(REFUSED)


def export(
    model: Model,
    out: Annotated[Path, typer.Option(parser=to_path, help="File to write: .onnx.")],
) -> None:
    """Write a model as ONNX: input in mV, output as probabilities."""
    from ..inference.export import export
    from ..inference.model import load_model

    print(export(load_model(model, "cpu"), out))
