"""Numbers and tables as text, the way the paper prints them."""

from __future__ import annotations

from collections.abc import Sequence

from .paper import Score

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
METRICS = {
    "macro_f1": "Macro F1",
    "auc": "AUC",
    "fmax": "Fmax",
    "f_beta": "F\xa0(β\xa0=\xa02)",
    "g_beta": "G\xa0(β\xa0=\xa02)",
}
NAMED = {**METRICS, "macro_f1": "macro F1"}  # within a sentence
CLASS_NAMES = {"N": "Normal", "A": "AF", "O": "Other", "~": "Noisy"}  # of CinC 2017


def mean_std(score: Score | None) -> str:
    """As the paper prints it: ``.731 ± .019``; the mean alone where there is no deviation."""
    if score is None:
        return DASH
    return fixed(score.mean) + ("" if score.std is None else f"\xa0±\xa0{fixed(score.std)}")


def fixed(value: float | None) -> str:
    """Three decimals without the leading zero, or a dash."""
    if value is None or value != value:
        return DASH
    text = f"{value:z.3f}"  # z: nothing is no less than nothing
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def signed(value: float | None) -> str:
    """Three decimals with their sign, or a dash."""
    if value is None:
        return DASH
    return ("+" if round(value, 3) >= 0 else MINUS) + fixed(abs(value))


def percent(value: float | None) -> str:
    """A share as a percentage with its sign, or a dash."""
    if value is None:
        return DASH
    return ("+" if round(100 * value, 1) >= 0 else MINUS) + f"{100 * abs(value):.1f}\xa0%"


def p_value(p: float | None) -> str:
    """The p of a test: ``p = .031``, two decimals from .1 on; nothing where there is none."""
    if p is None:
        return ""
    if p < 0.001:
        return "p\xa0<\xa0.001"
    shown = f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"
    return f"p\xa0=\xa0{shown.removeprefix('0')}"


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; what would end a cell or be a tag is made harmless, lines stay lines."""
    lines = [header, ["---"] * len(header), *body]
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return "<br>".join(plain(line) for line in text.split("\n"))


def plain(text: str) -> str:
    """Text for Markdown: on one line, and neither a column's end nor a tag in it."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    text = text.replace("~", "\\~")  # two of them would strike out what is between them
    return " ".join(text.splitlines())
