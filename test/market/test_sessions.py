"""What the end of a connection does to its orders."""

from __future__ import annotations

import pytest

from test.script import play


def test_orders_of_a_session_die_with_its_connection() -> None:
    play("""
        ann/a connect
        ann/b connect
        given ann/a buy 1@99
        given ann/b buy 1@98
        given ann/a sell 1@101
        given bob/a buy 1@97
        ann/a disconnect
            ann 4 canceled 1 canceled 0/1 disconnect
            ann 5 canceled 3 canceled 0/1 disconnect
            * book BOND 5 99=0 | 101=0
        ann/a disconnect
        """)


def test_orders_stay_if_the_session_asked_for_it() -> None:
    engine = play("""
        ann connect keep
        given ann buy 1@99
        ann disconnect
        """)
    assert engine.listings["BOND"].book.best("buy") == (99, 1)


def test_a_session_that_is_taken_over_keeps_its_orders() -> None:
    play("""
        ann connect
        given ann buy 1@99
        ann connect
        given ann buy 1@98
        ann disconnect
            ann 3 canceled 1 canceled 0/1 disconnect
            ann 4 canceled 2 canceled 0/1 disconnect
            * book BOND 3 99=0 98=0 |
        """)


@pytest.mark.parametrize(
    "first, second, stays", [("", "keep", True), ("keep", "", False)]
)
def test_the_last_login_of_a_session_decides(
    first: str, second: str, stays: bool
) -> None:
    engine = play(f"""
        ann connect {first}
        given ann buy 1@99
        ann connect {second}
        given ann disconnect
        """)
    assert (engine.listings["BOND"].book.best("buy") is not None) == stays


def test_a_session_can_come_back_after_its_connection_ended() -> None:
    play("""
        ann connect keep
        given ann buy 1@99
        ann disconnect
        ann connect
        ann disconnect
            ann 2 canceled 1 canceled 0/1 disconnect
            * book BOND 2 99=0 |
        """)


def test_an_amended_order_stays_with_the_session_it_was_placed_in() -> None:
    play("""
        ann/a connect
        ann/b connect
        given ann/a buy 1@99
        given ann/b amend 1 price=98
        ann/b disconnect
        ann/a disconnect
            ann 3 canceled 1 canceled 0/1 disconnect
            * book BOND 3 98=0 |
        """)


def test_a_shutdown_ends_every_connection() -> None:
    play("""
        ann/a connect
        bob/a connect keep
        cat/a connect
        given ann/a buy 1@99
        given bob/a buy 1@98
        given cat/a buy 1@97
        given ann/a sell 1@101
        ann/b connect
        given ann/b sell 1@102
        shutdown
            ann 4 canceled 1 canceled 0/1 disconnect
            cat 2 canceled 3 canceled 0/1 disconnect
            ann 5 canceled 4 canceled 0/1 disconnect
            ann 6 canceled 5 canceled 0/1 disconnect
            * book BOND 6 99=0 97=0 | 101=0 102=0
        shutdown
        ann/a disconnect
        """)
