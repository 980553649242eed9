"""A whole event in virtual time: ``python -m util.simulate event.toml``.

The same file, the same acts at the same times and the same scores as with
`run`; only clock and network are those of a simulation. Hidden values come
from the seed. Bots of teams take part if they are files of Python.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TextIO

from client import Exchange
from exchange.host.keyfile import changing, make_entry, make_token
from util.bots.fair_file import FairFile
from util.bots.house import run_house
from util.bots.plan import Plan as HousePlan
from util.simulate.exchange import URL
from util.simulate.world import Entry, Simulation

from .conduct import Conductor
from .dossier import write_dossiers
from .fair import FairPaths, house_seed
from .fair import label_of as chance_of
from .fair import make_paths
from .file import Event
from .file_checks import ADMINISTRATOR, HOUSE_PREFIX
from .keys import KEYS_FILE
from .market import MARKET_FILE, write_market
from .matches import match_of, next_match
from .record import Key, Record
from .specs import JOURNAL_FILE, program_of
from .standings import Standings, write_standings


def moved(event: Event, folder: Path) -> Event:
    """Return the event with another data folder."""
    settings = event.event.model_copy(update={"data": str(folder)})
    other = event.model_copy(update={"event": settings})
    other._path, other._market = event.path, event.market
    return other


def file_of(event: Event, team: str) -> Path | None:
    """Return the Python file that is a team's bot; None: it is no such."""
    settings = event.teams[team]
    if settings.door != "native" or len(settings.bot) != 2:
        return None
    program, name = settings.bot
    path = event.path.parent / name
    is_python = program_of(program) != [program] and path.suffix == ".py"
    return path if is_python and path.is_file() else None


class Rehearsal:
    """Plays an event in a simulation; ``event`` has a folder of its own.

    What bots print goes to ``out``, what the director does to ``say``.
    """

    def __init__(self, event: Event, seed: int, out: TextIO) -> None:
        self.left_out: list[str] = []
        self._event = event
        self._secret = sha256(f"simulation {seed}".encode()).digest()
        self._token = make_token()
        keys = event.folder / KEYS_FILE
        with changing(keys, create=True) as accounts:
            accounts[ADMINISTRATOR] = make_entry(self._token, "admin")
        write_market(event)
        self._simulation = Simulation(
            *self._entries(),
            seed=seed,
            market=event.folder / MARKET_FILE,
            keys=keys,
            makers=0,
            noise=0,
            informed=0,
            out=out,
        )
        self._lines: list[str] = []

    def _entries(self) -> Iterator[Entry]:
        for team in self._event.teams:
            path = file_of(self._event, team)
            if path is None:
                self.left_out.append(team)
            else:
                yield Entry(path, user=team)

    def run(self) -> tuple[Standings, dict[str, str], str]:
        """Play all rounds; return standings, failures of bots, digest.

        Raises SimulationError, ActRefused, OSError and what standings raise.
        """
        event = self._event
        with self._simulation as simulation:
            playing = simulation.inject(self._play(), name=ADMINISTRATOR)
            simulation.run_until(playing)
            result = simulation.end()
            simulation.journal.save(event.folder / JOURNAL_FILE)
        with Record.of(event.folder) as record:
            for key in record.attempts():
                write_dossiers(event, key.round, key.match)
        return write_standings(event), result.failures, result.digest

    async def _play(self) -> None:
        event = self._event
        async with Exchange(URL, ADMINISTRATOR, self._token) as exchange:
            with Record.of(event.folder) as record:
                while True:
                    key = next_match(event, record.attempts())
                    if key is None:
                        return
                    await self._match(exchange, record, key)
                    record.done(key, "score")

    async def _match(
        self, exchange: Exchange, record: Record, key: Key
    ) -> None:
        """Play one match with its house bots."""
        event = self._event
        label = chance_of(key.round, key.match, key.attempt)
        paths = make_paths(
            event, key.round, key.match, key.attempt, self._secret
        )
        paths.write(event.folder / key.round / key.match / "fair.csv")
        number = exchange.round + bool(record.attempts())
        record.begin(key, "start", number=number)
        record.done(key, "fair", sha256=paths.commitment)
        match = match_of(event, key, number, paths, self._secret)
        conductor = Conductor(exchange, match, record, self._lines.append)
        seed = house_seed(label, self._secret)
        trading = asyncio.create_task(self._trade(paths, seed))
        try:
            await conductor.play()
        finally:
            trading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await trading

    async def _trade(self, paths: FairPaths, seed: int) -> None:
        """Let the house bots trade until canceled."""
        house = self._event.house
        if house is None:
            return
        plan = HousePlan(
            url=URL,
            symbols=(),
            makers=house.makers,
            noise=house.noise,
            informed=house.informed,
            arbitrageurs=house.arbitrageurs,
            values={},
            seed=seed,
            speed=house.speed,
            user_prefix=HOUSE_PREFIX,
            tokens={},
            fair=FairFile(paths.text()),
            trades_per_s=house.trades_per_s,
        )
        await run_house(plan, say=self._lines.append)
