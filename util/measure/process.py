"""Start a server in a process of its own, end it, and see what it uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import IO

from exchange.host.keyfile import changing, make_entry, make_token
from orderbook import RoleName

ROOT = Path(__file__).parent.parent.parent
NO_KEYS = "/dev/null/keys.json"  # a path where no file can be
PREFIX = "EXCHANGE_SERVER_"
STOP_S = 30.0  # a process has that long to end before it is killed
MIB = 2**20


class Trouble(Exception):
    """The reason why a run of a tool ends; ``status`` is its exit status."""

    status = 2


def environment(**settings: object) -> dict[str, str]:
    """Return the environment of a server with these settings and no other.

    By default it listens on a free port of the loopback, without journal or
    keys.
    """
    here = {"hostname": "127.0.0.1", "port": "0", "journal": "off"}
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(PREFIX)
    }
    for name, value in (here | {"keys": NO_KEYS} | settings).items():
        variables[f"{PREFIX}{name.upper()}"] = str(value)
    return variables


class Launched:
    """A process that has printed its first line; ``url`` is from that."""

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
        """The standard error so far."""
        self._errors.seek(0)
        return self._errors.read()

    async def ask(self, line: str) -> str:
        """Write a line to its standard input; return the line it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return await asyncio.to_thread(self.process.stdout.readline)

    async def ended(self) -> tuple[int, str]:
        """Wait for its end; return the status and the standard error."""
        await asyncio.to_thread(self.process.communicate, timeout=STOP_S)
        return self.process.returncode, self.errors


@contextlib.contextmanager
def launched(
    *arguments: str,
    folder: str = str(ROOT),
    inside: Sequence[str] = (),
    **settings: object,
) -> Iterator[Launched]:
    """Run a program of a checkout, by default ``server.py`` without debug.

    ``inside`` is the command that runs it elsewhere, as in `Host.inside`.

    Ctrl-C in the terminal does not reach it, since it has to outlive its
    clients. At the end it gets SIGTERM if it still runs. Raises Trouble if
    it prints no line.
    """
    arguments = arguments or ("server.py",)
    variables = environment(**{"debug": 0} | settings)
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [
                *inside,
                *(sys.executable, "-W", "default::ResourceWarning"),
                *arguments,
            ],
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


def add_key(
    path: Path, user: str, is_admin: bool = False, role: RoleName = "trader"
) -> str:
    """Add an account to a key file; return its token."""
    token = make_token()
    with changing(path, create=True) as accounts:
        accounts[user] = make_entry(token, "admin" if is_admin else role)
    return token


def prepare(
    folder: Path, market: str, users: Iterable[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Write a market file, and a key file with these users, into a folder.

    Return the settings of an exchange that reads them, and the tokens by
    user. The user "boss" is an administrator.
    """
    path, keys = folder / "market.toml", folder / "keys.json"
    path.write_text(market)
    tokens = {user: add_key(keys, user, user == "boss") for user in users}
    return {"market": str(path), "keys": str(keys)}, tokens


# What Linux knows about a process -----------------------------------------


def cpu_s(pid: int | None) -> float | None:
    """Return the CPU seconds of all threads of a process."""
    times = [_schedule(path) for path in _threads(pid)]
    return sum(used for used, _ in times) if times else None


def waited_s(pid: int | None) -> float | None:
    """Return the seconds for which its main thread waited for a core."""
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
    """Return the seconds for which a thread ran, and waited for a core."""
    try:
        ran, waited, _ = path.read_text().split()
    except OSError:  # the thread has ended
        return 0.0, 0.0
    return int(ran) / 1e9, int(waited) / 1e9
