"""The image and the chart say the same as the code; no tool is needed.

That the chart renders, and into what, `make chart` checks.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel, TypeAdapter, ValidationError

from exchange.host.market_file import (
    AccountSettings,
    InstrumentSettings,
    MarketSettings,
    MoneySettings,
)
from exchange.host.product_settings import SETTINGS, ConversionSettings
from exchange.host.settings import Settings
from orderbook import Symbol, User
from test.support import ROOT

CHART = ROOT / "k8s"
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
RULES = ("type", "enum", "const", "pattern", "minimum", "maximum")
RULES += ("maxLength", "minProperties", "maxProperties", "patternProperties")


def rules(schema: dict[str, Any]) -> dict[str, Any]:
    """Return of a schema what refuses values; null says: left out."""
    null = {"type": "null"}
    choices = [rules(s) for s in schema.get("anyOf", []) if s != null]
    if choices:
        return choices[0] if len(choices) == 1 else {"anyOf": choices}
    return {rule: schema[rule] for rule in RULES if rule in schema}


def fields(settings: type[BaseModel]) -> dict[str, Any]:
    """Return what a table of the market file refuses, by field."""
    properties = settings.model_json_schema()["properties"]
    return {field: rules(schema) for field, schema in properties.items()}


def allowed(name: str) -> dict[str, Any]:
    """Return what the chart refuses in such a table, by field."""
    properties = SCHEMA["definitions"][name]["properties"]
    return {field: rules(schema) for field, schema in properties.items()}


@pytest.mark.parametrize(
    "name, settings",
    [
        ("instrument", InstrumentSettings),
        ("conversion", ConversionSettings),
        ("money", MoneySettings),
        ("account", AccountSettings),
    ],
)
def test_a_table_is_what_a_market_file_may_say(
    name: str, settings: type[BaseModel]
) -> None:
    assert allowed(name) == fields(settings)
    for schema in SCHEMA["definitions"][name]["properties"].values():
        assert schema.keys() <= {*RULES, "anyOf", "$ref"} | {
            "additionalProperties"
        }


def test_the_tables_have_their_places() -> None:
    definitions = SCHEMA["definitions"]
    for where, field, name in (
        ("instrument", "convert", "conversion"),
        ("defaults", "money", "money"),
        ("market", "money", "money"),
        ("defaults", "account", "account"),
        ("market", "account", "account"),
    ):
        schema = definitions[where]["properties"][field]
        assert schema == {"$ref": f"#/definitions/{name}"}
    names = definitions["accounts"]["propertyNames"]
    assert rules(TypeAdapter(User).json_schema()) == names | {"type": "string"}


@pytest.mark.parametrize("kind, settings", SETTINGS.items())
def test_a_kind_needs_its_settings(
    kind: str, settings: tuple[set[str], set[str]]
) -> None:
    needed, _ = settings
    instrument = SCHEMA["definitions"]["instrument"]
    validator = Draft7Validator({"allOf": instrument["allOf"]})
    assert validator.is_valid({"kind": kind, **dict.fromkeys(needed)})
    for name in needed:
        others = dict.fromkeys(needed - {name})
        assert not validator.is_valid({"kind": kind, **others})


def test_everything_of_a_market_file_but_what_an_event_sets() -> None:
    fields = MarketSettings.model_fields.keys() - {"match", "doors"}
    assert fields <= SCHEMA["definitions"]["market"]["properties"].keys()


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
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {line[1:] for line in lines if line[0] == "!"} == copied


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
