"""Numbers that nobody can foretell without the secret of an event.

All chance of a match comes from ``HMAC-SHA256(secret, label)``, where the
label names round, match, attempt and what the numbers are for. Only integers
are used, so every machine and every Python gets the same ones.
"""

from __future__ import annotations

import hmac
import os
import re
import struct
from fractions import Fraction
from hashlib import sha256
from math import isqrt
from pathlib import Path

from exchange.files import sync_folder

from .output import PRIVATE

SECRET_FILE = "secret"
SECRET_BYTES = 32
WORD_BITS = 32  # of one number of a stream
DRAWS = 12  # uniform numbers whose sum, minus 6, is nearly normal
SCALE_BITS = 20  # of a factor of normal numbers, behind the point
POINT_BITS = WORD_BITS + SCALE_BITS  # of their product, behind the point
BLOCKS = 16  # made at a time
_WORD = 1 << WORD_BITS
_FORMAT = f">{BLOCKS * sha256().digest_size * 8 // WORD_BITS}I"


class SecretError(Exception):
    """The secret of an event cannot be used; the text names its file."""


def secret_of(folder: Path) -> bytes:
    """Return the secret of an event; make it first if there is none.

    ``folder`` is the data folder. Raises SecretError if the file is damaged,
    and OSError.
    """
    path = folder / SECRET_FILE
    if not path.exists():
        _make_secret(path)
    text = path.read_text("ascii", "replace").strip()
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise SecretError(f"{path}: not {SECRET_BYTES} bytes in hexadecimal")
    return bytes.fromhex(text)


def _make_secret(path: Path) -> None:
    """Write a new secret, unless another process is first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(new, flags, PRIVATE), "w", encoding="ascii") as file:
        file.write(os.urandom(SECRET_BYTES).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(new, path)
    except FileExistsError:
        pass
    finally:
        new.unlink()
    sync_folder(path.parent)


def simulated_secret(seed: int) -> bytes:
    """Return the secret of a simulation, which follows from the seed."""
    return sha256(f"simulation/{seed}".encode()).digest()


class Stream:
    """Numbers without end: block n is HMAC(HMAC(secret, label), n)."""

    def __init__(self, secret: bytes, label: str) -> None:
        self._key = hmac.digest(secret, label.encode(), "sha256")
        self._block = 0
        self._words: tuple[int, ...] = ()
        self._at = 0  # the next one of these

    def word(self) -> int:
        """Return a number from 0 to 2**32 - 1."""
        return self._take(1)[0]

    def normal(self) -> int:
        """Return a normal number with deviation 1, times 2**32."""
        return sum(self._take(DRAWS)) - 6 * _WORD

    def _take(self, count: int) -> tuple[int, ...]:
        start, end = self._at, self._at + count
        if end > len(self._words):
            self._words = self._words[start:] + self._more()
            start, end = 0, count
        self._at = end
        return self._words[start:end]

    def _more(self) -> tuple[int, ...]:
        """Return the words of the next blocks."""
        first, self._block = self._block, self._block + BLOCKS
        return struct.unpack(
            _FORMAT,
            b"".join(
                hmac.digest(self._key, number.to_bytes(8, "big"), "sha256")
                for number in range(first, self._block)
            ),
        )

    def within(self, low: int, high: int) -> int:
        """Return a number from low to high.

        Each is equally likely, to one part in 2**24, if they are fewer than
        2**40.
        """
        number = self.word() << WORD_BITS | self.word()
        return low + number % (high - low + 1)


def scale(deviation: Fraction) -> int:
    """Return a factor of `Stream.normal`: a deviation times 2**20."""
    return round(deviation * (1 << SCALE_BITS))


def root_scale(variance: Fraction) -> int:
    """Return the factor for a variance, rounded down."""
    return isqrt(int(variance * (1 << 2 * SCALE_BITS)))
