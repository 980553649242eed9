"""Plain HTTP/1.1 and websockets on the exchange's port, with the dialect on.

Raw bytes are kept until the blank line of the first request. If it asks for a
websocket, the same bytes go to the websockets library, and this is a usual
websocket from then on. Everything else is read by h11 for the life of the
connection: bodies, keep-alive, pipelining. Requests of the dialect become
messages of a link, one at a time, and its answers are sent in their order.
Other requests are answered by the pages, and end the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

import h11
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from exchange.doors import websocket
from exchange.doors.names import Names, Proxies
from exchange.doors.queue import Queue
from exchange.doors.spot.asked import (
    API,
    API_BYTES,
    Asked,
    pack_request,
    serves,
)
from exchange.doors.spot.errors import SHOWN, UNKNOWN, SpotError
from exchange.doors.spot.heads import (
    CONTINUE,
    JSON,
    asks_for_websocket,
    end_of_head,
    has_control,
    serialized,
    values_of,
)
from exchange.doors.tcp import OPEN_TIMEOUT_S, READ_SIZE, Receiver, guarded
from exchange.doors.upgrade import Admission, Answer, as_sent, not_found

MAX_HEAD = 16 * 1024  # bytes of a request without its body
MAX_BODY = 16 * 1024
KEEP_ALIVE_S = 120.0  # without a request, after which a connection ends
REQUEST_S = OPEN_TIMEOUT_S  # from the first byte of a request to its last

_FORM = b"application/x-www-form-urlencoded"
BAD = HTTPStatus.BAD_REQUEST
# States of the client, once its request is read, in which no other follows.
_ENDS = (h11.MUST_CLOSE, h11.CLOSED, h11.ERROR)


class Connection(websocket.Connection):
    """A websocket, or any number of HTTP requests and their answers.

    Arguments are those of a websocket connection.
    """

    __slots__ = (
        *("target", "_head", "_http", "_request", "_body", "_is_busy"),
        *("_deadline", "_pages", "_peer"),
    )

    def __init__(
        self,
        receiver: Receiver,
        *,
        admission: Admission,
        names: Names | None,
        proxies: Proxies = Proxies(),
        respond: Callable[[Request], Answer] = not_found,
        limits: websocket.Limits = websocket.Limits(),
        queue: Queue | None = None,
    ) -> None:
        super().__init__(
            receiver,
            admission=admission,
            names=names,
            proxies=proxies,
            respond=respond,
            limits=limits,
            queue=queue,
        )
        self._upgrade.serves = serves
        self._pages = respond
        # Path and query of a websocket; "" of plain HTTP.
        self.target = ""
        self._head = b""  # of the first request, until its blank line
        self._http: h11.Connection | None = None  # None: it is a websocket
        self._request: h11.Request | None = None  # whose body is read
        self._body = b""
        self._is_busy = False  # a request has no answer yet
        self._deadline = 0.0  # time of the loop at which it is cut off
        self._peer = ""  # the address of the proxy, if there is one

    @property
    def path(self) -> str:
        """The path of a websocket."""
        return self.target.partition("?")[0]

    @property
    def is_http(self) -> bool:
        """Whether this is plain HTTP."""
        return self._http is not None

    @property
    def _is_head(self) -> bool:
        """Whether the answer must have no body."""
        return self._request is not None and self._request.method == b"HEAD"

    @property
    def _is_idle(self) -> bool:
        """Whether nothing has come since the last answer, which is sent."""
        return not (self._is_busy or self._has_bytes or self.buffered)

    @property
    def _has_bytes(self) -> bool:
        """Whether a request has begun to arrive."""
        return self._http is not None and bool(self._http.trailing_data[0])

    @property
    def incomplete(self) -> int:
        """Bytes held that have not become a request or a message yet."""
        held = len(self._head) + len(self._body) + super().incomplete
        if self._http is not None:
            held += len(self._http.trailing_data[0])
        return held

    # Reading -----------------------------------------------------------------

    def _handshake(self, data: bytes) -> bytes:
        if self._http is not None:
            self._read(data)
            return b""
        if self.target or self._is_answering:
            return super()._handshake(data)
        self._head += data
        end = end_of_head(self._head)
        if end < 0 and len(self._head) <= MAX_HEAD:
            return b""
        head, self._head = self._head, b""
        if 0 <= end <= MAX_HEAD and asks_for_websocket(head[:end]):
            self.target = head.split(b" ", 2)[1].decode("ascii", "replace")
            return super()._handshake(head)
        self._http = _new_reader()
        self._peer = self.remote
        self._deadline = self._loop.time() + REQUEST_S
        self._read(head)
        return b""

    def _read(self, data: bytes) -> None:
        """Read HTTP of a connection that has no link yet."""
        messages = self._requests(data)
        if messages:
            self._receiver.received(self, messages)

    def _messages(self, data: bytes) -> list[bytes]:
        if self._http is None:
            return super()._messages(data)
        if self._is_busy:
            self._unread += data
            self._update_reading()
            return []
        return self._requests(data)

    @property
    def _is_shut(self) -> bool:
        is_full = self._is_busy and len(self._unread) >= READ_SIZE
        return is_full and not self._is_ending or super()._is_shut

    def _requests(self, data: bytes) -> list[bytes]:
        """Return the next request, if it is complete and of the dialect."""
        http = self._http
        assert http is not None
        try:
            if data:
                if http.their_state is h11.IDLE:
                    self._deadline = self._loop.time() + REQUEST_S
                http.receive_data(data)
            while not self._is_busy and not self._is_finished:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    if http.they_are_waiting_for_100_continue:
                        self._put(CONTINUE)
                    break
                if event is h11.PAUSED:
                    break
                if isinstance(event, h11.Request):
                    self._begin(event)
                elif isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > MAX_BODY:
                        self._refuse_size()
                elif isinstance(event, h11.EndOfMessage):
                    if self._asks_for_websocket:
                        return self._switch()
                    return self._complete_request()
                else:  # the client has ended the connection
                    break
        except h11.RemoteProtocolError as error:
            self._refuse(HTTPStatus(error.error_status_hint), str(error))
        return []

    def _begin(self, request: h11.Request) -> None:
        """Judge the head of a request."""
        self._request, self._body = request, b""
        names = [name for name, _ in request.headers]
        if b"transfer-encoding" in names and b"content-length" in names:
            self._refuse(BAD, "Content-Length and Transfer-Encoding")
            return
        if has_control(request):
            self._refuse(BAD, "a header has control characters")
            return
        if request.http_version not in (b"1.0", b"1.1"):
            self._refuse(
                HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1"
            )
            return
        length = values_of(request, b"content-length")
        if length and int(length[0]) > MAX_BODY:
            self._refuse_size()
            return
        if b"content-encoding" in names:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "an encoded body")
            return
        if self.is_proxied:
            lines = values_of(request, b"x-forwarded-for")
            client = self._proxies.client(self._peer, lines)
            if client != self.remote and not self._upgrade.forwarded(
                self, client
            ):
                self._refuse(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    "too many connections from your address",
                )
                return
        is_api = request.target.startswith(API_BYTES)
        refusal = self._upgrade.refusal(
            values_of(request, b"host"),
            values_of(request, b"origin") if is_api else [],
        )
        if refusal is not None:
            self._upgrade.note_refusal(self, refusal)
            self._refuse(HTTPStatus.FORBIDDEN, f"refused: {refusal.reason}")

    @property
    def _asks_for_websocket(self) -> bool:
        """Whether the request, which has ended, asks for a websocket."""
        request = self._request
        assert request is not None
        return (
            request.method == b"GET"
            and not self._body
            and any(
                name == b"upgrade" and b"websocket" in value.lower()
                for name, value in request.headers
            )
        )

    def _switch(self) -> list[bytes]:
        """Become a websocket after some requests over plain HTTP.

        Clients that keep connections for later use do so. The receiver gets
        another ``connected``.
        """
        request, http = self._request, self._http
        assert request is not None and http is not None
        lines = [b"GET %s HTTP/1.1" % request.target]
        lines += [b"%s: %s" % header for header in request.headers.raw_items()]
        data = b"\r\n".join([*lines, b"", b""]) + http.trailing_data[0]
        self._http = self._request = None
        self.target = request.target.decode("latin-1")
        rest = super()._handshake(data)
        return super()._messages(rest) if rest else []

    def _complete_request(self) -> list[bytes]:
        """Return a request of the dialect; answer any other."""
        request = self._request
        assert request is not None
        self._is_busy = True
        target = request.target.decode("latin-1")
        path, _, query = target.partition("?")
        method = request.method.decode("latin-1")
        if not path.startswith(API):
            self._answer_page(method, target, request)
            return []
        headers = dict(request.headers)
        content_type = headers.get(b"content-type", _FORM).lower()
        if self._body and not content_type.startswith(_FORM):
            self._refuse(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/x-www-form-urlencoded",
            )
            return []
        api_key = headers.get(b"x-mbx-apikey", b"").decode("latin-1")
        body, self._body = self._body.decode("latin-1"), b""
        if not self._is_connected:
            self._open()
            self._arm(REQUEST_S, self._overdue)
        return [pack_request(Asked(method, path, query, api_key, body))]

    # Answers -----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send what a link made: an answer if this is plain HTTP."""
        if self._http is None:
            super().write(data)
            return
        if not data or not self.is_open or not self._is_busy:
            return
        head, _, body = data.partition(b"\n\n")
        first, *lines = head.split(b"\n")
        status, is_last = first.split(b" ")
        headers = [(b"Content-Type", JSON)]
        for line in lines:
            name, _, value = line.partition(b":")
            headers.append((name, value))
        self._answer(int(status), headers, body, is_last == b"1")

    def _answer(
        self,
        status: int,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        is_last: bool,
    ) -> None:
        """Send an answer; go on with the next request, or end."""
        http = self._http
        assert http is not None
        is_last = is_last or http.their_state in _ENDS
        self._put(serialized(status, headers, body, is_last, self._is_head))
        self._is_busy = False
        self._request = None
        if is_last:
            self._finish()
            return
        self._unread = http.trailing_data[0] + self._unread
        self._http = _new_reader()
        self._deadline = self._loop.time() + KEEP_ALIVE_S
        if self._unread:
            self._deadline = self._loop.time() + REQUEST_S
            if not self._is_queueing:
                self._wait_turn()

    @guarded
    def take_turn(self) -> None:
        """Go on with requests that came before the last answer."""
        if self._http is None or not self._is_connected:
            super().take_turn()
            return
        if self._is_shut:
            self._is_put_off = True
            return
        self._is_queueing = False
        if not self._is_lost:
            data, self._unread = self._unread, b""
            self._take(data)
            self._update_reading()

    def _answer_page(
        self, method: str, target: str, request: h11.Request
    ) -> None:
        """Answer what is not of the dialect, and end the connection."""
        headers = Headers(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request.headers
        )
        asked = Request(target, headers, method)
        if method not in ("GET", "HEAD"):
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD.")
            return
        answer = self._pages(asked)
        if isinstance(answer, asyncio.Future):
            answer.add_done_callback(partial(self._late_page, asked))
        else:
            self._write_page(asked, answer)

    @guarded
    def _late_page(
        self, asked: Request, answer: asyncio.Future[Response]
    ) -> None:
        if not self._is_lost and not self._is_finished:
            self._write_page(asked, answer.result())

    def _write_page(self, asked: Request, response: Response) -> None:
        self._put(as_sent(asked, response).serialize())
        self._finish()

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Answer what cannot be read, and end the connection."""
        if self._is_finished:
            return
        body = SpotError(UNKNOWN, f"Bad request: {why[:SHOWN]}").text
        headers = [(b"Content-Type", JSON)]
        self._put(serialized(status, headers, body, True, self._is_head))
        self._finish()

    def _refuse_size(self) -> None:
        self._refuse(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"a body may have {MAX_BODY} bytes",
        )

    def _put(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(data)

    # Ending ------------------------------------------------------------------

    def close(self, code: int, reason: str = "") -> None:
        """End the connection after what was written."""
        if self._http is None:
            super().close(code, reason)
        elif self.is_open and self._is_idle:
            self._transport.close()
        elif self.is_open:
            self._finish()

    def fail(self, code: int, reason: str = "") -> None:
        """End the connection; nothing more is read."""
        if self._http is None:
            super().fail(code, reason)
        elif self.is_open:
            self._finish()

    def _finish(self) -> None:
        if not self._is_finished:
            self._half_close()
            self._end()

    def _break_off(self) -> None:
        if self._http is None:
            super()._break_off()
        else:
            self.abort()

    @guarded
    def _overdue(self) -> None:
        """Cut off a client that is idle or slow; look again later."""
        left_s = self._deadline - self._loop.time()
        if self._is_ending:
            return
        if self._is_busy:  # the exchange is slow, not the client
            left_s = REQUEST_S
        if left_s > 0:
            self._arm(min(left_s, REQUEST_S), self._overdue)
        elif self._request is not None or self._has_bytes:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "it came too slowly")
        else:
            self._transport.close()


def _new_reader() -> h11.Connection:
    """Return what reads one request.

    It could read more if it also wrote the answers, which takes twice as long.
    """
    return h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
