"""Show the market in a terminal: ``python -m util.watch``.

It shows the book of one instrument as a ladder, its last trades, the leaders,
and the statuses and news of the exchange; prices and cash are money. Keys: 1
to 9 and tab choose the instrument, q quits. With ``--once``, or if standard
output is not a terminal, it prints the state once as plain text. It reads
public data only and needs no login; with ``--user`` it shows that account,
too.

Exit status: 0 done, 1 the exchange cannot be reached or refuses the login, 2
the command line is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Iterable
from typing import Any

from client import Exchange, ExchangeError, Market
from orderbook import Refused, Status, Trade

from .cli import (
    CONNECT_TIMEOUT_S,
    add_login,
    drop_output,
    extra_libraries,
    failed,
    new_parser,
    on_stop,
    set_up_output,
    utf8,
)
from .keyboard import keyboard

with extra_libraries("watch"):
    from rich.console import Console
    from rich.live import Live

    from .watch_picture import (
        LEADERS,
        LITERALLY,
        NEWS,
        TRADES,
        Notice,
        View,
        draw_screen,
        money_text,
        plain,
        visible,
    )

REDRAW_S = 0.1  # between two redraws, whatever the market does
TABLES_S = 0.5  # between two requests for trades and leaders
# Watching -----------------------------------------------------------------


class Watcher:
    """The data of the exchange, and the instrument that is shown."""

    def __init__(self, exchange: Exchange, symbol: str) -> None:
        self.symbol = symbol
        self._exchange = exchange
        self._markets: dict[str, Market] = {}
        self._trades: dict[str, list[Trade]] = {}
        self._leaders: list[dict[str, Any]] = []
        self._news: deque[Notice] = deque(maxlen=NEWS)
        self._has_switched = asyncio.Event()

    async def follow(self, symbols: Iterable[str]) -> None:
        """Follow the books of instruments; raises UnknownSymbol."""
        for symbol in symbols:
            self._markets[symbol] = await self._exchange.market(symbol)

    async def refresh(self) -> None:
        """Get the tables.

        Raises Refused, in particular UnknownSymbol, and ExchangeError.
        """
        symbol, get = self.symbol, self._exchange.get
        self._trades[symbol] = await get("trades", symbol=symbol, limit=TRADES)
        self._leaders = await get("leaderboard", limit=LEADERS)

    async def keep_refreshing(self) -> None:
        """Get the tables again and again, at once after a switch."""
        while True:
            with contextlib.suppress(Refused, ExchangeError):
                await self.refresh()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TABLES_S):
                    await self._has_switched.wait()
            self._has_switched.clear()

    async def recall(self) -> None:
        """Get the last news; raises Refused and ExchangeError."""
        self._news.extend(await self._exchange.get("news", limit=NEWS))

    async def read_statuses(self) -> None:
        """Keep the last statuses; raises Unauthorized after a logout."""
        async for status in self._exchange.statuses():
            self._news.append(status)

    async def read_news(self) -> None:
        """Keep the last news; raises Unauthorized after a logout."""
        async for news in self._exchange.news(last=NEWS):
            self._news.append(news)

    async def drop_old_news(self) -> None:
        """After a lost connection is back, drop the statuses of before."""
        while True:
            await self._until_connected(False)
            old = [n for n in self._news if isinstance(n, Status)]
            await self._until_connected(True)
            for status in old:
                with contextlib.suppress(ValueError):  # newer ones replaced it
                    self._news.remove(status)

    async def _until_connected(self, is_connected: bool) -> None:
        while self._exchange.is_connected != is_connected:
            await asyncio.sleep(REDRAW_S)

    def switch(self, key: str) -> None:
        """Show the instrument of a key, if it has one."""
        symbols = list(self._markets)
        if key == "\t":
            number = symbols.index(self.symbol) + 1
        else:
            number = int(key) - 1 if key in "123456789" else len(symbols)
            if number >= len(symbols):
                return
        self.symbol = symbols[number % len(symbols)]
        self._has_switched.set()

    def view(self) -> View:
        """Return the view of this moment."""
        exchange, symbol = self._exchange, self.symbol
        market = self._markets[symbol]
        instrument = exchange.instruments.get(symbol)
        own = ""
        if exchange.user:
            own = self._own(market)
        return View(
            symbol,
            tuple(self._markets),
            instrument.phase if instrument else "not listed",
            market.is_live,
            market.book,
            self._trades.get(symbol, []),
            self._leaders,
            tuple(self._news),
            own,
            instrument,
            exchange.unit,
            exchange.round,
            exchange.speed,
        )

    def _own(self, market: Market) -> str:
        """Return the line of the account."""
        exchange, unit = self._exchange, self._exchange.unit
        words = [
            exchange.user,
            f"position {market.position}",
            f"cash {money_text(exchange.cash, unit)}",
            f"equity {money_text(exchange.equity, unit)}",
            exchange.currency,
        ]
        waiting = sum(order.is_waiting for order in exchange.orders)
        if waiting:
            words.append(f"stops {waiting}")
        return "  ".join(word for word in words if word)


async def show(watcher: Watcher, console: Console) -> None:
    """Draw until q, SIGINT or SIGTERM.

    Raises Unauthorized if the exchange refuses a later login.
    """
    drawing = asyncio.create_task(_keep_drawing(watcher, console))
    tasks = [
        drawing,
        asyncio.create_task(watcher.keep_refreshing()),
        asyncio.create_task(watcher.read_statuses()),
        asyncio.create_task(watcher.read_news()),
        asyncio.create_task(watcher.drop_old_news()),
    ]
    on_stop(drawing.cancel)

    def press(key: str) -> None:
        if key == "q":
            drawing.cancel()
        else:
            watcher.switch(key)

    with keyboard(press):
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(end, Exception):
                raise end


async def _keep_drawing(watcher: Watcher, console: Console) -> None:
    drawn = None
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            seen = (watcher.view(), console.size)
            if seen != drawn:
                live.update(draw_screen(seen[0]), refresh=True)
                drawn = seen
            await asyncio.sleep(REDRAW_S)


async def run(options: argparse.Namespace) -> None:
    """Show the market as the options say; raises Refused, ExchangeError."""
    async with Exchange(
        options.url,
        options.user,
        options.token,
        connect_timeout=CONNECT_TIMEOUT_S,
    ) as exchange:
        listed = list(exchange.instruments)
        symbol = options.symbol or listed[0]
        watcher = Watcher(exchange, symbol)
        console = Console(**LITERALLY)
        is_screen = sys.stdout.isatty() and not console.is_dumb_terminal
        if options.once or not is_screen:
            listed = [symbol]
        await watcher.follow(listed)
        await watcher.refresh()
        if options.once or not is_screen:
            await watcher.recall()
            print(plain(watcher.view()))
        else:
            await show(watcher, console)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_parser(
        "watch",
        "Show the market in the terminal.",
        "keys: 1 to 9 and tab choose the instrument, q quits",
    )
    add = parser.add_argument
    add(
        "--symbol",
        type=utf8,
        help="instrument to show first (default: the first one listed)",
    )
    add(
        "--once",
        action="store_true",
        help="print the state once as plain text; always so if standard"
        " output is not a terminal",
    )
    add_login(
        parser,
        "",
        "account whose position and cash to show, too (default: none)",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.watch``; return the exit status."""
    options = parse(arguments)
    set_up_output()
    try:
        asyncio.run(run(options))
    except (Refused, ExchangeError) as error:
        return failed("watch", visible(str(error)), 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as head, has ended
        drop_output()
    return 0


if __name__ == "__main__":
    sys.exit(main())
