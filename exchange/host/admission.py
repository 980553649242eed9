"""Whether strangers can reach an exchange, and how users log in."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from exchange.doors.names import is_loopback
from exchange.host.keyring import KeyRing
from exchange.host.market_file import SettingsError
from exchange.host.settings import Settings

logger = logging.getLogger("exchange")


def is_guarded(
    settings: Settings, addresses: Iterable[str], keys: KeyRing
) -> bool:
    """Return whether limits apply: strangers may connect, or there are keys.

    ``addresses`` are those listened on. Raises SettingsError if strangers
    could log in by any name and no setting asks for that. Nobody logs in at
    an edge, so anybody may connect there.
    """
    is_local = all(is_loopback(address) for address in addresses)
    # A proxy connects for others, even from this machine.
    is_private = is_local and not settings.proxies
    if settings.is_edge:
        return not is_private
    if settings.open and keys.problem:  # which names need a key is unknown
        raise SettingsError(keys.problem)
    if not (is_private or keys.is_needed or settings.open):
        where = "the exchange through EXCHANGE_SERVER_PROXIES"
        problem = (
            f"others can reach {where if is_local else settings.hostname},"
            " and there are no keys in"
            f" {settings.keys}: make keys with python -m util.accounts"
            " add NAME, or set EXCHANGE_SERVER_OPEN=1"
        )
        if not is_local:
            raise SettingsError(problem)
        logger.warning("%s", problem)
    return keys.is_needed or not is_private


def describe(keys: KeyRing) -> str:
    """Describe how users log in, in a few words."""
    if keys.is_open:
        return "open: a name is enough"
    if keys.is_needed:
        return f"keys {keys.path}"
    return "no keys: a name is enough"
