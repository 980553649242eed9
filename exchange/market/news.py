"""What an administrator tells everybody."""

from __future__ import annotations

from exchange.market.reports import reply_ok, report_news, report_status
from exchange.market.state import State
from orderbook import Admin


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
