"""The market in a terminal: a real exchange, a real pseudo-terminal."""

from __future__ import annotations

import asyncio
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import termios
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from client import Book, Exchange
from orderbook import Instrument, News, Status, Trade
from test.relay import Direction, Fate, relaying, tell
from test.support import NOBODY, PATIENCE_S, ended, running, serving, until
from util import watch
from util.watch import View, Watcher, plain, show, visible

ROWS, COLUMNS = 24, 80
SCREEN_ON, SCREEN_OFF = b"\x1b[?1049h", b"\x1b[?1049l"
CURSOR_OFF, CURSOR_ON = b"\x1b[?25l", b"\x1b[?25h"
KNOWN = """\
BOND  open  bid 99  ask 101  spread 2  last 99

             bid  price   ask               UTC       side  qty  price
                    101    10 ████          {}  sell    2     99
██████████    28     99                     {}  buy     4    101
     █████    12     98
                                               leader  equity
                                            1  bob          8
                                            2  alice       -8
"""
HOSTILE = "\x1b]0;owned\x07\x1b[31m\n\r\x9b2J\u202e[red]x[/red]:smile:"
SHOWN = r"\x1b]0;owned\x07\x1b[31m\n\r\x9b2J\u202e[red]x[/red]:smile:"


@asynccontextmanager
async def watching(
    url: str, *arguments: str, **options: Any
) -> AsyncIterator[Process]:
    """Run ``python -m util.watch``; kill it at the end."""
    variables = {
        **os.environ,
        "EXCHANGE_URL": url,
        "TERM": "xterm-256color",
        "PYTHONIOENCODING": options.pop("encoding", "utf-8"),
    }
    async with running(
        *("-W", "error", "-m", "util.watch", *arguments),
        env=variables,
        **{"stdin": DEVNULL, **options},
    ) as process:
        yield process


class Terminal:
    """A pseudo-terminal, with its output and its settings."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, size)
        self.before = termios.tcgetattr(self.slave)
        self.written = b""
        self._news = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def _read(self) -> None:
        self.written += os.read(self.master, 65_536)
        self._news.set()

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    async def until(self, *texts: str | bytes) -> None:
        """Wait until texts were written, one after the other, from now on."""
        start = len(self.written)
        for text in texts:
            data = text.encode() if isinstance(text, str) else text
            async with asyncio.timeout(PATIENCE_S):
                while (at := self.written.find(data, start)) < 0:
                    self._news.clear()
                    await self._news.wait()
            start = at + len(data)

    @property
    def picture(self) -> bytes:
        """The last complete picture."""
        return self.written.split(b"q: quit")[-2]

    @property
    def is_restored(self) -> bool:
        """Whether settings, cursor and screen are as they were."""
        return (
            termios.tcgetattr(self.slave) == self.before
            and self.written.rfind(CURSOR_ON) > self.written.rfind(CURSOR_OFF)
            and self.written.rfind(SCREEN_OFF) > self.written.rfind(SCREEN_ON)
        )

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)
        os.close(self.slave)


async def left(process: Process) -> int:
    """Wait for the end of a process in a terminal; return its status."""
    async with asyncio.timeout(PATIENCE_S):
        return await process.wait()


@asynccontextmanager
async def terminal() -> AsyncIterator[Terminal]:
    made = Terminal()
    try:
        yield made
    finally:
        made.close()


@asynccontextmanager
async def on_screen(
    screen: Terminal, url: str, *arguments: str
) -> AsyncIterator[Process]:
    """Run the tool in a terminal."""
    files = dict.fromkeys(("stdin", "stdout", "stderr"), screen.slave)
    async with watching(url, *arguments, **files) as process:
        yield process


async def fill(url: str, symbol: str = "BOND") -> list[Trade]:
    """Make a known book; return the trades that it took."""
    async with (
        Exchange(url, "alice", cancel_on_disconnect=False) as alice,
        Exchange(url, "bob", cancel_on_disconnect=False) as bob,
    ):
        hers, his = await alice.market(symbol), await bob.market(symbol)
        await his.buy(30, 99)
        await his.buy(12, 98)
        await his.sell(14, 101)
        await hers.buy(4, 101)
        await hers.sell(2, 99)
        return await alice.get("trades", symbol=symbol)


# Once ---------------------------------------------------------------------


def times(trades: list[Trade]) -> list[str]:
    """Return when trades happened, the newest first."""
    return [
        datetime.fromtimestamp(trade.ts // 1_000_000, UTC).strftime("%X")
        for trade in reversed(trades)
    ]


async def printed(url: str, *arguments: str) -> int:
    """Run the tool here, without a terminal; return its exit status."""
    async with asyncio.timeout(PATIENCE_S):
        words = ["--url", url, *arguments]
        return await asyncio.to_thread(watch.main, words)


@pytest.mark.parametrize("arguments", [[], ["--once"]])
async def test_the_state_is_printed_once(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving() as server:
        trades = await fill(server.url)
        assert await printed(server.url, *arguments) == 0
    assert capsys.readouterr() == (KNOWN.format(*times(trades)), "")


async def test_once_is_plain_in_a_terminal_too() -> None:
    async with serving() as server, terminal() as screen:
        trades = await fill(server.url)
        async with on_screen(screen, server.url, "--once") as process:
            await screen.until("alice       -8\r\n")
            assert await left(process) == 0
    text = screen.written.decode().replace("\r\n", "\n")
    assert text == KNOWN.format(*times(trades))


async def test_an_empty_market_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with serving(symbols=("BOND", "ETF")) as server:
        arguments = ("--symbol", "ETF", "--user", "carl")
        assert await printed(server.url, *arguments) == 0
    output, errors = capsys.readouterr()
    assert errors == ""
    first, *_, last = output.splitlines()
    assert first == "ETF  open  bid -  ask -  spread -  last -"
    assert last == "carl  position 0  cash 0  equity 0"


async def test_a_terminal_that_knows_ascii_only() -> None:
    async with serving() as server:
        await fill(server.url)
        async with watching(server.url, encoding="ascii") as process:
            status, output, errors = await ended(process)
    assert (status, errors) == (0, "")
    assert r"10 \u2588\u2588\u2588\u2588" in output


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--symbol", "NONE"], "watch: NONE is not listed\n"),
        (["--user", "no user"], "watch: user: "),
    ],
)
async def test_errors_are_reported(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving() as server:
        assert await printed(server.url, *arguments) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(told)


def test_no_exchange_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watch, "CONNECT_TIMEOUT_S", 0.1)
    assert watch.main(["--url", NOBODY]) == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith(f"watch: not connected to {NOBODY}: ")


# What others say ----------------------------------------------------------


def test_unprintable_characters_are_escaped() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible("Grüße, 世界 [b]") == "Grüße, 世界 [b]"


CALL = Instrument(
    symbol="CALL",
    tick_size="0.05",
    min_price=0,
    max_price=900,
    max_qty=9,
    phase="open",
    kind="call",
    underlying="BOND",
    strike=2_000,
    expire_ts=3_600_000_000,
)
PRICED = """\
CALL  call 100.00 of BOND until 01:00:00  open  round 2  bid -0.05  ask 4.95\
  spread 5.00  last -

             bid  price   ask               UTC       side  qty        price
                   4.95     2 ██            00:00:00  buy     1  5.00 undone
██████████    10  -0.05
                                               leader  equity
                                            1  ann     -12.34

00:00:01  news  CALL  rain  (0)
"""


def test_prices_and_cash_are_money() -> None:
    last = Trade(
        **{"symbol": "CALL", "seq": 1, "ts": 0, "trade_id": 1, "price": 100},
        **{"qty": 1, "side": "buy", "busted": True},
    )
    view = View(
        symbol="CALL",
        symbols=("CALL",),
        phase="open",
        is_live=True,
        book=Book("CALL", bids=((-1, 10),), asks=((99, 2),)),
        trades=(last,),
        leaders=({"rank": 1, "user": "ann", "equity": -1_234},),
        news=(
            News(
                ts=1_000_000,
                news_id=1,
                headline="rain",
                symbol="CALL",
                value=0,
            ),
        ),
        instrument=CALL,
        unit=Decimal("0.01"),
        round=2,
    )
    assert plain(view) == PRICED.rstrip()
    fast = plain(replace(view, round=1, speed=0.5))
    assert "  open  time x0.5  bid" in fast


def test_names_and_messages_do_nothing() -> None:
    view = View(
        symbol=HOSTILE,
        symbols=(HOSTILE,),
        phase="open",
        is_live=True,
        book=Book("BOND"),
        trades=(),
        leaders=({"rank": 1, "user": HOSTILE, "equity": 5},),
        news=(Status(ts=0, symbol="X", phase="halted", message=HOSTILE),),
        own=HOSTILE,
    )
    assert all(c.isprintable() or c == "\n" for c in plain(view))
    file = io.StringIO()
    console = Console(
        file=file, width=200, force_terminal=True, **watch.LITERALLY
    )
    console.print(watch.draw_screen(view))
    drawn = file.getvalue()
    assert drawn.count(SHOWN) == 5
    allowed = re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    assert all(c.isprintable() or c == "\n" for c in allowed)


# On a screen --------------------------------------------------------------


async def test_a_screen_shows_the_market_and_q_quits() -> None:
    async with serving(symbols=("BOND", "ETF")) as server:
        await fill(server.url)
        async with (
            terminal() as screen,
            on_screen(screen, server.url) as process,
            Exchange(server.url, "carl") as carl,
        ):
            await screen.until(SCREEN_ON, "bid 99  ask 101", "alice", "████")
            await (await carl.market("ETF")).buy(7, 42)
            bond = await carl.market("BOND")
            await bond.buy(1, 101)  # who has not traded has no rank
            await bond.buy(3, 100)
            await screen.until("BOND  open  bid 100  ask 101  spread 1")
            screen.press("\t")
            await screen.until("ETF  open  bid 42  ask -")
            screen.press("\t")
            await screen.until("BOND  open")
            # A function key, and what stands for nothing: then a tab.
            screen.press("\x1b[12~3x\t")
            await screen.until("ETF  open")
            screen.press("1")
            await screen.until("BOND  open", "carl")
            assert not screen.is_restored
            screen.press("q")
            assert await left(process) == 0
            assert screen.is_restored


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_restores_the_terminal(signum: int) -> None:
    async with serving() as server, terminal() as screen:
        async with on_screen(screen, server.url) as process:
            await screen.until("BOND  open")
            process.send_signal(signum)
            assert await left(process) == 0
            assert screen.is_restored


async def test_after_a_restart_the_screen_shows_no_old_news() -> None:
    async with terminal() as screen, serving() as server:
        async with on_screen(screen, server.url) as process:
            await screen.until("BOND  open  bid -")
            await server.stop()
            await screen.until("NOT CONNECTED", "exchange is shutting down")
            async with serving(port=server.port):
                await fill(server.url)
                await screen.until("bid 99  ask 101", "bob", "q: quit")
                await until(lambda: b"shutting down" not in screen.picture)
                assert b"bob" in screen.picture
                screen.press("q")
                assert await left(process) == 0


async def test_a_refused_table_is_asked_for_again() -> None:
    def fault(way: Direction, n: int, frame: str) -> Fate | list[str]:
        wrong = frame.replace('"limit":', '"limit":-')
        return [wrong] if way == "up" and wrong != frame else "pass"

    async with (
        serving() as server,
        relaying(server.url) as relay,
        terminal() as screen,
        on_screen(screen, relay.url) as process,
    ):
        await screen.until("BOND  open")
        relay.fault = fault
        await fill(server.url)
        async with asyncio.timeout(PATIENCE_S):
            await relay.until(lambda: "bad_request" in relay.seen["down"][-1])
        relay.fault = lambda way, n, frame: "pass"
        await screen.until("alice")
        screen.press("q")
        assert await left(process) == 0


async def test_an_unknown_symbol_is_reported_on_a_screen() -> None:
    async with serving() as server, terminal() as screen:
        async with on_screen(screen, server.url, "--symbol", "NO") as process:
            await screen.until("watch: NO is not listed\r\n")
            assert await left(process) == 1


async def test_a_status_cannot_write_to_the_screen() -> None:
    async with (
        serving() as server,
        relaying(server.url) as relay,
        terminal() as screen,
        on_screen(screen, relay.url) as process,
    ):
        await screen.until("BOND  open")
        await tell(relay, symbol="BOND", phase="halted", message=HOSTILE)
        await screen.until("BOND  halted", f"BOND  halted  {SHOWN[:20]}")
        screen.press("q")
        assert await left(process) == 0
        assert b"\x1b]" not in screen.written and b"\x07" not in screen.written


async def test_a_user_that_is_thrown_out_leaves() -> None:
    async with (
        serving() as server,
        relaying(server.url) as relay,
        terminal() as screen,
        on_screen(screen, relay.url, "--user", "alice") as process,
    ):
        await screen.until("alice  position 0")
        relay.fault = refuse_login
        relay.cut()
        await screen.until("watch: no\r\n")
        assert await left(process) == 1
        assert screen.is_restored


def refuse_login(way: Direction, n: int, frame: str) -> Fate | list[str]:
    if way == "down" and '"welcome"' in frame:
        [reply] = re.findall(r'"id":(\d+)', frame)
        error = {"type": "error", "code": "unauthorized", "message": "no"}
        return [json.dumps({**error, "id": int(reply)})]
    return "pass"


async def test_redraws_are_few_whatever_the_market_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One as long as the pause lasts, though trades and keys want more."""
    monkeypatch.setattr(watch, "REDRAW_S", PATIENCE_S)
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, width=COLUMNS, height=ROWS
    )
    async with serving() as server, Exchange(server.url, user="") as ex:
        watcher = Watcher(ex, "BOND")
        await watcher.follow(["BOND"])
        showing = asyncio.create_task(show(watcher, console))
        await until(lambda: "q: quit" in file.getvalue())
        for _ in range(20):
            await fill(server.url)
            watcher.switch("1")
        await until(lambda: watcher.view().trades)
        assert file.getvalue().count("q: quit") == 1
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            await showing
    assert file.getvalue().count("q: quit") == 1
