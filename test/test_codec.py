"""What may be said on the wire, and how anything else is answered.

The tables below hold, for each field of each request, values that must be
taken and values that must be refused; a field that is not in them fails the
walk, so a new one cannot be forgotten.
"""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from typing import Any, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orderbook import (
    ADMIN_ARGUMENTS,
    ADMIN_FIELDS,
    DEFAULT_ROWS,
    EVENT_TYPES,
    MAX_FRAME,
    MAX_INT,
    MAX_ROWS,
    REQUEST_TYPES,
    AccountReport,
    Admin,
    AdminAction,
    Amend,
    BookUpdate,
    Cancel,
    CancelAfter,
    CancelAll,
    Error,
    Event,
    Exec,
    Get,
    Heartbeat,
    Instrument,
    Login,
    Ok,
    Order,
    Ping,
    Place,
    Request,
    Rested,
    Status,
    Subscribe,
    Ticker,
    Trade,
    Unsubscribe,
    Welcome,
    decode_events,
    decode_requests,
    encode,
    with_id,
)

JsonObject = dict[str, Any]

# A request of each type with every field that can stand beside the others,
# and what else is needed to try a field that cannot: see `message_with`.
FULL: dict[str, JsonObject] = {
    "login": {
        "user": "alice",
        "token": "s3cret",
        "cancel_on_disconnect": False,
        "session": "b7f2",
        "last_seq": 1288,
    },
    "place": {
        "symbol": "BOND",
        "side": "buy",
        "qty": 10,
        "price": 99,
        "order_type": "limit",
        "time_in_force": "gtd",
        "expire_ts": 1795340157532308,
        "post_only": True,
        "stp": "cancel_both",
        "client_order_id": "mm-17",
    },
    "amend": {"order_id": 5512, "price": 98, "qty": 12},
    "cancel": {"order_id": 5512},
    "cancel_all": {"symbol": "BOND", "side": "sell"},
    "cancel_after": {"timeout_ms": 30_000},
    "subscribe": {"channels": ["book", "trades"], "symbols": ["BOND", "ETF"]},
    "unsubscribe": {"channels": ["ticker"], "symbols": ["BOND"]},
    "get": {
        "what": "candles",
        "symbol": "BOND",
        "after": 900,
        "limit": 50,
        "interval": "1h",
    },
    "ping": {},
    "admin": {
        "action": "adjust",
        "reason": "prize of round 1",
        "user": "alice",
        "cash": -500,
        "symbol": "BOND",
        "qty": -3,
    },
}
# Of each action of an administrator: a request with all it may have, and
# what of that it needs.
ACTIONS: dict[str, tuple[JsonObject, list[str]]] = {
    "phase": (
        {"symbol": "BOND", "phase": "halted", "reopen_ms": 5_000},
        ["phase"],
    ),
    "kill": ({"user": "mallory"}, ["user"]),
    "unkill": ({"user": "mallory"}, ["user"]),
    "cancel": ({"order_id": 5512}, ["order_id"]),
    "adjust": (
        {"user": "alice", "cash": -500, "symbol": "BOND", "qty": -3},
        ["user"],
    ),
    "settle": ({"symbol": "BOND", "price": 104}, ["symbol", "price"]),
    "reset": ({}, []),
    "message": ({"message": "hello", "symbol": "BOND"}, ["message"]),
}
REQUIRED = {
    "login": ["user"],
    "place": ["side", "qty"],
    "cancel_after": ["timeout_ms"],
    "subscribe": ["channels"],
    "unsubscribe": ["channels"],
    "get": ["what"],
    "admin": ["action", "reason"],
}

NO_INTEGER = ["5", 1.0, 1.5, True, False, None, [], [5], {}, "", "1_000"]
NO_STRING = [5, 1.0, True, None, [], ["BOND"], {}]
NO_WORD = [*NO_STRING, "", "x", "Buy", "BUY", " buy", "buy ", "buy\n", "bu\0y"]
NO_LIST = ["book", 5, True, None, {}, [], [None], [5], [["book"]], ["BOND", 1]]
TOO_BIG = [MAX_INT + 1, 2**63, 2**64, 10**30, -(2**63) - 1, -(10**30)]
NO_PRICE = [*NO_INTEGER, *TOO_BIG, -MAX_INT - 1]
NO_COUNT = [*NO_INTEGER, *TOO_BIG, -1]
NO_BOOL = [0, 1, "true", "false", "yes", None, [], {}, 1.0]
NO_TEXT = [*NO_STRING, "", "x" * 201, "é" * 201, "a\nb", "\x1b[2K", "\x85"]
NO_NAME = [*NO_STRING, "", "a b", "a/b", "é", "a\n", "\0", "@a", "٠", "a,b"]

# By field, or by request and field: values that are taken and values that
# are refused.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "type": ([], [*NO_WORD, "stop", "Ping", "ok", "exec", "ping ", "admin "]),
    "id": (
        [0, -1, MAX_INT, -MAX_INT, "", "a", "x" * 36, "é" * 36, '"\\,}{'],
        [1.0, True, None, [], {}, *TOO_BIG, -MAX_INT - 1, "x" * 37],
    ),
    "user": (["a", "A.b_c-9", "x" * 32], [*NO_NAME, "a:b", "x" * 33]),
    "token": (["", "x" * 128, "é"], [*NO_STRING, "x" * 129]),
    "cancel_on_disconnect": ([True, False], NO_BOOL),
    "session": (["b7f2", "x" * 36], [*NO_STRING, "x" * 37]),
    "last_seq": ([0, 1, MAX_INT], NO_COUNT),
    "symbol": (
        ["A", "BRK.B", "X_1-2", "X" * 16],
        [*NO_NAME, "bond", "A:B", "X" * 17],
    ),
    "side": (["buy", "sell"], NO_WORD),
    "qty": ([1, MAX_INT], [*NO_COUNT, 0]),
    "price": ([0, -1, MAX_INT, -MAX_INT], NO_PRICE),
    "order_type": (["limit"], [*NO_WORD, "stop", "stop_limit"]),
    "time_in_force": (["gtd"], [*NO_WORD, "day", "GTC"]),
    "expire_ts": ([0, MAX_INT], NO_COUNT),
    "post_only": ([True, False], NO_BOOL),
    "stp": (["cancel_oldest", "cancel_newest", "cancel_both"], NO_WORD),
    "client_order_id": (
        ["a", "mm-17", "A.b_c:9", "x" * 36],
        [*NO_NAME, "x" * 37],
    ),
    "order_id": ([0, 1, MAX_INT], NO_COUNT),
    "timeout_ms": (
        [0, 1_000, 86_400_000],
        [*NO_COUNT, 1, 999, 86_400_001],
    ),
    "channels": (
        [["book"], ["trades", "ticker"], ["book", "book"]],
        [*NO_LIST, ["Book"], ["book", "x"]],
    ),
    "symbols": ([["BOND"], ["A", "B"]], [*NO_LIST, ["bond"], ["X" * 17]]),
    "what": (
        ["instruments", "book", "trades", "candles", "leaderboard"]
        + ["account", "fills", "orders"],
        NO_WORD,
    ),
    "after": ([0, MAX_INT], NO_COUNT),
    "limit": ([1, MAX_ROWS], [*NO_COUNT, 0, MAX_ROWS + 1]),
    "interval": (["1s", "1m", "5m", "1h", "1d"], [*NO_WORD, "2m", "1M"]),
    "action": (list(ACTIONS), [*NO_WORD, "stop", "Kill", "halt"]),
    "reason": (["x", "é" * 200, "back at 15:00", '"\\,}{'], NO_TEXT),
    "message": (["x", "é" * 200, "back at 15:00", '"\\,}{'], NO_TEXT),
    "phase": (
        ["pre_open", "auction", "open", "halted", "closed"],
        [*NO_WORD, "Open", "all", "auction "],
    ),
    "reopen_ms": (
        [1_000, 86_400_000],
        [*NO_COUNT, 0, 1, 999, 86_400_001],
    ),
    "cash": ([0, -1, MAX_INT, -MAX_INT], NO_PRICE),
    "admin.qty": ([0, -1, MAX_INT, -MAX_INT], NO_PRICE),
}


def values(name: str, field: str) -> tuple[list[Any], list[Any]]:
    """Return what that field of that request takes and what it refuses."""
    return VALUES.get(f"{name}.{field}") or VALUES[field]


def message_with(name: str, field: str, value: Any) -> JsonObject:
    """Return the full request of that type with one field set so."""
    if name == "admin":
        return administering(field, value)
    message = {"type": name, "id": 7, **FULL[name], field: value}
    if field == "client_order_id" and name in ("amend", "cancel"):
        del message["order_id"]
    return message


def administering(field: str, value: Any) -> JsonObject:
    """Return what an administrator may ask with one field set so."""
    actions = [a for a, (its, _) in ACTIONS.items() if field in its]
    action = actions[0] if actions else FULL["admin"]["action"]
    if field == "action" and value in list(ACTIONS):
        action = value
    its = dict(ACTIONS[action][0])
    if field == "phase":
        del its["reopen_ms"]
    head = {"type": "admin", "id": 7, "action": action, "reason": "why"}
    return {**head, **its, field: value}


FIELDS = [
    (name, field.name)
    for name, cls in REQUEST_TYPES.items()
    for field in dataclasses.fields(cls)
]
TAKEN = [(n, f, value) for n, f in FIELDS for value in values(n, f)[0]]
WRONG = [(n, f, value) for n, f in FIELDS for value in values(n, f)[1]]


def decode(message: Any) -> Request | Error:
    """Decode a frame of one request."""
    (decoded,) = decode_requests(json.dumps(message))
    return decoded


def bad_request(decoded: Request | Error) -> Error:
    """Verify that this is the answer to a bad request, and return it."""
    assert isinstance(decoded, Error), f"taken: {decoded}"
    assert decoded.code == "bad_request" and decoded.message
    return decoded


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
    elif name == "admin":
        elsewhere = {field for its, _ in ACTIONS.values() for field in its}
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
    "field", ["x", "Price", "trigger_price", "display_qty", "@", "", "é"]
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


def test_of_several_problems_the_first_is_named() -> None:
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
        ({**LIMIT, "order_type": "stop"}, "order_type"),
        ({**LIMIT, "order_type": "stop_limit"}, "order_type"),
        ({**LIMIT, "trigger_price": 5}, "trigger_price"),
        ({**LIMIT, "display_qty": 1}, "display_qty"),
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
    ],
    ids=str,
)
def test_an_order_that_makes_sense_is_taken(message: JsonObject) -> None:
    decoded = decode({"type": "place", **message})
    assert isinstance(decoded, Place)
    assert decode_requests(encode(decoded)) == [decoded]


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


def test_the_table_of_actions_is_whole() -> None:
    assert list(ACTIONS) == list(get_args(AdminAction))
    assert {
        action: (set(needed), set(its) - set(needed))
        for action, (its, needed) in ACTIONS.items()
    } == ADMIN_ARGUMENTS
    fields = {field.name for field in dataclasses.fields(Admin)}
    assert set(ADMIN_FIELDS) == fields - {"type", "id", "action", "reason"}
    assert set(ADMIN_FIELDS) == {
        field for its, _ in ACTIONS.values() for field in its
    }


# A value of each argument, of an action that has it.
ARGUMENTS = {f: v for its, _ in ACTIONS.values() for f, v in its.items()}


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_takes_all_it_may_have_and_what_it_needs(
    action: str,
) -> None:
    whole, needed = ACTIONS[action]
    least = {field: whole[field] for field in needed}
    if action == "adjust":
        least["cash"] = whole["cash"]
    for its in (whole, least):
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
    with pytest.raises(ValueError, match="kill needs it"):
        Admin(action="kill", reason="x")


# Frames -------------------------------------------------------------------

PING = '{"type":"ping"}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\0",
        "{",
        "[",
        "]",
        "[{]",
        f"[{PING}",
        f"[{PING},]",
        f"{PING}{PING}",
        f"{PING}\n{PING}",
        f"{PING}\0",
        f"\ufeff{PING}",
        f"\xa0{PING}",
        f"\xa0[{PING}]",
        "{'type':'ping'}",
        '{"type":"ping",}',
        '{"type":"ping","id":"\n"}',
        '{"type":"ping","id":"\0"}',
        '{"type":"ping","id":"\\ud800"}',
        '{"type":"ping","id":"\ud800"}',
        '[{"type":"ping"},"\udfff"]',
        "\ud800",
        '{"type":"ping","id":01}',
        '{"type":"ping","id":+1}',
        '{"type":"ping","id":1' + "0" * 5_000 + "}",
        "[" * 100_000,
        "[" * 1_000 + "]" * 1_000,
        '{"a":' * 1_000 + "1" + "}" * 1_000,
        "login",
        b"",
        b"\xff",
        b"\xef\xbb\xbf" + PING.encode(),
        b'{"type":"ping","id":"\xff"}',
        b'{"type":"ping","id":"\xed\xa0\x80"}',
        PING.encode("utf-16"),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_what_is_no_json_gets_one_error_without_id(text: str | bytes) -> None:
    (decoded,) = decode_requests(text)
    error = bad_request(decoded)
    assert (error.id, error.field) == (None, None)
    assert len(error.message) < 200


@pytest.mark.parametrize(
    "text",
    [
        "5",
        "true",
        "null",
        '"ping"',
        "NaN",
        "-Infinity",
        f"[NaN,{PING}]",
        f'[{PING},{{"type":"ping","id":Infinity}}]',
        "1e400",
        "[]",
        " [ ] ",
        "[[]]",
        f"[[{PING}]]",
        f"[{PING},[{PING}]]",
        f"[{PING},[]]",
        "[" + ",".join([PING] * (MAX_FRAME + 1)) + "]",
        "[" + ",".join(["1"] * (MAX_FRAME + 1)) + "]",
        "[" * 100 + "]" * 100,
    ],
    ids=lambda text: text[:30],
)
def test_a_frame_of_the_wrong_shape_gets_one_error(text: str) -> None:
    (decoded,) = decode_requests(text)
    error = bad_request(decoded)
    assert (error.id, error.field) == (None, None)


@pytest.mark.parametrize(
    "text",
    [PING, PING.encode(), f" \t\r\n{PING}\n", f"[{PING}]", f" [ {PING} ] "],
)
def test_a_frame_is_a_message_or_an_array(text: str | bytes) -> None:
    assert decode_requests(text) == [Ping()]


def test_a_frame_may_be_full() -> None:
    pings = [Ping(id=n) for n in range(MAX_FRAME)]
    text = "[" + ",".join(map(encode, pings)) + "]"
    assert decode_requests(text) == pings
    last_is_bad = text.replace(f'"id":{MAX_FRAME - 1}', '"id":[]')
    *good, bad = decode_requests(last_is_bad)
    assert good == pings[:-1] and bad_request(bad).field == "id"


def test_a_bad_element_fails_alone_with_its_own_id() -> None:
    good = [Ping(id=1), CancelAll(id="last")]
    one, nine, text, number, bare, last = decode_requests(
        f'[{encode(good[0])}, {{"type":"ping","id":9,"x":1}},'
        f' "ping", 5, {{"id":"mine"}}, {encode(good[1])}]'
    )
    assert [one, last] == good
    assert bad_request(nine).id == 9
    assert bad_request(text).id is None
    assert bad_request(number).id is None
    assert (bad_request(bare).id, bare.field) == ("mine", "type")


@pytest.mark.parametrize("wrong", VALUES["id"][1], ids=repr)
def test_an_invalid_id_is_not_repeated(wrong: Any) -> None:
    assert bad_request(decode({"type": "ping", "id": wrong})).id is None
    assert bad_request(decode({"type": "nope", "id": wrong})).id is None


def test_of_duplicate_keys_the_last_wins() -> None:
    cases: dict[str, Request] = {
        '{"type":"ping","id":1,"id":2}': Ping(id=2),
        '{"type":"ping","id":[],"id":2}': Ping(id=2),
        '{"type":"place","type":"ping"}': Ping(),
        '{"type":5,"type":"ping"}': Ping(),
        '{"type":"cancel","order_id":1,"order_id":2}': Cancel(order_id=2),
    }
    for text, request in cases.items():
        assert decode_requests(text) == [request]
        one, again = decode_requests(f"[{text},1]")
        assert one == request and bad_request(again)
    (decoded,) = decode_requests('{"type":"ping","id":2,"id":[]}')
    assert bad_request(decoded).id is None


@pytest.mark.parametrize(
    "value",
    ["1e400", "-1e400", "1e5", "1.0", "-0.0"]
    + ["9" * 400, "-" + "9" * 4_000, "[" * 150 + "]" * 150, '"\\u0000"'],
    ids=lambda text: text[:20],
)
def test_odd_values_are_refused_by_name(value: str) -> None:
    text = f'{{"type":"cancel","id":"a","order_id":{value}}}'
    for decoded in (*decode_requests(text), decode_requests(f"[{text},1]")[0]):
        error = bad_request(decoded)
        assert (error.field, error.id) == ("order_id", "a")


def test_escapes_and_all_of_unicode_may_be_in_an_id() -> None:
    text = '{"type":"ping","id":"\\u0000\\n\\ud83d\\ude00\U0001f600\\u2028"}'
    assert decode_requests(text) == [Ping(id="\0\n\U0001f600\U0001f600\u2028")]


ONES = "1," * 30_000 + "1"
THOUSANDS = {
    "channels": f'"type":"subscribe","channels":[{ONES}]',
    "symbols": f'"type":"subscribe","channels":["book"],"symbols":[{ONES}]',
    "unsubscribed": f'"type":"unsubscribe","channels":[{ONES}]',
    "unknown": '"type":"ping",' + ",".join(f'"{n}":1' for n in range(6_000)),
}


@pytest.mark.parametrize("fields", THOUSANDS.values(), ids=THOUSANDS)
@pytest.mark.parametrize("shape", ["{%s}", "[{%s}]"])
def test_of_thousands_of_problems_one_is_made_out(
    fields: str, shape: str
) -> None:
    text = shape % fields
    (decoded,) = decode_requests(text)
    assert bad_request(decoded).field in ("channels", "symbols", "0")
    tracemalloc.start()
    try:
        decode_requests(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # To list them all takes 70 to 500 times as much as the text.
    assert peak < 30 * len(text)


def test_a_wrong_field_goes_before_an_unknown_one() -> None:
    error = bad_request(decode({"type": "cancel", "x": 1, "order_id": -1}))
    assert error.field == "order_id"
    error = bad_request(decode({"y": 1, "type": "ping", "x": 1}))
    assert error.field == "y"


# Secrets ------------------------------------------------------------------

TOKEN = "t0ps3cret"


def test_the_token_is_in_no_repr() -> None:
    login = decode({"type": "login", "user": "alice", "token": TOKEN})
    assert isinstance(login, Login) and login.token == TOKEN
    assert TOKEN not in repr(login) and TOKEN not in str([login])
    assert "alice" in repr(login)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"type":"login","user":"a b","token":"{TOKEN}"}}',
        f'{{"type":"login","user":"a","token":["{TOKEN}"]}}',
        f'{{"type":"login","user":"a","token":{{"{TOKEN}":1}}}}',
        f'{{"type":"login","user":"a","token":"{TOKEN * 20}"}}',
        f'{{"type":"login","user":"a","tokem":"{TOKEN}"}}',
        f'{{"type":"login","token":"{TOKEN}"}}',
        f'{{"type":"logon","user":"a","token":"{TOKEN}"}}',
        f'{{"user":"a","token":"{TOKEN}"}}',
        f'{{"type":"{TOKEN}"}}',
        f'{{"type":"login","user":"{TOKEN}!","token":5}}',
        f'{{"type":"login","user":"a","session":"{TOKEN * 20}"}}',
        f'{{"type":"login","user":"a","token":"{TOKEN}","last_seq":-1}}',
        f'{{"type":"login","user":"a","id":["{TOKEN}"]}}',
        f'{{"type":"ping","token":"{TOKEN}"}}',
        f'{{"type":"login","user":"a","token":"{TOKEN}"',
        f'{{"type":"login","user":"a","token":"{TOKEN}\n"}}',
        f'{{"type":"login","user":"a","token":"{TOKEN}"}} x',
        f'"{TOKEN}"',
        TOKEN,
    ],
)
def test_no_error_repeats_what_may_be_a_token(text: str) -> None:
    for frame in (text, text.encode(), f"[{text}]", f"[1,{text}]"):
        decoded = decode_requests(frame)[-1]
        error = bad_request(decoded)
        assert TOKEN not in repr(error) and TOKEN not in encode(error)


# Events -------------------------------------------------------------------

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
        symbol="BOND", seq=2, ts=9, trade_id=901, price=99, qty=4, side="sell"
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
    Status(ts=9, symbol="BOND", phase="halted", message="back at 15:00"),
    Heartbeat(ts=9, seq={"BOND": 8812, "@": 1291}),
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
    ]
    requests: dict[Request, str] = {
        Ping(): PING,
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
    }
    for request, text in requests.items():
        assert encode(request) == text


def test_an_instrument_shows_what_limits_it() -> None:
    (event,) = [event for event in EVENTS if isinstance(event, Welcome)]
    (told,) = json.loads(encode(event))["instruments"]
    assert told == dataclasses.asdict(INSTRUMENT)
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
    "order_status": ["new", "filled"],
    "order_type": ["limit", "market"],
    "time_in_force": ["gtc", "ioc", "gtd"],
    "stp": ["cancel_oldest", "cancel_both"],
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
        {"time_in_force": "gtd", "expire_ts": 9},
        {"post_only": True, "stp": "cancel_both"},
    ],
)
def test_the_report_of_a_resting_order_is_that_in_full(
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


# Anything at all ----------------------------------------------------------


def verify(text: str | bytes, decoded: list[Request | Error]) -> None:
    """Verify that each is a request, or an error that can be sent."""
    assert 1 <= len(decoded) <= MAX_FRAME, text
    for message in decoded:
        if isinstance(message, Error):
            bad_request(message)
            assert decode_events(encode(message)) == [message]
        else:
            assert decode_requests(encode(message)) == [message]


FIELD_NAMES = sorted({field for _, field in FIELDS} | {"x", ""})
ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs"]))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
# Requests that are nearly right: the names are known, the values may be.
ANY_VALUE = ANY_JSON | st.sampled_from(
    [value for taken, wrong in VALUES.values() for value in taken + wrong]
)
NEARLY = st.one_of(
    st.fixed_dictionaries(
        {"type": st.sampled_from([*FULL, "stop"])},
        optional={name: ANY_VALUE for name in FIELD_NAMES if name != "type"},
    ),
    st.sampled_from([{"type": name, **FULL[name]} for name in FULL]),
    st.builds(
        lambda case, value: message_with(*case, value),
        st.sampled_from(FIELDS),
        ANY_VALUE,
    ),
)


@settings(max_examples=400, deadline=None)
@given(ANY_TEXT | st.binary())
def test_no_text_and_no_bytes_raise_anything(text: str | bytes) -> None:
    verify(text, decode_requests(text))


@settings(max_examples=300, deadline=None)
@given(ANY_JSON | NEARLY | st.lists(ANY_JSON | NEARLY))
def test_no_json_raises_anything(frame: Any) -> None:
    for ensure_ascii in (True, False):
        text = json.dumps(frame, ensure_ascii=ensure_ascii)
        verify(text, decode_requests(text))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damaged_frame_raises_anything(data: st.DataObject) -> None:
    """A good frame with some bytes cut out and others put in."""
    frame = data.draw(st.lists(NEARLY, min_size=1, max_size=3))
    text = json.dumps(frame).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 9, len(text))))
    text = text[:start] + data.draw(st.binary(max_size=9)) + text[end:]
    verify(text, decode_requests(text))


@settings(max_examples=300, deadline=None)
@given(st.lists(NEARLY, min_size=1, max_size=5))
def test_an_element_is_judged_as_if_it_were_alone(
    frame: list[JsonObject],
) -> None:
    assume("NaN" not in json.dumps(frame))  # which is no JSON
    assume("Infinity" not in json.dumps(frame))
    alone = [decode(message) for message in frame]
    assert decode_requests(json.dumps(frame)) == alone
