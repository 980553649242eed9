"""How the HTTP request that opens a connection is answered.

A request for a websocket at "/" is accepted, all others are answered with one
response. The connection closes after any answer but an accepted websocket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol, TypeAlias

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from exchange.doors import tcp
from exchange.doors.names import Names, Proxies, Refusal

Answer: TypeAlias = Response | asyncio.Future[Response]


class Admission(tcp.Admission, Protocol):
    """Decides which sockets and which HTTP requests may come in.

    Calls come in the order ``opened``, ``forwarded`` if the peer is a proxy,
    ``refused`` if a request is, ``closed``.
    """

    def forwarded(self, connection: tcp.Connection, client: str) -> bool:
        """Return whether the address behind a proxy may connect.

        If so, set ``connection.remote`` to it; if not, the request is refused.
        """

    def refused(self, connection: tcp.Connection, refusal: Refusal) -> None:
        """Count and log a request whose ``Host`` or ``Origin`` is not ours."""


def not_found(request: Request) -> Response:
    """Answer an HTTP request where there are no pages."""
    if path_of(request) == "/":
        status, text = HTTPStatus.UPGRADE_REQUIRED, "This is a websocket.\n"
        headers = Headers({"Upgrade": "websocket"})
    else:
        status, text, headers = HTTPStatus.NOT_FOUND, "Not found.\n", Headers()
    headers["Content-Type"] = "text/plain; charset=utf-8"
    return Response(status, status.phrase, headers, text.encode())


class Upgrade:
    """Answers the request that opens a connection.

    ``serves`` says at which paths a websocket may be opened.

    Args:
        admission: counts the addresses behind proxies, and refusals.
        names: judges ``Host`` and ``Origin``; None accepts any.
        proxies: peers whose ``X-Forwarded-For`` is believed.
        respond: answers GET and HEAD requests that ask for no websocket, at
            once or with a future.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        names: Names | None,
        proxies: Proxies,
        respond: Callable[[Request], Answer],
    ) -> None:
        self._admission = admission
        self._names = names
        self._proxies = proxies
        self._respond = respond
        self.serves: Callable[[str], bool] = _is_root

    def answer(
        self,
        request: Request,
        connection: tcp.Connection,
        protocol: ServerProtocol,
    ) -> Answer:
        """Accept a websocket, or answer with anything else."""
        response: Answer
        is_websocket = self.serves(path_of(request)) and any(
            "websocket" in value.lower()
            for value in request.headers.get_all("Upgrade")
        )
        if not self._is_client_welcome(request, connection):
            response = protocol.reject(
                HTTPStatus.TOO_MANY_REQUESTS,
                "Too many connections from your address.\n",
            )
        elif refusal := self._refusal(request, is_websocket):
            self._admission.refused(connection, refusal)
            response = protocol.reject(
                HTTPStatus.FORBIDDEN, f"Refused: {refusal.reason}.\n"
            )
        elif request.method not in ("GET", "HEAD"):
            response = protocol.reject(
                HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD.\n"
            )
            response.headers["Allow"] = "GET, HEAD"
        elif not is_websocket:
            response = self._respond(request)
        elif request.headers.get_all("Sec-WebSocket-Version") != ["13"]:
            response = protocol.reject(
                HTTPStatus.UPGRADE_REQUIRED, "Only version 13.\n"
            )
            response.headers["Upgrade"] = "websocket"
            response.headers["Sec-WebSocket-Version"] = "13"
        else:
            response = protocol.accept(request)
        return response

    def _is_client_welcome(
        self, request: Request, connection: tcp.Connection
    ) -> bool:
        """Let the admission judge the address that a proxy forwards."""
        if not connection.is_proxied:
            return True
        lines = request.headers.get_all("X-Forwarded-For")
        client = self._proxies.client(connection.remote, lines)
        return self._admission.forwarded(connection, client)

    def forwarded(self, connection: tcp.Connection, client: str) -> bool:
        """Let the admission judge an address that a proxy forwards."""
        return self._admission.forwarded(connection, client)

    def refusal(self, hosts: list[str], origins: list[str]) -> Refusal | None:
        """Judge the values of ``Host`` and ``Origin``."""
        if self._names is None:
            return None
        return self._names.refusal(hosts, origins)

    def note_refusal(
        self, connection: tcp.Connection, refusal: Refusal
    ) -> None:
        """Count and log what `refusal` returned."""
        self._admission.refused(connection, refusal)

    def _refusal(self, request: Request, is_websocket: bool) -> Refusal | None:
        """Judge ``Host``, and ``Origin`` where a websocket is asked for."""
        origins = request.headers.get_all("Origin") if is_websocket else []
        return self.refusal(request.headers.get_all("Host"), origins)


def _is_root(path: str) -> bool:
    """Whether a websocket may be opened at a path: the native protocol."""
    return path == "/"


def as_sent(request: Request, response: Response) -> Response:
    """Return a copy of a response, completed for sending.

    ``Content-Length`` and ``Connection: close`` are added; the body of an
    answer to HEAD is dropped. An accepted websocket is returned unchanged. It
    is a copy because `respond` may return the same response again.
    """
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
        return response
    headers = Headers(
        (name, value)
        for name, value in response.headers.raw_items()
        if name.lower() not in ("connection", "content-length")
    )
    headers["Connection"] = "close"
    if response.status_code != HTTPStatus.NOT_MODIFIED:  # RFC 9110, 8.6
        headers["Content-Length"] = str(len(response.body))
    return Response(
        response.status_code,
        response.reason_phrase,
        headers,
        b"" if request.method == "HEAD" else response.body,
    )


def path_of(request: Request) -> str:
    """Return the path of a request, without its query."""
    return request.path.partition("?")[0]
