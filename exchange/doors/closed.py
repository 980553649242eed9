"""A port that takes no clients for now: it answers whether the process lives.

A standby answers like this, and a primary that has lost its lease: 503 to
everything but the pages that supervisors and Prometheus ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from exchange.doors import tcp, websocket
from exchange.doors.names import Names, Proxies
from exchange.doors.queue import Queue
from exchange.doors.tcp import Receiver
from exchange.doors.upgrade import Admission, Answer, Upgrade, path_of

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
    """One HTTP request and its answer; arguments are those of a websocket."""

    __slots__ = ()

    def __init__(
        self,
        receiver: Receiver,
        *,
        admission: Admission,
        names: Names | None,
        proxies: Proxies,
        respond: Callable[[Request], Answer],
        queue: Queue,
    ) -> None:
        super().__init__(
            receiver,
            admission=admission,
            names=names,
            proxies=proxies,
            respond=respond,
            queue=queue,
        )
        self._upgrade = _Closed(
            admission=admission, names=names, proxies=proxies, respond=respond
        )
