"""What a run's page on Prefect's server shows of a step: how far it is, what it made, how it went.

Artifacts are made once and then kept up to date in place, so that a page has one of each however
long the run. They are named after what the step makes: ``data/archive/mitdb`` has the artifacts
``data-archive-mitdb`` (the story), ``data-archive-mitdb-progress`` and, if records were refused,
``data-archive-mitdb-refused``.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import MarkdownArtifact, ProgressArtifact, TableArtifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from ecgpipe.reports.text import plain
from flows.story import refused, story

Kind = Literal["markdown", "progress", "table"]
KINDS: dict[Kind, Any] = {
    "markdown": MarkdownArtifact,
    "progress": ProgressArtifact,
    "table": TableArtifact,
}
EVERY = 5.0  # s between two updates of the progress
REDRAWN = 30.0  # s between two updates of the page, whose figures take some work
_LINE = re.compile(
    r"(?:prepare|shard|pretrain|finetune) \S+(?P<within>(?: (?:epoch )?\d+/[1-9]\d*)*): "
    r"(?:epoch )?(?P<done>\d+/[1-9]\d*)\b"
)


def name_of(path: str) -> str:
    """Name of the artifact of what lies at a path: its last three parts, as a key has to be."""
    last = "/".join(path.rstrip("/").split("/")[-3:])
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")


def share(line: str) -> float | None:
    """How much of a step is done, 0 to 1, by one of its lines; None where the line does not say.

    ``finetune beat 2/10 epoch 3/200: 12/90 updates  loss .3`` is 12 of 90 within the third of 200
    within the second of 10.
    """
    found = _LINE.match(line)
    if not found:
        return None
    done, total = map(int, found["done"].split("/"))
    part = done / total
    for number, of in reversed(re.findall(r"(\d+)/(\d+)", found["within"])):
        part = (int(number) - 1 + part) / int(of)
    return part


@contextmanager
def spared(key: str) -> Iterator[None]:
    """Make what goes wrong with an artifact a warning: no page is worth the end of a training."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning("artifact %s is not up to date: %s", key, error)


class Live:
    """An artifact of the run at hand: made when it is first shown, then kept up to date."""

    def __init__(self, kind: Kind, key: str) -> None:
        self.kind, self.key = kind, key
        self.id: UUID | None = None

    def show(self, value: Any, about: str) -> None:
        """Show a value, with a line about it; call it within :func:`spared`, with the drawing."""
        about = plain(about)
        if self.id is None:
            new = KINDS[self.kind](key=self.key, description=about, **{self.kind: value})
            self.id = new.create().id
        else:
            with get_client(sync_client=True) as client:
                client.update_artifact(self.id, ArtifactUpdate(data=value, description=about))


class StepArtifacts:
    """The artifacts of one step."""

    def __init__(self, command: Sequence[str], output: Path, key: str) -> None:
        self.command, self.output, self.key = shlex.join(("ecgpipe", *command)), output, key
        self.page = Live("markdown", key)
        self.progress = Live("progress", f"{key}-progress")
        self._told = self._drawn = float("-inf")

    def hear(self, line: str) -> None:
        """Take in a line of the step."""
        part, now = share(line), time.monotonic()
        if part is None:
            return
        if now - self._told >= EVERY:
            self._told = now
            with spared(self.progress.key):
                self.progress.show(round(100 * part, 1), line)
        if now - self._drawn >= REDRAWN:
            self._drawn = now
            self._show("Running", line)

    def end(self, state: str, message: str, done: bool = False) -> None:
        """Show how the step ended; ``done`` is whether it did what it should."""
        if done and self.progress.id:
            with spared(self.progress.key):
                self.progress.show(100.0, "done")
        self._show(state, message)
        with spared(f"{self.key}-refused"):
            if rows := refused(self.output) if done else []:
                about = f"{len(rows)} records of {self.output} that were refused"
                Live("table", f"{self.key}-refused").show(rows, about)

    def _show(self, state: str, message: str) -> None:
        with spared(self.page.key):
            self.page.show(story(self.command, self.output), f"{state}: {message}")
