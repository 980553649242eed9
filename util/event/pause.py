"""Let the trading time stand still: ``python -m util.event pause``.

A pause lasts until `resume`, whatever is started again meanwhile. Before the
opening of a match it delays the opening.
"""

from __future__ import annotations

import asyncio

from client import Exchange, ExchangeError
from exchange.host.keyfile import KeysError
from orderbook import PhaseName, Refused
from util.cli import failed, utf8

from .file import Event, EventError, read_event
from .file_checks import ADMINISTRATOR
from .isolated import label_of, markets_of
from .keys import tokens_of
from .options import event_parser
from .record import EVENT, Record
from .specs import local_url

RUNNING = ("open", "auction")  # phases in which the trading time runs
STANDING = ("halted", "pre_open")
# An exchange that was killed is back by then: the director starts it again.
CONNECT_TIMEOUT_S = 30.0


async def set_phases(event: Event, is_pause: bool, reason: str) -> int:
    """Halt or open the instruments that trade; return how many.

    Closed ones stay closed. Raises ExchangeError and Refused.
    """
    before = RUNNING if is_pause else STANDING
    phase: PhaseName = "halted" if is_pause else "open"
    token = tokens_of(event.folder).get(ADMINISTRATOR)
    async with Exchange(
        local_url(event),
        ADMINISTRATOR,
        token,
        cancel_on_disconnect=False,
        connect_timeout=CONNECT_TIMEOUT_S,
    ) as exchange:
        rows = await exchange.get("instruments")
        symbols = [r["symbol"] for r in rows if r["phase"] in before]
        if len(symbols) == len(rows):  # in one command
            await exchange.admin("phase", reason, phase=phase)
        else:
            for symbol in symbols:
                await exchange.admin(
                    "phase", reason, symbol=symbol, phase=phase
                )
        return len(symbols)


def open_markets(event: Event, record: Record) -> list[Event]:
    """Return the markets in which a match is open."""
    open_ = {
        label_of(attempt.key)
        for attempt in record.attempts().values()
        if attempt.status == "open"
    }
    return [
        market
        for name, market in markets_of(event, record)
        if open_ and (not name or name in open_)
    ]


def main(arguments: list[str] | None = None, is_pause: bool = True) -> int:
    """Run ``python -m util.event pause``; return the exit status."""
    name = "pause" if is_pause else "resume"
    words = "stand still" if is_pause else "go on"
    parser = event_parser(name, f"Let the trading time {words}.")
    parser.add_argument(
        "--reason",
        type=utf8,
        default=name,
        metavar="TEXT",
        help="it is recorded, and sent to all clients",
    )
    options = parser.parse_args(arguments)
    tool = f"event {name}"
    try:
        event = read_event(options.event)
        with Record.of(event.folder) as record:
            was_paused = record.paused() is not None
            markets = open_markets(event, record)
            if was_paused != is_pause:
                record.typed(EVENT, name, reason=options.reason)
        count, status = 0, 0
        for market in markets:
            try:
                count += asyncio.run(
                    set_phases(market, is_pause, options.reason)
                )
            except (Refused, ExchangeError) as error:
                why = f"an exchange has not done it: {error}"
                status = failed(tool, why, 1)  # the others still do it
    except (EventError, KeysError, ValueError, OSError) as error:
        return failed(tool, error)
    if status:
        return status
    if markets:
        print(f"{name}: {count} instruments {words}")
    elif is_pause:
        print("pause: no round opens until `resume`")
    else:
        print("resume: rounds open at their times")
    return 0
