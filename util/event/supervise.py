"""Keep processes running: those that are wanted, and no others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .processes import (
    LOOK_S,
    STOP_S,
    Spec,
    drop_middle,
    end,
    end_group,
    is_alive,
    launch,
    start_time,
    strays,
)
from .record import Process, Record

AGAIN_S = 1.0  # after its end a process is started again


class Supervisor:
    """Starts wanted processes, again after they ended; ends all others.

    ``wanted`` may be changed at any time. `tend` makes the processes what it
    says; call it every LOOK_S. What is started is in the record, so that the
    next supervisor adopts it.
    """

    def __init__(self, record: Record, say: Callable[[str], None]) -> None:
        self.wanted: dict[str, Spec] = {}
        self._record = record
        self._say = say
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._not_before: dict[str, float] = {}
        self._ending: dict[str, float] = {}  # when it is killed
        # Wanted ones, since the last `tend`.
        self._ended: list[tuple[str, int | None]] = []
        self.running = {
            name: process
            for name, process in record.processes().items()
            if is_alive(process)
        }

    def end_strays(self, owner: Path) -> None:
        """Kill processes of this event that nobody keeps."""
        known = {process.pid for process in self.running.values()}
        for pid in strays(owner, known):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def tend(self) -> list[tuple[str, int | None]]:
        """Look once; return the wanted processes that have ended.

        With their exit status, as `subprocess` gives it; None if another
        director has started it.
        """
        self._reap()
        ended, self._ended = self._ended, []
        for name, spec in list(self.wanted.items()):
            if name not in self.running:
                if time.monotonic() >= self._not_before.get(name, 0):
                    self._start(spec)
            elif spec.log_max:
                drop_middle(spec.log, spec.log_max)
        for name in self.running.keys() - self.wanted.keys():
            self._stop(name)
        return ended

    async def end(self, *kinds: str) -> list[str]:
        """End processes whose names begin so; return their names."""
        for name in [n for n in self.wanted if n.startswith(kinds)]:
            del self.wanted[name]
        ended = [n for n in self.running if n.startswith(kinds)]
        while any(name in self.running for name in ended):
            self._reap()
            for name in ended:
                if name in self.running:
                    self._stop(name)
            await asyncio.sleep(LOOK_S)
        return ended

    def may_start_now(self, name: str) -> None:
        """Let a process that has ended be started without a delay."""
        self._not_before.pop(name, None)

    def _reap(self) -> None:
        """Forget processes that have ended, but note those wanted."""
        for name, process in list(self.running.items()):
            child = self._children.get(process.pid)
            if child is not None and child.poll() is None:
                continue
            if child is None and is_alive(process):
                continue
            self._children.pop(process.pid, None)
            status = None if child is None else child.returncode
            end_group(process.pid)
            del self.running[name]
            self._ending.pop(name, None)
            if name in self.wanted:
                self._not_before[name] = time.monotonic() + AGAIN_S
                self._ended.append((name, status))
            else:
                self._record.forget(name)

    def _start(self, spec: Spec) -> None:
        try:
            child = launch(spec)
        except OSError as error:
            self._say(f"{spec.name} cannot be started: {error}")
            self._not_before[spec.name] = time.monotonic() + AGAIN_S
            return
        started = start_time(child.pid)
        process = Process(spec.name, child.pid, started or "", spec.port)
        self._children[child.pid] = child
        self.running[spec.name] = process
        self._record.keep(process)

    def _stop(self, name: str) -> None:
        """Ask a process to end; kill it if it does not."""
        process = self.running[name]
        if name not in self._ending:
            self._ending[name] = time.monotonic() + STOP_S
            end(process, signal.SIGTERM)
        elif time.monotonic() > self._ending[name]:
            end(process, signal.SIGKILL)
