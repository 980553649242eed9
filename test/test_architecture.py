"""Which module may import which, and what the core must not touch.

Packages stand in a line, in the order in which data pass. Each imports only
itself and what stands left of it. A new module has to find its place there.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest

from orderbook import Event

ROOT = Path(__file__).parent.parent
DOORS = ("server", "client", "orderbook")
# From left to right; a module belongs to the first name that it begins with.
LINE = (
    ("orderbook",),
    ("exchange.files", "exchange.scripts"),
    ("exchange.market",),
    ("exchange.journal",),
    ("exchange.gateway",),
    ("exchange.doors",),
    ("exchange.host",),
    ("server",),
)
# Modules without clock, socket, disk and chance.
PURE = (
    "orderbook",
    "exchange.market",
    "exchange.journal.records",
    "exchange.journal.gate",
    "exchange.journal.address",
    "exchange.journal.lease",
    "exchange.journal.history",
    "exchange.journal.chain",
    "exchange.journal.snapshots.market",
    "exchange.journal.snapshots.history",
    "exchange.gateway.feed",
    "exchange.gateway.busts",
    "exchange.gateway.gateway",
    "exchange.gateway.link",
    "exchange.gateway.outbox",
    "exchange.gateway.pacing",
    "exchange.gateway.rates",
    "exchange.gateway.requests",
    "exchange.gateway.routing",
    "exchange.gateway.sequencer",
    "exchange.gateway.tables",
    "exchange.gateway.turns",
    "exchange.doors.challenge.messages",
    "exchange.doors.challenge.json_lines",
    "exchange.doors.challenge.text_lines",
    "exchange.doors.schema",
    "exchange.doors.names",
    "exchange.doors.once",
)
WORLD = set(
    "asyncio time datetime random secrets os socket threading websockets"
    " select selectors signal subprocess uuid logging pathlib io".split()
)


def modules(folder: str) -> list[str]:
    files = (ROOT / folder).rglob("*.py")
    paths = (file.relative_to(ROOT).with_suffix("") for file in files)
    return sorted(".".join(p.parts).removesuffix(".__init__") for p in paths)


def file_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports(module: str) -> set[str]:
    """Return all that a module imports, wherever in it that stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file_of(module).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "absolute imports only"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in OURS else node.module)
    return found


OURS = {*DOORS, *modules("exchange")}


def is_within(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def place(module: str) -> int:
    """Return where in the line a module stands."""
    places = [
        number
        for number, names in enumerate(LINE)
        if any(is_within(module, name) for name in names)
    ]
    assert len(places) == 1, f"{module} has no place in the line"
    return places[0]


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_root_has_three_doors() -> None:
    assert {file.stem for file in ROOT.glob("*.py")} == set(DOORS)


@pytest.mark.parametrize("module", sorted(OURS - {"client", "exchange"}))
def test_imports_point_from_right_to_left(module: str) -> None:
    ours = {"exchange", "util", "test", *DOORS}
    for name in imports(module):
        if roots({name}) <= ours:
            assert place(name) <= place(module), f"{module} imports {name}"


def test_a_participant_needs_two_modules() -> None:
    assert {n for n in imports("client") if n in OURS} == {"orderbook"}
    assert not imports("orderbook") & OURS
    assert not imports("exchange")


@pytest.mark.parametrize(
    "module",
    [m for m in sorted(OURS) if any(is_within(m, p) for p in PURE)],
)
def test_the_core_does_not_touch_the_world(module: str) -> None:
    assert not roots(imports(module)) & WORLD


def test_only_the_clock_and_the_key_file_ask_what_time_it_is() -> None:
    ours = ["server", *modules("exchange")]
    readers = {m for m in ours if roots(imports(m)) & {"time", "datetime"}}
    assert readers == {
        "exchange.host.clock",
        "exchange.host.keyfile",
        "exchange.host.keyring",
    }


def calls(module: str) -> list[ast.Call]:
    tree = ast.parse(file_of(module).read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


MARKET = [m for m in sorted(OURS) if is_within(m, "exchange.market")]
EVENTS = {event.__name__ for event in get_args(Event)} - {"Error"}


def test_events_are_made_in_one_module() -> None:
    makers = {
        module
        for module in MARKET
        for call in calls(module)
        if isinstance(call.func, ast.Name) and call.func.id in EVENTS
    }
    assert makers == {"exchange.market.reports"}


@pytest.mark.parametrize("module", MARKET)
def test_no_call_has_many_arguments_by_position(module: str) -> None:
    """Save for what is made for each order and fill."""
    many = {
        ast.unparse(call.func) for call in calls(module) if len(call.args) > 5
    }
    allowed = {
        "exchange.market.orders": {"Order"},
        "exchange.market.reports": {"AccountReport", "Exec", "Trade"},
    }
    assert many == allowed.get(module, set())


def test_this_test_sees_imports() -> None:
    assert {"asyncio", "exchange.gateway.gateway"} <= imports("server")
    assert "random" in imports("client")
