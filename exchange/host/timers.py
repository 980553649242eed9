"""Timers: heartbeats, tickers, deadlines, looks at the clock.

Each timer does its work in a step of the server. Delays are real time: a
heartbeat shows that a connection lives, whatever the speed of the clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from exchange.gateway.gateway import Gateway
from exchange.host.clock import JUMP_US, Clock, as_delay

HEARTBEAT_S = 5.0  # between heartbeats, at any speed; fixed by the protocol
# Between heartbeats while messages wait for a commit. A client for which too
# much waits is not read, so its pings are not answered.
WAITING_S = 2.0
# Between tickers of a symbol, in the exchange's time; fixed by the protocol.
TICKER_S = 0.1
CLOCK_S = 0.5  # between looks at the machine's clock

logger = logging.getLogger("exchange")


class Timers:
    """The timers of one exchange.

    ``step`` does some work and writes its results.
    """

    def __init__(
        self,
        gateway: Gateway,
        clock: Clock,
        step: Callable[[Callable[[], object]], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._gateway = gateway
        self._clock = clock
        self._step = step
        self._ticker_s = TICKER_S / float(clock.speed)
        self._heartbeat_due: asyncio.TimerHandle | None = None
        self._beat_at = 0.0  # the last heartbeat, in seconds of the loop
        self._clock_due: asyncio.TimerHandle | None = None
        self._ticker_due: asyncio.TimerHandle | None = None
        self._feed_due: asyncio.TimerHandle | None = None
        self._deadline_due: asyncio.TimerHandle | None = None
        self._deadline: int | None = None  # of the timer above

    def start(self) -> None:
        """Send a heartbeat and look at the clock, now and at intervals."""
        self.beat()
        self._look_at_clock()

    def stop(self) -> None:
        """Cancel all timers."""
        for due in (
            self._heartbeat_due,
            self._clock_due,
            self._ticker_due,
            self._feed_due,
            self._deadline_due,
        ):
            if due is not None:
                due.cancel()

    def set(self) -> None:
        """Set the timers for what is due next; called after each step."""
        gateway = self._gateway
        if gateway.feed.is_ticker_due and self._ticker_due is None:
            self._ticker_due = self._loop.call_later(self._ticker_s, self.tick)
        due = gateway.pacing.due
        if due is not None and self._feed_due is None:
            delay_s = as_delay(due - self._clock.elapsed())
            self._feed_due = self._loop.call_later(delay_s, self._publish)
        deadline = gateway.next_deadline
        if deadline == self._deadline:
            return
        self._deadline = deadline
        if self._deadline_due is not None:
            self._deadline_due.cancel()
        if deadline is not None:
            delay_s = self._clock.seconds_until(deadline)
            self._deadline_due = self._loop.call_later(delay_s, self._fire)

    def beat(self) -> None:
        """Send heartbeats, now and every HEARTBEAT_S."""
        self._beat_at = self._loop.time()
        if self._heartbeat_due is not None:
            self._heartbeat_due.cancel()
        self._heartbeat_due = self._loop.call_later(HEARTBEAT_S, self.beat)
        self._step(self._gateway.heartbeat)

    def tick(self) -> None:
        """Publish the tickers that have changed."""
        if self._ticker_due is not None:
            self._ticker_due.cancel()
        self._ticker_due = None
        self._step(self._gateway.routing.publish_tickers)

    def _publish(self) -> None:
        self._feed_due = None
        self._step(lambda: None)  # each step publishes what is due

    def _fire(self) -> None:
        self._deadline = self._deadline_due = None
        self._step(self._gateway.pass_time)

    def _look_at_clock(self) -> None:
        """Follow the machine's clock forward, and log its jumps."""
        self._clock_due = self._loop.call_later(CLOCK_S, self._look_at_clock)
        if self._gateway.gate and (
            self._loop.time() >= self._beat_at + WAITING_S
        ):
            self.beat()
        change = self._clock.look()
        if not self._clock.is_wall_clock:
            self._step(self._gateway.note_time)
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
        # The deadline of the timer may have passed.
        if self._deadline_due is not None:
            self._deadline_due.cancel()
        self._step(lambda: self._follow_clock(change.behind))

    def _follow_clock(self, behind: int) -> None:
        if behind:
            self._gateway.step_clock(behind)
            self._clock.forward(behind)
        self._deadline = self._deadline_due = None
        self._gateway.pass_time()
