"""Whatever is asked, each request has its reply."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pydantic_core import to_json

from exchange.gateway.gateway import Gateway
from exchange.host.keyfile import make_entry, make_token, read_keys, rotate
from exchange.host.keyring import Key, KeyRing
from exchange.host.settings import Settings
from exchange.journal.storage import Batch
from exchange.market.command import Command
from orderbook import Table, decode_requests
from test.support import NOON, SECOND, Floor, add_key, state_of

USERS = ("alice", "bob", "carol", "boss")
RULES = """
[instruments.BOND]
max_position = 30
maker_fee = -1
taker_fee = 2
reference_price = 100
collar = 30
band = 3
auction_s = 1

[instruments.ETF]
phase = "pre_open"
short_selling = false

[account]
cash = 5_000
min_cash = 0
open_orders = 8
orders_per_s = 20
burst = 30

[accounts.boss]
orders_per_s = 0

[accounts.carol]
max_position = { BOND = 3 }
orders_per_s = 5
burst = 2
"""

symbols = st.sampled_from(["BOND", "BOND", "BOND", "ETF", "NONE"])
order_ids = st.integers(1, 30)
names = st.sampled_from(["a", "b", "c", "d"])
users = st.sampled_from([*USERS, "eve"])
sides = st.sampled_from(["buy", "sell"])

Fields = dict[str, st.SearchStrategy[Any]]


def any_message(
    kind: str, optional: Fields = {}, **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    needed: Fields = {"type": st.just(kind), **fields}
    return st.fixed_dictionaries(needed, optional=optional)


def action(
    name: str, optional: Fields = {}, **fields: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    said: Fields = {"action": st.just(name), "reason": st.just("why")}
    return any_message("admin", optional, **said, **fields)


phases = st.sampled_from(["pre_open", "auction", "open", "halted", "closed"])
admins = (
    action(
        "phase",
        {"symbol": symbols, "reopen_ms": st.integers(1_000, 2_000)},
        phase=phases,
    )
    | action("suspend", user=users)
    | action("resume", user=users)
    | action("kill", user=users)
    | action("unkill", user=users)
    | action("phase", phase=st.just("open"))
    | action("cancel", order_id=order_ids)
    | action(
        "adjust",
        {
            "cash": st.integers(-900, 900),
            "symbol": symbols,
            "qty": st.integers(-9, 9),
        },
        user=users,
    )
    | action("settle", symbol=symbols, price=st.integers(0, 200))
    | action("reset")
    | action("message", {"symbol": symbols}, message=st.just("m"))
)
orders = any_message(
    "place",
    symbol=symbols,
    side=sides,
    qty=st.integers(1, 12),
    price=st.integers(98, 102),
) | any_message(
    "place",
    {
        "time_in_force": st.sampled_from(["gtc", "ioc", "fok"]),
        "post_only": st.booleans(),
        "stp": st.sampled_from(
            ["cancel_oldest", "cancel_newest", "cancel_both"]
        ),
        "client_order_id": names,
    },
    symbol=symbols,
    side=sides,
    qty=st.integers(1, 12),
    price=st.integers(94, 106) | st.integers(60, 140),
)
asked = (
    orders
    | orders
    | orders
    | orders
    | orders
    | orders
    | any_message(
        "place",
        order_type=st.just("market"),
        symbol=symbols,
        side=sides,
        qty=st.integers(1, 9),
    )
    | any_message(
        "place",
        time_in_force=st.just("gtd"),
        expire_ts=st.integers(NOON, NOON + 9 * SECOND),
        symbol=symbols,
        side=sides,
        qty=st.integers(1, 9),
        price=st.integers(94, 106),
    )
    | any_message(
        "amend",
        {"price": st.integers(90, 110), "qty": st.integers(1, 12)},
        order_id=order_ids,
    )
    | any_message("amend", client_order_id=names, qty=st.integers(1, 12))
    | any_message("cancel", order_id=order_ids)
    | any_message("cancel", client_order_id=names)
    | any_message("cancel_all", {"symbol": symbols, "side": sides})
    | any_message(
        "cancel_after", timeout_ms=st.sampled_from([0, 1_000, 2_000])
    )
    | any_message("subscribe", channels=st.just(["book", "trades", "ticker"]))
    | any_message("unsubscribe", channels=st.just(["book"]))
    | any_message(
        "get",
        {"symbol": symbols, "after": order_ids, "limit": st.integers(1, 9)},
        what=st.sampled_from(get_args(Table)),
    )
    | any_message("ping")
    | any_message("nonsense")
    | admins
)
logins = st.fixed_dictionaries(
    {
        "user": st.sampled_from([*USERS, *USERS, "eve"]),
        "is_right": st.sampled_from([True] * 9 + [False]),
        "session": st.integers(0, 9),
        "last_seq": st.integers(0, 20),
        "is_resuming": st.booleans(),
        "cancel_on_disconnect": st.booleans(),
    }
)
changes = st.sampled_from(["same", "new key", "disable", "promote", "away"])
peers = st.integers(0, 3)
steps = (
    st.tuples(st.just("ask"), peers, st.lists(asked, min_size=4, max_size=9))
    | st.tuples(st.just("ask"), peers, st.lists(asked, min_size=4, max_size=9))
    | st.tuples(st.just("wait"), peers, st.integers(0, 1_500_000))
    | st.tuples(st.just("log in"), peers, logins)
    | st.tuples(st.just("log in"), peers, logins)
    | st.tuples(st.just("ask"), peers, st.lists(asked, min_size=4, max_size=9))
    | st.tuples(st.just("ask"), peers, st.lists(asked, min_size=4, max_size=9))
    | st.tuples(st.just("hang up"), peers, st.just(None))
    | st.tuples(st.just("wait"), peers, st.integers(0, 1_500_000))
    | st.tuples(st.just("change"), st.sampled_from(USERS), changes)
)


class Anything:
    """Links that send anything to one gateway, and what must hold."""

    def __init__(self, folder: Path, tokens: dict[str, str]) -> None:
        market = folder / "market.toml"
        market.write_text(RULES)
        self.rules = Settings(market=market, max_per_account=2).rules(True)
        self.keys = folder / "keys.json"
        self.tokens = dict(tokens)
        self.ring = KeyRing(self.keys)
        self.floor = Floor(
            market=self.rules.configure,
            durable=True,
            keys=self.ring,
            quotas=self.rules.quotas,
        )
        self.peers = [self.floor.join() for _ in range(4)]
        self.commands: list[Command] = []
        self.session_ids = [""]
        self.asked = 0
        self.codes: Counter[str] = Counter()

    def step(self, what: str, who: Any, how: Any) -> None:
        match what:
            case "log in":
                self.log_in(who, **how)
            case "ask":
                self.ask(who, how)
            case "hang up":
                self.hang_up(who)
            case "wait":
                self.floor.clock.ts += how
                self.floor.gateway.pass_time()
                self.floor.gateway.heartbeat()
            case "change":
                self.change(who, how)
        self.leave()
        for listing in self.floor.gateway.engine.listings.values():
            listing.book.check()

    def hang_up(self, who: int) -> None:
        self.floor.gateway.disconnect(self.peers[who])
        self.peers[who] = self.floor.join()

    def leave(self) -> None:
        """Journal everything that has happened, and release it."""
        self.floor.gateway.seal()
        batch = self.floor.gateway.sequencer.take()
        self.commands += batch.commands
        self.checksum = batch.checksum
        assert self.commands[-1].seq == self.floor.seq
        self.floor.gateway.commit(self.floor.seq)

    def log_in(
        self,
        who: int,
        user: str,
        is_right: bool,
        session: int,
        last_seq: int,
        is_resuming: bool,
        cancel_on_disconnect: bool,
    ) -> None:
        if self.peers[who].is_cut:
            self.hang_up(who)
        login: dict[str, Any] = {
            "type": "login",
            "user": user,
            "cancel_on_disconnect": cancel_on_disconnect,
        }
        login["token"] = self.tokens.get(user, "x") if is_right else "wrong"
        if is_resuming:
            ids = self.session_ids
            login["session"] = ids[session % len(ids)]
            login["last_seq"] = last_seq
        self.ask(who, [login, {"type": "ping"}])

    def ask(self, who: int, requests: list[dict[str, Any]]) -> None:
        """Send requests in one frame; check that each has its reply."""
        session = self.peers[who]
        was_cut = session.is_cut
        ids = list(range(self.asked, self.asked + len(requests)))
        self.asked += len(requests)
        self.floor.gateway.pass_time()
        self.leave()
        self.floor.read(session)
        for request in decode_requests(
            json.dumps([{**r, "id": n} for r, n in zip(requests, ids)])
        ):
            self.floor.gateway.requests.handle(session, [request])
        self.leave()
        got = self.floor.read(session)
        replies = [message for message in got if "id" in message]
        answered = [reply["id"] for reply in replies]
        assert answered == ids[: len(answered)], "in order, each once"
        if was_cut:
            assert got == []
        elif session.is_cut:
            assert replies[-1]["type"] == "error", "the one that broke it"
        else:
            assert answered == ids
        for reply in replies:
            assert reply["type"] in ("welcome", "exec", "ok", "error")
            self.codes[reply.get("code", reply["type"])] += 1
            if reply["type"] == "welcome":
                self.session_ids.append(reply["session"])
                assert not self.is_over_the_limit(reply["user"])

    def is_over_the_limit(self, user: str) -> bool:
        return len(self.floor.gateway.routing.online[user]) > 2

    def change(self, user: str, how: str) -> None:
        accounts = read_keys(self.keys)
        entry = accounts.get(user, make_entry(self.tokens[user]))
        match how:
            case "new key":
                self.tokens[user] = make_token()
                entry = rotate(entry, self.tokens[user])
            case "disable":
                entry = entry.model_copy(update={"is_disabled": True})
            case "promote":
                entry = entry.model_copy(update={"is_admin": True})
        accounts[user] = entry
        if how == "away":
            del accounts[user]
        # Not by `changing`, which waits for the disk.
        content = {"version": 1, "accounts": accounts}
        self.keys.write_bytes(to_json(content))
        self.ring.refresh()
        self.floor.gateway.logins.check_keys()
        for session in self.peers:
            if session.account and not session.is_cut:
                assert isinstance(session.key, Key)
                assert self.ring.is_valid(session.key)

    def end(self) -> None:
        """Check that the journal holds all that has happened."""
        gateway = self.floor.gateway
        other = Gateway(self.floor.clock.now)
        other.replay(Batch(self.commands, self.checksum))
        assert state_of(other) == state_of(gateway)
        for symbol in gateway.engine.listings:
            assert not sum(
                account.positions.get(symbol, 0)
                for account in gateway.engine.accounts.values()
            )


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A key file, and the tokens of its accounts."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return path, {user: add_key(path, user, user == "boss") for user in USERS}


# Shrinking a failing example would take minutes.
@settings(
    max_examples=60,
    phases=set(Phase) - {Phase.shrink, Phase.explain},
)
@given(what=st.lists(steps, min_size=20, max_size=40))
def test_whatever_is_asked_each_request_has_its_reply(
    keys: tuple[Path, Any], what: list[tuple[str, Any, Any]]
) -> None:
    path, tokens = keys
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path, folder)
        anything = Anything(Path(folder), tokens)
        for user in (0, 1, 3):
            anything.log_in(user, USERS[user], True, 0, 0, False, True)
        for step in what:
            anything.step(*step)
        anything.end()
