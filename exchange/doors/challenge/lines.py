"""Lines on one TCP socket: the connection of a challenge door.

It parts bytes into lines and knows no language. It drops empty lines and a
"\\r" before the newline. A line that is too long, and a line of HTTP, end the
connection.
"""

from __future__ import annotations

from exchange.doors import tcp
from exchange.doors.names import Proxies
from exchange.doors.queue import Queue
from exchange.doors.tcp import Admission, Receiver, guarded

HELLO_S = 10.0  # from accepting the socket to a hello
LINE_MAX = 4_096  # bytes of a line without its newline
# Lines in one turn, the empty ones included. The rest waits in the queue.
LINES_PER_TURN = 64
GOING_AWAY = 1001  # the close code of a round that ends, and of a shutdown
SLOW_READER = 4008  # the close code for too much unread
# From one read of a bot that is beyond its rate to the next: 320 KB/s, more
# than bots in a loop were seen to send. So lines that are ignored cannot keep
# the exchange busy.
IGNORING_S = 0.05
# A web page may make its browser send a request to a port of loopback.
METHODS = frozenset(
    b"GET HEAD POST PUT DELETE OPTIONS PATCH CONNECT TRACE".split()
)


class Connection(tcp.Connection):
    """The connection of one bot.

    Args:
        receiver: takes the lines, without their ends. A line that is too long
            comes with its first ``LINE_MAX + 1`` bytes, and is the last one.
        is_json: whether it came in by the JSON door.
        admission: decides which sockets may come in.
        queue: shared by the connections of this loop; None: one of its own.
    """

    __slots__ = (
        *("is_json", "is_known", "is_beyond_rate", "linger_s", "wrote_at"),
        *("_is_deaf", "_lingers"),
    )

    def __init__(
        self,
        receiver: Receiver,
        is_json: bool,
        *,
        admission: Admission,
        queue: Queue | None = None,
    ) -> None:
        super().__init__(
            receiver,
            admission=admission,
            proxies=Proxies(),  # there is no header that names another peer
            limits=tcp.Limits(open_timeout=HELLO_S),
            queue=queue,
        )
        self.is_json = is_json
        self.is_known = False  # it has said hello; set by its link
        self.linger_s = 0.0  # before it hangs up when a round ends
        # When it last sent anything, in the loop's time; None: no hello yet.
        self.wrote_at: float | None = None
        self._is_deaf = False  # what still comes is ignored
        # What it sends is ignored; set by its link, and reset here.
        self.is_beyond_rate = False
        self._lingers = False  # it hangs up when ``linger_s`` have passed

    def write(self, data: bytes) -> None:
        """Send lines; do nothing unless open, or without any."""
        if data:
            if self.is_known:
                self.wrote_at = self._loop.time()
            super().write(data)

    def close(self, code: int, reason: str = "") -> None:
        """Hang up after what was sent; GOING_AWAY: after ``linger_s``.

        Who is too slow is cut off at once.
        """
        if code == SLOW_READER:
            self.abort()
        elif self._lingers:
            return
        elif code == GOING_AWAY and self.linger_s > 0 and self.is_open:
            self._lingers = True
            self._loop.call_later(self.linger_s, self._hang_up)
        else:
            self._hang_up()

    def fail(self, code: int, reason: str = "") -> None:
        """Hang up, and ignore what the bot still sends."""
        self._is_deaf = True
        self._hang_up()

    def _handshake(self, data: bytes) -> bytes:
        """Be connected as soon as the first bytes are here."""
        self._open()
        return data

    @guarded
    def _open_overdue(self) -> None:
        """Cut off who has not said hello in time."""
        if not self.is_known:
            self.abort()

    def _messages(self, data: bytes) -> list[bytes]:
        """Return the lines that these bytes complete."""
        if self._unread:
            data, self._unread = self._unread + data, b""
        if self._is_deaf or not self._is_open:
            return []
        lines: list[bytes] = []
        start = 0
        for _ in range(LINES_PER_TURN):
            end = data.find(b"\n", start)
            if (end if end >= 0 else len(data)) - start > LINE_MAX:
                lines.append(data[start : start + LINE_MAX + 1])
                self._is_deaf = True
                return lines
            if end < 0:
                break
            line = data[start:end].removesuffix(b"\r")
            start = end + 1
            if is_http(line):
                self.fail(0)
                return lines
            if line:
                lines.append(line)
        self._unread = data[start:]
        is_more = b"\n" in self._unread
        self._is_queueing = is_more or self.is_beyond_rate
        return lines

    def _wait_turn(self) -> None:
        """Wait for a turn; longer if what the bot sends is ignored."""
        if self.is_beyond_rate and b"\n" not in self._unread:
            self.is_beyond_rate = False
            self._is_queueing = True
            self._loop.call_later(IGNORING_S, self._queue.join, self.take_turn)
            self._update_reading()
        else:
            super()._wait_turn()

    def _break_off(self) -> None:
        self.abort()

    @guarded
    def _hang_up(self) -> None:
        if self._is_open:
            self._half_close()
            self._end()


def is_http(line: bytes) -> bool:
    """Whether a web page made its browser send this line."""
    return b"HTTP/1." in line or line.split(b" ", 1)[0] in METHODS
