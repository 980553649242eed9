"""Random flows of commands, and the markets in which they take place.

``python -m test.market.flows SEED`` prints all events of one of them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from exchange.market.accounts import AccountLimits
from exchange.market.command import (
    Action,
    Command,
    Configure,
    Connect,
    Disconnect,
    Restart,
    Shutdown,
    TimePassed,
)
from exchange.market.engine import Engine
from orderbook import (
    Admin,
    AdminAction,
    Amend,
    Cancel,
    CancelAfter,
    CancelAll,
    Conversion,
    Convert,
    Place,
    encode,
)
from test.script import SECOND, STP, in_full, listing

ROOT = Path(__file__).parents[2]


# Random flows -------------------------------------------------------------


MARKET = Configure(
    instruments=(
        listing("BOND", min_price=96, max_price=104, max_qty=9),
        listing("ETF", min_price=-3, max_price=3, max_qty=5),
        listing("XAU", min_price=10, max_price=12, max_qty=20),
    )
)
BOND, ETF, XAU = MARKET.instruments
# The same, with every limit set.
HALL = Configure(
    instruments=(
        replace(
            BOND,
            max_position=60,
            maker_fee=-1,
            taker_fee=2,
            reference_price=100,
            collar=3,
            band=2,
            auction_ms=2_000,
        ),
        replace(ETF, taker_fee=1),
        replace(XAU, phase="pre_open", reference_price=11, max_position=90),
    ),
    limits=AccountLimits(cash=2_500, min_cash=0, open_orders=12),
    accounts={
        "dan": AccountLimits(max_position={"BOND": 0, "ETF": 8}),
        "eve": AccountLimits(cash=500, min_cash=-900),
    },
)
# Stricter, so that some accounts are beyond their limits at once.
STRICT = replace(
    HALL,
    instruments=(
        replace(HALL.instruments[0], max_position=20, maker_fee=3),
        replace(ETF, short_selling=False, collar=2),
        replace(XAU, max_position=30, band=1, reference_price=11),
    ),
    limits=AccountLimits(cash=2_000, min_cash=1_500, open_orders=6),
)
USERS = ("ann", "bob", "cat", "dan", "eve")
ACTIONS: tuple[AdminAction, ...] = (
    *("phase", "suspend", "resume", "kill", "unkill"),
    *("cancel", "adjust", "settle", "reset", "message"),
)
SYMBOLS = ("BOND", "ETF", "XAU")


def flow(rng: random.Random, steps: int) -> Iterator[Command]:
    """Yield the commands of a busy market, many of them refused.

    With phases, auctions, and an administrator who does as he likes.
    """
    ts = placed = 0
    named = [("ann", "none", 0)]  # account, client_order_id and price
    for seq in range(1, steps + 1):
        ts += rng.choice((1, 1, 1, 50_000, 2 * SECOND))
        action: Action
        account = rng.choice(USERS)
        dice = rng.randrange(20)
        if seq == 1:
            action = HALL
        elif dice < 12:
            placed += 1
            action = random_place(rng, ts, placed)
            may_rest = action.time_in_force in ("gtc", "gtd")
            if action.client_order_id is not None and may_rest:
                assert action.price is not None
                named.append((account, action.client_order_id, action.price))
        elif dice < 16:
            # Mostly an order of the account itself, often still open.
            owner, name, price = rng.choice(named[-8:])
            account = rng.choice((owner, owner, owner, account))
            action = rng.choice(
                (
                    Cancel(client_order_id=name),
                    random_amend(rng, name, price),
                    random_amend(rng, name, price),
                )
            )
        elif dice < 18:
            action = rng.choice(
                (
                    Cancel(order_id=max(0, placed - rng.randrange(20))),
                    CancelAll(
                        symbol=rng.choice((None, "BOND", "ETF", "NONE")),
                        side=rng.choice((None, "buy", "sell")),
                    ),
                    CancelAfter(timeout_ms=rng.choice((0, 1_000, 3_000))),
                    Connect(rng.random() < 0.5, is_admin=placed % 50 == 0),
                    Disconnect(),
                    TimePassed(),
                    TimePassed(),
                    rng.choice(
                        (TimePassed(), Shutdown(), Restart(), HALL, STRICT)
                    ),
                )
            )
        elif dice < 19:
            action = TimePassed()
        else:
            account, action = "op", random_admin(rng, placed)
        if isinstance(action, (TimePassed, Shutdown, Restart, Configure)):
            account = ""
        yield Command(seq, ts, account, rng.choice("ab"), action)


def random_place(rng: random.Random, ts: int, placed: int) -> Place:
    instrument = rng.choice(MARKET.instruments)
    low, high = instrument.min_price, instrument.max_price
    order: dict[str, Any] = {
        "symbol": rng.choice((instrument.symbol,) * 40 + ("NONE", None)),
        "side": rng.choice(("buy", "sell")),
        "qty": rng.randint(1, rng.choice((3, instrument.max_qty + 1))),
        "stp": rng.choice(STP),
        "client_order_id": rng.choice(
            (None, f"c{placed}", f"c{placed}", f"c{placed - 5}")
        ),
    }
    match rng.choice(("market", "ioc", "fok", "gtd", "post", "gtc", "gtc")):
        case "market":
            order["order_type"] = "market"
            order["time_in_force"] = rng.choice((None, "ioc", "fok"))
            return Place(**order)
        case "post":
            order["post_only"], order["time_in_force"] = True, "gtc"
        case "gtd":
            order["time_in_force"] = "gtd"
            order["expire_ts"] = ts + rng.choice((0, 5, 5, 9, 9, 30)) * SECOND
        case tif:
            order["time_in_force"] = tif
    return Place(price=rng.randint(low, high + (placed % 9 == 0)), **order)


def random_admin(rng: random.Random, placed: int) -> Admin:
    user = rng.choice((*USERS, "nobody" if placed % 9 == 0 else "ann"))
    symbol: str | None = rng.choice((*SYMBOLS, "NONE"))
    given: dict[str, Any]
    often = ("phase",) * 9 + ("adjust",) * 6 + ("resume",) * 9
    match rng.choice(often + ACTIONS):
        case "phase" as action:
            symbol = rng.choice((None, *SYMBOLS, "NONE"))
            given = {"symbol": symbol, "phase": "open"}
            if rng.random() < 0.5:
                given["phase"] = rng.choice(("pre_open", "auction", "halted"))
                given["reopen_ms"] = rng.choice((None, 1_000, 2_000, 5_000))
            elif rng.random() < 0.1:
                given["phase"] = "closed"
        case ("suspend" | "resume" | "kill" | "unkill") as action:
            given = {"user": user}
        case "cancel" as action:
            given = {"order_id": max(0, placed // 2 - rng.randrange(20))}
        case "adjust" as action:
            cash, qty = rng.randint(-300, 300), rng.randint(-9, 12)
            given = {"user": user, "symbol": symbol, "qty": qty}
            if placed % 3 == 0:
                given = {"user": user, "cash": rng.choice((cash, 9 * 10**15))}
            elif placed % 3 == 1:
                given["cash"] = cash
        case "settle" as action:
            given = {"symbol": symbol, "price": rng.choice((2, 11, 99))}
        case "message" as action:
            given = {"message": "hello", "symbol": rng.choice((None, symbol))}
        case action:
            given = {}
    return Admin(action=action, reason="why", **given)


def random_amend(rng: random.Random, name: str, price: int) -> Amend:
    new = rng.choice((None, price, *range(price - 3, price + 4)))
    qty = rng.choice((None, 1, 2, 3, 5, 8)) if new is not None else 4
    return Amend(client_order_id=name, price=new, qty=qty)


# Derivatives, binaries and baskets -----------------------------------------

PRODUCTS = Configure(
    instruments=(
        listing("GS", max_price=12, tick_value=5, reference_price=7),
        listing("MS", max_price=12, max_position=24, reference_price=3),
        listing(
            "XLF",
            max_price=40,
            tick_value=2,
            reference_price=20,
            max_position=16,
            convert=Conversion(lot=2, per=2, fee=7, basket={"GS": 1, "MS": 2}),
        ),
        listing(
            "FUT",
            kind="future",
            underlying="GS",
            expires="round",
            tick_value=3,
            min_price=-5,
        ),
        listing("CALL", kind="call", underlying="GS", strike=6, expires=9),
        listing("PUT", kind="put", underlying="MS", strike=9, expires="round"),
        listing("RED", kind="binary", pays=9, group="RACE", max_price=9),
        listing("BLUE", kind="binary", pays=9, group="RACE", max_price=9),
    ),
    limits=AccountLimits(cash=9_000, min_cash=-9_000),
    accounts={"eve": AccountLimits(cash=500, min_cash=480)},
)
PRICES = {i.symbol: i.max_price for i in PRODUCTS.instruments} | {
    symbol: 12 for symbol in ("FUT", "CALL", "PUT")
}


def product_flow(
    rng: random.Random, steps: int
) -> Iterator[tuple[int, str, Action]]:
    """Yield times, accounts and actions: trades, and all that ends them.

    Many are refused; nothing is given, so that all profit is earned.
    """
    ts = SECOND
    yield ts, "", PRODUCTS
    for number in range(1, steps):
        ts += rng.choice((1, 1, 1, 50_000, SECOND // 2))
        dice = rng.randrange(40)
        if dice < 26:
            yield ts, rng.choice(USERS), random_trade(rng)
        elif dice < 33:
            yield ts, rng.choice(USERS), Convert(
                symbol=rng.choice(("XLF",) * 9 + ("GS",)),
                side=rng.choice(("buy", "sell")),
                qty=rng.choice((2, 2, 4, 10, 3)),
                client_order_id=rng.choice((None, f"v{number // 60}")),
            )
        elif dice < 36:
            yield ts, "", TimePassed()
        else:
            yield ts, "op", random_payout(rng)


def random_trade(rng: random.Random) -> Place:
    symbol = rng.choice(tuple(PRICES))
    return Place(
        symbol=symbol,
        side=rng.choice(("buy", "sell")),
        qty=rng.randint(1, 9),
        price=rng.randint(1, min(PRICES[symbol], 9)),
        stp=rng.choice(STP),
    )


def random_payout(rng: random.Random) -> Admin:
    """Return an action that settles, pays, closes out or begins anew."""
    symbol = rng.choice((*PRICES, "NONE"))
    prices = {s: rng.randint(0, high) for s, high in PRICES.items()}
    given: dict[str, Any] = {}
    often = ("dividend", "close_out", "phase", "resume", "reset")
    match rng.choice(often + ("settle", "prices")):
        case "dividend" as action:
            given = {"symbol": symbol, "amount": rng.randint(-9, 9)}
        case "close_out" as action:
            if rng.random() < 0.3:
                del prices["GS"]
            given = {"user": rng.choice(USERS), "prices": prices}
        case "phase" as action:
            given = {"symbol": symbol, "phase": rng.choice(("open", "halted"))}
        case "resume" as action:
            given = {"user": rng.choice(USERS)}
        case "settle" as action:
            price = rng.choice((None, 9, prices.get(symbol)))
            given = {"symbol": symbol, "price": price}
        case "prices":
            action = "settle"
            chosen = rng.sample(tuple(PRICES), rng.randint(1, 4))
            given = {"prices": {s: prices[s] for s in chosen}}
        case action:
            pass
    return Admin(action=action, reason="why", **given)


# Determinism --------------------------------------------------------------


def transcript(seed: int) -> str:
    """Return all that comes of a flow, as it would be sent."""
    engine = Engine()
    return "".join(
        f"{command.seq} {recipient}: {encode(event)}\n"
        for command in flow(random.Random(seed), 3_000)
        for recipient, event in in_full(engine, command)
    )


if __name__ == "__main__":
    sys.stdout.write(transcript(int(sys.argv[1])))
