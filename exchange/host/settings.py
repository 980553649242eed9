"""The server's settings, from the command line and the environment.

Read once, at start-up. An invalid setting raises SettingsError; its text names
the variable.
"""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    NoDecode,
    SettingsConfigDict,
)

from exchange.doors.names import read_network, read_origin, write_origin
from exchange.host.clock import SPEED_DECIMALS, SPEED_MAX, SPEED_MIN
from exchange.host.keyfile import DEFAULT_PATH
from exchange.host.market_file import (
    InstrumentSettings,
    MarketSettings,
    Rules,
    SettingsError,
    explain,
    load_market,
)
from exchange.journal.address import Address, is_stream
from orderbook import Symbol

ENV_PREFIX = "EXCHANGE_SERVER_"
# What --help calls a value, by its type.
METAVARS = {
    "int": "N",
    "str": "TEXT",
    "bool": "0|1",
    "Path": "FILE",
    "{Path,Address}": "FILE|URL",
    "Decimal": "N",
    "tuple[str,...]": "A,B",
}
DEFAULT_SYMBOLS = ("BOND",)
CONNECTIONS_PER_ACCOUNT = 20  # a few bots and pages
CONNECTIONS_PER_ADDRESS = 1_000  # a class sits behind one address
CONNECTIONS = 10_000
# Seconds that a standby waits: more than a busy machine pauses, less than
# people do.
LEASE_MIN = Decimal("0.5")
LEASE_MAX = Decimal(60)


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
        "localhost", description="host name or address to listen on"
    )
    port: int = Field(
        8765, ge=0, le=65_535, description="port to listen on; 0: any free one"
    )
    port_file: Path | None = Field(
        None,
        description="file to write the port to as soon as the exchange"
        " listens, for programs that start it",
    )
    symbols: Annotated[tuple[Symbol, ...], NoDecode] = Field(
        DEFAULT_SYMBOLS,
        min_length=1,
        description="symbols of the instruments to list, such as BOND,ETF",
    )
    market: Path | None = Field(
        None,
        description="TOML file of instruments and limits; replaces --symbols",
    )
    origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="origins of other web pages that may connect, such as"
        " https://example.org,https://example.com; behind a proxy, its public"
        " address. The server's own page by localhost, by an IP address or by"
        " a name of this machine needs no origin here, nor does a program",
    )
    proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="IP addresses or networks of proxies whose header"
        " X-Forwarded-For is believed, such as 127.0.0.1,10.0.0.0/8",
    )
    journal: Path | Address | None = Field(
        Path("data/exchange.db"),
        description="file that keeps the market across restarts, or"
        " nats://HOST:PORT,HOST:PORT,HOST:PORT/NAME for a stream that several"
        " machines share; off: keep it in memory only",
    )
    role: Literal["trade", "read"] = Field(
        "trade",
        description="with a stream: read shows the market that another server"
        " runs, to any number of readers, and takes no logins",
    )
    lease: Decimal = Field(
        Decimal(2),
        ge=LEASE_MIN,
        le=LEASE_MAX,
        decimal_places=3,
        description="with a stream: seconds without a sign of life of the"
        " exchange after which another one takes over,"
        f" {LEASE_MIN} to {LEASE_MAX}",
    )
    journal_copy: Path | None = Field(
        None,
        description="with a stream: journal file that also gets every command",
    )
    keys: Path = Field(
        DEFAULT_PATH,
        description="key file, made by util.accounts. Without it a name is"
        " enough to log in, and only this machine can connect",
    )
    open: bool = Field(
        False,
        description="1: users without a key log in by name, from any machine",
    )
    tls_cert: Path | None = Field(
        None, description="file of the certificate chain, for wss and https"
    )
    tls_key: Path | None = Field(
        None, description="file of the certificate's private key"
    )
    max_connections: int = Field(
        CONNECTIONS, ge=1, description="most connections in total"
    )
    max_per_address: int | None = Field(
        None,
        ge=0,
        description="most connections from one address; 0: unlimited"
        f" (default: {CONNECTIONS_PER_ADDRESS} if others can connect or there"
        " are keys, else 0)",
    )
    max_per_account: int | None = Field(
        None,
        ge=0,
        description="most connections of one account; 0: unlimited"
        f" (default: {CONNECTIONS_PER_ACCOUNT} if others can connect or there"
        " are keys, else 0)",
    )
    speed: Decimal = Field(
        Decimal(1),
        ge=SPEED_MIN,
        le=SPEED_MAX,
        decimal_places=SPEED_DECIMALS,
        description="times as fast as real time that the exchange's time runs,"
        f" {SPEED_MIN} to {SPEED_MAX}",
    )
    dialect: Literal["off", "spot"] = Field(
        "off",
        description="spot: also speak the REST and streams of a well-known"
        " exchange, on the same port",
    )
    log: Literal["text", "json"] = Field(
        "text", description="format of the log on standard error"
    )
    debug: bool = Field(
        True, description="1: print each new order and its book"
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
        if isinstance(value, str) and is_stream(value):
            return Address.read(value)
        return None if value == "off" else value

    @model_validator(mode="after")
    def _one_market(self) -> Self:
        if self.market and "symbols" in self.model_fields_set:
            raise ValueError("set either MARKET or SYMBOLS, not both")
        return self

    @model_validator(mode="after")
    def _reads_a_stream(self) -> Self:
        if self.is_edge and not isinstance(self.journal, Address):
            raise ValueError("ROLE=read needs a JOURNAL of nats://...")
        return self

    @model_validator(mode="after")
    def _both_of_tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("set both TLS_CERT and TLS_KEY, or neither")
        return self

    @property
    def is_edge(self) -> bool:
        """Whether the server only shows the market of another one."""
        return self.role == "read"

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context; None: no TLS.

        Raises SettingsError if a file is missing or wrong.
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

        ``is_guarded``: strangers may connect, so everything has a limit
        unless the market file has others. Raises SettingsError if that file
        is missing or wrong.
        """
        if self.market is not None:
            market = load_market(self.market)
        else:
            symbols = dict.fromkeys(self.symbols, InstrumentSettings())
            market = MarketSettings(instruments=symbols)
        most = self.max_per_account
        if most is None:
            most = CONNECTIONS_PER_ACCOUNT if is_guarded else 0
        try:
            return market.rules(is_guarded, most)
        except ValueError as error:
            raise SettingsError(f"{self.market}: {error}") from None

    def connections_per_address(self, is_guarded: bool) -> int:
        """Return the limit of connections per address; 0: unlimited."""
        if self.max_per_address is not None:
            return self.max_per_address
        return CONNECTIONS_PER_ADDRESS if is_guarded else 0


def load_settings(arguments: Sequence[str] = ()) -> Settings:
    """Read the settings from a command line and the environment.

    Raises SettingsError; SystemExit for --help and unknown options.
    """
    try:
        return CliApp.run(
            Settings,
            cli_args=list(arguments),
            cli_settings_source=CliSettingsSource[Settings](
                Settings, add_argument_method=_add_argument
            ),
        )
    except ValidationError as error:
        raise SettingsError(explain(error, ENV_PREFIX)) from None


def _add_argument(
    parser: argparse.ArgumentParser, *flags: str, **options: Any
) -> argparse.Action:
    """Add an option; its help shows values as people write them."""
    field = Settings.model_fields.get(options.get("dest", ""))
    if field is not None:
        metavar = options["metavar"]
        options["metavar"] = METAVARS.get(metavar, metavar)
        text = field.description or ""
        if "(default" not in text:
            text += f" (default: {_as_text(field.default)})"
        options["help"] = text
    return parser.add_argument(*flags, **options)


def _as_text(default: Any) -> str:
    if isinstance(default, tuple):
        default = ",".join(default)
    elif isinstance(default, bool):
        default = int(default)
    return "none" if default in (None, "") else str(default)


def _no_pass_phrase() -> str:
    """Refuse an encrypted key: OpenSSL would prompt on the terminal."""
    raise ValueError("the private key is encrypted: decrypt it")
