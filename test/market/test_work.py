"""Long work: in slices it does what it does at once."""

from __future__ import annotations

import copy
import pickle
import random
from dataclasses import replace
from typing import Any

import pytest

from exchange.market.command import Command, TimePassed
from exchange.market.engine import Engine
from exchange.market.state import OPERATIONS_PER_SLICE
from exchange.market.work import touches
from orderbook import MAX_INT, Exec, Place, encode
from test.market.flows import flow
from test.script import (
    SECOND,
    act,
    apply,
    in_full,
    listed,
    listing,
    parse,
    play,
    tell,
)

SMALL = 3  # operations of a slice, in most tests here


def market(slice_ops: int = SMALL, phase: str = "open") -> Engine:
    """Return an engine with two instruments and short slices."""
    engine = listed(listing("BOND", phase=phase), "ETF")
    engine.slice_ops = slice_ops
    return engine


def outcome(engine: Engine) -> dict[str, Any]:
    """Return the books and accounts, without what counts commands."""
    books = {
        symbol: (
            listing.phase,
            listing.last,
            listing.volume,
            listing.trade_id,
            [
                (order.order_id, order.leaves_qty, order.cum_cost)
                for side in ("buy", "sell")
                for order in listing.book.queue(side)
            ],
        )
        for symbol, listing in engine.listings.items()
    }
    accounts = {
        name: (
            account.cash,
            account.realized,
            {s: n for s, n in account.positions.items() if n},
            dict(account.costs),
            account.reserved,
            [*account.open_orders],
            [
                (order.order_id, order.order_status, order.cum_qty)
                for order in account.finished
            ],
        )
        for name, account in engine.accounts.items()
    }
    return {"books": books, "accounts": accounts}


def finish(engine: Engine) -> int:
    """Do all the work, check every slice, return their number."""
    slices = 0
    while engine.work:
        assert engine.next_deadline == 0
        apply(engine, TimePassed())
        engine.check()
        slices += 1
    assert not engine.busy_symbols and not engine.busy_accounts
    return slices


def words_of(engine: Engine, line: str) -> list[str]:
    """Do what a line says; return its events but those of the books."""
    told = [tell(*output) for output in act(engine, line)]
    return [line for line in told if not line.startswith("* book")]


# Whole and in slices ------------------------------------------------------


CROSSED = "\n".join(
    f"given {'ann' if number % 2 else 'bob'}"
    f" {'buy' if number % 2 else 'sell'} {1 + number % 3}@"
    f"{104 - number % 5 if number % 2 else 98 + number % 5}"
    " symbol=BOND gtd until=50s"
    for number in range(40)
)


@pytest.mark.parametrize(
    "begin",
    [
        "op admin phase open symbol=BOND",
        "op admin phase closed symbol=BOND",
        "op admin settle symbol=BOND price=7",
        "op admin reset",
        "op admin suspend user=ann",
        "ann cancel_all",
        "ann cancel_all symbol=BOND side=buy",
        "ann disconnect",
        "restart",
        "shutdown",
        "50s tick",
    ],
)
@pytest.mark.parametrize("slice_ops", [1, 2, SMALL, 7])
def test_work_in_slices_does_what_it_does_at_once(
    begin: str, slice_ops: int
) -> None:
    """Whatever was traded before, and whoever holds what."""
    found = []
    for operations in (slice_ops, MAX_INT):
        engine = market(operations, "auction")
        play("given ann connect\ngiven bob connect\n" + CROSSED, engine)
        play(
            "given ann sell 2@5 symbol=ETF\ngiven cat buy 2@5 symbol=ETF",
            engine,
        )
        if begin != "op admin phase open symbol=BOND":
            engine.slice_ops = MAX_INT
            play("given op admin phase open symbol=BOND", engine)
            play("given op admin phase auction symbol=BOND", engine)
            play(CROSSED, engine)
            engine.slice_ops = operations
        act(engine, begin)
        engine.check()
        assert (finish(engine) > 1) == (operations != MAX_INT)
        found.append(outcome(engine))
    assert found[0] == found[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_random_flow_in_slices_ends_as_one_without(seed: int) -> None:
    whole, sliced = Engine(), Engine()
    whole.slice_ops, sliced.slice_ops = MAX_INT, 1
    slices = 0
    for command in flow(random.Random(seed), 2_000):
        ts = command.ts * 1_000  # there is time for slices between
        action = command.action
        if isinstance(action, Place) and action.expire_ts is not None:
            action = replace(action, expire_ts=action.expire_ts * 1_000)
        for engine in (whole, sliced):
            due = engine.first_deadline
            while due is not None and due <= ts - 500:
                apply(engine, TimePassed(), ts=max(ts - 500, engine.ts + 1))
                slices += finish(engine)
                due = engine.first_deadline
            apply(engine, action, command.account, command.session, ts)
            slices += finish(engine)
        assert outcome(sliced) == outcome(whole), command
    assert slices > 100


STOPS = "\n".join(
    f"given cat {side} {1 + number % 2}@{price} trigger={trigger}"
    " symbol=BOND gtd until=60s"
    for number in range(12)
    for side, price, trigger in (
        ("buy", 99 + number % 4, 97 + number % 6),
        ("sell", 101 - number % 4, 103 - number % 6),
    )
)


@pytest.mark.parametrize("slice_ops", [1, 2, 5])
def test_an_uncrossing_elects_afterwards_in_slices_as_at_once(
    slice_ops: int,
) -> None:
    """Its first trades reach stop orders before the instrument is open."""
    found = []
    for operations in (slice_ops, MAX_INT):
        engine = market(MAX_INT)
        play("given dan sell 1@100 symbol=BOND", engine)
        play("given eve buy 1@100 symbol=BOND", engine)
        play("given op admin phase auction symbol=BOND", engine)
        play(STOPS, engine)
        play(CROSSED, engine)
        engine.slice_ops = operations
        act(engine, "op admin phase open symbol=BOND")
        engine.check()
        assert (finish(engine) > 1) == (operations != MAX_INT)
        triggered = [
            order_id
            for order_id, order in engine.accounts["cat"].orders.items()
            if order.order_status != "waiting"
        ]
        assert triggered
        found.append((outcome(engine), triggered))
    assert found[0] == found[1]


@pytest.mark.parametrize("slice_ops", [1, 2, 5])
def test_a_cascade_in_slices_does_what_it_does_at_once(slice_ops: int) -> None:
    found = []
    for operations in (slice_ops, MAX_INT):
        engine = market(MAX_INT)
        for price in range(101, 111):
            play(f"given ann sell 2@{price} symbol=BOND", engine)
            play(f"given bob buy 2@market trigger={price} symbol=BOND", engine)
        engine.slice_ops = operations
        play("given dan buy 1@101 symbol=BOND", engine)
        assert (finish(engine) > 1) == (operations != MAX_INT)
        assert engine.listings["BOND"].last == 110
        found.append(outcome(engine))
    assert found[0] == found[1]


def test_market_orders_that_an_auction_leaves_expire_in_slices() -> None:
    found = []
    for operations in (1, MAX_INT):
        engine = market(MAX_INT, "auction")
        for _ in range(5):
            play(
                "given ann buy 1@market auction symbol=BOND\n"
                "given bob buy 1@market auction symbol=BOND",
                engine,
            )
        play("given cat sell 3@50 symbol=BOND", engine)
        engine.slice_ops = operations
        act(engine, "op admin phase open symbol=BOND")
        finish(engine)
        assert len(engine.accounts["ann"].finished) == 5
        assert not engine.listings["BOND"].book.orders
        found.append(outcome(engine))
    assert found[0] == found[1]


def test_what_fits_into_a_slice_happens_at_once() -> None:
    engine = listed("BOND")
    for _ in range(OPERATIONS_PER_SLICE):
        act(engine, "ann buy 1@9")
    outputs = act(engine, "ann cancel_all")
    ended = [event for _, event in outputs if isinstance(event, Exec)]
    assert len(ended) == OPERATIONS_PER_SLICE
    assert not engine.work and engine.next_deadline is None


def test_version_2_of_the_rules_has_no_slices() -> None:
    engine = market(1, "auction")
    apply(engine, replace(engine.configured, engine_version=2))
    play(CROSSED, engine)
    act(engine, "op admin phase open symbol=BOND")
    assert not engine.work and engine.listings["BOND"].phase == "open"
    play(CROSSED, engine)
    act(engine, "50s tick")
    assert not engine.work and not engine.expiring


def test_the_events_of_an_uncrossing_in_slices() -> None:
    """The phase goes on to the end, and each slice has its reports."""
    play(
        """
        given ann buy 2@100 symbol=BOND
        given bob sell 1@100 symbol=BOND
        given bob sell 1@100 symbol=BOND
        op admin phase open symbol=BOND
            op ok
            ann 2 trade 1 partially_filled 1/2 1@100 auction #1
            bob 3 trade 2 filled 1/1 1@100 auction #1
            ann 3 account -100 BOND=1 worth 0
            bob 4 account 100 BOND=-1 worth 0
            * trade BOND 4 #1 1@100 sell
            * book BOND 4 100=1 | 100=1
        tick
            ann 4 trade 1 filled 2/2 1@100 auction #2
            bob 5 trade 3 filled 1/1 1@100 auction #2
            ann 5 account -200 BOND=2 worth 0
            bob 6 account 200 BOND=-2 worth 0
            * trade BOND 5 #2 1@100 sell
            * book BOND 5 100=0 | 100=0
        tick
            * status BOND open why
        """,
        market(2, "auction"),
    )


def test_a_reply_precedes_the_work_and_counts_it() -> None:
    play(
        """
        given ann buy 1@9 symbol=BOND
        given ann buy 1@9 symbol=BOND
        given ann buy 1@9 symbol=BOND
        ann cancel_all
            ann ok 3
            ann 4 canceled 1 canceled 0/1 user
            ann 5 canceled 2 canceled 0/1 user
            * book BOND 4 9=1 |
        tick
            ann 6 canceled 3 canceled 0/1 user
            * book BOND 5 9=0 |
        """,
        market(2),
    )


# What is busy -------------------------------------------------------------


def test_what_touches_the_instrument_is_busy_until_the_end() -> None:
    engine = market()
    for _ in range(2 * SMALL):
        act(engine, "ann buy 1@9 symbol=BOND")
    act(engine, "ann sell 1@90 symbol=ETF")
    act(engine, "ann cancel_all symbol=BOND")
    order_id, *_ = engine.listings["BOND"].book.orders
    etf_id = order_id + SMALL

    def is_touching(line: str, account: str = "bob") -> bool:
        return touches(engine, account, "a", parse(line.split()))

    assert engine.work
    busy = [
        "buy 1@9 symbol=BOND",
        "cancel_all symbol=BOND",
        "cancel_all",
        "admin phase halted symbol=BOND",
        "admin phase halted",
        "admin suspend user=ann",
        "admin reset",
        "admin settle symbol=BOND price=1",
    ]
    idle = [
        "buy 1@9 symbol=ETF",
        "cancel_all symbol=ETF",
        f"cancel {order_id}",  # not an order of bob
        "cancel_after 5000",
        "connect",
        "disconnect",
        "admin phase halted symbol=ETF",
        "admin message message=hi",
        "admin resume user=ann",
    ]
    assert [is_touching(line) for line in busy] == [True] * len(busy)
    assert [is_touching(line) for line in idle] == [False] * len(idle)
    assert is_touching(f"cancel {order_id}", "ann")
    assert is_touching(f"amend {order_id} qty=2", "ann")
    assert is_touching("disconnect", "ann")
    assert not is_touching(f"cancel {etf_id}", "ann")
    assert not touches(engine, "", "", TimePassed())
    assert touches(engine, "", "", engine.configured)
    play(
        f"ann cancel {etf_id}\n  ann 11 canceled {etf_id} canceled 0/1 user\n"
        "  * book ETF 2 | 90=0",
        engine,
    )
    finish(engine)


def test_an_engine_refuses_to_break_the_promise() -> None:
    """A command that touches what is busy is a bug of its sender."""
    engine = market()
    for _ in range(2 * SMALL):
        act(engine, "ann buy 1@9 symbol=BOND")
    act(engine, "ann cancel_all")
    with pytest.raises(AssertionError):
        act(engine, "bob sell 1@9 symbol=BOND")


def test_the_holders_of_a_settled_instrument_are_busy() -> None:
    engine = market(MAX_INT)
    for name in ("bob", "cat", "dan", "eve"):
        play("given ann sell 1@9 symbol=BOND", engine)
        play(f"given {name} buy 1@9 symbol=BOND", engine)
    engine.slice_ops = SMALL
    play(
        """
        op admin settle symbol=BOND price=10
            op ok
            ann 13 settlement BOND -4@10 made -4
            ann 13 account -4 BOND=0 worth -4 made -4
            bob 4 settlement BOND 1@10 made 1
            bob 4 account 1 BOND=0 worth 1 made 1
            cat 4 settlement BOND 1@10 made 1
            cat 4 account 1 BOND=0 worth 1 made 1
        """,
        engine,
    )
    place = Place(symbol="ETF", side="buy", qty=1, price=1)
    assert touches(engine, "dan", "a", place)
    assert not touches(engine, "fay", "a", place)
    settle = parse("admin settle symbol=ETF price=1".split())
    assert touches(engine, "op", "a", settle)
    finish(engine)
    assert engine.listings["BOND"].phase == "closed"
    assert sum(account.cash for account in engine.accounts.values()) == 0


# Deadlines meanwhile ------------------------------------------------------


def test_deadlines_of_idle_instruments_fire_between_the_slices() -> None:
    engine = market(SMALL, "auction")
    play(CROSSED, engine)
    play("given cat buy 1@5 symbol=ETF gtd until=20s", engine)
    act(engine, "10s op admin phase open symbol=BOND")
    assert engine.work and engine.first_deadline == 20 * SECOND
    play(
        """
        20s tick
            cat 2 expired 41 expired 0/1 gtd
            * book ETF 2 5=0 |
        """,
        engine,
    )
    assert engine.work, "it did not go on in the same command"
    finish(engine)


def test_deadlines_of_a_busy_instrument_wait_for_its_work() -> None:
    """In the order in which they were due; what is outdated is dropped."""
    engine = market(SMALL, "auction")
    play(CROSSED, engine)
    play(
        """
        given cat buy 1@5 symbol=BOND gtd until=20s
        given cat buy 1@5 symbol=ETF
        given 18s op admin phase auction symbol=BOND reopen_ms=2000
        given 19s cat cancel_after 1000
        given op admin phase open symbol=BOND
        20s tick
            cat 3 canceled 42 canceled 0/1 cancel_after
            * book ETF 2 5=0 |
        """,
        engine,
    )
    assert [*engine.accounts["cat"].open_orders] == [41], "hers in BOND waits"
    assert engine.next_deadline == 0
    events: list[str] = []
    while engine.work:
        events += words_of(engine, "tick")
    cat = [line for line in events if line.startswith(("cat", "* status"))]
    assert cat == [
        "cat 4 canceled 41 canceled 0/1 cancel_after",
        "* status BOND open why",
    ]
    engine.check()


@pytest.mark.parametrize("looks", [False, True])
def test_who_looks_at_the_deadlines_changes_no_slice(looks: bool) -> None:
    """A process that serves looks at them often, one that recovers does not.

    Only one of them still has the outdated deadline of bob in its heap, and
    it is between those of the orders.
    """
    engine = market(2)
    for line in (
        "bob cancel_after 11000",
        "bob cancel_after 0",
        *("ann buy 1@5 symbol=BOND gtd until=10s",) * 3,
        *("ann buy 1@5 symbol=BOND gtd until=12s",) * 2,
    ):
        act(engine, line)
        if looks:
            assert engine.first_deadline != 11 * SECOND + 1
    told = [words_of(engine, "13s tick"), words_of(engine, "tick")]
    told.append(words_of(engine, "tick"))
    assert [[line.split()[3] for line in some] for some in told] == [
        ["1", "2"],
        ["3", "4"],
        ["5"],
    ]


def test_a_deadline_that_is_noted_twice_is_one() -> None:
    """Two requests may set the same end, to the microsecond."""
    slices = []
    for is_doubled in (False, True):
        engine = market(SMALL, "auction")
        play(CROSSED, engine)
        phase = "op admin phase auction symbol=BOND"
        act(engine, f"10s {phase} reopen_ms=20000")
        if is_doubled:
            act(engine, f"20s {phase} reopen_ms=10000")
        act(engine, "30s tick")
        slices.append(finish(engine))
        assert engine.listings["BOND"].phase == "open"
    assert slices[0] == slices[1] > 1


def test_expiries_of_two_instruments_keep_their_order() -> None:
    engine = market(2)
    play(
        """
        given ann buy 1@5 symbol=BOND gtd until=10s
        given ann buy 1@5 symbol=ETF gtd until=10s
        given ann buy 1@5 symbol=BOND gtd until=11s
        given ann buy 1@5 symbol=ETF gtd until=9s
        given ann cancel 3
        12s tick
            ann 6 expired 4 expired 0/1 gtd
            ann 7 expired 1 expired 0/1 gtd
            * book ETF 3 5=1 |
            * book BOND 4 5=0 |
        tick
            ann 8 expired 2 expired 0/1 gtd
            * book ETF 4 5=0 |
        """,
        engine,
    )


# Data ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "begin",
    [
        "op admin phase open symbol=BOND",
        "op admin settle symbol=BOND price=7",
        "op admin reset",
        "50s tick",
    ],
)
def test_a_copy_goes_on_with_the_work_by_itself(begin: str) -> None:
    """A copy, and one that went through bytes, cause the same events."""
    engine = market(SMALL, "auction")
    play(CROSSED, engine)
    act(engine, begin)
    copies = [copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))]
    before = outcome(engine)
    ends = []
    for one in (engine, *copies):
        if one is not engine:
            assert outcome(one) == before, "it shares nothing"
        told = []
        while one.work:
            command = Command(one.seq + 1, one.ts + 1, "", "", TimePassed())
            told += [
                (to, encode(event)) for to, event in in_full(one, command)
            ]
        ends.append((told, outcome(one)))
    assert ends[0] == ends[1] == ends[2]
