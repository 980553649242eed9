"""Event files for tests."""

from __future__ import annotations

from pathlib import Path

MARKET = """\
[instruments.BOND]
max_price = 10000
[instruments.GS]
max_price = 100000
max_qty = 100
[instruments.MS]
max_price = 100000
[instruments.XLF]
max_price = 999999
[instruments.XLF.convert]
lot = 10
fee = 100
basket = { BOND = 3, GS = 2, MS = 5 }
[instruments.CALL]
kind = "call"
underlying = "GS"
strike = 4000
min_price = 0
max_price = 100000
"""

# Every field that the design of events shows.
EVENT = """\
[event]
name = "Spring challenge"
seed = 7
market = "market.toml"
data = "spring"
host = "0.0.0.0"
front = 9000
doors = { json_port = 25000, line_port = 20000 }
match_ports = "9100-9199"
parallel = 4
publish = "after_match"
live_board = true

[teams]
ORANGE = { address = "10.0.1.0/24" }
APPLE  = { bot = ["python", "bots/apple.py"] }
LEMON  = { bot = ["java", "-cp", "bots", "Bot"], door = "line" }
PLUM   = {}

[match]
warmup = 20
trading = 300
per_match = 0
pairing = "round_robin"
repeats = 1
blow_out = { limit = -30000, at = "fair", score = "actual" }
no_show = 0

[scoring]
rule = "rank_weighted"
options = {}

[[rounds]]
name = "A"
weight = 10
[[rounds]]
name = "B"
weight = 30
pairing = "swiss"
repeats = 3
[[rounds]]
name = "Final"
weight = 60
per_match = 0
trading = 600
scoring = { rule = "rank_squared" }

[fair.BOND]
kind = "constant"
start = 1000
[fair.GS]
kind = "walk"
start = 4200
sigma = 2.0
jump = { every = 90, sigma = 40 }
[fair.MS]
kind = "walk"
start = 3000
sigma = 1
[fair.XLF]
kind = "basket"

[house]
makers = 4
noise = 6
informed = 1
trades_per_s = 15
speed = 1.0

[[news]]
at = 120
symbol = "GS"
headline = "GS beats expectations"
jump = 60
[[dividends]]
at = 200
symbol = "MS"
amount = 5
[[tenders]]
at = 240
symbol = "GS"
side = "buy"
qty = 50
edge = [10, 30]
valid = 15
"""


def write_event(
    folder: Path, text: str = EVENT, market: str | None = MARKET
) -> Path:
    """Write an event file, and its market; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    if market is not None:
        (folder / "market.toml").write_text(market, "utf-8")
    path = folder / "event.toml"
    path.write_text(text, "utf-8")
    return path
