"""Rules 1 to 6 of docs/DOORS.md: hello, orders, connections, ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.doors.challenge.messages import (
    BAD_TEAM,
    NO_HELLO,
    SECOND_HELLO,
)
from test.doors.challenge.bots import Bot, Door, Hall, hall
from test.support import order, wired


async def says_hello(
    exchange: Hall, door: Door, text: str, json: str, *, dialect: str
) -> Bot:
    """Check the answer to a hello, without its end."""
    bot = await exchange.connect(door)
    bot.say("HELLO TEAMA")
    assert await bot.line() == (text if door == "text" else json) + "\n"
    return bot


# The answers to a hello, at each door, by dialect; the market is open.
HELLO = {
    "2015": "HELLO OPEN -7 BOND:5 XLF:-2",
    "2016": "HELLO -7 BOND:5 XLF:-2",
    "2017": "HELLO BOND:5 USD:-7 XLF:-2",
}
SYMBOLS = '{"symbol":"BOND","position":5},%s{"symbol":"XLF","position":-2}'
HELLO_JSON = {
    dialect: '{"type":"hello","cash":-7,"symbols":[%s],"market_open":true}'
    % (SYMBOLS % usd)
    for dialect, usd in {
        "2015": "",
        "2016": "",
        "2017": '{"symbol":"USD","position":-7},',
    }.items()
}


@pytest.mark.parametrize("dialect", HELLO)
async def test_rule_1_after_a_hello_come_open_and_the_books(
    tmp_path: Path, door: Door, dialect: str
) -> None:
    """2015: those of every symbol; since then those with orders."""
    async with hall(tmp_path, dialect=dialect) as exchange:
        first = await exchange.enter(door, "TEAMA")
        first.writer.close()
        exchange.act(action="adjust", user="TEAMA", cash=-7)
        exchange.act(action="adjust", user="TEAMA", symbol="BOND", qty=5)
        exchange.act(action="adjust", user="TEAMA", symbol="XLF", qty=-2)
        other = await exchange.enter("text", "OTHER")
        await other.does("ADD 1 XLF BUY 3 4", "ACK 1", "BOOK XLF BUY 3:4 SELL")
        await other.does(
            "ADD 2 XLF BUY 2 1", "ACK 2", "BOOK XLF BUY 3:4 2:1 SELL"
        )
        bot = await says_hello(
            exchange,
            door,
            HELLO[dialect],
            HELLO_JSON[dialect],
            dialect=dialect,
        )
        if dialect == "2015":
            await bot.hears("MARKET_OPEN", "BOOK BOND BUY SELL")
        else:
            await bot.hears("OPEN BOND XLF")
        await bot.hears("BOOK XLF BUY 3:4 2:1 SELL")
        await bot.is_silent()


@pytest.mark.parametrize("dialect", HELLO)
async def test_rule_1_a_hello_is_answered_while_closed(
    tmp_path: Path, door: Door, dialect: str
) -> None:
    async with hall(tmp_path, is_open=False, dialect=dialect) as exchange:
        bot = await exchange.connect(door)
        bot.say("HELLO TEAMA")
        line = await bot.line()
        assert line.startswith(('{"type":"hello","cash":0,', "HELLO "))
        assert "OPEN" not in line and "true" not in line
        if dialect == "2015":
            await bot.hears("BOOK BOND BUY SELL", "BOOK XLF BUY SELL")
        await bot.is_silent()
        exchange.open(symbol="XLF")
        exchange.open(symbol="BOND")
        if dialect == "2015":
            await bot.hears("MARKET_OPEN")
        else:
            await bot.hears("OPEN XLF", "OPEN BOND")
        exchange.act(action="phase", phase="closed", symbol="XLF")
        exchange.act(action="phase", phase="closed", symbol="BOND")
        if dialect == "2015":
            await bot.hears("MARKET_CLOSED")
        else:
            await bot.hears("CLOSE XLF", "CLOSE BOND")
        await bot.is_silent()


async def test_rule_2_nothing_happens_before_hello(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.connect(door)
        for line in (
            "ADD 1 BOND BUY 990 10",
            "CONVERT 1 XLF BUY 10",
            "CANCEL 1",
            "ADD 1 NONE UP 0 0",
        ):
            await bot.does(line, f"ERROR {NO_HELLO}")
        assert not exchange.server.gateway.engine.order_id
        for team in ("", "teama", "TEAM-A", "T" * 33, "ÄÖ", "TEAM1"):
            await bot.does(f"HELLO {team}", f"ERROR {BAD_TEAM}")
        bot.say("HELLO TEAMA", "CANCEL 1")
        assert len(await bot.until("OUT 1")) == 2  # hello, open
        await bot.does("HELLO TEAMA", f"ERROR {SECOND_HELLO}")
        await bot.does("HELLO TEAMB", f"ERROR {SECOND_HELLO}")
        await bot.is_silent()


async def test_rule_2_what_comes_before_the_answer_to_hello_counts(
    tmp_path: Path, door: Door
) -> None:
    """A bot may send all in one write."""
    async with hall(tmp_path) as exchange:
        bot = await exchange.connect(door)
        bot.say("CANCEL 5", "HELLO TEAMA", "ADD 1 BOND BUY 9 1", "HELLO TEAMB")
        await bot.hears(f"ERROR {NO_HELLO}")
        assert "TEAMA" not in await bot.line()
        await bot.hears("OPEN BOND XLF", "ACK 1", f"ERROR {SECOND_HELLO}")
        assert [*exchange.server.gateway.engine.accounts] == ["TEAMA"]


async def test_rule_3_ack_then_fills_then_one_out(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        other = await exchange.enter("text", "OTHER")
        for id_, price in enumerate((990, 991, 992)):
            other.say(f"ADD {id_} BOND SELL {price} 5")
            await other.until(f"ACK {id_}")
        bot = await exchange.enter(door, "TEAMA")
        await bot.does(
            "ADD 9 BOND BUY 991 12",
            "ACK 9",
            "FILL 9 BOND BUY 990 5",
            "FILL 9 BOND BUY 991 5",
            "TRADE BOND 990 5",
            "TRADE BOND 991 5",
            "BOOK BOND BUY 991:2 SELL 992:5",
        )
        await other.until("BOOK BOND BUY 991:2 SELL 992:5")
        other.say("ADD 3 BOND SELL 1 2")  # at the price of the resting one
        await bot.hears(
            "FILL 9 BOND BUY 991 2",
            "OUT 9",
            "TRADE BOND 991 2",
            "BOOK BOND BUY SELL 992:5",
        )
        await other.hears("ACK 3", "FILL 3 BOND SELL 991 2", "OUT 3")
        await bot.does("ADD 10 BOND BUY 992 5", "ACK 10")
        await bot.hears("FILL 10 BOND BUY 992 5", "OUT 10", "TRADE BOND 992 5")


async def test_rule_4_own_connection_only(tmp_path: Path, door: Door) -> None:
    """Others of the team get what is public; so do native sessions."""
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA")
        second = await exchange.enter("text", "TEAMA")
        async with wired(exchange.server.url, "TEAMA") as native:
            await bot.does("ADD 1 BOND BUY 990 10", "ACK 1")
            await second.hears("BOOK BOND BUY 990:10 SELL")
            await bot.hears("BOOK BOND BUY 990:10 SELL")
            assert (await native.receive())["exec_type"] == "new"
            await native.send(order("sell", 4, 995, symbol="BOND"))
            for each in (bot, second):
                await each.hears("BOOK BOND BUY 990:10 SELL 995:4")
            # The same id is another order there.
            await second.does("CANCEL 1", "OUT 1")
            await bot.is_silent()
            await bot.does("ADD 1 BOND BUY 1 1", "REJECT 1 DUPLICATE_ID")
            await second.is_silent()


async def test_rule_5_a_disconnect_cancels_the_connections_orders(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA")
        second = await exchange.enter("json", "TEAMA")
        async with wired(exchange.server.url, "TEAMA") as native:
            await native.send(order("buy", 4, 980, symbol="BOND"))
            await second.hears("BOOK BOND BUY 980:4 SELL")
            await second.does("ADD 1 BOND BUY 985 1", "ACK 1")
            await second.hears("BOOK BOND BUY 985:1 980:4 SELL")
            bot.say("ADD 1 BOND BUY 990 1", "ADD 2 BOND SELL 995 1")
            await second.until("BOOK BOND BUY 990:1 985:1 980:4 SELL 995:1")
            bot.writer.close()
            await second.hears("BOOK BOND BUY 985:1 980:4 SELL")
            await second.is_silent()


async def test_rule_5_what_came_before_the_end_is_carried_out(
    tmp_path: Path, door: Door
) -> None:
    """A line without its newline is not."""
    async with hall(tmp_path) as exchange:
        other = await exchange.enter("text", "OTHER")
        await other.does("ADD 1 BOND SELL 990 9", "ACK 1")
        await other.hears("BOOK BOND BUY SELL 990:9")
        bot = await exchange.enter(door, "TEAMA")
        bot.say("ADD 1 BOND BUY 990 2")
        bot.send(bot.asked("ADD 2 BOND BUY 990 3").encode())
        bot.writer.close()
        await other.hears(
            "FILL 1 BOND SELL 990 2",
            "TRADE BOND 990 2",
            "BOOK BOND BUY SELL 990:7",
        )
        await other.is_silent()


async def test_rule_6_an_id_is_taken_from_its_ack_to_its_out(
    tmp_path: Path, door: Door
) -> None:
    """In one write too, where no answer has been read yet."""
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        bot.say(
            "ADD 0 BOND BUY 990 10",
            "ADD 0 BOND BUY 1 1",
            "CONVERT 0 XLF BUY 10",
            "CANCEL 0",
            "ADD 0 BOND BUY 1000000 1",
            "ADD 0 BOND SELL 995 1",
            "ADD 1 BOND BUY 995 1",
            "ADD 0 BOND BUY 1 1",
            "CONVERT 7 XLF BUY 10",
            "CONVERT 7 XLF BUY 10",
            "ADD 7 BOND BUY 1 1",
        )
        await bot.hears(
            "ACK 0",
            "REJECT 0 DUPLICATE_ID",
            "REJECT 0 DUPLICATE_ID",
            "OUT 0",
            "REJECT 0 BAD_PRICE",
            "ACK 0",
            "ACK 1",
            "FILL 1 BOND BUY 995 1",
            "OUT 1",
            "FILL 0 BOND SELL 995 1",
            "OUT 0",
            "ACK 0",
            "ACK 7",
            "ACK 7",
            "ACK 7",
        )


@pytest.mark.parametrize("id_", [0, 2**31, 2**53 + 1, 2**63, 2**64 - 1])
async def test_rule_6_ids_have_64_bits(
    tmp_path: Path, door: Door, id_: int
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        await bot.does(f"ADD {id_} BOND BUY 990 10", f"ACK {id_}")
        await bot.does(
            f"ADD {id_} BOND BUY 990 10", f"REJECT {id_} DUPLICATE_ID"
        )
        other = id_ - 1 if id_ else 1
        await bot.does(f"CONVERT {other} XLF BUY 10", f"ACK {other}")
        await bot.does(f"ADD {other} BOND SELL 990 4", f"ACK {other}")
        await bot.hears(f"FILL {other} BOND SELL 990 4", f"OUT {other}")
        await bot.hears(f"FILL {id_} BOND BUY 990 4", "TRADE BOND 990 4")
        await bot.does(f"CANCEL {id_}", f"OUT {id_}")
