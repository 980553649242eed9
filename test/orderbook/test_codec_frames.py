"""Frames: JSON or not, arrays, secrets in errors, and anything at all."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from orderbook import (
    MAX_FRAME,
    Cancel,
    CancelAll,
    Error,
    Login,
    Ping,
    Request,
    decode_events,
    decode_requests,
    encode,
)
from test.orderbook.values import (
    FIELDS,
    FULL,
    VALUES,
    JsonObject,
    bad_request,
    decode,
    message_with,
)

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
def test_a_frame_that_is_no_json_gets_one_error_without_id(
    text: str | bytes,
) -> None:
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


def test_the_last_of_duplicate_keys_wins() -> None:
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
def test_one_of_thousands_of_problems_is_named(
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
    # A list of all of them is 70 to 500 times as large as the text.
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
    st.builds(
        lambda name, fields: {**fields, "type": name},
        st.sampled_from([*FULL, "stop"]),
        st.dictionaries(st.sampled_from(FIELD_NAMES), ANY_VALUE, max_size=6),
    ),
    st.sampled_from([{"type": name, **FULL[name]} for name in FULL]),
    st.builds(
        lambda case, value: message_with(*case, value),
        st.sampled_from(FIELDS),
        ANY_VALUE,
    ),
)


@settings(max_examples=400)
@given(ANY_TEXT | st.binary())
def test_no_text_and_no_bytes_raise_anything(text: str | bytes) -> None:
    verify(text, decode_requests(text))


@settings(max_examples=300)
@given(ANY_JSON | NEARLY | st.lists(ANY_JSON | NEARLY))
def test_no_json_raises_anything(frame: Any) -> None:
    for ensure_ascii in (True, False):
        text = json.dumps(frame, ensure_ascii=ensure_ascii)
        verify(text, decode_requests(text))


@settings(max_examples=300)
@given(st.data())
def test_no_damaged_frame_raises_anything(data: st.DataObject) -> None:
    """A good frame with some bytes cut out and others put in."""
    frame = data.draw(st.lists(NEARLY, min_size=1, max_size=3))
    text = json.dumps(frame).encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 9, len(text))))
    text = text[:start] + data.draw(st.binary(max_size=9)) + text[end:]
    verify(text, decode_requests(text))


@settings(max_examples=300)
@given(st.lists(NEARLY, min_size=1, max_size=5))
def test_an_element_is_judged_as_a_frame_of_its_own(
    frame: list[JsonObject],
) -> None:
    assume("NaN" not in json.dumps(frame))  # which is no JSON
    assume("Infinity" not in json.dumps(frame))
    alone = [decode(message) for message in frame]
    assert decode_requests(json.dumps(frame)) == alone
