"""The link of a connection that calls methods over a websocket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json

from exchange.doors.spot import user_data
from exchange.doors.spot.common import Common
from exchange.doors.spot.errors import (
    SpotError,
    bad_key,
    illegal,
    missing,
    not_built,
)
from exchange.doors.spot.link import SpotLink
from exchange.doors.spot.market import WEIGHT_PER_MINUTE
from exchange.doors.spot.params import Params, read_json
from exchange.doors.spot.signatures import check_time, json_payloads
from exchange.doors.tcp import Connection
from exchange.doors.websocket import frame
from exchange.gateway.logins import Key
from orderbook import Error, Request

ID_LENGTH = 36
SUBSCRIPTIONS_MAX = 100


class _Number(str):
    """A number as it stands in JSON, because its text is signed."""


class ApiLink(SpotLink):
    """One websocket. It acts for one account, if it has a user data stream."""

    def __init__(self, connection: Connection, common: Common) -> None:
        super().__init__(connection, common)
        self._id: Any = None  # of the request that is carried out
        self._connected_ms = common.now_ms()
        self._logged_on: tuple[str, Key | None, int] | None = None
        self._subscriptions: dict[int, None] = {}
        self._next_subscription = 0
        self._told: list[str] = []  # texts that follow an answer
        self._own = {
            "session.logon": self._log_on,
            "session.status": self._status,
            "session.logout": self._log_out,
            "userDataStream.subscribe": self._subscribe,
            "userDataStream.subscribe.signature": self._subscribe_signed,
            "userDataStream.unsubscribe": self._unsubscribe,
            "userDataStream.start": self._start,
            "userDataStream.ping": self._keep,
            "userDataStream.stop": self._keep,
        }

    # In ----------------------------------------------------------------------

    def begin(self, message: bytes) -> Sequence[Request | Error]:
        """Read a request; call its method."""
        self._id = None
        asked = _read(message)
        self._id = _id_of(asked)
        name = asked.get("method")
        if not isinstance(name, str) or isinstance(name, _Number):
            raise missing("method")
        given = asked.get("params", {})
        if not isinstance(given, dict):
            raise illegal("params", "it must be an object")
        params = read_json(given)
        own = self._own.get(name)
        if own is not None:
            self.used_weight = self._common.charge(self.address, 2)
            self.answer(own(params))
            return ()
        method = self._common.methods.get(name)
        if method is None or name.startswith("sapi."):
            raise not_built(name)
        if method.security == "signed":
            self._identify(params)
        self.charge(method, params)
        return self.call(method, params)

    def _identify(self, params: Params) -> None:
        """Act for who signed, or who logged on; raises SpotError."""
        if "signature" in params or self._logged_on is None:
            check_time(params, self._common.now_ms())
            self.authenticate(
                params.get("apiKey", ""), params, json_payloads(params)
            )
        else:
            if params.get("timestamp"):
                check_time(params, self._common.now_ms())
            self.act_for(*self._logged_on[:2])

    def act_for(self, user: str, key: Key | None) -> None:
        """Act for an account, but not for another than it follows."""
        if self._subscriptions and user != self.account:
            raise SpotError(
                -1000,
                "This connection has a user data stream of another account;"
                " use another connection.",
            )
        super().act_for(user, key)

    # The session -------------------------------------------------------------

    def _log_on(self, params: Params) -> Any:
        check_time(params, self._common.now_ms())
        self.authenticate(
            params.get("apiKey", ""), params, json_payloads(params)
        )
        self._logged_on = self.account, self.held_key, self._common.now_ms()
        return self._session()

    def _status(self, params: Params) -> Any:
        return self._session()

    def _log_out(self, params: Params) -> Any:
        self._logged_on = None
        return self._session()

    def _session(self) -> dict[str, Any]:
        user, _, since_ms = self._logged_on or (None, None, None)
        return {
            "apiKey": user,
            "authorizedSince": since_ms,
            "connectedSince": self._connected_ms,
            "returnRateLimits": True,
            "serverTime": self._common.now_ms(),
            "userDataStream": bool(self._subscriptions),
        }

    # User data ---------------------------------------------------------------

    def _subscribe_signed(self, params: Params) -> Any:
        check_time(params, self._common.now_ms())
        self.authenticate(
            params.get("apiKey", ""), params, json_payloads(params)
        )
        return self._add_subscription()

    def _subscribe(self, params: Params) -> Any:
        if self._logged_on is None:
            raise bad_key()
        self.act_for(*self._logged_on[:2])
        return self._add_subscription()

    def _add_subscription(self) -> Any:
        if len(self._subscriptions) >= SUBSCRIPTIONS_MAX:
            raise SpotError(
                -1000, f"A connection has {SUBSCRIPTIONS_MAX} subscriptions."
            )
        number = self._next_subscription
        self._next_subscription += 1
        self._subscriptions[number] = None
        return {"subscriptionId": number}

    def _unsubscribe(self, params: Params) -> Any:
        number = params.integer("subscriptionId")
        if number is None:
            self._subscriptions.clear()
        elif number in self._subscriptions:
            del self._subscriptions[number]
        else:
            raise illegal("subscriptionId", "there is no such subscription")
        return {}

    def _start(self, params: Params) -> Any:
        signatures = self._common.signatures
        user, key = signatures.holder_of(params.get("apiKey", ""))
        return {"listenKey": signatures.listen_key(user, key)}

    def _keep(self, params: Params) -> Any:
        if params.text("listenKey") != self._start(params)["listenKey"]:
            raise SpotError(-1125, "This listenKey does not exist.")
        return {}

    # Out ---------------------------------------------------------------------

    def answer(self, result: Any) -> None:
        """Send a result."""
        self._reply({"status": HTTPStatus.OK, "result": result})

    def refuse(self, error: SpotError) -> None:
        """Send an error; end the connection if it is one of a login."""
        self.count(error)
        body = error.body
        if error.retry_ms:
            body["data"] = {
                "serverTime": self._common.now_ms(),
                "retryAfter": self._common.now_ms() + error.retry_ms,
            }
        self._reply({"status": error.status, "error": body})
        if error.is_login:
            self.cut_off("login failed")

    def _reply(self, reply: dict[str, Any]) -> None:
        limit = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": WEIGHT_PER_MINUTE,
            "count": self.used_weight,
        }
        self._push({"id": self._id, **reply, "rateLimits": [limit]})
        told, self._told = self._told, []
        if told:
            self._tell_all(told)

    def tell(self, texts: Sequence[str]) -> None:
        """Send the account's events, after the answer to the call."""
        if not self._subscriptions:
            return
        if self._steps is not None:
            self._told += texts
        else:
            self._tell_all(texts)

    def _tell_all(self, texts: Sequence[str]) -> None:
        for event in user_data.events(self._common, self.account, texts):
            for number in self._subscriptions:
                self._push({"subscriptionId": number, "event": event})

    def _push(self, message: Any) -> None:
        self.push(frame(to_json(message)))


def _read(message: bytes) -> dict[str, Any]:
    """Return a request; its numbers are texts. Raises SpotError."""
    try:
        asked = json.loads(message, parse_int=_Number, parse_float=_Number)
        if b"\\u" in message:  # an escape may be half of a character
            json.dumps(asked, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise SpotError(-1000, "A request is JSON.") from None
    if not isinstance(asked, dict):
        raise SpotError(-1000, "A request is a JSON object.")
    return asked


def _id_of(asked: dict[str, Any]) -> Any:
    """Return the id of a request, of its own type; raises SpotError."""
    number = asked.get("id")
    if isinstance(number, _Number):
        try:
            return int(number)
        except ValueError:
            raise illegal("id", "it must be an integer or a text") from None
    if number is None:
        return None
    if not isinstance(number, str) or len(number) > ID_LENGTH:
        raise illegal("id", "it must be an integer or a text")
    return number
