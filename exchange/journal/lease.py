"""Who may tell anybody anything, by time: the primary's lease, the silence.

The journal on a stream decides who writes: an append names the sequence that
it expects. These two classes decide by time who may *tell*. A primary may do
so until ``LEASE`` (0.8) of T after it sent its last append that was stored. A
standby takes over after T without a message. Whoever heard an append heard it
after it was sent, so two machines whose clocks run at rates that differ by
some per cent never tell at the same time.

All times are microseconds of one machine's elapsed time, asleep or awake.
"""

from __future__ import annotations

from orderbook import MAX_INT

LEASE_PERCENT = 80  # of T: the rest is for clocks of different rates
BEATS = 4  # beats of an idle primary in each T
# The times T without a lease after which connections are closed: so long a
# primary has clients wait that may find another one.
CLOSE_AFTER = 2
NEVER = -MAX_INT


class Fenced(Exception):
    """Another process writes the journal: this one must end at once.

    What it has applied beyond the stream did not happen, so it may tell
    nobody anything any more.
    """


class Lease:
    """The lease of a primary, renewed by each append that is stored.

    ``length`` is T in microseconds. A new lease is over.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.until = NEVER
        self._sent = NEVER  # when the last append was first sent
        self._is_ended = False

    def sent(self, now: int) -> None:
        """Note that an append is sent for the first time."""
        self._sent = now

    def stored(self, sent: int) -> None:
        """Renew the lease: a try that was sent at ``sent`` is stored.

        If it is not known which try was, ``sent`` is the time of the first.
        """
        if not self._is_ended:
            renewed = sent + self.length * LEASE_PERCENT // 100
            self.until = max(self.until, renewed)

    def end(self) -> None:
        """Give the lease up for ever: another process may lead."""
        self._is_ended = True
        self.until = NEVER

    def holds(self, now: int) -> bool:
        """Return whether anybody may be told anything."""
        return now < self.until

    @property
    def beat_at(self) -> int:
        """When an idle primary appends a beat."""
        return self._sent + self.length // BEATS

    @property
    def close_at(self) -> int:
        """When all connections are closed, if the lease is not renewed."""
        return self.until + CLOSE_AFTER * self.length


class Silence:
    """How long a standby has heard nothing from a primary.

    ``length`` is the T of this process; a primary's own T counts if it is
    longer. A new standby has heard nothing yet, and waits.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._since: int | None = None  # None: the stream does not answer
        self._wait = length

    def heard(self, now: int, length: int) -> None:
        """Note a message of a primary whose T is ``length``."""
        self._since = now
        self._wait = max(self.length, length)

    def left(self) -> None:
        """Note that the last primary said that it has left."""
        self._wait = 0

    def answered(self, now: int) -> None:
        """Note that the stream answers, and wait from now if it did not."""
        if self._since is None:
            self._since = now

    def unanswered(self) -> None:
        """Note that the stream does not answer: silence says nothing."""
        self._since = None

    @property
    def fence_at(self) -> int | None:
        """When a standby may try to take over; None: not yet known."""
        if self._since is None:
            return None
        return self._since + self._wait
