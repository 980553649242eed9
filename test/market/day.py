"""Busy days with every kind of command and every kind of instrument.

``python -m test.market.day SEED`` prints all events of one of them.
"""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from typing import Any

from exchange.market.accounts import AccountLimits
from exchange.market.command import (
    Action,
    BustTrade,
    ClockStep,
    Configure,
    Connect,
    Disconnect,
    Money,
    Restart,
    Shutdown,
    TimePassed,
)
from exchange.market.engine import Engine
from exchange.market.work import touches
from orderbook import (
    AcceptTender,
    Admin,
    AdminAction,
    Amend,
    Cancel,
    CancelAfter,
    CancelAll,
    Conversion,
    Convert,
    Event,
    Exec,
    Order,
    Place,
    encode,
)
from test.market.ledger import Ledger
from test.script import SECOND, STP, listing

USERS = ("ann", "bob", "cat", "dan", "eve")
MOB = "mob"  # its orders are too many for one slice
MARKET = Configure(
    instruments=(
        listing(
            "BOND",
            min_price=90,
            max_price=110,
            max_qty=40,
            tick_value=100,
            reference_price=100,
            collar=6,
            band=4,
            auction_ms=2_000,
            max_position=60,
            taker_fee_bp=30,
            maker_fee_bp=-10,
        ),
        listing(
            "GOLD",
            max_price=20,
            max_qty=40,
            tick_value=7,
            reference_price=10,
            maker_fee=1,
            taker_fee=2,
            self_trades=True,
        ),
        listing("OIL", max_price=20, reference_price=8, short_selling=False),
        listing(
            "FUND",
            max_price=130,
            max_qty=50,
            reference_price=40,
            phase="pre_open",
            max_position=90,
            convert=Conversion(lot=2, fee=7, basket={"GOLD": 1, "OIL": 2}),
        ),
        listing(
            "FUT",
            kind="future",
            underlying="GOLD",
            expires=6,
            tick_value=7,
            max_price=20,
        ),
        listing("CALL", kind="call", underlying="GOLD", strike=9, expires=9),
        listing(
            "PUT", kind="put", underlying="OIL", strike=9, expires="round"
        ),
        listing("RED", kind="binary", pays=9, group="RACE", max_price=9),
        listing("BLUE", kind="binary", pays=9, group="RACE", max_price=9),
    ),
    limits=AccountLimits(cash=250_000, min_cash=0, open_orders=14),
    accounts={
        "dan": AccountLimits(
            cash=250_000, min_cash=-90_000, max_position={"BOND": 8}
        ),
        "eve": AccountLimits(cash=30_000, min_cash=0),
        MOB: AccountLimits(cash=250_000, max_position={"FUND": 400}),
    },
    money=Money(unit="0.01", currency="USD"),
)
BOND, *OTHERS = MARKET.instruments
# The same with other fees and limits, so that some orders lose their margin.
STRICT = replace(
    MARKET,
    instruments=(
        replace(BOND, taker_fee_bp=200, max_position=20, self_trades=True),
        *OTHERS,
    ),
    limits=replace(MARKET.limits, min_cash=200_000, open_orders=6),
)
SYMBOLS = tuple(i.symbol for i in MARKET.instruments)
OFTEN = (*("BOND",) * 6, *("GOLD",) * 3, *SYMBOLS)
KINDS = (
    *("limit",) * 8,
    *("stop", "stop", "stop", "stop_limit", "stop_limit", "market"),
)
# What an administrator does, and how often.
ACTIONS: dict[AdminAction, int] = {
    **{"phase": 9, "resume": 9, "adjust": 6, "suspend": 1, "cancel": 2},
    **{"kill": 1, "unkill": 1, "message": 1, "news": 2, "dividend": 2},
    **{"tender": 4, "close_out": 2, "bust": 6, "reference": 2},
    **{"settle": 2, "reset": 1},
}


class Day:
    """A market that chooses its next command itself, by chance.

    ``slice_ops`` replaces the operations of a slice: with few of them there
    is long work all the time.
    """

    def __init__(self, rng: random.Random, slice_ops: int = 0) -> None:
        engine = Engine()
        if slice_ops:
            engine.slice_ops = slice_ops
        self.ledger = Ledger(engine)
        self.engine = engine
        self.rng = rng
        self.ts = SECOND
        self.amid = 0  # commands of accounts that were carried out amid work
        self._named = self._offered = 0
        self.apply(MARKET)

    def run(self, steps: int) -> None:
        """Apply so many commands more."""
        end = self.engine.seq + steps
        while self.engine.seq < end:
            self.step()

    def step(self, may_wait: bool = True) -> None:
        """Apply a command; first the slices of work on what it needs.

        Without ``may_wait`` it is one that needs none of them.
        """
        self.ts += self.rng.choice((1, 1, 1, 1, 50_000, SECOND // 2))
        while True:
            account = self.rng.choice(USERS)
            action = self._choose(account)
            if isinstance(action, (Admin, BustTrade)):
                account = "op"
            if isinstance(action, OWN):
                account = ""
            session = self.rng.choice("ab")
            if may_wait or not self._waits(action, account, session):
                break
        self.apply(action, account, session)

    def _waits(self, action: Action, account: str, session: str) -> bool:
        """Whether the gateway holds an action back until work is done."""
        engine = self.engine
        return bool(engine.work) and touches(engine, account, session, action)

    def apply(
        self, action: Action, account: str = "", session: str = "a"
    ) -> list[tuple[str, Event]]:
        """Apply an action, as the gateway does: after what it waits for."""
        engine, ledger = self.engine, self.ledger
        while self._waits(action, account, session):
            ledger.apply(TimePassed())
        self.amid += bool(engine.work) and bool(account)
        if isinstance(action, BustTrade) and engine.round > 1:
            key = action.symbol, action.trade_id
            if len(ledger.fills.get(key, ())) < 2:  # a reset came before it
                action = TimePassed()
        if isinstance(action, OWN):
            account = session = ""
        return ledger.apply(action, account, self.ts, session)

    def crowd(self, orders: int) -> None:
        """Let one account place more orders than a slice can cancel."""
        self.apply(Admin(action="phase", phase="open", reason="why"), "op")
        for number in range(orders):
            side, price = ("buy", 1) if number % 2 else ("sell", 130)
            self.apply(
                Place(symbol="FUND", side=side, qty=1, price=price), MOB
            )

    def disperse(self) -> None:
        """Cancel the orders of the crowd, while the others go on.

        Three of their commands for each slice, or more.
        """
        self.apply(CancelAll(), MOB)
        while self.engine.work:
            for _ in range(3):
                self.step(may_wait=False)
            self.ledger.apply(TimePassed())

    # Choices

    def _choose(self, account: str) -> Action:
        rng = self.rng
        dice = rng.randrange(100)
        if dice < 52:
            return self._place()
        if dice < 64:
            return self._change(account)
        if dice < 68:
            return Convert(
                symbol=rng.choice(("FUND",) * 9 + ("GOLD", "NONE")),
                side=rng.choice(("buy", "sell")),
                qty=rng.choice((2, 2, 4, 10, 3)),
                client_order_id=rng.choice((None, self._name())),
            )
        if dice < 72:
            number = max(1, self._offered - rng.choice((0, 0, 0, 1, 2)))
            return AcceptTender(tender_id=f"t-{number}")
        if dice < 79:
            return TimePassed()
        if dice < 83:
            return self._own_action()
        return self._administer()

    def _name(self) -> str:
        """Return a client_order_id, which may have been used."""
        self._named += self.rng.random() < 0.8
        return f"c{self._named}"

    def _place(self) -> Place:
        rng = self.rng
        symbol = rng.choice((*OFTEN, *OFTEN, "NONE", None))
        low, middle, high = 1, 5, 12
        if symbol in self.engine.listings:
            found = self.engine.listings[symbol]
            low, high = found.instrument.min_price, found.instrument.max_price
            middle = found.reference or (low + high) // 2

        def near() -> int:
            far = rng.choice((0, 1, 2, 3, 3, 8))
            return min(max(middle + rng.randint(-far, far), low - 1), high)

        kind, tif = rng.choice(KINDS), rng.choice(("gtc", "gtc", "gtd"))
        order: dict[str, Any] = {
            "symbol": symbol,
            "side": rng.choice(("buy", "sell")),
            "qty": rng.randint(1, rng.choice((3, 9, 41))),
            "stp": rng.choice(STP),
            "client_order_id": rng.choice((None, self._name())),
            "order_type": kind,
        }
        if kind == "market":
            tif = rng.choice(("ioc", "fok", "auction", "auction"))
        elif kind != "stop":
            order["price"] = near()
            if rng.random() < 0.2:
                tif = rng.choice(("ioc", "fok"))
            elif rng.random() < 0.3:
                order["display_qty"] = rng.randint(1, 4)
            if tif in ("gtc", "gtd"):
                order["post_only"] = rng.random() < 0.1
        if kind in ("stop", "stop_limit"):
            order["trigger_price"] = near()
        if tif == "gtd":
            order["expire_ts"] = self.ts + rng.choice((0, 2, 2, 5)) * SECOND
        return Place(time_in_force=tif, **order)

    def _change(self, account: str) -> Action:
        """Amend or cancel, mostly an own order that is open."""
        rng = self.rng
        number = max(0, self.engine.order_id - rng.randrange(20))
        order = Order(number, account, "buy", 4, price=5)
        known = self.engine.accounts.get(account)
        if known is not None and known.open_orders and rng.random() < 0.9:
            order = rng.choice([*known.open_orders.values()])
        if rng.random() < 0.35:
            return Cancel(order_id=order.order_id)
        new: dict[str, Any] = {}
        if order.price is not None and rng.random() < 0.6:
            new["price"] = order.price + rng.randint(-3, 3)
        if rng.random() < 0.5 or not new:
            new["qty"] = max(1, order.qty + rng.randint(-4, 4))
        if order.trigger_price is not None and rng.random() < 0.5:
            new["trigger_price"] = order.trigger_price + rng.randint(-2, 2)
        if order.display_qty is not None and rng.random() < 0.5:
            new["display_qty"] = rng.randint(1, 6)
        if order.expire_ts is not None and rng.random() < 0.5:
            new["expire_ts"] = self.ts + 3 * SECOND
        return Amend(order_id=order.order_id, **new)

    def _own_action(self) -> Action:
        rng = self.rng
        return rng.choice(
            (
                CancelAll(symbol=rng.choice((None, "BOND", "NONE"))),
                CancelAfter(timeout_ms=rng.choice((0, 1_000, 3_000))),
                CancelAfter(timeout_ms=1_000),
                Connect(rng.random() < 0.5),
                Disconnect(),
                rng.choice((Shutdown(), Restart(), STRICT, MARKET)),
                ClockStep(forward_us=rng.choice((1, SECOND))),
            )
        )

    # The administrator

    def _administer(self) -> Action:
        rng = self.rng
        (action,) = rng.choices([*ACTIONS], [*ACTIONS.values()])
        if action == "bust" and self.ledger.fills:
            return self._bust()
        request_id = rng.choice((None, None, f"r{rng.randrange(40)}"))
        return Admin(
            action=action,
            reason="why",
            client_request_id=request_id,
            **self._arguments(action),
        )

    def _arguments(self, action: AdminAction) -> dict[str, Any]:
        rng = self.rng
        symbol = rng.choice((*OFTEN, *OFTEN, "NONE"))
        user = rng.choice((*USERS, *USERS, *USERS, "nobody"))
        price = {
            s: rng.randint(0, 9) if s in ("CALL", "PUT") else found.reference
            for s, found in self.engine.listings.items()
        } | {"RED": 9, "BLUE": 0, "NONE": 1}
        match action:
            case "phase":
                return self._phase(symbol)
            case "suspend" | "resume" | "kill" | "unkill":
                return {"user": user}
            case "cancel":
                most = self.engine.order_id
                return {"order_id": max(0, most - rng.randrange(30))}
            case "adjust":
                cash = rng.choice((50_000, -50_000, -200_000, 9 * 10**15))
                given = {"symbol": symbol, "qty": rng.randint(-9, 25)}
                if rng.random() < 0.4:
                    given = {"cash": cash}
                return {"user": user, **given}
            case "settle":
                chosen = rng.sample(SYMBOLS, rng.randint(1, 3))
                if rng.random() < 0.3:
                    return {"prices": {s: price[s] for s in chosen}}
                given = {"symbol": symbol}
                if rng.random() < 0.6:
                    given["price"] = price[symbol]
                return given
            case "message":
                return {"message": "hello"}
            case "news":
                return {"headline": "flood", "body": "two\nlines", "value": 7}
            case "dividend":
                return {"symbol": symbol, "amount": rng.randint(-900, 900)}
            case "tender":
                self._offered += rng.random() < 0.9
                return {
                    "tender_id": f"t-{self._offered}",
                    "symbol": symbol,
                    "side": rng.choice(("buy", "sell")),
                    "qty": rng.randint(1, 9),
                    "price": max(0, price[symbol] + rng.randint(-2, 2)),
                    "valid_ms": rng.choice((1_000, 5_000)),
                    "user": rng.choice((None, user)),
                }
            case "close_out":
                return {
                    "user": rng.choice(("cat", "dan", user)),
                    "prices": {s: price[s] for s in SYMBOLS},
                }
            case "bust":
                return {"symbol": symbol, "trade_id": 1}
            case "reference":
                new = price[symbol] + rng.randint(-2, 2)
                return {"symbol": symbol, "price": new}
        return {}

    def _phase(self, symbol: str) -> dict[str, Any]:
        rng = self.rng
        given: dict[str, Any] = {"phase": "open"}
        if rng.random() < 0.3:
            given["close_ms"] = rng.choice((1_000, 9_000))
            given["symbol"] = symbol
        elif rng.random() < 0.4:
            given["symbol"] = symbol
            given["phase"] = rng.choice(("pre_open", "auction", "halted"))
            given["reopen_ms"] = rng.choice((None, 1_000, 2_000))
        elif rng.random() < 0.1:
            given = {"symbol": symbol, "phase": "closed"}
        return given

    def _bust(self) -> BustTrade:
        """Undo one of the last trades, maybe one that is undone already."""
        rng = self.rng
        latest = [*self.ledger.fills][-12:]
        symbol, trade_id = rng.choice(latest)
        return busting(
            *self.ledger.fills[symbol, trade_id],
            client_request_id=rng.choice((None, f"r{rng.randrange(40)}")),
        )


OWN = TimePassed, Shutdown, Restart, Configure, ClockStep


def busting(
    one: tuple[str, Exec], other: tuple[str, Exec], **more: Any
) -> BustTrade:
    """Return what the gateway makes of a bust of the trade of two fills."""
    if one[1].side == "sell":
        one, other = other, one
    (buyer, bought), (seller, sold) = one, other
    assert bought.last_price is not None and bought.last_qty is not None
    assert bought.trade_id is not None
    return BustTrade(
        symbol=bought.symbol,
        trade_id=bought.trade_id,
        price=bought.last_price,
        qty=bought.last_qty,
        buyer=buyer,
        buy_order_id=bought.order_id,
        buy_fee=bought.fee or 0,
        seller=seller,
        sell_order_id=sold.order_id,
        sell_fee=sold.fee or 0,
        reason="why",
        **more,
    )


def busy_day(seed: int, steps: int, slice_ops: int = 0) -> Day:
    """Return a day of at least so many commands."""
    day = Day(random.Random(seed), slice_ops)
    day.run(steps)
    return day


def transcript(seed: int) -> str:
    """Return all that comes of a day with much long work, as it is sent."""
    day = busy_day(seed, 1_500, slice_ops=5)
    return "".join(f"{to}: {encode(e)}\n" for to, e in day.ledger.told)


if __name__ == "__main__":
    sys.stdout.write(transcript(int(sys.argv[1])))
