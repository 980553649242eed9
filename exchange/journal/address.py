"""Where a journal on a stream is: ``nats://a:4222,b:4222,c:4222/main``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Self

SCHEMES = ("nats", "tls")
PORT = 4222  # of a NATS server, unless the address has another
_ADDRESS = re.compile(
    r"(?P<scheme>\w+)://(?:(?P<login>[^@/\s]+)@)?"
    r"(?P<hosts>[^@/,\s]+(?:,[^@/,\s]+)*)/(?P<name>[A-Za-z0-9_-]{1,32})"
)


def is_stream(text: str) -> bool:
    """Return whether a setting names a stream, and not a file."""
    return text.partition("://")[0] in SCHEMES and "://" in text


@dataclass(frozen=True, slots=True)
class Address:
    """The servers of a stream and its name.

    ``servers`` are URLs with user and password, if there are any. `str` gives
    the address without them, for messages.
    """

    servers: tuple[str, ...] = field(repr=False)
    shown: str
    name: str

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the address that a text names; raises ValueError."""
        found = _ADDRESS.fullmatch(text)
        if found is None or found["scheme"] not in SCHEMES:
            raise ValueError(
                "a stream is nats://HOST:PORT,HOST:PORT,HOST:PORT/NAME with a"
                " name of letters, digits, - and _"
            )
        scheme, login = found["scheme"], found["login"]
        hosts = [
            host if re.search(r":\d+$", host) else f"{host}:{PORT}"
            for host in found["hosts"].split(",")
        ]
        before = f"{scheme}://{login}@" if login else f"{scheme}://"
        return cls(
            servers=tuple(before + host for host in hosts),
            shown=f"{scheme}://{','.join(hosts)}/{found['name']}",
            name=found["name"],
        )

    def __str__(self) -> str:
        return self.shown
