"""Rehearse an event: ``python -m util.simulate event.toml --seed 7``."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from exchange.host.keyfile import KeysError
from exchange.host.market_file import SettingsError
from util.cli import failed, new_parser, set_up_output
from util.event.conduct import ActRefused
from util.event.file import EventError, read_event
from util.event.publish import UNSCORED
from util.event.rehearse import Rehearsal, moved

from .world import SimulationError

TOOL = "simulate"
SEED_BITS = 32


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_parser(
        TOOL,
        "Play a whole event in virtual time, with the bots of its teams.",
        "exit status: 0 done, 1 a bot ended early by an error or the exchange"
        " failed, 2 wrong usage or a wrong file",
    )
    add = parser.add_argument
    add("event", type=Path, metavar="event.toml", help="the event file")
    add(
        "--seed",
        type=int,
        help="seed of all random choices (default: a new one, printed)",
    )
    add(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="write journal, dossiers and standings to this new folder",
    )
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.getrandbits(SEED_BITS)
    if options.data is not None and options.data.exists():
        parser.error(f"--data: {options.data} exists")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Play the event; return the exit status."""
    options = parse(arguments)
    set_up_output()
    try:
        event = read_event(options.event)
        with ExitStack() as stack:
            folder = options.data or Path(
                stack.enter_context(tempfile.TemporaryDirectory())
            )
            rehearsal = Rehearsal(
                moved(event, folder.absolute()), options.seed, sys.stdout
            )
            for team in rehearsal.left_out:
                print(f"{team} is left out: its bot is no file of Python")
            standings, failures, digest = rehearsal.run()
    except (EventError, KeysError, SettingsError) as error:
        return failed(TOOL, error)
    except (SimulationError, ActRefused, *UNSCORED) as error:
        return failed(TOOL, error.__cause__ or error, 1)
    for line in standings.lines():
        print(line)
    for failure in failures.values():
        print(failure)
    print(f"seed {options.seed}, digest {digest}")
    return 1 if failures else 0
