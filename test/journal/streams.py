"""Streams on real servers, and what is written to them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

from exchange.host.clock import elapsed_ns
from exchange.host.market_file import InstrumentSettings
from exchange.journal.address import Address
from exchange.journal.appender import Appender
from exchange.journal.lease import Lease
from exchange.journal.message import Message, Position, Writer
from exchange.journal.records import encode_record
from exchange.journal.servers import Unanswered
from exchange.journal.stream import Stream
from exchange.market.command import Command, Configure, Connect
from util.measure.nats_servers import NatsServers
from util.measure.wire import PATIENCE_S

T_US = 1_000_000
MARKET = Configure(instruments=(InstrumentSettings().listed_as("BOND"),))
COMMANDS = (
    Command(1, 1_000, "", "", MARKET),
    *(
        Command(
            seq,
            seq * 1_000,
            f"a{seq}",
            f"s{seq}",
            Connect(cancel_on_disconnect=False),
        )
        for seq in range(2, 100)
    ),
)
_numbers = itertools.count(1)


def now() -> int:
    """Return elapsed microseconds."""
    return elapsed_ns() // 1_000


def new_address(servers: NatsServers) -> Address:
    """Return the address of a stream that no other test uses."""
    return Address.read(servers.url(f"test{next(_numbers)}"))


async def opened(address: Address, id: str = "first") -> Stream:
    """Open a stream as soon as its servers have elected a leader."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await Stream.open(address, lambda: id)
            except Unanswered:
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def opening(
    address: Address, id: str = "first"
) -> AsyncIterator[Stream]:
    """Open a stream, and hang up at the end."""
    stream = await opened(address, id)
    try:
        yield stream
    finally:
        await stream.close()


def batch(writer: Writer, after: Position, size: int = 1) -> Message:
    """Return the next commands as a batch."""
    commands = COMMANDS[after.seq : after.seq + size]
    return writer.batch(after, [*map(encode_record, commands)], 77)


class Node:
    """A process that writes a stream, without the rest of an exchange."""

    def __init__(
        self, stream: Stream, name: str, at: Position = Position()
    ) -> None:
        self.lease = Lease(T_US)
        self.writer = Writer(name, T_US)
        self.appender = Appender(stream, self.lease, now, at)

    @property
    def at(self) -> Position:
        return self.appender.at

    async def batch(self, size: int = 1) -> None:
        await self.appender.append(batch(self.writer, self.at, size))

    async def sign(self, kind: str) -> None:
        await self.appender.append(self.writer.sign(kind, self.at))
