"""What can be set: the environment of the server, and the market file.

Read once, at start-up. What makes no sense raises SettingsError, whose text
names the variable, or the file and the field.
"""

from __future__ import annotations

import ipaddress
import ssl
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

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

from exchange.doors.names import read_network, read_origin, write_origin
from exchange.files import text_of
from exchange.gateway.rates import Quotas, Rate
from exchange.host.keyring import DEFAULT_PATH
from exchange.market.accounts import CASH_MAX, VALUE_MAX, AccountLimits
from exchange.market.command import Configure
from orderbook import MAX_INT, Instrument, Integer, Price, Qty, Symbol, User

ENV_PREFIX = "EXCHANGE_SERVER_"
DEFAULT_SYMBOLS = ("BOND",)
# What an account may do where strangers come in, unless the market file says
# otherwise: quick bots are not hindered, runaway ones are.
ORDERS_PER_S = 100
BURST = 200
OPEN_ORDERS = 200
# And where none come in: an account's orders may all end with one command,
# and everybody waits for that, some 10 ms for so many.
OPEN_ORDERS_HERE = 1_000
CONNECTIONS_PER_ACCOUNT = 20  # a few bots and pages
CONNECTIONS_PER_ADDRESS = 1_000  # a class sits behind one address
CONNECTIONS = 10_000


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
        " https://example.org,https://example.com: the public address behind"
        " a proxy; the server's own page by localhost, an address, or a name"
        " of this machine always may, and so may programs, which send none",
    )
    proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="addresses or networks of proxies whose X-Forwarded-For"
        " is believed, as in 127.0.0.1,10.0.0.0/8",
    )
    journal: Path | None = Field(
        Path("data/exchange.db"),
        description="file that keeps everything across restarts; off: none",
    )
    keys: Path = Field(
        DEFAULT_PATH,
        description="file of the accounts' keys, made by util.accounts;"
        " without it a name is enough, on this machine alone",
    )
    open: bool = Field(
        False, description="let everybody in by name, from anywhere"
    )
    tls_cert: Path | None = Field(
        None, description="certificate chain, to serve wss and https"
    )
    tls_key: Path | None = Field(None, description="its private key")
    max_connections: int = Field(
        CONNECTIONS, ge=1, description="connections in all"
    )
    max_per_address: int | None = Field(
        None,
        ge=0,
        description="connections from one address; 0: any number; not set:"
        f" {CONNECTIONS_PER_ADDRESS}, without keys 0",
    )
    max_per_account: int | None = Field(
        None,
        ge=0,
        description="connections of one account; 0: any number; not set:"
        f" {CONNECTIONS_PER_ACCOUNT}, without keys 0",
    )
    log: Literal["text", "json"] = Field(
        "text", description="form of the log on standard error: text, json"
    )
    debug: bool = Field(
        True, description="print the exchange state at each new order"
    )

    @field_validator("symbols", "origins", "proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(filter(None, (v.strip() for v in value.split(","))))
        return value

    @field_validator("origins")
    @classmethod
    def _as_browsers_write(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(write_origin(read_origin(origin)) for origin in origins)

    @field_validator("proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(read_network(proxy)) for proxy in proxies)

    @field_validator("journal", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return None if value == "off" else value

    @model_validator(mode="after")
    def _one_market(self) -> Self:
        if self.market and "symbols" in self.model_fields_set:
            raise ValueError("set either MARKET or SYMBOLS, not both")
        return self

    @model_validator(mode="after")
    def _both_of_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("set both TLS_CERT and TLS_KEY, or neither")
        return self

    def tls(self) -> ssl.SSLContext | None:
        """Return what TLS needs, if it is wanted.

        Raises SettingsError if the files are missing or wrong.
        """
        if self.tls_cert is None or self.tls_key is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(
                self.tls_cert, self.tls_key, password=_no_pass_phrase
            )
        except (OSError, ssl.SSLError, ValueError) as error:
            raise SettingsError(
                f"{self.tls_cert}, {self.tls_key}: {error}"
            ) from None
        return context

    def rules(self, is_guarded: bool) -> Rules:
        """Return the rules of the market and the quotas of connections.

        ``is_guarded``: strangers may come in, so everything has a limit
        unless the market file says otherwise. Raises SettingsError if that
        is missing or wrong.
        """
        if self.market is not None:
            market = load_market(self.market)
        else:
            symbols = dict.fromkeys(self.symbols, InstrumentSettings())
            market = MarketSettings(instruments=symbols)
        common = _GUARDED if is_guarded else AccountSettings()
        common = common.model_copy(update=_given(market.account))
        accounts = {
            name: common.model_copy(update=_given(settings))
            for name, settings in market.accounts.items()
        }
        for name, settings in {"": common, **accounts}.items():
            if settings.floor > settings.cash:
                where = f"accounts.{name}" if name else "account"
                raise SettingsError(
                    f"{self.market}: {where}: cash is below min_cash"
                )
        most = self.max_per_account
        if most is None:
            most = CONNECTIONS_PER_ACCOUNT if is_guarded else 0
        return Rules(
            configure=Configure(
                instruments=tuple(
                    settings.listed_as(symbol)
                    for symbol, settings in market.instruments.items()
                ),
                limits=common.limits(),
                accounts={n: a.limits() for n, a in accounts.items()},
            ),
            quotas=Quotas(
                rate=common.rate(),
                rates={n: a.rate() for n, a in accounts.items()},
                connections=most,
            ),
        )

    def connections_per_address(self, is_guarded: bool) -> int:
        """Return how many connections one address may have; 0: any."""
        if self.max_per_address is not None:
            return self.max_per_address
        return CONNECTIONS_PER_ADDRESS if is_guarded else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the market file, or its absence, comes to."""

    configure: Configure
    quotas: Quotas


def load_settings(arguments: Sequence[str] = ()) -> Settings:
    """Read the settings from a command line and the environment.

    Raises SettingsError; SystemExit for --help and unknown options.
    """
    try:
        return CliApp.run(Settings, cli_args=list(arguments))
    except ValidationError as error:
        raise SettingsError(_explain(error, ENV_PREFIX)) from None


TickSize = Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$")]
Lots = Annotated[int, Field(ge=0, le=MAX_INT)]
Cash = Annotated[int, Field(ge=-CASH_MAX, le=CASH_MAX)]


class InstrumentSettings(BaseModel):
    """One ``[instruments.SYMBOL]`` table of the market file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    # Money per tick, for those who show prices; a text, so that it is exact.
    tick_size: TickSize = "1"
    min_price: Price = 1  # in ticks, and so is max_price
    max_price: Price = 100_000
    max_qty: Qty = 1_000  # in lots, of one order
    max_position: Lots = 0  # in lots, long or short; 0: unlimited
    short_selling: bool = True
    maker_fee: Integer = 0  # in ticks per lot; below 0: a rebate
    taker_fee: Integer = 0
    reference_price: Price = 0  # until the first trade
    collar: Lots = 0  # in ticks; 0: none
    band: Lots = 0  # in ticks; 0: none
    auction_s: Annotated[int, Field(ge=1, le=86_400)] = 30
    phase: Literal["pre_open", "auction", "open", "halted", "closed"] = "open"

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.min_price > self.max_price:
            raise ValueError("min_price is above max_price")
        if not Decimal(self.tick_size):
            raise ValueError("tick_size is zero")
        if self.maker_fee + self.taker_fee < 0:
            raise ValueError("the rebate is more than the other side's fee")
        if self.collar and self.band >= self.collar:
            raise ValueError("band is not narrower than collar")
        if (self.collar or self.band or self.reference_price) and not (
            self.min_price <= self.reference_price <= self.max_price
        ):
            raise ValueError("reference_price is out of bounds, or missing")
        return self

    @property
    def worth(self) -> int:
        """Return the most that one lot may cost, or bring, in ticks."""
        fees = max(abs(self.maker_fee), abs(self.taker_fee))
        return max(abs(self.min_price), abs(self.max_price)) + fees

    def listed_as(self, symbol: str) -> Instrument:
        """Return the instrument that these settings describe."""
        fields = self.model_dump(exclude={"auction_s"})
        return Instrument(
            symbol=symbol, auction_ms=self.auction_s * 1_000, **fields
        )


class AccountSettings(BaseModel):
    """The ``[account]`` table of the market file, or ``[accounts.NAME]``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cash: Cash = 0  # at the start, in ticks x lots
    min_cash: Cash | None = None  # None: it may owe what it likes
    open_orders: Lots = OPEN_ORDERS_HERE  # 0: unlimited, like the next two
    orders_per_s: Lots = 0
    burst: Lots = 0
    max_position: dict[Symbol, Qty] = {}  # instead of the instrument's

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        given = self.model_fields_set
        if {"cash", "min_cash"} <= given and self.floor > self.cash:
            raise ValueError("cash is below min_cash")
        if self.orders_per_s and "burst" in given and not self.burst:
            raise ValueError("burst is zero where orders_per_s is not")
        return self

    @property
    def floor(self) -> int:
        """Return the least cash it may have."""
        return -CASH_MAX if self.min_cash is None else self.min_cash

    def limits(self) -> AccountLimits:
        """Return what the engine checks."""
        return AccountLimits(
            cash=self.cash,
            min_cash=self.min_cash,
            open_orders=self.open_orders,
            max_position=dict(self.max_position),
        )

    def rate(self) -> Rate:
        """Return what the gateway checks; a burst of a second by default."""
        if not self.orders_per_s:
            return Rate()
        return Rate(self.orders_per_s, self.burst or self.orders_per_s)


_GUARDED = AccountSettings(
    open_orders=OPEN_ORDERS, orders_per_s=ORDERS_PER_S, burst=BURST
)


def _given(settings: AccountSettings) -> dict[str, Any]:
    return {
        name: getattr(settings, name) for name in settings.model_fields_set
    }


class MarketSettings(BaseModel):
    """The market file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    instruments: dict[Symbol, InstrumentSettings] = Field(min_length=1)
    account: AccountSettings = AccountSettings()  # every account's
    accounts: dict[User, AccountSettings] = {}

    @model_validator(mode="after")
    def _stays_exact(self) -> Self:
        """Refuse limits that could lead beyond 2**53, or nowhere."""
        for name, settings in {
            "account": self.account,
            **self.accounts,
        }.items():
            for symbol in settings.max_position:
                if symbol not in self.instruments:
                    raise ValueError(
                        f"max_position of {name}: {symbol} is not listed"
                    )
        for symbol, instrument in self.instruments.items():
            most = VALUE_MAX // (len(self.instruments) * instrument.worth or 1)
            limits = {
                "max_qty": instrument.max_qty,
                "max_position": instrument.max_position,
            }
            for name, settings in {"": self.account, **self.accounts}.items():
                whose = f"max_position of {name or 'account'}"
                limits[whose] = settings.max_position.get(symbol, 0)
            for name, limit in limits.items():
                if limit > most:
                    raise ValueError(
                        f"instruments.{symbol}: {name} {limit} at these"
                        f" prices could leave 2**53; at most {most}"
                    )
        return self


def load_market(path: Path) -> MarketSettings:
    """Read a market file.

    Raises SettingsError if it is missing or wrong.
    """
    try:
        return _MARKET.validate_python(
            tomllib.loads(text_of(path.read_bytes()))
        )
    except ValidationError as error:
        raise SettingsError(f"{path}: {_explain(error)}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from None


def _no_pass_phrase() -> str:
    """Refuse an encrypted key: OpenSSL would ask for it on the terminal."""
    raise ValueError("the private key is encrypted: decrypt it")


def is_loopback(address: str) -> bool:
    """Return whether an address is this machine's own."""
    return ipaddress.ip_address(address).is_loopback


_MARKET = TypeAdapter(MarketSettings)


def _explain(error: ValidationError, prefix: str = "") -> str:
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    where = f"{prefix}{path.upper()}: " if prefix and path else ""
    where = where or (f"{path}: " if path else "")
    return f"{where}{problem['msg']} (got {problem['input']!r})"
