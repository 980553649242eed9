"""Compare the engine with a naive market, request by random request.

``python -m util.measure.twin_market STEPS`` lets an engine of one instrument
and `util.measure.naive_market` carry out the same random requests, with stop
orders, icebergs, auctions, the band and self-trades, and compares all reports,
trades and levels after each. A failure prints the seed, which gives the same
requests again.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from exchange.market.command import Action, Command, Configure
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import (
    Admin,
    Amend,
    Cancel,
    Error,
    Exec,
    Instrument,
    Place,
    Refused,
)
from util.cli import new_parser
from util.measure.naive import TwinOrder
from util.measure.naive_market import HIGH, LOW, NaiveMarket
from util.measure.twin import ACCOUNTS, SIDES, STP, agree, compare

SYMBOL = "BOND"
MID = 100  # the price around which everything happens
REQUESTS_PER_MARKET = 400
KINDS = (
    *(("limit", tif) for tif in ("gtc", "gtc", "gtc", "gtd", "ioc", "fok")),
    *(("market", tif) for tif in ("ioc", "fok", "auction")),
    *(("stop", tif) for tif in ("gtc", "gtd")),
    *(("stop_limit", tif) for tif in ("gtc", "gtd", "ioc", "fok")),
)
FAR = 10**15  # an ``expire_ts`` that never comes


class Markets:
    """An engine and a naive market, which do the same and are compared."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.wide = rng.choice((2, 5, 12))
        collar, band = rng.choice((0, 4, 9)), rng.choice((0, 0, 2, 5))
        reference = MID if collar or band else rng.choice((0, MID))
        self.naive = NaiveMarket(reference, collar, band)
        self.naive.owners = {}
        self.engine = Engine()
        bond = Instrument(
            symbol=SYMBOL,
            tick_size="1",
            min_price=LOW,
            max_price=HIGH,
            max_qty=1_000,
            phase="open",
            reference_price=reference,
            collar=collar,
            band=band,
            self_trades=True,
        )
        self.apply("", Configure(instruments=(bond,)))
        self.last_id = 0

    def apply(self, account: str, action: Action) -> list[Any]:
        """Let the engine carry out an action; return the events."""
        seq = self.engine.seq + 1
        command = Command(seq, seq, account, account, action)
        return [event for _, event in in_full(self.engine.apply(command))]

    # Requests

    def step(self) -> None:
        """Carry out a random request and compare what it did."""
        dice = self.rng.random()
        self.naive.book.log.clear()
        if dice < 0.62 or not self.last_id:
            self.place()
        elif dice < 0.8:
            self.amend()
        elif dice < 0.93:
            self.cancel()
        else:
            self.change_phase()
        self.compare()

    def price(self) -> int:
        return MID + self.rng.randint(-self.wide, self.wide)

    def place(self) -> None:
        rng = self.rng
        order_type, tif = rng.choice(KINDS)
        fields: dict[str, Any] = {
            "side": rng.choice(SIDES),
            "qty": rng.choice((1, 2, 3, 5, 8, 30)),
            "price": self.price() if "limit" in order_type else None,
            "order_type": order_type,
            "time_in_force": tif,
            "post_only": False,
            "stp": rng.choice(STP),
        }
        display = trigger = None
        if "limit" in order_type and tif in ("gtc", "gtd"):
            fields["post_only"] = rng.random() < 0.15
            display = rng.choice((None, None, 1, 2, 4))
        if "stop" in order_type:
            trigger = self.price()
        request = Place(
            **fields,
            display_qty=display,
            trigger_price=trigger,
            expire_ts=FAR if tif == "gtd" else None,
        )
        account = rng.choice(ACCOUNTS)
        order_id = self.last_id + 1
        order = TwinOrder(order_id, account, display=display, **fields)
        self.naive.owners[order_id] = account
        if self.agree_on(account, request, self.naive.place, order, trigger):
            self.last_id = order_id

    def open_order(self) -> int | None:
        """Choose one of the orders that are open, mostly a recent one."""
        chosen = self.last_id - int(self.rng.expovariate(1 / 12))
        is_open = [
            order_id
            for account in self.engine.accounts.values()
            for order_id in account.open_orders
        ]
        if not is_open:
            return None
        return min(is_open, key=lambda order_id: abs(order_id - chosen))

    def amend(self) -> None:
        order_id, rng = self.open_order(), self.rng
        if order_id is None:
            return
        price = rng.choice((None, self.price()))
        qty = rng.choice((None, rng.randint(1, 30)))
        display = rng.choice((None, None, 1, 2, 4))
        trigger = self.price() if rng.random() < 0.3 else None
        if price is qty is display is trigger is None:
            return
        request = Amend(
            order_id=order_id,
            price=price,
            qty=qty,
            display_qty=display,
            trigger_price=trigger,
        )
        fields = order_id, price, qty, display, trigger
        owner = self.naive.owners[order_id]
        self.agree_on(owner, request, self.naive.amend, *fields)

    def cancel(self) -> None:
        order_id = self.open_order()
        if order_id is not None:
            owner = self.naive.owners[order_id]
            request = Cancel(order_id=order_id)
            self.agree_on(owner, request, self.naive.cancel, order_id)

    def change_phase(self) -> None:
        is_opening = not self.naive.is_open
        admin = Admin(
            action="phase",
            phase="open" if is_opening else "auction",
            reason="why",
        )
        call = self.naive.open if is_opening else self.naive.collect
        self.agree_on("op", admin, call)

    # Comparison

    def agree_on(
        self, account: str, request: Action, call: Any, *fields: Any
    ) -> bool:
        """Let both do it; return whether it was accepted."""
        events = self.apply(account, request)
        code = None
        try:
            call(*fields)
        except Refused as refused:
            code = refused.code
        reply = events[0]
        agree(reply.code if isinstance(reply, Error) else None, code)
        reports = [
            (
                e.order_id,
                e.exec_type,
                e.order_status,
                e.cum_qty,
                e.leaves_qty,
                e.last_qty or 0,
                e.last_price or 0,
                e.reason,
            )
            for e in events
            if isinstance(e, Exec)
        ]
        agree(reports, self.naive.book.log)
        fills = [note for note in self.naive.book.log if note[1] == "trade"]
        owners = self.naive.owners
        agree(
            [(e.qty, e.price, e.is_self) for e in events if e.type == "trade"],
            [
                (one[5], one[6], owners[one[0]] == owners[other[0]])
                for one, other in zip(fills[::2], fills[1::2], strict=True)
            ],
        )
        return code is None

    def compare(self) -> None:
        """Compare levels, prices and phase; check the invariants."""
        self.engine.check()
        listing = self.engine.listings[SYMBOL]
        book = listing.book
        for side in SIDES:
            depth = tuple(self.naive.book.depth(side).items())
            agree(book.depth(side), depth)
            orders = [*book.market_orders(side), *book.queue(side)]
            theirs = [o.order_id for o in self.naive.book.queue(side)]
            agree([o.order_id for o in orders], theirs)
        agree(listing.last, self.naive.last)
        agree(listing.phase == "open", self.naive.is_open)
        waiting = [stop.order.order_id for stop in self.naive.waiting]
        agree(sorted(listing.stops.orders), sorted(waiting))


def long_run(steps: int, seed: int) -> None:
    """Compare both after each request, with a new market from time to time.

    Raises AssertionError with the seed, the number of steps and the book.
    """
    rng = random.Random(seed)
    markets = Markets(rng)
    for done in range(steps):
        if done % REQUESTS_PER_MARKET == 0:
            markets = Markets(rng)
        try:
            markets.step()
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, after {done} steps: {error!r}"
                f"\n{markets.engine.listings[SYMBOL].book}"
            ) from error


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.twin_market``; return the exit status."""
    parser = new_parser(
        "measure.twin_market", "Compare the engine with a naive market."
    )
    return compare(parser, "requests", long_run, arguments)


if __name__ == "__main__":
    sys.exit(main())
