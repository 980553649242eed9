"""News, and what an administrator's request does once."""

from __future__ import annotations

from exchange.market import accounts
from exchange.market.accounts import ADMIN_REQUESTS_REMEMBERED
from orderbook import Admin, News
from test.script import act, apply, listed, play, refuse


def test_news_goes_to_everybody_with_a_number_and_then_its_reason() -> None:
    play("""
        op admin news headline=hello
            op ok
            * news 1 hello
            * status news 1: why
        op admin news headline=more symbol=BOND body=text value=-5
            op ok
            * news 2 BOND more text -5
            * status BOND news 2: why
        op admin news headline=more symbol=NONE -> unknown_symbol symbol
        op admin news headline=again
            op ok
            * news 3 again
            * status news 3: why
        """)


def test_the_numbers_of_news_go_on_after_a_reset() -> None:
    play("""
        given op admin news headline=hello
        given op admin reset
        op admin news headline=more
            op ok
            * news 2 more
            * status news 2: why round 2
        """)


def test_news_keeps_the_text_as_it_is() -> None:
    news = Admin(action="news", reason="why", headline='"a"', body="b\nc")
    _, (recipient, event), _ = apply(listed("BOND"), news, "op")
    assert recipient == "" and isinstance(event, News)
    assert (event.headline, event.body, event.value) == ('"a"', "b\nc", None)


# client_request_id --------------------------------------------------------

ONCE = "client_request_id=r-1"


def test_a_repeated_adjustment_pays_once() -> None:
    play(f"""
        given ann connect
        op admin adjust user=ann cash=5 {ONCE} -> ok
        op admin adjust user=ann cash=5 {ONCE} \
-> duplicate_client_request_id client_request_id
        op admin adjust user=ann cash=7 {ONCE} \
-> duplicate_client_request_id client_request_id
        op admin news headline=hello {ONCE} \
-> duplicate_client_request_id client_request_id
        op admin adjust user=ann cash=5 client_request_id=r-2 -> ok
        op admin adjust user=ann cash=5 -> ok
        op admin adjust user=ann cash=5 -> ok
        given bob buy 1@9
        given ann sell 1@9
        """).check()


def test_a_refusal_does_not_use_up_the_id() -> None:
    play(f"""
        op admin adjust user=ann cash=5 {ONCE} -> bad_request user
        given ann connect
        op admin adjust user=ann symbol=NONE qty=5 {ONCE} \
-> unknown_symbol symbol
        op admin adjust user=ann cash=5 {ONCE}
            op ok
            ann 1 account 5 worth 5
            * status adjust ann by +5 cash: why
        """)


def test_each_administrator_has_ids_of_their_own() -> None:
    play(f"""
        given ann connect
        op admin adjust user=ann cash=5 {ONCE} -> ok
        eve admin adjust user=ann cash=5 {ONCE} -> ok
        eve admin adjust user=ann cash=5 {ONCE} \
-> duplicate_client_request_id client_request_id
        """)


def test_an_unknown_symbol_goes_before_a_repeat_and_nothing_else() -> None:
    play(f"""
        given ann connect
        given op admin adjust user=ann cash=5 {ONCE}
        op admin adjust user=ann symbol=NONE qty=5 {ONCE} \
-> unknown_symbol symbol
        op admin adjust user=nobody cash=5 {ONCE} \
-> duplicate_client_request_id client_request_id
        op admin settle symbol=BOND price=0 {ONCE} \
-> duplicate_client_request_id client_request_id
        """)


def test_ids_are_remembered_over_a_reset_and_the_oldest_is_forgotten() -> None:
    engine = play(f"""
        given op admin reset {ONCE}
        op admin reset {ONCE} \
-> duplicate_client_request_id client_request_id
        """)
    for number in range(2, ADMIN_REQUESTS_REMEMBERED + 1):
        act(engine, f"op admin message message=m client_request_id=r-{number}")
    again = Admin(action="reset", reason="why", client_request_id="r-1")
    assert refuse(engine, again, "op").code == "duplicate_client_request_id"
    act(engine, "op admin message message=m client_request_id=last")
    assert len(engine.accounts["op"].admin_requests) == (
        accounts.ADMIN_REQUESTS_REMEMBERED
    )
    play(f"op admin reset {ONCE} -> ok", engine)
    assert engine.round == 3
