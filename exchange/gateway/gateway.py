"""Between links and engine: requests in, messages out.

A ``Gateway`` is the exchange without sockets, threads and timers. Its owner
drives it: `requests` carries out the requests of a link, `seal` puts the
messages that result into the gate, and the owner takes from the gate the
batches that are committed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from heapq import nlargest
from typing import Any

from pydantic import TypeAdapter

from exchange.gateway.link import Door, Link, Peer
from exchange.gateway.logins import Keys, Logins, random_session
from exchange.gateway.outbox import Batch
from exchange.gateway.rates import Limiter, Quotas
from exchange.gateway.requests import TYPE_NAMES, Requests
from exchange.gateway.routing import Routing
from exchange.gateway.sequencer import Sequencer
from exchange.gateway.tables import Tables
from exchange.gateway.turns import Turn
from exchange.journal import storage
from exchange.journal.checksum import Checksum
from exchange.journal.gate import Gate
from exchange.journal.replica import Replica
from exchange.market.command import (
    ClockStep,
    Configure,
    Disconnect,
    Restart,
    Shutdown,
    TimePassed,
)
from exchange.market.engine import Engine
from exchange.market.work import touches
from orderbook import Heartbeat, MatchInfo, encode

_MATCH = TypeAdapter(MatchInfo)


class Gateway:
    """The parts of the exchange that know no sockets, put together.

    ``now`` returns microseconds since the epoch. ``keys`` say who may log in;
    None: everybody, without a token. ``new_session`` returns the id of a new
    session. ``engine`` None: a new one. ``public_positions``: everybody sees
    what accounts hold; ``public_leaderboard``: and what they are worth.
    ``elapsed`` counts real microseconds; None: as ``now``. ``speed`` is how
    many times as fast ``now`` runs.
    """

    # What makes commands; an edge makes none (`exchange.gateway.edge`).
    make_sequencer = Sequencer
    make_logins = Logins

    def __init__(
        self,
        now: Callable[[], int],
        *,
        debug: bool = False,
        durable: bool = False,
        keys: Keys | None = None,
        quotas: Quotas = Quotas(),
        new_session: Callable[[], str] = random_session,
        engine: Engine | None = None,
        public_positions: bool = False,
        elapsed: Callable[[], int] | None = None,
        speed: Decimal = Decimal(1),
        public_leaderboard: bool = True,
    ) -> None:
        self._now = now
        self._elapsed = elapsed or now
        self._speed = None if speed == 1 else f"{speed.normalize():f}"
        self._heartbeat_seq = 0  # sequencer.seq at the last heartbeat
        self.engine = engine or Engine()
        self.routing = Routing(self.engine, now, self._elapsed, debug)
        self.history = self.routing.history
        self.feed = self.routing.feed
        self.outbox = self.routing.outbox
        self.pacing = self.routing.pacing
        self.links = self.routing.links
        checksum = Checksum()
        self.sequencer = self.make_sequencer(
            self.engine, self.routing, now, durable, checksum
        )
        self.replica = Replica(self.engine, self.history, checksum)
        self.gate: Gate[Batch] = Gate(self.sequencer.committed)
        self.limiter = Limiter(quotas, now, speed)
        self.tables = Tables(
            self.engine,
            self.history,
            self.feed,
            public_positions=public_positions,
            public_leaderboard=public_leaderboard,
        )
        self.logins = self.make_logins(
            self.engine,
            self.routing,
            self.sequencer,
            self.limiter,
            keys=keys,
            new_session=new_session,
            speed=self._speed,
        )
        self.requests = Requests(
            self.engine,
            self.routing,
            self.sequencer,
            self.tables,
            self.logins,
            limiter=self.limiter,
            now=now,
        )

    # Life

    def replay(self, batch: storage.Batch) -> None:
        """Apply a batch of the journal again; nothing is sent.

        Raises DivergedError if it came out differently than at first.
        """
        self.replica.apply(batch)
        self.sequencer.seq = self.engine.seq
        self.routing.publish()

    def loaded(self) -> None:
        """Go on from a snapshot, which was loaded into `replica`."""
        self.sequencer.seq = self.engine.seq
        self.feed.mark(self.engine.listings)

    def begin(self, market: Configure) -> None:
        """Open the market, or go on with the one that was replayed.

        Long work of the old process is finished. All connections ended with
        it, so the orders that end with them are canceled. Then the deadlines
        of the time between fire under the old configuration, and last the new
        one applies.
        """
        if self.engine.seq:
            self.sequencer.run(Restart())
            self.sequencer.pass_time(self._now())
        if self.engine.configured != market:
            self.sequencer.run(market)
        self.routing.publish()

    def shut_down(self) -> None:
        """End every session, announce it, and close every link.

        Long work is finished.
        """
        self.end_sessions()
        self.routing.publish()
        self.announce("the exchange is shutting down")
        for link in self.links:
            self.outbox.close(link, 1001, "shutdown")

    def end_sessions(self) -> None:
        """Note that every connection ends; finish long work."""
        self.sequencer.run(Shutdown())
        self.sequencer.finish_work()

    # Links

    def connect(self, peer: Peer, door: Door) -> Link:
        """Return the link of a new connection."""
        link = Link(peer, door, self.outbox.links)
        link.bucket = self.limiter.of_link()
        self.add(link)
        return link

    def add(self, link: Link) -> None:
        """Serve a link, which a door has made."""
        link.counts = self.limiter.counts[""]
        self.links[link] = None

    def disconnect(self, link: Link) -> None:
        """Remove the link of a connection that has ended; end its session."""
        del self.links[link]
        self.outbox.drop(link)
        self.feed.drop(link)
        self.logins.end(link)

    def may_end(self, link: Link) -> bool:
        """Whether the end of a link's session need not wait for long work."""
        engine = self.engine
        return not (
            engine.work
            and link.account
            and touches(engine, link.account, link.session_id, Disconnect())
        )

    # Time

    @property
    def next_deadline(self) -> int | None:
        """When `pass_time` has something to do; None: never, so far."""
        return self.engine.next_deadline

    def pass_time(self) -> None:
        """Fire every deadline that is due, and do one slice of long work."""
        now = self._now()
        self.sequencer.pass_time(now)
        self.sequencer.continue_work(now)

    def note_time(self) -> None:
        """Journal the time if something ends by it, so a restart knows it.

        Only a clock needs this whose time is not the wall clock's.
        """
        engine = self.engine
        if engine.first_deadline is not None and not engine.work:
            if self._now() > engine.ts:
                self.sequencer.run(TimePassed())

    def step_clock(self, forward_us: int) -> None:
        """Note that the clock is about to be set forward by this much."""
        self.sequencer.run(ClockStep(forward_us=forward_us))

    def heartbeat(self) -> None:
        """Send every link the last ``seq`` of each sequence that it got.

        While the last heartbeat waits for its commit, the one before is sent
        again, past the gate: a slow disk must not look like a dead
        connection.
        """
        ts = self._now()
        if self._heartbeat_seq > self.sequencer.committed:
            self._repeat_heartbeats(ts)
            return
        self._heartbeat_seq = self.sequencer.seq
        for link in self.links:
            seq = self.feed.last_seqs(link)
            if link.account:
                seq["@"] = self.engine.accounts[link.account].seq
            link.committed_heartbeat = link.last_heartbeat
            link.last_heartbeat = seq
            link.send(encode(Heartbeat(ts=ts, seq=seq, speed=self._speed)))

    def _repeat_heartbeats(self, ts: int) -> None:
        frames: list[tuple[Link, bytes]] = []
        for link in self.links:
            seq = link.committed_heartbeat
            text = encode(Heartbeat(ts=ts, seq=seq, speed=self._speed))
            frames.append((link, link.door.encode([text])))
            link.sealed_bytes += len(frames[-1][1])
        self.gate.pass_by(Batch([], frames, [], [], turns=(), report=""))

    def announce(self, message: str) -> None:
        """Send a status to every link."""
        self.routing.announce(message)

    # Results

    def seal(self, turns: Sequence[Turn] = (), is_more: bool = False) -> None:
        """Put all that was queued since the last call into the gate.

        It is one batch, and ``turns`` are those that it results from. While
        requests wait (``is_more``), or if readers are many, public data may
        stay until ``pacing.due``.
        """
        if self.routing.has_news:
            now = self._elapsed()
            if self.pacing.may_publish(now, self.feed.readers, is_more):
                self.routing.publish()
        batch = self.outbox.seal(turns, self.routing.report())
        if batch is not None:
            self.gate.hold(self.sequencer.seq, batch)

    def commit(self, seq: int) -> None:
        """Note that the commands up to ``seq`` are committed."""
        self.sequencer.committed = seq
        self.gate.commit(seq)

    # Figures

    def match_report(self) -> dict[str, Any]:
        """Return what is played, and the phase and end of each instrument."""
        return report_match(self.engine, self._now())

    def requests_by_type(self, most: int) -> dict[str, dict[str, int]]:
        """Return the numbers of requests by account and type.

        Only of the ``most`` accounts that sent most.
        """
        busiest = nlargest(
            most,
            self.limiter.counts.items(),
            key=lambda item: sum(item[1].values()),
        )
        return {
            account: {
                TYPE_NAMES[kind]: count for kind, count in counts.items()
            }
            for account, counts in busiest
        }


def report_match(engine: Engine, ts: int) -> dict[str, Any]:
    """Return what is played at a time, and what each instrument's phase is.

    Fields that have no value are left out.
    """
    report: dict[str, Any] = {"ts": ts, "round": engine.round}
    if engine.match is not None:
        report["match"] = _MATCH.dump_python(
            engine.match, exclude_defaults=True
        )
    report["instruments"] = [
        {
            name: getattr(instrument, name)
            for name in ("symbol", "phase", "close_ts", "close_left_ms")
            if getattr(instrument, name) is not None
        }
        for instrument in (
            listing.current_instrument()
            for listing in engine.listings.values()
        )
    ]
    return report
