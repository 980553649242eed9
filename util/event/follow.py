"""One match of a journal, followed command by command.

`Match.rows` yields all that dossiers show, in the order in which it happened;
after the last row the figures of each team are complete. Nothing is read but
the journal and the hidden values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple, get_args

from exchange.market.command import (
    BustTrade,
    Connect,
    Disconnect,
    Restart,
    Shutdown,
)
from exchange.market.engine import Engine
from exchange.market.listing import Listing
from orderbook import (
    AccountReport,
    Admin,
    Amend,
    Convert,
    Error,
    Event,
    Exec,
    News,
    Ok,
    Place,
    Side,
    Status,
    Trade,
)

from .fair import FairPaths
from .figures import Figures, ResultError
from .markouts import Marked, Markouts
from .tape import Step, Tape

LEVELS = 5  # of a book, on each side
PUBLIC = ""  # the rows of nobody


class Row(NamedTuple):
    """A line of a table of a team, or of a public one."""

    team: str
    table: str
    cells: list[Any]


class Match:
    """A match, followed on a tape that stands at its first command."""

    def __init__(
        self,
        tape: Tape,
        fair: FairPaths,
        symbols: Iterable[str],
        teams: Iterable[str],
    ) -> None:
        self.figures = {team: Figures(team) for team in teams}
        self.opened_ts: int | None = None
        self._tape = tape
        self._engine: Engine = tape.engine
        self._fair = fair
        self._symbols = tuple(symbols)
        self._markouts = Markouts()
        self._books: dict[str, list[int | str]] = {}  # their last rows
        self._end_ms = 0
        self._was_open = False

    def rows(self) -> Iterator[Row]:
        """Yield all rows; raises JournalError, and ResultError at the end.

        What follows the settlement does not count, or rows would depend on
        how long the exchange went on.
        """
        for team, figures in self.figures.items():
            figures.cash = self._cash(team)
            figures.was_there = self._is_connected(team)
        for step in self._tape.steps(self._fair.last_ms):
            if isinstance(step, int):
                yield from self._second(step)
            else:
                yield from self._step(step)
                if self._is_over():
                    break
        for fill in self._markouts.rest():
            yield _fill_row(fill)
        yield from self._end()

    # Time

    def _second(self, second: int) -> Iterator[Row]:
        """Value every team; second 0 is the opening."""
        if second == 0:
            self.opened_ts = self._engine.ts
            for team, figures in self.figures.items():
                figures.start = self._cash(team)
        t_ms = second * 1_000
        if t_ms < self._fair.last_ms:
            yield from self._values(t_ms)

    def _values(self, t_ms: int) -> Iterator[Row]:
        """Yield the equity of every team."""
        symbols, fair = self._symbols, self._fair.prices(t_ms)
        listings = self._engine.listings
        marks = {s: listings[s].value_of(listings[s].mark()) for s in symbols}
        fairs = {s: listings[s].value_of(fair[s]) for s in symbols}
        for team, figures in self.figures.items():
            account = self._engine.accounts.get(team)
            held = {} if account is None else account.positions
            cash = self._cash(team)
            positions = [held.get(symbol, 0) for symbol in symbols]
            mark = fair_equity = cash
            for symbol, position in zip(symbols, positions):
                if position:
                    mark += position * marks[symbol]
                    fair_equity += position * fairs[symbol]
            figures.value(fair_equity)
            fall = figures.peak - fair_equity
            cells = [t_ms, cash, mark, fair_equity, fall, *positions]
            yield Row(team, "equity", cells)

    def _is_over(self) -> bool:
        """Return whether all instruments are settled and everybody is paid."""
        if self.opened_ts is None or self._tape.is_open or self._engine.work:
            return False
        listings = self._engine.listings.values()
        return all(one.settlement_price is not None for one in listings)

    def _end(self) -> Iterator[Row]:
        """Yield the last equity; raises ResultError."""
        engine = self._engine
        if self.opened_ts is None:
            raise ResultError("the match was never opened")
        for symbol, listing in engine.listings.items():
            if listing.settlement_price is None:
                raise ResultError(f"{symbol} is not settled")
        if engine.work:
            raise ResultError("the settlement is not complete")
        for team, figures in self.figures.items():
            figures.final = self._cash(team)
            account = engine.accounts.get(team)
            if account is not None and any(account.positions.values()):
                raise ResultError(f"{team} still has a position")
        yield from self._values(self._end_ms)

    def _cash(self, team: str) -> int:
        """Return a team's cash, also of one that never logged in."""
        account = self._engine.accounts.get(team)
        if account is None:
            return self._engine.limits(team).cash
        return account.cash

    # Commands

    def _step(self, step: Step) -> Iterator[Row]:
        command, t_ms = step.command, step.t_ms
        self._end_ms = t_ms
        for fill in self._markouts.pass_time(command.ts):
            yield _fill_row(fill)
        own_trades = {
            (event.symbol, event.trade_id)
            for _, event in step.outputs
            if isinstance(event, Trade) and event.is_self
        }
        for recipient, event in step.outputs:
            if not recipient:
                yield from _public(event, t_ms)
            elif recipient in self.figures:
                figures = self.figures[recipient]
                yield from self._private(figures, event, step, own_trades)
        self._follow(step)
        for listing in step.changed:
            self._markouts.follow(listing)
            yield from self._book(listing, t_ms)
        for _, event in step.outputs:
            if isinstance(event, Status) and event.phase is not None:
                assert event.symbol is not None
                self._markouts.follow(self._engine.listings[event.symbol])

    def _private(
        self,
        figures: Figures,
        event: Event,
        step: Step,
        own_trades: Collection[tuple[str, int]],
    ) -> Iterator[Row]:
        """Yield what an event of a team is in its tables."""
        team, action = figures.team, step.command.action
        match event:
            case Exec():
                yield Row(team, "executions", _executed(event, step.t_ms))
                figures.orders += event.exec_type == "new"
                figures.cancels += event.exec_type == "canceled"
                if event.last_qty is not None:
                    is_own = (event.symbol, event.trade_id) in own_trades
                    self._fill(figures, event, step.t_ms, is_own)
            case Error():
                figures.refusals[event.code] += 1
                symbol = getattr(action, "symbol", None)
                cells = [action.type, symbol, event.code, event.field]
                yield Row(team, "refused", [step.t_ms, *cells, event.message])
            case AccountReport():
                is_trade = isinstance(action, (Place, Amend))
                if is_trade and figures.cash != event.cash:
                    raise ResultError(
                        f"after command {step.command.seq} {team} has"
                        f" {event.cash}, its fills make {figures.cash}"
                    )
                figures.cash = event.cash
                figures.hold(event.positions)
            case Ok() if isinstance(action, Convert):
                yield self._conversion(team, action, step.t_ms)

    def _fill(
        self, figures: Figures, fill: Exec, t_ms: int, is_own: bool
    ) -> None:
        """Book a fill, and let its row wait for later middles."""
        symbol, price, qty = fill.symbol, fill.last_price, fill.last_qty
        assert price is not None and qty is not None
        fee = fill.fee or 0
        bought = qty if fill.side == "buy" else -qty
        value_of = self._engine.listings[symbol].value_of
        figures.cash -= bought * value_of(price) + fee
        position = figures.positions.get(symbol, 0) + bought
        figures.hold({symbol: position})
        fair = self._fair.at(t_ms, symbol)
        edge = bought * value_of(fair - price)
        figures.fills += 1
        figures.fees += fee
        figures.edge += edge
        if not is_own:  # who trades with oneself makes no volume
            figures.volume += qty
            figures.maker_qty += qty if fill.liquidity == "maker" else 0
        cells: list[Any] = [t_ms, fill.ts, fill.trade_id, fill.order_id]
        cells += [symbol, fill.side, qty, price, fill.liquidity, fee]
        cells += [
            position,
            figures.cash,
            fair,
            edge,
            self._markouts.mid(symbol),
        ]
        self._markouts.add(Marked(fill.ts, symbol, figures.team, cells))

    def _conversion(self, team: str, request: Convert, t_ms: int) -> Row:
        listings, symbol, qty = (
            self._engine.listings,
            request.symbol,
            request.qty,
        )
        conversion = listings[symbol].instrument.convert
        assert conversion is not None
        values = {
            name: listings[name].value_of(self._fair.at(t_ms, name))
            for name in (symbol, *conversion.basket)
        }
        basket = sum(
            qty * count // conversion.per * values[name]
            for name, count in conversion.basket.items()
        )
        gain = qty * values[symbol] - basket
        if request.side == "sell":
            gain = -gain
        cells = [t_ms, symbol, request.side, qty, conversion.fee, basket]
        return Row(team, "conversions", [*cells, gain - conversion.fee])

    def _book(self, listing: Listing, t_ms: int) -> Iterator[Row]:
        """Yield the best levels of a book, if they have changed."""
        symbol = listing.instrument.symbol
        levels: list[int | str] = []
        for side in get_args(Side):
            depth = listing.book.depth(side, LEVELS)
            for price, qty in depth:
                levels += (price, qty)
            levels += [""] * 2 * (LEVELS - len(depth))
        if self._books.get(symbol) != levels:
            self._books[symbol] = levels
            cells = [t_ms, symbol, listing.seq, *levels]
            yield Row(PUBLIC, "book", cells)

    def _follow(self, step: Step) -> None:
        """Follow what a command did to connections, and to accounts."""
        command, is_open = step.command, self._tape.is_open
        action = command.action
        if isinstance(action, Connect) and command.account in self.figures:
            figures = self.figures[command.account]
            figures.logins += 1
            figures.was_connected |= is_open
        if isinstance(action, (Connect, Disconnect)):
            self._look_at(command.account, step.t_ms)
        elif isinstance(action, (Restart, Shutdown)):
            self._look_at_all(step.t_ms)
        if self._was_open != is_open:
            self._was_open = is_open
            self._look_at_all(step.t_ms)
        if isinstance(action, BustTrade) and not _is_refused(step):
            self._undo(action)
        elif isinstance(action, Admin) and action.action == "close_out":
            blown = self.figures.get(action.user or "")
            if blown is not None and not _is_refused(step):
                if blown.blown_out_ms is None:
                    blown.blown_out_ms = step.t_ms

    def _look_at_all(self, t_ms: int) -> None:
        for team in self.figures:
            self._look_at(team, t_ms)

    def _look_at(self, name: str, t_ms: int) -> None:
        """Note whether a team is connected while the market is open."""
        figures = self.figures.get(name)
        if figures is None:
            return
        figures.connect(
            t_ms,
            self._tape.is_open and self._is_connected(name),
        )

    def _is_connected(self, team: str) -> bool:
        account = self._engine.accounts.get(team)
        if account is None:
            return False
        return any(one.connected for one in account.sessions.values())

    def _undo(self, bust: BustTrade) -> None:
        """Take back the volume and the fees of a trade."""
        for name, fee in (
            (bust.buyer, bust.buy_fee),
            (bust.seller, bust.sell_fee),
        ):
            figures = self.figures.get(name)
            if figures is not None:
                figures.fees -= fee
                if bust.buyer != bust.seller:
                    figures.volume -= bust.qty


# Rows ---------------------------------------------------------------------


def _executed(event: Exec, t_ms: int) -> list[Any]:
    return [
        t_ms,
        event.ts,
        event.seq,
        event.exec_type,
        event.order_id,
        event.client_order_id,
        event.symbol,
        event.side,
        event.order_status,
        event.price,
        event.qty,
        event.cum_qty,
        event.leaves_qty,
        event.last_qty,
        event.last_price,
        event.trade_id,
        event.liquidity,
        event.fee,
        event.reason,
    ]


def _public(event: Event, t_ms: int) -> Iterator[Row]:
    if isinstance(event, Trade):
        cells = [t_ms, event.ts, event.symbol, event.seq, event.trade_id]
        yield Row(
            PUBLIC, "trades", [*cells, event.price, event.qty, event.side]
        )
    elif isinstance(event, News):
        cells = [t_ms, event.ts, event.news_id, event.symbol]
        yield Row(
            PUBLIC, "news", [*cells, event.headline, event.body, event.value]
        )


def _fill_row(fill: Marked) -> Row:
    return Row(fill.team, "fills", [*fill.cells, *fill.mids])


def _is_refused(step: Step) -> bool:
    return isinstance(step.outputs[0][1], Error)
