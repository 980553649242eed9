"""Requests: every field, its good and wrong values, and combinations."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, get_args

import pytest

from orderbook import (
    ADMIN_ARGUMENTS,
    ADMIN_FIELDS,
    DEFAULT_ROWS,
    EVENT_TYPES,
    INTERVALS,
    MAX_FRAME,
    MAX_INT,
    MAX_ROWS,
    PHASES,
    REQUEST_TYPES,
    Admin,
    AdminAction,
    Cancel,
    Error,
    Get,
    Interval,
    Login,
    PhaseName,
    Place,
    decode_requests,
    encode,
)
from test.orderbook.values import (
    ACTIONS,
    FULL,
    INSTEAD,
    REQUIRED,
    TAKEN,
    WRONG,
    JsonObject,
    bad_request,
    decode,
    message_with,
)

# Strict in ----------------------------------------------------------------


def test_the_requests_and_events() -> None:
    assert list(REQUEST_TYPES) == list(FULL)
    assert list(EVENT_TYPES) == [
        "welcome",
        "ok",
        "error",
        "exec",
        "account",
        "book",
        "trade",
        "ticker",
        "status",
        "news",
        "match",
        "tender",
        "settlement",
        "bust",
        "heartbeat",
    ]


@pytest.mark.parametrize("name, message", FULL.items())
def test_the_full_request_has_every_field(
    name: str, message: JsonObject
) -> None:
    decoded = decode({"type": name, "id": 7, **message})
    assert type(decoded) is REQUEST_TYPES[name]
    for field, value in message.items():
        taken = getattr(decoded, field)
        assert (list(taken) if type(taken) is tuple else taken) == value
    fields = {field.name for field in dataclasses.fields(decoded)}
    left_out = fields - {"type", "id"} - message.keys()
    elsewhere: set[str] = set()
    if name in ("amend", "cancel"):
        elsewhere = {"client_order_id"}
    elif name == "place":
        elsewhere = {"trigger_price"}
    elif name == "admin":
        elsewhere = {*ADMIN_FIELDS}
        elsewhere -= message.keys()
    assert left_out == elsewhere


@pytest.mark.parametrize("name, field, value", TAKEN, ids=repr)
def test_a_good_value_is_taken_and_comes_back(
    name: str, field: str, value: Any
) -> None:
    message = message_with(name, field, value)
    decoded = decode(message)
    assert not isinstance(decoded, Error), decoded
    assert json.loads(encode(decoded)).get(field, value) == value
    assert decode_requests(encode(decoded)) == [decoded]


@pytest.mark.parametrize("name, field, value", WRONG, ids=repr)
def test_a_wrong_value_is_refused_by_name(
    name: str, field: str, value: Any
) -> None:
    error = bad_request(decode(message_with(name, field, value)))
    assert error.field == field
    assert error.message.startswith(f"{field}: ")
    assert error.id == (None if field == "id" else 7)


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize(
    "field", ["x", "Price", "stop_price", "displayQty", "@", "", "é"]
)
def test_an_unknown_field_is_refused_by_name(name: str, field: str) -> None:
    error = bad_request(decode(message_with(name, field, 5)))
    assert (error.field, error.id) == (field, 7)
    assert error.message == f"{field}: unknown field"


def test_a_long_unknown_field_is_not_echoed_whole() -> None:
    error = bad_request(decode(message_with("ping", "x" * 10_000, 5)))
    assert error.field == "x" * 40 and len(error.message) < 100


@pytest.mark.parametrize(
    "name, field", [(n, f) for n, fields in REQUIRED.items() for f in fields]
)
def test_a_missing_field_is_refused_by_name(name: str, field: str) -> None:
    message = message_with(name, field, None)
    del message[field]
    error = bad_request(decode(message))
    assert (error.field, error.message) == (field, f"{field}: missing")


def test_the_first_of_several_problems_is_named() -> None:
    message = {"type": "place", "side": "buy", "qty": "x", "price": "x"}
    assert bad_request(decode(message)).field == "qty"


@pytest.mark.parametrize("name", FULL)
def test_every_other_field_may_be_absent(name: str) -> None:
    required = [*REQUIRED.get(name, [])]
    required += {
        "place": ["price"],
        "amend": ["order_id", "qty"],
        "cancel": ["order_id"],
        "admin": ["user", "cash"],
    }.get(name, [])
    message = {field: FULL[name][field] for field in required}
    decoded = decode({"type": name, **message})
    assert type(decoded) is REQUEST_TYPES[name]
    assert decode_requests(encode(decoded)) == [decoded]
    assert json.loads(encode(decoded)).keys() == {"type", *required}


def test_the_defaults_are_those_of_the_protocol() -> None:
    assert decode({"type": "login", "user": "a"}) == Login(
        user="a",
        token=None,
        cancel_on_disconnect=True,
        session=None,
        last_seq=None,
    )
    placed = decode({"type": "place", "side": "buy", "qty": 1, "price": 5})
    assert placed == Place(
        symbol=None,
        side="buy",
        qty=1,
        price=5,
        order_type="limit",
        time_in_force=None,
        expire_ts=None,
        post_only=False,
        stp="cancel_oldest",
        client_order_id=None,
        trigger_price=None,
        display_qty=None,
    )
    assert decode({"type": "admin", "action": "reset", "reason": "x"}) == (
        Admin(action="reset", reason="x", **dict.fromkeys(ADMIN_FIELDS))
    )
    assert decode({"type": "get", "what": "book"}) == Get(
        what="book", symbol=None, after=None, limit=500, interval="1m"
    )
    assert (MAX_FRAME, DEFAULT_ROWS, MAX_ROWS) == (100, 500, 1_000)
    assert MAX_INT == 2**53 - 1


# Combinations -------------------------------------------------------------


LIMIT: JsonObject = {"side": "buy", "qty": 1, "price": 5}
MARKET: JsonObject = {"side": "buy", "qty": 1, "order_type": "market"}
GTD: JsonObject = {"time_in_force": "gtd", "expire_ts": 9}
PRICE: JsonObject = {"price": 5}
STOP: JsonObject = {
    **{"side": "buy", "qty": 1, "order_type": "stop", "trigger_price": 7}
}
STOP_LIMIT: JsonObject = {**STOP, **PRICE, "order_type": "stop_limit"}


@pytest.mark.parametrize(
    "message, field",
    [
        ({"side": "buy", "qty": 1}, "price"),
        ({"side": "buy", "qty": 1, "order_type": "limit"}, "price"),
        ({**MARKET, "price": 5}, "price"),
        ({**MARKET, "price": 5, "time_in_force": "ioc"}, "price"),
        ({**MARKET, "post_only": True}, "post_only"),
        ({**MARKET, "time_in_force": "gtc"}, "time_in_force"),
        ({**MARKET, **GTD}, "time_in_force"),
        ({**MARKET, "expire_ts": 9}, "expire_ts"),
        ({**MARKET, "expire_ts": 9, "time_in_force": "fok"}, "expire_ts"),
        ({**LIMIT, "post_only": True, "time_in_force": "ioc"}, "post_only"),
        ({**LIMIT, "post_only": True, "time_in_force": "fok"}, "post_only"),
        ({**LIMIT, "expire_ts": 9}, "expire_ts"),
        ({**LIMIT, "expire_ts": 9, "time_in_force": "gtc"}, "expire_ts"),
        ({**LIMIT, "expire_ts": 9, "time_in_force": "ioc"}, "expire_ts"),
        ({**LIMIT, "time_in_force": "gtd"}, "expire_ts"),
        ({**LIMIT, "time_in_force": "auction"}, "time_in_force"),
        ({**LIMIT, "trigger_price": 5}, "trigger_price"),
        ({**LIMIT, "display_qty": 1, "time_in_force": "ioc"}, "display_qty"),
        ({**LIMIT, "display_qty": 1, "time_in_force": "fok"}, "display_qty"),
        ({**MARKET, "display_qty": 1}, "display_qty"),
        ({**MARKET, "trigger_price": 5}, "trigger_price"),
        ({**MARKET, "time_in_force": "auction", **PRICE}, "price"),
        (
            {**MARKET, "time_in_force": "auction", "expire_ts": 9},
            "expire_ts",
        ),
        ({"side": "buy", "qty": 1, "order_type": "stop"}, "trigger_price"),
        ({**STOP, **PRICE}, "price"),
        ({**STOP, "post_only": True}, "post_only"),
        ({**STOP, "display_qty": 1}, "display_qty"),
        ({**STOP, "time_in_force": "ioc"}, "time_in_force"),
        ({**STOP, "time_in_force": "fok"}, "time_in_force"),
        ({**STOP, "time_in_force": "auction"}, "time_in_force"),
        ({**STOP, "time_in_force": "gtd"}, "expire_ts"),
        ({**STOP, "expire_ts": 9}, "expire_ts"),
        ({**LIMIT, "order_type": "stop_limit"}, "trigger_price"),
        ({**STOP, "order_type": "stop_limit"}, "price"),
        ({**STOP_LIMIT, "time_in_force": "auction"}, "time_in_force"),
        ({**STOP_LIMIT, "time_in_force": "gtd"}, "expire_ts"),
        (
            {**STOP_LIMIT, "time_in_force": "ioc", "display_qty": 1},
            "display_qty",
        ),
        (
            {**STOP_LIMIT, "time_in_force": "fok", "post_only": True},
            "post_only",
        ),
    ],
    ids=str,
)
def test_an_order_that_makes_no_sense_is_refused(
    message: JsonObject, field: str
) -> None:
    error = bad_request(decode({"type": "place", "id": "a", **message}))
    assert (error.field, error.id) == (field, "a")


@pytest.mark.parametrize(
    "message",
    [
        LIMIT,
        {**LIMIT, "post_only": True},
        {**LIMIT, "post_only": True, "time_in_force": "gtc"},
        {**LIMIT, "post_only": True, **GTD},
        {**LIMIT, **GTD},
        {**LIMIT, "time_in_force": "gtc"},
        {**LIMIT, "time_in_force": "ioc"},
        {**LIMIT, "time_in_force": "fok"},
        MARKET,
        {**MARKET, "time_in_force": "ioc"},
        {**MARKET, "time_in_force": "fok"},
        {**MARKET, "post_only": False},
        {**MARKET, "time_in_force": "auction"},
        {**LIMIT, "stp": "none"},
        {**LIMIT, "display_qty": 1},
        {**LIMIT, "display_qty": 2, "post_only": True},
        {**LIMIT, "display_qty": 1, "time_in_force": "gtc"},
        {**LIMIT, "display_qty": 1, **GTD},
        STOP,
        {**STOP, "trigger_price": 0},
        {**STOP, "time_in_force": "gtc"},
        {**STOP, **GTD},
        STOP_LIMIT,
        {**STOP_LIMIT, **GTD, "post_only": True, "display_qty": 1},
        {**STOP_LIMIT, "time_in_force": "ioc"},
        {**STOP_LIMIT, "time_in_force": "fok"},
    ],
    ids=str,
)
def test_an_order_that_makes_sense_is_taken(message: JsonObject) -> None:
    decoded = decode({"type": "place", **message})
    assert isinstance(decoded, Place)
    assert decode_requests(encode(decoded)) == [decoded]


@pytest.mark.parametrize(
    "message, text",
    [
        (
            {**STOP, "time_in_force": "ioc"},
            "time_in_force: of a stop order must be gtc or gtd",
        ),
        (
            {**MARKET, "time_in_force": "gtc"},
            "time_in_force: of a market order must be ioc, fok or auction",
        ),
        (
            {**STOP_LIMIT, "time_in_force": "auction"},
            "time_in_force: of a stop_limit order must be gtc, gtd, ioc or"
            " fok",
        ),
        (
            {**LIMIT, "time_in_force": "auction"},
            "time_in_force: of a limit order must be gtc, gtd, ioc or fok",
        ),
        (
            {**LIMIT, "order_type": "stop"},
            "price: a stop order must not have a price; a stop_limit order"
            " has one",
        ),
        (
            {"side": "buy", "qty": 1, "order_type": "stop"},
            "trigger_price: a stop order needs a trigger_price",
        ),
        (
            {**LIMIT, "trigger_price": 5},
            "trigger_price: only a stop or stop_limit order has one",
        ),
        (
            {**MARKET, "trigger_price": 5},
            "trigger_price: only a stop or stop_limit order has one",
        ),
        (
            {**LIMIT, "time_in_force": "ioc", "display_qty": 1},
            "display_qty: only a limit or stop_limit order that is gtc or gtd"
            " has one",
        ),
    ],
)
def test_the_refusal_of_an_order_says_what_to_do(
    message: JsonObject, text: str
) -> None:
    assert bad_request(decode({"type": "place", **message})).message == text


@pytest.mark.parametrize(
    "field, value", [("expire_ts", 9), ("trigger_price", -5), ("price", 0)]
)
def test_an_amend_may_change_one_field(field: str, value: int) -> None:
    message = {"type": "amend", "order_id": 1, field: value}
    decoded = decode(message)
    assert json.loads(encode(decoded)) == message


@pytest.mark.parametrize(
    "message, field",
    [
        ({"type": "cancel"}, "order_id"),
        (
            {"type": "cancel", "order_id": 1, "client_order_id": "a"},
            "order_id",
        ),
        ({"type": "amend", "qty": 1}, "order_id"),
        (
            {
                "type": "amend",
                "order_id": 1,
                "client_order_id": "a",
                "qty": 1,
            },
            "order_id",
        ),
        ({"type": "amend", "order_id": 1}, "price"),
        ({"type": "amend", "client_order_id": "a"}, "price"),
    ],
    ids=str,
)
def test_an_amend_or_cancel_names_one_order_and_a_change(
    message: JsonObject, field: str
) -> None:
    error = bad_request(decode({"id": 3, **message}))
    assert (error.field, error.id) == (field, 3)


def test_every_phase_and_every_interval_is_described() -> None:
    assert tuple(PHASES) == get_args(PhaseName)
    assert tuple(INTERVALS) == get_args(Interval)
    lengths = [*INTERVALS.values()]
    assert lengths == sorted(lengths)
    assert not any(length % lengths[0] for length in lengths)


def test_the_table_of_actions_is_whole() -> None:
    assert list(ACTIONS) == list(get_args(AdminAction))
    assert {
        action: (
            set(needed),
            (set(its) | INSTEAD.get(action, {}).keys()) - set(needed),
        )
        for action, (its, needed) in ACTIONS.items()
    } == ADMIN_ARGUMENTS
    fields = {field.name for field in dataclasses.fields(Admin)}
    head = {"type", "id", "client_request_id", "action", "reason"}
    assert set(ADMIN_FIELDS) == fields - head
    arguments = (needed | may for needed, may in ADMIN_ARGUMENTS.values())
    assert set(ADMIN_FIELDS) == set().union(*arguments)


# A value of each argument, of an action that has it.
ARGUMENTS: JsonObject = {
    field: value
    for its in (*INSTEAD.values(), *(its for its, _ in ACTIONS.values()))
    for field, value in its.items()
}


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_takes_all_it_may_have_and_what_it_needs(
    action: str,
) -> None:
    whole, needed = ACTIONS[action]
    least = {field: whole[field] for field in needed}
    if action == "adjust":
        least["cash"] = whole["cash"]
    if action == "settle":
        least["symbol"] = whole["symbol"]
    for its in (whole, least, INSTEAD.get(action, whole)):
        message = {"type": "admin", "action": action, "reason": "why", **its}
        decoded = decode(message)
        assert isinstance(decoded, Admin)
        assert json.loads(encode(decoded)) == message
        assert decode_requests(encode(decoded)) == [decoded]


@pytest.mark.parametrize(
    "action, field",
    [
        (action, field)
        for action, (its, needed) in ACTIONS.items()
        for field in ("reason", *ARGUMENTS)
        if field not in its or field in needed
    ],
)
def test_an_argument_that_is_missing_or_too_much_is_refused_by_name(
    action: str, field: str
) -> None:
    message = {"type": "admin", "id": 7, "action": action, "reason": "why"}
    message |= ACTIONS[action][0]
    if field in message:
        del message[field]
    else:
        message[field] = ARGUMENTS[field]
    error = bad_request(decode(message))
    assert (error.field, error.id) == (field, 7)
    assert error.message.startswith(f"{field}: ")


FULL_TENDER: JsonObject = {"action": "tender", **ACTIONS["tender"][0]}


@pytest.mark.parametrize(
    "field, arguments",
    [
        ("cash", {"action": "adjust", "user": "a"}),
        ("qty", {"action": "adjust", "user": "a", "symbol": "BOND"}),
        ("qty", {"action": "adjust", "user": "a", "qty": 1}),
        ("qty", {"action": "adjust", "user": "a", "qty": 1, "cash": 1}),
        (
            "qty",
            {"action": "adjust", "user": "a", "symbol": "BOND", "cash": 1},
        ),
        (
            "reopen_ms",
            {"action": "phase", "phase": "open", "reopen_ms": 1_000},
        ),
        (
            "reopen_ms",
            {"action": "phase", "phase": "closed", "reopen_ms": 1_000},
        ),
        (
            "close_ms",
            {"action": "phase", "phase": "closed", "close_ms": 1_000},
        ),
        (
            "close_ms",
            {"action": "phase", "phase": "auction", "close_ms": 1_000},
        ),
        ("symbol", {"action": "settle"}),
        ("symbol", {"action": "settle", "price": 5}),
        (
            "prices",
            {"action": "settle", "symbol": "BOND", "prices": {"BOND": 5}},
        ),
        ("price", {"action": "settle", "price": 5, "prices": {"BOND": 5}}),
        (
            "qty",
            {**FULL_TENDER, "qty": 0},
        ),
        ("qty", {**FULL_TENDER, "qty": -5}),
    ],
)
def test_an_action_that_makes_no_sense_is_refused(
    field: str, arguments: JsonObject
) -> None:
    message = {"type": "admin", "id": 7, "reason": "why", **arguments}
    error = bad_request(decode(message))
    assert (error.field, error.id) == (field, 7)


@pytest.mark.parametrize(
    "arguments",
    [
        {"action": "adjust", "user": "a", "cash": 0},
        {"action": "adjust", "user": "a", "symbol": "BOND", "qty": 0},
        {"action": "phase", "phase": "pre_open", "reopen_ms": 1_000},
        {"action": "phase", "phase": "auction", "reopen_ms": 1_000},
        {"action": "phase", "phase": "halted", "reopen_ms": 1_000},
        {"action": "settle", "symbol": "BOND", "price": 0},
        {"action": "settle", "symbol": "CALL"},
        {"action": "settle", "prices": {"BOND": 0, "ETF": -5}},
        {"action": "phase", "phase": "open", "close_ms": 86_400_000},
        {"action": "suspend", "user": "a", "client_request_id": "r-1"},
        {**FULL_TENDER, "qty": 1},
        {"action": "cancel", "order_id": 0},
    ],
)
def test_an_action_that_makes_sense_is_taken(arguments: JsonObject) -> None:
    message = {"type": "admin", "reason": "why", **arguments}
    decoded = decode(message)
    assert isinstance(decoded, Admin)
    assert json.loads(encode(decoded)) == message


def test_a_combination_is_refused_in_python_too() -> None:
    with pytest.raises(ValueError, match="a limit order needs a price"):
        Place(side="buy", qty=1)
    with pytest.raises(ValueError, match="exactly one of"):
        Cancel()
    with pytest.raises(ValueError, match="required by the action suspend"):
        Admin(action="suspend", reason="x")
