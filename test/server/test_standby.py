"""Several servers that share a journal: one leads, the others stand by."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from exchange.host.clock import Clock
from exchange.host.membership import exit_status
from exchange.journal.address import Address
from exchange.journal.follower import Follower
from exchange.journal.lease import Fenced
from exchange.journal.message import (
    FENCE,
    Cursor,
    Message,
    Position,
    Writer,
)
from exchange.journal.servers import ask
from exchange.journal.sqlite import SPACE_LOW, JournalError, read_batches
from exchange.journal.stream import Refused, Stream
from test.journal.streams import batch, new_address, opening
from test.server.members import (
    get,
    joining,
    leading,
    standing_still,
    until_slowly,
)
from test.support import (
    answer,
    ended,
    environment,
    greeting,
    launched,
    order,
    running,
    wired,
    words,
)
from util.measure.nats_servers import NatsServers
from util.measure.wire import PATIENCE_S

# nats-py forgets to close the transport of a connection that it has lost.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def address(nats: NatsServers) -> Address:
    return new_address(nats)


async def test_the_first_leads_and_the_second_follows(
    address: Address,
) -> None:
    async with joining(address) as first:
        await leading(first)
        async with joining(address) as second:
            async with wired(first.url, "alice") as alice:
                await alice.ask(**order("buy", 5, 90, symbol="BOND"))
                seq = first.gateway.engine.seq
                await until_slowly(lambda: second.gateway.engine.seq == seq)
            books = [
                [*one.gateway.engine.listings["BOND"].book.orders]
                for one in (first, second)
            ]
            assert books[0] == books[1] == [1]


async def test_a_standby_answers_supervisors_only(address: Address) -> None:
    async with joining(address) as primary:
        await leading(primary)
        async with joining(address) as standby:
            await until_slowly(lambda: standby.gateway.engine.seq)
            assert await get(standby, "/healthz") == (200, "ok\n")
            assert await get(standby, "/readyz") == (503, "standing by\n")
            status, text = await get(standby, "/metrics")
            assert status == 200 and "\nexchange_leads 0.0\n" in text
            assert "\nexchange_standby_lag_batches 0.0\n" in text
            for path in ("/", "/v1/trades.csv?symbol=BOND", "/api/v3/time"):
                assert (await get(standby, path))[0] == 503
            assert await answer(standby.port, "Host: localhost") == 503
            await leading(primary)
            assert await get(primary, "/readyz") == (200, "ok\n")
            assert (
                "\nexchange_leads 1.0\n" in (await get(primary, "/metrics"))[1]
            )
            assert await answer(primary.port, "Host: localhost") == 101


async def test_a_primary_that_stops_in_order_is_followed_at_once(
    address: Address,
) -> None:
    """With T of a minute nobody waits for it."""
    async with joining(address, lease=60) as first:
        await leading(first)
        async with joining(address, lease=60) as second:
            seq = first.gateway.engine.seq
            await until_slowly(lambda: second.gateway.engine.seq == seq)
            async with wired(first.url, "alice") as alice:
                await alice.ask(**order("buy", 5, 90, symbol="BOND"))
                await first.stop()
                messages, code = await alice.rest()
                assert words(messages) == ["canceled", "status"]
                assert code == 1001
            await leading(second)
            async with wired(second.url, "alice") as alice:
                assert words(
                    await alice.ask(**order("sell", 1, 91, symbol="BOND"))
                )


async def test_a_session_goes_on_at_the_other_server(
    address: Address,
) -> None:
    keep = {"cancel_on_disconnect": False}
    async with joining(address) as first:
        await leading(first)
        async with joining(address) as second:
            async with wired(first.url) as alice:
                session = (await alice.login("alice", **keep))["session"]
                (ack,) = await alice.ask(**order("buy", 5, 90, symbol="BOND"))
                await first.stop()
            await leading(second)
            async with wired(second.url) as alice:
                again = await alice.login(
                    "alice", **keep, session=session, last_seq=ack["seq"]
                )
                assert again["session"] == session
                (later,) = await alice.ask(
                    **order("buy", 5, 89, symbol="BOND")
                )
                assert later["seq"] == ack["seq"] + 1


async def test_without_a_lease_nobody_is_told_anything(
    address: Address, nats: NatsServers
) -> None:
    """No server answers; clients wait, and then are sent away."""
    async with joining(address) as server:
        await leading(server)
        async with wired(server.url, "alice") as alice:
            with standing_still(nats):
                await until_slowly(lambda: server.member.hindrance)
                status, text = await get(server, "/readyz")
                assert status == 503 and text.startswith("no lease")
                # No command: only the lease keeps the reply back.
                await alice.send({"type": "ping"})
                messages, code = await alice.rest()
                assert (messages, code) == ([], 1013)
                assert await answer(server.port, "Host: localhost") == 503
        await leading(server)
        await until_slowly(lambda: not server.gateway.sequencer.uncommitted)
        assert await answer(server.port, "Host: localhost") == 101


async def test_a_member_that_cannot_say_that_it_leaves_tells_nothing(
    address: Address, nats: NatsServers
) -> None:
    """It is told to end while no server answers; another one may lead."""
    async with joining(address) as server:
        await leading(server)
        async with wired(server.url, "alice") as alice:
            with standing_still(nats):
                await server.stop()
                assert await alice.rest() == ([], 1006)


async def test_a_member_that_another_one_fences_tells_nothing(
    address: Address,
) -> None:
    """As one that slept, and wakes when another leads."""
    async with opening(address) as stream:
        async with joining(address) as server:
            await leading(server)
            async with wired(server.url, "alice") as alice:
                await fence(stream)
                await until_slowly(server.failure.done)
                await alice.send({"type": "ping"})
                await server.stop()
                messages, code = await alice.rest()
                assert (messages, code) == ([], 1006)
            assert isinstance(server.failure.result(), Fenced)


async def fence(stream: Stream) -> None:
    """Store a fence, wherever the stream ends."""
    writer = Writer("another", 1_000_000)
    follower = Follower(stream, lambda batch: None)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await follower.read(0.01)
            try:
                message = writer.sign(FENCE, follower.at)
                await stream.append(message, follower.at.sequence)
            except Refused:
                continue
            return


async def test_each_batch_is_in_the_copies_too(
    address: Address, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("first.db", "second.db")]
    async with joining(address, journal_copy=paths[0]) as first:
        await leading(first)
        async with joining(address, journal_copy=paths[1]) as second:
            async with wired(first.url, "alice") as alice:
                await alice.ask(**order("buy", 5, 90, symbol="BOND"))
            await first.stop()
            await leading(second)
            async with wired(second.url, "bob") as bob:
                await bob.ask(**order("sell", 5, 90, symbol="BOND"))
    whole = [*read_batches(paths[1])]
    begun = [*read_batches(paths[0])]
    assert whole[: len(begun)] == begun
    accounts = {one.account for batch in whole for one in batch.commands}
    assert {"alice", "bob"} <= accounts
    # A copy goes on where it ended.
    async with joining(address, journal_copy=paths[0]) as first:
        await leading(first)
    again = [*read_batches(paths[0])]
    assert again[: len(whole)] == whole


async def test_the_primary_in_a_copy_is_waited_for_by_its_own_T(
    address: Address, tmp_path: Path
) -> None:
    """Its T is a minute, the standby's a second; there is nothing to read."""
    copy = tmp_path / "copy.db"
    clock = Clock()
    async with joining(address, lease=60) as first:
        await leading(first)
        async with joining(address, lease=60, journal_copy=copy) as second:
            seq = first.gateway.engine.seq
            await until_slowly(lambda: second.gateway.engine.seq == seq)
        async with joining(
            address, clock, lease=1, journal_copy=copy
        ) as second:
            await until_slowly(lambda: second.member.standing.lag is not None)
            begin = clock.elapsed()
            await until_slowly(lambda: clock.elapsed() > begin + 3_000_000)
            assert not second.member.leads
        assert not first.failure.done()


async def test_a_copy_of_another_stream_is_refused(
    address: Address, nats: NatsServers, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    async with joining(address, journal_copy=copy, symbols="A") as first:
        await leading(first)
    other = new_address(nats)
    async with joining(other, symbols="B") as first:
        await leading(first)
        async with joining(other, journal_copy=copy) as second:
            await until_slowly(second.failure.done)
            assert "of another stream" in str(second.failure.result())


async def test_a_start_goes_on_from_the_copy(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads no message of the stream that its copy has."""
    copy = tmp_path / "copy.db"
    keep = {"cancel_on_disconnect": False}
    async with joining(address) as first:
        await leading(first)
        async with joining(address, journal_copy=copy) as second:
            async with wired(first.url) as alice:
                await alice.login("alice", **keep)
                for price in range(80, 90):
                    await alice.ask(**order("buy", 5, price, symbol="BOND"))
            # Her disconnection may follow.
            seq = first.gateway.engine.seq
            await until_slowly(lambda: second.gateway.engine.seq >= seq)
        seq = [*read_batches(copy)][-1].commands[-1].seq
        async with wired(first.url) as alice:
            await alice.login("alice", **keep)
            await alice.ask(**order("buy", 5, 90, symbol="BOND"))
        read: list[int] = []
        real = Cursor.verify

        def verify(cursor: Cursor, sequence: int, message: Message) -> Any:
            read.append(message.first)
            return real(cursor, sequence, message)

        monkeypatch.setattr(Cursor, "verify", verify)
        tool = ("-m", "util.compact", str(copy))
        async with running(*tool, env=environment()) as process:
            assert (await ended(process))[0] == 0
        async with joining(address, journal_copy=copy) as second:
            assert second.gateway.engine.seq == seq
            text = f"standby, journal {copy}: {seq} commands recovered"
            assert text in second.greeting
            assert f", {seq} of them from a snapshot" in second.greeting
            seq = first.gateway.engine.seq
            await until_slowly(lambda: second.gateway.engine.seq >= seq)
            assert min(read) > 10
            books = [
                [*one.gateway.engine.listings["BOND"].book.orders]
                for one in (first, second)
            ]
            assert books[0] == books[1] == [*range(1, 12)]
            await first.stop()
            await leading(second)
    assert [b.commands[-1].seq for b in read_batches(copy)][-1] >= seq


async def test_a_stream_that_lost_what_its_copy_has_is_refused(
    address: Address, nats: NatsServers, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    async with joining(address, journal_copy=copy) as first:
        await leading(first)
    async with joining(new_address(nats), journal_copy=copy) as second:
        await until_slowly(second.failure.done)
        reason = str(second.failure.result())
        assert "the stream has lost" in reason
        assert "name another file for its copy" in reason


class Early(Clock):
    """A clock whose wall clock is an hour behind."""

    def __init__(self) -> None:
        super().__init__(wall_ns=lambda: time.time_ns() - 3_600 * 10**9)


async def test_hosts_whose_clocks_differ_by_an_hour(address: Address) -> None:
    """Time goes on from the journal's last one, at normal speed."""
    async with joining(address) as first:
        await leading(first)
        async with joining(address, clock=Early()) as second:
            async with wired(first.url, "alice") as alice:
                await alice.ask(**order("buy", 5, 90, symbol="BOND"))
            before = first.gateway.engine.ts
            await first.stop()
            await leading(second)
            async with wired(second.url, "alice") as alice:
                (ack,) = await alice.ask(**order("buy", 5, 89, symbol="BOND"))
            assert before < ack["ts"] < before + 60_000_000
            await second.stop()


async def test_a_nearly_full_stream_takes_cancels_only(
    address: Address,
) -> None:
    async with opening(address) as stream, joining(address) as server:
        await leading(server)
        async with wired(server.url, "alice") as alice:
            (ack,) = await alice.ask(**order("buy", 5, 90, symbol="BOND"))
            config = await limit(stream, SPACE_LOW // 2)
            await until_slowly(lambda: server.gateway.sequencer.trouble)
            assert "nearly full" in (await get(server, "/readyz"))[1]
            place = order("buy", 5, 89, symbol="BOND")
            assert "busy" in words(await alice.ask(**place))
            cancel = {"type": "cancel", "order_id": ack["order_id"]}
            assert words(await alice.ask(**cancel)) == ["canceled"]
            await limit(stream, config["max_bytes"])
            await until_slowly(lambda: not server.gateway.sequencer.trouble)
            assert words(await alice.ask(**place))[-1] == "new"


async def limit(stream: Stream, most: int) -> dict[str, Any]:
    """Let a stream hold ``most`` bytes; return how it was."""
    call = f"$JS.API.STREAM.%s.{stream.name}"
    info = await ask(stream.client, call % "INFO", timeout_s=PATIENCE_S)
    config: dict[str, Any] = info["config"]
    changed = json.dumps(config | {"max_bytes": most}).encode()
    done = await ask(
        stream.client, call % "UPDATE", changed, timeout_s=PATIENCE_S
    )
    assert "error" not in done
    return config


async def test_a_batch_that_does_not_fit_ends_a_standby(
    address: Address,
) -> None:
    async with opening(address) as stream, joining(address) as server:
        await leading(server)
        await server.stop()
        follower = Follower(stream, lambda batch: None)
        last = (await stream.state()).last
        async with asyncio.timeout(PATIENCE_S):
            while follower.at.sequence < last:
                await follower.read(1)
        at = follower.at
        wrong = Position(at.seq, bytes(32), at.sequence)
        message = batch(Writer("another", 1_000_000), wrong)
        await stream.append(message, at.sequence)
        async with joining(address) as standby:
            await until_slowly(standby.failure.done)
            with pytest.raises(JournalError, match="missing or damaged"):
                exit_status(standby.failure.result())


def test_exit_statuses() -> None:
    assert exit_status(None) == 0
    assert exit_status(Fenced("another leads")) == 3
    assert exit_status(ValueError("a bug")) == 1


CODE = """
import sys
{hiding}
import server
sys.argv = ["server.py"]
status = server.main()
print("nats" in sys.modules)
sys.exit(status)
"""


async def test_only_a_stream_needs_the_client_of_nats(tmp_path: Path) -> None:
    hiding = "sys.modules['nats'] = None"
    stream = {"journal": "nats://127.0.0.1:1/main"}
    async with launched(code=CODE.format(hiding=hiding), **stream) as process:
        status, _, errors = await ended(process)
        assert status == 2 and "poetry install --with cluster" in errors
    journal = str(tmp_path / "exchange.db")
    code = CODE.format(hiding="")
    async with launched(code=code, journal=journal) as process:
        await greeting(process)
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[1] == "False\n"
