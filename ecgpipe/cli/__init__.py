"""The command line: each command calls one function, whose module it imports when it runs.

Results go to standard output, as a line or, with ``--json``, as JSON; progress and errors go to
standard error. :mod:`ecgpipe.errors` has the exit codes.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from ..errors import INTERRUPTED, MISTAKE, UNREACHABLE, EcgpipeError, Interrupted
from ..files.paths import cache_folder, is_connection_error
from ..progress import without_passwords
from . import data, train, use
from .options import Command

app = typer.Typer(
    help="From raw ECG recordings to finetuned classifiers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (  # in the order of the help
    *(data.simulate, data.fetch, data.prepare, data.shard, data.verify),
    *(use.inspect, use.plot, use.card, train.pretrain, train.finetune),
    *(use.predict, use.export, train.report, train.reproduce),
):
    app.command(cls=Command)(command)


def interrupt_on_signals() -> None:
    """Let SIGTERM and a closed terminal end the process as Ctrl-C does; nohup is respected."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal sends it twice
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def main() -> None:
    """Run the command line; an error of the user is one line, not a stack trace."""
    os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))  # not ~/.config
    interrupt_on_signals()
    try:
        app()
    except EcgpipeError as error:
        _fail(str(error), error.code)
    except Interrupted as end:
        if train.FIRST:
            _fail(f"interrupted, {end}; the same command continues", INTERRUPTED)
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # Typer catches Ctrl-C and exits without a message
            _fail("interrupted; the same command continues", INTERRUPTED)
        raise
    except Exception as error:
        if is_connection_error(error):
            what = "check the address, the credentials and the network; the same command continues"
            _fail(f"a URL could not be reached ({error}); {what}", UNREACHABLE)
        if isinstance(error, OSError):  # such as a full disk or a missing bucket
            _fail(str(error), MISTAKE)
        raise


def _fail(message: str, code: int) -> NoReturn:
    print(without_passwords(f"ecgpipe: {message}"), file=sys.stderr)
    sys.exit(code)
