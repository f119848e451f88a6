"""What ecgpipe does on a GPU: right first, then how fast, then the paper's first rows.

    python benchmarks/gpu.py --shards SHARDS… --out DIR --minutes 8 [--upstream SHARDS…]
        [--device auto] [--again STAGE…]

SHARDS are CinC 2017 at 250 Hz (and at 128 Hz, for that row); upstream ones are pretrained on too.
The stages run in the order of their worth, each in a process of its own and with a limit, until the
minutes are over. Every measurement is written when it is made, to ``DIR/results.jsonl``, and every
finished repeat of a row to ``DIR/repeats.zip``; ``DIR.md`` is the report on all calls so far. The
next call, on this machine or on another to which DIR is brought, goes on with what is missing. On a
CPU, with ``--device cpu``, everything runs small, to try the script.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_bench import report as gpu_report
from gpu_bench import rows as gpu_rows
from gpu_bench.rows import Kept

from ecgpipe.errors import EcgpipeError
from ecgpipe.storage.store import Store

# s at the most for each stage; most end early. What is left of the minutes is for the rows, of
# which the first comes before the sweep of batches and networks.
LIMITS = {"machine": 40, "right": 120, "speed": 150, "loader": 50, "sweep": 120}
PRETRAINING_LIMIT = 180  # s
LAST = 15  # s that are kept for ending what runs and for the report
SAVING = 10  # s that a training gets to save after it was asked to end


@dataclass(frozen=True)
class Call:
    """One call of this script."""

    out: Path
    device: str
    shards: list[Path]
    upstream: list[Path]
    again: list[str]
    facts: dict[str, Any]  # date, machine, whether it has a GPU, and whether sizes are small
    end: float  # monotonic s

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    @property
    def work(self) -> Path:
        """Runs that are not finished; a call in the same place continues them."""
        place = hashlib.sha256(str(self.out.resolve()).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"ecgpipe-gpu-{place}"

    def write(self, stage: str, name: str, values: dict[str, Any]) -> None:
        """Add a line of results; a line that is cut off is no line."""
        line = {**self.facts, "stage": stage, "name": name, "values": values}
        with (self.out / gpu_report.RESULTS).open("a") as file:
            file.write(json.dumps(line) + "\n")
        words = ", ".join(f"{k} {gpu_report.number(v)}" for k, v in values.items())
        print(f"{stage}: {name}: {words}"[:400], flush=True)

    def known(self) -> dict[str, dict[str, Any]]:
        """What was measured on such a machine before, by stage/name; errors are tried again."""
        return {
            f"{line['stage']}/{line['name']}": line["values"]
            for line in gpu_report.lines(self.out)
            if (line["machine"], line["small"]) == (self.facts["machine"], self.facts["small"])
            and "error" not in line["values"]
        }


def ended(command: list[str], limit: float, each: Callable[[], None] = lambda: None) -> str:
    """Run a command for some seconds at the most; gives how it ended. ``each`` is called often."""
    end = time.monotonic() + limit
    process = subprocess.Popen(command, process_group=0)
    try:
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.25)
            each()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(SAVING)
            return f"cut off after {limit:.0f} s"
        return "finished" if process.returncode == 0 else f"exit code {process.returncode}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        each()


def run_stage(call: Call, stage: str) -> None:
    """One stage in a process of its own; after a crash the measurements behind it get a chance."""
    if call.left < 10:
        return
    end = time.monotonic() + min(LIMITS[stage], call.left)
    command = [sys.executable, __file__, "--stage", stage, "--facts", json.dumps(call.facts)]
    command += ["--out", str(call.out), "--device", call.device, "--again", *call.again]
    command += ["--shards", *map(str, call.shards), "--upstream", *map(str, call.upstream)]
    for _ in range(3):
        how = ended(command, end - time.monotonic())
        call.write("stage", stage, {"ended": how})
        if not how.startswith("exit code") or end - time.monotonic() < 10:
            break
    gpu_report.write(call.out)


def measure_stage(call: Call, stage: str) -> None:
    """The process of a stage: whatever is not known is measured."""
    import torch
    from gpu_bench.bench import Bench
    from gpu_bench.stages import measure

    known = call.known()
    bench = Bench(call.device, call.facts["small"], call.shards, call.upstream, known)
    tried = {f"{line['stage']}/{line['name']}" for line in gpu_report.lines(call.out)
             if line["date"] == call.facts["date"]}  # fmt: skip
    skip = tried if stage in call.again else tried | known.keys()
    wanted = {name.partition("/")[2] for name in skip if name.startswith(f"{stage}/")}
    for name, values in measure(bench, stage, wanted):
        call.write(stage, name, values)
        if "error" in values and call.facts["gpu"]:
            try:
                torch.cuda.synchronize()
            except RuntimeError:  # nothing works on the GPU any more in this process
                sys.exit(1)


def fastest(call: Call) -> dict[str, Any]:
    """How the rows are trained, by what was measured: repeats at a time, compiled or not."""
    how: dict[str, Any] = {"device": call.device}
    known = {k.partition("/")[2]: v for k, v in call.known().items() if k.startswith("speed/")}
    of = {v["way"]: v["frames_s"] for v in known.values() if v.get("samples", 0) >= 15_000
          and v.get("network") == "ResNet-18" and "processes" not in v}  # fmt: skip
    if call.facts["small"]:
        return how | {"parallel": 2}
    base = of.get("replayed", 0.0)
    if of.get("compiled", 0.0) > 1.1 * base > 0:
        how["compile"] = "default"
    together = {v["processes"]: v["frames_s"] for v in known.values() if "processes" in v}
    best = max(together, key=lambda n: together[n], default=1)
    if base and together.get(best, 0.0) > 1.05 * base:
        how["parallel"] = best
    return how


def run_rows(call: Call, rows: Sequence[gpu_rows.Row]) -> None:
    for how in train_rows(call, Kept(call.out), rows):
        name, _, end = how.partition(": ")
        call.write("rows", name, {"ended": end})
        gpu_report.write(call.out)


def train_rows(call: Call, kept: Kept, rows: Sequence[gpu_rows.Row]) -> Iterator[str]:
    """Train what is missing of ten repeats of each row; gives what became of them."""
    stores, small = [Store(path) for path in call.shards], call.facts["small"]
    for row in rows:
        if call.left < 20:
            return
        store = gpu_rows.shards_for(row, stores)
        if store is None:
            yield f"{row.name}: no shards of {row.downstream} at {row.fs} Hz were given"
            continue
        settings = gpu_rows.settings_of(row, small, fastest(call))
        wanted = gpu_rows.protocol(row, settings, store, small)
        name = ("small-" if small else "") + row.name
        init = "random"
        if row.start != "random":
            init = str(call.work / f"pretrain-{row.start}")
            if (how := pretrain(call, row.start, Path(init))) != "finished":
                yield f"{row.name}: pretraining {how}"
                continue
        run = call.work / name
        if kept.restore(name, run, wanted) >= settings.repeats:
            continue
        call.work.mkdir(parents=True, exist_ok=True)
        file = call.work / f"{name}.json"
        file.write_text(settings.model_dump_json())
        told = {"protocol": wanted, **call.facts}

        def keep(name: str = name, run: Path = run, told: dict[str, Any] = told) -> None:
            for one in kept.take(name, run, told):
                print(f"{name}: repeat {one.number}: {one.told['scores']}", flush=True)
                gpu_report.write(call.out)

        command = [sys.executable, "-m", "ecgpipe", "finetune", str(store.path), "--out", str(run)]
        how = ended([*command, "--init", init, "--config", str(file)], call.left, keep)
        done = len(kept.of(name))
        yield f"{name}: {done} of {settings.repeats} repeats, {how}"


def pretrain(call: Call, start: str, run: Path) -> str:
    """Pretrain on the signals at hand, without those that finetuning tests on."""
    if (run / "predictions.csv").exists():
        return "finished"
    settings = gpu_rows.pretrain_settings(
        start, call.facts["small"], device=call.device,
        workers=0 if call.facts["small"] else min(16, os.cpu_count() or 1), streams=16,
    )  # fmt: skip
    call.work.mkdir(parents=True, exist_ok=True)
    file = call.work / f"{run.name}.json"
    file.write_text(settings.model_dump_json())
    command = [sys.executable, "-m", "ecgpipe", "pretrain", *map(str, gpu_rows.at_250(call.shards))]
    command += map(str, call.upstream)
    command += ["--out", str(run), "--config", str(file)]
    began = time.monotonic()
    how = ended(command, min(call.left, PRETRAINING_LIMIT))
    values: dict[str, Any] = {"ended": how, "seconds": time.monotonic() - began}
    if (run / "history.csv").exists():
        values |= gpu_rows.last_epoch(run / "history.csv")
    call.write("pretraining", start, values)
    return how


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--upstream", type=Path, nargs="*", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--again", nargs="*", default=[], metavar="STAGE")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--facts", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if wrong := set(args.again) - LIMITS.keys():
        parser.error(f"--again: no stage {', '.join(wrong)}; there are {', '.join(LIMITS)}")
    for path in (*args.shards, *args.upstream):
        try:
            kind = Store(path).recipe.kind
        except EcgpipeError as error:
            parser.error(str(error))
        if kind != "shards":
            parser.error(f"{path}: is an archive; run `ecgpipe shard` and name its result")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is ended on the way out
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    facts = json.loads(args.facts) if args.facts else look(args.device)
    call = Call(
        args.out, args.device, args.shards, args.upstream, args.again, facts,
        began + 60 * args.minutes - LAST,
    )  # fmt: skip
    if args.stage:
        measure_stage(call, args.stage)
        return
    call.write("call", "begun", {"minutes": args.minutes})
    first, *others = gpu_rows.chosen(facts["small"])
    for stage in ("machine", "right", "speed", "loader"):
        run_stage(call, stage)
    run_rows(call, [first])
    run_stage(call, "sweep")
    run_rows(call, others)
    call.write("call", "ended", {"seconds": time.monotonic() - began})
    print(gpu_report.write(call.out))


def look(device: str) -> dict[str, Any]:
    """Date and machine, asked in a process of its own: whoever asks a GPU holds memory of it."""
    asked = (
        "import json, sys; from ecgpipe.config import PretrainSettings, load; "
        "from ecgpipe.training.device import choose; "
        "one = choose(load(PretrainSettings, device=sys.argv[1])); "
        "print(json.dumps({'machine': one.describe()['machine'], 'gpu': one.is_gpu}))"
    )
    done = subprocess.run([sys.executable, "-c", asked, device], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"gpu.py: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": now, **found, "small": not found["gpu"]}


if __name__ == "__main__":
    main()
