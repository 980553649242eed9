"""What one message of the stream holds, and whether it follows the last one.

A journal on a stream is a sequence of messages. A ``batch`` holds commands
that were applied together, as a row of the SQLite journal does, with the same
digest of itself and all batches before it. The other kinds hold none and
repeat the last digest: a ``beat`` renews the lease of an idle primary, a
``fence`` makes its sender the primary, a ``bye`` says that the primary has
left in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from exchange.journal.records import decode_records, rules_in
from exchange.journal.sqlite import (
    NO_DIGEST,
    JournalError,
    chain,
    check_rules,
)
from exchange.market.command import RULES, Command, Configure

BATCH = "batch"
BEAT = "beat"
FENCE = "fence"
BYE = "bye"
KINDS = (BATCH, BEAT, FENCE, BYE)
# The sequence of the stream that an append expects; its server checks it.
EXPECTED = "Nats-Expected-Last-Sequence"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a process has read a stream.

    ``seq`` is the number of the last command, ``digest`` that of the last
    batch, ``sequence`` the number of the last message of the stream. A reader
    that has a snapshot begins at its position.
    """

    seq: int = 0
    digest: bytes = NO_DIGEST
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """One message, as it is sent and as it is read.

    ``first`` and ``last`` are the numbers of its commands; without commands
    ``last`` is that of the last command before it, and ``first`` one more.
    ``node`` names the process that sent it, ``lease_us`` is the T of that
    process, and ``body`` the records as in the SQLite journal.
    """

    kind: str
    first: int
    last: int
    node: str
    lease_us: int
    digest: bytes
    body: bytes = b""

    def headers(self, expected: int) -> dict[str, str]:
        """Return the headers of an append after message ``expected``."""
        return {
            EXPECTED: str(expected),
            "Ex-Kind": self.kind,
            "Ex-First": str(self.first),
            "Ex-Last": str(self.last),
            "Ex-Node": self.node,
            "Ex-Lease": str(self.lease_us),
            "Ex-Digest": self.digest.hex(),
        }

    @classmethod
    def read(cls, headers: Mapping[str, str], body: bytes) -> Self:
        """Return the message with these headers; raises ValueError."""
        try:
            return cls(
                kind=headers["Ex-Kind"],
                first=int(headers["Ex-First"]),
                last=int(headers["Ex-Last"]),
                node=headers["Ex-Node"],
                lease_us=int(headers["Ex-Lease"]),
                digest=bytes.fromhex(headers["Ex-Digest"]),
                body=body,
            )
        except KeyError as error:
            raise ValueError(f"it has no header {error.args[0]}") from None


class Writer:
    """Makes the messages of one process.

    ``node`` names the process: no other may ever have the same name.
    """

    def __init__(self, node: str, lease_us: int) -> None:
        self.node = node
        self.lease_us = lease_us

    def batch(
        self, after: Position, first: int, body: bytes, size: int
    ) -> Message:
        """Return a batch of ``size`` commands; its JSON is ``body``."""
        last = first + size - 1
        digest = chain(after.digest, first, last, body)
        return Message(
            BATCH, first, last, self.node, self.lease_us, digest, body
        )

    def sign(self, kind: str, after: Position) -> Message:
        """Return a beat, a fence or a bye."""
        return Message(
            kind,
            after.seq + 1,
            after.seq,
            self.node,
            self.lease_us,
            after.digest,
        )


def advance(
    name: str, at: Position, sequence: int, message: Message
) -> Position:
    """Return the position after a message, which must be the next one.

    ``name`` is the stream in the text of the JournalError that is raised if
    the message is not what follows ``at``: a message is missing, a batch is
    not as it was written, or it is of a kind that this program does not know.
    """
    where = f"{name}: message {sequence:,}, after command {at.seq:,}"
    if sequence != at.sequence + 1:
        raise JournalError(f"{where}: message {at.sequence + 1:,} is missing")
    if message.kind not in KINDS:
        raise JournalError(
            f"{where}: of kind {message.kind!r}, which this program does not"
            " know: use a newer release"
        )
    digest = at.digest
    if message.kind == BATCH:
        digest = chain(digest, message.first, message.last, message.body)
    is_next = message.first == at.seq + 1 and (
        message.last >= message.first
        if message.kind == BATCH
        else message.last == at.seq
    )
    if not is_next or digest != message.digest:
        raise JournalError(f"{where}: a batch is missing or damaged")
    return Position(message.last, digest, sequence)


def commands_of(
    name: str, message: Message, rules: range = RULES
) -> list[Command]:
    """Return the commands of a batch; raises JournalError as `advance`."""
    try:
        check_rules(name, rules_in(message.body), rules)
        commands = decode_records(message.first, message.body)
    except ValueError:
        raise JournalError(
            f"{name}: after command {message.first - 1:,}: a record that this"
            " program cannot read"
        ) from None
    if len(commands) != message.last - message.first + 1:
        raise JournalError(
            f"{name}: after command {message.first - 1:,}: a batch has"
            f" {len(commands):,} commands and says"
            f" {message.last - message.first + 1:,}"
        )
    if message.first == 1 and not isinstance(commands[0].action, Configure):
        raise JournalError(f"{name}: the first command is no configuration")
    return commands
