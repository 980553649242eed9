"""Serve standings and downloads: ``python -m util.event serve event.toml``.

`run` starts it. It may also be started without a director, to look at an
event that is over. Exit status: 0 stopped, 2 a wrong argument, or the port is
in use.
"""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from util.cli import failed, whole

from .file import EventError, read_event
from .options import event_parser
from .pages import Pages, failure

TOOL = "event serve"
REQUEST_S = 10.0  # for one request to arrive, and for a part to be taken
PART = 64 * 1024  # bytes of a large file that are sent at once
CONNECTIONS_MAX = 200  # at a time; each has a thread


class Timed(io.RawIOBase):
    """Bytes of a socket, until ``deadline``: a time of the monotonic clock.

    A client that sends a byte now and then does not keep its thread.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.deadline = 0.0
        self._sock = sock

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes; raises TimeoutError."""
        left_s = self.deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._sock.settimeout(left_s)
        return self._sock.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; every other method is refused."""

    server_version = "exchange"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_S

    def __init__(self, pages: Callable[[], Pages], *arguments: Any) -> None:
        self._pages = pages
        super().__init__(*arguments)

    def setup(self) -> None:
        """Bound the time of a request, not only that of each read."""
        super().setup()
        self.rfile.close()
        self._timed = Timed(self.connection)
        self.rfile = io.BufferedReader(self._timed)

    def handle_one_request(self) -> None:
        """Read a request, and answer it."""
        self._timed.deadline = time.monotonic() + REQUEST_S
        super().handle_one_request()

    def do_GET(self) -> None:
        """Answer a request."""
        self._answer(is_head=False)

    def do_HEAD(self) -> None:
        """Answer a request without the body."""
        self._answer(is_head=True)

    def _answer(self, is_head: bool) -> None:
        self.connection.settimeout(REQUEST_S)
        try:
            answer = self._pages().answer(
                self.path, self.headers.get("Authorization")
            )
        except OSError as error:  # the data folder cannot be read now
            print(f"{self.path}: {error}", file=sys.stderr)
            answer = failure(HTTPStatus.SERVICE_UNAVAILABLE)
        self.send_response(answer.status)
        for name, value in answer.all_headers.items():
            self.send_header(name, value)
        if self.close_connection:  # as the front asks for
            self.send_header("Connection", "close")
        self.end_headers()
        if is_head:
            return
        self.wfile.write(answer.body)
        if answer.file is not None:
            self._send(answer.file, answer.size)

    def _send(self, path: Path, size: int) -> None:
        """Send the first bytes of a file, in parts."""
        with open(path, "rb") as file:
            while size and (part := file.read(min(size, PART))):
                self.wfile.write(part)
                size -= len(part)
        if size:  # it is shorter now: the client must not wait for the rest
            self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing for each request."""


class PagesServer(ThreadingHTTPServer):
    """Listens on the port of the pages; bounds its threads."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, host: str, port: int, handler: Callable[..., Any]
    ) -> None:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        self.address_family = family
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address[:2], handler)  # type: ignore[arg-type]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread, if not too many are served."""
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(
        self, request: Any, client_address: Any
    ) -> None:
        """Serve a connection; then another one may come."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Drop a connection that has ended early; report what is a bug."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Current:
    """The pages of an event file, read again when it has changed.

    While the file is wrong, the pages stay as they were.
    """

    def __init__(self, path: Path) -> None:
        self.event = read_event(path)
        self._path = path
        self._pages = Pages(self.event)
        self._changed = path.stat().st_mtime_ns

    def pages(self) -> Pages:
        """Return the pages."""
        with contextlib.suppress(EventError, OSError):
            changed = self._path.stat().st_mtime_ns
            if changed != self._changed:
                self._pages = Pages(read_event(self._path))
                self._changed = changed
        return self._pages


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event serve``; return the exit status."""
    parser = event_parser("serve", "Serve standings and downloads.")
    add = parser.add_argument
    add("--local", action="store_true", help="to this machine only")
    add("--port", type=whole, metavar="N", help="default: event.pages")
    options = parser.parse_args(arguments)
    try:
        current = Current(options.event)
    except EventError as error:
        return failed(TOOL, error)
    settings = current.event.event
    host = "127.0.0.1" if options.local else settings.host
    port = options.port or settings.pages
    try:
        server = PagesServer(host, port, partial(Handler, current.pages))
    except OSError as error:
        return failed(TOOL, f"port {port}: {error.strerror}")
    print(f"pages on http://{host}:{port}/")
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
    return 0
