"""Where the keys of a TOML text stand: a key's path to its line.

`tomllib` gives values without their lines. This scan of a text that `tomllib`
has accepted finds them; it checks nothing.
"""

from __future__ import annotations

import re
import tomllib
from typing import TypeAlias

# Keys of tables and numbers of array elements, from the outermost one.
KeyPath: TypeAlias = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_PART = re.compile(
    r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""",
)
_DOT = re.compile(r"[ \t]*\.[ \t]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_PLAIN = re.compile(r"[^,\]}#\n]+")  # a number, date or boolean


def lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, of each key and each array element.

    A table that several lines define stands where it is named first.
    """
    return _Scan(text).run()


class _Scan:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[KeyPath, int] = {}
        self._lengths: dict[KeyPath, int] = {}  # of arrays of tables
        self._counted = (0, 1)  # a place in the text, and its line

    def run(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip()
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip()
        return self._lines

    def _skip(self) -> None:
        self._take(_BLANK)

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None, "tomllib has accepted the text"
        self._at = match.end()
        return match.group()

    def _note(self, path: KeyPath, at: int) -> None:
        """Note the line of a path; ``at`` never goes back."""
        start, line = self._counted
        line += self._text.count("\n", start, at)
        self._counted = at, line
        self._lines.setdefault(path, line)

    def _key(self) -> list[str]:
        parts = [_unquoted(self._take(_PART))]
        while _DOT.match(self._text, self._at):
            self._take(_DOT)
            parts.append(_unquoted(self._take(_PART)))
        return parts

    def _header(self) -> KeyPath:
        """Read ``[table]`` or ``[[array of tables]]``; return its path."""
        start = self._at
        is_array = self._text.startswith("[[", start)
        self._at += 2 if is_array else 1
        self._skip()
        *outer, last = self._key()
        self._skip()
        self._at += 2 if is_array else 1
        path: KeyPath = ()
        for part in outer:
            path = self._inside((*path, part), start)
        path = (*path, last)
        self._note(path, start)
        if is_array:
            number = self._lengths.get(path, 0)
            self._lengths[path] = number + 1
            path = (*path, number)
            self._note(path, start)
        return path

    def _inside(self, path: KeyPath, start: int) -> KeyPath:
        """Return a table, or the last one of an array of tables."""
        self._note(path, start)
        if path in self._lengths:
            return (*path, self._lengths[path] - 1)
        return path

    def _pair(self, table: KeyPath) -> None:
        """Read ``key = value``."""
        start = self._at
        path = table
        for part in self._key():
            path = (*path, part)
            self._note(path, start)
        self._skip()
        self._at += 1  # the equals sign
        self._skip()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        first = self._text[self._at]
        if first == "[":
            self._items(path, "]")
        elif first == "{":
            self._items(path, "}")
        elif first in "\"'":
            self._take(_STRING)
        else:
            self._take(_PLAIN)

    def _items(self, path: KeyPath, end: str) -> None:
        """Read an array or an inline table."""
        self._at += 1
        number = 0
        self._skip()
        while self._text[self._at] != end:
            if end == "}":
                self._pair(path)
            else:
                self._note((*path, number), self._at)
                self._value((*path, number))
                number += 1
            self._skip()
            if self._text[self._at] == ",":
                self._at += 1
                self._skip()
        self._at += 1


def _unquoted(part: str) -> str:
    if part[0] not in "\"'":
        return part
    (key,) = tomllib.loads(f"{part} = 0")
    return key
