"""Recorded order flow as commands: from a journal, or from a file of trades.

A file of trades has the columns ts, symbol, price, qty and side, as
``/v1/trades.csv`` has them; other columns are ignored, but for ``busted``.
Of each trade two orders are made, of two accounts: one that rests, and
directly after it one that takes it.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Hashable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Protocol, TypeAlias

from pydantic import BaseModel, Field, ValidationError

from exchange.files import text_of
from exchange.host.market_file import (
    InstrumentSettings,
    MarketSettings,
    explain,
)
from exchange.journal.records import decode_records
from exchange.journal.sqlite import JournalError, open_journal, read_journal
from exchange.market.command import Command, Configure
from orderbook import MAX_INT, Place, Price, Qty, Side, Symbol

PREFIX = "@flow"
SQLITE = b"SQLite format 3\0"  # the first bytes of a journal
COLUMNS = ("ts", "symbol", "price", "qty", "side")
# Before the first trade, for bots to connect and to quote.
LEAD_US = 1_000_000
MAKER, TAKER = "maker", "taker"
# To be closed in the thread that has begun to read it.
Commands: TypeAlias = Generator[Command, None, None]


def flow_account(name: str) -> str:
    """Return the account that plays a recorded one; "" stays "".

    Those of the exchange, and of a flow that was recorded again, keep theirs.
    """
    if not name or name.startswith("@"):
        return name
    return f"{PREFIX}.{name}"


def market_of(recorded: Configure) -> Configure:
    """Return a recorded market, in which the flow has its accounts' limits."""
    played = {flow_account(n): x for n, x in recorded.accounts.items()}
    return replace(recorded, accounts={**recorded.accounts, **played})


class FlowError(Exception):
    """The recorded flow cannot be used; the text names file and line."""


class Recording(Hashable, Protocol):
    """Commands as they were recorded, and the market they were made in.

    ``start`` and ``end`` are the times of the first and the last command, in
    microseconds since the epoch.
    """

    path: Path
    market: Configure
    start: int
    end: int

    def commands(self) -> Commands:
        """Yield the commands that follow the first configuration."""


def read_recording(path: Path) -> Recording:
    """Open a journal or a file of trades.

    Raises FlowError, JournalError or OSError.
    """
    with path.open("rb") as file:
        is_journal = file.read(len(SQLITE)) == SQLITE
    return JournalRecording(path) if is_journal else TradesRecording(path)


class JournalRecording:
    """A journal, which is read while it is played."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for first, *_ in read_journal(path):
            break
        else:
            raise FlowError(f"{path}: the journal is empty")
        assert isinstance(first.action, Configure)  # or it is no journal
        self.market = first.action
        self.start = first.ts
        self.end = _last_ts(path)

    def commands(self) -> Commands:
        """Yield all commands but the first; raises JournalError."""
        for batch in read_journal(self.path):
            for command in batch:
                if command.seq > 1 and command.ts <= self.end:
                    yield command


def _last_ts(path: Path) -> int:
    """Return the time of the last command, of which little is verified."""
    with closing(open_journal(path)) as file:
        first_seq, records = file.execute(
            "SELECT first_seq, records FROM batches"
            " ORDER BY first_seq DESC LIMIT 1"
        ).fetchone()
    try:
        return decode_records(first_seq, records)[-1].ts
    except ValueError:
        raise JournalError(
            f"{path}: the last record is one that this program cannot read"
        ) from None


class _Row(BaseModel):
    """One trade of a file."""

    ts: Annotated[int, Field(ge=1, le=MAX_INT)]
    symbol: Symbol
    price: Price
    qty: Qty
    side: Side
    busted: bool = False


@dataclass(frozen=True, slots=True)
class _Trade:
    line: int
    ts: int
    symbol: str
    price: int
    qty: int
    side: Side


class TradesRecording:
    """A file of trades, read at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._trades = list(_read_trades(path))
        if not self._trades:
            raise FlowError(f"{path}: it has no trades")
        self.market = _market_of(path, self._trades)
        self.start = self._trades[0].ts - LEAD_US
        self.end = self.start
        for command in self.commands():
            self.end = command.ts

    def commands(self) -> Commands:
        """Yield the two orders of each trade, with times that ascend."""
        seq, ts = 1, self.start
        for trade in self._trades:
            rest: Side = "sell" if trade.side == "buy" else "buy"
            for account, side, time_in_force in (
                (MAKER, rest, "gtc"),
                (TAKER, trade.side, "ioc"),
            ):
                seq, ts = seq + 1, max(ts + 1, trade.ts)
                order = Place(
                    symbol=trade.symbol,
                    side=side,
                    qty=trade.qty,
                    price=trade.price,
                    time_in_force=time_in_force,  # type: ignore[arg-type]
                )
                yield Command(seq, ts, account, "", order)


def _read_trades(path: Path) -> Iterator[_Trade]:
    """Yield the trades of a file; raises FlowError, OSError."""
    try:
        lines = text_of(path.read_bytes()).splitlines()
    except UnicodeDecodeError:
        raise FlowError(
            f"{path}: neither a journal nor a file of text"
        ) from None
    rows = csv.DictReader(lines)
    missing = [x for x in COLUMNS if x not in (rows.fieldnames or ())]
    if missing:
        raise FlowError(
            f"{path}: line 1: there is no column {missing[0]}; a file of"
            f" trades has the columns {', '.join(COLUMNS)}"
        )
    last = 0
    try:
        for cells in rows:
            where = f"{path}: line {rows.line_num}"
            if None in cells:
                raise FlowError(f"{where}: more cells than line 1 has")
            try:
                row = _Row.model_validate(cells)
            except ValidationError as error:
                raise FlowError(f"{where}: {explain(error)}") from None
            if row.ts < last:
                raise FlowError(
                    f"{where}: ts: {row.ts} is before {last} of the trade"
                    " before it"
                )
            last = row.ts
            if row.ts <= LEAD_US:
                raise FlowError(f"{where}: ts: not in microseconds since 1970")
            if not row.busted:
                yield _Trade(
                    rows.line_num,
                    *(row.ts, row.symbol, row.price, row.qty, row.side),
                )
    except csv.Error as error:
        raise FlowError(f"{path}: line {rows.line_num}: {error}") from None


def _market_of(path: Path, trades: Iterable[_Trade]) -> Configure:
    """Return a market in which the trades are possible; raises FlowError."""
    default = InstrumentSettings()
    bounds: dict[str, tuple[int, int, int, int]] = {}
    for trade in trades:
        first, low, high, most = bounds.get(
            trade.symbol,
            (trade.price, default.min_price, default.max_price)
            + (default.max_qty,),
        )
        low, high = min(low, trade.price), max(high, trade.price)
        most = max(most, trade.qty)
        bounds[trade.symbol] = first, low, high, most
    try:
        market = MarketSettings(
            instruments={
                symbol: InstrumentSettings(
                    min_price=low,
                    max_price=high,
                    max_qty=most,
                    reference_price=first,
                )
                for symbol, (first, low, high, most) in bounds.items()
            }
        )
        return market.rules(is_guarded=False, connections=0).configure
    except ValidationError as error:
        raise FlowError(f"{path}: {explain(error)}") from None
