"""Manage the accounts that may log in, and their keys.

``python -m util.accounts`` shows a key only when it makes it: one line
``name<TAB>token<TAB>API secret`` for each account on standard output,
everything else on standard error. The secret signs requests of the exchange
dialect. A running exchange reads a changed key file by itself.

Exit status: 0 done, 1 refused (nothing has changed), 2 the command line is
wrong or a file cannot be used.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args
from urllib.request import urlopen

from client import Exchange
from exchange.host.keyfile import (
    DEFAULT_PATH,
    Entries,
    KeysError,
    changing,
    is_user,
    make_entry,
    make_token,
    read_keys,
    role_of,
    rotate,
)
from exchange.host.keyring import ACCESS_BY_KEY
from orderbook import RoleName

from .cli import drop_output, failed, new_parser, set_up_output, utf8

COUNT_MAX = 10_000  # no exchange takes more connections
ANSWER_S = 2.0  # an exchange on this machine answers in milliseconds
DONE = {
    "add": "added",
    "disable": "disabled",
    "enable": "enabled",
    "rotate": "given a new key",
    "remove": "removed",
}


class Refusal(Exception):
    """The request is refused, and nothing has changed."""


def new_options() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = new_parser(
        "accounts",
        "Manage the accounts that may log in, and their keys.",
        "exit status: 0 done, 1 refused, 2 wrong usage or a file problem",
    )
    parser.add_argument(
        "--keys",
        type=Path,
        metavar="PATH",
        help="the key file (default: $EXCHANGE_SERVER_KEYS, or"
        f" {DEFAULT_PATH})",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str, nargs: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=text, description=text)
        parser.add_argument("names", type=utf8, nargs=nargs, metavar="NAME")
        return parser

    adding = command(
        "add",
        "Add accounts and show their keys. From the first account on every"
        " login needs a key.",
        "*",
    )
    adding.add_argument(
        "--count",
        type=int,
        metavar="N",
        help="add N accounts, named --prefix and a number from 1 to N",
    )
    adding.add_argument(
        "--prefix",
        type=utf8,
        help="first part of the names that --count makes",
    )
    adding.add_argument(
        "--role",
        choices=get_args(RoleName),
        default="trader",
        help="what they may do: a house account trades and is not ranked, a"
        " spectator does not trade (default: trader)",
    )
    adding.add_argument(
        "--admin",
        action="store_const",
        const="admin",
        dest="role",
        help="make them administrators, the same as --role admin",
    )
    listing = commands.add_parser("list", help="Show the accounts.")
    listing.add_argument("--json", action="store_true", help="print JSON")
    command("disable", "Refuse logins to accounts; their keys are kept.", "+")
    command("enable", "Accept logins again, with the same keys.", "+")
    command("rotate", "Replace keys; the old ones end at once.", "+")
    command("remove", "Delete keys; orders and cash stay.", "+")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_options()
    options = parser.parse_args(arguments)
    named = options.keys or os.environ.get("EXCHANGE_SERVER_KEYS")
    options.keys = Path(named or DEFAULT_PATH)
    options.is_named = bool(named)
    if options.command == "add":
        _check_numbering(parser, options)
    return options


def _check_numbering(
    parser: argparse.ArgumentParser, options: argparse.Namespace
) -> None:
    is_numbered = options.count is not None
    if is_numbered != (options.prefix is not None):
        parser.error("--count and --prefix go together")
    if is_numbered == bool(options.names):
        parser.error("give names, or --count and --prefix")
    if is_numbered and not 1 <= options.count <= COUNT_MAX:
        parser.error(f"--count: must be 1 to {COUNT_MAX:,}")


def names_of(options: argparse.Namespace) -> list[str]:
    """Return the names given, or those of --count and --prefix.

    Raises Refusal if one is given twice.
    """
    if options.command == "add" and options.count:
        width = len(str(options.count))  # so that names sort by number
        return [
            f"{options.prefix}{number:0{width}}"
            for number in range(1, options.count + 1)
        ]
    names: list[str] = options.names
    for name, count in Counter(names).items():
        if count > 1:
            raise Refusal(f"{name!r} is given twice")
    return names


def check(accounts: Entries, names: list[str], is_new: bool) -> None:
    """Raise Refusal unless all names are new and valid, or all are known."""
    for name in names:
        if is_new and not is_user(name):
            raise Refusal(
                f"{name!r} is not a name: 1 to 32 of A-Z a-z 0-9 _ . -"
            )
        if is_new and name in accounts:
            raise Refusal(f"{name!r} exists already")
        if not is_new and name not in accounts:
            raise Refusal(f"{name!r} is not an account")


def change(
    options: argparse.Namespace, names: list[str]
) -> dict[str, tuple[str, str]]:
    """Carry out any command but list; return the new keys by name.

    A key is a token and an API secret.

    Raises Refusal, KeysError or OSError, and changes nothing then.
    """
    command = options.command
    keys: dict[str, tuple[str, str]] = {}
    if command in ("add", "rotate"):
        keys = {name: (make_token(), make_token()) for name in names}
    if command == "add" and not options.is_named:
        _check_no_other(options.keys)
    with changing(options.keys, create=command == "add") as accounts:
        check(accounts, names, is_new=command == "add")
        for name in names:
            match command:
                case "add":
                    token, secret = keys[name]
                    accounts[name] = make_entry(token, options.role, secret)
                case "rotate":
                    accounts[name] = rotate(accounts[name], *keys[name])
                case "remove":
                    del accounts[name]
                case _:
                    accounts[name] = accounts[name].model_copy(
                        update={"is_disabled": command == "disable"}
                    )
    return keys


def _check_no_other(keys: Path) -> None:
    """Raise KeysError if the exchange on this machine reads another file.

    It asks for keys although ``keys`` does not exist: its file was named in
    another shell, or is in another folder.
    """
    if keys.exists():
        return
    for url in Exchange(user="").urls:
        if _asks_for_keys(url):
            raise KeysError(
                f"{keys.absolute()} does not exist, but the exchange at {url}"
                " asks for keys: name its key file with --keys or"
                " EXCHANGE_SERVER_KEYS"
            )


def _asks_for_keys(url: str) -> bool:
    """Return whether an exchange answers that a login needs a key."""
    address = f"http{url.removeprefix('ws').rstrip('/')}/v1/access"
    try:
        with urlopen(address, timeout=ANSWER_S) as answer:
            text: bytes = answer.read()
    except (OSError, ValueError):
        return False
    return text.decode(errors="replace").strip() == ACCESS_BY_KEY


def show(text: str, otherwise: str = "") -> None:
    """Print a text; raises OSError if it may be lost."""
    try:
        print(text, flush=True)
    except OSError as error:
        drop_output()
        raise OSError(f"{otherwise}{error.strerror}") from None


def as_table(accounts: Entries) -> str:
    """Return accounts as a table of text; times are UTC."""
    rows = [("name", "role", "login", "added", "key made")]
    for name, entry in sorted(accounts.items()):
        added, made = (
            f"{datetime.fromtimestamp(ts // 1_000_000, UTC):%Y-%m-%d %H:%M:%S}"
            for ts in (entry.created_ts, entry.rotated_ts)
        )
        login = "disabled" if entry.is_disabled else "enabled"
        rows.append((name, role_of(entry), login, added, made))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows
    )


def describe(accounts: Entries) -> list[dict[str, object]]:
    """Return accounts as plain values, without their keys."""
    return [
        {
            "user": name,
            **entry.model_dump(exclude={"sha256", "api_secret"}),
            "role": role_of(entry),
        }
        for name, entry in sorted(accounts.items())
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.accounts``; return the exit status."""
    options = parse(arguments)
    set_up_output()
    is_new = not options.keys.exists()
    try:
        if options.command == "list":
            accounts = read_keys(options.keys)
            is_json = options.json
            show(
                json.dumps(describe(accounts))
                if is_json
                else as_table(accounts)
            )
            return 0
        names = names_of(options)
        keys = change(options, names)
        if keys:
            lines = ("\t".join((name, *key)) for name, key in keys.items())
            show(
                "\n".join(lines), "the keys could not be shown; rotate them: "
            )
    except Refusal as refusal:
        return failed("accounts", refusal, 1)
    except (KeysError, OSError) as error:
        return failed("accounts", error)
    what = "account" if len(names) == 1 else "accounts"
    done = [f"{len(names)} {what} {DONE[options.command]}"]
    if is_new:
        done.insert(0, "a new key file")
    if keys:
        done.append("keys are shown only once")
    print(f"{options.keys}: {'; '.join(done)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
