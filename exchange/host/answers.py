"""Answers to plain HTTP other than the files of the page."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Protocol

from pydantic_core import to_json
from websockets.http11 import Request, Response

from exchange.doors.http import Pages, Query, Reply, reply, split
from exchange.doors.listener import Listener
from exchange.doors.schema import protocol_schema
from exchange.doors.tables import COLUMNS, as_csv, asked
from exchange.gateway.gateway import Gateway
from exchange.host import metrics
from exchange.host.keyring import ACCESS_BY_KEY, ACCESS_BY_NAME, KeyRing
from exchange.host.metrics import Figures, Metrics, Standing, Timing
from orderbook import Refused

# Accounts named in the metrics: those with the highest values. The text for
# 10,000 accounts takes 1 s to make.
ACCOUNTS_NAMED = 200


class Member(Protocol):
    """One of several processes that share a journal."""

    @property
    def hindrance(self) -> str:
        """Why no request is carried out; "": they are."""

    @property
    def standing(self) -> Standing:
        """What the metrics say about it."""


class Answers:
    """Answers HTTP requests that ask for no websocket.

    ``step`` does some work and writes its results. ``is_stopping`` is set when
    requests are no longer carried out.
    """

    def __init__(
        self,
        gateway: Gateway,
        step: Callable[[Callable[[], object]], None],
        *,
        keys: KeyRing,
        timing: Timing,
    ) -> None:
        self.listener: Listener  # set by the owner
        self.is_stopping = False
        self.member: Member | None = None  # set if the journal is shared
        self._gateway = gateway
        self._step = step
        self._keys = keys
        self._timing = timing
        self._metrics = Metrics()
        self._pages = Pages()
        self._pages.add("/readyz", self._readyz)
        self._pages.add("/metrics", self._metrics_text)
        schema = reply(to_json(protocol_schema()), "application/schema+json")
        self._pages.add("/schema.json", lambda query: schema)
        self._pages.add("/v1/match", self._match)
        for what in COLUMNS:
            self._pages.add(f"/v1/{what}.csv", partial(self._table, what))

    def respond(self, request: Request) -> Reply:
        """Answer a request; only /v1/access needs its headers."""
        path, query = split(request)
        return (
            self._access(request, query)
            if path == "/v1/access"
            else self._pages(request)
        )

    def _access(self, request: Request, query: Query) -> Response:
        """Tell a page why it may not connect: its browser does not."""
        names = self.listener.names
        assert names is not None  # the listener is open
        hosts = request.headers.get_all("Host")
        origins = [query["origin"]] if "origin" in query else []
        refusal = names.refusal(hosts, origins)
        if refusal is None:
            needs_key = self._keys.is_needed and not self._keys.is_open
            text = ACCESS_BY_KEY if needs_key else ACCESS_BY_NAME
            return reply(f"{text}\n")
        return reply(f"{refusal.reason}\n", status=HTTPStatus.FORBIDDEN)

    def _readyz(self, query: Query) -> Response:
        """Say whether new orders are accepted."""
        if self.is_stopping:
            return reply("stopping\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
        if self.member is not None and (why := self.member.hindrance):
            return reply(f"{why}\n", status=HTTPStatus.SERVICE_UNAVAILABLE)
        if trouble := self._gateway.sequencer.trouble:
            return reply(
                f"busy: {trouble}\n", status=HTTPStatus.SERVICE_UNAVAILABLE
            )
        return reply("ok\n")

    def _metrics_text(self, query: Query) -> Response:
        text = self._metrics.text(self.figures())
        return reply(text, metrics.CONTENT_TYPE)

    def _table(self, what: str, query: Query) -> Reply:
        """Answer with a public table as soon as its contents are on disk."""
        gateway = self._gateway
        try:
            rows = gateway.tables.public(asked(what, query))
        except Refused as refusal:
            is_unknown = refusal.code == "unknown_symbol"
            return reply(
                f"{refusal.message}\n",
                status=HTTPStatus(404 if is_unknown else 400),
            )
        has_positions = gateway.tables.public_positions
        text = as_csv(what, rows, gateway.engine.listings, has_positions)
        return self._later(reply(text, "text/csv; charset=utf-8"))

    def _match(self, query: Query) -> Reply:
        """Tell what is played, and until when."""
        return self._later(
            reply(to_json(self._gateway.match_report()), "application/json")
        )

    def _later(self, response: Response) -> Reply:
        """Answer as soon as what the answer shows is on disk."""
        loop = asyncio.get_running_loop()
        later: asyncio.Future[Response] = loop.create_future()
        leave = partial(later.set_result, response)
        self._step(lambda: self._gateway.outbox.answers.append(leave))
        return later

    def figures(self) -> Figures:
        """Return all figures as they are now."""
        gateway, listener = self._gateway, self.listener
        engine = gateway.engine
        outboxes: Counter[str] = Counter()
        for link in gateway.links:
            if not link.is_gone:
                outboxes[link.account] += (
                    link.sealed_bytes + link.peer.buffered
                )
        return Figures(
            timing=self._timing,
            requests=gateway.requests_by_type(ACCOUNTS_NAMED),
            refusals=gateway.routing.refusals,
            http_refusals=listener.refusals,
            commands=engine.seq,
            uncommitted=gateway.sequencer.uncommitted,
            orders=engine.order_id,
            trades={s: x.trade_id for s, x in engine.listings.items()},
            volume={s: x.volume for s, x in engine.listings.items()},
            resting={
                s: len(x.book.orders) for s, x in engine.listings.items()
            },
            accounts=len(engine.accounts),
            connections=listener.busiest(),
            arrivals=listener.arrivals,
            outboxes=dict(outboxes.most_common(ACCOUNTS_NAMED)),
            connection_errors=listener.errors,
            standing=None if self.member is None else self.member.standing,
        )
