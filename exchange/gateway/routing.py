"""Events from the engine to links, feed and history.

Private events go to every link of their account, and into the history from
which sessions resume. Trades, busts and changes of books go to the feed,
statuses, news and matches to every link, tenders to the accounts that may
accept them. The replies to successive commands of a link are encoded after the
last of them: it is faster to repeat one kind of work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from exchange.gateway.feed import Feed
from exchange.gateway.link import Link
from exchange.gateway.outbox import Outbox
from exchange.gateway.pacing import Pacing
from exchange.journal.history import PRIVATE_EVENTS, History
from exchange.market.command import PUBLIC, Output
from exchange.market.engine import Engine
from orderbook import (
    BookUpdate,
    Bust,
    Error,
    Exec,
    MatchChanged,
    News,
    Request,
    Rested,
    Settlement,
    Status,
    Tender,
    Ticker,
    Trade,
    encode,
    with_id,
)

# Events without a ``seq``, sent after the private events of a command.
NOTICES = (Status, News, MatchChanged, Tender)
DEBUG_LEVELS = 10  # of each side of a book, in what debug mode prints


@dataclass(slots=True)
class _Placed:
    """What debug mode prints of a batch: its new orders and their books."""

    lines: list[str] = field(default_factory=list)
    symbols: dict[str, None] = field(default_factory=dict)


class Routing:
    """The way of events from the engine to links, feed and history.

    ``now`` returns microseconds since the epoch, ``elapsed`` counts real
    ones.
    """

    def __init__(
        self,
        engine: Engine,
        now: Callable[[], int],
        elapsed: Callable[[], int],
        debug: bool,
    ) -> None:
        self.history = History()
        self.feed: Feed[Link] = Feed(self._snapshot, self._ticker)
        self.outbox = Outbox()
        self.pacing: Pacing[Link] = Pacing()
        self.links: dict[Link, None] = {}
        self.online: dict[str, dict[Link, None]] = {}  # by account
        self.refusals: Counter[str] = Counter()  # errors sent, by code
        self.is_broken = False  # a command failed: books may be wrong
        # The link whose requests are carried out, and its commands without a
        # reply.
        self.requester: Link
        self.unanswered: list[tuple[Request, list[Output]]] = []
        self._engine = engine
        self._now = now
        self._elapsed = elapsed
        self._placed = _Placed() if debug else None

    def send_replies(self) -> None:
        """Send replies to the unanswered commands, and their events."""
        if not self.unanswered:
            return
        unanswered, self.unanswered = self.unanswered, []
        account = self.requester.account
        replies: list[str] = []
        # Encoded events by account. Those of the link's own account have no
        # ``id``; its replies have.
        by_account: dict[str, list[str]] = {account: []}
        reports = by_account[account]
        try:
            for request, outputs in unanswered:
                reply: Any = outputs[0][1]
                text = encode(reply)
                replies.append(with_id(text, request.id))
                if reply.__class__ is Rested:
                    reports.append(text)
                    if self._placed is not None:
                        self._note_placed(account, reply.as_exec())
                elif reply.__class__ is Exec:
                    reports.append(text)
                    if self._placed is not None and reply.exec_type == "new":
                        self._note_placed(account, reply)
                elif reply.__class__ is Error:
                    self.refusals[reply.code] += 1
                if len(outputs) > 1:
                    first = len(reports)
                    notices = self._collect(outputs[1:], by_account)
                    replies += reports[first:]
                    if notices:
                        self._send_private(by_account, replies)
                        self._send_notices(notices)
        finally:  # also after a failure: the events before it happened
            self._send_private(by_account, replies)

    def route(self, outputs: Iterable[Output]) -> None:
        """Send the events of a command that no link waits for."""
        by_account: dict[str, list[str]] = {}
        notices = self._collect(outputs, by_account)
        self._send_private(by_account)
        self._send_notices(notices)

    def announce(self, message: str) -> None:
        """Send a status of the gateway's own to every link."""
        status = Status(
            ts=self._now(), message=message, round=self._engine.round
        )
        self._send_notices([(PUBLIC, status)])

    def publish(self) -> None:
        """Send trades and changes of books to their subscribers."""
        self.pacing.note_published(self._elapsed())
        if self.is_broken:
            return
        engine, feed = self._engine, self.feed
        feed.mark(engine.changed_books)
        updates = engine.take_book_updates(feed.followed)
        for texts, readers in feed.flush(updates):
            self.outbox.broadcast(texts, readers)

    @property
    def has_news(self) -> bool:
        """Whether `publish` has anything to do."""
        return bool(self._engine.changed_books) or self.feed.has_slow_readers

    def publish_tickers(self) -> None:
        """Send tickers that changed. Call it as often as they may be sent."""
        for texts, readers in self.feed.flush_tickers():
            self.outbox.broadcast(texts, readers)

    def report(self) -> str:
        """Return the new orders and their books as text, for debug mode."""
        if self._placed is None or not self._placed.lines:
            return ""
        books = [
            self._engine.listings[symbol].book.render(DEBUG_LEVELS)
            for symbol in self._placed.symbols
        ]
        report = "\n".join(self._placed.lines + books) + "\n\n"
        self._placed = _Placed()
        return report

    # Within

    def _collect(
        self, outputs: Iterable[Output], by_account: dict[str, list[str]]
    ) -> list[Output]:
        """Add private events to the lists of accounts; return notices.

        These have no ``seq``, and are sent after all private events of the
        command. Trades and busts are recorded, and an ``Ok`` or ``Error`` is
        ignored.
        """
        history = self.history
        notices: list[Output] = []
        try:
            for recipient, event in outputs:
                if isinstance(event, PRIVATE_EVENTS):
                    texts = by_account.get(recipient)
                    if texts is None:
                        if recipient not in self.online:
                            history.record([(recipient, event)])
                            continue
                        texts = by_account[recipient] = []
                    text = encode(event)
                    texts.append(text)
                    if event.__class__ is Exec and event.exec_type == "trade":
                        history.record_fill(recipient, event, text)
                    elif event.__class__ is Settlement:
                        history.record_settlement(recipient, event, text)
                elif event.__class__ is Trade:
                    history.record_trade(event)
                    self.feed.record(event)
                elif isinstance(event, Bust):
                    history.record_public(event)
                    self.feed.record(event)
                elif isinstance(event, NOTICES):
                    history.record_public(event)
                    notices.append((recipient, event))
        except Exception:
            self.is_broken = True
            raise
        return notices

    def _send_notices(self, notices: Iterable[Output]) -> None:
        """Send what has no ``seq`` to every link, or to an account's."""
        encoded, text = None, ""
        for recipient, event in notices:
            if event is not encoded:  # a tender goes to many accounts
                encoded, text = event, encode(event)
            links = self.links
            if recipient != PUBLIC:
                links = self.online.get(recipient, {})
            for link in links:
                link.send(text)
            if isinstance(event, Status) and event.symbol is not None:
                self.feed.mark([event.symbol])  # a reset clears its ticker

    def _send_private(
        self,
        by_account: dict[str, list[str]],
        replies: list[str] | None = None,
    ) -> None:
        """Send each account its events, record them, and clear the lists.

        The link whose requests are carried out gets ``replies`` instead.
        """
        requester = None
        if replies:
            requester = self.requester
            requester.send(*replies)
            replies.clear()
        for account, texts in by_account.items():
            if not texts:
                continue
            self.history.account(account).add_texts(texts)
            for link in self.online[account]:
                if link is not requester:
                    link.send(*texts)
            texts.clear()

    def _snapshot(self, symbol: str) -> BookUpdate:
        return self._engine.snapshot(self._engine.listing(symbol))

    def _ticker(self, symbol: str) -> Ticker:
        return self._engine.ticker(self._engine.listing(symbol), self._now())

    def _note_placed(self, account: str, placed: Exec) -> None:
        assert self._placed is not None
        price = "market" if placed.price is None else f"@ {placed.price}"
        self._placed.lines.append(
            f"{account} {placed.side} {placed.qty} {placed.symbol} {price}"
            f" is order {placed.order_id}"
        )
        self._placed.symbols[placed.symbol] = None
