"""Requests with every field, and good and wrong values of each field.

A field that is in no table fails the walk, so a new one cannot be forgotten.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from orderbook import (
    MAX_INT,
    MAX_ROWS,
    REQUEST_TYPES,
    Error,
    Request,
    decode_requests,
)

JsonObject = dict[str, Any]

# A request of each type with every field that can stand beside the others,
# and the fields that a field needs beside it: see `message_with`.
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
        "display_qty": 5,
    },
    "amend": {
        "order_id": 5512,
        "price": 98,
        "qty": 12,
        "expire_ts": 1795340157532308,
        "trigger_price": 97,
        "display_qty": 5,
    },
    "cancel": {"order_id": 5512},
    "cancel_all": {"symbol": "BOND", "side": "sell"},
    "cancel_after": {"timeout_ms": 30_000},
    "convert": {
        "symbol": "ETF",
        "side": "buy",
        "qty": 20,
        "client_order_id": "mm-18",
    },
    "tender": {"tender_id": "t-1"},
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
        "client_request_id": "boss-1",
        "action": "adjust",
        "reason": "prize of round 1",
        "user": "alice",
        "cash": -500,
        "symbol": "BOND",
        "qty": -3,
    },
}
# Each action of an administrator: a request with every argument that it
# may have, and those that it needs.
ACTIONS: dict[str, tuple[JsonObject, list[str]]] = {
    "phase": (
        {"symbol": "BOND", "phase": "halted", "reopen_ms": 5_000},
        ["phase"],
    ),
    "suspend": ({"user": "mallory"}, ["user"]),
    "resume": ({"user": "mallory"}, ["user"]),
    "kill": ({"user": "mallory"}, ["user"]),
    "unkill": ({"user": "mallory"}, ["user"]),
    "cancel": ({"order_id": 5512}, ["order_id"]),
    "adjust": (
        {"user": "alice", "cash": -500, "symbol": "BOND", "qty": -3},
        ["user"],
    ),
    "settle": ({"symbol": "BOND", "price": 104}, []),
    "reset": ({}, []),
    "message": ({"message": "hello", "symbol": "BOND"}, ["message"]),
    "news": (
        {
            "headline": "hello",
            "symbol": "BOND",
            "body": "two\nlines",
            "value": -5,
        },
        ["headline"],
    ),
    "dividend": ({"symbol": "BOND", "amount": 5}, ["symbol", "amount"]),
    "tender": (
        {
            "tender_id": "t-1",
            "symbol": "BOND",
            "side": "buy",
            "qty": 50,
            "price": 99,
            "valid_ms": 15_000,
            "user": "alice",
        },
        ["tender_id", "symbol", "side", "qty", "price", "valid_ms"],
    ),
    "close_out": (
        {"user": "alice", "prices": {"BOND": 99}},
        ["user", "prices"],
    ),
    "bust": ({"symbol": "BOND", "trade_id": 7}, ["symbol", "trade_id"]),
    "reference": ({"symbol": "BOND", "price": 99}, ["symbol", "price"]),
    "match": (
        {
            "name": "Spring A/03",
            "round": "A",
            "teams": ["ORANGE", "APPLE"],
            "fair_sha256": "0f" * 32,
        },
        ["name"],
    ),
}
# What some actions take instead.
INSTEAD: dict[str, JsonObject] = {
    "phase": {"symbol": "BOND", "phase": "open", "close_ms": 60_000},
    "settle": {"prices": {"BOND": 104, "ETF": 0}},
}
REQUIRED = {
    "login": ["user"],
    "place": ["side", "qty"],
    "cancel_after": ["timeout_ms"],
    "subscribe": ["channels"],
    "unsubscribe": ["channels"],
    "get": ["what"],
    "convert": ["symbol", "side", "qty"],
    "tender": ["tender_id"],
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
NO_LINES = [*NO_STRING, "", "x" * 2_001, "a\tb", "\x1b[2K", "\x85"]
NO_NAME = [*NO_STRING, "", "a b", "a/b", "é", "a\n", "\0", "@a", "٠", "a,b"]

# Good and wrong values, by field or by request and field.
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
    "order_type": (["limit"], [*NO_WORD, "trailing", "stop-limit"]),
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
        + ["account", "positions", "fills", "orders", "news", "statuses"],
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
    "amount": ([0, -1, MAX_INT, -MAX_INT], NO_PRICE),
    "value": ([0, -1, MAX_INT, -MAX_INT], NO_PRICE),
    "trigger_price": ([0, -1, MAX_INT, -MAX_INT], NO_PRICE),
    "place.trigger_price": ([], NO_PRICE),
    "display_qty": ([1, MAX_INT], [*NO_COUNT, 0]),
    "tender_id": (["a", "t-1", "A.b_c:9", "x" * 36], [*NO_NAME, "x" * 37]),
    "client_request_id": (
        ["a", "r-1", "A.b_c:9", "x" * 36],
        [*NO_NAME, "x" * 37],
    ),
    "trade_id": ([0, 1, MAX_INT], NO_COUNT),
    "headline": (["x", "é" * 200, '"\\,}{'], NO_TEXT),
    "name": (["x", "é" * 200, '"\\,}{'], NO_TEXT),
    "round": (["2", "é" * 200, '"\\,}{'], NO_TEXT),
    "teams": (
        [["A"], ["ORANGE", "APPLE"], ["x" * 32]],
        [5, "A", None, {}, [], [5], ["A", None], ["a b"], ["A", "A"]],
    ),
    "fair_sha256": (
        ["0" * 64, "0123456789abcdef" * 4],
        [*NO_STRING, "0" * 63, "0" * 65, "F" * 64],
    ),
    "body": (["x", "é" * 2_000, "a\n\nb"], NO_LINES),
    "close_ms": (
        [1_000, 86_400_000],
        [*NO_COUNT, 0, 1, 999, 86_400_001],
    ),
    "valid_ms": (
        [1_000, 86_400_000],
        [*NO_COUNT, 0, 1, 999, 86_400_001],
    ),
    "prices": (
        [{"BOND": 0}, {"A": -5, "B": MAX_INT}],
        [*NO_STRING, {}, {"bond": 1}, {"A": "5"}, {"A": 1.0}, {"A": None}],
    ),
    "admin.qty": ([0, -1, MAX_INT, -MAX_INT], NO_PRICE),
}


def values(name: str, field: str) -> tuple[list[Any], list[Any]]:
    """Return the good and the wrong values of a request's field."""
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
    """Return an administrator's request with one field set."""
    actions = [a for a, (its, _) in ACTIONS.items() if field in its]
    action = actions[0] if actions else FULL["admin"]["action"]
    if field == "action" and value in list(ACTIONS):
        action = value
    its = dict(ACTIONS[action][0])
    if field == "phase":
        del its["reopen_ms"]
    if not actions and field in INSTEAD["phase"]:
        action, its = "phase", INSTEAD["phase"]
    if field == "prices":
        action, its = "settle", {}
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
