"""Run an event: ``python -m util.event COMMAND event.toml ...``.

Exit status: 0 done, 1 refused or failed, 2 the command line or a file is
wrong.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from util.cli import program, set_up_output

# The module of each command, whose ``main(arguments)`` returns the exit
# status, and what the command does. A module is imported when it is needed.
COMMANDS = {
    "check": ("check", "read the event file and print the plan"),
    "keys": ("keys", "make missing keys of teams, and show them once"),
    "run": ("run", "play the event, or go on where it was"),
    "status": ("status", "show where the event stands"),
    "pause": ("pause", "let the trading time stand still"),
    "resume": ("resume", "let the trading time go on"),
    "stop": ("stop", "end all processes of the event in order"),
    "practice": ("practice", "run practice servers until stopped"),
    "score": ("standings", "make the standings from the journals"),
    "dossier": ("dossier", "write dossiers from the journals"),
    "void": ("void", "let a match count for nothing"),
    "replay": ("replay", "print every command and event of a match"),
    "serve": ("serve", "serve standings, dossiers and downloads"),
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command; exits with status 2 if it is wrong."""
    lines = (f"  {name:<9} {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog=program("event"),
        description="Run an event that one file describes.",
        epilog="\n".join(
            (
                "commands:",
                *lines,
                "",
                f"options of a command: {program('event')} COMMAND --help",
                "exit status: 0 done, 1 refused or failed, 2 wrong usage or"
                " a wrong file",
            )
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    parser.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="...",
        help="the event file, and options of the command",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event``; return the exit status."""
    options = parse(arguments)
    set_up_output()
    module = import_module(f"util.event.{COMMANDS[options.command][0]}")
    status: int = module.main(options.arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
