"""The exchange as a state machine: ``Engine.apply(command) -> outputs``.

The engine owns every book and account. It gets sequence number, time and
identity as data; it reads no clock and no setting, makes no random choice,
iterates no set, uses no float and calls nobody back. So the same commands
give the same outputs, to the byte, wherever and whenever they are applied.

What comes out is a list of (recipient, event): an account's name for its
private events, PUBLIC for what everybody may see. A request is answered by
the first output, addressed to its account; then come the executions as they
happened, one ``AccountReport`` for each account whose cash or positions
moved, then the public ``Status`` and trades. What the commands did to the
books is fetched with ``Engine.take_book_updates()`` when somebody wants to
know.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, assert_never

from exchange.market.accounts import (
    HOUSE,
    VALUE_MAX,
    Account,
    AccountLimits,
    leaderboard,
    unit_cost,
)
from exchange.market.auction import clearing_price
from exchange.market.listing import Listing
from orderbook import (
    MAX_INT,
    MAX_ROWS,
    RESTED,
    AccountReport,
    Admin,
    Amend,
    BookUpdate,
    Cancel,
    CancelAfter,
    CancelAll,
    Event,
    Exec,
    ExecType,
    Instrument,
    Liquidity,
    Ok,
    Order,
    OrderBook,
    OrderStatus,
    Phase,
    Place,
    Reason,
    Refused,
    Side,
    Status,
    Sweep,
    Ticker,
    Trade,
)

# The version of the rules. A change of any output is a new version, save for
# the texts for people: `message` of refusals and statuses.
ENGINE_VERSION = 2
RULES = range(2, ENGINE_VERSION + 1)  # the versions that can be applied
PUBLIC = ""  # the recipient of public events; no account has this name
# Deadlines one tick fires: what is due beyond them is fired by the next
# tick. One switch of `cancel_after` counts as one, as a `cancel_all` does.
DEADLINES_PER_TICK = 1_000
DEADLINES_MIN = 1_000  # kept before stale ones are looked for
# In the place of an order id: a phase ends after the orders that expire then.
PHASE_ENDS = MAX_INT

Output: TypeAlias = tuple[str, Event]
# Quantity, price, trade id, liquidity and fee of one order's part in a trade.
Fill: TypeAlias = (
    tuple[int, int, int, Liquidity, int] | tuple[None, None, None, None, None]
)
NO_FILL: Fill = (None, None, None, None, None)
# When, which order or PHASE_ENDS or 0, and whose: see `Engine._deadlines`.
Deadline: TypeAlias = tuple[int, int, str]


# Commands that are no requests --------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Configure:
    """The market as it shall be; the first command of all.

    ``limits`` hold for every account that ``accounts`` has none of its own
    for. An instrument's phase is the one that it begins in.
    """

    type: Literal["configure"] = "configure"
    instruments: tuple[Instrument, ...]
    limits: AccountLimits = AccountLimits()
    accounts: dict[str, AccountLimits] = field(default_factory=dict)
    engine_version: int = ENGINE_VERSION


@dataclass(frozen=True, slots=True)
class Connect:
    """A login succeeded: the command's session begins or is taken over."""

    cancel_on_disconnect: bool
    is_admin: bool = False
    type: Literal["connect"] = "connect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnect:
    """The connection of the command's session ended."""

    type: Literal["disconnect"] = "disconnect"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed: fire what is due."""

    type: Literal["tick"] = "tick"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """Every connection ends, in order."""

    type: Literal["shutdown"] = "shutdown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A new process goes on: every connection of the old one has ended."""

    type: Literal["restart"] = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """The clock is about to be set forward, though no time has passed.

    What was to last for a time still does: `cancel_after`, and phases that
    end by themselves. An ``expire_ts`` is a time of the clock and stays.
    """

    type: Literal["clock_step"] = "clock_step"
    forward_us: int


Action: TypeAlias = (
    Place
    | Amend
    | Cancel
    | CancelAll
    | CancelAfter
    | Connect
    | Disconnect
    | Tick
    | Configure
    | Shutdown
    | Restart
    | Admin
    | ClockStep
)


@dataclass(slots=True)
class Command:
    """One stamped step: what to do, when, and on whose behalf.

    ``seq`` counts 1, 2, 3, ...; ``ts`` is in microseconds since the epoch
    and strictly increases. ``account`` and ``session`` are "" for the
    exchange's own commands.
    """

    seq: int
    ts: int
    account: str
    session: str
    action: Action


# State --------------------------------------------------------------------


class Engine:
    """All books and accounts, moved by one command at a time.

    ``listings``, ``accounts``, ``seq``, ``ts``, ``order_id`` and
    ``configured``, the last `Configure`, are there to be read.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.ts = 0
        self.configured = Configure(instruments=())
        self.listings: dict[str, Listing] = {}
        self.accounts: dict[str, Account] = {}
        self.order_id = 0  # of the last order accepted
        # (ts, order id, "") of gtd orders; (ts, 0, account) of the switches
        # of cancel_after; (ts, PHASE_ENDS, symbol) of phases. An entry
        # outlives what it is about: `_is_due`.
        self._deadlines: list[Deadline] = []
        self.earliest = MAX_INT  # no deadline is before that
        self._deadlines_max = DEADLINES_MIN
        self._gtd: dict[int, Order] = {}
        # Of the command at hand:
        self._outputs: list[Output] = []
        self._moved: dict[str, Account] = {}
        self._touched: dict[str, Listing] = {}
        self._news: list[Status] = []
        # With changes that `take_book_updates` has not yet handed out:
        self._stirred: dict[str, Listing] = {}

    def apply(self, command: Command) -> list[Output]:
        """Carry out one command and return what came of it.

        A request that the rules refuse changes nothing but ``seq`` and
        ``ts``; its only output is an ``Error``. Any exception is a bug.
        """
        assert command.seq == self.seq + 1 and command.ts > self.ts
        self.seq = command.seq
        self.ts = command.ts
        outputs: list[Output] = []
        self._outputs = outputs
        try:
            action = command.action
            if action.__class__ is Place:  # as most are
                self._place(command, action)
            else:
                self._dispatch(command)
        except Refused as refusal:
            assert not outputs, "refused before anything happened"
            return [(command.account, refusal.as_error())]
        if self._moved:
            self._report_accounts()
        if self._news:
            outputs.extend((PUBLIC, status) for status in self._news)
            self._news.clear()
        if self._touched:
            self._report_trades()
        return outputs

    def take_book_updates(self) -> list[BookUpdate]:
        """Return what changed in each book since the last call.

        Net of all commands in between, because nobody needs more: a reader
        gets the quantities as they are, not how they came about.
        """
        updates = []
        for symbol, listing in self._stirred.items():
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
        self._stirred.clear()
        return updates

    @property
    def next_deadline(self) -> int | None:
        """When the next `tick` is due, in microseconds; None: never."""
        while self._deadlines and not self._is_due(self._deadlines[0]):
            heapq.heappop(self._deadlines)
        due = self._deadlines[0][0] if self._deadlines else None
        self.earliest = MAX_INT if due is None else due
        return due

    # Views, for subscriptions and `get`

    def listing(self, symbol: str | None) -> Listing:
        """Return a listing by its symbol, or the only one.

        Raises Refused: "unknown_symbol", or "bad_request" where the symbol
        is left out and several are listed.
        """
        if symbol in self.listings:
            return self.listings[symbol]
        if symbol is not None:
            raise Refused(
                "unknown_symbol", f"{symbol} is not listed", field="symbol"
            )
        if len(self.listings) > 1:
            raise Refused(
                "bad_request",
                "symbol: needed where several are listed",
                field="symbol",
            )
        (only,) = self.listings.values()
        return only

    def mark(self, symbol: str) -> int:
        """Return the price positions in a symbol are valued at."""
        return self.listings[symbol].mark()

    def snapshot(self, listing: Listing) -> BookUpdate:
        """Return the whole book of a listing."""
        return BookUpdate(
            symbol=listing.instrument.symbol,
            seq=listing.seq,
            ts=self.ts,
            snapshot=True,
            bids=listing.book.depth("buy"),
            asks=listing.book.depth("sell"),
        )

    def ticker(self, listing: Listing, ts: int) -> Ticker:
        """Return the top of a book, the last price and the volume."""
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

    def account_report(self, account: Account) -> AccountReport:
        """Return an account's state under its current ``seq``."""
        equity = account.equity(self.mark)
        return AccountReport(  # in the order of its fields, for speed
            account.seq,
            self.ts,
            account.cash,
            account.positions.copy(),
            equity,
            account.realized,
            account.unrealized(equity),
        )

    def positions(
        self, account: Account, symbol: str | None = None
    ) -> list[dict[str, Any]]:
        """Return each position of an account that is not 0, as a row.

        ``cost`` is what its lots were bought for, below 0: sold for.
        """
        rows: list[dict[str, Any]] = []
        for name, position in account.positions.items():
            if position and symbol in (None, name):
                cost, mark = account.costs[name], self.mark(name)
                rows.append(
                    {
                        "symbol": name,
                        "position": position,
                        "cost": cost,
                        "mark": mark,
                        "unrealized": position * mark - cost,
                    }
                )
        return rows

    def order_reports(self, orders: Iterable[Order]) -> Iterator[Exec]:
        """Yield orders as they are, under their account's current ``seq``."""
        for order in orders:
            yield Exec(  # in the order of its fields, for speed
                self.accounts[order.account].seq,
                self.ts,
                "status",
                order.order_id,
                order.symbol,
                order.side,
                order.order_status,
                order.qty,
                order.cum_qty,
                order.leaves_qty,
                order.cum_cost,
                order.price,
                order.client_order_id,
                order.order_type,
                order.time_in_force,
                order.expire_ts,
                order.post_only,
                order.stp,
            )

    def leaderboard(self) -> list[dict[str, Any]]:
        """Return the richest accounts as rows, as many as one may ask for."""
        return leaderboard(self.accounts.values(), self.mark, MAX_ROWS)

    # Actions

    def _dispatch(self, command: Command) -> None:
        action = command.action
        match action:
            case Amend():
                self._amend(self._account(command.account), action)
            case Cancel():
                account = self._account(command.account)
                order = account.find(action.order_id, action.client_order_id)
                self._cancel(order, "canceled", "user")
            case CancelAll():
                self._cancel_all(self._account(command.account), action)
            case CancelAfter():
                self._cancel_after(self._account(command.account), action)
            case Connect():
                account = self._account(command.account)
                account.is_admin = action.is_admin
                account.connect(command.session, action.cancel_on_disconnect)
            case Disconnect():
                account = self._account(command.account)
                self._cut(account.disconnect(command.session))
            case Tick():
                self._tick()
            case Admin():
                self._administer(command.account, action)
            case Configure():
                self._configure(action)
            case ClockStep():
                self._postpone(action.forward_us)
            case Shutdown() | Restart():
                orders = [
                    order
                    for account in self.accounts.values()
                    for session in account.sessions
                    for order in account.disconnect(session)
                ]
                self._cut(sorted(orders, key=lambda o: o.order_id))
            case Place():
                self._place(command, action)
            case _:
                assert_never(action)

    def _place(self, command: Command, request: Place) -> None:
        name = command.account
        account = self.accounts.get(name) or self._account(name)
        client_order_id, expire_ts = request.client_order_id, request.expire_ts
        if (
            client_order_id in account.by_client_order_id
            or expire_ts is not None
            or account.is_killed
        ):
            self._refuse_early(account, request)
        listing = self.listing(request.symbol)
        instrument = listing.instrument
        side, qty, price = request.side, request.qty, request.price
        tif = request.time_in_force
        if tif is None:
            tif = "ioc" if request.order_type == "market" else "gtc"
        if listing.phase != "open":
            listing.check_phase(request.order_type, tif)
        listing.check_bounds(side, price, qty)
        limit = listing.worst_price(side) if price is None else price
        if tif == "gtc" or tif == "gtd":
            account.check_count()
        account.check_position(instrument, side, qty, listing.position_max)
        cost = unit_cost(instrument, side, limit)
        account.check_funds(qty * cost)
        order_id = self.order_id + 1
        order = Order(  # in the order of its fields, for speed
            order_id,
            name,
            side,
            qty,
            instrument.symbol,
            price,
            request.order_type,
            tif,
            expire_ts,
            request.post_only,
            request.stp,
            client_order_id,
            command.session,
            cost,
        )
        band = listing.band if instrument.band else None
        sweep = listing.book.place(order, limit, band, account.open_orders)
        self.order_id = order_id
        account.accept(order)
        if sweep is not RESTED:
            self._arrived(account, listing, order, "new", sweep, 0, 0)
        else:  # as most do: what `_arrived` comes to, for speed
            self._stir(listing)
            seq = account.seq = account.seq + 1
            report = Exec(
                seq,
                self.ts,
                "new",
                order_id,
                instrument.symbol,
                side,
                "new",
                qty,
                0,
                qty,
                0,
                price,
                client_order_id,
                request.order_type,
                tif,
                expire_ts,
                request.post_only,
                request.stp,
            )
            self._outputs.append((name, report))
        if expire_ts is not None and order.is_open:
            self._gtd[order_id] = order
            self._add_deadline((expire_ts, order_id, ""))

    def _refuse_early(self, account: Account, request: Place) -> None:
        """Refuse a repeated order, a late one, or a suspended account's.

        Of a repeat, that it is one says more than that its time is over, or
        its account suspended, meanwhile.
        """
        known = account.by_client_order_id.get(request.client_order_id or "")
        expire_ts = request.expire_ts
        if known is not None:
            self.listing(request.symbol)
            raise Refused(
                "duplicate_client_order_id",
                f"{request.client_order_id} is order {known.order_id}",
                field="client_order_id",
                order_id=known.order_id,
                order_status=known.order_status,
                cum_qty=known.cum_qty,
            )
        if expire_ts is not None and expire_ts <= self.ts:
            raise Refused(
                "bad_request",
                "expire_ts: is not in the future",
                field="expire_ts",
            )
        if account.is_killed:
            if request.symbol is None:
                self.listing(None)
            self._refuse_killed()

    def _amend(self, account: Account, request: Amend) -> None:
        if account.is_killed:
            self._refuse_killed()
        order = account.find(request.order_id, request.client_order_id)
        listing = self.listings[order.symbol]
        instrument = listing.instrument
        listing.check_phase(order.order_type, order.time_in_force)
        listing.check_bounds(order.side, request.price, request.qty)
        price = order.price if request.price is None else request.price
        qty = order.qty if request.qty is None else request.qty
        assert price is not None
        held, leaves_qty = order.leaves_qty, qty - order.cum_qty
        cost = unit_cost(instrument, order.side, price)
        if leaves_qty > held:
            more = leaves_qty - held
            most = listing.position_max
            account.check_position(instrument, order.side, more, most)
        if leaves_qty * cost > held * order.unit_cost:
            account.check_funds(leaves_qty * cost - held * order.unit_cost)
        cum_qty, cum_cost = order.cum_qty, order.cum_cost
        sweep = listing.book.amend(
            order.order_id,
            request.price,
            request.qty,
            listing.band,
            account.open_orders,
        )
        if sweep.reason == "user":
            self._touched[order.symbol] = listing
            self._ended(account, order, "user")
            return
        account.release(order, held)
        order.unit_cost = cost
        account.hold(order, leaves_qty)
        self._arrived(
            account, listing, order, "amended", sweep, cum_qty, cum_cost
        )

    def _refuse_killed(self) -> None:
        raise Refused("forbidden", "an administrator suspended this account")

    def _cancel_all(self, account: Account, request: CancelAll) -> None:
        if request.symbol is not None:
            self.listing(request.symbol)
        orders = [
            order
            for order in account.open_orders.values()
            if request.symbol in (None, order.symbol)
            and request.side in (None, order.side)
        ]
        self._outputs.append((account.name, Ok(ts=self.ts, count=len(orders))))
        for order in orders:
            self._cancel(order, "canceled", "user")

    def _cancel_after(self, account: Account, request: CancelAfter) -> None:
        if request.timeout_ms:
            deadline = self.ts + request.timeout_ms * 1_000
            account.cancel_after_ts = deadline
            self._add_deadline((deadline, 0, account.name))
        else:
            account.cancel_after_ts = None
        self._outputs.append((account.name, Ok(ts=self.ts)))

    def _cut(self, orders: Iterable[Order]) -> None:
        """Cancel the orders that die with their connection."""
        for order in orders:
            self._cancel(order, "canceled", "disconnect")

    def _tick(self) -> None:
        for _ in range(DEADLINES_PER_TICK):
            due = self.next_deadline
            if due is None or due > self.ts:
                return
            _, order_id, name = heapq.heappop(self._deadlines)
            if order_id == PHASE_ENDS:
                self._enter(self.listings[name], "open", "time is up")
                continue
            if order_id:
                self._cancel(self._gtd[order_id], "expired", "gtd")
                continue
            account = self.accounts[name]
            account.cancel_after_ts = None
            for order in list(account.open_orders.values()):
                self._cancel(order, "canceled", "cancel_after")

    def _postpone(self, us: int) -> None:
        """Let what lasts for a time end so much later by the clock."""
        for account in self.accounts.values():
            if account.cancel_after_ts is not None:
                account.cancel_after_ts += us
                self._add_deadline((account.cancel_after_ts, 0, account.name))
        for symbol, listing in self.listings.items():
            if listing.reopen_ts is not None:
                listing.reopen_ts += us
                self._add_deadline((listing.reopen_ts, PHASE_ENDS, symbol))

    def _configure(self, configure: Configure) -> None:
        assert configure.engine_version == ENGINE_VERSION
        self.configured = configure
        for instrument in configure.instruments:
            listing = self.listings.get(instrument.symbol)
            if listing is None:
                listing = self.listings[instrument.symbol] = Listing(
                    instrument, OrderBook(instrument.symbol)
                )
                listing.phase = instrument.phase
                listing.book.is_collecting = listing.phase != "open"
            else:
                listing.instrument = instrument
        for listing in self.listings.values():
            low, high = (
                listing.instrument.min_price,
                listing.instrument.max_price,
            )
            worth = len(self.listings) * max(abs(low), abs(high), 1)
            listing.position_max = VALUE_MAX // worth
        for account in self.accounts.values():
            account.limits = self._limits(account.name)
            account.buying.clear()
            account.selling.clear()
            account.reserved = 0
            for order in account.open_orders.values():
                instrument = self.listings[order.symbol].instrument
                assert order.price is not None
                order.unit_cost = unit_cost(
                    instrument, order.side, order.price
                )
                account.hold(order, order.leaves_qty)

    # An administrator's actions

    def _administer(self, name: str, admin: Admin) -> None:
        """Carry out what an administrator wants, with a reply and a status.

        What cannot be is refused before the reply is made.
        """
        reply = (name, Ok(ts=self.ts))
        match admin.action:
            case "phase":
                assert admin.phase is not None
                listings = self._chosen(admin.symbol)
                self._outputs.append(reply)
                for listing in listings:
                    self._enter(
                        listing, admin.phase, admin.reason, admin.reopen_ms
                    )
            case "kill" | "unkill":
                account = self._known(admin.user)
                self._outputs.append(reply)
                account.is_killed = admin.action == "kill"
                if account.is_killed:
                    self._cancel_each(account.open_orders.values())
                self._tell(f"{admin.action} {account.name}: {admin.reason}")
            case "cancel":
                order = self._find(admin.order_id)
                self._outputs.append(reply)
                self._cancel(order, "canceled", "admin")
                self._tell(f"cancel order {order.order_id}: {admin.reason}")
            case "adjust":
                self._adjust(reply, admin)
            case "settle":
                self._settle(reply, admin)
            case "reset":
                self._outputs.append(reply)
                self._reset(admin.reason)
            case "message":
                listings = self._chosen(admin.symbol) if admin.symbol else []
                self._outputs.append(reply)
                self._tell(admin.message, *listings)
            case _:
                assert_never(admin.action)

    def _chosen(self, symbol: str | None) -> list[Listing]:
        if symbol is None:
            return list(self.listings.values())
        return [self.listing(symbol)]

    def _known(self, user: str | None) -> Account:
        account = self.accounts.get(user or "")
        if account is None:
            raise Refused(
                "bad_request", f"user: {user} is unknown", field="user"
            )
        return account

    def _find(self, order_id: int | None) -> Order:
        """Return an open order, whosever it is; raises Refused."""
        for account in self.accounts.values():
            if order_id in account.orders:
                return account.find(order_id, None)
        raise Refused(
            "unknown_order", "no such order is known", field="order_id"
        )

    def _adjust(self, reply: Output, admin: Admin) -> None:
        """Give an account cash or lots of the house, or take them."""
        account, house = self._known(admin.user), self._account(HOUSE)
        cash, qty = admin.cash or 0, admin.qty or 0
        given = f"{cash:+} cash" if cash else ""
        listing = None
        if admin.symbol is not None:
            listing = self.listing(admin.symbol)
            symbol, most = admin.symbol, listing.position_max
            for owner, change in ((account, qty), (house, -qty)):
                if abs(owner.positions.get(symbol, 0) + change) > most:
                    raise Refused(
                        "position_limit",
                        f"no position beyond {most} lots",
                        field="qty",
                    )
            given += f"{', ' if given else ''}{qty:+} {symbol}"
        if any(
            abs(balance) > VALUE_MAX
            for balance in (account.cash + cash, house.cash - cash)
        ):
            raise Refused(
                "insufficient_funds",
                f"no cash beyond {VALUE_MAX}",
                field="cash",
            )
        if listing is not None and qty:
            account.move(symbol, qty, listing.mark())
            house.move(symbol, -qty, listing.mark())
        account.cash += cash
        house.cash -= cash
        self._outputs.append(reply)
        self._moved[account.name] = account
        self._tell(f"adjust {account.name} by {given}: {admin.reason}")

    def _settle(self, reply: Output, admin: Admin) -> None:
        """End an instrument: positions become cash at one price."""
        listing = self.listing(admin.symbol)
        symbol, price = listing.instrument.symbol, admin.price
        assert price is not None
        low, high = listing.instrument.min_price, listing.instrument.max_price
        holders = [
            account
            for account in self.accounts.values()
            if account.positions.get(symbol)
        ]
        if not low <= price <= high:
            raise Refused(
                "invalid_price",
                f"price {price} is not within {low} and {high}",
                field="price",
            )
        for account in holders:
            if abs(account.cash + account.positions[symbol] * price) > MAX_INT:
                raise Refused(
                    "insufficient_funds", f"more than {account.name} can have"
                )
        self._outputs.append(reply)
        self._cancel_each(listing.book.orders.values())
        for account in holders:
            account.settle(symbol, -account.positions[symbol], price, 0)
            if account.name != HOUSE:
                self._moved[account.name] = account
        self._enter(listing, "closed", f"settled at {price}: {admin.reason}")

    def _reset(self, reason: str) -> None:
        """Begin anew: no orders, no positions, cash as at the start."""
        self._cancel_each(
            order
            for account in self.accounts.values()
            for order in account.open_orders.values()
        )
        for account in self.accounts.values():
            account.cash = account.limits.cash
            account.realized = 0
            account.positions.clear()
            account.costs.clear()
            if account.name != HOUSE:
                self._moved[account.name] = account
        for listing in self.listings.values():
            listing.last = None
            listing.volume = 0
            self._enter(listing, listing.instrument.phase, f"reset: {reason}")

    def _cancel_each(self, orders: Iterable[Order]) -> None:
        """Cancel orders for an administrator, in order of their ids."""
        for order in sorted(orders, key=lambda o: o.order_id):
            self._cancel(order, "canceled", "admin")

    # Phases

    def _enter(
        self,
        listing: Listing,
        phase: Phase,
        message: str,
        reopen_ms: int | None = None,
    ) -> None:
        """Begin a phase of an instrument, and say so.

        Whatever led there, one that opens is uncrossed first, and one that
        closes cancels all orders. With ``reopen_ms`` it opens by itself.
        """
        symbol = listing.instrument.symbol
        if phase == "open" and listing.phase != "open":
            self._uncross(listing)
        if phase == "closed":
            for order in sorted(
                listing.book.orders.values(), key=lambda o: o.order_id
            ):
                self._cancel(order, "canceled", "closed")
        listing.phase = phase
        listing.book.is_collecting = phase != "open"
        listing.reopen_ts = None
        if reopen_ms is not None:
            listing.reopen_ts = self.ts + reopen_ms * 1_000
            self._add_deadline((listing.reopen_ts, PHASE_ENDS, symbol))
        self._news.append(
            Status(ts=self.ts, symbol=symbol, phase=phase, message=message)
        )

    def _uncross(self, listing: Listing) -> None:
        """Let the orders that cross trade at one price, and report it."""
        book = listing.book
        price = clearing_price(
            book.depth("buy"), book.depth("sell"), listing.reference
        )
        if price is None:
            return
        self._touched[listing.instrument.symbol] = listing
        for bid, ask, qty in book.uncross(price):
            younger: Side = "buy" if bid.order_id > ask.order_id else "sell"
            trade_id = self._print(listing, price, qty, younger)
            for order in (bid, ask):
                account = self.accounts[order.account]
                self._fill(
                    account,
                    order,
                    order.cum_qty,
                    order.cum_cost,
                    (qty, price, trade_id, "auction", 0),
                )
                if not order.leaves_qty:
                    self._finish(account, order)

    def _tell(self, message: str | None, *listings: Listing) -> None:
        """Tell everybody something, of instruments or of the exchange."""
        symbols: list[str | None] = [x.instrument.symbol for x in listings]
        for symbol in symbols or [None]:
            self._news.append(
                Status(ts=self.ts, symbol=symbol, message=message)
            )

    # Rules

    def _account(self, name: str) -> Account:
        """Return an account, opened at its first mention."""
        account = self.accounts.get(name)
        if account is None:
            limits = self._limits(name)
            account = self.accounts[name] = Account(name, limits.cash, limits)
        return account

    def _limits(self, name: str) -> AccountLimits:
        if name == HOUSE:
            return AccountLimits()
        return self.configured.accounts.get(name, self.configured.limits)

    def _is_due(self, entry: Deadline) -> bool:
        """Whether an entry of the deadlines still stands."""
        ts, order_id, name = entry
        if order_id == PHASE_ENDS:
            return self.listings[name].reopen_ts == ts
        if order_id:
            return order_id in self._gtd
        return self.accounts[name].cancel_after_ts == ts

    def _add_deadline(self, entry: Deadline) -> None:
        heapq.heappush(self._deadlines, entry)
        self.earliest = min(self.earliest, entry[0])
        if len(self._deadlines) > self._deadlines_max:
            self._deadlines = [e for e in self._deadlines if self._is_due(e)]
            heapq.heapify(self._deadlines)
            self._deadlines_max = max(DEADLINES_MIN, 2 * len(self._deadlines))

    def _cancel(
        self, order: Order, ended: OrderStatus, reason: Reason
    ) -> None:
        listing = self.listings[order.symbol]
        listing.book.cancel(order.order_id, ended)
        self._touched[order.symbol] = listing
        self._ended(self.accounts[order.account], order, reason)

    # What happened

    def _arrived(
        self,
        account: Account,
        listing: Listing,
        order: Order,
        exec_type: ExecType,
        sweep: Sweep,
        cum_qty: int,
        cum_cost: int,
    ) -> None:
        """Report an order's arrival, then each step of its sweep.

        ``cum_qty`` and ``cum_cost`` are the order's before the sweep.
        """
        self._report(account, order, exec_type, cum_qty, cum_cost)
        self._touched[order.symbol] = listing
        instrument = listing.instrument
        matches, reason, is_stopped = sweep
        for maker, qty in matches:
            owner = self.accounts[maker.account]
            if not qty:
                self._ended(owner, maker, "stp")
                continue
            price = maker.price
            assert price is not None
            trade_id = self._print(listing, price, qty, order.side)
            cum_qty += qty
            cum_cost += price * qty
            self._fill(
                account,
                order,
                cum_qty,
                cum_cost,
                (qty, price, trade_id, "taker", qty * instrument.taker_fee),
            )
            self._fill(
                owner,
                maker,
                maker.cum_qty,
                maker.cum_cost,
                (qty, price, trade_id, "maker", qty * instrument.maker_fee),
            )
            if not maker.leaves_qty:
                self._finish(owner, maker)
        if reason is not None:
            self._ended(account, order, reason)
        elif not order.leaves_qty:
            self._finish(account, order)
        if is_stopped:
            self._enter(
                listing,
                "auction",
                f"the next trade would be more than {instrument.band} from"
                " the reference price",
                instrument.auction_ms,
            )

    def _print(
        self, listing: Listing, price: int, qty: int, side: Side
    ) -> int:
        """Record a public trade; return its number."""
        listing.last = price
        listing.volume += qty
        listing.trade_id += 1
        listing.trades.append(
            Trade(
                symbol=listing.instrument.symbol,
                seq=listing.seq + 1,
                ts=self.ts,
                trade_id=listing.trade_id,
                price=price,
                qty=qty,
                side=side,
            )
        )
        return listing.trade_id

    def _fill(
        self,
        account: Account,
        order: Order,
        cum_qty: int,
        cum_cost: int,
        fill: tuple[int, int, int, Liquidity, int],
    ) -> None:
        """Report and book one order's part in a trade."""
        qty, price, _, _, fee = fill
        self._report(account, order, "trade", cum_qty, cum_cost, fill)
        account.fill(order, qty, price, fee)
        if fee:
            self._account(HOUSE).cash += fee
        self._moved[account.name] = account

    def _ended(self, account: Account, order: Order, reason: Reason) -> None:
        """Report an order that was canceled or has expired."""
        self._report(
            account,
            order,
            "expired" if order.order_status == "expired" else "canceled",
            order.cum_qty,
            order.cum_cost,
            reason=reason,
        )
        self._finish(account, order)

    def _finish(self, account: Account, order: Order) -> None:
        unfilled = order.qty - order.cum_qty
        if unfilled:
            account.release(order, unfilled)
        account.finish(order)
        if order.expire_ts is not None:
            self._gtd.pop(order.order_id, None)

    def _report(
        self,
        account: Account,
        order: Order,
        exec_type: ExecType,
        cum_qty: int,
        cum_cost: int,
        fill: Fill = NO_FILL,
        reason: Reason | None = None,
    ) -> None:
        """Report an order as it was with ``cum_qty`` filled."""
        leaves_qty = order.qty - cum_qty
        order_status: OrderStatus
        if reason is not None:
            leaves_qty = 0
            order_status = order.order_status
        elif not leaves_qty:
            order_status = "filled"
        else:
            order_status = "partially_filled" if cum_qty else "new"
        last_qty, last_price, trade_id, liquidity, fee = fill
        seq = account.seq = account.seq + 1
        report = Exec(  # in the order of its fields, for speed
            seq,
            self.ts,
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
        )
        self._outputs.append((account.name, report))

    def _report_accounts(self) -> None:
        for account in self._moved.values():
            account.seq += 1
            self._outputs.append((account.name, self.account_report(account)))
        self._moved.clear()

    def _report_trades(self) -> None:
        for listing in self._touched.values():
            if listing.book.version != listing.book_version:
                self._stir(listing)
                if listing.trades:
                    self._outputs += [(PUBLIC, t) for t in listing.trades]
                    listing.trades.clear()
        self._touched.clear()

    def _stir(self, listing: Listing) -> None:
        """Note that the command at hand changed a book."""
        listing.book_version = listing.book.version
        listing.seq += 1
        listing.ts = self.ts
        self._stirred[listing.instrument.symbol] = listing
