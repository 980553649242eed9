"""The history as lines, and back.

An event that is kept as a text is a line of its own, as it was sent; the line
before says how many follow. Kept of an account are exactly the events that a
session can resume from. In which pieces the history joins them depends on who
was online, and is not kept. Entries of the history that hold nothing are made
by whoever asks for them, and are not kept either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from operator import attrgetter
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from exchange.journal.history import AccountHistory, History, as_text
from orderbook import INTERVALS, News, Status, Trade

ROWS_PER_LINE = 1_000
# Attributes that a snapshot does not have, and why.
LEFT_OUT: dict[type, dict[str, str]] = {
    AccountHistory: {
        "_is_text": "all events of a snapshot are texts",
        "_unnumbered": "empty between two commands",
    },
}
TRADE = tuple(f.name for f in fields(Trade) if f.name != "type")
_trade_row = attrgetter(*TRADE)
_NEWS = TypeAdapter(list[News])
_STATUSES = TypeAdapter(list[Status])


# Dumping ------------------------------------------------------------------


def dump(history: History) -> Iterator[str]:
    """Yield the lines of a history, between two commands."""
    kept = history.kept()
    yield _line("round", kept.round)
    yield _line("news", _NEWS.dump_python([*kept.news], mode="json"))
    yield _line(
        "statuses", _STATUSES.dump_python([*kept.statuses], mode="json")
    )
    for symbol, trades in _sorted(kept.trades):
        yield from _rows("trades", symbol, map(_trade_row, trades))
    for symbol, parties in _sorted(kept.parties):
        yield from _rows("parties", symbol, parties)
    for symbol, candles in sorted(kept.candles.items()):
        for interval in INTERVALS:
            rows = candles.kept(interval)
            yield from _rows("candles", [symbol, interval], rows)
    for name, account in sorted(kept.accounts.items()):
        if account.seq or account.fills:
            yield from _of_account(name, account)
    yield _line("end", None)


def _sorted(
    kept: Mapping[str, Sequence[Any]],
) -> list[tuple[str, Sequence[Any]]]:
    return sorted((key, rows) for key, rows in kept.items() if rows)


def _line(kind: str, *data: Any) -> str:
    return to_json([kind, *data]).decode()


def _rows(kind: str, key: Any, rows: Iterable[Any]) -> Iterator[str]:
    remaining = iter(rows)
    while some := [*islice(remaining, ROWS_PER_LINE)]:
        yield _line(kind, key, some)


def _of_account(name: str, account: AccountHistory) -> Iterator[str]:
    events, settlements = account.resumable()
    fills = account.fills
    yield _line(
        "account",
        name,
        account.seq,
        len(events),
        [seq for seq, _ in settlements],
        [[seq, symbol] for seq, symbol, _ in fills],
    )
    yield from events
    for _, settlement in settlements:
        yield as_text(settlement)
    for _, _, fill in fills:
        yield as_text(fill)


# Loading ------------------------------------------------------------------


def load(history: History, lines: Iterator[str]) -> None:
    """Fill a new history with the lines of `dump`, taken up to "end"."""
    kept = history.kept()
    for line in lines:
        kind, *data = from_json(line)
        match kind:
            case "round":
                history.begin_round(*data)
            case "news":
                kept.news.extend(_NEWS.validate_python(*data))
            case "statuses":
                kept.statuses.extend(_STATUSES.validate_python(*data))
            case "trades":
                symbol, rows = data
                kept.trades[symbol].extend(Trade(*row) for row in rows)
            case "parties":
                symbol, rows = data
                kept.parties[symbol].extend((name, seq) for name, seq in rows)
            case "candles":
                (symbol, interval), rows = data
                kept.candles[symbol].kept(interval).extend(rows)
            case "account":
                _load_account(history, lines, *data)
            case _:
                break


def _load_account(
    history: History,
    lines: Iterator[str],
    name: str,
    seq: int,
    count: int,
    settlements: list[int],
    fills: list[tuple[int, str]],
) -> None:
    account = history.account(name)
    events = [*islice(lines, count)]
    account.load(seq, events, [(at, next(lines)) for at in settlements])
    for at, symbol in fills:
        account.fills.append((at, symbol, next(lines)))
