"""Every command survives its way to a record and back."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.journal.records import decode_records, encode_record
from exchange.market.accounts import AccountLimits
from exchange.market.command import (
    Action,
    BustTrade,
    ClockStep,
    Command,
    Configure,
    Connect,
    Disconnect,
    Money,
    Restart,
    Shutdown,
    TaggedPlace,
    TimePassed,
)
from orderbook import (
    ADMIN_ARGUMENTS,
    MAX_INT,
    PHASES,
    AcceptTender,
    Admin,
    AdminAction,
    Amend,
    Cancel,
    CancelAfter,
    CancelAll,
    Conversion,
    Convert,
    Instrument,
    Kind,
    MatchInfo,
    Place,
)
from test.journal.files import COMMANDS


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def name(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True)


INTEGER = st.integers(-MAX_INT, MAX_INT)
SIDE = st.sampled_from(["buy", "sell"])
SYMBOL = name("[A-Z0-9_.-]{1,16}")
CLIENT_ORDER_ID = name("[A-Za-z0-9_.:-]{1,36}")
QTY = st.integers(1, MAX_INT)
USER = name("[A-Za-z0-9_.-]{1,32}")
PHASE = st.sampled_from([*PHASES])
LINE = st.characters(exclude_categories=("Cc", "Cs"))
WORDS = st.text(LINE, min_size=1, max_size=200)
ID = {"id": maybe(INTEGER | st.text(max_size=36))}
ONE_ORDER = st.one_of(
    st.fixed_dictionaries({"order_id": st.integers(0, MAX_INT)}),
    st.fixed_dictionaries({"client_order_id": CLIENT_ORDER_ID}),
)
TS = st.integers(0, MAX_INT)
CHANGES = st.one_of(
    st.fixed_dictionaries(
        {"price": INTEGER},
        optional={
            "qty": QTY,
            "expire_ts": TS,
            "trigger_price": INTEGER,
            "display_qty": QTY,
        },
    ),
    st.fixed_dictionaries({"qty": QTY}),
    st.fixed_dictionaries({"trigger_price": INTEGER}),
)
KINDS = st.one_of(
    st.fixed_dictionaries(
        {
            "order_type": st.just("market"),
            "time_in_force": st.sampled_from([None, "ioc", "fok", "auction"]),
        }
    ),
    st.fixed_dictionaries(
        {
            "order_type": st.just("stop"),
            "trigger_price": INTEGER,
            "time_in_force": st.sampled_from([None, "gtc"]),
        }
    ),
    st.fixed_dictionaries(
        {
            "order_type": st.just("stop_limit"),
            "trigger_price": INTEGER,
            "price": INTEGER,
            "time_in_force": st.just("gtd"),
            "expire_ts": TS,
            "display_qty": maybe(QTY),
        }
    ),
    st.fixed_dictionaries(
        {
            "price": INTEGER,
            "time_in_force": st.sampled_from([None, "gtc", "ioc", "fok"]),
        }
    ),
    st.fixed_dictionaries(
        {
            "price": INTEGER,
            "time_in_force": st.just("gtd"),
            "expire_ts": st.integers(0, MAX_INT),
            "post_only": st.booleans(),
        }
    ),
    st.fixed_dictionaries(
        {
            "price": INTEGER,
            "post_only": st.just(True),
            "display_qty": maybe(QTY),
        }
    ),
)
PLACE = st.fixed_dictionaries(
    {
        **ID,
        "symbol": maybe(SYMBOL),
        "side": SIDE,
        "qty": QTY,
        "stp": st.sampled_from(
            ["cancel_oldest", "cancel_newest", "cancel_both", "none"]
        ),
        "client_order_id": maybe(CLIENT_ORDER_ID),
    }
)
DECIMAL = name(r"[0-9]{1,12}(\.[0-9]{1,12})?")
INSTRUMENT = st.builds(
    Instrument,
    symbol=SYMBOL,
    tick_size=DECIMAL,
    min_price=INTEGER,
    max_price=INTEGER,
    max_qty=QTY,
    phase=PHASE,
    max_position=INTEGER,
    short_selling=st.booleans(),
    maker_fee=INTEGER,
    taker_fee=INTEGER,
    reference_price=INTEGER,
    collar=INTEGER,
    band=INTEGER,
    auction_ms=INTEGER,
    kind=st.sampled_from(get_args(Kind)),
    underlying=maybe(SYMBOL),
    strike=maybe(INTEGER),
    expires=maybe(st.just("round") | INTEGER),
    pays=maybe(INTEGER),
    question=maybe(WORDS),
    group=maybe(WORDS),
    convert=maybe(
        st.builds(
            Conversion,
            lot=INTEGER,
            fee=INTEGER,
            basket=st.dictionaries(SYMBOL, INTEGER, max_size=3),
            per=INTEGER,
        )
    ),
    tick_value=INTEGER,
    multiplier=INTEGER,
    lot_size=DECIMAL,
    maker_fee_bp=INTEGER,
    taker_fee_bp=INTEGER,
    self_trades=st.booleans(),
)
LIMITS = st.builds(
    AccountLimits,
    cash=INTEGER,
    min_cash=maybe(INTEGER),
    open_orders=INTEGER,
    max_position=st.dictionaries(SYMBOL, INTEGER, max_size=3),
)
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    "symbol": SYMBOL,
    "phase": PHASE,
    "user": USER,
    "order_id": st.integers(0, MAX_INT),
    "cash": INTEGER,
    "qty": INTEGER,
    "price": INTEGER,
    "message": WORDS,
    "headline": WORDS,
    "body": st.text(LINE | st.just("\n"), min_size=1, max_size=2_000),
    "value": INTEGER,
    "amount": INTEGER,
    "prices": st.dictionaries(SYMBOL, INTEGER, min_size=1, max_size=3),
    "tender_id": CLIENT_ORDER_ID,
    "side": SIDE,
    "valid_ms": st.integers(1_000, 86_400_000),
    "trade_id": st.integers(0, MAX_INT),
    "name": WORDS,
    "round": WORDS,
    "teams": st.lists(USER, min_size=1, max_size=3, unique=True).map(tuple),
    "fair_sha256": name("[0-9a-f]{64}"),
}


@st.composite
def admins(draw: st.DrawFn) -> Admin:
    """Return a request of an administrator."""
    action = draw(st.sampled_from(get_args(AdminAction)))
    needed, allowed = ADMIN_ARGUMENTS[action]
    chosen = sorted(needed | {a for a in allowed if draw(st.booleans())})
    if action == "adjust":
        what = [["cash"], ["symbol", "qty"], ["cash", "symbol", "qty"]]
        chosen = ["user", *draw(st.sampled_from(what))]
    if action == "settle":
        what = [["symbol"], ["symbol", "price"], ["prices"]]
        chosen = draw(st.sampled_from(what))
    given = {a: draw(ARGUMENTS[a]) for a in chosen if a in ARGUMENTS}
    if "reopen_ms" in chosen and given["phase"] not in ("open", "closed"):
        given["reopen_ms"] = draw(st.integers(1_000, 86_400_000))
    if "close_ms" in chosen and given["phase"] == "open":
        given["close_ms"] = draw(st.integers(1_000, 86_400_000))
    if action == "tender":
        given["qty"] = draw(QTY)
    given["client_request_id"] = draw(maybe(CLIENT_ORDER_ID))
    given |= {field: draw(its) for field, its in ID.items()}
    return Admin(action=action, reason=draw(WORDS), **given)


ACTIONS: dict[type, st.SearchStrategy[Any]] = {
    Place: st.builds(lambda a, b: Place(**a, **b), PLACE, KINDS),
    TaggedPlace: st.builds(
        lambda a, b, tag: TaggedPlace(**a, **b, tag=tag),
        PLACE,
        KINDS,
        name("[A-Za-z0-9_.:/-]{1,36}"),
    ),
    Amend: st.builds(
        lambda a, b, c: Amend(**a, **b, **c),
        st.fixed_dictionaries(ID),
        ONE_ORDER,
        CHANGES,
    ),
    Cancel: st.builds(
        lambda a, b: Cancel(**a, **b), st.fixed_dictionaries(ID), ONE_ORDER
    ),
    CancelAll: st.builds(
        CancelAll, **ID, symbol=maybe(SYMBOL), side=maybe(SIDE)
    ),
    CancelAfter: st.builds(
        CancelAfter,
        **ID,
        timeout_ms=st.just(0) | st.integers(1_000, 86_400_000),
    ),
    Convert: st.builds(
        Convert,
        **ID,
        symbol=SYMBOL,
        side=SIDE,
        qty=QTY,
        client_order_id=maybe(CLIENT_ORDER_ID),
    ),
    AcceptTender: st.builds(AcceptTender, **ID, tender_id=CLIENT_ORDER_ID),
    Admin: admins(),
    BustTrade: st.builds(
        BustTrade,
        reason=WORDS,
        client_request_id=maybe(CLIENT_ORDER_ID),
        symbol=SYMBOL,
        trade_id=st.integers(0, MAX_INT),
        price=INTEGER,
        qty=QTY,
        buyer=USER,
        buy_order_id=st.integers(1, MAX_INT),
        buy_fee=INTEGER,
        seller=USER,
        sell_order_id=st.integers(1, MAX_INT),
        sell_fee=INTEGER,
    ),
    Connect: st.builds(
        Connect,
        st.booleans(),
        is_admin=st.booleans(),
        role=st.sampled_from([None, "house", "spectator"]),
    ),
    Disconnect: st.just(Disconnect()),
    TimePassed: st.just(TimePassed()),
    Configure: st.builds(
        Configure,
        instruments=st.lists(INSTRUMENT, max_size=3).map(tuple),
        limits=LIMITS,
        accounts=st.dictionaries(USER, LIMITS, max_size=3),
        money=maybe(st.builds(Money, unit=DECIMAL, currency=WORDS)),
        engine_version=st.integers(1, MAX_INT),
        match=maybe(
            st.builds(
                MatchInfo,
                name=WORDS,
                round=maybe(WORDS),
                teams=st.lists(USER, max_size=3).map(tuple),
                fair_sha256=maybe(name("[0-9a-f]{64}")),
            )
        ),
    ),
    Shutdown: st.just(Shutdown()),
    Restart: st.just(Restart()),
    ClockStep: st.builds(ClockStep, forward_us=st.integers(1, MAX_INT)),
}


def test_the_strategies_leave_no_action_out() -> None:
    assert set(ACTIONS) == set(get_args(Action))


@pytest.mark.parametrize("kind", ACTIONS, ids=lambda kind: kind.__name__)
def test_every_command_survives(kind: type) -> None:
    commands = st.builds(
        Command,
        seq=st.integers(1, MAX_INT),
        ts=st.integers(1, MAX_INT),
        account=st.just("") | USER,
        session=st.just("") | name("[0-9a-f]{32}"),
        action=ACTIONS[kind],
    )

    @given(commands)
    def survives(command: Command) -> None:
        records = f"[{encode_record(command)}]".encode()
        (decoded,) = decode_records(command.seq, records)
        assert decoded == command
        assert type(decoded.action) is kind

    survives()


def test_a_configuration_has_only_what_an_older_program_knows() -> None:
    """Unless something newer is configured."""
    listed = (Instrument(symbol="A", **BOUNDS),)
    plain = encode_record(Command(1, 5, "", "", Configure(instruments=listed)))
    assert "match" not in plain and "close_left_ms" not in plain
    assert '"close_ts":null' in plain
    match = MatchInfo(name="A/03")
    action = Configure(instruments=listed, match=match)
    assert '"match":{"name":"A/03"' in encode_record(
        Command(1, 5, "", "", action)
    )


BOUNDS: dict[str, Any] = {
    "tick_size": "1",
    "min_price": 1,
    "max_price": 9,
    "max_qty": 5,
    "phase": "open",
}


def test_a_record_has_no_role_that_an_older_program_knows_otherwise() -> None:
    """It reads the record then, and golden journals stay as they were."""
    for action, fields in (
        (Connect(True), ""),
        (Connect(True, is_admin=True), ""),
        (Connect(True, role="house"), ',"role":"house"'),
    ):
        is_admin = "true" if action.is_admin else "false"
        text = encode_record(Command(1, 5, "ann", "a", action))
        assert text == (
            '[5,"ann","a",{"cancel_on_disconnect":true,'
            f'"is_admin":{is_admin},"type":"connect"{fields}}}]'
        )


def test_a_place_in_the_journal_is_the_sequence_number() -> None:
    text = ",".join(encode_record(c) for c in COMMANDS[100:110])
    decoded = decode_records(COMMANDS[100].seq, f"[{text}]".encode())
    assert decoded == COMMANDS[100:110]
