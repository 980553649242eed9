"""Frames in, messages out, and pings.

Hostile bytes come from a plain socket, friendly ones from the stock client
of websockets. No test waits for a clock: if time must pass, the clock of the
loop is set forward, or a time-out is tiny and its result is awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import struct
import weakref

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, Close

from exchange.doors.tcp import CLOSE_TIMEOUT_S, MAX_MESSAGE
from exchange.doors.websocket import (
    FRAMES_PER_TURN,
    PING_INTERVAL_S,
    PING_TIMEOUT_S,
    Limits,
    frame,
)
from test.doors.connection.desk import (
    FLOOD,
    HANDSHAKE,
    TINY_S,
    Clock,
    Desk,
    Dial,
    echo,
    fill,
    get,
    masked,
    until,
)

# Reading ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad, code",
    [
        (masked(TEXT, b"x" * (MAX_MESSAGE + 1)), 1009),
        (
            masked(TEXT, b"x" * MAX_MESSAGE, fin=False) + masked(CONT, b"x"),
            1009,
        ),
        (masked(BINARY, b"x"), 1003),
        (masked(TEXT, b"\xc3\x28"), 1007),
        (masked(TEXT, b"\xc3", fin=False) + masked(CONT, b"\x28"), 1007),
        (masked(TEXT, b"\xed\xa0\x80"), 1007),
        (bytes([0xC1, 0x80, 0, 0, 0, 0]), 1002),
        (bytes([0x83, 0x80, 0, 0, 0, 0]), 1002),
        (frame(b"unmasked"), 1002),
        (masked(CONT, b"x"), 1002),
        (masked(TEXT, b"x", fin=False) + masked(TEXT, b"y"), 1002),
        (bytes([0x09, 0x80, 0, 0, 0, 0]), 1002),
        (bytes([0x89, 0xFE, 0, 126]) + bytes(130), 1002),
        (masked(CLOSE, b"\x03"), 1002),
        (masked(CLOSE, b"\x03\xed"), 1002),
    ],
    ids=[
        "oversized",
        "oversized in fragments",
        "binary",
        "UTF-8",
        "UTF-8 across fragments",
        "surrogate",
        "reserved bit",
        "unknown opcode",
        "unmasked",
        "lone continuation",
        "interrupted fragments",
        "fragmented ping",
        "long ping",
        "short close",
        "code 1005 on the wire",
    ],
)
async def test_bad_frame(
    desk: Desk, dial: Dial, bad: bytes, code: int
) -> None:
    """Frames before it count, those after it do not."""
    peer = await dial(open=True)
    peer.send(masked(TEXT, b"a"), masked(TEXT), bad, masked(TEXT, b"after"))
    assert (await peer.closed()).code == code
    assert await peer.rest() == b""
    peer.writer.close()
    await desk.wait("disconnected")
    assert desk.messages == [b"a", b""]


async def test_largest_message(desk: Desk, dial: Dial) -> None:
    await dial(masked(TEXT, b"x" * MAX_MESSAGE), open=True)
    await desk.wait("received")
    assert desk.messages == [b"x" * MAX_MESSAGE]


async def test_fragments_with_a_ping_between(desk: Desk, dial: Dial) -> None:
    peer = await dial(open=True)
    first, second = "né".encode()[:2], "né".encode()[2:]
    peer.send(masked(TEXT, first, fin=False), masked(PING, b"now"))
    assert await peer.frame() == (PONG, b"now")  # before the message is whole
    peer.send(masked(CONT, b"", fin=False), masked(CONT, second))
    peer.send(masked(TEXT, b"next"))
    peer.send(masked(TEXT, b"a", fin=False), masked(CONT, b"b"))
    await until(lambda: desk.messages == ["né".encode(), b"next", b"ab"])


async def test_thousands_of_empty_frames_in_one_segment(
    desk: Desk, dial: Dial
) -> None:
    await dial(masked(TEXT) * 20_000, open=True)
    await until(lambda: len(desk.messages) == 20_000)
    batches = [len(entry[1]) for entry in desk.log if entry[0] == "received"]
    # A larger read would delay all other connections.
    assert max(batches) <= 16 * 1024 // len(masked(TEXT)) + 1


async def test_every_one_of_many_pings_in_one_segment_is_answered(
    desk: Desk, dial: Dial
) -> None:
    """An order among them and the EOF after them are not lost."""
    count = 10 * FRAMES_PER_TURN
    pings = [masked(PING, b"%d" % number) for number in range(count)]
    pings.insert(count // 2, masked(TEXT, b"order"))
    peer = await dial(b"".join(pings) + masked(TEXT, b"last"), open=True)
    peer.writer.write_eof()
    for number in range(count):
        assert await peer.frame() == (PONG, b"%d" % number)
    await desk.wait("disconnected")
    assert desk.messages == [b"order", b"last"]


async def test_a_peer_that_hangs_up_amid_its_pings_is_disconnected(
    desk: Desk, dial: Dial
) -> None:
    peer = await dial(masked(PING) * 10 * FRAMES_PER_TURN, open=True)
    await desk.wait("connected")
    peer.writer.transport.abort()
    await desk.wait("disconnected")


async def test_paused_receiver_receives_nothing(
    desk: Desk, dial: Dial
) -> None:
    desk.on["received"] = lambda c, messages: c.pause_reading()
    first = await dial(masked(TEXT, b"a"), open=True)
    await desk.wait("received")
    paused = desk.connection
    first.send(masked(TEXT, b"b"))
    # All earlier bytes are read before the answer to this client.
    desk.on["received"] = echo
    second = await dial(masked(TEXT, b"c"), open=True)
    await second.frame()
    assert desk.messages == [b"a", b"c"]
    paused.resume_reading()
    assert await first.frame() == (TEXT, b"b")


async def test_half_close_by_the_peer(desk: Desk, dial: Dial) -> None:
    peer = await dial(masked(TEXT, b"last"), open=True)
    peer.writer.write_eof()
    assert await peer.rest() == b""
    await desk.wait("disconnected")
    assert desk.log[1:] == [("received", [b"last"]), ("disconnected",)]


async def test_half_close_after_a_request(desk: Desk, dial: Dial) -> None:
    peer = await dial(get("/no"))
    peer.writer.write_eof()
    assert (await peer.answer())[0] == 404


async def test_half_close_within_a_request(desk: Desk, dial: Dial) -> None:
    peer = await dial(HANDSHAKE[:-2])
    peer.writer.write_eof()
    assert await peer.rest() == b""
    assert desk.log == []


async def test_half_closed_peer_that_does_not_read_is_cut_off(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    fill(desk.connection)
    peer.writer.write_eof()
    await until(lambda: not desk.connection.is_open)
    await clock.advance(CLOSE_TIMEOUT_S + 1)
    await desk.wait("disconnected")


async def test_every_socket_is_opened_and_closed(
    desk: Desk, dial: Dial
) -> None:
    """Also one that asks for a page, and one that sends nothing."""
    page = await dial(get())
    silent = await dial()
    await dial(open=True)
    await until(lambda: desk.seen == 3)
    page.writer.close()
    silent.writer.close()
    await until(lambda: len(desk.sockets) == 1)
    await desk.stop()
    await until(lambda: not desk.sockets)
    assert desk.names == ["connected", "disconnected"]


async def test_a_refused_socket_is_cut_off(desk: Desk, dial: Dial) -> None:
    desk.has_room = False
    peer = await dial(HANDSHAKE)
    with contextlib.suppress(ConnectionResetError):
        assert await peer.reader.read() == b""
    assert desk.names == []


async def test_reset_by_the_peer(desk: Desk, dial: Dial) -> None:
    peer = await dial(open=True)
    sock = peer.writer.get_extra_info("socket")
    linger = struct.pack("ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    peer.writer.transport.abort()
    await desk.wait("disconnected")
    assert desk.names == ["connected", "disconnected"]


async def test_library_prints_no_frames(
    desk: Desk, dial: Dial, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "", "websockets", "websockets.server", "exchange":
        caplog.set_level(logging.DEBUG, logger=name)
    desk.on["received"] = echo
    peer = await dial(masked(TEXT, b"s3cret"), open=True)
    await peer.frame()
    assert "s3cret" not in caplog.text


# Time ------------------------------------------------------------------------


async def test_silent_peer_is_pinged_and_then_cut_off(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    await clock.advance(PING_INTERVAL_S)
    opcode, payload = await peer.frame()
    assert opcode == PING
    # An older pong and an unsolicited one do not count.
    peer.send(masked(PONG, payload[::-1]), masked(PONG), masked(TEXT, b"a"))
    await desk.wait("received")
    await clock.advance(PING_TIMEOUT_S)
    assert await peer.closed() == Close(1011, "ping timeout")
    await clock.advance(CLOSE_TIMEOUT_S)
    await desk.wait("disconnected")


async def test_ping_timeout_without_turning_the_clock(
    desk: Desk, dial: Dial
) -> None:
    limits = Limits(ping_interval=TINY_S, ping_timeout=TINY_S)
    peer = await dial(open=True, limits=limits)
    assert (await peer.frame())[0] == PING
    assert (await peer.closed()).code == 1011


async def test_matching_pongs_keep_a_connection(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    payloads = set()
    for _ in range(3):
        await clock.advance(PING_INTERVAL_S)
        opcode, payload = await peer.frame()
        assert opcode == PING
        payloads.add(payload)
        await clock.advance(PING_TIMEOUT_S - 1)
        peer.send(masked(PONG, payload), masked(PING))
        assert await peer.frame() == (PONG, b"")
    assert len(payloads) == 3
    assert desk.connection.is_open


async def test_unasked_pongs_do_not_put_off_the_ping(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    await clock.advance(PING_INTERVAL_S - 1)
    peer.send(masked(PONG), masked(PING))
    await peer.frame()
    await clock.advance(1)
    assert (await peer.frame())[0] == PING


async def test_stock_client_stays_connected(
    client: ClientConnection, desk: Desk, clock: Clock
) -> None:
    # It connected before the clock was replaced; the loop uses the new one.
    for _ in range(3):
        await clock.advance(PING_INTERVAL_S)
        await client.send("a")
        assert await client.recv() == "a"
    assert desk.connection.is_open


async def test_pong_that_was_not_read_is_not_overdue(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    desk.connection.pause_reading()
    await clock.advance(PING_INTERVAL_S)
    _, payload = await peer.frame()
    peer.send(masked(PONG, payload))
    for _ in range(3):
        await clock.advance(PING_TIMEOUT_S)
        assert desk.connection.is_open
    desk.connection.resume_reading()
    await clock.advance(PING_TIMEOUT_S)
    assert desk.connection.is_open
    await clock.advance(PING_INTERVAL_S)
    assert (await peer.frame())[0] == PING


async def test_pause_excuses_one_late_pong(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    await dial(open=True)
    await clock.advance(PING_INTERVAL_S)
    desk.connection.pause_reading()
    desk.connection.resume_reading()
    await clock.advance(PING_TIMEOUT_S)
    assert desk.connection.is_open
    await clock.advance(PING_TIMEOUT_S)
    assert not desk.connection.is_open


async def test_lost_connection_is_forgotten(desk: Desk, dial: Dial) -> None:
    """No timer keeps a reference, which would fill the memory."""
    peer = await dial(open=True)
    lost = weakref.ref(desk.connection)
    peer.writer.close()
    await desk.wait("disconnected")
    desk.connections.clear()
    await asyncio.sleep(0)
    gc.collect()
    assert lost() is None


async def test_slow_reader_stays_while_it_takes_something(
    desk: Desk, dial: Dial, clock: Clock
) -> None:
    peer = await dial(open=True)
    slow = desk.connection
    slow.write(frame(b"x" * FLOOD))
    await clock.advance(PING_INTERVAL_S)
    for _ in range(2):
        before = slow.buffered
        await peer.take(FLOOD // 4)
        await until(lambda: slow.buffered < before)
        await clock.advance(PING_TIMEOUT_S)
        assert slow.is_open
    # From here on nothing is read: the buffer of the client is full.
    for _ in range(2):
        before = slow.buffered
        await clock.advance(PING_TIMEOUT_S)
    assert not slow.is_open
