"""A server in a process of its own: start it, end it, see what it uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE
from typing import IO

from exchange.host.keyfile import changing, make_entry, make_token

ROOT = Path(__file__).parent.parent.parent
NO_KEYS = "/dev/null/keys.json"  # where there can be none
PREFIX = "EXCHANGE_SERVER_"
STOP_S = 30.0  # for a process to end in order, until it is killed
MIB = 2**20


class Trouble(Exception):
    """What ends a run of a tool; ``status`` is the exit status."""

    status = 2


def environment(**settings: str) -> dict[str, str]:
    """Return the variables of a server: these settings, and no desk's.

    Unless told otherwise it listens on a free port of the loopback, without
    journal or keys.
    """
    here = {"hostname": "127.0.0.1", "port": "0", "journal": "off"}
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX)
    }
    for name, value in (here | {"keys": NO_KEYS} | settings).items():
        variables[f"{PREFIX}{name.upper()}"] = value
    return variables


class Launched:
    """A process that has printed its first line, and what that says."""

    def __init__(
        self, process: subprocess.Popen[str], line: str, errors: IO[str]
    ) -> None:
        self.process = process
        self.pid = process.pid
        urls = [word for word in line.split() if "://" in word]
        self.url = urls[0] if urls else ""
        self._errors = errors

    @property
    def errors(self) -> str:
        """What it wrote to standard error so far."""
        self._errors.seek(0)
        return self._errors.read()

    async def ask(self, line: str) -> str:
        """Write a line to it, and return its answer, which is one too."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return await asyncio.to_thread(self.process.stdout.readline)

    async def ended(self) -> tuple[int, str]:
        """Wait for its end; return the status and what it complained of."""
        await asyncio.to_thread(self.process.communicate, timeout=STOP_S)
        return self.process.returncode, self.errors


@contextlib.contextmanager
def launched(
    *arguments: str, folder: str = str(ROOT), **settings: str
) -> Iterator[Launched]:
    """Run a program of a checkout, by itself ``server.py``, without debug.

    It is out of reach of the terminal's Ctrl-C, since it is to outlive its
    clients. What is left of it at the end is ended in order. Raises Trouble
    if it prints no line.
    """
    arguments = arguments or ("server.py",)
    variables = environment(**{"debug": "0"} | settings)
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-W", "default::ResourceWarning", *arguments],
            cwd=folder,
            env=variables | {"PYTHONPATH": folder},
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
            text=True,
            process_group=0,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            server = Launched(process, line, errors)
            if not line:
                name = " ".join(arguments)
                raise Trouble(f"{name} did not start\n{server.errors}")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def add_key(path: Path, user: str, is_admin: bool = False) -> str:
    """Put an account into a key file, as a new one; return its token."""
    token = make_token()
    with changing(path, create=True) as accounts:
        accounts[user] = make_entry(token, is_admin)
    return token


# What Linux tells of a process ----------------------------------------------


def cpu_s(pid: int | None) -> float | None:
    """Return the seconds that all threads of a process used a core."""
    times = [_schedule(path) for path in _threads(pid)]
    return sum(used for used, _ in times) if times else None


def waited_s(pid: int | None) -> float | None:
    """Return the seconds that its main thread waited for a core."""
    times = [_schedule(path) for path in _threads(pid, f"{pid}")]
    return times[0][1] if times else None


def resident(pid: int | None) -> int | None:
    """Return the memory of a process, in bytes."""
    try:
        text = Path(f"/proc/{pid}/statm").read_text()
    except OSError:
        return None
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _threads(pid: int | None, name: str = "*") -> list[Path]:
    return list(Path(f"/proc/{pid}/task").glob(f"{name}/schedstat"))


def _schedule(path: Path) -> tuple[float, float]:
    """Return the seconds that a thread ran, and waited while it could."""
    try:
        ran, waited, _ = path.read_text().split()
    except OSError:  # it ended meanwhile
        return 0.0, 0.0
    return int(ran) / 1e9, int(waited) / 1e9
