"""Show that book and engine match orders as others published it.

``python -m util.measure.conformance`` plays the edge cases of
`util.measure.rulebook` and the five workloads of `util.measure.workloads` on
the order book and on the engine, and compares the reports with the published
ones. It prints a line for each case. ``docs/CONFORMANCE.md`` says what this
proves.

Exit status: 0, or 1 if anything differs.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from tqdm import tqdm

from util.cli import new_parser
from util.measure.canonical import Digest
from util.measure.players import BookPlayer, EnginePlayer, Player
from util.measure.rulebook import Case, cases, depth
from util.measure.workloads import (
    MESSAGES,
    ORDERS,
    SCENARIOS,
    Draws,
    draw,
    messages,
)

# SHA-256 of the reports of each workload; docs/CONFORMANCE.md has the source.
PUBLISHED = {
    "normal": (
        "e9b2e3926854410b01a035aeb25dd05f1e597c233be8263de9eb49b6713d367e"
    ),
    "static": (
        "9803843ee404fc29c9a0aa5614f8f0d5a58b5c44fcac9ef89067886fcaaa30d1"
    ),
    "swing-25": (
        "61a84be9469661bd039e00dbc9a7c011e70b6ace37aadfe60045ea083b05f4df"
    ),
    "swing-40": (
        "3cb0175e7982ff09ea220d1feaee3844cf9116a5ce455757879dea1d880b9b9f"
    ),
    "flash-crash": (
        "cff8d3f94b709fc64a8b2058a6ca4fb6920364904796e46906895e362d2bb16b"
    ),
}
PLAYERS: dict[str, Callable[[], Player]] = {
    "book": BookPlayer,
    "engine": EnginePlayer,
}
EDGE_CASES = "edge-cases"
AT_ONCE = 2_000  # messages that are made, played and reported together
ROW = "{:<11} {:>9} {:>9} {:>9} {:>9} {:>9}  {}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a player made of a workload."""

    messages: int
    reports: int
    left: int  # orders in the book at the end
    sha256: str
    rate: float  # messages per second of CPU in book or engine


def play(name: str, draws: Draws) -> dict[str, Result]:
    """Play a workload on the book and on the engine; return both results.

    Raises AssertionError if an invariant does not hold at the end.
    """
    players = {player: make() for player, make in PLAYERS.items()}
    digests = {player: Digest() for player in PLAYERS}
    count = 0
    stream = messages(SCENARIOS[name], draws)
    with tqdm(
        total=MESSAGES * len(draws.arrival) // ORDERS,
        desc=name,
        unit=" messages",
        leave=False,
        disable=None,  # shown on a terminal only
    ) as progress:
        while some := list(islice(stream, AT_ONCE)):
            for player in PLAYERS:
                digests[player].add(players[player].play(some))
            count += len(some)
            progress.update(len(some))
    for made in players.values():
        made.check()
    return {
        player: Result(
            count,
            digests[player].count,
            len(made.book.orders),
            str(digests[player]),
            count / made.seconds,
        )
        for player, made in players.items()
    }


def faults_of(case: Case) -> Iterator[str]:
    """Yield how book and engine depart from an edge case.

    The engine plays the case with new ids, because it remembers the client's
    order ids and refuses one that is used again.
    """
    for name, make in PLAYERS.items():
        player = make()
        played = case if name == "book" else case.with_new_ids()
        lines, expected = player.play(played.messages), played.reports()
        player.check()
        if lines != expected:
            yield f"{name} reports {lines}, not {expected}"
        if depth(player.book) != case.left:
            yield f"{name} has {depth(player.book)} left, not {case.left}"


def run_edge_cases() -> int:
    """Print a line for each edge case; return how many differ."""
    bad = 0
    for case in cases():
        faults = list(faults_of(case))
        bad += bool(faults)
        verdict = "; ".join(faults) or "equal"
        print(f"{case.number:>2}. {case.title}: {verdict}", flush=True)
    return bad


def run_workloads(names: list[str], draws: Draws) -> int:
    """Print a line for each workload; return how many differ."""
    head = ("workload", "messages", "reports", "left", "book/s", "engine/s")
    print(ROW.format(*head, "SHA-256 of the reports"), flush=True)
    bad = 0
    for name in names:
        results = play(name, draws)
        faults = [
            f"{player} DIFFERS: {result.sha256}"
            for player, result in results.items()
            if result.sha256 != PUBLISHED[name]
        ]
        bad += bool(faults)
        book, engine = results["book"], results["engine"]
        figures = [book.messages, book.reports, book.left]
        figures += [round(book.rate), round(engine.rate)]
        shown = [f"{figure:,}" for figure in figures]
        verdict = "; ".join(faults) or f"{book.sha256} equal"
        print(ROW.format(name, *shown, verdict), flush=True)
    return bad


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.conformance``; return the exit status."""
    parser = new_parser(
        "measure.conformance",
        "Compare how book and engine match orders with what is published.",
    )
    parser.add_argument(
        "--only",
        choices=[EDGE_CASES, *SCENARIOS],
        metavar="NAME",
        help=f"{EDGE_CASES}, or a workload: {', '.join(SCENARIOS)}"
        " (default: all of them)",
    )
    only = parser.parse_args(arguments).only
    bad = 0
    if only in (None, EDGE_CASES):
        bad += run_edge_cases()
    if only != EDGE_CASES:
        bad += run_workloads([only] if only else list(SCENARIOS), draw())
    print(f"{bad} of them differ" if bad else "all equal")
    return int(bad > 0)


if __name__ == "__main__":
    gc.set_threshold(50_000, 50, 1_000)  # as the server does
    sys.exit(main())
