"""A flow as a command: its parameters as options, its end as an exit code."""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.exceptions import ParameterTypeError
from prefect.settings import PREFECT_API_URL
from prefect.states import State
from prefect.utilities.callables import parameter_docstrings

from ecgpipe.cli import interrupt_on_signals
from ecgpipe.config import load
from ecgpipe.errors import INTERRUPTED, MISTAKE, EcgpipeError
from flows.common import CODES


def _start_server() -> None:
    """Start Prefect's temporary server, in a process group of its own, unless a server is set.

    Otherwise Ctrl-C could end it before the flow, which would try to reach it for minutes.

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


def _parser(flow: Flow[..., State]) -> argparse.ArgumentParser:
    """Create options for the parameters of a flow, with the help of its docstring."""
    text = inspect.getdoc(flow.fn) or ""
    parser = argparse.ArgumentParser(
        prog=f"python -m flows.{flow.name}", description=text.partition("\n")[0]
    )
    descriptions = parameter_docstrings(text)
    for name, parameter in inspect.signature(flow.fn).parameters.items():
        if name == "settings":
            about = f"file of {descriptions[name]}"
            parser.add_argument("--config", type=Path, metavar="FILE", help=about)
            about = "one setting; can be repeated"
            parser.add_argument(
                "--set", action="append", default=[], metavar="KEY=VALUE", help=about
            )
            continue
        required = parameter.default is parameter.empty
        parser.add_argument(
            f"--{name}",
            required=required,
            default=None if required else parameter.default,
            nargs="+" if "list" in str(parameter.annotation) else None,
            help=descriptions[name],
        )
    return parser


def main(flow: Flow[..., State], check: Callable[..., object] | None = None) -> None:
    """Run a flow with its parameters as command-line options, and exit with its exit code.

    The options of a parameter ``settings`` are ``--config`` and ``--set key=value``. ``check`` gets
    the parameters before anything starts, and raises EcgpipeError for a wrong one.
    """
    interrupt_on_signals()  # so that the step and the temporary server end with this process
    values = vars(_parser(flow).parse_args())
    try:
        if "config" in values:
            kind = type(inspect.signature(flow.fn).parameters["settings"].default)
            values["settings"] = load(kind, values.pop("config"), values.pop("set"))
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
    sys.exit(CODES.get(state.name or "", MISTAKE))
