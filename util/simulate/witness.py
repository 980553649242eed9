"""What traders of a world were told, against what has happened.

`compare` finds what a trader was told that did not happen so, `compare_view`
what its client shows that is not so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from orderbook import (
    AccountReport,
    BookUpdate,
    Event,
    Exec,
    Settlement,
    Trade,
    Welcome,
)

from .trader import ACCEPTED, UNKNOWN, Life, Trader
from .truth import Truth, Violation, require

# What was told -------------------------------------------------------------


def told_books(lives: Iterable[Life]) -> Iterator[BookUpdate]:
    """Yield every update of a book that was told, each once."""
    seen: set[int] = set()
    for life in lives:
        for _, events in life.told:
            if id(events) not in seen:
                seen.add(id(events))
                for event in events:
                    if isinstance(event, BookUpdate):
                        yield event


def compare(trader: Trader, truth: Truth) -> None:
    """Compare all that a trader was told with what happened."""
    for life in trader.lives:
        _compare_private(trader.name, life, truth)
        _compare_streams(trader.name, life, truth)
    _compare_outcomes(trader, truth)
    _compare_rows(trader, truth)
    for (symbol, seq), books in trader.books.items():
        for book in books:
            depth = {p: q for p, q in book.bids}, {p: q for p, q in book.asks}
            require(
                seq == 0 or truth.depths.get((symbol, seq)) == depth,
                f"its book of {symbol} at {seq} was {depth}, not"
                f" {truth.depths.get((symbol, seq))}",
                trader.name,
            )


def compare_books(updates: Iterable[BookUpdate], truth: Truth) -> None:
    """Compare updates of books that somebody was told."""
    for update in updates:
        if not update.seq:
            continue
        depths = truth.depths.get((update.symbol, update.seq))
        require(
            depths is not None,
            f"somebody was told of the book of {update.symbol} at"
            f" {update.seq}, which the journal does not have",
        )
        assert depths is not None
        for levels, depth in zip((update.bids, update.asks), depths):
            if update.snapshot:
                is_right = dict(levels) == depth
            else:
                is_right = all(depth.get(p, 0) == q for p, q in levels)
            require(is_right, f"{update} was told, but {depths} is so")


def _compare_private(name: str, life: Life, truth: Truth) -> None:
    """Compare each private event with the one of its seq, in order."""
    events = truth.events[name]
    last: int | None = None  # seq of the last event of this Exchange
    is_state = False  # what comes is the state, not what happened
    for _, told in life.told:
        if not told:  # a new connection
            is_state = False
        for event in told:
            if isinstance(event, Welcome):
                is_state = not event.resumed
                if is_state:
                    last = event.seq
                require(
                    event.seq <= truth.engine.accounts[name].seq,
                    f"welcome at {event.seq}, which the journal does not have",
                    name,
                )
            if not isinstance(event, Exec | AccountReport | Settlement):
                continue
            if is_state:
                is_state = not isinstance(event, AccountReport)
                continue
            plain = event
            if isinstance(event, Exec) and event.id is not None:
                plain = replace(event, id=None)
            require(
                plain in events.get(event.seq, ()),
                f"it was told {plain}, which did not happen; at this seq:"
                f" {events.get(event.seq)}",
                name,
            )
            require(
                last is None
                or event.seq == last + 1
                or (event.seq == last and len(events[last]) > 1),
                f"event {event.seq} was told after {last}",
                name,
            )
            last = event.seq


def _compare_streams(name: str, life: Life, truth: Truth) -> None:
    """Check that iterators returned every event once, in order."""
    happened = [
        event
        for events in truth.events[name].values()
        for event in events
        if isinstance(event, Exec) and event.exec_type == "trade"
    ]
    for fills in life.fills:
        _is_part(fills, happened, "fills", name)
    for symbol, series in life.trades.items():
        for trades in series:
            _is_part(trades, truth.trades[symbol], f"trades of {symbol}", name)


def _is_part(
    told: Sequence[Any], happened: Sequence[Any], what: str, name: str
) -> None:
    """Check that events are some of those that happened, without a gap."""
    if not told:
        return
    plain = [
        replace(event, id=None) if getattr(event, "id", None) else event
        for event in told
    ]
    try:
        start = happened.index(plain[0])
    except ValueError:
        raise Violation(f"{what}: {plain[0]} did not happen", name) from None
    for one, other in zip(plain, happened[start:]):
        require(one == other, f"{what}: {one} came instead of {other}", name)
    require(
        len(plain) <= len(happened) - start,
        f"{what}: more than happened",
        name,
    )


def _compare_outcomes(trader: Trader, truth: Truth) -> None:
    """Check what became of the orders that it named."""
    for name, outcomes in trader.outcomes.items():
        is_there = (trader.name, name) in truth.names
        if ACCEPTED in outcomes:
            require(
                is_there,
                f"order {name} was accepted, and is lost",
                trader.name,
            )
        elif UNKNOWN not in outcomes:
            require(
                not is_there,
                f"order {name} came to nothing, but exists: {outcomes}",
                trader.name,
            )
    for order_id in trader.canceled:
        require(
            not truth.orders[order_id].leaves_qty,
            f"order {order_id} was canceled, but is open",
            trader.name,
        )


def _compare_rows(trader: Trader, truth: Truth) -> None:
    """Check that the rows of tables have happened."""
    for row in trader.rows:
        if isinstance(row, Exec):
            happened: Sequence[Event] = truth.events[trader.name].get(
                row.seq, ()
            )
        elif isinstance(row, Trade):
            happened = truth.trades[row.symbol][row.trade_id - 1 :][:1]
        else:
            continue  # the book is compared with all others
        require(row in happened, f"the row {row} did not happen", trader.name)


# Views ---------------------------------------------------------------------


def compare_view(trader: Trader, truth: Truth) -> None:
    """Compare what a quiet client shows with the exchange."""
    life, engine = trader.lives[-1], truth.engine
    account, ex = engine.accounts[trader.name], life.exchange
    require(ex.is_connected, f"not connected: {ex.trouble}", trader.name)

    def same(what: str, shown: object, real: object) -> None:
        text = f"its client shows {what} {shown}, not {real}"
        require(shown == real, text, trader.name)

    same(
        "orders",
        [(o.order_id, o.price, o.qty, o.cum_qty) for o in ex.orders],
        [
            (o.order_id, o.price, o.qty, o.cum_qty)
            for o in sorted(
                account.open_orders.values(), key=lambda o: o.order_id
            )
        ],
    )
    same("cash", ex.cash, account.cash)
    same("realized profit", ex.realized, account.realized)
    held = {s: n for s, n in account.positions.items() if n}
    same("positions", {s: n for s, n in ex.positions.items() if n}, held)
    equity = account.cash + sum(n * engine.value(s) for s, n in held.items())
    same("equity", ex.equity, equity)
    for symbol, market in life.markets.items():
        listing, book = engine.listings[symbol], market.book
        same(
            f"bids of {symbol}",
            dict(book.bids),
            dict(listing.book.depth("buy")),
        )
        same(
            f"asks of {symbol}",
            dict(book.asks),
            dict(listing.book.depth("sell")),
        )
        same(f"phase of {symbol}", market.instrument.phase, listing.phase)
        last = market.last
        same(f"last price of {symbol}", last, listing.last)
        trades = life.trades[symbol][-1]
        if trades:
            same(
                f"last trade of {symbol}",
                trades[-1],
                truth.trades[symbol][-1],
            )
    for order_id, order in life.orders.items():
        report = truth.orders[order_id]
        shown = order.order_status, order.cum_qty, order.leaves_qty
        real = report.order_status, report.cum_qty, report.leaves_qty
        same(f"order {order_id}", shown, real)
