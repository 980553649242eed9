"""A tender as the market keeps it."""

from __future__ import annotations

from dataclasses import dataclass, field

from orderbook import Tender


@dataclass(slots=True)
class Offer:
    """A tender, the accounts that may accept it, and those that have.

    ``user`` None: every account. ``ends_ts`` None: it has ended.
    """

    tender: Tender
    user: str | None
    ends_ts: int | None
    accepted: dict[str, None] = field(default_factory=dict)  # by account
