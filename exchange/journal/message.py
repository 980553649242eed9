"""What one message of the stream holds, and whether it follows the last one.

A journal on a stream is a sequence of messages. A ``batch`` holds commands
that were applied together, as a row of the SQLite journal does, with the same
digest of itself and all batches before it. The other kinds hold none and
repeat the last digest: a ``beat`` renews the lease of an idle primary, a
``fence`` makes its sender the primary, a ``bye`` says that the primary has
left in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from exchange.journal.chain import NO_DIGEST, Chain, JournalError
from exchange.market.command import RULES, Command

BATCH = "batch"
BEAT = "beat"
FENCE = "fence"
BYE = "bye"
KINDS = (BATCH, BEAT, FENCE, BYE)
# The sequence of the stream that an append expects; its server checks it.
EXPECTED = "Nats-Expected-Last-Sequence"
# Bytes of records in one message; the servers take messages of 1 MiB.
BODY_BYTES = 512 * 1024


def cut(records: Sequence[str], size: int) -> int:
    """Return how many of these records are one message of at most ``size``.

    It is at least one.
    """
    for count, record in enumerate(records):
        size -= len(record) + 1
        if size < 0 and count:
            return count
    return len(records)


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
    process, ``body`` the records and ``checksum`` that of their outputs, as
    in the SQLite journal.
    """

    kind: str
    first: int
    last: int
    node: str
    lease_us: int
    digest: bytes
    body: bytes = b""
    checksum: int | None = None

    def headers(self, expected: int) -> dict[str, str]:
        """Return the headers of an append after message ``expected``."""
        headers = {
            EXPECTED: str(expected),
            "Ex-Kind": self.kind,
            "Ex-First": str(self.first),
            "Ex-Last": str(self.last),
            "Ex-Node": self.node,
            "Ex-Lease": str(self.lease_us),
            "Ex-Digest": self.digest.hex(),
        }
        if self.checksum is not None:
            headers["Ex-Check"] = str(self.checksum)
        return headers

    @classmethod
    def read(cls, headers: Mapping[str, str], body: bytes) -> Self:
        """Return the message with these headers; raises ValueError."""
        checksum = headers.get("Ex-Check")
        try:
            return cls(
                kind=headers["Ex-Kind"],
                first=int(headers["Ex-First"]),
                last=int(headers["Ex-Last"]),
                node=headers["Ex-Node"],
                lease_us=int(headers["Ex-Lease"]),
                digest=bytes.fromhex(headers["Ex-Digest"]),
                body=body,
                checksum=None if checksum is None else int(checksum),
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
        self,
        after: Position,
        records: Sequence[str],
        checksum: int | None,
    ) -> Message:
        """Return a batch of encoded commands that follow a position."""
        first, last = after.seq + 1, after.seq + len(records)
        body = f"[{','.join(records)}]".encode()
        chain = Chain("", seq=after.seq, digest=after.digest)
        return Message(
            BATCH,
            first,
            last,
            self.node,
            self.lease_us,
            chain.after(first, last, body),
            body,
            checksum,
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


class Cursor:
    """The end of a stream, as far as it was read or written.

    ``name`` is the stream in errors, ``at`` where to begin, ``rules`` are the
    versions of the rules that commands may need.
    """

    def __init__(
        self, name: object, at: Position = Position(), rules: range = RULES
    ) -> None:
        self.sequence = at.sequence
        self._name = name
        self._chain = Chain(name, rules, at.seq, at.digest)

    @property
    def at(self) -> Position:
        """The position that was reached."""
        return Position(self._chain.seq, self._chain.digest, self.sequence)

    def pass_own(self, message: Message) -> None:
        """Go on to a message that this process has written."""
        self._chain.add(message.last, message.digest)
        self.sequence += 1

    def verify(self, sequence: int, message: Message) -> list[Command]:
        """Return the commands of the next message, and go on to it.

        Raises JournalError, and does not go on, if a message is missing, if
        it does not follow, is damaged, or cannot be read by this program.
        """
        chain = self._chain
        where = f"{self._name}: message {sequence:,}"
        if sequence != self.sequence + 1:
            raise JournalError(
                f"{where}: message {self.sequence + 1:,} is missing"
            )
        if message.kind not in KINDS:
            raise JournalError(
                f"{where}: of kind {message.kind!r}, which this program does"
                " not know: use a newer release"
            )
        commands: list[Command] = []
        if message.kind == BATCH:
            commands = chain.verify(
                message.first, message.last, message.digest, message.body
            )
        elif (message.last, message.digest) != (chain.seq, chain.digest):
            raise JournalError(
                f"{where}: after command {chain.seq}: a batch is missing or"
                " damaged"
            )
        self.sequence = sequence
        return commands
