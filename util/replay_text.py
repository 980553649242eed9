"""Commands and events in words, for people: the lines of `util.replay`."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, assert_never

from pydantic_core import to_json

from exchange.market.accounts import AccountLimits
from exchange.market.command import (
    BustTrade,
    ClockStep,
    Command,
    Configure,
    Connect,
    Disconnect,
    Restart,
    Shutdown,
    TaggedPlace,
    TimePassed,
)
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
    Exec,
    Instrument,
    MatchChanged,
    MatchInfo,
    News,
    Ok,
    Place,
    PriceLevel,
    Settlement,
    Status,
    Tender,
    Trade,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def iso(ts: int) -> str:
    """Return a time in microseconds as ISO 8601, in UTC."""
    time = EPOCH + ts * MICROSECOND
    return f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def describe_command(command: Command) -> str:
    """Describe a command."""
    return " ".join(str(word) for word in _words(command) if word)


def _words(command: Command) -> list[object]:
    match command.action:
        case Place() as order:
            return _order(order)
        case Amend() as amend:
            words: list[object] = ["amend", _name(amend)]
            words.append(amend.qty and f"to {amend.qty}")
            words.append(amend.price is not None and _price(amend.price))
            return words + _more(amend)
        case Cancel() as cancel:
            return ["cancel", _name(cancel)]
        case CancelAll() as them:
            symbol = them.symbol and f"of {them.symbol}"
            return ["cancel all", them.side, "orders", symbol]
        case CancelAfter(timeout_ms=timeout_ms):
            unit = timeout_ms and "ms"
            return ["cancel all after", timeout_ms or "never", unit]
        case Convert() as convert:
            words = ["convert", convert.side, convert.qty, convert.symbol]
            name = convert.client_order_id
            return words + [name and f"as {name}"]
        case AcceptTender(tender_id=tender_id):
            return ["accept tender", tender_id]
        case BustTrade() as bust:
            words = ["admin", f"bust trade {bust.trade_id} of {bust.symbol}:"]
            words += [f"{bust.buyer} bought {bust.qty} from {bust.seller}"]
            return words + [_price(bust.price), f"because: {bust.reason}"]
        case Connect() as connect:
            words = ["connect", command.session]
            words.append(connect.is_admin and "as an administrator")
            words.append(connect.role is not None and f"as {connect.role}")
            stays = not connect.cancel_on_disconnect
            words.append(stays and "without cancel_on_disconnect")
            return words
        case Disconnect():
            return ["disconnect", command.session]
        case TimePassed():
            return ["tick"]
        case Shutdown():
            return ["shutdown"]
        case Restart():
            return ["restart"]
        case ClockStep(forward_us=forward_us):
            return [f"clock set forward by {forward_us / 1e6:,.6f} s"]
        case Admin() as admin:
            name = admin.client_request_id
            words = ["admin", describe_admin(admin)]
            words.append(name and f"as {name}")
            return words + [f"because: {admin.reason}"]
        case Configure() as market:
            return _market(market)
        case _:
            assert_never(command.action)


def _order(order: Place) -> list[object]:
    words: list[object] = [order.side, order.qty, order.symbol]
    words += [_price(order.price), order.time_in_force]
    words += _more(order)
    words.append(order.post_only and "post-only")
    words.append(order.stp != "cancel_oldest" and f"stp {order.stp}")
    if order.client_order_id is not None:
        words.append(f"as {order.client_order_id}")
    if isinstance(order, TaggedPlace):
        words.append(f"with the tag {order.tag}")
    return words


def _more(request: Place | Amend) -> list[object]:
    """Describe the trigger, the displayed quantity and the expiry."""
    words: list[object] = []
    if request.trigger_price is not None:
        words.append(f"stop {request.trigger_price}")
    if request.display_qty is not None:
        words.append(f"showing {request.display_qty}")
    if request.expire_ts is not None:
        words.append(f"until {iso(request.expire_ts)}")
    return words


def _market(market: Configure) -> list[object]:
    listed = ", ".join(map(_listing, market.instruments))
    words: list[object] = [
        f"configure engine {market.engine_version}: {listed}"
    ]
    if market.money is not None:
        words.append(f"| cash in {market.money.unit} {market.money.currency}")
    if market.match is not None:
        words.append(f"| {_match(market.match)}")
    limits = {"everybody": market.limits, **market.accounts}
    for name, its in limits.items():
        changes = _changes(its, AccountLimits())
        words.append(changes and f"| {name}: {changes}")
    return words


def describe_admin(admin: Admin) -> str:
    """Describe an administrator's request."""
    match admin.action:
        case "phase":
            text = f"set {admin.symbol or 'all'} to {admin.phase}"
            if admin.reopen_ms is not None:
                text += f" for {admin.reopen_ms} ms"
            if admin.close_ms is not None:
                text += f", to close after {admin.close_ms} ms"
            return text
        case "suspend" | "resume" | "kill" | "unkill":
            return f"{admin.action} {admin.user}"
        case "cancel":
            return f"cancel order {admin.order_id}"
        case "adjust":
            changes = [] if admin.cash is None else [f"{admin.cash:+} cash"]
            if admin.qty is not None:
                changes.append(f"{admin.qty:+} {admin.symbol}")
            return f"adjust {admin.user} by {', '.join(changes)}"
        case "settle" if admin.prices is not None:
            return f"settle {_prices(admin.prices)}"
        case "settle" if admin.price is None:
            return f"settle {admin.symbol}"
        case "settle":
            return f"settle {admin.symbol} {_price(admin.price)}"
        case "reset":
            return "reset"
        case "message":
            about = f" about {admin.symbol}" if admin.symbol else ""
            return f"tell{about}: {admin.message}"
        case "news":
            about = f" about {admin.symbol}" if admin.symbol else ""
            value = "" if admin.value is None else f" ({admin.value})"
            return f"news{about}: {admin.headline}{value}"
        case "dividend":
            return f"pay {admin.amount} for each lot of {admin.symbol}"
        case "tender":
            text = f"offer {admin.user or 'all'} tender {admin.tender_id}:"
            text += f" {admin.side} {admin.qty} {admin.symbol}"
            return f"{text} at {admin.price} for {admin.valid_ms} ms"
        case "close_out":
            return f"close out {admin.user} at {_prices(admin.prices or {})}"
        case "match":
            return _match(admin)
        case "bust":
            return f"bust trade {admin.trade_id} of {admin.symbol}"
        case "reference":
            return f"set the reference of {admin.symbol} to {admin.price}"
        case _:
            assert_never(admin.action)


Described: TypeAlias = (
    Ok
    | Error
    | Exec
    | AccountReport
    | Status
    | Trade
    | BookUpdate
    | News
    | MatchChanged
    | Tender
    | Settlement
    | Bust
)


def describe_event(event: Described) -> str:
    """Describe an event."""
    match event:
        case Exec() as e:
            text = f"order {e.order_id} {e.exec_type}"
            if e.exec_type == "trade":
                text += f" {e.trade_id}: {e.last_qty} {e.symbol}"
                text += f" at {e.last_price} as {e.liquidity}"
                text += f" for a fee of {e.fee}" if e.fee else ""
            elif e.reason is not None:
                text += f" ({e.reason})"
            else:
                text += f": {e.side} {e.qty} {e.symbol} {_price(e.price)}"
                if e.trigger_price is not None:
                    text += f" stop {e.trigger_price}"
                if e.order_status == "waiting":
                    text += ", waiting"
            return f"{text}; {e.cum_qty} of {e.qty} filled"
        case AccountReport():
            held = [f"cash {event.cash}"]
            held += [f"{qty} {s}" for s, qty in event.positions.items()]
            return f"{', '.join(held)}; worth {event.equity}"
        case Ok(count=count):
            return "ok" if count is None else f"ok: {count}"
        case Error():
            return f"refused: {event.code}: {event.message}"
        case Status():
            head = filter(None, ("status", event.symbol, event.phase))
            return ": ".join(filter(None, (" ".join(head), event.message)))
        case Trade() as t:
            return f"trade {t.trade_id}: {t.qty} {t.symbol} at {t.price}" + (
                " bought" if t.side == "buy" else " sold"
            )
        case News() as n:
            head = filter(None, ("news", str(n.news_id), n.symbol))
            value = "" if n.value is None else f" ({n.value})"
            return f"{' '.join(head)}: {n.headline}{value}"
        case MatchChanged(match=match):
            return _match(match)
        case Tender() as t:
            text = f"tender {t.tender_id}: {t.side} {t.qty} {t.symbol}"
            return f"{text} at {t.price} until {iso(t.expire_ts)}"
        case Settlement() as s:
            text = f"settled {s.position} {s.symbol} at {s.price}"
            return f"{text}; profit {s.realized}"
        case Bust():
            return f"bust of trade {event.trade_id} of {event.symbol}"
        case BookUpdate():
            bids, asks = _levels(event.bids), _levels(event.asks)
            return f"book {event.symbol} {event.seq}: {bids} | {asks}"
        case _:
            assert_never(event)


def _match(match: MatchInfo | Admin) -> str:
    words = ["match", match.name, match.round and f"of round {match.round}"]
    if match.teams:
        words.append(f"with {' '.join(match.teams)}")
    return " ".join(filter(None, words))


def _prices(prices: dict[str, int]) -> str:
    return " ".join(f"{symbol}={price}" for symbol, price in prices.items())


def _price(price: int | None) -> str:
    return "at market" if price is None else f"at {price}"


def _name(action: Amend | Cancel) -> str:
    if action.order_id is not None:
        return f"order {action.order_id}"
    return action.client_order_id or ""


def _listing(listed: Instrument) -> str:
    plain = Instrument(
        symbol=listed.symbol,
        tick_size=listed.tick_size,
        min_price=listed.min_price,
        max_price=listed.max_price,
        max_qty=listed.max_qty,
        phase="open",
    )
    changes = _changes(listed, plain)
    return (
        f"{listed.symbol} ({listed.min_price} to {listed.max_price} ticks of"
        f" {listed.tick_size}, at most {listed.max_qty} lots"
        f"{', ' if changes else ''}{changes})"
    )


def _changes(what: Any, usual: Any) -> str:
    """List the fields that differ from ``usual``."""
    its = ((field.name, getattr(what, field.name)) for field in fields(what))
    return ", ".join(
        f"{name}={cell(value)}"
        for name, value in its
        if value != getattr(usual, name)
    )


def printable(text: str) -> str:
    """Escape characters that would break or hide a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _levels(levels: tuple[PriceLevel, ...]) -> str:
    return " ".join(f"{price}={qty}" for price, qty in levels) or "-"


def cell(value: Any) -> Any:
    is_plain = isinstance(value, (str, int)) and not isinstance(value, bool)
    if value is None or is_plain:
        return value
    return to_json(value).decode()
