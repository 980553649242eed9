"""Logins that open accounts."""

from __future__ import annotations

from test.support import NOON, Floor


def test_an_announcement_goes_to_each_link_once(floor: Floor) -> None:
    first, second = floor.join("alice"), floor.join("alice")
    watcher = floor.join()
    floor.gateway.announce("lunch")
    floor.gateway.seal()
    for session in (first, second, watcher):
        (status,) = floor.read(session)
        assert status == {"type": "status", "ts": NOON, "message": "lunch"}
