"""Conversions: a basket becomes lots of an instrument, or the other way.

The lots move between the account and the exchange's own, outside of the
books, and the account pays a fee. Each leg counts as bought or sold at its
mark of that moment; of the cash only the fee moves.
"""

from __future__ import annotations

from typing import TypeAlias

from exchange.market import solvency
from exchange.market.accounts import HOUSE, Account
from exchange.market.command import Command
from exchange.market.listing import Listing
from exchange.market.reports import reply_ok
from exchange.market.state import State
from exchange.market.transfers import (
    check_cash,
    check_position,
    house_of,
    report_account,
)
from orderbook import Conversion, Convert, Refused

# A listing with the lots of it that the account gets; negative: gives.
Leg: TypeAlias = tuple[Listing, int]


def convert(state: State, command: Command, request: Convert) -> None:
    """Exchange the legs of a conversion, all or nothing."""
    account = state.account(command.account)
    listing, conversion = _check_request(state, account, request)
    legs = _legs(state, request, listing, conversion)
    for leg, _ in legs:
        if leg.phase != "open":
            symbol = leg.instrument.symbol
            raise Refused(
                "market_closed",
                f"{symbol} is in the phase {leg.phase}; a conversion needs"
                " all its instruments open",
            )
    _check_qty(request, listing, conversion)
    for leg, bought in legs:
        _check_leg(account, leg, bought)
        check_position(leg, house_of(state), -bought)
    fee = conversion.fee
    account.check_funds(fee)
    check_cash(house_of(state), fee)
    _book(account, state.account(HOUSE), legs, fee)
    if request.client_order_id is not None:
        account.remember_conversion(request.client_order_id)
    reply_ok(state, account.name)
    report_account(state, account)
    solvency.enforce(state, account)


def _check_request(
    state: State, account: Account, request: Convert
) -> tuple[Listing, Conversion]:
    """Return what is to be converted; refuse what never can be.

    A repeated client_order_id is answered as a duplicate even if the account
    is suspended: the first copy was carried out.
    """
    name = request.client_order_id
    is_repeated = name is not None and account.has_used(name)
    if not is_repeated:
        account.check_rights()
    listing = state.listing(request.symbol)
    conversion = listing.instrument.convert
    if conversion is None:
        raise Refused(
            "no_conversion",
            f"{request.symbol} cannot be converted",
            field="symbol",
        )
    if name is not None:
        account.check_name(name)
    return listing, conversion


def _legs(
    state: State, request: Convert, listing: Listing, conversion: Conversion
) -> list[Leg]:
    """Return the instrument itself and the parts of its basket."""
    qty = request.qty if request.side == "buy" else -request.qty
    return [(listing, qty)] + [
        (state.listings[symbol], -qty * count // conversion.per)
        for symbol, count in conversion.basket.items()
    ]


def _check_qty(
    request: Convert, listing: Listing, conversion: Conversion
) -> None:
    """Refuse ("invalid_qty") parts of a lot, and too many lots."""
    listing.check_bounds(request.side, None, request.qty)
    if request.qty % conversion.lot:
        raise Refused(
            "invalid_qty",
            f"qty {request.qty} is not a multiple of {conversion.lot}, the lot"
            f" of a conversion of {request.symbol}",
            field="qty",
        )


def _check_leg(account: Account, listing: Listing, bought: int) -> None:
    """Refuse ("position_limit") a leg that takes a position over its limit.

    Open orders of the same side count as filled. A position may always move
    towards zero, but not beyond.
    """
    symbol = listing.instrument.symbol
    before = account.positions.get(symbol, 0)
    if abs(before + bought) <= abs(before) and before * (before + bought) >= 0:
        return
    try:
        account.check_position(
            listing.instrument,
            "buy" if bought > 0 else "sell",
            abs(bought),
            listing.position_max,
        )
    except Refused as refusal:
        raise Refused(
            refusal.code, f"{symbol}: {refusal.message}", field="qty"
        ) from None


def _book(account: Account, house: Account, legs: list[Leg], fee: int) -> None:
    """Move the lots and the fee; what the lots gain is realized."""
    gained = 0
    values = [listing.value_of(listing.mark()) for listing, _ in legs]
    for (listing, bought), value in zip(legs, values):
        symbol = listing.instrument.symbol
        account.move(symbol, bought, value)
        house.move(symbol, -bought, value)
        gained += bought * value
    account.cash -= fee
    house.cash += fee
    account.realized += gained - fee
    house.realized -= gained
