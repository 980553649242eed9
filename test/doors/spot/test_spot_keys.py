"""Who may act for an account, and how much an account may ask for."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from exchange.host.keyfile import changing, make_entry, make_token, rotate
from server import Server
from test.doors.spot.bots import (
    MARKET,
    Rest,
    as_api,
    exchange,
    now_ms,
    socket,
)
from test.support import until, wired

ORDER = {
    "symbol": "BONDUSD",
    "side": "BUY",
    "type": "LIMIT",
    "timeInForce": "GTC",
    "quantity": 1,
    "price": 90,
}
SECRET, TOKEN = "Secret-" + "s" * 36, "Token-" + "t" * 37
Keys = tuple[Server, Path]


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[Keys]:
    path = tmp_path / "keys.json"
    with changing(path, create=True) as accounts:
        accounts["ann"] = make_entry(TOKEN, "trader", SECRET)
        accounts["old"] = make_entry(make_token())
        accounts["eve"] = make_entry(make_token(), "spectator", SECRET)
    async with exchange(tmp_path, keys=path) as server:
        yield server, path


async def test_a_name_or_a_token_is_the_api_key(keys: Keys) -> None:
    server, _ = keys
    for api_key in ("ann", TOKEN):
        ann = Rest(server.port, api_key, SECRET)
        assert (await ann.done("GET", "account"))["canTrade"]
        ann.close()


async def test_what_is_signed_is_the_text_as_sent_or_decoded(
    keys: Keys,
) -> None:
    server, _ = keys
    ann = Rest(server.port, "ann", SECRET)
    body = "side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=90"
    for name, encoded in (("a/b", "a%2Fb"), ("c%2Fd", "c%2Fd")):
        query = f"symbol=BONDUSD&newClientOrderId={encoded}"
        tail = f"{body}&timestamp={now_ms()}"
        signed = query.replace(encoded, name) + tail
        made = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256)
        tail += f"&signature={made.hexdigest()}"
        target = f"/api/v3/order?{query}"
        await ann.send(
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\n"
            f"X-MBX-APIKEY: ann\r\nContent-Length: {len(tail)}\r\n\r\n"
            f"{tail}".encode()
        )
        status, placed = await ann.answer()
        assert status == 200, placed
        assert placed["clientOrderId"] == encoded.replace("%2F", "/")
    ann.close()


@pytest.mark.parametrize(
    "user, secret, status, code",
    [
        ("ann", "wrong", 400, -1022),
        ("ann", SECRET + "x", 400, -1022),
        ("bob", SECRET, 401, -2015),
        ("old", SECRET, 401, -2015),
        ("", SECRET, 401, -2014),
        ("x" * 43, SECRET, 401, -2015),
    ],
)
async def test_who_proves_nothing_is_refused_and_cut_off(
    keys: Keys, user: str, secret: str, status: int, code: int
) -> None:
    server, _ = keys
    bot = Rest(server.port, user, secret)
    found, error = await bot.sign("GET", "account")
    assert (found, error["code"]) == (status, code)
    assert await bot.is_cut()
    assert server.gateway.routing.refusals["unauthorized"] == 1
    assert "bob" not in server.gateway.engine.accounts


async def test_websockets_check_the_same(keys: Keys) -> None:
    server, _ = keys
    for is_encoded in (False, True):
        async with socket(server, "/ws-api/v3") as ws:
            params = as_api(
                "ann",
                SECRET,
                is_encoded,
                **{**ORDER, "newClientOrderId": "a/b", "price": 90.5},
            )
            answer = await ws.ask("order.place", params)
            assert answer["status"] == 200, answer
            await ws.ask(
                "openOrders.cancelAll", as_api("ann", SECRET, symbol="BONDUSD")
            )
    async with socket(server, "/ws-api/v3") as ws:
        answer = await ws.ask("session.logon", as_api("ann", "wrong"))
        assert (answer["status"], answer["error"]["code"]) == (400, -1022)
        await ws.socket.wait_closed()
        assert ws.socket.close_code == 4001


async def test_a_spectator_may_look(keys: Keys) -> None:
    server, _ = keys
    eve = Rest(server.port, "eve", SECRET)
    assert not (await eve.done("GET", "account"))["canTrade"]
    code, words = await eve.refused("POST", "order", **ORDER)
    assert code == -2010 and "may not place" in words
    eve.close()


async def test_listen_keys_need_more_than_a_name(keys: Keys) -> None:
    server, _ = keys
    stranger = Rest(server.port, "ann")
    status, _ = await stranger.ask("POST", "/api/v3/userDataStream")
    assert status == 401
    assert await stranger.is_cut()
    ann = Rest(server.port, "ann", SECRET)
    signed = await ann.done("POST", "userDataStream")
    holder = Rest(server.port, TOKEN)
    _, held = await holder.ask("POST", "/api/v3/userDataStream")
    assert held == signed
    key = held["listenKey"]
    async with (
        socket(server, f"/ws/{key}") as ws,
        socket(server, f"/ws/{key[:-1]}x") as guess,
    ):
        await ann.done("POST", "order", **ORDER)
        assert (await ws.event("executionReport"))["x"] == "NEW"
        await guess.ask("SUBSCRIBE", ["bondusd@depth5"])
        assert "bids" in await guess.next()
    ann.close()
    holder.close()


async def test_a_new_secret_ends_what_the_old_one_began(keys: Keys) -> None:
    server, path = keys
    ann = Rest(server.port, "ann", SECRET)
    key = (await ann.done("POST", "userDataStream"))["listenKey"]
    await ann.done("GET", "account")
    async with socket(server, f"/ws/{key}") as ws:
        await until(lambda: len(server.gateway.routing.online["ann"]) == 2)
        with changing(path) as accounts:
            accounts["ann"] = rotate(
                accounts["ann"], make_token(), SECRET[::-1]
            )
        server.looks.reload()
        await ws.socket.wait_closed()
        assert ws.socket.close_code == 4001
    assert await ann.is_cut()
    again = Rest(server.port, "ann", SECRET[::-1])
    assert (await again.done("POST", "userDataStream"))["listenKey"] != key
    again.close()


async def test_orders_beyond_the_rate_are_refused(tmp_path: Path) -> None:
    market = f"{MARKET}orders_per_s = 1\nburst = 2\n"
    async with exchange(tmp_path, market) as server:
        ann = Rest(server.port, "ann")
        for _ in range(2):
            await ann.done("POST", "order", **ORDER)
        status, error = await ann.sign("POST", "order", **ORDER)
        assert (status, error["code"]) == (429, -1015)
        assert int(ann.headers["retry-after"]) >= 1
        assert len(await ann.done("DELETE", "openOrders", symbol="BONDUSD"))
        ann.close()


async def test_an_address_may_ask_for_so_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.doors.spot.weights.WEIGHT_PER_MINUTE", 22)
    market = f"{MARKET}orders_per_s = 100\n"
    async with exchange(tmp_path, market) as server:
        ann = Rest(server.port)
        await ann.get("exchangeInfo")
        assert ann.headers["x-mbx-used-weight-1m"] == "20"
        status, error = await ann.ask("GET", "/api/v3/exchangeInfo")
        assert (status, error["code"]) == (429, -1003)
        assert 1 <= int(ann.headers["retry-after"]) <= 60
        ann.close()


async def test_an_account_may_have_so_many_connections(
    tmp_path: Path,
) -> None:
    async with exchange(tmp_path, max_per_account=1) as server:
        ann, more = Rest(server.port, "ann"), Rest(server.port, "ann")
        await ann.done("GET", "account")
        status, error = await more.sign("GET", "account")
        assert status == 429
        assert await more.is_cut()
        ann.close()
        await until(lambda: not server.links)
        async with wired(server.url, "ann"):
            pass


async def test_one_connection_may_act_for_several_accounts(
    tmp_path: Path,
) -> None:
    async with exchange(tmp_path) as server:
        bot = Rest(server.port)
        for user in ("ann", "bob", "ann"):
            bot.user = user
            await bot.done("POST", "order", **ORDER)
            assert [*server.gateway.routing.online] == [user]
        orders = server.gateway.engine.accounts["ann"].open_orders
        assert [*orders] == [1, 3]
        seq = server.gateway.engine.seq
        bot.close()
        await until(lambda: not server.gateway.routing.online)
        assert server.gateway.engine.seq == seq  # there was no session


@pytest.mark.parametrize("name", ["a b", "x" * 33, "@exchange", "ä", "a\tb"])
async def test_a_name_that_no_account_can_have(
    tmp_path: Path, name: str
) -> None:
    async with exchange(tmp_path) as server:
        async with socket(server, "/ws-api/v3") as ws:
            answer = await ws.ask("account.status", as_api(name))
            assert answer["error"]["code"] == -1100
        assert not server.gateway.engine.accounts
