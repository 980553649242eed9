"""Processes that outlive the one that starts them: begin, know again, end.

Each is the leader of a session and a process group of its own, so that
Ctrl-C in the terminal does not reach it. Its output goes to a file, so that
it needs nobody who reads it. A process is known again by its pid with its
start time, because the system uses pids again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from util.measure.process import PREFIX, ROOT

from .record import Process, Record

_LINUX = Path("/proc/self/stat").exists()
# Fields of /proc/PID/stat after the name of the program.
_STATE, _START = 0, 19
# A variable of every process that an event starts: its data folder.
MARK = "EVENT_DATA_FOLDER"
BOT = "bot of "  # the name of a team's bot begins so
STOP_S = 10.0  # a process has that long to end before it is killed
LOOK_S = 0.05  # between two looks
CUT = b"\n... the middle of this log was dropped ...\n"


@dataclass(frozen=True, slots=True)
class Spec:
    """How a process is started.

    ``variables`` are added to the environment, from which the settings of an
    exchange were taken out. ``owner`` is the data folder of the event.
    ``log_max`` is the size in bytes at which the middle of the log is
    dropped, 0: never.
    """

    name: str
    owner: Path
    command: Sequence[str]
    folder: Path
    log: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    log_max: int = 0


def launch(spec: Spec) -> subprocess.Popen[bytes]:
    """Start a process; raises OSError if there is no such program."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("EXCHANGE_")
    }
    # For its owner only: a log of house bots shows their seed.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    with open(os.open(spec.log, flags, 0o600), "ab") as log:
        return subprocess.Popen(
            spec.command,
            cwd=spec.folder,
            env={**variables, **spec.variables, MARK: str(spec.owner)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def python(*arguments: str) -> list[str]:
    """Return a command that runs a program of the checkout."""
    return [sys.executable, *arguments]


def checkout(**settings: object) -> dict[str, str]:
    """Return variables for a program of the checkout, and its settings."""
    named = {f"{PREFIX}{n.upper()}": str(v) for n, v in settings.items()}
    return {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | named


def start_time(pid: int) -> str | None:
    """Return when a process was started; None if it has ended."""
    if not _LINUX:
        return _ps(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    if fields[_STATE] in "ZX":  # ended; its parent has not asked for it yet
        return None
    return f"{_boot()} {fields[_START]}"


@cache
def _boot() -> str:
    """Return what is different after each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _ps(pid: int) -> str | None:
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
    )
    state, _, started = found.stdout.strip().partition(" ")
    return started.strip() if state and state[0] != "Z" else None


def is_alive(process: Process) -> bool:
    """Return whether a process is there, and is not another of its pid."""
    return start_time(process.pid) == process.started


def strays(owner: Path, groups: Collection[int]) -> list[int]:
    """Return processes of an event that are in none of these groups.

    A director that is killed between the start of a process and its row
    leaves one, and so does a process that ends before its children. Only
    Linux tells.
    """
    mark = f"{MARK}={owner}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            pid = int(path.parent.name)
            if mark in path.read_bytes().split(b"\0"):
                if os.getpgid(pid) not in groups:
                    found.append(pid)
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return found


def end(process: Process, signum: int = signal.SIGTERM) -> None:
    """Send a signal to a process and its children, if it is there."""
    if is_alive(process):
        try:
            os.killpg(process.pid, signum)
        except ProcessLookupError:  # it has just ended
            pass


def end_bot(record: Record, team: str) -> bool:
    """End the bot of a team; return whether it ran.

    The director starts it again, with the key that the team has then.
    """
    process = record.processes().get(f"{BOT}{team}")
    if process is None or not is_alive(process):
        return False
    end(process)
    deadline = time.monotonic() + STOP_S
    while is_alive(process):
        if time.monotonic() > deadline:
            end(process, signal.SIGKILL)
        time.sleep(LOOK_S)
    return True


def end_group(pid: int) -> None:
    """Kill what is left of the group of a process that has just ended."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def drop_middle(path: Path, most: int) -> bool:
    """Keep a quarter of ``most`` bytes from each end of a log that is larger.

    The program that writes it appends, so it goes on at the new end. Returns
    whether the log was cut.
    """
    try:
        with open(path, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= most:
                return False
            keep = most // 4
            file.seek(size - keep)
            tail = file.read()
            file.seek(keep)
            file.write(CUT + tail)
            file.truncate()
    except OSError:  # there is no log yet, or no space: look again later
        return False
    return True


def last_line(path: Path) -> str:
    """Return the last line of a log that is not empty."""
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 4_096, 0))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "")
