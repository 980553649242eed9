"""The exchange as a process: ``python server.py``.

Sockets fill the inboxes of sessions. The first arrival schedules one drain,
which takes a bounded share from each connection, hands it to the gateway and
lets the answers leave. This module owns the loop, the listening sockets, the
timers, and the order of start and shutdown; what the exchange
does stands in ``exchange/gateway/`` and ``exchange/market/``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from pydantic_core import to_json
from tqdm import tqdm
from websockets.http11 import Request, Response

from exchange.doors.http import Pages, Query, Reply, reply, split
from exchange.doors.listener import Listener, resolve
from exchange.doors.names import in_url, is_loopback
from exchange.doors.schema import protocol_schema
from exchange.doors.tables import COLUMNS, as_csv, asked
from exchange.doors.websocket import Connection, frame
from exchange.gateway.gateway import FLOODING, Batch, Gateway, Turn
from exchange.gateway.link import Session, Taken, pack
from exchange.host import logs, metrics, printing
from exchange.host.clock import JUMP_US, Clock
from exchange.host.keyring import ACCESS_BY_KEY, ACCESS_BY_NAME, KeyRing
from exchange.host.lookout import Lookout
from exchange.host.market_file import SettingsError
from exchange.host.metrics import Figures, Metrics, Timing
from exchange.host.settings import Settings, load_settings
from exchange.host.tls import Certificate
from exchange.journal.sqlite import (
    SPACE_ENOUGH,
    SPACE_LOW,
    Journal,
    JournalError,
    encode_record,
)
from orderbook import Refused

try:
    import resource
except ModuleNotFoundError:  # Windows
    print("server.py: the exchange needs Linux or macOS", file=sys.stderr)
    raise SystemExit(2) from None

# Requests, as `weigh` counts them, or one message's if those are more, that
# one turn takes of a connection that had nothing waiting: few enough that one
# client with 32 in flight reads the first answers while the others are
# carried out ...
REQUESTS_AT_FIRST = 16
# ... and of one that had: who sends more than is carried out keeps the others
# waiting no longer than this takes, some 0.2 ms.
REQUESTS_PER_TURN = 16
# Requests of all first turns between two looks at the sockets, a turn
# counting as several because it has work of its own, a logout perhaps.
REQUESTS_PER_TICK = 64
TURN_COUNTS = 4
# Readers that public data are written to between two looks at the sockets:
# the kernel takes some 5 us for each.
READERS_PER_TICK = 64
HEARTBEAT_S = 5.0  # fixed by the protocol, and so is the next
TICKER_S = 0.1  # a symbol's ticker is sent at most ten times a second
KEYS_S = 1.0  # until a connection whose key was revoked is closed
CERTIFICATE_S = 5.0  # until a certificate that was replaced is used
CLOCK_S = 0.5  # until a jump of the machine's clock is noticed
DISK_S = 1.0  # between two looks at the journal's disk
SHUTDOWN_S = 5.0  # for peers to take what is theirs and hang up
PROGRESS_AFTER_S = 2.0  # of recovery, until it shows how far it is
# Accounts that the figures name, those with the most of each: a text that
# names 10,000 takes a second to make.
ACCOUNTS_NAMED = 200
# Open files that are no connections: listeners, standard streams, the
# loop's own, and what a page or a journal needs.
FILES_RESERVED = 64
# Everybody waits for a collection: half a millisecond for these of the young.
# Connections leave cycles, the engine makes none, so that the full collection,
# which walks over every order, is hardly ever due.
GC_THRESHOLDS = (2_000, 5, 1_000)

NO_SPACE = "the journal's disk is nearly full"
Seen: TypeAlias = tuple[str, int]  # what `Journal.look` returns

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
        addresses = resolve(settings.hostname)
        is_local = all(is_loopback(address) for address in addresses)
        # A proxy brings others, whatever address it comes from.
        is_private = is_local and not settings.proxies
        self._keys = KeyRing(settings.keys, settings.open)
        self._keys_problem: str | None = None  # as last logged
        self._key_looks = Lookout(
            f"keys {settings.keys}", self._keys.refresh, self._saw_keys, KEYS_S
        )
        if settings.open and self._keys.problem:  # whose names are these?
            raise SettingsError(self._keys.problem)
        if not (is_private or self._keys.is_needed or settings.open):
            where = "it through EXCHANGE_SERVER_PROXIES"
            problem = (
                f"others reach {where if is_local else settings.hostname},"
                " and there are no keys in"
                f" {settings.keys}: make some with python -m util.accounts"
                " add NAME, or set EXCHANGE_SERVER_OPEN=1"
            )
            if not is_local:
                raise SettingsError(problem)
            logger.warning("%s", problem)
        # Strangers may come in, so everything has its limits.
        is_guarded = not is_private or self._keys.is_needed
        rules = settings.rules(is_guarded)
        self._market = rules.configure
        self._certificate = Certificate.of(settings)
        self._certificate_problem: str | None = None  # as last logged
        self._journal: Journal | None = None
        self._gateway = Gateway(
            self._clock.now,
            self._let_go,
            make_frames,
            debug=settings.debug,
            durable=settings.journal is not None,
            keys=self._keys,
            quotas=rules.quotas,
        )
        self.listener = Listener(
            self,
            self._respond,
            certificate=self._certificate,
            proxies=settings.proxies,
            per_address=settings.connections_per_address(is_guarded),
        )
        self._sessions: dict[Connection, Session] = {}
        self._connections: dict[Session, Connection] = {}
        # Sessions with something to do: those that are to have their first
        # turn, and those that had one which was not enough, or too much. Of
        # each the first one's turn is next.
        self._fresh: OrderedDict[Session, None] = OrderedDict()
        self._backlog: OrderedDict[Session, None] = OrderedDict()
        # What logins wait with for a look at the key file, and what has
        # waited: requests, their weight, and when the first came.
        self._held_up: dict[Session, Taken] = {}
        self._looked_up: dict[Session, Taken] = {}
        # Public data that may leave, by who is to have them.
        self._owed: dict[Session, bytes] = {}
        self._all_gone = asyncio.Event()
        self._is_ending = False  # nobody is taken in any more ...
        self._is_stopping = False  # ... and nothing more is carried out
        self._drain_due: asyncio.Handle | None = None
        self._pay_due: asyncio.Handle | None = None
        self._heartbeat_due: asyncio.TimerHandle | None = None
        self._ticker_due: asyncio.TimerHandle | None = None
        self._feed_due: asyncio.TimerHandle | None = None
        self._clock_due: asyncio.TimerHandle | None = None
        self._deadline_due: asyncio.TimerHandle | None = None
        self._deadline: int | None = None  # what the timer above is set to
        # The only thread that writes to the journal, one batch at a time.
        self._committer = ThreadPoolExecutor(1, "journal")
        self._commit: asyncio.Future[tuple[int, Seen]] | None = None
        self._disk_looks: Lookout[Seen] | None = None
        self._certificate_looks: Lookout[bool] | None = None
        self._has_commit_failed = False
        self._commands_recovered = 0
        self._timing = Timing()
        self._commit_began = 0  # in microseconds, and so is the next
        self._turns: list[Turn] = []  # taken and not yet published
        self._pages = Pages()
        self._metrics = Metrics(self._figures)
        self._pages.add("/readyz", self._answer_readyz)
        self._pages.add("/metrics", self._answer_metrics)
        schema = reply(to_json(protocol_schema()), "application/schema+json")
        self._pages.add("/schema.json", lambda query: schema)
        for what in COLUMNS:
            answer = partial(self._answer_table, what)
            self._pages.add(f"/v1/{what}.csv", answer)

    @property
    def connection_errors(self) -> int:
        """Return how many exceptions ended a connection."""
        return self.listener.errors

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
        return list(self._gateway.engine.listings)

    @property
    def admission(self) -> str:
        """Say who may log in, in a few words."""
        if self._keys.is_open:
            return "open to everybody by name"
        if self._keys.is_needed:
            return f"keys {self._keys.path}"
        return "no keys: a name is enough"

    # Life

    async def start(self) -> None:
        """Recover what the journal holds, then listen.

        Raises JournalError where there is something wrong with it, OSError
        where one cannot listen.
        """
        try:
            if self._settings.journal is not None:
                self._recover(self._settings.journal)
            self._gateway.begin(self._market)
            await self._finish_commits()
            if self.failure.done():
                raise JournalError(
                    f"nothing can be written: {self.failure.result()}"
                )
            self.port = await self.listener.bind(
                self._settings.hostname, self.port
            )
        except BaseException:
            self._close_journal()
            raise
        wanted = self._settings.max_connections
        files = raise_file_limit(wanted + FILES_RESERVED)
        await self.listener.open(
            self._settings.hostname,
            self._settings.origins,
            min(wanted, files - FILES_RESERVED),
        )
        self._beat()
        self._look_at_clock()
        self._tell_of_keys()
        self._key_looks.start()
        if self._journal is not None:
            self._disk_looks = Lookout(
                f"journal {self._journal.path}",
                self._journal.look,
                self._saw_disk,
                DISK_S,
            )
            self._disk_looks.start()
        if self._certificate is not None:
            self._certificate_looks = Lookout(
                f"certificate {self._settings.tls_cert}",
                self._certificate.refresh,
                self._saw_certificate,
                CERTIFICATE_S,
            )
            self._certificate_looks.start()

    def reload(self) -> None:
        """Look at once at the key file and at the certificate."""
        logger.info("keys and certificate are read again")
        self._key_looks.look()
        if self._certificate_looks is not None:
            self._certificate_looks.look()

    async def stop(self) -> None:
        """Finish what has arrived, tell everybody, close, and end.

        Once is enough: what is stopped, or stopping, stays so.
        """
        if self._is_ending:
            return
        self._is_ending = True
        await self.listener.close()
        self._key_looks.stop()
        if self._disk_looks is not None:
            self._disk_looks.stop()
        if self._certificate_looks is not None:
            self._certificate_looks.stop()
        for session in [*self._held_up]:
            self._release(session)
        while (self._fresh or self._backlog) and not self.failure.done():
            self._drain()
        # What comes now is not heard: its order would outlive its session.
        self._is_stopping = True
        self._step(self._gateway.shut_down)
        await self._finish_commits()
        for connection, session in self._sessions.items():  # after a failure
            self._settle(session, connection)
            connection.close(1011, "the exchange failed")
        for due in (
            self._drain_due,
            self._pay_due,
            self._heartbeat_due,
            self._ticker_due,
            self._feed_due,
            self._clock_due,
            self._deadline_due,
        ):
            if due is not None:
                due.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_S):
                while self._sessions:
                    self._all_gone.clear()
                    await self._all_gone.wait()
        await self.listener.abort()
        self._close_journal()

    # The journal

    def _recover(self, path: Path) -> None:
        """Apply again all that the journal holds."""
        start = self._clock.elapsed()
        self._journal = journal = Journal(path)
        with (
            without_collections(),
            tqdm(
                total=journal.count(),
                desc="recovering",
                unit=" commands",
                delay=PROGRESS_AFTER_S,
                disable=None,  # where nobody watches
            ) as progress,
        ):
            for commands in journal.recover():
                self._gateway.replay(commands)
                progress.update(len(commands))
        self._gateway.commit(journal.last_seq)
        self._commands_recovered = journal.last_seq
        self._clock.go_on_from(self._gateway.engine.ts)
        self._timing.recovery_s = (self._clock.elapsed() - start) / 1e6

    def _commit_more(self) -> None:
        """Commit what was applied meanwhile, if no commit is under way."""
        journal = self._journal
        if journal is None or self._commit is not None:
            return
        commands = self._gateway.take_commands()
        if not commands or self._has_commit_failed:
            return
        self._commit_began = self._clock.elapsed()
        self._timing.batch.observe(len(commands))
        self._commit = self._loop.run_in_executor(
            self._committer,
            append,
            journal,
            commands[0].seq,
            [encode_record(command) for command in commands],
        )
        self._commit.add_done_callback(self._committed)

    def _committed(self, commit: asyncio.Future[tuple[int, Seen]]) -> None:
        """Let leave what a commit made durable; stop if it failed."""
        self._commit = None
        try:
            seq, seen = commit.result()
            self._gateway.commit(seq)
            took_us = self._clock.elapsed() - self._commit_began
            self._timing.commit_s.observe(took_us / 1e6)
            self._heed_disk(seen)
            self._commit_more()
        except Exception as error:
            self._has_commit_failed = True
            self._fail(error)

    async def _finish_commits(self) -> None:
        self._commit_more()
        while self._commit is not None:
            await asyncio.wait((self._commit,))

    def _saw_disk(self, look: Future[Seen]) -> None:
        self._step(lambda: self._heed_disk(look.result()))

    def _heed_disk(self, seen: Seen) -> None:
        """Refuse new orders while the disk cannot keep them, and say so."""
        assert self._journal is not None
        gateway = self._gateway
        before = gateway.disk_trouble
        trouble, free = seen
        enough = SPACE_ENOUGH if before == NO_SPACE else SPACE_LOW - 1
        if not trouble and free <= enough:
            trouble = NO_SPACE
        if trouble == before:
            return
        gateway.disk_trouble = trouble
        if trouble:
            gateway.announce(f"{trouble}: no new orders")
            logger.warning(
                "%s: %s: new orders are refused", self._journal.path, trouble
            )
        else:
            gateway.announce("new orders are taken again")
            logger.warning(
                "%s: all is well: new orders are taken", self._journal.path
            )

    def _close_journal(self) -> None:
        self._committer.shutdown()
        if self._journal is not None:
            self._journal.close()

    # What arrives on connections

    def connected(self, connection: Connection) -> None:
        """Begin a session."""
        session = self._gateway.connect(connection)
        self._sessions[connection] = session
        self._connections[session] = connection

    def received(self, connection: Connection, messages: list[bytes]) -> None:
        """Let requests wait for their turn."""
        session = self._sessions[connection]
        session.receive(messages, self._clock.elapsed())
        if session.is_full:
            connection.pause_reading()
        self._schedule(session)

    def congested(self, connection: Connection) -> None:
        """Look from now on whether a reader is slow."""
        session = self._sessions.get(connection)
        if session is not None:
            session.is_strained = True

    def drained(self, connection: Connection) -> None:
        """Let a slow reader have, with the next batch, what it missed."""
        self._schedule(self._sessions[connection])

    def disconnected(self, connection: Connection) -> None:
        """End a session, once its last requests are carried out."""
        session = self._sessions.pop(connection)
        session.is_gone = True
        self.listener.keep(connection)
        self._schedule(session)
        if not self._sessions:
            self._all_gone.set()

    # What is asked over HTTP

    def _respond(self, request: Request) -> Reply:
        """Answer what depends on headers; the rest is in the table."""
        path, query = split(request)
        return (
            self._answer_access(request, query)
            if path == "/v1/access"
            else self._pages(request)
        )

    def _answer_access(self, request: Request, query: Query) -> Response:
        """Say whether a page may connect: browsers do not tell it."""
        names = self.listener.names
        assert names is not None  # it has started
        hosts = request.headers.get_all("Host")
        origins = [query["origin"]] if "origin" in query else []
        refusal = names.refusal(hosts, origins)
        if refusal is None:
            needs_key = self._keys.is_needed and not self._keys.is_open
            text = ACCESS_BY_KEY if needs_key else ACCESS_BY_NAME
            return reply(f"{text}\n")
        return reply(f"{refusal.reason}\n", status=HTTPStatus.FORBIDDEN)

    def _answer_readyz(self, query: Query) -> Response:
        """Say whether requests are carried out, and commits get through."""
        if self._is_stopping or self.failure.done():
            return reply("stopping\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
        if trouble := self._gateway.trouble:
            return reply(
                f"busy: {trouble}\n", status=HTTPStatus.SERVICE_UNAVAILABLE
            )
        return reply("ok\n")

    def _answer_metrics(self, query: Query) -> Response:
        return reply(self._metrics.text(), metrics.CONTENT_TYPE)

    def _answer_table(self, what: str, query: Query) -> Reply:
        """Answer with a public table, once what it shows is on disk."""
        gateway = self._gateway
        try:
            rows = gateway.public_rows(asked(what, query))
        except Refused as refusal:
            is_unknown = refusal.code == "unknown_symbol"
            return reply(
                f"{refusal.message}\n",
                status=HTTPStatus(404 if is_unknown else 400),
            )
        text = as_csv(what, rows, self.symbols)
        response = reply(text, "text/csv; charset=utf-8")
        later: asyncio.Future[Response] = self._loop.create_future()
        self._step(lambda: gateway.answer(partial(later.set_result, response)))
        return later

    def _figures(self) -> Figures:
        gateway = self._gateway
        engine = gateway.engine
        outboxes: Counter[str] = Counter()
        for connection, session in self._sessions.items():
            outboxes[session.account] += session.held + connection.buffered
        return Figures(
            timing=self._timing,
            requests=gateway.requests_by_word(ACCOUNTS_NAMED),
            refusals=gateway.refusals,
            http_refusals=self.listener.refusals,
            commands=engine.seq,
            uncommitted=gateway.uncommitted,
            orders=engine.order_id,
            trades={s: x.trade_id for s, x in engine.listings.items()},
            volume={s: x.volume for s, x in engine.listings.items()},
            resting={
                s: len(x.book.orders) for s, x in engine.listings.items()
            },
            accounts=len(engine.accounts),
            connections=self.listener.busiest(),
            came=self.listener.arrivals,
            outboxes=dict(outboxes.most_common(ACCOUNTS_NAMED)),
            connection_errors=self.connection_errors,
        )

    # The drain, and what else happens in time

    def _schedule(self, session: Session) -> None:
        if session in self._held_up:
            return
        if session.was_greedy:
            self._backlog.setdefault(session)
        elif session not in self._backlog:
            self._fresh[session] = None
        if self._drain_due is None:
            self._drain_due = self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._drain_due = None
        if self._is_stopping:
            return
        if self._fresh:
            self._step(self._take_first_turns)
        if self._backlog:
            self._step(self._take_next_turn)
        if (self._fresh or self._backlog) and self._drain_due is None:
            # As a timer, though one that is due: what has arrived meanwhile
            # is read before, and so comes first if it is somebody else's.
            self._drain_due = self._loop.call_later(0, self._drain)

    def _step(self, work: Callable[[], object]) -> None:
        """Do some work and let its results leave; stop if it fails."""
        if self.failure.done():
            return
        try:
            try:
                work()
            finally:  # what came before a failure did happen
                turns, self._turns = self._turns, []
                is_more = bool(self._fresh or self._backlog)
                self._gateway.publish(turns, is_more)
            self._commit_more()
            self._set_timers()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        logger.critical("the exchange stops", exc_info=error)
        if not self.failure.done():
            self.failure.set_result(error)

    def _take_first_turns(self) -> None:
        """Carry out what sessions ask that had nothing waiting."""
        left = REQUESTS_PER_TICK
        while self._fresh and left > 0:
            session, _ = self._fresh.popitem(last=False)
            taken = self._take_turn(session, REQUESTS_AT_FIRST)
            left -= max(taken, TURN_COUNTS)

    def _take_next_turn(self) -> None:
        """Carry out a share of what a session asks that has more to ask."""
        session, _ = self._backlog.popitem(last=False)
        self._take_turn(session, REQUESTS_PER_TURN)

    def _take_turn(self, session: Session, enough: int) -> int:
        """Carry out requests of a session; return what they weigh."""
        gateway = self._gateway
        taken = self._looked_up.pop(session, None) if self._looked_up else None
        if taken is None:
            taken = session.take(enough)
            if session.has_login and not self._is_ending:
                self._held_up[session] = taken
                self._key_looks.look(partial(self._release, session))
                return taken[1]
        requests, weight, arrival = taken
        gateway.handle(session, requests)
        self._turns.append((len(requests), arrival))
        session.was_greedy = weight > REQUESTS_AT_FIRST
        if session.waiting:
            self._backlog[session] = None
        elif session.is_gone:
            gateway.disconnect(session)
            connection = self._connections.pop(session)
            self.listener.release(connection)
            return weight
        connection = self._connections[session]
        if connection.is_held and not session.is_full:
            connection.resume_reading()
        return weight

    def _set_timers(self) -> None:
        """Wake up for the next deadline, and for tickers that changed."""
        if self._gateway.feed.is_stirred and self._ticker_due is None:
            self._ticker_due = self._loop.call_later(TICKER_S, self._tickers)
        due = self._gateway.feed_due
        if due is not None and self._feed_due is None:
            delay_s = max(0, due - self._clock.now()) / 1_000_000
            self._feed_due = self._loop.call_later(delay_s, self._flush)
        deadline = self._gateway.engine.next_deadline
        if deadline == self._deadline:
            return
        self._deadline = deadline
        if self._deadline_due is not None:
            self._deadline_due.cancel()
        if deadline is not None:
            delay_s = max(0, deadline - self._clock.now()) / 1_000_000
            self._deadline_due = self._loop.call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._deadline = self._deadline_due = None
        self._step(self._gateway.tick)

    def _look_at_clock(self) -> None:
        """Follow the machine's clock forward, and say what it did."""
        self._clock_due = self._loop.call_later(CLOCK_S, self._look_at_clock)
        change = self._clock.look()
        if change is None:
            return
        for text, us in (
            ("this machine slept for", change.slept),
            ("this machine's clock was set forward by", change.jumped),
            ("this machine's clock was set back by", -change.jumped),
        ):
            if us >= JUMP_US:
                logger.warning(
                    "%s %.1f s; the exchange's time is %.1f s ahead of it",
                    text,
                    us / 1e6,
                    (self._clock.ahead + change.behind) / 1e6,
                )
        # The timer may be set for a time that is over.
        if self._deadline_due is not None:
            self._deadline_due.cancel()
        self._step(lambda: self._follow_clock(change.behind))

    def _follow_clock(self, behind: int) -> None:
        if behind:
            self._gateway.step_clock(behind)
            self._clock.forward(behind)
        self._deadline = self._deadline_due = None
        self._gateway.tick()

    def _flush(self) -> None:
        self._feed_due = None
        self._step(lambda: None)  # which publishes

    def _tickers(self) -> None:
        self._ticker_due = None
        self._step(self._gateway.feed.flush_tickers)

    def _beat(self) -> None:
        self._heartbeat_due = self._loop.call_later(HEARTBEAT_S, self._beat)
        self._step(self._gateway.heartbeat)

    def _release(self, session: Session) -> None:
        """Give a session its turn, whose login has waited long enough."""
        self._looked_up[session] = self._held_up.pop(session)
        self._schedule(session)

    def _saw_keys(self, look: Future[bool]) -> None:
        """Follow the key file."""
        self._step(look.result)
        self._tell_of_keys()
        self._step(self._gateway.check_keys)

    def _tell_of_keys(self) -> None:
        """Log what is wrong with the key file, once."""
        if self._keys.problem != self._keys_problem:
            self._keys_problem = self._keys.problem
            logger.warning("%s", self._keys_problem or "the keys are good")

    def _saw_certificate(self, look: Future[bool]) -> None:
        self._step(lambda: self._tell_of_certificate(look.result()))

    def _tell_of_certificate(self, is_new: bool) -> None:
        """Log once what became of a certificate that was replaced."""
        assert self._certificate is not None
        before, problem = self._certificate_problem, self._certificate.problem
        self._certificate_problem = problem
        if problem is not None and problem != before:
            logger.warning("%s; the certificate read before stays", problem)
        elif is_new or problem != before:
            logger.info("the certificate is good and in use")

    def _let_go(self, batch: Batch) -> None:
        """Write what may leave: one write for each socket."""
        connections, owed = self._connections, self._owed
        for frames, readers in batch.broadcasts:
            if owed:
                for session in readers:
                    owed[session] = owed.get(session, b"") + frames
            else:
                owed.update(dict.fromkeys(readers, frames))
        for session, frames in batch.frames:
            connection = connections.get(session)
            if connection is None:
                continue
            if owed:
                self._settle(session, connection)
            session.held -= len(frames)
            connection.write(frames)
            if session.is_stuck:
                connection.close(4008, "slow reader")
            if connection.is_held and not session.is_full:
                connection.resume_reading()
        if owed and self._pay_due is None:  # after what is private
            self._pay()
        now = self._clock.elapsed()
        for requests, arrival in batch.turns:
            if requests:
                waited_us = now - arrival
                self._timing.ack_s.observe(waited_us / 1e6, requests)
        for answer in batch.answers:
            answer()
        for session, code, reason in batch.closings:
            connection = self._connections.get(session)
            if connection is None:
                continue
            self._settle(session, connection)
            if code == FLOODING:
                connection.fail(code, reason)
            else:
                connection.close(code, reason)
        if batch.report:
            print(f"{batch.report}\n", end="")

    def _pay(self) -> None:
        """Write public data to some of those who are to have them."""
        self._pay_due = None
        connections, owed = self._connections, self._owed
        for session in [*islice(owed, READERS_PER_TICK)]:
            frames = owed.pop(session)
            connection = connections.get(session)
            if connection is not None:
                connection.write(frames)
        if owed:
            self._pay_due = self._loop.call_later(0, self._pay)
        self._gateway.is_feed_busy = bool(owed)

    def _settle(self, session: Session, connection: Connection) -> None:
        """Write the public data that a session is to have before the rest."""
        frames = self._owed.pop(session, None)
        if frames is not None:
            connection.write(frames)


def append(
    journal: Journal, first_seq: int, records: list[str]
) -> tuple[int, Seen]:
    """Commit a batch; return its last sequence number, and a look."""
    return journal.append(first_seq, records), journal.look()


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Let nothing be looked through in vain: the engine makes no cycles."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def make_frames(texts: list[str]) -> bytes:
    """Pack messages into websocket frames, ready to be written."""
    return b"".join([frame(text.encode()) for text in pack(texts)])


def raise_file_limit(wanted: int) -> int:
    """Allow so many open files, if one may; return how many are."""
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
            server.reload()

    # Under nohup the end of a terminal is to end nothing.
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    had_terminal = not is_ignored and has_terminal()
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    print(
        f"Exchange on {server.url} | {', '.join(server.symbols)}"
        f" | {server.admission} | {server.recovered}"
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
