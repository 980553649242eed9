"""The market as lines of JSON, and back.

Kept is what decides later outputs. Left out is what a state without long work
never has, what belongs to one command, and what follows from the rest; see
`LEFT_OUT`. Fields of the flat classes are found by `dataclasses.fields`, so a
new one is kept without a change here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import fields
from heapq import heapify
from itertools import islice
from operator import attrgetter
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from exchange.market.accounts import Account, Session, Tags
from exchange.market.command import Configure
from exchange.market.listing import TRADES_BUSTABLE, Listing
from exchange.market.offer import Offer
from exchange.market.prints import Moment, Prints
from exchange.market.state import (
    DEADLINES_MIN,
    Deadline,
    State,
)
from orderbook import (
    Instrument,
    MatchInfo,
    Order,
    OrderBook,
    OrderFees,
    Tender,
)

ROWS_PER_LINE = 1_000

# Attributes that a snapshot does not have, and why.
LEFT_OUT: dict[type, dict[str, str]] = {
    State: {
        "known_rules": "what the program knows",
        "slice_ops": "fixed by the version of the rules",
        "accounts": "lines of their own",
        "listings": "lines of their own",
        "deadlines_max": "follows from the deadlines",
        "earliest": "follows from the deadlines",
        "work": "empty: no snapshot is made amid long work",
        "work_ended": "only its changes count, within a command",
        "busy_symbols": "empty without long work",
        "busy_accounts": "empty without long work",
        "reached": "empty without long work",
        "changed_books": "what was not published yet",
        "outputs": "of one command",
        "changed_accounts": "of one command",
        "settlements": "of one command",
        "touched": "of one command",
        "statuses": "of one command",
        "slice_seq": "of one command",
        "slice_room": "of one command",
        "work_place": "of one command",
    },
    Account: {
        "limits": "follow from the configuration",
        "by_client_order_id": "follows from the orders",
        "open_orders": "follows from the orders",
    },
    Listing: {
        "published_seq": "everything counts as published",
        "has_rates": "follows from the instrument",
        "trades": "of one command",
    },
}


def _flat(cls: type, *others: str) -> tuple[str, ...]:
    """Return the fields of a dataclass, save for others and left-out ones."""
    left_out = {*others, *LEFT_OUT.get(cls, ())}
    return tuple(f.name for f in fields(cls) if f.name not in left_out)


# Those of its attributes that are numbers.
STATE = (
    *("seq", "ts", "previous_ts", "round", "rules", "order_id", "news_id"),
)
# Fields that are plain data; the others are named where they are kept.
ACCOUNT = _flat(
    Account,
    *("orders", "finished", "sessions", "conversions", "tags"),
    "admin_requests",
)
LISTING = _flat(
    Listing, "instrument", "book", "prints", "recent", "busted", "stops"
)
SESSION = _flat(Session)
MOMENT = _flat(Moment)
FEES = _flat(OrderFees)
# An order may have none of these.
SOMETIMES = ("worst_price", "shown_qty", "requeued")
ORDER = _flat(Order, *SOMETIMES)
_OWNER, _FEES = ORDER.index("account"), ORDER.index("fees")

_order_row = attrgetter(*ORDER)
_fees_row = attrgetter(*FEES)
_session_row = attrgetter(*SESSION)
_moment_row = attrgetter(*MOMENT)

_CONFIGURE = TypeAdapter(Configure)
_INSTRUMENT = TypeAdapter(Instrument)
_MATCH: TypeAdapter[MatchInfo | None] = TypeAdapter(MatchInfo | None)
_TENDER = TypeAdapter(Tender)


def is_at_rest(state: State) -> bool:
    """Whether a snapshot can be made: there is no long work."""
    return not state.work and not state.reached


# Dumping ------------------------------------------------------------------


def dump(state: State) -> Iterator[str]:
    """Yield the lines of a market that `is_at_rest`, between two commands."""
    assert is_at_rest(state) and not state.busy_symbols
    assert not state.busy_accounts
    yield _line("state", _of_state(state))
    for account in state.accounts.values():
        yield _line("account", _of_account(account))
        orders = iter(account.orders.values())
        while rows := [*map(_of_order, islice(orders, ROWS_PER_LINE))]:
            yield _line("orders", rows)
        yield _line("finished", [o.order_id for o in account.finished])
    for listing in state.listings.values():
        yield _line("listing", _of_listing(listing))
    expiring = [[ts, [*orders]] for ts, orders in state.expiring.items()]
    yield _line("expiring", sorted(expiring))
    yield _line("end", None)


def _line(kind: str, data: Any) -> str:
    return to_json([kind, data]).decode()


def _of_state(state: State) -> dict[str, Any]:
    return {
        **{name: getattr(state, name) for name in STATE},
        "configured": _CONFIGURE.dump_python(state.configured, mode="json"),
        "match": _MATCH.dump_python(state.match, mode="json"),
        "tenders": [
            [
                _TENDER.dump_python(offer.tender, mode="json"),
                offer.user,
                offer.ends_ts,
                [*offer.accepted],
            ]
            for offer in state.tenders.values()
        ],
        "deadlines": _deadlines(state),
    }


def _deadlines(state: State) -> list[Deadline]:
    """Return the deadlines that are not outdated, each once, in order.

    What is in the heap besides depends on who looked at it meanwhile.
    """
    valid = dict.fromkeys(filter(state.is_valid, state.deadlines))
    return sorted(valid)


def _of_account(account: Account) -> dict[str, Any]:
    open_orders = [i for i, o in account.orders.items() if o.is_open]
    assert open_orders == [*account.open_orders]
    tags = account.tags
    return {
        **{name: getattr(account, name) for name in ACCOUNT},
        "sessions": [
            [name, *_session_row(session)]
            for name, session in account.sessions.items()
        ],
        "conversions": [*account.conversions],
        "admin_requests": [*account.admin_requests],
        "tags": [
            [*tags.newest.items()],
            [[order_id, *named] for order_id, named in tags.by_order.items()],
            tags.most,
        ],
    }


def _of_order(order: Order) -> list[Any]:
    """Return the fields of an order, without its account."""
    row = list(_order_row(order))
    if order.fees is not None:
        row[_FEES] = _fees_row(order.fees)
    del row[_OWNER]
    row.append({n: getattr(order, n) for n in SOMETIMES if hasattr(order, n)})
    return row


def _of_listing(listing: Listing) -> dict[str, Any]:
    prints = listing.prints
    assert not listing.stops.reached
    return {
        **{name: getattr(listing, name) for name in LISTING},
        "instrument": _INSTRUMENT.dump_python(listing.instrument, mode="json"),
        "prints": (
            None if prints is None else [*map(_moment_row, prints.moments)]
        ),
        "recent": [*listing.recent],
        "busted": [*listing.busted],
        "stops": [*listing.stops.orders],
        "book": listing.book.dump(),
    }


# Loading ------------------------------------------------------------------


def load(state: State, lines: Iterable[str]) -> None:
    """Fill a new state with the lines of `dump`, which are taken up to "end".

    The lines must be those of `dump`: whoever reads them from a file compares
    their digest first.
    """
    open_orders: dict[int, Order] = {}
    account = Account("")
    deadlines: list[Any] = []
    for line in lines:
        kind, data = from_json(line)
        match kind:
            case "state":
                deadlines = _load_state(state, data)
            case "account":
                account = _account(state, data)
                state.accounts[account.name] = account
            case "orders":
                for row in data:
                    _load_order(account, row)
            case "finished":
                account.finished.extend(account.orders[i] for i in data)
                open_orders |= account.open_orders
            case "listing":
                listing = _listing(data, open_orders)
                state.listings[listing.instrument.symbol] = listing
            case "expiring":
                for ts, ids in data:
                    state.expiring[ts] = {i: open_orders[i] for i in ids}
            case _:
                break
    # Last, because these are asked whether they are outdated.
    state.deadlines = [(ts, what, name) for ts, what, name in deadlines]
    heapify(state.deadlines)
    state.deadlines_max = max(DEADLINES_MIN, 2 * len(state.deadlines))
    _ = state.first_deadline  # sets `earliest`


def _load_state(state: State, data: dict[str, Any]) -> list[Any]:
    """Set all but the deadlines, and return those."""
    for name in STATE:
        setattr(state, name, data[name])
    state.configured = _CONFIGURE.validate_python(data["configured"])
    state.match = _MATCH.validate_python(data["match"])
    for tender, user, ends_ts, accepted in data["tenders"]:
        offer = Offer(
            _TENDER.validate_python(tender),
            user,
            ends_ts,
            dict.fromkeys(accepted),
        )
        state.tenders[offer.tender.tender_id] = offer
    deadlines: list[Any] = data["deadlines"]
    return deadlines


def _account(state: State, data: dict[str, Any]) -> Account:
    newest, by_order, most = data["tags"]
    return Account(
        **{name: data[name] for name in ACCOUNT},
        limits=state.limits(data["name"]),
        sessions={name: Session(*row) for name, *row in data["sessions"]},
        conversions=dict.fromkeys(data["conversions"]),
        admin_requests=dict.fromkeys(data["admin_requests"]),
        tags=Tags(
            dict(newest), {i: (tag, ts) for i, tag, ts in by_order}, most
        ),
    )


def _load_order(account: Account, row: list[Any]) -> None:
    """Give an account its next order."""
    sometimes = row.pop()
    row.insert(_OWNER, account.name)
    if row[_FEES] is not None:
        row[_FEES] = OrderFees(*row[_FEES])
    order = Order(*row)
    for name, value in sometimes.items():
        setattr(order, name, tuple(value) if name == "requeued" else value)
    account.orders[order.order_id] = order
    if order.is_open:
        account.open_orders[order.order_id] = order
    if order.client_order_id is not None:
        account.by_client_order_id[order.client_order_id] = order


def _listing(data: dict[str, Any], orders: dict[int, Order]) -> Listing:
    """Return a listing; ``orders`` are all open ones by id."""
    instrument = _INSTRUMENT.validate_python(data["instrument"])
    book = OrderBook(instrument.symbol)
    book.load(data["book"], orders)
    kept = {name: data[name] for name in LISTING}
    if kept["moved_reference"] is not None:
        kept["moved_reference"] = tuple(kept["moved_reference"])
    prints = data["prints"]
    listing = Listing(
        instrument,
        book,
        **kept,
        published_seq=data["seq"],
        prints=(
            None
            if prints is None
            else Prints(deque(Moment(*moment) for moment in prints))
        ),
        recent=deque(map(tuple, data["recent"]), TRADES_BUSTABLE + 1),
        busted=dict.fromkeys(data["busted"]),
    )
    listing.stops.load([orders[i] for i in data["stops"]])
    return listing
