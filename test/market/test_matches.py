"""The match that an exchange is used for: who sets it, who is due in it."""

from __future__ import annotations

from dataclasses import replace

from exchange.market.accounts import AccountLimits
from exchange.market.engine import Engine
from orderbook import Admin, MatchInfo
from test.script import apply, listed, play, reconfigure

FIRST = MatchInfo(name="A/01", round="A", teams=("ann", "bob"))


def ranked(engine: Engine) -> list[tuple[str, int]]:
    return [(row["user"], row["equity"]) for row in engine.leaderboard()]


def set_match(engine: Engine, *teams: str) -> None:
    apply(
        engine,
        Admin(action="match", reason="r", name="x", teams=teams or None),
        "op",
    )


def test_a_match_is_told_to_everybody() -> None:
    engine = play("""
        op admin match name=A/01
            op ok
            * match A/01
            * status match A/01: why
        op admin match name=A/02 round=A
            op ok
            * match A/02 A
            * status match A/02: why
        """)
    assert engine.match == MatchInfo(name="A/02", round="A")


def test_a_match_outlives_a_reset_and_a_restart() -> None:
    engine = listed("BOND")
    set_match(engine, "ann")
    play("given op admin reset\ngiven restart", engine)
    assert engine.match == MatchInfo(name="x", teams=("ann",))


def test_teams_that_are_due_are_ranked_from_the_start() -> None:
    engine = listed("BOND", limits=AccountLimits(cash=100))
    set_match(engine, "ann", "bob")
    assert ranked(engine) == [("ann", 100), ("bob", 100)]
    play("given cat sell 2@5\ngiven ann buy 1@5\ngiven dan buy 1@5", engine)
    assert ranked(engine) == [
        *[("ann", 100), ("bob", 100), ("cat", 100), ("dan", 100)],
    ]
    set_match(engine, "eve")
    play("given op admin reset", engine)
    assert ranked(engine) == [("eve", 100)]
    assert "eve" not in engine.accounts


def test_a_name_that_is_due_is_ranked_only_as_a_trader() -> None:
    engine = listed("BOND")
    set_match(engine, "ann", "mm", "wall", "boss")
    play(
        """
        given mm connect house
        given wall connect spectator
        given boss connect admin
        """,
        engine,
    )
    assert ranked(engine) == [("ann", 0)]


def test_another_match_of_the_configuration_replaces_one_that_was_set() -> (
    None
):
    engine = listed("BOND")
    assert engine.match is None
    reconfigure(engine, match=FIRST)
    assert engine.match == FIRST
    set_match(engine, "ann")
    reconfigure(engine, limits=AccountLimits(cash=5), match=FIRST)
    assert engine.match == MatchInfo(name="x", teams=("ann",))
    other = replace(FIRST, name="A/02")
    reconfigure(engine, match=other)
    assert engine.match == other
    reconfigure(engine, match=None)
    assert engine.match is None
