"""The administrator's tool against a real exchange with real keys."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest

from exchange.market.engine import Engine
from orderbook import AdminAction
from server import Server
from test.relay import Direction, Fate, relaying
from test.support import (
    NOBODY,
    PATIENCE_S,
    ROOT,
    Wire,
    add_key,
    order,
    serving,
    wired,
    words,
)
from util.admin import ACTIONS, OLD_NAMES, PAUSES, arguments_of, main, parse

MARKET = """
    [instruments.BOND]
    max_price = 200
    [instruments.ETF]
    [account]
    cash = 1_000
"""


@dataclass
class Hall:
    """An exchange with keys, and one trader."""

    server: Server
    tokens: dict[str, str]
    alice: Wire
    capsys: pytest.CaptureFixture[str]

    @property
    def engine(self) -> Engine:
        return self.server.gateway.engine

    async def admin(
        self, *arguments: str, url: str | None = None, user: str = "boss"
    ) -> tuple[int, str, str]:
        """Run the tool; return its exit status, output and errors."""
        action, *others = arguments
        common = ("--url", url or self.server.url, "--user", user)
        key = ("--token", self.tokens.get(user, "wrong"))
        status = await asyncio.to_thread(
            main, [action, *common, *key, *others]
        )
        return status, *self.capsys.readouterr()

    async def done(self, *arguments: str) -> str:
        """Run the tool, which must succeed; return its output."""
        status, output, errors = await self.admin(*arguments)
        assert (status, errors) == (0, "")
        assert output.endswith("\n") and output.count("\n") == 1
        return output.rstrip()

    async def news(self) -> list[dict[str, Any]]:
        """Return the statuses sent to all clients, without times."""
        told = await self.alice.ask(type="ping", id=1)
        return [
            {k: v for k, v in event.items() if k not in ("type", "ts")}
            for event in told
            if event["type"] == "status"
        ]


@pytest.fixture
async def hall(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Hall]:
    monkeypatch.setattr("util.admin.CONNECT_TIMEOUT_S", PATIENCE_S)
    keys, market = tmp_path / "keys.json", tmp_path / "market.toml"
    tokens = {name: add_key(keys, name) for name in ("alice", "bob")}
    tokens["boss"] = add_key(keys, "boss", is_admin=True)
    market.write_text(MARKET)
    async with serving(keys=keys, market=market) as server:
        async with wired(server.url, "alice", token=tokens["alice"]) as alice:
            yield Hall(server, tokens, alice, capsys)


async def placed(hall: Hall, *requests: dict[str, Any]) -> list[int]:
    """Let alice place orders in BOND; return their ids."""
    ids = []
    for request in requests:
        reply, *_ = await hall.alice.ask(**request, symbol="BOND")
        ids.append(reply["order_id"])
    return ids


async def trade(hall: Hall, qty: int, price: int) -> None:
    """Let alice buy from bob."""
    token = hall.tokens["bob"]
    async with wired(hall.server.url, "bob", token=token) as bob:
        await bob.ask(**order("sell", qty, price), symbol="BOND")
        await placed(hall, order("buy", qty, price))


# What it does -------------------------------------------------------------


def test_it_knows_every_action() -> None:
    assert {*ACTIONS, *OLD_NAMES} == {*get_args(AdminAction), *PAUSES}


async def test_phase(hall: Hall) -> None:
    arguments = ("phase", "BOND", "halted", "--reason", "back at 15:00")
    line = await hall.done(*arguments)
    assert line == "done: phase symbol=BOND phase=halted"
    assert hall.engine.listings["BOND"].phase == "halted"
    assert hall.engine.listings["ETF"].phase == "open"
    assert await hall.news() == [
        {"symbol": "BOND", "phase": "halted", "message": "back at 15:00"}
    ]
    refused = await hall.alice.ask(**order("buy", 1, 99), symbol="BOND")
    assert words(refused) == ["market_closed"]


async def test_phase_of_all_that_ends_by_itself(hall: Hall) -> None:
    arguments = ("phase", "all", "auction", "--reopen", "1", "--reason", "go")
    assert await hall.done(*arguments) == (
        "done: phase phase=auction reopen_ms=1000"
    )
    news = [await hall.alice.until(type="status") for _ in range(4)]
    assert [(n["symbol"], n["phase"]) for n in news] == [
        ("BOND", "auction"),
        ("ETF", "auction"),
        ("BOND", "open"),
        ("ETF", "open"),
    ]
    assert news[2]["ts"] >= news[0]["ts"] + 1_000_000


@pytest.mark.parametrize(
    "suspend, resume", [("suspend", "resume"), ("kill", "unkill")]
)
async def test_suspend_and_resume(
    hall: Hall, suspend: str, resume: str
) -> None:
    await placed(hall, order("buy", 5, 90), order("sell", 5, 110))
    line = await hall.done(suspend, "alice", "--reason", "runs wild")
    assert line == "done: suspend user=alice"
    canceled = await hall.alice.take(2)
    assert words(canceled) == ["canceled"] * 2
    assert {event["reason"] for event in canceled} == {"admin"}
    assert await hall.news() == [{"message": "suspend alice: runs wild"}]
    request = order("buy", 1, 99, symbol="BOND")
    assert words(await hall.alice.ask(**request)) == ["forbidden"]
    line = await hall.done(resume, "alice", "--reason", "mended")
    assert line == "done: resume user=alice"
    assert await hall.news() == [{"message": "resume alice: mended"}]
    assert words(await hall.alice.ask(**request)) == ["new"]


async def test_cancel(hall: Hall) -> None:
    first, second = await placed(hall, order("buy", 5, 90), order("buy", 5, 9))
    line = await hall.done("cancel", str(second), "--reason", "a slip")
    assert line == f"done: cancel order_id={second}"
    canceled = await hall.alice.receive()
    assert (canceled["order_id"], canceled["reason"]) == (second, "admin")
    assert list(hall.engine.accounts["alice"].open_orders) == [first]


@pytest.mark.parametrize(
    "arguments, cash, positions",
    [
        (("--cash", "-250"), 750, {}),
        (("--symbol", "BOND", "--qty", "-3"), 1_000, {"BOND": -3}),
        (
            ("--cash", "5", "--symbol", "ETF", "--qty", "7"),
            1_005,
            {"ETF": 7},
        ),
    ],
)
async def test_adjust(
    hall: Hall, arguments: tuple[str, ...], cash: int, positions: Any
) -> None:
    line = await hall.done("adjust", "alice", *arguments, "--reason", "prize")
    assert line.startswith("done: adjust ") and "user=alice" in line
    told = await hall.alice.until(type="account")
    assert (told["cash"], told["positions"]) == (cash, positions)


async def test_settle(hall: Hall) -> None:
    await trade(hall, 4, 100)
    arguments = ("settle", "BOND", "104", "--reason", "it is worth that")
    assert await hall.done(*arguments, "--yes") == (
        "done: settle symbol=BOND price=104"
    )
    await hall.alice.until(type="status")
    (told,) = await hall.alice.ask(type="get", what="account", id=1)
    (row,) = told["data"]
    assert (row["cash"], row["positions"]) == (1_016, {"BOND": 0})
    assert hall.engine.listings["BOND"].phase == "closed"


async def test_reset(hall: Hall) -> None:
    await trade(hall, 4, 100)
    await placed(hall, order("buy", 1, 90))
    await hall.done("phase", "all", "closed", "--reason", "the end")
    assert await hall.done("reset", "--reason", "round 2", "--yes") == (
        "done: reset"
    )
    alice = hall.engine.accounts["alice"]
    assert (alice.cash, alice.positions, alice.open_orders) == (1_000, {}, {})
    assert hall.engine.listings["BOND"].phase == "open"


async def test_message(hall: Hall) -> None:
    line = await hall.done("message", "lunch is served")
    assert line == "done: message message=lunch is served"
    await hall.done("message", "it pays", "--symbol", "ETF", "--reason", "x")
    assert await hall.news() == [
        {"message": "lunch is served"},
        {"symbol": "ETF", "message": "it pays"},
    ]


@pytest.mark.parametrize(
    "line, arguments",
    [
        (
            "phase all open --close 300",
            {"phase": "open", "close_ms": 300_000},
        ),
        ("settle CALL --yes", {"symbol": "CALL"}),
        ("settle --prices A=1 B=-2 --yes", {"prices": {"A": 1, "B": -2}}),
        ("news rain", {"headline": "rain"}),
        (
            "news rain --symbol ETF --body more --value -5",
            {
                "headline": "rain",
                "symbol": "ETF",
                "body": "more",
                "value": -5,
            },
        ),
        ("dividend ETF -3", {"symbol": "ETF", "amount": -3}),
        (
            "tender t-1 ETF sell 50 99 --valid 15 --account alice",
            {
                "tender_id": "t-1",
                "symbol": "ETF",
                "side": "sell",
                "qty": 50,
                "price": 99,
                "valid_ms": 15_000,
                "user": "alice",
            },
        ),
        (
            "tender t-1 ETF buy 1 0 --valid 1",
            {
                "tender_id": "t-1",
                "symbol": "ETF",
                "side": "buy",
                "qty": 1,
                "price": 0,
                "valid_ms": 1_000,
            },
        ),
        (
            "close_out alice BOND=99 ETF=5 --yes",
            {"user": "alice", "prices": {"BOND": 99, "ETF": 5}},
        ),
        ("bust BOND 7 --yes", {"symbol": "BOND", "trade_id": 7}),
        ("reference BOND 99", {"symbol": "BOND", "price": 99}),
        ("match A/03", {"name": "A/03"}),
        (
            f"match A/03 --round A --teams x y --fair-sha256 {'0f' * 32}",
            {
                "name": "A/03",
                "round": "A",
                "teams": ["x", "y"],
                "fair_sha256": "0f" * 32,
            },
        ),
    ],
)
def test_the_arguments_of_an_action(line: str, arguments: Any) -> None:
    argv = [*line.split(), "--reason", "x", "--user", "boss"]
    assert arguments_of(parse(argv)) == arguments


@pytest.mark.parametrize(
    "line, word",
    [
        ("settle --yes", "either SYMBOL or --prices"),
        ("settle A 5 --prices B=1", "either SYMBOL or --prices"),
        ("settle --prices A", "not like BOND=104"),
        ("settle --prices A=x", "not like BOND=104"),
        ("settle --prices =5", "not like BOND=104"),
        ("tender t-1 ETF buy 1 5", "--valid"),
        ("tender t-1 ETF hold 1 5 --valid 5", "hold"),
    ],
)
def test_a_wrong_argument_is_named(
    line: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse([*line.split(), "--reason", "x", "--user", "boss"])
    assert ended.value.code == 2
    assert word in capsys.readouterr().err


async def test_news_tender_and_bust(hall: Hall) -> None:
    await trade(hall, 4, 100)
    assert await hall.done("news", "rain", "--value", "5") == (
        "done: news headline=rain value=5"
    )
    told = await hall.alice.until(type="news")
    assert (told["headline"], told["value"]) == ("rain", 5)
    argv = "tender t-1 ETF sell 50 99 --valid 15 --account alice --reason x"
    await hall.done(*argv.split())
    told = await hall.alice.until(type="tender")
    assert (told["side"], told["qty"], told["price"]) == ("sell", 50, 99)
    argv = "bust BOND 1 --reason wrong --yes"
    assert await hall.done(*argv.split()) == (
        "done: bust symbol=BOND trade_id=1"
    )
    told = await hall.alice.until(type="account")
    assert (told["cash"], told["positions"]["BOND"]) == (1_000, 0)


async def test_pause_and_continue_leave_what_has_ended(hall: Hall) -> None:
    await hall.done("phase", "ETF", "closed", "--reason", "x")
    argv = ("phase", "BOND", "open", "--close", "3600", "--reason", "x")
    await hall.done(*argv)
    bond, etf = hall.engine.listings.values()
    assert bond.close_ts and not bond.close_left_us
    assert await hall.done("pause", "--reason", "lunch") == "done: pause"
    assert (bond.phase, etf.phase) == ("halted", "closed")
    assert bond.close_left_us and not bond.close_ts
    assert await hall.done("continue", "--reason", "go") == "done: continue"
    assert (bond.phase, etf.phase) == ("open", "closed")
    assert bond.close_ts and not bond.close_left_us


async def test_match(hall: Hall) -> None:
    argv = "match A/03 --teams alice bob --reason x"
    line = await hall.done(*argv.split())
    assert line == "done: match name=A/03 teams=alice,bob"
    told = await hall.alice.until(type="match")
    assert told["match"] == {"name": "A/03", "teams": ["alice", "bob"]}


async def test_as_json(hall: Hall) -> None:
    arguments = ("adjust", "alice", "--cash", "-5", "--reason", "a fine")
    assert json.loads(await hall.done(*arguments, "--json")) == {
        "action": "adjust",
        "reason": "a fine",
        "user": "alice",
        "cash": -5,
    }


async def test_orders_of_the_administrator_stay(hall: Hall) -> None:
    token = hall.tokens["boss"]
    async with wired(hall.server.url, "boss", token=token) as boss:
        await boss.ask(**order("buy", 1, 9), symbol="BOND")
        await hall.done("message", "hello")
        assert len(hall.engine.accounts["boss"].open_orders) == 1
    *_, session = hall.engine.accounts["boss"].sessions.values()
    assert not session.cancel_on_disconnect


# What is refused ----------------------------------------------------------


@pytest.mark.parametrize(
    "code, arguments",
    [
        ("unknown_symbol", "phase NONE open --reason x"),
        ("bad_request", "phase bond open --reason x"),
        ("bad_request", "phase all halted --reopen 0 --reason x"),
        ("bad_request", "phase all open --reopen 5 --reason x"),
        ("bad_request", "suspend nobody --reason x"),
        ("bad_request", "resume no/body --reason x"),
        ("unknown_order", "cancel 77 --reason x"),
        ("bad_request", "cancel -1 --reason x"),
        ("bad_request", "adjust alice --reason x"),
        ("bad_request", "adjust alice --qty 5 --reason x"),
        ("bad_request", "adjust alice --symbol ETF --cash 5 --reason x"),
        ("unknown_symbol", "adjust alice --symbol X --qty 1 --reason x"),
        ("bad_request", f"adjust alice --cash {2**53} --reason x"),
        ("insufficient_funds", f"adjust alice --cash {2**53 - 1} --reason x"),
        ("invalid_price", "settle BOND 201 --reason x --yes"),
        ("unknown_symbol", "settle NONE 100 --reason x --yes"),
        ("bad_request", "settle all 100 --reason x --yes"),
        ("bad_request", f"reset --yes --reason {'x' * 201}"),
    ],
)
async def test_a_refusal_is_printed(
    hall: Hall, code: str, arguments: str
) -> None:
    argv = arguments.split()
    before = hall.engine.listings["BOND"].phase
    status, output, errors = await hall.admin(*argv)
    assert (status, errors) == (1, "")
    assert output.startswith(f"refused: {code}: ")
    status, output, errors = await hall.admin(*argv, "--json")
    assert (status, errors) == (1, "")
    error = json.loads(output)
    assert (error["type"], error["code"]) == ("error", code)
    assert hall.engine.listings["BOND"].phase == before
    assert await hall.news() == []


@pytest.mark.parametrize(
    "user, code", [("alice", "forbidden"), ("carl", "unauthorized")]
)
async def test_other_users_are_refused(
    hall: Hall, user: str, code: str
) -> None:
    arguments = ("phase", "all", "halted", "--reason", "x")
    status, output, errors = await hall.admin(*arguments, user=user)
    assert (status, errors) == (1, "")
    assert output.startswith(f"refused: {code}: ")
    assert hall.engine.listings["BOND"].phase == "open"


async def test_without_keys_there_is_no_administrator(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with serving() as server:
        arguments = ["--url", server.url, "--user", "boss", "--reason", "x"]
        status = await asyncio.to_thread(main, ["suspend", "boss", *arguments])
    assert status == 1
    assert capsys.readouterr().out.startswith("refused: forbidden: ")


# What is not sent, or unknown ---------------------------------------------


@pytest.mark.parametrize("url", [NOBODY, "localhost:8765"])
async def test_no_exchange_is_reported(
    hall: Hall, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("util.admin.CONNECT_TIMEOUT_S", 0.2)
    status, output, errors = await hall.admin("message", "hello", url=url)
    assert (status, output) == (2, "")
    assert errors.startswith("admin: ") and url in errors
    assert errors.count("\n") == 1


async def test_an_action_without_a_reply_is_sent_again(hall: Hall) -> None:
    async with relaying(hall.server.url) as relay:
        sent: list[str] = []

        def fault(way: Direction, n: int, frame: str) -> Fate:
            if way == "up" and '"adjust"' in frame:
                sent.append(frame)
                return "cut_after" if len(sent) == 1 else "pass"
            return "pass"

        relay.fault = fault
        status, output, errors = await hall.admin(
            *("adjust", "alice", "--cash", "5", "--reason", "prize"),
            url=relay.url,
        )
        assert (status, output) == (0, "done: adjust user=alice cash=5\n")
        assert len(sent) == 2
        [told] = (await hall.alice.ask(type="get", what="account"))[-1]["data"]
        assert told["cash"] == 1_005, "it took effect once"


def test_the_user_must_be_given(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["message", "hello"])
    assert ended.value.code == 2
    assert "EXCHANGE_USER" in capsys.readouterr().err


# What cannot be undone ----------------------------------------------------

FINAL = [("reset",), ("settle", "BOND", "100")]


@pytest.mark.parametrize("arguments", FINAL)
@pytest.mark.parametrize("line", ["yes\n", "y\n", "no\n", "\n", "\x04"])
async def test_a_person_is_asked(
    hall: Hall,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    line: str,
) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal, os.fdopen(ours, "w") as keyboard:
        monkeypatch.setattr(sys, "stdin", terminal)
        keyboard.write(line)
        keyboard.flush()
        status, output, errors = await hall.admin(*arguments, "--reason", "x")
    assert "Type yes" in errors
    is_meant = line == "yes\n"
    assert status == (0 if is_meant else 2)
    assert output.startswith("done") if is_meant else not output
    assert bool(await hall.news()) == is_meant


@pytest.mark.parametrize("arguments", FINAL)
async def test_a_program_must_say_that_it_means_it(
    hall: Hall, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        status, output, errors = await hall.admin(*arguments, "--reason", "x")
    assert (status, output) == (2, "")
    assert errors == f"admin: {arguments[0]} needs --yes\n"
    assert await hall.news() == []


# As a process -------------------------------------------------------------


async def test_the_environment_says_where_and_who(hall: Hall) -> None:
    environment = {
        "EXCHANGE_URL": hall.server.url,
        "EXCHANGE_USER": "boss",
        "EXCHANGE_TOKEN": hall.tokens["boss"],
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "util.admin"),
        *("suspend", "alice", "--reason", "é"),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert output == b"done: suspend user=alice\n"
    assert await hall.news() == [{"message": "suspend alice: é"}]
