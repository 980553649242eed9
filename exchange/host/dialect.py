"""Whether the exchange dialect is spoken beside the native protocol."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from exchange.doors.listener import Listener
from exchange.doors.spot.doors import SpotDoors
from exchange.doors.spot.http import Connection as SpotConnection
from exchange.doors.spot.values import Symbols, ValuesError
from exchange.gateway.gateway import Gateway
from exchange.host.clock import Clock
from exchange.host.keyring import KeyRing
from exchange.host.market_file import SettingsError
from exchange.host.settings import Settings
from exchange.market.command import Configure


def open_dialect(
    settings: Settings,
    market: Configure,
    gateway: Gateway,
    *,
    keys: KeyRing,
    step: Callable[[Callable[[], object]], None],
    clock: Clock,
    listener: Listener,
) -> SpotDoors | None:
    """Return the exchange dialect, if it is switched on; an edge has none.

    Raises SettingsError if the market's numbers do not fit.
    """
    if settings.dialect == "off" or settings.is_edge:
        return None
    listener.protocol = SpotConnection
    instruments = {i.symbol: i for i in market.instruments}
    with fitting_the_dialect():
        symbols = Symbols(instruments, market.money)
    return SpotDoors(
        gateway,
        symbols,
        keys,
        step,
        now=clock.now,
        elapsed=clock.elapsed,
    )


@contextlib.contextmanager
def fitting_the_dialect() -> Iterator[None]:
    """Make SettingsError of numbers that the exchange dialect cannot show."""
    try:
        yield
    except ValuesError as error:
        raise SettingsError(f"dialect: {error}") from None
