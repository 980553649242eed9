"""Hidden values of a match: one whole number of ticks per 100 ms and symbol.

They are made before the match from the secret of the event. The SHA-256 of
their file is public before the opening, the file after the match, so anybody
can see that they were not changed. The random salt in the first line keeps
others from finding the values by trying them.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from hmac import digest
from pathlib import Path

from exchange.market.products import DERIVATIVES, payoff
from orderbook import Instrument

from .chance import (
    POINT_BITS,
    WORD_BITS,
    Stream,
    root_scale,
    scale,
    secret_of,
)
from .file import Event
from .output import PRIVATE, write_text
from .tables import FairSettings, News, Tender

__all__ = ["FairError", "FairPaths", "make_paths", "read_paths", "secret_of"]

STEP_MS = 100
STEPS_PER_S = 1_000 // STEP_MS
FILE = "fair.csv"
_SALT = re.compile(r"# salt ([0-9a-f]{32})")


class FairError(Exception):
    """A file of hidden values cannot be used; the text names it."""


@dataclass(frozen=True, slots=True)
class FairPaths:
    """The values of each symbol, one every STEP_MS, the opening first."""

    salt: str  # 32 hexadecimal digits
    values: Mapping[str, Sequence[int]]

    @property
    def last_ms(self) -> int:
        """Return the time of the last value: the end of trading."""
        steps = len(next(iter(self.values.values())))
        return (steps - 1) * STEP_MS

    def at(self, ms: int, symbol: str) -> int:
        """Return the value of a symbol, ``ms`` after the opening.

        Before the opening it is the first one, after the end the last one.
        """
        values = self.values[symbol]
        step = min(max(0, ms // STEP_MS), len(values) - 1)
        return values[step]

    def prices(self, ms: int) -> dict[str, int]:
        """Return the values of all symbols, ``ms`` after the opening."""
        return {symbol: self.at(ms, symbol) for symbol in self.values}

    def text(self) -> str:
        """Return the content of the file."""
        lines = [f"# salt {self.salt}", ",".join(["ms", *self.values])]
        for step, row in enumerate(zip(*self.values.values())):
            lines.append(",".join(map(str, (step * STEP_MS, *row))))
        return "\n".join(lines) + "\n"

    @property
    def commitment(self) -> str:
        """Return the SHA-256 of the file, in hexadecimal."""
        return sha256(self.text().encode()).hexdigest()

    def write(self, path: Path, mode: int = PRIVATE) -> str:
        """Write the file; return its commitment. Raises OSError."""
        write_text(path, self.text(), mode)
        return self.commitment


def read_paths(path: Path) -> FairPaths:
    """Read a file of hidden values; raises FairError and OSError."""
    try:
        return _parse(path.read_text("ascii"))
    except (ValueError, StopIteration) as error:
        raise FairError(f"{path}: no file of hidden values: {error}") from None


def _parse(text: str) -> FairPaths:
    lines = io.StringIO(text)
    salt = _SALT.fullmatch(next(lines).rstrip("\n"))
    rows = csv.reader(lines)
    first, *symbols = next(rows)
    if salt is None or first != "ms" or not symbols:
        raise ValueError("its first lines are others")
    columns = [array("q") for _ in symbols]
    for step, row in enumerate(rows):
        ms, *values = map(int, row)
        if ms != step * STEP_MS or len(values) != len(symbols):
            raise ValueError(f"row {step + 1} is another")
        for column, value in zip(columns, values):
            column.append(value)
    if not columns[0]:
        raise ValueError("there are no values")
    return FairPaths(salt[1], dict(zip(symbols, columns)))


# Making them --------------------------------------------------------------


def label_of(round_name: str, match_name: str, attempt: int) -> str:
    """Return the label of all chance of a match."""
    return f"{round_name}/{match_name}/{attempt}"


def make_paths(
    event: Event,
    round_name: str,
    match_name: str,
    attempt: int,
    secret: bytes,
) -> FairPaths:
    """Return the hidden values of a match; the same for the same arguments."""
    return paths_of(
        event,
        label_of(round_name, match_name, attempt),
        event.settings_of(round_name).trading,
        event.due_in(round_name, event.news),
        secret,
    )


def paths_of(
    event: Event,
    label: str,
    trading: int,
    news: Sequence[News],
    secret: bytes,
) -> FairPaths:
    """Return hidden values for ``trading`` seconds; ``label`` names them."""
    values: dict[str, Sequence[int]] = {}
    for symbol, settings in event.fair.items():
        if settings.kind != "basket":
            values[symbol] = _walk(
                settings,
                event.instruments[symbol],
                Stream(secret, f"{label}/{symbol}"),
                trading * STEPS_PER_S,
                {
                    act.at * STEPS_PER_S: act.jump
                    for act in _together(news)
                    if act.symbol == symbol
                },
            )
    for symbol in event.symbols:
        _derive(symbol, event.instruments, values)
    salt = digest(secret, f"{label}/salt".encode(), "sha256")[:16].hex()
    return FairPaths(
        salt, {symbol: values[symbol] for symbol in event.symbols}
    )


@dataclass(frozen=True, slots=True)
class _Jump:
    at: int  # in seconds
    symbol: str
    jump: int  # in ticks


def _together(news: Sequence[News]) -> list[_Jump]:
    """Return the jumps by news; those at one time are added up."""
    sums: dict[tuple[int, str], int] = {}
    for act in news:
        if act.symbol is not None and act.jump is not None:
            key = act.at, act.symbol
            sums[key] = sums.get(key, 0) + act.jump
    return [_Jump(at, symbol, jump) for (at, symbol), jump in sums.items()]


def _walk(
    settings: FairSettings,
    instrument: Instrument,
    stream: Stream,
    steps: int,
    jumps: Mapping[int, int],
) -> Sequence[int]:
    """Return a walk, or a constant; it stays within the bounds of prices.

    A step draws one normal number, then one number that decides whether the
    value jumps, then, if so, another normal number.
    """
    assert settings.start is not None
    sigma = _exact(settings.sigma or 0)
    factor = root_scale(sigma * sigma / STEPS_PER_S)
    limit = jump_factor = 0
    if settings.jump is not None:
        every = _exact(settings.jump.every) * STEPS_PER_S  # steps
        limit = int((1 << WORD_BITS) / every)
        jump_factor = scale(_exact(settings.jump.sigma))
    low, high = (
        price << POINT_BITS
        for price in (instrument.min_price, instrument.max_price)
    )
    place = settings.start << POINT_BITS
    values = array("q", [settings.start])
    half = 1 << POINT_BITS - 1
    for step in range(steps + 1):
        if step and settings.kind == "walk":
            place += stream.normal() * factor
            if limit and stream.word() < limit:
                place += stream.normal() * jump_factor
        place += jumps.get(step, 0) << POINT_BITS
        place = min(max(low, place), high)
        value = (place + half) >> POINT_BITS
        if step:
            values.append(value)
        else:
            values[0] = value
    return values


def _exact(number: float) -> Fraction:
    """Return a number as it stands in the event file."""
    return Fraction(str(number))


def _derive(
    symbol: str,
    instruments: Mapping[str, Instrument],
    values: dict[str, Sequence[int]],
) -> None:
    """Add the values of an instrument that follow from others."""
    if symbol in values:
        return
    instrument = instruments[symbol]
    if instrument.kind in DERIVATIVES:
        assert instrument.underlying is not None
        _derive(instrument.underlying, instruments, values)
        values[symbol] = array(
            "q",
            (payoff(instrument, v) for v in values[instrument.underlying]),
        )
        return
    assert instrument.convert is not None
    basket = instrument.convert.basket
    for part in basket:
        _derive(part, instruments, values)
    worth = [
        count * instruments[part].tick_value for part, count in basket.items()
    ]
    unit = instrument.tick_value * instrument.convert.per
    low, high = instrument.min_price, instrument.max_price
    values[symbol] = array(
        "q",
        (
            min(max(low, sum(map(int.__mul__, worth, row)) // unit), high)
            for row in zip(*(values[part] for part in basket))
        ),
    )


# Other chance of a match ---------------------------------------------------


def house_seed(label: str, secret: bytes) -> int:
    """Return the seed of the house bots of a match."""
    return int.from_bytes(digest(secret, f"{label}/house".encode(), "sha256"))


def edge_of(tender: Tender, number: int, label: str, secret: bytes) -> int:
    """Return how many ticks better than fair a tender is.

    ``number`` is its place in the event file, from 0.
    """
    low, high = tender.edge
    return Stream(secret, f"{label}/tender/{number}").within(low, high)
