"""The link of a connection that sends HTTP requests."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic_core import to_json

from exchange.doors.spot.asked import Asked, pack_answer, unpack_request
from exchange.doors.spot.errors import (
    UNKNOWN,
    SpotError,
    not_built,
)
from exchange.doors.spot.link import SpotLink
from exchange.doors.spot.methods import KNOWN_PATHS, PATHS
from exchange.doors.spot.params import Params, read_form
from exchange.doors.spot.signatures import check_time, payloads_of
from orderbook import Error, Request

LISTEN = "userDataStream."


class RestLink(SpotLink):
    """One HTTP connection. Each request says for which account it is."""

    def begin(self, message: bytes) -> Sequence[Request | Error]:
        """Find the method and the account of a request; call the method."""
        asked = unpack_request(message)
        name = PATHS.get((asked.method, asked.path))
        if name is None:
            raise _no_such(asked)
        params = read_form(asked.query, asked.body)
        if name.startswith(LISTEN):
            self._listen(name, asked, params)
            return ()
        method = self._common.methods[name]
        if method.security == "signed":
            check_time(params, self._common.now_ms())
            self.authenticate(asked.api_key, params, payloads_of(asked))
        self.charge(method, params)
        return self.call(method, params)

    def _listen(self, name: str, asked: Asked, params: Params) -> None:
        """Make, confirm or end a listen key."""
        signatures = self._common.signatures
        if params.get("signature"):
            user, key = signatures.account_of(
                asked.api_key, params["signature"], payloads_of(asked)
            )
        else:
            user, key = signatures.holder_of(asked.api_key)
        self.used_weight = self._common.charge(user, 2)
        listen_key = signatures.listen_key(user, key)
        if name == f"{LISTEN}start":
            self.answer({"listenKey": listen_key})
        elif params.text("listenKey") != listen_key:
            raise SpotError(-1125, "This listenKey does not exist.")
        else:
            self.answer({})

    def answer(self, result: Any) -> None:
        """Send a result."""
        self._respond(HTTPStatus.OK, to_json(result))

    def refuse(self, error: SpotError) -> None:
        """Send an error; end the connection if it is one of a login."""
        self.count(error)
        self._respond(error.status, error.text, error.retry_ms, error.is_login)

    def _respond(
        self,
        status: int,
        body: bytes,
        retry_ms: int = 0,
        is_last: bool = False,
    ) -> None:
        headers = [("X-MBX-USED-WEIGHT-1M", str(self.used_weight))]
        if retry_ms:
            headers.append(("Retry-After", str(-(-retry_ms // 1_000))))
        self.push(pack_answer(status, body, headers, is_last))


def _no_such(asked: Asked) -> SpotError:
    """Return why a request leads nowhere."""
    if asked.path in KNOWN_PATHS:
        return SpotError(
            UNKNOWN,
            f"{asked.method} is not supported at {asked.path}.",
            HTTPStatus.METHOD_NOT_ALLOWED,
        )
    return not_built(asked.path)
