"""What can be set: the environment of the server, and the market file.

Read once, at start-up. What makes no sense raises SettingsError, whose text
names the variable, or the file and the field.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    CliApp,
    NoDecode,
    SettingsConfigDict,
)

from exchange.engine import Configure
from orderbook import Instrument, Price, Qty, Symbol

ENV_PREFIX = "EXCHANGE_SERVER_"
DEFAULT_SYMBOLS = ("BOND",)


class SettingsError(Exception):
    """A setting that makes no sense."""


class Settings(BaseSettings):
    """Start an exchange.

    Each option is also an environment variable: --port is
    EXCHANGE_SERVER_PORT. An option on the command line wins.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        cli_kebab_case=True,
        cli_prog_name="server.py",
        cli_hide_none_type=True,
    )

    hostname: str = Field(
        "localhost", description="name or address to listen on"
    )
    port: int = Field(
        8765, ge=0, le=65_535, description="port to listen on; 0: any"
    )
    symbols: Annotated[tuple[Symbol, ...], NoDecode] = Field(
        DEFAULT_SYMBOLS,
        min_length=1,
        description="instruments to list, as in BOND,ETF",
    )
    market: Path | None = Field(
        None, description="TOML file that lists the instruments instead"
    )
    origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="origins of web pages that may connect, as in"
        " https://example.org,https://example.com; the server's own always"
        " may, and so may programs, which send none",
    )
    journal: Path | None = Field(
        Path("data/exchange.db"),
        description="file that keeps everything across restarts; off: none",
    )
    debug: bool = Field(
        True, description="print the exchange state at each new order"
    )

    @field_validator("symbols", "origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(filter(None, (v.strip() for v in value.split(","))))
        return value

    @field_validator("journal", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value == "off" else value

    @model_validator(mode="after")
    def _one_market(self) -> Self:
        if self.market and "symbols" in self.model_fields_set:
            raise ValueError("set either MARKET or SYMBOLS, not both")
        return self

    def configure(self) -> Configure:
        """Return the market as a command for the engine.

        Raises SettingsError if the market file is missing or wrong.
        """
        if self.market is not None:
            return Configure(instruments=load_market(self.market))
        return Configure(
            instruments=tuple(
                InstrumentSettings().listed_as(symbol)
                for symbol in dict.fromkeys(self.symbols)
            )
        )


def load_settings(arguments: Sequence[str] = ()) -> Settings:
    """Read the settings from a command line and the environment.

    Raises SettingsError; SystemExit for --help and unknown options.
    """
    try:
        return CliApp.run(Settings, cli_args=list(arguments))
    except ValidationError as error:
        raise SettingsError(_explain(error, ENV_PREFIX)) from None


TickSize = Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$")]


class InstrumentSettings(BaseModel):
    """One ``[instruments.SYMBOL]`` table of the market file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    # Money per tick, for those who show prices; a text, so that it is exact.
    tick_size: TickSize = "1"
    min_price: Price = 1  # in ticks, and so is max_price
    max_price: Price = 100_000
    max_qty: Qty = 1_000  # in lots, of one order

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_price > self.max_price:
            raise ValueError("min_price is above max_price")
        if not Decimal(self.tick_size):
            raise ValueError("tick_size is zero")
        return self

    def listed_as(self, symbol: str) -> Instrument:
        """Return the instrument that these settings describe."""
        return Instrument(symbol=symbol, **self.model_dump(), phase="open")


class _Market(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    instruments: dict[Symbol, InstrumentSettings] = Field(min_length=1)


def load_market(path: Path) -> tuple[Instrument, ...]:
    """Read the instruments of a market file.

    Raises SettingsError if it is missing or wrong.
    """
    try:
        market = _MARKET.validate_python(
            tomllib.loads(path.read_text("utf-8"))
        )
    except ValidationError as error:
        raise SettingsError(f"{path}: {_explain(error)}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from None
    return tuple(
        settings.listed_as(symbol)
        for symbol, settings in market.instruments.items()
    )


_MARKET = TypeAdapter(_Market)


def _explain(error: ValidationError, prefix: str = "") -> str:
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    where = f"{prefix}{path.upper()}: " if prefix and path else ""
    where = where or (f"{path}: " if path else "")
    return f"{where}{problem['msg']} (got {problem['input']!r})"
