"""Who signed a request, and when.

A signature is the HMAC-SHA256 of the parameters with the account's API
secret, in hexadecimal. Over HTTP it is made of query and body as they were
sent, or, by clients that sign before they encode, of the same text decoded.
Over a websocket it is made of the parameters sorted by name, raw or encoded.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from urllib.parse import quote, urlencode

from exchange.doors.spot.asked import Asked
from exchange.doors.spot.errors import SpotError, bad_key, illegal, missing
from exchange.doors.spot.params import Params, decoded
from exchange.gateway.logins import Key, Keys

SIGNATURE = "signature"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_MARK = f"{SIGNATURE}="
RECV_WINDOW_MS = 5_000
RECV_WINDOW_MAX_MS = 60_000
AHEAD_MS = 1_000  # that a client's clock may be ahead
LISTEN_MAC = 40  # characters of a listen key that prove it
# A timestamp above this is in microseconds.
_MICROSECONDS = 10**14


def no_key() -> SpotError:
    """A request that needs an API key has none."""
    return SpotError(
        -2014,
        "API-key format invalid.",
        HTTPStatus.UNAUTHORIZED,
        is_login=True,
    )


def bad_signature() -> SpotError:
    """The signature is not that of the account."""
    return SpotError(
        -1022, "Signature for this request is not valid.", is_login=True
    )


def check_time(params: Params, now_ms: int) -> None:
    """Refuse a request that is too old or from the future."""
    if not params.get("timestamp"):
        raise missing("timestamp")
    timestamp = params.integer("timestamp")
    assert timestamp is not None
    if timestamp > _MICROSECONDS:
        timestamp //= 1_000
    window = params.integer("recvWindow")
    if window is None:
        window = RECV_WINDOW_MS
    if not 0 < window <= RECV_WINDOW_MAX_MS:
        raise SpotError(
            -1131, f"recvWindow must be 1 to {RECV_WINDOW_MAX_MS}."
        )
    if timestamp >= now_ms + AHEAD_MS:
        raise SpotError(
            -1021,
            "Timestamp for this request was more than 1000ms ahead of the"
            " server's time.",
        )
    if now_ms - timestamp > window:
        raise SpotError(
            -1021,
            "Timestamp for this request is outside of the recvWindow.",
        )


def payload_of(asked: Asked) -> str:
    """Return what an HTTP request signs: all but the signature itself."""
    return _without_signature(asked.query) + _without_signature(asked.body)


def _without_signature(text: str) -> str:
    if _MARK not in text:
        return text
    parts = text.split("&")
    return "&".join(part for part in parts if not part.startswith(_MARK))


def payloads_of(asked: Asked) -> Iterator[str]:
    """Yield the texts that an HTTP request may have signed."""
    payload = payload_of(asked)
    yield payload
    yield decoded(payload)


def json_payloads(params: Params) -> Iterator[str]:
    """Yield the texts that a websocket request may have signed."""
    pairs = sorted(
        (name, value) for name, value in params.items() if name != SIGNATURE
    )
    yield "&".join(f"{name}={value}" for name, value in pairs)
    yield urlencode(pairs)
    yield urlencode(pairs, quote_via=quote)


class Signatures:
    """Says for which account a request may act.

    An API key is the name of an account, or its token. ``keys`` None: nobody
    needs a key.
    """

    def __init__(self, keys: Keys | None) -> None:
        self._keys = keys

    def account_of(
        self, api_key: str, signature: str, payloads: Iterable[str]
    ) -> tuple[str, Key | None]:
        """Return the account that signed, and its key; raises SpotError.

        Where a name is enough to log in, any signature passes.
        """
        if not api_key:
            raise no_key()
        if not signature:
            raise missing(SIGNATURE)
        keys = self._keys
        if keys is None or keys.lets_in(api_key):
            check_name(api_key)
            return api_key, None
        key = keys.of(api_key) or keys.of_token(api_key)
        if key is None or key.api_secret is None:
            raise bad_key()
        secret = key.api_secret.encode()
        given = signature.lower().encode("ascii", "replace")
        for payload in payloads:
            made = hmac.new(
                secret, payload.encode("utf-8", "replace"), hashlib.sha256
            )
            if hmac.compare_digest(made.hexdigest().encode(), given):
                return key.user, key
        raise bad_signature()

    def holder_of(self, api_key: str) -> tuple[str, Key | None]:
        """Return the account of an API key without a signature.

        Names are known to others, so the API key must be the account's token.
        """
        if not api_key:
            raise no_key()
        keys = self._keys
        if keys is None or keys.lets_in(api_key):
            check_name(api_key)
            return api_key, None
        key = keys.of_token(api_key)
        if key is None or key.api_secret is None:
            raise bad_key()
        return key.user, key

    # Listen keys -------------------------------------------------------------

    def listen_key(self, user: str, key: Key | None) -> str:
        """Return the listen key of an account.

        It names the account, and only who knows the API secret can make it.
        So it holds over a restart, and ends when the secret is replaced.
        """
        secret = b"" if key is None else (key.api_secret or "").encode()
        made = hmac.new(secret, b"listen key of " + user.encode(), "sha256")
        return user.encode().hex() + made.hexdigest()[:LISTEN_MAC]

    def listener(self, listen_key: str) -> tuple[str, Key | None] | None:
        """Return the account of a listen key; None: it is none."""
        try:
            user = bytes.fromhex(listen_key[:-LISTEN_MAC]).decode("ascii")
        except ValueError:
            return None
        if not is_name(user):
            return None
        keys = self._keys
        key = None
        if keys is not None and not keys.lets_in(user):
            key = keys.of(user)
            if key is None or key.api_secret is None:
                return None
        made = self.listen_key(user, key)
        is_same = hmac.compare_digest(made.encode(), listen_key.encode())
        return (user, key) if is_same else None


def is_name(text: str) -> bool:
    """Whether an account of a client may have this name."""
    return _NAME.fullmatch(text) is not None


def check_name(name: str) -> None:
    """Refuse an API key that no account can have as its name."""
    if not is_name(name):
        raise illegal("X-MBX-APIKEY", "it is the name of an account")
