"""Where in a stream a journal's file ends, so that reading goes on there."""

from __future__ import annotations

from exchange.journal.chain import BEGINNING, JournalError, Place
from exchange.journal.message import Message, Position
from exchange.journal.servers import Unanswered
from exchange.journal.sqlite import Journal
from exchange.journal.stream import Stream


async def locate(stream: Stream, journal: Journal) -> Position:
    """Return the position in a stream after the last batch of a file.

    It asks for as many messages as the logarithm of their number. Raises
    JournalError if the file is of another stream or has commands that this
    one has lost, Unanswered if the stream does not answer.
    """
    place = journal.end
    if place == BEGINNING:
        return Position()
    low, high = 1, (await stream.state()).last
    while low < high:  # the first message that has gone as far, or the last
        middle = (low + high) // 2
        if (await message_at(stream, middle)).last >= place.seq:
            high = middle
        else:
            low = middle + 1
    last = await message_at(stream, low) if high else None
    reached = Place(last.last, last.digest) if last else BEGINNING
    if reached == place:
        return Position(*place, low)
    if reached.seq < place.seq and journal.place_at(reached.seq) == reached:
        raise JournalError(
            f"{journal.path}: has {place.seq:,} commands, and the stream has"
            f" lost those after {reached.seq:,}: if this is a new round, name"
            " another file for its copy, else make a new stream of this copy"
            " with python -m util.restore"
        )
    raise JournalError(
        f"{journal.path}: of another stream: it differs from"
        f" {stream.address} at command {min(place.seq, reached.seq):,}"
    )


async def message_at(stream: Stream, sequence: int) -> Message:
    """Return a message that must be there; raises Unanswered, JournalError."""
    message = await stream.fetch(sequence)
    if message is None:
        raise Unanswered(f"message {sequence:,} is not there")
    return message
