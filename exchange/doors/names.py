"""Checks of ``Host``, ``Origin`` and ``X-Forwarded-For``.

A browser sends in ``Host`` the name it opened, and in ``Origin`` the page that
makes the request. A foreign page must not trade through its visitor's browser,
and neither must a foreign name that resolves to this machine (DNS rebinding).
This module looks up no name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Literal, TypeAlias

PORTS = {"http": 80, "https": 443}  # ports that a browser leaves out
MAX_SHOWN = 100  # characters of a header in a message
# Hops of X-Forwarded-For that are read, some 1 us each. A longer chain of
# proxies is a mistake or an attack.
MAX_HOPS = 16

Host: TypeAlias = tuple[str, int | None]  # name; port, None: not given
Origin: TypeAlias = tuple[str, str, int]  # scheme, name, port
Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_HOST = re.compile(
    r"(\[[0-9a-f.]*:[0-9a-f:.]+\]|[a-z0-9_-]+(?:\.[a-z0-9_-]+)*)"
    r"\.?(?::([0-9]{0,5}))?"
)
_HOP = re.compile(r"\[([^]]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused."""

    header: Literal["host", "origin"]
    reason: str


def read_host(text: str) -> Host | None:
    """Parse a name or address with an optional port; None if it is invalid.

    A name is returned in lower case without a dot at its end, an address in
    its shortest form, an IPv6 address in brackets.
    """
    match = _HOST.fullmatch(text.lower()) if text.isascii() else None
    if match is None:
        return None
    name, port = match[1], int(match[2]) if match[2] else None
    if port is not None and not 1 <= port <= 65_535:
        return None
    if is_address(name):
        try:
            address = ip_address(name.strip("[]"))
        except ValueError:
            return None
        name = in_url(str(address))
    return name, port


def read_origin(text: str) -> Origin:
    """Parse an origin, with or without a slash at its end.

    Raises ValueError if no browser could send it.
    """
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    host = read_host(rest.removesuffix("/"))
    if scheme not in PORTS or host is None:
        raise ValueError(
            f"{shown(text)} is not an origin: give http:// or https://, a host"
            " in ASCII, and its port unless it is the default, as in"
            " https://example.org or http://localhost:3000"
        )
    return scheme, host[0], host[1] or PORTS[scheme]


def write_origin(origin: Origin) -> str:
    """Return an origin as browsers write it."""
    scheme, name, port = origin
    is_usual = port == PORTS[scheme]
    return f"{scheme}://{name}" + ("" if is_usual else f":{port}")


def is_address(name: str) -> bool:
    """Return whether a host is an address, by the rule of browsers."""
    return name.startswith("[") or name.rpartition(".")[2].isdigit()


def is_loopback(address: str) -> bool:
    """Return whether an address is this machine's own."""
    return ip_address(address).is_loopback


def in_url(hostname: str) -> str:
    """Return a host name or address as it is written in a URL."""
    return f"[{hostname}]" if ":" in hostname else hostname


def shown(text: str) -> str:
    """Return a header for a message: in ASCII, cut after MAX_SHOWN."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    return cut.encode("ascii", "backslashreplace").decode()


class Names:
    """The names of one exchange, and the origins that may connect.

    Args:
        hosts: its names; any address is accepted too.
        origins: pages that may connect to any of its names. Their hosts are
            names of the exchange too.
        is_tls: the exchange itself serves TLS, so its own pages are https. If
            not, they are http, or https behind a proxy that serves TLS.
        checks_host: refuse any other name in ``Host``, also from programs.
    """

    def __init__(
        self,
        *,
        hosts: Iterable[str],
        origins: Iterable[Origin],
        is_tls: bool,
        checks_host: bool,
    ) -> None:
        self._origins = frozenset(origins)
        self._hosts = {name for _, name, _ in self._origins} | set(hosts)
        self._is_tls = is_tls
        self._checks_host = checks_host

    def refusal(
        self, hosts: Sequence[str], origins: Sequence[str]
    ) -> Refusal | None:
        """Return why a request is refused; None: it is not.

        ``hosts`` and ``origins`` are the values of the two headers. Programs
        send no ``Origin``. Two of them pass here, and are refused by the
        websockets library.
        """
        host = read_host(hosts[0]) if len(hosts) == 1 else None
        if self._checks_host and not self._is_ours(host):
            return Refusal(
                "host",
                f"host {shown(', '.join(hosts)) or '(none)'} is not in an"
                " origin of EXCHANGE_SERVER_ORIGINS",
            )
        if len(origins) != 1 or self._is_page_welcome(origins[0], host):
            return None
        return Refusal(
            "origin",
            f"origin {shown(origins[0])} is not in EXCHANGE_SERVER_ORIGINS",
        )

    def _is_ours(self, host: Host | None) -> bool:
        return host is not None and (
            host[0] in self._hosts or is_address(host[0])
        )

    def _is_page_welcome(self, text: str, host: Host | None) -> bool:
        """Return whether an origin is listed, or is the opened host itself."""
        try:
            scheme, name, port = origin = read_origin(text)
        except ValueError:
            return False
        if origin in self._origins:
            return True
        if host is None or not self._is_ours(host):
            return False
        is_own = (name, port) == (host[0], host[1] or PORTS[scheme])
        return is_own and (scheme == "https" or not self._is_tls)


def read_network(text: str) -> Network:
    """Parse an address or a network; raises ValueError."""
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{error}: give an address or a network, as in 127.0.0.1 or"
            " 10.0.0.0/8"
        ) from None


class Proxies:
    """The proxies whose ``X-Forwarded-For`` is believed."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    def include(self, peer: str) -> bool:
        """Return whether the peer of a connection is such a proxy."""
        address = _read_hop(peer) if self._networks else None
        return address is not None and self._is_trusted(address)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the address of the client behind a proxy.

        ``forwarded`` are the ``X-Forwarded-For`` lines of its request. Each
        proxy appends the address of its own peer, so the client is the
        right-most address that is no proxy of ours; the client may have
        invented those left of it. If the lines are invalid, the result is
        ``peer``.
        """
        hops = ",".join(forwarded).rsplit(",", MAX_HOPS)
        client = peer
        for hop in reversed(hops[-MAX_HOPS:]):
            address = _read_hop(hop.strip())
            if address is None:
                return peer
            client = str(address)
            if not self._is_trusted(address):
                return client
        return client if len(hops) <= MAX_HOPS else peer

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _read_hop(text: str) -> Address | None:
    """Parse an address; drop its port or zone."""
    match = _HOP.fullmatch(text)
    plain = (match[1] or match[2]) if match else text
    try:
        address = ip_address(plain.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address
