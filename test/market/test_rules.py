"""Each command is applied under the rules of the last `Configure` before it.

The next version is injected here, with a handler that refuses an odd quantity
from that version on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from exchange.gateway.gateway import Gateway
from exchange.journal.records import encode_record
from exchange.journal.sqlite import Journal, JournalError, read_journal
from exchange.market import orders
from exchange.market.command import (
    ENGINE_VERSION,
    REQUESTS,
    RULES,
    Action,
    Command,
    Configure,
    Restart,
    TaggedPlace,
)
from exchange.market.engine import HANDLERS, Engine
from exchange.market.reports import in_full
from exchange.market.state import State
from orderbook import (
    CommandRequest,
    Error,
    Exec,
    Place,
    Refused,
    Request,
)
from test.journal.files import append, read, write
from test.journal.golden import DAYS, events_digest
from test.market.flows import MARKET
from test.support import Clock

NEXT = ENGINE_VERSION + 1
NEXT_RULES = range(RULES[0], NEXT + 1)
NEXT_MARKET = Configure(
    instruments=MARKET.instruments, engine_version=NEXT, limits=MARKET.limits
)
ODD = Place(side="buy", qty=3, price=99, symbol="BOND")


def place(state: State, command: Command, request: Place) -> None:
    if state.rules >= NEXT and request.qty % 2:
        raise Refused("invalid_qty", "the quantity is odd", field="qty")
    orders.place(state, command, request)


def next_engine() -> Engine:
    """Return an engine of the next release."""
    return Engine({**HANDLERS, Place: place}, NEXT_RULES)


def sequence(*actions: Action) -> list[Command]:
    return [
        Command(seq, seq, "ann", "a", action)
        for seq, action in enumerate(actions, start=1)
    ]


UPGRADED = sequence(MARKET, ODD, Restart(), NEXT_MARKET, ODD)


def replies(engine: Engine, commands: list[Command]) -> list[Any]:
    """Apply commands; return the first event of each order."""
    outputs = [(c.action, in_full(engine.apply(c))) for c in commands]
    return [events[0][1] for action, events in outputs if action is ODD]


def test_every_action_has_a_handler() -> None:
    assert set(HANDLERS) == set(get_args(Action))


def test_the_version_of_this_program_is_the_last_it_knows() -> None:
    assert RULES[-1] == ENGINE_VERSION
    assert Configure(instruments=()).engine_version == ENGINE_VERSION


def test_a_command_is_applied_under_the_rules_of_its_time() -> None:
    engine = next_engine()
    before, after = replies(engine, UPGRADED)
    assert isinstance(before, Exec) and before.exec_type == "new"
    assert isinstance(after, Error) and after.code == "invalid_qty"
    assert engine.rules == NEXT


def test_rules_that_are_not_known_are_never_applied() -> None:
    engine = Engine()
    with pytest.raises(AssertionError):
        replies(engine, UPGRADED)
    assert engine.rules == ENGINE_VERSION


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
def test_a_newer_engine_applies_an_old_day_as_before(day: Path) -> None:
    commands = read(day)
    digest = events_digest(commands, next_engine())
    assert digest == day.with_suffix(".sha256").read_text().strip()


def test_a_journal_of_several_versions_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "exchange.db", UPGRADED, per_batch=2)
    found = [c for batch in read_journal(path, NEXT_RULES) for c in batch]
    assert found == UPGRADED
    with Journal(path, NEXT_RULES) as journal:
        assert [
            c for batch in journal.recover() for c in batch.commands
        ] == UPGRADED


def refusal(path: Path, rules: range = RULES) -> str:
    with pytest.raises(JournalError) as caught:
        list(read_journal(path, rules))
    return str(caught.value)


def test_a_newer_journal_is_refused_with_both_versions(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "exchange.db", UPGRADED)
    assert refusal(path) == (
        f"{path}: needs version {NEXT} of the rules; this program has"
        f" versions {RULES[0]} to {ENGINE_VERSION}: use a newer release"
    )
    only = range(ENGINE_VERSION, NEXT)
    assert refusal(path, only) == (
        f"{path}: needs version {NEXT} of the rules; this program has version"
        f" {ENGINE_VERSION}: use a newer release"
    )


def test_a_version_that_was_dropped_is_refused_with_both_versions(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "exchange.db", sequence(MARKET))
    assert refusal(path, range(NEXT, NEXT + 2)) == (
        f"{path}: needs version {ENGINE_VERSION} of the rules; this program"
        f" has versions {NEXT} to {NEXT + 1}: use an older release"
    )


@pytest.mark.parametrize(
    "record",
    ['[5,"","",{"type":"merge"}]', '["no number","","",[]]', "{}"],
)
def test_records_of_a_newer_program_name_its_version(
    tmp_path: Path, record: str
) -> None:
    """Also in one batch with the newer configuration."""
    path = tmp_path / "exchange.db"
    with Journal(path) as journal:
        list(journal.recover())
        append(journal, UPGRADED[:3])
        journal.append(4, [encode_record(UPGRADED[3]), record], None)
    assert f"needs version {NEXT} of the rules" in refusal(path)


def test_a_batch_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with Journal(path) as journal:
        list(journal.recover())
        journal.append(1, ['{"configure"'], None)
    assert "a record that this program cannot read" in refusal(path)


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
def test_a_newer_exchange_puts_its_rules_in_force(
    day: Path, tmp_path: Path
) -> None:
    """The next release continues an old journal, and adds its version."""
    path = tmp_path / day.name
    path.write_bytes(day.read_bytes())
    added = started(path)
    assert added[0].action == Restart() and added[-1].action == NEXT_MARKET
    # The start after that finds the version in force.
    assert Configure not in [type(command.action) for command in started(path)]


def started(path: Path) -> list[Command]:
    """Start an exchange of the next release; return what it adds."""
    gateway = Gateway(Clock().now, durable=True, engine=next_engine())
    with Journal(path, NEXT_RULES) as journal:
        for batch in journal.recover():
            gateway.replay(batch)
        gateway.begin(NEXT_MARKET)
        added = gateway.sequencer.take().commands
        append(journal, added)
    assert gateway.engine.rules == NEXT
    return added


def test_every_request_is_in_the_table_of_requests() -> None:
    of_doors = {Error, TaggedPlace}  # no client can send them
    assert set(REQUESTS) == set(get_args(Request)) | of_doors
    commands = {kind for kind, row in REQUESTS.items() if row.is_command}
    assert commands == set(get_args(CommandRequest)) | {TaggedPlace}
