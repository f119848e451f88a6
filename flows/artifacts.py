"""Artifacts of a step: its progress, its results, its final state.

An artifact is created once and then updated, so that the page of a run has one of each kind.
Their keys come from the output of the step: ``data/archive/mitdb`` has the artifacts
``data-archive-mitdb`` (a page of text), ``data-archive-mitdb-progress`` and, if records were
refused, ``data-archive-mitdb-refused``.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import MarkdownArtifact, ProgressArtifact, TableArtifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.states import State

from ecgpipe.experiments.processes import TRAINING
from ecgpipe.reports.text import plain
from flows.page import import_plots, page_text, refused_records

KINDS: dict[str, Any] = {
    "markdown": MarkdownArtifact,
    "progress": ProgressArtifact,
    "table": TableArtifact,
}
PROGRESS_INTERVAL = 5.0  # s between two updates of the progress
PAGE_INTERVAL = 30.0  # s between two updates of the page, whose figures take longer
_PROGRESS_LINE = re.compile(
    r"(?:prepare|shard|pretrain|finetune) \S+(?P<within>(?: (?:epoch )?\d+/[1-9]\d*)*): "
    r"(?:epoch )?(?P<done>\d+/[1-9]\d*)\b"
)


def key_of(path: str) -> str:
    """Key of the artifact for an output: the last three parts of its path."""
    last = "/".join(path.rstrip("/").split("/")[-3:])
    return re.sub(r"[^a-z0-9]+", "-", last.lower()).strip("-")


def done_share(line: str) -> float | None:
    """Finished share of a step, 0 to 1, from a line of its output; None if the line has none.

    ``finetune beat 2/10 epoch 3/200: 12/90 updates  loss .3`` is 12 of 90 updates in the third of
    200 epochs in the second of 10 repeats.
    """
    found = _PROGRESS_LINE.match(line)
    if not found:
        return None
    done, total = map(int, found["done"].split("/"))
    share = done / total
    for number, of in reversed(re.findall(r"(\d+)/(\d+)", found["within"])):
        share = (int(number) - 1 + share) / int(of)
    return share


@contextmanager
def errors_as_warnings(key: str) -> Iterator[None]:
    """Log an error about an artifact as a warning, because it must not end a training."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning("artifact %s is not up to date: %s", key, error)


class Artifact:
    """An artifact of the current run: created by the first :meth:`show`, then updated."""

    def __init__(self, kind: str, key: str) -> None:
        self.kind, self.key = kind, key
        self.id: UUID | None = None

    def show(self, value: Any, description: str) -> None:
        """Set value and description; call it within :func:`errors_as_warnings`."""
        description = plain(description)
        if self.id is None:
            new = KINDS[self.kind](key=self.key, description=description, **{self.kind: value})
            self.id = new.create().id
        else:
            with get_client(sync_client=True) as client:
                update = ArtifactUpdate(data=value, description=description)
                client.update_artifact(self.id, update)


class StepArtifacts:
    """The artifacts of one step."""

    def __init__(self, command: Sequence[str], output: Path, key: str) -> None:
        self.command, self.output, self.key = shlex.join(("ecgpipe", *command)), output, key
        self.page = Artifact("markdown", key)
        self.progress = Artifact("progress", f"{key}-progress")
        self._progress_time = self._page_time = float("-inf")
        if command[0] in TRAINING:
            import_plots()

    def update(self, line: str) -> None:
        """Show the progress that a line of the step's output reports."""
        share, now = done_share(line), time.monotonic()
        if share is None:
            return
        if now - self._progress_time >= PROGRESS_INTERVAL:
            self._progress_time = now
            with errors_as_warnings(self.progress.key):
                self.progress.show(round(100 * share, 1), line)
        if now - self._page_time >= PAGE_INTERVAL:
            self._page_time = now
            self._show_page("Running", line)

    def finish(self, state: State) -> None:
        """Show the final state of the step."""
        if state.is_completed() and self.progress.id:
            with errors_as_warnings(self.progress.key):
                self.progress.show(100.0, "done")
        self._show_page(state.name or "", state.message or "")
        table = Artifact("table", f"{self.key}-refused")
        with errors_as_warnings(table.key):
            if rows := refused_records(self.output) if state.is_completed() else []:
                table.show(rows, f"{len(rows)} records of {self.output} that were refused")

    def _show_page(self, state: str, message: str) -> None:
        with errors_as_warnings(self.page.key):
            self.page.show(page_text(self.command, self.output), f"{state}: {message}")
