"""The image and the chart say the same as the code; no tool is needed.

That the chart renders, and into what, `make chart` checks.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from exchange.host.market_file import AccountSettings, InstrumentSettings
from exchange.host.settings import Settings
from orderbook import Symbol, User
from test.support import ROOT

CHART = ROOT / "k8s"
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
RULES = ("type", "enum", "pattern", "minimum", "maximum")


def rules(schema: dict[str, Any]) -> dict[str, Any]:
    """Return of a schema what refuses values."""
    return {rule: schema[rule] for rule in RULES if rule in schema}


def test_an_instrument_is_what_a_market_file_may_say() -> None:
    ours = InstrumentSettings.model_json_schema()["properties"]
    theirs = SCHEMA["definitions"]["instrument"]["properties"]
    assert {field: rules(ours[field]) for field in ours} == theirs


def test_an_account_is_what_a_market_file_may_say() -> None:
    ours = AccountSettings.model_json_schema()["properties"]
    theirs = SCHEMA["definitions"]["account"]["properties"]
    assert ours.keys() == theirs.keys()
    ours["min_cash"] = ours["min_cash"]["anyOf"][0]  # or it is left out
    positions = theirs.pop("max_position")["patternProperties"]
    assert positions == ours.pop("max_position")["patternProperties"]
    assert {field: rules(ours[field]) for field in ours} == theirs
    names = SCHEMA["definitions"]["accounts"]["propertyNames"]
    assert rules(TypeAdapter(User).json_schema()) == names | {"type": "string"}


def test_a_symbol_is_what_the_protocol_says() -> None:
    names = SCHEMA["definitions"]["instruments"]["propertyNames"]
    assert rules(TypeAdapter(Symbol).json_schema()) == names | {
        "type": "string"
    }


def test_one_market_may_say_all_that_the_defaults_may() -> None:
    properties = {
        name: set(SCHEMA["definitions"][name]["properties"])
        for name in ("defaults", "market")
    }
    assert properties["market"] == properties["defaults"] | {
        "instruments",
        "accounts",
    }


def test_the_chart_has_the_version_of_the_project() -> None:
    version = PROJECT["project"]["version"]
    chart = (CHART / "Chart.yaml").read_text("utf-8")
    assert re.findall(r'^appVersion: "(.+?)"', chart, re.M) == [version]


def test_the_image_has_every_module() -> None:
    copied = {
        name
        for line in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.M)
        for name in line.split()
    }
    doors = {path.name for path in ROOT.glob("*.py")}
    modules = doors | {"exchange", "util"}
    assert copied == modules | {"pyproject.toml", "poetry.lock"}
    allowed = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in allowed if line[0] == "!"} == copied


@pytest.mark.parametrize(
    "name, text, is_good",
    [
        ("origins", "https://example.org", True),
        ("origins", "http://localhost:3000/", True),
        ("origins", "http://[::1]:3000", True),
        ("origins", "example.org", False),
        ("origins", "https://*", False),
        ("origins", "https://example.org/exchange", False),
        ("proxies", "10.42.0.0/16", True),
        ("proxies", "fd00::1", True),
        ("proxies", "ingress-nginx", False),
        ("proxies", "*", False),
    ],
)
def test_the_chart_refuses_what_the_server_would(
    name: str, text: str, is_good: bool
) -> None:
    """Before a pod ends again and again."""
    defaults = SCHEMA["definitions"]["defaults"]["properties"]
    pattern = defaults[name]["items"]["pattern"]
    assert bool(re.search(pattern, text)) == is_good
    try:
        Settings(**{name: text})
    except ValidationError:
        assert not is_good
    else:
        assert is_good
