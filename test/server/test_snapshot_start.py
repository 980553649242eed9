"""An exchange that starts from a snapshot, as its clients see it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from exchange.host import snapshots as host_snapshots
from exchange.journal.snapshots.folder import Snapshots
from exchange.journal.sqlite import count_commands
from test.server.asking import follow, get, place
from test.support import Wire, order, serving, wired
from util import compact

# Of the machine's clock, which goes on between the two starts.
TIMES = ("ts", "start_ts")
TABLES = ("book", "trades", "leaderboard", "account", "positions")
OWN_TABLES = ("fills", "orders", "news", "statuses", "instruments")


def without_times(message: Any) -> Any:
    if isinstance(message, dict):
        return {
            key: without_times(value)
            for key, value in message.items()
            if key not in TIMES
        }
    if isinstance(message, list):
        return [without_times(element) for element in message]
    return message


async def first_day(path: Path) -> tuple[str, str]:
    """Trade; return the sessions of alice and bob."""
    async with serving(journal=path) as server:
        async with wired(server.url) as alice, wired(server.url) as bob:
            a = await alice.login("alice", cancel_on_disconnect=False)
            b = await bob.login("bob", cancel_on_disconnect=True)
            for price in range(90, 100):
                await place(alice, "buy", 3, price)
            for qty in (1, 2, 5):
                await place(bob, "sell", qty, 97)
            await bob.ask(**order("sell", 9, 105), display_qty=2)
            await alice.ask(
                **order("buy", 1, None), order_type="stop", trigger_price=106
            )
            await alice.ask(type="cancel", order_id=2)
            await alice.ask(type="amend", order_id=3, qty=7)
            await bob.ask(**order("sell", 4, 104))
        async with wired(server.url, "carol") as carol:
            # Nobody of alice is online: she is told when she resumes.
            await place(carol, "sell", 4, 95)
    return a["session"], b["session"]


async def told(wire: Wire, **request: Any) -> Any:
    return without_times(await wire.ask(**request))


async def second_day(path: Path, sessions: tuple[str, str]) -> list[Any]:
    """Resume, look at everything and go on; return all that is told."""
    found: list[Any] = []
    async with serving(journal=path) as server:
        async with wired(server.url) as alice, wired(server.url) as bob:
            for last_seq in (4, 10):
                async with wired(server.url) as early:
                    found.append(
                        await told(
                            early,
                            type="login",
                            user="alice",
                            session=sessions[0],
                            last_seq=last_seq,
                            cancel_on_disconnect=False,
                        )
                    )
            for wire, user, session in (
                (alice, "alice", sessions[0]),
                (bob, "bob", sessions[1]),
            ):
                found.append(
                    await told(
                        wire,
                        type="login",
                        user=user,
                        session=session,
                        last_seq=7,
                        cancel_on_disconnect=False,
                    )
                )
                found.append(await told(wire, **follow("book", "trades")))
            for what in (*TABLES, *OWN_TABLES):
                found.append(await told(alice, **get(what)))
                found.append(await told(bob, **get(what)))
            found.append(await told(alice, **get("candles", interval="1d")))
            found.append(await told(bob, **order("sell", 8, 94)))
            found.append(await told(alice, type="ping"))
            found.append(await told(alice, type="cancel_all"))
            found.append(await told(bob, type="ping"))
    return found


async def test_clients_cannot_tell_it_from_a_full_replay(
    tmp_path: Path,
) -> None:
    """The same replies, missed events, books, tables and numbers."""
    path = tmp_path / "first" / "exchange.db"
    sessions = await first_day(path)
    found = []
    for name in ("full", "snapshot"):
        folder = tmp_path / name
        shutil.copytree(path.parent, folder)
        if name == "snapshot":
            assert compact.main([str(folder / path.name)]) == 0
            (made,) = Snapshots(folder / path.name).verified()
            assert made.name.endswith(f"-{count_commands(path)}")
        found.append(await second_day(folder / path.name, sessions))
    full, from_snapshot = found
    assert full[0][0]["resumed"] and len(full[0]) > 10
    for one, other in zip(full, from_snapshot, strict=True):
        assert one == other


async def test_a_stop_with_clients_online_makes_a_true_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a server has that sent it all is what a replay comes to."""
    monkeypatch.setattr(host_snapshots, "COMMANDS_BETWEEN", 10)
    path = tmp_path / "exchange.db"
    await first_day(path)
    end = count_commands(path)
    made = Snapshots(path).path_of(end)
    assert Snapshots(path).unverified() == [
        made.with_name(f"{made.name}.unverified")
    ]
    async with serving(journal=path) as server:
        assert made in Snapshots(path).verified()
        assert "from a snapshot" not in server.greeting
    async with serving(journal=path) as server:
        assert f"{end} of them from a snapshot" in server.greeting
