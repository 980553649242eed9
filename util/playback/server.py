"""Serve a recording: websockets and the page, on one port."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from exchange.doors.http import (
    CONTENT_TYPES,
    HEADERS,
    INDEX,
    PAGE,
    Pages,
    Query,
    Reply,
    reply,
    split,
)
from exchange.doors.listener import Listener
from exchange.doors.names import in_url
from exchange.doors.tcp import Connection

from .recording import Recording
from .view import Rights
from .viewer import HEARTBEAT_S, Fair, Viewer

CONNECTIONS_MAX = 100  # each websocket has a market of its own in memory
REPLAY = "/replay"


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """What is served, and how.

    ``title`` names it, ``speed`` is that of a connection that says nothing,
    ``fair`` returns the hidden values of a symbol up to a time, None: none.
    A connection gets a heartbeat every ``heartbeat_s`` seconds.
    """

    recording: Recording
    title: str
    rights: Rights = field(default_factory=Rights)
    speed: Decimal = Decimal(1)
    fair: Fair | None = None
    heartbeat_s: float = HEARTBEAT_S


class Playback:
    """A server for one recording. ``url`` is where it listens."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._viewers: dict[Connection, Viewer] = {}
        self._lives: set[asyncio.Task[None]] = set()
        self._loading = asyncio.Lock()
        self.url = ""
        self._pages = Pages()
        index = reply((PAGE / INDEX).read_bytes(), CONTENT_TYPES[".html"])
        self._pages.add(REPLAY, lambda query: index)
        self._pages.add("/v1/replay", self._about)
        self.listener = Listener(
            self,
            self._respond,
            certificate=None,
            proxies=(),
            per_address=0,
        )

    async def start(self, hostname: str, port: int) -> None:
        """Listen; raises OSError."""
        try:
            port = await self.listener.bind(hostname, port)
        except BaseException:
            await self.listener.close()
            raise
        await self.listener.open(hostname, (), CONNECTIONS_MAX)
        self.url = f"ws://{in_url(hostname)}:{port}"

    async def stop(self) -> None:
        """Close all connections."""
        await self.listener.close()
        for connection in [*self._viewers]:
            connection.close(1001, "the replay ends")
        await self.listener.abort()
        await asyncio.gather(*self._lives)

    # HTTP

    def _respond(self, request: Request) -> Reply:
        path, query = split(request)
        if path == "/":
            headers = Headers({**HEADERS, "Location": REPLAY.lstrip("/")})
            status = HTTPStatus.FOUND
            return Response(status, status.phrase, headers, b"")
        if path == "/v1/access":
            return self._access(request, query)
        return self._pages(request)

    def _access(self, request: Request, query: Query) -> Response:
        """Tell a page why it may not connect, as the exchange does."""
        names = self.listener.names
        assert names is not None  # the listener is open
        origins = [query["origin"]] if "origin" in query else []
        refusal = names.refusal(request.headers.get_all("Host"), origins)
        if refusal is None:
            return reply("ok\n")
        return reply(f"{refusal.reason}\n", status=HTTPStatus.FORBIDDEN)

    def _about(self, query: Query) -> Response:
        """Describe the recording, for the page."""
        show = self._show
        recording, rights = show.recording, show.rights
        about: Mapping[str, Any] = {
            "title": show.title,
            "start_ts": recording.start_ts,
            "end_ts": recording.end_ts,
            "is_published": rights.is_published,
            "has_keys": rights.keys is not None,
            "has_fair": show.fair is not None,
            "marks": [
                {"ts": mark.ts, "kind": mark.kind, "text": mark.text}
                for mark in recording.marks
            ],
        }
        return reply(to_json(about), "application/json")

    # Called by connections

    def connected(self, connection: Connection) -> None:
        """Show a connection the recording from its start."""
        show = self._show
        viewer = self._viewers[connection] = Viewer(
            show.recording,
            connection,
            show.rights,
            ts=show.recording.start_ts,
            speed=show.speed,
            fair=show.fair,
            loading=self._loading,
            heartbeat_s=show.heartbeat_s,
        )
        life = asyncio.get_running_loop().create_task(
            self._live(connection, viewer)
        )
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)

    async def _live(self, connection: Connection, viewer: Viewer) -> None:
        """Run a viewer; a failure ends its connection only."""
        try:
            await viewer.run()
        except Exception as error:
            self.listener.failed(connection, error)
            connection.close(1011, "the replay failed")

    def received(self, connection: Connection, messages: list[bytes]) -> None:
        """Hand messages to the viewer."""
        self._viewers[connection].receive(messages)

    def congested(self, connection: Connection) -> None:
        """Do nothing: a viewer looks before it plays on."""

    def drained(self, connection: Connection) -> None:
        """Let a viewer go on."""
        self._viewers[connection].drained()

    def disconnected(self, connection: Connection) -> None:
        """End a viewer."""
        self._viewers.pop(connection).leave()
