"""A journal, played again: the commands of one round, and their time.

The market's rounds are cut at `reset`. Time is the trading time of the match:
it begins at the opening, and stands still while all instruments are halted
and while the exchange is down, as `close_ms` of the exchange does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exchange.journal.sqlite import JournalError, read_journal
from exchange.market.command import Command, Restart
from exchange.market.engine import Engine
from exchange.market.listing import Listing
from exchange.market.reports import in_full
from orderbook import Admin, Event

US_PER_MS = 1_000
US_PER_S = 1_000_000


@dataclass(slots=True)
class Step:
    """A command that was applied, and what came of it.

    ``t_ms`` is its trading time. ``changed`` are the instruments whose book
    changed, or that traded.
    """

    command: Command
    outputs: list[tuple[str, Event]]
    t_ms: int
    changed: list[Listing]


class Tape:
    """The commands of a journal, round by round, applied to an engine.

    First `seek` a round, then read its `steps`. Between two steps `engine` is
    the market after the first of them.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal; raises JournalError."""
        self.engine = Engine()
        self._path = path
        self._commands = (c for batch in read_journal(path) for c in batch)
        self._ahead: Command | None = next(self._commands, None)
        self._clock = TradingClock(self.engine, 0)

    @property
    def is_open(self) -> bool:
        """Whether the round was opened and is not yet closed."""
        return self._clock.is_open

    def seek(self, number: int) -> None:
        """Play up to the first command of a round; raises JournalError."""
        while self.engine.round < number or not self.engine.seq:
            if self._ahead is None:
                raise JournalError(
                    f"{self._path}: ends in round {self.engine.round} of the"
                    f" market, before round {number}"
                )
            self._apply(self._ahead)
        if self.engine.round > number:
            raise JournalError(
                f"{self._path}: round {number} of the market was read already"
            )

    def steps(self, trading_ms: int) -> Iterator[Step | int]:
        """Yield the steps of the round up to the next `reset`.

        ``trading_ms`` is its length. Before a step come the whole seconds of
        trading time that passed since the step before, as numbers; 0 follows
        the step that opens the market.
        """
        clock = self._clock = TradingClock(self.engine, trading_ms * US_PER_MS)
        second = 0
        while self._ahead is not None and not self._is_reset(self._ahead):
            was_open = clock.is_open
            clock.before(self._ahead)
            if was_open:
                for second in range(second + 1, clock.us // US_PER_S + 1):
                    yield second
            yield self._apply(self._ahead)
            if clock.is_open and not was_open and not second:
                yield 0

    def _is_reset(self, command: Command) -> bool:
        """Return whether a command ends the round.

        A repeated request is refused, and nothing else is.
        """
        action = command.action
        if not isinstance(action, Admin) or action.action != "reset":
            return False
        account = self.engine.accounts.get(command.account)
        name = action.client_request_id
        return account is None or name not in account.admin_requests

    def _apply(self, command: Command) -> Step:
        self._ahead = next(self._commands, None)
        engine = self.engine
        t_ms = self._clock.us // US_PER_MS
        try:
            outputs = in_full(engine.apply(command))
        except Exception as error:
            raise JournalError(
                f"{self._path}: command {command.seq} cannot be applied:"
                f" {error!r}"
            ) from error
        changed = [*engine.changed_books.values()]
        engine.take_book_updates(())
        self._clock.after()
        return Step(command, outputs, t_ms, changed)


class TradingClock:
    """The trading time of a match, as the closing times of its market say.

    An engine's instruments close after ``total_us`` of it.
    """

    def __init__(self, engine: Engine, total_us: int) -> None:
        self.us = 0  # at the last command
        self.is_open = False  # opened, and not yet closed
        self._engine = engine
        self._total = total_us

    def before(self, command: Command) -> None:
        """Go on to the time of a command that is about to be applied.

        The exchange was down before a `Restart`: no time has passed.
        """
        if not isinstance(command.action, Restart):
            self.us = self._at(command.ts)

    def after(self) -> None:
        """Find out whether a command has opened or closed the market."""
        listings = self._engine.listings.values()
        is_closing = any(one.close_ts is not None for one in listings)
        if self.is_open:
            is_trading = any(one.phase != "closed" for one in listings)
            self.is_open = is_closing or is_trading
        else:
            self.is_open = is_closing

    def _at(self, ts: int) -> int:
        """Return the time at ``ts``; it never goes back."""
        closing = [
            listing.close_ts
            for listing in self._engine.listings.values()
            if listing.close_ts is not None
        ]
        if not closing:
            return self.us
        return max(self.us, min(self._total, self._total - max(closing) + ts))
