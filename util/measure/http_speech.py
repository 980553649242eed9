"""What the hostile connections of `util.measure.fuzz` send over plain HTTP."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import time
from collections.abc import Callable
from urllib.parse import urlencode

from util.measure.wire import framed

CULPRIT = "mallory"
SECRET = "s" * 43  # what it signs with
MIB = 2**20

PATHS = (
    *("order", "order/test", "order/cancelReplace", "openOrders", "account"),
    *("ping", "exchangeInfo", "depth", "klines", "ticker/24hr", "myTrades"),
    *("allOrders", "userDataStream", "nothing", "", "%00", "../../etc"),
)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "CONNECT", "g")
VALUES: dict[str, tuple[str, ...]] = {
    "symbol": ("BONDUSD", "bondusd", "NONE", "", "\x00", "x" * 500),
    "side": ("BUY", "SELL", "buy", ""),
    "type": ("LIMIT", "MARKET", "STOP_LOSS", "OCO", "LIMIT_MAKER", ""),
    "timeInForce": ("GTC", "IOC", "FOK", "GTX", ""),
    "quantity": ("1", "7", "0", "-1", "1e9", "0.5", "9" * 40, "nan"),
    "price": ("100", "99", "0", "-5", "1e400", "0.000000001", "x"),
    "stopPrice": ("100", "", "-1"),
    "orderId": ("1", "2", "0", "-1", "9" * 30, "x"),
    "newClientOrderId": ("a", "b/c", "ä", "x" * 99, ""),
    "origClientOrderId": ("a", "b/c", "order-1", "order-" + "9" * 30),
    "cancelReplaceMode": ("STOP_ON_FAILURE", "ALLOW_FAILURE", "x"),
    "limit": ("1", "5000", "0", "x"),
    "interval": ("1m", "1M", "7m", ""),
    "recvWindow": ("5000", "0", "-1", "60001"),
    "symbols": ('["BONDUSD"]', "[", "[1]", "[" * 999),
    "startTime": ("0", "1", "9" * 17, "-1"),
}
HEADERS = (
    "Content-Length: 5",
    "Content-Length: -1",
    "Content-Length: 99999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Content-Encoding: gzip",
    "Expect: 100-continue",
    "Connection: close",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Upgrade: h2c",
    "Host: elsewhere.example",
    "Origin: http://evil.example",
    "X-Forwarded-For: 1.2.3.4",
    "Content-Type: multipart/form-data; boundary=x",
    "X: " + "y" * 20_000,
    " folded",
    "no colon",
)
SIGNED = 0.5  # probability that a request has a signature that fits
STREAMS = ("/ws", "/ws/0", "/ws/bondusd@depth", "/stream", "/ws-api/v3")


class HttpSpeech:
    """What one hostile connection sends; ``chance`` decides."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def make(self) -> bytes:
        """Return all bytes of the connection."""
        kinds: tuple[Callable[[], bytes], ...] = (
            self._noise,
            self._no_end,
            self._stream,
            *(self._bot,) * 5,
        )
        return self._chance.choice(kinds)()

    def _noise(self) -> bytes:
        """A request, then bytes that are none."""
        noise = self._chance.randbytes(self._chance.randrange(1, 4_000))
        return self._request() + noise

    def _no_end(self) -> bytes:
        """A head, or a body, that does not end."""
        chance = self._chance
        head = b"POST /api/v3/order HTTP/1.1\r\nHost: localhost\r\n"
        return chance.choice(
            (
                head + b"X: " + b"x" * MIB,
                head + b"X: y\r\n" * 50_000,
                head + b"Content-Length: 16000\r\n\r\n" + b"x" * 15_000,
                head
                + b"Transfer-Encoding: chunked\r\n\r\n"
                + b"1\r\nx\r\n" * 9_000,
                head + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 9_000,
                self._request() * 500,
            )
        )

    def _bot(self) -> bytes:
        """Requests, one after the other; some bytes of them may differ."""
        chance = self._chance
        data = bytearray(
            b"".join(self._request() for _ in range(chance.randrange(1, 20)))
        )
        for _ in range(chance.choice((0, 0, 0, 1, 5))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        return bytes(data[: len(data) - chance.choice((0, 0, 3))])

    def _request(self) -> bytes:
        chance = self._chance
        names = chance.sample([*VALUES], chance.randrange(len(VALUES)))
        params = {name: chance.choice(VALUES[name]) for name in names}
        params["timestamp"] = str(time.time_ns() // 1_000_000)
        text = urlencode(params)
        if chance.random() < SIGNED:
            made = hmac.new(SECRET.encode(), text.encode(), hashlib.sha256)
            text += f"&signature={made.hexdigest()}"
        is_usual = chance.random() < 0.8
        method = chance.choice(METHODS[:4] if is_usual else METHODS)
        path = chance.choice(PATHS)
        query, body = chance.choice(((text, ""), ("", text), ("a=b", text)))
        lines = [f"{method} /api/v3/{path}?{query} HTTP/1.1"]
        lines += ["Host: localhost", f"X-MBX-APIKEY: {CULPRIT}"]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        if chance.random() < 0.2:
            lines.append(chance.choice(HEADERS))
        return "\r\n".join([*lines, "", body]).encode("utf-8", "replace")

    def _stream(self) -> bytes:
        """A websocket with requests that may be none."""
        chance = self._chance
        head = (
            f"GET {chance.choice(STREAMS)} HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        ).encode()
        if chance.random() < 0.3:
            head = self._request() + head  # it may become one later
        messages = []
        for _ in range(chance.randrange(20)):
            value: object = chance.choice(
                (
                    ["bondusd@trade", "bondusd@depth@100ms"],
                    ["none@trade"],
                    [1],
                    {"symbol": "BONDUSD", "limit": 5},
                    {"apiKey": CULPRIT, "signature": "x", "timestamp": 1},
                    None,
                )
            )
            method = chance.choice(
                (
                    *("SUBSCRIBE", "UNSUBSCRIBE", "depth", "order.place"),
                    *("session.logon", "userDataStream.subscribe", "x"),
                )
            )
            text = json.dumps({"id": 1, "method": method, "params": value})
            cut = chance.choice((0, 0, 0, 1))
            messages.append(framed(text[cut:].encode()))
        return head + b"".join(messages)
