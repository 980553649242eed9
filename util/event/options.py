"""What the commands of an event share: the event file as an argument."""

from __future__ import annotations

import argparse
from pathlib import Path

from util.cli import new_parser


def event_parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a command, whose first argument is the file."""
    parser = new_parser(
        f"event {command}",
        description,
        "exit status: 0 done, 1 refused or failed, 2 wrong usage or a wrong"
        " file",
    )
    parser.add_argument(
        "event", type=Path, metavar="event.toml", help="the event file"
    )
    return parser
