"""Hosts of a network on this machine, of which one can be cut off entirely.

Each host is a network namespace of Linux with one address. All are connected
by a bridge, in a namespace of its own, and this process reaches them too. A
host that is cut off loses everything that it sends, and nobody is told.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from util.measure.process import Trouble

# Ends of cables: the bridge has .1, this process .2, the hosts follow.
FIRST_HOST = 3
LENGTH_BITS = 24


@dataclass(frozen=True, slots=True)
class Host:
    """A host: its address, and the command that runs a program on it."""

    address: str
    inside: Sequence[str] = ()
    cable: str = ""  # its end at the bridge


HERE = Host("127.0.0.1")


class Network:
    """Hosts that are connected by a bridge."""

    def __init__(self, count: int) -> None:
        number = os.getpid()
        self._net = f"10.{64 + number // 256 % 64}.{number % 256}"
        self._bridge = f"ex{number}"  # of the namespace, too
        self.hosts = [
            Host(
                f"{self._net}.{FIRST_HOST + index}",
                ("ip", "netns", "exec", f"{self._bridge}h{index}"),
                f"c{number}h{index}",
            )
            for index in range(count)
        ]

    def connect(self) -> None:
        """Make all namespaces; raises Trouble if this machine has none."""
        bridge = self._bridge
        run(f"ip netns add {bridge}")
        run(f"ip -n {bridge} link add bridge type bridge")
        run(f"ip -n {bridge} link set bridge up")
        here = f"c{bridge}"
        self._plug(here, "")
        run(f"ip addr add {self._net}.2/{LENGTH_BITS} dev {here}i")
        run(f"ip link set {here}i up")
        for host in self.hosts:
            name = host.inside[-1]
            run(f"ip netns add {name}")
            self._plug(host.cable, name)
            inside = f"ip -n {name}"
            run(
                f"{inside} addr add {host.address}/{LENGTH_BITS}"
                f" dev {host.cable}i"
            )
            run(f"{inside} link set {host.cable}i up")
            run(f"{inside} link set lo up")

    def _plug(self, cable: str, name: str) -> None:
        """Lead a cable from the bridge to a namespace; "": to this one."""
        bridge = self._bridge
        run(f"ip link add {cable}i type veth peer name {cable}")
        run(f"ip link set {cable} netns {bridge}")
        run(f"ip -n {bridge} link set {cable} master bridge up")
        if name:
            run(f"ip link set {cable}i netns {name}")

    def cut_off(self, host: Host) -> None:
        """Let nothing reach a host, and nothing leave it."""
        run(f"ip -n {self._bridge} link set {host.cable} nomaster")

    def mend(self, host: Host) -> None:
        """Connect a host again."""
        run(f"ip -n {self._bridge} link set {host.cable} master bridge")

    def remove(self) -> None:
        """Remove all; no process may run there any more."""
        names = [*(host.inside[-1] for host in self.hosts), self._bridge]
        for name in names:
            with contextlib.suppress(Trouble):
                run(f"ip netns del {name}")


def run(command: str) -> None:
    """Run a command of iproute2; raises Trouble with what it says."""
    if shutil.which("ip") is None:
        raise Trouble("there is no command ip: .ci/namespaces installs it")
    done = subprocess.run(command.split(), capture_output=True, text=True)
    if done.returncode:
        raise Trouble(f"{command}: {done.stderr.strip()}")


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """Make a network of hosts, and remove it; raises Trouble.

    That needs root, and a kernel that allows namespaces: in a container
    without CAP_NET_ADMIN and CAP_SYS_ADMIN there are none.
    """
    made = Network(count)
    try:
        made.connect()
        yield made
    finally:
        made.remove()
