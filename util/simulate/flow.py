"""Plays recorded commands in a simulation, amid the orders of bots.

The orders of the recorded account NAME come from the account ``@flow.NAME``,
at the recorded times. It logs in by no connection: its commands go to the
sequencer, as those of timers do, so nothing but a simulation can be it.

The recorded commands are also applied to an engine of their own, the
*original*, which tells what came of each of them in the recording:

- what was refused there is left out;
- an order has another id here; amends and cancels name it by that;
- an order lives no longer than it did there. What is left of it here, because
  bots have traded with others, is canceled at that moment. Who sent it took
  it for filled, and would not cancel it.
"""

from __future__ import annotations

from asyncio import TimerHandle
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from exchange.gateway.busts import busting
from exchange.journal.sqlite import JournalError
from exchange.market.command import (
    Action,
    BustTrade,
    Command,
    Configure,
    Disconnect,
    Output,
    Restart,
    Shutdown,
    TimePassed,
)
from exchange.market.engine import Engine
from exchange.market.listing import TRADES_BUSTABLE
from orderbook import Admin, Amend, Cancel, Error, Exec, Place, Rested
from server import Server

from .loop import NS, VirtualLoop
from .recording import Recording, flow_account, market_of

# Ended orders whose ids are kept, for trades that are busted later.
ENDED_KEPT = 100_000


class Flow:
    """A recording that is played to a server.

    ``keeps_market``: the configuration of the market stays as it is;
    otherwise it follows the recorded one. ``orders`` counts the recorded
    orders, and ``refused`` those that are refused here, by code. ``failure``
    says why the rest of the recording cannot be played.
    """

    def __init__(
        self,
        recording: Recording,
        server: Server,
        loop: VirtualLoop,
        *,
        keeps_market: bool,
    ) -> None:
        self.orders = 0
        self.refused: Counter[str] = Counter()
        self.failure: JournalError | None = None
        self._recording = recording
        self._server = server
        self._gateway = server.gateway
        self._run = server.gateway.sequencer.run
        self._loop = loop
        self._keeps_market = keeps_market
        self._commands = recording.commands()
        self._due: TimerHandle | None = None
        self._original = Engine()
        self._original.apply(
            Command(1, recording.start, "", "", recording.market)
        )
        # Ids of orders here, by those of the recording.
        self._ids: dict[int, int] = {}
        self._ended_ids: dict[int, int] = {}

    def start(self) -> None:
        """Begin to play."""
        self._wait_for_next()

    def stop(self) -> None:
        """Play nothing more, and close the recording."""
        if self._due is not None:
            self._due.cancel()
        self._commands.close()

    def _wait_for_next(self) -> None:
        try:
            command = next(self._commands, None)
        except JournalError as error:
            self.failure = error
            return
        if command is not None:
            since_us = command.ts - self._recording.start
            when = since_us * 1_000 / NS
            self._due = self._loop.call_at(when, self._play, command)

    def _play(self, command: Command) -> None:
        leaving = []
        if isinstance(command.action, (Restart, Shutdown)):
            leaving = self._connected()
        try:
            outputs = self._apply_to_original(command)
        except JournalError as error:
            self.failure = error
            return
        self._server.step(partial(self._apply, command, outputs, leaving))
        if not self._server.failure.done():
            self._wait_for_next()

    def _connected(self) -> list[tuple[str, str]]:
        """Return account and name of the sessions that are connected."""
        return [
            (flow_account(account.name), name)
            for account in self._original.accounts.values()
            for name, session in account.sessions.items()
            if session.connected
        ]

    # One command

    def _apply(
        self,
        command: Command,
        outputs: list[Output],
        leaving: list[tuple[str, str]],
    ) -> None:
        """Play one command, of which ``outputs`` came in the recording.

        The sessions ``leaving`` end: the exchange stopped, or began again.
        """
        if isinstance(command.action, TimePassed):
            self._gateway.pass_time()
        for account, session in leaving:
            self._run(Disconnect(), account, session)
        if not outputs or not isinstance(outputs[0][1], Error):
            action = self._translate(command.action)
            if action is not None:
                self._request(command, action, outputs)
        self._end_orders(outputs)

    def _apply_to_original(self, command: Command) -> list[Output]:
        try:
            outputs = self._original.apply(command)
        except Exception as error:
            raise JournalError(
                f"{self._recording.path}: command {command.seq} cannot be"
                f" applied: {error!r}"
            ) from error
        self._original.take_book_updates()
        return outputs

    def _request(
        self, command: Command, action: Action, recorded: list[Output]
    ) -> None:
        account = flow_account(command.account)
        answers = self._run(action, account, command.session)
        if not isinstance(action, Place):
            return
        self.orders += 1
        reply = answers[0][1]
        if isinstance(reply, Error):
            self.refused[reply.code] += 1
        else:
            self._ids[_order_id(recorded[0][1])] = _order_id(reply)

    def _end_orders(self, outputs: Iterable[Output]) -> None:
        """Cancel what is left here of orders that ended in the recording."""
        for recipient, event in outputs:
            if not isinstance(event, Exec) or event.leaves_qty:
                continue
            order_id = self._ids.pop(event.order_id, None)
            if order_id is None:
                continue
            self._ended_ids[event.order_id] = order_id
            if len(self._ended_ids) > ENDED_KEPT:
                del self._ended_ids[next(iter(self._ended_ids))]
            name = flow_account(recipient)
            order = self._gateway.engine.accounts[name].orders.get(order_id)
            if order is not None and order.is_open:
                self._run(Cancel(order_id=order_id), name)

    # As it is here

    def _translate(self, action: Action) -> Action | None:
        """Return an action with the names and ids it has here; None: none."""
        match action:
            case Configure():
                return None if self._keeps_market else market_of(action)
            case TimePassed() | Restart() | Shutdown():
                return None
            case Amend(order_id=int(order_id)) | Cancel(
                order_id=int(order_id)
            ):
                here = self._ids.get(order_id)
                if here is None:
                    return None
                return replace(action, order_id=here)
            case Admin(user=user, order_id=wanted):
                if wanted is not None:
                    wanted = self._ids.get(wanted)
                    if wanted is None:
                        return None
                if user is not None:
                    user = flow_account(user)
                return replace(action, user=user, order_id=wanted)
            case BustTrade():
                return self._busting(action)
            case _:
                return action

    def _busting(self, bust: BustTrade) -> BustTrade | None:
        """Return how a trade is undone here; None: it was not made here."""
        symbol = bust.symbol
        listing = self._gateway.engine.listings.get(symbol)
        if listing is None:
            return None
        last = listing.trade_id
        first = max(0, last - TRADES_BUSTABLE)
        wanted = (
            *(self._here(bust.buy_order_id), self._here(bust.sell_order_id)),
            *(bust.price, bust.qty),
        )
        for trade_id in (bust.trade_id, *range(last, first, -1)):
            request = Admin(
                action="bust",
                symbol=symbol,
                trade_id=trade_id,
                reason=bust.reason,
                client_request_id=bust.client_request_id,
            )
            found = busting(self._gateway.history, request)
            if isinstance(found, BustTrade) and wanted == (
                *(found.buy_order_id, found.sell_order_id),
                *(found.price, found.qty),
            ):
                return found
        return None

    def _here(self, order_id: int) -> int | None:
        """Return the id of an order here, also of one that has ended."""
        return self._ids.get(order_id) or self._ended_ids.get(order_id)


def _order_id(reply: object) -> int:
    """Return the id of an order that was accepted."""
    if isinstance(reply, Rested):
        return reply.order.order_id
    assert isinstance(reply, Exec)
    return reply.order_id
