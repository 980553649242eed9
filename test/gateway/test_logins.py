"""Logins that open accounts."""

from __future__ import annotations

import pytest

from test.support import NOON, Floor, words


def login(floor: Floor, user: str) -> tuple[str, list[int]]:
    """Log in; return what came of it, and the close codes."""
    session = floor.join()
    reply, *_ = floor.do(session, {"type": "login", "user": user})
    return words([reply])[0], floor.closings(session)


def test_only_so_many_accounts_are_opened(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exchange.gateway.logins.ACCOUNTS_MAX", 2)
    assert login(floor, "alice") == ("welcome", [])
    assert login(floor, "bob") == ("welcome", [])
    seq = floor.seq
    assert login(floor, "carol") == ("forbidden", [4001])
    assert floor.seq == seq
    assert login(floor, "alice") == ("welcome", [])


def test_news_goes_to_everybody_once(floor: Floor) -> None:
    first, second = floor.join("alice"), floor.join("alice")
    watcher = floor.join()
    floor.gateway.announce("lunch")
    floor.gateway.seal()
    for session in (first, second, watcher):
        (status,) = floor.read(session)
        assert status == {"type": "status", "ts": NOON, "message": "lunch"}
