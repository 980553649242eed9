"""Requests to the servers of NATS, and what their answers mean."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Protocol

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import (
    AuthorizationError,
    ConnectionClosedError,
    Error,
    NoRespondersError,
)

from exchange.journal.address import Address
from exchange.journal.chain import JournalError

CONNECT_S = 2  # for a connection to one server
# A server that does not answer is left for another one after two pings.
PING_S = 1
RECONNECT_S = 0.1
TRIES = 2  # of each server, before the first connection
FOR_EVER = -1

# Codes of errors.
NOT_FOUND = 10059  # the stream
NO_MESSAGE = 10037
NAME_IN_USE = 10058  # with another configuration: made by another process
# Another message has, or may get, the sequence after the expected one.
WRONG_SEQUENCE = (10071, 10164)
FULL = 10077


class Unanswered(Exception):
    """The servers gave no answer, or none that says what happened."""


class Nats(Protocol):
    """What a `Stream` needs of a connection to the servers."""

    async def request(
        self,
        subject: str,
        payload: bytes,
        timeout: float,
        *,
        headers: dict[str, Any] | None,
    ) -> Msg:
        """Send a request; return the answer, or raise `nats.errors.Error`."""


async def connect(address: Address) -> Client:
    """Return a connection that renews itself for ever.

    Raises Unanswered if no server answers, JournalError if they refuse us.
    """
    client = Client()
    try:
        await client.connect(
            list(address.servers),
            error_cb=_ignore,
            name="exchange",
            connect_timeout=CONNECT_S,
            max_reconnect_attempts=TRIES,
            ping_interval=PING_S,
            allow_reconnect=True,
        )
    except AuthorizationError as error:
        raise JournalError(f"{address}: {error}") from None
    except (Error, OSError) as error:
        text = str(error) or error.__class__.__name__
        if "authorization" in text.lower():
            raise JournalError(f"{address}: {text}") from None
        raise Unanswered(text) from None
    client.options["reconnect_time_wait"] = RECONNECT_S
    client.options["max_reconnect_attempts"] = FOR_EVER
    return client


async def _ignore(error: Exception) -> None:
    """Take what the library reports: each call notices it by itself."""


async def ask(
    nats: Nats,
    subject: str,
    payload: bytes = b"",
    *,
    timeout_s: float,
    headers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Send a request; return the answer, or raise Unanswered.

    Raises JournalError if the servers have ended the connection for good.
    """
    try:
        message = await nats.request(
            subject, payload, timeout_s, headers=headers
        )
    except NoRespondersError:
        raise Unanswered("the stream has no leader") from None
    except ConnectionClosedError:
        raise JournalError("the servers of NATS refuse this process") from None
    except (Error, OSError, asyncio.TimeoutError) as error:
        text = str(error) or error.__class__.__name__
        raise Unanswered(text.removeprefix("nats: ")) from None
    try:
        answer = json.loads(message.data)
    except ValueError:
        raise Unanswered("an answer that is no JSON") from None
    assert isinstance(answer, dict)
    return answer


def error_code(answer: dict[str, Any]) -> int | None:
    """Return the code of an error; None: the answer is none."""
    error = answer.get("error")
    return None if error is None else int(error.get("err_code", 0))


def reason(answer: dict[str, Any]) -> str:
    """Return the text of an error."""
    error = answer.get("error") or {}
    return str(error.get("description") or f"the answer {answer}")
