"""The market file of an event's exchange."""

from __future__ import annotations

from pathlib import Path

from exchange.host.market_file import load_market
from test.util.event.files import EVENT, write_event
from util.event.file import read_event
from util.event.keys import house_names
from util.event.market import write_market


def test_the_exchange_accepts_it(tmp_path: Path) -> None:
    event = read_event(write_event(tmp_path))
    write_market(event)
    market = load_market(event.folder / "market.toml")
    phases = {i.phase for i in market.instruments.values()}
    assert phases == {"closed"}
    assert {*market.accounts} == {*house_names(event)}


def test_without_a_live_board_the_exchange_shows_none(tmp_path: Path) -> None:
    """A team could ask the exchange for what the pages leave out."""
    for live, text in (
        (True, EVENT),
        (False, EVENT.replace("live_board = true", "live_board = false")),
    ):
        event = read_event(write_event(tmp_path, text))
        write_market(event)
        market = load_market(event.folder / "market.toml")
        assert market.public_leaderboard is live


def test_teams_enter_the_doors_from_their_networks(tmp_path: Path) -> None:
    """Bots that are started here come from this machine."""
    text = EVENT.replace("PLUM   = {}", 'PLUM = { address = "10.0.9.7" }')
    event = read_event(write_event(tmp_path, text))
    write_market(event)
    doors = load_market(event.folder / "market.toml").doors
    assert doors is not None
    assert (doors.json_port, doors.line_port) == (25000, 20000)
    here = ["127.0.0.0/8", "::1/128"]
    assert doors.teams == {
        "ORANGE": ["10.0.1.0/24"],
        "APPLE": here,
        "LEMON": here,
        "PLUM": ["10.0.9.7"],
    }


def test_without_doors_there_are_none(tmp_path: Path) -> None:
    text = EVENT.replace("doors = {", "# doors = {").replace(
        ', door = "line"', ""
    )
    event = read_event(write_event(tmp_path, text))
    write_market(event)
    doors = load_market(event.folder / "market.toml").doors
    assert (doors.json_port, doors.line_port) == (0, 0)
