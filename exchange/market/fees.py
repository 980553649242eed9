"""Fees in basis points of the notional, and the cash set aside for them.

The notional of a fill is its quantity times the value of a lot, without its
sign. After each fill an order has paid its exact fees so far, rounded to a
unit; half a unit is rounded up, so -2.5 becomes -2. So an order that is
filled in parts pays as much as one that is filled at once.

Cash is set aside for the whole order, rounded up. What a fill pays and what
is set aside after it are together never more than what was set aside before
it. This needs a rate of at most 100 %: a better price then never costs more.
"""

from __future__ import annotations

from orderbook import Instrument, Order, OrderFees, Side

BASIS_POINTS = 10_000  # in 100 %


def fees_of(instrument: Instrument, side: Side, price: int) -> OrderFees:
    """Return the fees of a new order with this limit; nothing is paid yet."""
    return OrderFees(lot_fee(instrument, side, price))


def lot_fee(instrument: Instrument, side: Side, price: int) -> int:
    """Return the most that one lot may pay, in 10,000ths of a unit.

    0 if the proceeds of a lot pay its fees.
    """
    value = price * instrument.tick_value
    most = max(instrument.maker_fee_bp, instrument.taker_fee_bp) * abs(value)
    cost = value if side == "buy" else -value
    cost += max(instrument.maker_fee, instrument.taker_fee)
    return most if cost * BASIS_POINTS + most > 0 else 0


def margin(lot: int, qty: int, paid: int = 0) -> int:
    """Return what the fees of ``qty`` more lots may need, in units.

    ``lot`` is the most for one lot, and ``paid`` what the fills before have
    paid, both in 10,000ths of a unit.
    """
    if not lot or not qty:
        return 0
    return -(-(paid + lot * qty) // BASIS_POINTS) - _rounded(paid)


def hold(fees: OrderFees, qty: int) -> int:
    """Set aside the fees of ``qty`` more lots; return the cash that it takes.

    ``qty`` is below 0 for lots that were filled or canceled.
    """
    fees.held_qty += qty
    before, fees.margin = fees.margin, margin(
        fees.lot, fees.held_qty, fees.paid
    )
    return fees.margin - before


def charge(order: Order, notional: int, rate: int) -> int:
    """Return the fee of a fill at a rate in basis points; below 0: a rebate.

    An open order has ``fees`` while its instrument has a rate.
    """
    fees = order.fees
    assert fees is not None
    before = _rounded(fees.paid)
    fees.paid += rate * abs(notional)
    return _rounded(fees.paid) - before


def _rounded(paid: int) -> int:
    return (paid + BASIS_POINTS // 2) // BASIS_POINTS
