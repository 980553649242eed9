"""One listed instrument: its book, its phase, and its reference prices."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from exchange.market.prints import Prints
from exchange.market.stops import Stops
from orderbook import (
    PHASES,
    Band,
    Bust,
    Instrument,
    Order,
    OrderBook,
    OrderType,
    Phase,
    Refused,
    Side,
    TimeInForce,
    Trade,
)

# The last trades of a symbol that can be busted: as many as the fills that
# the history keeps of an account, in which the parties are found.
TRADES_BUSTABLE = 10_000
# The parts that an order with display_qty shows one after the other. Each is
# a trade of its own, so that one order to buy could make a million of them.
SLICES_MAX = 20


@dataclass(slots=True)
class Listing:
    """An instrument, its book, its stop orders and its public counters.

    ``instrument`` is as configured; the phase it is in is ``phase``.
    ``position_max`` is the largest position of an account, long or short,
    if nothing else limits it. ``recent`` are id and price of the last trades
    that set ``last``: one more than can be busted, so that a price is left.
    """

    instrument: Instrument
    book: OrderBook
    phase: Phase = "closed"  # changed by `enter` only
    reason: str | None = None  # of the last change of phase
    reopen_ts: int | None = None  # when the phase ends by itself
    close_ts: int | None = None  # when the instrument closes by itself
    close_left_us: int | None = None  # trading time left, while that stands
    # When the instrument settles by itself, and its price once it is settled.
    expire_ts: int | None = None
    settlement_price: int | None = None
    prints: Prints | None = None  # kept for an underlying only
    position_max: int = 0
    seq: int = 0  # of the last command that changed a level or traded
    ts: int = 0  # of the same command
    book_version: int = 0  # the book's, at that command
    published_seq: int = 0  # `seq` when the changes were last taken
    trade_id: int = 0
    last: int | None = None  # price of the last trade of two accounts
    volume: int = 0
    recent: deque[tuple[int, int]] = field(
        default_factory=lambda: deque(maxlen=TRADES_BUSTABLE + 1)
    )
    busted: dict[int, None] = field(default_factory=dict)  # trade ids
    round_trade_id: int = 0  # of the last trade before this round
    # An administrator's reference price, with the trade_id at that moment.
    moved_reference: tuple[int, int] | None = None
    frozen_mark: int | None = None  # the mark while "closed"
    stops: Stops = field(default_factory=Stops)
    has_rates: bool = field(init=False)  # fees in basis points
    # Of the command that is being applied:
    trades: list[Trade | Bust] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.configure(self.instrument)

    def configure(self, instrument: Instrument) -> None:
        """Set the instrument as it is configured."""
        self.instrument = instrument
        self.has_rates = bool(
            instrument.maker_fee_bp or instrument.taker_fee_bp
        )

    def enter(self, phase: Phase) -> None:
        """Begin a phase; outside "open" orders are collected."""
        self.phase = phase
        self.book.is_collecting = phase != "open"
        self.reopen_ts = self.frozen_mark = None

    @property
    def reference(self) -> int:
        """The price of the last trade; before the first, as configured.

        A price that an administrator set holds until the next trade.
        """
        if self.moved_reference is not None:
            trade_id, price = self.moved_reference
            if not self.recent or self.recent[-1][0] <= trade_id:
                return price
        if self.last is None:
            return self.instrument.reference_price
        return self.last

    @property
    def known_reference(self) -> int | None:
        """The reference, or None if no trade and no setting gives one."""
        i = self.instrument
        is_set = bool(i.reference_price or i.collar or i.band)
        if is_set or self.last is not None or self.moved_reference:
            return self.reference
        return None

    @property
    def band(self) -> Band | None:
        """The lowest and the highest price of a trade, if limited."""
        width = self.instrument.band
        if not width:
            return None
        reference = self.reference
        return reference - width, reference + width

    def mark(self) -> int:
        """Return the price at which positions are valued.

        The median of best bid, reference and best ask; the reference if a
        side is empty. While "closed" what it was before.
        """
        if self.frozen_mark is not None:
            return self.frozen_mark
        bid, ask = self.book.top()
        reference = self.reference
        if bid is None or ask is None or bid <= reference <= ask:
            return reference
        return sorted((bid, reference, ask))[1]

    def current_instrument(
        self, max_position: int | None = None
    ) -> Instrument:
        """Return the instrument in its current phase.

        ``max_position`` replaces the configured one, if given.
        """
        instrument = self.instrument
        if max_position is None:
            max_position = instrument.max_position
        left = self.close_left_us
        return replace(
            instrument,
            phase=self.phase,
            max_position=max_position,
            reason=self.reason,
            reopen_ts=self.reopen_ts,
            close_ts=self.close_ts,
            close_left_ms=None if left is None else left // 1_000,
            expire_ts=self.expire_ts,
            settlement_price=self.settlement_price,
        )

    def settling_price(self, ts: int) -> int:
        """Return the price at which derivatives settle at a time.

        The settlement price; before that the volume-weighted price of the
        last trades, and without any the mark.
        """
        if self.settlement_price is not None:
            return self.settlement_price
        average = None if self.prints is None else self.prints.average(ts)
        return self.mark() if average is None else average

    def value_of(self, price: int) -> int:
        """Return the value of one lot at a price, in units of money."""
        return price * self.instrument.tick_value

    def open_orders(self) -> list[Order]:
        """Return the orders in the book and those that wait for a trigger."""
        return [*self.book.orders.values(), *self.stops.orders.values()]

    def worst_price(self, side: Side, reference: int | None = None) -> int:
        """Return the limit of a market order: collar, or price bound.

        ``reference`` replaces the current one, if given.
        """
        instrument = self.instrument
        if reference is None:
            reference = self.reference
        if side == "buy":
            worst = instrument.max_price
            if instrument.collar:
                worst = min(worst, reference + instrument.collar)
        else:
            worst = instrument.min_price
            if instrument.collar:
                worst = max(worst, reference - instrument.collar)
        return worst

    def check_phase(self, order_type: OrderType, tif: TimeInForce) -> None:
        """Refuse ("market_closed") an order that the phase does not accept."""
        if self.phase == "open":
            if tif != "auction":
                return
            words = "has no auction for a market order to join"
        elif PHASES[self.phase] == "resting":
            if order_type == "limit" and tif in ("gtc", "gtd"):
                return
            if tif == "auction" or order_type in ("stop", "stop_limit"):
                return
            words = (
                "accepts only limit orders that rest (gtc, gtd), stop orders,"
                " and market orders with the time in force auction"
            )
        else:
            words = "accepts only cancels"
        raise Refused(
            "market_closed",
            f"{self.instrument.symbol} is in the phase {self.phase}, which"
            f" {words}",
        )

    def check_bounds(
        self, side: Side, price: int | None, qty: int | None
    ) -> None:
        """Refuse ("invalid_qty", "invalid_price") values out of bounds."""
        instrument = self.instrument
        if qty is not None and qty > instrument.max_qty:
            raise Refused(
                "invalid_qty",
                f"qty {qty} is above the maximum of {instrument.max_qty}",
                field="qty",
            )
        if price is None:
            return
        if not instrument.min_price <= price <= instrument.max_price:
            self.check_price(price)
        if instrument.collar:
            beyond = price - self.reference
            if (beyond if side == "buy" else -beyond) > instrument.collar:
                raise Refused(
                    "invalid_price",
                    f"{side} at {price} is more than {instrument.collar}"
                    f" ticks beyond the reference price of {self.reference}",
                    field="price",
                )

    def check_stop_bounds(
        self, qty: int | None, price: int | None, trigger_price: int | None
    ) -> None:
        """Refuse values of a stop order that are out of bounds.

        The collar is not looked at before the order is triggered.
        """
        self.check_bounds("buy", None, qty)
        if price is not None:
            self.check_price(price)
        if trigger_price is not None:
            self.check_price(trigger_price, "trigger_price")

    def check_price(self, price: int, name: str = "price") -> None:
        """Refuse ("invalid_price") a price outside the instrument's bounds."""
        instrument = self.instrument
        if not instrument.min_price <= price <= instrument.max_price:
            raise Refused(
                "invalid_price",
                f"{name} {price} is not within {instrument.min_price} to"
                f" {instrument.max_price}",
                field=name,
            )


def check_display(qty: int, display_qty: int) -> None:
    """Refuse ("invalid_qty") an order that shows too little of itself."""
    least = -(-qty // SLICES_MAX)
    if display_qty < least:
        raise Refused(
            "invalid_qty",
            f"display_qty {display_qty} is below {least}, which is qty /"
            f" {SLICES_MAX} rounded up",
            field="display_qty",
        )
