"""Golden days: one busy day for each version of the rules.

``golden/`` has a day for each version that the engine knows:
``rules-2.journal`` holds the commands, as the program of that version wrote
them, and ``rules-2.sha256`` the digest of the events, without the texts for
people (``message``). A digest that differs means that the rules have changed.
If that is intended, raise ENGINE_VERSION and run

    python -m test.journal.golden golden

It writes the files of the newest version and keeps the older ones. As long as
no release has that version, it may be run again. With ``events`` in the place
of ``golden`` it prints the digests. Interpreters named in TEST_PYTHONS,
separated as in PATH, are tried as well.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, get_args

from exchange.market.command import (
    ENGINE_VERSION,
    Action,
    Command,
    TaggedPlace,
    TimePassed,
)
from exchange.market.engine import Engine
from orderbook import (
    PHASES,
    Admin,
    AdminAction,
    Amend,
    Code,
    Error,
    Event,
    Exec,
    Kind,
    Liquidity,
    Place,
    Reason,
    Settlement,
    Status,
    Trade,
    encode,
)
from test.journal.files import ROOT, alter, read, write
from test.market.day import MARKET, Day
from test.script import OWN, SECOND, in_full, parse

GOLDEN = ROOT / "test" / "golden" / f"rules-{ENGINE_VERSION}.journal"
DAYS = sorted(GOLDEN.parent.glob("rules-*.journal"))
GOLDEN_COMMANDS = 800  # besides those of the crowd
CROWD = 520  # orders: more than one slice cancels
GOLDEN_BYTES = 200_000  # at most
PYTHONS = [sys.executable]
PYTHONS += filter(None, os.environ.get("TEST_PYTHONS", "").split(os.pathsep))

# What chance seldom does, in the dialect of `test.script`; after "wait" so
# many seconds pass.
SCENES = """
    op admin resume user=ann
    op admin resume user=bob
    op admin resume user=cat
    op admin resume user=dan
    op admin resume user=eve
    op admin reset
    op admin phase open
    op admin reference symbol=BOND price=94
    ann sell 1@94 symbol=BOND
    bob buy 1@94 symbol=BOND

    cat buy 1@market trigger=95 symbol=BOND
    bob buy 1@market trigger=96 symbol=BOND
    ann sell 1@95 symbol=BOND
    ann sell 1@96 symbol=BOND
    ann sell 1@97 symbol=BOND
    dan buy 1@95 symbol=BOND

    op admin adjust user=eve cash=-9050
    eve buy 2@market trigger=98 symbol=BOND
    cat buy 1@110 trigger=98 symbol=BOND
    dan buy 1@100 trigger=98 post_only symbol=BOND
    ann sell 9@100 display=2 symbol=BOND
    cat sell 1@99 symbol=BOND
    bob buy 1@99 symbol=BOND
    bob buy 1@market symbol=BOND

    ann sell 2@10 symbol=GOLD stp=none
    ann buy 2@10 symbol=GOLD stp=none
    ann sell 5@106 symbol=BOND
    bob buy 20@106 symbol=BOND
    wait 3
    op admin phase auction symbol=BOND
    cat buy 5@market auction symbol=BOND
    ann sell 2@104 symbol=BOND
    op admin phase open symbol=BOND

    dan connect
    dan buy 1@3 symbol=GOLD
    dan disconnect
    op admin tender tender_id=x symbol=RED side=buy qty=2 price=9 valid_ms=1000
    cat accept x
    cat accept x
    op admin adjust user=ann symbol=OIL qty=6
    ann convert buy 2 symbol=FUND

    ann sell 2@9 symbol=FUT
    bob buy 2@9 symbol=FUT
    ann sell 2@3 symbol=CALL
    bob buy 2@3 symbol=CALL
    ann sell 2@2 symbol=PUT
    bob buy 2@2 symbol=PUT
    ann sell 2@5 symbol=RED
    bob buy 2@5 symbol=RED
    op admin phase open symbol=GOLD close_ms=1000
    wait 10
    op admin settle symbol=OIL price=7
    op admin settle symbol=RED price=9
    op admin close_out user=cat prices=BOND:103,GOLD:10
    shutdown
    restart
"""
# Possible results of commands; the golden day must have each.
EVERYTHING: dict[str, set[Any]] = {
    # The days are older than TaggedPlace; test_tags has its journal.
    "command": set(get_args(Action)) - {TaggedPlace},
    # A bust is a command of its own, BustTrade.
    "interference": set(get_args(AdminAction)) - {"bust", "match"},
    "event": set(
        "ok error exec account status trade book news tender settlement bust"
        "".split()
    ),
    "exec_type": set("new triggered trade amended canceled expired".split()),
    # A stop order's position is checked when it is placed, and whatever takes
    # it over a limit later cancels the order for "funds".
    "reason": set(get_args(get_args(Reason)[0])) - {"position_limit"} | {None},
    "liquidity": set(get_args(get_args(Liquidity)[0])) | {None},
    "fee": {"paid", "got", "none"},
    "phase": {*PHASES, None},
    # These codes come from the gateway, not from the engine.
    "refusal": set(get_args(get_args(Code)[0]))
    - {"unauthorized", "rate_limited", "busy"},
    "in time": {
        *("an auction began", "a phase ended", "closed by itself"),
        *("a derivative expired", "amid long work", "a later round"),
    },
    "kind of order": {
        *("limit", "market", "auction", "stop", "stop_limit", "iceberg"),
        *("a cascade", "a trade with oneself", "by client_request_id"),
    },
    "settled": set(get_args(Kind)),
}


def write_golden() -> None:
    """Write the first day of this version that has every result."""
    for seed in count(2026):
        day = Day(random.Random(seed))
        day.run(GOLDEN_COMMANDS)
        play_scenes(day)
        day.crowd(CROWD)
        day.disperse()
        if not missing(day.ledger.commands):
            break
    GOLDEN.unlink(missing_ok=True)
    write(GOLDEN, day.ledger.commands, per_batch=100)
    # So that reading it leaves no files beside it.
    alter(GOLDEN, "PRAGMA journal_mode = DELETE")
    GOLDEN.with_name(f"{GOLDEN.name}.lock").unlink()
    digest_of(GOLDEN).write_text(f"{events_digest(read(GOLDEN))}\n")


def play_scenes(day: Day) -> None:
    """Let happen what chance seldom does."""
    day.apply(MARKET)
    for line in filter(None, map(str.strip, SCENES.splitlines())):
        account, *words = line.split()
        day.ts += 1
        if account == "wait":
            day.ts += int(words[0]) * SECOND
            day.apply(TimePassed())
        elif account in OWN:
            day.apply(OWN[account]())
        else:
            day.apply(parse(words), account)


def digest_of(day: Path) -> Path:
    """Return the file with the digest of a golden day's events."""
    return day.with_suffix(".sha256")


def events_digest(
    commands: Iterable[Command], engine: Engine | None = None
) -> str:
    """Return the SHA-256 of the events that commands cause.

    As they are sent, but without ``message``: a text for people is no rule.
    """
    engine = engine or Engine()
    digest = hashlib.sha256()
    for command in commands:
        for recipient, event in in_full(engine, command):
            if isinstance(event, (Error, Status)):
                event = replace(event, message="")
            line = f"{command.seq} {recipient}: {encode(event)}\n"
            digest.update(line.encode())
    return digest.hexdigest()


def missing(commands: Iterable[Command]) -> dict[str, set[Any]]:
    """Return the possible results that these commands do not have."""
    engine = Engine()
    found: defaultdict[str, set[Any]] = defaultdict(set)
    for command in commands:
        if engine.work and command.account:
            found["in time"].add("amid long work")
        found["command"].add(type(command.action))
        events = [event for _, event in in_full(engine, command)]
        if events and not isinstance(events[0], Error):
            _note_action(found, command.action)
        for event in events:
            found["event"].add(event.type)
            _note_event(found, command.action, event, engine)
        words = [e.exec_type for e in events if isinstance(e, Exec)]
        if "trade" in words and words.count("triggered") > 1:
            last = len(words) - words[::-1].index("triggered")
            if "trade" in words[words.index("triggered") : last]:
                found["kind of order"].add("a cascade")
    return {k: v - found[k] for k, v in EVERYTHING.items() if v - found[k]}


def _note_action(found: defaultdict[str, set[Any]], action: Action) -> None:
    """Note what a command that was not refused is."""
    if isinstance(action, Admin):
        found["interference"].add(action.action)
        if action.client_request_id is not None:
            found["kind of order"].add("by client_request_id")
    elif isinstance(action, Place):
        found["kind of order"].add(action.order_type)
        if action.time_in_force == "auction":
            found["kind of order"].add("auction")
        if action.display_qty is not None:
            found["kind of order"].add("iceberg")


def _note_event(
    found: defaultdict[str, set[Any]],
    action: Action,
    event: Event,
    engine: Engine,
) -> None:
    """Note what an event tells."""
    match event:
        case Exec():
            found["exec_type"].add(event.exec_type)
            found["reason"].add(event.reason)
            found["liquidity"].add(event.liquidity)
            fee = event.fee or 0
            found["fee"].add("paid" if fee > 0 else "got" if fee else "none")
        case Trade() if event.is_self:
            found["kind of order"].add("a trade with oneself")
        case Settlement():
            kind = engine.listings[event.symbol].instrument.kind
            found["settled"].add(kind)
            if isinstance(action, TimePassed) and kind in ("future", "call"):
                found["in time"].add("a derivative expired")
        case Status():
            found["phase"].add(event.phase)
            if event.round > 1:
                found["in time"].add("a later round")
            if isinstance(action, (Place, Amend)):
                found["in time"].add("an auction began")
            elif event.message == "trading time is up":
                found["in time"].add("closed by itself")
            elif event.message == "time is up":
                found["in time"].add("a phase ended")
        case Error():
            found["refusal"].add(event.code)


if __name__ == "__main__":
    if sys.argv[1:] == ["golden"]:
        write_golden()
    for day in DAYS:
        print(events_digest(read(day)))
