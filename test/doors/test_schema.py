"""The JSON Schema agrees with the protocol document and the codec."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from exchange.doors.schema import protocol_schema
from orderbook import EVENT_TYPES, REQUEST_TYPES, Error, decode_requests
from test.host.test_metrics import fetch
from test.support import serving
from test.test_docs import PROTOCOL, frames

SCHEMA = json.loads(json.dumps(protocol_schema()))


def problems(message: Any, kind: str = "") -> list[str]:
    """Return the errors of a frame, or of one kind of message."""
    schema = {**SCHEMA, "oneOf": [{"$ref": f"#/$defs/{kind}"}]}
    validator = Draft202012Validator(schema if kind else SCHEMA)
    return [error.message for error in validator.iter_errors(message)]


def test_it_is_a_schema_of_every_message() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert {*REQUEST_TYPES, *EVENT_TYPES} < set(SCHEMA["$defs"])


@pytest.mark.parametrize("kind", ["request", "event"])
def test_every_example_of_the_protocol_is_valid(kind: str) -> None:
    for frame in frames(PROTOCOL, f"json {kind}"):
        message = json.loads(frame)
        assert not problems(message), frame
        for element in message if isinstance(message, list) else [message]:
            assert not problems(element, kind), frame


@pytest.mark.parametrize(
    "change",
    [
        {"qty": 0},
        {"qty": "5"},
        {"qty": 5.5},
        {"qty": None},
        {"price": None},
        {"price": 2**53},
        {"side": "hold"},
        {"symbol": "bond"},
        {"post_only": 1},
        {"colour": "red"},
        {"type": "plaice"},
        {"id": [1]},
        {"client_order_id": "x" * 37},
    ],
    ids=str,
)
def test_a_request_that_the_codec_refuses_is_invalid(
    change: dict[str, Any],
) -> None:
    order = {"type": "place", "side": "buy", "qty": 1, "price": 1}
    assert not problems(order, "request")
    assert problems({**order, **change}, "request")
    [error] = decode_requests(json.dumps({**order, **change}))
    assert isinstance(error, Error)


@pytest.mark.parametrize("name", ["type", "side", "qty"])
def test_a_missing_field_is_noticed(name: str) -> None:
    order = {"type": "place", "side": "buy", "qty": 1, "price": 1}
    del order[name]
    assert problems(order, "request")


async def test_it_is_served() -> None:
    async with serving() as server:
        status, content_type, body = await fetch(server, "/schema.json")
    assert (status, content_type) == (200, "application/schema+json")
    assert json.loads(body) == SCHEMA
