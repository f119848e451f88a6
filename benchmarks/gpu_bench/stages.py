"""The measurements of a stage, by name, in the order of their worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .bench import Bench, Measured
from .machine import loader, machine
from .right import right
from .speed import speed, sweep

STAGES: dict[str, Callable[[Bench], dict[str, Callable[[], Measured]]]] = {
    "machine": machine,
    "right": right,
    "speed": speed,
    "loader": loader,
    "sweep": sweep,
}


def measure(bench: Bench, stage: str, skip: set[str]) -> Iterator[tuple[str, Measured]]:
    """Measurements of a stage one after another; what fails says so, and the others go on."""
    for name, call in STAGES[stage](bench).items():
        if name in skip:
            continue
        try:
            found = call()
        except Exception as error:  # whatever it is, the next measurement may still work
            found = {"error": f"{type(error).__name__}: {error}"[:1000]}
        yield name, found
