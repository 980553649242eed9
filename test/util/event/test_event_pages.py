"""What the pages of an event show, when, and to whom."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from test.util.event.playing import Playing
from util.event.draws import drawn_of, next_batch
from util.event.file import Event, read_event
from util.event.keys import make_keys
from util.event.pages import Pages
from util.event.record import EVENT, Key, Record
from util.event.uptime import Uptime, write_uptime

TEAM = "ORANGE"


@pytest.fixture
def event(tmp_path: Path) -> Event:
    """An event of two rounds, with files as after the first one."""
    playing = Playing(tmp_path, rounds="AB", trading=5)
    event = read_event(playing.path)
    match = event.folder / "A/all"
    for name in (f"{TEAM}/fills.csv", "APPLE/fills.csv", "public/trades.csv"):
        (match / name).parent.mkdir(parents=True, exist_ok=True)
        (match / name).write_text(name)
    (match / "fair.csv").write_text("the values")
    for name in ("secret", "journal.db"):
        (event.folder / name).write_text(name)
    (event.folder / "standings.csv").write_text("rank,team\n")
    return event


def status(event: Event, path: str, user: str = "", token: str = "") -> int:
    header = None
    if user:
        coded = base64.b64encode(f"{user}:{token}".encode()).decode()
        header = f"Basic {coded}"
    return int(Pages(event).answer(path, header).status)


def now(event: Event) -> Any:
    return json.loads(Pages(event).answer("/now.json", None).body)


def play(event: Event, *acts: str, round_name: str = "A") -> None:
    """Add rows to the record."""
    key = Key(round_name, "all", 1)
    with Record.of(event.folder) as record:
        for act in acts:
            if act == "start":
                record.begin(key, act, number=1)
            else:
                record.done(key, act)


def test_the_page_and_the_standings_are_public(event: Event) -> None:
    text = Pages(event).answer("/", None).body.decode()
    named = re.findall(r'(?:href|src)="([\w.]+\.(?:css|js|svg))"', text)
    assert {"event.css", "event.js", "page.css", "layout.css"} < {*named}
    for path in ("", *named):
        assert status(event, f"/{path}") == 200
    assert status(event, "/standings.csv") == 200
    assert status(event, "/standings.json") == 404  # there are none yet
    answer = Pages(event).answer("/", None)
    assert (
        "default-src 'none'" in answer.all_headers["Content-Security-Policy"]
    )


def test_hidden_values_are_public_once_the_match_is_scored(
    event: Event,
) -> None:
    paths = ("/public/A/all/fair.csv", "/public/A/all/trades.csv")
    with Record.of(event.folder) as record:
        record.begin(Key("A", "all", 1), "start", number=1)
        record.done(Key("A", "all", 1), "fair", sha256="ab12")
    assert [status(event, path) for path in paths] == [404, 404]
    assert now(event)["rounds"][0]["fair_sha256"] == "ab12"
    play(event, "open", "close", "settled")
    assert [status(event, path) for path in paths] == [404, 404]
    play(event, "score")
    assert [status(event, path) for path in paths] == [200, 200]
    assert status(event, "/public/A/all/") == 200
    assert status(event, "/public/B/all/") == 404


def test_the_secret_is_public_after_the_event(event: Event) -> None:
    play(event, "start", "score")
    assert status(event, "/secret") == status(event, "/journal.db") == 404
    with Record.of(event.folder) as record:
        record.done(EVENT, "finished")
    assert status(event, "/secret") == status(event, "/journal.db") == 200
    assert now(event)["is_over"]


def test_a_dossier_is_for_its_team(event: Event) -> None:
    tokens = make_keys(event)
    play(event, "start", "score")
    path = f"/t/{TEAM}/dossiers/A/all/fills.csv"
    assert status(event, path, TEAM, tokens[TEAM]) == 200
    assert status(event, f"/t/{TEAM}/dossiers/", TEAM, tokens[TEAM]) == 200
    assert status(event, path) == 401
    for user, token in (
        (TEAM, "wrong"),
        (TEAM, ""),
        (TEAM, tokens["APPLE"]),
        ("APPLE", tokens["APPLE"]),
        ("APPLE", tokens[TEAM]),
        ("nobody", tokens[TEAM]),
    ):
        assert status(event, path, user, token) == 401
    for header in ("Basic", "Basic !", "Bearer x", f"Basic {'A' * 9}", "é"):
        assert Pages(event).answer(path, header).status == 401
    # The administrator and the house have no dossier.
    assert status(event, "/t/director/dossiers/", "director", "x") == 401


@pytest.mark.parametrize(
    "publish, is_after_match, is_after_round",
    [
        ("after_match", True, True),
        ("after_round", False, True),
        ("after_event", False, False),
    ],
)
def test_publish_says_when_dossiers_may_be_read(
    event: Event, publish: str, is_after_match: bool, is_after_round: bool
) -> None:
    text = event.path.read_text()
    text = text.replace("[teams]", f'publish = "{publish}"\n[teams]')
    text = text.replace("[match]", "[match]\nrepeats = 2")
    event.path.write_text(text)
    event = read_event(event.path)
    token = make_keys(event)[TEAM]
    path = f"/t/{TEAM}/dossiers/A/all/fills.csv"
    play(event, "start", "score")
    assert (status(event, path, TEAM, token) == 200) == is_after_match
    with Record.of(event.folder) as record:
        record.begin(Key("A", "all-2", 1), "start", number=2)
        record.done(Key("A", "all-2", 1), "score")
    assert (status(event, path, TEAM, token) == 200) == is_after_round
    with Record.of(event.folder) as record:
        record.done(EVENT, "finished")
    assert status(event, path, TEAM, token) == 200


def test_isolated_matches_have_their_teams_and_journals(
    event: Event,
) -> None:
    """A team is shown the matches that it has played."""
    text = event.path.read_text().replace("[match]", "[match]\nper_match = 2")
    event.path.write_text(text + '[teams.PLUM]\nbot = ["x"]\n')
    event = read_event(event.path)
    tokens = make_keys(event)
    with Record.of(event.folder) as record:
        keys = next_batch(event, record)
        waves = [one.teams for one in drawn_of(record.rows())]
    assert [tuple(row["teams"]) for row in now(event)["rounds"][:3]] == waves
    [key] = keys  # the others come later: there are three teams
    folder = event.folder / key.round / key.match
    for team in (*waves[0], "public"):
        (folder / team).mkdir(parents=True)
    (folder / "journal.db").write_text("")
    with Record.of(event.folder) as record:
        record.begin(key, "start", number=1)
        record.done(key, "score")
    for team in event.teams:
        coded = base64.b64encode(f"{team}:{tokens[team]}".encode()).decode()
        answer = Pages(event).answer(f"/t/{team}/dossiers/", f"Basic {coded}")
        assert (b"A/01" in answer.body) == (team in waves[0])
    assert status(event, "/public/A/01/journal.db") == 404
    with Record.of(event.folder) as record:
        record.done(EVENT, "finished")
    assert status(event, "/public/A/01/journal.db") == 200


def test_practice_is_shown_while_it_runs(event: Event) -> None:
    folder = event.folder / "practice"
    (folder / "empty/public").mkdir(parents=True)
    (folder / "empty/public/fair-3.csv").write_text("values")
    assert now(event)["practice"] == []
    server = Uptime("empty", 9002)
    for is_up, at in ((False, 1), (True, 2), (True, 5), (False, 6)):
        server.look(is_up, at)
    write_uptime(folder, [server])
    [row] = now(event)["practice"]
    # What was before it was first up does not count.
    assert (row["up_s"], row["down_s"], row["is_up"]) == (3, 1, False)
    assert status(event, "/practice/empty/fair-3.csv") == 200
    assert status(event, "/practice/empty/") == 200
    for path in ("/practice/empty/..%2f..", "/practice/../keys.json"):
        assert status(event, path) == 404
    value = json.loads((folder / "uptime.json").read_text())
    value["ts"] -= 60_000_000
    (folder / "uptime.json").write_text(json.dumps(value))
    assert now(event)["practice"] == []


def test_no_path_leads_out_of_what_is_listed(event: Event) -> None:
    token = make_keys(event)[TEAM]
    play(event, "start", "score")
    (event.folder / "A/all/public/link.csv").symlink_to(
        event.folder / "keys.json"
    )
    (event.folder / "A/all/public/.hidden").write_text("x")
    for path in (
        "/../event.toml",
        "/%2e%2e/event.toml",
        "/keys.json",
        "/tokens.tsv",
        "/director.db",
        "/live.json",
        "/public/A/all/..%2f..%2f..%2fkeys.json",
        "/public/A/all/../../../keys.json",
        "/public/A/../keys.json",
        "/public/A/all/link.csv",
        "/public/A/all/.hidden",
        "/public/A/all/%00",
        "/public//all/fair.csv",
        f"/t/{TEAM}/dossiers/A/all/..%2fAPPLE%2ffills.csv",
        f"/t/{TEAM}/dossiers/A/all/../APPLE/fills.csv",
        f"/t/{TEAM}/dossiers/../../keys.json",
        f"/t/{TEAM}/dossiers",
    ):
        assert status(event, path, TEAM, token) == 404, path
    assert status(event, "/%ff") == 400
