"""A reader of commands and events that rebuilds the market from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from exchange.market import accounts
from exchange.market.accounts import HOUSE, AccountLimits
from exchange.market.command import (
    PUBLIC,
    Command,
    Configure,
    Output,
    TimePassed,
)
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import (
    AccountReport,
    Admin,
    Amend,
    BookUpdate,
    Cancel,
    CancelAfter,
    CancelAll,
    Error,
    Exec,
    Instrument,
    Ok,
    Place,
    Settlement,
    Status,
    Trade,
    decode_events,
)
from test.market.test_auction import by_trying


class Holding:
    """What an account has, according to the events.

    ``given`` is what it did not earn: the cash of the start, and what an
    administrator gave, lots at their mark.
    """

    def __init__(self, cash: int) -> None:
        self.cash = self.given = cash
        self.realized = 0
        self.positions: Counter[str] = Counter()
        self.costs: Counter[str] = Counter()

    def move(self, symbol: str, bought: int, price: int) -> None:
        """Close lots of the opposite sign, and open the rest."""
        held, cost = self.positions[symbol], self.costs[symbol]
        closed = min(abs(bought), abs(held)) if held * bought < 0 else 0
        share = cost * closed // abs(held) if closed else 0
        sign = 1 if bought > 0 else -1
        self.realized -= sign * closed * price + share
        self.costs[symbol] += price * (bought - sign * closed) - share
        self.positions[symbol] += bought


class Follower:
    """A reader of every command and event, which knows nothing else.

    ``read`` takes in what came of a command, and holds it against the rules;
    ``compare`` holds what was learned so far against the engine.
    """

    def __init__(self) -> None:
        self.ts = 0
        self.seqs: Counter[str] = Counter()
        self.orders: dict[int, Exec] = {}  # the last word on each open one
        self.owners: dict[int, str] = {}
        self.finished: set[int] = set()
        self.configured = Configure(instruments=())
        self.instruments: dict[str, Instrument] = {}
        self.holdings = {HOUSE: Holding(0)}
        self.started = 0  # the cash all began with
        self.killed: set[str] = set()
        self.phases: dict[str, str] = {}
        self.last: dict[str, int] = {}
        self.frozen: dict[str, int] = {}  # the marks of the closed ones
        # This command, and the instruments before it:
        self.command = Command(0, 0, "", "", TimePassed())
        self.references: dict[str, int] = {}
        self.known: dict[str, int | None] = {}  # None: nothing gives one
        self.before: dict[str, str] = {}
        self.reports: dict[str, AccountReport] = {}
        self.traded: set[str] = set()
        # Position, price and profit of each holder who is not told yet.
        self.settled: dict[tuple[str, str], tuple[int, int, int]] = {}
        self.auctioned: defaultdict[str, Counter[int]]
        # After the previous command:
        self.free: Counter[str] = Counter()
        self.reach: Counter[tuple[str, str, str]] = Counter()
        self.open: Counter[str] = Counter()
        # The public data:
        self.seen: dict[str, BookUpdate] = {}  # the book after a command
        self.changed: dict[str, int] = {}  # when the book last did
        self.book_seqs: Counter[str] = Counter()
        self.trade_ids: Counter[str] = Counter()
        self.volumes: Counter[str] = Counter()
        self.levels: defaultdict[tuple[str, str], dict[int, int]]
        self.levels = defaultdict(dict)

    def read(self, command: Command, outputs: list[Output]) -> None:
        """Read the events of a command."""
        assert command.ts > self.ts
        self.ts = command.ts
        self.command = command
        self.before = dict(self.phases)
        self.references = {s: self.reference(s) for s in self.phases}
        self.known = {
            s: self.reference(s) if s in self.last or is_priced(i) else None
            for s, i in self.instruments.items()
        }
        self.reports.clear()
        self.traded.clear()
        self.settled.clear()
        self.auctioned = defaultdict(Counter)
        moved = self._act(command, outputs)
        self._reply(command, outputs)
        # An account follows its settlements directly.
        money = (Settlement, AccountReport)
        order: list[Any] = [(Exec, Ok, Error), money, Status, Trade]
        parts = [
            next(n for n, kind in enumerate(order) if isinstance(event, kind))
            for _, event in outputs
        ]
        assert parts == sorted(parts), "executions, accounts, news, trades"
        for _, event in outputs:
            if isinstance(event, Status) and event.phase is not None:
                assert event.symbol is not None
                self._enter(event.symbol, event.phase)
        fills: defaultdict[tuple[str, int | None], list[Exec]]
        fills = defaultdict(list)
        reported: list[str] = []
        for recipient, event in outputs:
            assert recipient != HOUSE
            match event:
                case Exec():
                    self._exec(recipient, event)
                    if event.exec_type == "trade":
                        fills[event.symbol, event.trade_id].append(event)
                        moved[recipient] = None
                case Settlement():
                    self._settlement(recipient, event)
                case AccountReport():
                    self._account(recipient, event)
                    reported.append(recipient)
                case Status():
                    assert recipient == PUBLIC and event.message
                case Trade():
                    assert recipient == PUBLIC
                    self.traded.add(event.symbol)
                    self._trade(
                        event, *fills.pop((event.symbol, event.trade_id))
                    )
        assert not fills, "each match is public"
        self.settled = {k: v for k, v in self.settled.items() if k[0] != HOUSE}
        assert not self.settled, "each holder is told"
        assert reported == list(moved), "one for each account that moved"
        self._check_auctions(outputs)

    def read_books(self, updates: list[BookUpdate]) -> None:
        """Read the changes of the books since the last time."""
        for told in updates:
            symbol = told.symbol
            assert told.prev_seq == self.book_seqs[symbol] < told.seq
            assert told.seq == self.seen[symbol].seq
            assert told.ts == self.changed[symbol]
            assert told.bids or told.asks
            self.book_seqs[symbol] = told.seq
            for side, changes in (("buy", told.bids), ("sell", told.asks)):
                levels = self.levels[symbol, side]
                for price, qty in changes:
                    levels.pop(price, None)
                    if qty:
                        levels[price] = qty
        for symbol, seen in self.seen.items():
            bids, asks = (
                tuple(sorted(self.levels[symbol, side].items()))
                for side in ("buy", "sell")
            )
            assert seen.seq == self.book_seqs[symbol]
            assert (seen.bids, seen.asks) == (bids[::-1], asks)

    def compare(self, engine: Engine) -> None:
        """Compare everything known with the engine."""
        engine.check()
        held = self.holdings.values()
        assert sum(holding.cash for holding in held) == self.started
        for symbol, listing in engine.listings.items():
            assert listing.phase == self.phases[symbol]
            assert listing.book.is_collecting == (listing.phase != "open")
            self._look(engine.snapshot(listing))
            assert not sum(holding.positions[symbol] for holding in held)
            ticker = engine.ticker(listing, 1)
            assert ticker.volume == self.volumes[symbol]
            assert ticker.last == self.last.get(symbol)
            assert listing.trade_id == self.trade_ids[symbol]
            assert engine.mark(symbol) == self.mark(symbol)
        open_orders: dict[int, Exec] = {}
        for name, account in engine.accounts.items():
            assert account.seq == self.seqs[name]
            holding = self.holdings[name]
            assert account.cash == holding.cash
            assert account.positions == holding.positions
            if name != HOUSE:
                self._compare_profit(name, engine.account_report(account))
            orders = list(account.open_orders.values())
            for order, text in zip(
                orders, engine.order_reports(orders), strict=True
            ):
                (report,) = decode_events(text)
                assert isinstance(report, Exec)
                assert self.owners[order.order_id] == name
                open_orders[order.order_id] = report
        for name, told in self.reports.items():
            self._compare_profit(name, told)
        assert open_orders.keys() == self.orders.keys()
        for order_id, last_told in self.orders.items():
            assert lasting(last_told) == lasting(open_orders[order_id])
        self._check_limits(engine)

    def reference(self, symbol: str) -> int:
        configured = self.instruments[symbol].reference_price
        return self.last.get(symbol, configured)

    def mark(self, symbol: str) -> int:
        if symbol in self.frozen:
            return self.frozen[symbol]
        book, reference = self.seen[symbol], self.reference(symbol)
        if not book.bids or not book.asks:
            return reference
        return sorted((book.bids[0][0], reference, book.asks[0][0]))[1]

    # Effects of a command besides its events

    def _act(self, command: Command, outputs: list[Output]) -> dict[str, None]:
        """Read a command; return the accounts whose money it moves itself."""
        action = command.action
        if isinstance(action, Configure):
            self.configured = action
            for instrument in action.instruments:
                self.instruments[instrument.symbol] = instrument
                self.phases.setdefault(instrument.symbol, instrument.phase)
        elif isinstance(action, Admin):
            if isinstance(outputs[0][1], Ok):
                return self._administer(action)
        elif command.account and command.account not in self.holdings:
            cash = self._limits(command.account).cash
            self.holdings[command.account] = Holding(cash)
            self.started += cash
        return {}

    def _administer(self, admin: Admin) -> dict[str, None]:
        moved: dict[str, None] = {}
        symbol, user, qty = admin.symbol or "", admin.user or "", admin.qty
        match admin.action:
            case "suspend" | "kill":
                self.killed.add(user)
            case "resume" | "unkill":
                self.killed.discard(user)
            case "adjust":
                holding, house = self.holdings[user], self.holdings[HOUSE]
                holding.cash += admin.cash or 0
                holding.given += admin.cash or 0
                house.cash -= admin.cash or 0
                if qty:
                    holding.given += qty * self.mark(symbol)
                    holding.move(symbol, qty, self.mark(symbol))
                    house.move(symbol, -qty, self.mark(symbol))
                return {user: None}
            case "settle":
                for name, holding in self.holdings.items():
                    position = holding.positions[symbol]
                    if position:
                        assert admin.price is not None
                        realized = holding.realized
                        holding.cash += position * admin.price
                        holding.move(symbol, -position, admin.price)
                        self.settled[name, symbol] = (
                            position,
                            admin.price,
                            holding.realized - realized,
                        )
                        moved[name] = None
            case "reset":
                for name in self.holdings:
                    self.holdings[name] = Holding(self._limits(name).cash)
                    moved[name] = None
                held = self.holdings.values()
                self.started = sum(holding.cash for holding in held)
                self.last.clear()
                self.volumes.clear()
        moved.pop(HOUSE, None)
        return moved

    def _enter(self, symbol: str, phase: str) -> None:
        """Begin a phase; "closed" keeps the mark.

        It is the mark before the command, or of a settlement, which cancels
        the orders first, the one after that.
        """
        word = getattr(self.command.action, "action", "")
        mark = self.mark(symbol)
        is_closed = self.frozen.pop(symbol, None) is not None
        if word == "settle" and not is_closed:
            mark = self.reference(symbol)
        if phase == "closed" and word != "reset":
            self.frozen[symbol] = mark
        self.phases[symbol] = phase

    def _limits(self, name: str) -> AccountLimits:
        if name == HOUSE:
            return AccountLimits()
        return self.configured.accounts.get(name, self.configured.limits)

    # The rules of each event

    def _reply(self, command: Command, outputs: list[Output]) -> None:
        action = command.action
        expected: dict[type, tuple[str, ...]] = {
            Place: ("error", "new"),
            Amend: ("error", "amended", "canceled"),
            Cancel: ("error", "canceled"),
            CancelAll: ("error", "ok"),
            CancelAfter: ("error", "ok"),
            Admin: ("error", "ok"),
        }
        later = [event for _, event in outputs]
        if type(action) in expected:
            recipient, reply = outputs[0]
            word = reply.exec_type if isinstance(reply, Exec) else reply.type
            assert word in expected[type(action)]
            assert recipient == command.account
            assert len(outputs) == 1 or not isinstance(reply, Error)
            if isinstance(reply, Error):
                return
            later.pop(0)
            assert isinstance(reply, (Exec, Ok)) and reply.ts == command.ts
            if isinstance(reply, Exec) and word in ("new", "amended"):
                self._accepted(recipient, reply)
        for event in later:
            assert isinstance(
                event, (Exec, Settlement, AccountReport, Status, Trade)
            )
            assert event.ts == command.ts
            if isinstance(event, Exec):
                assert event.exec_type in ("trade", "canceled", "expired")

    def _accepted(self, name: str, told: Exec) -> None:
        assert name not in self.killed
        phase = self.before[told.symbol]
        assert phase in ("pre_open", "auction", "open")
        if phase != "open":
            assert told.time_in_force in ("gtc", "gtd")
        action, instrument = self.command.action, self.instruments[told.symbol]
        assert isinstance(action, (Place, Amend))
        if instrument.collar and action.price is not None:
            beyond = action.price - self.references[told.symbol]
            beyond *= 1 if told.side == "buy" else -1
            assert beyond <= instrument.collar

    def _exec(self, recipient: str, told: Exec) -> None:
        order_id = told.order_id
        self._count(recipient, told.seq)
        assert order_id not in self.finished, "never heard of again"
        before = self.orders.get(order_id)
        if before is None:
            assert told.exec_type == "new" and not told.cum_qty
            assert order_id == len(self.owners) + 1, "no id left out"
            self.owners[order_id] = recipient
        else:
            assert told.exec_type != "new"
            assert self.owners[order_id] == recipient
            may_change = told.exec_type == "amended"
            assert lasting(told, may_change) == lasting(before, may_change)
        cum_qty = before.cum_qty if before else 0
        cum_cost = before.cum_cost if before else 0
        if told.exec_type == "trade":
            assert told.last_qty and told.last_price is not None
            cum_qty += told.last_qty
            cum_cost += told.last_qty * told.last_price
            self._fill(recipient, told, told.last_qty, told.last_price)
        else:
            nothing = (None,) * 5
            assert nothing == (
                told.last_qty,
                told.last_price,
                told.trade_id,
                told.liquidity,
                told.fee,
            )
        assert (told.cum_qty, told.cum_cost) == (cum_qty, cum_cost)
        ended = told.exec_type in ("canceled", "expired")
        assert (told.reason is not None) == ended
        by_admin = isinstance(self.command.action, Admin)
        assert told.reason not in ("admin", "closed") or by_admin
        assert told.leaves_qty == (0 if ended else told.qty - cum_qty)
        assert told.order_status == (
            told.exec_type
            if ended
            else (
                "filled"
                if cum_qty == told.qty
                else "partially_filled" if cum_qty else "new"
            )
        )
        if told.time_in_force == "fok":
            assert not ended or not cum_qty, "all or nothing"
        if told.leaves_qty:
            self.orders[order_id] = told
        else:
            self.finished.add(order_id)
            self.orders.pop(order_id, None)

    def _fill(self, name: str, told: Exec, qty: int, price: int) -> None:
        sign = 1 if told.side == "buy" else -1
        if told.price is not None:  # never worse than the limit
            assert sign * price <= sign * told.price
        assert not told.post_only or told.liquidity != "taker"
        assert told.reason is None
        instrument = self.instruments[told.symbol]
        assert told.fee == qty * {
            "maker": instrument.maker_fee,
            "taker": instrument.taker_fee,
            "auction": 0,
        }.get(told.liquidity or "")
        holding = self.holdings[name]
        holding.cash -= sign * qty * price + told.fee
        holding.realized -= told.fee
        holding.move(told.symbol, sign * qty, price)
        self.holdings[HOUSE].cash += told.fee

    def _settlement(self, recipient: str, told: Settlement) -> None:
        """Take what is told of a settlement, whose cash moved already."""
        assert told.seq == self.seqs[recipient] + 1, "its account's"
        assert (told.position, told.price, told.realized) == self.settled.pop(
            (recipient, told.symbol)
        )

    def _account(self, recipient: str, told: AccountReport) -> None:
        self._count(recipient, told.seq)
        holding = self.holdings[recipient]
        assert told.cash == holding.cash
        assert told.positions == holding.positions
        self.reports[recipient] = told

    def _compare_profit(self, name: str, told: AccountReport) -> None:
        holding = self.holdings[name]
        worth = {s: n * self.mark(s) for s, n in told.positions.items()}
        assert told.equity == holding.cash + sum(worth.values())
        assert told.realized == holding.realized
        costs = holding.costs.total()
        assert told.unrealized == sum(worth.values()) - costs
        assert told.equity == holding.given + told.realized + told.unrealized

    def _trade(self, told: Trade, first: Exec, second: Exec) -> None:
        symbol = told.symbol
        self.trade_ids[symbol] += 1
        self.volumes[symbol] += told.qty
        self.last[symbol] = told.price
        assert told.trade_id == self.trade_ids[symbol]
        assert told.seq == self.seen[symbol].seq + 1
        for fill in (first, second):
            assert (fill.last_price, fill.last_qty) == (told.price, told.qty)
        assert self.owners[first.order_id] != self.owners[second.order_id]
        assert first.side != second.side
        words = first.liquidity, second.liquidity
        if self.before[symbol] != "open":
            assert self.phases[symbol] == "open" and first.side == "buy"
            assert words == ("auction", "auction")
            younger = max(first, second, key=lambda fill: fill.order_id)
            assert told.side == younger.side
            self.auctioned[symbol][told.price] += told.qty
            return
        assert words == ("taker", "maker")
        assert told.side == first.side and told.price == second.price
        band = self.instruments[symbol].band
        if band:
            assert abs(told.price - self.references[symbol]) <= band

    def _check_auctions(self, outputs: list[Output]) -> None:
        """Compare each auction price with the book published before."""
        if any(isinstance(e, Exec) and e.reason for _, e in outputs):
            return  # the book was another one by then
        for symbol, book in self.seen.items():
            expected = {}
            if self.phases[symbol] == "open" != self.before[symbol]:
                reference = self.known[symbol]
                best = by_trying(book.bids, book.asks, reference)
                if best is not None:
                    expected[best.price] = best.lots
            assert self.auctioned[symbol] == expected

    def _check_limits(self, engine: Engine) -> None:
        """Compare what each account has at stake with its limits.

        What is beyond a limit may not grow, save by an administrator.
        """
        lots: Counter[tuple[str, str, str]] = Counter()
        reserved: Counter[str] = Counter()
        open_orders: Counter[str] = Counter()
        for order_id, told in self.orders.items():
            name = self.owners[order_id]
            instrument = self.instruments[told.symbol]
            assert told.price is not None
            price = told.price if told.side == "buy" else -told.price
            fee = max(0, instrument.maker_fee, instrument.taker_fee)
            lots[name, told.symbol, told.side] += told.leaves_qty
            reserved[name] += max(0, price + fee) * told.leaves_qty
            open_orders[name] += 1
        free, reach = Counter[str](), Counter[tuple[str, str, str]]()
        lowered = isinstance(self.command.action, (Configure, Admin))
        for name, account in engine.accounts.items():
            limits, holding = self._limits(name), self.holdings[name]
            assert account.reserved == reserved[name]
            least = limits.min_cash
            least = -accounts.CASH_MAX if least is None else least
            free[name] = holding.cash - reserved[name] - least
            most = limits.open_orders or 10**9
            assert open_orders[name] <= max(most, self.open[name])
            for symbol, instrument in self.instruments.items():
                position = holding.positions[symbol]
                most = limits.max_position.get(symbol, instrument.max_position)
                most = most or engine.listings[symbol].position_max
                for side in ("buy", "sell"):
                    key = name, symbol, side
                    held = getattr(account, f"{side}ing").get(symbol, 0)
                    assert held == lots[key]
                    reach[key] = lots[key] + position
                    if side == "sell":
                        reach[key] = lots[key] - position
                        most *= instrument.short_selling
                    if not lowered:
                        assert reach[key] <= max(most, self.reach[key])
            if not lowered:
                assert free[name] >= min(0, self.free[name])
        self.free, self.reach, self.open = free, reach, open_orders

    def _look(self, book: BookUpdate) -> None:
        """Check that ``seq`` counts the commands that change the book."""
        before = self.seen.get(book.symbol)
        self.seen[book.symbol] = book
        if before is not None:
            changed = (book.bids, book.asks) != (before.bids, before.asks)
            assert changed or book.symbol not in self.traded
            assert book.seq == before.seq + changed
            if changed:
                self.changed[book.symbol] = self.ts

    def _count(self, recipient: str, seq: int) -> None:
        self.seqs[recipient] += 1
        assert seq == self.seqs[recipient]


def is_priced(instrument: Instrument) -> bool:
    """Whether an instrument has a reference price before its first trade."""
    i = instrument
    return bool(i.reference_price or i.collar or i.band)


def lasting(told: Exec, amended: bool = False) -> dict[str, Any]:
    """Return the fields that a later report of the order repeats."""
    names = "order_id client_order_id symbol side order_type time_in_force"
    names += " expire_ts post_only stp"
    names += "" if amended else " price qty"
    return {name: getattr(told, name) for name in names.split()}


def follow(commands: Iterable[Command], per_batch: int) -> Follower:
    """Lead an engine and a follower through a flow, and compare them."""
    engine, follower = Engine(), Follower()
    for command in commands:
        follower.read(command, in_full(engine.apply(command)))
        follower.compare(engine)
        if command.seq % per_batch == 0:
            follower.read_books(engine.take_book_updates())
            assert not engine.take_book_updates()
        if isinstance(command.action, TimePassed):
            due = engine.next_deadline
            assert due is None or due > command.ts
    return follower
