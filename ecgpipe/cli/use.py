"""Commands for what was made: look into a store or a model, use a model, export it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import REFUSED, EcgpipeError
from ..files.paths import local_path, to_path
from ..progress import print_json, say
from .options import AsJson, Store

Model = Annotated[
    Path, typer.Argument(parser=to_path, help="A model.pt, or a run: of repeats, the best.")
]


def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            parser=to_path, help="An archive, a folder of shards, a model.pt, or a run."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Say what a store holds, or what a model is.

    Of a model: its classes and input, what it was trained on, and how it scored.
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
    key: Annotated[str, typer.Argument(help="The record.")],
    out: Annotated[Path, typer.Option(parser=to_path, help="The picture: .png, .svg or .pdf.")],
    start: Annotated[str, typer.Option(help="In the record: s, m:ss or h:mm:ss.")] = "0",
    seconds: Annotated[float, typer.Option(help="How much is drawn, s.")] = 10,
) -> None:
    """Draw a stretch of a record on ECG paper, with its marks."""
    from ..plots.ecg import plot

    print(plot(store, key, out, start, seconds))


def card(
    store: Store,
    out: Annotated[Path, typer.Option(parser=to_path, help="The page.")],
) -> None:
    """Write a data card: one HTML page on what a store holds."""
    from ..reports.data_card import write_card

    print(write_card(store, out))


def predict(
    model: Model,
    records: Annotated[
        list[Path],
        typer.Argument(parser=local_path, help="WFDB, .mat, .csv, .npy or .npz files."),
    ],
    fs: Annotated[float | None, typer.Option(help="Their rate, Hz, where they lack it.")] = None,
    unit: Annotated[
        str | None, typer.Option(help="Of numbers without a header: mV, uV or V. [mV]")
    ] = None,
    gain: Annotated[float | None, typer.Option(help="Or ADC units per mV.")] = None,
    leads: Annotated[
        str | None, typer.Option(help="Names of columns without any: I,II,III,…")
    ] = None,
    lead: Annotated[
        str | None, typer.Option(help="Of several, the one for a model of one lead. [I, MLII, II]")
    ] = None,
    every: Annotated[
        float | None, typer.Option(help="s from window to window in long ones. [its input]")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(parser=to_path, help="Draw the recording and its answer: .png, .svg or .pdf."),
    ] = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="A row for every window.")] = False,
) -> None:
    """Tell the classes of recordings of your own.

    Of one longer than the model's input, over time.
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
    found = output.predict_all(
        network, records, InputFormat(fs, unit, gain, names), lead, every, refused
    )
    if plot:
        from ..plots.timeline import plot_prediction

        drawn = [*found]
        for item in drawn:
            say(f"{plot_prediction(network, item, plot)}: the recording and its answer")
        found = iter(drawn)
    if as_json:
        print_json(output.as_json(network, found))
    else:
        how = output.as_csv if as_csv else output.lines
        for line in how(network, found):
            print(line, flush=True)
    if refused:
        raise typer.Exit(REFUSED)


def export(
    model: Model,
    out: Annotated[Path, typer.Option(parser=to_path, help="The file, .onnx.")],
) -> None:
    """Write a model as ONNX: millivolts in, probabilities out."""
    from ..inference.export import export
    from ..inference.model import load_model

    print(export(load_model(model, "cpu"), out))
