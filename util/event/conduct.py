"""Play one match on an exchange, as its administrator: `Conductor`.

It asks `schedule` what is due, and sends that to the exchange. Every act has
a row before and after it, and a number that the exchange accepts once, so a
conductor that takes over does again what the last one may not have finished.
It starts no process and follows the exchange's clock: a simulation uses it
as the director does.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

from client import (
    AdminArguments,
    Busy,
    DuplicateClientRequestId,
    Exchange,
    ExchangeError,
    Market,
    MarketClosed,
    RateLimited,
)
from orderbook import AdminAction, Refused

from .record import EVENT, Attempt, Key, Record
from .schedule import CLOSE_OUT, Plan, Seen, due, state_of, wait_s

PAUSE_S = 0.2  # after a request that was lost with its connection
# A refused act of these kinds ends the match; another is only told.
VITAL = ("reset", "open")


class Values(Protocol):
    """The hidden values of a match."""

    def at(self, ms: int, symbol: str) -> int:
        """Return a value at a moment of trading time, in ticks."""


@dataclass(frozen=True, slots=True)
class Match:
    """A match to be played.

    ``cash`` is what each team begins with, in units. ``settled`` are the
    symbols that are settled at their hidden values; derivatives follow them.
    ``edges`` is how much better than fair each tender is, in ticks, by name.
    ``at_mark``: P&L for a blow-out counts at marks, not at hidden values.
    """

    key: Key
    number: int  # of the round of the market
    label: str
    name: str  # of event and match, as clients are told it
    fair_sha256: str  # of the file of hidden values
    plan: Plan
    cash: Mapping[str, int]
    values: Values
    settled: Collection[str]
    edges: Mapping[str, int]
    at_mark: bool = False


class MatchVoid(Exception):
    """The match does not count any more; the text says why."""


class ActRefused(Exception):
    """The exchange refused what the match cannot do without."""


class Conductor:
    """Plays one match; ``exchange`` is an administrator's connection.

    ``seen`` is the last look, and ``close_ts`` when the market closes by
    itself, in microseconds of the exchange's time.
    """

    def __init__(
        self,
        exchange: Exchange,
        match: Match,
        record: Record,
        say: Callable[[str], None],
    ) -> None:
        self.match = match
        self.seen = Seen("waiting")
        self.close_ts: int | None = None
        self._exchange = exchange
        self._warm_ts = exchange.now
        self._record = record
        self._say = say
        self._acts = {act.name: act for act in match.plan.acts}
        self._attempt = self._read()
        self._board: list[dict[str, Any]] = []
        self._teams: list[str] = []  # that the exchange was told last

    async def play(self) -> None:
        """Play the match from where it is until it is settled.

        Raises MatchVoid if a person has said so, or has reset the market;
        ActRefused if the match cannot go on.
        """
        attempt = self._attempt
        for name in [n for n in attempt.begun if n not in attempt.done]:
            if "action" in attempt.begun[name]:
                await self._do(name)
        while True:
            was_standing = self.seen.state == "paused"
            await self.look()
            self._attempt = attempt = self._read()
            if attempt.status == "void":
                raise MatchVoid(attempt.reason)
            paused = self._record.paused() is not None
            if paused and was_standing and self.seen.state == "open":
                reason = "the market was opened by hand"
                self._record.done(EVENT, "resume", reason=reason)
            plan, done = self.match.plan, attempt.done
            if "announce" in done:
                await self._welcome_teams()
            names = due(plan, done, self.seen, paused)
            for name in names:
                await self._do(name)
            if names[-1:] == ["settled"]:
                return
            if not names:
                await asyncio.sleep(wait_s(plan, done, self.seen))

    async def _welcome_teams(self) -> None:
        """Announce the match again if teams have come since."""
        begun = self._attempt.begun["announce"]
        teams = [*self.match.cash]
        if teams != (self._teams or begun["arguments"]["teams"]):
            arguments = {**begun["arguments"], "teams": teams}
            await self._admin("match", begun["reason"], **arguments)
        self._teams = teams

    async def close(self, reason: str) -> None:
        """Close the market of a match that does not count any more."""
        await self._admin("phase", reason, phase="closed")

    def warm_up(self) -> None:
        """Begin the warm-up again: teams cannot have connected before."""
        self._warm_ts = self._exchange.now

    # Looking

    async def look(self) -> None:
        """See where the match is."""
        exchange, plan = self._exchange, self.match.plan
        rows = await self._until_answered(lambda: exchange.get("instruments"))
        self._board = await self._until_answered(exchange.leaderboard)
        is_opened = "open" in self._attempt.done
        if is_opened and exchange.round != self.match.number:
            raise MatchVoid("the market was reset by hand")
        closing = [row["close_ts"] for row in rows if row.get("close_ts")]
        phases = [row["phase"] for row in rows]
        state = state_of(phases, bool(closing), is_opened)
        now = self._exchange.now
        self.close_ts = max(closing, default=None)
        elapsed: int | None = None
        left_ms = max((row.get("close_left_ms", -1) for row in rows))
        if self.close_ts is not None:
            left_ms = (self.close_ts - now) // 1_000
        if self.close_ts is not None or left_ms >= 0:
            elapsed = min(max(plan.trading_ms - left_ms, 0), plan.trading_ms)
        elif state == "closed":
            elapsed = plan.trading_ms
        self.seen = Seen(
            state, (now - self._warm_ts) // 1_000, elapsed, self._pnls(elapsed)
        )

    def equities(self) -> dict[str, int]:
        """Return each team's P&L at marks, as the exchange shows it."""
        return {
            row["user"]: row["equity"] - self.match.cash[row["user"]]
            for row in self._board
            if row["user"] in self.match.cash
        }

    def _pnls(self, elapsed_ms: int | None) -> dict[str, int]:
        """Return each team's P&L, as a blow-out counts it."""
        match = self.match
        if match.plan.blow_out is None or elapsed_ms is None:
            return {}
        if match.at_mark:
            return self.equities()
        instruments = self._exchange.instruments
        pnls = {}
        for row in self._board:
            team = row["user"]
            if team not in match.cash:
                continue
            worth = sum(
                qty
                * match.values.at(elapsed_ms, symbol)
                * instruments[symbol].tick_value
                for symbol, qty in row["positions"].items()
            )
            pnls[team] = row["cash"] + worth - match.cash[team]
        return pnls

    # Acting

    async def _do(self, name: str) -> None:
        """Do one act, with a row before and after it."""
        key, record = self.match.key, self._record
        if name == "close":  # the exchange has done it
            record.done(key, name)
            self._say(
                f"{self.match.label}: trading has ended; positions become"
                " cash."
            )
            return
        if name == "settled":
            await self._note_accounts()
            return
        begun = self._attempt.begun.get(name)
        if begun is None:
            begun = await self._request(name)
            record.begin(key, name, **begun)
        outcome = ""
        if begun["action"] is not None:
            outcome = await self._send(name, begun)
        detail: dict[str, Any] = {"refused": outcome} if outcome else {}
        if name == "open":
            await self._note_opening(detail)
            if self._record.paused() is not None:  # called just now
                await self._admin("phase", reason="pause", phase="halted")
        elif name == "reset":
            await self._until(
                lambda: self._exchange.round >= self.match.number
            )
        record.done(key, name, **detail)
        self._attempt = self._read()
        self._tell(name, begun, outcome)

    async def _send(self, name: str, begun: Mapping[str, Any]) -> str:
        """Send an act until the exchange has answered; return a refusal."""
        action = cast(AdminAction, begun["action"])
        arguments = {
            **begun["arguments"],
            "client_request_id": self._id(name),
        }
        reason: str = begun["reason"]
        try:
            await self._admin(action, reason, **arguments)
        except DuplicateClientRequestId:  # an earlier copy took effect
            return ""
        except MarketClosed as refusal:
            if name == "settle":  # a person has settled it
                return ""
            return str(refusal)
        except Refused as refusal:
            if name in VITAL or name == "settle":
                raise ActRefused(f"{name}: {refusal}") from None
            return str(refusal)
        return ""

    async def _admin(
        self, action: AdminAction, reason: str, **arguments: Any
    ) -> None:
        """Send a request until the exchange has answered; raises Refused."""
        await self._until_answered(
            lambda: self._exchange.admin(
                action, reason, **cast(AdminArguments, arguments)
            )
        )

    def _id(self, name: str) -> str:
        """Return the client_request_id of an act: the same at each try."""
        if name.startswith(CLOSE_OUT):  # team names may have any characters
            digest = hashlib.sha256(name.encode()).hexdigest()[:12]
            name = CLOSE_OUT + digest
        return f"{self.match.number}.{name}"

    async def _request(self, name: str) -> dict[str, Any]:
        """Return the administrator's request of an act."""
        match, plan = self.match, self.match.plan
        reason = match.label
        if name == "reset":
            is_there = self._exchange.round >= match.number
            return _made(None if is_there else "reset", reason)
        if name == "announce":
            return _made(
                "match",
                reason,
                name=match.name,
                round=match.key.round,
                teams=[*match.cash],
                fair_sha256=match.fair_sha256,
            )
        if name == "open":
            return _made(
                "phase", reason, phase="open", close_ms=plan.trading_ms
            )
        if name == "settle":
            prices = {
                symbol: match.values.at(plan.trading_ms, symbol)
                for symbol in match.settled
            }
            return _made("settle", reason, prices=prices)
        if name.startswith(CLOSE_OUT):
            team = name.removeprefix(CLOSE_OUT)
            reason = f"{reason}: {team} is at {self.seen.pnls[team]}"
            prices = await self._prices()
            return _made("close_out", reason, user=team, prices=prices)
        return self._timed(name, reason)

    def _timed(self, name: str, reason: str) -> dict[str, Any]:
        """Return the request of news, a dividend or a tender."""
        act = self._acts[name]
        detail = {k: v for k, v in act.detail.items() if v is not None}
        if act.kind == "news":
            return _made("news", reason, **detail)
        if act.kind == "dividend":
            return _made("dividend", reason, **detail)
        fair = self.match.values.at(
            self.seen.elapsed_ms or 0, detail["symbol"]
        )
        edge = self.match.edges[name]
        price = fair - edge if detail["side"] == "buy" else fair + edge
        return _made(
            "tender", reason, tender_id=self._id(name), price=price, **detail
        )

    async def _prices(self) -> dict[str, int]:
        """Return a price of every instrument, as a blow-out counts it."""
        match, elapsed = self.match, self.seen.elapsed_ms or 0
        prices = {}
        for symbol in self._exchange.instruments:
            if not match.at_mark:
                prices[symbol] = match.values.at(elapsed, symbol)
                continue
            market: Market = await self._until_answered(
                partial(self._exchange.market, symbol)
            )
            prices[symbol] = mark_of(market)
        return prices

    async def _note_opening(self, detail: dict[str, Any]) -> None:
        """Find out at which time the match was opened."""
        rows = await self._until_answered(
            lambda: self._exchange.get("instruments")
        )
        closing = [row["close_ts"] for row in rows if row.get("close_ts")]
        if closing:
            trading_us = self.match.plan.trading_ms * 1_000
            detail["opened_ts"] = max(closing) - trading_us

    async def _note_accounts(self) -> None:
        """Wait until everybody is paid, then note the cash of each team."""
        while any(
            qty
            for row in self._board
            if row["user"] in self.match.cash
            for qty in row["positions"].values()
        ):
            await asyncio.sleep(PAUSE_S)
            await self.look()
        cash = {
            row["user"]: row["cash"]
            for row in self._board
            if row["user"] in self.match.cash
        }
        self._record.done(self.match.key, "settled", cash=cash)

    def _tell(self, name: str, begun: Mapping[str, Any], why: str) -> None:
        """Say what was done, in a line."""
        label = self.match.label
        if why:
            self._say(f"{label}: the exchange refused {name}: {why}")
        elif name == "open":
            seconds = self.match.plan.trading_ms / 1_000
            self._say(f"{label}: open for {seconds:g} s.")
        elif name.startswith(CLOSE_OUT):
            self._say(begun["reason"].replace(" is at ", " closed out at "))
        elif name in self._acts:
            detail = self._acts[name].detail
            words = detail.get("headline") or detail.get("symbol")
            self._say(f"{label}: {self._acts[name].kind}: {words}")

    # Waiting

    def _read(self) -> Attempt:
        key = self.match.key
        return self._record.attempts().get(key, Attempt(key))

    async def _until_answered(self, ask: Callable[[], Any]) -> Any:
        """Ask until there is an answer; the client connects again."""
        while True:
            try:
                return await ask()
            except (ExchangeError, Busy, RateLimited):
                await asyncio.sleep(PAUSE_S)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(PAUSE_S / 10)


def mark_of(market: Market) -> int:
    """Return the price that values a position, as the exchange has it."""
    book, last = market.book, market.last
    if last is None:
        last = market.instrument.reference_price
    if book.bid is None or book.ask is None:
        return last
    return sorted((book.bid, last, book.ask))[1]


def _made(action: str | None, reason: str, **arguments: Any) -> dict[str, Any]:
    """Return what the row before an act says."""
    return {"action": action, "reason": reason, "arguments": arguments}
