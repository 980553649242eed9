"""What has happened, in bounded memory: the tables behind `get`.

Fed with every output of the engine, in order. Keeps public trades and
candles of each symbol, and the fills and the last private events of each
account, from which a session is resumed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from exchange.engine import PUBLIC, Output
from orderbook import (
    AccountReport,
    Exec,
    Interval,
    Trade,
)
