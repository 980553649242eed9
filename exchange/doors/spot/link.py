"""The link of one connection of the dialect: who it acts for, and its calls.

One call is carried out at a time. What it asks of the engine goes through the
gateway as native requests, and comes back as native texts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from types import GeneratorType
from typing import Any

from pydantic_core import from_json

from exchange.doors.spot.common import Common
from exchange.doors.spot.errors import UNKNOWN, SpotError, of_native
from exchange.doors.spot.methods import Method
from exchange.doors.spot.orders import REPLY
from exchange.doors.spot.params import Params
from exchange.doors.spot.trading import Steps
from exchange.doors.tcp import Connection
from exchange.gateway.link import Deferred, Incoming, Link
from exchange.gateway.logins import Key
from orderbook import Error, Refused, Request

LOGIN_FAILED = 4001
logger = logging.getLogger("exchange")
_REPLY_END = f',"id":{REPLY}}}'


class SpotLink(Link):
    """A connection that calls methods. It is its own door."""

    def __init__(self, connection: Connection, common: Common) -> None:
        super().__init__(connection, self, common.outbox.links)
        self._connection = connection
        self.used_weight = 0
        self.held_key: Key | None = None  # of the account it acts for
        self._common = common
        self._deferred: Deferred | None = None  # whose steps are carried out
        self._steps: Steps | None = None
        self._asked: Request | None = None  # what the steps wait for
        self._texts_back: list[str] = []  # texts since it was asked

    # As a door ---------------------------------------------------------------

    def decode(self, message: bytes) -> Sequence[Incoming]:
        """Return a message as a request, to be read in its turn."""
        return [
            Deferred(message, not self.account and self.may_log_in(message))
        ]

    def encode(self, texts: list[str]) -> bytes:
        """Return nothing: heartbeats are not of the dialect."""
        return b""

    def may_log_in(self, message: bytes) -> bool:
        """Whether a message may be signed."""
        return b"signature" in message

    # In ----------------------------------------------------------------------

    def resolve(self, deferred: Deferred) -> Sequence[Request | Error]:
        """Begin a call; return what it asks of the engine."""
        if deferred is self._deferred and self._asked is not None:
            return [self._asked]  # it had to wait
        self._deferred = deferred
        assert isinstance(deferred.message, bytes)
        try:
            return self.begin(deferred.message)
        except SpotError as error:
            self.refuse(error)
        except Exception:
            self._break_off()
        return ()

    def go_on(self) -> Sequence[Request | Error]:
        """Give the call what the engine answered."""
        texts, self._texts_back = self._texts_back, []
        first = next(
            (i for i, text in enumerate(texts) if text.endswith(_REPLY_END)),
            len(texts),
        )
        reports = [from_json(text) for text in texts[first:]]
        try:
            return self._advance(reports)
        except Exception:
            self._break_off()
        return ()

    def _break_off(self) -> None:
        """End the connection after a bug in this door, and nothing else.

        The door only reads the market and words answers, so the exchange is
        as it was, or as the engine has left it.
        """
        logger.exception("a request of %s", self._connection.remote)
        self._end_call()
        self.refuse(
            SpotError(
                UNKNOWN,
                "An unknown error occurred while processing the request.",
                HTTPStatus.INTERNAL_SERVER_ERROR,
            )
        )
        self.cut_off("internal error")

    def begin(self, message: bytes) -> Sequence[Request | Error]:
        """Read a message, and answer it or return what it becomes."""
        raise NotImplementedError

    def call(
        self,
        method: Method,
        params: Params,
        *arguments: Any,
    ) -> Sequence[Request | Error]:
        """Run a method for the account that this link acts for."""
        if method.security == "none":
            result = method.run(params)
        else:
            result = method.run(self.account, params)
        if isinstance(result, GeneratorType):
            self._steps = result
            return self._advance(None)
        self.answer(result)
        return ()

    def _advance(self, reports: Any) -> Sequence[Request | Error]:
        assert self._steps is not None
        try:
            self._asked = self._steps.send(reports)
            return [self._asked]
        except StopIteration as stop:
            self._end_call()
            self.answer(stop.value)
        except SpotError as error:
            self._end_call()
            self.refuse(error)
        return ()

    def _end_call(self) -> None:
        self._steps = self._asked = None

    @property
    def address(self) -> str:
        """Whose public requests these are; no account has this name."""
        return f"@{self._connection.remote}"

    # Who it is ---------------------------------------------------------------

    def charge(self, method: Method, params: Params) -> None:
        """Charge a request; raises SpotError beyond the limit."""
        whose = self.address
        if method.security != "none":
            whose = self.account
        self.used_weight = self._common.charge(whose, method.weigh(params))

    def authenticate(
        self, api_key: str, params: Params, payloads: Iterable[str]
    ) -> None:
        """Act for the account that signed; raises SpotError."""
        common = self._common
        user, key = common.signatures.account_of(
            api_key, params.get("signature", ""), payloads
        )
        self.act_for(user, key)

    def act_for(self, user: str, key: Key | None) -> None:
        """Act for an account from now on; raises SpotError."""
        if user == self.account and key == self.held_key:
            return
        self.leave_account()
        try:
            self._common.logins.attach(self, user, key)
        except Refused as refusal:
            raise of_native({"code": refusal.code, "message": str(refusal)})
        self.held_key = key

    def leave_account(self) -> None:
        """Act for no account any more."""
        self._common.logins.detach(self)

    # Out ---------------------------------------------------------------------

    def answer(self, result: Any) -> None:
        """Answer the call."""
        raise NotImplementedError

    def refuse(self, error: SpotError) -> None:
        """Answer that the call is refused."""
        raise NotImplementedError

    def count(self, error: SpotError) -> None:
        """Count a refusal that did not come from the engine."""
        if error.is_login:
            self._common.count_refusal("unauthorized")
        elif error.status == 429:
            self._common.count_refusal("rate_limited")
        else:
            self._common.count_refusal("bad_request")

    def send(self, *texts: str) -> None:
        """Take native texts: for the call, and for the user's stream."""
        if self._steps is not None:
            self._texts_back += texts
        self.tell(texts)

    def tell(self, texts: Sequence[str]) -> None:
        """Tell the account's events to the client, if it follows them."""

    def cut_off(self, reason: str) -> None:
        """End the connection after what was sent."""
        self._common.outbox.cut(self, LOGIN_FAILED, reason)
