"""Recorded order flow in a simulation: the same again, and bots amid it."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from exchange.journal.sqlite import read_journal
from exchange.market.command import (
    Action,
    Command,
    Configure,
    Connect,
    Restart,
    TimePassed,
)
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import (
    Amend,
    Bust,
    Cancel,
    Error,
    Event,
    Exec,
    Place,
    Settlement,
    Side,
    Trade,
    decode_requests,
)
from server import Server
from test.host.test_metrics import fetch
from test.journal.files import write as write_journal
from test.market.day import USERS, Day
from test.script import listing
from test.server.test_administration import admin, all_in, keys_for
from test.support import order, serving, wired
from test.test_tutorial import PROGRAMS
from test.util.test_simulate import play, write
from util.bots.house import Plan, run_house
from util.simulate.__main__ import main, parse
from util.simulate.recording import flow_account
from util.simulate.rounds import run_seed
from util.simulate.world import Simulation

ROWS = """\
ts,trade_id,symbol,price,qty,side,seq
1767603601000000,1,BOND,100,5,buy,1
1767603601000000,2,BOND,101,2,buy,2
1767603602500000,3,BOND,99,4,sell,3
1767603603000000,4,ETF,250,1,buy,1
"""


class LiveDay(Day):
    """A day in which deadlines fire as they do in an exchange.

    They fire before anything later is stamped, and no process stops.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(random.Random(seed))
        for user in (*USERS, "op"):
            self.apply(Connect(False), user)

    def apply(
        self, action: Action, account: str = "", session: str = "a"
    ) -> list[tuple[str, Event]]:
        engine = self.engine
        if isinstance(action, Restart):  # it would postpone the closes
            action = TimePassed()
        while not isinstance(action, (TimePassed, Configure)):
            due = engine.first_deadline
            if due is None or due > max(self.ts, engine.ts + 1):
                break
            self.ledger.apply(TimePassed(), "", due)
        return super().apply(action, account, session)


def outcome(commands: Iterable[Command]) -> tuple[Any, ...]:
    """Return what came of commands: trades, and all that accounts have.

    The accounts of a flow have their recorded names.
    """
    engine = Engine()
    trades: Counter[tuple[Any, ...]] = Counter()
    for command in commands:
        for name, event in in_full(engine.apply(command)):
            name = name.removeprefix("@flow.")
            match event:
                case Trade(symbol, _, _, number, price, qty, side):
                    trades[symbol, number, price, qty, side] += 1
                case Bust():
                    trades[event.symbol, event.trade_id, "busted"] += 1
                case Exec(exec_type="trade"):
                    trades[name, event.symbol, event.trade_id] += 1
                case Settlement():
                    trades[name, event.symbol, event.price] += 1
    accounts = {
        name.removeprefix("@flow."): (
            account.cash,
            account.realized,
            {s: n for s, n in account.positions.items() if n},
            [
                (o.symbol, o.side, o.price, o.leaves_qty, o.client_order_id)
                for o in account.open_orders.values()
            ],
        )
        for name, account in engine.accounts.items()
    }
    return trades, accounts


def commands_of(path: Path) -> list[Command]:
    return [command for batch in read_journal(path) for command in batch]


def again(path: Path) -> tuple[Any, ...]:
    """Play a recording without bots; return what came of it."""
    with Simulation(flow=path) as simulation:
        simulation.run_until(simulation.round_seconds)
        commands = [
            c for b in simulation.journal.recover() for c in b.commands
        ]
        assert simulation.end().flow_refused == {}
    return outcome(commands)


# The same again -------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2, 5, 29])
def test_a_day_with_every_kind_of_command(tmp_path: Path, seed: int) -> None:
    day = LiveDay(seed)
    day.run(600)
    while day.engine.work:
        day.ledger.apply(TimePassed())
    path = write_journal(tmp_path / "day.db", day.ledger.commands)
    trades, accounts = outcome(day.ledger.commands)
    assert again(path) == (trades, accounts)
    assert len(trades) > 40


@pytest.mark.parametrize("rules", [2, 3])
def test_golden_days(rules: int) -> None:
    """In them deadlines fire late, so that something else comes of them."""
    path = Path(__file__).parents[1] / "golden" / f"rules-{rules}.journal"
    with Simulation(flow=path) as simulation:
        result = simulation.run()
        assert simulation.server.gateway.engine.rules == rules
    assert result.flow_orders > 200
    assert result.trades > 30


async def trade_live(server: Server, tokens: dict[str, str]) -> None:
    """Trade for a while with house bots, and act as an administrator."""
    house = Plan(
        url=server.url,
        symbols=(),
        makers=1,
        noise=2,
        informed=1,
        arbitrageurs=0,
        values={},
        seed=1,
        speed=50,
        user_prefix="bot-",
        tokens={},
    )
    bots = asyncio.create_task(run_house(house, say=lambda line: None))
    async with all_in(server.url, tokens) as (boss, ann, bob):
        await bob.ask(**order("buy", 3, 90), client_order_id="low")
        await ann.ask(**order("sell", 2, 120), time_in_force="gtc")
        engine = server.gateway.engine
        while engine.listings["BOND"].trade_id < 20:
            await asyncio.sleep(0)
        await boss.ask(**admin("phase", phase="auction", reopen_ms=1_000))
        await bob.ask(**order("buy", 4, 103))
        await ann.ask(**order("sell", 4, 97))
        while engine.listings["BOND"].phase != "open":
            await asyncio.sleep(0)
        await bob.ask(type="amend", client_order_id="low", price=91)
        await boss.ask(
            **admin("bust", symbol="BOND", trade_id=7, client_request_id="x")
        )
        await boss.ask(**admin("adjust", user="ann", cash=77))
        await boss.ask(**admin("cancel", order_id=engine.order_id))
        while engine.listings["BOND"].trade_id < 40:
            await asyncio.sleep(0)
        bots.cancel()
        await asyncio.gather(bots, return_exceptions=True)


async def test_a_live_round(tmp_path: Path) -> None:
    path = tmp_path / "live.db"
    keys, tokens = keys_for(tmp_path)
    market = tmp_path / "market.toml"
    market.write_text(
        "[instruments.BOND]\nband = 9\nreference_price = 100\nauction_s = 1\n"
        "taker_fee = 1\n[account]\norders_per_s = 0\ncash = 5000\n"
        "[accounts.ann]\ncash = 9000\n"
    )
    async with serving(
        journal=path, market=market, keys=keys, open=True
    ) as server:
        await trade_live(server, tokens)
    trades, accounts = outcome(commands_of(path))
    assert again(path) == (trades, accounts)
    assert {"ann", "bob", "bot-maker-1", "bot-noise-2"} <= set(accounts)
    assert trades["BOND", 7, "busted"] == 1


async def test_a_live_round_in_two_processes(tmp_path: Path) -> None:
    """Who was connected is not, when the exchange has begun again."""
    path = tmp_path / "live.db"
    for number in range(2):
        async with serving(journal=path) as server:
            async with (
                wired(server.url, "ann") as ann,
                wired(server.url, "bob", cancel_on_disconnect=False) as bob,
            ):
                await ann.ask(**order("sell", 3, 101))
                await bob.ask(**order("buy", 2, 101))
                await bob.ask(**order("buy", 1, 90 + number))
                await ann.ask(**order("sell", 1, 90))
                await bob.ask(**order("buy", 1, 80 + number))
    trades, accounts = outcome(commands_of(path))
    assert again(path) == (trades, accounts)
    assert accounts["ann"][3] == []
    assert [o[2] for o in accounts["bob"][3]] == [80, 81]


def test_a_simulated_round_again(tmp_path: Path) -> None:
    """And once more: the accounts of a flow keep their names."""
    path, other = tmp_path / "one.db", tmp_path / "two.db"
    with Simulation(seed=3, speed=3) as simulation:
        first = simulation.run(10)
        simulation.journal.save(path)
    with Simulation(flow=path) as simulation:
        second = simulation.run()
        simulation.journal.save(other)
    assert again(other) == again(path) == outcome(commands_of(path))
    for one, played in zip(first.standings, second.standings, strict=True):
        assert played.account == f"@flow.{one.account}"
        assert (played.profit, played.orders, played.fills) == (
            *(one.profit, one.orders, one.fills),
        )
    assert f"flow: {second.flow_orders} orders, refused: none" in str(second)


# With bots ------------------------------------------------------------------


def recorded(path: Path, *acts: tuple[int, str, Action]) -> Path:
    """Write a journal: when, in milliseconds, who did what."""
    start = 1_767_603_600_000_000
    market = Configure(instruments=(listing("BOND"),))
    commands = [Command(1, start, "", "", market)]
    for name in dict.fromkeys(name for _, name, _ in acts):
        seq = len(commands) + 1
        commands.append(Command(seq, start + seq, name, "s", Connect(True)))
    for ms, name, action in acts:
        ts = start + ms * 1_000
        commands.append(Command(len(commands) + 1, ts, name, "s", action))
    return write_journal(path, commands)


def place(side: Side, qty: int, price: int, **more: Any) -> Place:
    return Place(side=side, qty=qty, price=price, **more)


def bot(folder: Path, *lines: str) -> str:
    """Write a bot with a market BOND; return its path."""
    program = (
        "import asyncio\n"
        "from client import Exchange\n"
        "async def main():\n"
        "    async with Exchange() as ex:\n"
        "        bond = await ex.market('BOND')\n"
        + "".join(f"        {line}\n" for line in lines)
    )
    return write(folder, "quick.py", program)


def accounts_after(bot: str, path: Path) -> dict[str, tuple[Any, ...]]:
    """Play a recording with a bot; return position and open orders."""
    with Simulation(bot, flow=path) as simulation:
        simulation.run_until(simulation.round_seconds)
        accounts = simulation.server.gateway.engine.accounts
        found = {
            name.removeprefix("@flow."): (
                sum(account.positions.values()),
                [
                    (o.price, o.leaves_qty)
                    for o in account.open_orders.values()
                ],
            )
            for name, account in accounts.items()
        }
        assert simulation.end().failures == {}
    return found


def test_a_bot_sells_before_a_recorded_order(tmp_path: Path) -> None:
    """The rest of that is canceled at the moment when it was filled."""
    path = recorded(
        tmp_path / "live.db",
        (100, "ann", place("sell", 5, 101)),
        (200, "bob", place("buy", 5, 101)),
        (201, "bob", place("buy", 2, 95)),
    )
    quick = bot(tmp_path, "await bond.sell(2, 100)", "await asyncio.sleep(9)")
    assert accounts_after(quick, path) == {
        "ann": (-3, []),
        "bob": (5, [(95, 2)]),
        "quick": (-2, []),
    }


def test_a_bot_buys_before_a_recorded_order(tmp_path: Path) -> None:
    """The rest of that does not stay in the book, as it did not before."""
    path = recorded(
        tmp_path / "live.db",
        (100, "ann", place("sell", 5, 101)),
        (200, "bob", place("buy", 5, 101)),
        (300, "ann", place("sell", 1, 103)),
    )
    quick = bot(
        tmp_path,
        "while bond.book.ask is None:",
        "    await asyncio.sleep(0.01)",
        "await bond.buy(3, 101)",
        "await asyncio.sleep(9)",
    )
    assert accounts_after(quick, path) == {
        "ann": (-5, [(103, 1)]),
        "bob": (2, []),
        "quick": (3, []),
    }


def test_ids_amends_and_cancels_amid_a_bot_s_orders(tmp_path: Path) -> None:
    """Ids are others; what is refused in either market changes nothing."""
    path = recorded(
        tmp_path / "live.db",
        (100, "ann", place("sell", 5, 101)),  # 1
        (110, "ann", place("sell", 1, 90, post_only=True)),  # 2
        (120, "ann", place("sell", 1, 102, client_order_id="x")),  # 3
        (200, "ann", Amend(order_id=1, qty=2)),
        (210, "ann", Amend(client_order_id="x", price=104)),
        (220, "ann", Cancel(order_id=2)),
        (230, "ann", Cancel(order_id=9)),  # there is none
        (240, "bob", place("buy", 1, 80)),
    )
    quick = bot(
        tmp_path,
        "await bond.buy(1, 95)",
        "await asyncio.sleep(0.105)",
        "await bond.buy(3, 101)",
        "await asyncio.sleep(9)",
    )
    found = accounts_after(quick, path)
    # Order 2 would have taken; order 1 was filled beyond its new quantity.
    assert found == {
        "ann": (-3, [(104, 1)]),
        "bob": (0, [(80, 1)]),
        "quick": (3, [(95, 1)]),
    }
    assert outcome(commands_of(path))[1]["ann"][2] == {}


def test_a_round_may_end_before_its_flow(tmp_path: Path) -> None:
    path = recorded(
        tmp_path / "live.db",
        *[(n * 100, "ann", place("buy", 1, n)) for n in range(1, 40)],
    )
    result, _ = play(flow=path, seconds=1.05)
    assert result.flow_orders == 10
    assert result.flow_refused == {}


def test_a_seed_gives_one_digest(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    with Simulation(seed=3, speed=3) as simulation:
        simulation.run(10)
        simulation.journal.save(path)
    careful = write(tmp_path, "careful.py", PROGRAMS["careful.py"])
    options: dict[str, Any] = {"flow": path, "seconds": 10, "noise": 1}
    result, _ = play(careful, **options)
    assert play(careful, **options)[0] == result
    names = {s.account for s in result.standings}
    assert {"you", "house-noise-1", "@flow.house-noise-1"} <= names
    assert "house-maker-1" not in names
    assert sum(s.profit for s in result.standings) == 0


# Files of trades ------------------------------------------------------------


def test_a_file_of_trades(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text(ROWS)
    trades, accounts = again(path)
    assert {t[:2] + t[2:] for t in trades if len(t) == 5} == {
        ("BOND", 1, 100, 5, "buy"),
        ("BOND", 2, 101, 2, "buy"),
        ("BOND", 3, 99, 4, "sell"),
        ("ETF", 1, 250, 1, "buy"),
    }
    assert accounts["taker"][2] == {"BOND": 3, "ETF": 1}
    assert accounts["maker"][2] == {"BOND": -3, "ETF": -1}
    assert not accounts["maker"][3]


def test_a_bot_quotes_to_a_file_of_trades(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text(ROWS)
    quick = bot(tmp_path, "await bond.sell(3, 100)", "await asyncio.sleep(9)")
    assert accounts_after(quick, path) == {
        "maker": (0, []),
        "taker": (3, []),
        "quick": (-3, []),
    } | {"maker": (-1, []), "taker": (4, [])}


async def test_the_trades_that_an_exchange_serves(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    keys, tokens = keys_for(tmp_path)
    async with serving(keys=keys, open=True) as server:
        async with all_in(server.url, tokens) as (boss, ann, bob):
            await ann.ask(**order("sell", 3, 101))
            await bob.ask(**order("buy", 2, 101))
            await bob.ask(**order("buy", 1, 101))
            await ann.ask(**order("sell", 4, 5))
            await bob.ask(**order("buy", 4, 7))
            await boss.ask(**admin("bust", symbol="BOND", trade_id=2))
        _, _, text = await fetch(server, "/v1/trades.csv?symbol=BOND")
    path.write_text(text)
    trades, accounts = again(path)
    assert [t[2:] for t in trades if len(t) == 5] == [
        (101, 2, "buy"),
        (5, 4, "buy"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: there is no column ts"),
        ("ts,price,qty,side\n", "line 1: there is no column symbol"),
        (ROWS.splitlines()[0], "it has no trades"),
        (ROWS + "1767603604000000,5,ETF,x,1,buy,1\n", "line 6: price: "),
        (ROWS + "1767603604000000,5,ETF,5,0,buy,1\n", "line 6: qty: "),
        (ROWS + "1767603604000000,5,ETF,5,1,BUY,1\n", "line 6: side: "),
        (ROWS + "1767603604000000,5,etf,5,1,buy,1\n", "line 6: symbol: "),
        (ROWS + "1767603602000000,5,ETF,5,1,buy,1\n", "line 6: ts: "),
        (ROWS + "1767603604000000,5,ETF,5\n", "line 6: qty: "),
        (ROWS + "1767603604000000,5,ETF,5,1,buy,1,1\n", "line 6: more cells"),
        (ROWS + f"1767603604000000,5,ETF,5,{2**52},buy,1\n", "exceed 2**53"),
        ("\xff\0".encode("latin-1"), "neither a journal nor"),
    ],
)
def test_wrong_files(
    text: str | bytes,
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "trades.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    assert main(["--flow", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"{path}: " in said
    assert problem in said


def test_a_damaged_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = recorded(tmp_path / "x.db", (9, "ann", place("buy", 1, 9)))
    path.write_bytes(path.read_bytes().replace(b'"qty":1', b'"qty":2'))
    assert main(["--flow", str(path)]) == 2
    assert f"{path}: after command 0: a batch" in capsys.readouterr().err
    assert main(["--flow", str(tmp_path / "none.db")]) == 2
    assert "none.db" in capsys.readouterr().err


# The command line and the market --------------------------------------------


def test_another_market(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, market = tmp_path / "trades.csv", tmp_path / "market.toml"
    path.write_text(ROWS)
    market.write_text("[instruments.BOND]\nmax_price = 100\n")
    arguments = ["--flow", str(path), "--market", str(market), "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["trades"] == 2
    assert result["flow_orders"] == 8
    assert result["flow_refused"] == {"invalid_price": 2, "unknown_symbol": 2}


def test_limits_of_a_recorded_account(tmp_path: Path) -> None:
    path, market = tmp_path / "trades.csv", tmp_path / "market.toml"
    path.write_text(ROWS)
    market.write_text(
        "[instruments.BOND]\n[instruments.ETF]\n"
        "[accounts.maker]\nmax_position = {BOND = 5}\n"
    )
    result, _ = play(flow=path, market=market, seconds=None)
    assert result.flow_refused == {"position_limit": 1}


def test_one_of_many_rounds(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    path.write_text(ROWS)
    plan = parse(["--flow", str(path), "--runs", "2", "--seed", "1"])
    result = run_seed(plan, 1)
    assert result.seconds == 3.002
    assert [s.account for s in result.standings] == [
        "@flow.maker",
        "@flow.taker",
    ]


def test_nobody_logs_in_as_the_flow() -> None:
    [request] = decode_requests(b'{"type":"login","user":"@flow.ann"}')
    assert isinstance(request, Error)
    assert request.field == "user"
    assert flow_account("ann") == "@flow.ann"
    assert flow_account("@flow.ann") == "@flow.ann"
    assert flow_account("") == ""
