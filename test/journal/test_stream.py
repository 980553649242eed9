"""A journal on real servers of NATS: append, fence, follow."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from exchange.journal import stream as stream_module
from exchange.journal.address import Address
from exchange.journal.chain import JournalError
from exchange.journal.checksum import DivergedError
from exchange.journal.follower import READ_MESSAGES, Follower, Tail
from exchange.journal.lease import Fenced
from exchange.journal.message import (
    BATCH,
    BEAT,
    BYE,
    FENCE,
    Message,
    Position,
)
from exchange.journal.records import encode_record
from exchange.journal.servers import Unanswered, ask, connect
from exchange.journal.sqlite import Journal
from exchange.journal.storage import Batch
from exchange.journal.stream import CONFIG, Refused, Stream
from exchange.market.command import Command
from test.journal.streams import (
    COMMANDS,
    Node,
    batch,
    new_address,
    now,
    opening,
)
from util.measure.nats_servers import NatsServers
from util.measure.wire import PATIENCE_S

# nats-py forgets to close the transport of a connection that it has lost.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for an answer, however busy the machine is."""
    monkeypatch.setattr(stream_module, "ANSWER_S", PATIENCE_S)


@pytest.fixture
def address(nats: NatsServers) -> Address:
    return new_address(nats)


async def followed(
    stream: Stream, last: int, at: Position = Position()
) -> tuple[list[Command], list[Message], Follower]:
    """Follow a stream up to message ``last``."""
    commands: list[Command] = []
    messages: list[Message] = []

    def apply(batch: Batch) -> None:
        assert batch.checksum == 77
        commands.extend(batch.commands)

    follower = Follower(stream, apply, at)
    async with asyncio.timeout(PATIENCE_S):
        while follower.at.sequence < last:
            messages += await follower.read(1)
    return commands, messages, follower


async def manage(stream: Stream, call: str, **request: Any) -> Any:
    """Ask for something that only an operator may do."""
    return await ask(
        stream.client,
        f"$JS.API.STREAM.{call}.{stream.name}",
        json.dumps(request).encode(),
        timeout_s=PATIENCE_S,
    )


async def test_what_is_appended_is_followed(address: Address) -> None:
    async with opening(address) as stream:
        node = Node(stream, "one")
        await node.sign(FENCE)
        await node.batch(3)
        await node.sign(BEAT)
        await node.batch(2)
        await node.sign(BYE)
        commands, messages, follower = await followed(stream, 5)
        assert tuple(commands) == COMMANDS[:5]
        kinds = [message.kind for message in messages]
        assert kinds == [FENCE, BATCH, BEAT, BATCH, BYE]
        assert follower.at == node.at
        assert follower.pending == 0
        assert node.lease.holds(now())


async def test_the_digests_are_those_of_the_sqlite_journal(
    address: Address, tmp_path: Path
) -> None:
    records = [*map(encode_record, COMMANDS[:5])]
    async with opening(address) as stream:
        node = Node(stream, "one")
        await node.batch(3)
        await node.sign(BEAT)
        await node.batch(2)
        with Journal(tmp_path / "copy.db") as journal:
            assert not [*journal.recover()]
            journal.append(1, records[:3], 77)
            journal.append(4, records[3:], 77)
            (digest,) = journal.file.execute(
                "SELECT digest FROM batches WHERE last_seq = 5"
            ).fetchone()
        assert node.at.digest == digest


async def test_a_batch_that_came_out_differently_stops_a_follower(
    address: Address,
) -> None:
    def apply(batch: Batch) -> None:
        raise DivergedError(batch.commands)

    async with opening(address) as stream:
        await Node(stream, "one").batch(2)
        follower = Follower(stream, apply)
        with pytest.raises(JournalError, match="1 to 2 came out differently"):
            while True:  # a consumer may be lost, and made again
                await follower.read(PATIENCE_S)


async def test_a_follower_starts_anywhere(address: Address) -> None:
    async with opening(address) as stream:
        node = Node(stream, "one")
        await node.batch(3)
        at = node.at
        await node.batch(2)
        commands, _, follower = await followed(stream, 2, at)
        assert tuple(commands) == COMMANDS[3:5]
        assert follower.at == node.at


async def test_more_than_one_request_brings_is_followed(
    address: Address,
) -> None:
    count = 2 * READ_MESSAGES + 10
    async with opening(address) as stream:
        node = Node(stream, "one")
        for _ in range(count):
            await node.sign(BEAT)
        _, messages, _ = await followed(stream, count)
        assert len(messages) == count


async def test_a_message_is_followed_as_soon_as_it_is_stored(
    address: Address,
) -> None:
    async with opening(address) as stream, opening(address) as other:
        node = Node(stream, "one")
        follower = Follower(other, lambda batch: None)
        assert await follower.read(0.01) == []
        reading = asyncio.create_task(follower.read(PATIENCE_S))
        await node.batch()
        assert [message.kind for message in await reading] == [BATCH]


async def test_a_second_process_finds_the_subject_of_the_first(
    address: Address,
) -> None:
    async with opening(address) as one, opening(address, "second") as two:
        assert one.subject == two.subject
        assert one.subject.endswith(".first")


async def test_a_reader_makes_no_stream(address: Address) -> None:
    client = await connect(address)
    await client.close()
    with pytest.raises(Unanswered, match="stream not found"):
        await Stream.open(address, None)


async def test_the_older_primary_is_fenced(address: Address) -> None:
    async with opening(address) as one, opening(address) as two:
        primary = Node(one, "one")
        await primary.batch()
        standby = Node(two, "two", primary.at)
        await standby.sign(FENCE)
        with pytest.raises(Fenced, match="two has written message 2"):
            await primary.batch()
        assert not primary.lease.holds(now())
        commands, messages, _ = await followed(one, 2)
        assert len(commands) == 1 and messages[-1].kind == FENCE


async def test_two_fences_at_once_make_one_primary(address: Address) -> None:
    async with opening(address) as one, opening(address) as two:
        nodes = [Node(one, "one"), Node(two, "two")]
        ends = await asyncio.gather(
            *(node.sign(FENCE) for node in nodes), return_exceptions=True
        )
        assert {type(end) for end in ends} == {type(None), Fenced}


async def test_an_append_whose_answer_was_lost_is_found(
    address: Address,
) -> None:
    async with opening(address) as stream:
        node = Node(stream, "one")
        message = batch(node.writer, node.at)
        await stream.append(message, 0)  # nobody hears the answer
        await node.appender.append(message)
        assert node.at.sequence == 1
        with pytest.raises(Refused):
            await stream.append(message, 0)


async def test_a_process_of_an_earlier_stream_cannot_append(
    address: Address,
) -> None:
    """Its subject has another id, whatever the sequences are."""
    async with opening(address) as old:
        node = Node(old, "old")
        await node.batch()
        assert (await manage(old, "DELETE"))["success"]
        async with opening(address, "second") as new:
            await Node(new, "new").batch()
            with pytest.raises(Unanswered, match="no leader"):
                await old.append(batch(node.writer, node.at), 1)
            with pytest.raises(JournalError, match="made again"):
                await old.state()


async def test_a_full_stream_refuses_and_goes_on_when_raised(
    address: Address,
) -> None:
    async with opening(address) as stream:
        node = Node(stream, "one")
        await node.batch()
        info = await manage(stream, "INFO")
        config = info["config"]
        full = config | {"max_bytes": info["state"]["bytes"] + 10}
        assert "error" not in await manage(stream, "UPDATE", **full)
        with pytest.raises(Unanswered, match="full"):
            await stream.append(batch(node.writer, node.at), 1)
        waiting = asyncio.create_task(node.batch())
        async with asyncio.timeout(PATIENCE_S):
            while not node.appender.trouble:
                await asyncio.sleep(0.01)
        assert (await stream.state()).free == 10
        assert "error" not in await manage(stream, "UPDATE", **config)
        async with asyncio.timeout(PATIENCE_S):
            await waiting
        assert not node.appender.trouble
        assert node.at.sequence == 2


@pytest.mark.parametrize(
    "field, value",
    [("num_replicas", 1), ("discard", "old"), ("deny_purge", False)],
)
async def test_a_stream_that_can_lose_messages_is_refused(
    address: Address, field: str, value: Any
) -> None:
    async with opening(address) as stream:
        assert (await manage(stream, "DELETE"))["success"]
        config = {
            **CONFIG,
            "name": stream.name,
            "subjects": [stream.subject],
            field: value,
        }
        assert "error" not in await manage(stream, "CREATE", **config)
        with pytest.raises(JournalError, match=f"has {field} "):
            await Stream.open(address, None)


async def test_messages_of_others_are_refused(address: Address) -> None:
    async with opening(address) as stream:
        await ask(
            stream.client, stream.subject, b"hello", timeout_s=PATIENCE_S
        )
        with pytest.raises(JournalError, match="message 1 is none of"):
            await followed(stream, 1)


async def test_a_batch_that_does_not_fit_stops_a_follower(
    address: Address,
) -> None:
    async with opening(address) as stream:
        node = Node(stream, "one")
        await node.batch(2)
        at = node.at
        other = Position(at.seq, bytes(32), at.sequence)
        await stream.append(batch(node.writer, other), at.sequence)
        with pytest.raises(
            JournalError, match="after command 2: a batch is missing"
        ):
            await followed(stream, 2)


async def test_a_stream_that_has_become_shorter_stops_a_follower(
    address: Address,
) -> None:
    async with opening(address) as stream:
        node = Node(stream, "one")
        await node.batch()
        at = Position(node.at.seq, node.at.digest, 7)
        with pytest.raises(JournalError, match="ends with message 1"):
            await Follower(stream, print, at).look()


async def test_a_consumer_that_is_gone_is_noticed(
    address: Address, nats: NatsServers
) -> None:
    """Its server forgets it, and says nothing to who waits."""
    async with opening(address) as stream:
        node = Node(stream, "one")
        await node.batch()
        _, _, follower = await followed(stream, 1)
        consumers = "$JS.API.CONSUMER"
        names = await ask(
            stream.client,
            f"{consumers}.NAMES.{stream.name}",
            timeout_s=PATIENCE_S,
        )
        for name in names["consumers"]:
            await ask(
                stream.client,
                f"{consumers}.DELETE.{stream.name}.{name}",
                timeout_s=PATIENCE_S,
            )
        await node.batch()
        async with asyncio.timeout(PATIENCE_S):
            while follower.at.sequence < 2:
                if not await follower.read(0.1):
                    await follower.look()


async def test_a_message_that_its_consumer_lost_is_asked_for_again(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive = Tail._arrive
    lost = [3, 4]  # sequences of messages that are lost, once each

    async def arrive_or_not(self: Tail, consumer: int, message: Msg) -> None:
        if message.reply and message.metadata.sequence.stream in lost:
            lost.remove(message.metadata.sequence.stream)
        else:
            await arrive(self, consumer, message)

    monkeypatch.setattr(Tail, "_arrive", arrive_or_not)
    async with opening(address) as stream:
        node = Node(stream, "one")
        for _ in range(6):
            await node.batch()
        commands, _, _ = await followed(stream, 6)
        assert tuple(commands) == COMMANDS[:6]
    assert not lost


async def test_the_leader_of_the_stream_dies(
    address: Address, nats: NatsServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged is there, and appends and reading go on."""
    monkeypatch.setattr(stream_module, "ANSWER_S", 0.5)
    async with opening(address) as stream:
        node = Node(stream, "one")
        await node.batch(2)
        follower = Follower(stream, lambda batch: None)
        info = await manage(stream, "INFO")
        leader = nats.named(info["cluster"]["leader"])
        leader.send(signal.SIGSTOP)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await node.batch(2)
                while follower.at.sequence < 2:
                    try:
                        if not await follower.read(0.5):
                            await follower.look()
                    except Unanswered:
                        pass
        finally:
            leader.send(signal.SIGCONT)
        assert follower.at == node.at
