"""A bot for the text door: buys BOND below 1000 and sells it above.

BOND is worth 1000, so this always earns. It needs Python only:

    python bond_lines.py [HOST [PORT [TEAM]]]

HOST, PORT and TEAM are by default $EXCHANGE_HOST, $EXCHANGE_LINE_PORT and
$EXCHANGE_USER, or else localhost, 20000 and BONDS. It runs until Ctrl-C, and
connects again when a round is over.
"""

import os
import socket
import sys
import time
from typing import Iterator

FAIR = 1000
EDGE = 1  # ticks of profit
QTY = 20  # lots that are shown on each side
LIMIT = 100  # lots that may be held: position and orders, of each side
AGAIN_S = 0.5  # between two attempts to connect


class Bot:
    """One connection: what it holds, and the orders that are open."""

    def __init__(self, sock: socket.socket, team: str) -> None:
        self.sock = sock
        self.position = 0
        self.last_id = 0
        self.orders: dict[str, tuple[str, int]] = {}  # by id: side, lots left
        self.say("HELLO", team)

    def say(self, *words: object) -> None:
        """Send one message."""
        self.sock.sendall((" ".join(map(str, words)) + "\n").encode())

    def shown(self, side: str) -> int:
        """Return the lots in the open orders of one side."""
        return sum(qty for way, qty in self.orders.values() if way == side)

    def top_up(self) -> None:
        """Show QTY lots on each side again where half of them are gone."""
        for side, sign in (("BUY", 1), ("SELL", -1)):
            shown = self.shown(side)
            qty = min(QTY, LIMIT - sign * self.position) - shown
            if qty > 0 and shown <= QTY // 2:
                self.last_id += 1
                self.orders[str(self.last_id)] = (side, qty)
                price = FAIR - sign * EDGE
                self.say("ADD", self.last_id, "BOND", side, price, qty)

    def hear(self, line: str) -> None:
        """Act on one message."""
        match line.split():
            case ["HELLO", *symbols]:
                held = dict(symbol.split(":") for symbol in symbols)
                self.position = int(held.get("BOND", 0))
            case ["OPEN", *symbols] if "BOND" in symbols:
                self.top_up()
            case ["FILL", order_id, "BOND", side, price, qty]:
                self.position += int(qty) if side == "BUY" else -int(qty)
                side, left = self.orders[order_id]
                self.orders[order_id] = (side, left - int(qty))
                print(f"{side} {qty} at {price}: position {self.position}")
                self.top_up()
            case ["OUT", order_id]:
                self.orders.pop(order_id, None)
            case ["REJECT", order_id, word]:
                self.orders.pop(order_id, None)
                print(f"rejected: {word}")
            case ["ERROR", *words] if words != ["IDLE"]:
                print(f"error: {' '.join(words)}")


def lines_of(sock: socket.socket) -> Iterator[str]:
    """Yield the lines that come until the exchange hangs up."""
    rest = b""
    while data := sock.recv(65536):
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode() for line in lines)


def play(host: str, port: int, team: str) -> None:
    """Trade until the connection ends."""
    with socket.create_connection((host, port)) as sock:
        bot = Bot(sock, team)
        for line in lines_of(sock):
            bot.hear(line)


def main() -> None:
    """Trade, one round after the other."""
    given = dict(enumerate(sys.argv))
    host = given.get(1) or os.environ.get("EXCHANGE_HOST", "localhost")
    port = given.get(2) or os.environ.get("EXCHANGE_LINE_PORT", "20000")
    team = given.get(3) or os.environ.get("EXCHANGE_USER", "BONDS")
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
