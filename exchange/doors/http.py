"""Plain HTTP on the exchange's port: the live page, /healthz.

The files of the page are read once, at the start. A path is looked up in a
table and never touches the disk. With these headers browsers keep the page
from loading anything of another origin, and from turning text into markup.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

PAGE = Path(__file__).parent / "page"
INDEX = "index.html"
PLAIN = "text/plain; charset=utf-8"
CONTENT_TYPES = {
    "": PLAIN,  # licences
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Headers of every answer. 'self' includes the websocket of the same origin.
HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # browsers keep it, and revalidate it
}

Query: TypeAlias = Mapping[str, str]
# A future if the answer waits for the journal.
Reply: TypeAlias = Response | asyncio.Future[Response]
Answer: TypeAlias = Callable[[Query], Reply]


def reply(
    body: str | bytes,
    content_type: str = PLAIN,
    status: HTTPStatus = HTTPStatus.OK,
) -> Response:
    """Return a response with the headers that every answer has."""
    headers = Headers({**HEADERS, "Content-Type": content_type})
    content = body.encode() if isinstance(body, str) else body
    return Response(status, status.phrase, headers, content)


def split(request: Request) -> tuple[str, Query]:
    """Return path and query; the last value of a name that occurs twice."""
    path, _, query = request.path.partition("?")
    return path, dict(parse_qsl(query))


class Pages:
    """Answer GET and HEAD requests; call it with a request.

    ``folder`` holds the files of the page; its ``index.html`` is "/". A file
    name with a suffix that is not in CONTENT_TYPES raises KeyError.
    """

    def __init__(self, folder: Path = PAGE) -> None:
        self._answers: dict[str, Answer] = {}
        for file in folder.rglob("*"):
            if file.is_file():
                name = file.relative_to(folder).as_posix()
                page = _page(file)
                self.add(
                    "/" if name == INDEX else f"/{name}", partial(_fixed, page)
                )
        self.add("/healthz", lambda query: reply("ok\n"))

    def add(self, path: str, answer: Answer) -> None:
        """Register ``answer``, which makes the response from a query."""
        assert path not in self._answers, f"{path} is registered already"
        self._answers[path] = answer

    def __call__(self, request: Request) -> Reply:
        """Return the response to a request."""
        path, query = split(request)
        answer = self._answers.get(path)
        if answer is None:
            return reply("Not found.\n", status=HTTPStatus.NOT_FOUND)
        response = answer(query)
        if isinstance(response, asyncio.Future):
            return response
        tag = response.headers.get("ETag")
        known = request.headers.get_all("If-None-Match")
        if tag is not None and any(tag in tags for tags in known):
            status = HTTPStatus.NOT_MODIFIED
            return Response(status, status.phrase, response.headers)
        return response


def _page(file: Path) -> Response:
    """Return the response that carries a file."""
    content = file.read_bytes()
    response = reply(content, CONTENT_TYPES[file.suffix])
    response.headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return response


def _fixed(response: Response, query: Query) -> Response:
    """Return the same response to every query."""
    return response
