"""Rates of requests: the buckets of accounts and links, refusals, floods."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import pytest

from exchange.gateway.link import Link
from exchange.gateway.rates import CANCELS_RATE, STRIKES_BURST, Quotas, Rate
from exchange.host.keyring import KeyRing
from exchange.market.command import Configure, Connect
from orderbook import Admin, CancelAll, Place
from test.script import message
from test.support import SECOND, Floor, add_key, state_of, words

MS = 1_000
PING = {"type": "ping"}
PLACE = message("buy 1@50")
AMEND = {"type": "amend", "order_id": 77, "qty": 1}
CANCEL = {"type": "cancel", "order_id": 77}
CANCEL_ALL = {"type": "cancel_all"}
CANCEL_AFTER = {"type": "cancel_after", "timeout_ms": 0}
ADMIN = {"type": "admin", "action": "message", "reason": "r", "message": "m"}
LIMITED = "rate_limited"


# Requests of an account -----------------------------------------------------


def limited(per_s: int, burst: int, **options: Any) -> Floor:
    """Return a floor where every account has this rate."""
    return Floor(quotas=Quotas(rate=Rate(per_s, burst)), **options)


def send(
    floor: Floor, session: Link, request: dict[str, Any], count: int
) -> list[str]:
    """Send a request ``count`` times; return a word for each reply.

    A word each: "ok" where the rate had nothing against it.
    """
    replies = floor.do(session, *[{**request, "id": 1}] * count)
    return [
        LIMITED if reply.get("code") == LIMITED else "ok"
        for reply in replies
        if reply.get("id") == 1
    ]


def fits(floor: Floor, session: Link, request: dict[str, Any]) -> int:
    """Return how many times a request is taken now, until it is not."""
    for count in range(1_000):
        if send(floor, session, request, 1) == [LIMITED]:
            return count
    raise AssertionError("no limit")


def test_orders_and_amends_share_a_bucket_and_cancels_have_their_own() -> None:
    floor = limited(10, 4)
    alice = floor.join("alice")
    assert send(floor, alice, PLACE, 3) == ["ok"] * 3
    assert send(floor, alice, AMEND, 3) == ["ok", LIMITED, LIMITED]
    assert send(floor, alice, PLACE, 1) == [LIMITED]
    # Cancels of any kind have a bucket five times as large.
    assert send(floor, alice, CANCEL_ALL, 7) == ["ok"] * 7
    assert send(floor, alice, CANCEL_AFTER, 6) == ["ok"] * 6
    assert send(floor, alice, CANCEL, 8) == ["ok"] * 7 + [LIMITED]
    assert send(floor, alice, CANCEL_ALL, 1) == [LIMITED]
    assert send(floor, alice, CANCEL_AFTER, 1) == [LIMITED]
    # It refills five times as fast.
    floor.clock.ts += 100 * MS
    assert fits(floor, alice, CANCEL) == 5
    assert fits(floor, alice, PLACE) == 1
    # Other requests have a third bucket; the login cost it a token.
    assert fits(floor, alice, PING) == 4


def test_the_rest_draws_on_a_bucket_of_the_connection() -> None:
    floor = limited(10, 20)
    session = floor.join()
    rest: list[dict[str, Any]] = [
        {"type": "login", "user": "alice"},
        {"type": "login", "user": "bob"},  # refused, and draws
        {"type": "subscribe", "channels": ["trades"]},
        {"type": "unsubscribe", "channels": ["trades"]},
        {"type": "get", "what": "account"},
        {"type": "get", "what": "leaderboard"},
        {"type": "get", "what": "book", "symbol": "NONE"},
        PING,
        ADMIN,  # of one who is none
        {"type": "nonsense"},
        {"type": "place", "qty": 0},
    ]
    for request in rest:
        floor.do(session, request)
    assert fits(floor, session, PING) == 20 - len(rest)
    for request in rest[2:-2]:
        assert send(floor, session, request, 1) == [LIMITED]
    assert words(floor.do(session, rest[1])) == ["bad_request"]
    assert fits(floor, session, PLACE) == 20
    assert fits(floor, session, CANCEL) == 100


def test_all_connections_of_an_account_share_its_buckets() -> None:
    floor = limited(10, 4)
    first, second = floor.join("alice"), floor.join("alice")
    other = floor.join("bob")
    assert send(floor, first, PLACE, 3) == ["ok"] * 3
    assert fits(floor, second, PLACE) == 1
    assert send(floor, first, PLACE, 1) == [LIMITED]
    assert send(floor, first, CANCEL, 19) == ["ok"] * 19
    assert fits(floor, second, CANCEL) == 1
    assert fits(floor, other, PLACE) == 4
    assert fits(floor, other, CANCEL) == 20
    # A new connection adds no tokens for orders.
    floor.gateway.disconnect(first)
    floor.gateway.disconnect(second)
    again = floor.join("alice")
    assert fits(floor, again, PLACE) == fits(floor, again, CANCEL) == 0


def test_a_replaced_connection_costs_the_account_no_tokens() -> None:
    floor = limited(10, 4)
    old, new = floor.join(), floor.join()
    login = {"type": "login", "user": "alice"}
    welcome = floor.do(old, login)[0]
    floor.do(new, {**login, "session": welcome["session"]})
    assert floor.do(old, *[PLACE] * 9) == []
    assert fits(floor, new, PLACE) == 4


def test_each_connection_has_its_own_bucket_for_the_rest() -> None:
    floor = limited(10, 4)
    first, second = floor.join("alice"), floor.join("alice")
    assert fits(floor, first, PING) == 3  # and the login
    assert fits(floor, second, PING) == 3


def test_each_element_of_an_array_counts() -> None:
    floor = limited(1, 3)
    alice = floor.join("alice")
    got = floor.do(alice, PLACE, PING, PLACE, {"type": "no"}, *[PLACE] * 2)
    assert words(got) == ["new", "ok", "new", "bad_request", "new", LIMITED]
    assert send(floor, alice, PING, 1) == [LIMITED]


def test_a_frame_that_cannot_be_read_counts_once() -> None:
    floor = limited(1, 3)
    session = floor.join()
    floor.do(session, *[PING] * 101)
    assert fits(floor, session, PING) == 2


@pytest.mark.parametrize("per_s", [1, 3, 7, 10, 999, 1_000, 4_321])
def test_retry_after_ms_is_exact(per_s: int) -> None:
    for request, factor in ((PLACE, 1), (CANCEL, CANCELS_RATE), (PING, 1)):
        floor = limited(per_s, 2)
        alice = floor.join("alice")
        fits(floor, alice, request)
        floor.clock.ts += 17
        (error,) = floor.do(alice, {**request, "id": "r"})
        wait_ms = error["retry_after_ms"]
        gone = 17 * per_s * factor
        assert wait_ms == ceil((SECOND - gone) / (per_s * factor) / 1_000)
        assert error == {
            "type": "error",
            "id": "r",
            "code": LIMITED,
            "message": f"too many requests; try again in {wait_ms} ms",
            "retry_after_ms": wait_ms,
        }
        floor.clock.ts += (wait_ms - 1) * MS
        assert send(floor, alice, request, 1) == [LIMITED]
        floor.clock.ts += MS
        assert send(floor, alice, request, 1) == ["ok"]


def test_zero_is_unlimited() -> None:
    floor = limited(0, 0)
    alice = floor.join("alice")
    for request in (PLACE, AMEND, CANCEL, PING, {"type": "nonsense"}):
        assert send(floor, alice, request, 100) == ["ok"] * 100
    welcome = floor.do(floor.join(), {"type": "login", "user": "bob"})[0]
    limits = welcome["limits"]
    assert limits["orders_per_s"] == limits["burst"] == 0


def test_an_account_with_a_rate_of_its_own() -> None:
    quotas = Quotas(
        rate=Rate(10, 4), rates={"maker": Rate(100, 40), "free": Rate()}
    )
    floor = Floor(quotas=quotas)
    for user, per_s, burst in (
        ("maker", 100, 40),
        ("free", 0, 0),
        ("alice", 10, 4),
    ):
        session = floor.join()
        welcome = floor.do(session, {"type": "login", "user": user})[0]
        limits = welcome["limits"]
        assert (limits["orders_per_s"], limits["burst"]) == (per_s, burst)
        if not burst:
            assert send(floor, session, PLACE, 100) == ["ok"] * 100
            assert send(floor, session, CANCEL, 100) == ["ok"] * 100
        else:
            assert fits(floor, session, PLACE) == burst
            assert fits(floor, session, CANCEL) == burst * CANCELS_RATE
        # Other requests are counted before the account is known.
        assert fits(floor, session, PING) == 3


def test_an_account_with_the_only_rate() -> None:
    floor = Floor(quotas=Quotas(rates={"alice": Rate(10, 4)}))
    alice, bob = floor.join("alice"), floor.join("bob")
    assert fits(floor, alice, PLACE) == 4
    assert send(floor, alice, PING, 100) == ["ok"] * 100
    assert send(floor, bob, PLACE, 100) == ["ok"] * 100


def test_administrator_actions_cost_no_tokens(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    token = add_key(path, "boss", is_admin=True)
    user = add_key(path, "user")
    floor = limited(10, 4, keys=KeyRing(path))
    boss = floor.join("boss", token=token)
    assert send(floor, boss, ADMIN, 100) == ["ok"] * 100
    # Its other requests have the common rate.
    assert fits(floor, boss, PING) == 3
    assert fits(floor, boss, PLACE) == 4
    assert send(floor, boss, ADMIN, 100) == ["ok"] * 100
    assert not boss.is_cut
    # Other accounts keep the common rate.
    session = floor.join("user", token=user)
    replies = floor.do(session, *[{**ADMIN, "id": 1}] * 5)
    assert words(replies) == ["forbidden"] * 3 + [LIMITED] * 2


# Which reason is told -------------------------------------------------------


def test_a_request_refused_for_another_reason_costs_a_token() -> None:
    floor = limited(10, 4)
    session = floor.join()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"type": "place", "qty": 0}, "bad_request"),
        ({"type": "nonsense"}, "bad_request"),
        *((request, "unauthorized") for request in (PLACE, AMEND, CANCEL)),
        (CANCEL_ALL, "unauthorized"),
        (CANCEL_AFTER, "unauthorized"),
        (ADMIN, "unauthorized"),
    ]
    for is_empty in (False, True):
        for request, code in wrong:
            (error,) = floor.do(session, request)
            assert error["code"] == code and "retry_after_ms" not in error
        assert fits(floor, session, PING) == 0, is_empty


def test_rate_limited_precedes_busy_and_every_rule() -> None:
    floor = limited(10, 2)
    alice = floor.join("alice")
    floor.gateway.sequencer.disk_trouble = "full"
    unknown = {**PLACE, "symbol": "NONE"}
    got = floor.do(alice, PLACE, unknown, PLACE, unknown, AMEND, CANCEL)
    assert words(got) == ["busy"] * 2 + [LIMITED] * 3 + ["unknown_order"]
    assert got[0]["retry_after_ms"] == 1_000
    assert got[2]["retry_after_ms"] == 100


# Who never stops ------------------------------------------------------------


def steady(
    floor: Floor, session: Link, request: dict[str, Any], per_100_ms: int
) -> bool:
    """Send at a rate for a long time; return whether it was cut off."""
    for _ in range(600):
        floor.clock.ts += 100 * MS
        floor.do(session, *[request] * per_100_ms)
        if session.is_cut:
            return True
    return False


@pytest.mark.parametrize("request_", [PLACE, PING, {"type": "nonsense"}])
def test_up_to_twice_the_rate_is_never_cut_off(
    request_: dict[str, Any],
) -> None:
    floor = limited(10, 5)
    alice = floor.join("alice")
    request = message("buy 1@0") if request_ is PLACE else request_
    assert not steady(floor, alice, request, 2)
    assert floor.closings(alice) == []
    assert steady(floor, alice, request, 3)
    assert floor.closings(alice) == [4002]


@pytest.mark.parametrize("user", ["", "alice"])
@pytest.mark.parametrize("request_", [PLACE, PING, {"type": "nonsense"}])
def test_a_flood_is_cut_off_and_nothing_after_it_is_done(
    request_: dict[str, Any], user: str
) -> None:
    burst = 5
    floor = limited(10, burst)
    session = floor.join(user)
    assert STRIKES_BURST == 10, "as the manual says"
    left = burst if user and request_ is PLACE else burst - bool(user)
    patience = STRIKES_BURST * burst
    calm = floor.do(session, *[request_] * (left + patience))
    assert len(calm) == left + patience and not session.is_cut
    last = floor.do(session, request_, PING, PLACE, CANCEL_ALL)
    # The request that broke the limit is the last one answered.
    assert len(last) == 1 and words(last) == words(calm[-1:])
    assert floor.closings(session) == [4002]
    before = state_of(floor.gateway)
    floor.clock.ts += 3_600 * SECOND
    assert floor.do(session, PING, PLACE, CANCEL_ALL) == []
    assert floor.closings(session) == [4002]
    assert state_of(floor.gateway) == before
    # The account may log in again, and its buckets are as empty.
    again = floor.join("alice")
    assert fits(floor, again, PLACE) == burst


def test_the_orders_of_a_cut_off_link_are_canceled() -> None:
    floor = limited(10, 5)
    alice, second = floor.join("alice"), floor.join("alice")
    floor.do(alice, PLACE)
    floor.do(alice, *[PLACE] * 90)
    assert alice.is_cut and not second.is_cut
    floor.read(second)
    floor.gateway.disconnect(alice)
    floor.gateway.seal()
    assert words(floor.read(second)) == ["canceled"] * 5


def test_strikes_are_forgiven() -> None:
    floor = limited(10, 5)
    alice = floor.join("alice")
    for _ in range(50):
        floor.do(alice, *[PING] * (STRIKES_BURST * 5))
        floor.clock.ts += 5 * SECOND  # as many strikes as were made
        assert not alice.is_cut


# The journal ----------------------------------------------------------------


def test_a_rate_limited_request_is_no_command(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    token = add_key(path, "boss", is_admin=True)
    floor = limited(10, 3, durable=True, keys=KeyRing(path, is_open=True))
    alice = floor.join("alice")
    boss = floor.join("boss", token=token)
    before = state_of(floor.gateway)
    floor.do(alice, *[PLACE] * 9)
    floor.do(alice, *[AMEND] * 9)
    floor.do(alice, *[CANCEL_ALL] * 20)
    floor.do(alice, *[ADMIN] * 9)
    floor.do(alice, *[PING] * 9)
    floor.do(boss, *[ADMIN] * 2)
    actions = [
        type(command.action)
        for command in floor.gateway.sequencer.take().commands
    ]
    assert actions == [
        *(Configure, Connect, Connect),
        *[Place] * 3,
        *[CancelAll] * 15,
        *[Admin] * 2,
    ]
    assert floor.seq == before[0] + 20
    seq = floor.seq
    floor.do(alice, PLACE, AMEND, CANCEL, ADMIN)
    assert floor.gateway.sequencer.take().commands == [] and floor.seq == seq


@pytest.mark.parametrize("request_", [PLACE, CANCEL, PING], ids=str)
def test_twice_the_rate_of_any_kind_is_never_cut_off(request_: Any) -> None:
    floor = limited(10, 5)
    session = floor.join("alice")
    per_s = 100 if request_ is CANCEL else 20
    for _ in range(2_000):  # half of them too many
        floor.clock.ts += SECOND // per_s
        floor.do(session, request_)
    assert not floor.closings(session)


def test_an_empty_bucket_hides_no_other_reason() -> None:
    floor = limited(10, 5)
    session = floor.join()
    for _ in range(9):
        floor.do(session, PING)
    for request in ({"type": "get", "what": "orders"}, PLACE):
        assert words(floor.do(session, request)) == ["unauthorized"]
    assert send(floor, session, PING, 1) == [LIMITED]
