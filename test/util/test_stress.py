"""The load generator reports the truth, and catches a server that lies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from orderbook import AccountReport, Error, Place, decode_requests
from server import Server
from test.support import PATIENCE_S, ROOT, ended, serving, until
from util.measure.figures import Meter, as_text, bottleneck, figures
from util.measure.histogram import Histogram
from util.measure.load import Link, Pace
from util.measure.process import Trouble, launched
from util.measure.stress import MIX, main, parse
from util.measure.trader import (
    ACCEPTED,
    OPEN_ORDERS,
    Account,
    Flow,
    Tally,
    Trader,
    Violation,
)
from util.measure.workers import Plan, Report, Worker

BRIEF = ("--seconds", "0.3", "--warmup", "0.1")
FLOW = Flow(
    symbol="BOND", middle=50, depth=10, max_qty=10, mix=MIX, run="cafe"
)
STRESS = ("-m", "util.measure.stress")


@contextlib.asynccontextmanager
async def stressing(
    *arguments: str, code: tuple[str, ...] = STRESS, **environment: str
) -> AsyncIterator[Process]:
    """Run the program in a session of its own, as a terminal would."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", *code, *arguments),
        cwd=ROOT,
        env=os.environ | environment,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            await process.communicate()


async def run(
    *arguments: str, code: tuple[str, ...] = STRESS, **environment: str
) -> tuple[int, str, str]:
    """Run the program to its end; return status, output and errors."""
    async with stressing(*arguments, code=code, **environment) as process:
        return await ended(process)


async def run_until(
    condition: Callable[[], object],
    *arguments: str,
    code: tuple[str, ...] = STRESS,
) -> tuple[int, str, str]:
    """Run the program, and end it in order once something has happened."""
    async with stressing(
        *("--seconds", "600", "--warmup", "0", *arguments), code=code
    ) as process:
        await until(condition)
        process.terminate()
        return await ended(process)


async def found(server: Server, *arguments: str) -> dict[str, Any]:
    """Return the figures of a good run of some hundred requests."""
    listing = server.gateway.engine.listings["BOND"]
    status, output, errors = await run_until(
        lambda: server.gateway.engine.seq > 1_000,
        *("--url", server.url, "--json", *arguments),
    )
    assert (status, errors) == (0, "")
    figures: dict[str, Any] = json.loads(output)
    assert figures["answered"] == figures["sent"] > 0
    assert figures["trades"] == listing.trade_id
    assert figures["lost"] == 0
    assert figures["trouble"] is None
    return figures


# Figures ------------------------------------------------------------------


def recorded(*values: int) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


def test_percentiles_of_a_known_series() -> None:
    values = list(range(1, 10_001))
    random.Random(1).shuffle(values)
    histogram = recorded(*values)
    assert histogram.total == 10_000
    for percent in (50, 90, 99, 99.9):
        exact = math.ceil(10_000 * percent / 100)
        assert exact <= histogram.percentile(percent) <= exact * 129 / 128
    assert histogram.percentile(100) == histogram.max_us == 10_000


def test_percentiles_of_few() -> None:
    assert recorded().percentile(99) == 0
    assert recorded(7).percentile(50) == 7
    assert recorded(0, 100, 200).percentile(50) == 100
    assert recorded(0, 100, 200).percentile(99) == 200


def test_a_bucket_contains_its_durations() -> None:
    dice = random.Random(2)
    values = [*range(1_000), *(dice.randrange(2**32) for _ in range(1_000))]
    for value in values:
        [(first, last, number)] = recorded(value).bars()
        assert first <= value <= last
        assert number == 1
        assert (last - first) * 128 <= first


def test_a_duration_beyond_the_range_counts_as_the_longest() -> None:
    histogram = recorded(2**40, 5)
    assert histogram.max_us == Histogram.MOST_US
    assert histogram.percentile(50) == 5


def test_histograms_add_up() -> None:
    both = recorded(1, 10)
    both.add(recorded(10, 1_000))
    assert [number for *_, number in both.bars()] == [1, 2, 1]
    assert both.max_us == 1_000


def test_tallies_add_and_subtract() -> None:
    early = Tally(5, Counter(new=2), Counter(busy=1), 1)
    late = Tally(9, Counter(new=3, amended=1), Counter(busy=1), 1)
    assert late - early == Tally(4, Counter(new=1, amended=1), Counter(), 0)
    assert (late - early) + early == late
    assert (late.answered, late.orders) == (5, 4)


@pytest.mark.parametrize(
    "figures, side, words",
    [
        ({}, "window", "waited"),
        ({"exchange": 0.9}, "exchange", "a whole core"),
        ({"exchange": 0.9, "generator": 0.9}, "exchange", "whole core"),
        ({"exchange": 0.85, "exchange_wait": 0.09}, "exchange", "whole core"),
        ({"exchange": 1.2, "exchange_wait": 0.3}, "exchange", "whole core"),
        ({"generator": 0.9}, "generator", "--processes"),
        ({"exchange": None}, "unknown", "--start"),
        ({"exchange": None, "generator": 0.9}, "generator", "--processes"),
        ({"exchange_wait": 0.11}, "machine", "the exchange had to wait"),
        ({"generator_wait": 0.4}, "machine", "generator had to wait for a"),
        ({"exchange_wait": 0.4, "is_on_time": True}, "rate", "it was due"),
        ({"exchange_wait": 0.09}, "window", "neither side"),
        ({"exchange": 0.9, "is_on_time": True}, "rate", "none: "),
        ({"exchange": 0.9, "codes": {"rate_limited"}}, "limit", "limit of"),
        ({"exchange": 0.9, "codes": {"busy"}}, "busy", "refused orders"),
        ({"exchange": 0.89, "generator": 0.89}, "window", "neither side"),
    ],
)
def test_bottleneck(figures: dict[str, Any], side: str, words: str) -> None:
    quiet: dict[str, Any] = {
        "exchange": 0.5,
        "exchange_wait": 0.0,
        "generator": 0.5,
        "generator_wait": 0.0,
        "codes": {"order_closed"},
        "is_on_time": False,
    }
    named, sentence = bottleneck(**quiet | figures)
    assert named == side
    assert words in sentence


def fail(trouble: Trouble) -> None:
    pytest.fail(str(trouble))


def plan(**changes: Any) -> Plan:
    """Return a plan for two clients in one process."""
    given: dict[str, Any] = {
        "url": "ws://localhost",
        "accounts": (Account("ann"), Account("bob")),
        "flow": FLOW,
        "processes": 1,
        "window": 1,
        "frame": 1,
        "rate": None,
        "seconds": 10.0,
        "warmup": 0.0,
        "seed": 1,
    }
    return Plan(**given | changes)


def test_figures_of_two_processes() -> None:
    early = Tally(9, Counter(new=3, amended=2, canceled=1), Counter(busy=2), 4)
    reports = [
        Report(
            total=early + early,
            measured=early,
            seconds=2.0,
            cpu_s=1.0,
            wait_s=0.5,
            latency=recorded(1_000, 2_000),
            lost=1,
        ),
        Report(
            total=early,
            measured=early,
            seconds=4.0,
            cpu_s=3.8,
            wait_s=0.4,
            latency=recorded(3_000),
            overdue=5,
        ),
        Report(),  # had not begun to measure
    ]
    told = figures(plan(), reports, Meter(None))
    assert told["orders_per_s"] == 5 / 2 + 5 / 4
    assert told["orders_per_minute"] == 60 * told["orders_per_s"]
    assert told["requests_per_s"] == 8 / 2 + 8 / 4
    assert told["trades_per_s"] == 4 / 2 + 4 / 4
    assert (told["sent"], told["answered"]) == (27, 24)
    assert (told["lost"], told["overdue"], told["trades"]) == (1, 5, 12)
    assert told["accepted"] == {"new": 9, "amended": 6, "canceled": 3}
    assert told["refused"] == {"busy": 6}
    assert told["seconds"] == 4.0
    assert told["generator_cpu"] == pytest.approx(0.95)
    assert told["generator_wait"] == pytest.approx(0.1)
    assert told["latency_ms"]["max"] == 3.0
    assert told["exchange_cpu"] is told["exchange_rss"] is None
    assert told["bottleneck"] == "busy"
    assert "refused              busy 6\n" in as_text(told)


def test_the_meter_measures_a_process() -> None:
    meter = Meter(os.getpid())
    meter.begin()
    enough = time.process_time() + 0.1
    while time.process_time() < enough:
        pass
    meter.end()
    assert meter.cpu is not None and meter.cpu > 0
    assert meter.rss is not None and meter.rss > 2**20
    used = meter.cpu
    meter.end()
    assert meter.cpu == used


async def test_the_warm_up_is_not_measured() -> None:
    worker = Worker(plan(), 0)
    worker._total.sent = 5
    worker._count()
    assert worker._report.seconds == 0
    worker._measure()
    worker._total.sent = 7
    worker._count()
    assert worker._report.seconds > 0
    assert worker._report.measured.sent == 2
    assert worker._report.total.sent == 7


# A trader -----------------------------------------------------------------


def trader(seed: str = "1", **changes: Any) -> Trader:
    flow = {name: getattr(FLOW, name) for name in FLOW.__slots__} | changes
    return Trader(Account("ann"), Flow(**flow), seed, Tally(), Histogram())


def test_only_late_replies_are_timed() -> None:
    """The warm-up is not measured."""
    one = trader(mix={"place": 1})
    one.is_ready = True
    one.measured_from = 2.0
    for number, now in ((1, 1.9), (2, 2.0)):
        one.request(1.5)
        one.take(Error(id=number, code="busy", message="no"), now)
    [(first, last, count)] = one.latency.bars()
    assert first <= 500_000 <= last
    assert count == 1


def test_same_seed_same_requests() -> None:
    def asked(seed: str) -> list[str]:
        source = trader(seed)
        return [source.request(0.0) for _ in range(100)]

    assert asked("1") == asked("1") != asked("2")


def test_places_near_the_middle_and_crosses_it() -> None:
    source = trader(mix={"place": 1, "cross": 1})
    texts = [source.request(0.0) for _ in range(200)]
    [*orders] = decode_requests(f"[{','.join(texts[:100])}]")
    prices: dict[tuple[str, str | None], set[int]] = {}
    for order in orders:
        assert isinstance(order, Place) and order.price is not None
        assert 1 <= order.qty <= 10
        key = order.side, order.time_in_force
        prices.setdefault(key, set()).add(order.price)
    assert max(prices["buy", None]) < 50 < min(prices["sell", None])
    assert prices["buy", "ioc"] == {60}
    assert prices["sell", "ioc"] == {40}
    stps = {order.stp for order in orders if isinstance(order, Place)}
    assert stps == {"cancel_oldest", "cancel_newest"}


def test_trades_the_other_way_with_a_large_position() -> None:
    def sides(position: int) -> set[str]:
        one = trader(mix={"place": 1, "cross": 1})
        positions = {"BOND": position}
        one.take(
            AccountReport(seq=0, ts=1, cash=0, positions=positions, equity=0),
            0.0,
        )
        texts = ",".join(one.request(0.0) for _ in range(50))
        orders = decode_requests(f"[{texts}]")
        return {order.side for order in orders if isinstance(order, Place)}

    assert sides(99) == sides(-99) == {"buy", "sell"}
    assert sides(100) == {"sell"}
    assert sides(-100) == {"buy"}


@contextlib.asynccontextmanager
async def loading(
    url: str, one: Trader, pace: Pace = Pace(1, 1), late_s: float = 0.0
) -> AsyncIterator[None]:
    """Load an exchange; the first request was due ``late_s`` ago."""
    link = Link(url, one, pace, fail)
    await link.open()
    now = asyncio.get_running_loop().time()
    link.begin(now - late_s, math.inf, 0.0)
    yield
    await link.finish()
    await link.close()


# A real exchange ----------------------------------------------------------

TYPES: dict[str, Any] = {
    "url": str,
    "clients": int,
    "processes": int,
    "window": int,
    "frame": int,
    "rate": float | None,
    "seed": int,
    "seconds": float,
    "orders_per_minute": float,
    "orders_per_s": float,
    "requests_per_s": float,
    "trades_per_s": float,
    "latency_ms": dict,
    "sent": int,
    "answered": int,
    "lost": int,
    "overdue": int,
    "accepted": dict,
    "refused": dict,
    "trades": int,
    "exchange_cpu": float | None,
    "exchange_wait": float | None,
    "exchange_rss": int | None,
    "generator_cpu": float,
    "generator_wait": float,
    "bottleneck": str,
    "verdict": str,
    "trouble": str | None,
}


async def test_counts_are_those_of_the_exchange() -> None:
    async with serving() as server:
        told = await found(
            server,
            *("--clients", "5", "--processes", "2", "--frame", "3"),
            *("--window", "10", "--seed", "7"),
        )
        engine = server.gateway.engine
        assert set(engine.accounts) - {"@exchange"} == {
            f"stress-{number}" for number in range(5)
        }
        assert not engine.listings["BOND"].book.orders  # all hung up
        assert told["accepted"]["new"] == engine.order_id
    assert list(told) == list(TYPES)
    for name, kind in TYPES.items():
        assert isinstance(told[name], kind), name
    assert told["url"] == server.url
    assert (told["clients"], told["processes"]) == (5, 2)
    assert (told["window"], told["frame"]) == (10, 3)
    assert (told["seed"], told["rate"]) == (7, None)
    assert told["orders_per_s"] > 0
    counts = [*told["accepted"].values(), *told["refused"].values()]
    assert sum(counts) == told["answered"]
    assert set(told["refused"]) <= {"order_closed"}
    latency = told["latency_ms"]
    assert list(latency) == ["p50", "p99", "p99.9", "max"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p99.9"]
    assert latency["p99.9"] <= latency["max"]


async def test_rate_is_kept() -> None:
    async with serving() as server:
        status, output, errors = await run(
            *("--url", server.url, "--json", "--rate", "400"),
            *("--clients", "4", "--frame", "2"),
            *("--seconds", "0.4", "--warmup", "0.1"),
        )
    assert (status, errors) == (0, "")
    told = json.loads(output)
    # 200 requests are due, give or take one frame of each client.
    assert abs(told["sent"] + told["overdue"] - 200) <= 8
    assert told["rate"] == 400


async def test_latency_counts_from_when_a_request_was_due() -> None:
    one = trader()
    pace = Pace(1, 1, interval_s=0.1)  # ten were due since
    async with serving() as server:
        async with loading(server.url, one, pace, late_s=1.0):
            await until(lambda: one.latency.total >= 11)
    assert one.tally.sent == one.tally.answered
    assert one.latency.max_us >= 1_000_000
    assert one.latency.percentile(50) >= 300_000


async def test_overdue_requests_are_counted() -> None:
    async with serving() as server:
        one = trader()
        link = Link(server.url, one, Pace(2, 2, interval_s=0.1), fail)
        await link.open()
        now = asyncio.get_running_loop().time()
        link.begin(now - 1.05, now - 0.01, 0.0)  # over before it began
        await link.finish()
        await link.close()
    assert link.overdue == 20


async def test_open_orders_are_bounded() -> None:
    one = trader(mix={"place": 1})
    async with serving() as server:
        async with loading(server.url, one, Pace(50, 1)):
            await until(lambda: one.tally.answered > 500)
    accepted = one.tally.accepted
    assert accepted["new"] - accepted["canceled"] <= OPEN_ORDERS + 50
    assert not one.tally.refused


async def test_starts_an_exchange(tmp_path: Path) -> None:
    status, output, errors = await run(
        *("--start", *BRIEF), TMPDIR=str(tmp_path)
    )
    assert (status, errors) == (0, "")
    lines = dict(line.split("  ", 1) for line in output.splitlines()[1:])
    assert list(lines) == [
        *("orders per minute", "requests per second", "trades per second"),
        *("ack latency", "in the whole run", "refused", "exchange"),
        *("load generator", "bottleneck"),
    ]
    assert "CPU" in lines["exchange"] and "MiB" in lines["exchange"]
    assert "seed: " in output.splitlines()[0]
    assert not list(tmp_path.iterdir())


def test_a_launched_server_is_ended() -> None:
    with launched() as server:
        assert server.url.startswith("ws://127.0.0.1:")
        # Out of reach of Ctrl-C.
        assert os.getpgid(server.pid) != os.getpgid(0)
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


async def test_an_exchange_that_does_not_start() -> None:
    status, output, errors = await run(
        "--start", *BRIEF, EXCHANGE_SERVER_MARKET="/nowhere"
    )
    assert (status, output) == (2, "")
    assert "stress: server.py did not start\n" in errors


async def test_ctrl_c_ends_it_in_order() -> None:
    terminal = (
        "-c",
        "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode("
        "pty.spawn([sys.executable, '-m', 'util.measure.stress',"
        " *sys.argv[1:]])))",
    )
    async with stressing(
        *("--start", "--warmup", "0"),
        *("--seconds", "600", "--processes", "2"),
        code=terminal,
        TQDM_NCOLS="80",
        TQDM_NROWS="24",
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            await process.stdout.readuntil(b"1 of 600 s")
        process.stdin.write(b"\x03")
        async with asyncio.timeout(PATIENCE_S):
            rest = (await process.stdout.read()).decode()
            status = await process.wait()
    assert status == 0
    assert "orders per minute" in rest
    assert " 0 lost, " in rest
    assert "Traceback" not in rest


async def test_sigterm_ends_the_exchange_before_the_start_of_the_run() -> None:
    slow = """
import asyncio, sys, util.measure.stress
async def look(url, mix):
    print(url, flush=True)
    await asyncio.sleep(600)
util.measure.stress.look = look
sys.exit(util.measure.stress.main(sys.argv[1:]))
"""
    async with stressing("--start", code=("-c", slow)) as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            url = (await process.stdout.readline()).decode().strip()
        process.terminate()
        assert await ended(process) == (
            *(2, ""),
            "stress: interrupted\n",
        )
    with pytest.raises(ConnectionRefusedError):
        await connect(url)


async def test_stopped_before_anything_was_measured() -> None:
    async with serving() as server:
        engine = server.gateway.engine
        async with stressing(
            "--url", server.url, "--warmup", "600"
        ) as process:
            await until(lambda: engine.seq > 500)
            os.killpg(process.pid, signal.SIGINT)
            assert await ended(process) == (
                *(2, ""),
                "stress: stopped before anything was measured\n",
            )


async def test_processes_end_with_their_parent() -> None:
    async with serving() as server:
        engine = server.gateway.engine
        async with stressing(
            *("--url", server.url, "--seconds", "600", "--processes", "2")
        ) as process:
            await until(lambda: engine.seq > 500)
            assert server.links
            process.kill()
            await until(lambda: not server.links)


async def test_the_death_of_a_process_is_reported() -> None:
    mortal = (
        "import os, sys, util.measure.stress as stress;"
        "import util.measure.workers as workers;"
        "workers.Worker.run = lambda *_: os._exit(3);"
        "sys.exit(stress.main(sys.argv[1:]))"
    )
    async with serving() as server:
        assert await run(
            *("--url", server.url, "--processes", "2"), code=("-c", mortal)
        ) == (2, "", "stress: a process that generates load died\n")


# A server that lies -------------------------------------------------------

LISTED = {
    "symbol": "BOND",
    "tick_size": "1",
    "min_price": 1,
    "max_price": 100,
    "max_qty": 10,
    "phase": "open",
}
STATE = {"ts": 1, "cash": 0, "positions": {}, "equity": 0}


RETRY_MS = 200


class Liar:
    """A server that accepts every order, except for one lie.

    ``arrivals`` are the times at which requests came, ``logins`` what was
    given to be let in.
    """

    def __init__(
        self, lie: str, after: int = 20, open_orders: int = 0
    ) -> None:
        self.lie = lie
        self.arrivals: list[float] = []
        self.logins: list[dict[str, Any]] = []
        self.kinds: list[str] = []  # of the requests that came
        self.only = ""  # the kind of request that is lied to, if not all
        self._after = after
        self._limits = {"open_orders": open_orders}
        self._orders = 0

    async def serve(self, connection: ServerConnection) -> None:
        """Answer one connection."""
        self.seq = 0
        async for frame in connection:
            request = json.loads(frame)
            kind = request["type"]
            if kind == "get":
                await self.get(connection, request)
            elif kind == "login":
                if not await self.login(connection, request):
                    return
            else:
                self._orders += 1
                self.kinds.append(kind)
                self.arrivals.append(time.monotonic())
                answers = self.answers(request)
                if kind == self.only or self._orders == self._after:
                    if self.lie == "gone":
                        await connection.close(1001, "that is it")
                        return
                    answers = self.lies(request, answers)
                if answers:
                    await connection.send(json.dumps(answers))

    async def get(
        self, connection: ServerConnection, request: dict[str, Any]
    ) -> None:
        book = {"type": "book", "symbol": "BOND", "seq": 0, "ts": 1}
        book |= {"snapshot": True, "bids": [], "asks": []}
        rows = [LISTED if request["what"] == "instruments" else book]
        reply = {"type": "ok", "id": request["id"], "ts": 1, "data": rows}
        await connection.send(json.dumps(reply))

    async def login(
        self, connection: ServerConnection, request: dict[str, Any]
    ) -> bool:
        self.logins.append(request)
        if self.lie == "forbids":
            reply = {"type": "error", "id": 0, "code": "unauthorized"}
            reply["message"] = "wrong token"
            await connection.send(json.dumps(reply))
            await connection.close(4001)
            return False
        welcome = {"type": "welcome", "id": 0, "protocol": 1, "session": "a"}
        welcome |= {"user": request["user"], "ts": 1, "seq": 0}
        welcome |= {"resumed": False, "durable": False}
        welcome |= {"limits": self._limits, "instruments": [LISTED]}
        state = {"type": "account", "seq": 0, **STATE}
        await connection.send(json.dumps([welcome, state]))
        return True

    def answers(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """Accept any request."""
        self.seq += 1
        qty = request.get("qty", 1)
        report = {
            "type": "exec",
            "id": request["id"],
            "seq": self.seq,
            "ts": 1,
            "exec_type": ACCEPTED[request["type"]][0],
            "order_id": request.get("order_id", self._orders),
            "client_order_id": request.get("client_order_id", "?"),
            "symbol": "BOND",
            "side": request.get("side", "buy"),
            "order_status": "new",
            "qty": qty,
            "cum_qty": 0,
            "leaves_qty": 0 if request["type"] == "cancel" else qty,
        }
        return [report]

    def lies(
        self, request: dict[str, Any], truth: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return the messages sent instead of the true ones, once."""
        [reply] = truth
        error = {"type": "error", "id": reply["id"], "message": "no"}
        match self.lie:
            case "nothing":
                return truth
            case "answers twice":
                return [reply, reply | {"seq": reply["seq"] + 1}]
            case "refuses twice":
                return [error | {"code": "busy"}] * 2
            case "skips a reply":
                self.seq -= 1
                return []
            case "skips a seq":
                return [reply | {"seq": reply["seq"] + 1}]
            case "repeats a seq":
                return [reply | {"seq": reply["seq"] - 1}]
            case "loses an event":
                return [
                    *truth,
                    {"type": "heartbeat", "ts": 1, "seq": {"@": 9_999}},
                ]
            case "names another order":
                return [reply | {"client_order_id": "a", "order_id": 9_999}]
            case "does something else":
                return [reply | {"exec_type": "expired"}]
            case "gives no id":
                return [{"type": "error", "code": "busy", "message": "no"}]
            case "replies with ok":
                return [{"type": "ok", "id": reply["id"], "ts": 1}]
            case "forgets a field":
                del reply["order_id"]
                return truth
            case code:
                assert code in ("busy", "rate_limited", "position_limit")
                self.seq -= 1
                return [error | {"code": code, "retry_after_ms": RETRY_MS}]


@contextlib.asynccontextmanager
async def lying(lie: str, **more: Any) -> AsyncIterator[tuple[Liar, str]]:
    liar = Liar(lie, **more)
    async with serve(liar.serve, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        yield liar, f"ws://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "lie, words",
    [
        ("answers twice", "id 20 (new of order 20) came where"),
        ("refuses twice", "id 20 (busy: no) came where"),
        ("skips a reply", "id 21 (new of order 21) came where 20 was due"),
        ("skips a seq", "seq 21 came where 20 was due"),
        ("repeats a seq", "seq 19 came where 20 was due"),
        ("loses an event", "seq is 9999 by the heartbeat, 20 by the events"),
        ("names another order", "request 20 (place) got the reply new"),
        ("does something else", "request 20 (place) got the reply expired"),
        ("gives no id", "id None (busy: no) came where 20 was due"),
        ("replies with ok", "ok is no reply to this"),
        ("forgets a field", "not understood"),
    ],
)
async def test_lie_is_caught(lie: str, words: str) -> None:
    trouble = await caught(lie, mix={"place": 1})
    assert isinstance(trouble, Violation)
    assert trouble.status == 1
    assert str(trouble).startswith("ann: ")
    assert words in str(trouble)


@pytest.mark.parametrize("asked", ["amend", "cancel"])
async def test_the_order_is_the_one_that_was_named(asked: str) -> None:
    """Also of an order that rests."""
    mix = {"place": 1, asked: 1}
    trouble = await caught("names another order", asked, mix=mix)
    assert f"({asked}) got the reply {asked}ed" in str(trouble)


async def caught(lie: str, only: str = "", **flow: Any) -> Trouble:
    """Return what ends a trader that is lied to."""
    failed: asyncio.Future[Trouble] = asyncio.Future()
    pace = Pace(1, 1) if only else Pace(2, 1)
    async with lying(lie) as (liar, url):
        liar.only = only
        link = Link(url, trader(**flow), pace, failed.set_result)
        await link.open()
        link.begin(0.0, math.inf, 0.0)
        async with asyncio.timeout(PATIENCE_S):
            trouble = await failed
            await link.close()
    return trouble


async def lied_to(
    lie: str, *arguments: str, **more: Any
) -> tuple[Liar, dict[str, Any], str, int]:
    """Run the program against a lie; return its figures and its status."""
    async with lying(lie, **more) as (liar, url):
        status, output, errors = await run(
            *("--url", url, "--clients", "1", "--window", "1"),
            *("--json", "--warmup", "0", "--seconds", "600", *arguments),
        )
    return liar, json.loads(output), errors, status


async def test_a_violation_ends_the_run() -> None:
    _, told, errors, status = await lied_to("skips a seq", after=200)
    assert status == 1
    assert errors == "stress: stress-0: seq 201 came where 200 was due\n"
    assert told["trouble"] in errors
    assert 199 <= told["answered"] <= told["sent"] == 200


async def test_a_closed_connection_is_reported() -> None:
    _, told, errors, status = await lied_to("gone", after=200)
    assert status == 1
    assert errors.startswith("stress: stress-0: the exchange hung up: ")
    assert "1001 (going away) that is it" in errors
    assert (told["sent"], told["answered"], told["lost"]) == (200, 199, 1)


async def test_lost_requests_are_reported() -> None:
    impatient = (
        "import sys, util.measure.stress as stress;"
        "import util.measure.workers as workers; workers.DRAIN_S = 0.1;"
        "sys.exit(stress.main(sys.argv[1:]))"
    )
    async with lying("skips a reply") as (liar, url):
        status, output, errors = await run_until(
            lambda: len(liar.arrivals) == 20,
            *("--url", url, "--clients", "1", "--window", "1", "--json"),
            code=("-c", impatient),
        )
    assert (status, errors) == (1, "stress: requests without a reply: 1\n")
    told = json.loads(output)
    assert (told["sent"], told["answered"], told["lost"]) == (20, 19, 1)


@pytest.mark.parametrize(
    "code, pause_ms",
    [("rate_limited", RETRY_MS), ("busy", RETRY_MS), ("position_limit", 0)],
)
async def test_goes_on_after_a_refusal(code: str, pause_ms: int) -> None:
    """After ``retry_after_ms`` if that would help."""
    one = trader()
    async with lying(code) as (liar, url):
        async with loading(url, one):
            await until(lambda: len(liar.arrivals) > 25)
    assert liar.arrivals[20] - liar.arrivals[19] >= pause_ms / 1_000
    assert one.tally.refused == {code: 1}


async def test_keeps_to_the_limit_of_open_orders() -> None:
    async with lying("nothing", open_orders=3) as (liar, url):
        async with loading(url, trader(mix={"place": 1})):
            await until(lambda: len(liar.kinds) > 6)
    assert liar.kinds[:6] == [*["place"] * 3, "cancel", "place", "cancel"]


# What it cannot do --------------------------------------------------------


def test_no_exchange_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("util.measure.trader.CONNECT_TIMEOUT_S", 0.1)
    assert main(["--url", "ws://127.0.0.1:1"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("stress: not connected to ws://127.0.0.1:1: ")
    assert len(errors.splitlines()) == 1


async def test_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys.tsv"
    keys.write_text("ann\tsesame\nbob\topen\n")
    async with lying("forbids") as (liar, url):
        assert await run(
            *("--url", url, "--tokens", str(keys), "--clients", "2")
        ) == (2, "", "stress: ann: unauthorized: wrong token\n")
    assert {(one["user"], one["token"]) for one in liar.logins} == {
        ("ann", "sesame"),
        ("bob", "open"),
    }


@pytest.mark.parametrize(
    "text, words",
    [
        ("ann\tsesame\n", "1 accounts for 10 clients"),
        ("ann sesame\n", "line 1: not name, tab, token"),
        (None, "No such file"),
    ],
)
def test_keys_that_are_none(
    text: str | None,
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = tmp_path / "keys.tsv"
    if text is not None:
        keys.write_text(text)
    assert main(["--tokens", str(keys)]) == 2
    assert words in capsys.readouterr().err


def test_an_invalid_url_is_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--url", "http://localhost"]) == 2
    told = "stress: http://localhost is not like ws://hostname:port\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("--clients 0", "1 or more"),
        ("--rate 0", "above 0"),
        ("--rate inf", "above 0"),
        ("--seconds -1", "above 0"),
        ("--warmup -1", "0 or more"),
        ("--frame 101", "100 requests at most"),
        ("--frame 9 --window 8", "larger than --window"),
        ("--start --url ws://localhost", "--start goes with neither"),
        ("--start --tokens keys", "--start goes with neither"),
    ],
)
def test_a_wrong_command_line_is_refused(
    arguments: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        parse(arguments.split())
    assert exit.value.code == 2
    assert words in capsys.readouterr().err


def test_defaults() -> None:
    options = parse([])
    assert (options.clients, options.window, options.frame) == (10, 8, 1)
    assert parse(["--frame", "50"]).window == 400
