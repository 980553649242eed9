"""What the hostile connections of `util.measure.fuzz` send."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Mapping
from typing import Any

from util.measure.hostile.bots import HANDSHAKE
from util.measure.wire import framed, order

CULPRIT = "mallory"  # the account whose key they know

Message = dict[str, Any]

JUNK: list[Any] = [
    *(None, True, 0, -1, 1, 7, 2**53, -(2**53), 10**30, 1.5, -0.0, 1e300),
    *("", "a", "buy", "BOND", "x" * 40, "x" * 5_000, "\0", "é", "\u202e"),
    *([], [1], ["book"], [[]], {}, {"a": {"b": []}}, ["BOND"] * 500),
]
ADMIN = {"type": "admin", "reason": "why not"}
# A valid request of each kind.
REQUESTS: list[Message] = [
    order("buy", 1, 99, symbol="BOND"),
    order("sell", 1, 101, symbol="BOND", client_order_id="a", id=1),
    order("buy", 2, 101, symbol="BOND", time_in_force="ioc"),
    {"type": "amend", "client_order_id": "a", "price": 102, "qty": 2},
    {"type": "cancel", "client_order_id": "a"},
    {"type": "cancel", "order_id": 1},
    {"type": "cancel_all", "symbol": "BOND", "side": "buy"},
    {"type": "cancel_after", "timeout_ms": 1_000},
    {"type": "subscribe", "channels": ["book", "trades", "ticker"]},
    {"type": "unsubscribe", "channels": ["book"], "symbols": ["BOND"]},
    *(
        {"type": "get", "what": what, "symbol": "BOND", "limit": 5}
        for what in ("book", "trades", "candles", "orders", "fills")
    ),
    *({"type": "get", "what": w} for w in ("account", "leaderboard")),
    {"type": "ping", "id": "p"},
    {**ADMIN, "action": "phase", "phase": "halted", "reopen_ms": 1_000},
    {**ADMIN, "action": "suspend", "user": "alice"},
    {**ADMIN, "action": "resume", "user": "mallory"},
    {**ADMIN, "action": "cancel", "order_id": 1},
    {**ADMIN, "action": "adjust", "user": "alice", "cash": -1_000},
    {**ADMIN, "action": "settle", "symbol": "BOND", "price": 1},
    {**ADMIN, "action": "reset"},
    {**ADMIN, "action": "message", "message": "hello"},
]


class Speech:
    """What one hostile connection sends; its ``chance`` decides."""

    def __init__(
        self, chance: random.Random, tokens: Mapping[str, str]
    ) -> None:
        self._chance = chance
        self._tokens = tokens

    def make(self) -> bytes:
        """Return all bytes of the connection."""
        kinds: list[Callable[[], bytes]] = [
            self._noise,
            lambda: self._damaged(HANDSHAKE) + self._traffic(),
            self._page,
            lambda: HANDSHAKE + self._noise(),
            lambda: HANDSHAKE + self._damaged(self._traffic()),
            lambda: HANDSHAKE + self._traffic() + self._odd_frames(),
            lambda: HANDSHAKE + self._traffic() + self._end(),
            lambda: HANDSHAKE + self._traffic() * 20,
        ]
        return self._chance.choice(kinds)()

    def _noise(self) -> bytes:
        return self._chance.randbytes(self._chance.randrange(3_000))

    def _damaged(self, data: bytes) -> bytes:
        """Return some bytes, damaged in a few places."""
        chance = self._chance
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data) + 1)
            to = min(len(data), at + chance.randint(1, 20))
            some = chance.choice(
                [
                    b"",
                    data[at:to] * 2,
                    chance.randbytes(to - at),
                    bytes(b ^ 1 << chance.randrange(8) for b in data[at:to]),
                ]
            )
            data = data[:at] + some + data[to:]
        return data[: chance.randrange(len(data) + 1)] if at % 5 == 0 else data

    def _page(self) -> bytes:
        chance = self._chance
        methods = ["GET"] * 5 + ["HEAD", "POST", "get", "", "\0"]
        paths = ["/", "/", "/metrics", "/../x", "*", "/" + "x" * 9_000]
        versions = ["HTTP/1.1"] * 5 + ["HTTP/1.0", "HTTP/2", ""]
        headers = [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 8",
            "Origin: http://evil.example",
            "Content-Length: 5",
            "Transfer-Encoding: chunked",
            "no colon",
            "X: " + "x" * 9_000,
        ]
        lines = [
            " ".join(map(chance.choice, (methods, paths, versions))),
            chance.choice(["Host: localhost"] * 5 + ["Host: evil.example"]),
            *chance.choices(headers, k=chance.choice([0, 0, 0, 1, 2, 200])),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self._noise()

    def _traffic(self) -> bytes:
        """Return frames of requests, most after a login."""
        chance = self._chance
        texts = [self._text() for _ in range(chance.randint(1, 10))]
        if chance.random() < 0.8:
            texts.insert(0, json.dumps(self._login()))
        return b"".join(
            framed(text.encode("utf-8", "surrogatepass")) for text in texts
        )

    def _login(self) -> Message:
        chance = self._chance
        if chance.random() < 0.5:
            user = CULPRIT
            token: Any = self._tokens[user]
        else:
            user = chance.choice([*self._tokens, "nobody", "@exchange"])
            token = chance.choice([self._tokens[CULPRIT], *JUNK])
        login = {"type": "login", "user": user, "token": token}
        for name in ("session", "last_seq", "cancel_on_disconnect"):
            if chance.random() < 0.2:
                login[name] = chance.choice(JUNK)
        return login

    def _text(self) -> str:
        chance = self._chance
        draw = chance.random()
        if draw < 0.5:
            return json.dumps(self._request())
        if draw < 0.8:
            size = chance.choice([0, 1, 5, 100, 101])
            return json.dumps([self._request() for _ in range(size)])
        if draw < 0.9:
            return json.dumps(chance.choice(JUNK))
        text = json.dumps(self._request())
        return text[: chance.randrange(len(text))]

    def _request(self) -> Message:
        """Return a request; something may be wrong with it."""
        chance = self._chance
        request = dict(chance.choice(REQUESTS))
        while chance.random() < 0.5:
            name = chance.choice([*request, "id", "symbol", "price", "x"])
            if chance.random() < 0.3:
                request.pop(name, None)
            else:
                request[name] = chance.choice(JUNK)
        return request

    def _end(self) -> bytes:
        code = self._chance.choice([1000, 1000, 4000, 999, 1005, 5000])
        return framed(struct.pack("!H", code) + b"bye", 0x88)

    def _odd_frames(self) -> bytes:
        chance = self._chance
        odd = b""
        for _ in range(chance.randint(1, 8)):
            first = chance.choice([0x01, 0x00, 0x80, 0x81, 0x89, 0x8A, 0x88])
            if chance.random() < 0.2:
                first = chance.randrange(256)
            data = chance.choice([b"", b"\x03\xe8", b"\xff", self._noise()])
            length = None
            if chance.random() < 0.1:
                length = chance.choice([0, 1, 126, 65_536, 65_537, 2**63])
            odd += framed(data, first, length)
        return odd
