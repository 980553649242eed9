"""Scores: the built-in rules by worked examples, and rules of one's own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from util.event.scoring import (
    Matches,
    Result,
    RuleError,
    decimals,
)
from util.event.scoring import drawdown as drawdown_rule
from util.event.scoring import drawdown_of, load_rule
from util.event.scoring import pnl as pnl_rule
from util.event.scoring import (
    points_of,
    rank_squared,
    rank_weighted,
    ranks,
    total,
)

HALF = Fraction(1, 2)


def result(team: str, pnl: int, **other: Any) -> Result:
    """Return a result with this P&L."""
    fields: dict[str, Any] = {
        "rank": 1,
        "drawdown": 0,
        "volume": 0,
        "fees": 0,
        "blown_out": False,
        "connected": True,
        "equity": (0, pnl),
    }
    return Result(team=team, pnl=pnl, **(fields | other))


def of_equity(team: str, *equity: int, **other: Any) -> Result:
    """Return a result with this equity, second by second."""
    return result(
        team,
        equity[-1] - equity[0],
        equity=equity,
        drawdown=drawdown_of(equity),
        **other,
    )


def match(**pnl: int) -> list[Result]:
    """Return the results of a match, ranked."""
    return [
        result(team, pnl[team], rank=rank) for team, rank in ranks(pnl).items()
    ]


def alone(*pnl: int) -> Matches:
    """Return matches with these results of one team."""
    return [[result("A", value)] for value in pnl]


def test_pnl_is_added_up() -> None:
    assert pnl_rule(alone(30, 100, -21), {}) == {"A": 109}


@pytest.mark.parametrize(
    "pnl, points",
    [
        ((30, 100, -21), 97),
        ((-5,), -5),
        ((-5, -5), -15),
        ((10, 10, 10), 60),
        ((), None),
    ],
)
def test_rank_weighted(pnl: tuple[int, ...], points: int | None) -> None:
    assert rank_weighted(alone(*pnl), {}).get("A") == points


def test_rank_squared() -> None:
    first = match(A=500, B=120, C=120, D=-40)
    assert [r.rank for r in first] == [1, 2, 2, 4]
    assert rank_squared([first], {}) == {"A": 0, "B": -1, "C": -1, "D": -9}
    second = match(B=50, C=20, D=0, A=-10)
    assert rank_squared([second], {}) == {"A": -9, "B": 0, "C": -1, "D": -4}
    both = rank_squared([first, second], {})
    assert both == {"B": -1, "C": -2, "A": -9, "D": -13}


@pytest.mark.parametrize(
    "equity, pnl, fall, points",
    [((0, 40, 10, 60, 30), 30, 30, 15), ((0, -10, -4, 20), 20, 10, 15)],
)
def test_drawdown(
    equity: tuple[int, ...], pnl: int, fall: int, points: int
) -> None:
    one = of_equity("A", *equity)
    assert (one.pnl, one.drawdown) == (pnl, fall)
    assert drawdown_rule([[one]], {}) == {"A": points}


@pytest.mark.parametrize(
    "k, points",
    [(0, 30), (1, 0), ("1/3", 20), ("0.1", 27), (0.1, 27), (2, -30)],
)
def test_the_k_of_drawdown_is_exact(k: object, points: int) -> None:
    one = of_equity("A", 0, 40, 10, 60, 30)
    assert drawdown_rule([[one]], {"k": k}) == {"A": points}


@pytest.mark.parametrize("k", ["x", "1/0", True, [1]])
def test_a_k_that_is_no_number_is_refused(k: object) -> None:
    with pytest.raises(RuleError, match="k is no number"):
        drawdown_rule(alone(1), {"k": k})


def test_who_never_connected_is_last() -> None:
    lost = of_equity("A", 0, -10)
    won = of_equity("B", 0, 10)
    absent = of_equity("C", 0, 0, connected=False, rank=3)
    matches = [[lost, won, absent]]
    assert drawdown_rule(matches, {}) == {"A": -15, "B": 10, "C": -15}
    assert rank_squared(matches, {})["C"] == -4
    assert pnl_rule(matches, {})["C"] == rank_weighted(matches, {})["C"] == 0


def test_a_team_without_results_has_no_points() -> None:
    points = points_of("pnl", pnl_rule, alone(30), {}, ["A", "B"])
    assert points == {"A": 30, "B": 0}


def test_equals_share_the_better_rank() -> None:
    assert ranks({"a": 1, "b": 3, "c": 3, "d": 0}) == {
        "a": 3,
        "b": 1,
        "c": 1,
        "d": 4,
    }
    assert ranks({}) == {}


def test_the_total_of_an_event() -> None:
    points = [(10, 100), (30, -50), (60, 20)]
    assert total([(w, Fraction(p)) for w, p in points]) == 7
    assert total([]) == 0


@pytest.mark.parametrize(
    "value, text",
    [
        (Fraction(7), "7.00"),
        (Fraction(-1, 3), "-0.33"),
        (Fraction(1, 200), "0.01"),
        (Fraction(-1, 200), "-0.01"),
        (Fraction(-1, 300), "0.00"),
        (Fraction(2, 3), "0.67"),
        (Fraction(-12345, 10), "-1234.50"),
    ],
)
def test_points_are_shown_with_two_decimals(
    value: Fraction, text: str
) -> None:
    assert decimals(value) == text


# Rules of one's own -------------------------------------------------------

EVENTS = Path(__file__).parents[3] / "examples" / "events"


def test_the_sharpe_ratio_of_the_examples() -> None:
    rule = load_rule("sharpe:points", EVENTS)
    matches = [[of_equity("A", 0, 1, 4, 6), of_equity("B", 5, 5, 5)]]
    points = points_of("sharpe:points", rule, matches, {}, ["A", "B", "C"])
    assert abs(points["A"] - Fraction("2.4494897")) < Fraction(1, 10**7)
    assert points["B"] == points["C"] == 0


@pytest.mark.parametrize(
    "name, text, why",
    [
        ("own_a:points", None, "ModuleNotFoundError: No module named 'own_a'"),
        ("own_b:points", "x = 1", "AttributeError: module 'own_b' has no"),
        ("own_c:points", "def points(", "SyntaxError"),
        ("own_d:points", "points = 1", "is not a function"),
        ("own_e:points", "1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_rule_that_cannot_be_loaded_is_named(
    tmp_path: Path, name: str, text: str | None, why: str
) -> None:
    if text is not None:
        (tmp_path / f"{name[:5]}.py").write_text(text)
    with pytest.raises(RuleError) as caught:
        load_rule(name, tmp_path)
    assert str(caught.value).startswith(f"{name}: {why}")


def test_a_rule_that_fails_is_named(tmp_path: Path) -> None:
    def points(matches: Matches, options: dict[str, Any]) -> Any:
        return {"A": options["value"]}

    def given(options: dict[str, Any]) -> dict[str, Fraction]:
        return points_of("m:points", points, [], options, ["A"])

    assert given({"value": 0.5}) == {"A": HALF}
    for options, why in (
        ({}, "KeyError: 'value'"),
        ({"value": "x"}, "ValueError"),
        ({"value": None}, "TypeError"),
        ({"value": float("nan")}, "ValueError"),
    ):
        with pytest.raises(RuleError, match=f"m:points: {why}"):
            given(options)
