"""A flow as a command: its parameters as options, its end as an exit code."""

from __future__ import annotations

import argparse
import inspect
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from unittest.mock import patch

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_API_URL
from prefect.states import State
from prefect.utilities.callables import parameter_docstrings

from ecgpipe.config import Settings, load
from ecgpipe.errors import INTERRUPTED, MISTAKE, EcgpipeError
from flows.common import code_of


def _start_server() -> None:
    """Start Prefect's temporary server, in a process group of its own, unless a server is set.

    Ctrl-C reaches every process of the terminal's group; a server that ended before its flow
    leaves the flow trying to reach it for minutes.

    Raises
    ------
    EcgpipeError
        The server that is set does not answer.
    """
    with patch.object(subprocess, "Popen", partial(subprocess.Popen, process_group=0)):
        client = get_client(sync_client=True)
    url = PREFECT_API_URL.value()
    if url and (trouble := client.api_healthcheck()):
        why = str(trouble).partition("\n")[0] or type(trouble).__name__
        raise EcgpipeError(
            f"PREFECT_API_URL {url}: no server answers ({why}); start it, "
            "or unset the variable to run without one"
        )


def _hang_up(number: int, frame: FrameType | None) -> None:
    """End as by Ctrl-C, once: a closed terminal sends SIGHUP again, and the step is saving then."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _parser(flow: Flow[..., State]) -> argparse.ArgumentParser:
    """Options for the parameters of a flow."""
    about = inspect.getdoc(flow.fn) or ""
    parser = argparse.ArgumentParser(
        prog=f"python -m flows.{flow.name}", description=about.partition("\n")[0]
    )
    words = parameter_docstrings(about)
    for name, parameter in inspect.signature(flow.fn).parameters.items():
        if name == "settings":
            parser.add_argument(
                "--config", type=Path, metavar="FILE", help=f"{words[name]}: a file"
            )
            parser.add_argument(
                "--set",
                action="append",
                default=[],
                metavar="KEY=VALUE",
                help="one setting; repeat",
            )
            continue
        required = parameter.default is parameter.empty
        parser.add_argument(
            f"--{name}",
            required=required,
            default=None if required else parameter.default,
            nargs="+" if "list" in str(parameter.annotation) else None,
            help=words[name],
        )
    return parser


def main(
    flow: Flow[..., State],
    settings: type[Settings] | None = None,
    check: Callable[..., object] | None = None,
) -> None:
    """Run a flow with its parameters as command-line options, then leave with an exit code.

    Parameters
    ----------
    flow
        Its parameters become options of the same names.
    settings
        Class of its parameter ``settings``, which becomes ``--config`` and ``--set key=value``.
    check
        Called with the parameters before anything starts; raises EcgpipeError for a mistake.
    """
    # Like Ctrl-C, so that the step and the temporary server end with this process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        signal.signal(signal.SIGHUP, _hang_up)
    values = vars(_parser(flow).parse_args())
    try:
        if settings:
            values["settings"] = load(settings, values.pop("config"), values.pop("set"))
        values = flow.validate_parameters(values)  # before a server starts
        if check:
            check(**values)
        _start_server()
        state = flow(**values, return_state=True)
    except (EcgpipeError, ParameterTypeError) as error:
        print(error, file=sys.stderr)
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        print("stopped; the same command continues where this one ended", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print(state.message, file=sys.stdout if state.is_completed() else sys.stderr)
    sys.exit(code_of(state))
