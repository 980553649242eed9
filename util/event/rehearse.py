"""A whole event in virtual time: ``python -m util.simulate event.toml``.

The same file, the same acts at the same times, and the same scores as with
`run`; only the clock and the network are those of a simulation. Hidden values
come from the seed instead of a secret. Bots of teams take part if they are
Python files.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TextIO

from client import Exchange, ExchangeError
from exchange.host.keyfile import KeysError
from exchange.host.market_file import SettingsError
from exchange.journal.sqlite import JournalError
from orderbook import Refused
from util.bots.house import Plan as HousePlan
from util.bots.house import run_house
from util.cli import above_0, failed, new_parser, set_up_output
from util.simulate.exchange import URL
from util.simulate.world import Nowhere, Simulation, SimulationError

from .conduct import ActRefused, Conductor
from .dossier import write_dossiers
from .fair import FairError, make_paths
from .figures import ResultError
from .file import Event, EventError, read_event
from .file_checks import ADMINISTRATOR, HOUSE_PREFIX
from .keys import KEYS_FILE, make_keys, tokens_of
from .market import MARKET_FILE, write_market
from .matches import match_of, next_match
from .record import Key, Record
from .scoring import RuleError
from .standings import write_standings

TOOL = "simulate"
SETTLING_S = 1.0  # market time between two rounds


class Rehearsal:
    """Plays an event in a simulation; the results are in a data folder.

    ``event`` has that folder as its own. What bots print goes to ``out``.
    """

    def __init__(self, event: Event, seed: int, out: TextIO) -> None:
        self._event = event
        self._seed = seed
        self._secret = sha256(f"simulation {seed}".encode()).digest()
        make_keys(event)
        write_market(event)
        self._tokens = tokens_of(event.folder)
        self.left_out = [t for t in event.teams if _file_of(event, t) is None]
        self._simulation = Simulation(
            seed=seed,
            market=event.folder / MARKET_FILE,
            keys=event.folder / KEYS_FILE,
            entries=_entries(event, self._tokens),
            makers=0,
            noise=0,
            informed=0,
            out=out,
        )

    def run(self) -> tuple[dict[str, str], str]:
        """Play all rounds; return the bots that failed, and the digest.

        Raises SimulationError, ActRefused, and what standings raise.
        """
        with self._simulation as simulation:
            playing = simulation.inject(self._play(), name=ADMINISTRATOR)
            simulation.run_until(playing)
            result = simulation.end()
            simulation.journal.save(self._event.folder / "journal.db")
        return result.failures, result.digest

    async def _play(self) -> None:
        event = self._event
        token = self._tokens[ADMINISTRATOR]
        async with Exchange(URL, ADMINISTRATOR, token) as exchange:
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
        paths = make_paths(
            event, key.round, key.match, key.attempt, self._secret
        )
        paths.write(event.folder / key.round / key.match / "fair.csv")
        number = exchange.round + bool(record.attempts())
        record.begin(key, "start", number=number)
        record.done(key, "fair", sha256=paths.commitment)
        match = match_of(event, key, number, paths, self._secret)
        conductor = Conductor(exchange, match, record, time_us, _drop)
        house = house_plan(event, key, paths, self._secret, self._tokens)
        trading = None
        if house is not None:
            trading = asyncio.create_task(run_house(house, say=_drop))
        await conductor.play()
        if trading is not None:
            trading.cancel()
            with contextlib.suppress(
                asyncio.CancelledError, ExchangeError, Refused
            ):
                await trading
        await asyncio.sleep(SETTLING_S)
