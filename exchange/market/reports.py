"""The only place where events are made, except for refusals.

Private events and replies go to ``state.outputs`` at once. Account reports,
each after the settlements of its account, statuses and public trades of a
command are collected in the state and follow in this order at its end:
`finish_command`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import replace
from typing import Any, TypeAlias

from exchange.market.accounts import Account
from exchange.market.command import PUBLIC, Output
from exchange.market.listing import Listing
from exchange.market.state import State
from orderbook import (
    AccountReport,
    Admin,
    BookUpdate,
    Bust,
    Event,
    Exec,
    ExecType,
    Liquidity,
    MatchChanged,
    MatchInfo,
    News,
    Ok,
    Order,
    OrderStatus,
    Phase,
    Reason,
    Rested,
    Settlement,
    Side,
    Status,
    Tender,
    Ticker,
    Trade,
    encode_order,
)

Filled: TypeAlias = tuple[int, int]  # cum_qty and cum_cost of an order
# One order's part in a trade: the trade, its liquidity and its fee.
Fill: TypeAlias = tuple[Trade, Liquidity, int]

# Events of one command ----------------------------------------------------


def reply_ok(state: State, account: str, count: int | None = None) -> None:
    """Reply to a request that succeeded."""
    state.outputs.append((account, Ok(ts=state.ts, count=count)))


def order_report(
    state: State,
    order: Order,
    exec_type: ExecType,
    filled: Filled | None = None,
    fill: Fill | None = None,
    reason: Reason | None = None,
) -> tuple[str, Exec]:
    """Return the output that tells an account what happened to its order.

    It has the account's next ``seq``.
    ``filled`` None: the order as it is now. Otherwise as it was with this
    cum_qty and cum_cost: the book executes all matches of an order before the
    first one is reported.
    """
    account = state.accounts[order.account]
    account.seq += 1
    order_status: OrderStatus
    if filled is None:
        cum_qty, cum_cost = order.cum_qty, order.cum_cost
        leaves_qty, order_status = order.leaves_qty, order.order_status
    else:
        cum_qty, cum_cost = filled
        leaves_qty = order.qty - cum_qty
        order_status = "partially_filled" if cum_qty else "new"
        if not leaves_qty:
            order_status = "filled"
    last_qty = last_price = trade_id = liquidity = fee = None
    if fill is not None:
        trade, liquidity, fee = fill
        last_qty, last_price = trade.qty, trade.price
        trade_id = trade.trade_id
    # By position, in the order of the fields: one is made for each order,
    # and by name it takes 1.2 instead of 0.5 us.
    report = Exec(
        account.seq,
        state.ts,
        exec_type,
        order.order_id,
        order.symbol,
        order.side,
        order_status,
        order.qty,
        cum_qty,
        leaves_qty,
        cum_cost,
        order.price,
        order.client_order_id,
        order.order_type,
        order.time_in_force,
        order.expire_ts,
        order.post_only,
        order.stp,
        last_qty,
        last_price,
        trade_id,
        liquidity,
        fee,
        reason,
        order.trigger_price,
        order.display_qty,
        order.round,
    )
    return account.name, report


def report_rested(state: State, account: Account, order: Order) -> None:
    """Report a new order that rests with nothing filled, as most do.

    An amend may change ``expire_ts`` and ``display_qty`` before the report is
    encoded, so an order that has one is reported in full.
    """
    account.seq += 1
    report = Rested(account.seq, state.ts, order.qty, order.price, order)
    state.outputs.append((account.name, report))


def in_full(outputs: Iterable[Output]) -> list[tuple[str, Event]]:
    """Return outputs with an `Exec` in the place of each `Rested`."""
    return [
        (to, event.as_exec() if isinstance(event, Rested) else event)
        for to, event in outputs
    ]


def report_trade(
    state: State,
    listing: Listing,
    price: int,
    qty: int,
    side: Side,
    *,
    is_self: bool,
) -> Trade:
    """Record and return a public trade; ``side`` is the aggressor's.

    It reaches stop orders. ``is_self``: an account trades with itself, which
    moves no price.
    """
    symbol = listing.instrument.symbol
    trade_id = listing.trade_id = listing.trade_id + 1
    listing.volume += qty
    if not is_self:
        listing.last = price
        listing.recent.append((trade_id, price))
        if listing.prints is not None:
            listing.prints.add(state.ts, trade_id, price, qty)
        stops = listing.stops
        if price >= stops.buy_at or price <= stops.sell_at:
            reached = state.reached.setdefault(symbol, [])
            reached += stops.reach(price)
    # By position, in the order of the fields, like `Exec`.
    trade = Trade(
        symbol,
        listing.seq + 1,
        state.ts,
        trade_id,
        price,
        qty,
        side,
        state.round,
        False,
        is_self,
    )
    listing.trades.append(trade)
    return trade


def report_settlement(
    state: State,
    account: Account,
    *,
    symbol: str,
    position: int,
    price: int,
    realized: int,
) -> None:
    """Report that a position became cash at the settlement price.

    The caller also reports the account. That report follows and has the same
    ``seq``: a client that does not know settlements misses no number.
    """
    report = Settlement(
        seq=0,  # until it is known
        ts=state.ts,
        symbol=symbol,
        position=position,
        price=price,
        realized=realized,
    )
    state.settlements.setdefault(account.name, []).append(report)


def report_bust(state: State, listing: Listing, trade_id: int) -> None:
    """Publish that a trade was undone."""
    bust = Bust(
        symbol=listing.instrument.symbol,
        seq=listing.seq + 1,
        ts=state.ts,
        trade_id=trade_id,
    )
    listing.trades.append(bust)
    state.touched[bust.symbol] = listing


def report_news(state: State, admin: Admin) -> None:
    """Publish news, under the next ``news_id``."""
    assert admin.headline is not None
    state.news_id += 1
    news = News(
        ts=state.ts,
        news_id=state.news_id,
        headline=admin.headline,
        symbol=admin.symbol,
        body=admin.body,
        value=admin.value,
    )
    state.outputs.append((PUBLIC, news))


def report_match(state: State, match: MatchInfo) -> None:
    """Publish the match that begins."""
    event = MatchChanged(ts=state.ts, match=match)
    state.outputs.append((PUBLIC, event))


def new_tender(state: State, admin: Admin, symbol: str) -> Tender:
    """Return the event that tells a tender."""
    assert admin.tender_id is not None and admin.side is not None
    assert admin.qty is not None and admin.price is not None
    assert admin.valid_ms is not None
    return Tender(
        ts=state.ts,
        tender_id=admin.tender_id,
        symbol=symbol,
        side=admin.side,
        qty=admin.qty,
        price=admin.price,
        expire_ts=state.ts + admin.valid_ms * 1_000,
    )


def report_status(
    state: State,
    message: str | None,
    symbol: str | None = None,
    phase: Phase | None = None,
) -> None:
    """Publish a message about an instrument, or about the exchange."""
    state.statuses.append(
        Status(
            ts=state.ts,
            symbol=symbol,
            phase=phase,
            message=message,
            round=state.round,
        )
    )


def finish_command(state: State) -> None:
    """Add what follows the private events of the command."""
    outputs = state.outputs
    if state.changed_accounts:
        for account in state.changed_accounts.values():
            account.seq += 1
            if state.settlements:
                for settlement in state.settlements.pop(account.name, ()):
                    report = replace(settlement, seq=account.seq)
                    outputs.append((account.name, report))
            outputs.append((account.name, account_report(state, account)))
        state.changed_accounts.clear()
    if state.statuses:
        outputs += [(PUBLIC, status) for status in state.statuses]
        state.statuses.clear()
    for listing in state.touched.values():
        if listing.book.version != listing.book_version or listing.trades:
            mark_changed(state, listing)
            if listing.trades:
                outputs += [(PUBLIC, trade) for trade in listing.trades]
                listing.trades.clear()
    state.touched.clear()


def mark_changed(state: State, listing: Listing) -> None:
    """Note that the command changed a book, traded, or undid a trade."""
    listing.book_version = listing.book.version
    listing.seq += 1
    listing.ts = state.ts
    state.changed_books[listing.instrument.symbol] = listing


# Views of the state -------------------------------------------------------


def take_book_updates(
    state: State, symbols: Container[str] | None = None
) -> list[BookUpdate]:
    """Return what changed in each book since the last call.

    An update has the quantities as they are now; what changed and changed
    back between two calls is not in it. Updates are made only for ``symbols``,
    None: for all; the changes of other books are dropped.
    """
    updates = []
    for symbol, listing in state.changed_books.items():
        if symbols is not None and symbol not in symbols:
            listing.book.drop_changes()
            listing.published_seq = listing.seq
            continue
        bids, asks = listing.book.take_changes()
        updates.append(
            BookUpdate(
                symbol=symbol,
                seq=listing.seq,
                prev_seq=listing.published_seq,
                ts=listing.ts,
                bids=bids,
                asks=asks,
            )
        )
        listing.published_seq = listing.seq
    state.changed_books.clear()
    return updates


def snapshot(state: State, listing: Listing) -> BookUpdate:
    """Return the whole book of a listing."""
    return BookUpdate(
        symbol=listing.instrument.symbol,
        seq=listing.seq,
        ts=state.ts,
        snapshot=True,
        bids=listing.book.depth("buy"),
        asks=listing.book.depth("sell"),
    )


def ticker(state: State, listing: Listing, ts: int) -> Ticker:
    """Return the best bid, the best ask, the last price and the volume."""
    bid = listing.book.best("buy") or (None, None)
    ask = listing.book.best("sell") or (None, None)
    return Ticker(
        symbol=listing.instrument.symbol,
        ts=ts,
        bid=bid[0],
        bid_qty=bid[1],
        ask=ask[0],
        ask_qty=ask[1],
        last=listing.last,
        volume=listing.volume,
    )


def account_report(state: State, account: Account) -> AccountReport:
    """Return an account's cash and positions under its current ``seq``."""
    equity = account.equity(state.value)
    # By position, in the order of the fields, like `Exec`.
    return AccountReport(
        account.seq,
        state.ts,
        account.cash,
        account.positions.copy(),
        equity,
        account.realized,
        account.unrealized(equity),
    )


def positions(
    state: State, account: Account, symbol: str | None = None
) -> list[dict[str, Any]]:
    """Return the positions of an account that are not 0, as rows.

    ``cost`` is what was paid for the lots, in units; negative for a short
    position. ``mark`` is in ticks.
    """
    rows: list[dict[str, Any]] = []
    for name, position in account.positions.items():
        if position and symbol in (None, name):
            cost, listing = account.costs[name], state.listings[name]
            mark = listing.mark()
            rows.append(
                {
                    "symbol": name,
                    "position": position,
                    "cost": cost,
                    "mark": mark,
                    "unrealized": position * listing.value_of(mark) - cost,
                }
            )
    return rows


def order_reports(state: State, orders: Iterable[Order]) -> Iterator[str]:
    """Yield orders as they are, encoded, with their account's ``seq``."""
    for order in orders:
        seq = state.accounts[order.account].seq
        yield encode_order(order, seq, state.ts)
