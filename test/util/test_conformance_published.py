"""A hundredth of ``python -m util.measure.conformance``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from util.measure import conformance, rulebook
from util.measure.conformance import faults_of, main, play, run_workloads
from util.measure.rulebook import RULEBOOK, Case, cases
from util.measure.twin import Twins
from util.measure.workloads import draw, generator

CASES = cases()
DRAWS = draw(10_000)
MESSAGES = 19_957
# The reports and their SHA-256 for workloads of 10,000 new orders, not of a
# million. The generator and the book that make them also make the published
# ones; docs/CONFORMANCE.md says where those come from.
REPORTS = {
    "normal": (
        21_838,
        "fb91d8c1ab5f656eb9a7eed8f7c109c455e57fe75e4f35684b1a0bf60c30a0a8",
    ),
    "static": (
        21_461,
        "691da9e9391d3a5046b3acf2a9d586e5aef5a75c9b8747edc67858cbe490cfa6",
    ),
    "swing-25": (
        21_908,
        "f5953bfe67337ad35e56cfabd5ef52ba13bbcbce60d1a42906da9a7b2f0c4a77",
    ),
    "swing-40": (
        21_930,
        "16d3031a85c771c5856d55b6011e82ae123ba63cd8408b00308b82cba3cbfb3c",
    ),
    "flash-crash": (
        21_970,
        "36586bbf9bf2dfc8f736a052c2afab39bb6b672e7b863197315c78a9a844a441",
    ),
}


def title(case: Case) -> str:
    return f"{case.number} {case.title}"


# The cases


@pytest.mark.parametrize("case", CASES, ids=title)
def test_book_and_engine_keep_to_the_rule_book(case: Case) -> None:
    assert list(faults_of(case)) == []


def test_the_rule_book_has_all_cases() -> None:
    assert [case.number for case in CASES] == list(range(1, 35))


# The naive book sorts all its orders after each message: no thousands.
@pytest.mark.parametrize(
    "case", [case for case in CASES if len(case.steps) < 100], ids=title
)
def test_a_naive_book_shows_the_same_after_each_message(case: Case) -> None:
    twins = Twins()
    numbers: dict[int, int] = {}  # of the twins, by order id
    for kind, side, order_id, price, qty, is_ioc in case.messages:
        number = numbers.get(order_id, 0)
        if kind == "new":
            fields = {
                "account": side,
                "side": side,
                "qty": qty,
                "price": price,
                "order_type": "limit",
                "time_in_force": "ioc" if is_ioc else "gtc",
                "post_only": False,
                "stp": "cancel_oldest",
            }
            twins.run(("place", fields))
            numbers[order_id] = twins.last_id
        elif kind == "cancel":
            canceled = {"order_id": number, "status": "canceled"}
            twins.run(("cancel", canceled))
        else:
            order = twins.book.orders.get(number)
            total = qty + order.cum_qty if order else qty
            amended = {"order_id": number, "price": price, "qty": total}
            twins.run(("amend", amended))
    assert rulebook.depth(twins.book) == case.left


# The workloads


@pytest.mark.parametrize("name", REPORTS)
def test_book_and_engine_report_what_is_published(name: str) -> None:
    for result in play(name, DRAWS).values():
        assert result.messages == MESSAGES
        assert (result.reports, result.sha256) == REPORTS[name]


def test_every_published_workload_is_played() -> None:
    assert REPORTS.keys() == conformance.PUBLISHED.keys()


def test_the_generator_draws_what_the_standard_of_cpp_says() -> None:
    """ISO C++ names the 10,000th word after the seed 5489."""
    made = generator(5489)
    words = [made.getrandbits(32) for _ in range(10_000)]
    assert words[-1] == 4_123_659_995


# The tool


def test_a_difference_is_named() -> None:
    case = replace(CASES[6], left=((), ((100, 10),)))
    assert list(faults_of(case)) == [
        f"{name} has (((100, 10),), ()) left, not ((), ((100, 10),))"
        for name in ("book", "engine")
    ]


def test_the_tool_fails_if_a_workload_differs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the published ones do from those of this test."""
    assert run_workloads(["static"], DRAWS) == 1
    _, line = capsys.readouterr().out.splitlines()
    _, sha256 = REPORTS["static"]
    assert line.startswith("static ")
    assert line.endswith(f"book DIFFERS: {sha256}; engine DIFFERS: {sha256}")


def test_the_tool_prints_a_line_for_each_case(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--only", "edge-cases"]) == 0
    *lines, verdict = capsys.readouterr().out.splitlines()
    assert lines == [f"{c.number:>2}. {c.title}: equal" for c in CASES]
    assert verdict == "all equal"


def test_the_tool_fails_if_a_case_differs(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with a rule book in which the newest order trades first."""
    wrong = tmp_path / "rulebook.txt"
    text = RULEBOOK.read_text("utf-8")
    rule = "sell 3 10@100 -> 10@100 with 1\n"
    assert text.count(rule) == 1
    wrong.write_text(text.replace(rule, rule.replace("th 1", "th 2")), "utf-8")
    monkeypatch.setattr(rulebook, "RULEBOOK", wrong)
    assert main(["--only", "edge-cases"]) == 1
    lines = capsys.readouterr().out.splitlines()
    differ = [line for line in lines if not line.endswith(": equal")]
    assert differ[0].startswith(" 7. The oldest order at a price trades first")
    assert "book reports ['0,0,0,1,100,10'" in differ[0]
    assert differ[1:] == ["1 of them differ"]
