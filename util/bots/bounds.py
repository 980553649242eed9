"""How much a bot holds and shows, within what the instrument allows.

Where the position limit is small, all kinds of bots hold less in the same
proportion. Otherwise the noise traders would fill the makers, who then show
one side only.
"""

from __future__ import annotations

from orderbook import Instrument

USUAL = 100  # the position limit for which the bots' own bounds are made
ORDERS = 5  # of a bot's usual size that fill its bound, at least


def most_held(instrument: Instrument, wanted: int) -> int:
    """Return the lots that a bot holds at most, long or short."""
    limit = instrument.max_position
    if not limit:
        return wanted
    return min(limit, max(1, wanted * min(limit, USUAL) // USUAL))


def order_size(instrument: Instrument, wanted: int, most: int) -> int:
    """Return the lots of an order of somebody who holds ``most`` at most."""
    return min(wanted, max(1, most // ORDERS), instrument.max_qty)
