"""The token bucket, against a model in exact fractions."""

from __future__ import annotations

import copy
from fractions import Fraction
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from exchange.gateway.rates import CANCELS_RATE, Bucket, Rate
from test.gateway.test_rate import MS
from test.support import NOON, SECOND

rates = st.builds(Rate, st.integers(1, 5_000), st.integers(1, 50)) | st.builds(
    Rate, st.integers(1, 20), st.integers(1, 3)
)
waits = st.integers(0, 2 * SECOND) | st.integers(0, 500) | st.just(0)


class Model:
    """A bucket in exact fractions of a request."""

    def __init__(self, rate: Rate, now: int) -> None:
        self.rate = rate
        self.level = Fraction(rate.burst)
        self.ts = now

    def take(self, now: int) -> int:
        gained = Fraction((now - self.ts) * self.rate.per_s, SECOND)
        self.level = min(Fraction(self.rate.burst), self.level + gained)
        self.ts = now
        if self.level >= 1:
            self.level -= 1
            return 0
        return ceil((1 - self.level) / self.rate.per_s * 1_000)


@given(rates, st.integers(0, NOON), st.lists(waits, max_size=60))
def test_a_bucket_is_exact(rate: Rate, now: int, steps: list[int]) -> None:
    bucket, model = Bucket(rate, now), Model(rate, now)
    for step in steps:
        now += step
        assert bucket.take(now) == model.take(now)


@given(rates, st.lists(waits, max_size=60))
def test_retry_after_ms_suffices_and_one_less_does_not(
    rate: Rate, steps: list[int]
) -> None:
    now = NOON
    bucket = Bucket(rate, now)
    for step in [*steps, *[0] * (rate.burst + 1)]:
        now += step
        if wait_ms := bucket.take(now):
            early = copy.copy(bucket)
            assert early.take(now + (wait_ms - 1) * MS)
            now += wait_ms * MS
            assert bucket.take(now) == 0


@given(rates, st.lists(waits, min_size=1, max_size=60))
def test_never_more_than_the_burst_and_the_rate(
    rate: Rate, steps: list[int]
) -> None:
    now = NOON
    bucket, taken = Bucket(rate, now), []
    for step in steps:
        now += step
        if not bucket.take(now):
            taken.append(now)
    for i, start in enumerate(taken):
        for j, end in enumerate(taken[i:], start=1):
            seconds = Fraction(end - start, SECOND)
            assert j <= rate.burst + rate.per_s * seconds


def test_a_bucket_begins_full_and_gets_no_fuller() -> None:
    for pause in (0, 1_000 * SECOND):
        bucket = Bucket(Rate(10, 3), NOON)
        answers = [bucket.take(NOON + pause) for _ in range(5)]
        assert answers == [0, 0, 0, 100, 100]


def test_a_wait_is_rounded_up_once() -> None:
    for gone_us, wait_ms in ((0, 334), (333, 334), (334, 333), (1_333, 333)):
        bucket = Bucket(Rate(3, 1), NOON)  # one in 333,333 and a third us
        bucket.take(NOON)
        assert bucket.take(NOON + gone_us) == wait_ms


def test_a_refusal_draws_nothing() -> None:
    bucket = Bucket(Rate(10, 1), NOON)
    assert bucket.take(NOON) == 0
    for ms in range(100):
        assert bucket.take(NOON + ms * MS) == 100 - ms
    assert bucket.take(NOON + 100 * MS) == 0


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = Bucket(Rate(10, 1), NOON)
    bucket.take(NOON)
    assert bucket.take(NOON - 3_600 * SECOND) == 100
    # It refills from the new time; it does not wait for the old one.
    assert bucket.take(NOON - 3_600 * SECOND + 100 * MS) == 0


def test_a_much_larger_rate() -> None:
    assert Rate(10, 30).times(5) == Rate(50, 150)
    assert CANCELS_RATE == 5, "as the protocol says"
