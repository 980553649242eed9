"""All that the engine knows, as data.

The modules that carry out commands change it; nothing here decides what a
command does. Public: ``seq``, ``ts``, ``configured``, ``rules``,
``listings``, ``accounts``, ``order_id`` and the deadlines. The last five
attributes belong to the command that is being applied.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Container
from typing import TypeAlias

from exchange.market.accounts import HOUSE, Account, AccountLimits
from exchange.market.command import RULES, Configure, Output
from exchange.market.listing import Listing
from exchange.market.offer import Offer
from orderbook import MAX_INT, Order, Refused, Status

DEADLINES_MIN = 1_000  # entries kept before outdated ones are removed
# Each stands for an order id in a `Deadline`. They are the greatest numbers:
# at one instant orders expire first, then the rest happens in this order.
CLOSES = MAX_INT - 3
TENDER_ENDS = MAX_INT - 1
PHASE_ENDS = MAX_INT
# A time with what is due then. One of
#   (ts, order id, "")              a gtd order expires
#   (ts, 0, account)                cancel_after cancels the account's orders
#   (ts, CLOSES, symbol)            an instrument with close_ms closes
#   (ts, TENDER_ENDS, tender id)    a tender can no longer be accepted
#   (ts, PHASE_ENDS, symbol)        a phase with reopen_ms ends
Deadline: TypeAlias = tuple[int, int, str]


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
        self.tenders: dict[str, Offer] = {}  # of this round, ended ones too
        self.open_gtd: dict[int, Order] = {}
        # A heap. An entry may be outdated: see `_is_valid`.
        self.deadlines: list[Deadline] = []
        self.deadlines_max = DEADLINES_MIN
        self.earliest = MAX_INT  # lower bound of all deadlines, cheap to read
        # Stop orders that have been reached, in the order they become active.
        self.elected: deque[Order] = deque()
        # Books with changes that `Engine.take_book_updates` has not returned.
        self.changed_books: dict[str, Listing] = {}
        # Of the command that is being applied:
        self.outputs: list[Output] = []
        self.changed_accounts: dict[str, Account] = {}
        self.touched: dict[str, Listing] = {}  # whose book may have changed
        self.statuses: list[Status] = []
        self.reached: dict[str, list[Order]] = {}  # stop orders, by symbol

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

    def mark(self, symbol: str) -> int:
        """Return the price at which positions in a symbol are valued."""
        return self.listings[symbol].mark()

    # Deadlines

    @property
    def next_deadline(self) -> int | None:
        """When the next `TimePassed` is due, in microseconds; None: never.

        At once, if more stop orders were elected than one command triggers.
        """
        if self.elected:
            self.earliest = 0
            return self.ts
        while self.deadlines and not self._is_valid(self.deadlines[0]):
            heapq.heappop(self.deadlines)
        due = self.deadlines[0][0] if self.deadlines else None
        self.earliest = MAX_INT if due is None else due
        return due

    def add_deadline(self, entry: Deadline) -> None:
        """Add a deadline; remove outdated ones if there are too many."""
        heapq.heappush(self.deadlines, entry)
        self.earliest = min(self.earliest, entry[0])
        if len(self.deadlines) > self.deadlines_max:
            self.deadlines = [e for e in self.deadlines if self._is_valid(e)]
            heapq.heapify(self.deadlines)
            self.deadlines_max = max(DEADLINES_MIN, 2 * len(self.deadlines))

    def _is_valid(self, entry: Deadline) -> bool:
        """Return whether an entry has not been outdated since it was added."""
        ts, order_id, name = entry
        if order_id == PHASE_ENDS:
            return self.listings[name].reopen_ts == ts
        if order_id == CLOSES:
            return self.listings[name].close_ts == ts
        if order_id == TENDER_ENDS:
            offer = self.tenders.get(name)
            return offer is not None and offer.ends_ts == ts
        if order_id:
            order = self.open_gtd.get(order_id)
            return order is not None and order.expire_ts == ts
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
            assert account.reserved == reserved
            for side, qty_by_symbol in (
                ("buy", account.buying),
                ("sell", account.selling),
            ):
                assert {s: n for s, n in qty_by_symbol.items() if n} == lots[
                    side
                ]
        assert not resting, "orders of no account"
        assert not self.reached, "queued at the end of each command"
        queued = {o.order_id for o in self.elected if o.is_waiting}
        reached = {
            order_id
            for listing in self.listings.values()
            for order_id in listing.stops.reached
        }
        assert queued == reached, "elected orders are queued"
        for order_id, order in self.open_gtd.items():
            assert order.is_open and order.order_id == order_id
            assert order.time_in_force == "gtd"
