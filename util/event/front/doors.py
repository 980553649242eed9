"""The entrances of challenge bots: the first line, a hello, names the team.

The exchange behind takes the word of the front: it lets everybody in who comes
from this machine. So the front checks the address of the team, and what the
doors of an exchange check before a hello.
"""

from __future__ import annotations

from exchange.doors.challenge.json_lines import Json
from exchange.doors.challenge.lines import LINE_MAX, is_http
from exchange.doors.challenge.messages import (
    BAD_TEAM,
    NO_HELLO,
    TOO_LONG,
    Hello,
    Malformed,
)
from exchange.doors.challenge.text_lines import Text

from .entrance import Entrance, Router
from .table import includes

WAIT_S = 1.0  # before a bot without a match is cut off; it tries again then
UNAUTHORIZED = "HELLO:UNAUTHORIZED"  # as the doors of an exchange say it


class DoorEntrance(Entrance):
    """A challenge bot."""

    def __init__(self, router: Router, is_json: bool) -> None:
        super().__init__(router)
        self._is_json = is_json
        # Hellos and errors are the same in every dialect.
        self._language = Json("2017") if is_json else Text("2017")

    def read_head(self, head: bytes) -> bytes:
        """Wait for a line, and decide; complain of lines before a hello."""
        while not self._is_sent:
            line, end, rest = head.partition(b"\n")
            if len(line) > LINE_MAX:
                self.answer(self._language.error(TOO_LONG))
            elif not end:
                return head
            elif is_http(line):
                self.answer(b"")
            elif line.strip():
                self._line(line)
            head = rest
        return head

    def no_exchange(self) -> None:
        """Let the bot try again."""
        self.cut_later(WAIT_S)

    def _line(self, line: bytes) -> None:
        message = self._language.read(line.removesuffix(b"\r"))
        if isinstance(message, Hello) and message.team is not None:
            self._hello(message.team, line)
        elif isinstance(message, Hello):
            self.write(self._language.error(BAD_TEAM))
        elif isinstance(message, Malformed):
            self.write(self._language.error(message.text))
        else:
            self.write(self._language.error(NO_HELLO))

    def _hello(self, name: str, line: bytes) -> None:
        table = self._router.table
        team = table.teams.get(name)
        if team is None or not includes(team.doors, self.address):
            self.write(self._language.error(UNAUTHORIZED))
            self.cut_later(WAIT_S)
            return
        ports = table.matches.get(team.match)
        if ports is None:
            self.cut_later(WAIT_S)
            return
        port = ports.json if self._is_json else ports.line
        self.send_to(port, line + b"\n", team.match)
