"""Print what a journal holds: ``python -m util.replay JOURNAL``.

Every command and every event that came of it, one a line; the events are
made anew by applying the commands to a fresh engine. The journal is only
read, also while an exchange is writing it: what is printed goes up to the
last command committed when the replay began.

Exit status: 0, 1 for a journal that is damaged or cannot be read, 2 for a
command line that makes no sense.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO, TypeAlias, assert_never, get_args

from pydantic_core import to_json

from exchange.journal.sqlite import (
    JournalError,
    count_commands,
    read_journal,
    readable,
)
from exchange.market.accounts import AccountLimits
from exchange.market.command import (
    PUBLIC,
    Action,
    ClockStep,
    Command,
    Configure,
    Connect,
    Disconnect,
    Output,
    Restart,
    Shutdown,
    TimePassed,
)
from exchange.market.engine import Engine
from orderbook import (
    AccountReport,
    Admin,
    Amend,
    BookUpdate,
    Cancel,
    CancelAfter,
    CancelAll,
    Error,
    Event,
    Exec,
    Instrument,
    Ok,
    Place,
    PriceLevel,
    Refused,
    Status,
    Trade,
    encode,
)

from .cli import drop_output, extra_libraries, program, set_up_output, utf8

with extra_libraries("replay"):
    from tqdm import tqdm

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
PROGRESS_AFTER_S = 1.0
# The requests that are journaled, and the events that the engine makes.
ASKED = (Place, Amend, Cancel, CancelAll, CancelAfter, Admin)
TOLD = (Ok, Error, Exec, AccountReport, Status, Trade, BookUpdate)


@dataclass(slots=True)
class Step:
    """A command, and all that came of it in the order it was told.

    ``symbol`` is what the command itself is about; "" where that is no
    single instrument.
    """

    command: Command
    outputs: list[Output]
    symbol: str


Write: TypeAlias = Callable[[Step, str, Action | Event], None]

# Replaying ----------------------------------------------------------------


def replay(path: Path, *, is_quiet: bool = False) -> Iterator[Step]:
    """Yield every step of a journal, the changes of the books included.

    Raises JournalError. Progress shows on a terminal unless ``is_quiet``.
    """
    engine = Engine()
    total = count_commands(path)
    with tqdm(
        total=total,
        desc=path.name,
        unit=" commands",
        delay=PROGRESS_AFTER_S,
        disable=is_quiet or None,  # None: where nobody watches
    ) as progress:
        for commands in read_journal(path):
            for command in commands:
                yield _step(path, engine, command)
            progress.update(len(commands))
            if engine.seq >= total:
                break


def _step(path: Path, engine: Engine, command: Command) -> Step:
    try:
        outputs = engine.apply(command)
    except Exception as error:
        raise JournalError(
            f"{path}: command {command.seq} cannot be applied: {error!r}"
        ) from error
    books = [(PUBLIC, update) for update in engine.take_book_updates()]
    return Step(command, [*outputs, *books], _symbol(engine, command))


def _symbol(engine: Engine, command: Command) -> str:
    """Return the symbol that a command is about, "" if there is not one."""
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
        case CancelAll(symbol=symbol) | Admin(symbol=symbol):
            return symbol or ""
        case _:
            return ""


# Choosing -----------------------------------------------------------------


def select(
    step: Step, account: str | None, symbol: str | None
) -> Iterator[tuple[str, Action | Event]]:
    """Yield what of a step is wanted, each with whom it is from or for.

    Of an account: its commands, those of administrators that concerned it,
    and its private events. Of a symbol: the commands about it or that moved
    it, what they were answered, its phases, orders, trades and book.
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
    """Return whether a command is of an account, or interferes with it."""
    command = step.command
    if isinstance(command.action, Admin) and (
        command.action.user == account
        or any(recipient == account for recipient, _ in step.outputs)
    ):
        return True
    return command.account == account


def _concerns(event: Event, symbol: str, step: Step) -> bool:
    if isinstance(event, (Exec, Trade, BookUpdate)):
        return event.symbol == symbol
    if isinstance(event, Status) and event.symbol is not None:
        return event.symbol == symbol
    return isinstance(event, (Ok, Error, Status)) and step.symbol == symbol


# Writing ------------------------------------------------------------------


def writer(form: str, file: TextIO) -> Write:
    """Return what writes a command or an event as a line of a file."""
    if form == "csv":
        return csv_writer(file)
    line = json_line if form == "jsonl" else text_line

    def write(step: Step, who: str, what: Action | Event) -> None:
        file.write(line(step, who, what))

    return write


def json_line(step: Step, who: str, what: Action | Event) -> str:
    """Return one JSON object; requests and events are as on the wire."""
    command = step.command
    head = f'"seq":{command.seq},"ts":{command.ts}'
    if who:
        head += f',"account":"{who}"'
    kind = "event"
    if what is command.action:
        kind = "command"
        if command.session:
            head += f',"session":"{command.session}"'
    if isinstance(what, ASKED + TOLD):
        text = encode(what)
    else:
        text = to_json(what).decode()
    return f'{{{head},"{kind}":{text}}}\n'


def csv_writer(file: TextIO) -> Write:
    """Return what writes rows of one table with the columns of all types.

    An event's own ``seq`` is ``event_seq``; what is no single value is JSON.
    """
    columns = dict.fromkeys(
        field.name
        for cls in (*get_args(Action), *TOLD)
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
            field.name: _cell(getattr(what, field.name))
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


def _cell(value: Any) -> Any:
    is_plain = isinstance(value, (str, int)) and not isinstance(value, bool)
    if value is None or is_plain:
        return value
    return to_json(value).decode()


def text_line(step: Step, who: str, what: Action | Event) -> str:
    """Return a line for a person; ``>`` marks commands."""
    command = step.command
    if what is command.action:
        mark, text = ">", tell_command(command)
    else:
        assert isinstance(what, TOLD)
        mark, text = " ", tell_event(what)
    text = _printable(text)
    return (
        f"{command.seq:>8} {iso(command.ts)} {who or '*':<10} {mark} {text}\n"
    )


def tell_command(command: Command) -> str:
    """Say what a command asks for."""
    words: list[object]
    match command.action:
        case Place() as order:
            words = [order.side, order.qty, order.symbol, _price(order.price)]
            words.append(order.time_in_force)
            if order.expire_ts is not None:
                words.append(f"until {iso(order.expire_ts)}")
            words.append(order.post_only and "post-only")
            words.append(order.stp != "cancel_oldest" and order.stp)
            if order.client_order_id is not None:
                words.append(f"as {order.client_order_id}")
        case Amend() as amend:
            words = ["amend", _name(amend)]
            words.append(amend.qty and f"to {amend.qty}")
            words.append(amend.price is not None and _price(amend.price))
        case Cancel() as cancel:
            words = ["cancel", _name(cancel)]
        case CancelAll() as them:
            words = ["cancel all", them.side, "orders"]
            words.append(them.symbol and f"of {them.symbol}")
        case CancelAfter(timeout_ms=timeout_ms):
            words = ["cancel all after", timeout_ms or "never"]
            words.append(timeout_ms and "ms")
        case Connect() as connect:
            words = ["connect", command.session]
            words.append(connect.is_admin and "as an administrator")
            stays = not connect.cancel_on_disconnect
            words.append(stays and "orders outlive the connection")
        case Disconnect():
            words = ["disconnect", command.session]
        case TimePassed():
            words = ["tick"]
        case Shutdown():
            words = ["shutdown"]
        case Restart():
            words = ["restart"]
        case ClockStep(forward_us=forward_us):
            words = ["clock set forward by", f"{forward_us / 1e6:,.6f} s"]
        case Admin() as admin:
            words = ["admin", tell_admin(admin), f"because: {admin.reason}"]
        case Configure() as market:
            listed = ", ".join(map(_listing, market.instruments))
            words = [f"configure engine {market.engine_version}: {listed}"]
            limits = {"everybody": market.limits, **market.accounts}
            for name, its in limits.items():
                changes = _changes(its, AccountLimits())
                words.append(changes and f"| {name}: {changes}")
        case _:
            assert_never(command.action)
    return " ".join(str(word) for word in words if word)


def tell_admin(admin: Admin) -> str:
    """Say what an administrator does."""
    match admin.action:
        case "phase":
            text = f"set {admin.symbol or 'all'} to {admin.phase}"
            if admin.reopen_ms is not None:
                text += f" for {admin.reopen_ms} ms"
            return text
        case "kill" | "unkill":
            return f"{admin.action} {admin.user}"
        case "cancel":
            return f"cancel order {admin.order_id}"
        case "adjust":
            gifts = [] if admin.cash is None else [f"{admin.cash:+} cash"]
            if admin.qty is not None:
                gifts.append(f"{admin.qty:+} {admin.symbol}")
            return f"adjust {admin.user} by {', '.join(gifts)}"
        case "settle":
            return f"settle {admin.symbol} {_price(admin.price)}"
        case "reset":
            return "reset"
        case "message":
            about = f" about {admin.symbol}" if admin.symbol else ""
            return f"tell{about}: {admin.message}"
        case _:
            assert_never(admin.action)


def tell_event(
    event: Ok | Error | Exec | AccountReport | Status | Trade | BookUpdate,
) -> str:
    """Say what happened."""
    match event:
        case Exec() as e:
            text = f"order {e.order_id} {e.exec_type}"
            if e.exec_type == "trade":
                text += f" {e.trade_id}: {e.last_qty} {e.symbol}"
                text += f" at {e.last_price} as {e.liquidity}"
                text += f" for a fee of {e.fee}" if e.fee else ""
            elif e.reason is not None:
                text += f" ({e.reason})"
            else:
                text += f": {e.side} {e.qty} {e.symbol} {_price(e.price)}"
            return f"{text}; {e.cum_qty} of {e.qty} filled"
        case AccountReport():
            held = [f"cash {event.cash}"]
            held += [f"{qty} {s}" for s, qty in event.positions.items()]
            return f"{', '.join(held)}; worth {event.equity}"
        case Ok(count=count):
            return "ok" if count is None else f"ok: {count}"
        case Error():
            return f"refused: {event.code}: {event.message}"
        case Status():
            head = filter(None, ("status", event.symbol, event.phase))
            return ": ".join(filter(None, (" ".join(head), event.message)))
        case Trade() as t:
            return f"trade {t.trade_id}: {t.qty} {t.symbol} at {t.price}" + (
                " bought" if t.side == "buy" else " sold"
            )
        case BookUpdate():
            bids, asks = _levels(event.bids), _levels(event.asks)
            return f"book {event.symbol} {event.seq}: {bids} | {asks}"
        case _:
            assert_never(event)


def _price(price: int | None) -> str:
    return "at market" if price is None else f"at {price}"


def _name(action: Amend | Cancel) -> str:
    if action.order_id is not None:
        return f"order {action.order_id}"
    return action.client_order_id or ""


def _listing(listed: Instrument) -> str:
    plain = Instrument(
        symbol=listed.symbol,
        tick_size=listed.tick_size,
        min_price=listed.min_price,
        max_price=listed.max_price,
        max_qty=listed.max_qty,
        phase="open",
    )
    changes = _changes(listed, plain)
    return (
        f"{listed.symbol} ({listed.min_price} to {listed.max_price} ticks of"
        f" {listed.tick_size}, at most {listed.max_qty} lots"
        f"{', ' if changes else ''}{changes})"
    )


def _changes(what: Any, usual: Any) -> str:
    """Say what is not as usual."""
    its = ((field.name, getattr(what, field.name)) for field in fields(what))
    return ", ".join(
        f"{name}={_cell(value)}"
        for name, value in its
        if value != getattr(usual, name)
    )


def _printable(text: str) -> str:
    """Return a text without what would end or hide its line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _levels(levels: tuple[PriceLevel, ...]) -> str:
    return " ".join(f"{price}={qty}" for price, qty in levels) or "-"


# The command --------------------------------------------------------------


def iso(ts: int) -> str:
    """Return a time in microseconds as ISO 8601, in UTC."""
    time = EPOCH + ts * MICROSECOND
    return f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def microseconds(text: str) -> int:
    """Read a time: microseconds, or ISO 8601, in UTC unless it says else."""
    if text.isdecimal():
        return int(text)
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return (time - EPOCH) // MICROSECOND


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; exits with status 2 where it makes no sense."""
    parser = argparse.ArgumentParser(
        prog=program("replay"),
        description="Print every command and event of a journal.",
        epilog="A time is ISO 8601, as in 2026-11-22T20:16 (UTC), or"
        " microseconds since the epoch. Exit status: 0, 1 for a journal that"
        " is damaged or cannot be read, 2 for usage.",
    )
    add = parser.add_argument
    add("journal", type=Path)
    add("--format", choices=("text", "jsonl", "csv"), default="text")
    add("--output", type=Path, metavar="FILE", help="(default: print)")
    add("--account", type=utf8, help="only its commands and private events")
    add("--symbol", type=utf8, help="only its orders, trades and book")
    add("--from", dest="start", type=microseconds, metavar="TIME")
    add("--to", dest="end", type=microseconds, metavar="TIME", help="before")
    add(
        "--verify",
        action="store_true",
        help="only check the chain of digests, and that all can be applied",
    )
    options = parser.parse_args(arguments)
    others = vars(options).items() - {
        ("journal", options.journal),
        ("verify", True),
    }
    if options.verify and any(
        value != parser.get_default(name) for name, value in others
    ):
        parser.error("--verify goes with no other option")
    return options


def verify(path: Path) -> str:
    """Replay a journal; return what was found, in a line."""
    first = last = None
    events = 0
    for step in replay(path):
        first = first or step.command
        last = step.command
        events += len(step.outputs)
    if first is None or last is None:
        return "good, and empty"
    return (
        f"good: {last.seq:,} commands and {events:,} events from"
        f" {iso(first.ts)} to {iso(last.ts)}, last seq {last.seq}"
    )


def output(
    options: argparse.Namespace, journal: Path
) -> AbstractContextManager[TextIO]:
    """Open what to write to, if there is something to be written.

    Raises JournalError or OSError, with no file made or changed.
    """
    path: Path | None = options.output
    count_commands(journal)
    if path is None:
        return nullcontext(sys.stdout)
    if path.exists() and path.samefile(options.journal):
        raise OSError(f"{path}: that is the journal")
    return path.open("w", encoding="utf-8", newline="")


def export(options: argparse.Namespace, journal: Path, file: TextIO) -> None:
    """Write what the options ask for of a journal to a file."""
    write = writer(options.format, file)
    for step in replay(journal, is_quiet=file.isatty()):
        ts = step.command.ts
        if options.end is not None and ts >= options.end:
            return
        if options.start is None or ts >= options.start:
            for who, what in select(step, options.account, options.symbol):
                write(step, who, what)


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.replay``; return the exit status."""
    options = parse(arguments)
    set_up_output(is_data=options.format != "text")
    try:
        with readable(options.journal) as journal:
            if options.verify:
                print(f"{options.journal}: {verify(journal)}")
                return 0
            with output(options, journal) as file:
                export(options, journal, file)
                file.flush()
    except BrokenPipeError:  # whoever was reading has seen enough
        drop_output()
    except (JournalError, OSError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
