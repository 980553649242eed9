"""Events: encoding, defaults, and what a newer server may add."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orderbook import (
    MAX_INT,
    AcceptTender,
    AccountReport,
    Admin,
    Amend,
    BookUpdate,
    Bust,
    CancelAfter,
    Conversion,
    Convert,
    Error,
    Event,
    Exec,
    Get,
    Heartbeat,
    Instrument,
    Login,
    MatchChanged,
    MatchInfo,
    News,
    Ok,
    Order,
    Ping,
    Place,
    Request,
    Rested,
    Settlement,
    Status,
    Subscribe,
    Tender,
    Ticker,
    Trade,
    Unsubscribe,
    Welcome,
    decode_events,
    encode,
    encode_order,
    with_id,
)
from test.orderbook.values import VALUES

INSTRUMENT = Instrument(
    symbol="ETF",
    tick_size="0.01",
    min_price=-5,
    max_price=500,
    max_qty=50,
    phase="halted",
    max_position=9,
    short_selling=False,
    maker_fee=-1,
    taker_fee=2,
    reference_price=100,
    collar=20,
    band=10,
    auction_ms=5_000,
    kind="call",
    underlying="BOND",
    strike=-5,
    expires=600,
    pays=100,
    question='Will it "rain"?',
    group="weather",
    convert=Conversion(lot=10, fee=100, basket={"BOND": 3, "GS": 2}, per=10),
    tick_value=100,
    multiplier=10,
    lot_size="0.001",
    maker_fee_bp=-1,
    taker_fee_bp=2,
    self_trades=True,
    reason="back at 15:00",
    reopen_ts=10,
    close_ts=11,
    close_left_ms=500,
    expire_ts=12,
    settlement_price=0,
)
MATCH = MatchInfo(
    name='"A"/03', round="A", teams=("ann", "bob"), fair_sha256="0f" * 32
)
# One of each class with no field at its default.
EVENTS: list[Event] = [
    Welcome(
        id=1,
        protocol=1,
        session="b7f2",
        user="alice",
        ts=9,
        seq=1290,
        resumed=True,
        durable=True,
        limits={"max_frame": 100},
        instruments=(INSTRUMENT,),
        rules=3,
        unit="0.01",
        currency="USD",
        round=2,
        role="house",
        match=MATCH,
        speed="10",
    ),
    Ok(id="é", ts=9, count=3, data=[{"a": [1, "x"]}]),
    Error(
        id=2,
        code="order_closed",
        message="too late",
        field="order_id",
        retry_after_ms=5,
        order_id=5512,
        order_status="filled",
        cum_qty=10,
    ),
    Exec(
        id=2,
        seq=1290,
        ts=9,
        exec_type="trade",
        order_id=5512,
        client_order_id="mm-17",
        symbol="BOND",
        side="buy",
        order_status="partially_filled",
        price=99,
        qty=10,
        cum_qty=4,
        leaves_qty=6,
        cum_cost=396,
        order_type="market",
        time_in_force="gtd",
        expire_ts=10,
        post_only=True,
        stp="cancel_both",
        last_qty=4,
        last_price=99,
        trade_id=901,
        liquidity="maker",
        fee=0,
        reason="stp",
        trigger_price=0,
        display_qty=5,
        round=2,
        busted=True,
    ),
    AccountReport(
        seq=1,
        ts=9,
        cash=-396,
        positions={"BOND": 4},
        equity=8,
        realized=-4,
        unrealized=12,
    ),
    BookUpdate(
        symbol="BOND",
        seq=2,
        prev_seq=1,
        ts=9,
        snapshot=True,
        bids=((99, 30), (98, 0)),
        asks=(),
    ),
    Trade(
        symbol="BOND",
        seq=2,
        ts=9,
        trade_id=901,
        price=99,
        qty=4,
        side="sell",
        round=2,
        busted=True,
        is_self=True,
    ),
    Ticker(
        symbol="BOND",
        ts=9,
        bid=99,
        bid_qty=26,
        ask=101,
        ask_qty=10,
        last=0,
        volume=18231,
    ),
    Status(
        ts=9,
        symbol="BOND",
        phase="halted",
        message="back at 15:00",
        round=2,
    ),
    News(
        ts=9,
        news_id=1,
        headline='a "quote", a \\ and a { brace',
        symbol="BOND",
        body="two\nlines",
        value=0,
    ),
    MatchChanged(ts=9, match=MATCH),
    Tender(
        ts=9,
        tender_id="t-1",
        symbol="BOND",
        side="buy",
        qty=50,
        price=-5,
        expire_ts=10,
    ),
    Settlement(seq=1, ts=9, symbol="BOND", position=-5, price=0, realized=-7),
    Bust(symbol="BOND", seq=3, ts=9, trade_id=901),
    Heartbeat(ts=9, seq={"BOND": 8812, "@": 1291}, speed="10"),
]
SHORT_EVENTS: list[Event] = [
    Ok(ts=9),
    Error(code="busy", message="later"),
    Exec(
        seq=1,
        ts=9,
        exec_type="new",
        order_id=1,
        symbol="BOND",
        side="sell",
        order_status="new",
        qty=1,
        cum_qty=0,
        leaves_qty=1,
    ),
    AccountReport(seq=1, ts=9, cash=0, positions={}, equity=0),
    BookUpdate(symbol="BOND", seq=2, ts=9, bids=(), asks=((101, 10),)),
    Ticker(symbol="BOND", ts=9, volume=0),
    Status(ts=9),
    News(ts=9, news_id=2, headline="x"),
]


@pytest.mark.parametrize("event", EVENTS + SHORT_EVENTS, ids=repr)
def test_an_event_comes_back_as_it_was(event: Event) -> None:
    text = encode(event)
    assert decode_events(text) == [event]
    assert decode_events(text.encode()) == [event]
    assert decode_events(f"[{text},{text}]") == [event, event]
    assert text.startswith(f'{{"type":"{event.type}",') and "null" not in text


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_every_field_that_is_not_at_its_default_is_sent(event: Event) -> None:
    fields = [field.name for field in dataclasses.fields(event)]
    sent = list(json.loads(encode(event)))
    assert sorted(sent) == sorted(fields) and sent[0] == "type"


def test_fields_at_their_default_are_left_out() -> None:
    assert [encode(event) for event in SHORT_EVENTS] == [
        '{"type":"ok","ts":9}',
        '{"type":"error","code":"busy","message":"later"}',
        '{"type":"exec","seq":1,"ts":9,"exec_type":"new","order_id":1,'
        '"symbol":"BOND","side":"sell","order_status":"new","qty":1,'
        '"cum_qty":0,"leaves_qty":1}',
        '{"type":"account","seq":1,"ts":9,"cash":0,"positions":{},'
        '"equity":0}',
        '{"type":"book","symbol":"BOND","seq":2,"ts":9,"bids":[],'
        '"asks":[[101,10]]}',
        '{"type":"ticker","symbol":"BOND","ts":9,"volume":0}',
        '{"type":"status","ts":9}',
        '{"type":"news","ts":9,"news_id":2,"headline":"x"}',
    ]
    requests: dict[Request, str] = {
        Ping(): '{"type":"ping"}',
        Ping(id=0): '{"type":"ping","id":0}',
        Login(user="a", token="b"): '{"type":"login","user":"a","token":"b"}',
        Place(side="buy", qty=1, price=0): (
            '{"type":"place","side":"buy","qty":1,"price":0}'
        ),
        Amend(order_id=0, qty=1): '{"type":"amend","order_id":0,"qty":1}',
        CancelAfter(timeout_ms=0): '{"type":"cancel_after","timeout_ms":0}',
        Subscribe(channels=("book",)): (
            '{"type":"subscribe","channels":["book"]}'
        ),
        Unsubscribe(channels=("book",), symbols=("A",)): (
            '{"type":"unsubscribe","channels":["book"],"symbols":["A"]}'
        ),
        Get(what="book"): '{"type":"get","what":"book"}',
        Admin(action="adjust", reason="x", user="a", cash=0): (
            '{"type":"admin","action":"adjust","reason":"x","user":"a",'
            '"cash":0}'
        ),
        Convert(symbol="ETF", side="buy", qty=10): (
            '{"type":"convert","symbol":"ETF","side":"buy","qty":10}'
        ),
        AcceptTender(tender_id="t"): '{"type":"tender","tender_id":"t"}',
    }
    for request, text in requests.items():
        assert encode(request) == text


def test_an_instrument_shows_what_limits_it() -> None:
    (event,) = [event for event in EVENTS if isinstance(event, Welcome)]
    (told,) = json.loads(encode(event))["instruments"]
    assert told == dataclasses.asdict(INSTRUMENT)
    for expires in ("round", 0, None):
        its = dataclasses.replace(INSTRUMENT, expires=expires)
        changed = dataclasses.replace(event, instruments=(its,))
        assert decode_events(encode(changed)) == [changed]
    fields = dataclasses.fields(Instrument)
    shortest = {f.name: told[f.name] for f in fields if not has_default(f)}
    message = {**json.loads(encode(event)), "instruments": [shortest]}
    (decoded,) = decode_events(json.dumps(message))
    assert isinstance(decoded, Welcome)
    assert decoded.instruments == (Instrument(**shortest),)
    text = encode(dataclasses.replace(event, instruments=decoded.instruments))
    assert json.loads(text)["instruments"] == [shortest]


def has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING


def test_a_field_may_be_given_its_default() -> None:
    (event,) = decode_events('{"type":"status","ts":9,"symbol":null}')
    assert event == Status(ts=9)


@pytest.mark.parametrize("event", EVENTS + SHORT_EVENTS, ids=repr)
def test_unknown_fields_are_dropped(event: Event) -> None:
    message = json.loads(encode(event))
    message |= {"from_the_future": {"a": [None, 1.5]}, "": None}
    assert decode_events(json.dumps(message)) == [event]
    assert decode_events(json.dumps([message, {"type": "new"}])) == [event]


@pytest.mark.parametrize(
    "unknown",
    ['{"type":"auction"}', '{"type":"ping","id":1}', "{}", '{"type":null}']
    + ['{"type":5}', '{"type":[]}', '{"type":{}}', '{"type":"Ok","ts":9}'],
)
def test_an_unknown_type_is_left_out(unknown: str) -> None:
    assert decode_events(unknown) == []
    assert decode_events(f"[{unknown}]") == []
    first, last = Ok(ts=1), Status(ts=2)
    text = f"[{encode(first)},{unknown},{encode(last)},{unknown}]"
    assert decode_events(text) == [first, last]


@pytest.mark.parametrize(
    "type_, field",
    [
        ("exec", "exec_type"),
        ("exec", "order_status"),
        ("exec", "reason"),
        ("exec", "liquidity"),
        ("error", "code"),
        ("error", "order_status"),
        ("status", "phase"),
    ],
)
def test_an_unknown_word_of_a_newer_server_is_taken(
    type_: str, field: str
) -> None:
    (event,) = [event for event in EVENTS if event.type == type_]
    message = {**json.loads(encode(event)), field: "brand_new"}
    (decoded,) = decode_events(json.dumps(message))
    assert getattr(decoded, field) == "brand_new"
    assert json.loads(encode(decoded)) == message


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_a_known_type_must_have_its_fields(event: Event) -> None:
    message = json.loads(encode(event))
    for field in dataclasses.fields(event):
        if field.default is not dataclasses.MISSING:
            continue
        short = {k: v for k, v in message.items() if k != field.name}
        wrong = {**message, field.name: [[]]}
        for bad in (short, wrong, [message, short], [{"type": "x"}, wrong]):
            with pytest.raises(ValueError):
                decode_events(json.dumps(bad))


@pytest.mark.parametrize(
    "text",
    ["", "{", "ok", "5", "null", '"ok"', "[5]", "[[]]", "[null]", b"\xff"]
    + ["\ufeff{}", "[" * 1_000, "[" * 1_000 + "]" * 1_000],
    ids=lambda text: repr(text[:9]),
)
def test_no_json_or_no_object_is_no_event(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        decode_events(text)


def test_an_empty_array_holds_no_events() -> None:
    assert decode_events("[]") == decode_events(" [ ] ") == []


@pytest.mark.parametrize("request_id", VALUES["id"][0], ids=repr)
@pytest.mark.parametrize("event", SHORT_EVENTS[:3], ids=lambda e: e.type)
def test_with_id_gives_a_reply_its_id(request_id: Any, event: Event) -> None:
    text = encode(event)
    with_its_id = dataclasses.replace(event, id=request_id)
    told = json.loads(with_id(text, request_id))
    assert told == json.loads(encode(with_its_id))
    assert decode_events(with_id(text, request_id)) == [with_its_id]
    assert with_id(text, None) == text


WORDS = {
    "exec_type": ["new", "trade", "canceled"],
    "side": ["buy", "sell"],
    "order_status": ["new", "waiting", "filled"],
    "order_type": ["limit", "market", "stop", "stop_limit"],
    "time_in_force": ["gtc", "ioc", "gtd", "auction"],
    "stp": ["cancel_oldest", "cancel_both", "none"],
    "reason": [None, "user", "stp"],
}
NUMBERS = st.integers(-MAX_INT, MAX_INT)


@given(
    st.fixed_dictionaries(
        {name: st.sampled_from(words) for name, words in WORDS.items()}
        | dict.fromkeys(
            ["seq", "ts", "order_id", "qty", "cum_qty", "leaves_qty"], NUMBERS
        )
        | {
            "symbol": st.from_regex(r"[A-Z0-9_.-]{1,16}", fullmatch=True),
            "client_order_id": st.none()
            | st.from_regex(r"[A-Za-z0-9_.:-]{1,36}", fullmatch=True),
            "cum_cost": NUMBERS,
            "price": st.none() | NUMBERS,
            "expire_ts": st.none() | NUMBERS,
            "post_only": st.booleans(),
            "trigger_price": st.none() | NUMBERS,
            "display_qty": st.none() | NUMBERS,
            "round": st.integers(1, 3),
        }
    ),
    st.none() | st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS),
)
def test_an_exec_is_encoded_as_pydantic_does(
    fields: dict[str, Any], fill: tuple[int, int, int, int] | None
) -> None:
    names = ("last_qty", "last_price", "trade_id", "fee")
    if fill is not None:
        fields |= dict(zip(names, fill)) | {"liquidity": "maker"}
    report = Exec(**fields)
    whole = TypeAdapter(Exec).dump_json(report, exclude_defaults=True)
    told = json.loads(encode(report))
    assert told == {"type": "exec"} | json.loads(whole)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"client_order_id": "a-1"},
        {"post_only": True, "stp": "cancel_both"},
    ],
)
def test_the_short_report_of_a_resting_order_is_encoded_as_the_full_one(
    more: dict[str, Any],
) -> None:
    order = Order(7, "ann", "sell", 5, "BOND", price=101, **more)
    rested = Rested(3, 4, order.qty, order.price, order)
    order.price, order.qty = 102, 9  # amended before it is encoded
    whole = rested.as_exec()
    assert encode(rested) == encode(whole)
    assert (whole.price, whole.qty, whole.leaves_qty) == (101, 5, 5)
    assert (whole.order_id, whole.side, whole.seq) == (7, "sell", 3)
    for name, value in more.items():
        assert getattr(whole, name) == value


def test_an_order_is_encoded_as_its_status_report() -> None:
    order = Order(7, "ann", "buy", 5, "BOND", price=101, post_only=True)
    order.cum_qty, order.leaves_qty, order.cum_cost = 2, 3, 202
    order.order_status = "partially_filled"
    assert encode_order(order, 3, 4) == encode(
        Exec(
            seq=3,
            ts=4,
            exec_type="status",
            order_id=7,
            symbol="BOND",
            side="buy",
            order_status="partially_filled",
            qty=5,
            cum_qty=2,
            leaves_qty=3,
            cum_cost=202,
            price=101,
            post_only=True,
        )
    )
    stop = Order(
        *(9, "ann", "sell", 5, "BOND"),
        price=101,
        trigger_price=0,
        display_qty=2,
    )
    told = json.loads(encode_order(stop, 3, 4))
    assert "order_type" not in told
    assert (told["trigger_price"], told["display_qty"]) == (0, 2)
    market = Order(8, "ann", "sell", 1, order_type="market")
    assert '"order_type":"market"' in encode_order(market, 3, 4)


@given(
    st.fixed_dictionaries(
        dict.fromkeys(["seq", "ts", "cash", "equity"], NUMBERS),
        optional=dict.fromkeys(["realized", "unrealized"], NUMBERS),
    ),
    st.dictionaries(
        st.from_regex(r"[A-Z0-9_.-]{1,16}", fullmatch=True), NUMBERS
    ),
)
def test_an_account_is_encoded_as_pydantic_does(
    fields: dict[str, int], positions: dict[str, int]
) -> None:
    report = AccountReport(**fields, positions=positions)
    adapter = TypeAdapter(AccountReport)
    whole = adapter.dump_json(report, exclude_defaults=True)
    told = json.loads(encode(report))
    assert told == {"type": "account"} | json.loads(whole)


@given(
    st.fixed_dictionaries(
        {
            "code": st.sampled_from(["bad_request", "busy"]),
            "message": st.text(),
        },
        optional=dict.fromkeys(
            ["retry_after_ms", "order_id", "cum_qty"], NUMBERS
        )
        | {
            "field": st.text(),
            "order_status": st.sampled_from(["new", "filled"]),
            "id": NUMBERS | st.text(),
        },
    )
)
def test_an_error_is_encoded_as_pydantic_does(fields: dict[str, Any]) -> None:
    error = Error(**fields)
    whole = TypeAdapter(Error).dump_json(error, exclude_defaults=True)
    told = json.loads(encode(error))
    assert told == {"type": "error"} | json.loads(whole)
