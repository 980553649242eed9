"""A state that was loaded from its dump goes on as the one it was."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.journal.candles import Candles
from exchange.journal.history import (
    JOINED,
    PRIVATE_EVENTS,
    RESUME_EVENTS,
    AccountHistory,
    History,
)
from exchange.journal.replica import Replica
from exchange.journal.snapshots import history as history_lines
from exchange.journal.snapshots import market as market_lines
from exchange.journal.snapshots.file import FORMAT, TEXTS
from exchange.journal.snapshots.market import is_at_rest
from exchange.market.accounts import Account, Session, Tags
from exchange.market.command import Configure
from exchange.market.engine import Engine
from exchange.market.listing import Listing
from exchange.market.offer import Offer
from exchange.market.prints import Moment, Prints
from exchange.market.state import State
from exchange.market.stops import Stops
from orderbook import (
    Exec,
    Instrument,
    MatchInfo,
    Order,
    OrderBook,
    OrderFees,
    Settlement,
    Tender,
    encode,
)
from test.journal.files import read
from test.journal.golden import DAYS
from test.journal.states import (
    apply,
    at_rest,
    busy_day,
    copied,
    digest_of,
    lines,
    new,
    tables,
)

# The same commands go on the same way ---------------------------------------


def follow(seed: int, steps: int, slice_ops: int, every: int) -> Replica:
    """Let copies of a state, one every ``every`` commands, follow it."""
    commands = busy_day(seed, steps, slice_ops)
    replica, copies = new(slice_ops), list[Replica]()
    for command in commands:
        told = apply(replica, command)
        for copy in copies:
            assert apply(copy, command) == told, command
        if command.seq % every == 0 and is_at_rest(replica.engine):
            found = lines(replica)
            copy = copied(replica)
            copy.engine.check()
            for other in (copy, *copies):
                assert lines(other) == found
            copies = [*copies[-2:], copy]
    assert copies
    for copy in copies:
        assert [*tables(copy)] == [*tables(replica)]
        assert copy.checksum.value == replica.checksum.value
    return replica


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([2, 3, 7, 50, 0]))
def test_a_copy_goes_on_as_the_state_did(seed: int, slice_ops: int) -> None:
    follow(seed, 250, slice_ops, every=19)


@pytest.mark.parametrize("slice_ops", [2, 0])
def test_a_copy_goes_on_for_a_long_day(slice_ops: int) -> None:
    follow(random.getrandbits(32), 2_500, slice_ops, every=301)


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
def test_a_golden_day_goes_on_from_any_command(day: Any) -> None:
    commands = read(day)
    replica, copies = new(), list[Replica]()
    for command in commands:
        told = apply(replica, command)
        assert all(apply(copy, command) == told for copy in copies)
        if command.seq % 211 == 0 and is_at_rest(replica.engine):
            copies.append(copied(replica))
    assert len(copies) > 3
    assert {tuple(lines(copy)) for copy in copies} == {tuple(lines(replica))}


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
def test_the_state_of_a_golden_day_is_dumped_as_ever(day: Any) -> None:
    """If this fails, the same commands make other lines than before.

    If that is intended, raise FORMAT in `exchange.journal.snapshots.file`, or
    TEXTS if only a sentence for people changed, and write the line again.
    """
    recorded = day.with_suffix(".snapshot").read_text().split()
    state = digest_of(at_rest(read(day)))
    assert recorded == [f"{FORMAT}.{TEXTS}", state]


# What is in a dump depends on the commands only ------------------------------


def test_who_looked_or_was_online_makes_no_difference() -> None:
    """Texts are cut elsewhere, deadlines dropped, tables made by asking."""
    commands = busy_day(5, 1_500, 0)
    quiet, watched = new(), new()
    online = ("ann", "bob")
    for command in commands:
        apply(quiet, command)
        outputs = watched.engine.apply(command)
        assert watched.engine.next_deadline != 1
        texts: dict[str, list[str]] = {name: [] for name in online}
        for to, event in outputs:
            if to not in online or not isinstance(event, PRIVATE_EVENTS):
                watched.history.record([(to, event)])
                continue
            text = encode(event)
            texts[to].append(text)
            if isinstance(event, Exec) and event.exec_type == "trade":
                watched.history.record_fill(to, event, text)
            elif isinstance(event, Settlement):
                watched.history.record_settlement(to, event, text)
        for name, some in texts.items():
            if some:
                watched.history.account(name).add_texts(some)
        for symbol in ("BOND", "NONE"):
            watched.history.trades(symbol, None, 1)
            watched.history.candles(symbol, "1m", None, 1)
            watched.history.fills(f"{symbol}.", None, None, 1)
    watched.engine.take_book_updates()
    watched.checksum.value = quiet.checksum.value
    assert is_at_rest(quiet.engine)
    assert lines(watched) == lines(quiet)


def test_what_can_be_resumed_is_the_same_at_any_length() -> None:
    history = AccountHistory()
    for count in range(1, RESUME_EVENTS + 3 * JOINED):
        history.add_texts([f'{{"n":{count}}}'])
        events, _ = history.resumable()
        assert len(events) == min(count, RESUME_EVENTS)
        assert events[-1] == f'{{"n":{count}}}'


# Nothing is forgotten -------------------------------------------------------

# What follows from the rest, of classes that `LEFT_OUT` does not have.
DERIVED: dict[type, set[str]] = {
    Order: {"account"},  # its line follows that of the account
    Stops: {"reached", "buy_at", "sell_at", "_buys", "_sells", "_keys"},
    OrderBook: {"symbol", "_bids", "_asks"},
    History: {"_accounts"},
    AccountHistory: {"_recent", "_past", "_count"},
    Engine: {"_handlers"},
    Candles: set(),
}
CLASSES: tuple[type, ...] = (
    *(State, Account, Session, Tags, Listing, Order, OrderFees, Offer),
    *(Prints, Moment, Stops, OrderBook, History, AccountHistory, Candles),
)
# What a dump raises of values of another kind.
REFUSALS = (
    *(AssertionError, AttributeError, KeyError, TypeError),
    UserWarning,
)
LEFT_OUT = market_lines.LEFT_OUT | history_lines.LEFT_OUT


def parts(thing: Any, seen: set[int]) -> Iterator[Any]:
    """Yield all objects of ``CLASSES`` that a thing consists of."""
    if isinstance(thing, (str, int, float, type(None))) or id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, CLASSES):
        yield thing
    for inner in inside(thing):
        yield from parts(inner, seen)


def inside(thing: Any) -> list[Any]:
    if isinstance(thing, dict):
        return [*thing.values()]
    if isinstance(thing, (list, tuple, deque)):
        return [*thing]
    return [
        getattr(thing, name)
        for name in names_of(thing)
        if hasattr(thing, name)
    ]


def names_of(thing: Any) -> list[str]:
    """Return the attributes of an object, or those that it may have."""
    if is_dataclass(thing):
        return [field.name for field in fields(thing)]
    if hasattr(thing, "__slots__"):
        return [*thing.__slots__]
    return [*getattr(thing, "__dict__", ())]


def changed(value: Any) -> Any:
    """Return another value of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value + "x"
        case None:
            return 7
        case dict() if value:
            return dict([*value.items()][:-1])
        case dict():
            return {"x": 7}
        case deque() | list() if value:
            return type(value)([*value][:-1])
        case tuple() if value:
            return (value[0] + 1, *value[1:])
        case Instrument() | Tender() | Configure() | MatchInfo():
            name = fields(value)[-1].name
            return replace(value, **{name: changed(getattr(value, name))})
    return None  # its own attributes are changed


def busy_states() -> list[Replica]:
    """Return states that together have every kind of part."""
    found = []
    for seed, slice_ops in ((1, 0), (2, 7), (8, 0)):
        commands = busy_day(seed, 900, slice_ops)
        replica = new(slice_ops)
        for command in commands:
            apply(replica, command)
            if command.seq % 90 == 0 and is_at_rest(replica.engine):
                found.append(copied(replica))
    return found


@pytest.fixture(scope="module")
def states() -> list[Replica]:
    return busy_states()


def kept(kind: type) -> list[str]:
    """Return the attributes that a dump must have."""
    thing = Engine() if kind is State else None
    if kind in (History, Candles):
        thing = kind()
    names = names_of(thing if thing is not None else kind)
    left_out = {*LEFT_OUT.get(kind, ()), *DERIVED.get(kind, ())}
    if kind is State:
        left_out |= DERIVED[Engine]
    assert left_out <= {*names}, "no name of a field that is gone"
    return [
        name
        for name in names
        if name not in left_out
        and (kind, name) not in ((Listing, "book"), (Listing, "stops"))
        and (kind, name) != (Account, "tags")
    ]


@pytest.mark.parametrize(
    "kind, name",
    [(kind, name) for kind in CLASSES for name in kept(kind)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_attribute_is_dumped(
    states: list[Replica], kind: type, name: str
) -> None:
    """A new one must be kept, or stand in ``LEFT_OUT`` with its reason.

    Its value is changed in some state: then the dump must be another one, or
    be refused.
    """
    tried = 0
    for replica in states:
        before = None
        roots = (replica.engine, replica.history)
        for part in parts(roots, set()):
            if not isinstance(part, kind) or not hasattr(part, name):
                continue
            value = getattr(part, name)
            other = changed(value)
            if other is None:
                continue
            before = before or lines(replica)
            setattr(part, name, other)
            try:
                is_noticed = lines(replica) != before
            except REFUSALS:
                is_noticed = True
            finally:
                setattr(part, name, value)
            tried += 1
            if is_noticed:
                return
            if tried > 40:
                break
    assert False, f"not in the dump, of {tried} changed"


def test_every_kind_of_state_is_in_the_days(states: list[Replica]) -> None:
    """So that the tests above are about something."""
    found: set[str] = set()
    for replica in states:
        engine = replica.engine
        roots = (vars(engine), replica.history)
        for part in parts(roots, set()):
            match part:
                case Order() if part.is_open:
                    waits = "stop_" if part.is_waiting else ""
                    found.add(waits + part.order_type)
                    found.add(part.time_in_force)
                    found |= {"fees"} if part.fees else set()
                    found |= {"iceberg"} if part.display_qty else set()
                    found |= {"behind"} if hasattr(part, "requeued") else set()
                case Listing():
                    found.add(part.phase)
                    found |= {
                        name
                        for name in (
                            *("reopen_ts", "close_ts", "close_left_us"),
                            *("expire_ts", "settlement_price", "frozen_mark"),
                            *("busted", "moved_reference", "prints"),
                        )
                        if getattr(part, name)
                    }
                case Account():
                    found.add(part.role)
                    found |= {
                        name
                        for name in (
                            *("is_suspended", "is_closed_out", "sessions"),
                            *("cancel_after_ts", "conversions", "positions"),
                            "admin_requests",
                        )
                        if getattr(part, name)
                    }
                    found |= {"tags"} if part.tags.newest else set()
                case Offer():
                    found.add("tender" if part.ends_ts else "ended tender")
        if engine.round > 1:
            found.add("a later round")
        found |= {"news"} if replica.history.news(None, None, 9) else set()
        found |= {"match"} if engine.match else set()
    wanted = """
        limit market stop_market stop_limit gtc gtd auction fees iceberg behind
        open closed halted pre_open
        reopen_ts close_ts close_left_us expire_ts settlement_price
        frozen_mark busted moved_reference prints
        trader admin is_suspended is_closed_out sessions cancel_after_ts
        conversions positions admin_requests tags tender
        news match
    """
    missing = {*wanted.split(), "a later round"} - found
    assert not missing
