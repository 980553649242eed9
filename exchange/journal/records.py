"""A command as JSON, as a journal keeps it.

A record is ``[ts, account, session, action]``; its place in the journal is
the command's sequence number. Old records stay readable: fields that were
added later have defaults.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic_core import from_json, to_json

from exchange.market.command import (
    Action,
    Command,
    Configure,
    Connect,
    OwnAction,
    TaggedPlace,
)
from orderbook import MAX_INT, encode

_Ts = Annotated[int, Field(ge=1, le=MAX_INT)]
_Record = tuple[_Ts, str, str, Annotated[Action, Field(discriminator="type")]]
_RECORDS: TypeAdapter[list[_Record]] = TypeAdapter(
    list[_Record], config=ConfigDict(strict=True)
)

# Leaves out the fields that say so (``exclude_if``).
_CONFIGURE: TypeAdapter[Configure] = TypeAdapter(Configure)


_TAGGED: TypeAdapter[TaggedPlace] = TypeAdapter(TaggedPlace)
_TAGGED_HEAD = '{"type":"tagged_place",'
# Actions that are encoded in a way of their own.
_SPECIAL = (Configure, TaggedPlace)

# Fields of the exchange's own actions that records have only if they are not
# at this default: an older program reads a record without them.
LATER: dict[type, dict[str, Any]] = {
    Connect: {"role": None},
    Configure: {"match": None},
}
# Of each instrument: state, which no configuration has.
_STATE = {"__all__": {"close_left_ms"}}


def encode_record(command: Command) -> str:
    """Return a command as JSON."""
    action = command.action
    if isinstance(action, _SPECIAL):
        text = _encode_special(action)
    elif isinstance(action, OwnAction):
        text = to_json(action, exclude=_left_out(action)).decode()
    else:
        text = encode(action)
    # Account and session are names that need no escaping.
    return f'[{command.ts},"{command.account}","{command.session}",{text}]'


def encode_tagged(action: TaggedPlace) -> str:
    """Return an order with a tag as JSON, without fields at their default."""
    body = _TAGGED.dump_json(action, exclude_defaults=True).decode()
    return _TAGGED_HEAD + body[1:]


def _encode_special(action: Configure | TaggedPlace) -> str:
    if isinstance(action, TaggedPlace):
        return encode_tagged(action)
    return _CONFIGURE.dump_json(action, exclude=_left_out(action)).decode()


def _left_out(action: OwnAction) -> dict[str, Any] | None:
    """Return what `to_json` is to leave out; None: nothing."""
    later = LATER.get(action.__class__)
    if later is None:
        return None
    names = [n for n, value in later.items() if getattr(action, n) == value]
    left_out: dict[str, Any] = dict.fromkeys(names, True)
    if isinstance(action, Configure):
        left_out["instruments"] = _STATE
    return left_out


def decode_records(first_seq: int, records: bytes) -> list[Command]:
    """Return the commands of one batch; raises ValidationError."""
    return [
        Command(seq, *record)
        for seq, record in enumerate(
            _RECORDS.validate_json(records), start=first_seq
        )
    ]


def rules_in(records: bytes) -> list[int]:
    """Return the versions of the rules that a batch puts in force.

    It also reads a batch that a newer program wrote and that this program
    cannot decode.
    """
    if b'"configure"' not in records:
        return []
    actions = [_action(record) for record in from_json(records)]
    return [
        action["engine_version"]
        for action in actions
        if action.get("type") == "configure"
    ]


def _action(record: Any) -> dict[str, Any]:
    """Return the action of a record; {} if the record is of another form."""
    match record:
        case [_, _, _, {"type": str(), "engine_version": int()}, *_]:
            action: dict[str, Any] = record[3]
            return action
    return {}
