"""States that tests dump, load and compare.

``python -m test.journal.states`` prints the digest of each golden day's state.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from exchange.journal.chain import NO_DIGEST
from exchange.journal.checksum import Checksum
from exchange.journal.history import History
from exchange.journal.replica import Replica
from exchange.journal.snapshots.file import dump, head_of, load, sha256_of
from exchange.journal.snapshots.market import is_at_rest
from exchange.market.command import Action, Command, Connect, TaggedPlace
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import INTERVALS, Admin, encode
from test.journal.files import read
from test.journal.golden import DAYS
from test.market.day import MARKET, Day


def new(slice_ops: int = 0) -> Replica:
    """Return a new replica; with ``slice_ops`` that many in a slice."""
    engine = Engine()
    if slice_ops:
        engine.slice_ops = slice_ops
    return Replica(engine, History(), Checksum())


def lines(replica: Replica) -> list[str]:
    return [*dump(replica)]


def copied(replica: Replica) -> Replica:
    """Return a replica that was made from the dump of another one."""
    other = new(replica.engine.slice_ops)
    load(other, head_of(replica, NO_DIGEST), dump(replica))
    return other


def apply(replica: Replica, command: Command) -> list[str]:
    """Apply a command; return its outputs and the changes of the books."""
    outputs = replica.engine.apply(command)
    replica.checksum.add(command.seq, outputs)
    replica.history.record(outputs)
    return [f"{to}: {encode(event)}" for to, event in in_full(outputs)] + [
        encode(update) for update in replica.engine.take_book_updates()
    ]


def tables(replica: Replica) -> Iterator[object]:
    """Yield all that anybody can ask for."""
    engine, history = replica.engine, replica.history
    yield engine.leaderboard()
    for listing in engine.listings.values():
        symbol = listing.instrument.symbol
        yield engine.snapshot(listing), engine.ticker(listing, 1)
        yield listing.current_instrument(), listing.mark()
        yield history.trades(symbol, None, 1_000)
        for interval in INTERVALS:
            yield [*history.candles(symbol, interval, None, 1_000)]
        for trade_id in range(max(1, listing.trade_id - 50), listing.trade_id):
            yield history.parties(symbol, trade_id)
    for name, account in engine.accounts.items():
        yield engine.account_report(account), account.role, account.free_cash()
        yield engine.positions(account)
        yield [*engine.order_reports(account.orders.values())]
        yield history.fills(name, None, None, 1_000)
        for missed in (1, 7, 60, account.seq):
            seq = max(0, account.seq - missed)
            yield history.events_since(name, seq, account.seq)
    yield history.news(None, None, 1_000), history.statuses(None, None, 1_000)


def busy_day(seed: int, steps: int, slice_ops: int) -> list[Command]:
    """Return commands of every kind, with a scene that chance seldom has."""
    day = Day(random.Random(seed), slice_ops)
    day.run(steps // 2)
    for account, action in SCENE:
        day.ts += 1
        day.apply(action, account)
    day.run(steps - steps // 2)
    return day.ledger.commands


def _admin(action: str, **given: object) -> Admin:
    return Admin(action=action, reason="why", **given)  # type: ignore


def _tagged(price: int, **given: object) -> TaggedPlace:
    return TaggedPlace(
        symbol="GOLD",
        side="buy",
        qty=1,
        price=price,
        tag=f"tag-{price}",
        **given,  # type: ignore[arg-type]
    )


PRICES = {i.symbol: min(i.max_price, 9) for i in MARKET.instruments} | {
    "BOND": 99
}
SCENE: list[tuple[str, Action]] = [
    ("op", Connect(True, is_admin=True)),
    ("cat", Connect(False, role="house")),
    ("op", _admin("phase", phase="open", client_request_id="r-1")),
    ("op", _admin("resume", user="eve")),
    ("op", _admin("close_out", user="eve", prices=PRICES)),
    ("op", _admin("match", name="A/03", round="A", teams=("ann", "bob"))),
    ("op", _admin("phase", symbol="FUND", phase="open", close_ms=90_000)),
    ("ann", _tagged(3)),
    ("ann", _tagged(4, time_in_force="gtc")),
    ("bob", _tagged(2)),
    ("op", _admin("phase", symbol="OIL", phase="open", close_ms=60_000)),
    ("op", _admin("phase", symbol="OIL", phase="halted")),
]


def at_rest(commands: Iterable[Command]) -> Replica:
    """Return the state after the last of the commands that left no work."""
    commands = [*commands]
    replica = new()
    last = 0
    for command in commands:
        apply(replica, command)
        if is_at_rest(replica.engine):
            last = command.seq
    if last != replica.engine.seq:
        replica = new()
        for command in commands[:last]:
            apply(replica, command)
    return replica


def digest_of(replica: Replica) -> str:
    return sha256_of(head_of(replica, NO_DIGEST), dump(replica))


if __name__ == "__main__":
    for day in DAYS:
        print(digest_of(at_rest(read(day))))
