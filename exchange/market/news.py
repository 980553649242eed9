"""What an administrator tells everybody: messages, news, matches."""

from __future__ import annotations

from exchange.market.reports import (
    reply_ok,
    report_match,
    report_news,
    report_status,
)
from exchange.market.state import State
from orderbook import Admin, MatchInfo


def publish_message(state: State, name: str, admin: Admin) -> None:
    """Publish a message as a status."""
    if admin.symbol is not None:
        state.listing(admin.symbol)
    reply_ok(state, name)
    report_status(state, admin.message, admin.symbol)


def publish_news(state: State, name: str, admin: Admin) -> None:
    """Publish news; the status that follows has the reason."""
    if admin.symbol is not None:
        state.listing(admin.symbol)
    reply_ok(state, name)
    report_news(state, admin)
    message = f"news {state.news_id}: {admin.reason}"
    report_status(state, message, admin.symbol)


def set_match(state: State, name: str, admin: Admin) -> None:
    """Set the match that is played from now on, and publish it."""
    assert admin.name is not None
    reply_ok(state, name)
    state.match = MatchInfo(
        name=admin.name,
        round=admin.round,
        teams=admin.teams or (),
        fair_sha256=admin.fair_sha256,
    )
    report_match(state, state.match)
    report_status(state, f"match {admin.name}: {admin.reason}")
