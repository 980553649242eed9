"""The picture of `util.watch`: one market in 80 columns and 24 rows.

Names and messages come from other people: unprintable characters are shown
escaped, and markup has no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias

from client import Book, money_of
from orderbook import Instrument, News, Status, Trade

from .cli import extra_libraries

with extra_libraries("watch"):
    from rich.console import Console, Group, JustifyMethod
    from rich.table import Table
    from rich.text import Text

# These numbers make the picture fit into 80 columns and 24 rows.
LEVELS = 7  # of each side
BAR = 10  # columns of the longest bar
TRADES = 7
LEADERS = 5
NEWS = 2  # of statuses and news together
PLAIN_WIDTH = 100  # columns without a terminal: fits the longest name
LITERALLY: Any = {"markup": False, "emoji": False, "highlight": False}


Notice: TypeAlias = Status | News


@dataclass(frozen=True, slots=True)
class View:
    """The market at one moment; ``own`` is the account of --user.

    ``unit`` is the money of one unit of cash, None: cash is shown as it is.
    """

    symbol: str
    symbols: tuple[str, ...]
    phase: str
    is_live: bool
    book: Book
    trades: Sequence[Trade]  # oldest first
    leaders: Sequence[dict[str, Any]]
    news: Sequence[Notice]
    own: str = ""
    instrument: Instrument | None = None
    unit: Decimal | None = None
    round: int = 1
    speed: float = 1.0  # of the exchange's time

    def price(self, ticks: int) -> str:
        """Return a price as money."""
        if self.instrument is None:
            return str(ticks)
        return f"{money_of(ticks, self.instrument):f}"


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
    tables = Group(_tape(view), Text(), _leaders(view))
    body.add_row(_ladder(view, ask_rows), tables)
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
    prices = (t.price for t in reversed(view.trades) if not t.busted)
    last = next(prices, None)
    facts = {"bid": bid, "ask": ask, "spread": spread, "last": last}
    words = [view.symbol, *_terms(view.instrument), view.phase]
    if view.round != 1:
        words.append(f"round {view.round}")
    if view.speed != 1:
        words.append(f"time x{view.speed:g}")
    for name, value in facts.items():
        words.append(f"{name} {'-' if value is None else view.price(value)}")
    if not view.is_live:
        words.append("NOT CONNECTED")
    return "  ".join(words)


def _terms(instrument: Instrument | None) -> list[str]:
    """Say what an instrument is, in words, if it is not spot."""
    if instrument is None or instrument.kind == "spot":
        return []
    words: list[object] = [instrument.kind]
    if instrument.strike is not None:
        words.append(f"{money_of(instrument.strike, instrument):f}")
    if instrument.underlying is not None:
        words += ["of", instrument.underlying]
    if instrument.expire_ts is not None:
        words += ["until", _clock(instrument.expire_ts)]
    return [" ".join(map(str, words))]


def _ladder(view: View, ask_rows: int) -> Table:
    """Show the best levels of both sides, the highest price first."""
    book = view.book
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
        ladder.add_row("", "", view.price(price), str(qty), bar)
    for price, qty in bids:
        bar = Text("█" * -(-qty * BAR // most), "green")
        ladder.add_row(bar, str(qty), view.price(price), "", "")
    return ladder


def _tape(view: View) -> Table:
    """Show the last trades, the newest first."""
    tape = _grid("left", "left", "right", "right")
    tape.add_row("UTC", "side", "qty", "price", style="bold")
    for trade in reversed(view.trades):
        price = view.price(trade.price) + (" undone" if trade.busted else "")
        tape.add_row(_clock(trade.ts), trade.side, str(trade.qty), price)
    return tape


def _leaders(view: View) -> Table:
    """Show the accounts with the highest equity."""
    table = _grid("right", "left", "right")
    table.add_row("", "leader", "equity", style="bold")
    for row in view.leaders:
        name = _line(str(row["user"]))
        equity = money_text(row["equity"], view.unit)
        table.add_row(str(row["rank"]), name, equity)
    return table


def money_text(units: int, unit: Decimal | None) -> str:
    return str(units) if unit is None else f"{units * unit:f}"


def _tell(notice: Notice) -> str:
    words: tuple[str | None, ...]
    if isinstance(notice, News):
        value = None if notice.value is None else f"({notice.value})"
        words = ("news", notice.symbol, notice.headline, value)
    else:
        words = (notice.symbol, notice.phase, notice.message)
    return "  ".join([_clock(notice.ts), *filter(None, words)])


def _clock(ts: int) -> str:
    return datetime.fromtimestamp(ts // 1_000_000, UTC).strftime("%H:%M:%S")
