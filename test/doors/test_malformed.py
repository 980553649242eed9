"""Malformed input gets a reply or a close code, and changes nothing.

Meanwhile another client trades. A refusal names the field; bytes that are no
message end the connection with a close code.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.frames import TEXT, Frame

from exchange.doors.tcp import MAX_MESSAGE
from exchange.market.command import Command, Output, TimePassed
from exchange.market.engine import Engine
from orderbook import (
    MAX_FRAME,
    MAX_INT,
    REQUEST_TYPES,
    Admin,
    Amend,
    Cancel,
    CancelAfter,
    CancelAll,
    Error,
    Place,
    decode_requests,
)
from server import Server
from test.support import (
    PATIENCE_S,
    Wire,
    order,
    serving,
    state_of,
    wired,
    words,
)

Message = dict[str, Any]


class Market:
    """An exchange with orders in its book, and a client that trades."""

    def __init__(self, server: Server, healthy: Wire, hostile: Wire) -> None:
        self.server = server
        self.healthy = healthy
        self.hostile = hostile
        self.before: Any = None

    async def still_trades(self) -> None:
        """Check that only the trading client has changed the market."""
        assert state_of(self.server) == self.before
        (new,) = await self.healthy.ask(**order("buy", 1, 40, id="n"))
        assert new["exec_type"] == "new" and new["id"] == "n"
        (end,) = await self.healthy.ask(
            type="cancel", order_id=new["order_id"]
        )
        assert end["exec_type"] == "canceled"


@pytest.fixture
async def market() -> AsyncIterator[Market]:
    async with serving() as server:
        async with (
            wired(server.url, "alice") as healthy,
            wired(server.url, "mallory") as hostile,
        ):
            await healthy.ask(**order("buy", 5, 90, client_order_id="mine"))
            await hostile.ask(**order("sell", 5, 110, client_order_id="a"))
            await hostile.ask(**order("sell", 3, 90))
            await healthy.ask(type="ping")
            market = Market(server, healthy, hostile)
            market.before = state_of(server)
            yield market
            await market.still_trades()


# Invalid requests --------------------------------------------------------

# Requests in which each field is valid by itself.
GOOD: dict[str, Message] = {
    "login": {
        "user": "mallory",
        "token": "t",
        "cancel_on_disconnect": True,
        "session": "s",
        "last_seq": 1,
    },
    "place": {
        "symbol": "BOND",
        "side": "buy",
        "qty": 1,
        "price": 100,
        "order_type": "limit",
        "time_in_force": "gtd",
        "expire_ts": MAX_INT,
        "post_only": False,
        "stp": "cancel_both",
        "client_order_id": "b",
        "trigger_price": 100,
        "display_qty": 1,
    },
    "amend": {
        "order_id": 2,
        "client_order_id": "a",
        "price": 111,
        "qty": 9,
        "expire_ts": MAX_INT,
        "trigger_price": 100,
        "display_qty": 1,
    },
    "cancel": {"order_id": 2, "client_order_id": "a"},
    "cancel_all": {"symbol": "BOND", "side": "sell"},
    "cancel_after": {"timeout_ms": 1_000},
    "convert": {
        "symbol": "BOND",
        "side": "buy",
        "qty": 1,
        "client_order_id": "b",
    },
    "tender": {"tender_id": "t-1"},
    "subscribe": {"channels": ["book"], "symbols": ["BOND"]},
    "unsubscribe": {"channels": ["book"], "symbols": ["BOND"]},
    "get": {
        "what": "trades",
        "symbol": "BOND",
        "after": 0,
        "limit": 1,
        "interval": "1m",
    },
    "ping": {},
    "admin": {
        "action": "adjust",
        "reason": "why",
        "symbol": "BOND",
        "phase": "halted",
        "reopen_ms": 1_000,
        "user": "alice",
        "order_id": 1,
        "cash": 1,
        "qty": 1,
        "price": 100,
        "message": "hello",
        "client_request_id": "r-1",
        "close_ms": 1_000,
        "prices": {"BOND": 100},
        "headline": "hello",
        "body": "hello",
        "value": 1,
        "amount": 1,
        "tender_id": "t-1",
        "side": "buy",
        "valid_ms": 1_000,
        "trade_id": 1,
        "name": "match A/03",
        "round": "A",
        "teams": ["alice"],
        "fair_sha256": "0" * 64,
    },
}
# Values that every field of every request refuses.
NEVER: list[Any] = [None, 1.0, -1.5, 1e300, {}, {"a": 1}, [[]], [None]]
# Values that the fields of one type refuse besides.
NO_INTEGER = ["1", "", "1_000", True, False, [], [1], 2**53, -(2**53), 10**40]
NO_STRING = [1, 0, True, [], ["BOND"], "\0", "a\nb", "é", " ", "x" * 200]
NO_BOOL = [0, 1, "true", "", []]
NO_LIST = ["book", 1, True, [], ["x", ""], [1], [["book"]], {"book": 1}]
NO_OBJECT = ["BOND", 1, True, [], ["BOND"], {"BOND": "1"}, {"bond": 1}]
KINDS = {
    bool: NO_BOOL,
    int: NO_INTEGER,
    str: NO_STRING,
    list: NO_LIST,
    dict: NO_OBJECT,
}
# Fields that accept any text up to a length.
FREE_TEXT = {
    "token": [1, True, [], "x" * 129],
    "session": [1, [], "x" * 37],
    "reason": [1, [], "", "x" * 201],
    "message": [1, [], "", "x" * 201],
    "headline": [1, [], "", "x" * 201],
    "body": [1, [], "", "x" * 2_001],
    "name": [1, [], "", "x" * 201],
    "round": [1, [], "", "x" * 201],
}
# A request has one field of a pair: a case with one wrong omits the other.
PARTNERS = {"order_id": "client_order_id", "client_order_id": "order_id"}


def damaged() -> list[tuple[str, Message]]:
    """Return the name of each field with a request in which it is wrong."""
    cases: list[tuple[str, Message]] = []
    for name, fields in GOOD.items():
        for field, value in fields.items():
            wrong = FREE_TEXT.get(field, KINDS[type(value)])
            rest = {
                k: v for k, v in fields.items() if PARTNERS.get(k) != field
            }
            for bad in [*NEVER, *wrong]:
                cases.append((field, {"type": name, **rest, field: bad}))
        whole = {k: v for k, v in fields.items() if k != "client_order_id"}
        for field in ("colour", "stop", "Price", ""):
            cases.append((field, {"type": name, **whole, field: 1}))
    return cases


def test_the_table_has_every_field_of_every_request() -> None:
    assert {
        name: {f.name for f in dataclasses.fields(cls)} - {"type", "id"}
        for name, cls in REQUEST_TYPES.items()
    } == {name: set(fields) for name, fields in GOOD.items()}


@pytest.mark.parametrize("with_login", [True, False])
async def test_every_field_with_every_wrong_value(
    market: Market, with_login: bool
) -> None:
    cases = damaged()
    assert len(cases) > 400
    wire = market.hostile
    async with wired(market.server.url) as stranger:
        if not with_login:
            wire = stranger
        for start in range(0, len(cases), MAX_FRAME):
            part = cases[start : start + MAX_FRAME]
            await wire.send(
                *(
                    {**request, "id": start + index}
                    for index, (_, request) in enumerate(part)
                )
            )
            for index, (field, request) in enumerate(part):
                reply = await wire.receive()
                assert reply["type"] == "error", (request, reply)
                assert reply["code"] == "bad_request", (request, reply)
                assert reply["id"] == start + index
                assert reply["field"] == field, (request, reply)
                assert len(reply["message"]) < 300
        assert words(await wire.ask(type="ping")) == ["ok"]


@pytest.mark.parametrize(
    "field, request_",
    [
        ("type", {}),
        ("type", {"type": None}),
        ("type", {"type": 5}),
        ("type", {"type": ["ping"]}),
        ("type", {"type": "Ping"}),
        ("type", {"type": "stop_limit"}),
        ("type", {"type": "exec"}),
        ("type", {"type": "welcome"}),
        ("type", {"type": "x" * 5_000}),
        ("type", {"kind": "ping"}),
        ("user", {"type": "login"}),
        ("user", {"type": "login", "user": "@exchange"}),
        ("user", {"type": "login", "user": "x" * 33}),
        ("user", {"type": "login", "user": "a b"}),
        ("side", {"type": "place", "qty": 1, "price": 1}),
        ("qty", {"type": "place", "side": "buy", "price": 1}),
        ("price", {"type": "place", "side": "buy", "qty": 1}),
        ("price", order("buy", 1, 1, order_type="market")),
        ("qty", order("buy", 0, 1)),
        ("qty", order("buy", -1, 1)),
        ("price", order("buy", 1, 1, order_type="stop")),
        ("order_type", order("buy", 1, 1, order_type="trailing")),
        ("time_in_force", order("buy", 1, 1, time_in_force="GTC")),
        ("post_only", order("buy", 1, 1, post_only=True, time_in_force="fok")),
        ("expire_ts", order("buy", 1, 1, time_in_force="gtd")),
        ("expire_ts", order("buy", 1, 1, expire_ts=MAX_INT)),
        ("client_order_id", order("buy", 1, 1, client_order_id="x" * 37)),
        ("client_order_id", order("buy", 1, 1, client_order_id="")),
        ("order_id", {"type": "cancel"}),
        (
            "order_id",
            {"type": "cancel", "order_id": 2, "client_order_id": "a"},
        ),
        ("order_id", {"type": "amend", "price": 1}),
        ("price", {"type": "amend", "order_id": 2}),
        ("qty", {"type": "amend", "order_id": 2, "qty": 0}),
        ("timeout_ms", {"type": "cancel_after"}),
        ("timeout_ms", {"type": "cancel_after", "timeout_ms": 999}),
        ("timeout_ms", {"type": "cancel_after", "timeout_ms": 86_400_001}),
        ("timeout_ms", {"type": "cancel_after", "timeout_ms": -1}),
        ("channels", {"type": "subscribe"}),
        ("channels", {"type": "subscribe", "channels": ["books"]}),
        (
            "symbols",
            {"type": "subscribe", "channels": ["book"], "symbols": []},
        ),
        ("what", {"type": "get"}),
        ("what", {"type": "get", "what": "secrets"}),
        ("limit", {"type": "get", "what": "trades", "limit": 0}),
        ("limit", {"type": "get", "what": "trades", "limit": 1_001}),
        ("after", {"type": "get", "what": "trades", "after": -1}),
        ("interval", {"type": "get", "what": "candles", "interval": "1w"}),
        ("action", {"type": "admin", "reason": "x"}),
        ("action", {"type": "admin", "reason": "x", "action": "halt"}),
        ("reason", {"type": "admin", "action": "reset"}),
        ("reason", {"type": "admin", "action": "reset", "reason": ""}),
        ("user", {"type": "admin", "action": "suspend", "reason": "x"}),
        (
            "user",
            {
                "type": "admin",
                "action": "adjust",
                "reason": "x",
                "user": "@exchange",
                "cash": 1,
            },
        ),
        (
            "phase",
            {
                "type": "admin",
                "action": "phase",
                "reason": "x",
                "phase": "lunch",
            },
        ),
        (
            "symbol",
            {
                "type": "admin",
                "action": "reset",
                "reason": "x",
                "symbol": "BOND",
            },
        ),
    ],
)
async def test_an_invalid_request(
    market: Market, field: str, request_: Message
) -> None:
    (reply,) = await market.hostile.ask(**request_, id=5)
    assert reply["code"] == "bad_request" and reply["id"] == 5
    assert reply["field"] == field and reply["message"]


@pytest.mark.parametrize(
    "request_id",
    ["x" * 37, "x" * 60_000, 2**53, -(2**53), 1e5, True, None, [], [1], {}],
)
async def test_an_invalid_id_is_not_echoed(
    market: Market, request_id: Any
) -> None:
    await market.hostile.send({"type": "cancel_all", "id": request_id})
    reply = await market.hostile.receive()
    assert reply["code"] == "bad_request" and reply["field"] == "id"
    assert "id" not in reply and len(reply["message"]) < 300


# Frames without requests -------------------------------------------------

CANCEL = '{"type":"cancel_all"}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\0",
        "{",
        "[",
        "]",
        "null",
        "true",
        "5",
        '"cancel_all"',
        "cancel_all",
        "NaN",
        "{}x",
        CANCEL + CANCEL,
        CANCEL + "\n" + CANCEL,
        CANCEL + ",",
        f"[{CANCEL},]",
        f"[{CANCEL}",
        f"[{CANCEL}{CANCEL}]",
        "[]",
        "[[]]",
        f"[[{CANCEL}]]",
        f"[{CANCEL},[{CANCEL}]]",
        f"[{','.join([CANCEL] * (MAX_FRAME + 1))}]",
        f"[{','.join([CANCEL] * 2_000)}]",
        "[" * 30_000,
        "[" * 30_000 + "]" * 30_000,
        '{"a":' * 10_000,
        '{"a":' * 10_000 + "1" + "}" * 10_000,
        "\ufeff" + CANCEL,
        "{'type':'cancel_all'}",
        '{"type":"cancel_all\\ud800"}'[:-1],
        '{"type":"cancel\tall"}\0',
        "9" * 60_000,
        "-",
        "x" * MAX_MESSAGE,
    ],
    ids=lambda text: repr(text[:24]),
)
async def test_a_frame_that_is_no_request_gets_one_error(
    market: Market, text: str
) -> None:
    await market.hostile.connection.send(text)
    (error,) = await market.hostile.frame()
    assert error["code"] == "bad_request" and "id" not in error
    assert len(error["message"]) < 300
    assert words(await market.hostile.ask(type="ping")) == ["ok"]


@pytest.mark.parametrize(
    "field, text",
    [
        ("id", '"id":1e300'),
        ("id", '"id":' + "9" * 4_000),
        ("timeout_ms", '"timeout_ms":1e3'),
        ("timeout_ms", '"timeout_ms":1000.0'),
        ("timeout_ms", '"timeout_ms":-0.0'),
        ("timeout_ms", '"timeout_ms":5000,"timeout_ms":5'),
        ("type", '"timeout_ms":0,"type":"nonsense"'),
        ("x\0", '"timeout_ms":0,"x\\u0000":1'),
        ("k" * 40, '"timeout_ms":0,"' + "k" * 50_000 + '":1'),
        ("deep", '"timeout_ms":0,"deep":' + "[" * 150 + "]" * 150),
        (None, '"timeout_ms":NaN'),
        (None, '"timeout_ms":-Infinity'),
        (None, '"timeout_ms":01000'),
        (None, '"timeout_ms":+1000'),
        (None, '"timeout_ms":0x3e8'),
        (None, '"timeout_ms":1_000'),
        (None, '"timeout_ms":1000,'),
        (None, '"timeout_ms":1000,"id":"\\ud800"'),
        (None, '"timeout_ms":1000,"id":"\\x"'),
        (None, '"timeout_ms":1000,"id":"\n"'),
        (None, '"timeout_ms":1000,"deep":' + "[" * 9_000 + "]" * 9_000),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_odd_json(market: Market, field: str | None, text: str) -> None:
    await market.hostile.connection.send('{"type":"cancel_after",%s}' % text)
    (error,) = await market.hostile.frame()
    assert error["code"] == "bad_request" and error.get("field") == field
    assert len(error["message"]) < 300
    assert words(await market.hostile.ask(type="ping")) == ["ok"]


async def test_good_requests_among_bad_ones_are_carried_out(
    market: Market,
) -> None:
    hostile = market.hostile
    requests: list[Any] = [
        5,
        None,
        "ping",
        {"type": "ping", "id": 3},
        {},
        {"type": "ping", "id": 5, "x": None},
        {"type": "ping", "id": 6},
    ]
    await hostile.connection.send(json.dumps(requests))
    replies = await hostile.take(len(requests))
    assert [reply.get("id") for reply in replies] == [
        *(None, None, None, 3, None, 5, 6)
    ]
    assert words(replies) == ["bad_request"] * 3 + ["ok"] + [
        *("bad_request", "bad_request", "ok")
    ]


async def test_no_reply_has_a_token(
    market: Market, caplog: pytest.LogCaptureFixture
) -> None:
    login = {"type": "login", "user": "mallory", "token": "s3cret"}
    async with wired(market.server.url) as wire:
        for change in (
            {"user": 5},
            {"token": ["s3cret"]},
            {"token": "s3cret" * 40},
            {"more": "s3cret"},
            {"type": "logon"},
        ):
            (error,) = await wire.ask(**{**login, **change})
            assert error["code"] == "bad_request"
            assert "s3cret" not in json.dumps(error)
        await wire.connection.send(json.dumps(login)[:-1])
        assert "s3cret" not in json.dumps(await wire.receive())
    assert "s3cret" not in caplog.text


# Frames without messages -------------------------------------------------


async def test_a_binary_frame_ends_the_connection(market: Market) -> None:
    async with wired(market.server.url, "eve") as wire:
        market.before = state_of(market.server)
        await wire.connection.send(CANCEL.encode())
        assert await wire.rest() == ([], 1003)
    await gone(market)


async def test_a_message_too_long_ends_the_connection(market: Market) -> None:
    async with wired(market.server.url, "eve") as wire:
        await wire.connection.send(" " * (MAX_MESSAGE + 1))
        assert await wire.rest() == ([], 1009)
    await gone(market)


async def test_fragments_too_long_end_the_connection(market: Market) -> None:
    async with wired(market.server.url, "eve") as wire:
        await wire.connection.send([" " * 1_000] * (MAX_MESSAGE // 1_000 + 1))
        assert await wire.rest() == ([], 1009)
    await gone(market)


@pytest.mark.parametrize(
    "text", [b"\xff", b'{"type":"ping","id":"\xc3"}', b"\xed\xa0\x80"]
)
async def test_invalid_utf8_ends_the_connection(
    market: Market, text: bytes
) -> None:
    async with wired(market.server.url, "eve") as wire:
        frame = Frame(TEXT, text).serialize(mask=True)
        wire.connection.transport.write(frame)
        assert await wire.rest() == ([], 1007)
    await gone(market)


async def test_invalid_frames_end_their_connection(
    market: Market,
) -> None:
    async with wired(market.server.url, "eve") as wire:
        wire.connection.transport.write(b"\xff" * 100)
        assert await wire.rest() == ([], 1002)
    await gone(market)


async def test_an_unmasked_frame_ends_the_connection(market: Market) -> None:
    async with wired(market.server.url, "eve") as wire:
        frame = Frame(TEXT, CANCEL.encode()).serialize(mask=False)
        wire.connection.transport.write(frame)
        assert await wire.rest() == ([], 1002)
    await gone(market)


async def test_requests_before_a_bad_frame_count(market: Market) -> None:
    async with wired(market.server.url, "eve") as wire:
        frames = [
            Frame(TEXT, json.dumps(order("buy", 1, 10)).encode()),
            Frame(TEXT, b"\xff"),
            Frame(TEXT, json.dumps(order("buy", 1, 11)).encode()),
        ]
        data = b"".join(frame.serialize(mask=True) for frame in frames)
        wire.connection.transport.write(data)
        _, code = await wire.rest()
        assert code == 1007
    engine = market.server.gateway.engine
    await gone(market)
    assert list(engine.accounts["eve"].orders) == [4]


async def gone(market: Market) -> None:
    """Wait until the exchange has carried out all requests of "eve"."""
    engine = market.server.gateway.engine
    async with asyncio.timeout(PATIENCE_S):
        while any(
            session.connected
            for session in engine.accounts["eve"].sessions.values()
        ):
            await market.healthy.ask(type="ping")
    seq, books, accounts = state_of(market.server)
    assert books == market.before[1]
    for name in ("alice", "mallory"):
        assert accounts[name] == market.before[2][name]
    market.before = seq, books, accounts


async def test_noise_instead_of_a_handshake(market: Market) -> None:
    dice = random.Random(11)
    for size in (0, 1, 10, 1_000, 20_000):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", market.server.port
        )
        writer.write(dice.randbytes(size) + b"\r\n\r\n")
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            try:
                await reader.read()
            except ConnectionError:
                pass
        writer.close()
        try:
            await writer.wait_closed()
        except ConnectionError:
            pass


# Random requests ---------------------------------------------------------

SEED = 20
ELEMENTS = 10_000
ELEMENTS_PER_FRAME = MAX_FRAME // 2
JUNK: list[Any] = [
    *(None, True, 0, -1, 1, 5, 2**53, 10**30, 1.5, -0.0, 1e300),
    *("", "a", "buy", "sell", "BOND", "x" * 40, "\0", "é", "\u202e", "1"),
    *([], [1], ["book"], {}, {"a": {"b": []}}),
]


def some_request(dice: random.Random) -> Message:
    """Return a request that is probably valid and has an effect."""
    side, price = dice.choice(["buy", "sell"]), dice.randint(95, 105)
    place = order(side, dice.randint(1, 9), price)
    order_id = {"order_id": dice.randint(1, 600)}
    requests: list[Message] = [
        place,
        place,
        {**place, "time_in_force": dice.choice(["ioc", "fok", "gtc"])},
        {**place, "client_order_id": f"c{dice.randint(1, 300)}"},
        {**place, "post_only": True, "stp": "cancel_both"},
        {**place, "time_in_force": "gtd", "expire_ts": MAX_INT},
        {"type": "place", "side": side, "qty": 2, "order_type": "market"},
        {"type": "amend", **order_id, "price": price},
        {"type": "amend", **order_id, "qty": dice.randint(1, 9)},
        {"type": "cancel", **order_id},
        {"type": "cancel", "client_order_id": f"c{dice.randint(1, 300)}"},
        {"type": "cancel_all", "side": side},
        {"type": "cancel_after", "timeout_ms": 86_400_000},
        {"type": "get", "what": "trades", "limit": 2},
        {"type": "get", "what": "orders", "after": 5, "limit": 2},
        {"type": "get", "what": "book"},
        {"type": "unsubscribe", "channels": ["book"]},
        {"type": "login", "user": "eve"},
        {"type": "ping"},
        {"type": "admin", "action": "reset", "reason": "x"},
        {"type": "admin", "action": "suspend", "reason": "x", "user": "alice"},
    ]
    return dice.choice(requests)


def some_element(dice: random.Random) -> Any:
    """Return a request that is damaged in most cases."""
    if dice.random() < 0.05:
        junk = dice.choice(JUNK)
        return {} if isinstance(junk, list) else junk  # no nested array
    request = some_request(dice)
    if dice.random() < 0.7:
        request["id"] = dice.choice([7, "seven", "", -1])
    while dice.random() < 0.5:
        name = dice.choice([*request, "price", "id", "symbol", "x"])
        match dice.randrange(4):
            case 0:
                request.pop(name, None)
            case 1:
                request[name] = dice.choice(JUNK)
            case 2:
                request[name] = dice.choice(list(some_request(dice).values()))
            case 3:
                request.update(some_request(dice))
    return request


async def test_every_element_gets_one_reply(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine gets only the valid requests, in order."""
    dice = random.Random(SEED)
    applied: list[Any] = []
    apply = Engine.apply

    def spy(engine: Engine, command: Command) -> list[Output]:
        if command.account == "mallory" and not isinstance(
            command.action, TimePassed
        ):
            applied.append(command.action)
        return apply(engine, command)

    monkeypatch.setattr(Engine, "apply", spy)
    private = (Place, Amend, Cancel, CancelAll, CancelAfter)
    expected: list[Any] = []
    async with serving() as server:
        async with (
            wired(server.url, "alice") as healthy,
            wired(server.url, "mallory") as hostile,
        ):
            applied.clear()
            for _ in range(ELEMENTS // ELEMENTS_PER_FRAME):
                elements = [
                    some_element(dice) for _ in range(ELEMENTS_PER_FRAME)
                ]
                await healthy.ask(**order("buy", 3, 99))
                await healthy.ask(**order("sell", 3, 101))
                await hostile.ask(type="ping")
                frame: list[Any] = []
                for index, element in enumerate(elements):
                    frame += element, {"type": "ping", "id": f"after {index}"}
                await hostile.connection.send(json.dumps(frame))
                for index, element in enumerate(elements):
                    replies = await up_to(hostile, f"after {index}")
                    (request,) = decode_requests(json.dumps(element))
                    judge(element, request, replies)
                    if isinstance(request, private):
                        expected.append(request)
                for listing in server.gateway.engine.listings.values():
                    listing.book.check()
            assert applied == expected
            assert len(expected) > ELEMENTS // 10
            refused = ELEMENTS - len(expected)
            assert refused > ELEMENTS // 10
            cash = [a.cash for a in server.gateway.engine.accounts.values()]
            assert sum(cash) == 0 and any(cash)


async def up_to(wire: Wire, request_id: str) -> list[Message]:
    """Return the messages before the reply with this id."""
    messages = []
    while (message := await wire.receive()).get("id") != request_id:
        messages.append(message)
    return messages


def judge(element: Any, request: Any, messages: list[Message]) -> None:
    """Check that the reply is the first message and the only reply."""
    assert messages, element
    reply, *events = messages
    for event in events:
        assert "id" not in event and event["type"] in ("exec", "account")
    if isinstance(request, Error):
        assert reply["type"] == "error" and not events
        assert reply["code"] == "bad_request", (element, reply)
    if isinstance(request, Admin):
        assert reply["code"] == "forbidden", (element, reply)
    assert reply["type"] in ("ok", "error", "exec"), (element, reply)
    assert reply.get("id") == request.id, (element, reply)
    if reply["type"] == "exec":
        assert reply["exec_type"] in ("new", "amended", "canceled")
