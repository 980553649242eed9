"""Show the market in a terminal: ``python -m util.watch``.

It shows the book of one instrument as a ladder, its last trades, the leaders,
and the news of the exchange. Keys: 1 to 9 and tab choose the instrument, q
quits. With ``--once``, or if standard output is not a terminal, it prints the
state once as plain text. It reads public data only and needs no login; with
``--user`` it shows that account, too.

Names and messages come from other people: unprintable characters are shown
escaped, and markup has no effect.

Exit status: 0 done, 1 the exchange cannot be reached or refuses the login, 2
the command line is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from client import Book, Exchange, ExchangeError, Market
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
    from rich.console import Console, Group, JustifyMethod
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

REDRAW_S = 0.1  # between two redraws, whatever the market does
TABLES_S = 0.5  # between two requests for trades and leaders
# These numbers make the picture fit into 80 columns and 24 rows.
LEVELS = 7  # of each side
BAR = 10  # columns of the longest bar
TRADES = 7
LEADERS = 5
NEWS = 2
PLAIN_WIDTH = 100  # columns without a terminal: fits the longest name
LITERALLY: Any = {"markup": False, "emoji": False, "highlight": False}


@dataclass(frozen=True, slots=True)
class View:
    """The market at one moment; ``own`` is the account of --user."""

    symbol: str
    symbols: tuple[str, ...]
    phase: str
    is_live: bool
    book: Book
    trades: Sequence[Trade]  # oldest first
    leaders: Sequence[dict[str, Any]]
    news: Sequence[Status]
    own: str = ""


# Drawing ------------------------------------------------------------------


def visible(text: str) -> str:
    """Return a text with unprintable characters escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


def draw(view: View, *, ask_rows: int = 0) -> Group:
    """Return the picture of a view; asks fill at least ``ask_rows``."""
    body = _grid("left", "left", gap=4)
    tables = Group(_tape(view.trades), Text(), _leaders(view.leaders))
    body.add_row(_ladder(view.book, ask_rows), tables)
    lines: list[Table | Text] = [_line(_head(view)), Text(), body]
    if view.own or view.news:
        lines.append(Text())
    if view.own:
        lines.append(_line(view.own))
    lines += [_line(_tell(status), "yellow") for status in view.news]
    return Group(*lines)


def draw_screen(view: View) -> Group:
    """Return the picture with the keys; the best ask keeps its row."""
    keys = Text(no_wrap=True, overflow="ellipsis")
    for number, symbol in enumerate(view.symbols, 1):
        style = "reverse" if symbol == view.symbol else ""
        keys.append(f"{number} {visible(symbol)}", style).append("  ")
    picture = draw(view, ask_rows=LEVELS)
    return Group(picture, Text(), keys.append("tab: next  q: quit"))


def plain(view: View) -> str:
    """Return the picture as plain text."""
    console = Console(width=PLAIN_WIDTH, color_system=None, **LITERALLY)
    with console.capture() as capture:
        console.print(draw(view))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _grid(*columns: JustifyMethod, gap: int = 2) -> Table:
    grid = Table.grid(padding=(0, gap, 0, 0))
    for justify in columns:
        grid.add_column(justify=justify, no_wrap=True)
    return grid


def _line(text: str, style: str = "") -> Text:
    return Text(visible(text), style, no_wrap=True, overflow="ellipsis")


def _head(view: View) -> str:
    bid, ask = view.book.bid, view.book.ask
    spread = None if bid is None or ask is None else ask - bid
    last = view.trades[-1].price if view.trades else None
    facts = {"bid": bid, "ask": ask, "spread": spread, "last": last}
    words = [view.symbol, view.phase]
    for name, value in facts.items():
        words.append(f"{name} {'-' if value is None else value}")
    if not view.is_live:
        words.append("NOT CONNECTED")
    return "  ".join(words)


def _ladder(book: Book, ask_rows: int) -> Table:
    """Show the best levels of both sides, the highest price first."""
    ladder = _grid("right", "right", "right", "right", "left", gap=1)
    for column, width in zip(ladder.columns, (BAR, 5, 6, 5, BAR)):
        column.min_width = width
    ladder.add_row("", "bid", "price", "ask", "", style="bold")
    asks, bids = book.asks[:LEVELS], book.bids[:LEVELS]
    most = max((qty for _, qty in asks + bids), default=0)
    for _ in range(ask_rows - len(asks)):
        ladder.add_row()
    for price, qty in reversed(asks):
        bar = Text("█" * -(-qty * BAR // most), "red")
        ladder.add_row("", "", str(price), str(qty), bar)
    for price, qty in bids:
        bar = Text("█" * -(-qty * BAR // most), "green")
        ladder.add_row(bar, str(qty), str(price), "", "")
    return ladder


def _tape(trades: Sequence[Trade]) -> Table:
    """Show the last trades, the newest first."""
    tape = _grid("left", "left", "right", "right")
    tape.add_row("UTC", "side", "qty", "price", style="bold")
    for trade in reversed(trades):
        tape.add_row(
            _clock(trade.ts), trade.side, str(trade.qty), str(trade.price)
        )
    return tape


def _leaders(rows: Sequence[dict[str, Any]]) -> Table:
    """Show the accounts with the highest equity."""
    table = _grid("right", "left", "right")
    table.add_row("", "leader", "equity", style="bold")
    for row in rows:
        name = _line(str(row["user"]))
        table.add_row(str(row["rank"]), name, str(row["equity"]))
    return table


def _tell(status: Status) -> str:
    words = (status.symbol, status.phase, status.message)
    return "  ".join([_clock(status.ts), *filter(None, words)])


def _clock(ts: int) -> str:
    return datetime.fromtimestamp(ts // 1_000_000, UTC).strftime("%H:%M:%S")


# Watching -----------------------------------------------------------------


class Watcher:
    """The data of the exchange, and the instrument that is shown."""

    def __init__(self, exchange: Exchange, symbol: str) -> None:
        self.symbol = symbol
        self._exchange = exchange
        self._markets: dict[str, Market] = {}
        self._trades: dict[str, list[Trade]] = {}
        self._leaders: list[dict[str, Any]] = []
        self._news: deque[Status] = deque(maxlen=NEWS)
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

    async def read_news(self) -> None:
        """Keep the last statuses; raises Unauthorized after a logout."""
        async for status in self._exchange.statuses():
            self._news.append(status)

    async def drop_old_news(self) -> None:
        """After a lost connection is back, drop the news of before."""
        while True:
            await self._until_connected(False)
            old = [*self._news]
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
            own = (
                f"{exchange.user}  position {market.position}"
                f"  cash {exchange.cash}  equity {exchange.equity}"
            )
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
        )


async def show(watcher: Watcher, console: Console) -> None:
    """Draw until q, SIGINT or SIGTERM.

    Raises Unauthorized if the exchange refuses a later login.
    """
    drawing = asyncio.create_task(_keep_drawing(watcher, console))
    tasks = [
        drawing,
        asyncio.create_task(watcher.keep_refreshing()),
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
