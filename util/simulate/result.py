"""The result of a round: standings, what each bot did, the digest."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from exchange.market.accounts import HOUSE
from exchange.market.command import Command
from exchange.market.engine import Engine
from exchange.market.ranking import rank
from exchange.market.reports import in_full
from orderbook import Exec, Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One account at the end. Money is in ticks times lots, volume in lots.

    ``bots`` are those that logged in as the account, ``orders`` the orders it
    sent, ``latency`` that of the first bot.
    """

    rank: int
    account: str
    bots: tuple[str, ...]
    profit: int
    equity: int
    cash: int
    positions: dict[str, int]
    orders: int
    fills: int
    volume: int
    latency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A round. ``failures`` are the bots that ended early, with the reason.

    ``digest`` is the SHA-256 of the journal; ``seconds`` is market time.
    ``flow_orders`` are those of the recorded flow so far, and ``flow_refused``
    those of them that were refused, by code.
    """

    seed: int
    seconds: float
    standings: tuple[Standing, ...]
    failures: dict[str, str]
    silent: tuple[str, ...]  # bots that never logged in
    commands: int
    trades: int
    digest: str
    flow_orders: int = 0
    flow_refused: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        head = (
            *("rank", "account", "bot", "profit", "position"),
            *("orders", "fills", "volume", "latency"),
        )
        rows = [
            (
                str(one.rank),
                one.account,
                ", ".join(one.bots) or "-",
                f"{one.profit:,}",
                ", ".join(f"{s} {n}" for s, n in one.positions.items() if n)
                or "-",
                f"{one.orders:,}",
                f"{one.fills:,}",
                f"{one.volume:,}",
                one.latency or "-",
            )
            for one in self.standings
        ]
        lines = table([head, *rows])
        lines += [f"{bot}: never logged in" for bot in self.silent]
        lines += [text for text in self.failures.values()]
        if self.flow_orders:
            refused = ", ".join(
                f"{count:,} {code}"
                for code, count in sorted(self.flow_refused.items())
            )
            lines.append(
                f"flow: {self.flow_orders:,} orders, refused:"
                f" {refused or 'none'}"
            )
        lines.append(
            f"{self.seconds:g} s of market, {self.commands:,} commands,"
            f" {self.trades:,} trades, seed {self.seed}"
        )
        lines.append(f"digest {self.digest}")
        return "\n".join(lines)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if n in (1, 2) else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


@dataclass(slots=True)
class Activity:
    """What each account did, by the events of a journal."""

    orders: Counter[str] = field(default_factory=Counter)
    fills: Counter[str] = field(default_factory=Counter)
    volume: Counter[str] = field(default_factory=Counter)

    def count(self, batches: Iterable[Sequence[Command]], seq: int) -> Engine:
        """Apply the commands up to ``seq`` to a new engine; return that."""
        engine = Engine()
        for commands in batches:
            for command in commands:
                if command.seq > seq:
                    return engine
                if isinstance(command.action, Place):
                    self.orders[command.account] += 1
                for account, event in in_full(engine.apply(command)):
                    if isinstance(event, Exec) and event.last_qty:
                        self.fills[account] += 1
                        self.volume[account] += event.last_qty
        return engine


def standings_of(
    engine: Engine,
    activity: Activity,
    bots: Mapping[str, Sequence[tuple[str, str]]],
) -> tuple[Standing, ...]:
    """Return the standings; ``bots`` has name and latency by account."""
    standings = []
    traders = [
        account
        for name, account in engine.accounts.items()
        if name != HOUSE and account.role != "admin"
    ]
    for row in rank(engine, traders):
        account = row["user"]
        ours = bots.get(account, ())
        standings.append(
            Standing(
                rank=row["rank"],
                account=account,
                bots=tuple(name for name, _ in ours),
                profit=row["equity"] - engine.limits(account).cash,
                equity=row["equity"],
                cash=row["cash"],
                positions=dict(row["positions"]),
                orders=activity.orders[account],
                fills=activity.fills[account],
                volume=activity.volume[account],
                latency=ours[0][1] if ours else "",
            )
        )
    return tuple(standings)


def summary(results: Sequence[Result]) -> str:
    """Return a table of many rounds: the profit of each account."""
    profits: defaultdict[str, list[int]] = defaultdict(list)
    wins: Counter[str] = Counter()
    for result in results:
        for one in result.standings:
            profits[one.account].append(one.profit)
            wins[one.account] += one.rank == 1
    by_mean = sorted(profits.items(), key=lambda x: -statistics.mean(x[1]))
    head = ("runs", "account", "", "mean profit", "sd", "min", "max", "wins")
    rows = [
        (
            str(len(values)),
            account,
            "",
            f"{statistics.mean(values):,.1f}",
            f"{statistics.stdev(values):,.1f}" if len(values) > 1 else "-",
            f"{min(values):,}",
            f"{max(values):,}",
            str(wins[account]),
        )
        for account, values in by_mean
    ]
    return "\n".join(table([head, *rows]))
