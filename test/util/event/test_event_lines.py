"""Lines of keys in a TOML text, which `tomllib` does not give."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from util.event.toml_lines import KeyPath, lines_of

TEXT = '''\
# a comment with [table] and key = 1
name = "a # no comment" # [one]
"quoted key" = 1
'literal.key' = 2
a.b . "c.d" = 3

[table] # a table
many = [ # with a comment
    1, [2,
    3],
    { x = 1, y.z = 2 }, # ] }
]
text = """
[no.table]
key = 1 \\""" still text"""
literal = \'\'\'
[no.table] '' \'\'\'
end = 1979-05-27 07:32:00 # a date

[[rounds]]
name = "A"
[rounds.scoring]
rule = "pnl"
[[rounds]]
name = "B"
[[rounds.parts]]
x = 1
[[ rounds . parts ]]
x = 2
[fair."X.Y"]
kind = { a = "}", b = [ "]" ] }
[fair.Z]
'''

WANTED = {
    ("name",): 2,
    ("quoted key",): 3,
    ("literal.key",): 4,
    ("a",): 5,
    ("a", "b"): 5,
    ("a", "b", "c.d"): 5,
    ("table",): 7,
    ("table", "many"): 8,
    ("table", "many", 0): 9,
    ("table", "many", 1): 9,
    ("table", "many", 1, 0): 9,
    ("table", "many", 1, 1): 10,
    ("table", "many", 2): 11,
    ("table", "many", 2, "x"): 11,
    ("table", "many", 2, "y"): 11,
    ("table", "many", 2, "y", "z"): 11,
    ("table", "text"): 13,
    ("table", "literal"): 16,
    ("table", "end"): 18,
    ("rounds",): 20,
    ("rounds", 0): 20,
    ("rounds", 0, "name"): 21,
    ("rounds", 0, "scoring"): 22,
    ("rounds", 0, "scoring", "rule"): 23,
    ("rounds", 1): 24,
    ("rounds", 1, "name"): 25,
    ("rounds", 1, "parts"): 26,
    ("rounds", 1, "parts", 0): 26,
    ("rounds", 1, "parts", 0, "x"): 27,
    ("rounds", 1, "parts", 1): 28,
    ("rounds", 1, "parts", 1, "x"): 29,
    ("fair",): 30,
    ("fair", "X.Y"): 30,
    ("fair", "X.Y", "kind"): 31,
    ("fair", "X.Y", "kind", "a"): 31,
    ("fair", "X.Y", "kind", "b"): 31,
    ("fair", "X.Y", "kind", "b", 0): 31,
    ("fair", "Z"): 32,
}


def paths_of(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """Return the path of everything in a parsed text."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found = {path} if path else set()
    return found.union(*(paths_of(v, (*path, k)) for k, v in items))


def test_each_key_and_element_has_its_line() -> None:
    assert lines_of(TEXT) == WANTED


def test_the_paths_are_those_of_tomllib() -> None:
    assert set(lines_of(TEXT)) == paths_of(tomllib.loads(TEXT))


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "a = 1", "[t]"])
def test_short_texts(text: str) -> None:
    assert set(lines_of(text)) == paths_of(tomllib.loads(text))


def test_lines_end_with_carriage_returns_too() -> None:
    text = TEXT.replace("\n", "\r\n")
    assert lines_of(text) == WANTED
