"""Who may import whom, and what the core must not touch.

Imports point one way, from the shell to the core. A new module has to be put
into the table.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOORS = ("server", "client", "orderbook")
PURE = {  # of each module, what it may import of ours
    "orderbook": set(),
    "exchange.accounts": {"orderbook"},
    "exchange.auction": {"orderbook"},
    "exchange.listing": {"orderbook"},
    "exchange.engine": {
        "orderbook",
        "exchange.accounts",
        "exchange.auction",
        "exchange.listing",
    },
    "exchange.feed": {"orderbook"},
    "exchange.history": {"orderbook"},
    "exchange.rate": set(),
    "exchange.schema": {"orderbook"},
    "exchange.session": {"orderbook", "exchange.rate"},
    "exchange.gate": set(),
    "exchange.names": set(),
}
MAY_IMPORT = {
    **PURE,
    "exchange": set(),
    "exchange.transport": {"exchange.names"},
    "exchange.logs": {"exchange.printing"},
    "exchange.clock": set(),
    "exchange.lookout": set(),
    "exchange.printing": set(),
    "exchange.metrics": set(),
    "exchange.tables": {"orderbook"},
    "exchange.web": set(),
    "exchange.files": set(),
    "exchange.scripts": set(),
    "exchange.keys": {"orderbook", "exchange.files"},
    "exchange.settings": {
        "orderbook",
        "exchange.accounts",
        "exchange.engine",
        "exchange.files",
        "exchange.keys",
        "exchange.names",
        "exchange.rate",
    },
    "exchange.tls": {"exchange.settings"},
    "exchange.journal": {"orderbook", "exchange.engine", "exchange.files"},
    "exchange.gateway": set(PURE),
    "client": {"orderbook"},
}
MAY_IMPORT["server"] = set(MAY_IMPORT) - {"client", "exchange.scripts"}
WORLD = set(
    "asyncio time datetime random secrets os socket threading websockets"
    " select selectors signal subprocess uuid logging pathlib io".split()
)


def modules(folder: str) -> list[str]:
    files = (ROOT / folder).rglob("*.py")
    paths = (file.relative_to(ROOT).with_suffix("") for file in files)
    return sorted(".".join(p.parts).removesuffix(".__init__") for p in paths)


def imports(module: str) -> set[str]:
    """Return all that a module imports, wherever in it that stands."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "absolute imports only"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in MAY_IMPORT else node.module)
    return found


def roots(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_root_has_three_doors() -> None:
    assert {file.stem for file in ROOT.glob("*.py")} == set(DOORS)


def test_every_module_is_in_the_table() -> None:
    assert {*modules("exchange"), *DOORS} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_imports_point_from_shell_to_core(module: str) -> None:
    ours = {"exchange", "util", "test", *DOORS}
    found = {name for name in imports(module) if not roots({name}) - ours}
    assert found <= MAY_IMPORT[module]


@pytest.mark.parametrize("module", PURE)
def test_the_core_does_not_touch_the_world(module: str) -> None:
    assert not roots(imports(module)) & WORLD


def test_only_the_clock_and_the_key_file_ask_what_time_it_is() -> None:
    ours = ["server", *modules("exchange")]
    readers = {m for m in ours if roots(imports(m)) & {"time", "datetime"}}
    assert readers == {"exchange.clock", "exchange.keys"}


def test_this_test_sees_imports() -> None:
    assert {"asyncio", "exchange.gateway"} <= imports("server")
    assert "random" in imports("client")
