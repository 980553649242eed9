"""An exchange that speaks the dialect, and bots that do so by hand."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect

from server import Server
from test.support import PATIENCE_S, serving

MARKET = """\
[instruments.BOND]
tick_size = "0.01"
max_price = 100_000
[instruments.ETF]
tick_size = "0.5"
lot_size = "0.25"
reference_price = 100
self_trades = true
short_selling = false
[money]
unit = "0.01"
currency = "USD"
[account]
cash = 10_000_000
min_cash = 0
open_orders = 0
"""


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@contextlib.asynccontextmanager
async def exchange(
    folder: Path, market: str = MARKET, **settings: Any
) -> AsyncIterator[Server]:
    """Run an exchange that speaks the dialect."""
    path = folder / "market.toml"
    path.write_text(market)
    async with serving(dialect="spot", market=path, **settings) as server:
        yield server


class Rest:
    """A bot that sends HTTP requests over one connection."""

    def __init__(self, port: int, user: str = "", secret: str = "") -> None:
        self.user = user
        self.secret = secret
        self.headers: dict[str, str] = {}  # of the last answer
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]
        self._is_open = False

    async def send(self, data: bytes) -> None:
        """Send any bytes."""
        if not self._is_open:
            self._streams = await asyncio.open_connection(
                "127.0.0.1", self._port
            )
            self._is_open = True
        self._streams[1].write(data)

    async def answer(self) -> tuple[int, Any]:
        """Return the status and the body of the next answer."""
        reader = self._streams[0]
        async with asyncio.timeout(PATIENCE_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.split("\r\n")
            pairs = (line.split(": ", 1) for line in lines if line)
            self.headers = {name.lower(): value for name, value in pairs}
            length = int(self.headers.get("content-length", 0))
            body = await reader.readexactly(length)
        if "json" in self.headers.get("content-type", ""):
            return int(first.split()[1]), json.loads(body)
        return int(first.split()[1]), body.decode()

    async def is_cut(self) -> bool:
        """Whether the exchange hangs up, and sends nothing before."""
        rest = b""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionError):
                rest = await self._streams[0].read()
        self.close()
        return not rest

    async def ask(
        self, method: str, path: str, body: str = "", **params: Any
    ) -> tuple[int, Any]:
        """Send a request with parameters in the query; return its answer."""
        query = urlencode(params)
        target = f"{path}?{query}" if query else path
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n"
        if self.user:
            head += f"X-MBX-APIKEY: {self.user}\r\n"
        if body:
            head += f"Content-Length: {len(body)}\r\n"
        await self.send(f"{head}\r\n{body}".encode())
        return await self.answer()

    async def get(self, path: str, **params: Any) -> Any:
        """Return the body of an answer with status 200."""
        status, body = await self.ask("GET", f"/api/v3/{path}", **params)
        assert status == 200, body
        return body

    def signed(self, **params: Any) -> dict[str, Any]:
        """Return parameters with their time and signature."""
        params = {"timestamp": now_ms(), **params}
        text = urlencode(params).encode()
        made = hmac.new(self.secret.encode(), text, hashlib.sha256)
        return {**params, "signature": made.hexdigest()}

    async def sign(
        self, method: str, path: str, **params: Any
    ) -> tuple[int, Any]:
        """Send a signed request; return its answer."""
        return await self.ask(
            method, f"/api/v3/{path}", **self.signed(**params)
        )

    async def done(self, method: str, path: str, **params: Any) -> Any:
        """Send a signed request that succeeds; return its body."""
        status, body = await self.sign(method, path, **params)
        assert status == 200, body
        return body

    async def refused(self, method: str, path: str, **params: Any) -> Any:
        """Send a signed request that is refused; return code and words."""
        status, body = await self.sign(method, path, **params)
        assert status >= 400, body
        return body["code"], body["msg"]

    async def limit(
        self, side: str, qty: Any, price: Any, **more: Any
    ) -> dict[str, Any]:
        """Place a limit order; return the answer."""
        order = {"symbol": "BONDUSD", "type": "LIMIT", "timeInForce": "GTC"}
        order |= {"side": side, "quantity": qty, "price": price}
        body: dict[str, Any] = await self.done(
            "POST", "order", **order, **more
        )
        return body

    def close(self) -> None:
        """Hang up."""
        if self._is_open:
            self._streams[1].close()
            self._is_open = False


class Socket:
    """A bot that speaks over one websocket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._ids = 0
        self.events: list[Any] = []  # that came before an answer

    async def next(self) -> Any:
        """Return the next message."""
        if self.events:
            return self.events.pop(0)
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.socket.recv())

    async def ask(self, method: str, params: Any = None, **more: Any) -> Any:
        """Send a request; return its answer."""
        self._ids += 1
        message = {"id": self._ids, "method": method, **more}
        if params is not None:
            message["params"] = params
        await self.socket.send(json.dumps(message))
        async with asyncio.timeout(PATIENCE_S):
            while True:
                answer = json.loads(await self.socket.recv())
                if "id" in answer:
                    assert answer["id"] == self._ids
                    return answer
                self.events.append(answer)

    async def event(self, kind: str) -> Any:
        """Return the next event of a kind, without those before it."""
        while True:
            message = await self.next()
            event = message.get("data", message.get("event", message))
            if isinstance(event, dict) and event.get("e") == kind:
                return event


@contextlib.asynccontextmanager
async def socket(server: Server, path: str) -> AsyncIterator[Socket]:
    """Open a websocket at a path."""
    uri = f"ws://127.0.0.1:{server.port}{path}"
    async with connect(uri, compression=None) as opened:
        yield Socket(opened)


def as_api(
    user: str, secret: str = "", is_encoded: bool = False, **params: Any
) -> dict[str, Any]:
    """Return the parameters of a signed request of the websocket API."""
    params = {"apiKey": user, "timestamp": now_ms(), **params}
    pairs = sorted(
        (name, str(v).lower() if isinstance(v, bool) else v)
        for name, v in params.items()
    )
    text = (
        urlencode(pairs)
        if is_encoded
        else ("&".join(f"{name}={value}" for name, value in pairs))
    )
    made = hmac.new(secret.encode(), text.encode(), hashlib.sha256)
    return {**params, "signature": made.hexdigest()}
