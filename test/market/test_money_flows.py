"""Random flows in a market with money: no unit and no lot is ever lost.

A ledger of plain fractions follows the events and says what each account
must have paid, and what its open orders may still need.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.market.accounts import CASH_MAX, HOUSE, AccountLimits
from exchange.market.command import (
    Action,
    BustTrade,
    Command,
    Configure,
    Connect,
    Money,
)
from exchange.market.engine import Engine
from orderbook import (
    Admin,
    Amend,
    Cancel,
    Exec,
    Instrument,
    Place,
)
from test.script import in_full, listing

USERS = ("ann", "bob", "cat", "dan")
CENTS = Money(unit="0.01", currency="USD")
# A bond at 1 a tick, a fund at 0.05, a spread that may be below 0 at 0.07.
BOND = listing("BOND", min_price=96, max_price=104, tick_value=100)
FUND = listing("FUND", min_price=1, max_price=9, max_qty=40, tick_value=5)
SPREAD = listing("SPREAD", min_price=-3, max_price=3, tick_value=7)
STARTS = AccountLimits(cash=90_000, min_cash=0)
PLAIN = Configure(instruments=(BOND, FUND, SPREAD), limits=STARTS, money=CENTS)


def charging(**more: Any) -> tuple[Instrument, ...]:
    return tuple(replace(each, **more) for each in PLAIN.instruments)


MARKETS = (
    PLAIN,
    replace(
        PLAIN,
        instruments=charging(taker_fee_bp=30, maker_fee_bp=-10),
    ),
    replace(
        PLAIN,
        instruments=charging(
            taker_fee_bp=9_999,
            maker_fee_bp=7,
            maker_fee=3,
            max_position=9,
        ),
        limits=AccountLimits(cash=90_000, min_cash=50_000),
    ),
    replace(
        PLAIN,
        instruments=charging(
            maker_fee_bp=133,
            taker_fee=-1,
            maker_fee=1,
            short_selling=False,
            self_trades=True,
        ),
        accounts={"dan": AccountLimits(min_cash=-20_000)},
    ),
)


class Ledger:
    """What the events say that accounts have, and what orders may need."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.cash: Counter[str] = Counter()
        self.lots: Counter[tuple[str, str]] = Counter()
        self.orders: dict[int, tuple[str, Exec]] = {}  # the open ones
        self.paid: Counter[int] = Counter()  # by order, bp x units
        self.canceled: Counter[str] = Counter()  # by reason
        self.fills: dict[tuple[str, int], list[tuple[str, Exec]]] = {}

    def apply(self, action: Action, account: str = "") -> None:
        """Apply a command, follow its events, and compare."""
        engine = self.engine
        known = set(engine.accounts)
        before = {
            name: (account.cash, account.positions.copy())
            for name, account in engine.accounts.items()
        }
        command = Command(engine.seq + 1, engine.ts + 1, account, "a", action)
        outputs = in_full(engine, command)
        engine.check()
        for name in set(engine.accounts) - known:
            self.cash[name] = engine.limits(name).cash
        is_done = bool(outputs) and outputs[0][1].type == "ok"
        if isinstance(action, Admin):
            self._follow_admin(action, is_done, before)
        if isinstance(action, BustTrade) and is_done:
            self._follow_bust(action)
        for name, event in outputs:
            if isinstance(event, Exec):
                self._follow(name, event)
        self._compare()
        self._check_orders()
        if not isinstance(action, (Admin, BustTrade, Configure)):
            self._check_fills(before)

    def _follow_admin(
        self,
        admin: Admin,
        is_done: bool,
        before: dict[str, tuple[int, dict[str, int]]],
    ) -> None:
        symbol, house = admin.symbol or "", HOUSE
        if is_done and admin.action == "adjust":
            user, cash = str(admin.user), admin.cash or 0
            self.cash.update({user: cash, house: -cash})
            self.lots.update({(user, symbol): admin.qty or 0})
            self.lots.update({(house, symbol): -(admin.qty or 0)})
        if is_done and admin.action == "settle":
            instrument = self.engine.listings[symbol].instrument
            assert admin.price is not None
            value = admin.price * instrument.tick_value
            for name, (_, positions) in before.items():
                self.cash[name] += value * positions.get(symbol, 0)
                self.lots[name, symbol] = 0

    def _follow_bust(self, trade: BustTrade) -> None:
        instrument = self.engine.listings[trade.symbol].instrument
        units = trade.price * trade.qty * instrument.tick_value
        for name, lots, fee in (
            (trade.buyer, trade.qty, trade.buy_fee),
            (trade.seller, -trade.qty, trade.sell_fee),
        ):
            back = units if lots > 0 else -units
            self.lots[name, trade.symbol] -= lots
            self.cash.update({name: back + fee, HOUSE: -fee})

    def _follow(self, name: str, told: Exec) -> None:
        self.orders[told.order_id] = name, told
        if not told.leaves_qty or told.exec_type in ("canceled", "expired"):
            del self.orders[told.order_id]
        if told.exec_type == "canceled":
            self.canceled[str(told.reason)] += 1
        if told.last_qty is None:
            return
        assert told.last_price is not None and told.trade_id is not None
        key = told.symbol, told.trade_id
        self.fills.setdefault(key, []).append((name, told))
        instrument = self.engine.listings[told.symbol].instrument
        bought = told.last_qty if told.side == "buy" else -told.last_qty
        units = bought * told.last_price * instrument.tick_value
        rate, fee = {
            "maker": (instrument.maker_fee_bp, instrument.maker_fee),
            "taker": (instrument.taker_fee_bp, instrument.taker_fee),
            "auction": (0, 0),
        }[str(told.liquidity)]
        fee *= told.last_qty
        fee -= rounded(self.paid[told.order_id])
        self.paid[told.order_id] += rate * abs(units)
        fee += rounded(self.paid[told.order_id])
        assert told.fee == fee
        self.cash.update({name: -units - fee, HOUSE: fee})
        self.lots[name, told.symbol] += bought

    def _compare(self) -> None:
        engine = self.engine
        for name, account in engine.accounts.items():
            assert account.cash == self.cash[name]
            worth = account.cash
            for symbol, each in engine.listings.items():
                lots = account.positions.get(symbol, 0)
                assert lots == self.lots[name, symbol]
                worth += lots * each.mark() * each.instrument.tick_value
            report = engine.account_report(account)
            assert report.equity == worth
            rows = engine.positions(account)
            gain = sum(row["unrealized"] for row in rows)
            assert report.unrealized == gain
        brought = [engine.limits(n).cash for n in engine.accounts]
        if engine.configured.accounts == {}:
            assert sum(self.cash.values()) == sum(brought)
        for symbol in engine.listings:
            assert not sum(self.lots[n, symbol] for n in engine.accounts)

    def _check_orders(self) -> None:
        """Each order's margin is there, and no order can exceed a limit."""
        engine = self.engine
        reserved: Counter[str] = Counter()
        reach: Counter[tuple[str, str, str]] = Counter()
        for name, told in self.orders.values():
            instrument = engine.listings[told.symbol].instrument
            reserved[name] += needed(told, instrument, self.paid)
            reach[name, told.symbol, told.side] += told.leaves_qty
        for name, account in engine.accounts.items():
            assert account.reserved == reserved[name]
            if reserved[name]:
                assert account.cash - reserved[name] >= floor(account.limits)
        for (name, symbol, side), lots in reach.items():
            position = self.lots[name, symbol]
            lots += position if side == "buy" else -position
            assert lots <= limit_of(engine, name, symbol, side)

    def _check_fills(
        self, before: dict[str, tuple[int, dict[str, int]]]
    ) -> None:
        """No fill takes an account over a limit, or farther over it."""
        for name, (cash, positions) in before.items():
            account = self.engine.accounts[name]
            if name == HOUSE:
                continue
            assert account.cash >= min(floor(account.limits), cash)
            for symbol, now in account.positions.items():
                was = positions.get(symbol, 0)
                most = limit_of(self.engine, name, symbol, "buy")
                assert now <= max(most, was)
                most = limit_of(self.engine, name, symbol, "sell")
                assert -now <= max(most, -was)


def rounded(paid: int) -> int:
    """Round to a unit, half a unit up."""
    return math.floor(Fraction(paid, 10_000) + Fraction(1, 2))


def needed(told: Exec, instrument: Instrument, paid: Counter[int]) -> int:
    """Return what an open order may still cost, in units."""
    assert told.price is not None
    value = told.price * instrument.tick_value
    cost = value if told.side == "buy" else -value
    cost += max(instrument.maker_fee, instrument.taker_fee)
    rate = max(instrument.maker_fee_bp, instrument.taker_fee_bp)
    fee = Fraction(rate * abs(value), 10_000)
    if not fee or cost + fee <= 0:
        return max(0, cost) * told.leaves_qty
    so_far = Fraction(paid[told.order_id], 10_000)
    whole = math.ceil(so_far + fee * told.leaves_qty)
    fees = whole - rounded(paid[told.order_id])
    return max(0, cost) * told.leaves_qty + fees


def floor(limits: AccountLimits) -> int:
    return -CASH_MAX if limits.min_cash is None else limits.min_cash


def limit_of(engine: Engine, name: str, symbol: str, side: str) -> int:
    listed = engine.listings[symbol]
    if side == "sell" and not listed.instrument.short_selling:
        return 0
    most = engine.limits(name).max_position.get(symbol)
    most = listed.instrument.max_position if most is None else most
    return most or listed.position_max


def play(rng: random.Random, steps: int) -> Ledger:
    ledger = Ledger()
    ledger.apply(MARKETS[rng.randrange(3)])
    for user in USERS:
        ledger.apply(Connect(False), user)
    for _ in range(steps):
        dice = rng.randrange(24)
        if dice == 0:
            ledger.apply(rng.choice(MARKETS))
        elif dice < 4:
            ledger.apply(admin(rng), "op")
        elif dice < 5 and ledger.fills:
            key = rng.choice([*ledger.fills])
            ledger.apply(bust(key[1], *ledger.fills.pop(key)), "op")
        elif dice < 8 and ledger.orders:
            order_id, (name, told) = rng.choice([*ledger.orders.items()])
            ledger.apply(change(rng, order_id, told), name)
        else:
            ledger.apply(place(rng), rng.choice(USERS))
    return ledger


def place(rng: random.Random) -> Place:
    instrument = rng.choice((BOND, FUND, SPREAD))
    low, high = instrument.min_price, instrument.max_price
    price = rng.randint(low, high)
    kind: dict[str, Any] = {
        "price": price,
        "time_in_force": rng.choice(("gtc", "gtc", "gtc", "ioc", "fok")),
    }
    if rng.random() < 0.1:
        kind = {"order_type": "market"}
    elif rng.random() < 0.2:
        kind["order_type"] = "stop_limit"
        kind["trigger_price"] = rng.randint(low, high)
    elif kind["time_in_force"] == "gtc" and rng.random() < 0.2:
        kind["display_qty"] = rng.randint(1, 3)
    return Place(
        symbol=instrument.symbol,
        side=rng.choice(("buy", "sell")),
        qty=rng.randint(1, rng.choice((3, 9, 30))),
        stp=rng.choice(("cancel_oldest", "cancel_newest", "none")),
        **kind,
    )


def change(rng: random.Random, order_id: int, told: Exec) -> Amend | Cancel:
    if rng.random() < 0.3:
        return Cancel(order_id=order_id)
    assert told.price is not None
    price = told.price + rng.randint(-2, 2)
    qty = rng.choice((None, max(1, told.qty + rng.randint(-3, 3))))
    return Amend(order_id=order_id, price=price, qty=qty)


def bust(
    trade_id: int, first: tuple[str, Exec], second: tuple[str, Exec]
) -> BustTrade:
    """Undo the trade of two fills, as the gateway asks for it."""
    if first[1].side == "sell":
        first, second = second, first
    (buyer, bought), (seller, sold) = first, second
    assert bought.last_price is not None and bought.last_qty is not None
    return BustTrade(
        symbol=bought.symbol,
        trade_id=trade_id,
        buyer=buyer,
        seller=seller,
        price=bought.last_price,
        qty=bought.last_qty,
        buy_fee=bought.fee or 0,
        sell_fee=sold.fee or 0,
        buy_order_id=bought.order_id,
        sell_order_id=sold.order_id,
        reason="why",
    )


def admin(rng: random.Random) -> Admin:
    symbol = rng.choice(("BOND", "FUND", "SPREAD"))
    user, price = rng.choice(USERS), rng.choice((2, 3, 97, 101))
    fields: dict[str, Any] = rng.choice(
        (
            {"action": "adjust", "cash": rng.randint(-60_000, 60_000)},
            {"action": "adjust", "cash": rng.randint(-900, 900)},
            {"action": "adjust", "symbol": symbol, "qty": rng.randint(-9, 9)},
            {"action": "phase", "phase": "open"},
            {"action": "phase", "phase": "open"},
            {"action": "phase", "phase": "auction", "symbol": symbol},
            {"action": "settle", "symbol": symbol, "price": price},
        )
    )
    if fields["action"] == "adjust":
        fields = {**fields, "user": user}
    return Admin(reason="why", **fields)


@settings(max_examples=150)
@given(st.integers(0, 2**32))
def test_no_unit_and_no_lot_is_lost(seed: int) -> None:
    play(random.Random(seed), 80)


@pytest.mark.parametrize("seed", range(4))
def test_no_unit_and_no_lot_is_lost_on_a_long_day(seed: int) -> None:
    ledger = play(random.Random(seed), 1_500)
    assert ledger.canceled["funds"] > 10
    assert any(ledger.paid.values())
