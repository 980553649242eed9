"""Silence, and several addresses: when a client pings, leaves and returns.

In memory and in simulated time; `test_client_standby` has real servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from client import CONNECT_TIMEOUT, Exchange, surroundings
from test.client.simulation import (
    Line,
    Venue,
    settle,
    simulated,
    stand_still,
)
from test.client.test_client_simulated import (
    account,
    again,
    beat,
    book,
    welcome,
)

A, B, C = "ws://a", "ws://b:1", "ws://c/path"


def now() -> float:
    return asyncio.get_running_loop().time()


async def enter(line: Line) -> None:
    """Let a client log in."""
    [login] = await line.hear()
    await line.hear(welcome(login, seq=0), account(0, 0))


@asynccontextmanager
async def entered(*urls: str) -> AsyncIterator[tuple[Venue, Exchange]]:
    """Open a client of alice at the first address that serves."""
    venue = Venue()
    ex = Exchange(urls or A, "alice", connect=venue.connect)
    connecting = asyncio.create_task(ex.connect())
    await settle()
    await enter(venue.line)
    await connecting
    yield venue, ex
    await ex.close()


# Silence --------------------------------------------------------------------


@simulated
async def test_a_quiet_exchange_is_pinged_after_2_s() -> None:
    async with entered() as (venue, ex):
        line, since = venue.line, now()
        for _ in range(4):
            await asyncio.sleep(5)
            await line.hear(beat())
        # After a byte, a ping's answer too, it is 2 s to the next ping.
        expected = [since + at for at in (2, 4, 7, 9, 12, 14, 17, 19)]
        assert line.pings == pytest.approx(expected, abs=1e-3)
        assert ex.is_connected and venue.tries == 1


@simulated
async def test_whatever_comes_is_a_sign_of_life() -> None:
    async with entered() as (venue, ex):
        line = venue.line
        line.is_silent = True
        for n in range(40):
            await asyncio.sleep(1.9)
            await line.hear(beat() if n % 5 == 0 else book(n))
        assert line.pings == [] and venue.tries == 1


@simulated
async def test_an_exchange_that_answers_no_ping_is_left_after_5_s() -> None:
    async with entered() as (venue, ex):
        line, since = venue.line, now()
        line.is_silent = True
        await again(venue)
        assert line.pings == pytest.approx([since + 2], abs=1e-3)
        assert venue.line.opened_at - since == pytest.approx(5.05, abs=0.06)
        assert ex.trouble == "no answer to a ping, silent for 5 s"
        # Closing it before there is another would cancel the orders.
        assert line.close_code is None
        await enter(venue.line)
        assert ex.is_connected and line.close_code == 1000


@simulated
async def test_a_message_after_the_ping_is_an_answer() -> None:
    async with entered() as (venue, ex):
        venue.line.is_silent = True
        for _ in range(20):
            await asyncio.sleep(4.9)
            await venue.line.hear(beat())
        assert len(venue.line.pings) == 20 and venue.tries == 1


@simulated
async def test_an_exchange_without_heartbeats_is_left_after_16_s() -> None:
    """As behind a proxy that answers pings itself."""
    async with entered() as (venue, ex):
        since = now()
        await again(venue)
        assert 16 <= venue.line.opened_at - since <= 18.1
        assert ex.trouble == "no heartbeat for 16 s"


@pytest.mark.parametrize("at", [0.5, 1.9, 2.1, 4.9])
@simulated
async def test_time_in_which_the_client_stood_still_is_no_silence(
    at: float,
) -> None:
    async with entered() as (venue, ex):
        venue.line.is_silent = True  # the network sleeps as well
        await asyncio.sleep(at)
        stand_still(3_600)
        await asyncio.sleep(1.5)
        assert ex.is_connected and venue.tries == 1
        venue.line.is_silent = False
        for _ in range(4):
            await asyncio.sleep(5)
            await venue.line.hear(beat())
        assert ex.is_connected and venue.tries == 1


@simulated
async def test_an_exchange_gone_while_the_client_stood_still_is_left() -> None:
    async with entered() as (venue, ex):
        venue.line.is_silent = True
        stand_still(3_600)
        since = now()
        await again(venue)
        assert venue.line.opened_at - since <= 5 + 1 + 0.2


@simulated
async def test_the_silence_timeout_scales_the_rest() -> None:
    venue = Venue()
    ex = Exchange(A, "alice", connect=venue.connect, silence_timeout=50.0)
    connecting = asyncio.create_task(ex.connect())
    await settle()
    await enter(venue.line)
    await connecting
    since = now()
    venue.line.is_silent = True
    await again(venue)
    assert venue.lines[0].pings == pytest.approx([since + 20], abs=1e-3)
    assert venue.line.opened_at - since == pytest.approx(50.05, abs=0.06)
    await ex.close()


# Addresses ------------------------------------------------------------------


@simulated
async def test_the_next_address_is_tried_at_once() -> None:
    venue = Venue()
    venue.dead = {A, B}
    ex = Exchange([A, B, C], "alice", connect=venue.connect)
    connecting = asyncio.create_task(ex.connect())
    await settle()
    assert venue.asked == [A, B, C] and venue.line.opened_at < 1e-5
    assert ex.trouble == f"{B}: Connect call failed; trying {C}"
    await enter(venue.line)
    await connecting
    await ex.close()


@pytest.mark.parametrize("code", [1001, 1006, 1011, 1013])
@simulated
async def test_after_a_loss_the_next_address_is_tried_at_once(
    code: int,
) -> None:
    async with entered(A, B) as (venue, ex):
        lost_at = now()
        venue.line.end(code, "bye")
        await settle()
        assert venue.asked == [A, B]
        assert venue.line.opened_at == pytest.approx(lost_at, abs=1e-5)
        assert ex.trouble == (
            f"{A}: the exchange closed it ({code} bye); trying {B}"
        )
        await enter(venue.line)
        await venue.line.hear(beat())
        venue.line.end(code)
        await settle()
        assert venue.asked == [A, B, A]


@simulated
async def test_a_silent_address_is_left_for_the_next() -> None:
    async with entered(A, B) as (venue, ex):
        venue.line.is_silent = True
        since = now()
        await again(venue)
        assert venue.asked == [A, B]
        assert venue.line.opened_at - since == pytest.approx(5, abs=0.02)


@simulated
async def test_a_gap_is_no_reason_to_leave_an_address() -> None:
    async with entered(A, B) as (venue, ex):
        await venue.line.hear(beat(**{"@": 7}))
        await again(venue)
        assert venue.asked == [A, A]


@simulated
async def test_a_round_through_all_addresses_is_followed_by_a_pause() -> None:
    async with entered(A, B, C) as (venue, ex):
        await venue.line.hear(beat())
        venue.is_down = True
        since, tries = now(), venue.tries
        venue.line.end(1001, "shutdown")
        await asyncio.sleep(300)
        # B and C at once, then whole rounds.
        assert venue.asked[1:9] == [B, C, A, B, C, A, B, C]
        rounds = [
            one for one, url in zip(venue.asked_at, venue.asked) if url == A
        ][1:]
        after = [
            one for one, url in zip(venue.asked_at, venue.asked) if url == C
        ]
        pauses = [a - c for a, c in zip(rounds, after)]
        assert venue.asked_at[tries + 1] == pytest.approx(since, abs=1e-5)
        assert pauses[0] <= 0.1 and pauses[1] <= 0.2 and pauses[2] <= 0.4
        assert max(pauses) <= 1.0 and max(pauses[10:]) > 0.8
        assert len(pauses) < 1_000
        venue.is_down = False
        lost = now()
        line = await again(venue)
        assert line.opened_at - lost <= 1.1


@simulated
async def test_addresses_that_serve_for_a_moment_are_not_hammered() -> None:
    """Nothing but a heartbeat says that an address serves."""
    async with entered(A, B) as (venue, ex):
        for _ in range(40):
            line = venue.line
            line.end(1013, "no lease")
            await again(venue)
            await enter(venue.line)
        assert venue.line.opened_at > 5


@simulated
async def test_a_stuck_address_leaves_time_for_the_others() -> None:
    """Within the time that connect() takes at most."""
    venue = Venue()
    ex = Exchange([A, B, C], "alice", connect=venue.connect)
    connecting = asyncio.create_task(ex.connect())
    for url in (A, B):  # neither answers the login
        await settle()
        assert venue.asked[-1] == url
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await again(venue)
    await enter(venue.line)
    await connecting
    assert now() < 6
    await ex.close()


@pytest.mark.parametrize(
    "given, urls",
    [
        (A, [A]),
        (f"{A},{B}", [A, B]),
        (f" {A} , {B},{A}", [A, B]),
        ([A, f"{B},{C}"], [A, B, C]),
        ((B,), [B]),
    ],
)
def test_addresses_are_given_in_one_string_or_in_several(
    given: Any, urls: list[str]
) -> None:
    ex = Exchange(given, "")
    assert ex.urls == tuple(urls) and ex.url == ",".join(urls)
    assert Exchange(ex.url, "").urls == ex.urls


@pytest.mark.parametrize(
    "given, named",
    [
        ("ws://a,b:8765", "b:8765"),
        (f"{A},", "an empty address"),
        ([A, "http://b"], "http://b"),
    ],
)
def test_an_address_that_is_none_is_named(given: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} is not like ws://"):
        Exchange(given, "")


def test_the_environment_may_name_several_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EXCHANGE_URL", f"{A}, {B}")
    assert surroundings.get().environ["EXCHANGE_URL"]
    assert Exchange(user="").urls == (A, B)
