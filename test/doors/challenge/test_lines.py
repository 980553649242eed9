"""How bytes become lines, and which lines end a connection."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from exchange.doors.challenge.lines import LINE_MAX, METHODS
from exchange.doors.challenge.messages import NOT_JSON, TOO_LONG
from test.doors.challenge.bots import Door, hall
from test.support import until


async def test_lines_may_come_in_any_pieces(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        lines = [bot.asked(f"ADD {id_} BOND BUY 9 1") for id_ in range(3)]
        data = "".join(f"{line}\n" for line in lines).encode()
        for index in range(len(data)):
            bot.send(data[index : index + 1])
            await asyncio.sleep(0)
        await bot.hears("ACK 0", "ACK 1", "ACK 2")


async def test_ends_of_lines_and_empty_lines(
    tmp_path: Path, door: Door
) -> None:
    """More empty ones than are read at once."""
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        line = bot.asked("CANCEL 1").encode()
        bot.send(b"\n" * 50_000 + b"\r\n" * 50_000 + line + b"\r\n\n" + line)
        await bot.hears("OUT 1")
        bot.send(b"\r\n")
        await bot.hears("OUT 1")


async def test_spaces_and_further_fields_do_no_harm(tmp_path: Path) -> None:
    async with hall(tmp_path) as exchange:
        text = await exchange.enter("text", "TEAMA", books=False)
        text.send(b"  ADD  1 BOND\tBUY 9 1  extra \nCANCEL 1 BOND\n")
        await text.hears("ACK 1", "OUT 1")
        json = await exchange.enter("json", "TEAMA", books=False)
        json.send(
            b' {"dir" : "BUY", "type":"add", "size":1,"x":[1.5,null],\t'
            b'"price":9, "symbol":"BOND", "order_id":1 } \n'
        )
        await json.hears("ACK 1")


async def test_a_line_that_is_too_long_ends_the_connection(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA", books=False)
        line = bot.asked("CANCEL 1").encode()
        # As long as it may be.
        bot.send(b" " * (LINE_MAX - len(line)) + line + b"\n")
        await bot.hears("OUT 1")
        bot.send(line + b"\n" + b" " * (LINE_MAX + 1 - len(line)) + line)
        bot.send(b"\n" + line + b"\n")
        await bot.hears("OUT 1", f"ERROR {TOO_LONG}")
        assert await bot.ends() == []


async def test_a_line_of_a_mebibyte(tmp_path: Path, door: Door) -> None:
    """With and without a newline at its end, and before a hello."""
    async with hall(tmp_path) as exchange:
        for end in (b"\n", b""):
            bot = await exchange.connect(door)
            bot.send(b"A" * 2**20 + end)
            await bot.hears(f"ERROR {TOO_LONG}")
            assert await bot.ends() == []


async def test_bytes_that_are_no_text(tmp_path: Path, door: Door) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.enter(door, "TEAMA")
        bot.send(bytes(n for n in range(256) if n != 10) + b"\n")
        line = await bot.line()
        assert "PROTOCOL_ERROR:MALFORMED" in line
        await bot.is_silent()


@pytest.mark.parametrize("method", sorted(METHODS))
async def test_rule_2_a_web_page_is_hung_up_on(
    tmp_path: Path, door: Door, method: bytes
) -> None:
    """Whatever the body of its request says."""
    async with hall(tmp_path) as exchange:
        bot = await exchange.connect(door)
        hello = bot.asked("HELLO TEAMA").encode()
        bot.send(method + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        bot.send(hello + b"\n")
        assert await bot.ends() == []
        assert not exchange.server.gateway.engine.accounts


async def test_rule_2_http_by_other_methods(
    tmp_path: Path, door: Door
) -> None:
    async with hall(tmp_path) as exchange:
        bot = await exchange.connect(door)
        bot.send(b"X\nBREW /pot HTTP/1.0\nX\n")
        assert await bot.ends() == []


async def test_a_bot_that_reconnects_all_the_time(
    tmp_path: Path, door: Door
) -> None:
    """Nothing of it stays, whether it reads its hello or not."""
    async with hall(tmp_path) as exchange:
        for attempt in range(60):
            bot = await exchange.connect(door)
            bot.say("HELLO TEAMA", "ADD 1 BOND BUY 990 1")
            if attempt % 2:
                await bot.until("ACK 1")
            bot.writer.close()
        await until(lambda: not exchange.server.links)
        await until(lambda: not exchange.server.listener.connections)
        await until(lambda: not exchange.server.gateway.links)
        book = exchange.server.gateway.engine.listings["BOND"].book
        assert not book.orders


async def test_one_address_may_have_so_many_connections(
    tmp_path: Path, door: Door
) -> None:
    """Those at the native port count too."""
    settings = {"max_per_address": 2}
    async with hall(tmp_path, settings=settings) as exchange:
        first = await exchange.enter(door, "TEAMA")
        await exchange.enter("text", "TEAMA")
        third = await exchange.connect(door)
        assert await third.ends() == []
        first.writer.close()
        await until(lambda: len(exchange.server.listener.connections) == 1)
        await (await exchange.enter(door, "TEAMA")).is_silent()


async def test_the_json_door_knows_no_text_and_the_text_door_no_json(
    tmp_path: Path,
) -> None:
    async with hall(tmp_path) as exchange:
        json = await exchange.connect("json")
        json.send(b"HELLO TEAMA\n")
        await json.hears(f"ERROR {NOT_JSON}")
        text = await exchange.connect("text")
        text.send(b'{"type":"hello","team":"TEAMA"}\n')
        assert (await text.line()).startswith("ERROR PROTOCOL_ERROR:MALFORMED")


async def test_no_lines_end_anything_but_their_own_connection(
    tmp_path: Path, door: Door
) -> None:
    """Damaged messages in pieces of any size, while another bot trades."""
    chance = random.Random(3)
    async with hall(tmp_path, messages_per_s=1_000_000) as exchange:
        good = await exchange.enter("text", "GOOD", books=False)
        for attempt in range(40):
            bot = await exchange.connect(door)
            lines = [bot.asked("HELLO BAD")] * (attempt % 4 > 0)
            lines += [
                bot.asked(chance.choice(MESSAGES).format(chance.randrange(9)))
                for _ in range(50)
            ]
            data = bytearray("".join(f"{line}\n" for line in lines).encode())
            for _ in range(chance.randrange(60)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            while data:
                size = chance.randrange(1, 400)
                bot.send(bytes(data[:size]))
                del data[:size]
                if chance.random() < 0.2:
                    await asyncio.sleep(0)
            if attempt % 3:
                await bot.line()
            good.say("CANCEL 1")
            await good.until("OUT 1")
            bot.writer.close()
        await until(lambda: len(exchange.server.links) == 1)


MESSAGES = (
    "ADD {0} BOND BUY 99{0} 1",
    "ADD {0} XLF SELL 99{0} 1",
    "CONVERT {0} XLF BUY 10",
    "CANCEL {0}",
    "HELLO BAD",
)
