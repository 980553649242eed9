"""Rules 7 to 10, 15, 16 and 19 of docs/DOORS.md: what is refused, and how."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.doors.challenge.messages import BAD_ID, NOT_JSON, UNKNOWN_VERB
from test.doors.challenge.bots import Door, hall
from test.support import order, wired


async def test_rule_7_a_cancel_is_always_answered_with_out(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        for id_ in (7, 0, -1, 2**64, 10**50):
            await bot.does(f"CANCEL {id_}", f"OUT {id_}")
        await bot.does("CONVERT 3 XLF BUY 10", "ACK 3")
        await bot.does("CANCEL 3", "OUT 3")
        await bot.does("ADD 3 BOND BUY 990 1", "ACK 3")
        await bot.does("CANCEL 3", "OUT 3")
        await bot.does("CANCEL 3", "OUT 3")
        for id_ in ("x", "1.0", "1e3", "", "true"):
            await bot.does(f"CANCEL {id_}", f"ERROR {BAD_ID}")
        assert not exchange.server.gateway.engine.listings["BOND"].book.orders


async def test_rule_7_a_cancel_that_loses_against_a_fill(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        await bot.does("ADD 1 BOND BUY 990 1", "ACK 1")
        other = await exchange.enter("text", "OTHER")
        other.say("ADD 1 BOND SELL 990 1")
        await other.until("OUT 1")
        bot.say("CANCEL 1")
        await bot.hears("FILL 1 BOND BUY 990 1", "OUT 1", "TRADE BOND 990 1")
        await bot.hears("OUT 1")


# What is wrong with a message that has a valid id, and the word for it.
FAULTS = {
    "ADD 1 NONE BUY 990 1": "BAD_SYMBOL",
    "ADD 1 bond BUY 990 1": "BAD_SYMBOL",
    "ADD 1 USD BUY 990 1": "BAD_SYMBOL",
    "ADD 1": "BAD_SYMBOL",
    "ADD 1 BOND": "BAD_DIR",
    "ADD 1 BOND buy 990 1": "BAD_DIR",
    "ADD 1 BOND UP 990 1": "BAD_DIR",
    "ADD 1 BOND BUY": "BAD_PRICE",
    "ADD 1 BOND BUY 0 1": "BAD_PRICE",
    "ADD 1 BOND BUY -5 1": "BAD_PRICE",
    "ADD 1 BOND BUY 1000000 1": "BAD_PRICE",
    "ADD 1 BOND BUY 990.0 1": "BAD_PRICE",
    "ADD 1 BOND BUY 99999999999999999999 1": "BAD_PRICE",
    "ADD 1 BOND BUY 990": "BAD_SIZE",
    "ADD 1 BOND BUY 990 0": "BAD_SIZE",
    "ADD 1 BOND BUY 990 -1": "BAD_SIZE",
    "ADD 1 BOND BUY 990 1000000": "BAD_SIZE",
    "ADD 1 BOND BUY 990 1.0": "BAD_SIZE",
    "ADD 1 BOND BUY 990 101": "LIMIT:POSITION",
    "CONVERT 1": "BAD_SYMBOL",
    "CONVERT 1 USD BUY 10": "BAD_SYMBOL",
    "CONVERT 1 BOND BUY 10": "NO_CONVERSION",
    "CONVERT 1 XLF": "BAD_DIR",
    "CONVERT 1 XLF up 10": "BAD_DIR",
    "CONVERT 1 XLF BUY": "BAD_SIZE",
    "CONVERT 1 XLF BUY 0": "BAD_SIZE",
    "CONVERT 1 XLF BUY 5": "BAD_SIZE",
    "CONVERT 1 XLF BUY 1000000": "BAD_SIZE",
    "CONVERT 1 XLF BUY 110": "LIMIT:POSITION",
}


async def test_rule_8_a_fault_beside_a_valid_id_is_a_reject(
    tmp_path: Path, door: Door
) -> None:
    """Rules 8, 9 and 19. The id stays free, the connection stays open."""
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        for line, word in FAULTS.items():
            await bot.does(line, f"REJECT 1 {word}")
        assert not exchange.server.gateway.engine.order_id
        await bot.does("ADD 1 BOND BUY 990 1", "ACK 1")


@pytest.mark.parametrize("id_", ["-1", str(2**64), "x", "1.5", ""])
async def test_rule_8_without_a_valid_id_it_is_an_error(
    tmp_path: Path, door: Door, id_: str
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA")
        await bot.does(f"ADD {id_} BOND BUY 990 1", f"ERROR {BAD_ID}")
        await bot.does(f"CONVERT {id_} XLF BUY 10", f"ERROR {BAD_ID}")
        await bot.is_silent()


async def test_rule_8_what_is_no_message_is_an_error(tmp_path: Path) -> None:
    async with hall(tmp_path) as exchange:
        text = await exchange.enter("text", "TEAMA")
        for line in (
            *(b"add 1 BOND BUY 990 1", b"Cancel 1", b"QUIT", b"ADD1 BOND"),
            *(b" ", b"\xff\xfe\x00", b"{}", b"\t;", b"\xc3\x84DD 1"),
        ):
            text.send(line + b"\n")
            await text.hears(f"ERROR {UNKNOWN_VERB}")
        json = await exchange.enter("json", "TEAMA")
        for line in (
            *(b"ADD 1 BOND BUY 990 1", b"[]", b"7", b"null", b'"add"', b" "),
            *(b"{", b'{"type":"add"', b"\xff\xfe\x00", b"[" * 4000),
            *(b'{"order_id":NaN}', b'[{"type":"cancel","order_id":1}]'),
        ):
            json.send(line + b"\n")
            await json.hears(f"ERROR {NOT_JSON}")
        for line in (
            *(b"{}", b'{"type":"ADD","order_id":1}', b'{"type":1}'),
            *(b'{"type":"Cancel","order_id":1}', b'{"type":["add"]}'),
        ):
            json.send(line + b"\n")
            await json.hears(f"ERROR {UNKNOWN_VERB}")
        for bot in (text, json):
            await bot.is_silent()


async def test_rule_8_json_takes_whole_numbers_and_nothing_else(
    tmp_path: Path,
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter("json", "TEAMA")
        sent = (
            '{"type":"add","order_id":1,"symbol":"BOND","dir":"BUY",'
            '"price":%s,"size":%s}\n'
        )
        for value in ("990.0", '"990"', "true", "null", "[990]", "9.9e2"):
            bot.send((sent % (value, "1")).encode())
            await bot.hears("REJECT 1 BAD_PRICE")
            bot.send((sent % ("990", value)).encode())
            await bot.hears("REJECT 1 BAD_SIZE")
            bot.send(b'{"type":"cancel","order_id":%s}\n' % value.encode())
            await bot.hears(f"ERROR {BAD_ID}")
        for symbol in ("7", "null", '["BOND"]', "{}"):
            bot.send(
                b'{"type":"convert","order_id":2,"symbol":%s,"dir":"BUY",'
                b'"size":10}\n' % symbol.encode()
            )
            await bot.hears("REJECT 2 BAD_SYMBOL")
        bot.send((sent % ("-0", "1")).encode())
        await bot.hears("REJECT 1 BAD_PRICE")


async def test_rule_9_the_accounts_limits(tmp_path: Path, door: Door) -> None:
    accounts = "[account]\nopen_orders = 2\ncash = 1000\nmin_cash = 0\n"
    async with hall(tmp_path, accounts=accounts) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        await bot.does("ADD 1 BOND BUY 100 11", "REJECT 1 LIMIT:CASH")
        await bot.does("ADD 1 BOND BUY 100 9", "ACK 1")
        await bot.does("CONVERT 9 XLF BUY 10", "ACK 9")  # its fee: all cash
        await bot.does("CONVERT 9 XLF BUY 10", "REJECT 9 LIMIT:CASH")
        await bot.does("ADD 2 BOND SELL 101 1", "ACK 2")
        await bot.does("ADD 3 BOND SELL 101 1", "REJECT 3 LIMIT:ORDERS")
        exchange.act(action="suspend", user="TEAMA")
        await bot.hears("OUT 1", "OUT 2")
        await bot.does("ADD 3 BOND SELL 101 1", "REJECT 3 SUSPENDED")
        await bot.does("CONVERT 9 XLF BUY 10", "REJECT 9 SUSPENDED")


async def test_rule_9_prices_out_of_bounds_and_beyond_the_collar(
    tmp_path: Path, door: Door
) -> None:
    bounds = {"min_price": 500, "max_price": 2_000, "collar": 10}
    async with hall(
        tmp_path, ["BOND"], instrument={**bounds, "reference_price": 1_000}
    ) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        for price in (499, 2_001):
            await bot.does(f"ADD 1 BOND BUY {price} 1", "REJECT 1 BAD_PRICE")
        await bot.does("ADD 1 BOND BUY 1011 1", "REJECT 1 LIMIT:PRICE_BAND")
        await bot.does("ADD 1 BOND SELL 989 1", "REJECT 1 LIMIT:PRICE_BAND")
        await bot.does("ADD 1 BOND BUY 1010 1", "ACK 1")


@pytest.mark.parametrize("phase", ["pre_open", "auction", "halted", "closed"])
async def test_rule_10_nothing_is_accepted_unless_open(
    tmp_path: Path, door: Door, phase: str
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA")
        exchange.act(action="phase", phase=phase, symbol="BOND")
        await bot.hears("CLOSE BOND")
        await bot.does("ADD 1 BOND BUY 990 1", "REJECT 1 TRADING_CLOSED")
        # A leg of its basket is closed.
        await bot.does("CONVERT 1 XLF BUY 10", "REJECT 1 TRADING_CLOSED")
        await bot.does(
            "ADD 1 XLF BUY 990 1", "ACK 1", "BOOK XLF BUY 990:1 SELL"
        )
        exchange.open(symbol="BOND")
        await bot.hears("OPEN BOND")
        await bot.does("ADD 2 BOND BUY 990 1", "ACK 2")


async def test_rule_10_orders_outlive_a_halt_and_can_be_canceled(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        await bot.does("ADD 1 BOND BUY 990 1", "ACK 1")
        exchange.act(action="phase", phase="halted")
        await bot.hears("CLOSE BOND XLF")
        await bot.does("ADD 1 BOND BUY 990 1", "REJECT 1 DUPLICATE_ID")
        await bot.does("CANCEL 1", "OUT 1")
        exchange.open()
        await bot.hears("OPEN BOND XLF")
        await bot.is_silent()


async def test_rule_10_an_auction_that_an_own_order_starts(
    tmp_path: Path, door: Door
) -> None:
    """The next order of the same write finds it closed."""
    band = {"band": 5, "reference_price": 1_000}
    async with hall(tmp_path, ["BOND"], instrument=band) as exchange:
        other = await exchange.enter("text", "OTHER", books=False)
        await other.does("ADD 1 BOND SELL 1010 5", "ACK 1")
        bot = await exchange.enter(door, "TEAMA", books=False)
        bot.say("ADD 1 BOND BUY 1010 5", "ADD 2 BOND BUY 990 1")
        await bot.hears("ACK 1", "CLOSE BOND", "REJECT 2 TRADING_CLOSED")
        exchange.open()  # they trade by the uncrossing
        await bot.hears("FILL 1 BOND BUY 1010 5", "OUT 1", "OPEN BOND")


@pytest.mark.parametrize("self_trades", [True, False])
async def test_rule_15_own_orders_that_meet(
    tmp_path: Path, door: Door, self_trades: bool
) -> None:
    async with hall(
        tmp_path, ["BOND"], instrument={"self_trades": self_trades}
    ) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        second = await exchange.enter("text", "TEAMA", books=False)
        await second.does("ADD 5 BOND BUY 990 3", "ACK 5")
        if self_trades:
            await bot.does(
                "ADD 5 BOND SELL 980 3",
                "ACK 5",
                "FILL 5 BOND SELL 990 3",
                "OUT 5",
                "TRADE BOND 990 3",
            )
            await second.hears("FILL 5 BOND BUY 990 3", "OUT 5")
        else:
            await bot.does("ADD 5 BOND SELL 980 3", "ACK 5")
            await second.hears("OUT 5")
            await bot.is_silent()


async def test_rule_16_open_orders_count_towards_the_limit(
    tmp_path: Path, door: Door
) -> None:
    """Those of other connections and native sessions too."""
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        second = await exchange.enter("text", "TEAMA", books=False)
        async with wired(exchange.server.url, "TEAMA") as native:
            await bot.does("ADD 1 BOND BUY 990 50", "ACK 1")
            await second.does("ADD 1 BOND BUY 990 30", "ACK 1")
            await native.ask(**order("buy", 15, 990, symbol="BOND"))
            await bot.does("ADD 2 BOND BUY 990 6", "REJECT 2 LIMIT:POSITION")
            await bot.does("ADD 2 BOND BUY 990 5", "ACK 2")
            await bot.does("ADD 3 BOND SELL 995 100", "ACK 3")
            await bot.does("ADD 4 BOND SELL 995 1", "REJECT 4 LIMIT:POSITION")
