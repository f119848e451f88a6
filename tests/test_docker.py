"""docker/: its files by their linters and schema, its scripts by running them outside a container.

The last test builds and runs the image itself, where a container engine is at hand.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
SCRIPTS = ("docker/install.sh", "docker/worker.sh")
HEALTHY = [sys.executable, str(DOCKER / "healthy.py")]
COMPOSE: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SCHEMA = json.loads((ROOT / "tests" / "compose_spec" / "compose-spec.json").read_text())


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and what follows each."""
    text = re.sub(r"\\\n\s*", "", (DOCKER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines]


def called(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def linter(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


# --- what the files say


def test_linters_have_nothing_to_say(tmp_path: Path) -> None:
    for command in (
        (linter("hadolint"), "docker/Dockerfile"),
        (linter("shellcheck"), "--enable=all", "--exclude=SC2250,SC2312,SC2310,SC2311", *SCRIPTS),
    ):
        done = called(*command, cwd=ROOT)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN apt-get install gcc\n")
    said = called(linter("hadolint"), str(bad)).stdout
    assert "DL3007" in said and "DL3008" in said


def test_image_is_pinned_small_and_not_root() -> None:
    found = instructions()
    arguments = dict(text.split("=", 1) for kind, text in found if kind == "ARG")
    assert [text for kind, text in found if kind == "FROM"] == ["${BASE}"]
    name, tag = arguments["BASE"].split(":")
    python = tuple(int(number) for number in tag.split("-")[0].split("."))
    assert name == "python" and "slim" in tag and len(python) == 3 and python >= (3, 11)
    assert [text for kind, text in found if kind == "USER"] == ["${UID}"]
    assert int(arguments["UID"]) >= 1000
    kinds = [kind for kind, _ in found]
    assert kinds.index("USER") < kinds.index("HEALTHCHECK") < kinds.index("CMD")
    assert "ADD" not in kinds
    runs = " ".join(text for kind, text in found if kind == "RUN")
    assert not re.search(r"\b(apt|apt-get|gcc|build-essential|curl|wget)\b", runs)


def copied() -> list[tuple[list[str], str]]:
    """What the Dockerfile copies from the checkout, and where to."""
    parts = [text.split() for kind, text in instructions() if kind == "COPY"]
    return [(sources, target) for *sources, target in parts]


def test_only_what_is_copied_is_sent_to_the_engine() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = {source for sources, _ in copied() for source in sources}
    assert rules[0] == "*" and "**/__pycache__" in rules
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)


def test_versions_stand_in_one_place() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    chosen = dict(text.split("=", 1) for kind, text in instructions() if kind == "ARG")["EXTRAS"]
    assert set(chosen.split(",")) <= extras.keys() and "flows" in chosen and "dask" in chosen
    for path in (*SCRIPTS, "docker/Dockerfile", "docker/compose.yaml"):
        assert not re.search(r"==\d", (ROOT / path).read_text()), f"{path} pins a version itself"


def test_compose_file_fits_its_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(COMPOSE)
    wrong = {**COMPOSE, "services": {"server": {**SERVICES["server"], "helthcheck": {}}}}
    with pytest.raises(jsonschema.ValidationError, match="helthcheck"):
        jsonschema.Draft7Validator(SCHEMA).validate(wrong)


def test_compose_file_names_only_what_exists() -> None:
    inside = {source for sources, _ in copied() for source in sources}
    for name, service in SERVICES.items():
        for other, needed in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            assert needed == {"condition": "service_healthy"}
            # Without one in the compose file, the image's own: the worker's.
            assert "healthcheck" in SERVICES[other] or "worker.sh" in SERVICES[other]["command"][0]
        for volume in service.get("volumes", ()):
            source = volume.rpartition(":")[0]
            assert re.sub(r"\$\{\w+:-(\w+)\}", r"\1", source) in COMPOSE["volumes"], name
        if build := service.get("build"):
            assert (DOCKER / build["context"]).resolve() == ROOT
            assert (ROOT / build["dockerfile"]).is_file()
        else:
            assert re.search(r":\d+(\.\d+)+-", service["image"]), f"{name} is not pinned"
        for word in (*service.get("command", ()), *service.get("healthcheck", {}).get("test", ())):
            if word.startswith("/ecgpipe/"):
                assert word.removeprefix("/ecgpipe/") in inside, word
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"
    hosts = re.findall(r"(?:@|//)([a-z-]+):\d+", json.dumps(SERVICES))
    assert hosts and set(hosts) <= SERVICES.keys()
    gpu = SERVICES["gpu-worker"]
    assert gpu["profiles"] == ["gpu"] and gpu["image"] != SERVICES["cpu-worker"]["image"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert "gpu" in device["capabilities"]


def test_workers_poll_the_pools_of_prefect_yaml() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    pools = {one["work_pool"]["name"] for one in deployments}
    assert pools == {SERVICES[name]["command"][1] for name in ("cpu-worker", "gpu-worker")}
    (command,) = (text for kind, text in instructions() if kind == "CMD")
    assert json.loads(command) == SERVICES["cpu-worker"]["command"]


def test_every_variable_is_explained_in_the_example() -> None:
    text = (DOCKER / "compose.yaml").read_text()
    example = dict(re.findall(r"^(\w+)=(.*)$", (DOCKER / ".env.example").read_text(), re.M))
    assert example.keys() == set(re.findall(r"\$\{(\w+)", text))
    defaults = dict(re.findall(r"\$\{(\w+):-(\w+)\}", text))
    assert {**defaults, "POSTGRES_PASSWORD": ""} == example
    ignored = (DOCKER / ".gitignore").read_text().splitlines()
    assert any(fnmatch(".env", rule) for rule in ignored)


# --- what the scripts do


class Service(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_health_is_that_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/health"
    none = called(*HEALTHY, url)
    assert none.returncode == 1 and url in none.stderr and none.stderr.count("\n") == 1

    # A proxy set for the whole container would look for 127.0.0.1 on its own machine.
    proxied = {key: value for key, value in os.environ.items() if key.lower() != "no_proxy"}
    proxied["http_proxy"] = f"http://127.0.0.1:{free_port()}"
    waiting = subprocess.Popen([*HEALTHY, url, "60"])
    with HTTPServer(("127.0.0.1", port), Service) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert waiting.wait(60) == 0
        assert called(*HEALTHY, url).returncode == 0
        assert called(*HEALTHY, url, env=proxied).returncode == 0
        monkeypatch.setattr(Service, "status", 503)
        ill = called(*HEALTHY, url)
        assert ill.returncode == 1 and "503" in ill.stderr
        server.shutdown()
    assert called(*HEALTHY).returncode == 1


def test_scripts_say_what_is_missing(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    venv.joinpath("bin").mkdir(parents=True)
    venv.joinpath("bin", "python").symlink_to(sys.executable)
    unknown = called("sh", "docker/install.sh", str(venv), "cuda", cwd=ROOT)
    assert unknown.returncode == 2 and "torch, dependencies and ecgpipe" in unknown.stderr
    assert "name a part" in called("sh", "docker/install.sh", str(venv), cwd=ROOT).stderr
    bare = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    assert "PREFECT_API_URL" in called("sh", "docker/worker.sh", "p", cwd=ROOT, env=bare).stderr
    away = {**bare, "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api", "WAIT": "1"}
    lost = called("sh", str(DOCKER / "worker.sh"), "p", cwd=tmp_path, env=away)
    assert lost.returncode == 1 and away["PREFECT_API_URL"] in lost.stderr
    assert not (tmp_path / "flows").exists()


def plain(package: str) -> str:
    """A package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", package).lower()


class Image:
    """What the Dockerfile makes, in a folder instead of an image."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "ecgpipe"
        self.venv = folder / "venv"
        self.data = folder / "data"
        (settings,) = (text for kind, text in instructions() if kind == "ENV")
        for there, here in (
            ("/opt/ecgpipe", str(self.venv)),
            ("/home/ecgpipe", str(folder)),
            ("$PATH", os.environ["PATH"]),
        ):
            settings = settings.replace(there, here)
        self.environment = dict(pair.split("=", 1) for pair in settings.split())
        self.environment |= {"HOME": str(folder), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Do what the Dockerfile says after its first lines, in its order."""
    made = Image(tmp_path_factory.mktemp("image"))
    made.data.mkdir()
    installs = {**os.environ, "PYTHON": sys.executable, "TORCH_INDEX": ""}
    for kind, text in instructions():
        if kind == "COPY":
            *sources, target = text.split()
            for source in sources:
                place = made.checkout / target / (Path(source).name if target[-1] == "/" else "")
                if (ROOT / source).is_dir():
                    hidden = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(ROOT / source, made.checkout / target, ignore=hidden)
                else:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / source, place)
        elif kind == "RUN" and "install.sh" in text:
            command = shlex.split(text.replace("/opt/ecgpipe", str(made.venv)))
            done = called(*command, cwd=made.checkout, env=installs)
            assert done.returncode == 0, done.stderr
    return made


@contextmanager
def running(
    log: Path, *command: str, env: dict[str, str], cwd: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=cwd, env=env, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def is_healthy(url: str, seconds: float = 0.0) -> bool:
    return called(*HEALTHY, url, str(seconds)).returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_installed_parts_are_a_whole(image: Image) -> None:
    def inside(*command: str) -> str:
        done = called(*command, cwd=image.data, env=image.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "pretrain" in inside("ecgpipe", "--help")
    inside("ecgpipe", "simulate", "cinc2017", "raw", "--records", "3", "--seconds", "10")
    inside("ecgpipe", "prepare", "cinc2017", "raw", "archive", "--workers", "1")
    inside("ecgpipe", "verify", "archive")
    assert json.loads((image.data / "archive" / "manifest.json").read_text())["totals"]["records"]
    versions = json.loads(inside("python", "-m", "pip", "list", "--format", "json"))
    installed = {plain(one["name"]): one["version"].partition("+")[0] for one in versions}
    assert not installed.keys() & {"pytest", "moto", "ruff", "hypothesis"}
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    held = {plain(name): version for name, version in pins}
    free = {name for name, version in installed.items() if held.get(name) != version}
    assert free == {"pip", "ecgpipe"}


COMPLETE = """
eval "$(ecgpipe --show-completion)"
COMP_WORDS=(ecgpipe pre) COMP_CWORD=1
_ecgpipe_completion ecgpipe # as bash calls it
echo "${COMPREPLY[@]}"
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_shell_completes_commands(image: Image) -> None:
    done = called("bash", "-c", COMPLETE, cwd=image.data, env=image.environment)
    assert done.stdout.split() == ["prepare", "pretrain", "predict"], done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_dask_services_tell_their_health(image: Image, tmp_path: Path) -> None:
    ports = {name: str(free_port()) for name in ("8786", "8787", "8788")}

    def command(service: str) -> list[str]:
        text = json.dumps(SERVICES[service]["command"]).replace("dask-scheduler", "127.0.0.1")
        for fixed, free in ports.items():
            text = text.replace(fixed, free)
        return list(json.loads(text))

    here = {"env": image.environment, "cwd": image.data}
    scheduler = [*command("dask-scheduler"), "--port", ports["8786"]]
    with running(tmp_path / "scheduler", *scheduler, **here):  # type: ignore[arg-type]
        assert is_healthy(f"http://127.0.0.1:{ports['8787']}/health", 60)
        with running(tmp_path / "worker", *command("dask-worker"), **here):  # type: ignore[arg-type]
            assert is_healthy(f"http://127.0.0.1:{ports['8788']}/health", 60)
        assert not is_healthy(f"http://127.0.0.1:{ports['8788']}/health")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Setting of Prefect's server: a PostgreSQL, as in compose.yaml, or none."""
    if not shutil.which("initdb"):
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        # PostgreSQL refuses to run as root.
        user = {"user": "nobody"} if os.getuid() == 0 else {}
        if user:
            shutil.chown(folder, "nobody")
        store, port = f"{folder}/store", str(free_port())
        options = ("-U", "prefect", "-A", "trust", "-E", "UTF8")
        made = called("initdb", "-D", store, *options, cwd=folder, **user)
        assert made.returncode == 0, made.stderr
        listen = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1"
        control = ("pg_ctl", "-D", store, "-w", "-l", f"{folder}/log")
        begun = called(*control, "-o", listen, "start", cwd=folder, **user)
        assert begun.returncode == 0, begun.stdout
        try:
            name = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
            scheme = SERVICES["server"]["environment"][name].partition(":")[0]
            yield {name: f"{scheme}://prefect:any@127.0.0.1:{port}/postgres"}
        finally:
            called(*control, "-m", "immediate", "stop", cwd=folder, **user)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_worker_makes_ready_what_it_works_on(
    image: Image, database: dict[str, str], tmp_path: Path
) -> None:
    port, own = str(free_port()), str(free_port())
    api = f"http://127.0.0.1:{port}/api"
    health = f"http://127.0.0.1:{own}/health"
    here = {**image.environment, "PREFECT_API_URL": api, "PREFECT_WORKER_WEBSERVER_PORT": own}
    worker = [
        "sh",
        str(image.checkout / "docker/worker.sh"),
        *SERVICES["cpu-worker"]["command"][1:],
    ]
    server = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", port)

    there = {"env": here, "cwd": image.data}

    def prefect(*command: str) -> str:
        done = called("prefect", *command, **there)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with (ROOT / "prefect.yaml").open() as file:
        wanted = sorted(one["name"] for one in yaml.safe_load(file)["deployments"])
    with running(tmp_path / "server", *server, env={**here, **database}, cwd=tmp_path):
        for start in ("first", "second"):  # as after a restart: all is there already
            log = tmp_path / start
            with running(log, *worker, env=here, cwd=image.data) as process:
                assert is_healthy(health, 200), log.read_text()
                for pool in ("cpu", "gpu"):
                    prefect("work-pool", "inspect", pool)
                listed = json.loads(prefect("deployment", "ls", "--output", "json"))
                assert sorted(one["name"] for one in listed) == wanted
                if start == "second":
                    simulated = ("cinc2017", "own", "--records", "3", "--seconds", "10")
                    assert called("ecgpipe", "simulate", *simulated, **there).returncode == 0
                    where = ("-p", "source=own", "-p", "archive=own-archive", "-p", "workers=1")
                    prefect("deployment", "run", "prepare/cinc2017", *where, "--watch")
                    assert (image.data / "own-archive" / "manifest.json").is_file()
                    page = f"http://127.0.0.1:{port}/"
                    assert is_healthy(page)  # from a folder that the image's user may write
                    assert Path(here["PREFECT_SERVER_UI_STATIC_DIRECTORY"]).is_dir()
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(60)
                assert not is_healthy(health)


# --- the image itself


@pytest.fixture(scope="module")
def engine() -> str:
    """A container engine that answers and has the base image, or can have it."""
    base = dict(text.split("=", 1) for kind, text in instructions() if kind == "ARG")["BASE"]
    for name in ("docker", "podman"):
        if (
            shutil.which(name)
            and called(name, "info").returncode == 0
            and 0 in (called(name, *does, base).returncode for does in (("inspect",), ("pull",)))
        ):
            return name
    pytest.skip("no container engine is at hand that has the base image: no image is built")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_image_builds_and_runs(engine: str, tmp_path: Path) -> None:
    tag = "ecgpipe:test"
    build = (engine, "build", "--file", "docker/Dockerfile", "--tag", tag, ".")
    built = called(*build, cwd=ROOT)
    assert built.returncode == 0, built.stdout + built.stderr

    def inside(*command: str) -> subprocess.CompletedProcess[str]:
        return called(engine, "run", "--rm", "--network", "none", tag, *command)

    assert inside("id", "-u").stdout.strip() == "10001"
    assert "pretrain" in inside("ecgpipe", "--help").stdout
    assert inside("ecgpipe", "simulate", "cinc2017", "raw", "--records", "3").returncode == 0
    for command in ("command -v cc gcc g++ c++ clang", "touch /ecgpipe/x", "touch /opt/ecgpipe/x"):
        assert inside("sh", "-c", command).returncode != 0, command
    health = inside("python", "/ecgpipe/docker/healthy.py", "http://127.0.0.1:8080/health")
    assert health.returncode == 1 and "refused" in health.stderr
