"""A stream is made of a journal file, and servers are asked how they sync."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from exchange.journal.address import Address
from exchange.journal.follower import Follower
from exchange.journal.message import BODY_BYTES, cut
from exchange.journal.sqlite import JournalError
from exchange.journal.storage import Batch
from test.journal.files import write
from test.journal.streams import COMMANDS, new_address, opening
from util.measure.nats_servers import NatsServers
from util.measure.wire import PATIENCE_S
from util.restore import main, restore


@pytest.fixture
def address(nats: NatsServers) -> Address:
    return new_address(nats)


@pytest.mark.parametrize("size", [BODY_BYTES, 100])
async def test_the_stream_has_the_batches_of_the_file(
    address: Address,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    """Those too long for a message become several."""
    monkeypatch.setattr("util.restore.BODY_BYTES", size)
    path = write(tmp_path / "whole.db", COMMANDS, per_batch=20)
    async with opening(address) as stream:
        assert "99 commands" in await restore(path, address)
        batches: list[Batch] = []
        follower = Follower(stream, batches.append)
        async with asyncio.timeout(PATIENCE_S):
            while follower.at.seq < len(COMMANDS):
                await follower.read(1)
        commands = [one for batch in batches for one in batch.commands]
        assert tuple(commands) == COMMANDS
        if size == BODY_BYTES:
            assert [len(batch.commands) for batch in batches] == [
                *(20, 20, 20, 20),
                19,
            ]
        with pytest.raises(JournalError, match="has messages"):
            await restore(path, address)


def test_a_cut_takes_what_fits_and_one_at_least() -> None:
    records = ["12345", "12345", "12345"]
    assert cut(records, 12) == 2
    assert cut(records, 18) == 3
    assert cut(records, 1) == 1


async def test_servers_are_asked_whether_they_sync(
    address: Address, nats: NatsServers, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opening(address):  # all three serve
        pass
    urls = [f"http://127.0.0.1:{server.http}" for server in nats.all]
    assert main(["--check", *urls]) == 0
    assert main(["--check", urls[0], "http://127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1: " in capsys.readouterr().err


def test_a_stream_that_is_not_made_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "absent.db"
    assert main([str(path), "nats://127.0.0.1:1/main"]) == 1
    assert str(path) in capsys.readouterr().err
