"""The market file: instruments, money, and limits of accounts.

TOML, read once at start-up. An invalid file raises SettingsError; its text
names the file and the field.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from exchange.doors.challenge.common import Terms
from exchange.doors.challenge.messages import CASH as CASH_SYMBOL
from exchange.files import text_of
from exchange.gateway.rates import Quotas, Rate
from exchange.host.door_settings import INSTRUMENTS_MAX, DoorSettings
from exchange.host.product_settings import (
    PRODUCT_FIELDS,
    ProductSettings,
    check_products,
)
from exchange.market.accounts import CASH_MAX, VALUE_MAX, AccountLimits
from exchange.market.command import Configure, Money
from exchange.market.fees import BASIS_POINTS
from exchange.market.products import value_bounds
from orderbook import (
    MAX_INT,
    TEAMS_MAX,
    Instrument,
    Integer,
    Line,
    MatchInfo,
    PhaseName,
    Price,
    Qty,
    Sha256,
    Symbol,
    User,
)

# Limits of an account if strangers may connect, unless the market file has
# others. High enough for a fast bot, low enough to stop a runaway one.
ORDERS_PER_S = 100
BURST = 200
OPEN_ORDERS = 200
# The same if no strangers may connect. One command may cancel all orders of an
# account: 1,000 take some 10 ms, in which everybody waits.
OPEN_ORDERS_PRIVATE = 1_000


class SettingsError(Exception):
    """A setting is invalid; the text names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules that follow from the market file, or from its absence."""

    configure: Configure
    quotas: Quotas
    public_positions: bool = False
    public_leaderboard: bool = True
    doors: Terms = Terms()  # all shut


# A decimal number; a text, so that it is exact.
Number = Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$")]
Lots = Annotated[int, Field(ge=0, le=MAX_INT)]
Cash = Annotated[int, Field(ge=-CASH_MAX, le=CASH_MAX)]
BasisPoints = Annotated[int, Field(ge=-BASIS_POINTS, le=BASIS_POINTS)]


class MoneySettings(BaseModel):
    """The ``[money]`` table of the market file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    unit: Number  # of cash and fees, in the currency
    currency: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,16}$")]

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not Decimal(self.unit):
            raise ValueError("unit is zero")
        return self


class InstrumentSettings(ProductSettings):
    """One ``[instruments.SYMBOL]`` table of the market file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    tick_size: Number = "1"  # money per tick
    min_price: Price = 1  # in ticks, and so is max_price
    max_price: Price = 100_000
    max_qty: Qty = 1_000  # in lots, of one order
    max_position: Lots = 0  # in lots, long or short; 0: unlimited
    short_selling: bool = True
    maker_fee: Integer = 0  # in units per lot; below 0: a rebate
    taker_fee: Integer = 0
    maker_fee_bp: BasisPoints = 0  # in basis points of the notional, besides
    taker_fee_bp: BasisPoints = 0
    reference_price: Price = 0  # until the first trade
    collar: Lots = 0  # in ticks; 0: none
    band: Lots = 0  # in ticks; 0: none
    multiplier: Qty = 1  # lots of what is traded in one lot of a contract
    lot_size: Number = "1"  # what one lot is called outside
    self_trades: bool = False  # whether ``stp`` may be "none"
    auction_s: Annotated[int, Field(ge=1, le=86_400)] = 30
    phase: PhaseName = "open"

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.min_price > self.max_price:
            raise ValueError("min_price is above max_price")
        if not Decimal(self.tick_size):
            raise ValueError("tick_size is zero")
        if not Decimal(self.lot_size):
            raise ValueError("lot_size is zero")
        if self.maker_fee + self.taker_fee < 0:
            raise ValueError("the rebate exceeds the other side's fee")
        if self.maker_fee_bp + self.taker_fee_bp < 0:
            raise ValueError(
                "maker_fee_bp and taker_fee_bp: the rebate exceeds the other"
                " side's fee"
            )
        if self.collar and self.band >= self.collar:
            raise ValueError("band is not narrower than collar")
        if (self.collar or self.band or self.reference_price) and not (
            self.min_price <= self.reference_price <= self.max_price
        ):
            raise ValueError("reference_price is missing or out of bounds")
        return self

    def tick_value(self, money: MoneySettings | None) -> int:
        """Return the units of money for one tick of one lot.

        Raises ValueError if they are no whole number.
        """
        if money is None:
            if self.multiplier != 1:
                raise ValueError("multiplier: add [money] with its unit")
            return 1
        value = Fraction(self.tick_size) * self.multiplier
        units = value / Fraction(money.unit)
        if units.denominator != 1 or units > MAX_INT:
            raise ValueError(
                f"tick_size: {self.tick_size} x multiplier {self.multiplier}"
                f" is not 1 to {MAX_INT} whole units of {money.unit}; choose"
                " a money.unit that divides it"
            )
        return int(units)

    def worth(self, tick_value: int) -> int:
        """Return the most that one lot may cost or earn, in units."""
        most = max(abs(self.min_price), abs(self.max_price)) * tick_value
        rate = max(abs(self.maker_fee_bp), abs(self.taker_fee_bp))
        fees = max(abs(self.maker_fee), abs(self.taker_fee))
        fees += -(-most * rate // BASIS_POINTS)
        return most + fees or tick_value

    def priced(self) -> Instrument:
        """Return an instrument of this kind and these bounds of prices."""
        return Instrument(
            symbol="",
            tick_size=self.tick_size,
            min_price=self.min_price,
            max_price=self.max_price,
            max_qty=self.max_qty,
            phase=self.phase,
            kind=self.kind,
            **self.product(),
        )

    def listed_as(
        self, symbol: str, money: MoneySettings | None = None
    ) -> Instrument:
        """Return the instrument that these settings describe."""
        fields = self.model_dump(exclude={"auction_s", *PRODUCT_FIELDS})
        fields |= self.product()
        return Instrument(
            symbol=symbol,
            auction_ms=self.auction_s * 1_000,
            tick_value=self.tick_value(money),
            **fields,
        )


class AccountSettings(BaseModel):
    """The ``[account]`` table of the market file, or ``[accounts.NAME]``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    cash: Cash = 0  # at the start, in units
    min_cash: Cash | None = None  # None: no lower limit
    open_orders: Lots = OPEN_ORDERS_PRIVATE  # 0: unlimited, like the next two
    orders_per_s: Lots = 0
    burst: Lots = 0
    max_position: dict[Symbol, Qty] = {}  # overrides the instrument's

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        given = self.model_fields_set
        if {"cash", "min_cash"} <= given and self.floor > self.cash:
            raise ValueError("cash is below min_cash")
        if self.orders_per_s and "burst" in given and not self.burst:
            raise ValueError("burst is zero although orders_per_s is not")
        return self

    @property
    def floor(self) -> int:
        """Return the least cash that the account may have."""
        return -CASH_MAX if self.min_cash is None else self.min_cash

    def limits(self) -> AccountLimits:
        """Return the limits that the engine checks."""
        return AccountLimits(
            cash=self.cash,
            min_cash=self.min_cash,
            open_orders=self.open_orders,
            max_position=dict(self.max_position),
        )

    def rate(self) -> Rate:
        """Return the rate that the gateway checks; default burst: 1 s."""
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


class MatchSettings(BaseModel):
    """The ``[match]`` table of the market file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Line
    round: Line | None = None  # of the event, as its organiser calls it
    teams: Annotated[list[User], Field(max_length=TEAMS_MAX)] = []
    fair_sha256: Sha256 | None = None  # of the file of hidden values

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if len({*self.teams}) < len(self.teams):
            raise ValueError("teams: one is named twice")
        return self

    def match(self) -> MatchInfo:
        """Return the match as clients are told of it."""
        return MatchInfo(
            name=self.name,
            round=self.round,
            teams=tuple(self.teams),
            fair_sha256=self.fair_sha256,
        )


class MarketSettings(BaseModel):
    """The market file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    instruments: dict[Symbol, InstrumentSettings] = Field(min_length=1)
    money: MoneySettings | None = None  # None: a unit is a tick times a lot
    account: AccountSettings = AccountSettings()  # of every account
    accounts: dict[User, AccountSettings] = {}
    match: MatchSettings | None = None
    public_positions: bool = False  # whether the leaderboard shows them
    public_leaderboard: bool = True  # False: administrators see it
    doors: DoorSettings = DoorSettings()

    @model_validator(mode="after")
    def _doors_fit(self) -> Self:
        """Refuse instruments that the doors' messages cannot name."""
        if self.doors.json_port or self.doors.line_port:
            if CASH_SYMBOL in self.instruments:
                raise ValueError(
                    f"doors: instruments.{CASH_SYMBOL} is not possible,"
                    " because it stands for cash there"
                )
            if len(self.instruments) > INSTRUMENTS_MAX:
                raise ValueError(
                    f"doors: with more than {INSTRUMENTS_MAX} instruments a"
                    " hello is longer than bots can read"
                )
        return self

    @model_validator(mode="after")
    def _products_fit(self) -> Self:
        """Refuse instruments that name others which do not fit."""
        ticks = {s: Decimal(i.tick_size) for s, i in self.instruments.items()}
        check_products(self.instruments, ticks)
        return self

    @model_validator(mode="after")
    def _stays_exact(self) -> Self:
        """Refuse limits that could exceed 2**53, or of unlisted symbols."""
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
            most = VALUE_MAX // (len(self.instruments) * self._worth(symbol))
            limits = {
                "max_qty": instrument.max_qty,
                "max_position": instrument.max_position,
            }
            for name, settings in {"": self.account, **self.accounts}.items():
                field = f"max_position of {name or 'account'}"
                limits[field] = settings.max_position.get(symbol, 0)
            for name, limit in limits.items():
                if limit > most:
                    raise ValueError(
                        f"instruments.{symbol}: {name} {limit} at these"
                        f" prices could exceed 2**53; at most {most}"
                    )
        return self

    def _worth(self, symbol: str) -> int:
        instrument = self.instruments[symbol]
        try:
            tick_value = instrument.tick_value(self.money)
        except ValueError as error:
            raise ValueError(f"instruments.{symbol}.{error}") from None
        worth = instrument.worth(tick_value)
        return max(worth, self._payoff(instrument) * tick_value)

    def _payoff(self, instrument: InstrumentSettings) -> int:
        """Return the most ticks that a lot is paid when it settles."""
        underlying = self.instruments.get(instrument.underlying or "")
        low, high = value_bounds(
            instrument.priced(),
            None if underlying is None else underlying.priced(),
        )
        return max(abs(low), abs(high))

    def rules(self, is_guarded: bool, connections: int) -> Rules:
        """Return the rules of the market and the quotas of connections.

        ``is_guarded``: strangers may connect, so each account has limits
        unless the file has others. ``connections``: limit of one account; 0:
        unlimited. Raises ValueError if an account starts below its min_cash.
        """
        common = _GUARDED if is_guarded else AccountSettings()
        common = common.model_copy(update=_given(self.account))
        accounts = {
            name: common.model_copy(update=_given(settings))
            for name, settings in self.accounts.items()
        }
        for name, settings in {"": common, **accounts}.items():
            if settings.floor > settings.cash:
                where = f"accounts.{name}" if name else "account"
                raise ValueError(f"{where}: cash is below min_cash")
        money = self.money
        return Rules(
            configure=Configure(
                instruments=tuple(
                    settings.listed_as(symbol, self.money)
                    for symbol, settings in self.instruments.items()
                ),
                limits=common.limits(),
                accounts={n: a.limits() for n, a in accounts.items()},
                money=None if money is None else Money(**money.model_dump()),
                match=None if self.match is None else self.match.match(),
            ),
            quotas=Quotas(
                rate=common.rate(),
                rates={n: a.rate() for n, a in accounts.items()},
                connections=connections,
            ),
            public_positions=self.public_positions,
            public_leaderboard=self.public_leaderboard,
            doors=self.doors.terms(),
        )


_MARKET = TypeAdapter(MarketSettings)


def load_market(path: Path) -> MarketSettings:
    """Read a market file.

    Raises SettingsError if it is missing or wrong.
    """
    try:
        return _MARKET.validate_python(
            tomllib.loads(text_of(path.read_bytes()))
        )
    except ValidationError as error:
        raise SettingsError(f"{path}: {explain(error)}") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from None


def explain(error: ValidationError, prefix: str = "") -> str:
    """Describe the first error: its field, its reason and the input."""
    problem = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    where = f"{prefix}{path.upper()}: " if prefix and path else ""
    where = where or (f"{path}: " if path else "")
    return f"{where}{problem['msg']} (got {problem['input']!r})"
