"""The ``[doors]`` table of the market file: the doors of a challenge."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from exchange.doors.challenge.common import Terms
from exchange.doors.names import Proxies, read_network

# A message out has less than 10,000 bytes, the buffer of some bots: this many
# instruments in a hello, and levels of each side in a book.
INSTRUMENTS_MAX = 150
LEVELS_MAX = 100
LINGER_MAX_MS = 3_000  # less than an exchange that stops waits for clients

Port = Annotated[int, Field(ge=0, le=65_535)]


def _several(value: object) -> object:
    """Return one address as a list of one."""
    return [value] if isinstance(value, str) else value


class DoorSettings(BaseModel):
    """The ``[doors]`` table of the market file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    json_port: Port = 0  # 0: this door stays shut
    line_port: Port = 0
    dialect: Literal["2015", "2016", "2017"] = "2017"
    levels: Annotated[int, Field(ge=1, le=LEVELS_MAX)] = 15
    book_ms: Annotated[int, Field(ge=1, le=1_000)] = 20
    idle_ms: Annotated[int, Field(ge=10, le=60_000)] = 1_000
    messages_per_s: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    linger_ms: Annotated[int, Field(ge=0, le=LINGER_MAX_MS)] = 1_000
    teams: dict[
        Annotated[str, Field(pattern="^[A-Z]{1,32}$")],
        Annotated[list[str], BeforeValidator(_several), Field(min_length=1)],
    ] = {}

    @field_validator("teams")
    @classmethod
    def _networks(cls, teams: dict[str, list[str]]) -> dict[str, list[str]]:
        for team, networks in teams.items():
            for text in networks:
                try:
                    read_network(text)
                except ValueError as error:
                    raise ValueError(f"{team}: {error}") from None
        return teams

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.json_port and self.json_port == self.line_port:
            raise ValueError("line_port is the same as json_port")
        return self

    def terms(self) -> Terms:
        """Return the settings as the doors take them."""
        return Terms(
            json_port=self.json_port,
            line_port=self.line_port,
            dialect=self.dialect,
            levels=self.levels,
            book_s=self.book_ms / 1_000,
            idle_s=self.idle_ms / 1_000,
            messages_per_s=self.messages_per_s,
            linger_s=self.linger_ms / 1_000,
            teams={
                team: Proxies(map(read_network, networks))
                for team, networks in self.teams.items()
            },
        )
