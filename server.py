"""The exchange as a process: ``python server.py``.

Settings, recovery, listening, the drain, and the end. Connections fill the
inboxes of links; the first arrival schedules one drain, which is the whole
way of an order: `Server.drain`. What the exchange does with requests stands
in ``exchange/gateway/`` and ``exchange/market/``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from exchange.doors.listener import Listener, resolve
from exchange.doors.names import in_url
from exchange.doors.native import Native
from exchange.doors.tcp import Connection
from exchange.gateway.gateway import Gateway
from exchange.gateway.link import Link
from exchange.gateway.turns import Requests, Turns
from exchange.host import logs, printing
from exchange.host.admission import describe, is_reached_by_others
from exchange.host.answers import Answers
from exchange.host.clock import JUMP_US, Clock
from exchange.host.committer import Commit, Committer
from exchange.host.keyring import KeyRing
from exchange.host.looks import Looks, heed_disk
from exchange.host.market_file import SettingsError
from exchange.host.metrics import Timing
from exchange.host.recovery import replay
from exchange.host.settings import Settings, load_settings
from exchange.host.timers import Timers
from exchange.host.tls import Certificate
from exchange.host.writer import Writer
from exchange.journal.sqlite import Journal, JournalError

try:
    import resource
except ModuleNotFoundError:  # Windows
    print("server.py: the exchange needs Linux or macOS", file=sys.stderr)
    raise SystemExit(2) from None

SHUTDOWN_S = 5.0  # for peers to take what is theirs and hang up
# Open files that are no connections: listeners, standard streams, the
# loop's own, and what a page or a journal needs.
FILES_RESERVED = 64
# Everybody waits for a collection: half a millisecond for these of the young.
# Connections leave cycles, the engine makes none, so that the full collection,
# which walks over every order, is hardly ever due.
GC_THRESHOLDS = (2_000, 5, 1_000)

NATIVE = Native()
logger = logging.getLogger("exchange")


class Server:
    """One exchange on one port, to be made inside a running loop.

    ``await start()`` opens it, ``await stop()`` ends it in order. Should
    anything fail inside, it takes no more requests and ``failure`` resolves
    to the exception: then the process must end.
    """

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Set up an exchange; raise SettingsError if the market is wrong."""
        self.port = settings.port  # once started, the one listened on
        self._loop = asyncio.get_running_loop()
        self.failure: asyncio.Future[Exception] = self._loop.create_future()
        self._settings = settings
        self._clock = clock or Clock()
        self._timing = Timing()
        self.keys = KeyRing(settings.keys, settings.open)
        is_open_to_others = is_reached_by_others(
            settings, resolve(settings.hostname), self.keys
        )
        # Strangers may come in, so everything has its limits.
        is_guarded = is_open_to_others or self.keys.is_needed
        rules = settings.rules(is_guarded)
        self._certificate = Certificate.of(settings)
        self._market = rules.configure
        self.gateway = Gateway(
            self._clock.now,
            debug=settings.debug,
            durable=settings.journal is not None,
            keys=self.keys,
            quotas=rules.quotas,
        )
        self.answers = Answers(
            self.gateway, self.step, keys=self.keys, timing=self._timing
        )
        self.listener = self.answers.listener = Listener(
            self,
            self.answers.respond,
            certificate=self._certificate,
            proxies=settings.proxies,
            per_address=settings.connections_per_address(is_guarded),
        )
        self.links: dict[Connection, Link] = {}  # of open websockets
        self.turns = Turns()
        self.writer = Writer(self.gateway.pacing, self._clock, self._timing)
        self.timers = Timers(self.gateway, self._clock, self.step)
        self.looks = Looks(
            self.gateway,
            self.step,
            keys=self.keys,
            certificate=self._certificate,
        )
        self._journal: Journal | None = None
        self._committer: Committer | None = None
        self._commands_recovered = 0
        self._all_gone = asyncio.Event()
        self._is_ending = False  # nobody is taken in any more ...
        self._is_stopping = False  # ... and nothing more is carried out
        self._drain_due: asyncio.Handle | None = None

    @property
    def recovered(self) -> str:
        """Say what the exchange holds, and since when, in a few words."""
        if self._journal is None:
            return "in memory: a restart starts anew"
        if not self._commands_recovered:
            return f"journal {self._journal.path}: new"
        text = (
            f"journal {self._journal.path}: {self._commands_recovered:,}"
            f" commands recovered in {self._timing.recovery_s:.1f} s"
        )
        if self._clock.ahead >= JUMP_US:
            text += (
                ", its time goes on"
                f" {self._clock.ahead / 1e6:,.1f} s ahead of this machine's"
            )
        return text

    @property
    def url(self) -> str:
        """Return the address clients connect to."""
        scheme = "wss" if self._certificate else "ws"
        return f"{scheme}://{in_url(self._settings.hostname)}:{self.port}"

    @property
    def symbols(self) -> list[str]:
        """Return what is listed."""
        return list(self.gateway.engine.listings)

    # Life

    async def start(self) -> None:
        """Recover what the journal holds, then listen.

        Raises JournalError where there is something wrong with it, OSError
        where one cannot listen.
        """
        settings = self._settings
        try:
            if settings.journal is not None:
                self._recover(settings.journal)
            self.gateway.begin(self._market)
            await self._finish_commits()
            if self.failure.done():
                raise JournalError(
                    f"nothing can be written: {self.failure.result()}"
                )
            self.port = await self.listener.bind(settings.hostname, self.port)
        except BaseException:
            self._close_journal()
            raise
        wanted = settings.max_connections
        files = raise_file_limit(wanted + FILES_RESERVED)
        await self.listener.open(
            settings.hostname,
            settings.origins,
            min(wanted, files - FILES_RESERVED),
        )
        self.timers.start()
        self.looks.start(self._journal)

    async def stop(self) -> None:
        """Finish what has arrived, tell everybody, close, and end.

        Once is enough: what is stopped, or stopping, stays so.
        """
        if self._is_ending:
            return
        self._is_ending = True
        await self.listener.close()  # who was accepted is to be told
        self.looks.stop()
        turns = self.turns
        turns.holds_logins = False
        for link in turns.held_up:
            self._release(link)
        while (turns.fresh or turns.backlog) and not self.failure.done():
            self.drain()
        # What comes now is not heard: its order would outlive its session.
        self._is_stopping = self.answers.is_stopping = True
        self.step(self.gateway.shut_down)
        await self._finish_commits()
        for connection, link in self.links.items():  # after a failure
            self.writer.flush_to(link)
            connection.close(1011, "the exchange failed")
        self.timers.stop()
        self.writer.stop()
        if self._drain_due is not None:
            self._drain_due.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                while self.links:
                    self._all_gone.clear()
                    await self._all_gone.wait()
        await self.listener.abort()
        self._close_journal()

    def _fail(self, error: Exception) -> None:
        logger.critical("the exchange stops", exc_info=error)
        if not self.failure.done():
            self.failure.set_result(error)
            self.answers.is_stopping = True

    # The journal

    def _recover(self, path: Path) -> None:
        """Apply again all that the journal holds."""
        start = self._clock.elapsed()
        self._journal = journal = Journal(path)
        replay(journal, self.gateway)
        self.gateway.commit(journal.last_seq)
        self._commands_recovered = journal.last_seq
        self._clock.go_on_from(self.gateway.engine.ts)
        self._timing.recovery_s = (self._clock.elapsed() - start) / 1e6
        self._committer = Committer(
            journal,
            timing=self._timing,
            elapsed=self._clock.elapsed,
            ended=self._committed,
        )

    def _committed(self, commit: asyncio.Future[Commit]) -> None:
        """Let leave what a commit made durable; stop if it failed."""
        assert self._journal is not None
        try:
            done = commit.result()
            self.gateway.commit(done.seq)
            for batch in self.gateway.gate.open():
                self.writer.write(batch)
            heed_disk(self.gateway, self._journal, done.seen)
        except Exception as error:
            self._fail(error)

    async def _finish_commits(self) -> None:
        if self._committer is not None:
            self._committer.commit(self.gateway.sequencer.take())
            await self._committer.finish()

    def _close_journal(self) -> None:
        if self._committer is not None:
            self._committer.close()
        if self._journal is not None:
            self._journal.close()

    # What arrives on connections

    def connected(self, connection: Connection) -> None:
        """Give a connection its link."""
        self.links[connection] = self.gateway.connect(connection, NATIVE)

    def received(self, connection: Connection, messages: list[bytes]) -> None:
        """Let requests wait for their turn."""
        link = self.links[connection]
        link.receive(messages, self._clock.elapsed())
        if link.is_full:
            connection.pause_reading()
        self.schedule(link)

    def congested(self, connection: Connection) -> None:
        """Look from now on whether a reader is slow."""
        link = self.links.get(connection)
        if link is not None:
            link.is_strained = True

    def drained(self, connection: Connection) -> None:
        """Let a slow reader have, with the next batch, what it missed."""
        self.schedule(self.links[connection])

    def disconnected(self, connection: Connection) -> None:
        """End a link, once its last requests are carried out."""
        link = self.links.pop(connection)
        link.is_gone = True
        self.listener.keep(connection)
        self.schedule(link)
        if not self.links:
            self._all_gone.set()

    # The drain

    def schedule(self, link: Link) -> None:
        """Let a link have its turn in a drain to come."""
        self.turns.add(link)
        if self._drain_due is None:
            self._drain_due = self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Serve those who had nothing waiting, then one of the backlog."""
        self._drain_due = None
        if self._is_stopping:
            return
        turns = self.turns
        if turns.fresh:
            self.step(partial(self._serve, turns.first()))
        if turns.backlog:  # what came of the first turns has left
            self.step(partial(self._serve, turns.next()))
        if (turns.fresh or turns.backlog) and self._drain_due is None:
            # As a timer, though one that is due: the sockets are polled once
            # before the next turn, so what has arrived comes first.
            self._drain_due = self._loop.call_later(0, self.drain)

    def step(self, work: Callable[[], object]) -> None:
        """Do some work and let its results leave; stop if it fails."""
        if self.failure.done():
            return
        gateway, turns = self.gateway, self.turns
        try:
            try:
                work()
            finally:  # what came before a failure did happen
                done, turns.done = turns.done, []
                gateway.seal(done, bool(turns.fresh or turns.backlog))
                if self._committer is not None:
                    self._committer.commit(gateway.sequencer.take())
                for batch in gateway.gate.open():
                    self.writer.write(batch)
            self.timers.set()
        except Exception as error:
            self._fail(error)

    def _serve(self, turns: Iterator[tuple[Link, Requests]]) -> None:
        handle = self.gateway.requests.handle
        for link, requests in turns:
            handle(link, requests)
            if link.is_gone and not link.waiting:
                self._end(link)
            elif link.peer.is_held and not link.is_full:
                link.peer.resume_reading()
        if self.turns.logins:
            logins, self.turns.logins = self.turns.logins, []
            for link in logins:
                self.looks.keys.look(partial(self._release, link))

    def _release(self, link: Link) -> None:
        """Give a link its turn whose login has waited for a look."""
        self.turns.release(link)
        self.schedule(link)

    def _end(self, link: Link) -> None:
        self.gateway.disconnect(link)
        assert isinstance(link.peer, Connection)
        self.listener.release(link.peer)


def raise_file_limit(wanted: int) -> int:
    """Allow this many open files if possible; return how many are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


def has_terminal() -> bool:
    """Return whether a terminal controls this process."""
    try:
        flags = os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK
        os.close(os.open("/dev/tty", flags))
    except OSError:
        return False
    return True


async def serve(settings: Settings) -> int:
    """Run an exchange until a signal or a failure; return the exit status."""
    gc.set_threshold(*GC_THRESHOLDS)
    server = Server(settings)
    await server.start()
    gc.freeze()
    loop = asyncio.get_running_loop()
    signaled = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, signaled.set)

    def hang_up() -> None:
        if had_terminal and not has_terminal():
            signaled.set()
        else:
            server.looks.reload()

    # Under nohup the end of a terminal is to end nothing.
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    had_terminal = not is_ignored and has_terminal()
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    print(
        f"Exchange on {server.url} | {', '.join(server.symbols)}"
        f" | {describe(server.keys)} | {server.recovered}"
    )
    waiting = asyncio.create_task(signaled.wait())
    await asyncio.wait(
        (waiting, server.failure), return_when=asyncio.FIRST_COMPLETED
    )
    # A second signal ends the process at once, whatever its threads wait for.
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.remove_signal_handler(signum)
        signal.signal(signum, signal.SIG_DFL)
    waiting.cancel()
    await server.stop()
    return 1 if server.failure.done() else 0


def main() -> int:
    """Run ``python server.py``."""
    # As the first process of a container it would be ignored until the loop
    # runs, and a recovery may take a while.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not has_terminal():  # else a start may end with it
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with printing.in_threads():
        return run()


def run() -> int:
    """Read the settings and run an exchange; return the exit status."""
    try:
        settings = load_settings(sys.argv[1:])
        logs.set_up(settings.log)
        return asyncio.run(serve(settings))
    except KeyboardInterrupt:  # before it served: nothing has been promised
        return 130
    except (SettingsError, JournalError, OSError) as error:
        print(f"server.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
