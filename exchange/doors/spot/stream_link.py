"""The link of a connection that follows streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from pydantic_core import from_json, to_json

from exchange.doors.spot import user_data
from exchange.doors.spot.asked import STREAMS
from exchange.doors.spot.common import Common
from exchange.doors.spot.errors import SHOWN, SpotError
from exchange.doors.spot.events import Changes
from exchange.doors.spot.link import SpotLink
from exchange.doors.spot.stream_names import Stream
from exchange.doors.spot.streams import Hub
from exchange.doors.tcp import Connection
from exchange.doors.websocket import frame
from orderbook import Error, Request

RAW, COMBINED = STREAMS
BAD_REQUEST = 2  # code of an error that is no refusal of the engine


class StreamLink(SpotLink):
    """One websocket with streams, raw or combined.

    ``target`` is the path at which it was opened, with its query.
    """

    def __init__(
        self, connection: Connection, common: Common, hub: Hub, target: str
    ) -> None:
        super().__init__(connection, common)
        self.behind: dict[str, Changes] = {}
        self._hub = hub
        path, _, query = target.partition("?")
        self.is_combined = path == COMBINED
        self._first = (
            "/".join(parse_qs(query).get("streams", []))
            if self.is_combined
            else path.removeprefix(RAW).strip("/")
        ).split("/")
        self._listen_key = ""  # of the account whose events it gets

    def open(self) -> None:
        """Follow the streams that the path names; others name nothing."""
        for name in self._first:
            try:
                self._follow(name)
            except SpotError:
                continue

    def begin(self, message: bytes) -> Sequence[Request | Error]:
        """Carry out a SUBSCRIBE or an UNSUBSCRIBE."""
        try:
            asked = from_json(message)
        except ValueError:
            raise SpotError(BAD_REQUEST, "Invalid JSON.") from None
        if not isinstance(asked, dict):
            raise SpotError(BAD_REQUEST, "A request is a JSON object.")
        method, names = asked.get("method"), asked.get("params")
        self._id = asked.get("id")
        if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            raise SpotError(
                BAD_REQUEST,
                f"method {str(method)[:SHOWN]} is not SUBSCRIBE or"
                " UNSUBSCRIBE",
            )
        if not isinstance(names, list) or not all(
            isinstance(name, str) for name in names
        ):
            raise SpotError(BAD_REQUEST, "params: a list of names of streams")
        self.used_weight = self._common.charge(self.address, 1)
        if method == "SUBSCRIBE":
            # All of them are known before one is followed.
            found = [self._read(name) for name in names]
            self.answer(None)
            for stream in found:
                if stream is not None:
                    self._hub.follow(self, stream)
        else:
            for name in names:
                if name == self._listen_key:
                    self._listen_key = ""
                    self.leave_account()
                else:
                    self._hub.unfollow(self, self._hub.read(name))
            self.answer(None)
        return ()

    _id: Any = None

    def _read(self, name: str) -> Stream | None:
        """Return a stream; follow a listen key at once and return None."""
        if "@" not in name and self._listen(name):
            return None
        return self._hub.read(name)

    def _follow(self, name: str) -> None:
        stream = self._read(name) if name else None
        if stream is not None:
            self._hub.follow(self, stream)

    def _listen(self, listen_key: str) -> bool:
        """Follow an account's events, if this is a listen key."""
        found = self._common.signatures.listener(listen_key)
        if found is None:
            return False
        self.act_for(*found)
        self._listen_key = listen_key
        return True

    # Out ---------------------------------------------------------------------

    def answer(self, result: Any) -> None:
        """Send the reply to a request."""
        self._push({"result": result, "id": self._id})

    def refuse(self, error: SpotError) -> None:
        """Send why a request is refused."""
        self.count(error)
        self._push({"error": error.body, "id": self._id})

    def tell(self, texts: Sequence[str]) -> None:
        """Send the account's events."""
        if not self._listen_key:
            return
        for event in user_data.events(self._common, self.account, texts):
            self._push(
                {"stream": self._listen_key, "data": event}
                if self.is_combined
                else event
            )

    def _push(self, message: Any) -> None:
        self.push(frame(to_json(message)))
