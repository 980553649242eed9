"""What an account has: cash, positions, limits, orders and sessions.

Cash is counted in units of the market's money, positions in lots. The value
of a lot is its price times the instrument's ``tick_value``, the units for each
tick. Without ``[money]`` in the market file that is 1, and a unit is a tick
times a lot. Cash and positions may be negative, within the account's limits.
An account is data with its arithmetic and its checks; it makes no events.

No number may exceed what every JSON reader keeps exactly, 2**53 - 1.
CASH_MAX, VALUE_MAX and ACCOUNTS_MAX ensure it: cash only moves between
accounts, so one account gains at most what all others had and may owe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from exchange.market.fees import hold as hold_fees
from orderbook import Instrument, Order, Refused, RoleName, Side

# The exchange's own account: it receives fees, pays rebates, and is the
# counterparty of an administrator's adjustments.
HOUSE = "@exchange"
ACCOUNTS_MAX = 10_000  # 1,000 participants with ten accounts each
# The most cash an account may begin with, and the most it may owe. One
# account has at most ACCOUNTS_MAX * 2 * CASH_MAX = 4 * 10**15.
CASH_MAX = 200_000_000_000
# The most that all positions of an account may be worth. With the cash above,
# equity stays within 8 * 10**15, below 2**53 = 9 * 10**15.
VALUE_MAX = 4_000_000_000_000_000

# Roles that ``is_admin``, in key files and journals, does not tell.
LATER_ROLES: tuple[RoleName, ...] = ("house", "spectator")

# Finished orders that an account keeps, and names of conversions. A
# client_order_id that is sent again is recognized for 100 seconds at 100
# orders a second.
ORDERS_REMEMBERED = 10_000
# Entries of orders with a tag before those of forgotten orders are dropped.
TAGS_MIN = 1_000
# Requests of an administrator whose client_request_id is remembered.
ADMIN_REQUESTS_REMEMBERED = 10_000
# Sessions that an account can resume; more than the connections it may have.
SESSIONS_REMEMBERED = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountLimits:
    """The cash that an account begins with, and its limits.

    ``min_cash`` None: -CASH_MAX. ``open_orders`` 0: unlimited.
    ``max_position``, by symbol, replaces that of the instrument.
    """

    cash: int = 0
    min_cash: int | None = None
    open_orders: int = 0
    max_position: dict[str, int] = field(default_factory=dict)


def unit_cost(instrument: Instrument, side: Side, price: int) -> int:
    """Return the most that one lot of an order can cost, in units.

    At least 0: proceeds are not counted in advance. Fees in basis points are
    counted for the whole order: `fees.margin`.
    """
    cost = price * instrument.tick_value
    if side != "buy":
        cost = -cost
    if instrument.maker_fee or instrument.taker_fee:
        cost += max(instrument.maker_fee, instrument.taker_fee)
    return cost if cost > 0 else 0


@dataclass(slots=True)
class Session:
    """A session of the protocol. It outlives its connections."""

    cancel_on_disconnect: bool
    connected: bool = True


@dataclass(slots=True)
class Tags:
    """The orders that have a tag, and when each was placed.

    ``newest`` is by tag the id of the newest order that has it, ``by_order``
    by id the tag and the time in microseconds. They are never more than twice
    the orders that the account remembers, or TAGS_MIN.
    """

    newest: dict[str, int] = field(default_factory=dict)
    by_order: dict[int, tuple[str, int]] = field(default_factory=dict)
    most: int = TAGS_MIN

    def add(
        self, tag: str, order_id: int, ts: int, known: dict[int, Order]
    ) -> None:
        """Add an order; drop those that are not ``known``, if too many."""
        self.newest[tag] = order_id
        self.by_order[order_id] = tag, ts
        if len(self.by_order) > self.most:
            kept = {i: e for i, e in self.by_order.items() if i in known}
            self.by_order = kept
            self.newest = {t: i for t, i in self.newest.items() if i in kept}
            self.most = max(TAGS_MIN, 2 * len(kept))


@dataclass(slots=True)
class Account:
    """One trader's cash, positions, orders and sessions.

    ``orders`` and ``by_client_order_id`` hold the open orders and the last
    ORDERS_REMEMBERED finished ones; ``open_orders`` only the open ones, in
    order of order id. ``seq`` numbers the account's private events.

    ``costs`` is the price paid for each position (negative: received), and
    ``realized`` the profit of positions that were closed, after fees.
    ``buying`` and ``selling`` are the lots of the open orders by symbol,
    ``reserved`` the cash that is set aside for them.
    """

    name: str
    cash: int = 0
    limits: AccountLimits = AccountLimits()
    positions: dict[str, int] = field(default_factory=dict)
    costs: dict[str, int] = field(default_factory=dict)
    realized: int = 0
    buying: dict[str, int] = field(default_factory=dict)
    selling: dict[str, int] = field(default_factory=dict)
    reserved: int = 0
    role: RoleName = "trader"  # of its last login
    is_suspended: bool = False  # by an administrator: no new orders
    is_closed_out: bool = False  # suspended by `close_out`, until `reset`
    seq: int = 0
    orders: dict[int, Order] = field(default_factory=dict)
    by_client_order_id: dict[str, Order] = field(default_factory=dict)
    open_orders: dict[int, Order] = field(default_factory=dict)
    finished: deque[Order] = field(default_factory=deque)
    sessions: dict[str, Session] = field(default_factory=dict)
    cancel_after_ts: int | None = None
    # The client_order_id of conversions, oldest first.
    conversions: dict[str, None] = field(default_factory=dict)
    tags: Tags = field(default_factory=Tags)
    # The client_request_id of requests that took effect, oldest first.
    admin_requests: dict[str, None] = field(default_factory=dict)

    # Cash and positions

    def book_fill(
        self, symbol: str, bought: int, value: int, fee: int
    ) -> None:
        """Book lots bought (negative: sold) and pay or receive cash.

        ``value`` is what one lot costs, in units.
        """
        self.cash -= value * bought + fee
        self.realized -= fee
        self.move(symbol, bought, value)

    def move(self, symbol: str, bought: int, value: int) -> None:
        """Book lots bought (negative: sold) at a value, without the cash.

        Closed lots take their share of the position's cost, rounded down to
        a unit.
        """
        positions, costs = self.positions, self.costs
        position = positions.get(symbol, 0)
        cost = costs.get(symbol, 0)
        positions[symbol] = position + bought
        if (position < 0) == (bought < 0) or not position:
            costs[symbol] = cost + value * bought
        elif abs(bought) < abs(position):
            released = cost * abs(bought) // abs(position)
            self.realized -= value * bought + released
            costs[symbol] = cost - released
        else:  # closed, and reversed if more was traded
            self.realized += value * position - cost
            costs[symbol] = value * (position + bought)

    def settle(self, symbol: str, value: int) -> None:
        """Turn a position into cash at the final value of one lot."""
        self.book_fill(symbol, -self.positions[symbol], value, 0)

    def unrealized(self, equity: int) -> int:
        """Return the part of ``equity`` that is profit of open positions."""
        return equity - self.cash - sum(self.costs.values())

    def equity(self, value: Callable[[str], int]) -> int:
        """Return cash plus all positions, in units.

        ``value`` tells what one lot of a symbol is worth.
        """
        equity = self.cash
        for symbol, position in self.positions.items():
            if position:
                equity += position * value(symbol)
        return equity

    # Limits

    def hold(self, order: Order, qty: int) -> None:
        """Set aside what ``qty`` lots of an order may need.

        Below 0: release what was set aside for ``-qty`` lots.
        """
        lots = self.buying if order.side == "buy" else self.selling
        lots[order.symbol] = lots.get(order.symbol, 0) + qty
        self.reserved += qty * order.unit_cost
        if order.fees is not None:
            self.reserved += hold_fees(order.fees, qty)

    def hold_anew(
        self, order: Order, old_qty: int, qty: int, cost: int
    ) -> None:
        """Set ``cost`` aside for each of ``qty`` lots, not for ``old_qty``.

        A new ``lot`` of the order's fees must be set before.
        """
        lots = self.buying if order.side == "buy" else self.selling
        lots[order.symbol] += qty - old_qty
        self.reserved += qty * cost - old_qty * order.unit_cost
        order.unit_cost = cost
        if order.fees is not None:
            self.reserved += hold_fees(order.fees, qty - old_qty)

    @property
    def may_trade(self) -> bool:
        """Whether it may place orders, convert, and accept tenders."""
        return not self.is_suspended and self.role != "spectator"

    def check_rights(self) -> None:
        """Refuse ("forbidden") what needs an account that may trade."""
        if self.is_suspended:
            raise Refused(
                "forbidden", "the account is suspended and may only cancel"
            )
        if self.role == "spectator":
            raise Refused(
                "forbidden",
                "the account is a spectator's, which may look on and cancel,"
                " but not trade",
            )

    def check_count(self) -> None:
        """Refuse ("too_many_orders") one more open order."""
        most = self.limits.open_orders
        if most and len(self.open_orders) >= most:
            raise Refused(
                "too_many_orders",
                f"the account has {len(self.open_orders)} open orders; the"
                f" limit is {most}",
            )

    def max_position(self, instrument: Instrument) -> int:
        """Return the limit of a position, long or short; 0: unlimited."""
        return self.limits.max_position.get(
            instrument.symbol, instrument.max_position
        )

    def check_position(
        self, instrument: Instrument, side: Side, qty: int, most: int
    ) -> None:
        """Refuse ("position_limit") ``qty`` more lots on one side.

        Every open order of that side counts as filled. ``most`` applies if
        neither account nor instrument has a limit.
        """
        symbol = instrument.symbol
        if instrument.max_position or self.limits.max_position:
            most = self.max_position(instrument) or most
        position = self.positions.get(symbol, 0)
        if side == "buy":
            reached = position + self.buying.get(symbol, 0) + qty
        else:
            reached = self.selling.get(symbol, 0) + qty - position
            if not instrument.short_selling:
                most = 0
        if reached > most:
            raise Refused(
                "position_limit",
                f"the position could become {reached} lots"
                f" {'long' if side == 'buy' else 'short'}; the limit is"
                f" {most}",
                field="qty",
            )

    def free_cash(self) -> int:
        """Return the cash above ``min_cash`` that is not set aside."""
        least = self.limits.min_cash
        if least is None:
            least = -CASH_MAX
        return self.cash - self.reserved - least

    def check_funds(self, cost: int) -> None:
        """Refuse ("insufficient_funds") a request that may cost ``cost``.

        A request without cost is always accepted.
        """
        least = self.limits.min_cash
        if least is None:
            least = -CASH_MAX
        free = self.cash - self.reserved - least
        if cost > free and cost:
            free = max(0, free)
            raise Refused(
                "insufficient_funds",
                f"the request could cost {cost}; the account has {free} free",
            )

    # Names and orders

    def has_used(self, client_order_id: str | None) -> bool:
        """Whether an order or a conversion has this name."""
        return (
            client_order_id in self.by_client_order_id
            or client_order_id in self.conversions
        )

    def check_name(self, client_order_id: str) -> None:
        """Refuse ("duplicate_client_order_id") a name that was used."""
        order = self.by_client_order_id.get(client_order_id)
        if order is not None:
            raise duplicate(
                order,
                "client_order_id",
                f"{client_order_id} was used for order {order.order_id}",
            )
        if client_order_id in self.conversions:
            raise Refused(
                "duplicate_client_order_id",
                f"{client_order_id} was used for a conversion",
                field="client_order_id",
            )

    def remember_conversion(self, client_order_id: str) -> None:
        """Remember the name of a conversion; forget the oldest."""
        _remember(self.conversions, client_order_id, ORDERS_REMEMBERED)

    def find(self, order_id: int | None, client_order_id: str | None) -> Order:
        """Return the open order with one of the two ids.

        Raises Refused: "unknown_order", also for another account's order,
        or "order_closed" with the order's final state.
        """
        if order_id is not None:
            name = "order_id"
            order = self.orders.get(order_id)
        else:
            name = "client_order_id"
            order = self.by_client_order_id.get(client_order_id or "")
        if order is None:
            raise Refused(
                "unknown_order",
                f"the account has no such {name}",
                field=name,
            )
        if not order.is_open:
            raise Refused(
                "order_closed",
                f"order {order.order_id} is {order.order_status}",
                order_id=order.order_id,
                order_status=order.order_status,
                cum_qty=order.cum_qty,
            )
        return order

    def accept(self, order: Order) -> None:
        """Add a new order and set aside what it may need."""
        self.hold(order, order.qty)
        order_id = order.order_id
        self.orders[order_id] = order
        self.open_orders[order_id] = order
        if order.client_order_id is not None:
            self.by_client_order_id[order.client_order_id] = order

    def archive(self, order: Order) -> None:
        """Move an order that ended to the finished ones; drop the oldest."""
        del self.open_orders[order.order_id]
        self.finished.append(order)
        if len(self.finished) > ORDERS_REMEMBERED:
            oldest = self.finished.popleft()
            del self.orders[oldest.order_id]
            if oldest.client_order_id is not None:
                del self.by_client_order_id[oldest.client_order_id]

    def remember_request(self, client_request_id: str) -> None:
        """Remember an administrator's request; forget the oldest."""
        _remember(
            self.admin_requests, client_request_id, ADMIN_REQUESTS_REMEMBERED
        )

    # Sessions

    def connect(self, session: str, cancel_on_disconnect: bool) -> None:
        """Start a session or resume a known one."""
        self.sessions.pop(session, None)
        self.sessions[session] = Session(cancel_on_disconnect)
        if len(self.sessions) > SESSIONS_REMEMBERED:
            for name, old in self.sessions.items():
                if not old.connected:
                    del self.sessions[name]
                    break

    def disconnect(self, session: str) -> list[Order]:
        """End a session's connection; return the orders to cancel."""
        state = self.sessions.get(session)
        if state is None or not state.connected:
            return []
        state.connected = False
        if not state.cancel_on_disconnect:
            return []
        return [
            order
            for order in self.open_orders.values()
            if order.session == session
        ]


def duplicate(order: Order, field: str, text: str) -> Refused:
    """Return the refusal of a name that this order has."""
    return Refused(
        "duplicate_client_order_id",
        text,
        field=field,
        order_id=order.order_id,
        order_status=order.order_status,
        cum_qty=order.cum_qty,
    )


def _remember(names: dict[str, None], name: str, most: int) -> None:
    """Add a name; drop the oldest if there are more than ``most``."""
    names[name] = None
    if len(names) > most:
        del names[next(iter(names))]
