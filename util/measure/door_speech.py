"""What the hostile connections of `util.measure.fuzz` send to the doors."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

CULPRIT = "MALLORY"  # the team that enters by its address
MIB = 2**20

IDS = (0, 1, 2, 7, 2**32, 2**64 - 1, 2**64, -1, "1", 1.0, None, True)
SYMBOLS = ("BOND", "USD", "NONE", "", "bond", 5, None, "x" * 500)
DIRS = ("BUY", "SELL", "buy", "", 0, None)
NUMBERS = (1, 99, 100, 101, 999_999, 1_000_000, 0, -5, "7", 1e3, 10**40, None)
VALID = 0.7  # probability that a field is a usual one


class DoorSpeech:
    """What one hostile connection sends to a door; ``chance`` decides."""

    def __init__(self, chance: random.Random, door: str) -> None:
        self._chance = chance
        self._is_json = door == "json"

    def make(self) -> bytes:
        """Return all bytes of the connection."""
        chance = self._chance
        kinds: tuple[Callable[[], bytes], ...] = (
            self._noise,
            self._no_end,
            self._early,
            *(self._bot,) * 6,
        )
        return chance.choice(kinds)()

    def _noise(self) -> bytes:
        """Bytes that are no text, with or without a hello before."""
        noise = self._chance.randbytes(self._chance.randrange(1, 4_000))
        return self._chance.choice((b"", self._hello())) + noise

    def _no_end(self) -> bytes:
        """A line of a mebibyte, or many lines without anything."""
        line = self._chance.choice((b"x", b"{", b" ", b"\xff", b"\n", b"\0"))
        return self._hello() + line * MIB

    def _early(self) -> bytes:
        """Orders before a hello, then two of them."""
        return self._order() + self._hello() * 2 + self._order()

    def _bot(self) -> bytes:
        """A bot that sends many orders; the last line may lack its end."""
        lines = [self._order() for _ in range(self._chance.randrange(60))]
        data = bytearray(self._hello() + b"".join(lines))
        for _ in range(self._chance.choice((0, 0, 1, 5))):
            data[self._chance.randrange(len(data))] = self._chance.randrange(
                256
            )
        return bytes(data[: len(data) - self._chance.choice((0, 0, 3))])

    def _hello(self) -> bytes:
        return self._line("hello", team=CULPRIT)

    def _order(self) -> bytes:
        chance = self._chance
        match chance.choice(("add", "add", "add", "convert", "cancel", "x")):
            case "add":
                return self._line(
                    "add",
                    order_id=self._pick(IDS, 3),
                    symbol=self._pick(SYMBOLS, 1),
                    dir=self._pick(DIRS, 2),
                    price=self._pick(NUMBERS, 4),
                    size=self._pick(NUMBERS, 1),
                )
            case "convert":
                return self._line(
                    "convert",
                    order_id=self._pick(IDS, 3),
                    symbol=self._pick(SYMBOLS, 1),
                    dir=self._pick(DIRS, 2),
                    size=self._pick(NUMBERS, 2),
                )
            case "cancel":
                return self._line("cancel", order_id=self._pick(IDS, 3))
        return self._line("".join(chance.choices("adhelo ", k=5)))

    def _pick(self, values: tuple[object, ...], usual: int) -> object:
        """Return one of the first ``usual`` values, or any."""
        is_usual = self._chance.random() < VALID
        return self._chance.choice(values[:usual] if is_usual else values)

    def _line(self, verb: str, **fields: object) -> bytes:
        if self._is_json:
            return json.dumps({"type": verb, **fields}).encode() + b"\n"
        words = (verb.upper(), *map(str, fields.values()))
        return " ".join(words).encode() + b"\n"
