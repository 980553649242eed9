"""The book against its naive twin, ``util.measure.twin``."""

from __future__ import annotations

import copy
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orderbook import Order, OrderBook
from util.measure import twin

# Few accounts, few prices and small orders, so that orders often match.
PRICES = st.integers(-2, 2)
ORDER_IDS = st.integers(1, 12)
SHOWN = st.none() | st.integers(1, 3)

BANDS = st.none() | st.tuples(PRICES, st.integers(0, 3)).map(
    lambda band: (band[0], band[0] + band[1])
)


@st.composite
def placed(draw: st.DrawFn) -> twin.Step:
    order_type, time_in_force = draw(st.sampled_from(twin.KINDS))
    may_rest = time_in_force in ("gtc", "gtd")
    is_market = order_type == "market"
    return "place", {
        "account": draw(st.sampled_from("abc")),
        "side": draw(st.sampled_from(twin.SIDES)),
        "qty": draw(st.integers(1, 6)),
        "price": None if is_market else draw(PRICES),
        "limit": draw(st.none() | PRICES) if is_market else None,
        "display": draw(SHOWN) if may_rest else None,
        "order_type": order_type,
        "time_in_force": time_in_force,
        "post_only": may_rest and draw(st.booleans()),
        "stp": draw(st.sampled_from(twin.STP)),
        "band": draw(BANDS),
    }


AMENDED = st.fixed_dictionaries(
    {
        "order_id": ORDER_IDS,
        "price": st.none() | PRICES,
        "qty": st.none() | st.integers(1, 9),
        "display": SHOWN,
        "band": BANDS,
    }
)
CANCELED = st.fixed_dictionaries(
    {"order_id": ORDER_IDS, "status": st.sampled_from(["canceled", "expired"])}
)
STEPS = st.one_of(
    placed(),
    placed(),
    placed(),
    st.tuples(st.just("amend"), AMENDED),
    st.tuples(st.just("cancel"), CANCELED),
    st.just(("take_changes", {})),
    st.just(("collect", {})),
    st.tuples(
        st.just("uncross"),
        st.fixed_dictionaries({"reference": st.none() | PRICES}),
    ),
)


@settings(max_examples=500)
@given(st.lists(STEPS, max_size=30), st.booleans())
def test_the_book_does_what_its_twin_does(
    steps: list[twin.Step], look_after_each: bool
) -> None:
    twins = twin.Twins()
    for step in steps:
        twins.run(step)
        if look_after_each:
            twins.take_changes()
    twins.take_changes()
    assert copy.deepcopy(twins.book) == twins.book


def test_a_long_random_flow_against_the_twin() -> None:
    """``python -m util.measure.twin STEPS SEED`` repeats it, or goes on."""
    seed = random.getrandbits(32)
    print(f"seed {seed}")
    twin.long_run(50_000, seed)


class ForgetfulBook(OrderBook):
    """It cancels, but does not mark the order as canceled."""

    def cancel(self, order_id: int, order_status: str = "canceled") -> Order:
        order = self.orders.pop(order_id)
        self._side(order.side).remove(order)
        return order


def test_a_failed_long_run_says_how_to_repeat_it() -> None:
    with pytest.raises(AssertionError, match="seed 7, after") as first:
        twin.long_run(500, 7, ForgetfulBook)
    with pytest.raises(AssertionError) as again:
        twin.long_run(500, 7, ForgetfulBook)
    assert str(first.value) == str(again.value)
