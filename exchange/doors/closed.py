"""A port that takes no clients for now: it answers whether the process lives.

A standby answers like this, and a primary that has lost its lease: 503 to
everything but the pages that supervisors and Prometheus ask for.
"""

from __future__ import annotations

from http import HTTPStatus

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from exchange.doors import tcp, websocket
from exchange.doors.upgrade import Answer, Upgrade, path_of

OPEN_PAGES = ("/healthz", "/readyz", "/metrics")
RETRY_S = "1"  # in the header Retry-After
TEXT = "This server takes no clients now: another one does, or will.\n"


class _Closed(Upgrade):
    def answer(
        self,
        request: Request,
        connection: tcp.Connection,
        protocol: ServerProtocol,
    ) -> Response | Answer:
        if path_of(request) in OPEN_PAGES:
            return super().answer(request, connection, protocol)
        response = protocol.reject(HTTPStatus.SERVICE_UNAVAILABLE, TEXT)
        response.headers["Retry-After"] = RETRY_S
        return response


class Connection(websocket.Connection):
    """One HTTP request and its answer."""

    __slots__ = ()
    make_upgrade = _Closed
