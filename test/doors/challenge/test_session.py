"""Whole sessions by hand, to the byte."""

from __future__ import annotations

from pathlib import Path

from test.doors.challenge.bots import hall


async def test_a_session_at_the_text_door(tmp_path: Path) -> None:
    async with hall(tmp_path, is_open=False) as exchange:
        bot = await exchange.connect("text")
        other = await exchange.enter("json", "OTHER")
        bot.send(b"HELLO TEAMA\n")
        assert await bot.line() == "HELLO BOND:0 USD:0 XLF:0\n"
        exchange.open()
        assert await bot.line() == "OPEN BOND XLF\n"
        bot.send(b"ADD 0 BOND BUY 990 10\n")
        assert await bot.line() == "ACK 0\n"
        assert await bot.line() == "BOOK BOND BUY 990:10 SELL\n"
        other.say("ADD 7 BOND SELL 985 15")
        assert await bot.line() == "FILL 0 BOND BUY 990 10\n"
        assert await bot.line() == "OUT 0\n"
        assert await bot.line() == "TRADE BOND 990 10\n"
        assert await bot.line() == "BOOK BOND BUY SELL 985:5\n"
        bot.send(b"CANCEL 0\n")
        assert await bot.line() == "OUT 0\n"
        bot.send(b"CONVERT 1 XLF BUY 10\n")
        assert await bot.line() == "ACK 1\n"
        bot.send(b"ADD 2 BOND BUY 985 999999\n")
        assert await bot.line() == "REJECT 2 LIMIT:POSITION\n"
        bot.send(b"BUY BOND\n")
        assert (
            await bot.line() == "ERROR PROTOCOL_ERROR:MALFORMED unknown verb\n"
        )
        exchange.act(action="phase", phase="closed")
        assert await bot.line() == "CLOSE BOND XLF\n"
        exchange.act(action="reset")
        assert await bot.line() == ""


async def test_a_session_at_the_json_door(tmp_path: Path) -> None:
    async with hall(tmp_path, is_open=False) as exchange:
        bot = await exchange.connect("json")
        other = await exchange.enter("text", "OTHER")
        bot.send(b'{"type": "hello", "team": "TEAMA"}\n')
        assert await bot.line() == (
            '{"type":"hello","cash":0,"symbols":['
            '{"symbol":"BOND","position":0},{"symbol":"USD","position":0},'
            '{"symbol":"XLF","position":0}],"market_open":false}\n'
        )
        exchange.open()
        assert await bot.line() == '{"type":"open","symbols":["BOND","XLF"]}\n'
        bot.send(
            b'{"size": 10, "type": "add", "order_id": 18446744073709551615,'
            b' "symbol": "BOND", "dir": "BUY", "price": 990, "x": null}\n'
        )
        assert (
            await bot.line()
            == '{"type":"ack","order_id":18446744073709551615}\n'
        )
        assert await bot.line() == (
            '{"type":"book","symbol":"BOND","buy":[[990,10]],"sell":[]}\n'
        )
        other.say("ADD 7 BOND SELL 985 15")
        assert await bot.line() == (
            '{"type":"fill","order_id":18446744073709551615,"symbol":"BOND",'
            '"dir":"BUY","price":990,"size":10}\n'
        )
        assert (
            await bot.line()
            == '{"type":"out","order_id":18446744073709551615}\n'
        )
        assert await bot.line() == (
            '{"type":"trade","symbol":"BOND","price":990,"size":10}\n'
        )
        assert await bot.line() == (
            '{"type":"book","symbol":"BOND","buy":[],"sell":[[985,5]]}\n'
        )
        bot.send(
            b'{"type":"add","order_id":1,"symbol":"BOND","dir":"BUY",'
            b'"price":985.0,"size":1}\n'
        )
        assert (
            await bot.line()
            == '{"type":"reject","order_id":1,"error":"BAD_PRICE"}\n'
        )
        bot.send(b"ADD 1\n")
        assert await bot.line() == (
            '{"type":"error","error":"PROTOCOL_ERROR:MALFORMED not a JSON'
            ' object"}\n'
        )
        exchange.act(action="phase", phase="closed")
        assert (
            await bot.line() == '{"type":"close","symbols":["BOND","XLF"]}\n'
        )
