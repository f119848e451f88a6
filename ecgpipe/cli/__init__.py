"""The command line: each command thin over a plain function, imported when it is called.

What a command made is told on standard output, in a line or, with ``--json``, as JSON; progress,
refusals and errors go to standard error. Exit codes: 0 done, 2 a mistake of the call, its settings
or its files, 3 done but some records were refused, 4 a store or run is damaged, 5 another process
writes to the same folder, 6 a file or place behind a URL cannot be reached, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import typer
from typer.core import TyperCommand

from ..errors import INTERRUPTED, MISTAKE, UNREACHABLE, EcgpipeError, Interrupted
from ..files.paths import cache_folder, is_connection_error
from . import data, train, use
from .options import settings_help

app = typer.Typer(
    help="From raw ECG recordings to finetuned classifiers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS: dict[Callable[..., None], type[TyperCommand] | None] = {  # in the order of the help
    data.simulate: None,
    data.fetch: None,
    data.prepare: None,
    data.shard: None,
    data.verify: None,
    use.inspect: None,
    use.plot: None,
    use.card: None,
    train.pretrain: settings_help("PretrainSettings"),
    train.finetune: settings_help("FinetuneSettings"),
    use.predict: None,
    use.export: None,
    train.report: None,
    train.reproduce: None,
}
for command, kind in _COMMANDS.items():
    app.command(cls=kind)(command)


def _end(number: int, frame: FrameType | None) -> None:
    """End a command as Ctrl-C does; a terminal that closes says so twice, and once is enough."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; mistakes are one line, not a stack trace."""
    os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))  # not ~/.config
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _end)
    try:
        app()
    except EcgpipeError as error:
        print(f"ecgpipe: {error}", file=sys.stderr)
        sys.exit(error.code)
    except Interrupted as end:
        if train.FIRST:
            print(f"ecgpipe: interrupted, {end}; the same command continues", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        # Typer catches Ctrl-C itself and leaves with this code, without a word.
        if end.code == INTERRUPTED:
            print("ecgpipe: interrupted; the same command continues", file=sys.stderr)
        raise
    except Exception as error:
        if is_connection_error(error):
            what = "check the address, the credentials and the network; the same command continues"
            print(f"ecgpipe: a place could not be reached ({error}); {what}", file=sys.stderr)
            sys.exit(UNREACHABLE)
        if isinstance(error, OSError):  # a full disk, a bucket that is not there
            print(f"ecgpipe: {error}", file=sys.stderr)
            sys.exit(MISTAKE)
        raise
