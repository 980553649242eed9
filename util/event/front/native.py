"""The native entrance: one HTTP head says where a client goes.

``/t/TEAM`` is the exchange in which a team plays, ``/live/ROUND/MATCH/`` the
live page of a match. All else is for the pages. An exchange on the loopback
accepts local names only, so the front judges ``Host`` and ``Origin`` in its
place, by the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

from .entrance import LOOPBACK, Entrance
from .table import includes

END = b"\r\n\r\n"
RETRY_S = 1  # a client may look again for its match after that time
TEAM = "/t/"
LIVE = "/live/"
# What the front has judged already, or decides itself.
OWN_HEADERS = (b"host", b"origin")


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request: its parts, and its lines without their ends."""

    method: str
    target: str
    version: str
    lines: list[bytes]

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    @property
    def is_websocket(self) -> bool:
        """Return whether a websocket is asked for."""
        return any(b"websocket" in one.lower() for one in self.all(b"upgrade"))

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of a header."""
        return [
            line.partition(b":")[2].strip()
            for line in self.lines
            if name_of(line) == name
        ]

    def to(self, target: str, drop: tuple[bytes, ...], *add: bytes) -> bytes:
        """Return the head with another target, and other headers."""
        first = f"{self.method} {target} {self.version}".encode("latin-1")
        kept = [line for line in self.lines if name_of(line) not in drop]
        return b"\r\n".join([first, *add, *kept]) + END


def name_of(line: bytes) -> bytes:
    """Return the name of a header in lower case."""
    return line.partition(b":")[0].strip().lower()


def read_head(text: bytes) -> Head | None:
    """Read a head without its end; None if it is none."""
    first, *lines = text.split(b"\r\n")
    words = first.decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return None
    method, target, version = words
    return Head(method, target, version, lines)


def answer_of(status: HTTPStatus, text: str = "", *headers: str) -> bytes:
    """Return a whole answer, after which the connection ends."""
    body = f"{text or status.phrase}.\n".encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


class NativeEntrance(Entrance):
    """A client of the native protocol, or a browser."""

    def read_head(self, head: bytes) -> bytes:
        """Wait for the end of the head, and decide."""
        end = head.find(END)
        if end < 0:
            return head
        request = read_head(head[:end])
        rest = head[end + len(END) :]
        if request is None:
            self.answer(answer_of(HTTPStatus.BAD_REQUEST))
        elif not self._is_refused(request):
            self._route(request)
        return rest

    def no_exchange(self) -> None:
        """Answer that the exchange, or the pages, are being started."""
        self._answer_later("It is being started; try again")

    def _answer_later(self, text: str) -> None:
        self.answer(
            answer_of(
                HTTPStatus.SERVICE_UNAVAILABLE, text, f"Retry-After: {RETRY_S}"
            )
        )

    def _is_refused(self, request: Head) -> bool:
        """Refuse foreign pages, and foreign names of this machine."""
        names = self._router.names
        if names is None:
            return False
        origins = request.all(b"origin") if request.is_websocket else []
        refusal = names.refusal(
            [host.decode("latin-1") for host in request.all(b"host")],
            [origin.decode("latin-1") for origin in origins],
        )
        if refusal is not None:
            text = f"Refused: {refusal.reason}"
            self.answer(answer_of(HTTPStatus.FORBIDDEN, text))
        return refusal is not None

    def _route(self, request: Head) -> None:
        path = request.path
        if path.startswith(TEAM) and "/" not in path[len(TEAM) :]:
            self._to_team(request, unquote(path[len(TEAM) :]))
        elif path.startswith(LIVE) and path.count("/") >= 4:
            _, _, round_name, match, rest = path.split("/", 4)
            self._to_match(request, f"{round_name}/{match}", f"/{rest}")
        else:
            drop = (b"connection",)
            # One request each: the next one may be for another process.
            head = request.to(request.target, drop, b"Connection: close")
            self.send_to(self._router.table.pages, head)

    def _to_team(self, request: Head, name: str) -> None:
        """Send a team to its match."""
        team = self._router.table.teams.get(name)
        if team is None:
            self.answer(answer_of(HTTPStatus.NOT_FOUND, "No such team"))
        elif team.networks and not includes(team.networks, self.address):
            text = f"{name} may not come from {self.address}"
            self.answer(answer_of(HTTPStatus.FORBIDDEN, text))
        elif not team.match:
            self._answer_later(f"{name} has no match now; try again")
        elif request.is_websocket:
            self._to_match(request, team.match, "/")
        else:  # a browser: its page finds its files beside it
            location = f"Location: {LIVE}{team.match}/"
            self.answer(answer_of(HTTPStatus.FOUND, "", location))

    def _to_match(self, request: Head, match: str, path: str) -> None:
        """Join a client with the exchange of a match."""
        ports = self._router.table.matches.get(match)
        if ports is None:
            self._answer_later(f"{match} is not played now")
            return
        query = request.target[len(request.path) :]
        host = f"Host: {LOOPBACK}:{ports.native}".encode()
        head = request.to(path + query, OWN_HEADERS, host)
        self.send_to(ports.native, head, match)
