"""Results of matches, from journals.

What was played is in the record of the director: which rounds of which
journal count, and under which name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from exchange.journal.reading import readable

from .draws import teams_of
from .fair import FILE, FairPaths, read_paths
from .figures import Figures
from .file import Event
from .follow import Match
from .record import MatchRow, read_matches
from .scoring import Result, ranks
from .tables import MatchSettings
from .tape import Tape

JOURNAL = "journal.db"
HAVE_RESULTS = ("settled", "scored")  # statuses of a match


@dataclass(frozen=True, slots=True)
class Played:
    """A match that counts: its row in the record, and where its files are."""

    row: MatchRow
    folder: Path
    journal: Path
    teams: tuple[str, ...]

    @property
    def name(self) -> str:
        """Return what the match is called: round and match."""
        return f"{self.row.round}/{self.row.match}"


def played(event: Event) -> list[Played]:
    """Return the matches that count, in the order of the file's rounds.

    Of several attempts at a match the last one counts. Those of one journal
    stand in the order in which they were played.
    """
    last: dict[tuple[str, str], MatchRow] = {}
    for row in read_matches(event.folder):
        last[row.round, row.match] = row
    order = {row.name: number for number, row in enumerate(event.rounds)}
    found = [
        row
        for row in last.values()
        if row.status in HAVE_RESULTS
        and row.number is not None
        and row.round in order
    ]
    # Isolated matches are played side by side: they stand by their names.
    found.sort(
        key=lambda row: (
            order[row.round],
            0 if event.is_large else row.number,
            len(row.match),
            row.match,
        )
    )
    return [_played(event, row) for row in found]


def _played(event: Event, row: MatchRow) -> Played:
    folder = event.folder / row.round / row.match
    return Played(
        row,
        folder,
        (folder if event.is_large else event.folder) / JOURNAL,
        teams_of(event, row.round, row.match),
    )


def follow_all(
    event: Event, matches: Iterable[Played]
) -> Iterator[tuple[Played, FairPaths, Match]]:
    """Yield matches, each ready to be followed, with its hidden values.

    Each journal is read once. Read the rows of a match before the next match
    is taken. Raises JournalError, FairError and OSError.
    """
    by_journal: dict[Path, list[Played]] = {}
    for match in matches:
        by_journal.setdefault(match.journal, []).append(match)
    for journal, group in by_journal.items():
        group.sort(key=lambda match: match.row.number or 0)
        with readable(journal) as path:
            tape = Tape(path)
            for match in group:
                assert match.row.number is not None
                tape.seek(match.row.number)
                fair = read_paths(match.folder / FILE)
                yield match, fair, Match(
                    tape, fair, event.symbols, match.teams
                )


def results_of(match: Match, settings: MatchSettings) -> list[Result]:
    """Return the results of a match whose rows were all read, best first."""
    results = {
        name: _result(figures, settings)
        for name, figures in match.figures.items()
    }
    came = {name: r.pnl for name, r in results.items() if r.connected}
    places = ranks(came)
    last = len(came) + 1
    ranked = [
        replace(result, rank=places.get(name, last))
        for name, result in results.items()
    ]
    return sorted(ranked, key=lambda result: (result.rank, result.team))


def _result(figures: Figures, settings: MatchSettings) -> Result:
    """Return a team's result, not ranked yet."""
    pnl, blow_out = figures.final - figures.start, settings.blow_out
    is_blown = figures.blown_out_ms is not None
    if not figures.was_connected:
        pnl = settings.no_show
    elif is_blown and blow_out is not None and blow_out.score == "limit":
        pnl = min(pnl, blow_out.limit)
    return Result(
        team=figures.team,
        pnl=pnl,
        rank=0,
        drawdown=figures.drawdown,
        volume=figures.volume,
        fees=figures.fees,
        blown_out=is_blown,
        connected=figures.was_connected,
        equity=tuple(figures.equity),
    )
