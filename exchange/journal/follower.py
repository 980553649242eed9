"""Follows a stream: each batch, verified, to whoever applies it.

A standby and an edge do this without end. Neither believes that the servers
deliver everything in order: each message must fit the one before, by number,
by command and by digest.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error

from exchange.journal.chain import JournalError
from exchange.journal.checksum import DivergedError
from exchange.journal.message import Cursor, Message, Position
from exchange.journal.servers import Unanswered, ask, error_code, reason
from exchange.journal.storage import Batch
from exchange.journal.stream import CREATE_S, State, Stream, read_message
from exchange.market.command import RULES

# One request for messages: how many, how many bytes, how long it stands.
READ_MESSAGES = 256
READ_BYTES = 4 << 20
READ_S = 30
# The messages that a request did not bring, in the header of its end.
LEFT_OVER = "Nats-Pending-Messages"
# Gaps at one message that may be those of consumers.
GAPS_MAX = 3
# A consumer that nobody reads is removed by its server after this. It is
# short, because after a majority was lost and is back the servers may refuse
# another one until then ("maximum consumers limit reached").
IDLE_S = 5


@dataclass(frozen=True, slots=True)
class Received:
    """A message that a `Tail` read; ``pending`` ones were stored after it."""

    sequence: int
    message: Message
    pending: int


class Tail:
    """Reads a stream from a message on, for ever.

    What a consumer sends while a connection breaks is lost, so after a gap
    there is another consumer. If a gap comes again and again, the stream has
    it, and `Cursor.verify` notices. A consumer may also die with its server,
    without a word. So after a silence its owner asks for `Stream.state`, and
    calls `reset` if there are messages that it has not got.
    """

    def __init__(self, stream: Stream, after: int) -> None:
        self._client = stream.client
        self._stream = stream
        self._read = after  # the last sequence that `read` returned
        self._queued: list[Msg] = []
        self._arrived = asyncio.Event()
        self._inbox: Any = None  # nats.aio.subscription.Subscription
        self._next = ""  # subject of requests for messages
        self._wanted = 0  # messages of the request that stands
        self._gaps = 0  # seen since the last message
        self._consumers = 0  # made so far

    async def read(self, timeout_s: float) -> list[Received]:
        """Return the messages that have come; wait for the first of them.

        The list is empty after ``timeout_s`` without one. Raises Unanswered
        if no consumer can be made, JournalError for a message that is none of
        ours.
        """
        if not self._next:
            await self._open()
        if not self._queued:
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        queued, self._queued = self._queued, []
        received: list[Received] = []
        for message in queued:
            if message.reply:
                one = self._received(message)
                is_next = one.sequence == self._read + 1
                if not is_next and self._gaps < GAPS_MAX:
                    self._gaps += 1
                    await self.reset()
                    break
                received.append(one)
                self._read = one.sequence
                self._gaps = 0
                self._wanted -= 1
            elif left_over := (message.headers or {}).get(LEFT_OVER):
                self._wanted -= int(left_over)
            else:  # the consumer is gone
                await self.reset()
                break
        if self._next and self._wanted <= READ_MESSAGES // 2:
            await self._ask_for_more()
        return received

    def _received(self, message: Msg) -> Received:
        data = message.metadata
        sequence = data.sequence.stream
        return Received(
            sequence,
            read_message(
                self._stream.address,
                sequence,
                message.headers or {},
                message.data,
            ),
            data.num_pending,
        )

    async def reset(self) -> None:
        """Give the consumer up; the next `read` makes another one."""
        self._next = ""
        self._consumers += 1
        self._queued.clear()
        if self._inbox is not None:
            inbox, self._inbox = self._inbox, None
            try:
                await inbox.unsubscribe()
            except Error:
                pass  # its connection is closed

    async def _open(self) -> None:
        await self.reset()
        stream = self._stream
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._read + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": IDLE_S * 1_000_000_000,
        }
        answer = await ask(
            self._client,
            f"$JS.API.CONSUMER.CREATE.{stream.name}",
            json.dumps(
                {"stream_name": stream.name, "config": config}
            ).encode(),
            timeout_s=CREATE_S,
        )
        if error_code(answer) is not None:
            raise Unanswered(reason(answer))
        try:
            self._inbox = await self._client.subscribe(
                self._client.new_inbox(),
                cb=partial(self._arrive, self._consumers),
            )
        except Error as error:
            raise Unanswered(str(error)) from None
        self._wanted = 0
        self._next = (
            f"$JS.API.CONSUMER.MSG.NEXT.{stream.name}.{answer['name']}"
        )
        await self._ask_for_more()

    async def _ask_for_more(self) -> None:
        self._wanted += READ_MESSAGES
        request = {
            "batch": READ_MESSAGES,
            "max_bytes": READ_BYTES,
            "expires": READ_S * 1_000_000_000,
        }
        try:
            await self._client.publish(
                self._next,
                json.dumps(request).encode(),
                reply=self._inbox.subject,
            )
        except Error:  # not connected
            await self.reset()

    async def _arrive(self, consumer: int, message: Msg) -> None:
        if consumer == self._consumers:  # and not given up meanwhile
            self._queued.append(message)
            self._arrived.set()


class Follower:
    """Reads a stream from a position on, and has each batch applied.

    ``apply`` takes a batch, and may raise DivergedError; ``keep`` takes its
    message after that, to store it elsewhere too. ``at`` is where to
    begin: that of a snapshot, or the beginning. ``rules`` are the versions
    that this program has.

    An edge follows like this, until it is canceled::

        stream = await Stream.open(address, None)
        follower = Follower(stream, apply)
        while True:
            try:
                if not await follower.read(timeout_s):
                    await follower.look()
            except Unanswered:
                ...  # the stream does not answer: say so, and go on

    It never appends, and asks for `Stream.state` at most, so its user of NATS
    needs no permission to publish on the stream's subject.
    """

    def __init__(
        self,
        stream: Stream,
        apply: Callable[[Batch], object],
        at: Position = Position(),
        rules: range = RULES,
        keep: Callable[[Message], object] | None = None,
    ) -> None:
        self.pending = 0  # messages stored and not yet read, at the last one
        self._stream = stream
        self._apply = apply
        self._keep = keep
        self._cursor = Cursor(stream.address, at, rules)
        self._tail = Tail(stream, at.sequence)

    @property
    def at(self) -> Position:
        """The position after the last message that was read."""
        return self._cursor.at

    async def read(self, timeout_s: float) -> list[Message]:
        """Apply what has come, and return it; wait for the first message.

        The list is empty after ``timeout_s`` without one. Other tasks run
        between two batches. Raises Unanswered if the servers do not answer,
        JournalError at the first message that is not the next one, or that
        came out differently than at the primary.
        """
        messages: list[Message] = []
        for received in await self._tail.read(timeout_s):
            self.follow(received)
            messages.append(received.message)
            await asyncio.sleep(0)
        return messages

    def follow(self, received: Received) -> None:
        """Verify the next message and have its commands applied."""
        message = received.message
        commands = self._cursor.verify(received.sequence, message)
        if commands:
            try:
                self._apply(Batch(commands, message.checksum))
            except DivergedError as error:
                raise JournalError(
                    f"{self._stream.address}: {error}"
                ) from None
            if self._keep is not None:
                self._keep(message)
        self.pending = received.pending

    async def look(self) -> State:
        """Ask for the stream's state; read with a new consumer if behind.

        Raises Unanswered, or JournalError if the stream ends before `at`.
        """
        state = await self._stream.state()
        if state.last < self._cursor.sequence:
            raise JournalError(
                f"{self._stream.address}: it ends with message"
                f" {state.last:,}, and {self._cursor.sequence:,} was read"
                " before"
            )
        self.pending = state.last - self._cursor.sequence
        if self.pending:
            await self._tail.reset()
        return state

    async def close(self) -> None:
        """Read no more."""
        await self._tail.reset()
