"""Which of a recording's statements count as classes: the categories of PTB-XL, say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import EcgpipeError

ALL = "all"  # the category that every set with statements has


@dataclass(frozen=True)
class Selection:
    """A category of statements: the classes of a multi-label task."""

    category: str
    classes: tuple[str, ...]  # in the order of a task's outputs
    class_of: Mapping[str, str]  # by the source's own statement


def select_statements(
    category: str, groups: Mapping[str, Mapping[str, str]], statements: Sequence[str]
) -> Selection:
    """The classes of a category, in the order in which the source lists their statements.

    Parameters
    ----------
    category
        A key of ``groups``, or ``all``.
    groups
        Category → statement → class, as the source has them; empty where it has none.
    statements
        All statements of the set, in its order: PTB-XL's rhythms then come as the paper has them.

    Raises
    ------
    EcgpipeError
        No such category, or a set without statements.
    """
    known = {ALL: {code: code for code in statements}, **groups}
    if not statements:
        raise EcgpipeError(f"{category}: these records have no statements to choose among")
    if category not in known:
        raise EcgpipeError(
            f"no category {category!r} of statements; there are: {', '.join(sorted(known))}"
        )
    class_of = dict(known[category])
    classes = dict.fromkeys(class_of[code] for code in statements if code in class_of)
    return Selection(category, tuple(classes), class_of)


def chosen_classes(statements: Iterable[str], selection: Selection) -> tuple[str, ...]:
    """The classes of one recording, each once, in the selection's order; empty: excluded."""
    found = {selection.class_of[code] for code in statements if code in selection.class_of}
    return tuple(name for name in selection.classes if name in found)


def why_excluded(statements: Sequence[str], selection: Selection) -> str:
    """The reason to list for a recording without any class."""
    return (
        f"no class of the category {selection.category} among its statements: "
        f"{' '.join(statements) or 'it has none'}"
    )
