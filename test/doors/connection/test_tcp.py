"""Writing, back-pressure and the end of a connection.

Hostile bytes come from a plain socket, friendly ones from the stock client
of websockets. No test waits for a clock: if time must pass, the clock of the
loop is set forward, or a time-out is tiny and its result is awaited.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError, ProtocolError
from websockets.frames import CLOSE, CONT, PING, PONG, TEXT, Close, Frame

from exchange.doors import tcp
from exchange.doors.names import Proxies
from exchange.doors.tcp import HIGH_WATER, READ_SIZE
from exchange.doors.websocket import (
    FRAGMENT,
    FRAMES_PER_TURN,
    MAX_FRAME,
    Connection,
    Limits,
    frame,
)
from test.doors.connection.desk import (
    FLOOD,
    HANDSHAKE,
    PATIENCE_S,
    TINY_S,
    Clock,
    Desk,
    Dial,
    FakeTransport,
    closing,
    echo,
    feed,
    fill,
    get,
    masked,
    over,
    until,
)

# Writing ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, MAX_FRAME])
def test_frame_is_what_the_library_makes(size: int) -> None:
    data = b"x" * size
    assert frame(data) == Frame(TEXT, data).serialize(mask=False)


@pytest.mark.parametrize("size", [MAX_FRAME + 1, 4 * FRAGMENT, 5 * FRAGMENT])
async def test_long_message_reaches_a_stock_client(
    client: ClientConnection, desk: Desk, size: int
) -> None:
    text = "".join(chr(97 + i % 26) for i in range(size))
    desk.connection.write(frame(text.encode()) + frame(b"next"))
    fragments = [str(part) async for part in client.recv_streaming()]
    assert "".join(fragments) == text
    assert max(map(len, fragments)) < MAX_FRAME
    assert await client.recv() == "next"


async def test_full_buffer_stops_reading_until_drained(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True)
    slow = desk.connection
    slow.write(frame(b"x" * FLOOD))
    assert slow.buffered > HIGH_WATER
    peer.send(masked(TEXT, b"a"))
    other = await dial(masked(TEXT, b"b"), open=True)
    await until(lambda: b"b" in desk.messages)
    other.writer.close()
    await desk.wait("disconnected")  # a turn would have come by now
    assert b"a" not in desk.messages
    await peer.take(len(frame(b"x" * FLOOD)))
    await until(lambda: b"a" in desk.messages)
    assert desk.names[-2:] == ["drained", "received"]
    assert slow.buffered == 0


async def test_reading_goes_on_after_both_causes_have_ended(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True)
    slow = desk.connection
    slow.pause_reading()
    slow.write(frame(b"x" * FLOOD))
    peer.send(masked(TEXT, b"a"))
    slow.resume_reading()
    slow.pause_reading()
    await peer.take(len(frame(b"x" * FLOOD)))
    await desk.wait("drained")
    other = await dial(masked(TEXT, b"b"), open=True)
    await until(lambda: desk.messages == [b"b"])
    other.writer.close()
    await desk.wait("disconnected")
    assert desk.messages == [b"b"]
    slow.resume_reading()
    await until(lambda: desk.messages == [b"b", b"a"])


async def test_resuming_does_not_read_into_a_full_buffer(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True)
    slow = desk.connection
    slow.write(frame(b"x" * FLOOD))
    slow.pause_reading()
    slow.resume_reading()
    peer.send(masked(TEXT, b"a"))
    other = await dial(masked(TEXT, b"b"), open=True)
    await until(lambda: b"b" in desk.messages)
    other.writer.close()
    await desk.wait("disconnected")
    assert desk.messages == [b"b"]


async def test_unread_pongs_do_not_pile_up(desk: Desk, dial: Dial) -> None:
    await desk.start()
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", desk.port)) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, HANDSHAKE)
        pings = masked(PING, b"x" * 125) * 1_000
        blocked = sent = 0
        while sent < FLOOD and blocked < 100:
            try:
                # A read may end within a frame, so whole frames are repeated.
                sent += sock.send(pings[sent % len(pings) :])
                blocked = 0
            except BlockingIOError:
                blocked += 1
            await asyncio.sleep(0)
        assert desk.connection.is_open
        assert HIGH_WATER < desk.connection.buffered
        assert desk.connection.buffered < HIGH_WATER + 2 * READ_SIZE


async def test_frames_after_a_failure_are_not_parsed(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True)
    await desk.wait("connected")
    desk.connection.fail(4002, "enough")
    desk.connection.fail(4000, "again")  # it is not open any more
    peer.send(masked(PING) * 100, masked(TEXT, b"late"), masked(0x83))
    assert await peer.frame() == (CLOSE, struct.pack("!H", 4002) + b"enough")
    assert await peer.reader.read() == b""
    assert desk.messages == []
    peer.writer.close()
    await desk.wait("disconnected")


async def test_write_after_close_does_nothing(
    client: ClientConnection, desk: Desk
) -> None:
    connection = desk.connection
    connection.close(4001, "enough")
    assert not connection.is_open
    connection.write(frame(b"late"))
    connection.close(4002)
    with pytest.raises(ConnectionClosedError) as closed:
        await client.recv()
    assert closed.value.rcvd == Close(4001, "enough")
    await desk.wait("disconnected")
    connection.write(frame(b"later"))


async def test_write_after_abort_does_nothing(
    desk: Desk, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    await dial(open=True)
    desk.connection.abort()
    assert not desk.connection.is_open
    for _ in range(10):
        desk.connection.write(frame(b"late"))
    await desk.wait("disconnected")
    assert (
        caplog.text == ""
    )  # asyncio logs a warning after several such writes


async def test_nothing_happens_after_the_end(desk: Desk, dial: Dial) -> None:
    peer = await dial(open=True)
    connection = desk.connection
    # asyncio fails on abort() after a close that had to flush first.
    fill(connection)
    peer.writer.write_eof()
    await until(lambda: not connection.is_open)
    await peer.rest()
    await desk.wait("disconnected")
    connection.abort()
    connection.close(1000)
    connection.write(frame(b"late"))
    connection.pause_reading()
    connection.resume_reading()
    assert connection.buffered == 0
    assert desk.names == ["connected", "disconnected"]


# Ending ----------------------------------------------------------------------


async def test_close_frame_is_echoed(desk: Desk, dial: Dial) -> None:
    peer = await dial(masked(TEXT, b"a"), closing(4321, "why"), open=True)
    assert await peer.closed() == Close(4321, "why")
    assert await peer.rest() == b""
    peer.writer.close()
    await desk.wait("disconnected")
    assert desk.messages == [b"a"]


async def test_close_gets_through_to_a_peer_in_full_flow(
    desk: Desk, dial: Dial
) -> None:
    desk.on["received"] = lambda c, messages: c.close(4000, "stop")
    peer = await dial(masked(TEXT, b"x" * 50_000) * 200, open=True)
    assert await peer.closed() == Close(4000, "stop")
    peer.send(closing(4000))
    assert await peer.rest() == b""
    assert desk.names == ["connected", "received"]


async def test_failure_gets_through_to_a_peer_in_full_flow(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(masked(CONT), b"noise" * 2_000_000, open=True)
    assert (await peer.closed()).code == 1002
    assert await peer.rest() == b""
    await peer.writer.drain()


async def test_failure_gets_through_to_a_peer_that_reads_last(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True, limits=Limits(close_timeout=1e6))
    fill(desk.connection)
    peer.send(masked(CONT), b"noise" * 4_000_000)
    async with asyncio.timeout(PATIENCE_S):
        await peer.writer.drain()
    end = Frame(
        CLOSE, Close(1002, "unexpected continuation frame").serialize()
    )
    assert (await peer.rest()).endswith(end.serialize(mask=False))


async def test_close_gets_through_although_reading_was_paused(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True)
    desk.connection.pause_reading()
    peer.send(masked(TEXT, b"x" * 50_000) * 200)
    desk.connection.close(4000)
    assert (await peer.closed()).code == 4000
    peer.send(closing(4000))
    assert await peer.rest() == b""
    assert desk.messages == []


async def test_peer_that_ignores_the_close_is_cut_off(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(open=True, limits=Limits(close_timeout=TINY_S))
    desk.connection.close(4000)
    assert (await peer.closed()).code == 4000
    assert await peer.rest() == b""
    assert desk.names == ["connected", "disconnected"]


async def test_flow_of_frames_does_not_put_off_the_end(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True, limits=Limits(close_timeout=100))
    desk.connection.close(4000)
    await clock.advance(99)
    peer.send(masked(PING))
    await peer.closed()
    await peer.frame()  # the pong
    await clock.advance(1)
    await desk.wait("disconnected")


async def test_close_code_must_be_valid(desk: Desk, dial: Dial) -> None:
    await dial(open=True)
    with pytest.raises(ProtocolError):
        desk.connection.close(1005)
    with pytest.raises(ProtocolError):
        desk.connection.close(4000, "x" * 124)
    assert desk.connection.is_open


async def test_peer_that_is_gone_before_its_frames_are_read(
    desk: Desk, dial: Dial
) -> None:
    """The close frame is answered with a reset during the half-close."""
    await desk.start()
    with socket.create_connection(("127.0.0.1", desk.port)) as sock:
        sock.sendall(HANDSHAKE)
        await desk.wait("connected")
        sock.recv(2**16)
        sock.sendall(masked(CONT))
    await desk.wait("disconnected")


async def test_peer_that_vanishes_before_the_half_close(
    desk: Desk, dial: Dial
) -> None:
    """The last bytes meet a reset, which must not reach the loop."""
    await desk.start()
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", desk.port)) as sock:
        sock.setblocking(False)
        await loop.sock_sendall(sock, HANDSHAKE)
        await desk.wait("connected")
        connection = desk.connection
        fill(connection)
        await loop.sock_sendall(sock, masked(CONT))
        await until(lambda: not connection.is_open)
        with pytest.raises(BlockingIOError):
            while sock.recv(2**20):
                pass
    await desk.wait("disconnected")


@pytest.mark.parametrize("name", ["connected", "received", "drained"])
async def test_error_in_the_receiver_ends_only_that_connection(
    desk: Desk, dial: Dial, name: str
) -> None:
    def fail(connection: Connection, *args: Any) -> None:
        raise ZeroDivisionError(name)

    desk.on["received"] = echo
    other = await dial(open=True)
    desk.on[name] = fail
    peer = await dial(HANDSHAKE)
    await peer.head()
    await desk.wait("connected", 2)
    if name == "received":
        peer.send(masked(TEXT, b"a"))
    if name == "drained":
        desk.connection.write(frame(b"x" * FLOOD))
    assert (await peer.closed()).code == 1011
    assert await peer.rest() == b""
    peer.writer.close()
    await desk.wait("disconnected")
    assert desk.take_errors() == f"[ZeroDivisionError('{name}')]"
    desk.on["received"] = echo
    other.send(masked(TEXT, b"alive"))
    assert await other.frame() == (TEXT, b"alive")


async def test_abort_while_draining(desk: Desk, dial: Dial) -> None:
    desk.on["drained"] = lambda connection: connection.abort()
    peer = await dial(open=True)
    desk.connection.write(b"x" * FLOOD)
    await peer.rest()
    await desk.wait("disconnected")
    assert desk.names == ["connected", "drained", "disconnected"]


async def test_error_on_disconnecting(desk: Desk, dial: Dial) -> None:
    def fail(connection: Connection) -> None:
        raise ZeroDivisionError

    desk.on["disconnected"] = fail
    peer = await dial(open=True)
    peer.writer.close()
    await until(lambda: desk.errors)
    assert desk.take_errors() == "[ZeroDivisionError()]"
    assert desk.names == ["connected", "disconnected"]


# Without a socket -----------------------------------------------------------


async def test_answers_to_one_read_leave_in_one_write() -> None:
    transport = FakeTransport()
    connection = over(transport)
    feed(connection, HANDSHAKE)
    transport.written.clear()
    feed(connection, masked(PING, b"p") * 10 + closing(1000))
    pong = Frame(PONG, b"p").serialize(mask=False)
    assert len(transport.written) == 1
    assert transport.written[0].startswith(pong * 10)
    assert transport.calls == ["write_eof"]
    connection.connection_lost(None)


async def test_a_turn_answers_a_bounded_number_of_pings() -> None:
    transport = FakeTransport()
    connection = over(transport)
    feed(connection, HANDSHAKE)
    transport.written.clear()
    feed(connection, masked(PING) * 3 * FRAMES_PER_TURN)
    pong = Frame(PONG, b"").serialize(mask=False)
    await until(lambda: len(transport.written) == 3)
    assert set(transport.written) == {pong * FRAMES_PER_TURN}
    connection.connection_lost(None)


async def test_buffer_filled_again_is_not_drained() -> None:
    desk = Desk()
    connection = over(FakeTransport(), desk)
    feed(connection, HANDSHAKE)
    connection.pause_writing()
    connection.resume_writing()
    connection.pause_writing()
    await asyncio.sleep(0)
    assert desk.names == ["connected"]
    connection.resume_writing()
    await asyncio.sleep(0)
    assert desk.names == ["connected", "drained"]
    connection.pause_writing()
    connection.resume_writing()
    connection.close(1000)
    await asyncio.sleep(0)
    assert desk.names == ["connected", "drained"]
    connection.connection_lost(None)


async def test_transport_without_half_close_is_closed() -> None:
    transport = FakeTransport(can_half_close=False)
    connection = over(transport)
    feed(connection, get("/no"))
    assert transport.calls == ["close"]
    connection.connection_lost(None)


async def test_long_page_may_take_longer_than_the_timeout() -> None:
    """It may while the buffer shrinks between two looks at it."""
    transport = FakeTransport(sizes=[9, 9, 8, 7, 6, 5, 5])
    connection = over(transport, limits=Limits(close_timeout=TINY_S / 10))
    feed(connection, get("/no"))
    await until(lambda: transport.calls)
    assert transport.calls == ["abort"]
    assert transport.left == [5]
    connection.connection_lost(None)


# Another door ----------------------------------------------------------------


class Lines(tcp.Connection):
    """A door whose messages are lines, without a handshake."""

    def _handshake(self, data: bytes) -> bytes:
        self._open()
        return data

    def _messages(self, data: bytes) -> list[bytes]:
        *lines, self._unread = (self._unread + data).split(b"\n")
        if len(self._unread) > self._limits.max_message:
            self.fail(1009, "too long")
        return lines

    def close(self, code: int, reason: str = "") -> None:
        self.write(f"{code} {reason}\n".encode())
        self._half_close()
        self._end()

    fail = close

    def _break_off(self) -> None:
        self.close(1011)


@pytest.fixture
async def lines(desk: Desk) -> Desk:
    """A desk for lines that echoes them."""
    desk.on["received"] = lambda connection, messages: connection.write(
        b"".join(message + b"\n" for message in messages)
    )
    await desk.start_with(
        lambda: Lines(
            desk,
            admission=desk,
            proxies=Proxies(),
            limits=tcp.Limits(max_message=10, close_timeout=TINY_S),
            queue=None,
        )
    )
    return desk


async def test_a_door_of_lines(lines: Desk, dial: Dial) -> None:
    peer = await dial(b"one\ntw", b"o\nthree")
    assert await peer.take(8) == b"one\ntwo\n"
    assert lines.messages == [b"one", b"two"]
    assert lines.connection.incomplete == len(b"three")
    lines.connection.close(4000, "stop")
    assert await peer.rest() == b"4000 stop\n"
    await lines.wait("disconnected")
    assert lines.names.count("connected") == 1


async def test_a_door_of_lines_ends_a_line_that_is_too_long(
    lines: Desk, dial: Dial
) -> None:
    peer = await dial(b"x" * 11)
    assert await peer.rest() == b"1009 too long\n"
    await lines.wait("disconnected")
    assert lines.messages == []


async def test_a_door_of_lines_after_an_error_in_the_receiver(
    lines: Desk, dial: Dial
) -> None:
    def fail(connection: tcp.Connection, messages: list[bytes]) -> None:
        raise ZeroDivisionError

    lines.on["received"] = fail
    peer = await dial(b"one\n")
    assert await peer.rest() == b"1011 \n"
    await lines.wait("disconnected")
    assert lines.take_errors() == "[ZeroDivisionError()]"
