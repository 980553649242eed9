"""freqtrade trades live here, and its profit is ours: ``make freqtrade``."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from test.support import ROOT
from util.measure.process import launched

MARKET = """\
[instruments.BOND]
tick_size = "0.01"
reference_price = 10_000
[money]
unit = "0.01"
currency = "USD"
[account]
cash = 10_000_000
"""
STRATEGY = re.compile(r"^```python\n(from freqtrade.*?)^```$", re.M | re.S)
SETTINGS = re.compile(r"^```json\n(.*?)^```$", re.M | re.S)
TRADES = 2  # that freqtrade must have closed
MOST_S = 600


def settings(host: str) -> dict[str, Any]:
    """Return the documented settings, with what freqtrade needs besides."""
    page = (ROOT / "docs" / "DIALECT.md").read_text()
    (text,) = SETTINGS.findall(page)
    found: dict[str, Any] = json.loads(text.replace("localhost:8765", host))
    price = {"price_side": "other", "use_order_book": True}
    return found | {
        "dry_run": False,
        "max_open_trades": 1,
        "stake_amount": 500,
        "trading_mode": "spot",
        "entry_pricing": price,
        "exit_pricing": price,
        "pairlists": [{"method": "StaticPairList"}],
        "internals": {"process_throttle_secs": 2},
    }


@contextmanager
def process(*arguments: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(arguments, **more) as started:
        try:
            yield started
        finally:
            started.send_signal(signal.SIGINT)
            try:
                started.wait(30)
            except subprocess.TimeoutExpired:
                started.kill()


def closed(path: Path) -> list[tuple[Any, ...]]:
    """Return profit and orders of the trades that freqtrade has closed.

    None while it has made no tables.
    """
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file,
    ):
        return file.execute(
            "select trades.id, close_profit_abs, order_id from trades"
            " join orders on orders.ft_trade_id = trades.id where not is_open"
        ).fetchall()
    return []


def fills(host: str) -> list[dict[str, Any]]:
    now = time.time_ns() // 1_000_000
    query = f"symbol=BONDUSD&limit=1000&timestamp={now}&signature=x"
    request = Request(
        f"http://{host}/api/v3/myTrades?{query}",
        headers={"X-MBX-APIKEY": "ann"},
    )
    with urlopen(request) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


def test_it_buys_and_sells_and_its_profit_is_ours(tmp_path: Path) -> None:
    market = tmp_path / "market.toml"
    market.write_text(MARKET)
    strategies = tmp_path / "strategies"
    strategies.mkdir()
    tutorial = (ROOT / "docs" / "TUTORIAL.md").read_text()
    (strategy,) = STRATEGY.findall(tutorial)
    (strategies / "turns.py").write_text(strategy)
    file = tmp_path / "trades.sqlite"
    with launched(market=str(market), dialect="spot") as server:
        host = f"127.0.0.1:{server.url.rpartition(':')[2]}"
        (tmp_path / "config.json").write_text(json.dumps(settings(host)))
        bots = ["-m", "util.bots", "--url", server.url, "--speed", "5"]
        with (
            process(sys.executable, *bots, "--value=BOND=10000", cwd=ROOT),
            process(
                os.environ["FREQTRADE"],
                "trade",
                *("--userdir", str(tmp_path), "--strategy", "Turns"),
                *("--config", str(tmp_path / "config.json")),
                *("--db-url", f"sqlite:///{file}"),
                cwd=tmp_path,
            ) as freqtrade,
        ):
            until = time.monotonic() + MOST_S
            rows: list[tuple[Any, ...]] = []
            while len({row[0] for row in rows}) < TRADES:
                assert freqtrade.poll() is None and time.monotonic() < until
                time.sleep(1)
                rows = closed(file)
            profits = {row[0]: row[1] for row in rows}
            orders = {int(row[2]) for row in rows}
            ours = sum(
                Decimal(fill["quoteQty"]) * (-1 if fill["isBuyer"] else 1)
                for fill in fills(host)
                if fill["orderId"] in orders
            )
    assert abs(Decimal(sum(profits.values())) - ours) < Decimal("0.000001")
