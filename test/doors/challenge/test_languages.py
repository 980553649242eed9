"""The languages by themselves: the longest messages, and damaged ones."""

from __future__ import annotations

import random

import pytest

from exchange.doors.challenge.json_lines import Json
from exchange.doors.challenge.messages import (
    Add,
    Cancel,
    Convert,
    Faulty,
    Hello,
    Language,
    Malformed,
)
from exchange.doors.challenge.text_lines import Text
from exchange.host.door_settings import INSTRUMENTS_MAX, LEVELS_MAX
from orderbook import MAX_INT

BUFFER = 10_000  # of some bots
LANGUAGES = [
    pytest.param(Text("2017"), id="text"),
    pytest.param(Json("2017"), id="json"),
]
SEEDS = (
    b"HELLO TEAM",
    b"ADD 1 BOND BUY 990 10",
    b"CONVERT 2 XLF SELL 10",
    b"CANCEL 18446744073709551615",
    b'{"type":"hello","team":"TEAM"}',
    b'{"type":"add","order_id":1,"symbol":"BOND","dir":"BUY","price":9,'
    b'"size":1}',
    b'{"type":"convert","order_id":2,"symbol":"X","dir":"SELL","size":10}',
    b'{"type":"cancel","order_id":3}',
)
PIECES = (
    *(b" ", b"  ", b"\t", b"\0", b"\xff", b"-", b".", b'"', b"\\", b"{", b"]"),
    *(b"null", b"true", b"1e9", b"NaN", b"-0", b"\\ud800", b"9" * 400, b"ADD"),
    *("٣".encode(), b"\x1c", b"\x85", b"order_id", b'"type":"add"', b"[[[["),
)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_message_is_longer_than_bots_read(language: Language) -> None:
    positions = [
        (f"SYMBOL{number:010}", -MAX_INT) for number in range(INSTRUMENTS_MAX)
    ]
    symbols = [symbol for symbol, _ in positions]
    levels = [(MAX_INT, MAX_INT)] * LEVELS_MAX
    for line in (
        language.hello(-MAX_INT, positions, True),
        language.opened(symbols),
        language.closed(symbols),
        language.book(symbols[0], levels, levels),
    ):
        assert len(line) < BUFFER
        assert line.isascii() and line.count(b"\n") == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_line_raises_anything(language: Language) -> None:
    """And whatever is read can be acted upon without looking at it again."""
    chance = random.Random(7)
    kinds = set()
    for _ in range(20_000):
        line = bytearray(chance.choice(SEEDS))
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(line) + 1)
            if chance.random() < 0.5:
                line[at : at + chance.randrange(3)] = chance.choice(PIECES)
            else:
                line[at : at + 1] = bytes([chance.randrange(256)])
        said = language.read(bytes(line))
        kinds.add(type(said))
        match said:
            case Hello(team):
                assert team is None or (team.isascii() and team.isupper())
            case Add(order_id, symbol, side, price, size):
                assert 0 <= order_id < 2**64 and isinstance(symbol, str)
                assert side in ("buy", "sell")
                assert 1 <= price <= 999_999 and 1 <= size <= 999_999
            case Convert(order_id, symbol, side, size):
                assert 0 <= order_id < 2**64 and isinstance(symbol, str)
                assert side in ("buy", "sell") and 1 <= size <= 999_999
            case Cancel(order_id):
                assert language.out(order_id).endswith(b"\n")
            case Faulty(order_id, word):
                assert 0 <= order_id < 2**64 and " " not in word
            case Malformed(text):
                assert language.error(text).isascii()
    assert kinds == {Hello, Add, Convert, Cancel, Faulty, Malformed}
