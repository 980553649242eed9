"""The documents are right: examples decode and run, lists agree."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import pytest

import orderbook
from exchange.host.market_file import (
    AccountSettings,
    InstrumentSettings,
    load_market,
)
from exchange.host.product_settings import (
    ConversionSettings,
    ProductSettings,
)
from exchange.host.settings import ENV_PREFIX, Settings
from exchange.market.command import RULES
from orderbook import (
    EVENT_TYPES,
    REQUEST_TYPES,
    Error,
    Instrument,
    decode_events,
    decode_requests,
    encode,
)
from test.support import (
    PATIENCE_S,
    Wire,
    ended,
    order,
    running,
    serving,
    wired,
)

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROTOCOL = (ROOT / "docs" / "PROTOCOL.md").read_text()
OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "ARCHITECTURE.md").read_text()
CLIENT = (ROOT / "client.py").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", ".github/*.md", "k8s/*.md")
    for path in sorted(ROOT.glob(pattern))
]
ENOUGH = 20  # examples of requests, and as many of events
COMMON = ["type", "id"]  # fields described once for all messages
CLOSE_CODES = ["1001", "1003", "1009", "1013", "4001", "4002", "4008", "4009"]
BOOKS = 3  # lines that the README's bot prints before the test ends it


# Markdown -----------------------------------------------------------------


def name_of(path: Path) -> str:
    """Return the name of a document, for the names of tests."""
    return str(path.relative_to(ROOT))


def blocks(text: str, info: str) -> list[str]:
    """Return the fenced blocks with exactly this info string."""
    return re.findall(rf"^```{info}\n(.*?)^```$", text, re.M | re.S)


def frames(text: str, info: str) -> list[str]:
    """Return the lines of such blocks: one frame each."""
    return [f for block in blocks(text, info) for f in block.splitlines()]


def elements(frame: str) -> list[dict[str, Any]]:
    """Return the messages of a frame as plain objects."""
    value = json.loads(frame)
    return value if isinstance(value, list) else [value]


def section(text: str, heading: str) -> str:
    """Return the text between a heading and the next one."""
    pattern = rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)"
    [found] = re.findall(pattern, text, re.M | re.S)
    return str(found)


def chapter(heading: str) -> str:
    """Return a chapter of the protocol, with its sections."""
    pattern = rf"^## {heading}\n(.*?)^## "
    [text] = re.findall(pattern, PROTOCOL, re.M | re.S)
    return str(text)


def table(text: str, head: str) -> list[list[str]]:
    """Return the rows of the only table whose first column has this head."""
    pattern = rf"^\| {re.escape(head)} \|.*\n\|[-|]+\|\n((?:\|.*\n?)+)"
    [found] = re.findall(pattern, text, re.M)
    return [
        [cell.strip() for cell in row.strip("|").split("|")]
        for row in found.splitlines()
    ]


def names(text: str, head: str) -> list[str]:
    """Return the first column of such a table, without back quotes."""
    return [row[0].strip("`") for row in table(text, head)]


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a text."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.M)
    }


# The protocol: examples ---------------------------------------------------


def test_examples_are_marked_and_many() -> None:
    infos = re.findall(r"^```(.+)$", PROTOCOL, re.M)
    assert set(infos) == {"json request", "json event"}
    assert len(frames(PROTOCOL, "json request")) >= ENOUGH
    assert len(frames(PROTOCOL, "json event")) >= ENOUGH


@pytest.mark.parametrize(
    "info, types",
    [("json request", REQUEST_TYPES), ("json event", EVENT_TYPES)],
)
def test_every_message_has_an_example(
    info: str, types: dict[str, type]
) -> None:
    shown = [m["type"] for f in frames(PROTOCOL, info) for m in elements(f)]
    assert set(shown) == set(types)


@pytest.mark.parametrize("frame", frames(PROTOCOL, "json request"))
def test_request_decodes(frame: str) -> None:
    shown, requests = elements(frame), decode_requests(frame)
    for message, request in zip(shown, requests, strict=True):
        assert not isinstance(request, Error), request.message
        decoded = json.loads(json.dumps(dataclasses.asdict(request)))
        assert {name: decoded[name] for name in message} == message


@pytest.mark.parametrize("frame", frames(PROTOCOL, "json event"))
def test_event_decodes(frame: str) -> None:
    events = decode_events(frame)
    assert [json.loads(encode(event)) for event in events] == elements(frame)
    for message in elements(frame):
        for row in message.get("data", []):
            if "type" in row:
                [event] = decode_events(json.dumps(row))
                assert json.loads(encode(event)) == row


async def test_the_first_session_goes_as_documented() -> None:
    def comparable(message: dict[str, Any]) -> dict[str, Any]:
        return {**message, "ts": 0, "session": ""}

    text = section(PROTOCOL, "A first session")
    steps = re.findall(r"^```json (\w+)\n(.*?)\n```$", text, re.M | re.S)
    assert [kind for kind, _ in steps] == ["request", "event"] * 3 + ["event"]
    async with (
        serving() as server,
        wired(server.url, "bob") as bob,
        wired(server.url) as alice,
    ):
        await bob.ask(**order("sell", 10, 101))
        for kind, frame in steps:
            if kind == "request":
                await alice.connection.send(frame)
                continue
            documented = elements(frame)
            got = await alice.take(len(documented))
            assert [*map(comparable, got)] == [*map(comparable, documented)]


@pytest.mark.parametrize(
    "stp, words, queue",
    [
        ("cancel_oldest", ["new", "canceled", "trade"], [[[100, 3]], []]),
        ("cancel_newest", ["new", "canceled"], [[], [[100, 10]]]),
        ("cancel_both", ["new", "canceled", "canceled"], [[], [[100, 5]]]),
    ],
)
async def test_self_trade_prevention_goes_as_documented(
    stp: str, words: list[str], queue: list[list[list[int]]]
) -> None:
    documented = table(section(PROTOCOL, "Self-trade prevention"), "stp")
    assert [row[0] for row in documented] == [
        f"`{name}`" for name in get_args(orderbook.Stp)
    ]
    async with (
        serving() as server,
        wired(server.url, "alice") as alice,
        wired(server.url, "bob") as bob,
    ):
        await alice.ask(**order("sell", 5, 100))
        await bob.ask(**order("sell", 5, 100))
        got = await alice.ask(**order("buy", 8, 100, stp=stp))
        execs = [m for m in got if m["type"] == "exec"]
        assert [e["exec_type"] for e in execs] == words
        [*_, reply] = await bob.ask(type="get", what="book")
        [book] = reply["data"]
        assert [book["bids"], book["asks"]] == queue


# The protocol: tables -----------------------------------------------------


def test_every_message_has_a_section() -> None:
    for heading, types in (
        ("Requests", REQUEST_TYPES),
        ("Events", EVENT_TYPES),
    ):
        text = chapter(heading)
        assert re.findall(r"^### `(\w+)`$", text, re.M) == list(types)
        assert names(text, "common field") == COMMON


def check_fields(rows: list[list[str]], cls: Any, needed: str) -> None:
    """Compare a table of fields with a class: which, and the defaults."""
    fields = {
        f.name: f for f in dataclasses.fields(cls) if f.name not in COMMON
    }
    assert sorted(row[0] for row in rows) == sorted(f"`{f}`" for f in fields)
    for name, _, default, _ in rows:
        field = fields[name.strip("`")]
        is_needed = field.default is dataclasses.MISSING
        assert (default == needed) == is_needed, name
        if not is_needed and field.default is not None:
            assert default == f"`{json.dumps(field.default)}`", name


@pytest.mark.parametrize("name", REQUEST_TYPES)
def test_fields_of_request(name: str) -> None:
    text = section(chapter("Requests"), f"`{name}`")
    rows = table(text, "field") if "| field |" in text else []
    check_fields(rows, REQUEST_TYPES[name], "required")


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_fields_of_event(name: str) -> None:
    rows = table(section(chapter("Events"), f"`{name}`"), "field")
    check_fields(rows, EVENT_TYPES[name], "always")


def test_fields_of_instrument() -> None:
    rows = table(PROTOCOL, "instrument field")
    check_fields(rows, Instrument, "always")


@pytest.mark.parametrize(
    "head, words",
    [
        ("code", orderbook.Code),  # in order of precedence
        ("reason", orderbook.Reason),
        ("exec_type", orderbook.ExecType),
        ("order_status", orderbook.OrderStatus),
        ("liquidity", orderbook.Liquidity),
        ("phase", orderbook.Phase),
        ("channel", orderbook.Channel),
        ("what", orderbook.Table),
        ("stp", orderbook.Stp),
        ("action", orderbook.AdminAction),
    ],
)
def test_words(head: str, words: Any) -> None:
    first, *others = get_args(words)
    known = [first, *others] if isinstance(first, str) else get_args(first)
    assert names(PROTOCOL, head) == list(known)


@pytest.mark.parametrize(
    "name, field, words",
    [
        ("place", "side", orderbook.Side),
        ("place", "order_type", orderbook.OrderType),
        ("place", "time_in_force", orderbook.TimeInForce),
        ("place", "stp", orderbook.Stp),
        ("get", "interval", orderbook.Interval),
        ("admin", "phase", get_args(orderbook.Phase)[0]),
    ],
)
def test_words_of_field(name: str, field: str, words: Any) -> None:
    rows = table(section(PROTOCOL, f"`{name}`"), "field")
    [meaning] = [row[3] for row in rows if row[0] == f"`{field}`"]
    for word in get_args(words):
        assert f"`{word}`" in meaning


def test_close_codes() -> None:
    assert names(PROTOCOL, "close code") == CLOSE_CODES


def test_every_later_version_of_the_rules_has_changed_something() -> None:
    rows = table(section(PROTOCOL, "Changed"), "rules")
    assert {int(row[0]) for row in rows} == set(RULES) - {RULES[0]}


@pytest.mark.parametrize("order_type, times", orderbook.TIMES_IN_FORCE.items())
def test_the_times_in_force_of_an_order_type(
    order_type: str, times: tuple[str, ...]
) -> None:
    rows = table(section(PROTOCOL, "`place`"), "order_type")
    [words] = [row[1] for row in rows if row[0] == f"`{order_type}`"]
    listed = re.match(r"[`a-z, ]*", words)
    assert listed and re.findall(r"`(\w+)`", listed[0]) == list(times)


async def test_limits_and_leaderboard() -> None:
    async with serving() as server, wired(server.url) as wire:
        welcome = await wire.login("alice")
        async with wired(server.url, "bob") as bob:
            await bob.ask(**order("buy", 1, 100))
            await wire.ask(**order("sell", 1, 100))
        [reply] = await wire.ask(type="get", what="leaderboard")
    assert names(PROTOCOL, "limit") == list(welcome["limits"])
    [meaning] = [
        row[2] for row in table(PROTOCOL, "what") if "leaderboard" in row[0]
    ]
    assert re.findall(r"`(\w+)`", meaning) == list(reply["data"][0])


# The README ---------------------------------------------------------------


async def run(
    *arguments: str, url: str, cwd: Path = ROOT
) -> tuple[int, str, str]:
    """Run Python to its end; return status, output and errors."""
    async with running(
        *("-W", "error", *arguments),
        env={**os.environ, "EXCHANGE_URL": url},
        cwd=cwd,
    ) as process:
        return await ended(process)


async def sell_to_every_bid(wire: Wire) -> None:
    """Sell a lot whenever somebody wants to buy."""
    await wire.send({"type": "subscribe", "channels": ["book"]})
    while True:
        [message] = await wire.take(1)
        bids = message.get("bids") if message["type"] == "book" else None
        if bids and bids[0][1]:
            await wire.send(order("sell", 1, bids[0][0], time_in_force="ioc"))


async def test_bot_runs(tmp_path: Path) -> None:
    [bot] = blocks(README, "python")
    (tmp_path / "bot.py").write_text(bot)
    async with serving() as server, wired(server.url, "taker") as taker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-u", "-W", "error", "bot.py"),
            cwd=tmp_path,
            env={**os.environ, "EXCHANGE_URL": server.url},
            stdout=PIPE,
            stderr=PIPE,
        )
        selling = asyncio.create_task(sell_to_every_bid(taker))
        try:
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE_S):
                lines = [await process.stdout.readline() for _ in range(BOOKS)]
        finally:
            selling.cancel()
            await asyncio.wait([selling])
            process.kill()
            _, errors = await process.communicate()
        assert errors == b""
        assert all(len(line.split()) == 4 for line in lines)
        assert selling.cancelled()
        held = server.gateway.engine.accounts["maker"].positions
        assert held["BOND"] > 0


def commands() -> list[str]:
    """Return the shell commands without their comments."""
    return [
        line.partition("#")[0].strip()
        for line in frames(README, "sh")
        if line.strip()
    ]


@pytest.mark.parametrize(
    "heading, command",
    [
        ("Development", "poetry install"),
        ("Development", "poetry run python server.py"),
        ("Development", "poetry run python -m util.send_order"),
        ("Test", "poetry run pytest test"),
        ("Lint", "poetry run black --line-length 79 ."),
        ("Lint", "poetry run flake8 ."),
        ("Lint", "poetry run isort ."),
    ],
)
def test_sections_keep_their_commands(heading: str, command: str) -> None:
    assert command in frames(section(README, heading), "sh")


def test_the_variables_of_the_readme_are_settings() -> None:
    documented = re.findall(rf"`{ENV_PREFIX}(\w+)`", README)
    assert documented == ["HOSTNAME", "PORT"]
    assert {name.lower() for name in documented} <= {*Settings.model_fields}


def test_make_knows_the_targets() -> None:
    targets = re.findall(r"^(\w+):.*## ", MAKEFILE, re.M)
    used = [c.split()[1] for c in commands() if c.startswith("make")]
    assert used == ["run", "demo", "test", "cluster"]
    assert set(used) <= set(targets)


def test_each_target_of_make_installs_first() -> None:
    """A variable that is not defined is empty, so a target would not."""
    rules = re.findall(r"^([\w-]+):(.*) ## .*\n((?:\t.*\n)*)", MAKEFILE, re.M)
    assert len(rules) > ENOUGH
    for target, needed, recipe in rules:
        if "$(PY)" in recipe:
            assert needed.strip() == "$(STAMP)", target


async def test_send_order_commands_run() -> None:
    start = "poetry run python -m util.send_order"
    lines = [c for c in commands() if c.startswith(start)]
    assert len(lines) == 2
    async with serving() as server:
        for line in lines:
            arguments = line.split()[3:]
            status, output, errors = await run(*arguments, url=server.url)
            assert (status, errors) == (0, "")
            assert output


@pytest.mark.parametrize(
    "program",
    [
        "server.py",
        "-m util.send_order",
        "-m util.accounts",
        "-m util.admin",
        "-m util.measure.bench",
        "-m util.bots",
        "-m util.measure.stress",
        "-m util.measure.hostile",
        "-m util.watch",
    ],
)
async def test_program_has_help(program: str) -> None:
    status, output, _ = await run(*program.split(), "--help", url="")
    assert status == 0
    assert output.startswith("usage: ")


# Operations ---------------------------------------------------------------


def test_server_variables() -> None:
    def shown(default: Any) -> str:
        if isinstance(default, tuple):
            default = ",".join(default)
        elif isinstance(default, bool):
            default = int(default)
        return "none" if default in (None, "") else f"`{default}`"

    documented = {row[0]: row[1] for row in table(OPERATIONS, "variable")}
    assert documented == {
        f"`{ENV_PREFIX}{name.upper()}`": shown(field.default)
        for name, field in Settings.model_fields.items()
    }


def test_client_variables() -> None:
    read = re.findall(r'"(EXCHANGE_(?!SERVER_)\w+)"', CLIENT)
    assert set(names(OPERATIONS, "client variable")) == set(read)


def test_market_file(tmp_path: Path) -> None:
    [example] = [
        block for block in blocks(OPERATIONS, "toml") if "[accounts." in block
    ]
    path = tmp_path / "market.toml"
    path.write_text(example)
    market = load_market(path)
    assert list(market.instruments) == ["BOND", "ETF"]
    assert market.instruments["BOND"] == InstrumentSettings()
    shown = market.instruments["BOND"].model_fields_set
    assert shown == set(InstrumentSettings.model_fields) - set(
        ProductSettings.model_fields
    )
    own, common = market.accounts["maker"], market.account
    shown = own.model_fields_set | common.model_fields_set
    assert shown == set(AccountSettings.model_fields)


def test_kinds_in_the_market_file(tmp_path: Path) -> None:
    [example] = [
        block for block in blocks(OPERATIONS, "toml") if "kind = " in block
    ]
    path = tmp_path / "market.toml"
    path.write_text(example)
    market = load_market(path).instruments
    shown = {
        name
        for settings in market.values()
        for name in settings.model_fields_set
    }
    assert shown >= set(ProductSettings.model_fields)
    conversion = market["XLF"].convert
    assert conversion is not None
    shown = conversion.model_fields_set
    assert shown == set(ConversionSettings.model_fields)
    assert market["FUT"].product()["expires"] == "round"


# Architecture -------------------------------------------------------------


def definitions(path: Path) -> dict[str, int]:
    """Return the lines of each class, function and method of a module."""
    found: dict[str, int] = {}

    def add(nodes: list[ast.stmt], prefix: str) -> None:
        for node in nodes:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                assert node.end_lineno is not None
                name = prefix + node.name
                found[name] = node.end_lineno - node.lineno + 1
                add(node.body, f"{name}.")

    add(ast.parse(path.read_text("utf-8")).body, "")
    return found


def test_the_reading_list_exists_and_is_as_long_as_documented() -> None:
    total = 0
    for cell, lines, _ in table(ARCHITECTURE, "read"):
        module, *parts = re.findall(r"`([^`]+)`", cell)
        path = ROOT / module
        found = definitions(path)
        length = sum(found[part] for part in parts)
        if not parts:
            length = len(path.read_text("utf-8").splitlines())
        assert int(lines) == pytest.approx(length, rel=0.1), cell
        total += length
    assert 1_500 < total < 1_900


def test_every_module_is_listed() -> None:
    modules = {
        str(path.relative_to(ROOT))
        for pattern in ("*.py", "exchange/**/*.py")
        for path in ROOT.glob(pattern)
        if path.name != "__init__.py"
    }
    assert modules == set(names(ARCHITECTURE, "module"))


def test_every_package_is_listed() -> None:
    packages = {
        f"exchange/{path.parent.name}/"
        for path in ROOT.glob("exchange/*/__init__.py")
    }
    assert packages <= set(names(ARCHITECTURE, "place"))


@contextlib.contextmanager
def traced() -> Iterator[tuple[list[str], threading.Event]]:
    """Yield the functions of the exchange called, and what turns this on.

    Calls of this thread and of threads that start meanwhile are recorded, in
    their order, while the event is set.
    """
    calls: list[str] = []
    is_on = threading.Event()
    sources = (str(ROOT / "exchange"), str(ROOT / "server.py"))
    sources += (str(ROOT / "orderbook.py"),)

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and is_on.is_set():
            if code.co_filename.startswith(sources):
                calls.append(code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    threading.setprofile(note)
    try:
        yield calls, is_on
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


async def test_an_order_goes_the_documented_way(tmp_path: Path) -> None:
    text = section(ARCHITECTURE, "The way of one order")
    documented = re.findall(r"^\d+\. `([\w.]+)` \(\w+\):", text, re.M)
    journal = tmp_path / "journal"
    with traced() as (calls, is_on):
        async with (
            serving(journal=journal) as server,
            wired(server.url, "alice") as alice,
            wired(server.url) as watcher,
        ):
            await watcher.ask(type="subscribe", channels=["book"])
            is_on.set()
            await alice.ask(**order("buy", 4, 99))
            [book] = await watcher.take(1)
            is_on.clear()
    assert book["bids"] == [[99, 4]]
    left = iter(calls)
    missing = next((name for name in documented if name not in left), None)
    assert missing is None, f"not in this order: {missing} in {calls}"


# Links and files ----------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_resolve(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        assert file.exists(), link
        if anchor:
            assert anchor in anchors(file.read_text()), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_no_paragraph_stands_twice(path: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    count = Counter(re.split(r"\n{2,}", prose.strip()))
    # The name of a request may be that of an event, too.
    twice = [text for text, times in count.items() if times > 1]
    assert [text for text in twice if not text.startswith("#")] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_no_heading_stands_twice(path: Path) -> None:
    """Otherwise a link leads to the first of them only.

    Those of a message are its name: a tender is a request and an event. A
    changelog has the same headings for each version.
    """
    prose = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    found = re.findall(r"^#+ (.*)$", prose, re.M)
    count = Counter(heading.lower().strip("`") for heading in found)
    twice = {heading for heading, times in count.items() if times > 1}
    if path.name != "CHANGELOG.md":
        assert twice <= set(REQUEST_TYPES) & set(EVENT_TYPES)


def files_listed() -> dict[str, str]:
    """Return the README's sentences by path."""
    return {
        name: row[1]
        for row in table(README, "file")
        for name in re.findall(r"`([^`]+)`", row[0])
    }


def test_listed_files_exist() -> None:
    for name, sentence in files_listed().items():
        assert (ROOT / name).exists(), name
        assert sentence.endswith("."), name


def test_every_folder_is_listed() -> None:
    folders = {"docs/", "exchange/", "k8s/", "test/", "util/"}
    assert folders <= set(files_listed())
    pages = {path.name for path in ROOT.glob("docs/*.md")}
    assert pages == set(re.findall(r"\(docs/(\w+\.md)\)", README))


def test_every_file_in_the_root_is_listed() -> None:
    # Only files that git knows: a user's own files may stand beside them.
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    if listing.returncode:
        pytest.skip("no git checkout")
    files = {
        name
        for name in listing.stdout.splitlines()
        if "/" not in name and not name.startswith(".")
    }
    assert files - {"README.md"} <= set(files_listed())
