"""A world: an exchange that fails, its traders, and the checks."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from exchange.host.timers import HEARTBEAT_S
from exchange.journal import history
from orderbook import AccountReport, BookUpdate, Event, Exec, Welcome, encode
from server import Server

from .bots import Bot, Program, current
from .connection import Decoder
from .disk import Disk, Killed
from .exchange import EPOCH_NS, PORT
from .faults import SLOWEST_S, Faults
from .latency import DEFAULT_LATENCY
from .loop import NS, Deadlock, VirtualLoop
from .machine import FaultyLoop, Machine
from .network import Network
from .trader import Life, Trader
from .transport import Transport
from .truth import Truth, Violation, check_market, picture, require
from .witness import compare, compare_books, compare_view, told_books

MARKET = Path(__file__).with_name("worlds.toml")
SECONDS = 20.0  # of market with faults
TRADERS = 5
# After the faults, the market time in which all must be connected again: a
# silence of 16 s, and a pause of 10 s before the next attempt.
QUIET_S = 60.0
# Without a command, until what clients show is compared. By then everybody
# has got a heartbeat that was sent after the last message on its way arrived.
STILL_S = HEARTBEAT_S + 2 * SLOWEST_S
# A deadline fires this late at most, after commits of the loop: see `DISKS`.
LATE_US = 5_000_000
STORY = 30  # lines of a story that are shown


@dataclass
class Outcome:
    """How a world ended. ``violation`` "": every invariant held."""

    seed: int
    seconds: float = 0.0
    digest: str = ""
    violation: str = ""
    story: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return "\n".join(
            (
                f"seed {self.seed}: {self.violation or 'nothing broken'}",
                f"at {self.seconds:.6f} s of market; before that:",
                *(f"  {line}" for line in self.story[-STORY:]),
                f"again: python -m util.simulate.worlds 1 {self.seed}",
            )
        )


class World:
    """One exchange, some traders, and faults, all from one seed."""

    baton: Program | None = None  # no trader is a program

    def __init__(
        self, seed: int, seconds: float = SECONDS, traders: int = TRADERS
    ) -> None:
        self.seed = seed
        self.is_quiet = False
        self.decoder = Decoder()
        loop = FaultyLoop()
        self.loop: VirtualLoop = loop
        self.loop.set_task_factory(_new_task)
        self.loop.set_exception_handler(self._caught)
        self.network = Network(self.loop, f"{seed} link")
        self.disk = Disk(self.loop, Random(f"{seed} disk"))
        chance = Random(f"{seed} world")
        self._slice_ops = chance.choice((2, 10, 500))
        self._resume_events = chance.choice((1, 3, 10, 2_000))
        self._seconds = seconds
        self._names = [f"trader{number}" for number in range(traders)]
        self._traders: list[Trader] = []
        self._context = copy_context()
        self._story: deque[tuple[int, str]] = deque(maxlen=1_000)
        self._starts: set[int] = set()  # commands on disk, at each start
        self._seen = (0, 0)  # seq and ts after the last step
        self._violation: Violation | None = None
        self._violated_at = 0
        self._steps = 0
        self.machine = Machine(
            loop,
            self.network,
            self.disk,
            market=MARKET,
            chance=Random(f"{seed} sessions"),
            stepped=self._stepped,
            ended=self._ended,
            prepare=self._prepare,
        )

    @property
    def epoch_ns(self) -> int:
        """The time since the epoch at which the loop began."""
        return EPOCH_NS

    def now_us(self) -> int:
        """Return the exchange's time, if its clock was never set."""
        return (EPOCH_NS + self.loop.now) // 1_000

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        """Do some work after some seconds, outside of all processes."""
        self.loop.call_later(seconds, work, context=self._context)

    def note(self, text: str) -> None:
        """Keep a line for the story of the world."""
        self._story.append((self.loop.now, text))

    # Life

    def run(self) -> Outcome:
        """Let the world happen; return how it ended."""
        with _remembered(self._resume_events):
            return self._run()

    def _run(self) -> Outcome:
        faults = Faults(self, Random(f"{self.seed} faults"))
        self._faults = faults
        outcome = Outcome(self.seed)
        truth = None
        try:
            self.machine.start()
            faults.plan(self._seconds)
            for number, name in enumerate(self._names):
                chance = Random(f"{self.seed} {name}")
                trader = Trader(self, name, chance)
                self._traders.append(trader)
                trader.bot.start(trader.live())
            self._run_until(self._seconds)
            faults.end()
            self.is_quiet = True
            self._settle()
            truth = self._judge()
        except Violation as violation:
            outcome.violation = str(violation)
            outcome.story = self._tell(violation.trader)
        except Exception:  # a bug, also of the world itself
            outcome.violation = traceback.format_exc()
            outcome.story = self._tell("")
        outcome.seconds = (self._violated_at or self.loop.now) / NS
        outcome.digest = self._digest()
        outcome.counts = self._counts(truth)
        self._close()
        return outcome

    def _run_until(self, seconds: float) -> None:
        try:
            self.loop.run_until(seconds)
        except Deadlock as error:
            raise Violation(str(error)) from error
        if self._violation is not None:
            raise self._violation

    def _settle(self) -> None:
        """Wait until everybody is connected and nothing happens any more."""
        end = self.loop.time() + QUIET_S
        while True:
            for trader in self._traders:
                failure = trader.bot.failure
                require(not failure, f"it failed: {failure}", trader.name)
            seq, since = self.disk.last_seq, self.loop.time() + SLOWEST_S
            self._run_until(self.loop.time() + STILL_S)
            if seq == self.disk.last_seq and all(
                trader.is_ready(since) for trader in self._traders
            ):
                return
            if self.loop.time() > end:
                for trader in self._traders:
                    require(
                        trader.is_ready(since),
                        f"not back after {QUIET_S:g} s: {trader.trouble}",
                        trader.name,
                    )
                raise Violation("the market does not come to rest")

    def _judge(self) -> Truth:
        """Check all that can be checked at the end."""
        server = self.machine.server
        assert server is not None
        engine = server.gateway.engine
        engine.check()
        lives = [life for trader in self._traders for life in trader.lives]
        updates = [
            *told_books(lives),
            *(
                row
                for trader in self._traders
                for row in trader.rows
                if isinstance(row, BookUpdate)
            ),
        ]
        wanted = {(update.symbol, update.seq) for update in updates}
        for trader in self._traders:
            wanted |= trader.books.keys()
        commands = (c for b in self.disk.decoded() for c in b.commands)
        truth = Truth(commands, self._starts, self._slice_ops, wanted)
        live, again = picture(engine), picture(truth.engine)
        for name, value in live.items():
            require(
                value == again[name],
                f"the journal gives other {name}: {again[name]}, not {value}",
            )
        compare_books(updates, truth)
        for trader in self._traders:
            compare(trader, truth)
            compare_view(trader, truth)
        return truth

    def _close(self) -> None:
        self.loop.set_exception_handler(lambda loop, context: None)
        self.machine.kill()
        for trader in self._traders:
            trader.bot.stop()
        self.loop.run_until(self.loop.time() + 0.1)
        self.loop.close()

    # What happens

    def _prepare(self, server: Server) -> None:
        server.gateway.engine.slice_ops = self._slice_ops
        self._starts.add(self.disk.last_seq)
        self._seen = (0, 0)
        self._faults.restarted()
        self.note(f"a process starts after command {self.disk.last_seq}")

    def _ended(self, why: str, failure: Exception | None) -> None:
        self.note(f"the process has ended: {why}")
        if failure is not None and not isinstance(failure, sqlite3.Error):
            self._violate(Violation(f"the exchange failed: {failure!r}"))
        self.later(self._faults.restart_pause(), self.machine.start)

    def _stepped(self) -> None:
        """Check what is cheap to check after each step of the exchange."""
        server = self.machine.server
        if server is None or server.failure.done():
            return
        self._steps += 1
        gateway = server.gateway
        engine = gateway.engine
        try:
            require(
                gateway.sequencer.committed <= self.disk.last_seq,
                f"command {gateway.sequencer.committed} counts as committed,"
                f" but the disk has synced {self.disk.last_seq}",
            )
            seen = engine.seq, engine.ts
            if seen != self._seen:
                require(seen > self._seen, f"{seen} after {self._seen}")
                self._seen = seen
                check_market(engine)
            due = engine.first_deadline
            require(not server.listener.errors, "a connection raised an error")
            now = self.machine.now_us()
            require(
                due is None or now - due < LATE_US,
                f"a deadline is {now - (due or 0)} us late",
            )
        except Violation as violation:
            self._violate(violation)

    def _violate(self, violation: Violation) -> None:
        if self._violation is None:
            self._violation = violation
            self._violated_at = self.loop.now
            self.loop.stop()

    def _caught(self, loop: Any, context: dict[str, Any]) -> None:
        """Take an exception that nobody has handled."""
        error = context.get("exception")
        if isinstance(error, Killed) or error is None:
            return
        self._violate(Violation(f"{context['message']}: {error!r}"))

    # The story

    def _tell(self, name: str) -> list[str]:
        """Return what happened, and what a trader was told, in lines."""
        lines = list(self._story)
        for trader in self._traders:
            if trader.name == name:
                lines += [
                    (at, f"{name} was told {text}")
                    for life in trader.lives
                    for at, text in _told(life)
                ]
        lines.sort(key=lambda line: line[0])
        return [f"{at / NS:10.6f} {text}" for at, text in lines]

    def _digest(self) -> str:
        """Return the SHA-256 of the journal and of all that was told."""
        digest = hashlib.sha256()
        for first_seq, records in self.disk.batches:
            digest.update(f"{first_seq} {records}\n".encode())
        for trader in self._traders:
            for life in trader.lives:
                for at, events in life.told:
                    digest.update(f"{at} {len(events)}\n".encode())
        return digest.hexdigest()

    def _counts(self, truth: Truth | None) -> Counter[str]:
        counts = Counter({"worlds": 1, "steps": self._steps})
        counts["commits"] = self.disk.commits
        if truth is not None:
            counts["commands"] = truth.commands
            counts["orders"] = len(truth.orders)
            counts["trades"] = sum(map(len, truth.trades.values()))
        counts["restarts"] = len(self._starts) - 1
        counts += self._faults.counts
        for trader in self._traders:
            counts += trader.counts
            counts["logins"] += trader.logins
            counts["events told"] += sum(
                len(events) for life in trader.lives for _, events in life.told
            )
        return counts

    # What a Bot asks of its world

    async def connect_as(
        self, bot: Bot | None, factory: Callable[[], asyncio.BaseProtocol]
    ) -> tuple[Transport, asyncio.BaseProtocol]:
        """Connect to the exchange with the latency of a bot."""
        usual = bot.latency if bot else DEFAULT_LATENCY
        latency = self._faults.latency(usual)
        transport, protocol = await self.network.connect(
            factory, PORT, latency
        )
        if bot is not None:
            bot.connected(transport)
        return transport, protocol


@contextmanager
def _remembered(events: int) -> Iterator[None]:
    """Let every exchange keep so many events from which sessions resume.

    With few of them, a login reports the state instead, as after a long
    absence.
    """
    names = "RESUME_EVENTS", "JOINED"
    before = [getattr(history, name) for name in names]
    for name, value in zip(names, before, strict=True):
        setattr(history, name, min(value, events))
    try:
        yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(history, name, value)


def _told(life: Life) -> list[tuple[int, str]]:
    """Return what one Exchange was told of its account, in lines."""
    lines = []
    for at, events in life.told:
        if not events:
            lines.append((at, "of a new connection"))
        for event in events:
            if isinstance(event, Exec | AccountReport | Welcome):
                lines.append((at, _short(event)))
    return lines


def _short(event: Event) -> str:
    return encode(event)[:200]


def _new_task(
    loop: asyncio.AbstractEventLoop, work: Any, **options: Any
) -> asyncio.Task[Any]:
    """Make a task, and tell the trader to which it belongs."""
    task = asyncio.Task(work, loop=loop, **options)
    context = options.get("context")
    bot = current.get() if context is None else context.get(current)
    if bot is not None:
        bot.began(task)
    return task
