"""What the journal says has happened, compared with what bots received."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from exchange.journal.sqlite import read_journal
from exchange.market.accounts import HOUSE
from exchange.market.command import (
    Action,
    BustTrade,
    Command,
    Connect,
    Restart,
)
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import (
    AcceptTender,
    AccountReport,
    Admin,
    Bust,
    Convert,
    Error,
    Exec,
    Place,
    Settlement,
    Status,
    Trade,
    decode_requests,
    encode,
    with_id,
)
from util.measure.crash_bot import Bot, Life


class Record:
    """What happened by the journal, applied to a new engine.

    ``runs`` holds, for each run from one restart to the next, the commands
    of every account with their replies. Raises AssertionError if cash or
    lots have come from nowhere; ``cash`` is what each account began with.
    """

    def __init__(self, path: Path, bots: Sequence[Bot], cash: int) -> None:
        self.commands = 0
        # Private events with their seq, the last seq, and what happens once.
        self.events: defaultdict[str, list[tuple[int, str]]]
        self.events = defaultdict(list)
        self.seqs: Counter[str] = Counter()
        self.busts: dict[tuple[str, int], str] = {}
        self._done: set[tuple[object, ...]] = set()
        self._settlements: Counter[str] = Counter()  # since the last report
        self.trades: defaultdict[str, list[str]] = defaultdict(list)
        self.runs: list[defaultdict[str, list[tuple[Action, str]]]] = [
            defaultdict(list)
        ]
        self.statuses: list[list[str]] = [[]]  # of each run
        self.counts: Counter[str] = Counter()
        # Private and public events until the last restart.
        self.before: dict[str, int] = {}
        self._engine = engine = Engine()
        self._bots = {bot.name: bot for bot in bots}
        self._followers = [bot for bot in bots if bot.views]
        self._order_id = 0
        self._names: set[tuple[str, str | None]] = set()
        for commands in read_journal(path):
            for command in commands:
                self._apply(command)
        opened = engine.accounts.keys() - {HOUSE}
        accounts = engine.accounts.values()
        assert sum(account.cash for account in accounts) == cash * len(opened)
        for symbol in engine.listings:
            assert not sum(a.positions.get(symbol, 0) for a in accounts)

    def check(self) -> None:
        """Compare it with what every bot has received."""
        for bot in self._bots.values():
            try:
                self._check(bot)
            except AssertionError as error:
                error.add_note(f"bot {bot.name}")
                raise

    def _apply(self, command: Command) -> None:
        self.commands += 1
        assert command.seq == self.commands
        is_restart = isinstance(command.action, Restart)
        if is_restart:
            doomed = self._doomed()
            self.before = dict(self.seqs)
            self.runs.append(defaultdict(list))
            self.statuses.append([])
        outputs = in_full(self._engine.apply(command))
        for recipient, event in outputs:
            self._take(recipient, event, command.action.type)
        if is_restart:
            ends = [e for _, e in outputs if isinstance(e, Exec)]
            assert [e.order_id for e in ends] == doomed
            assert {e.reason for e in ends} <= {"disconnect"}
            assert not self._doomed()
        elif command.account:
            reply = encode(outputs[0][1]) if outputs else ""
            self.runs[-1][command.account].append((command.action, reply))
            if outputs and not isinstance(outputs[0][1], Error):
                self._once(command.account, command.action)
        self._compare_books()

    def _once(self, name: str, action: Action) -> None:
        """Note what took effect; it must be for the first time."""
        key: tuple[object, ...] | None = None
        match action:
            case Place() | Convert():
                key = "order", name, action.client_order_id
            case AcceptTender():
                key = "tender", name, action.tender_id, self._engine.round
            case Admin() | BustTrade():
                key = "request", name, action.client_request_id
        if key is not None:
            assert key not in self._done
            self._done.add(key)
            self.counts[action.type] += 1

    def _doomed(self) -> list[int]:
        """Return the orders that a restart cancels."""
        return sorted(
            order_id
            for name, account in self._engine.accounts.items()
            if name != HOUSE and self._bots[name].cancel_on_disconnect
            for order_id in account.open_orders
        )

    def _take(self, recipient: str, event: object, by: str) -> None:
        match event:
            case Trade():
                self.trades[event.symbol].append(encode(event))
                assert event.trade_id == len(self.trades[event.symbol])
            case Bust():
                key = event.symbol, event.trade_id
                assert key not in self.busts
                self.busts[key] = encode(event)
                self.counts["bust"] += 1
            case Settlement():
                # It may have a number of its own, or that of what follows.
                self.events[recipient].append((event.seq, encode(event)))
                assert event.seq > self.seqs[recipient]
                self._settlements[recipient] += 1
                self.counts["settlement"] += 1
            case Exec() | AccountReport():
                self.events[recipient].append((event.seq, encode(event)))
                more = self._settlements.pop(recipient, 0)
                assert 1 <= event.seq - self.seqs[recipient] <= 1 + more
                self.seqs[recipient] = event.seq
            case Status():
                self.statuses[-1].append(encode(event))
                self.counts[f"statuses by {by}"] += 1
            case Error():
                self.counts[event.code] += 1
        if isinstance(event, Exec) and event.liquidity is not None:
            self.counts[event.liquidity] += 1
        if isinstance(event, Exec) and event.exec_type == "triggered":
            self.counts["triggered"] += 1
        if isinstance(event, Exec) and event.exec_type == "new":
            self._order_id += 1
            assert event.order_id == self._order_id
            name = recipient, event.client_order_id
            assert name not in self._names
            self._names.add(name)

    def _compare_books(self) -> None:
        """Compare the books that bots have built with those of this seq."""
        for symbol, listing in self._engine.listings.items():
            for bot in self._followers:
                view = bot.views.pop((symbol, listing.seq), None)
                if view is not None:
                    book = listing.book
                    assert view["bids"] == dict(book.depth("buy"))
                    assert view["asks"] == dict(book.depth("sell"))

    def _check(self, bot: Bot) -> None:
        assert bot.seq <= self.before.get(bot.name, 0)
        kept = self.events[bot.name]
        events = [event for seq, event in kept if seq > bot.skipped]
        for (text, request_id), event in zip(bot.events, events):
            assert text == with_id(event, request_id)
        for key, text in bot.busts.items():
            assert text == self.busts[key]
        for (symbol, trade_id), text in bot.trades.items():
            assert text == self.trades[symbol][trade_id - 1]
        assert not bot.views
        # One more: the run since the last restart has just begun.
        assert len(self.runs) == len(bot.lives) + 1
        for life, run, statuses in zip(bot.lives, self.runs, self.statuses):
            _check_life(life, run[bot.name])
            if life.statuses:
                first = statuses.index(life.statuses[0])
                last = first + len(life.statuses)
                assert life.statuses == statuses[first:last]


def _check_life(life: Life, done: list[tuple[Action, str]]) -> None:
    """Compare what a bot sent to a process with what was carried out."""
    if not done:
        assert not life.is_welcome
        return
    assert isinstance(done[0][0], Connect)
    done = done[1:]
    assert len(life.replies) <= len(done) <= len(life.requests)
    for request, (action, _) in zip(life.requests, done):
        (asked,) = decode_requests(json.dumps(request))
        if isinstance(action, BustTrade):  # with what the exchange looked up
            assert isinstance(asked, Admin) and asked.action == "bust"
            for name in ("symbol", "trade_id", "reason", "client_request_id"):
                assert getattr(asked, name) == getattr(action, name)
        else:
            assert asked == action
    for request, text, (_, reply) in zip(life.requests, life.replies, done):
        assert text == with_id(reply, request["id"])
