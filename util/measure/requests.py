"""Requests drawn by chance: what traders and administrators may send.

Some are refused: the price is 0, the order has ended, the phase forbids it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

Message = dict[str, Any]

SYMBOLS = ("BOND", "ETF")
PRICES = range(96, 105)  # ticks; few, so that orders often meet
QTY = 20  # lots of an order at most
ROWS = 1_000  # of `get orders`
ADMINISTRATOR = "boss"
PHASES = ("auction", "pre_open", "halted", "closed")
# What an administrator does, and how often compared with the others.
ACTIONS = {
    "phase": 40,
    "resume": 25,
    "adjust": 15,
    "suspend": 8,
    "cancel": 8,
    "message": 2,
    "news": 2,
    "bust": 4,
    "dividend": 3,
    "tender": 6,
    "reference": 1,
    "reset": 1,
    "settle": 1,
}
Trade = tuple[str, int]  # symbol and trade_id


class Requests:
    """The requests of one account, without ids; ``chance`` decides."""

    def __init__(
        self,
        user: str,
        chance: random.Random,
        symbols: Sequence[str] = SYMBOLS,
    ) -> None:
        self._user = user
        self._chance = chance
        self._symbols = symbols
        self._named = 0  # the last client_order_id or client_request_id

    def choose(self, orders: Sequence[Message]) -> Message:
        """Return any request of a trader.

        ``orders`` are those that it may amend or cancel, each with its
        ``order_id`` and ``client_order_id``.
        """
        chance = self._chance
        draw = chance.random()
        if draw < 0.6 or not orders:
            return self.place()
        if draw < 0.65:
            return {"type": "get", "what": "account"}
        if draw < 0.66:
            return {"type": "get", "what": "orders", "limit": ROWS}
        if draw < 0.68:
            return {"type": "ping"}
        if draw < 0.69:
            symbol = chance.choice(self._symbols)
            return {"type": "cancel_all", "symbol": symbol}
        if draw < 0.70:
            timeout_ms = chance.choice((0, 1_000, 60_000))
            return {"type": "cancel_after", "timeout_ms": timeout_ms}
        if draw < 0.73:
            return self.convert()
        key = chance.choice(("order_id", "client_order_id"))
        name = {key: chance.choice(orders)[key]}
        if draw < 0.85:
            return {"type": "cancel", **name}
        price, qty = chance.choice(PRICES), chance.randint(1, QTY)
        return {"type": "amend", **name, "price": price, "qty": qty}

    def place(self) -> Message:
        """Return an order of any type and time in force."""
        chance = self._chance
        self._named += 1
        request: Message = {
            "type": "place",
            "symbol": chance.choice(self._symbols),
            "side": chance.choice(("buy", "sell")),
            "qty": chance.randint(1, QTY),
            "price": chance.choice(PRICES),
            "client_order_id": f"{self._user}-{self._named}",
        }
        match chance.randrange(26):
            case 0:
                request["post_only"] = True
            case 1:
                request["time_in_force"] = chance.choice(("ioc", "fok"))
            case 2:
                del request["price"]
                request["order_type"] = "market"
            case 3:
                request["price"] = 0  # refused
            case 4:
                in_us = chance.randrange(1_000, 2_000_000)
                request["time_in_force"] = "gtd"
                request["expire_ts"] = time.time_ns() // 1_000 + in_us
            case 5 | 6:
                request["display_qty"] = chance.randint(1, 5)
            case 7:
                del request["price"]
                request["order_type"] = "market"
                request["time_in_force"] = "auction"
            case 8 | 9:
                del request["price"]
                request["order_type"] = "stop"
                request["trigger_price"] = chance.choice(PRICES)
            case 10:
                request["order_type"] = "stop_limit"
                request["trigger_price"] = chance.choice(PRICES)
        return request

    def convert(self) -> Message:
        """Return a conversion of any instrument; of most it is refused."""
        self._named += 1
        return {
            "type": "convert",
            "symbol": self._chance.choice((*self._symbols, "ETF", "ETF")),
            "side": self._chance.choice(("buy", "sell")),
            "qty": self._chance.randint(1, 4),
            "client_order_id": f"{self._user}-{self._named}",
        }

    def administer(
        self, users: Sequence[str], newest: int, trades: Sequence[Trade] = ()
    ) -> Message:
        """Return what an administrator may do to one of the users.

        ``newest`` is the last order_id that is known, ``trades`` are some
        that may be busted.
        """
        chance = self._chance
        action = chance.choices([*ACTIONS], [*ACTIONS.values()])[0]
        self._named += 1
        number = f"{self._user}-{self._named}"
        request: Message = {
            "type": "admin",
            "action": action,
            "reason": "é",
            "client_request_id": number,
        }
        symbol = {"symbol": chance.choice(self._symbols)}
        match action:
            case "phase":
                request["phase"] = "open"
                if chance.random() < 0.4:
                    [phase] = chance.choices(PHASES, (6, 6, 3, 1))
                    request |= {**symbol, "phase": phase}
                    if phase != "closed":
                        request["reopen_ms"] = 1_000
            case "suspend" | "resume" | "adjust":
                request["user"] = chance.choice(users)
                if action == "adjust":
                    cash, qty = chance.randint(-500, 500), chance.randint(
                        -9, 9
                    )
                    request |= {**symbol, "cash": cash, "qty": qty}
            case "cancel":
                order_id = max(newest - chance.randrange(40), 0)
                request["order_id"] = order_id
            case "message":
                request["message"] = "lunch is served"
            case "news":
                request["headline"] = "it rains"
            case "bust":
                bust = chance.choice(trades or [("BOND", 1)])
                request |= {"symbol": bust[0], "trade_id": bust[1]}
            case "dividend":
                request |= {**symbol, "amount": chance.randint(-9, 9)}
            case "tender":
                request |= {
                    **symbol,
                    "tender_id": number,
                    "side": chance.choice(("buy", "sell")),
                    "qty": chance.randint(1, 9),
                    "price": chance.choice(PRICES),
                    "valid_ms": chance.choice((1_000, 60_000)),
                }
            case "reference" | "settle":
                request |= {**symbol, "price": chance.choice(PRICES)}
        return request
