"""Orders with a tag: a name that is free again when its order has ended."""

from __future__ import annotations

from typing import Any

import pytest

from exchange.journal.records import decode_records, encode_record
from exchange.market.accounts import TAGS_MIN, Tags
from exchange.market.command import Command, TaggedPlace
from exchange.market.engine import Engine
from orderbook import Cancel, Error, Exec, Place, decode_requests, encode
from test.script import apply, listed, refuse
from util.replay_text import describe_command


def tagged(tag: str, **more: Any) -> TaggedPlace:
    order = {"symbol": "BOND", "side": "buy", "qty": 1, "price": 50}
    return TaggedPlace(tag=tag, **{**order, **more})


def placed(engine: Engine, tag: str, **more: Any) -> int:
    (_, report), *_ = apply(engine, tagged(tag, **more), "ann")
    assert isinstance(report, Exec)
    return report.order_id


def test_a_tag_is_taken_while_its_order_is_open() -> None:
    engine = listed("BOND")
    first = placed(engine, "bot/1")
    error = refuse(engine, tagged("bot/1"), "ann")
    assert (error.code, error.order_id) == (
        "duplicate_client_order_id",
        first,
    )
    apply(engine, Cancel(order_id=first), "ann")
    second = placed(engine, "bot/1")
    tags = engine.accounts["ann"].tags
    assert tags.newest == {"bot/1": second}
    assert [tag for tag, _ in tags.by_order.values()] == ["bot/1", "bot/1"]
    engine.check()


def test_a_tag_is_one_accounts_own_and_no_client_order_id() -> None:
    engine = listed("BOND")
    placed(engine, "a", client_order_id="b")
    (_, report), *_ = apply(engine, tagged("a"), "bob")
    assert isinstance(report, Exec) and report.client_order_id is None
    placed(engine, "b")
    error = refuse(engine, tagged("c", client_order_id="b"), "ann")
    assert error.code == "duplicate_client_order_id"


def test_an_order_that_is_refused_takes_no_tag() -> None:
    engine = listed("BOND")
    placed(engine, "z")
    refuse(engine, tagged("a", price=9_999), "ann")
    assert [*engine.accounts["ann"].tags.newest] == ["z"]
    placed(engine, "a")


def test_tags_of_forgotten_orders_are_dropped() -> None:
    tags = Tags()
    known: dict[int, Any] = {}
    for order_id in range(1, TAGS_MIN + 2):
        tags.add(f"t{order_id}", order_id, 1, known)
        known = {order_id: None}
    assert len(tags.by_order) == len(tags.newest) == 1


def test_a_journal_keeps_the_tag() -> None:
    command = Command(3, 5, "ann", "", tagged("x/1", post_only=True, id=7))
    text = encode_record(command)
    assert text == (
        '[5,"ann","",{"type":"tagged_place","id":7,"symbol":"BOND",'
        '"side":"buy","qty":1,"price":50,"post_only":true,"tag":"x/1"}]'
    )
    assert decode_records(3, f"[{text}]".encode()) == [command]


@pytest.mark.parametrize(
    "text",
    [
        encode(Place(side="buy", qty=1, price=1))[:-1] + ',"tag":"a"}',
        '{"type":"tagged_place","side":"buy","qty":1,"price":1,"tag":"a"}',
    ],
)
def test_no_client_of_the_native_protocol_can_send_one(text: str) -> None:
    (error,) = decode_requests(text)
    assert isinstance(error, Error) and error.code == "bad_request"


def test_a_replay_tells_the_tag() -> None:
    text = describe_command(Command(3, 5, "ann", "", tagged("x/1")))
    assert text == "buy 1 BOND at 50 with the tag x/1"
