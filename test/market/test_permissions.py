"""Permissions: every request, table and action, for each kind of peer.

A table says what becomes of each. What is refused changes nothing, and
nobody else hears of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from exchange.gateway.link import Link
from exchange.host.keyfile import changing
from exchange.host.keyring import KeyRing
from orderbook import (
    ADMIN_ARGUMENTS,
    REQUEST_TYPES,
    Get,
    Table,
    decode_requests,
)
from test.script import message
from test.support import Floor, add_key, state_of, words

Message = dict[str, Any]

# Alice has order 1 in the book, named "mine"; mallory is suspended.
ROLES = ("nobody", "alice", "bob", "boss", "mallory")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The tokens of the accounts of a key file, and its path."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    tokens = {user: add_key(path, user, user == "boss") for user in ROLES[1:]}
    return {"": str(path), **tokens}


class World:
    """A market with one link of each kind, and one that follows all."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self.ring = KeyRing(Path(tokens[""]))
        self.floor = Floor(keys=self.ring)
        self.sessions: dict[str, Link] = {"nobody": self.floor.join()}
        for user in ROLES[1:]:
            session = self.floor.join(user, token=tokens[user])
            assert session.account == user
            self.sessions[user] = session
        self.do("mallory", "buy 1@80 as=old")
        self.do("alice", "buy 5@90 as=mine")
        self.do("bob", "sell 2@90")
        self.do("boss", admin("suspend", user="mallory"))
        offer = admin("tender", tender_id="t-1", **OFFER, user="alice")
        self.do("boss", offer)
        for role in ROLES:
            self.read(role)

    def do(self, role: str, *requests: Message) -> list[Message]:
        return self.floor.do(self.sessions[role], *requests)  # type: ignore

    def read(self, role: str) -> list[Message]:
        return self.floor.read(self.sessions[role])

    @property
    def state(self) -> Any:
        return state_of(self.floor.gateway)


@pytest.fixture
def world(tokens: dict[str, str]) -> World:
    return World(tokens)


def admin(action: str, **arguments: Any) -> Message:
    return {
        "type": "admin",
        "action": action,
        "reason": "because",
        **arguments,
    }


def get(what: str) -> Message:
    return {"type": "get", "what": what}


OFFER = {
    "symbol": "BOND",
    "side": "buy",
    "qty": 5,
    "price": 99,
    "valid_ms": 60_000,
}
# The result of each request, for each of ROLES.
Row = tuple[Message, tuple[str, ...]]
EVERYBODY = ("ok",) * 5
WHO_IS_IN = ("unauthorized", "ok", "ok", "ok", "ok")
ADMIN_ALONE = ("unauthorized", "forbidden", "forbidden", "ok", "forbidden")
NEW = ("unauthorized", "new", "new", "new", "forbidden")
ITS_OWNER = (
    "unauthorized",
    "canceled",
    "unknown_order",
    "unknown_order",
    "unknown_order",
)
ITS_OWNER_ALIVE = (
    "unauthorized",
    "amended",
    "unknown_order",
    "unknown_order",
    "forbidden",
)
AGAIN = ("unauthorized", *["bad_request"] * 4)
MATRIX: list[Row] = [
    (message("buy 1@50"), NEW),
    (message("sell 1@90"), NEW),
    ({"type": "place", "side": "buy", "qty": 1, "order_type": "market"}, NEW),
    # A repeat is a duplicate, even from a suspended account.
    (
        message("buy 5@90 as=mine"),
        ("unauthorized", "duplicate_client_order_id", *NEW[2:]),
    ),
    (
        message("buy 1@80 as=old"),
        (*NEW[:4], "duplicate_client_order_id"),
    ),
    ({"type": "amend", "order_id": 2, "qty": 4}, ITS_OWNER_ALIVE),
    ({"type": "amend", "order_id": 2, "price": 91}, ITS_OWNER_ALIVE),
    (
        {"type": "amend", "client_order_id": "mine", "qty": 4},
        ITS_OWNER_ALIVE,
    ),
    ({"type": "cancel", "order_id": 2}, ITS_OWNER),
    ({"type": "cancel", "client_order_id": "mine"}, ITS_OWNER),
    # Ended, and remembered only by its owner.
    (
        {"type": "cancel", "order_id": 1},
        ("unauthorized", *["unknown_order"] * 3, "order_closed"),
    ),
    ({"type": "cancel_all"}, WHO_IS_IN),
    ({"type": "cancel_all", "symbol": "BOND", "side": "buy"}, WHO_IS_IN),
    ({"type": "cancel_after", "timeout_ms": 60_000}, WHO_IS_IN),
    ({"type": "cancel_after", "timeout_ms": 0}, WHO_IS_IN),
    # BOND converts into nothing.
    (
        {"type": "convert", "symbol": "BOND", "side": "buy", "qty": 1},
        ("unauthorized", *["no_conversion"] * 3, "forbidden"),
    ),
    # Offered to alice only.
    (
        {"type": "tender", "tender_id": "t-1"},
        ("unauthorized", "ok", *["unknown_tender"] * 2, "forbidden"),
    ),
    ({"type": "subscribe", "channels": ["book", "trades"]}, EVERYBODY),
    ({"type": "unsubscribe", "channels": ["book"]}, EVERYBODY),
    (get("instruments"), EVERYBODY),
    (get("book"), EVERYBODY),
    (get("trades"), EVERYBODY),
    (get("candles"), EVERYBODY),
    (get("leaderboard"), EVERYBODY),
    (get("account"), WHO_IS_IN),
    (get("positions"), WHO_IS_IN),
    (get("fills"), WHO_IS_IN),
    (get("orders"), WHO_IS_IN),
    (get("news"), EVERYBODY),
    (get("statuses"), EVERYBODY),
    ({"type": "ping"}, EVERYBODY),
    ({"type": "login", "user": "alice"}, AGAIN),
    ({"type": "login", "user": "eve", "token": "guess"}, AGAIN),
    (admin("match", name="A/03", teams=["bob"]), ADMIN_ALONE),
    (admin("phase", phase="halted"), ADMIN_ALONE),
    (
        admin("phase", phase="auction", symbol="BOND", reopen_ms=5_000),
        ADMIN_ALONE,
    ),
    (admin("phase", phase="closed"), ADMIN_ALONE),
    (admin("suspend", user="alice"), ADMIN_ALONE),
    (admin("suspend", user="mallory"), ADMIN_ALONE),
    (admin("resume", user="mallory"), ADMIN_ALONE),
    (admin("kill", user="alice"), ADMIN_ALONE),
    (admin("unkill", user="mallory"), ADMIN_ALONE),
    (admin("cancel", order_id=2), ADMIN_ALONE),
    (admin("adjust", user="alice", cash=500), ADMIN_ALONE),
    (admin("adjust", user="mallory", symbol="BOND", qty=5), ADMIN_ALONE),
    (admin("settle", symbol="BOND", price=95), ADMIN_ALONE),
    (admin("settle", prices={"BOND": 95}), ADMIN_ALONE),
    (admin("dividend", symbol="BOND", amount=3), ADMIN_ALONE),
    (admin("close_out", user="alice", prices={"BOND": 95}), ADMIN_ALONE),
    (admin("reset"), ADMIN_ALONE),
    (admin("message", message="lunch"), ADMIN_ALONE),
    (admin("news", headline="lunch", symbol="BOND"), ADMIN_ALONE),
    (
        admin("tender", tender_id="t-2", **OFFER, user="bob"),
        ADMIN_ALONE,
    ),
    (admin("bust", symbol="BOND", trade_id=1), ADMIN_ALONE),
    (admin("reference", symbol="BOND", price=95), ADMIN_ALONE),
    (admin("dividend", symbol="BOND", amount=2), ADMIN_ALONE),
    (admin("close_out", user="alice", prices={"BOND": 90}), ADMIN_ALONE),
    (admin("settle", prices={"BOND": 95}), ADMIN_ALONE),
    (admin("phase", phase="open", close_ms=60_000), ADMIN_ALONE),
    # Refused to an administrator; others get "forbidden" as always.
    (
        admin("suspend", user="eve"),
        ("unauthorized", "forbidden", "forbidden", "bad_request", "forbidden"),
    ),
    (
        admin("cancel", order_id=77),
        (*ADMIN_ALONE[:3], "unknown_order", "forbidden"),
    ),
    (admin("suspend"), ("bad_request",) * 5),
]
DONE = {"ok", "new", "amended", "canceled"}


def name_of(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    rest = {k: v for k, v in value.items() if k not in ("type", "reason")}
    return "-".join(map(str, (value["type"], *rest.values())))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("request_, expected", MATRIX, ids=name_of)
def test_the_matrix_of_permissions(
    world: World,
    request_: Message,
    expected: tuple[str, ...],
    role: str,
) -> None:
    before = world.state
    word = expected[ROLES.index(role)]
    reply, *more = world.do(role, {**request_, "id": "r"})
    assert words([reply]) == [word] and reply["id"] == "r"
    if word in DONE:
        if request_["type"] == "admin":
            told = [m for m in more if m["type"] == "status"]
            assert told and told == [
                m for m in world.read("nobody") if m["type"] == "status"
            ]
        return
    assert more == [] and reply["type"] == "error"
    after = world.state
    assert after[1:] == before[1:]
    if role == "nobody" or (
        word == "forbidden" and request_["type"] == "admin"
    ):
        assert after == before, "it is no command either"
    for other in ROLES:
        assert world.read(other) == []


def test_the_matrix_is_complete() -> None:
    requests = [request for request, _ in MATRIX]
    assert {r["type"] for r in requests} == set(REQUEST_TYPES)
    tables = {r["what"] for r in requests if r["type"] == "get"}
    assert tables == set(get_args(Table))
    actions = {r["action"] for r in requests if r["type"] == "admin"}
    assert actions == set(ADMIN_ARGUMENTS)


def test_a_login_that_fails_is_the_end(world: World) -> None:
    eve = world.sessions["nobody"]
    world.do("nobody", {"type": "login", "user": "alice"})
    assert world.floor.closings(eve) == [4001]
    for role in ROLES[1:]:  # a second login is no reason
        world.do(role, {"type": "login", "user": "alice", "token": "guess"})
        assert world.floor.closings(world.sessions[role]) == []
        assert world.sessions[role].account == role


def test_a_connection_is_closed_once_for_its_first_reason(
    world: World, tokens: dict[str, str]
) -> None:
    floor, alice = world.floor, world.sessions["alice"]
    with changing(Path(tokens[""])) as accounts:
        before = accounts.pop("alice")
    world.ring.refresh()
    for _ in range(3):
        floor.gateway.logins.check_keys()
        floor.gateway.seal()
    with changing(Path(tokens[""])) as accounts:
        accounts["alice"] = before
    assert floor.closings(alice) == [4001]
    assert world.do("alice", {"type": "ping"}) == []
    for role in ("nobody", "bob", "boss", "mallory"):
        assert floor.closings(world.sessions[role]) == []


# What one sees ------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES[1:])
def test_a_private_table_shows_only_its_account(
    world: World, role: str
) -> None:
    def rows(what: str) -> list[Any]:
        (reply,) = world.do(role, get(what))
        data: list[Any] = reply["data"]
        return data

    order_ids = {"alice": [2], "bob": [3], "boss": [], "mallory": [1]}[role]
    traded = role in ("alice", "bob")
    assert [row["order_id"] for row in rows("orders")] == order_ids
    assert [row["order_id"] for row in rows("fills")] == (
        order_ids if traded else []
    )
    (account,) = rows("account")
    cash = {"alice": -180, "bob": 180}.get(role, 0)
    assert account["cash"] == cash
    assert bool(account["positions"]) is traded


def test_an_administrator_is_on_no_leaderboard(world: World) -> None:
    (reply,) = world.do("nobody", get("leaderboard"))
    users = {row["user"] for row in reply["data"]}
    assert users == {"alice", "bob"}


HOLDS = {"alice": 2, "bob": -2}


@pytest.mark.parametrize("role", ROLES)
def test_who_sees_the_positions_of_whom(world: World, role: str) -> None:
    world.do("boss", "buy 1@95")  # the mark moves: cash is not equity
    (reply,) = world.do(role, get("leaderboard"))
    assert len(reply["data"]) == 2
    for row in reply["data"]:
        held = HOLDS[row["user"]]
        if role in ("boss", row["user"]):
            assert row["positions"] == {"BOND": held}
            assert row["cash"] == -90 * held
        else:
            assert (row["positions"], row["cash"]) == ({}, row["equity"])


def test_a_leaderboard_that_is_not_public_is_empty(
    tokens: dict[str, str],
) -> None:
    """For all but administrators."""
    floor = Floor(
        public_leaderboard=False,
        public_positions=True,
        keys=KeyRing(Path(tokens[""])),
    )
    alice, bob, boss = (
        floor.join(user, token=tokens[user])
        for user in ("alice", "bob", "boss")
    )
    floor.do(alice, "buy 2@90")
    floor.do(bob, "sell 2@90")
    for link, count in ((alice, 0), (floor.join(), 0), (boss, 2)):
        *_, reply = floor.do(link, get("leaderboard"))
        assert len(reply["data"]) == count
    request = Get(what="leaderboard")
    assert floor.gateway.tables.public(request) == []


def test_where_positions_are_public_everybody_sees_them() -> None:
    floor = Floor(public_positions=True)
    alice, bob, nobody = map(floor.join, ("alice", "bob", ""))
    floor.do(alice, "buy 2@90")
    floor.do(bob, "sell 2@90")
    for link in (alice, bob, nobody):
        *_, reply = floor.do(link, get("leaderboard"))
        held = {row["user"]: row["positions"] for row in reply["data"]}
        assert held == {u: {"BOND": n} for u, n in HOLDS.items()}


def test_a_private_event_goes_only_to_its_account(world: World) -> None:
    world.do("boss", admin("cancel", order_id=2))
    canceled, status = world.read("alice")
    assert canceled["reason"] == "admin" and canceled["order_id"] == 2
    for role in ("nobody", "bob", "mallory"):
        assert world.read(role) == [status]


def test_a_suspended_account_may_log_in_after_being_resumed(
    world: World,
) -> None:
    place = message("buy 1@50")
    assert words(world.do("mallory", place)) == ["forbidden"]
    assert words(world.do("mallory", {"type": "cancel_all"})) == ["ok"]
    world.do("boss", admin("resume", user="mallory"))
    world.read("mallory")
    assert words(world.do("mallory", place)) == ["new"]


@pytest.mark.parametrize(
    "suspend, resume", [("suspend", "resume"), ("kill", "unkill")]
)
def test_both_pairs_of_names_have_the_same_effect(
    world: World, suspend: str, resume: str
) -> None:
    ok, status = world.do("boss", admin(suspend, user="alice"))
    assert (ok["type"], status["message"]) == ("ok", "suspend alice: because")
    assert words(world.read("alice")) == ["canceled", "status"]
    assert words(world.do("alice", "buy 1@50")) == ["forbidden"]
    ok, status = world.do("boss", admin(resume, user="alice"))
    assert (ok["type"], status["message"]) == ("ok", "resume alice: because")
    world.read("alice")
    assert words(world.do("alice", "buy 1@50")) == ["new"]


def test_a_suspended_administrator_keeps_the_right(world: World) -> None:
    world.do("boss", admin("suspend", user="boss"))
    assert words(world.do("boss", "buy 1@50")) == ["forbidden"]
    replies = world.do("boss", admin("resume", user="boss"))
    assert words(replies) == ["ok", "status"]
    assert words(world.do("boss", "buy 1@50")) == ["new"]


# Whose right it is --------------------------------------------------------


def test_only_the_connection_that_proved_it_has_the_right(
    world: World, tokens: dict[str, str]
) -> None:
    floor = world.floor
    old, new = floor.join(), floor.join()
    login = {"type": "login", "user": "boss", "token": tokens["boss"]}
    session = floor.do(old, login)[0]["session"]
    # The replaced connection has no account, and is not read.
    assert floor.do(new, {**login, "session": session})[0]["type"] == "welcome"
    assert floor.closings(old) == [4009]
    seq = floor.seq
    assert floor.do(old, admin("reset")) == []
    assert floor.seq == seq
    assert words(floor.do(new, admin("message", message="m")))[0] == "ok"


def test_a_connection_taken_over_cannot_come_back(
    tokens: dict[str, str],
) -> None:
    """Otherwise it could take its session back, and both would be closed."""
    floor = Floor(keys=KeyRing(Path(tokens[""]), is_open=True))
    old, new = floor.join(), floor.join()
    login = {"type": "login", "user": "boss", "token": tokens["boss"]}
    session = floor.do(old, login)[0]["session"]
    floor.do(old, "buy 1@50")
    # In one batch, so that the old connection is not yet closed.
    for peer, request in (
        (new, {**login, "session": session}),
        (old, {**login, "session": session}),
        (old, {"type": "login", "user": "eve"}),
        (old, admin("reset")),
    ):
        for decoded in decode_requests(json.dumps(request)):
            floor.gateway.requests.handle(peer, [decoded])
    floor.gateway.seal()
    assert floor.read(old) == []
    assert (floor.closings(old), floor.closings(new)) == ([4009], [])
    assert len(floor.gateway.engine.accounts["boss"].open_orders) == 1
    assert floor.gateway.requests_by_type(9)[""] == {"login": 2}


def test_an_account_cannot_take_over_anothers_session(
    world: World, tokens: dict[str, str]
) -> None:
    floor = world.floor
    session = world.sessions["boss"].session_id
    bob = floor.join()
    login = {"type": "login", "user": "bob", "token": tokens["bob"]}
    welcome = floor.do(bob, {**login, "session": session, "last_seq": 0})[0]
    assert welcome["session"] != session and not welcome["resumed"]
    assert words(floor.do(bob, admin("reset"))) == ["forbidden"]
    assert floor.closings(world.sessions["boss"]) == []


@pytest.mark.parametrize("is_open", [False, True])
def test_without_keys_nobody_is_an_administrator(
    tmp_path: Path, is_open: bool
) -> None:
    floor = Floor(keys=KeyRing(tmp_path / "keys.json", is_open))
    for user in ("boss", "admin", "root"):
        session = floor.join(user, token="any")
        before = state_of(floor.gateway)
        assert words(floor.do(session, admin("reset"))) == ["forbidden"]
        assert state_of(floor.gateway) == before


def test_a_name_without_a_token_is_no_administrator(
    tokens: dict[str, str],
) -> None:
    floor = Floor(keys=KeyRing(Path(tokens[""]), is_open=True))
    stranger = floor.join("stranger")
    assert stranger.account == "stranger"
    assert words(floor.do(stranger, admin("reset"))) == ["forbidden"]
    boss = floor.join("boss")
    assert boss.account == "" and floor.closings(boss) == [4001]
    boss = floor.join("boss", token=tokens["boss"])
    assert words(floor.do(boss, admin("reset")))[0] == "ok"
