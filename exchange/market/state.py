"""All that the engine knows, as data.

The modules that carry out commands change it; nothing here decides what a
command does. Public: ``seq``, ``ts``, ``configured``, ``rules``,
``listings``, ``accounts``, ``order_id`` and the deadlines. The last five
attributes belong to the command that is being applied.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Container, Sequence
from typing import Protocol, TypeAlias

from exchange.market.accounts import HOUSE, Account, AccountLimits
from exchange.market.command import RULES, Configure, Output
from exchange.market.fees import margin
from exchange.market.listing import Listing
from exchange.market.offer import Offer
from orderbook import (
    MAX_INT,
    Instrument,
    MatchInfo,
    Order,
    Refused,
    Settlement,
    Status,
)

DEADLINES_MIN = 1_000  # entries kept before outdated ones are removed
# What is due, in a `Deadline`. Of what is due at the same time, the smallest
# comes first: a phase ends after the orders that expire.
SWITCH = 0
ORDERS_EXPIRE = 1
CLOSES = MAX_INT - 3
EXPIRES = MAX_INT - 2
TENDER_ENDS = MAX_INT - 1
PHASE_ENDS = MAX_INT
# A time with what is due then, and the name that it concerns. One of
#   (ts, SWITCH, account)          cancel_after cancels the account's orders
#   (ts, ORDERS_EXPIRE, "")        the gtd orders of this time expire
#   (ts, CLOSES, symbol)           an instrument with close_ms closes
#   (ts, EXPIRES, symbol)          an instrument settles by itself
#   (ts, TENDER_ENDS, tender id)   a tender can no longer be accepted
#   (ts, PHASE_ENDS, symbol)       a phase with reopen_ms ends
Deadline: TypeAlias = tuple[int, int, str]
# Operations of a slice of long work, which the version of the rules fixes: an
# order that is canceled or filled, an account that is paid. A slice takes 5
# to 10 ms, the messages that it causes included.
OPERATIONS_PER_SLICE = 500
EVERYTHING = "*"  # in `Item.symbols`: every symbol and account is busy


class Item(Protocol):
    """A piece of long work; see `exchange.market.work`.

    While it is in the queue, its symbols and accounts are busy.
    """

    @property
    def symbols(self) -> Sequence[str]:
        """The symbols whose requests wait for it."""

    @property
    def accounts(self) -> Sequence[str]:
        """The accounts whose requests wait for it."""

    def step(self, state: State) -> bool:
        """Do what fits into the slice; return whether all is done."""


class State:
    """The market between two commands, and what the current one changed.

    ``known_rules`` are the versions of the rules that can be in force.
    """

    def __init__(self, known_rules: Container[int] = RULES) -> None:
        self.known_rules = known_rules
        self.seq = 0  # of the last command applied
        self.ts = 0  # of the last command applied
        self.previous_ts = 0  # of the command before
        self.round = 1  # counts resets
        self.configured = Configure(instruments=())  # the last one applied
        self.rules = self.configured.engine_version  # version in force
        self.listings: dict[str, Listing] = {}
        self.accounts: dict[str, Account] = {}
        self.order_id = 0  # of the last order accepted
        self.news_id = 0  # of the last news
        self.match: MatchInfo | None = None
        self.tenders: dict[str, Offer] = {}  # of this round, ended ones too
        # The open gtd orders by expire_ts and then by id.
        self.expiring: dict[int, dict[int, Order]] = {}
        # A heap. An entry may be outdated: see `is_valid`.
        self.deadlines: list[Deadline] = []
        self.deadlines_max = DEADLINES_MIN
        self.earliest = MAX_INT  # lower bound of all deadlines, cheap to read
        # Long work, continued from the left; see `exchange.market.work`.
        self.work: deque[Item] = deque()
        self.work_ended = 0  # items that were queued and are finished
        self.slice_ops = OPERATIONS_PER_SLICE
        self.busy_symbols: dict[str, int] = {}  # items that need each
        self.busy_accounts: dict[str, int] = {}
        # Books with changes that `Engine.take_book_updates` has not returned.
        self.changed_books: dict[str, Listing] = {}
        # Stop orders that trades have reached, by symbol. During an uncrossing
        # they wait for its end.
        self.reached: dict[str, list[Order]] = {}
        # Of the command that is being applied:
        self.outputs: list[Output] = []
        self.changed_accounts: dict[str, Account] = {}
        self.settlements: dict[str, list[Settlement]] = {}  # by account
        self.touched: dict[str, Listing] = {}  # whose book may have changed
        self.statuses: list[Status] = []
        # Operations left to the command `slice_seq`, and where in the queue
        # new work belongs; None: at its end.
        self.slice_seq = self.slice_room = 0
        self.work_place: int | None = None

    # Accounts and listings

    def account(self, name: str) -> Account:
        """Return an account; open it if it is new."""
        account = self.accounts.get(name)
        if account is None:
            limits = self.limits(name)
            account = self.accounts[name] = Account(name, limits.cash, limits)
        return account

    def limits(self, name: str) -> AccountLimits:
        """Return the limits that are configured for an account."""
        if name == HOUSE:
            return AccountLimits()
        return self.configured.accounts.get(name, self.configured.limits)

    def listing(self, symbol: str | None) -> Listing:
        """Return the listing of a symbol; None: the only listing.

        Raises Refused: "unknown_symbol", or "bad_request" if the symbol is
        left out and several are listed.
        """
        listing = self.listings.get(symbol or "")
        if listing is not None:
            return listing
        if symbol is not None:
            raise Refused(
                "unknown_symbol", f"{symbol} is not listed", field="symbol"
            )
        if len(self.listings) > 1:
            raise Refused(
                "bad_request",
                "symbol: required, because several are listed",
                field="symbol",
            )
        (only,) = self.listings.values()
        return only

    def underlying(self, instrument: Instrument) -> Instrument | None:
        """Return the underlying of a derivative, as it is configured."""
        listing = self.listings.get(instrument.underlying or "")
        return None if listing is None else listing.instrument

    def mark(self, symbol: str) -> int:
        """Return the price at which positions in a symbol are valued."""
        return self.listings[symbol].mark()

    def value(self, symbol: str) -> int:
        """Return what one lot of a symbol is worth at its mark, in units."""
        listing = self.listings[symbol]
        return listing.mark() * listing.instrument.tick_value

    # Deadlines

    @property
    def next_deadline(self) -> int | None:
        """When the next `TimePassed` is due, in microseconds; None: never.

        0 while there is work: at once.
        """
        return 0 if self.work else self.first_deadline

    @property
    def first_deadline(self) -> int | None:
        """When the next deadline is due, in microseconds; None: never."""
        while self.deadlines and not self.is_valid(self.deadlines[0]):
            heapq.heappop(self.deadlines)
        due = self.deadlines[0][0] if self.deadlines else None
        self.earliest = MAX_INT if due is None else due
        return due

    def add_deadline(self, entry: Deadline) -> None:
        """Add a deadline; remove outdated ones if there are too many."""
        heapq.heappush(self.deadlines, entry)
        self.earliest = min(self.earliest, entry[0])
        if len(self.deadlines) > self.deadlines_max:
            self.deadlines = [e for e in self.deadlines if self.is_valid(e)]
            heapq.heapify(self.deadlines)
            self.deadlines_max = max(DEADLINES_MIN, 2 * len(self.deadlines))

    def add_expiry(self, order: Order, ts: int) -> None:
        """Let an open order expire at a time, after those that do so yet."""
        orders = self.expiring.get(ts)
        if orders is None:
            orders = self.expiring[ts] = {}
            self.add_deadline((ts, ORDERS_EXPIRE, ""))
        orders[order.order_id] = order

    def drop_expiry(self, order: Order) -> None:
        """Remove an order that has ended, if it still was to expire."""
        assert order.expire_ts is not None
        orders = self.expiring.get(order.expire_ts)
        if orders and orders.pop(order.order_id, None) and not orders:
            del self.expiring[order.expire_ts]

    def take_expiries(self) -> list[Order]:
        """Remove the orders that expire before anything else that is due.

        Returns them by time, and of one time in the order of `add_expiry`.
        """
        orders: list[Order] = []
        due = self.first_deadline
        while due is not None and due <= self.ts:
            if self.deadlines[0][1] != ORDERS_EXPIRE:
                break
            heapq.heappop(self.deadlines)
            orders += self.expiring.pop(due).values()
            due = self.first_deadline
        return orders

    def take_deadline(self) -> Deadline:
        """Remove the first deadline, which must be valid, and its doubles.

        What is in the heap besides depends on who asked for `first_deadline`,
        and must change nothing: a process that recovers asks less often.
        """
        entry = heapq.heappop(self.deadlines)
        while self.deadlines and self.deadlines[0] == entry:
            heapq.heappop(self.deadlines)
        return entry

    def is_valid(self, entry: Deadline) -> bool:
        """Return whether an entry has not been outdated since it was added."""
        ts, kind, name = entry
        if kind == PHASE_ENDS:
            return self.listings[name].reopen_ts == ts
        if kind == CLOSES:
            return self.listings[name].close_ts == ts
        if kind == EXPIRES:
            return self.listings[name].expire_ts == ts
        if kind == TENDER_ENDS:
            offer = self.tenders.get(name)
            return offer is not None and offer.ends_ts == ts
        if kind == ORDERS_EXPIRE:
            return ts in self.expiring
        return self.accounts[name].cancel_after_ts == ts

    # Invariants

    def check(self) -> None:
        """Verify the books and that accounts agree with them.

        Raises AssertionError. For tests: it looks at every order.
        """
        resting: dict[int, Order] = {}
        for listing in self.listings.values():
            listing.book.check()
            listing.stops.check()
            assert listing.book.is_collecting == (listing.phase != "open")
            last = listing.recent[-1][1] if listing.recent else None
            assert listing.last == last
            assert listing.close_ts is None or listing.close_left_us is None
            assert not listing.stops.orders.keys() & resting.keys()
            assert listing.book.rules == self.rules
            resting |= listing.book.orders | listing.stops.orders
        for account in self.accounts.values():
            lots = {"buy": Counter[str](), "sell": Counter[str]()}
            reserved = 0
            for order_id, order in account.open_orders.items():
                assert order is resting.pop(order_id, None)
                assert order.account == account.name
                lots[order.side][order.symbol] += order.leaves_qty
                reserved += order.leaves_qty * order.unit_cost
                if (fees := order.fees) is not None:
                    assert fees.held_qty == order.leaves_qty
                    reserved += margin(fees.lot, order.leaves_qty, fees.paid)
            assert account.reserved == reserved
            for side, qty_by_symbol in (
                ("buy", account.buying),
                ("sell", account.selling),
            ):
                assert {s: n for s, n in qty_by_symbol.items() if n} == lots[
                    side
                ]
        assert not resting, "orders of no account"
        for symbol in self.reached:
            assert symbol in self.busy_symbols, "queued after its work"
        for ts, expiring in self.expiring.items():
            for order_id, order in expiring.items():
                assert order.is_open and order.order_id == order_id
                assert order.time_in_force == "gtd" and order.expire_ts == ts
