"""Logins: who may log in, and what the link of the session gets first."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Protocol

from exchange.gateway.link import Link
from exchange.gateway.outbox import FLOODING
from exchange.gateway.rates import Limiter
from exchange.gateway.routing import Routing
from exchange.gateway.sequencer import Sequencer
from exchange.journal.history import RESUME_EVENTS
from exchange.market.accounts import (
    ACCOUNTS_MAX,
    LATER_ROLES,
    ORDERS_REMEMBERED,
    Account,
)
from exchange.market.command import Connect, Disconnect
from exchange.market.engine import Engine
from exchange.market.tenders import open_tenders
from orderbook import (
    MAX_FRAME,
    PROTOCOL_VERSION,
    Login,
    Refused,
    RoleName,
    Welcome,
    encode,
)

# The session in whose name a door connects an account. It has no orders.
DOOR_SESSION = "@door"


def random_session() -> str:
    """Return a session id that nobody can guess."""
    return secrets.token_hex(16)


class Key(Protocol):
    """The key of an account, as found by its token."""

    @property
    def user(self) -> str:
        """The name of its account."""

    @property
    def role(self) -> RoleName:
        """What its account may do."""

    @property
    def api_secret(self) -> str | None:
        """What signs its requests in the exchange dialect; None: nothing."""


class Keys(Protocol):
    """The keys of all accounts."""

    def lets_in(self, user: str) -> bool:
        """Whether this user may log in without a token."""

    def check(self, user: str, token: str | None) -> Key | None:
        """Return the key of a user with this token; None: it is wrong."""

    def of(self, user: str) -> Key | None:
        """Return the valid key of a user, to check a signature with it."""

    def of_token(self, token: str) -> Key | None:
        """Return the valid key with this token."""

    def of_trader(self, user: str) -> Key | None:
        """Return the valid key of a user who is no administrator."""

    def is_valid(self, key: Any) -> bool:
        """Whether a connection that logged in with this key may stay."""


def check_no_login(link: Link) -> None:
    """Refuse ("bad_request") a second login on a link."""
    if link.account:
        raise Refused(
            "bad_request",
            f"already logged in as {link.account}",
            field="user",
        )


class Logins:
    """Connects sessions to links.

    ``keys`` None: nobody needs a token. ``new_session`` returns the id of a
    new session. ``speed`` is what a welcome tells.
    """

    def __init__(
        self,
        engine: Engine,
        routing: Routing,
        sequencer: Sequencer,
        limiter: Limiter,
        *,
        keys: Keys | None,
        new_session: Callable[[], str],
        speed: str | None,
    ) -> None:
        self._engine = engine
        self._routing = routing
        self._sequencer = sequencer
        self._limiter = limiter
        self._keys = keys
        self._new_session = new_session
        self._speed = speed

    def login(self, link: Link, request: Login) -> None:
        """Connect a session to a link, or resume one; raises Refused."""
        check_no_login(link)
        self._authenticate(link, request)
        user, session_id = request.user, request.session or ""
        known = self._engine.accounts.get(user)
        is_known = known is not None and session_id in known.sessions
        if not is_known:
            session_id = self._new_session()
        for other in list(self._routing.online.get(user, ())):
            if other.session_id == session_id:
                self._log_out(other)
                self._routing.outbox.cut(other, 4009, "session taken over")
        self._sequencer.run(
            Connect(
                request.cancel_on_disconnect,
                is_admin=link.role == "admin",
                role=link.role if link.role in LATER_ROLES else None,
            ),
            user,
            session_id,
        )
        account = self._engine.accounts[user]
        link.account, link.session_id = user, session_id
        if not link.is_limited_by_door:
            link.buckets = self._limiter.of_account(user)
        link.counts = self._limiter.counts[user]
        self._routing.online.setdefault(user, {})[link] = None
        missed = None
        if is_known and request.last_seq is not None:
            missed = self._routing.history.events_since(
                user, request.last_seq, account.seq
            )
        money = self._engine.configured.money
        link.reply(
            request,
            Welcome(
                protocol=PROTOCOL_VERSION,
                session=session_id,
                user=user,
                ts=self._engine.ts,
                seq=account.seq,
                resumed=missed is not None,
                durable=self._sequencer.is_durable,
                limits=self._limits_of(account),
                instruments=tuple(
                    listing.current_instrument(
                        account.max_position(listing.instrument)
                    )
                    for listing in self._engine.listings.values()
                ),
                rules=self._engine.rules,
                unit=None if money is None else money.unit,
                currency=None if money is None else money.currency,
                round=self._engine.round,
                role=link.role,
                match=self._engine.match,
                speed=self._speed,
            ),
        )
        if missed is None:
            open_orders = account.open_orders.values()
            for text in self._engine.order_reports(open_orders):
                link.send(text)
            link.send(encode(self._engine.account_report(account)))
        else:
            for text in missed:
                link.send(text)
        for tender in open_tenders(self._engine, account):
            link.send(encode(tender))

    def attach(self, link: Link, user: str, key: Key | None) -> None:
        """Let a link act for an account whose user its door has checked.

        It has no session: its orders live on after it, and its private events
        are not numbered for it. Raises Refused.
        """
        role = key.role if key is not None else "trader"
        account = self._engine.accounts.get(user)
        if account is None:
            self._check_room(user)
        self._check_connections(link, user, None)
        if account is None or account.role != role:
            self._sequencer.run(
                Connect(
                    False,
                    is_admin=role == "admin",
                    role=role if role in LATER_ROLES else None,
                ),
                user,
                DOOR_SESSION,
            )
        link.account, link.key, link.role = user, key, role
        link.buckets = self._limiter.of_account(user)
        link.counts = self._limiter.counts[user]
        self._routing.online.setdefault(user, {})[link] = None

    def detach(self, link: Link) -> None:
        """Undo `attach`."""
        if link.account:
            self._log_out(link)

    def end(self, link: Link) -> None:
        """End the session of a link that is gone, if it has one."""
        account, session_id = link.account, link.session_id
        if account:
            self._log_out(link)
        if session_id:
            self._sequencer.run(Disconnect(), account, session_id)

    def check_keys(self) -> None:
        """Close the connections whose key is no longer valid."""
        keys = self._keys
        if keys is None:
            return
        for link in self._routing.links:
            user, key = link.account, link.key
            if user and not (
                keys.is_valid(key) if key else keys.lets_in(user)
            ):
                self._routing.outbox.cut(link, 4001, "key revoked")

    # Within

    def _authenticate(self, link: Link, request: Login) -> None:
        """Check the key; cut the link off if it may not log in."""
        user = request.user
        try:
            if self._keys is not None and not self._keys.lets_in(user):
                if link.vouched_for == user:
                    key = self._keys.of_trader(user)
                else:
                    key = self._keys.check(user, request.token)
                if key is None:
                    raise Refused(
                        "unauthorized", "unknown user or wrong token"
                    )
                link.key, link.role = key, key.role
            self._check_room(user)
        except Refused:
            self._routing.outbox.cut(link, 4001, "login failed")
            raise
        self._check_connections(link, user, request.session)

    def _check_room(self, user: str) -> None:
        """Refuse ("forbidden") one more account, if there are too many."""
        accounts = self._engine.accounts
        if user not in accounts and len(accounts) >= ACCOUNTS_MAX:
            raise Refused(
                "forbidden",
                f"{ACCOUNTS_MAX:,} accounts exist, the most that the"
                " exchange can have",
            )

    def _check_connections(
        self, link: Link, user: str, session: str | None
    ) -> None:
        """Cut a link off if its account has too many other connections."""
        most = self._limiter.quotas.connections
        others = [
            other
            for other in self._routing.online.get(user, ())
            if other.session_id != session
        ]
        if most and len(others) >= most:
            self._routing.outbox.cut(link, FLOODING, "too many connections")
            raise Refused(
                "rate_limited",
                f"{user} has {most} connections already; the limit is {most}",
            )

    def _limits_of(self, account: Account) -> dict[str, int]:
        """Return the limits that a welcome shows."""
        rate = self._limiter.rate_of(account.name)
        limits = {
            "max_frame": MAX_FRAME,
            "orders_per_s": rate.per_s,
            "burst": rate.burst,
            "open_orders": account.limits.open_orders,
            "orders_remembered": ORDERS_REMEMBERED,
            "resume_events": RESUME_EVENTS,
            "connections": self._limiter.quotas.connections,
        }
        if account.limits.min_cash is not None:
            limits["min_cash"] = account.limits.min_cash
        return limits

    def _log_out(self, link: Link) -> None:
        online = self._routing.online
        others = online[link.account]
        del others[link]
        if not others:
            del online[link.account]
        link.account = link.session_id = ""
        link.key, link.role, link.buckets = None, "trader", {}
        link.counts = self._limiter.counts[""]
