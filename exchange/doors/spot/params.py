"""The parameters of one request, wherever they stand.

They come in the query, in a form body, in both, or as JSON over a websocket.
All are kept as text; readers here give them their types, or refuse them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from pydantic_core import from_json

from exchange.doors.spot.errors import SpotError, illegal, missing

MAX_PARAMS = 100
INT_DIGITS = 18
_INTEGER = re.compile(rf"-?[0-9]{{1,{INT_DIGITS}}}")
_TRUE = {"true": True, "false": False}


class Params(dict[str, str]):
    """Parameters by name."""

    def text(self, name: str) -> str:
        """Return a parameter that must be there; raises SpotError."""
        value = self.get(name)
        if not value:
            raise missing(name)
        return value

    def integer(self, name: str) -> int | None:
        """Return an integer; None: it is not there. Raises SpotError."""
        value = self.get(name)
        if not value:
            return None
        if not _INTEGER.fullmatch(value):
            raise illegal(name, "it must be an integer")
        return int(value)

    def limit(self, default: int, most: int) -> int:
        """Return the number of rows that is asked for, at most ``most``."""
        limit = self.integer("limit")
        if limit is None:
            return default
        if limit < 1:
            raise illegal("limit", f"it must be 1 to {most}")
        return min(limit, most)

    def word(self, name: str, words: Mapping[str, Any], default: str) -> Any:
        """Return what one of some words stands for; raises SpotError."""
        value = self.get(name) or default
        if value not in words:
            raise illegal(name, f"it must be one of {', '.join(words)}")
        return words[value]

    def boolean(self, name: str) -> bool:
        """Return a boolean; False: it is not there. Raises SpotError."""
        value: bool = self.word(name, _TRUE, "false")
        return value

    def names(self, name: str) -> list[str] | None:
        """Return a JSON list of names; None: it is not there."""
        value = self.get(name)
        if not value:
            return None
        try:
            names = from_json(value)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(
            isinstance(one, str) for one in names
        ):
            raise illegal(name, 'it must be a list like ["A","B"]')
        return names


def read_form(query: str, body: str) -> Params:
    """Return the parameters of a query and a form; the query's come first.

    Raises SpotError if there are too many.
    """
    params = Params()
    try:
        for part in (body, query):
            pairs = part.split("&")
            if "%" in part or "+" in part or len(pairs) > MAX_PARAMS:
                params.update(
                    parse_qsl(
                        part,
                        keep_blank_values=True,
                        max_num_fields=MAX_PARAMS,
                        encoding="utf-8",
                        errors="replace",
                    )
                )
            elif part:  # as most are
                for pair in pairs:
                    name, _, value = pair.partition("=")
                    params[name] = value
    except ValueError:
        raise SpotError(-1101, "Too many parameters.") from None
    return params


def read_json(params: Mapping[str, Any]) -> Params:
    """Return the parameters of a websocket request as text."""
    read = Params()
    for name, value in params.items():
        if value is None:
            continue
        read[str(name)] = as_text(value)
    return read


def as_text(value: Any) -> str:
    """Return a JSON value as it is signed."""
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ",".join(f'"{item}"' for item in value) + "]"
    return str(value)


def decoded(text: str) -> str:
    """Return a text percent-decoded."""
    return unquote(text, errors="replace")
