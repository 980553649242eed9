"""Keys of the accounts of an event: ``python -m util.event keys``.

The key file of the exchange has a digest of each key, as `util.accounts`
makes it. A team's new key is printed once. Keys of accounts that the director
starts (house bots, bots of teams, its own) are also in ``DATA/tokens.tsv``,
which only its owner can read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from exchange.host.keyfile import (
    Entries,
    KeysError,
    changing,
    digest_of,
    make_entry,
    make_token,
    read_keys,
    rotate,
)
from orderbook import RoleName
from util.accounts import show
from util.bots.plan import Plan
from util.cli import failed, read_tokens, utf8

from .file import Event, EventError, read_event
from .file_checks import ADMINISTRATOR, HOUSE_PREFIX, SPECTATOR
from .options import event_parser
from .output import PRIVATE, write_text
from .processes import end_bot
from .record import FILE, Record

KEYS_FILE = "keys.json"
TOKENS_FILE = "tokens.tsv"


def house_names(event: Event) -> list[str]:
    """Return the names of the house bots."""
    house = event.house
    if house is None:
        return []
    plan = Plan(
        url=None,
        symbols=[],
        makers=house.makers,
        noise=house.noise,
        informed=house.informed,
        arbitrageurs=house.arbitrageurs,
        values={},
        seed=0,
        speed=house.speed,
        user_prefix=HOUSE_PREFIX,
        tokens={},
    )
    return [name for _, name in plan.names()]


def own_names(event: Event) -> list[str]:
    """Return the accounts whose keys the director needs."""
    bots = [name for name, team in event.teams.items() if team.bot]
    return [ADMINISTRATOR, SPECTATOR, *house_names(event), *bots]


def tokens_of(folder: Path) -> dict[str, str]:
    """Return the keys of ``tokens.tsv`` by name; raises OSError, ValueError.

    Empty if there is no such file.
    """
    path = folder / TOKENS_FILE
    return read_tokens(path) if path.exists() else {}


def make_own_keys(event: Event) -> list[str]:
    """Make the keys that the director needs; return teams without a key.

    Raises what `make_keys` raises.
    """
    make_keys(event, teams=())
    keys = read_keys(event.folder / KEYS_FILE)
    return [team for team in event.teams if team not in keys]


def make_keys(
    event: Event,
    anew: Iterable[str] = (),
    teams: Iterable[str] | None = None,
) -> dict[str, str]:
    """Make the keys that are missing; return the new ones of teams.

    ``teams`` are those that get a key, besides those with a bot; None: all.
    The teams in ``anew`` get other keys; their old ones end. Raises KeysError,
    OSError or ValueError; then no key has changed.
    """
    names = [*own_names(event), *(event.teams if teams is None else teams)]
    anew = set(anew)
    own = own_names(event)
    before = tokens_of(event.folder)
    tokens: dict[str, str] = {}
    made: dict[str, str] = {}
    with changing(event.folder / KEYS_FILE, create=True) as accounts:
        for name in dict.fromkeys(names):
            token = before.get(name)
            is_known = name in accounts and (
                name not in own or _opens(accounts, name, token)
            )
            if not is_known or name in anew:
                token = made[name] = make_token()
                _set_key(accounts, name, token)
            if token is not None and name in own:
                tokens[name] = token
        # Before the key file: a key that is written here only is made again.
        if tokens != before:
            _write_tokens(event.folder / TOKENS_FILE, tokens)
    return {name: made[name] for name in event.teams if name in made}


def _opens(accounts: Entries, name: str, token: str | None) -> bool:
    """Return whether a token is the key of an account."""
    return token is not None and accounts[name].sha256 == digest_of(token)


def _set_key(accounts: Entries, name: str, token: str) -> None:
    if name in accounts:
        accounts[name] = rotate(accounts[name], token)
    else:
        accounts[name] = make_entry(token, _role(name))


def _role(name: str) -> RoleName:
    """Return the role of an account of the event."""
    if name == ADMINISTRATOR:
        return "admin"
    if name == SPECTATOR:
        return "spectator"
    return "house" if name.startswith(HOUSE_PREFIX) else "trader"


def _write_tokens(path: Path, tokens: dict[str, str]) -> None:
    lines = (f"{name}\t{token}\n" for name, token in tokens.items())
    write_text(path, "".join(lines), PRIVATE)


def end_bot_of(event: Event, team: str) -> None:
    """End the bot of a team whose key was replaced; `run` starts it again."""
    if (event.folder / FILE).exists():
        with Record.of(event.folder) as record:
            if end_bot(record, team):
                print(
                    f"the bot of {team} is started again with the new key",
                    file=sys.stderr,
                )


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.event keys``; return the exit status."""
    parser = event_parser(
        "keys",
        "Make the keys of teams that have none, and show each of them once.",
    )
    parser.add_argument(
        "teams", type=utf8, nargs="*", metavar="TEAM", help="with --new"
    )
    parser.add_argument(
        "--new",
        action="store_true",
        help="make other keys for these teams; their old ones end at once",
    )
    options = parser.parse_args(arguments)
    if options.new != bool(options.teams):
        parser.error("TEAM and --new go together")
    try:
        event = read_event(options.event)
        for name in options.teams:
            if name not in event.teams:
                return failed("event keys", f"{name!r} is not a team", 1)
        tokens = make_keys(event, options.teams)
        if tokens:
            lines = (f"{name}\t{token}" for name, token in tokens.items())
            show(
                "\n".join(lines),
                "the keys could not be shown; make them anew with --new: ",
            )
    except (EventError, KeysError, OSError, ValueError) as error:
        return failed("event keys", error)
    for name in options.teams:
        end_bot_of(event, name)
    what = "key" if len(tokens) == 1 else "keys"
    print(
        f"{event.folder / KEYS_FILE}: {len(tokens)} new {what} of teams;"
        " a key is shown only once",
        file=sys.stderr,
    )
    return 0
