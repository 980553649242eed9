"""Long work: what is too much for one command, as a queue of items.

A command may do `State.slice_ops` operations. What does not fit goes to
``state.work`` and is continued by one `TimePassed` after the other, a slice
each, in the order in which it began. Until an item is finished the symbols
and accounts that it names are busy: no command that touches them may be
applied (`touches`). The gateway holds such requests back; commands that touch
nothing busy are applied between two slices.

Whoever begins long work checks first that all of it is possible, then calls
`cancel_all`, `each` or `run`. What fits into the rest of the command's slice
happens at once. Under version 2 of the rules everything does.

An item and all that it refers to are data: of a function that it calls later
(``act``, ``then``) a copy of the state must do the same, so it gets the state
as its argument and holds names, not listings or accounts. Use a function of a
module, or `functools.partial` of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, TypeAlias

from exchange.market.command import (
    Action,
    BustTrade,
    ClockStep,
    Connect,
    Disconnect,
    TimePassed,
)
from exchange.market.executions import cancel_order
from exchange.market.state import EVERYTHING, Item, State
from orderbook import (
    MAX_INT,
    Admin,
    Amend,
    Cancel,
    CancelAfter,
    CancelAll,
    Convert,
    Order,
    OrderStatus,
    Place,
    Reason,
)

# An item's last act, or what follows an uncrossing.
Then: TypeAlias = Callable[[State], None]

# Admin actions that change no order, no cash and no position.
HARMLESS_ACTIONS = ("message", "news", "resume", "unkill")


@dataclass(slots=True)
class Each:
    """Call ``act`` for each element of ``todo``, then ``then``."""

    todo: deque[Any]
    act: Callable[[State, Any], None]
    then: Then | None = None
    symbols: Sequence[str] = ()
    accounts: Sequence[str] = ()

    def step(self, state: State) -> bool:
        """Do what fits into the slice; return whether all is done."""
        todo, act = self.todo, self.act
        while todo and room(state) > 0:
            spend(state, 1)
            act(state, todo.popleft())
        if todo:
            return False
        if self.then is not None:
            self.then(state)
        return True


# Beginning ----------------------------------------------------------------


def cancel_all(
    state: State,
    orders: Iterable[Order],
    reason: Reason,
    then: Then | None = None,
    *,
    symbols: Sequence[str] = (),
    accounts: Sequence[str] = (),
) -> None:
    """Cancel orders in order of their ids, then call ``then``.

    ``symbols`` and ``accounts`` are busy until then; without symbols those of
    the orders are. Orders of symbols that are busy are canceled after the work
    that makes them busy.
    """
    item = Each(
        deque(sorted(orders, key=attrgetter("order_id"))),
        partial(_end, reason=reason),
        then,
        symbols,
        accounts,
    )
    _do_orders(state, item)


def expire_all(state: State, orders: Iterable[Order]) -> None:
    """Let gtd orders expire in this order; otherwise like `cancel_all`."""
    act = partial(_end, reason="gtd", order_status="expired")
    _do_orders(state, Each(deque(orders), act))


def each(
    state: State,
    things: Iterable[Any],
    act: Callable[[State, Any], None],
    then: Then | None = None,
    *,
    symbols: Sequence[str],
    accounts: Sequence[str] = (),
) -> None:
    """Call ``act(state, thing)`` for each thing, then ``then(state)``."""
    run(state, Each(deque(things), act, then, symbols, accounts))


def run(state: State, item: Item) -> None:
    """Do an item as far as it fits into the slice; queue the rest of it."""
    if not item.step(state):
        enqueue(state, item)


def enqueue(state: State, item: Item) -> None:
    """Add an item: at the end, or where the item that calls it stood."""
    _mark(state, item, 1)
    if state.work_place is None:
        state.work.append(item)
    else:
        state.work.insert(state.work_place, item)
        state.work_place += 1


def _do_orders(state: State, item: Each) -> None:
    """Do an item of orders, those of busy symbols later."""
    if state.busy_symbols and state.work_place is None:
        busy = [o for o in item.todo if is_busy(state, o.symbol)]
        if busy:
            idle = [o for o in item.todo if not is_busy(state, o.symbol)]
            _do_orders(state, replace(item, todo=deque(idle), then=None))
            item.todo = deque(busy)
            item.symbols = item.symbols or _symbols_of(busy)
            enqueue(state, item)
            return
    item.symbols = item.symbols or _symbols_of(item.todo)
    run(state, item)


def _end(
    state: State,
    order: Order,
    reason: Reason,
    order_status: OrderStatus = "canceled",
) -> None:
    if order.is_open:  # earlier work may have filled it
        cancel_order(state, order, reason, order_status)


def _symbols_of(orders: Iterable[Order]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([order.symbol for order in orders]))


# Slices -------------------------------------------------------------------


def room(state: State) -> int:
    """Return how many operations the command may still do."""
    if state.slice_seq != state.seq:
        state.slice_seq = state.seq
        state.slice_room = MAX_INT if state.rules < 3 else state.slice_ops
    return state.slice_room


def spend(state: State, operations: int) -> None:
    """Count operations that the command does."""
    room(state)
    state.slice_room -= operations


def go_on(state: State) -> None:
    """Continue the work, as far as it fits into the slice."""
    while state.work and room(state) > 0:
        item = state.work.popleft()
        _mark(state, item, -1)
        state.work_place = 0
        is_finished = item.step(state)
        state.work_place = None
        if is_finished:
            state.work_ended += 1
            # So that stop orders that wait for it are elected.
            state.touched |= {s: state.listings[s] for s in state.reached}
        else:
            _mark(state, item, 1)
            state.work.appendleft(item)
            return


def _mark(state: State, item: Item, change: int) -> None:
    """Count an item's symbols and accounts as busy, or no longer."""
    for names, counts in (
        (item.symbols, state.busy_symbols),
        (item.accounts, state.busy_accounts),
    ):
        for name in names:
            counts[name] = counts.get(name, 0) + change
            if not counts[name]:
                del counts[name]


# What waits ---------------------------------------------------------------


def is_busy(state: State, symbol: str) -> bool:
    """Whether work on a symbol is not finished."""
    busy = state.busy_symbols
    return symbol in busy or EVERYTHING in busy


def is_needed(state: State, symbol: str) -> bool:
    """Whether work on a symbol, or on any account, is not finished."""
    return bool(state.busy_accounts) or is_busy(state, symbol)


def touches(state: State, account: str, session: str, action: Action) -> bool:
    """Whether an action of an account needs anything that is busy.

    Only to be asked while there is work.
    """
    match action:
        case TimePassed() | ClockStep() | Connect() | CancelAfter():
            return False
        case Admin():
            return _admin_touches(state, action)
        case BustTrade():
            return is_needed(state, action.symbol)
        case Disconnect():
            known = state.accounts.get(account)
            return known is not None and any(
                order.session == session and is_busy(state, order.symbol)
                for order in known.open_orders.values()
            )
    if account in state.busy_accounts or EVERYTHING in state.busy_symbols:
        return True
    symbol: str | None
    match action:
        case Place():
            symbol = action.symbol or next(iter(state.listings))
        case Convert():
            legs = _legs_of(state, action.symbol)
            return any(leg in state.busy_symbols for leg in legs)
        case Amend() | Cancel():
            symbol = _symbol_of(state, account, action)
        case CancelAll():
            symbol = action.symbol
        case _:  # AcceptTender, Configure, Restart, Shutdown
            symbol = None
    return symbol is None or symbol in state.busy_symbols


def _legs_of(state: State, symbol: str) -> Sequence[str]:
    """Return the symbols whose lots a conversion moves."""
    listing = state.listings.get(symbol)
    if listing is None or listing.instrument.convert is None:
        return ()
    return (symbol, *listing.instrument.convert.basket)


def _symbol_of(state: State, account: str, request: Amend | Cancel) -> str:
    """Return the symbol of the order that a request names; "": none."""
    known = state.accounts.get(account)
    if known is None:
        return ""
    if request.order_id is not None:
        order = known.orders.get(request.order_id)
    else:
        order = known.by_client_order_id.get(request.client_order_id or "")
    return "" if order is None else order.symbol


def _admin_touches(state: State, admin: Admin) -> bool:
    """Whether an administrator's request needs anything that is busy.

    One that names one symbol needs no other, if no account is busy. A
    settlement may settle derivatives too.
    """
    if admin.action in HARMLESS_ACTIONS:
        return False
    if admin.symbol is None or admin.action == "settle":
        return True
    return is_needed(state, admin.symbol)
