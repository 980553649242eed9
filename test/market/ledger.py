"""What commands and events say that everybody has, compared with an engine.

It knows every kind of command: trades with fees, settlements, conversions,
dividends, tenders, busts, close-outs and resets. While the engine has long
work, what it has done of it is not known; then only events are followed.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from exchange.market.accounts import HOUSE
from exchange.market.command import (
    Action,
    BustTrade,
    Command,
    Output,
)
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import (
    AcceptTender,
    AccountReport,
    Admin,
    BookUpdate,
    Bust,
    Convert,
    Error,
    Event,
    Exec,
    Instrument,
    Ok,
    Place,
    Settlement,
    Status,
    Tender,
    Trade,
)


class Ledger:
    """An engine and what its events told; `apply` compares the two."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine or Engine()
        self.commands: list[Command] = []
        self.told: list[Output] = []
        self.orders: dict[int, tuple[str, Exec]] = {}  # the open ones
        # Both fills of each trade of this round, by symbol and trade_id.
        self.fills: dict[tuple[str, int], list[tuple[str, Exec]]] = {}
        self.cash: Counter[str] = Counter()
        self.lots: Counter[tuple[str, str]] = Counter()
        self.given: Counter[str] = Counter()  # what accounts did not earn
        # The last offer of each id; a reset that goes on in slices may still
        # tell one of the round before.
        self._tenders: dict[str, Admin] = {}
        self._seqs: Counter[str] = Counter()
        self._settlements: Counter[str] = Counter()  # since the last report
        self._symbol_seqs: Counter[str] = Counter()
        self._trade_ids: Counter[str] = Counter()
        self._done: set[tuple[object, ...]] = set()  # what happens once
        self._levels: defaultdict[tuple[str, str], dict[int, int]]
        self._levels = defaultdict(dict)

    def apply(
        self, action: Action, account: str = "", ts: int = 0, session: str = ""
    ) -> list[tuple[str, Event]]:
        """Apply a command, follow it and its events, and compare."""
        engine = self.engine
        known = set(engine.accounts)
        was_idle, round_before = not engine.work, engine.round
        values = {symbol: engine.value(symbol) for symbol in engine.listings}
        command = Command(
            engine.seq + 1, max(ts, engine.ts + 1), account, session, action
        )
        self.commands.append(command)
        events = in_full(engine.apply(command))
        self.told += events
        engine.check()
        for name in [n for n in engine.accounts if n not in known]:
            self.cash[name] = self.given[name] = engine.limits(name).cash
        if events and not isinstance(events[0][1], Error):
            self._once(account, action, events[0][1], round_before)
            if isinstance(events[0][1], Ok):
                self._act(account, action, values)
        for name, event in events:
            self._read(name, event)
        for update in engine.take_book_updates():
            self._read_book(update)
        if was_idle and not engine.work:
            for name, event in events:
                if isinstance(event, AccountReport):
                    assert event.cash == self.cash[name]
        if not engine.work:
            self.compare()
        return events

    def compare(self) -> None:
        """Compare all that is known with the engine, which is idle."""
        engine = self.engine
        accounts = engine.accounts.values()
        brought = sum(engine.limits(name).cash for name in engine.accounts)
        assert sum(account.cash for account in accounts) == brought
        for symbol, listing in engine.listings.items():
            held = [a.positions.get(symbol, 0) for a in accounts]
            assert not sum(held), "each lot is somebody's"
            book = engine.snapshot(listing)
            assert book.seq == self._symbol_seqs[symbol]
            for side, levels in (("buy", book.bids), ("sell", book.asks)):
                assert dict(levels) == self._levels[symbol, side]
        is_open: dict[int, str] = {}
        for account in accounts:
            name = account.name
            assert account.cash == self.cash[name]
            for symbol in engine.listings:
                lots = account.positions.get(symbol, 0)
                assert lots == self.lots[name, symbol]
            is_open |= dict.fromkeys(account.open_orders, name)
            if name != HOUSE:
                report = engine.account_report(account)
                earned = report.realized + report.unrealized
                assert report.equity == self.given[name] + earned
        assert is_open == {i: name for i, (name, _) in self.orders.items()}

    # Commands

    def _once(
        self, name: str, action: Action, reply: Event, round: int
    ) -> None:
        """Note what took effect; it must be for the first time."""
        keys: list[tuple[object, ...]] = []
        match action:
            case Place() | Convert() if action.client_order_id is not None:
                keys = [("order", name, action.client_order_id)]
            case AcceptTender():
                keys = [("tender", name, action.tender_id, round)]
            case Admin() | BustTrade() if action.client_request_id is not None:
                keys = [("request", name, action.client_request_id)]
        if isinstance(action, BustTrade):
            keys.append(("bust", action.symbol, action.trade_id))
        for key in keys:
            assert key not in self._done, "it takes effect once"
            self._done.add(key)

    def _act(self, name: str, action: Action, values: dict[str, int]) -> None:
        """Follow a command that moves cash or lots without a trade."""
        match action:
            case Convert():
                conversion = self._instrument(action.symbol).convert
                assert conversion is not None
                qty = action.qty if action.side == "buy" else -action.qty
                self._move(name, action.symbol, qty, 0)
                for part, count in conversion.basket.items():
                    part_qty = -qty * count // conversion.per
                    self._move(name, part, part_qty, 0)
                self.cash.update(
                    {name: -conversion.fee, HOUSE: conversion.fee}
                )
            case AcceptTender():
                tender = self._tenders[action.tender_id]
                sign = 1 if tender.side == "buy" else -1
                bought = sign * (tender.qty or 0)
                assert tender.symbol is not None and tender.price is not None
                self._move(name, tender.symbol, bought, tender.price)
            case BustTrade():
                units = action.price * action.qty
                units *= self._instrument(action.symbol).tick_value
                for user, lots, fee in (
                    (action.buyer, action.qty, action.buy_fee),
                    (action.seller, -action.qty, action.sell_fee),
                ):
                    back = units if lots > 0 else -units
                    self.lots[user, action.symbol] -= lots
                    self.cash.update({user: back + fee, HOUSE: -fee})
            case Admin():
                self._administer(action, values)

    def _administer(self, admin: Admin, values: dict[str, int]) -> None:
        symbol, user = admin.symbol or "", admin.user or ""
        match admin.action:
            case "adjust":
                cash, qty = admin.cash or 0, admin.qty or 0
                self.cash.update({user: cash, HOUSE: -cash})
                self.given[user] += cash + qty * values.get(symbol, 0)
                if qty:
                    self._move(user, symbol, qty, 0)
            case "tender":
                self._tenders[admin.tender_id or ""] = admin
            case "dividend":
                for (name, held), lots in list(self.lots.items()):
                    if held == symbol and name != HOUSE:
                        cash = lots * (admin.amount or 0)
                        self.cash.update({name: cash, HOUSE: -cash})
            case "close_out":
                for symbol, price in (admin.prices or {}).items():
                    self._move(user, symbol, -self.lots[user, symbol], price)
            case "reset":
                self.lots.clear()
                self.fills.clear()
                for name in self.engine.accounts:
                    cash = self.engine.accounts[name].limits.cash
                    self.cash[name] = self.given[name] = cash

    def _move(self, name: str, symbol: str, bought: int, price: int) -> None:
        """Move lots from the exchange's own account, paid at a price."""
        units = bought * price * self._instrument(symbol).tick_value
        self.cash.update({name: -units, HOUSE: units})
        self.lots.update({(name, symbol): bought, (HOUSE, symbol): -bought})

    # Events

    def _read(self, name: str, event: Event) -> None:
        match event:
            case Exec():
                self._count(name, event.seq)
                self._execute(name, event)
            case AccountReport():
                self._count(name, event.seq)
            case Settlement():
                self._settlements[name] += 1
                assert event.position == self.lots[name, event.symbol]
                self._settle(name, event.symbol, event.price)
            case Status(symbol=str(symbol), message=str(message)):
                if message.startswith("settled at "):
                    price = message.removeprefix("settled at ")
                    self._settle(HOUSE, symbol, int(price.partition(":")[0]))
            case Tender():
                offered = self._tenders[event.tender_id]
                for field in ("symbol", "side", "qty", "price"):
                    assert getattr(event, field) == getattr(offered, field)
            case Trade():
                self._trade_ids[event.symbol] += 1
                assert event.trade_id == self._trade_ids[event.symbol]
                self._check_fills(event)
                assert event.round == self.engine.round
            case Bust():
                assert event.seq == self.engine.listings[event.symbol].seq

    def _count(self, name: str, seq: int) -> None:
        """Check a number; a settlement may share that of the next event."""
        more = self._settlements.pop(name, 0)
        assert 1 <= seq - self._seqs[name] <= 1 + more
        self._seqs[name] = seq

    def _execute(self, name: str, told: Exec) -> None:
        before = self.orders.get(told.order_id)
        filled = 0
        if told.exec_type == "new":
            assert ("id", told.order_id) not in self._done
            self._done.add(("id", told.order_id))
        else:
            assert before is not None and before[0] == name
            filled = before[1].cum_qty
        assert told.cum_qty == filled + (told.last_qty or 0)
        self.orders[told.order_id] = name, told
        if not told.leaves_qty:
            del self.orders[told.order_id]
        if told.exec_type == "triggered":
            assert before is not None and before[1].order_status == "waiting"
        if told.last_qty is None:
            return
        assert told.last_price is not None and told.trade_id is not None
        fee = told.fee or 0
        bought = told.last_qty if told.side == "buy" else -told.last_qty
        units = bought * told.last_price
        units *= self._instrument(told.symbol).tick_value
        self.cash.update({name: -units - fee, HOUSE: fee})
        self.lots[name, told.symbol] += bought
        key = told.symbol, told.trade_id
        self.fills.setdefault(key, []).append((name, told))

    def _check_fills(self, trade: Trade) -> None:
        """A trade has two fills, of which one buys what the other sells."""
        fills = self.fills[trade.symbol, trade.trade_id]
        assert sorted(told.side for _, told in fills) == ["buy", "sell"]
        for _, told in fills:
            assert (told.last_qty, told.last_price) == (trade.qty, trade.price)
        (one, _), (other, _) = fills
        assert trade.is_self == (one == other)

    def _settle(self, name: str, symbol: str, price: int) -> None:
        value = price * self._instrument(symbol).tick_value
        self.cash[name] += self.lots.pop((name, symbol), 0) * value

    def _read_book(self, update: BookUpdate) -> None:
        symbol = update.symbol
        assert update.prev_seq == self._symbol_seqs[symbol] < update.seq
        self._symbol_seqs[symbol] = update.seq
        for side, changes in (("buy", update.bids), ("sell", update.asks)):
            levels = self._levels[symbol, side] | dict(changes)
            self._levels[symbol, side] = {p: n for p, n in levels.items() if n}

    def _instrument(self, symbol: str) -> Instrument:
        return self.engine.listings[symbol].instrument
