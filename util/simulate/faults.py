"""The faults of a world, drawn from its seed.

Each fault is a method without arguments. `Faults.plan` sets the moments at
which they happen. All that they change is changed back in `Faults.end`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

from exchange.journal.sqlite import SPACE_LOW

from .disk import PLENTY, Disk
from .latency import Latency
from .loop import NS, VirtualLoop
from .machine import Machine
from .network import Link, Network

MS = NS // 1_000
# How long a commit takes on each kind of disk, in nanoseconds.
DISKS = ((50_000, 250_000), (MS // 2, 5 * MS), (5 * MS, 40 * MS))
# Turns of the loop between a moment and the kill after it. The exchange takes
# some ten turns from a request to the reply.
TURNS = 60
SLOWEST_S = 0.6  # the longest time of a message on a slow network
SLOW = Latency(round(SLOWEST_S * NS) // 2, round(SLOWEST_S * NS) // 2)


class World(Protocol):
    """What faults use of a world."""

    loop: VirtualLoop
    network: Network
    machine: Machine
    disk: Disk

    def later(self, seconds: float, work: Callable[[], object]) -> None:
        """Do some work after some seconds."""

    def note(self, text: str) -> None:
        """Keep a line for the story of the world."""


class Faults:
    """The faults of one world."""

    def __init__(self, world: World, chance: Random) -> None:
        self.counts: Counter[str] = Counter()
        self._world = world
        self._chance = chance
        self._is_over = False
        self._usual = chance.choice(DISKS)
        self._set_speed(self._usual)

    def plan(self, seconds: float) -> None:
        """Draw faults for some seconds from now on."""
        chance = self._chance
        faults: dict[Callable[[], object], float] = {
            self.kill: 1.5,
            self.kill_in_commit: 2.5,
            self.lose_power: 0.4,
            self.stop: 0.3,
            self.cut: 3.0,
            self.cut_within: 3.0,
            self.silence: 0.6,
            self.slow_network: 1.0,
            self.slow_disk: 0.8,
            self.fail_disk: 0.2,
            self.fill_disk: 0.3,
            self.set_clock: 0.3,
            self.stall: 3.0,
            self.hold_up: 12.0,
        }
        for fault, mean in faults.items():
            moment = chance.expovariate(mean / seconds)
            while moment < seconds:
                self._world.later(moment, self._guarded(fault))
                moment += chance.expovariate(mean / seconds)

    def end(self) -> None:
        """Let everything work again."""
        self._is_over = True
        self._set_speed(DISKS[0])
        disk = self._world.disk
        disk.free, disk.failure, disk.begun = PLENTY, "", None

    def restarted(self) -> None:
        """Let the first requests to a new process come all at once."""
        if not self._is_over:
            for _ in range(2):
                self._world.later(self._chance.random() / 2, self.hold_up)

    def restart_pause(self) -> float:
        """Return the seconds until the next process starts."""
        if self._is_over:
            return 0.1
        return self._chance.choice((0.0, 0.02, 0.1, 0.5, 2.0))

    def _guarded(self, fault: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            if not self._is_over:
                self.counts[fault.__name__] += 1
                self._world.note(fault.__name__)
                fault()

        return run

    # The process

    def kill(self) -> None:
        """Kill the process between two callbacks, soon."""
        turns = self._chance.randint(0, TURNS)
        self._world.machine.call_between(turns, self._die, self._chance)

    def kill_in_commit(self) -> None:
        """Kill the process while it commits the next time, or just after."""

        def begun(end_ns: int, in_loop: bool) -> bool:
            if in_loop:
                self._die()
                return True
            now = self._world.loop.now
            at = now + (end_ns - now) * self._chance.uniform(0, 1.1)
            self._world.later((at - now) / NS, self._die)
            return False

        self._world.disk.begun = begun

    def lose_power(self) -> None:
        """End the process; its peers are not told."""
        self._die(is_power=True)

    def stop(self) -> None:
        """Stop the process in order."""
        self._world.machine.stop()

    def _die(self, is_power: bool = False) -> None:
        world = self._world
        if world.machine.process is not None and not self._is_over:
            world.machine.kill(is_power)
            world.note("the process is dead")
            world.later(self.restart_pause(), world.machine.start)

    def stall(self) -> None:
        """Let everything stand still, as on a machine that is busy."""
        self._world.loop.now += self._chance.randint(MS, 150 * MS)

    # The network

    def _link(self) -> Link | None:
        links = list(self._world.network.links)
        return self._chance.choice(links) if links else None

    def latency(self, usual: Latency) -> Latency:
        """Return the latency of a new connection."""
        is_slow = not self._is_over and self._chance.random() < 0.25
        return SLOW if is_slow else usual

    def cut(self) -> None:
        """Break a connection; what is on the way is lost."""
        if (link := self._link()) is not None:
            link.cut()

    def cut_within(self) -> None:
        """Break a connection at any byte that arrives."""
        if (link := self._link()) is not None:
            link.cut_after(self._chance.randint(1, 2_000))

    def hold_up(self) -> None:
        """Let all that clients send for a while arrive at one instant."""
        loop = self._world.loop
        until = loop.now + self._chance.randint(MS, 400 * MS)
        for link in self._world.network.links:
            link.near.hold_until(until)

    def silence(self) -> None:
        """Lose all that is sent on a connection; nobody is told."""
        if (link := self._link()) is not None:
            link.silence()

    def slow_network(self) -> None:
        """Let the messages of a connection take long."""
        if (link := self._link()) is not None:
            link.latency = SLOW

    # The disk

    def slow_disk(self) -> None:
        """Let commits take long for some seconds."""
        self._set_speed((20 * MS, self._chance.choice((100, 2_000)) * MS))
        seconds = self._chance.uniform(0.2, 3)
        self._world.later(seconds, lambda: self._set_speed(self._usual))

    def fail_disk(self) -> None:
        """Let commits fail for a while."""
        self._world.disk.failure = "disk I/O error"
        self._world.later(self._chance.uniform(0, 2), self._mend)

    def fill_disk(self) -> None:
        """Let the disk be nearly full, and maybe then full."""
        disk = self._world.disk
        disk.free = SPACE_LOW - 1
        if self._chance.random() < 0.5:
            self._world.later(self._chance.uniform(0, 2), self._fill_up)
        self._world.later(self._chance.uniform(2, 5), self._mend)

    def _fill_up(self) -> None:
        if not self._is_over:
            self._world.disk.failure = "database or disk is full"

    def _mend(self) -> None:
        self._world.disk.failure = ""
        self._world.disk.free = PLENTY

    def _set_speed(self, speed: tuple[int, int]) -> None:
        disk = self._world.disk
        disk.quick_ns, disk.slow_ns = DISKS[0] if self._is_over else speed

    # The clock

    def set_clock(self) -> None:
        """Set the machine's wall clock forward or back."""
        step = self._chance.choice((-3_600, -2, -0.2, 0.2, 2))
        self._world.machine.clock_ns += round(step * NS)
