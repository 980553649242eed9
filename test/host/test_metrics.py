"""The metrics of a running exchange, parsed as by Prometheus."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exchange.doors import listener
from exchange.doors.websocket import Connection
from exchange.host import answers
from exchange.host.metrics import CONTENT_TYPE, SECONDS, Histogram
from server import Server
from test.support import (
    PATIENCE_S,
    Wire,
    answer,
    order,
    serving,
    until,
    wired,
)

Labels = frozenset[tuple[str, str]]


async def fetch(server: Server, path: str) -> tuple[int, str, str]:
    """GET a path; return status, content type and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writer.write(request.encode())
    async with asyncio.timeout(PATIENCE_S):
        answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers["content-type"], body


async def scrape(server: Server) -> dict[str, dict[Labels, float]]:
    """Return the samples by name and labels."""
    status, content_type, body = await fetch(server, "/metrics")
    assert (status, content_type) == (200, CONTENT_TYPE)
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(body):
        assert family.documentation, family.name
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            assert labels not in found.setdefault(sample.name, {})
            found[sample.name][labels] = sample.value
    return found


def at(found: dict[str, dict[Labels, float]], name: str, **labels: str) -> Any:
    return found[f"exchange_{name}"].get(frozenset(labels.items()))


async def trade(ann: Wire, bob: Wire) -> None:
    await ann.ask(**order("sell", 5, 100))
    await bob.ask(**order("buy", 2, 100))


async def test_orders_trades_and_books_are_counted() -> None:
    async with (
        serving(symbols="BOND,ETF") as server,
        wired(server.url, "ann") as ann,
        wired(server.url, "bob") as bob,
    ):
        before = await scrape(server)
        for symbol in ("BOND", "ETF"):
            await ann.ask(**order("sell", 5, 100, symbol=symbol))
        await bob.ask(**order("buy", 2, 100, symbol="BOND"))
        after = await scrape(server)
    assert at(before, "orders_total") == 0 and at(after, "orders_total") == 3
    grown = at(after, "commands_total") - at(before, "commands_total")
    assert grown == 3
    assert at(after, "trades_total", symbol="BOND") == 1
    assert at(after, "trades_total", symbol="ETF") == 0
    assert at(after, "volume_lots", symbol="BOND") == 2
    assert at(after, "resting_orders", symbol="BOND") == 1
    assert at(after, "accounts") == 2
    assert at(after, "uncommitted_commands") == 0
    assert at(after, "connection_errors_total") == 0


async def test_requests_are_counted_by_account_and_type() -> None:
    async with (
        serving() as server,
        wired(server.url, "ann") as ann,
        wired(server.url, "bob") as bob,
        wired(server.url, "bob") as bob2,
        wired(server.url) as stranger,
    ):
        await trade(ann, bob)
        await bob2.ask(**order("buy", 1, 90))
        await stranger.ask(**order("buy", 1, 90))
        await stranger.ask(type="get", what="book")
        await ann.connection.send("rubbish")
        await ann.until(code="bad_request")
        found = await scrape(server)

    def count(account: str, word: str) -> Any:
        return at(found, "requests_total", account=account, type=word)

    assert count("ann", "place") == 1 and count("bob", "place") == 2
    assert count("", "place") == 1 and count("", "get") == 1
    assert count("", "login") == 3 and count("ann", "bad_request") == 1
    assert count("ann", "cancel") is None


async def test_refusals_are_counted_by_code() -> None:
    async with serving() as server, wired(server.url, "ann") as ann:
        async with wired(server.url) as stranger:
            await stranger.ask(**order("buy", 1, 90))  # by the gateway
        await ann.ask(**order("buy", 1, 0))  # by the engine
        await ann.ask(type="cancel", order_id=7)
        await ann.ask(type="cancel", order_id=8)
        await ann.ask(type="cancel")  # by the codec
        found = await scrape(server)
    refusals = found["exchange_refusals_total"]
    assert {dict(labels)["code"]: n for labels, n in refusals.items()} == {
        "unauthorized": 1,
        "invalid_price": 1,
        "unknown_order": 2,
        "bad_request": 1,
    }


@pytest.mark.parametrize("journal", [False, True])
async def test_every_request_is_timed_once(
    tmp_path: Path, journal: bool
) -> None:
    path = tmp_path / "j.db" if journal else None
    async with serving(journal=path) as server, wired(server.url) as wire:
        await wire.ask(type="login", user="ann")
        await wire.send(*[order("buy", 1, 90)] * 50)
        await wire.ask()
        await trade(wire, wire)
        found = await scrape(server)
        requests = sum(found["exchange_requests_total"].values())
    assert at(found, "ack_seconds_count") == requests
    assert at(found, "ack_seconds_bucket", le="+Inf") == requests
    commits = at(found, "commit_seconds_count")
    assert bool(commits) == journal
    assert at(found, "batch_commands_count") == commits
    commands = at(found, "commands_total") if journal else 0
    assert at(found, "batch_commands_sum") == commands


async def test_connections_and_their_unsent_bytes() -> None:
    async with serving() as server:
        async with (
            wired(server.url, "ann") as ann,
            wired(server.url, "bob"),
        ):
            ann.pause()
            flood = order("buy", 1, 90, time_in_force="ioc")

            async def ask() -> None:
                while True:
                    await ann.send(*[flood] * 50)

            asking = asyncio.create_task(ask())
            await until(lambda: server.answers.figures().outboxes["ann"])
            found = await scrape(server)
            assert at(found, "connections", address="127.0.0.1") == 3
            assert at(found, "outbox_bytes", account="ann") > 0
            assert at(found, "outbox_bytes", account="bob") == 0
            asking.cancel()
            await asyncio.wait([asking])
            ann.resume()
        await until(lambda: not server.listener.connections)
        found = await scrape(server)
        assert at(found, "connections", address="127.0.0.1") == 1
        name = "connections_opened_total"
        assert at(found, name, address="127.0.0.1") == 4


async def test_refused_headers_are_counted() -> None:
    async with serving() as server:
        for header, line in (
            ("host", "Host: x.example"),
            ("origin", "Origin: http://x.example"),
        ):
            name = "http_refusals_total"
            assert at(await scrape(server), name, header=header) == 0
            host = "Host: localhost" if header == "origin" else line
            assert await answer(server.port, host, line) == 403
            assert at(await scrape(server), name, header=header) == 1


async def test_old_addresses_are_not_counted_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "ADDRESSES_COUNTED", 2)
    async with serving(max_connections=1) as server:
        for address, is_served in (
            *(("a", True), ("b", False), ("a", False), ("c", False)),
        ):
            connection = Connection(
                server, admission=server.listener, names=None
            )
            connection.remote = address
            assert server.listener.opened(connection) == is_served
        assert dict(server.answers.figures().arrivals) == {"a": 2, "c": 1}
        server.listener.closed(next(iter(server.listener.connections)))


async def test_only_the_busiest_accounts_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers, "ACCOUNTS_NAMED", 2)
    async with (
        serving() as server,
        wired(server.url, "ann") as ann,
        wired(server.url, "bob") as bob,
        wired(server.url, "eve"),
    ):
        for wire in (ann, bob, bob):
            await wire.send(*[{"type": "ping", "id": n} for n in range(4)])
            await wire.take(4)
        figures = server.answers.figures()
        assert figures.requests == {"bob": {"ping": 9}, "ann": {"ping": 5}}
        assert len(figures.outboxes) == 2


async def test_the_process_has_metrics() -> None:
    async with serving() as server:
        found = await scrape(server)
    assert found["process_resident_memory_bytes"][frozenset()] > 2**20


async def test_recovery_has_a_metric(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    async with serving(journal=path) as server, wired(server.url, "ann") as w:
        await w.ask(**order("buy", 1, 90))
    async with serving(journal=path) as server:
        found = await scrape(server)
    assert at(found, "recovery_seconds") > 0
    assert at(found, "orders_total") == 1


async def test_ready_until_it_stops_or_the_disk_cannot_follow() -> None:
    async with serving() as server:
        assert await fetch(server, "/readyz") == (200, *PLAIN, "ok\n")
        server.gateway.sequencer.disk_trouble = "no disk"
        status, *_, body = await fetch(server, "/readyz")
        assert (status, body) == (503, "busy: no disk\n")
        server.gateway.sequencer.disk_trouble = ""
        server.answers.is_stopping = True
        status, *_, body = await fetch(server, "/readyz")
        assert (status, body) == (503, "stopping\n")
        server.answers.is_stopping = False
        status, *_ = await fetch(server, "/healthz")
        assert status == 200


PLAIN = ("text/plain; charset=utf-8",)


def test_a_histogram_counts_values_up_to_each_bound() -> None:
    histogram = Histogram((1.0, 2.0, 5.0))
    for value, times in ((0.5, 1), (1.0, 2), (1.5, 3), (5.0, 4), (5.1, 5)):
        histogram.observe(value, times)
    assert histogram.buckets() == [
        ("1.0", 3),
        ("2.0", 6),
        ("5.0", 10),
        ("+Inf", 15),
    ]
    assert histogram.sum == 0.5 + 2 + 4.5 + 20 + 25.5
    assert list(SECONDS) == sorted(SECONDS)
