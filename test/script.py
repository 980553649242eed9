"""The dialect in which tests play orders and compare what happens.

A script is a list of commands. Three kinds of line say what a command must
cause, and the player compares it::

    given ann sell 5@101              nothing is compared
    bob buy 500@101 -> invalid_qty qty    the answer, after an arrow
    bob buy 5@102 ioc                 every event, in order, indented below;
        bob 1 new 2 new 0/5           none below: the command causes none
        bob 2 trade 2 filled 5/5 5@101 taker #1
        ann 2 trade 1 filled 5/5 5@101 maker #1
        bob 3 account -505 BOND=5 worth 0
        ann 3 account 505 BOND=-5 worth 0
        * trade BOND 2 #1 5@101 buy
        * book BOND 2 | 101=0

``play`` plays a script on an engine, ``play_book`` on an order book. Both run
``check()`` after each command and return what they played on. `message` makes
the JSON request of a command, for tests of the gateway.

Commands
========

``[time] account[/session] what``, or ``[time] tick``, ``shutdown``,
``restart``. Without a time it is one microsecond after the last command;
``10s`` is ten seconds after the start. The session is ``a`` if none is named.

=================================  =========================================
``buy 5@99``, ``sell 5@market``    a limit order, a market order
``sell 5@market trigger=95``       a stop order
``sell 5@94 trigger=95``           a stop-limit order
``amend 1 price=98 qty=4``         ``qty`` is the new total
``cancel 1``, ``cancel as=mine``   by our id or by the client's
``cancel_all symbol=ETF side=buy``
``cancel_after 5000``              milliseconds
``connect``, ``connect keep``      log in; ``keep``: orders outlive the
                                   connection; ``admin``, ``house`` or
                                   ``spectator``: the role
``disconnect``
``admin phase halted symbol=BOND`` an administrator's action, with the reason
                                   "why"
``bust 1 ann 5@101 bob``           what the gateway makes of an administrator's
                                   bust: trade_id, buyer, trade, seller
``accept t-1``                     accept a tender
``convert buy 20 symbol=ETF``
=================================  =========================================

Orders are numbered 1, 2, 3 as they are accepted; a number in a command is an
order id. Words set a field of the request: ``post_only``; ``gtc ioc fok gtd
auction`` (time_in_force); ``cancel_oldest cancel_newest cancel_both`` (stp);
the phases; and ``field=value``, where ``as=`` is client_order_id, ``until=``
is expire_ts, ``trigger=`` is trigger_price, ``display=`` is display_qty and
``9s`` is a time.

Events
======

``recipient`` first; ``*`` is everybody. Then:

==============================================  ============================
``1 new 2 new 0/5``                             exec: account seq, exec_type,
                                                order_id, order_status,
                                                cum_qty/qty
``... 5@101 maker #1 fee 2``                    of a trade: last_qty,
                                                last_price, liquidity,
                                                trade_id, fee unless 0
``... user``                                    why the order ended
``3 account -505 BOND=5 worth 9 made 2``        account report: seq, cash,
                                                positions, equity, realized
                                                unless 0
``ok``, ``ok 3``                                with a count
``error order_closed 1 filled 5``               code, field, and the order's
                                                id, status and cum_qty
``trade BOND 2 #1 5@101 buy``                   symbol, seq, trade_id, qty,
                                                price, side of the taker;
                                                ``self``: of one account
``book BOND 2 99=5 | 101=0``                    symbol, seq, bids | asks that
                                                changed; ``3-7``: since 3
``status BOND halted why``                      symbol, phase, message
``... round 2``                                 of an exec, trade or status,
                                                unless it is 1
``news 1 BOND hello 5``                         news_id, symbol, headline, body
                                                and value
``match A/03 A ann bob 0f...``                  name, round, teams and digest
``tender t-1 BOND buy 5@99 until 9000000``      tender_id, symbol, side, qty,
                                                price, expire_ts
``bust BOND 4 #1``                              symbol, seq, trade_id
``4 settlement BOND 5@104 made 20``             account seq, symbol, position,
                                                price, realized
==============================================  ============================

Books are asked for their changes after each command.

Answers
=======

A refusal is its code and its field, and must change nothing: everything is
compared. An engine answers anything else with ``ok``. A book answers with the
order's matches and its end: ``5@100 with 1, 2 canceled, rests 3``, and
``stopped`` where the band stopped it; from then on it collects. Its commands
are ``buy``, ``sell``, ``amend`` and ``cancel``, with ``limit=`` (the worst
price of a market order) and ``band=95..103``, and besides::

    asks           -> 101: 1x5 2x3 / 102: 4x1   order x leaves_qty by level;
                                                2x3+7: 3 shown, 7 hidden;
                                                market: the market orders
    depth          -> 99=10 | 101=8             bids | asks, best first
    changes        -> 99=10 | 101=0             since the last time
    collect        ->                           match nothing from now on
    uncross 102    -> 3 buys 3 of 1             and match again
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from dataclasses import fields as fields_of
from dataclasses import replace
from itertools import groupby
from textwrap import indent
from typing import Any

from exchange.market import reports
from exchange.market.accounts import AccountLimits
from exchange.market.command import (
    PUBLIC,
    Action,
    BustTrade,
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
    AcceptTender,
    AccountReport,
    Admin,
    Amend,
    BookUpdate,
    Bust,
    Cancel,
    CancelAfter,
    CancelAll,
    Convert,
    Error,
    Event,
    Exec,
    Instrument,
    MatchChanged,
    News,
    Ok,
    Order,
    OrderBook,
    OrderType,
    Place,
    Refused,
    Settlement,
    Status,
    Stp,
    Sweep,
    Tender,
    Trade,
    encode,
)

SECOND = 1_000_000  # microseconds
STP: tuple[Stp, ...] = ("cancel_oldest", "cancel_newest", "cancel_both")
PHASES = ("pre_open", "auction", "open", "halted", "closed")
SHORT = {
    "as": "client_order_id",
    "until": "expire_ts",
    "trigger": "trigger_price",
    "display": "display_qty",
}
OWN = {"tick": TimePassed, "shutdown": Shutdown, "restart": Restart}
FLAGS: dict[str, dict[str, Any]] = {
    "post_only": {"post_only": True},
    **{word: {"time_in_force": word} for word in ("gtc", "ioc", "fok", "gtd")},
    **{stp: {"stp": stp} for stp in STP},
    **{word: {"phase": word} for word in PHASES},
}

# Engines ------------------------------------------------------------------


def listing(symbol: str = "BOND", **more: Any) -> Instrument:
    """Return an instrument in phase "open", with prices 1 to 1,000."""
    bounds = {"min_price": 1, "max_price": 1_000, "max_qty": 100}
    return Instrument(
        symbol=symbol,
        tick_size="1",
        **{"phase": "open", **bounds, **more},
    )


def listed(
    *instruments: Instrument | str,
    limits: AccountLimits = AccountLimits(),
    **accounts: AccountLimits,
) -> Engine:
    """Return an engine that lists these and has done nothing else.

    Keywords are the limits of single accounts.
    """
    engine = Engine()
    apply(
        engine,
        Configure(
            instruments=tuple(
                listing(i) if isinstance(i, str) else i for i in instruments
            ),
            limits=limits,
            accounts=accounts,
        ),
    )
    return engine


def limited(
    instrument: Instrument | str = "BOND", *more: Instrument, **limits: Any
) -> Engine:
    """Return an engine with these limits for ann; she, bob, cat logged in."""
    engine = listed(instrument, *more, ann=AccountLimits(**limits))
    for name in ("ann", "bob", "cat"):
        act(engine, f"{name} connect")
    return engine


def reconfigure(engine: Engine, **changes: Any) -> list[tuple[str, Event]]:
    """Apply the last configuration again, changed; return its outputs."""
    return apply(engine, replace(engine.configured, **changes))


def in_full(engine: Engine, command: Command) -> list[tuple[str, Event]]:
    """Apply a command; return its outputs, then the books' changes."""
    outputs = reports.in_full(engine.apply(command))
    return outputs + [(PUBLIC, u) for u in engine.take_book_updates()]


def apply(
    engine: Engine,
    action: Action,
    account: str = "",
    session: str = "a",
    ts: int | None = None,
) -> list[tuple[str, Event]]:
    """Apply the next command, a microsecond later if no time is given."""
    command = Command(
        engine.seq + 1, ts or engine.ts + 1, account, session, action
    )
    return in_full(engine, command)


def state_of(engine: Engine) -> dict[str, Any]:
    """Return all that a command may change, to be compared."""
    due = engine.next_deadline  # drops the deadlines that are stale
    state = {**copy.deepcopy(vars(engine)), "next_deadline": due}
    for name in ("seq", "ts", "previous_ts", "outputs"):
        del state[name]
    return state


def refuse(
    engine: Engine, action: Action, account: str, ts: int | None = None
) -> Error:
    """Apply what must be refused, and must change nothing."""
    seq, before = engine.seq, state_of(engine)
    ((recipient, error),) = apply(engine, action, account, ts=ts)
    assert recipient == account and isinstance(error, Error) and error.message
    assert state_of(engine) == before
    assert engine.seq == seq + 1
    return error


# The player ---------------------------------------------------------------


def play(script: str, engine: Engine | None = None) -> Engine:
    """Play a script, compare after each command, return the engine."""
    engine = engine or listed("BOND")
    for line, expected in commands(script):
        action, arrow, answer = map(str.strip, line.partition("->"))
        if arrow:
            told = judge(engine, action)
            assert told == answer, f"{action} -> {told}, not {answer}"
        else:
            told_all = [tell(*output) for output in act(engine, line)]
            if not line.startswith("given "):
                found = indent("\n".join(told_all), "    ")
                assert told_all == expected, f"{line}\n{found}"
        engine.check()
    return engine


def commands(script: str) -> list[tuple[str, list[str]]]:
    """Return the lines of a script, each with those indented below it."""
    lines = [line for line in script.splitlines() if line.strip()]
    margin = min((len(x) - len(x.lstrip()) for x in lines), default=0)
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        text = " ".join(line.split())
        if line[margin].isspace():
            found[-1][1].append(text)
        else:
            found.append((text, []))
    return found


def act(engine: Engine, line: str) -> list[tuple[str, Event]]:
    """Do what a line of a script says."""
    words = line.removeprefix("given ").split()
    ts = None
    if re.fullmatch(r"\d+s", words[0]):
        ts = int(words.pop(0)[:-1]) * SECOND
    if words[0] in OWN:
        return apply(engine, OWN[words[0]](), ts=ts)
    account, _, session = words.pop(0).partition("/")
    return apply(engine, parse(words), account, session or "a", ts)


def judge(engine: Engine, line: str) -> str:
    """Do what a line says; return the answer, see a refusal change nothing."""
    before = state_of(engine)
    outputs = act(engine, line)
    if not outputs or not isinstance(outputs[0][1], Error):
        return "ok"
    ((_, error),) = outputs
    assert isinstance(error, Error) and error.message
    assert state_of(engine) == before, line
    return f"{error.code} {error.field or ''}".strip()


# The parser ---------------------------------------------------------------


def parse(words: list[str]) -> Action:
    """Make the action of, say, ``buy 5@99 ioc as=mine``."""
    match words:
        case ["connect", *how]:
            (role,) = {"house", "spectator"} & {*how} or {None}
            return Connect(
                "keep" not in how, is_admin="admin" in how, role=role
            )
        case ["admin", action, *more]:
            return Admin(action=action, reason="why", **fields(more))
        case ["bust", trade_id, buyer, what, seller, *more]:
            return busting(int(trade_id), buyer, what, seller, **fields(more))
        case ["accept", tender_id]:
            return AcceptTender(tender_id=tender_id)
        case ["convert", ("buy" | "sell") as side, qty, *more]:
            return Convert(side=side, qty=int(qty), **fields(more))
        case ["disconnect"]:
            return Disconnect()
        case ["cancel_after", timeout_ms]:
            return CancelAfter(timeout_ms=int(timeout_ms))
        case ["cancel_all", *more]:
            return CancelAll(**fields(more))
        case ["cancel", *more]:
            return Cancel(**fields(more))
        case ["amend", *more]:
            return Amend(**fields(more))
        case [("buy" | "sell") as side, what, *more]:
            qty, _, price = what.partition("@")
            given = fields(more)
            if "phase" in given:  # the word is also a time in force
                given["time_in_force"] = given.pop("phase")
            if price != "market":
                given["price"] = int(price)
            order_type: OrderType = "limit" if "price" in given else "market"
            if "trigger_price" in given:
                order_type = "stop_limit" if "price" in given else "stop"
            return Place(
                side=side, qty=int(qty), order_type=order_type, **given
            )
    raise ValueError(words)


def busting(
    trade_id: int, buyer: str, what: str, seller: str, **more: Any
) -> BustTrade:
    """Make the action that undoes a trade without fees, of BOND."""
    qty, _, price = what.partition("@")
    ids = {"buy_order_id": 0, "sell_order_id": 0}
    return BustTrade(
        trade_id=trade_id,
        buyer=buyer,
        seller=seller,
        price=int(price),
        qty=int(qty),
        reason="why",
        **{"symbol": "BOND", "buy_fee": 0, "sell_fee": 0, **ids, **more},
    )


def fields(words: list[str]) -> dict[str, Any]:
    """Return the fields of a request that these words set."""
    found: dict[str, Any] = {}
    for word in words:
        name, is_field, text = word.partition("=")
        if is_field:
            found[SHORT.get(name, name)] = value(text)
        else:
            found |= {"order_id": int(name)} if name.isdigit() else FLAGS[name]
    return found


def value(text: str) -> int | str | dict[str, int]:
    """Return the number, the time in microseconds, or the text itself.

    Of prices by symbol, ``BOND:99,ETF:7``, a dictionary.
    """
    if re.fullmatch(r"([A-Z0-9.]+:-?\d+,?)+", text):
        pairs = (pair.split(":") for pair in text.split(","))
        return {symbol: int(price) for symbol, price in pairs}
    if re.fullmatch(r"\d+s", text):
        return int(text[:-1]) * SECOND
    return int(text) if re.fullmatch(r"-?\d+", text) else text


def message(line: str) -> dict[str, Any]:
    """Return the JSON request of, say, ``buy 5@99 ioc as=mine``."""
    request: Any = parse(line.split())
    made: dict[str, Any] = json.loads(encode(request))
    return made


# The printer --------------------------------------------------------------


def tell(recipient: str, event: Event) -> str:
    """Return the line of one output."""
    words: list[Any]
    match event:
        case Exec() as e:
            words = [e.seq, e.exec_type, e.order_id, e.order_status]
            words.append(f"{e.cum_qty}/{e.qty}")
            if e.last_qty is not None:
                words.append(f"{e.last_qty}@{e.last_price}")
                words += [e.liquidity, f"#{e.trade_id}"]
                words += [f"fee {e.fee}"] if e.fee else []
            words += [e.reason] if e.reason else []
            words += _round(e)
        case AccountReport():
            words = [event.seq, "account", event.cash]
            words += [f"{s}={qty}" for s, qty in event.positions.items()]
            words += ["worth", event.equity]
            words += ["made", event.realized] if event.realized else []
        case Ok():
            words = ["ok"] if event.count is None else ["ok", event.count]
        case Error() as e:
            words = ["error", e.code, e.field, e.order_id, e.order_status]
            words = [w for w in [*words, e.cum_qty] if w is not None]
        case Trade() as e:
            words = ["trade", e.symbol, e.seq, f"#{e.trade_id}"]
            words += [f"{e.qty}@{e.price}", e.side]
            words += [*(["self"] if e.is_self else []), *_round(e)]
        case BookUpdate() as e:
            assert not e.snapshot
            bids = [f"{price}={qty}" for price, qty in e.bids]
            asks = [f"{price}={qty}" for price, qty in e.asks]
            since = "" if e.prev_seq == e.seq - 1 else f"{e.prev_seq}-"
            words = ["book", e.symbol, f"{since}{e.seq}", *bids, "|", *asks]
        case Status() as e:
            words = ["status", e.symbol, e.phase, e.message]
            words = [word for word in words if word] + _round(event)
        case News() as e:
            words = ["news", e.news_id, e.symbol, e.headline, e.body, e.value]
            words = [word for word in words if word is not None]
        case MatchChanged(match=m):
            words = ["match", m.name, m.round, *m.teams, m.fair_sha256]
            words = [word for word in words if word is not None]
        case Tender() as e:
            words = ["tender", e.tender_id, e.symbol, e.side]
            words += [f"{e.qty}@{e.price}", "until", e.expire_ts]
        case Settlement() as e:
            words = [e.seq, "settlement", e.symbol]
            words += [f"{e.position}@{e.price}", "made", e.realized]
        case Bust() as e:
            words = ["bust", e.symbol, e.seq, f"#{e.trade_id}"]
        case _:
            raise TypeError(event)
    return " ".join(map(str, [recipient or "*", *words]))


def _round(event: Exec | Trade | Status) -> list[str]:
    return [] if event.round == 1 else [f"round {event.round}"]


# Books --------------------------------------------------------------------


class Book(OrderBook):
    """An order book that numbers the orders that it accepts."""

    accepted = 0


def play_book(script: str, book: Book | None = None) -> Book:
    """Play a script on a book, compare after each line, return the book."""
    book = Book() if book is None else book
    for line in script.strip().splitlines():
        action, _, expected = (part.strip() for part in line.partition("->"))
        told = act_on(book, action)
        assert told == expected, f"{action} -> {told}, not {expected}\n{book}"
        book.check()
    return book


def act_on(book: Book, line: str) -> str:
    """Do what a line of a script says to a book; return the answer."""
    match line.split():
        case ["bids"]:
            return _queue(book, "buy")
        case ["asks"]:
            return _queue(book, "sell")
        case ["changes"]:
            return _levels(*book.take_changes())
        case ["depth"]:
            return _levels(book.depth("buy"), book.depth("sell"))
        case ["collect"]:
            book.is_collecting = True
            return ""
        case ["uncross", price]:
            told = _crosses(book, int(price))
            book.is_collecting = False
            return told
    account, *words = line.split()
    given: dict[str, Any] = {
        "own": {i: o for i, o in book.orders.items() if o.account == account}
    }
    for word in [w for w in words if w.startswith(("band=", "limit="))]:
        words.remove(word)
        name, _, text = word.partition("=")
        low, is_band, high = text.partition("..")
        given[name] = (int(low), int(high)) if is_band else int(text)
    match parse(words):
        case Cancel(order_id=int(order_id)):
            assert book.orders[order_id].account == account
            order = book.cancel(order_id)
            assert order.order_id == order_id and not order.is_open
            return f"{order.order_status} user"
        case Amend(order_id=int(order_id)) as asked:
            order = book.orders[order_id]
            assert order.account == account
            given |= {"price": asked.price, "qty": asked.qty}
            given["display_qty"] = asked.display_qty
            if "limit" in given:
                given["worst_price"] = given.pop("limit")
            return _fate(book, order, lambda: book.amend(order_id, **given))
        case Place() as place:
            order = order_of(account, place, book.accepted + 1)
            told = _fate(book, order, lambda: book.place(order, **given))
            book.accepted += not told.startswith("would_take")
            return told
    raise ValueError(line)


def order_of(account: str, place: Place | str, order_id: int) -> Order:
    """Make the order that a request to place one asks for."""
    if isinstance(place, str):
        made = parse(place.split())
        assert isinstance(made, Place)
        place = made
    names = {field.name for field in fields_of(Order)}
    asked = {
        field.name: getattr(place, field.name)
        for field in fields_of(Place)
        if field.name in names and getattr(place, field.name) is not None
    }
    if place.order_type == "market":
        asked.setdefault("time_in_force", "ioc")
    return Order(order_id, account, leaves_qty=place.qty, **asked)


def _fate(book: OrderBook, order: Order, call: Callable[[], Sweep]) -> str:
    """Tell the matches of an arriving order, and how it ended or rests."""
    filled, cost = order.cum_qty, order.cum_cost
    try:
        sweep = call()
    except Refused as refused:
        return f"{refused.code} {refused.field}"
    told = []
    for maker, qty in sweep.matches:
        told.append(
            f"{qty}@{maker.price} with {maker.order_id}"
            if qty
            else f"{maker.order_id} {maker.order_status}"
        )
        filled += qty
        cost += qty * (maker.price or 0)  # a market order is only canceled
    assert (order.cum_qty, order.cum_cost) == (filled, cost)
    assert order.is_open == (sweep.reason is None and order.leaves_qty > 0)
    if sweep.reason:
        told.append(f"{order.order_status} {sweep.reason}")
    elif order.leaves_qty:
        told.append(f"rests {order.leaves_qty}")
    else:
        told.append(order.order_status)
    if sweep.is_stopped:
        told.append("stopped")
        book.is_collecting = True
    return ", ".join(told)


def _crosses(book: OrderBook, price: int) -> str:
    """Uncross, and tell which order bought how much of which."""
    told = []
    for bid, ask, qty in book.uncross(price):
        assert (bid.side, ask.side) == ("buy", "sell")
        told.append(f"{bid.order_id} buys {qty} of {ask.order_id}")
        for order in (bid, ask):
            assert (order.order_id in book.orders) == order.is_open
            assert order.order_status == (
                "partially_filled" if order.is_open else "filled"
            )
    return ", ".join(told)


def _queue(book: OrderBook, side: Any) -> str:
    orders = [*book.market_orders(side), *book.queue(side)]
    levels = groupby(orders, key=lambda order: order.price)
    return " / ".join(
        " ".join(
            ["market:" if price is None else f"{price}:"]
            + [_shown(order) for order in orders]
        )
        for price, orders in levels
    )


def _shown(order: Order) -> str:
    """Tell an order's number and its lots, the hidden ones apart."""
    shown = f"{order.order_id}x{order.leaves_qty - order.hidden_qty}"
    return f"{shown}+{order.hidden_qty}" if order.hidden_qty else shown


def _levels(bids: Any, asks: Any) -> str:
    sides = (" ".join(f"{p}={q}" for p, q in side) for side in (bids, asks))
    return " | ".join(sides).strip()
