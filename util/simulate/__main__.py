"""Run rounds in virtual time: ``python -m util.simulate BOT.py ...``.

Exit status: 0 done, 1 a bot ended early by an error or the exchange failed,
2 the command line is wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TextIO

from pydantic_core import to_json
from tqdm import tqdm

from exchange.host.market_file import SettingsError
from exchange.journal.sqlite import JournalError
from util.cli import (
    above_0,
    count,
    drop_output,
    failed,
    new_parser,
    set_up_output,
    whole,
)

from .latency import DEFAULT_LATENCY, Latency
from .recording import FlowError
from .result import Result, summary
from .rounds import Plan, rounds
from .world import HOUSE, SECONDS, Entry, Simulation, SimulationError

SEED_BITS = 32


def new_options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(
        "simulate",
        "Run an exchange, house bots and your bots in virtual time.",
        "exit status: 0 done, 1 a bot ended early by an error or the exchange"
        " failed, 2 wrong usage",
    )
    add = parser.add_argument
    add(
        "bots",
        nargs="*",
        type=_bot,
        metavar="BOT.py[@LATENCY]",
        help="file of a bot, with its own latency if it has one, as in"
        " mybot.py@5ms±1ms",
    )
    add(
        "--seconds",
        type=above_0,
        metavar="S",
        help=f"market time of a round (default: {SECONDS:g}; with --flow, that"
        " of the recording)",
    )
    add(
        "--seed",
        type=int,
        help="seed of all random choices (default: a new one, printed)",
    )
    add(
        "--runs",
        type=whole,
        default=1,
        metavar="N",
        help="rounds, with the seeds SEED, SEED+1, ..., over all processors",
    )
    add(
        "--latency",
        type=_latency,
        default=str(DEFAULT_LATENCY),
        metavar="T",
        help="time of each message in one direction, as in 2ms or 500us±100us",
    )
    add(
        "--flow",
        type=Path,
        metavar="FILE",
        help="journal or trades.csv, whose orders are sent again by accounts"
        " @flow.NAME",
    )
    add(
        "--market",
        type=Path,
        metavar="FILE",
        help="market file (default with --flow: the market of the recording)",
    )
    for option, number, what in zip(
        ("--makers", "--noise", "--informed"),
        HOUSE,
        ("market makers", "noise traders", "informed traders"),
    ):
        add(
            option,
            type=count,
            metavar="N",
            help=f"{what} (default: {number}; with --flow: 0)",
        )
    add(
        "--speed",
        type=above_0,
        default=1.0,
        metavar="HZ",
        help="times per second that each house bot acts on each instrument",
    )
    add(
        "--journal",
        type=Path,
        metavar="FILE",
        help="write the journal of the round to a new file, for util.replay",
    )
    add(
        "--json",
        action="store_true",
        help="print each round as one line of JSON",
    )
    return parser


def parse(arguments: list[str] | None = None) -> Plan:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_options()
    given = vars(parser.parse_args(arguments))
    if given["seed"] is None:
        given["seed"] = random.getrandbits(SEED_BITS)
    if given["journal"] and given["runs"] > 1:
        parser.error("--journal: is for one round")
    if given["journal"] and given["journal"].exists():
        parser.error(f"--journal: {given['journal']} exists")
    return Plan(
        bots=tuple(given.pop("bots")),
        seconds=given.pop("seconds"),
        seed=given.pop("seed"),
        runs=given.pop("runs"),
        is_json=given.pop("json"),
        journal=given.pop("journal"),
        options=given,
    )


def _bot(argument: str) -> str:
    try:
        Entry.read(argument)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return argument


def _latency(argument: str) -> str:
    try:
        return str(Latency.read(argument))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run_one(plan: Plan) -> list[Result]:
    """Run one round with progress; print and return its result."""
    out: TextIO = sys.stderr if plan.is_json else sys.stdout
    with (
        Simulation(
            *plan.bots, seed=plan.seed, out=out, **plan.options
        ) as simulation,
        tqdm(
            unit=" s",
            desc="market time",
            bar_format="{desc}: {n:.0f} of {total:.0f} s {bar}"
            " {elapsed}<{remaining}",
            leave=False,
            disable=None,  # where standard error is no terminal
            total=plan.seconds or simulation.round_seconds,
        ) as bar,
    ):

        def progress(seconds: float) -> None:
            bar.update(min(seconds, float(bar.total or 0)) - bar.n)

        result = simulation.run(plan.seconds, progress)
        bar.close()
        show(plan, result)
        if plan.journal is not None:
            simulation.journal.save(plan.journal)
    return [result]


def run_many(plan: Plan) -> list[Result]:
    """Run rounds over all processors; print and return their results."""
    results: list[Result] = []
    with (
        closing(rounds(plan)) as played,
        tqdm(
            total=plan.runs, unit=" rounds", leave=False, disable=None
        ) as bar,
        suppress(KeyboardInterrupt),
    ):
        for result in played:
            results.append(result)
            bar.update()
            if plan.is_json:
                show(plan, result)
    if not plan.is_json and results:
        print(summary(results))
        for line in _failures(results):
            print(line)
        print(
            f"{len(results)} rounds of {results[0].seconds:g} s of market,"
            f" seeds {plan.seed} to {results[-1].seed}"
        )
    return results


def _failures(results: Sequence[Result]) -> Iterator[str]:
    """Yield the first failure of each bot, with the number of its rounds."""
    for name in dict.fromkeys(bot for r in results for bot in r.failures):
        failed_in = [r for r in results if name in r.failures]
        first = failed_in[0]
        yield (
            f"{name} ended early in {len(failed_in)} rounds; with seed"
            f" {first.seed}:\n{first.failures[name]}"
        )


def show(plan: Plan, result: Result) -> None:
    """Print the result of one round."""
    if plan.is_json:
        print(to_json(result).decode(), flush=True)
        for failure in result.failures.values():
            print(failure, file=sys.stderr)
    else:
        print(result, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.simulate``; return the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if any(word.endswith(".toml") for word in words[:1]):
        from .event import main as rehearse  # it imports this package

        return rehearse(words)
    plan = parse(arguments)
    set_up_output(is_data=plan.is_json)
    try:
        results = run_one(plan) if plan.runs == 1 else run_many(plan)
    except BrokenPipeError:
        drop_output()
        return 0
    except SimulationError as error:
        return failed("simulate", error.__cause__ or error, 1)
    except (FlowError, SettingsError, JournalError, OSError) as error:
        return failed("simulate", error)
    return 1 if any(result.failures for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
