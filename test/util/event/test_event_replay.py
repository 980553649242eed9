"""A match of an event, served: its span, its keys and its hidden values."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from exchange.host.keyring import KeyRing
from test.support import PATIENCE_S, order, running, serving, until, wired
from test.util.event.playing import Playing
from test.util.test_playback import move
from util.event.fair import FairPaths
from util.event.file import Event, read_event
from util.event.file_checks import ADMINISTRATOR
from util.event.keys import KEYS_FILE, make_keys, tokens_of
from util.event.record import EVENT, Key, Record
from util.event.replay import main, moments, trading
from util.event.results import JOURNAL
from util.measure.process import environment

MATCH = Key("A", "all", 1)
SECOND = 1_000_000


def test_hidden_values_count_trading_time_only() -> None:
    phases = [
        (10 * SECOND, "BOND", "open"),
        (10 * SECOND, "GS", "open"),
        (11 * SECOND, "GS", "halted"),  # another instrument
        (12 * SECOND, "BOND", "halted"),
        (19 * SECOND, "BOND", "open"),
        (20 * SECOND, "BOND", "closed"),
    ]
    for opened in (10, 9):
        spans = trading(phases, opened * SECOND, 30 * SECOND)
        assert spans == [
            (10 * SECOND, 12 * SECOND),
            (19 * SECOND, 20 * SECOND),
        ]
    assert trading(phases[:1], 11 * SECOND, 13 * SECOND) == [
        (11 * SECOND, 13 * SECOND)
    ]
    points = moments(spans)
    assert points[0] == (10 * SECOND, 0) and len(points) == 30
    assert points[20] == (19 * SECOND, 2_000)
    assert points[-1] == (19_900_000, 2_900)


async def played(event: Event, tokens: dict[str, str]) -> None:
    """Play a match of a moment, with an order before and after it."""
    journal = event.folder / JOURNAL
    journal.parent.mkdir(parents=True, exist_ok=True)
    async with serving(
        journal=journal,
        market=event.path.parent / "market.toml",
        keys=event.folder / KEYS_FILE,
    ) as server:
        async with (
            wired(server.url, "ORANGE", token=tokens["ORANGE"]) as orange,
            wired(server.url, "APPLE", token=tokens["APPLE"]) as apple,
            wired(
                server.url,
                ADMINISTRATOR,
                token=tokens_of(event.folder)[ADMINISTRATOR],
            ) as director,
        ):
            bond: dict[str, Any] = {"symbol": "BOND"}
            await apple.ask(**order("buy", 1, 900, **bond))
            with Record.of(event.folder) as record:
                record.begin(MATCH, "start", number=1)
                for phase in ("halted", "open"):
                    await director.ask(
                        **{"type": "admin", "action": "phase"},
                        **{"phase": phase, "reason": "test"},
                    )
                opened = server.gateway.engine.ts
                record.done(MATCH, "open", opened_ts=opened)
                await orange.ask(**order("sell", 7, 1_001, **bond))
                await apple.ask(**order("buy", 2, 1_001, **bond))
                record.done(MATCH, "score")
            await until(lambda: server.gateway.sequencer.uncommitted == 0)
            await apple.ask(**order("buy", 5, 1_001, **bond))


@pytest.mark.asyncio
async def test_a_match_is_served(tmp_path: Path) -> None:
    playing = Playing(tmp_path, rounds="A", trading=5)
    event = read_event(playing.path)
    tokens = make_keys(event, teams=["ORANGE", "APPLE"])
    await played(event, tokens)
    ring = KeyRing(event.folder / KEYS_FILE)
    assert ring.is_needed
    values = {"BOND": [1_000] * 51, "GS": [4_000] * 51}
    folder = event.folder / "A/all"
    folder.mkdir(parents=True, exist_ok=True)
    FairPaths("0" * 32, values).write(folder / "fair.csv")
    with Record.of(event.folder) as record:
        record.done(EVENT, "finished")
    arguments = ("-m", "util.event", "replay", str(playing.path), "A")
    async with running(
        *arguments, "--serve", "--port", "0", env=environment()
    ) as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
        url = line.split()[-1]
        page = url.replace("ws", "http", 1)
        answer = await asyncio.to_thread(
            urllib.request.urlopen, f"{page}/v1/replay"
        )
        about = json.loads(answer.read())
        assert about["title"] == "Try, round A"
        assert about["has_fair"] and about["has_keys"]
        assert about["is_published"]  # the event is over
        async with wired(url) as wire:
            # The order before the match is there, the one after it is not.
            await move(wire, speed="0", ts=0)
            await move(wire, ts=about["end_ts"])
            names = (await move(wire, what="names", symbol="BOND"))["data"]
            assert names["trades"] == [[1, 1_001, 2, "APPLE", "ORANGE"]]
            assert names["asks"] == [[1_001, 5, "ORANGE"]]
            assert names["bids"] == [[900, 1, "APPLE"]]
            await wire.login("ORANGE", token=tokens["ORANGE"])
            fair = (await move(wire, what="fair", symbol="BOND"))["data"]
            assert {value for _, value in fair} == {1_000}
            assert (await move(wire, what="fair", symbol="X"))["data"] == []


def test_a_wrong_match_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    playing = Playing(tmp_path, rounds="A", trading=5)
    assert main([str(playing.path), "B", "--serve"]) == 2
    assert "there is no round 'B'" in capsys.readouterr().err
    assert main([str(playing.path), "A", "--serve"]) == 1
    assert "A has not begun" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(playing.path), "A", "--serve", "--symbol", "GS"])
    assert "--serve shows all" in capsys.readouterr().err
