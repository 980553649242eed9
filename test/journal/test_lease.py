"""The lease of a primary and the silence of a standby, by two clocks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exchange.journal.lease import Lease, Silence

T = 1_000_000
times = st.integers(0, 100 * T)
spans = st.just(0) | st.integers(0, 3 * T)
# Clocks begin anywhere; their rates differ by 1 % at most from the true one.
rates = st.sampled_from((9_900, 10_000, 10_100))


class Machine:
    """A clock that starts anywhere and runs fast or slow."""

    def __init__(self, offset: int, rate: int) -> None:
        self.offset = offset
        self.rate = rate

    def at(self, true: int) -> int:
        return self.offset + true * self.rate // 10_000


machines = st.builds(Machine, times, rates)


def test_a_new_lease_is_over() -> None:
    assert not Lease(T).holds(0)


def test_a_lease_counts_from_the_sending() -> None:
    lease = Lease(T)
    lease.sent(100)
    lease.stored(100)
    assert lease.holds(100 + T * 8 // 10 - 1)
    assert not lease.holds(100 + T * 8 // 10)
    assert lease.beat_at == 100 + T // 4
    assert lease.close_at == 100 + T * 8 // 10 + 2 * T


def test_an_older_try_takes_nothing_away() -> None:
    lease = Lease(T)
    lease.stored(500)
    lease.stored(100)
    assert lease.until == 500 + T * 8 // 10


def test_a_lease_that_was_given_up_is_never_renewed() -> None:
    lease = Lease(T)
    lease.stored(0)
    lease.end()
    lease.stored(10)
    assert not lease.holds(11)


def test_a_standby_that_has_heard_nothing_waits_for_an_answer() -> None:
    silence = Silence(T)
    assert silence.fence_at is None
    silence.answered(50)
    silence.answered(60)  # it answered all the time
    assert silence.fence_at == 50 + T


def test_after_no_answer_it_waits_anew() -> None:
    silence = Silence(T)
    silence.heard(0, T)
    silence.unanswered()
    assert silence.fence_at is None
    silence.answered(5 * T)
    assert silence.fence_at == 6 * T


def test_nobody_waits_after_a_bye() -> None:
    silence = Silence(T)
    silence.heard(70, T)
    silence.left()
    assert silence.fence_at == 70
    silence.heard(80, T)  # another primary
    assert silence.fence_at == 80 + T


def test_the_longer_wait_of_two_settings_holds() -> None:
    silence = Silence(T)
    silence.heard(0, 3 * T)
    assert silence.fence_at == 3 * T
    silence.heard(0, T // 2)
    assert silence.fence_at == T


@given(
    machines,
    machines,
    times,
    st.lists(st.tuples(spans, spans, spans), min_size=1, max_size=30),
)
def test_no_two_processes_tell_at_once(
    primary: Machine,
    standby: Machine,
    start: int,
    appends: list[tuple[int, int, int]],
) -> None:
    """A fence that succeeds comes after the last append it has heard.

    Each append is sent, stored and heard at true times in this order, with
    any delay between two of them.
    """
    lease, silence = Lease(T), Silence(T)
    true = heard = start
    for pause, way, delay in appends:
        true += pause
        lease.sent(primary.at(true))
        lease.stored(primary.at(true))
        heard = max(heard, true + way + delay)
        silence.heard(standby.at(heard), T)
        true += way
    due = silence.fence_at
    assert due is not None
    # The true time of the earliest fence, rounded down.
    first = (due - standby.offset) * 10_000 // standby.rate
    assert not lease.holds(primary.at(first))
