"""Print or serve a journal: ``python -m util.replay JOURNAL``.

It prints each command and its events, one per line. The events come from
applying the commands to a new engine. The journal is only read, and an
exchange may write it at the same time: the output ends with the last command
that was committed when the replay began.

``--serve`` shows it instead, at /replay and to any client of the protocol, as
live readers saw it: see `util.playback`.

Exit status: 0 done, 1 the journal is damaged or cannot be read, 2 the command
line is wrong.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, TypeAlias, get_args

from pydantic_core import to_json

from exchange.journal.checksum import Checksum, DivergedError
from exchange.journal.reading import readable
from exchange.journal.records import encode_tagged
from exchange.journal.sqlite import (
    JournalError,
    count_commands,
)
from exchange.market.command import (
    PUBLIC,
    Action,
    BustTrade,
    Command,
    TaggedPlace,
)
from exchange.market.engine import Engine
from exchange.market.reports import in_full
from orderbook import (
    AcceptTender,
    AccountReport,
    Admin,
    Amend,
    BookUpdate,
    Bust,
    Cancel,
    CancelAfter,
    CancelAll,
    Convert,
    Error,
    Event,
    Exec,
    MatchChanged,
    News,
    Ok,
    Place,
    Refused,
    Settlement,
    Status,
    Tender,
    Trade,
    encode,
)

from .cli import (
    drop_output,
    failed,
    new_parser,
    set_up_output,
    utf8,
)
from .journal import batches_of, start_of
from .replay_text import (
    EPOCH,
    MICROSECOND,
    cell,
    describe_command,
    describe_event,
    iso,
    printable,
)

PORT_MAX = 65_535
# Options that only `--serve` takes.
SERVING = {"serve", "hostname", "port", "keys", "publish"}
# The requests that are journaled, and the events that the engine makes.
REQUESTS = (
    *(Place, Amend, Cancel, CancelAll, CancelAfter, Convert, AcceptTender),
    Admin,
)
EVENTS = (
    *(Ok, Error, Exec, AccountReport, Status, Trade, BookUpdate),
    *(News, MatchChanged, Tender, Settlement, Bust),
)


@dataclass(slots=True)
class Step:
    """A command and its outputs, in the order they were sent.

    ``symbol`` is the instrument of the command; "" if it has none or several.
    """

    command: Command
    outputs: list[tuple[str, Event]]
    symbol: str


Write: TypeAlias = Callable[[Step, str, Action | Event], None]

# Replaying ----------------------------------------------------------------


def replay(
    path: Path, base: Path | None = None, *, is_quiet: bool = False
) -> Iterator[Step]:
    """Yield every step of a journal, with the changes of the books.

    If commands were pruned, those after a snapshot beside ``base``; None:
    beside the journal. Raises JournalError. Shows progress on a terminal
    unless ``is_quiet``.
    """
    start, place = start_of(path, base or path)
    engine, checksum = start.engine, start.checksum
    for batch in batches_of(path, is_quiet=is_quiet, after=place):
        for command in batch.commands:
            yield _step(path, engine, checksum, command)
        try:
            checksum.compare(batch)
        except DivergedError as error:
            raise JournalError(f"{path}: {error}") from None


def _step(
    path: Path, engine: Engine, checksum: Checksum, command: Command
) -> Step:
    try:
        outputs = in_full(engine.apply(command))
    except Exception as error:
        raise JournalError(
            f"{path}: command {command.seq} cannot be applied: {error!r}"
        ) from error
    checksum.add(command.seq, outputs)
    books = [(PUBLIC, update) for update in engine.take_book_updates()]
    return Step(command, [*outputs, *books], _symbol(engine, command))


def _symbol(engine: Engine, command: Command) -> str:
    """Return the symbol of a command; "" if it has none or several."""
    match command.action:
        case Place(symbol=symbol):
            try:
                return engine.listing(symbol).instrument.symbol
            except Refused:
                return symbol or ""
        case Amend() | Cancel() as action:
            account = engine.accounts[command.account]
            if action.order_id is not None:
                order = account.orders.get(action.order_id)
            else:
                name = action.client_order_id or ""
                order = account.by_client_order_id.get(name)
            return order.symbol if order else ""
        case Admin(action="cancel", order_id=order_id):
            for account in engine.accounts.values():
                if order_id in account.orders:
                    return account.orders[order_id].symbol
            return ""
        case (
            CancelAll(symbol=symbol)
            | Admin(symbol=symbol)
            | Convert(symbol=symbol)
            | BustTrade(symbol=symbol)
        ):
            return symbol or ""
        case _:
            return ""


# Choosing -----------------------------------------------------------------


def select(
    step: Step, account: str | None, symbol: str | None
) -> Iterator[tuple[str, Action | Event]]:
    """Yield the selected parts of a step, each with its sender or recipient.

    For an account: its commands, those of administrators that concerned it,
    and its private events. For a symbol: the commands that name or changed
    it, their replies, and its phases, orders, trades and book.
    """
    outputs = [
        (recipient, event)
        for recipient, event in step.outputs
        if account in (None, recipient)
        and (symbol is None or _concerns(event, symbol, step))
    ]
    command = step.command
    if (account is None or _is_of(step, account)) and (
        symbol is None or outputs or step.symbol == symbol
    ):
        yield command.account, command.action
    yield from outputs


def _is_of(step: Step, account: str) -> bool:
    """Return whether an account sent a command or is concerned by it."""
    command = step.command
    is_told = any(recipient == account for recipient, _ in step.outputs)
    match command.action:
        case Admin(user=user) if is_told or user == account:
            return True
        case BustTrade(buyer=buyer, seller=seller):
            return account in (command.account, buyer, seller)
        case _:
            pass
    return command.account == account


def _concerns(event: Event, symbol: str, step: Step) -> bool:
    if isinstance(event, (Exec, Trade, BookUpdate, Tender, Settlement, Bust)):
        return event.symbol == symbol
    if isinstance(event, (Status, News)) and event.symbol is not None:
        return event.symbol == symbol
    return isinstance(event, (Ok, Error, Status)) and step.symbol == symbol


# Writing ------------------------------------------------------------------


def writer(form: str, file: TextIO) -> Write:
    """Return a function that writes a command or an event as a line."""
    if form == "csv":
        return csv_writer(file)
    line = json_line if form == "jsonl" else text_line

    def write(step: Step, who: str, what: Action | Event) -> None:
        file.write(line(step, who, what))

    return write


def json_line(step: Step, who: str, what: Action | Event) -> str:
    """Return one JSON object, with the request or event as on the wire."""
    command = step.command
    head = f'"seq":{command.seq},"ts":{command.ts}'
    if who:
        head += f',"account":"{who}"'
    kind = "event"
    if what is command.action:
        kind = "command"
        if command.session:
            head += f',"session":"{command.session}"'
    if isinstance(what, TaggedPlace):
        text = encode_tagged(what)
    elif isinstance(what, REQUESTS + EVENTS):
        text = encode(what)
    else:
        text = to_json(what).decode()
    return f'{{{head},"{kind}":{text}}}\n'


def csv_writer(file: TextIO) -> Write:
    """Return a function that writes rows with the columns of all types.

    The ``seq`` of an event is in ``event_seq``; lists and objects are JSON.
    """
    columns = dict.fromkeys(
        field.name
        for cls in (*get_args(Action), *EVENTS)
        for field in fields(cls)
    )
    for name in ("type", "seq", "ts"):
        del columns[name]
    rows = csv.DictWriter(
        file,
        ["seq", "ts", "account", "session", "kind", "type", "event_seq"]
        + list(columns),
        lineterminator="\n",
    )
    rows.writeheader()

    def write(step: Step, who: str, what: Action | Event) -> None:
        command = step.command
        row: dict[str, Any] = {
            field.name: cell(getattr(what, field.name))
            for field in fields(what)
        }
        row["event_seq"] = row.pop("seq", None)
        is_command = what is command.action
        row |= {
            "seq": command.seq,
            "ts": command.ts,
            "account": who,
            "session": command.session if is_command else None,
            "kind": "command" if is_command else "event",
        }
        rows.writerow(row)

    return write


def text_line(step: Step, who: str, what: Action | Event) -> str:
    """Return a line for people; ``>`` marks commands."""
    command = step.command
    if what is command.action:
        mark, text = ">", describe_command(command)
    else:
        assert isinstance(what, EVENTS)
        mark, text = " ", describe_event(what)
    text = printable(text)
    return (
        f"{command.seq:>8} {iso(command.ts)} {who or '*':<10} {mark} {text}\n"
    )


# The command --------------------------------------------------------------


def microseconds(text: str) -> int:
    """Read a time: microseconds, or ISO 8601 (UTC if it has no zone)."""
    if text.isdecimal():
        return int(text)
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return (time - EPOCH) // MICROSECOND


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 if it is wrong."""
    parser = new_parser(
        "replay",
        "Print every command and event of a journal.",
        "A time is ISO 8601, as in 2026-11-22T20:16 (UTC), or microseconds"
        " since 1970. Exit status: 0 done, 1 the journal is damaged or cannot"
        " be read, 2 wrong usage.",
    )
    add = parser.add_argument
    formats = ("text", "jsonl", "csv")
    add("journal", type=Path, help="journal to read")
    add(
        "--format", choices=formats, default="text", help="format of the lines"
    )
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="file to write (default: print)",
    )
    add(
        "--account",
        type=utf8,
        help="only the commands and private events of an account",
    )
    add(
        "--symbol",
        type=utf8,
        help="only the orders, trades and book of an instrument",
    )
    add(
        "--from",
        dest="start",
        type=microseconds,
        metavar="TIME",
        help="only commands at this time or later",
    )
    add(
        "--to",
        dest="end",
        type=microseconds,
        metavar="TIME",
        help="only commands before this time",
    )
    add(
        "--verify",
        action="store_true",
        help="print no command; check the digests and apply all commands",
    )
    _add_serving(parser)
    options = parser.parse_args(arguments)
    given = {
        name
        for name, value in vars(options).items()
        if value != parser.get_default(name)
    } - {"journal"}
    if options.verify and given != {"verify"}:
        parser.error("--verify takes no other option")
    if options.serve and given - SERVING - {"start", "end"}:
        parser.error("--serve prints nothing: it takes no option of the lines")
    if not options.serve and given & SERVING:
        parser.error("--port, --keys and --publish need --serve")
    return options


def _add_serving(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("to serve it")
    add = group.add_argument
    add(
        "--serve",
        action="store_true",
        help="serve the journal at http://HOST:PORT/replay, and to clients",
    )
    add("--hostname", default="localhost", help="address to listen on")
    add("--port", type=port, default=8766, metavar="N", help="0: any free one")
    add(
        "--keys",
        type=Path,
        metavar="FILE",
        help="key file: an account that signs in sees its own orders and"
        " fills, an administrator all orders and who traded",
    )
    add(
        "--publish",
        action="store_true",
        help="let everybody see that, and sign in as any account",
    )


def port(text: str) -> int:
    """Read a port, or 0."""
    if not 0 <= int(text) <= PORT_MAX:
        raise argparse.ArgumentTypeError(f"must be from 0 to {PORT_MAX}")
    return int(text)


def verify(path: Path, base: Path | None = None) -> str:
    """Replay a journal; return a summary in one line."""
    first = last = None
    events = 0
    for step in replay(path, base):
        first = first or step.command
        last = step.command
        events += len(step.outputs)
    if first is None or last is None:
        return "good, and empty"
    return (
        f"good: {last.seq - first.seq + 1:,} commands and {events:,} events"
        f" from {iso(first.ts)} to {iso(last.ts)}, last seq {last.seq}"
    )


def output(
    options: argparse.Namespace, journal: Path
) -> AbstractContextManager[TextIO]:
    """Open the output after a first look at the journal.

    Raises JournalError or OSError before any file is made or changed.
    """
    path: Path | None = options.output
    count_commands(journal)
    if path is None:
        return nullcontext(sys.stdout)
    if path.exists() and path.samefile(options.journal):
        raise OSError(f"{path}: this is the journal")
    return path.open("w", encoding="utf-8", newline="")


def export(options: argparse.Namespace, journal: Path, file: TextIO) -> None:
    """Write the selected parts of a journal to a file."""
    write = writer(options.format, file)
    steps = replay(journal, options.journal, is_quiet=file.isatty())
    for step in steps:
        ts = step.command.ts
        if options.end is not None and ts >= options.end:
            return
        if options.start is None or ts >= options.start:
            for who, what in select(step, options.account, options.symbol):
                write(step, who, what)


def serve(options: argparse.Namespace, journal: Path) -> int:
    """Serve a journal until the process is told to stop."""
    try:
        from .playback.command import run
    except ModuleNotFoundError as error:
        return failed(
            "replay",
            f"--serve needs {error.name}: run it in a checkout of the"
            " exchange, or in its image",
        )
    return run(
        journal,
        title=options.journal.name,
        hostname=options.hostname,
        port=options.port,
        keys=options.keys,
        is_published=options.publish,
        start=options.start,
        end=None if options.end is None else options.end - 1,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.replay``; return the exit status."""
    options = parse(arguments)
    set_up_output(is_data=options.format != "text")
    try:
        with readable(options.journal) as journal:
            if options.verify:
                print(
                    f"{options.journal}: {verify(journal, options.journal)}",
                    flush=True,
                )
                return 0
            if options.serve:
                return serve(options, journal)
            with output(options, journal) as file:
                export(options, journal, file)
                file.flush()
    except BrokenPipeError:  # the reader, such as head, has ended
        drop_output()
    except (JournalError, OSError) as error:
        return failed("replay", error, 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
