"""Rounds in virtual time: bots as they are, results that repeat."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from client import Exchange, Market
from exchange.journal.sqlite import read_journal
from test.journal.golden import PYTHONS
from test.support import PATIENCE_S, ROOT, serving
from test.test_docs import README, blocks
from test.test_tutorial import PROGRAMS
from util.replay import main as replay
from util.simulate.__main__ import main
from util.simulate.connection import split
from util.simulate.journal import MemoryJournal
from util.simulate.result import Activity, Result
from util.simulate.world import Entry, Simulation, SimulationError

QUIET = {"makers": 0, "noise": 0, "informed": 0}


def write(folder: Path, name: str, program: str) -> str:
    """Write a bot; return its path."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(dedent(program))
    return str(path)


def play(
    *bots: str, seconds: float = 10, seed: int = 1, **options: Any
) -> tuple[Result, str]:
    """Play a round; return the result and what the bots printed."""
    out = io.StringIO()
    with Simulation(*bots, seed=seed, out=out, **options) as simulation:
        return simulation.run(seconds), out.getvalue()


def only(folder: Path, program: str, **options: Any) -> str:
    """Run a bot alone, which must not fail; return what it printed."""
    bot = write(folder, "bot.py", program)
    result, printed = play(bot, **{**QUIET, **options})
    assert result.failures == {}
    return printed


def run_tool(
    *arguments: str, python: str = sys.executable, **variables: str
) -> tuple[int, str, str]:
    ran = subprocess.run(
        [python, "-m", "util.simulate", *arguments],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    return ran.returncode, ran.stdout, ran.stderr


# Bots as they are -----------------------------------------------------------

BLOCKING = """
    import random
    import time

    from client import BlockingExchange

    with BlockingExchange() as ex:
        bond = ex.market("BOND")
        while time.monotonic() < 8:
            time.sleep(random.uniform(0.5, 1))
            if bond.book.ask is not None:
                print(bond.buy(1, bond.book.ask, time_in_force="ioc"))
        print(next(bond.trades()).price)
"""


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_of_the_tutorial(tmp_path: Path, name: str) -> None:
    bot = write(tmp_path, name, PROGRAMS[name])
    result, printed = play(bot, seconds=20)
    assert result.failures == {}
    [standing] = [s for s in result.standings if s.account == "you"]
    assert standing.bots == (name.removesuffix(".py"),)
    assert (standing.orders > 0) == (name != "listen.py")
    assert printed.startswith("bid" if name == "listen.py" else ("9", "N"))


def test_the_bot_of_the_readme(tmp_path: Path) -> None:
    [program] = blocks(README, "python")
    result, printed = play(write(tmp_path, "bot.py", program), seconds=20)
    assert result.failures == {}
    assert "98 102 0 0" in printed
    assert {s.account: s.fills > 0 for s in result.standings}["maker"]


def test_a_blocking_bot(tmp_path: Path) -> None:
    bot = write(tmp_path, "slow.py", BLOCKING)
    result, printed = play(bot, seconds=20)
    assert result.failures == {}
    [standing] = [s for s in result.standings if s.account == "slow"]
    assert standing.fills == printed.count("filled 1>") > 5


def test_a_main_that_nobody_calls(tmp_path: Path) -> None:
    program = """
        async def main(count=3):
            print("ran", count, __name__)
    """
    assert only(tmp_path, program) == "ran 3 __main__\n"


def test_a_websocket_of_the_bot_s_own(tmp_path: Path) -> None:
    program = """
        import asyncio
        import websockets

        async def main():
            async with websockets.connect("ws://localhost:8765") as ws:
                await ws.send('{"type":"ping","id":1}')
                print(await ws.recv())

        asyncio.run(main())
    """
    assert '"type":"ok"' in only(tmp_path, program)


# What is virtual ------------------------------------------------------------


def test_the_clocks_of_a_bot(tmp_path: Path) -> None:
    program = """
        import asyncio, time
        from datetime import UTC, date, datetime

        time.sleep(0.5)
        print(time.monotonic(), time.time(), time.time_ns())
        print(datetime.now(UTC), datetime.utcnow(), date.today())
        print(isinstance(datetime.now(), datetime))
        print(time.strftime("%Y", time.gmtime()))

        async def main():
            await asyncio.sleep(3600)
            print(asyncio.get_running_loop().time())

        asyncio.run(main())
    """
    lines = only(tmp_path, program, seconds=4_000).splitlines()
    assert lines == [
        "0.5 1767603600.5 1767603600500000000",
        "2026-01-05 09:00:00.500000+00:00 2026-01-05 09:00:00.500000"
        " 2026-01-05",
        "True",
        "2026",
        "3600.5",
    ]


CHANCE = """
    import os, random, secrets, uuid

    print(random.random(), random.Random().random())
    print(random.Random(1).random())
    print(secrets.token_hex(8), uuid.uuid4(), os.urandom(4).hex())
"""


def test_the_chance_of_a_bot_is_seeded(tmp_path: Path) -> None:
    first = only(tmp_path, CHANCE)
    assert only(tmp_path, CHANCE) == first
    other = only(tmp_path, CHANCE, seed=2)
    assert {*first.split()} & {*other.split()} == {first.split()[2]}


def test_each_bot_has_its_own_modules(tmp_path: Path) -> None:
    write(tmp_path, "shared.py", "count = 0\nimport inner.deep as deep\n")
    write(tmp_path, "inner/__init__.py", "from . import deep\n")
    write(
        tmp_path,
        "inner/deep.py",
        """
        from __future__ import annotations
        from dataclasses import dataclass
        from random import random

        @dataclass
        class Value:
            x: int

        drawn = random()
        """,
    )
    program = """
        import shared
        from inner.deep import Value

        shared.count += 1
        print(shared.count, Value(3), shared.deep.drawn)
    """
    bots = [write(tmp_path, f"{name}.py", program) for name in "ab"]
    _, printed = play(*bots, **QUIET)
    one, other = printed.splitlines()
    assert one.startswith("1 Value(x=3) ")
    assert other.startswith("1 Value(x=3) ")
    assert one != other
    assert "shared" not in sys.modules


def test_a_bot_without_a_user_has_its_name(tmp_path: Path) -> None:
    program = """
        import os
        from client import Exchange, Market

        async def main():
            async with Exchange() as ex:
                print(ex.user, os.environ["EXCHANGE_USER"])
    """
    bot = write(tmp_path, "alice.py", program)
    result, printed = play(bot, bot, **QUIET)
    assert printed == "alice alice\nalice-2 alice-2\n"
    assert [s.account for s in result.standings] == ["alice", "alice-2"]


RACE = """
    import asyncio
    from client import Exchange, Market

    async def main():
        async with Exchange() as ex:
            bond = await ex.market("BOND")
            async for book in bond.books():
                if book.ask is not None:
                    order = await bond.buy(1, book.ask, time_in_force="ioc")
                    print(ex.user, order.cum_qty)
                    await asyncio.sleep(10)
"""
SELLER = """
    import asyncio
    from client import Exchange, Market

    async def main():
        async with Exchange() as ex:
            bond = await ex.market("BOND")
            await asyncio.sleep(1)
            await bond.sell(1, 100)
            await asyncio.sleep(9)
"""


@pytest.mark.parametrize("quick", ["a", "b"])
def test_the_quicker_bot_wins_a_race(tmp_path: Path, quick: str) -> None:
    bots = [write(tmp_path, "seller.py", SELLER)]
    for name in "ab":
        path = write(tmp_path, f"{name}.py", RACE)
        bots.append(f"{path}@{'1ms' if name == quick else '2ms'}")
    result, printed = play(*bots, seconds=5, **QUIET)
    assert f"{quick} 1\n" in printed
    latencies = {s.account: s.latency for s in result.standings}
    assert latencies[quick] == "1ms"


def test_polling_without_a_pause(tmp_path: Path) -> None:
    program = """
        import asyncio, time

        async def main():
            while time.time() < 1767603600.1:
                await asyncio.sleep(0)
            print("done")
    """
    assert only(tmp_path, program) == "done\n"


# What is refused ------------------------------------------------------------


@pytest.mark.parametrize(
    ("program", "call"),
    [
        ("import socket\nsocket.socket()\n", "socket.socket"),
        (
            "import urllib.request\n"
            "urllib.request.urlopen('http://localhost:1')\n",
            "socket.getaddrinfo",
        ),
        (
            "import threading\nthreading.Thread(target=print).start()\n",
            "threading.Thread",
        ),
        (
            "from concurrent.futures import ThreadPoolExecutor\n"
            "ThreadPoolExecutor().submit(print)\n",
            "threading.Thread",
        ),
        ("import subprocess\nsubprocess.run(['true'])\n", "subprocess.Popen"),
        ("import os\nos.system('true')\n", "os.system"),
        ("import os\nos.fork()\n", "os.fork"),
        (
            "import asyncio, time\nasync def main():\n    time.sleep(1)\n",
            "time.sleep() in a coroutine",
        ),
        (
            "import asyncio\nasync def main():\n"
            "    await asyncio.to_thread(print)\n",
            "asyncio.to_thread",
        ),
        (
            "import asyncio\nfrom client import BlockingExchange\n"
            "async def main():\n    BlockingExchange().connect()\n",
            "BlockingExchange in a coroutine",
        ),
        (
            "import asyncio\nasyncio.new_event_loop()\n",
            "use asyncio.run(main())",
        ),
    ],
)
def test_what_cannot_be_repeated_is_refused(
    tmp_path: Path, program: str, call: str
) -> None:
    result, _ = play(write(tmp_path, "bot.py", program), **QUIET)
    line, _, trace = result.failures["bot"].partition("\n")
    assert line.startswith("bot: ")
    assert call in line
    last = trace.splitlines()[-2]
    assert str(tmp_path / "bot.py") in last


def test_outside_of_bots_nothing_is_refused() -> None:
    play(seconds=1, **QUIET)
    subprocess.run(["true"], check=True)


# Bots that fail -------------------------------------------------------------


def test_a_bot_that_raises_ends_alone(tmp_path: Path) -> None:
    program = """
        import asyncio
        from client import Exchange, Market
        from orderbook import Refused

        async def trade(bond):
            await bond.buy(0, 100)

        async def main():
            async with Exchange() as ex:
                bond = await ex.market("BOND")
                await bond.buy(1, 90)
                await asyncio.sleep(2)
                await trade(bond)
    """
    bot = write(tmp_path, "bad.py", program)
    result, _ = play(bot, seconds=20)
    line, *trace = result.failures["bad"].splitlines()
    assert line.startswith("bad: BadRequest: qty: ")
    assert [t.strip() for t in trace[1::2]] == [
        "await trade(bond)",
        "await bond.buy(0, 100)",
    ]
    assert result.seconds == 20
    assert result.trades > 0


@pytest.mark.parametrize("wait", ["await asyncio.sleep(1)", "time.sleep(1)"])
def test_a_bot_that_hangs_is_stopped_with_its_stack(
    tmp_path: Path, wait: str
) -> None:
    body = f"{wait}\n    spin()" if wait.startswith("await") else "spin()"
    first = "" if wait.startswith("await") else f"{wait}\nspin()\n"
    program = (
        "import asyncio, time\n\n"
        "def spin():\n    while True:\n        pass\n\n"
        f"{first}\nasync def main():\n    {body}\n"
    )
    bot = write(tmp_path, "stuck.py", program)
    result, _ = play(bot, seconds=20, hang_s=0.5)
    line, *trace = result.failures["stuck"].splitlines()
    assert line == "stuck: stopped: it ran for 0.5 s without a wait"
    assert "in spin" in trace[-2]
    assert "asyncio" not in trace[0]
    assert result.trades > 0


def test_a_bot_that_exits_with_a_status_has_failed(tmp_path: Path) -> None:
    bots = [
        write(tmp_path, f"exit{status}.py", f"import sys\nsys.exit({status})")
        for status in (0, 3)
    ]
    result, _ = play(*bots, **QUIET)
    assert list(result.failures) == ["exit3"]
    assert result.silent == ("exit0", "exit3")


# The same again -------------------------------------------------------------


WAITING = """
    import asyncio
    from client import Exchange

    async def main():
        async with Exchange(user="waits") as ex:
            bond = await ex.market("BOND")
            async for trade in bond.trades():
                await bond.quote(trade.price - 2, trade.price + 2, 3)
                await asyncio.sleep(0.3)
"""


@pytest.mark.parametrize("python", PYTHONS)
def test_a_seed_gives_one_digest_everywhere(
    tmp_path: Path, python: str
) -> None:
    """Under any seed of hashes, and under any Python: see `make pythons`."""
    bots = (
        f"{write(tmp_path, 'slow.py', BLOCKING)}@5ms±3ms",
        write(tmp_path, "careful.py", PROGRAMS["careful.py"]),
        write(tmp_path, "waits.py", WAITING),
    )

    def digest(seed: str, hash_seed: str) -> str:
        status, printed, _ = run_tool(
            *(*bots, "--seconds", "20", "--seed", seed),
            python=python,
            PYTHONHASHSEED=hash_seed,
        )
        assert status == 0
        return printed.splitlines()[-1]

    first = digest("1", "1")
    assert digest("2", "1") != first
    here, _ = play(*bots, seconds=20, seed=1)
    assert first == f"digest {here.digest}"


def test_steps_give_the_digest_of_one_go() -> None:
    with Simulation(seed=3) as simulation:
        for second in range(1, 21):
            simulation.run_until(second)
            assert simulation.time == second
        steps = simulation.end()
    assert steps == play(seconds=20, seed=3)[0]


async def test_a_live_round_has_the_balances_of_its_journal(
    tmp_path: Path,
) -> None:
    path = tmp_path / "live.db"
    async with serving(journal=path) as server:
        async with (
            Exchange(server.url, "alice") as alice,
            Exchange(server.url, "bob") as bob,
        ):
            await (await alice.market("BOND")).sell(5, 101)
            await (await bob.market("BOND")).buy(3, 101)
    engine = server.gateway.engine
    activity = Activity()
    again = activity.count(read_journal(path), engine.seq)
    assert again.leaderboard() == engine.leaderboard()
    assert activity.volume == {"alice": 3, "bob": 3}


def test_a_journal_is_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "round.db"
    with Simulation(seed=5) as simulation:
        result = simulation.run(10)
        simulation.journal.save(path)
        with pytest.raises(FileExistsError):
            simulation.journal.save(path)
    assert replay(["--verify", str(path)]) == 0
    again = MemoryJournal(path)
    commands = [c for batch in read_journal(path) for c in batch]
    assert len(commands) == result.commands
    assert commands == [
        c for batch in simulation.journal.recover() for c in batch.commands
    ]
    assert again.digest() != result.digest == simulation.journal.digest()


# Step by step ---------------------------------------------------------------


def test_clients_share_what_they_read_alike() -> None:
    """Also those that came at different times, with different latencies."""

    async def join(seconds: float) -> Market:
        await asyncio.sleep(seconds)
        ex = Exchange()
        await ex.connect()
        return await ex.market("BOND")

    with Simulation(seed=1, speed=5, out=io.StringIO()) as simulation:
        joining = [
            simulation.inject(join(1), "early", "1ms"),
            simulation.inject(join(3), "late", "7ms"),
        ]
        early, late = map(simulation.run_until, joining)
        seen = set()
        for step in range(50):
            simulation.run_until(5 + step / 7)
            if early.book.seq == late.book.seq:
                assert early.book is late.book
                seen.add(early.book)
        assert len(seen) > 10


def test_frames_are_taken_apart() -> None:
    sizes = (0, 1, 125, 126, 65_535, 65_536)
    data = b"".join(
        Frame(Opcode.TEXT, b"x" * size).serialize(mask=False) for size in sizes
    )
    for rest in (
        b"",
        b"\x81",
        b"\x81\x7e",
        Frame(Opcode.PING, b"").serialize(mask=False),
        Frame(Opcode.TEXT, b"x" * 200).serialize(mask=False)[:-1],
    ):
        messages: list[bytes] = []
        assert split(data + rest, messages) == len(data)
        assert [len(message) for message in messages] == [*sizes]


def test_a_coroutine_is_injected() -> None:
    async def enter() -> tuple[Exchange, Any]:
        ex = Exchange()
        await ex.connect()
        return ex, await ex.market("BOND")

    with Simulation(seed=1) as simulation:
        simulation.run_until(5)
        pair = simulation.run_until(simulation.inject(enter(), "me", "3ms"))
        assert pair is not None
        ex, bond = pair
        assert ex.user == "me"
        before = simulation.time
        order = simulation.run_until(
            simulation.inject(bond.buy(1, bond.book.ask), "me")
        )
        assert order is not None
        assert order.order_status == "filled"
        assert simulation.time - before == pytest.approx(0.006)
        simulation.run_until(20)
        [mine] = [s for s in simulation.standings() if s.account == "me"]
        assert (mine.orders, mine.fills, mine.bots) == (1, 1, ("me",))
        assert ex.positions == {"BOND": 1}


def test_what_the_manual_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it, and the plot where matplotlib is installed."""
    bot = write(tmp_path, "careful.py", PROGRAMS["careful.py"])
    lines = []
    for seed in (1, 2):
        result, _ = play(bot, seconds=5, seed=seed)
        lines.append(json.dumps(result.as_dict()) + "\n")
    (tmp_path / "rounds.jsonl").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")  # no display
    manual = (ROOT / "docs" / "SIMULATION.md").read_text()
    profits, plot, table, steps, episode = blocks(manual, "python")
    names: dict[str, Any] = {}
    exec(profits, names)
    assert len(names["profits"]["you"]) == 2
    if find_spec("matplotlib"):
        exec(plot, names)
        assert (tmp_path / "profits.png").stat().st_size > 5_000
    else:
        compile(plot, "plot", "exec")
    exec(table, names)
    assert "you" in names["table"]["account"].values
    exec(steps, names)
    assert names["bond"].position > 0
    exec(episode, names)
    assert names["info"]["time"] == 62


async def test_inside_another_loop() -> None:
    """A notebook has one."""
    assert play(seconds=5)[0].seconds == 5


def test_an_exchange_that_fails_ends_the_round() -> None:
    """Links that wait to be served do not keep the loop busy."""

    async def fail() -> None:
        simulation.server.step(lambda: 1 // 0)

    with Simulation(seed=1, speed=9) as simulation:
        simulation.run_until(5)
        simulation.inject(fail())
        with pytest.raises(SimulationError, match="the exchange failed"):
            simulation.run_until(8)


# The command line -----------------------------------------------------------


def test_the_result_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bot = write(tmp_path, "bot.py", "print('hello')\n1 / 0\n")
    assert main([bot, "--seconds", "5", "--seed", "1", "--json"]) == 1
    printed, errors = capsys.readouterr()
    result = json.loads(printed)
    assert result["standings"][0]["rank"] == 1
    assert result["failures"].keys() == {"bot"}
    assert "hello\n" in errors
    assert "ZeroDivisionError" in errors


def test_many_rounds_over_the_processors(tmp_path: Path) -> None:
    bot = write(tmp_path, "careful.py", PROGRAMS["careful.py"])
    arguments = [bot, "--runs", "3", "--seconds", "5", "--seed", "4"]
    status, printed, errors = run_tool(*arguments, "--json")
    assert (status, errors) == (0, "")
    results = [json.loads(line) for line in printed.splitlines()]
    assert [result["seed"] for result in results] == [4, 5, 6]
    alone, _ = play(bot, seconds=5, seed=5)
    assert results[1]["digest"] == alone.digest
    status, printed, _ = run_tool(*arguments)
    assert status == 0
    head, *rows, last = printed.splitlines()
    assert head.split()[:4] == ["runs", "account", "mean", "profit"]
    assert {row.split()[1] for row in rows} >= {"you", "house-maker-1"}
    assert last == "3 rounds of 5 s of market, seeds 4 to 6"


def test_ctrl_c_gives_the_result_so_far(tmp_path: Path) -> None:
    bot = write(
        tmp_path,
        "bot.py",
        "import time\ntime.sleep(5)\nprint('ready', flush=True)\n",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "util.simulate", bot, "--seconds", "1e8"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert "house-maker-1" in printed
    assert "digest" in printed


def test_ctrl_c_ends_many_rounds(tmp_path: Path) -> None:
    """Each process is told, as by a terminal; nothing is left behind."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "util.simulate", "--json"),
            *("--runs", "999", "--seconds", "20"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, b"")
    assert first["seconds"] == 20


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nothing.py"], "nothing.py: there is no such file"),
        (["{bot}@soon"], "'soon' is not a latency"),
        (["--latency", "1ms±5ms"], "the spread is above the mean"),
        (["--seconds", "0"], "must be above 0"),
        (["--runs", "2", "--journal", "x.db"], "--journal: is for one round"),
        (["--journal", "{bot}"], "exists"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    problem: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bot = write(tmp_path, "bot.py", "")
    with pytest.raises(SystemExit, match="2"):
        main([argument.format(bot=bot) for argument in arguments])
    assert problem in capsys.readouterr().err


def test_a_wrong_market_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "market.toml"
    path.write_text("[instruments.BOND]\nmin_qty = 'x'\n")
    assert main(["--market", str(path), "--seconds", "1"]) == 2
    assert "market.toml" in capsys.readouterr().err


def test_a_market_file(tmp_path: Path) -> None:
    path = tmp_path / "market.toml"
    path.write_text("[instruments.A]\n[instruments.B]\n[account]\ncash = 5\n")
    result, _ = play(market=path, seconds=20)
    assert {s for one in result.standings for s in one.positions} == {"A", "B"}
    assert sum(one.profit for one in result.standings) == 0


def test_an_at_sign_in_a_name(tmp_path: Path) -> None:
    path = write(tmp_path, "me@home.py", "")
    assert Entry.read(path) == Entry(Path(path))
    assert str(Entry.read(f"{path}@5").latency) == "5ms"
