"""A bot for the JSON door: trades VALE against VALBZ, and converts.

A VALE is always worth a VALBZ, but fewer people trade it, so its spread is
wide. The bot quotes VALE a bit better than others around the middle of VALBZ.
When it holds some, it converts them and trades the VALBZ away. It needs Python
only:

    python pair_json.py [HOST [PORT [TEAM]]]

HOST, PORT and TEAM are by default $EXCHANGE_HOST, $EXCHANGE_JSON_PORT and
$EXCHANGE_USER, or else localhost, 25000 and PAIRS. It runs until Ctrl-C, and
connects again when a round is over.
"""

import json
import os
import socket
import sys
import time
from typing import Any, Iterator

EDGE = 5  # ticks between the middle of VALBZ and each quote of VALE
QTY = 2  # lots of a quote
ENOUGH = 4  # lots of VALE that it converts; the fee is 10 for any number
LIMIT = 10  # lots of each that may be held
AGAIN_S = 0.5  # between two attempts to connect


class Bot:
    """One connection: books, positions and the orders that are open."""

    def __init__(self, sock: socket.socket, team: str) -> None:
        self.sock = sock
        self.books: dict[str, tuple[int, int]] = {}  # best bid and ask
        self.positions = {"VALE": 0, "VALBZ": 0}
        self.last_id = 0
        self.quotes: dict[str, tuple[int, int]] = {}  # by side: id and price
        self.converting: dict[int, int] = {}  # by id: VALE that it brings
        self.hedge = 0, 0  # id and price of an order in VALBZ; id 0: none
        self.is_open = False
        self.say("hello", team=team)

    def say(self, type: str, **fields: object) -> None:
        """Send one message."""
        message = {"type": type, **fields}
        self.sock.sendall((json.dumps(message) + "\n").encode())

    def add(self, symbol: str, side: str, price: int, qty: int) -> int:
        """Send an order; return its id."""
        self.last_id += 1
        order = {"symbol": symbol, "dir": side, "price": price, "size": qty}
        self.say("add", order_id=self.last_id, **order)
        return self.last_id

    def trade(self) -> None:
        """Quote VALE, and get rid of what was traded."""
        if not self.is_open or self.converting or "VALBZ" not in self.books:
            return
        bid, ask = self.books["VALBZ"]
        middle = (bid + ask) // 2
        self.quote("BUY", middle - EDGE, self.positions["VALE"])
        self.quote("SELL", middle + EDGE, -self.positions["VALE"])
        vale, valbz = self.positions["VALE"], self.positions["VALBZ"]
        if abs(vale) >= ENOUGH and abs(vale + valbz) <= LIMIT:
            self.last_id += 1
            self.converting[self.last_id] = -vale
            side = "SELL" if vale > 0 else "BUY"
            convert = {"symbol": "VALE", "dir": side, "size": abs(vale)}
            self.say("convert", order_id=self.last_id, **convert)
        elif valbz:
            side, price = ("SELL", bid) if valbz > 0 else ("BUY", ask)
            order_id, old = self.hedge
            if not order_id:
                order_id = self.add("VALBZ", side, price, abs(valbz))
            elif price != old:  # it was too late, and waits in the book
                self.say("cancel", order_id=order_id)
            self.hedge = order_id, price

    def quote(self, side: str, price: int, held: int) -> None:
        """Show QTY lots of VALE at a price, unless it holds enough."""
        order_id, old = self.quotes.get(side, (0, 0))
        if held >= ENOUGH:
            price = 0
        if price != old and order_id:
            self.say("cancel", order_id=order_id)
            del self.quotes[side]
        if price != old and price > 0:
            self.quotes[side] = self.add("VALE", side, price, QTY), price

    def hear(self, message: dict[str, Any]) -> None:
        """Act on one message."""
        order_id = message.get("order_id", 0)
        match message["type"]:
            case "hello":
                for row in message["symbols"]:
                    if row["symbol"] in self.positions:
                        self.positions[row["symbol"]] = row["position"]
            case "open":
                self.is_open = True
            case "close":
                self.is_open = False
            case "book" if message["buy"] and message["sell"]:
                prices = message["buy"][0][0], message["sell"][0][0]
                self.books[message["symbol"]] = prices
            case "book":
                self.books.pop(message["symbol"], None)
            case "ack" if order_id in self.converting:
                brought = self.converting.pop(order_id)
                self.positions["VALE"] += brought
                self.positions["VALBZ"] -= brought
                print(f"converted {abs(brought)}: {self.positions}")
            case "fill":
                qty = message["size"]
                sign = 1 if message["dir"] == "BUY" else -1
                self.positions[message["symbol"]] += sign * qty
                price, symbol = message["price"], message["symbol"]
                print(f"{message['dir']} {qty} {symbol} at {price}")
            case "out":
                self.gone(order_id)
            case "reject":
                print(f"rejected: {message['error']}")
                self.converting.pop(order_id, None)
                self.gone(order_id)
            case "error" if message["error"] != "IDLE":
                print(f"error: {message['error']}")
        self.trade()

    def gone(self, order_id: int) -> None:
        """Forget an order that is off the book."""
        if order_id == self.hedge[0]:
            self.hedge = 0, 0
        for side, (quoted, _) in [*self.quotes.items()]:
            if quoted == order_id:
                del self.quotes[side]


def messages_of(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield the messages that come until the exchange hangs up."""
    rest = b""
    while data := sock.recv(65536):
        *lines, rest = (rest + data).split(b"\n")
        yield from map(json.loads, lines)


def play(host: str, port: int, team: str) -> None:
    """Trade until the connection ends."""
    with socket.create_connection((host, port)) as sock:
        bot = Bot(sock, team)
        for message in messages_of(sock):
            bot.hear(message)


def main() -> None:
    """Trade, one round after the other."""
    given = dict(enumerate(sys.argv))
    host = given.get(1) or os.environ.get("EXCHANGE_HOST", "localhost")
    port = given.get(2) or os.environ.get("EXCHANGE_JSON_PORT", "25000")
    team = given.get(3) or os.environ.get("EXCHANGE_USER", "PAIRS")
    while True:
        try:
            play(host, int(port), team)
            print("the exchange hung up")
        except OSError as error:
            print(error)
        time.sleep(AGAIN_S)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
