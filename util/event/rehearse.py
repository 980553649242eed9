"""A whole event in virtual time: ``python -m util.simulate event.toml``.

The same file, the same acts at the same times and the same scores as with
`run`; only clock and network are those of a simulation. Hidden values come
from the seed. Bots of teams take part if they are files of Python.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from client import Exchange
from exchange.host.keyfile import changing, make_entry, make_token
from util.bots.fair_file import FairFile
from util.bots.house import run_house
from util.bots.plan import Plan as HousePlan
from util.simulate.exchange import PORT, URL
from util.simulate.result import Result
from util.simulate.world import Entry, Simulation

from .conduct import Conductor
from .dossier import write_dossiers
from .draws import next_batch
from .fair import FairPaths, house_seed
from .fair import label_of as chance_of
from .file import Event
from .file_checks import ADMINISTRATOR, HOUSE_PREFIX
from .front.table import Ports
from .isolated import event_of
from .keys import KEYS_FILE
from .market import MARKET_FILE, write_market
from .matches import match_of, next_match, values_of
from .record import Key, Record, read_matches
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

    What bots print goes to ``out``.
    """

    def __init__(self, event: Event, seed: int, out: TextIO) -> None:
        self._event = event
        self._seed = seed
        self._out = out
        self._secret = sha256(f"simulation {seed}".encode()).digest()
        self._token = make_token()
        self._lines: list[str] = []

    @property
    def left_out(self) -> list[str]:
        """Return the teams whose bots are no files of Python."""
        teams = self._event.teams
        return [team for team in teams if file_of(self._event, team) is None]

    def run(self) -> tuple[Standings, dict[str, str], str]:
        """Play all rounds; return standings, failures of bots, digest.

        Raises SimulationError, ActRefused, OSError and what standings raise.
        """
        if self._event.is_large:
            return self._play_matches()
        return self._play_together()

    # One exchange for all

    def _play_together(self) -> tuple[Standings, dict[str, str], str]:
        event = self._event
        write_market(event)
        result = self._simulate(event, self._seed, self._play_all)
        for row in read_matches(event.folder):
            write_dossiers(event, row.round, row.match)
        return write_standings(event), result.failures, result.digest

    async def _play_all(self) -> None:
        event = self._event
        async with Exchange(URL, ADMINISTRATOR, self._token) as exchange:
            with Record.of(event.folder) as record:
                while key := next_match(event, record.attempts()):
                    number = exchange.round + bool(record.attempts())
                    await self._match(event, exchange, record, key, number)

    # One exchange for each match

    def _play_matches(self) -> tuple[Standings, dict[str, str], str]:
        """Play one match after the other: none of them sees another."""
        event, failures, digest = self._event, dict[str, str](), sha256()
        standings = write_standings(event)
        while batch := self._next_batch():
            for key in batch:
                match = event_of(event, key, Ports(PORT))
                write_market(match, is_alone=True)
                result = self._simulate(
                    match,
                    self._seed_of(key),
                    partial(self._play_one, match, key),
                )
                failures |= result.failures
                digest.update(bytes.fromhex(result.digest))
                write_dossiers(event, key.round, key.match)
            standings = write_standings(event)
        return standings, failures, digest.hexdigest()

    def _seed_of(self, key: Key) -> int:
        """Return the seed of the simulation of a match."""
        label = f"{self._seed}/{key.round}/{key.match}"
        return int.from_bytes(sha256(label.encode()).digest()[:4])

    def _next_batch(self) -> list[Key]:
        with Record.of(self._event.folder) as record:
            return next_batch(self._event, record)

    async def _play_one(self, match: Event, key: Key) -> None:
        async with Exchange(URL, ADMINISTRATOR, self._token) as exchange:
            with Record.of(self._event.folder) as record:
                await self._match(match, exchange, record, key, exchange.round)

    # Both

    def _simulate(
        self,
        event: Event,
        seed: int,
        play: Callable[[], Coroutine[Any, Any, None]],
    ) -> Result:
        """Run a market with the bots of its teams until all is played."""
        keys = event.folder / KEYS_FILE
        with changing(keys, create=True) as accounts:
            accounts[ADMINISTRATOR] = make_entry(self._token, "admin")
        paths = {team: file_of(self._event, team) for team in event.teams}
        entries = [Entry(p, user=t) for t, p in paths.items() if p is not None]
        with Simulation(
            *entries,
            seed=seed,
            market=event.folder / MARKET_FILE,
            keys=keys,
            makers=0,
            noise=0,
            informed=0,
            out=self._out,
        ) as simulation:
            task = simulation.inject(play(), name=ADMINISTRATOR)
            simulation.run_until(task)
            result = simulation.end()
            simulation.journal.save(event.folder / JOURNAL_FILE)
        return result

    async def _match(
        self,
        event: Event,
        exchange: Exchange,
        record: Record,
        key: Key,
        number: int,
    ) -> None:
        """Play one match with its house bots."""
        record.begin(key, "start", number=number)
        paths = values_of(self._event, record, key, self._secret)
        match = match_of(event, key, number, paths, self._secret)
        conductor = Conductor(exchange, match, record, self._lines.append)
        label = chance_of(key.round, key.match, key.attempt)
        seed = house_seed(label, self._secret)
        trading = asyncio.create_task(self._trade(paths, seed))
        try:
            await conductor.play()
        finally:
            trading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await trading
        record.done(key, "score")

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
