"""A recorded journal, served over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_json

from exchange.gateway.pacing import SLOW_BYTES
from exchange.host.keyring import KeyRing
from exchange.journal.sqlite import JournalError
from exchange.market.command import Command
from exchange.market.engine import Engine
from orderbook import (
    MAX_FRAME,
    MAX_INT,
    BookUpdate,
    Bust,
    Status,
    Trade,
    encode,
)
from test.journal.files import write
from test.market.flows import flow
from test.script import in_full
from test.support import (
    PATIENCE_S,
    Wire,
    add_key,
    order,
    running,
    serving,
    until,
    wired,
)
from util.measure.process import environment
from util.playback.recording import Moment, Recording
from util.playback.server import Playback, Show
from util.playback.view import Rights
from util.playback.viewer import HEARTBEAT_S
from util.replay import main

pytestmark = pytest.mark.asyncio

STEPS = 2_000  # commands of a random flow
SPACING = 150  # commands between its checkpoints
MOMENTS = 200
ROWS = 1_000
SECOND = 1_000_000


@contextlib.asynccontextmanager
async def playing(
    path: Path,
    rights: Rights = Rights(),
    heartbeat_s: float = HEARTBEAT_S,
    **span: Any,
) -> AsyncIterator[Playback]:
    """Serve a journal on a free port of the loopback."""
    with contextlib.closing(
        Recording(path, is_quiet=True, spacing=SPACING, **span)
    ) as recording:
        playback = Playback(
            Show(
                recording=recording,
                title=path.name,
                rights=rights,
                heartbeat_s=heartbeat_s,
            )
        )
        await playback.start("127.0.0.1", 0)
        try:
            yield playback
        finally:
            async with asyncio.timeout(PATIENCE_S):
                await playback.stop()
        assert playback.listener.errors == 0


async def move(wire: Wire, **fields: Any) -> dict[str, Any]:
    """Send a `replay`; return its reply."""
    await wire.send({"type": "replay", "id": "move", **fields})
    return await wire.until(id="move")


async def data(wire: Wire, **fields: Any) -> str:
    """Return the rows of a table, as they were sent."""
    await wire.send({"type": "get", "id": "get", "limit": ROWS, **fields})
    while True:
        async with asyncio.timeout(PATIENCE_S):
            text = await wire.connection.recv()
        assert isinstance(text, str)
        if '"id":"get"' in text:
            head, _, rows = text.partition('"data":[')
            assert rows, head
            return rows.removesuffix('],"id":"get"}')


def told_at(
    commands: Sequence[Command], seqs: Sequence[int]
) -> dict[int, dict[str, str]]:
    """Return books, trades and leaderboard after commands, encoded.

    They come from an engine and its outputs only.
    """
    engine = Engine()
    trades: defaultdict[str, dict[int, Trade]] = defaultdict(dict)
    found: dict[int, dict[str, str]] = {}
    for command in commands:
        for _, event in in_full(engine, command):
            if isinstance(event, Trade):
                trades[event.symbol][event.trade_id] = event
            elif isinstance(event, Bust):
                rows = trades[event.symbol]
                rows[event.trade_id] = replace(
                    rows[event.trade_id], busted=True
                )
        if command.seq not in seqs:
            continue
        told: dict[str, str] = {}
        for symbol, listing in engine.listings.items():
            told[f"book {symbol}"] = encode(engine.snapshot(listing))
            rows = [*trades[symbol].values()][-ROWS:]
            told[f"trades {symbol}"] = ",".join(map(encode, rows))
        leaders = [
            {**row, "cash": row["equity"], "positions": {}}
            for row in engine.leaderboard()
        ]
        told["leaderboard"] = ",".join(to_json(r).decode() for r in leaders)
        found[command.seq] = told
    return found


async def asked(wire: Wire, symbols: Sequence[str]) -> dict[str, str]:
    """Return books, trades and leaderboard as a reader gets them."""
    told = {}
    for symbol in symbols:
        for what in ("book", "trades"):
            told[f"{what} {symbol}"] = await data(
                wire, what=what, symbol=symbol
            )
    told["leaderboard"] = await data(wire, what="leaderboard")
    return told


# What it shows ---------------------------------------------------------------


async def test_any_moment_is_that_of_an_engine(tmp_path: Path) -> None:
    rng = random.Random(22)
    commands = [*flow(rng, STEPS)]
    path = write(tmp_path / "day.db", commands)
    seqs = [rng.randrange(1, STEPS + 1) for _ in range(MOMENTS)]
    expected = told_at(commands, seqs)
    jumps = 0
    async with playing(path) as playback, wired(playback.url) as wire:
        await move(wire, speed="0")
        for seq in seqs:
            reply = await move(wire, ts=commands[seq - 1].ts)
            jumps += reply["jumped"]
            symbols = [
                key.partition(" ")[2]
                for key in expected[seq]
                if key.startswith("book ")
            ]
            assert await asked(wire, symbols) == expected[seq], seq
    assert jumps > MOMENTS / 3


async def test_it_tells_what_live_readers_were_told(tmp_path: Path) -> None:
    path = tmp_path / "day.db"
    rng = random.Random(1)
    live: dict[int, dict[str, str]] = {}
    async with serving(journal=path) as server:
        async with (
            wired(server.url, "ann") as ann,
            wired(server.url, "bob") as bob,
            wired(server.url) as reader,
            wired(server.url) as visitor,
        ):
            await reader.ask(type="subscribe", channels=["trades"])
            for _ in range(60):
                trader = rng.choice((ann, bob))
                side = rng.choice(("buy", "sell"))
                await trader.ask(**order(side, rng.randint(1, 9), 100))
                ts = server.gateway.engine.ts
                live[ts] = await asked(visitor, ["BOND"])
            heard = await reader.ask(type="ping")
    trades = [m for m in heard if m["type"] == "trade"]
    assert trades
    async with playing(path) as playback:
        async with wired(playback.url) as wire:
            await move(wire, speed="0")
            for ts, told in rng.sample(sorted(live.items()), 30):
                await move(wire, ts=ts)
                assert await asked(wire, ["BOND"]) == told
        # A bot that knows nothing of replays hears the same trades.
        async with wired(playback.url) as wire:
            await wire.ask(type="subscribe", channels=["trades"])
            again = [await wire.until(type="trade") for _ in trades]
    assert again == trades


async def test_an_account_sees_its_own_as_it_was(tmp_path: Path) -> None:
    path, keys = tmp_path / "day.db", tmp_path / "keys.json"
    token = add_key(keys, "ann")
    boss = add_key(keys, "boss", is_admin=True)
    async with serving(journal=path) as server:
        async with (
            wired(server.url, "ann", cancel_on_disconnect=False) as ann,
            wired(server.url, "bob") as bob,
        ):
            await ann.ask(**order("sell", 5, 101))
            await bob.ask(**order("buy", 2, 101))
            ts = server.gateway.engine.ts
            orders = await data(ann, what="orders")
            fills = await data(ann, what="fills")
            account = await data(ann, what="account")
            await ann.ask(type="cancel_all")
    rights = Rights(keys=KeyRing(keys))
    async with playing(path, rights) as playback:
        async with wired(playback.url) as wire:
            await move(wire, speed="0", ts=ts)
            welcome = await wire.login("ann", token=token)
            assert welcome["type"] == "welcome"
            assert await data(wire, what="orders") == orders
            assert await data(wire, what="fills") == fills
            assert await data(wire, what="account") == account
            assert (await move(wire, what="accounts"))["data"] == ["ann"]
            for refused in (
                {"what": "names"},
                {"step": "fill", "account": "bob", "back": True},
            ):
                assert (await move(wire, **refused))["code"] == "forbidden"
            (refusal,) = await wire.ask(**order("buy", 1, 1))
            assert refusal["code"] == "forbidden"
        async with wired(playback.url) as wire:
            await move(wire, speed="0", ts=ts)
            await wire.login("boss", token=boss)
            names = (await move(wire, what="names"))["data"]
            assert names["trades"] == [[1, 101, 2, "bob", "ann"]]
            assert names["asks"] == [[101, 3, "ann"]]
            everybody = (await move(wire, what="accounts"))["data"]
            assert everybody == ["ann", "bob"]
        async with wired(playback.url) as wire:
            await wire.send({"type": "login", "user": "bob", "token": "no"})
            messages, code = await wire.rest()
            assert code == 4001 and messages[-1]["code"] == "unauthorized"
    async with playing(path, Rights(is_published=True)) as playback:
        async with wired(playback.url) as wire:
            await move(wire, speed="0", ts=ts)
            await wire.login("bob")
            await move(wire, ts=ts + 1)
            reply = await move(wire, step="fill", account="ann", back=True)
            assert (reply["ts"], reply["symbol"]) == (ts, "BOND")
            assert (await move(wire, what="names"))["data"]["trades"]


# Moving ----------------------------------------------------------------------


async def test_time_passes_and_ends(tmp_path: Path) -> None:
    commands = [*flow(random.Random(3), 400)]
    path = write(tmp_path / "day.db", commands)
    end = commands[-1].ts
    async with (
        playing(path, heartbeat_s=0.05) as playback,
        wired(playback.url) as wire,
    ):
        await move(wire, speed="0")
        await wire.ask(type="subscribe", channels=["book"])
        await move(wire, ts=end - 20 * SECOND)
        await wire.ask(type="subscribe", channels=["book"])
        await move(wire, speed="100")
        places = [await wire.until(type="replay")]
        while places[-1]["ts"] < end:
            places.append(await wire.until(type="replay"))
        times = [place["ts"] for place in places]
        assert times == sorted(times)
        assert {place["speed"] for place in places[:-1]} == {"100"}
        assert places[-1]["speed"] == "0"
        wire.hears_heartbeats = True
        beat = await wire.until(type="heartbeat", ts=end)
        assert beat["speed"] == "0" and beat["seq"].keys() == {
            "BOND",
            "ETF",
            "XAU",
        }


async def test_steps_go_to_what_happened(tmp_path: Path) -> None:
    commands = [*flow(random.Random(4), 600)]
    path = write(tmp_path / "day.db", commands)
    engine = Engine()
    trades: list[int] = []
    events: list[int] = []
    fills: list[tuple[int, str]] = []
    for command in commands:
        outputs = in_full(engine, command)
        kinds = [event for _, event in outputs]
        if any(isinstance(e, Trade) and e.symbol == "BOND" for e in kinds):
            trades.append(command.ts)
        if any(isinstance(e, (BookUpdate, Trade, Status)) for e in kinds):
            events.append(command.ts)
        symbols = [
            getattr(event, "symbol", "")
            for recipient, event in outputs
            if recipient == "ann"
            and getattr(event, "exec_type", "") == "trade"
        ]
        if symbols:
            fills.append((command.ts, symbols[0]))
    assert trades and fills
    async with (
        playing(path, Rights(is_published=True)) as playback,
        wired(playback.url) as wire,
    ):
        await move(wire, speed="0", ts=0)
        for ts in trades:
            step = await move(wire, step="trade", symbol="BOND")
            assert step["ts"] == ts
        assert (await move(wire, step="trade", symbol="BOND"))["ts"] == ts
        for ts in reversed(trades[:-1]):
            step = await move(wire, step="trade", symbol="BOND", back=True)
            assert step["ts"] == ts
        await move(wire, ts=0)
        for ts in events[:50]:
            if ts > commands[0].ts:
                assert (await move(wire, step="event"))["ts"] == ts
        await move(wire, ts=0)
        for ts, symbol in fills:
            step = await move(wire, step="fill", account="ann")
            assert (step["ts"], step["symbol"]) == (ts, symbol)


async def test_a_span_is_served_alone(tmp_path: Path) -> None:
    commands = [*flow(random.Random(5), 500)]
    path = write(tmp_path / "day.db", commands)
    start, end = commands[200].ts, commands[400].ts
    expected = told_at(commands, [201, 401])
    symbols = ["BOND", "ETF", "XAU"]
    async with playing(path, start=start, end=end) as playback:
        async with wired(playback.url) as wire:
            await move(wire, speed="0")
            for ts, seq in ((0, 201), (commands[-1].ts, 401)):
                reply = await move(wire, ts=ts)
                assert reply["ts"] == commands[seq - 1].ts
                assert await asked(wire, symbols) == expected[seq]
    with pytest.raises(JournalError, match="no command in the time"):
        Recording(path, start=commands[-1].ts + 1, is_quiet=True)


async def test_a_wrong_move_is_refused_by_its_field(tmp_path: Path) -> None:
    path = write(tmp_path / "day.db", [*flow(random.Random(6), 50)])
    async with playing(path) as playback, wired(playback.url) as wire:
        for fields, name in (
            ({"speed": "fast"}, "speed"),
            ({"speed": "101"}, "speed"),
            ({"speed": "NaN"}, "speed"),
            ({"speed": "1E-900000"}, "speed"),  # told, it has as many digits
            ({"ts": "5"}, "ts"),
            ({"ts": -1}, "ts"),
            ({"step": "year"}, "step"),
            ({"when": 1}, "when"),
            ({"step": "fill"}, "account"),
        ):
            reply = await move(wire, **fields)
            assert reply["type"] == "error" and reply["field"] == name
        assert (await move(wire, what="fair"))["code"] == "forbidden"
        await wire.send({"type": "replay"}, {"type": "replay"})
        assert (await wire.receive())["code"] == "bad_request"


async def test_who_does_not_read_is_not_answered(tmp_path: Path) -> None:
    """What waits for one viewer is bounded, and others are served."""
    path = write(tmp_path / "day.db", [*flow(random.Random(6), STEPS)])
    one: dict[str, Any]
    one = {"type": "get", "what": "trades", "limit": ROWS, "symbol": "BOND"}
    async with (
        playing(path) as playback,
        wired(playback.url) as greedy,
        wired(playback.url) as other,
    ):
        await move(greedy, ts=MAX_INT, speed="0")
        await move(other, speed="0")
        greedy.connection.transport.pause_reading()

        async def ask() -> None:
            while True:
                await greedy.send(*[one] * MAX_FRAME)

        asking = asyncio.create_task(ask())

        def most() -> int:
            return max(c.buffered for c in playback.listener.connections)

        await until(lambda: most() > SLOW_BYTES)
        for _ in range(100):
            await move(other, speed="0")
        assert most() < 2 * SLOW_BYTES
        asking.cancel()
        greedy.connection.transport.abort()


async def test_who_has_left_is_not_waited_for(tmp_path: Path) -> None:
    """Connections that come and go queue no work."""
    path = write(tmp_path / "day.db", [*flow(random.Random(6), STEPS)])
    loaded, may_load = 0, threading.Event()

    class Slow(Recording):
        def at(self, ts: int) -> Moment:
            nonlocal loaded
            loaded += 1
            assert may_load.wait(PATIENCE_S)
            return super().at(ts)

    with contextlib.closing(Slow(path, is_quiet=True)) as recording:
        playback = Playback(Show(recording=recording, title="day"))
        await playback.start("127.0.0.1", 0)
        for _ in range(10):
            async with wired(playback.url) as wire:
                wire.connection.transport.abort()
        await until(lambda: not playback.listener.connections)
        may_load.set()
        async with wired(playback.url) as wire:
            assert (await move(wire, speed="0"))["type"] == "ok"
        await playback.stop()
    assert loaded == 2  # the first one, and the last one


async def test_a_newcomer_has_an_empty_account(tmp_path: Path) -> None:
    """A team may sign in at a time before its first login."""
    commands = [*flow(random.Random(7), 300)]
    path = write(tmp_path / "day.db", commands)
    async with (
        playing(path, Rights(is_published=True)) as playback,
        wired(playback.url) as wire,
    ):
        await move(wire, speed="0", ts=0)
        assert (await wire.login("eve"))["seq"] == 0
        assert await data(wire, what="orders") == ""
        assert json.loads(await data(wire, what="account"))["cash"] == 500
        await move(wire, speed="100")
        first = await wire.until(type="exec")
        assert first["seq"] == 1


# The command -----------------------------------------------------------------


async def test_the_command_serves_page_and_recording(tmp_path: Path) -> None:
    path = write(tmp_path / "day.db", [*flow(random.Random(8), 50)])
    arguments = ("-m", "util.replay", "--serve", str(path), "--port", "0")
    async with running(*arguments, env=environment()) as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("day.db on http://localhost:")
        async with wired(line.split()[-1]) as wire:
            assert (await move(wire, speed="0"))["type"] == "ok"
            process.terminate()
            assert (await wire.rest())[1] == 1001
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    (
        ("--serve --format csv", "--serve prints nothing"),
        ("--port 1", "need --serve"),
        ("--serve --port 65536", "must be from 0 to 65535"),
    ),
)
async def test_wrong_usage(
    capsys: pytest.CaptureFixture[str], arguments: str, reason: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["day.db", *arguments.split()])
    assert caught.value.code == 2 and reason in capsys.readouterr().err


async def test_a_key_file_without_keys_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "day.db", [*flow(random.Random(8), 5)])
    keys = str(tmp_path / "no.json")
    assert main([str(path), "--serve", "--keys", keys]) == 2
    assert f"{keys}: there are no keys" in capsys.readouterr().err
