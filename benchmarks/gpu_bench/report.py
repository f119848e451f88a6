"""The report on all calls of `gpu.py` so far, from ``results.jsonl`` and ``repeats.zip``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ecgpipe.reports.paper import REPEATS
from ecgpipe.reports.results import compare
from ecgpipe.reports.text import fixed, markdown, mean_std, p_value, signed

from .rows import PRETRAINED, RANDOM, Kept, Repeat, Row, groups, of_paper

RESULTS = "results.jsonl"
Line = dict[str, Any]
AIMS = """Aims on one H200 or H100: ResNet-18 pretraining at 100,000 frames a second or more, the
GPU waiting for data under 2 % of the time; ten finetunings on 75 % of CinC 2017 in under 10
minutes, on 25 % in under 4."""
SMALL = """A hundredth of the set to train, to validate and to test, 5 s of each recording, two
epochs: these scores mean nothing.
"""
NO_GPU = """**No GPU has been at hand so far.** What follows is the small run of the same script on
a CPU. It shows that every stage works; none of its speeds or scores is a claim about a GPU."""


def lines(out: Path) -> list[Line]:
    """All lines of results; one that was cut off is left out."""
    found, file = [], out / RESULTS
    for text in file.read_text().splitlines() if file.exists() else []:
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return found


def write(out: Path) -> Path:
    """Write ``out.md``; gives its path."""
    path = out.with_name(f"{out.name}.md")
    partial = path.with_suffix(".partial")
    partial.write_text(text(lines(out), Kept(out)))
    partial.replace(path)
    return path


def text(found: list[Line], kept: Kept) -> str:
    gpus = any(line["gpu"] for line in found)
    parts = [
        "# On a GPU\n",
        "Written by `python benchmarks/gpu.py`, which says how to run it in its first lines.\n",
        AIMS + "\n",
        "" if gpus else NO_GPU + "\n",
        "## The paper's rows\n",
        rows(kept),
    ]
    machines = dict.fromkeys((not line["gpu"], line["machine"]) for line in found)
    for _, machine in sorted(machines):
        own = [line for line in found if line["machine"] == machine]
        parts += [f"## {machine}\n", *sections(own)]
    if small := [name for name, _ in kept.repeats if name.startswith("small-")]:
        parts += [
            "## Small rows, to try the script\n",
            SMALL,
            small_rows(kept, dict.fromkeys(small)),
        ]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def rows(kept: Kept) -> str:
    """Every row beside the paper's; those that are missing, too."""
    body = []
    for row in (*RANDOM, *PRETRAINED):
        title = describe(row)
        cell = of_paper(row)
        theirs = cell.scores["macro_f1"] if cell else None
        scored = groups(kept, row.name)
        if not scored:
            body.append([title, f"0 of {REPEATS}", "", mean_std(theirs), "", "missing"])
        for members, ours in scored:
            beside = compare(ours, theirs) if theirs else None
            what = f"{signed(beside.difference)} {p_value(beside.p)}" if beside else ""
            given = f"{len(members)} of {REPEATS}"
            body.append([title, given, mean_std(ours), mean_std(theirs), what, made(members)])
    header = ["CinC 2017", "repeats", "macro F1", "paper", "difference", "made"]
    return (
        "Macro F1 on the test set of the complete CinC 2017 (labels v3; the paper's code read v2), "
        "mean ± standard deviation over repeats; p of Welch's test on the two means. Rows from "
        "pretrainings on CinC 2017's own training part and whatever else was at hand have no "
        "number in the paper.\n\n" + markdown(header, body)
    )


def describe(row: Row) -> str:
    share = f"{100 * (row.share or 0.75):g} %, {row.fs} Hz, ResNet-{row.depth}"
    return f"{row.start}: {share}"


def made(members: Iterable[Repeat]) -> str:
    """Machines and days of some repeats."""
    places = {(one.told["machine"], one.told["date"][:10]) for one in members}
    return "; ".join(f"{machine}, {day}" for machine, day in sorted(places))


def small_rows(kept: Kept, names: Iterable[str]) -> str:
    body = [
        [name, str(len(members)), mean_std(ours), made(members)]
        for name in names
        for members, ours in groups(kept, name)
    ]
    return markdown(["row", "repeats", "macro F1", "made"], body)


def sections(own: list[Line]) -> list[str]:
    """What was measured on one machine, the last of each measurement."""
    last = {(line["stage"], line["name"]): line for line in own}

    def of(stage: str) -> dict[str, Mapping[str, Any]]:
        return {name: line["values"] for (s, name), line in last.items() if s == stage}

    begun = [line for line in own if line["stage"] == "call" and line["name"] == "begun"]
    calls = [f"{line['date']} ({number(line['values']['minutes'])} min)" for line in begun]
    parts = [f"Calls: {', '.join(calls)}." + (" Small sizes." if own[-1]["small"] else "") + "\n"]
    for stage, title in TITLES.items():
        if values := of(stage):
            drawn = facts(values) if stage == "machine" else table(values)
            parts += [f"### {title}\n", NOTES.get(stage, ""), drawn]
    ends = [[name, str(value["ended"])] for stage in ("stage", "rows")
            for name, value in of(stage).items()]  # fmt: skip
    return [*parts, "### How the stages ended\n", markdown(["stage or row", "ended"], ends)]


TITLES = {  # of the stages, in this order
    "machine": "What the machine gives",
    "right": "Right first",
    "speed": "How fast it trains, from its own memory",
    "loader": "Through the loader",
    "sweep": "Other batches and networks",
    "pretraining": "Pretraining",
}
NOTES = {
    "right": "Relative differences from float64 on the CPU, as norms over all elements, of one "
    "update; right is what differs by 1e-4 (fp32) or 1e-2 (bf16) at the most, or by twice (scores, "
    "loss) or ten times (gradient, weights) as much as the CPU does in that precision: gradients "
    "of deep networks jump wherever rounding moves a value over the corner of a ReLU.\n",
    "speed": "Frames a second (of future prediction frames, not contexts; at 15,000 samples "
    "recordings), forward, backward and update, bf16 where the device has it. Operations and bytes "
    "of a frame are counted, bounds are those of the products and copies above. On a CPU nothing "
    "is replayed: both ways launch.\n",
}


def facts(values: Mapping[str, Mapping[str, Any]]) -> str:
    """Measurements that have nothing in common, a line each."""
    body = [
        [name, ", ".join(f"{key.replace('_', ' ')} {number(v)}" for key, v in value.items())]
        for name, value in values.items()
    ]
    return markdown(["", "measured"], body)


def table(values: Mapping[str, Mapping[str, Any]]) -> str:
    """Measurements as rows; columns are what any of them gave."""
    columns = list(dict.fromkeys(key for value in values.values() for key in value))
    columns = [c for c in columns if c not in ("network", "samples", "batch", "way")]
    body = [[name, *(number(value.get(c, "")) for c in columns)] for name, value in values.items()]
    return markdown(["", *(c.replace("_", " ") for c in columns)], body)


def number(value: Any) -> str:
    """A value as text: three figures, thousands apart, numbers under 1 without the zero."""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 1:
        return fixed(value)
    return (
        f"{value:.1e}"
        if abs(value) < 0.01
        else f"{value:,.{max(0, 2 - len(str(int(abs(value)))))}f}"
    )
