"""The public tables as CSV, for spreadsheets, curl and `pandas.read_csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from pydantic_core import from_json, to_json

from orderbook import MAX_INT, MAX_ROWS, Error, Get, Refused, decode_requests

MAX_DIGITS = len(str(MAX_INT))
# Columns after the others, with the value of rows that have none. A table in
# which no row has one is as it was before there was such a column.
LATER = {"round": 1, "busted": False}
COLUMNS: dict[str, tuple[str, ...]] = {
    "trades": ("ts", "trade_id", "symbol", "price", "qty", "side", "seq"),
    "candles": ("start_ts", "open", "high", "low", "close", "volume"),
    "leaderboard": ("rank", "user", "equity", "cash"),  # then positions
}

Query: TypeAlias = Mapping[str, str]


def asked(what: str, query: Query) -> Get:
    """Return the request that a query describes.

    Raises Refused ("bad_request") that names the field.
    """
    fields: dict[str, Any] = {"limit": MAX_ROWS, **query}
    for name in ("after", "limit"):  # a query has only text
        text = str(fields.get(name, ""))
        # Python refuses to parse a number of thousands of digits.
        if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
            fields[name] = int(text)
    [request] = decode_requests(
        to_json({**fields, "what": what, "type": "get"})
    )
    if isinstance(request, Error):
        raise Refused("bad_request", request.message, field=request.field)
    assert isinstance(request, Get)
    return request


def as_csv(
    what: str,
    rows: Iterable[str],
    symbols: Iterable[str],
    has_positions: bool,
) -> str:
    """Return the encoded rows of a table as CSV.

    The leaderboard has a column for the position in each symbol; without
    ``has_positions`` its cells are empty. Trades have the columns LATER that
    are not at their default in every row.
    """
    columns = COLUMNS[what]
    decoded = [from_json(row) for row in rows]
    if what == "leaderboard":
        symbols = list(symbols)
        for row in decoded:
            held = row["positions"]
            none = 0 if has_positions else None
            row |= {s: held.get(s, none) for s in symbols}
        columns = (*columns, *symbols)
    if what == "trades":
        names = [name for name in LATER if any(name in r for r in decoded)]
        decoded = [{**LATER, **row} for row in decoded]
        columns = (*columns, *names)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in decoded:
        if isinstance(row, dict):
            row = [_cell(row[name]) for name in columns]
        writer.writerow(row)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return to_json(value).decode() if isinstance(value, bool) else value
