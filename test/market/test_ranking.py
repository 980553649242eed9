"""The leaderboard: who is ranked, in which order; what roles may do."""

from __future__ import annotations

from exchange.market.engine import Engine
from test.script import act, listed, listing, play


def ranking(engine: Engine) -> list[tuple[int, str, int]]:
    """Return rank, user and equity of each row of the leaderboard."""
    return [
        (row["rank"], row["user"], row["equity"])
        for row in engine.leaderboard()
    ]


def ranked(engine: Engine) -> list[str]:
    return [user for _, user, _ in ranking(engine)]


def test_the_richest_come_first_and_equals_share_a_rank() -> None:
    engine = play("""
        given ann sell 3@100
        given bob buy 1@100
        given cat buy 1@100
        given eve buy 1@100
        given dan buy 5@105
        given eve sell 1@105
        given ann sell 5@110
        """)
    assert ranking(engine) == [
        (1, "bob", 5),
        (1, "cat", 5),
        (1, "eve", 5),
        (4, "dan", 0),
        (5, "ann", -15),
    ]
    assert engine.leaderboard()[4] == {
        "rank": 5,
        "user": "ann",
        "equity": -15,
        "cash": 300,
        "positions": {"BOND": -3},
    }


def test_a_row_is_not_the_account_itself() -> None:
    engine = play("given ann sell 1@100\ngiven bob buy 1@100")
    rows = engine.leaderboard()
    play("given ann buy 1@100\ngiven bob sell 1@100", engine)
    assert rows[0]["positions"] == {"BOND": -1}


def test_only_who_has_traded_in_the_round_is_ranked() -> None:
    engine = play("""
        given zoe connect
        given cat buy 5@90
        given ann sell 1@100
        given bob buy 1@100
        given bob sell 1@100
        given ann buy 1@100
        """)
    assert ranked(engine) == ["ann", "bob"]
    play("given op admin reset", engine)
    assert ranked(engine) == []
    play("given cat buy 1@100\ngiven zoe sell 1@100", engine)
    assert ranked(engine) == ["cat", "zoe"]


def test_only_traders_are_ranked() -> None:
    engine = play("""
        given ann connect
        given maker connect house
        given boss connect admin
        given boss buy 3@100
        given ann sell 1@100
        given maker sell 1@100
        given eve sell 1@100
        given eve connect spectator
        """)
    assert ranked(engine) == ["ann"]


def test_the_exchange_itself_is_not_ranked() -> None:
    engine = play("""
        given ann connect
        given op admin adjust user=ann symbol=BOND qty=5
        """)
    assert ranked(engine) == ["ann"]


def test_the_role_is_that_of_the_last_login() -> None:
    engine = play("""
        given maker connect house
        given maker sell 1@100
        given ann buy 1@100
        """)
    assert ranked(engine) == ["ann"]
    act(engine, "maker connect")
    assert ranked(engine) == ["ann", "maker"]


def test_a_house_account_trades_like_any_other() -> None:
    play("""
        given maker connect house
        maker sell 2@100
            maker 1 new 1 new 0/2
            * book BOND 1 | 100=2
        ann buy 1@100
            ann 1 new 2 new 0/1
            ann 2 trade 2 filled 1/1 1@100 taker #1
            maker 2 trade 1 partially_filled 1/2 1@100 maker #1
            ann 3 account -100 BOND=1 worth 0
            maker 3 account 100 BOND=-1 worth 0
            * trade BOND 2 #1 1@100 buy
            * book BOND 2 | 100=1
        """)


def test_a_spectator_may_only_cancel() -> None:
    engine = listed(listing("BOND"), listing("ETF"))
    act(
        engine,
        "op admin tender tender_id=t-1 symbol=ETF side=buy qty=5 price=99"
        " valid_ms=60000",
    )
    play(
        """
        given eve connect keep
        given eve buy 5@90 symbol=BOND as=old
        given eve connect spectator keep
        eve buy 1@90 symbol=ETF -> forbidden
        eve sell 1@market symbol=ETF -> forbidden
        eve amend 1 qty=4 -> forbidden
        eve convert buy 1 symbol=ETF -> forbidden
        eve accept t-1 -> forbidden
        eve cancel 1
            eve 2 canceled 1 canceled 0/5 user
            * book BOND 2 90=0 |
        """,
        engine,
    )


def test_a_repeated_order_of_a_spectator_is_a_duplicate() -> None:
    """It was accepted while the account was a trader's."""
    play("""
        given eve connect keep
        given eve buy 5@90 as=old
        given eve connect spectator keep
        eve buy 5@90 as=old -> duplicate_client_order_id client_order_id
        """)
