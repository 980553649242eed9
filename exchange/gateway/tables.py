"""The tables behind ``get``, from the state as it is at that moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, assert_never

from pydantic import TypeAdapter
from pydantic_core import to_json

from exchange.gateway.feed import Feed
from exchange.gateway.link import Link
from exchange.journal.history import History, page
from exchange.market.engine import Engine
from orderbook import Get, Instrument, News, Refused, Status, Table, encode

# Rows in one turn after which another table is refused. They take some
# milliseconds, while all others wait. 10,000 are for a frame, and the rest for
# the requests before it in its turn.
ROWS_PER_TURN = 10_200
# A row takes as long as the search of 32 orders or fills, or as 40 characters
# of a book.
ORDERS_PER_ROW = 32
BOOK_CHARS_PER_ROW = 40

PRIVATE_TABLES: tuple[Table, ...] = (
    "account",
    "positions",
    "fills",
    "orders",
)
_INSTRUMENT = TypeAdapter(Instrument)


class Tables:
    """Rows of tables, encoded, and how many of them one turn may have.

    ``public_positions``: the leaderboard shows what accounts hold.
    ``public_leaderboard``: others than administrators see it.
    """

    def __init__(
        self,
        engine: Engine,
        history: History,
        feed: Feed[Link],
        *,
        public_positions: bool,
        public_leaderboard: bool,
    ) -> None:
        self.rows_used = 0  # in this turn
        self.public_positions = public_positions
        self._public_leaderboard = public_leaderboard
        self._engine = engine
        self._history = history
        self._feed = feed
        # With the engine's seq at which it was made, from all accounts.
        self._leaderboard: tuple[int, list[dict[str, Any]]] = (-1, [])

    def public(self, request: Get) -> list[str]:
        """Return the rows of a public table; raises Refused."""
        return [*self._rows("", request)]

    def rows(self, link: Link, request: Get) -> list[str]:
        """Return the rows of a table for the account of a link.

        An administrator sees what other accounts hold. Raises Refused.
        """
        account = link.account
        if request.what in PRIVATE_TABLES and not account:
            raise Refused("unauthorized", "log in first")
        self.check()
        rows = list(self._rows(account, request, link.role == "admin"))
        self.rows_used += len(rows)
        return rows

    def check(self) -> None:
        """Refuse ("busy") another table if this turn had too many rows."""
        if self.rows_used >= ROWS_PER_TURN:
            raise Refused(
                "busy",
                "the tables of a frame have too many rows; use another frame",
                retry_after_ms=1,
            )

    def book(self, symbol: str | None) -> str:
        """Return a whole book, encoded; it counts as rows by its length."""
        listing = self._engine.listing(symbol)
        text = self._feed.snapshot(listing.instrument.symbol, listing.seq)
        self.rows_used += len(text) // BOOK_CHARS_PER_ROW
        return text

    def _rows(
        self, name: str, request: Get, is_admin: bool = False
    ) -> Iterable[str]:
        """Return the rows of a table, encoded."""
        engine, after, limit = self._engine, request.after, request.limit
        match request.what:
            case "leaderboard":
                if self._leaderboard[0] != engine.seq:
                    self.rows_used += len(engine.accounts)
                    self._leaderboard = engine.seq, engine.leaderboard()
                leaders = self._leaderboard[1][:limit]
                if not (is_admin or self._public_leaderboard):
                    return []
                if not (is_admin or self.public_positions):
                    leaders = [_as_seen_by(name, row) for row in leaders]
                return _json(leaders)
            case "instruments":
                listings = list(engine.listings.values())[:limit]
                return (
                    _INSTRUMENT.dump_json(
                        listing.current_instrument(), exclude_defaults=True
                    ).decode()
                    for listing in listings
                )
            case "book":
                return [self.book(request.symbol)]
            case "trades":
                symbol = engine.listing(request.symbol).instrument.symbol
                trades = self._history.trades(symbol, after, limit)
                return map(encode, trades)
            case "candles":
                symbol = engine.listing(request.symbol).instrument.symbol
                return _json(
                    self._history.candles(
                        symbol, request.interval, after, limit
                    )
                )
            case "news" | "statuses":
                return map(encode, self._notices(request))
        assert name, "the other tables belong to an account"
        account = engine.accounts[name]
        if request.symbol is not None:
            engine.listing(request.symbol)
        match request.what:
            case "account":
                return [encode(engine.account_report(account))]
            case "positions":
                rows = engine.positions(account, request.symbol)
                return _json(rows[:limit])
            case "fills":
                if request.symbol is not None:
                    kept = len(self._history.account(account.name).fills)
                    self.rows_used += kept // ORDERS_PER_ROW
                return self._history.fills(
                    account.name, request.symbol, after, limit
                )
            case "orders":
                orders = [
                    order
                    for order in account.orders.values()
                    if request.symbol in (None, order.symbol)
                ]
                self.rows_used += len(account.orders) // ORDERS_PER_ROW
                chosen = page(orders, lambda o: o.order_id, after, limit)
                return engine.order_reports(chosen)
            case _:
                assert_never(request.what)

    def _notices(self, request: Get) -> Iterable[News | Status]:
        """Return the last news or statuses."""
        if request.symbol is not None:
            self._engine.listing(request.symbol)
        if request.what == "news":
            table: Callable[..., Iterable[News | Status]] = self._history.news
        else:
            table = self._history.statuses
        return table(request.symbol, request.after, request.limit)


def _as_seen_by(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the leaderboard without another's positions.

    It is as if these were sold at their marks: cash beside equity would tell
    the value of the positions, and so the position in a single instrument.
    """
    if row["user"] == name:
        return row
    return {**row, "cash": row["equity"], "positions": {}}


def _json(rows: Iterable[object]) -> Iterable[str]:
    return (to_json(row).decode() for row in rows)
