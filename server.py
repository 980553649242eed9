"""The exchange as a process: ``python server.py``.

Its life is: settings, recover, listen, drain, stop. Connections fill the
inboxes of links. The first message to arrive schedules a drain, and
`Server.drain` shows the whole way of an order. Requests are carried out in
``exchange/gateway/`` and ``exchange/market/``.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

from exchange.doors.challenge.doors import ChallengeDoors
from exchange.doors.challenge.lines import Connection as LineConnection
from exchange.doors.listener import Listener, resolve
from exchange.doors.names import in_url
from exchange.doors.native import Native
from exchange.doors.spot.http import Connection as SpotConnection
from exchange.doors.tcp import Connection
from exchange.gateway.edge import EdgeGateway
from exchange.gateway.gateway import Gateway
from exchange.gateway.link import Link
from exchange.gateway.logins import random_session
from exchange.gateway.turns import Requests, Turns
from exchange.host import command_line
from exchange.host.admission import describe, is_guarded
from exchange.host.answers import Answers
from exchange.host.clock import Clock
from exchange.host.committer import Commit, Commits, Committer
from exchange.host.dialect import fitting_the_dialect, open_dialect
from exchange.host.keyring import KeyRing
from exchange.host.looks import Looks, heed_disk
from exchange.host.membership import log_failure, member_of
from exchange.host.metrics import Timing
from exchange.host.process import FILES_RESERVED, raise_file_limit
from exchange.host.recovery import Recovery, check_money, recover
from exchange.host.settings import Settings
from exchange.host.snapshots import keep_state
from exchange.host.timers import Timers
from exchange.host.tls import Certificate
from exchange.host.writer import Writer
from exchange.journal.sqlite import Journal, JournalError
from exchange.journal.storage import Storage

SHUTDOWN_S = 5.0  # for clients to read what is left and hang up
IN_MEMORY = "in memory: a restart begins with an empty market"

NATIVE = Native()


class Server:
    """One exchange on one port, to be made inside a running loop.

    ``await start()`` opens it, ``await stop()`` ends it in order. After an
    exception inside it serves no more requests and ``failure`` resolves to
    the exception; the process must end.

    What it takes from the machine can be given: its clock, its listener, its
    journal, the ids of sessions, and what commits and looks at files (None:
    threads).
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        *,
        listener: Callable[..., Listener] = Listener,
        open_journal: Callable[[Path], Storage] = Journal,
        new_session: Callable[[], str] = random_session,
        executor: Executor | None = None,
    ) -> None:
        """Set up an exchange; raise SettingsError if the market is wrong."""
        self.port = settings.port  # 0 becomes the real one in `start`
        self._loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[Exception] = self._loop.create_future()
        self._settings = settings
        self._clock = clock or Clock(speed=settings.speed)
        self._open_journal = open_journal
        self._executor = executor
        self._timing = Timing()
        self.keys = KeyRing(settings.keys, settings.open)
        guarded = is_guarded(settings, resolve(settings.hostname), self.keys)
        rules = settings.rules(guarded)
        self._certificate = Certificate.of(settings)
        self._market = rules.configure
        is_edge = settings.is_edge
        self.gateway = (EdgeGateway if is_edge else Gateway)(
            self._clock.now,
            debug=settings.debug,
            durable=settings.journal is not None and not is_edge,
            keys=self.keys,
            quotas=rules.quotas,
            new_session=new_session,
            public_positions=rules.public_positions,
            elapsed=self._clock.elapsed,
            speed=self._clock.speed,
            public_leaderboard=rules.public_leaderboard,
        )
        self.answers = Answers(
            self.gateway, self.step, keys=self.keys, timing=self._timing
        )
        self.listener = self.answers.listener = listener(
            self,
            self.answers.respond,
            certificate=self._certificate,
            proxies=settings.proxies,
            per_address=settings.connections_per_address(guarded),
        )
        self.doors = ChallengeDoors(rules.doors, self.gateway, self.step)
        self.spot = open_dialect(
            settings,
            self._market,
            self.gateway,
            keys=self.keys,
            step=self.step,
            clock=self._clock,
            listener=self.listener,
        )
        self.links: dict[Connection, Link] = {}  # of open connections
        self.turns = Turns()
        self.writer = Writer(
            self.gateway.pacing, self._clock, self._timing, self.gateway.gate
        )
        self.timers = Timers(self.gateway, self._clock, self.step)
        self.looks = Looks(
            self.gateway,
            self.step,
            keys=self.keys,
            certificate=self._certificate,
            executor=executor,
        )
        self._recovery: Recovery | None = None
        self._committer: Commits | None = None
        # Set if the journal is shared with others: this may be a standby.
        self.member = self.answers.member = member_of(
            self, settings, self._clock, self._timing
        )
        self._all_gone = asyncio.Event()
        self._is_ending = False  # no connection is accepted any more
        self._is_stopping = False  # no request is carried out any more
        self._drain_due: asyncio.Handle | None = None

    @property
    def url(self) -> str:
        """Return the address clients connect to."""
        scheme = "wss" if self._certificate else "ws"
        return f"{scheme}://{in_url(self._settings.hostname)}:{self.port}"

    @property
    def greeting(self) -> str:
        """Return the line that is printed at the start."""
        symbols = ", ".join(self.gateway.engine.listings) or "no market yet"
        both = (self.member, self._recovery)  # a stream, and its copy
        kept = ", ".join(str(one) for one in both if one) or IN_MEMORY
        speed = self._clock.speed
        is_edge = self._settings.is_edge
        logins = "nobody logs in" if is_edge else describe(self.keys)
        text = "" if speed == 1 else f" | time runs {speed} times as fast"
        return (
            f"Exchange on {self.url} | {symbols}"
            f" | {logins} | {kept}{text}{self.doors.greeting}"
            f"{' | the exchange dialect at /api/v3' if self.spot else ''}"
        )

    # Life

    async def start(self) -> None:
        """Recover what the journal holds, then listen.

        A member of several listens at once, and stands by until it leads.
        Raises JournalError if the journal cannot be used, SettingsError if
        the market file counts money in another way than its accounts, OSError
        if the port or the address cannot be used.
        """
        settings = self._settings
        try:
            self._recover()
            if self.member is None:
                await self._open_market()
            self.port = await self.listener.bind(settings.hostname, self.port)
            if self.member is None:
                await self.doors.bind(self.listener, settings.hostname)
        except BaseException:
            await self.listener.close()
            if self._committer is not None:
                self._committer.close()
            if self.member is not None:
                await self.member.stop()
            raise
        wanted = settings.max_connections
        files = raise_file_limit(wanted + FILES_RESERVED)
        await self.listener.open(
            settings.hostname,
            settings.origins,
            min(wanted, files - FILES_RESERVED),
        )
        if self.member is not None:
            self.member.start()
            return
        self.timers.start()
        self.looks.start(self._recovery.journal if self._recovery else None)

    async def lead(self, committer: Commits) -> None:
        """Open the market that a standby has followed, and take requests."""
        self._committer = committer
        await self._open_market()
        await self.doors.bind(self.listener, self._settings.hostname)
        self.show()

    def show(self) -> None:
        """Begin to send heartbeats and what has changed."""
        self.timers.start()
        self.looks.start(None)

    async def _open_market(self) -> None:
        """Begin a market, or go on with the one that was recovered."""
        check_money(self.gateway.engine, self._market)
        self.gateway.begin(self._market)
        if self.spot is not None:
            with fitting_the_dialect():
                self.spot.begin()
        await self._finish_commits()
        if self.failure.done():
            raise JournalError(
                f"the journal cannot be written: {self.failure.result()}"
            )

    async def stop(self) -> None:
        """Serve what has arrived, end all sessions, close all connections.

        A second call does nothing.
        """
        if self._is_ending:
            return
        self._is_ending = True
        await self.listener.close()
        self.looks.stop()
        if self.member is None or self.member.leads:
            await self._close_market()
        if self.member is not None:
            await self.member.stop()
        await self.listener.abort()
        if self._committer is not None:
            self._committer.close()
        if self._recovery is not None and not self.failure.done():
            journal = self._recovery.journal
            keep_state(journal, self.gateway.replica, self._clock.elapsed)

    async def _close_market(self) -> None:
        """Serve what has arrived, end all sessions, and hang up."""
        turns = self.turns
        turns.delays_logins = False  # nobody looks at the keys any more
        for link in turns.delayed:
            self._release(link)
        while not self.failure.done():
            if turns.fresh or turns.backlog:
                self.drain()
            elif turns.parked:
                self.step(self.gateway.sequencer.finish_work)
            else:
                break
        # A later request is ignored: its order would outlive its session.
        self._is_stopping = self.answers.is_stopping = True
        self.step(self.doors.stop)
        if self.spot is not None:
            self.spot.stop()
        self.step(self.gateway.shut_down)
        may_tell = self.gateway.gate.may_open()
        if self.member is None:
            await self._finish_commits()
        else:
            may_tell = await self.member.leave() and may_tell
        for connection, link in self.links.items():  # only after a failure
            if may_tell:
                self.writer.flush_to(link)
                connection.close(1011, "the exchange failed")
            elif connection.is_open:
                connection.abort()
        self.timers.stop()
        self.writer.stop()
        if self._drain_due is not None:
            self._drain_due.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                while self.links:
                    self._all_gone.clear()
                    await self._all_gone.wait()

    def fail(self, error: Exception) -> None:
        """Serve no more requests; the process must end."""
        log_failure(error)
        if not self.failure.done():
            self.failure.set_result(error)
            self.answers.is_stopping = True

    # The journal

    def _recover(self) -> None:
        """Apply the commands of the journal's file, if there is to be one.

        With a stream that is the copy of it.
        """
        settings = self._settings
        is_shared = self.member is not None
        path = settings.journal_copy if is_shared else settings.journal
        if not isinstance(path, Path):
            return
        self._recovery = recover(
            path, self.gateway, self._clock, self._open_journal
        )
        self._timing.recovery_s = self._recovery.took_s
        if self.member is not None:
            self.member.keep(self._recovery.journal)
            return
        self._committer = Committer(
            self._recovery.journal,
            timing=self._timing,
            elapsed=self._clock.elapsed,
            ended=self.committed,
            executor=self._executor,
        )

    def committed(self, commit: asyncio.Future[Commit]) -> None:
        """Write what a commit made durable; stop if the commit failed."""
        try:
            self._note(commit.result())
            for batch in self.gateway.gate.open():
                self.writer.write(batch)
        except Exception as error:
            self.fail(error)

    def _note(self, commit: Commit) -> None:
        """Let the gate open up to a commit; act on a full or lost disk."""
        self.gateway.commit(commit.seq)
        if commit.seen is not None:
            heed_disk(self.gateway, self._settings.journal, commit.seen)

    async def _finish_commits(self) -> None:
        if self._committer is not None:
            self._committer.commit(self.gateway.sequencer.take())
            await self._committer.finish()

    @property
    def clients(self) -> Iterable[Connection]:
        """The connections of clients."""
        return self.links

    # Called by connections

    def connected(self, connection: Connection) -> None:
        """Give a connection its link; another one if it has become another.

        That is plain HTTP that becomes a websocket. Nothing waits then.
        """
        before = self.links.pop(connection, None)
        if before is not None:
            self.gateway.disconnect(before)
        if isinstance(connection, LineConnection):
            self.links[connection] = self.doors.connect(connection)
        elif self.spot is not None and self.spot.serves(connection):
            assert isinstance(connection, SpotConnection)
            self.links[connection] = self.spot.connect(connection)
        else:
            self.links[connection] = self.gateway.connect(connection, NATIVE)

    def received(self, connection: Connection, messages: list[bytes]) -> None:
        """Put messages into the inbox of their link."""
        link = self.links[connection]
        link.receive(messages, self._clock.elapsed())
        if link.is_full:
            connection.pause_reading()
        self.schedule(link)

    def congested(self, connection: Connection) -> None:
        """Check from now on whether a reader is slow."""
        link = self.links.get(connection)
        if link is not None:
            link.may_be_slow = True

    def drained(self, connection: Connection) -> None:
        """Send a slow reader what it missed, with the next batch."""
        self.schedule(self.links[connection])

    def disconnected(self, connection: Connection) -> None:
        """End a link as soon as its last requests are carried out."""
        link = self.links.pop(connection)
        link.is_gone = True
        self.listener.keep(connection)
        self.schedule(link)
        if not self.links:
            self._all_gone.set()

    # The drain

    def schedule(self, link: Link) -> None:
        """Serve a link in the next drain."""
        self.turns.add(link)
        if self._drain_due is None:
            self._drain_due = self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Serve links that had nothing waiting, then one of the backlog."""
        self._drain_due = None
        if self._is_stopping or self.failure.done():
            return
        turns = self.turns
        if turns.fresh:
            self.step(partial(self._serve, turns.first()))
        if turns.backlog:  # after the results of the first turns have left
            self.step(partial(self._serve, turns.next()))
        if (turns.fresh or turns.backlog) and self._drain_due is None:
            # call_later(0): poll the sockets once before the next turn.
            self._drain_due = self._loop.call_later(0, self.drain)

    def step(self, work: Callable[[], object]) -> None:
        """Do some work and write its results; stop if it fails."""
        if self.failure.done():
            return
        gateway, turns = self.gateway, self.turns
        try:
            try:
                work()
            finally:  # results of requests before a failure are written
                done, turns.done = turns.done, []
                is_more = bool(turns.fresh or turns.backlog)
                gateway.seal(done, is_more)
                if self._committer is not None:
                    commit = self._committer.commit(
                        gateway.sequencer.take(), is_idle=not is_more
                    )
                    if commit is not None:
                        self._note(commit)
                for batch in gateway.gate.open():
                    self.writer.write(batch)
            if gateway.sequencer.has_freed:
                gateway.sequencer.has_freed = False
                for link in turns.unpark():
                    self.schedule(link)
            self.timers.set()
        except Exception as error:
            self.fail(error)

    def _serve(self, turns: Iterator[tuple[Link, Requests]]) -> None:
        handle = self.gateway.requests.handle
        for link, requests in turns:
            waiting = handle(link, requests)
            is_ending = link.is_gone and not link.waiting
            if waiting or is_ending and not self.gateway.may_end(link):
                self.turns.park(link, waiting)
            elif is_ending:
                self._end(link)
            elif link.peer.is_paused and not link.is_full:
                link.peer.resume_reading()
        if self.turns.logins:
            logins, self.turns.logins = self.turns.logins, []
            for link in logins:
                self.looks.keys.look(partial(self._release, link))

    def _release(self, link: Link) -> None:
        """Serve a link whose login has waited for a look at the keys."""
        self.turns.release(link)
        self.schedule(link)

    def _end(self, link: Link) -> None:
        if self.spot is not None:
            self.spot.forget(link)
        self.gateway.disconnect(link)
        assert isinstance(link.peer, Connection)
        self.listener.release(link.peer)


def main() -> int:
    """Run ``python server.py``; return the exit status."""
    return command_line.run(Server)


if __name__ == "__main__":
    sys.exit(main())
