"""A small event that real processes play, for tests."""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path

from client import BlockingExchange
from test.support import PATIENCE_S, ROOT
from util.event.file_checks import ADMINISTRATOR
from util.event.keys import tokens_of
from util.event.processes import is_alive
from util.event.record import Attempt, Process, Record
from util.measure.process import environment

MARKET = """\
[instruments.BOND]
max_price = 10000
[instruments.GS]
max_price = 10000
"""
EVENT = """\
[event]
name = "Try"
market = "market.toml"
data = "data"
host = "127.0.0.1"
front = {front}
doors = {{ line_port = {line_port} }}
pages = {pages}
[teams]
ORANGE = {{}}
APPLE = {{ bot = ["python", "bots/apple.py"] }}
[match]
warmup = 0
trading = {trading}
[scoring]
rule = "pnl"
{rounds}
[fair.BOND]
kind = "constant"
start = 1000
[fair.GS]
kind = "walk"
start = 4000
sigma = 5.0
[house]
makers = 1
noise = 1
informed = 0
"""
# Buys and sells one lot after the other, and prints each order.
BOT = """\
import asyncio
from client import Exchange, ExchangeError
from orderbook import Refused

async def main():
    async with Exchange() as ex:
        gs = await ex.market("GS")
        while True:
            for trade in (gs.buy, gs.sell):
                try:
                    print(await trade(1, 4000), flush=True)
                except (Refused, ExchangeError):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.05)

asyncio.run(main())
"""


def free_ports(count: int) -> int:
    """Return the first of some ports in a row that nobody uses.

    They are below those that the system gives to connections: one of these
    could have the port of a process that is killed, until it ends.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with ExitStack() as stack:
            try:
                for number in range(port, port + count):
                    other = stack.enter_context(socket.socket())
                    other.bind(("127.0.0.1", number))
            except OSError:
                continue
            return port


class Playing:
    """An event in a folder, and the director that plays it."""

    def __init__(self, folder: Path, *, rounds: str, trading: int) -> None:
        # Practice servers take the two ports after each of the first two.
        self.front = free_ports(7)
        self.line_port = self.front + 3
        self.pages = self.front + 6
        self.path = folder / "event.toml"
        self.data = folder / "data"
        self._out = folder / "out.txt"
        self.round = ""  # the one that is played
        self._rounds = iter(rounds)
        named = "".join(f'[[rounds]]\nname = "{name}"\n' for name in rounds)
        self.path.write_text(
            EVENT.format(
                front=self.front,
                line_port=self.line_port,
                pages=self.pages,
                trading=trading,
                rounds=named,
            )
        )
        (folder / "market.toml").write_text(MARKET)
        (folder / "bots").mkdir()
        (folder / "bots/apple.py").write_text(BOT)
        self.director: subprocess.Popen[bytes] | None = None

    def change(self, old: str, new: str) -> None:
        """Change the event file."""
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))

    # The director

    def begin(self, trading: int | None = None) -> None:
        """Start a director that plays the next round; ``trading`` in s."""
        self.round = next(self._rounds)
        if trading is not None:
            name = f'name = "{self.round}"\n'
            self.change(name, f"{name}trading = {trading}\n")
        self.start()

    def start(self) -> None:
        """Start a director, up to the end of the round."""
        self.launch("run", "--until", self.round)

    def launch(self, *words: str) -> None:
        """Start a command; the last one must have ended."""
        assert self.director is None or self.director.poll() is not None
        with open(self._out, "ab") as out:
            self.director = subprocess.Popen(
                self._command(*words),
                cwd=ROOT,
                env=environment(),
                stdout=out,
                stderr=out,
                process_group=0,
            )

    def ended(self) -> int:
        """Wait until the director ends; return its exit status."""
        assert self.director is not None
        return self.director.wait(PATIENCE_S)

    def signal(self, signum: int) -> None:
        """Send a signal to the director, and wait until it has ended."""
        assert self.director is not None
        self.director.send_signal(signum)
        self.director.wait(PATIENCE_S)

    def kill(self) -> None:
        """Kill the director."""
        self.signal(signal.SIGKILL)

    def do(self, command: str, *options: str) -> str:
        """Run another command to its end; return what it prints."""
        main = import_module(f"util.event.{command}").main
        printed = io.StringIO()
        with redirect_stdout(printed):
            assert main([str(self.path), *options]) == 0
        return printed.getvalue()

    def _command(self, name: str, *options: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "util.event",
            name,
            str(self.path),
            *options,
        ]

    @property
    def said(self) -> str:
        """What the directors have printed."""
        return self._out.read_text()

    def close(self) -> None:
        """Close the market by hand: a round is over before its time."""
        url = f"ws://127.0.0.1:{self.front}"
        token = tokens_of(self.data)[ADMINISTRATOR]
        with BlockingExchange(url, ADMINISTRATOR, token) as exchange:
            exchange.admin("phase", "enough", phase="closed")

    # The record

    def attempts(self) -> list[Attempt]:
        """Return every attempt at the round so far."""
        if not (self.data / "director.db").exists():
            return []
        with Record.of(self.data) as record:
            attempts = record.attempts().values()
        return [one for one in attempts if one.key.round == self.round]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)

    def until_done(self, act: str, *, number: int = 0) -> None:
        """Wait until an act of an attempt is done; the first one is 0."""

        def is_done() -> bool:
            attempts = self.attempts()
            return len(attempts) > number and act in attempts[number].done

        self.until(is_done)

    def process(self, name: str, other_than: int = 0) -> Process:
        """Wait for a process whose name begins so, and return it."""
        found: list[Process] = []

        def find() -> bool:
            if (self.data / "director.db").exists():
                with Record.of(self.data) as record:
                    found[:] = [
                        one
                        for one in record.processes().values()
                        if one.name.startswith(name)
                        and one.pid != other_than
                        and is_alive(one)
                    ]
            return bool(found)

        self.until(find)
        return found[0]

    def kill_processes(self, *names: str) -> None:
        """Kill processes, and wait until others run in their places."""
        old = {name: self.process(name).pid for name in names}
        for pid in old.values():
            os.killpg(pid, signal.SIGKILL)
        for name, pid in old.items():
            self.process(name, other_than=pid)

    def started(self, records: str) -> list[Process]:
        """Return the processes of some records in the data folder."""
        found: list[Process] = []
        for path in self.data.glob(records):
            with Record.of(path.parent) as record:
                found += record.processes().values()
        return found

    @property
    def statuses(self) -> list[str]:
        """The status of each attempt at the round."""
        return [one.status for one in self.attempts()]

    def is_scored(self) -> None:
        """Wait for the end of the round; it must be scored."""
        assert self.ended() == 0, self.said
        assert self.statuses[-1] == "scored", self.said


@contextmanager
def playing(
    folder: Path, *, rounds: str = "A", trading: int = 3
) -> Iterator[Playing]:
    """Set up an event; end all its processes at the end.

    ``rounds`` has a letter for each round.
    """
    one = Playing(folder, rounds=rounds, trading=trading)
    try:
        yield one
    finally:
        if one.director is not None and one.director.poll() is None:
            one.kill()
        one.do("stop")
