"""News, tenders, settlements, busts, rounds and conversions in the client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from client import (
    DuplicateClientOrderId,
    DuplicateClientRequestId,
    DuplicateTender,
    EventsLost,
    Exchange,
    NoConversion,
    Stream,
    Unauthorized,
    UnknownTender,
)
from orderbook import MAX_ROWS, MatchInfo, News
from test.client.simulation import Line, Venue, simulated
from test.client.test_client_simulated import (
    BOND,
    account,
    again,
    beat,
    error,
    fill,
    ok,
    private,
    public,
    trade,
    welcome,
)


def news(news_id: int, ts: int = 0) -> dict[str, Any]:
    head = {"type": "news", "ts": ts or news_id, "news_id": news_id}
    return {**head, "headline": f"event {news_id}"}


def tender(name: str, expire_ts: int = 50, **more: Any) -> dict[str, Any]:
    head = {"type": "tender", "ts": 1, "tender_id": name, "symbol": "BOND"}
    terms = {"side": "buy", "qty": 5, "price": 99, "expire_ts": expire_ts}
    return {**head, **terms, **more}


def settlement(seq: int, symbol: str = "BOND") -> dict[str, Any]:
    head = {"type": "settlement", "seq": seq, "ts": seq, "symbol": symbol}
    return {**head, "position": 3, "price": 99, "realized": 7}


async def ids(stream: Stream[News], count: int) -> list[int]:
    return [(await anext(stream)).news_id for _ in range(count)]


async def back(venue: Venue, **more: Any) -> tuple[Line, list[Any]]:
    """Lose the connection; return the new line and what is sent on it."""
    venue.line.end(1001, "shutdown")
    line = await again(venue)
    [login] = await line.hear()
    reply = welcome(login, seq=0, **more)
    return line, await line.hear(reply, account(0, 0))


async def answer(
    line: Line, sent: list[Any], wanted: Any, reply: Any
) -> list[Any]:
    """Answer one request so, the others as usual; return what follows."""
    usual = {"trades": [trade(7)]}
    replies = [
        reply if r is wanted else ok(r, data=usual.get(r.get("what"), []))
        for r in sent
    ]
    sent = await line.hear(*replies)
    rest = [r for r in sent if r.get("what") == "trades"]
    await line.hear(*(ok(r, data=[trade(7)]) for r in rest))
    return [r for r in sent if r not in rest]


# News ---------------------------------------------------------------------


@simulated
async def test_news_come_each_once_after_the_last_ones() -> None:
    async with public() as (venue, ex, bond):
        line, past, now = venue.line, ex.news(last=2), ex.news()
        first, second = await line.hear()
        assert (first["what"], first["limit"]) == ("news", 2)
        assert (second["what"], second["limit"]) == ("news", 1)
        # One that comes before the reply is in the reply.
        assert await line.hear(news(4)) == []
        rows = [news(3), news(4)]
        await line.hear(ok(first, data=rows), ok(second, data=rows[1:]))
        assert await line.hear(news(4), news(5)) == []
        assert await ids(past, 3) == [3, 4, 5]
        assert await ids(now, 1) == [5]


@simulated
async def test_missed_news_follow_after_a_lost_connection() -> None:
    async with private() as (venue, ex, bond):
        stream = ex.news()
        *_, first = await venue.line.hear()
        await venue.line.hear(ok(first, data=[news(4)]))
        line, sent = await back(venue)
        [known] = [r for r in sent if r.get("what") == "news"]
        assert (known["after"], known["limit"]) == (3, 1)
        fetched = ok(known, data=[news(4)])
        [request] = await answer(line, sent, known, fetched)
        assert request["after"] == 4
        await line.hear(news(6), ok(request, data=[news(5), news(6)]), news(7))
        assert await ids(stream, 3) == [5, 6, 7]


@simulated
async def test_a_gap_in_the_news_is_fetched_or_told() -> None:
    async with public() as (venue, ex, bond):
        line, stream = venue.line, ex.news()
        [first] = await line.hear()
        await line.hear(ok(first, data=[]))
        await line.hear(news(1))
        [known] = await line.hear(news(3))
        [request] = await line.hear(ok(known, data=[news(1)]))
        await line.hear(ok(request, data=[news(2), news(3)]))
        assert await ids(stream, 3) == [1, 2, 3]
        [known] = await line.hear(news(9))
        [request] = await line.hear(ok(known, data=[news(3)]))
        await line.hear(ok(request, data=[news(8), news(9)]))
        with pytest.raises(EventsLost, match="some news"):
            await anext(stream)


@simulated
async def test_a_new_history_of_the_news_begins_at_the_first() -> None:
    async with private() as (venue, ex, bond):
        stream = ex.news()
        *_, first = await venue.line.hear()
        await venue.line.hear(ok(first, data=[news(1)]))
        line, sent = await back(venue)
        [known] = [r for r in sent if r.get("what") == "news"]
        fetched = ok(known, data=[news(1, ts=99)])
        [request] = await answer(line, sent, known, fetched)
        assert "after" not in request or request["after"] == 0
        full = [news(n, ts=99) for n in range(1, MAX_ROWS + 1)]
        [request] = await line.hear(ok(request, data=full))
        assert request["after"] == MAX_ROWS
        await line.hear(ok(request, data=[]))
        assert await ids(stream, 2) == [1, 2]


# Tenders ------------------------------------------------------------------


@simulated
async def test_an_offer_is_valid_until_it_is_accepted_or_ends() -> None:
    async with private() as (venue, ex, bond):
        line, offers = venue.line, ex.offers()
        await line.hear()
        await line.hear(tender("a"), tender("b", 20), tender("c"))
        assert [t.tender_id for t in ex.tenders] == ["a", "b", "c"]
        assert (await anext(offers)).tender_id == "a"
        accepting = asyncio.create_task(ex.accept(ex.tenders[0]))
        [request] = await line.hear()
        assert (request["type"], request["tender_id"]) == ("tender", "a")
        await line.hear(ok(request), account(1, -495))
        await accepting
        assert [t.tender_id for t in ex.tenders] == ["b", "c"]
        await line.hear({**beat(), "ts": 20})
        assert [t.tender_id for t in ex.tenders] == ["c"]
        for code, kind in (
            ("unknown_tender", UnknownTender),
            ("duplicate_tender", DuplicateTender),
        ):
            accepting = asyncio.create_task(ex.accept("c"))
            [request] = await line.hear()
            await line.hear(error(request, code))
            with pytest.raises(kind):
                await accepting
            assert ex.tenders == []


@simulated
async def test_match_and_role_are_those_of_the_last_welcome() -> None:
    async with private() as (venue, ex, bond):
        assert (ex.match, ex.role) == (None, "trader")
        match = {"name": "A/02", "round": "A", "teams": ["ann", "bob"]}
        await venue.line.hear({"type": "match", "ts": 6, "match": match})
        assert ex.match == MatchInfo(
            name="A/02", round="A", teams=("ann", "bob")
        )
        await back(venue, match={"name": "A/03"}, role="house")
        assert (ex.match, ex.role) == (MatchInfo(name="A/03"), "house")
        await back(venue, role="of a later exchange")
        assert (ex.match, ex.role) == (None, "of a later exchange")


@simulated
async def test_a_new_round_ends_all_offers() -> None:
    async with private() as (venue, ex, bond):
        await venue.line.hear(tender("a"))
        await venue.line.hear({"type": "status", "ts": 5})
        assert ex.round == 1 and len(ex.tenders) == 1
        await venue.line.hear({"type": "status", "ts": 6, "round": 2})
        assert ex.round == 2 and ex.tenders == []
        await back(venue, round=5)
        assert ex.round == 5


@simulated
async def test_public_data_have_no_offers() -> None:
    async with public() as (venue, ex, bond):
        for private_ in (lambda: ex.tenders, ex.offers, ex.settlements):
            with pytest.raises(Unauthorized):
                private_()


# Settlements and busts ----------------------------------------------------


@simulated
async def test_settlements_have_the_number_of_their_account_report() -> None:
    async with private() as (venue, ex, bond):
        line, settled = venue.line, ex.settlements()
        await line.hear()
        both = settlement(1), settlement(1, "ETF"), account(1, 300)
        await line.hear(*both)
        assert ex.is_connected and ex.cash == 300
        found = [await anext(settled), await anext(settled)]
        assert [told.symbol for told in found] == ["BOND", "ETF"]
        await line.hear(*both, beat(**{"@": 1}))
        assert ex.is_connected
        await line.hear(settlement(3))
        assert not ex.is_connected  # the report 2 is missing


@simulated
async def test_a_settlement_that_a_loss_interrupts_is_told_once() -> None:
    async with private() as (venue, ex, bond):
        settled = ex.settlements()
        await venue.line.hear()
        await venue.line.hear(settlement(1))
        venue.line.end(1001, "shutdown")
        line = await again(venue)
        [login] = await line.hear()
        assert login["last_seq"] == 0
        reply = welcome(login, seq=1, resumed=True)
        await line.hear(reply, settlement(1), account(1, 300), settlement(2))
        await line.hear({**settlement(2), "realized": 8}, account(2, 301))
        found = [(await anext(settled)).realized for _ in range(3)]
        assert found == [7, 7, 8]


@simulated
async def test_a_bust_marks_the_fill_and_the_account_is_corrected() -> None:
    async with private() as (venue, ex, bond):
        line = venue.line
        its = {"trade_id": 8}
        await line.hear({**fill(1, 1, 1, 9), **its}, trade(8, price=99))
        [order] = ex.orders
        bought = {**account(2, -99), "positions": {"BOND": 1}}
        await line.hear(bought, {**fill(3, 1, 2, 9), "trade_id": 9})
        await line.hear({**account(4, -198), "positions": {"BOND": 2}})
        assert bond.position == 2 and bond.profit == 0
        await line.hear(trade(9, price=120))
        bust = {"type": "bust", "symbol": "BOND", "ts": 5, "seq": 21}
        sent = await line.hear({**bust, "trade_id": 9})
        assert [r["type"] for r in sent] == ["subscribe"]
        assert [f.busted for f in order.fills] == [False, True]
        assert order.cum_qty == 2
        # The position has changed without an execution.
        undone = {**account(5, -99), "positions": {"BOND": 1}}
        [positions] = await line.hear(ok(sent[0]), undone)
        assert positions["what"] == "positions" and bond.position == 1
        row = {"symbol": "BOND", "position": 1, "cost": 99}
        await line.hear(ok(positions, data=[row]))
        # The last price is that of the trade before.
        ticker = {"type": "ticker", "symbol": "BOND", "ts": 6, "volume": 2}
        await line.hear({**ticker, "last": 99})
        assert (bond.last, bond.profit, bond.avg_price) == (99, 0, 99.0)


# Requests that take effect once -------------------------------------------


REPEATED: list[tuple[str, str, type[Exception]]] = [
    ("convert", "duplicate_client_order_id", DuplicateClientOrderId),
    ("accept", "duplicate_tender", DuplicateTender),
    ("admin", "duplicate_client_request_id", DuplicateClientRequestId),
]


async def ask(what: str, ex: Exchange, bond: Any) -> None:
    match what:
        case "convert":
            await bond.convert("sell", 20)
        case "accept":
            await ex.accept("t-1")
        case _:
            await ex.admin("news", "because", headline="rain")


@pytest.mark.parametrize("what, code, kind", REPEATED)
@simulated
async def test_a_repeated_request_that_was_done_is_done(
    what: str, code: str, kind: type[Exception]
) -> None:
    async with private() as (venue, ex, bond):
        await venue.line.hear()
        asking = asyncio.create_task(ask(what, ex, bond))
        [first] = await venue.line.hear()
        line, sent = await back(venue)
        [second] = [r for r in sent if r["type"] == first["type"]]
        assert {**first, "id": 0} == {**second, "id": 0}
        await answer(line, sent, second, error(second, code))
        await asking
        # Refused at once, it is another request that was done.
        asking = asyncio.create_task(ask(what, ex, bond))
        [other] = [r for r in await line.hear() if r["type"] == first["type"]]
        assert other != first
        await line.hear(error(other, code))
        with pytest.raises(kind):
            await asking


@simulated
async def test_a_conversion_has_a_name_of_its_own() -> None:
    async with private() as (venue, ex, bond):
        await venue.line.hear()
        names = set()
        for _ in range(2):
            converting = asyncio.create_task(bond.convert("buy", 10))
            [request] = await venue.line.hear()
            names.add(request["client_order_id"])
            assert (request["side"], request["qty"]) == ("buy", 10)
            await venue.line.hear(ok(request))
            await converting
        assert len(names) == 2
        converting = asyncio.create_task(bond.convert("buy", 10))
        [request] = await venue.line.hear()
        await venue.line.hear(error(request, "no_conversion"))
        with pytest.raises(NoConversion):
            await converting
        assert BOND["symbol"] == request["symbol"]
