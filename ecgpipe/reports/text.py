"""Numbers, tables and pages as text, in the notation of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

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
    """As in the paper, ``.731 ± .019``; the mean alone where there is no standard deviation."""
    if score is None:
        return DASH
    return fixed(score.mean) + ("" if score.std is None else f"\xa0±\xa0{fixed(score.std)}")


def mean_std_n(score: Score, note: str = "") -> str:
    """Mean and standard deviation; in brackets the note and the number of repeats."""
    return f"{mean_std(score)} ({note}{score.n} repeat{'s' if score.n > 1 else ''})"


def fixed(value: float | None, sign: str = "") -> str:
    """Three decimals without the leading zero, or a dash; with ``sign="+"``, always a sign."""
    if value is None or value != value:
        return DASH
    text = f"{value:{sign}z.3f}"  # z: no minus sign before zero
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text


def signed(value: float | None) -> str:
    """Three decimals with their sign, or a dash."""
    return fixed(value, "+").replace("-", MINUS)


def percent(value: float | None) -> str:
    """A share as a percentage with its sign, or a dash."""
    return DASH if value is None else f"{100 * value:+z.1f}\xa0%".replace("-", MINUS)


def p_value(p: float | None) -> str:
    """The p of a test: ``p = .031``, two decimals from .1 on; empty without a p."""
    if p is None:
        return ""
    if p < 0.001:
        return "p\xa0<\xa0.001"
    shown = f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"
    return f"p\xa0=\xa0{shown.removeprefix('0')}"


def plain(text: str) -> str:
    """Escape text for Markdown: one line without tags, ends of table cells and strikethrough."""
    text = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(text.replace("~", "\\~").splitlines())


def markdown_cell(text: str) -> str:
    """Escape a cell of a Markdown table; its lines stay lines."""
    return "<br>".join(map(plain, text.split("\n")))


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table of plain text."""
    head, *rows = (" | ".join(map(markdown_cell, row)) for row in (header, *body))
    rule = " | ".join(["---"] * len(header))
    return "".join(f"| {line} |\n" for line in (head, rule, *rows))


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; in HTML, values are escaped."""
    environment = Environment(
        loader=PackageLoader("ecgpipe", "reports"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (mean_std, fixed, plain, markdown_cell)
    environment.filters |= {of.__name__: of for of in filters}
    return environment.get_template(template).render(values)
