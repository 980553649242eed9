"""A snapshot as a file: one line of JSON, then the lines of the state, zlib.

The head names the command and the journal's digest up to it, so that a
snapshot of another journal is noticed, and a SHA-256 of head and lines, so
that a flipped bit is. The lines are text, because numbers of the engine have
no bound: fees are counted in 10,000ths of a unit, beyond the 64 bits of
msgpack. zlib's level 1 makes a fifth of them.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from exchange.journal.replica import Replica
from exchange.journal.snapshots import history as history_lines
from exchange.journal.snapshots import market as market_lines

# The layout of head and lines. Raise it with any change of what `dump` makes
# of the same commands, except for TEXTS: a snapshot of another format is not
# read. `test/golden` holds digests that a change makes differ.
FORMAT = 1
# The sentences for people that are part of the state: messages of statuses.
# Raise it if one of them changes. A snapshot with others can be read, but
# cannot be compared with the same state of this program.
TEXTS = 1
CHUNK_BYTES = 1 << 18
HEAD_BYTES_MAX = 1_000
_NO_SHA = "0" * 64  # in its place while the file is written


class SnapshotError(Exception):
    """A snapshot cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a snapshot is of.

    ``seq``, ``ts`` and ``digest`` are those of the last command, ``checksum``
    is that of the outputs up to it, and ``stream`` the number of its message
    if the journal is a stream.
    """

    format: int = FORMAT
    texts: int = TEXTS
    rules: int
    seq: int
    ts: int
    digest: str  # hex
    checksum: int
    stream: int | None = None

    def line(self, sha256: str) -> bytes:
        """Return the first line of the file."""
        return to_json({**asdict(self), "sha256": sha256}) + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line(Head):
    sha256: str


@dataclass(frozen=True, slots=True)
class _Number:
    """The part of a head that has been there since the first format."""

    format: int


_NUMBER = TypeAdapter(_Number)
_LINE = TypeAdapter(_Line)


def head_of(
    replica: Replica, digest: bytes, stream: int | None = None
) -> Head:
    """Return the head of a snapshot that is made now."""
    state = replica.engine
    return Head(
        rules=state.rules,
        seq=state.seq,
        ts=state.ts,
        digest=digest.hex(),
        checksum=replica.checksum.value,
        stream=stream,
    )


def dump(replica: Replica) -> Iterator[str]:
    """Yield the lines of a state that is at rest, between two commands."""
    return chain(
        market_lines.dump(replica.engine), history_lines.dump(replica.history)
    )


def load(replica: Replica, head: Head, lines: Iterator[str]) -> None:
    """Fill a new replica with the lines of `dump`."""
    market_lines.load(replica.engine, lines)
    history_lines.load(replica.history, lines)
    replica.checksum.value = head.checksum


def sha256_of(head: Head, lines: Iterable[str]) -> str:
    """Return the SHA-256 that a file of these would have, in hex."""
    found = _started(head)
    for chunk in _chunks(lines):
        found.update(chunk)
    return found.hexdigest()


def write(
    path: Path,
    head: Head,
    lines: Iterable[str],
    is_late: Callable[[], bool] = lambda: False,
) -> str:
    """Write a new file and wait until it is on disk; return its SHA-256.

    If ``is_late`` returns true meanwhile, raises SnapshotError. After any
    exception the file may be there in part. Also for a forked child: nothing
    but the file is touched.
    """
    found, packer = _started(head), zlib.compressobj(1)
    with path.open("wb") as file:
        file.write(head.line(_NO_SHA))
        for chunk in _chunks(lines):
            if is_late():
                raise SnapshotError("it takes too long")
            found.update(chunk)
            file.write(packer.compress(chunk))
        file.write(packer.flush())
        file.seek(0)
        file.write(head.line(found.hexdigest()))
        file.flush()
        os.fsync(file.fileno())
    return found.hexdigest()


def read_head(path: Path) -> tuple[Head, str]:
    """Return head and SHA-256 of a file, of which nothing else is looked at.

    Raises SnapshotError.
    """
    try:
        with path.open("rb") as file:
            return _head(file)
    except OSError as error:
        raise SnapshotError(str(error.strerror)) from None


def check(path: Path) -> None:
    """Raise SnapshotError unless the whole file is as it was written."""
    try:
        with path.open("rb") as file:
            head, sha256 = _head(file)
            found = _started(head)
            for chunk in _unpacked(file):
                found.update(chunk)
    except (OSError, zlib.error) as error:
        raise SnapshotError(f"damaged: {error}") from None
    if found.hexdigest() != sha256:
        raise SnapshotError("damaged: its SHA-256 differs")


def lines_of(path: Path) -> Iterator[str]:
    """Yield the lines of a file that `check` has found good."""
    with path.open("rb") as file:
        file.readline()
        rest = b""
        for chunk in _unpacked(file):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(bytes.decode, lines)


def _head(file: BinaryIO) -> tuple[Head, str]:
    line = file.readline(HEAD_BYTES_MAX)
    try:
        number = _NUMBER.validate_json(line, strict=True).format
        if number != FORMAT:
            raise SnapshotError(
                f"of format {number}; this program reads format {FORMAT}"
            )
        found = asdict(_LINE.validate_json(line, strict=True))
    except ValidationError:
        raise SnapshotError("damaged: it has no head") from None
    sha256 = found.pop("sha256")
    head = Head(**found)
    if head.line(sha256) != line:
        raise SnapshotError("damaged: its head is not as it was written")
    return head, sha256


def _started(head: Head) -> hashlib._Hash:
    return hashlib.sha256(head.line(_NO_SHA))


def _chunks(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield lines in pieces of some size, each line with its end."""
    some: list[str] = []
    size = 0
    for line in lines:
        some.append(line)
        size += len(line)
        if size >= CHUNK_BYTES:
            yield "\n".join([*some, ""]).encode()
            some.clear()
            size = 0
    yield "\n".join([*some, ""]).encode()


def _unpacked(file: BinaryIO) -> Iterator[bytes]:
    """Yield what is compressed in the rest of a file.

    Raises zlib.error if it is cut off, or goes on behind its end.
    """
    unpacker = zlib.decompressobj()
    while chunk := file.read(CHUNK_BYTES):
        yield unpacker.decompress(chunk)
    yield unpacker.flush()
    if not unpacker.eof or unpacker.unused_data:
        raise zlib.error("it does not end where it should")
