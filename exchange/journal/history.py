"""Past events in bounded memory, for the tables of `get`.

It gets every event of the engine, in order. It keeps the public trades and
candles of each symbol, the fills and last private events of each account,
from which a session resumes, and the last news and statuses. Trades and fills
that were undone are marked; candles stay as printed. No clock, no socket. A
history can be pickled.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, TypeVar, get_args

from exchange.journal.candles import Candle, Candles
from exchange.market.command import Output
from exchange.market.listing import TRADES_BUSTABLE
from orderbook import (
    AccountReport,
    Bust,
    Event,
    Exec,
    Interval,
    News,
    Rested,
    Settlement,
    Status,
    Trade,
    decode_events,
    encode,
)

TRADES_KEPT = 100_000  # of each symbol, as the protocol promises
FILLS_KEPT = 10_000  # of each account
NOTICES_KEPT = 1_000  # news, and as many statuses: what one `get` may return
RESUME_EVENTS = 2_000  # of each account: the most that can be resumed
JOINED = 50  # recent events of an account before they become one text

PrivateEvent: TypeAlias = Exec | AccountReport | Rested | Settlement
PRIVATE_EVENTS = get_args(PrivateEvent)
Row = TypeVar("Row")


def page(
    rows: Sequence[Row],
    key: Callable[[Row], int],
    after: int | None,
    limit: int,
) -> list[Row]:
    """Return at most ``limit`` of ``rows``, which ascend by ``key``.

    The first ones with a key greater than ``after``, or the newest ones if
    ``after`` is None; oldest first in both cases.
    """
    size = len(rows)
    if after is None:
        start = max(0, size - limit)
    else:
        start = bisect_right(rows, after, key=key)
    end = min(start + limit, size)
    if start < size - end:
        return list(islice(rows, start, end))
    # From the nearer end: a deque is traversed to reach an index.
    found = list(islice(reversed(rows), size - end, size - start))
    found.reverse()
    return found


class AccountHistory:
    """The fills of one account, and its last events.

    Events are joined into texts of JOINED or more: the small strings are freed
    soon, and their memory is reused while it is in the CPU's cache. Events
    added without a text are encoded only when they are requested.
    """

    __slots__ = (
        *("fills", "seq", "_recent", "_is_text", "_past", "_count"),
        *("_settlements", "_unnumbered"),
    )

    def __init__(self) -> None:
        # Each with its seq and symbol, by which they are found.
        self.fills: deque[tuple[int, str, str | Exec]] = deque(
            maxlen=FILLS_KEPT
        )
        self.seq = 0  # of the last event; those before it have no gaps
        self._recent: list[Any] = []  # of PrivateEvent or str
        self._is_text = True  # all recent events are encoded
        # Older events in blocks: how many, and their texts in lines or a list.
        self._past: deque[tuple[int, str | list[Any]]] = deque()
        self._count = 0  # events in all blocks
        # Settlements have the seq of the account report that they precede.
        self._settlements: deque[tuple[int, str | Settlement]] = deque(
            maxlen=RESUME_EVENTS
        )
        self._unnumbered: set[str] = set()  # settlements in the next texts

    def add(self, event: PrivateEvent) -> None:
        """Add the next event."""
        if event.__class__ is Settlement:
            self._settlements.append((event.seq, event))
            return
        self._is_text = False
        self._recent.append(event)
        self.seq = event.seq
        if event.__class__ is Exec and event.exec_type == "trade":
            self.fills.append((event.seq, event.symbol, event))
        if len(self._recent) >= JOINED:
            self._join()

    def add_texts(self, texts: list[str]) -> None:
        """Add the next events, encoded.

        Call `add_fill` for the fills among them, and before it
        `add_settlement` for the settlements.
        """
        if self._unnumbered:
            texts = [text for text in texts if text not in self._unnumbered]
            self._unnumbered.clear()
        self._recent += texts
        self.seq += len(texts)
        if len(self._recent) >= JOINED:
            self._join()

    def add_fill(self, fill: Exec, text: str) -> None:
        """Record that one of the encoded events is a fill."""
        self.fills.append((fill.seq, fill.symbol, text))

    def add_settlement(self, seq: int, text: str) -> None:
        """Record that one of the next encoded events is a settlement."""
        self._settlements.append((seq, text))
        self._unnumbered.add(text)

    def compact(self) -> None:
        """Forget the events, encode the fills: nobody resumes from here."""
        self._recent, self._is_text = [], True
        self._past.clear()
        self._count = 0
        self._settlements.clear()
        self._unnumbered.clear()
        fills, newer = self.fills, []
        while fills and not isinstance(fills[-1][2], str):
            newer.append(fills.pop())
        for seq, symbol, fill in reversed(newer):
            fills.append((seq, symbol, as_text(fill)))

    def fill(self, seq: int) -> Exec | None:
        """Return the fill with this seq; None if it is not kept."""
        index = self._index(seq)
        if index is None:
            return None
        (fill,) = decode_events(as_text(self.fills[index][2]))
        assert isinstance(fill, Exec)
        return fill

    def mark_busted(self, seq: int) -> None:
        """Note that the trade of a fill was undone."""
        index = self._index(seq)
        if index is not None:
            _, symbol, fill = self.fills[index]
            text = f'{as_text(fill)[:-1]},"busted":true}}'
            self.fills[index] = (seq, symbol, text)

    def _index(self, seq: int) -> int | None:
        index = bisect_left(self.fills, seq, key=lambda fill: fill[0])
        if index == len(self.fills) or self.fills[index][0] != seq:
            return None
        return index

    @property
    def kept(self) -> int:
        """The number of numbered events that `since` can return."""
        return self._count + len(self._recent)

    def since(self, seq: int) -> list[str] | None:
        """Return the events after ``seq``; None if some are not kept."""
        settled = self._settlements
        if len(settled) == settled.maxlen and settled[0][0] > seq:
            return None
        numbered = self._last(self.seq - seq)
        if numbered is None:
            return None
        events: list[str] = []
        first = bisect_right(settled, seq, key=lambda entry: entry[0])
        for at, settlement in islice(settled, first, None):
            count = at - 1 - seq
            events += numbered[:count]
            events.append(as_text(settlement))
            del numbered[:count]
            seq += count
        return events + numbered

    def _last(self, count: int) -> list[str] | None:
        """Return the last ``count`` numbered events, if they are kept."""
        if count > self.kept:
            return None
        last = self._recent
        for _, past in reversed(self._past):
            if len(last) >= count:
                break
            last = (past.split("\n") if isinstance(past, str) else past) + last
        return list(map(as_text, last[-count:]))

    def resumable(
        self,
    ) -> tuple[list[str], list[tuple[int, str | Settlement]]]:
        """Return the numbered events that can be resumed, and settlements.

        The events are encoded. A settlement has the seq of the account report
        that it precedes.
        """
        assert not self._unnumbered, "between two commands"
        count = min(self.kept, RESUME_EVENTS)
        events = self._last(count) if count else []
        assert events is not None
        return events, [*self._settlements]

    def load(
        self, seq: int, events: list[str], settlements: list[tuple[int, str]]
    ) -> None:
        """Fill a new history with what `resumable` returned of another one.

        ``seq`` is that of the last event.
        """
        self.seq = seq
        for first in range(0, len(events), JOINED):
            block = events[first : first + JOINED]
            self._past.append((len(block), "\n".join(block)))
        self._count = len(events)
        self._settlements.extend(settlements)

    def _join(self) -> None:
        recent, is_text = self._recent, self._is_text
        past = "\n".join(recent) if is_text else recent
        self._past.append((len(recent), past))
        self._count += len(recent)
        while self._count - self._past[0][0] >= RESUME_EVENTS:
            self._count -= self._past.popleft()[0]
        self._recent, self._is_text = [], True


def as_text(event: PrivateEvent | str) -> str:
    """Return an event encoded."""
    return event if isinstance(event, str) else encode(event)


class Kept(NamedTuple):
    """What a history consists of; see `History.kept`."""

    round: int  # of the candles
    trades: dict[str, deque[Trade]]  # by symbol, as the next ones
    parties: dict[str, deque[tuple[str, int]]]
    candles: dict[str, Candles]
    news: deque[News]
    statuses: deque[Status]
    accounts: dict[str, AccountHistory]


class History:
    """The past events of all symbols and accounts."""

    def __init__(self) -> None:
        self._trades: defaultdict[str, deque[Trade]] = defaultdict(
            partial(deque, maxlen=TRADES_KEPT)
        )
        # Account and seq of the two fills of each of the last trades.
        self._parties: defaultdict[str, deque[tuple[str, int]]] = defaultdict(
            partial(deque, maxlen=2 * TRADES_BUSTABLE)
        )
        self._candles: defaultdict[str, Candles] = defaultdict(Candles)
        self._round = 1  # of the candles
        self._news: deque[News] = deque(maxlen=NOTICES_KEPT)
        self._statuses: deque[Status] = deque(maxlen=NOTICES_KEPT)
        self._accounts: defaultdict[str, AccountHistory] = defaultdict(
            AccountHistory
        )

    def kept(self) -> Kept:
        """Return all parts, to be copied, or filled if they are new."""
        return Kept(
            self._round,
            self._trades,
            self._parties,
            self._candles,
            self._news,
            self._statuses,
            self._accounts,
        )

    def begin_round(self, number: int) -> None:
        """Set the round; its first candles are those of the next trades."""
        self._round = number
        self._candles.clear()

    def account(self, name: str) -> AccountHistory:
        """Return the past events of one account."""
        return self._accounts[name]

    def compact(self) -> None:
        """Keep what `get` returns, and nothing for sessions that resume.

        It is smaller then, and quicker to copy.
        """
        for account in self._accounts.values():
            account.compact()

    def record(self, outputs: Iterable[Output]) -> None:
        """Add the outputs of a command, none of which is encoded yet."""
        for recipient, event in outputs:
            if isinstance(event, PRIVATE_EVENTS):
                self._accounts[recipient].add(event)
                if event.__class__ is Exec and event.exec_type == "trade":
                    self._parties[event.symbol].append((recipient, event.seq))
            else:
                self.record_public(event)

    def record_fill(self, account: str, fill: Exec, text: str) -> None:
        """Record that one of the encoded events of an account is a fill."""
        self._accounts[account].add_fill(fill, text)
        self._parties[fill.symbol].append((account, fill.seq))

    def record_settlement(
        self, account: str, settlement: Settlement, text: str
    ) -> None:
        """Record that one of the next encoded events is a settlement."""
        self._accounts[account].add_settlement(settlement.seq, text)

    def record_public(self, event: Event | Rested) -> None:
        """Add a public event; ignore one that no table has."""
        match event:
            case Trade():
                self.record_trade(event)
            case Status():
                self._record_status(event)
            case News():
                self._news.append(event)
            case Bust():
                self._record_bust(event)

    def record_trade(self, trade: Trade) -> None:
        """Add one public trade; of two accounts, also to the candles."""
        self._trades[trade.symbol].append(trade)
        if not trade.is_self:
            self._candles[trade.symbol].add(trade.ts, trade.price, trade.qty)

    def _record_status(self, status: Status) -> None:
        """Add a status; the first one of a round clears the candles."""
        self._statuses.append(status)
        if status.round != self._round:
            self.begin_round(status.round)

    def _record_bust(self, bust: Bust) -> None:
        """Mark a trade and its two fills."""
        trades = self._trades[bust.symbol]
        index = bust.trade_id - trades[0].trade_id
        trades[index] = replace(trades[index], busted=True)
        for account, seq in self._fills_of(bust.symbol, bust.trade_id):
            self._accounts[account].mark_busted(seq)

    def parties(self, symbol: str, trade_id: int) -> list[tuple[str, Exec]]:
        """Return the two fills of a trade, each with its account.

        They are in the order in which they were reported. Fewer, if some are
        no longer kept or there is no such trade.
        """
        found = []
        for account, seq in self._fills_of(symbol, trade_id):
            fill = self._accounts[account].fill(seq)
            if fill is not None:
                found.append((account, fill))
        return found

    def _fills_of(self, symbol: str, trade_id: int) -> list[tuple[str, int]]:
        """Return account and seq of the two fills of a trade."""
        trades, parties = self._trades[symbol], self._parties[symbol]
        if not trades or not 0 < trade_id <= trades[-1].trade_id:
            return []
        # Each trade has two, and all of the last trades are kept.
        first = len(parties) - 2 * (trades[-1].trade_id - trade_id + 1)
        if first < 0:
            return []
        return [parties[first], parties[first + 1]]

    def news(
        self, symbol: str | None, after: int | None, limit: int
    ) -> list[News]:
        """Return news, all or of one symbol; ``after`` is a news_id."""
        rows = [n for n in self._news if symbol in (None, n.symbol)]
        return page(rows, lambda news: news.news_id, after, limit)

    def statuses(
        self, symbol: str | None, after: int | None, limit: int
    ) -> list[Status]:
        """Return statuses, all or of one symbol; ``after`` is a ts."""
        rows = [s for s in self._statuses if symbol in (None, s.symbol)]
        return page(rows, lambda status: status.ts, after, limit)

    def trades(
        self, symbol: str, after: int | None, limit: int
    ) -> list[Trade]:
        """Return trades of a symbol; ``after`` is a trade id."""
        rows = self._trades[symbol]
        return page(rows, lambda trade: trade.trade_id, after, limit)

    def trades_since(self, symbol: str, ts: int, limit: int) -> list[Trade]:
        """Return the first trades of a symbol at or after a time."""
        rows = self._trades[symbol]
        return page(rows, lambda trade: trade.ts, ts - 1, limit)

    def candles_since(
        self, symbol: str, interval: Interval, ts: int
    ) -> tuple[Candle | None, list[Candle]]:
        """Return the candles that start at or after a time.

        Before them the last one that starts earlier, if there is one.
        """
        rows = self._candles[symbol].rows(interval)
        first = bisect_left(rows, ts, key=lambda candle: candle[0])
        before = rows[first - 1] if first else None
        return before, list(islice(rows, first, None))

    def candles(
        self, symbol: str, interval: Interval, after: int | None, limit: int
    ) -> list[Candle]:
        """Return candles of a symbol; ``after`` is a start_ts."""
        rows = self._candles[symbol].rows(interval)
        return page(rows, lambda candle: candle[0], after, limit)

    def fills(
        self, account: str, symbol: str | None, after: int | None, limit: int
    ) -> list[str]:
        """Return fills of an account, all or of one symbol, encoded.

        ``after`` is an account seq.
        """
        rows: Sequence[tuple[int, str, str | Exec]]
        rows = self._accounts[account].fills
        if symbol is not None:
            rows = [fill for fill in rows if fill[1] == symbol]
        found = page(rows, lambda fill: fill[0], after, limit)
        return [as_text(fill) for _, _, fill in found]

    def events_since(
        self, account: str, last_seq: int, seq: int
    ) -> list[str] | None:
        """Return an account's events after ``last_seq``, up to ``seq``.

        They are encoded. None: some are no longer kept, or have not happened.
        """
        if last_seq == seq:
            return []
        history = self._accounts[account]
        count = seq - last_seq
        if history.seq != seq or not 0 < count <= RESUME_EVENTS:
            return None
        return history.since(last_seq)
