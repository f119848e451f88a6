"""Prefect flows: parameters, order, retries and artifacts; the work is done by ``ecgpipe``.

The docstrings of the flows are in Google's style, because Prefect shows what they say of the
parameters in its form, and so does the command line (``python -m flows.NAME --help``).

Prefect reads its settings when it is imported, so they are settled here, before any flow.
"""

import os
from pathlib import Path

from ecgpipe.files.paths import cache_folder

os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))  # not ~/.config
os.environ.setdefault("PREFECT_HOME", str(cache_folder() / "prefect"))
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")  # the server's
os.environ.setdefault("DO_NOT_TRACK", "1")  # the client's
# s for the temporary server to start; Prefect's 20 are too few on a busy machine.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
# A proxy cannot reach the temporary server, which is on this machine.
for name in ("NO_PROXY", "no_proxy"):
    if "127.0.0.1" not in (hosts := os.environ.get(name, "")):
        os.environ[name] = ",".join(filter(None, [hosts, "127.0.0.1", "localhost"]))
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)  # Prefect makes no parents
