"""Dossiers: what each team did in a match, as files.

``python -m util.event dossier`` writes them again. They come from the journal
alone, so two runs give the same bytes. All files of a match are written
beside the old ones first; if the figures contradict each other, nothing is
replaced.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exchange.files import text_of
from exchange.journal.sqlite import JournalError
from util.cli import failed, utf8

from .csv_tables import CsvTables
from .fair import FILE, FairError, FairPaths, label_of
from .figures import Figures, ResultError
from .file import Event, EventError, read_event
from .file_checks import PUBLIC_FOLDER
from .follow import LEVELS, Match
from .options import event_parser
from .record import Key, Record
from .results import Played, follow_all, played, results_of
from .scoring import Result, RuleError, decimals, load_rule, points_of

MARKET_FILE = "market.toml"
COLUMNS: dict[str, tuple[str, ...]] = {
    "executions": (
        *("t_ms", "ts", "seq", "exec_type", "order_id", "client_order_id"),
        *("symbol", "side", "order_status", "price", "qty", "cum_qty"),
        *("leaves_qty", "last_qty", "last_price", "trade_id", "liquidity"),
        *("fee", "reason"),
    ),
    "fills": (
        *("t_ms", "ts", "trade_id", "order_id", "symbol", "side", "qty"),
        *("price", "liquidity", "fee", "position", "cash", "fair", "edge"),
        *("mid", "mid_1s", "mid_5s", "mid_30s"),
    ),
    # Then position_S for each symbol.
    "equity": ("t_ms", "cash", "equity_mark", "equity_fair", "drawdown"),
    "refused": ("t_ms", "request", "symbol", "code", "field", "message"),
    "conversions": (
        *("t_ms", "symbol", "side", "qty", "fee", "basket_at_fair", "gain"),
    ),
}
PUBLIC_COLUMNS: dict[str, tuple[str, ...]] = {
    "trades": (
        *("t_ms", "ts", "symbol", "seq", "trade_id", "price", "qty", "side"),
    ),
    "book": (
        *("t_ms", "symbol", "seq"),
        *(
            f"{side}{what}_{level}"
            for side in ("bid", "ask")
            for level in range(1, LEVELS + 1)
            for what in ("", "_qty")
        ),
    ),
    "news": ("t_ms", "ts", "news_id", "symbol", "headline", "body", "value"),
}


def write_dossiers(
    event: Event,
    round_name: str,
    match_name: str,
    teams: Iterable[str] | None = None,
) -> list[Result]:
    """Write the dossiers of one match; return its results, best first.

    ``teams`` None: of all, and the public files. Raises ResultError if the
    match does not count, is not over, or its figures contradict each other;
    JournalError, FairError, RuleError and OSError.
    """
    found = [
        one
        for one in played(event)
        if (one.row.round, one.row.match) == (round_name, match_name)
    ]
    if not found:
        raise ResultError(f"{round_name}/{match_name} has no result")
    for one, fair, match in follow_all(event, found):
        return write_match(event, one, fair, match, teams)
    raise AssertionError


def write_match(
    event: Event,
    one: Played,
    fair: FairPaths,
    match: Match,
    teams: Iterable[str] | None = None,
) -> list[Result]:
    """Read the rows of a match and write them, as `write_dossiers` does."""
    wanted = set(one.teams)
    if teams is not None:
        wanted &= set(teams)
    tables = CsvTables()
    writer = _Writer(event, one, tables, wanted, is_public=teams is None)
    try:
        writer.begin()
        for row in match.rows():
            writer.add(row.team, row.table, row.cells)
        results = results_of(match, event.settings_of(one.row.round))
        writer.end(match, fair, results)
        tables.commit()
    except ResultError as error:
        raise ResultError(f"{one.name}: {error}") from None
    finally:
        tables.drop()
    return results


class _Writer:
    """Writes the files of one match."""

    def __init__(
        self,
        event: Event,
        one: Played,
        tables: CsvTables,
        wanted: set[str],
        *,
        is_public: bool,
    ) -> None:
        self._event = event
        self._one = one
        self._tables = tables
        self._wanted = wanted
        self._is_public = is_public

    def _path(self, team: str, name: str) -> Path:
        return self._one.folder / (team or PUBLIC_FOLDER) / name

    def begin(self) -> None:
        """Begin all tables."""
        positions = [f"position_{symbol}" for symbol in self._event.symbols]
        for team in self._wanted:
            for name, columns in COLUMNS.items():
                own = positions if name == "equity" else []
                path = self._path(team, f"{name}.csv")
                self._tables.begin(path, [*columns, *own])
        if self._is_public:
            for name, columns in PUBLIC_COLUMNS.items():
                self._tables.begin(self._path("", f"{name}.csv"), columns)

    def add(self, team: str, table: str, cells: list[Any]) -> None:
        """Add a row, if it is wanted."""
        if team in self._wanted or not team and self._is_public:
            self._tables.add(self._path(team, f"{table}.csv"), cells)

    def end(
        self, match: Match, fair: FairPaths, results: list[Result]
    ) -> None:
        """Check the figures, and write what is known at the end only."""
        event, one = self._event, self._one
        scores = _scores(event, one.row.round, results)
        seen = _accounts_seen(event, one)
        for result in results:
            figures = match.figures[result.team]
            if result.team in self._wanted:
                self._check(figures, result, seen)
                summary = summary_of(figures, result, scores[result.team])
                path = self._path(result.team, "summary.json")
                self._tables.text(path, _json(summary))
        if self._is_public:
            self._tables.text(self._path("", FILE), fair.text())
            market = text_of(event.market_path.read_bytes())
            self._tables.text(self._path("", MARKET_FILE), market)
            public = self._public(match, fair, results, scores)
            self._tables.text(self._path("", "result.json"), _json(public))

    def _check(
        self, figures: Figures, result: Result, seen: Mapping[str, int]
    ) -> None:
        """Refuse figures that are not equal to the unit."""
        team = figures.team
        last = self._tables.last_row(self._path(team, "equity.csv"))
        made = {
            "the last cash of equity.csv": int(last["cash"]),
            "its equity_mark": int(last["equity_mark"]),
            "its equity_fair": int(last["equity_fair"]),
            "the account that the exchange showed": seen.get(
                team, figures.final
            ),
        }
        is_as_played = result.connected and not result.blown_out
        if is_as_played:
            made["the start and the P&L"] = figures.start + result.pnl
        for what, cash in made.items():
            if cash != figures.final:
                raise ResultError(
                    f"{team} ends with {figures.final}, but {what}"
                    f" make {cash}"
                )

    def _public(
        self,
        match: Match,
        fair: FairPaths,
        results: list[Result],
        scores: Mapping[str, str],
    ) -> dict[str, Any]:
        row = self._one.row
        return {
            "event": self._event.event.name,
            "round": row.round,
            "match": row.match,
            "attempt": row.attempt,
            "opened_ts": match.opened_ts,
            "trading_ms": fair.last_ms,
            "rule": self._event.scoring_of(row.round).rule,
            "fair_label": label_of(row.round, row.match, row.attempt),
            "fair_salt": fair.salt,
            "fair_sha256": fair.commitment,
            "results": [
                {
                    "rank": result.rank,
                    "team": result.team,
                    "pnl": result.pnl,
                    "score": scores[result.team],
                    "drawdown": result.drawdown,
                    "volume": result.volume,
                    "fees": result.fees,
                    "blown_out": result.blown_out,
                    "connected": result.connected,
                }
                for result in results
            ],
        }


def summary_of(figures: Figures, result: Result, score: str) -> dict[str, Any]:
    """Return ``summary.json``; ``score`` is that of this match alone."""
    share = figures.maker_qty * 10_000 // max(1, figures.volume)
    return {
        "team": result.team,
        "pnl": result.pnl,
        "rank": result.rank,
        "score": score,
        "start_cash": figures.start,
        "final_cash": figures.final,
        "drawdown": result.drawdown,
        "volume": result.volume,
        "fills": figures.fills,
        "maker_share": f"{share // 10_000}.{share % 10_000:04d}",
        "fees": result.fees,
        "edge_captured": figures.edge,
        "largest_position": dict(sorted(figures.largest.items())),
        "orders": figures.orders,
        "cancels": figures.cancels,
        "refusals": dict(sorted(figures.refusals.items())),
        "logins": figures.logins,
        "reconnects": figures.reconnects,
        "connected": result.connected,
        "connected_s": figures.connected_ms // 1_000,
        "blown_out": result.blown_out,
        "blown_out_ms": figures.blown_out_ms,
    }


def _scores(
    event: Event, round_name: str, results: list[Result]
) -> dict[str, str]:
    """Return the points of this match alone, with two decimals."""
    scoring = event.scoring_of(round_name)
    rule = load_rule(scoring.rule, event.path.parent)
    points = points_of(
        scoring.rule, rule, [results], scoring.options, event.teams
    )
    return {team: decimals(value) for team, value in points.items()}


def _accounts_seen(event: Event, one: Played) -> dict[str, int]:
    """Return the cash that the exchange showed to the director at the end."""
    row = one.row
    with Record.of(event.folder) as record:
        attempt = record.attempts()[Key(row.round, row.match, row.attempt)]
    cash: dict[str, int] = dict(attempt.done.get("settled", {})).get(
        "cash", {}
    )
    return cash


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


# The command --------------------------------------------------------------


def chosen(event: Event, name: str | None) -> Iterator[Played]:
    """Yield the matches of a name as in "A" or "A/03"; None: all."""
    for one in played(event):
        if name in (None, one.row.round, one.name):
            yield one


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event dossier``; return the exit status."""
    parser = event_parser(
        "dossier", "Write dossiers again, from the journals."
    )
    parser.add_argument(
        "match",
        type=utf8,
        nargs="?",
        metavar="MATCH",
        help="a round, or a match of it as in A/03 (default: all)",
    )
    parser.add_argument(
        "--team", type=utf8, metavar="T", help="only the files of this team"
    )
    options = parser.parse_args(arguments)
    try:
        event = read_event(options.event)
        if options.team is not None and options.team not in event.teams:
            return failed("event dossier", f"{options.team!r} is no team", 1)
        teams = None if options.team is None else [options.team]
        matches = [*chosen(event, options.match)]
        if not matches:
            name = options.match or "the event"
            return failed("event dossier", f"{name} has no result yet", 1)
        for one, fair, match in follow_all(event, matches):
            write_match(event, one, fair, match, teams)
            print(f"{one.name}: {one.folder}", flush=True)
    except (EventError, RuleError) as error:
        return failed("event dossier", error)
    except (FairError, JournalError, ResultError, OSError) as error:
        return failed("event dossier", error, 1)
    return 0
