"""Keys and a running exchange: which logins succeed, which sessions end.

Over real sockets, with a real key file that changes meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from exchange.host import lookout
from exchange.host import looks as looks_module
from exchange.host.admission import describe
from exchange.host.keyfile import (
    Entries,
    changing,
    make_entry,
    make_token,
    rotate,
)
from exchange.host.keyring import KeyRing
from exchange.host.market_file import SettingsError
from exchange.host.settings import Settings
from server import Server
from test.support import (
    PATIENCE_S,
    add_key,
    address,
    ended,
    greeting,
    launched,
    order,
    serving,
    state_of,
    until,
    wired,
    words,
)

Message = dict[str, Any]
PING = {"type": "ping", "id": "ping"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the key file every 5 ms."""
    assert looks_module.KEYS_S == 1.0, "as the manual says"
    monkeypatch.setattr(looks_module, "KEYS_S", 0.005)


@pytest.fixture
def token(path: Path) -> str:
    """The token of alice, an account in the key file."""
    return add_key(path, "alice")


@pytest.fixture
async def exchange(path: Path, token: str) -> AsyncIterator[Server]:
    async with serving(keys=path) as server:
        yield server


async def try_login(url: str, user: str, **more: Any) -> str:
    """Log in; return "welcome" or the error's code, checking the rest."""
    async with wired(url) as wire:
        await wire.send({"type": "login", "user": user, "id": 1, **more})
        reply = await wire.receive()
        assert reply["id"] == 1
        if reply["type"] == "welcome":
            assert reply["user"] == user
            assert words(await wire.ask(type="ping"))[-1] == "ok"
            return "welcome"
        assert reply["type"] == "error" and "field" not in reply
        assert await wire.rest() == ([], 4001)
        return str(reply["code"])


async def looks(server: Server, count: int = 3) -> None:
    """Wait until the server has looked at the key file some times."""
    for _ in range(2 * count):  # a look sets a timer when it begins and ends
        due = server.looks.keys._due
        await until(lambda: server.looks.keys._due is not due)


def edit(path: Path, change: Callable[[Entries], object]) -> None:
    with changing(path) as accounts:
        change(accounts)


def disable(accounts: Entries) -> None:
    accounts["alice"] = accounts["alice"].model_copy(
        update={"is_disabled": True}
    )


def promote(accounts: Entries) -> None:
    accounts["alice"] = accounts["alice"].model_copy(update={"is_admin": True})


# Logging in ---------------------------------------------------------------


async def test_which_logins_succeed(
    exchange: Server, path: Path, token: str
) -> None:
    others = add_key(path, "bob")
    gone = add_key(path, "carol")
    edit(path, lambda accounts: accounts.update(carol=disabled(gone)))
    edit(path, lambda accounts: accounts.update(nokey=make_entry("")))
    cases: list[tuple[str, Message, str]] = [
        ("alice", {"token": token}, "welcome"),
        ("bob", {"token": others}, "welcome"),
        ("alice", {}, "unauthorized"),
        ("alice", {"token": ""}, "unauthorized"),
        ("alice", {"token": "wrong"}, "unauthorized"),
        ("alice", {"token": token[:-1]}, "unauthorized"),
        ("alice", {"token": token + "x"}, "unauthorized"),
        ("alice", {"token": token.swapcase()}, "unauthorized"),
        ("alice", {"token": others}, "unauthorized"),
        ("bob", {"token": token}, "unauthorized"),
        ("Alice", {"token": token}, "unauthorized"),
        ("carol", {"token": gone}, "unauthorized"),
        ("carol", {}, "unauthorized"),
        ("nokey", {"token": ""}, "unauthorized"),
        ("nokey", {}, "unauthorized"),
        ("eve", {"token": token}, "unauthorized"),
        ("eve", {}, "unauthorized"),
    ]
    for user, more, word in cases:
        assert await try_login(exchange.url, user, **more) == word, user
    accounts = exchange.gateway.engine.accounts
    assert set(accounts) == {"alice", "bob"}, "no other account exists"


def disabled(token: str) -> Any:
    return make_entry(token).model_copy(update={"is_disabled": True})


async def test_a_refusal_does_not_reveal_which_users_exist(
    exchange: Server,
) -> None:
    answers = []
    for user in ("alice", "eve"):
        async with wired(exchange.url) as wire:
            await wire.send({"type": "login", "user": user, "token": "no"})
            answers.append(await wire.rest())
    assert answers[0] == answers[1]


async def test_public_data_needs_no_key(exchange: Server) -> None:
    async with wired(exchange.url) as wire:
        await wire.ask(type="subscribe", channels=["book"])
        (reply,) = await wire.ask(type="get", what="leaderboard")
        assert reply["data"] == []


async def test_requests_after_a_failed_login_are_not_carried_out(
    exchange: Server, token: str
) -> None:
    right = {"type": "login", "user": "alice", "token": token, "id": 2}
    async with wired(exchange.url) as wire:
        before = state_of(exchange)
        await wire.send(
            {"type": "login", "user": "alice", "token": "wrong", "id": 1},
            right,
            order("buy", 1, 90, id=3),
            PING,
        )
        await wire.send(right)
        await wire.send(order("buy", 1, 90, id=3), PING)
        (error,), code = await wire.rest()
        assert (error["code"], error["id"], code) == ("unauthorized", 1, 4001)
        assert state_of(exchange) == before


async def test_requests_before_a_failed_login_are_answered(
    exchange: Server,
) -> None:
    async with wired(exchange.url) as wire:
        login = {"type": "login", "user": "eve", "id": 1}
        await wire.send(PING, {"type": "get", "what": "book"}, login, PING)
        messages, code = await wire.rest()
        assert words(messages) == ["ok", "ok", "unauthorized"] and code == 4001


async def test_a_changed_file_counts_at_once_for_new_logins(
    monkeypatch: pytest.MonkeyPatch, path: Path, token: str
) -> None:
    monkeypatch.setattr(looks_module, "KEYS_S", 3_600)
    async with serving(keys=path) as exchange:
        url, new = exchange.url, make_token()
        assert await try_login(url, "alice", token=token) == "welcome"
        edit(path, lambda a: a.update(alice=rotate(a["alice"], new)))
        assert await try_login(url, "alice", token=token) == "unauthorized"
        assert await try_login(url, "alice", token=new) == "welcome"
        edit(path, disable)
        assert await try_login(url, "alice", token=new) == "unauthorized"
        bob = add_key(path, "bob")
        assert await try_login(url, "bob", token=bob) == "welcome"
        path.unlink()
        assert await try_login(url, "bob", token=bob) == "unauthorized"
        assert await try_login(url, "eve") == "unauthorized"


async def test_the_first_key_counts_at_once_for_new_logins(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.setattr(looks_module, "KEYS_S", 3_600)
    async with serving(keys=path) as exchange:
        assert await try_login(exchange.url, "alice") == "welcome"
        token = add_key(path, "bob")
        assert await try_login(exchange.url, "alice") == "unauthorized"
        word = await try_login(exchange.url, "bob", token=token)
        assert word == "welcome"


# Connections while the keys change ------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda accounts: accounts.update(
            alice=rotate(accounts["alice"], make_token())
        ),
        disable,
        lambda accounts: accounts.pop("alice"),
        promote,
    ],
    ids=["rotated", "disabled", "removed", "promoted"],
)
async def test_a_new_key_ends_sessions_of_the_old_one(
    exchange: Server,
    path: Path,
    token: str,
    change: Callable[[Entries], None],
) -> None:
    bobs = add_key(path, "bob")
    async with (
        wired(exchange.url, "alice", token=token) as alice,
        wired(
            exchange.url, "alice", token=token, cancel_on_disconnect=False
        ) as second,
        wired(exchange.url, "bob", token=bobs) as bob,
        wired(exchange.url) as watcher,
    ):
        await alice.ask(**order("buy", 1, 90))
        await second.ask(**order("buy", 2, 80))
        await alice.receive()
        await watcher.ask(type="subscribe", channels=["book"])
        await looks(exchange)
        edit(path, change)
        assert await alice.rest() == await second.rest() == ([], 4001)
        # Only orders that end with their connection have ended.
        book = await watcher.until(type="book")
        assert book["bids"] == [[90, 0]]
        (row,) = (await bob.ask(type="get", what="book"))[0]["data"]
        assert row["bids"] == [[80, 2]]
        assert words(await watcher.ask(type="ping")) == ["ok"]


async def test_the_close_frame_has_the_reason(
    exchange: Server, path: Path, token: str
) -> None:
    async with wired(exchange.url, "alice", token=token) as alice:
        edit(path, disable)
        await alice.rest()
        assert alice.connection.close_reason == "key revoked"


async def test_removing_the_file_ends_and_refuses_all_sessions(
    exchange: Server, path: Path, token: str
) -> None:
    bobs = add_key(path, "bob")
    async with (
        wired(exchange.url, "alice", token=token) as alice,
        wired(exchange.url, "bob", token=bobs) as bob,
        wired(exchange.url) as watcher,
    ):
        content = path.read_text()
        path.unlink()
        assert await alice.rest() == await bob.rest() == ([], 4001)
        for more in ({}, {"token": token}):
            word = await try_login(exchange.url, "alice", **more)
            assert word == "unauthorized"
        assert words(await watcher.ask(type="ping")) == ["ok"]
        path.touch(mode=0o600)
        path.write_text(content)
        word = await try_login(exchange.url, "alice", token=token)
        assert word == "welcome"


async def test_a_new_key_resumes_the_session(
    exchange: Server, path: Path, token: str
) -> None:
    async with wired(exchange.url) as alice:
        session = (await alice.login("alice", token=token))["session"]
        await alice.ask(**order("buy", 1, 90))
        new = make_token()
        edit(path, lambda a: a.update(alice=rotate(a["alice"], new)))
        assert (await alice.rest())[1] == 4001
    account = exchange.gateway.engine.accounts["alice"]
    await until(lambda: not account.open_orders)
    async with wired(exchange.url) as alice:
        welcome, canceled = await alice.ask(
            type="login",
            user="alice",
            token=new,
            session=session,
            last_seq=1,
        )
        assert welcome["resumed"] and welcome["session"] == session
        assert canceled["reason"] == "disconnect"


async def test_losing_the_right_of_an_administrator(
    exchange: Server, path: Path
) -> None:
    token = add_key(path, "boss", is_admin=True)
    speak = {
        "type": "admin",
        "action": "message",
        "reason": "r",
        "message": "m",
    }
    async with wired(exchange.url, "boss", token=token) as boss:
        assert words(await boss.ask(**speak)) == ["ok", "status"]
        edit(path, lambda a: a.update(boss=make_entry(token)))
        assert await boss.rest() == ([], 4001)
    async with wired(exchange.url, "boss", token=token) as boss:
        assert words(await boss.ask(**speak)) == ["forbidden"]


# Where a name is enough ---------------------------------------------------


async def test_the_first_key_ends_logins_by_name(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(keys=path) as exchange:
        assert "a name is enough" in describe(exchange.keys)
        async with (
            wired(exchange.url, "alice", token="any") as alice,
            wired(exchange.url, "boss") as boss,
            wired(exchange.url) as watcher,
        ):
            await alice.ask(**order("buy", 1, 90))
            await looks(exchange)
            assert words(await alice.ask(type="ping")) == ["ok"]
            await watcher.ask(type="subscribe", channels=["book"])
            token = add_key(path, "boss", is_admin=True)
            assert await alice.rest() == await boss.rest() == ([], 4001)
            book = await watcher.until(type="book")
            assert book["bids"] == [[90, 0]]
        assert str(path) in describe(exchange.keys)
        await looks(exchange)
        (record,) = caplog.records
        assert record.getMessage() == f"logins: keys {path}"
        assert await try_login(exchange.url, "alice") == "unauthorized"
        word = await try_login(exchange.url, "boss", token=token)
        assert word == "welcome"


async def test_open_but_names_with_keys_need_them(
    path: Path, token: str
) -> None:
    async with serving(keys=path, open=True) as exchange:
        assert "open" in describe(exchange.keys)
        url = exchange.url
        assert await try_login(url, "eve") == "welcome"
        assert await try_login(url, "eve", token="any") == "welcome"
        assert await try_login(url, "alice") == "unauthorized"
        assert await try_login(url, "alice", token="any") == "unauthorized"
        assert await try_login(url, "alice", token=token) == "welcome"
        async with (
            wired(url, "alice", token=token) as alice,
            wired(url, "eve") as eve,
            wired(url, "bob") as bob,
        ):
            # A name with a key needs it ...
            bobs = add_key(path, "bob")
            assert await bob.rest() == ([], 4001)
            assert await try_login(url, "bob") == "unauthorized"
            assert await try_login(url, "bob", token=bobs) == "welcome"
            # ... also while the key is disabled ...
            edit(path, disable)
            assert await alice.rest() == ([], 4001)
            assert await try_login(url, "alice") == "unauthorized"
            assert await try_login(url, "alice", token=token) == (
                "unauthorized"
            )
            # ... until the account is removed.
            edit(path, lambda accounts: accounts.pop("alice"))
            assert await try_login(url, "alice") == "welcome"
            # Without the file its names still need their keys.
            path.unlink()
            await looks(exchange)
            assert await try_login(url, "bob") == "unauthorized"
            assert await try_login(url, "bob", token=bobs) == "unauthorized"
            assert words(await eve.ask(type="ping")) == ["ok"]


async def test_after_the_end_the_file_is_not_read(path: Path) -> None:
    async with serving(keys=path) as exchange:
        await looks(exchange)
    assert exchange.looks.keys._due is None
    name = f"look at keys {path}"
    await until(lambda: name not in [t.name for t in threading.enumerate()])


async def test_open_without_a_key_file(path: Path) -> None:
    async with serving(keys=path, open=True) as exchange:
        async with wired(exchange.url, "eve") as eve:
            await looks(exchange)
            assert words(await eve.ask(type="ping")) == ["ok"]
            add_key(path, "alice")
            await looks(exchange)
            assert words(await eve.ask(type="ping")) == ["ok"]
            assert await try_login(exchange.url, "alice") == "unauthorized"


# Errors of the file -------------------------------------------------------


def spoil(path: Path) -> None:
    path.write_text("{")


def expose(path: Path) -> None:
    path.chmod(0o644)


@pytest.mark.parametrize("damage", [spoil, expose])
async def test_a_damaged_file_leaves_the_keys_as_they_were(
    exchange: Server,
    path: Path,
    token: str,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    def lines() -> list[str]:
        return [r.getMessage() for r in caplog.records]

    content = path.read_text()
    async with wired(exchange.url, "alice", token=token) as alice:
        await looks(exchange)
        assert lines() == []
        damage(path)
        await looks(exchange, 10)
        (line,) = lines()
        assert line.startswith(f"{path}: ") and len(line.splitlines()) == 1
        assert words(await alice.ask(type="ping")) == ["ok"]
        url = exchange.url
        assert await try_login(url, "alice", token=token) == "welcome"
        assert await try_login(url, "alice", token="no") == "unauthorized"
        assert await try_login(url, "alice") == "unauthorized"
        path.write_text(content)
        path.chmod(0o600)
        await looks(exchange, 10)
        assert lines() == [line, "the key file can be used again"]
        assert {record.levelname for record in caplog.records} == {"WARNING"}
        assert words(await alice.ask(type="ping")) == ["ok"]


async def test_a_file_that_is_damaged_from_the_start_refuses_all_logins(
    path: Path, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = path.read_text()
    spoil(path)
    async with serving(keys=path) as exchange:
        (record,) = caplog.records
        assert str(path) in record.getMessage()
        for more in ({}, {"token": token}):
            word = await try_login(exchange.url, "alice", **more)
            assert word == "unauthorized"
        path.write_text(content)
        word = await try_login(exchange.url, "alice", token=token)
        assert word == "welcome"
        await looks(exchange)
    assert len(caplog.records) == 2


async def test_a_damaged_file_does_not_open_the_exchange(path: Path) -> None:
    """An open exchange must know which names have keys."""
    spoil(path)
    with pytest.raises(SettingsError, match="keys.json"):
        Server(Settings(keys=path, open=True, debug=False))


# A file on a disk that hangs ----------------------------------------------


class Hanging:
    """The key file's place on a disk that may hang.

    A named pipe without a writer hangs: opening it blocks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._away = path.with_name("away")

    def hang(self) -> None:
        self._path.rename(self._away)
        os.mkfifo(self._path, 0o600)

    def go_on(self) -> None:
        """Unblock the readers, and put the file back."""
        content = self._away.read_bytes()
        with open(self._path, "wb") as pipe:
            pipe.write(content)
        self._away.replace(self._path)


async def test_only_logins_wait_for_a_look(
    path: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LATE_S", 3_600)
    bobs = add_key(path, "bob")
    disk = Hanging(path)
    async with (
        serving(keys=path) as server,
        wired(server.url, "alice", token=token) as alice,
        wired(server.url) as bob,
    ):
        await looks(server)
        disk.hang()
        # Requests after a login wait with it.
        login = {"type": "login", "user": "bob", "token": bobs, "id": 1}
        await bob.send({**PING, "id": 0}, login, order("sell", 1, 110, id=2))
        await bob.send({**PING, "id": 3})
        await until(lambda: server.turns.delayed)
        assert words(await alice.ask(**order("buy", 1, 90))) == ["new"]
        assert not bob.inbox
        disk.go_on()
        replies = [m for m in await bob.take(5) if "id" in m]
        assert [reply["id"] for reply in replies] == [0, 1, 2, 3]
        assert words(replies) == ["ok", "welcome", "new", "ok"]


async def test_where_the_key_file_hangs_the_last_keys_decide(
    path: Path,
    token: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lookout.LATE_S == 1.0, "as the manual says"
    monkeypatch.setattr(lookout, "LATE_S", 0.05)
    disk = Hanging(path)
    async with (
        serving(keys=path) as server,
        wired(server.url, "alice", token=token) as alice,
    ):
        await looks(server)
        disk.hang()
        for _ in range(3):  # before and after the look counts as late
            word = await try_login(server.url, "alice", token=token)
            assert word == "welcome"
            word = await try_login(server.url, "alice", token="wrong")
            assert word == "unauthorized"
        (late,) = caplog.records
        assert str(path) in late.getMessage()
        assert "stay in force" in late.getMessage()
        disk.go_on()
        await until(lambda: "can be read again" in caplog.text)
        edit(path, disable)
        assert await alice.rest() == ([], 4001)


async def test_a_bug_in_a_look_stops_the_exchange(
    path: Path, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(ring: KeyRing) -> bool:
        if looks:
            raise RuntimeError("boom")
        looks.append(ring)  # the look of the start
        return False

    looks: list[KeyRing] = []
    monkeypatch.setattr(KeyRing, "refresh", explode)
    server = Server(
        Settings(keys=path, hostname="127.0.0.1", port=0, journal=None)
    )
    await server.start()
    async with asyncio.timeout(PATIENCE_S):
        assert str(await server.failure) == "boom"
        await server.stop()


async def test_it_ends_while_the_key_file_hangs(
    path: Path, token: str
) -> None:
    disk = Hanging(path)
    async with launched(keys=str(path)) as process:
        url = address(await greeting(process))
        async with wired(url, "alice", token=token) as alice:
            disk.hang()
            async with wired(url) as bob:
                login = {"type": "login", "user": "alice", "token": token}
                await bob.send({**login, "id": 1})
                assert words(await alice.ask(**order("buy", 1, 9))) == ["new"]
                process.send_signal(signal.SIGTERM)
                assert (await alice.rest())[1] == 1001
        status, _, _ = await ended(process)
    assert status == 0


async def test_a_link_that_ends_while_its_login_waits_is_forgotten(
    path: Path, token: str
) -> None:
    disk = Hanging(path)
    async with serving(keys=path) as server:
        await looks(server)
        disk.hang()
        async with wired(server.url) as alice:
            await alice.send(
                {"type": "login", "user": "alice", "token": token}
            )
            await until(lambda: server.turns.delayed)
        disk.go_on()
        await until(lambda: not server.listener.connections)
        assert not server.gateway.links
        account = server.gateway.engine.accounts["alice"]
        assert not any(s.connected for s in account.sessions.values())


# Tokens stay secret -------------------------------------------------------

LOUD = """
import logging
import sys

logging.basicConfig(level=logging.DEBUG)

import exchange.market.engine
import exchange.host.logs
import server

for name in ("websockets", "websockets.server", "asyncio", "exchange"):
    logging.getLogger(name).setLevel(logging.DEBUG)

exchange.host.logs.set_up = lambda form: None  # as loud as it is
apply = exchange.market.engine.Engine.apply

def explosive(engine, command):
    if isinstance(command.action, exchange.market.engine.CancelAfter):
        raise RuntimeError("boom")
    return apply(engine, command)

exchange.market.engine.Engine.apply = explosive
server.SHUTDOWN_S = 0.01
logging.debug("as loud as can be")
sys.exit(server.main())
"""


def malformed(token: str) -> list[str]:
    """Return frames with a token that are no valid logins."""
    return [
        '{"type":"login","user":"alice","token":["%s"]}' % token,
        '{"type":"login","user":"alice","token":{"%s":1}}' % token,
        '{"type":"login","user":"alice","token":"%s"}' % (token * 4),
        '{"type":"login","user":"alice","token":"%s\\ud800"}' % token,
        '{"type":"login","user":"alice","%s":1}' % token,
        '{"type":"login","user":"%s"}' % token,
        '{"type":"login","user":"alice","id":"%s"}' % token,
        '{"type":"login","user":"alice","session":"%s"}' % token,
        '{"type":"%s"}' % token,
        '{"type":"login","user":"alice","token":"%s"' % token,
        '[{"type":"login","user":"alice","token":"%s"},5]' % token,
        '[[{"type":"login","user":"alice","token":"%s"}]]' % token,
        '"%s"' % token,
        token,
    ]


async def test_tokens_reach_no_log_and_no_file(path: Path) -> None:
    journal = path.parent / "exchange.db"
    tokens = {
        user: add_key(path, user, is_admin=user == "boss")
        for user in ("alice", "bob", "boss")
    }
    wrong = [make_token() for _ in range(4)]
    rotated = make_token()
    settings = {"keys": str(path), "journal": str(journal), "debug": "1"}
    async with launched(code=LOUD, **settings) as process:
        line = await greeting(process)
        assert str(path) in line
        url = address(line)
        for user in ("alice", "boss", "eve"):
            assert await try_login(url, user, token=wrong[0]) == "unauthorized"
        for frame in (*malformed(wrong[1]), *malformed(tokens["bob"])):
            async with wired(url) as wire:
                await wire.connection.send(frame)
                await wire.receive()
        for data in (wrong[2].encode(), b"\xff" + wrong[2].encode()):
            async with wired(url) as wire:
                await wire.connection.send(data)  # no text: closed
                await wire.rest()
        async with wired(url) as wire:
            await wire.connection.send(wrong[2] * 2_000)  # too long: closed
            await wire.rest()
        async with wired(f"{url}/?token={wrong[3]}") as wire:
            await wire.ask(type="ping")
        alice = {"token": tokens["alice"]}
        async with (
            wired(url, "alice", **alice) as wire,
            wired(url, "boss", token=tokens["boss"]) as boss,
        ):
            await wire.ask(type="login", user="alice", **alice)
            await wire.ask(**order("buy", 1, 90))
            await boss.ask(
                type="admin", action="suspend", user="alice", reason="r"
            )
            edit(path, lambda a: a.update(boss=rotate(a["boss"], rotated)))
            assert (await boss.rest())[1] == 4001
            assert await try_login(url, "boss", token=rotated) == "welcome"
            # The end, with all that is known about it.
            await wire.send({"type": "cancel_after", "timeout_ms": 0})
            await wire.rest()
        status, output, errors = await ended(process)
    assert status == 1 and "while applying" in errors
    assert "DEBUG:root:as loud as can be" in errors
    assert "alice buy 1" in output
    written = [file for file in path.parent.iterdir() if file.is_file()]
    assert {path, journal} <= set(written)
    texts = [line, output, errors]
    texts += [file.read_bytes().decode("latin-1") for file in written]
    for token in (*tokens.values(), *wrong, rotated):
        assert not any(token[:20] in text for text in texts)


async def test_a_process_follows_its_key_file(path: Path) -> None:
    """Looks have their usual period."""
    token = add_key(path, "alice")
    async with launched(keys=str(path)) as process:
        url = address(await greeting(process))
        async with wired(url, "alice", token=token) as alice:
            edit(path, disable)
            assert await alice.rest() == ([], 4001)


async def test_roles_survive_a_crash_and_follow_the_key_file(
    tmp_path: Path, path: Path
) -> None:
    """A house account is not ranked, before and after `kill -9`."""
    tokens = {
        user: add_key(path, user, role=role)
        for user, role in (("mm", "house"), ("eve", "spectator"))
    } | {user: add_key(path, user) for user in ("ann", "bob")}
    settings = {"keys": str(path), "journal": str(tmp_path / "a.db")}
    settings |= {"debug": "0"}
    leaders = {"type": "get", "what": "leaderboard"}

    async def ranked(url: str) -> list[str]:
        async with wired(url) as wall:
            (reply,) = await wall.ask(**leaders)
            return [row["user"] for row in reply["data"]]

    async with launched(**settings) as process:
        url = address(await greeting(process))
        async with wired(url) as mm, wired(url) as ann, wired(url) as eve:
            for wire, user, role in (
                (mm, "mm", "house"),
                (ann, "ann", None),
                (eve, "eve", "spectator"),
            ):
                welcome = await wire.login(user, token=tokens[user])
                assert welcome.get("role") == role
            assert words(await mm.ask(**order("sell", 1, 100))) == ["new"]
            await ann.ask(**order("buy", 1, 100))
            (error,) = await eve.ask(**order("buy", 1, 100))
            assert error["code"] == "forbidden"
            assert "spectator" in error["message"]
        assert await ranked(url) == ["ann"]
        process.kill()
        await process.wait()
    async with launched(**settings) as process:
        url = address(await greeting(process))
        assert await ranked(url) == ["ann"]  # before anybody logs in
        async with wired(url, "mm", token=tokens["mm"]) as mm:
            edit(path, lambda a: a.update(mm=make_entry(tokens["mm"])))
            assert await mm.rest() == ([], 4001)
        async with wired(url, "mm", token=tokens["mm"]):
            assert sorted(await ranked(url)) == ["ann", "mm"]


async def test_a_reset_shows_in_the_ticker(tmp_path: Path) -> None:
    """Also if no order was open, so that no book has changed."""
    keys = tmp_path / "keys.json"
    admin, ann, bob = (add_key(keys, n, n == "op") for n in ("op", "a", "b"))
    async with (
        serving(keys=keys) as server,
        wired(server.url, "op", token=admin) as op,
        wired(server.url, "a", token=ann) as seller,
        wired(server.url, "b", token=bob) as buyer,
    ):
        await seller.ask(**order("sell", 2, 100))
        await buyer.ask(**order("buy", 2, 100))
        await op.send({"type": "subscribe", "channels": ["ticker"]})
        assert (await op.until(type="ticker", last=100))["volume"] == 2
        await op.send({"type": "admin", "action": "reset", "reason": "new"})
        ticker = await op.until(type="ticker", volume=0)
        assert "last" not in ticker
