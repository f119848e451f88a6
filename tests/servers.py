"""Web and S3 servers on this machine that fail by a plan, and count what they are asked for."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

SUMS = "SHA256SUMS.txt"

Answer = tuple[int, dict[str, str], bytes]
FAULTS = ("drop", "unavailable", "truncate", "garble")


def from_folder(root: Path, listing: bool = True) -> Callable[..., Answer]:
    """Files, parts of files and lists of folders, as plain web servers give them."""

    def answer(method: str, target: str, headers: Any) -> Answer:
        path = root / unquote(urlsplit(target).path).lstrip("/")
        if path.is_dir() and listing:
            names = sorted(p.name + "/" * p.is_dir() for p in path.iterdir())
            links = ["../", "?C=M;O=A", *map(quote, names)]
            page = "".join(f'<a href="{escape(name)}">{escape(name)}</a>\n' for name in links)
            return 200, {"Content-Type": "text/html; charset=utf-8"}, page.encode()
        if not path.is_file():
            return 404, {"Content-Type": "text/html"}, b"<h1>Not Found</h1>"
        content = path.read_bytes()
        kind = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"}
        if span := re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("Range", "")):
            first, last = int(span[1]), min(int(span[2]), len(content) - 1)
            kind["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return 206, kind, content[first : last + 1]
        return 200, kind, content

    return answer


def from_server(url: str) -> Callable[..., Answer]:
    """Whatever another server says."""
    place = urlsplit(url).netloc

    def answer(method: str, target: str, headers: Any) -> Answer:
        upstream = http.client.HTTPConnection(place, timeout=20)
        try:
            upstream.request(method, target, headers=dict(headers))
            given = upstream.getresponse()
            dropped = {"content-length", "transfer-encoding", "connection"}
            kept = {k: v for k, v in given.getheaders() if k.lower() not in dropped}
            if method == "HEAD":
                kept["Content-Length"] = given.headers.get("Content-Length", "0")
            return given.status, kept, given.read()
        finally:
            upstream.close()

    return answer


class Server:
    """One request in ``every`` fails, by each of the faults in turn.

    The faults are those of ``FAULTS``, and ``stall``: a long silence.

    Attributes
    ----------
    url
        Without a slash at its end.
    asked
        How often each path was asked for, whatever came of it.
    given
        How often each path was given away, whole and right.
    failed
        How often each fault happened.
    """

    def __init__(
        self, answer: Callable[..., Answer], every: int = 0, faults: tuple[str, ...] = FAULTS
    ) -> None:
        self.answer, self.every, self.faults = answer, every, cycle(faults)
        self.garbled: frozenset[str] = frozenset()  # paths that always come with wrong bytes
        self.broken: frozenset[str] = frozenset()  # paths that are never given
        self.may_garble: Callable[[str], bool] = lambda path: True
        self.asked: Counter[str] = Counter()
        self.given: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.url = ""

    def fault(self, method: str, path: str) -> str | None:
        """What goes wrong with the next request."""
        with self._lock:
            self.asked[path] += 1
            if path in self.garbled:
                return "garble"
            if path in self.broken:
                return "unavailable"
            if not self.every or self.asked.total() % self.every:
                self.given[path] += method == "GET"
                return None
            fault = next(self.faults)
            if method == "HEAD" and fault in ("truncate", "garble"):
                fault = "unavailable"
            if fault == "garble" and not self.may_garble(path):
                fault = "truncate"
            self.failed[fault] += 1
            return fault


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Any

    def _serve(self) -> None:
        plan: Server = self.server.plan
        fault = plan.fault(self.command, unquote(urlsplit(self.path).path))
        if fault == "stall":
            self.close_connection = True
            time.sleep(0.3)
            return
        if fault == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, body = plan.answer(self.command, self.path, self.headers)
        if fault == "unavailable":
            status, headers, body = 503, {"Content-Type": "text/plain"}, b"later"
        if fault == "garble" and body:
            body = bytes([body[0] ^ 255]) + body[1:]
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if fault == "truncate":
            self.close_connection = True
            body = body[: len(body) // 2]
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = _serve  # noqa: N815, its names

    def log_message(self, *_: object) -> None:
        pass


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # a client that gave up, as it may


@contextmanager
def serve(plan: Server) -> Iterator[Server]:
    """Run a server on a free port of this machine."""
    with _Quiet(("127.0.0.1", 0), _Handler) as server:
        server.plan = plan  # type: ignore[attr-defined]
        plan.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield plan
        finally:
            server.shutdown()
            thread.join()


def publish(root: Path) -> Path:
    """Write the digests of all files as PhysioNet does."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != SUMS)
    lines = (
        f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.relative_to(root).as_posix()}\n"
        for p in files
    )
    (root / SUMS).write_text("".join(lines))
    return root


def garbles(path: str) -> bool:
    """Wrong bytes can be told by digests alone, which the list of them has none of."""
    return not path.endswith(SUMS)
