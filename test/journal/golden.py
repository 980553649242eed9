"""Golden days: one busy day for each version of the rules.

``golden/`` has a day for each version that the engine knows:
``rules-2.journal`` holds the commands, as the program of that version wrote
them, and ``rules-2.sha256`` the digest of the events, without the texts for
people (``message``). A digest that differs means that the rules have changed.
If that is intended, raise ENGINE_VERSION and run
``python -m test.journal.golden golden``: it writes the files of the new
version and keeps the old ones. With ``events`` in the place of ``golden`` it
prints the digests. Interpreters named in TEST_PYTHONS, separated as in PATH,
are tried as well.
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
    ClockStep,
    Command,
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
    Exec,
    Liquidity,
    Ok,
    Place,
    Reason,
    Status,
    encode,
)
from test.journal.files import ROOT, alter, read, write
from test.market.flows import flow
from test.script import in_full

GOLDEN = ROOT / "test" / "golden" / f"rules-{ENGINE_VERSION}.journal"
DAYS = sorted(GOLDEN.parent.glob("rules-*.journal"))
GOLDEN_COMMANDS = 1_400
GOLDEN_BYTES = 200_000  # at most
PYTHONS = [sys.executable]
PYTHONS += filter(None, os.environ.get("TEST_PYTHONS", "").split(os.pathsep))

# Possible results of commands; the golden day must have each.
EVERYTHING: dict[str, set[Any]] = {
    # The first golden day is older than ClockStep, "suspend" and "resume".
    "command": set(get_args(Action)) - {ClockStep},
    "interference": set(get_args(AdminAction)) - {"suspend", "resume"},
    "event": set("ok error exec account status trade book".split()),
    "exec_type": set("new trade amended canceled expired".split()),
    "reason": set(get_args(get_args(Reason)[0])) | {None},
    "liquidity": set(get_args(get_args(Liquidity)[0])) | {None},
    "fee": {"paid", "got", "none"},
    "phase": {*PHASES, None},
    # These codes come from the gateway, not from the engine.
    "refusal": set(get_args(get_args(Code)[0]))
    - {"unauthorized", "rate_limited", "busy"},
    "in time": {"an auction began", "a phase ended"},
}


def write_golden() -> None:
    """Write the first day of this version that has every result."""
    for seed in count(2026):
        commands = list(flow(random.Random(seed), GOLDEN_COMMANDS))
        if not missing(commands):
            break
    write(GOLDEN, commands, per_batch=100)
    # So that reading it leaves no files beside it.
    alter(GOLDEN, "PRAGMA journal_mode = DELETE")
    GOLDEN.with_name(f"{GOLDEN.name}.lock").unlink()
    digest_of(GOLDEN).write_text(f"{events_digest(read(GOLDEN))}\n")


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
        action = command.action
        found["command"].add(type(action))
        for _, event in in_full(engine, command):
            found["event"].add(event.type)
            match event:
                case Ok() if isinstance(action, Admin):
                    found["interference"].add(action.action)
                case Exec():
                    found["exec_type"].add(event.exec_type)
                    found["reason"].add(event.reason)
                    found["liquidity"].add(event.liquidity)
                    fee = event.fee or 0
                    words = "paid" if fee > 0 else "got" if fee else "none"
                    found["fee"].add(words)
                case Status():
                    found["phase"].add(event.phase)
                    if isinstance(action, (Place, Amend)):
                        found["in time"].add("an auction began")
                    elif isinstance(action, TimePassed):
                        found["in time"].add("a phase ended")
                case Error():
                    found["refusal"].add(event.code)
    return {k: v - found[k] for k, v in EVERYTHING.items() if v - found[k]}


if __name__ == "__main__":
    if sys.argv[1:] == ["golden"]:
        write_golden()
    for day in DAYS:
        print(events_digest(read(day)))
