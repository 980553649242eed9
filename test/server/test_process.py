"""The process: signals, exit status, settings, output."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from exchange.host.market_file import SettingsError
from exchange.host.settings import Settings
from server import Server
from test.server.asking import place
from test.support import (
    address,
    ended,
    greeting,
    launched,
    order,
    serving,
    wired,
    words,
)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_process_in_order(
    signum: signal.Signals,
) -> None:
    async with launched() as process:
        line = await greeting(process)
        assert "BOND" in line
        async with wired(address(line), "alice") as alice:
            await place(alice, "buy", 1, 90)
            process.send_signal(signum)
            messages, code = await alice.rest()
        assert words(messages) == ["canceled", "status"] and code == 1001
        status, _, errors = await ended(process)
    assert (status, errors) == (0, "")


async def test_a_hangup_signal_does_not_end_the_process() -> None:
    async with launched() as process:
        async with wired(address(await greeting(process)), "alice") as alice:
            for _ in range(3):
                process.send_signal(signal.SIGHUP)
                assert words(await alice.ask(type="ping")) == ["ok"]
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0


async def test_a_terminal_that_is_closed_ends_the_process_in_order() -> None:
    """The system sends SIGHUP to the processes of the terminal."""
    code = """
import fcntl
import os
import sys
import termios
import server

os.setsid()
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
sys.argv = ["server.py"]
sys.exit(server.main())
"""
    person, tty = pty.openpty()
    async with launched(code=code, output=tty) as process:
        os.close(tty)
        line = await asyncio.to_thread(os.read, person, 10_000)
        async with wired(address(line.decode()), "alice") as alice:
            await place(alice, "buy", 1, 90)
            os.close(person)
            messages, code_ = await alice.rest()
        assert words(messages) == ["canceled", "status"] and code_ == 1001
        assert (await ended(process))[0] == 0


@pytest.mark.parametrize(
    "hiding, name",
    [("", "uvloop"), ("sys.modules['uvloop'] = None", "asyncio.unix_events")],
)
async def test_uvloop_runs_the_exchange_where_it_is_installed(
    hiding: str, name: str
) -> None:
    code = f"""
import asyncio
import sys
{hiding}
import server

class Server(server.Server):
    def __init__(self, settings):
        print(type(asyncio.get_running_loop()).__module__, file=sys.stderr)
        super().__init__(settings)

server.Server = Server
sys.exit(server.main())
"""
    async with launched(code=code, debug="0") as process:
        async with wired(address(await greeting(process)), "alice") as alice:
            await place(alice, "buy", 1, 90)
            process.send_signal(signal.SIGTERM)
            messages, _ = await alice.rest()
        assert words(messages) == ["canceled", "status"]
        assert await ended(process) == (0, "", f"{name}\n")


async def test_a_program_finds_a_free_port_in_a_file(tmp_path: Path) -> None:
    file, journal = tmp_path / "port", tmp_path / "match.db"
    file.write_text("1\n")  # of an earlier process
    arguments = ("--port", "0", "--port-file", str(file))
    more = ("--journal", str(journal), "--keys", str(tmp_path / "keys.json"))
    async with launched(*arguments, *more) as process:
        url = address(await greeting(process))
        assert file.read_text() == f"{urlsplit(url).port}\n" != "0\n"
        assert journal.exists()
        names = {entry.name for entry in tmp_path.iterdir()}
        assert not {name for name in names if name.endswith(".new")}
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0


async def test_an_exchange_that_does_not_start_leaves_no_port(
    tmp_path: Path,
) -> None:
    file = tmp_path / "port"
    file.write_text("1\n")
    async with launched(market="/nowhere.toml", port_file=str(file)) as it:
        assert (await ended(it))[0] == 2
    assert not file.exists()


async def test_a_port_file_that_cannot_be_written_is_one_clear_line(
    tmp_path: Path,
) -> None:
    file = tmp_path / "nowhere" / "port"
    async with launched(port_file=str(file)) as process:
        status, output, errors = await ended(process)
    assert (status, output) == (2, "")
    (line,) = errors.splitlines()
    assert str(file) in line


async def test_a_port_in_use_is_one_clear_line() -> None:
    async with serving() as exchange:
        async with launched(port=str(exchange.port)) as process:
            status, output, errors = await ended(process)
    assert status not in (0, None) and output == ""
    (line,) = errors.splitlines()
    assert "in use" in line and str(exchange.port) in line


async def test_a_wrong_setting_is_one_clear_line() -> None:
    async with launched(port="none") as process:
        status, output, errors = await ended(process)
    assert status == 2 and output == ""
    (line,) = errors.splitlines()
    assert "EXCHANGE_SERVER_PORT" in line


@pytest.mark.parametrize(
    "settings, name",
    [
        ({"market": Path("/nowhere/market.toml")}, "/nowhere/market.toml"),
        ({"hostname": "no such host"}, "no such host"),
    ],
)
async def test_a_setting_that_cannot_be_used_is_named(
    settings: dict[str, Any], name: str
) -> None:
    with pytest.raises((SettingsError, OSError)) as caught:
        Server(Settings(**settings))
    (line,) = str(caught.value).splitlines()
    assert name in line


@pytest.mark.parametrize("debug", [True, False])
async def test_debug_mode_prints_new_orders_and_the_book(
    debug: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Settings().debug
    async with (
        serving(debug=debug) as exchange,
        wired(exchange.url, "alice", cancel_on_disconnect=False) as alice,
    ):
        await place(alice, "buy", 25, 97)
        await place(alice, "sell", 31, 103)
        await alice.ask(type="cancel", order_id=1)
        await alice.ask(**order("buy", 0, 97))
    output, _ = capsys.readouterr()
    if not debug:
        assert output == ""
        return
    first, second = filter(None, map(str.strip, output.split("\n\n")))
    line, head, *levels = first.splitlines()
    assert line == "alice buy 25 BOND @ 97 is order 1"
    assert head.split() == ["BOND", "qty", "bid", "|", "ask", "qty"]
    assert [level.split() for level in levels] == [["25", "97", "|"]]
    line, head, *levels = second.splitlines()
    assert line == "alice sell 31 BOND @ 103 is order 2"
    assert [level.split() for level in levels] == [
        ["25", "97", "|", "103", "31"]
    ]


async def test_it_goes_on_with_a_closed_output() -> None:
    """As in ``make run | head``."""
    reading, writing = os.pipe()
    async with launched(debug="1", output=writing) as process:
        os.close(writing)
        with open(reading) as lines:
            url = address(lines.readline())
        async with wired(url, "alice") as alice:
            assert await place(alice, "buy", 25, 97)
            assert await place(alice, "sell", 31, 103)
        process.send_signal(signal.SIGTERM)
        status, _, errors = await ended(process)
    assert status == 0
    assert errors.count("printing stops") == 1
    assert "Traceback" not in errors and "BrokenPipe" not in errors


async def test_a_recovery_can_be_stopped(tmp_path: Path) -> None:
    """By a handler: the first process of a container ignores SIGTERM."""
    code = """
import os
import signal
import sys
import server
from exchange.journal.sqlite import Journal

def recover(journal, after):
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        pass

Journal.recover = recover
sys.argv = ["server.py"]
sys.exit(server.main())
"""
    path = tmp_path / "exchange.db"
    async with launched(code=code, journal=str(path)) as process:
        assert await ended(process) == (130, "", "")


async def test_settings_of_the_process(tmp_path: Path) -> None:
    with socket.socket() as sock:
        # Bound with SO_REUSEADDR, but not listening: the server can bind it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        settings = {"port": str(port), "symbols": "BOND, ETF"}
        async with launched(**settings) as process:
            line = await greeting(process)
            assert address(line) == f"ws://127.0.0.1:{port}"
            assert "BOND" in line and "ETF" in line
            async with wired(address(line)) as wire:
                welcome = await wire.login("alice")
    listed = [i["symbol"] for i in welcome["instruments"]]
    assert listed == ["BOND", "ETF"]

    market = tmp_path / "market.toml"
    market.write_text('[instruments.ADR]\nmax_qty = 5\ntick_size = "0.5"\n')
    async with serving(market=market, hostname="localhost") as exchange:
        assert exchange.url.startswith("ws://localhost:")
        async with wired(exchange.url) as wire:
            (instrument,) = (await wire.login("alice"))["instruments"]
            assert words(await place(wire, "buy", 6, 9)) == ["invalid_qty"]
            assert words(await place(wire, "buy", 5, 9)) == ["new"]
    assert instrument["symbol"] == "ADR" and instrument["tick_size"] == "0.5"


FAILING = """
import sys
import exchange.market.engine
import server

apply = exchange.market.engine.Engine.apply

def explosive(engine, command):
    if isinstance(command.action, exchange.market.engine.CancelAll):
        raise RuntimeError("boom")
    return apply(engine, command)

exchange.market.engine.Engine.apply = explosive
server.SHUTDOWN_S = 0.01
sys.exit(server.main())
"""


async def test_the_exit_status_after_a_failure_inside() -> None:
    async with launched(code=FAILING) as process:
        async with wired(address(await greeting(process)), "alice") as alice:
            await place(alice, "buy", 1, 90)
            await alice.send({"type": "cancel_all", "id": 1})
            messages, _ = await alice.rest()
            assert not [m for m in messages if m.get("id") == 1]
        status, _, errors = await ended(process)
    assert status == 1
    assert "boom" in errors and "CancelAll" in errors
