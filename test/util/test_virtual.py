"""The virtual loop and the network in memory, as sockets would behave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from util.simulate.latency import Latency
from util.simulate.loop import NS, Deadlock, VirtualLoop
from util.simulate.network import Link, Network
from util.simulate.transport import WINDOW, Transport

MS = NS // 1_000
PORT = 1


@contextmanager
def virtual(seed: str = "a") -> Iterator[tuple[VirtualLoop, Network]]:
    loop = VirtualLoop()
    loop.network = network = Network(loop, seed)
    try:
        yield loop, network
    finally:
        loop.close()


def run(
    test: Callable[[VirtualLoop, Network], Coroutine[Any, Any, None]],
) -> None:
    with virtual() as (loop, network):
        loop.run_until_complete(test(loop, network))


class End(asyncio.Protocol):
    """Notes what happens at one end of a link, and when."""

    transport: Transport

    def __init__(self) -> None:
        self.data = b""
        self.seen: list[tuple[float, str]] = []
        self.keeps_open = False

    def note(self, what: str) -> None:
        now = asyncio.get_running_loop().time()
        self.seen.append((round(now * 1_000, 6), what))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.note(f"read {len(data)}")

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keeps_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.note(f"lost {type(exc).__name__}")

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")


async def joined(network: Network, latency: str = "1ms") -> tuple[End, End]:
    """Return the near and the far end of a new link."""
    near, far = End(), End()
    network.listen(PORT, lambda: far)
    await network.connect(lambda: near, PORT, Latency.read(latency))
    return near, far


def link_of(network: Network) -> Link:
    [link] = network.links
    return link


# Time -----------------------------------------------------------------------


def test_a_long_sleep_takes_no_time() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        await asyncio.sleep(86_400)
        assert loop.time() == 86_400
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.25):
                await loop.create_future()
        assert loop.time() == 86_400.25

    run(test)


def test_one_instant_has_one_order() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        seen: list[str] = []
        loop.call_later(0.001, seen.append, "timer 1")
        loop.call_later(0.001, seen.append, "timer 2")
        ends = [await joined(network, "0") for _ in range(2)]
        for name, (near, far) in zip("ab", ends, strict=True):
            far.data_received = (  # type: ignore[method-assign]
                lambda data, name=name: seen.append(f"{name} {data.decode()}")
            )
        await asyncio.sleep(0.0005)
        for link in network.links:
            link.latency = Latency.read("500us")
        ends[1][0].transport.write(b"1")
        ends[0][0].transport.write(b"1")
        ends[0][0].transport.write(b"2")
        await asyncio.sleep(1)
        assert seen == ["a 12", "b 1", "timer 1", "timer 2"]

    run(test)


def test_if_everybody_waits_the_error_names_the_tasks() -> None:
    async def forgotten() -> None:
        await asyncio.get_running_loop().create_future()

    with virtual() as (loop, _):
        task = loop.create_task(forgotten(), name="a forgotten one")
        with pytest.raises(Deadlock, match="a forgotten one at .*virtual.py:"):
            loop.run_until_complete(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)


def test_polling_does_not_stop_the_clock() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        timer = asyncio.create_task(asyncio.sleep(0.01))
        while not timer.done():
            await asyncio.sleep(0)

    run(test)


def test_steps_end_at_their_time() -> None:
    with virtual() as (loop, _):
        seen: list[float] = []

        async def tick() -> None:
            while True:
                await asyncio.sleep(1)
                seen.append(loop.time())

        task = loop.create_task(tick())
        loop.run_until(2.5)
        assert (loop.time(), seen) == (2.5, [1, 2])
        loop.run_until(3)
        loop.run_until(3.5)
        assert seen == [1, 2, 3]
        task.cancel()
        loop.run_until(4)


# Latency --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mean", "spread"),
    [
        ("2ms", 2 * MS, 0),
        ("0", 0, 0),
        ("3", 3 * MS, 0),
        ("500us", MS // 2, 0),
        ("0.5s", NS // 2, 0),
        ("5ms±1ms", 5 * MS, MS),
        ("5ms+-1", 5 * MS, MS),
        ("900us±100us", 9 * MS // 10, MS // 10),
    ],
)
def test_latencies_are_read(text: str, mean: int, spread: int) -> None:
    latency = Latency.read(text)
    assert latency == Latency(mean, spread)
    assert Latency.read(str(latency)) == latency


@pytest.mark.parametrize("text", ["", "-1ms", "1 hour", "1ms±2ms", "5ms±"])
def test_other_latencies_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a latency|spread"):
        Latency.read(text)


def test_each_message_takes_the_latency() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network, "3ms")
        assert loop.time() == 0.006  # there and back
        near.transport.write(b"abc")
        await asyncio.sleep(1)
        far.transport.write(b"de")
        await asyncio.sleep(1)
        assert far.seen == [(9, "read 3")]
        assert near.seen == [(1_009, "read 2")]

    run(test)


def test_a_direction_is_never_reordered() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network, "5ms±5ms")
        sent = [b"%03d" % number for number in range(200)]
        for message in sent:
            near.transport.write(message)
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)
        assert far.data == b"".join(sent)
        assert len({at for at, _ in far.seen}) < len(sent), "none caught up"

    run(test)


def test_the_seed_draws_the_latencies() -> None:
    def times(seed: str) -> list[tuple[float, str]]:
        with virtual(seed) as (loop, network):

            async def test() -> list[tuple[float, str]]:
                near, far = await joined(network, "5ms±2ms")
                for _ in range(20):
                    near.transport.write(b"x")
                    await asyncio.sleep(0.1)
                return far.seen

            return loop.run_until_complete(test())

    assert times("a") == times("a") != times("b")


# As sockets do --------------------------------------------------------------


def test_a_reader_that_stops_stops_the_writer() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network)
        data = bytes(range(256)) * 4 * 1_024  # 1 MiB
        far.transport.pause_reading()
        near.transport.write(data)
        await asyncio.sleep(1)
        assert [what for _, what in near.seen] == ["pause"]
        assert near.transport.get_write_buffer_size() == len(data) - WINDOW
        assert not far.data
        far.transport.resume_reading()
        await asyncio.sleep(1)
        assert [what for _, what in near.seen] == ["pause", "resume"]
        assert far.data == data

    run(test)


def test_half_a_close_leaves_the_other_half() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network)
        far.keeps_open = True
        near.transport.write(b"last")
        near.transport.write_eof()
        await asyncio.sleep(1)
        assert [what for _, what in far.seen] == ["read 4", "eof"]
        far.transport.write(b"answer")
        await asyncio.sleep(1)
        assert near.data == b"answer"
        far.transport.close()
        await asyncio.sleep(1)
        assert near.seen[-1][1] == far.seen[-1][1] == "lost NoneType"
        assert not network.links

    run(test)


def test_close_sends_what_is_left() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network)
        data = b"x" * 3 * WINDOW
        near.transport.write(data)
        near.transport.close()
        await asyncio.sleep(1)
        assert far.data == data
        assert far.seen[-1][1] == near.seen[-1][1] == "lost NoneType"

    run(test)


def test_abort_resets_the_peer() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network)
        now = loop.time() * 1_000
        near.transport.abort()
        await asyncio.sleep(1)
        assert near.seen == [(now, "lost NoneType")]
        assert far.seen == [(now + 1, "lost ConnectionResetError")]

    run(test)


def test_who_writes_to_a_closed_end_is_reset() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network)
        far.keeps_open = True
        near.transport.close()
        await asyncio.sleep(1)
        far.transport.write(b"too late")
        await asyncio.sleep(1)
        assert far.seen[-1][1] == "lost ConnectionResetError"

    run(test)


def test_a_cut_link_ends_at_both_ends() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network)
        near.transport.write(b"lost")
        link_of(network).cut()
        await asyncio.sleep(1)
        for end in (near, far):
            assert [what for _, what in end.seen] == [
                "lost ConnectionResetError"
            ]
        assert not network.links

    run(test)


def test_a_silent_link_tells_nobody() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network)
        link_of(network).silence()
        near.transport.write(b"lost")
        await asyncio.sleep(1)
        assert (far.data, far.seen) == (b"", [])
        far.transport.abort()
        await asyncio.sleep(60)
        assert near.seen == []

    run(test)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 7, 9])
def test_a_link_breaks_within_what_arrives(count: int) -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network)
        link_of(network).cut_after(count)
        near.transport.write(b"four")
        near.transport.write(b"more")
        await asyncio.sleep(1)
        assert far.data == b"fourmore"[:count]
        assert network.links if count > 8 else not network.links

    run(test)


def test_a_silent_link_stays_silent() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        near, far = await joined(network)
        link_of(network).silence()
        near.transport.write(b"lost")
        await asyncio.sleep(1)
        link_of(network).cut_after(100)
        near.transport.write(b"must not follow what was lost")
        await asyncio.sleep(1)
        assert (far.data, far.seen) == (b"", [])

    run(test)


def test_nobody_listens() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        with pytest.raises(ConnectionRefusedError, match="port 9 "):
            await network.connect(End, 9)

    run(test)


def test_streams_of_asyncio_work() -> None:
    async def test(loop: VirtualLoop, network: Network) -> None:
        _, far = End(), End()
        network.listen(PORT, lambda: far)
        reader, writer = await asyncio.open_connection("anywhere", PORT)
        writer.write(b"hello")
        far_data = asyncio.create_task(asyncio.sleep(0.01))
        await far_data
        far.transport.write(far.data.upper())
        far.transport.close()
        assert await reader.read() == b"HELLO"
        writer.close()
        await writer.wait_closed()

    run(test)
