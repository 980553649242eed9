"""Make a stream of a journal file: ``python -m util.restore FILE nats://...``.

The stream must be new: choose another name than that of the one that is lost.
It gets every batch of the file, in order, and then exchanges can be started
on it. With the file as their copy (`EXCHANGE_SERVER_JOURNAL_COPY`) they go on
with it.

``python -m util.restore --check http://a:8222 http://b:8222 http://c:8222``
asks servers of NATS whether they sync each message to disk before they
acknowledge it, which no client of a stream can see.

Exit status: 0 done, 1 the stream was not made or a server does not sync, 2
the command line is wrong.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import urllib.request
from argparse import ArgumentTypeError
from pathlib import Path

from exchange.journal.address import Address
from exchange.journal.chain import BEGINNING
from exchange.journal.lease import Lease
from exchange.journal.message import BODY_BYTES, Position, Writer, cut
from exchange.journal.records import encode_record
from exchange.journal.sqlite import JournalError, place_in, read_batches

from .cli import extra_libraries, failed, new_parser, print_result

with extra_libraries("restore"):
    from tqdm import tqdm

ANSWER_S = 5.0
LEASE_US = 1  # nobody is told anything


async def restore(path: Path, address: Address) -> str:
    """Make a stream of a journal; return a summary in one line.

    Raises JournalError if the journal cannot be read or the stream cannot be
    made, and OSError if the servers do not answer.
    """
    from exchange.journal.appender import Appender
    from exchange.journal.servers import Unanswered
    from exchange.journal.stream import Stream

    if place_in(path) != BEGINNING:
        raise JournalError(
            f"{path}: its first commands were pruned: a stream needs all"
        )
    try:
        stream = await Stream.open(address, lambda: secrets.token_hex(4))
        try:
            if (await stream.state()).last:
                raise JournalError(
                    f"{address}: has messages; choose another name"
                )
            appender = Appender(stream, Lease(LEASE_US), lambda: 0, Position())
            writer = Writer(f"restore-{secrets.token_hex(4)}", LEASE_US)
            for batch in tqdm(
                read_batches(path), unit=" batches", disable=None
            ):
                records = [encode_record(one) for one in batch.commands]
                while records:
                    count = cut(records, BODY_BYTES)
                    taken, records = records[:count], records[count:]
                    await appender.append(
                        writer.batch(
                            appender.at,
                            taken,
                            None if records else batch.checksum,
                        )
                    )
            at = appender.at
        finally:
            await stream.close()
    except Unanswered as error:
        raise OSError(f"{address}: {error}") from None
    return f"{address}: {at.seq:,} commands in {at.sequence:,} messages"


def check(url: str) -> str:
    """Return what is wrong with a server of NATS; "": nothing.

    ``url`` is that of its monitoring, such as ``http://a:8222``.
    """
    try:
        with urllib.request.urlopen(
            f"{url.rstrip('/')}/jsz?config=1", timeout=ANSWER_S
        ) as answer:
            config = json.load(answer).get("config") or {}
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    if config.get("sync_always") is not True:
        return (
            f"{url}: does not sync each message: set sync_interval: always in"
            " its jetstream { }"
        )
    return ""


def _address(text: str) -> Address:
    try:
        return Address.read(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.restore``; return the exit status."""
    parser = new_parser("restore", "Make a stream of a journal file.")
    parser.add_argument("journal", type=Path, nargs="?", help="the file")
    parser.add_argument("stream", type=_address, nargs="?", help="nats://...")
    parser.add_argument(
        "--check",
        metavar="URL",
        nargs="+",
        help="monitoring of servers of NATS, such as http://a:8222: ask"
        " whether they sync each message to disk",
    )
    options = parser.parse_args(arguments)
    if options.check:
        troubles = [*filter(None, map(check, options.check))]
        for trouble in troubles:
            print(trouble, file=sys.stderr)
        if not troubles:
            print("all servers sync each message")
        return 1 if troubles else 0
    if options.stream is None:
        parser.error("give a journal file and the address of a stream")
    try:
        print_result(asyncio.run(restore(options.journal, options.stream)))
    except ModuleNotFoundError:
        return failed(
            "restore", "a stream needs nats-py: pip install nats-py", 1
        )
    except (JournalError, OSError) as error:
        return failed("restore", str(error), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
