"""Tenders: lots that the exchange's own account offers at a price.

An account that accepts gets the lots at once, outside of the book, and no
fee is charged. Each account may accept a tender once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from exchange.market import solvency
from exchange.market.accounts import HOUSE, Account
from exchange.market.command import Command
from exchange.market.listing import Listing
from exchange.market.offer import Offer
from exchange.market.reports import new_tender, reply_ok, report_status
from exchange.market.state import TENDER_ENDS, State
from exchange.market.transfers import (
    check_cash,
    check_position,
    house_of,
    known,
    report_account,
)
from orderbook import AcceptTender, Admin, Refused, Side, Tender

# Open tenders at a time: each login is sent those that it may accept.
OPEN_TENDERS_MAX = 100
# Tenders of a round, whose ids must differ and are remembered until its end.
TENDERS_PER_ROUND = 1_000


def offer_tender(state: State, name: str, admin: Admin) -> None:
    """Offer lots to every account, or to one."""
    if admin.user is not None:
        known(state, admin.user)
    listing = state.listing(admin.symbol)
    tender = new_tender(state, admin, listing.instrument.symbol)
    _check_room(state, tender.tender_id)
    _check_bounds(listing, tender)
    offer = Offer(tender, admin.user, tender.expire_ts)
    state.tenders[tender.tender_id] = offer
    state.add_deadline((tender.expire_ts, TENDER_ENDS, tender.tender_id))
    reply_ok(state, name)
    _report(state, offer)
    message = f"tender {tender.tender_id}: {admin.reason}"
    report_status(state, message, tender.symbol)


def accept(state: State, command: Command, request: AcceptTender) -> None:
    """Give the lots of a tender to an account, and take their price."""
    account, house = state.account(command.account), house_of(state)
    offer = state.tenders.get(request.tender_id)
    _check_offer(account, offer, request.tender_id)
    assert offer is not None
    tender = offer.tender
    listing = state.listings[tender.symbol]
    if listing.phase == "closed":
        raise Refused(
            "market_closed",
            f"{tender.symbol} is closed; no tender is accepted",
        )
    bought = tender.qty if tender.side == "buy" else -tender.qty
    value = listing.value_of(tender.price)
    account.check_position(
        listing.instrument, tender.side, tender.qty, listing.position_max
    )
    check_position(listing, house, -bought)
    account.check_funds(_cost(tender.side, value) * tender.qty)
    check_cash(account, -bought * value)
    check_cash(house, bought * value)
    house = state.account(HOUSE)
    offer.accepted[account.name] = None
    account.book_fill(tender.symbol, bought, value, 0)
    house.book_fill(tender.symbol, -bought, value, 0)
    reply_ok(state, account.name)
    report_account(state, account)
    solvency.enforce(state, account)


def open_tenders(state: State, account: Account) -> Iterator[Tender]:
    """Yield the tenders that an account may accept now."""
    for offer in state.tenders.values():
        if _may_accept(offer, account) and account.name not in offer.accepted:
            yield offer.tender


def end_tender(state: State, tender_id: str) -> None:
    """End a tender whose time is over."""
    state.tenders[tender_id].ends_ts = None


def postpone_tenders(state: State, by_us: int) -> None:
    """Let the open tenders end later, and tell it."""
    for tender_id, offer in state.tenders.items():
        if offer.ends_ts is not None:
            offer.ends_ts += by_us
            offer.tender = replace(offer.tender, expire_ts=offer.ends_ts)
            state.add_deadline((offer.ends_ts, TENDER_ENDS, tender_id))
            _report(state, offer)


# Within -------------------------------------------------------------------


def _report(state: State, offer: Offer) -> None:
    """Tell a tender to those who may accept it."""
    for account in state.accounts.values():
        if _may_accept(offer, account) and account.name not in offer.accepted:
            state.outputs.append((account.name, offer.tender))


def _may_accept(offer: Offer, account: Account) -> bool:
    return (
        offer.ends_ts is not None
        and offer.user in (None, account.name)
        and account.name != HOUSE
        and account.may_trade
    )


def _check_room(state: State, tender_id: str) -> None:
    """Refuse an id of this round, and too many tenders."""
    if tender_id in state.tenders:
        raise Refused(
            "duplicate_tender",
            f"{tender_id} was offered in this round",
            field="tender_id",
        )
    is_open = [o for o in state.tenders.values() if o.ends_ts is not None]
    for count, most, words in (
        (len(is_open), OPEN_TENDERS_MAX, "are open"),
        (len(state.tenders), TENDERS_PER_ROUND, "were offered in this round"),
    ):
        if count >= most:
            raise Refused(
                "bad_request",
                f"tender_id: {most} tenders {words}, the most there may be",
                field="tender_id",
            )


def _check_bounds(listing: Listing, tender: Tender) -> None:
    """Refuse a quantity or a price that the instrument cannot have."""
    most = listing.position_max
    if tender.qty > most:
        raise Refused(
            "invalid_qty",
            f"qty {tender.qty} is above the maximum of {most}",
            field="qty",
        )
    listing.check_price(tender.price)


def _check_offer(
    account: Account, offer: Offer | None, tender_id: str
) -> None:
    """Refuse a tender that the account cannot accept, or has accepted.

    A repeated request is answered as a duplicate even if the tender has ended
    or the account is suspended: the first one was accepted.
    """
    if offer is not None and account.name in offer.accepted:
        raise Refused(
            "duplicate_tender",
            f"the account has accepted {tender_id}",
            field="tender_id",
        )
    account.check_rights()
    if offer is None or not _may_accept(offer, account):
        raise Refused(
            "unknown_tender",
            f"no tender {tender_id} is open for the account",
            field="tender_id",
        )


def _cost(side: Side, value: int) -> int:
    """Return what one lot costs; at least 0, as for an order."""
    return max(0, value if side == "buy" else -value)
