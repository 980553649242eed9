"""Golden days: the same journal gives the same events everywhere."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from pydantic_core import from_json

from exchange.journal.records import decode_records, encode_record
from exchange.market.command import (
    RULES,
    Configure,
    Connect,
    Restart,
    Shutdown,
)
from orderbook import Place
from test.journal.files import ROOT, read, recover
from test.journal.golden import (
    DAYS,
    GOLDEN,
    GOLDEN_BYTES,
    PYTHONS,
    digest_of,
    events_digest,
    missing,
)
from test.support import order, serving, wired


def test_the_golden_day_has_everything_in_it() -> None:
    assert GOLDEN.stat().st_size < GOLDEN_BYTES
    assert not missing(read(GOLDEN))


def test_every_version_of_the_rules_has_a_golden_day() -> None:
    names = {file.name for file in GOLDEN.parent.iterdir()}
    assert names == {
        f"rules-{version}.{suffix}"
        for version in RULES
        for suffix in ("journal", "sha256", "snapshot")
    }


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
def test_a_golden_day_is_of_its_version(day: Path) -> None:
    first, *_ = read(day)
    assert isinstance(first.action, Configure)
    assert day.stem == f"rules-{first.action.engine_version}"


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
def test_a_golden_day_is_decoded_without_loss(day: Path) -> None:
    """What the program of the time wrote is all there.

    This program writes the records of its own version to the same bytes. Into
    those of an older one it writes the fields that are new, at their default.
    """
    with closing(sqlite3.connect(f"file:{day}?mode=ro", uri=True)) as file:
        rows = file.execute("SELECT first_seq, records FROM batches")
        for first_seq, records in rows.fetchall():
            commands = decode_records(first_seq, records)
            text = f"[{','.join(map(encode_record, commands))}]".encode()
            assert decode_records(first_seq, text) == commands
            assert_holds(from_json(text), from_json(records))
            if day == GOLDEN:
                assert text == records


def assert_holds(new: Any, old: Any) -> None:
    """Compare what is in an old record with the same record written anew."""
    match old:
        case dict():
            for name, value in old.items():
                assert_holds(new[name], value)
        case list():
            assert len(new) == len(old)
            for one, other in zip(new, old):
                assert_holds(one, other)
        case _:
            assert new == old


@pytest.mark.parametrize("hash_seed", ["0", "1", "4242"])
@pytest.mark.parametrize("python", PYTHONS)
def test_the_golden_days_come_out_the_same_everywhere(
    python: str, hash_seed: str
) -> None:
    elsewhere = subprocess.run(
        [python, "-m", "test.journal.golden", "events"],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=PIPE,
        text=True,
        check=True,
    )
    digests = [digest_of(day).read_text() for day in DAYS]
    assert elsewhere.stdout == "".join(digests)


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
def test_a_golden_day_comes_out_the_same_here(day: Path) -> None:
    assert f"{events_digest(read(day))}\n" == digest_of(day).read_text()


@pytest.mark.parametrize("day", DAYS, ids=lambda day: day.stem)
async def test_an_exchange_goes_on_from_a_golden_day(
    day: Path, tmp_path: Path
) -> None:
    """This program opens it, and the commands it adds are read back."""
    path, market = tmp_path / day.name, tmp_path / "market.toml"
    path.write_bytes(day.read_bytes())
    old = read(day)
    assert isinstance(old[0].action, Configure)
    money = old[0].action.money  # accounts keep the unit of their cash
    market.write_text(
        "[instruments.BOND]\n"
        if money is None
        else f'[money]\nunit = "{money.unit}"\ncurrency = "{money.currency}"\n'
        "[instruments.BOND]\n"
    )
    async with serving(journal=path, market=market) as server:
        async with wired(server.url, "ann") as ann:
            await ann.ask(**order("buy", 1, 1))
    commands = recover(path)
    assert commands[: len(old)] == old
    added = [type(command.action) for command in commands[len(old) :]]
    assert added[0] is Restart and added[-1] is Shutdown
    assert {Configure, Connect, Place} < set(added)
    assert events_digest(commands)
