"""A journal as one stream of NATS JetStream.

A stream has three copies, each synced to disk before an append is
acknowledged. An append names the sequence of the message before it, and the
stream refuses it if there is another one since. That keeps a second writer
away: there is no lock beside it.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from nats.aio.client import Client

from exchange.journal.address import Address
from exchange.journal.chain import JournalError
from exchange.journal.message import Message
from exchange.journal.servers import (
    FULL,
    NAME_IN_USE,
    NO_MESSAGE,
    NOT_FOUND,
    WRONG_SEQUENCE,
    Nats,
    Unanswered,
    ask,
    connect,
    error_code,
    reason,
)

# What a new stream may hold: some 24 million commands. The servers set that
# much aside for each stream. With ``discard: new`` a full stream refuses and
# drops nothing; an operator raises the limit with `nats stream edit`.
MAX_BYTES = 4 << 30
REPLICAS = 3
# The configuration that makes a stream a journal; `Stream.open` checks it.
CONFIG: Mapping[str, Any] = {
    "retention": "limits",
    "storage": "file",
    "discard": "new",
    "num_replicas": REPLICAS,
    "max_msgs": -1,
    "max_age": 0,
    "deny_delete": True,
    "deny_purge": True,
    "allow_direct": False,  # the leader answers reads, because it knows all
}
# No message has an id by which the stream would look for duplicates.
DUPLICATE_WINDOW_NS = 100_000_000
ANSWER_S = 0.5  # for one answer; more than a sync of three slow disks
CREATE_S = 5.0  # for an answer to the request that makes the stream


class Refused(Exception):
    """Another message has, or may get, the number that was expected."""


@dataclass(frozen=True, slots=True)
class State:
    """A stream as its leader sees it."""

    last: int  # number of the last message
    bytes: int
    max_bytes: int

    @property
    def free(self) -> int:
        """Return how many bytes more it may hold."""
        return max(0, self.max_bytes - self.bytes)


class Stream:
    """One stream. `open` connects to it; `close` hangs up."""

    def __init__(self, nats: Nats, address: Address, subject: str) -> None:
        self.address = address
        self.subject = subject
        self.name = f"EX_{address.name}"
        self._nats = nats

    @classmethod
    async def open(
        cls, address: Address, new_id: Callable[[], str] | None
    ) -> Self:
        """Connect, and make the stream if there is none.

        ``new_id`` returns a random word, which becomes part of the subject of
        a new stream. So a process of an earlier stream of the same name
        cannot append to it. None, for readers: make no stream. Raises
        Unanswered if the servers do not answer or there is no stream yet,
        JournalError if they refuse us or the stream is not a journal.
        """
        client = await connect(address)
        try:
            subject = await _subject(client, address, new_id)
        except BaseException:
            await client.close()
            raise
        return cls(client, address, subject)

    async def close(self) -> None:
        """Hang up."""
        await self.client.close()

    @property
    def client(self) -> Client:
        """The connection to the servers."""
        assert isinstance(self._nats, Client)
        return self._nats

    async def append(self, message: Message, expected: int) -> None:
        """Try once to store a message after message ``expected``.

        Raises Refused if it is not stored by this try, Unanswered if that is
        not known.
        """
        answer = await ask(
            self._nats,
            self.subject,
            message.body,
            timeout_s=ANSWER_S,
            headers=message.headers(expected),
        )
        code = error_code(answer)
        if code in WRONG_SEQUENCE:
            raise Refused
        if code is not None or answer.get("seq") != expected + 1:
            raise Unanswered(
                "the stream is full" if code == FULL else reason(answer)
            )

    async def fetch(self, sequence: int) -> Message | None:
        """Return one message; None if there is none.

        Raises Unanswered, or JournalError if it is none of ours.
        """
        answer = await ask(
            self._nats,
            f"$JS.API.STREAM.MSG.GET.{self.name}",
            json.dumps({"seq": sequence}).encode(),
            timeout_s=ANSWER_S,
        )
        code = error_code(answer)
        if code == NO_MESSAGE:
            return None
        if code is not None:
            raise Unanswered(reason(answer))
        stored = answer["message"]
        headers = _headers(b64decode(stored.get("hdrs", "")))
        body = b64decode(stored.get("data", ""))
        return read_message(self.address, sequence, headers, body)

    async def state(self) -> State:
        """Return what the leader says.

        Raises Unanswered; JournalError if it is another stream by now.
        """
        answer = await ask(
            self._nats,
            f"$JS.API.STREAM.INFO.{self.name}",
            timeout_s=ANSWER_S,
        )
        if error_code(answer) is not None:
            raise Unanswered(reason(answer))
        config, state = answer["config"], answer["state"]
        if config["subjects"] != [self.subject]:
            raise JournalError(
                f"{self.address}: the stream was deleted and made again"
            )
        return State(state["last_seq"], state["bytes"], config["max_bytes"])


async def _subject(
    client: Client, address: Address, new_id: Callable[[], str] | None
) -> str:
    """Return the subject of a stream; make the stream if there is none."""
    name = f"EX_{address.name}"
    answer = await ask(
        client, f"$JS.API.STREAM.INFO.{name}", timeout_s=CREATE_S
    )
    if error_code(answer) == NOT_FOUND and new_id is not None:
        config = {
            **CONFIG,
            "name": name,
            "subjects": [f"ex.{address.name}.{new_id()}"],
            "max_bytes": MAX_BYTES,
            "duplicate_window": DUPLICATE_WINDOW_NS,
        }
        answer = await ask(
            client,
            f"$JS.API.STREAM.CREATE.{name}",
            json.dumps(config).encode(),
            timeout_s=CREATE_S,
        )
        if error_code(answer) == NAME_IN_USE:  # made meanwhile
            answer = await ask(
                client, f"$JS.API.STREAM.INFO.{name}", timeout_s=CREATE_S
            )
    if error_code(answer) is not None:
        raise Unanswered(reason(answer))
    return check_config(address, answer["config"])


def check_config(address: Address, config: Mapping[str, Any]) -> str:
    """Return the subject of a stream that is a journal.

    Raises JournalError, which names the field that makes it none.
    """
    for field, wanted in CONFIG.items():
        found = config.get(field)
        if found != wanted:
            raise JournalError(
                f"{address}: the stream {config['name']} has {field}"
                f" {json.dumps(found)}; a journal needs {json.dumps(wanted)}"
            )
    subjects = config.get("subjects") or []
    head = f"ex.{address.name}."
    if len(subjects) != 1 or not subjects[0].startswith(head):
        raise JournalError(
            f"{address}: the stream {config['name']} has the subjects"
            f" {', '.join(subjects)}; a journal has one, {head}ID"
        )
    if config.get("persist_mode", "default") not in ("", "default"):
        raise JournalError(
            f"{address}: the stream {config['name']} has persist_mode"
            f" {config['persist_mode']}: what it acknowledges can be lost"
        )
    return str(subjects[0])


def _headers(raw: bytes) -> dict[str, str]:
    """Return the headers of a stored message."""
    lines = raw.decode().split("\r\n")[1:]  # the first is the version
    pairs = (line.partition(":") for line in lines if line)
    return {name: value.strip() for name, _, value in pairs}


def read_message(
    address: Address, sequence: int, headers: Mapping[str, str], body: bytes
) -> Message:
    """Return a message of the stream; raises JournalError."""
    try:
        return Message.read(headers, body)
    except ValueError as error:
        raise JournalError(
            f"{address}: message {sequence:,} is none of an exchange: {error}"
        ) from None
