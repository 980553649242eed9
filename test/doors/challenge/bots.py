"""An exchange with challenge doors, and bots that speak to it by hand.

A test is written in lines of text. For a bot at the JSON door they are put
into JSON here, by the tables of docs/DOORS.md and not by the doors' own code.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias

from exchange.market.command import Action
from orderbook import Admin
from server import Server
from test.support import PATIENCE_S, serving

Door: TypeAlias = Literal["text", "json"]
DOORS: tuple[Door, ...] = ("text", "json")
# Ports that systems give to nobody who asks for any.
PORTS = range(20_000, 30_000)
SYMBOLS = ("BOND", "XLF")
INSTRUMENT = {
    "min_price": 1,
    "max_price": 999_999,
    "max_qty": 999_999,
    "max_position": 100,
    "self_trades": True,
    "phase": "closed",
}
# Long enough to be over never, or at once.
NEVER_MS = 60_000


def free_port() -> int:
    """Return a port on which nobody listens."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def market(
    folder: Path,
    instruments: dict[str, dict[str, Any]],
    accounts: str = "",
    teams: dict[str, str | list[str]] | None = None,
    **doors: Any,
) -> tuple[Path, dict[Door, int]]:
    """Write a market file; return its path and the ports of its doors."""
    ports: dict[Door, int] = {"text": free_port(), "json": free_port()}
    lines = []
    for symbol, settings in instruments.items():
        lines.append(f"[instruments.{symbol}]")
        lines += _assignments(settings)
    lines += [accounts or "[account]\nopen_orders = 0", "[doors]"]
    lines += _assignments(
        {"json_port": ports["json"], "line_port": ports["text"]}
        | {"idle_ms": NEVER_MS, "book_ms": 1, "linger_ms": 0}
        | doors
    )
    if teams:
        lines += ["[doors.teams]", *_assignments(teams)]
    path = folder / "market.toml"
    path.write_text("\n".join([*lines, ""]))
    return path, ports


def _assignments(settings: dict[str, Any]) -> list[str]:
    return [f"{name} = {json.dumps(v)}" for name, v in settings.items()]


class Bot:
    """A socket to one of the doors."""

    def __init__(
        self,
        door: Door,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.door = door
        self.reader = reader
        self.writer = writer
        self.hears_books = True

    def send(self, data: bytes) -> None:
        """Send any bytes."""
        self.writer.write(data)

    def say(self, *lines: str) -> None:
        """Send messages in one write."""
        self.send("".join(f"{self.asked(line)}\n" for line in lines).encode())

    def pause(self) -> None:
        """Read no more from the socket."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume(self) -> None:
        """Read on after `pause`."""
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def line(self) -> str:
        """Return the next line as it came; "" if there is none any more."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                line = (await self.reader.readline()).decode()
                is_book = line.startswith(("BOOK ", '{"type":"book"'))
                if self.hears_books or not is_book:
                    return line

    async def hears(self, *lines: str) -> None:
        """Check that the next lines are these, to the byte."""
        for line in lines:
            heard = await self.line()
            assert heard == f"{self.told(line)}\n", (heard, line)

    async def until(self, line: str) -> list[str]:
        """Return the lines before this one, as they came."""
        before: list[str] = []
        while (heard := await self.line()) != f"{self.told(line)}\n":
            assert heard, f"hung up before {line}, after {before}"
            before.append(heard)
        return before

    async def is_silent(self) -> None:
        """Check that nothing comes before the answer to a cancel."""
        self.say("CANCEL 4040404")
        await self.hears("OUT 4040404")

    async def ends(self) -> list[str]:
        """Return the lines until the exchange hangs up."""
        lines = []
        while line := await self.line():
            lines.append(line)
        return lines

    async def does(self, line: str, *answers: str) -> None:
        """Send one message, and check the answers."""
        self.say(line)
        await self.hears(*answers)

    # The language of its door

    def asked(self, line: str) -> str:
        if self.door == "text":
            return line
        verb, *fields = line.split(" ")
        names = {
            "HELLO": ["team"],
            "ADD": ["order_id", "symbol", "dir", "price", "size"],
            "CONVERT": ["order_id", "symbol", "dir", "size"],
            "CANCEL": ["order_id"],
        }.get(verb, [])
        numbers = ("order_id", "price", "size")
        values = {
            name: _value(field) if name in numbers else field
            for name, field in zip(names, fields)
        }
        return json.dumps({"type": verb.lower(), **values})

    def told(self, line: str) -> str:
        """Return a message of the exchange in the language of the door."""
        if self.door == "text":
            return line
        verb, *fields = line.split(" ")
        return json.dumps(_object(verb, fields), separators=(",", ":"))


def _value(field: str) -> Any:
    try:
        return int(field)
    except ValueError:
        return field


def _object(verb: str, fields: list[str]) -> dict[str, Any]:
    """Return what a line of text is as JSON, its fields in order."""
    message: dict[str, Any] = {"type": verb.lower()}
    match verb:
        case "OPEN" | "CLOSE":
            message["symbols"] = fields
        case "BOOK":
            middle = fields.index("SELL")
            message["symbol"] = fields[0]
            message["buy"] = _levels(fields[2:middle])
            message["sell"] = _levels(fields[middle + 1 :])
        case "TRADE":
            symbol, price, size = fields
            message |= {"symbol": symbol, "price": int(price)}
            message["size"] = int(size)
        case "ACK" | "OUT":
            message["order_id"] = int(fields[0])
        case "REJECT":
            message |= {"order_id": int(fields[0]), "error": fields[1]}
        case "FILL":
            order_id, symbol, side, price, size = fields
            message |= {"order_id": int(order_id), "symbol": symbol}
            message |= {"dir": side, "price": int(price), "size": int(size)}
        case "ERROR":
            message["error"] = " ".join(fields)
        case "MARKET_OPEN" | "MARKET_CLOSED":
            message = {"type": "market_open", "open": verb == "MARKET_OPEN"}
        case _:
            raise AssertionError(f"no message of the exchange: {verb}")
    return message


def _levels(words: Iterable[str]) -> list[list[int]]:
    return [[int(n) for n in word.split(":")] for word in words]


class Hall:
    """An exchange with doors."""

    def __init__(self, server: Server, ports: dict[Door, int]) -> None:
        self.server = server
        self.ports = ports
        self._bots: list[Bot] = []

    async def connect(self, door: Door, buffer: int = 0) -> Bot:
        """Connect a bot that has not said hello.

        ``buffer`` limits the bytes that wait for it unread.
        """
        sock = socket.socket()
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", self.ports[door]))
        reader, writer = await asyncio.open_connection(
            sock=sock, limit=buffer or 2**16
        )
        bot = Bot(door, reader, writer)
        self._bots.append(bot)
        return bot

    async def enter(self, door: Door, team: str, *, books: bool = True) -> Bot:
        """Connect a bot, and drop all that it gets after its hello.

        Without ``books`` it hears none: they come a moment after what changed
        them.
        """
        bot = await self.connect(door)
        bot.hears_books = books
        bot.say(f"HELLO {team}", "CANCEL 5050505")
        await bot.until("OUT 5050505")
        return bot

    def act(self, **arguments: Any) -> None:
        """Do what an administrator can do."""
        self._run(Admin(reason="test", **arguments))

    def _run(self, action: Action) -> None:
        sequencer = self.server.gateway.sequencer
        self.server.step(lambda: sequencer.run(action))

    def open(self, **arguments: Any) -> None:
        """Open the market."""
        self.act(action="phase", phase="open", **arguments)

    def leave(self) -> None:
        """Hang up all bots."""
        for bot in self._bots:
            bot.writer.close()


@contextlib.asynccontextmanager
async def hall(
    folder: Path,
    symbols: Iterable[str] = SYMBOLS,
    *,
    is_open: bool = True,
    accounts: str = "",
    teams: dict[str, str | list[str]] | None = None,
    instrument: dict[str, Any] = {},
    settings: dict[str, Any] = {},
    **doors: Any,
) -> AsyncIterator[Hall]:
    """Run an exchange with doors; the market is open unless told."""
    instruments: dict[str, dict[str, Any]] = {
        symbol: {**INSTRUMENT, **instrument} for symbol in symbols
    }
    if "XLF" in instruments:
        instruments["XLF.convert"] = {"lot": 10, "fee": 100}
        instruments["XLF.convert.basket"] = {"BOND": 3}
    path, ports = market(folder, instruments, accounts, teams, **doors)
    async with serving(market=path, **settings) as server:
        exchange = Hall(server, ports)
        if is_open:
            exchange.open()
        try:
            yield exchange
        finally:
            exchange.leave()
