"""The benchmark measures each case; no test depends on a rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from exchange.market.engine import Engine
from test.support import ROOT
from util.measure import core
from util.measure.bench import (
    ECHO,
    HERE,
    IS_RATE,
    RAW,
    Case,
    Contender,
    Row,
    latency,
    main,
    measured,
    recorded,
    recovery,
    to_readers,
    under_load,
)
from util.measure.drive import Counter, Load, Reader

MOMENT_S = 0.1


def test_replies_are_counted_however_they_are_cut() -> None:
    client = Counter("bot")
    client.read(b'{"type":"welcome","i', 0.0)
    assert not client.is_ready
    client.read(b'd":0}', 0.0)
    assert client.is_ready and client.replies == 0
    client.measured_from = 2.0
    asked = [client.request(due) for due in (0.0, 0.5, 1.0)]
    assert len(set(asked)) == 3
    client.read(b'{"id":1}', 1.0)
    client.read(b'{"order_id":7,"id":2}{"i', 2.0)
    client.read(b'd":3}', 3.0)
    assert client.replies == 2 and not client.unanswered
    assert client.latency.max_us == 2_000_000


def test_updates_are_counted() -> None:
    reader = Reader("")
    reader.read(b'{"type":"ok","id":0}', 0.0)
    assert not reader.is_ready
    reader.read(b'{"type":"book"}{"type":"boo', 0.0)
    reader.read(b'k"}', 0.0)
    assert reader.is_ready and reader.replies == 2


@pytest.mark.parametrize(
    "unit, ours, theirs, ratio",
    [
        ("orders/s", [30.0, 10.0], [10.0, 10.0], "2.00x (1.00-3.00)"),
        ("ms of p99", [5.0, 5.0], [10.0, 20.0], "3.00x (2.00-4.00)"),
    ],
)
def test_a_ratio_above_1_is_better(
    unit: str, ours: list[float], theirs: list[float], ratio: str
) -> None:
    case = Case("x", latency, ECHO, "0.8x")
    cells = Row(case, unit, ECHO, ours, theirs).cells()
    assert cells[3:] == [ratio, "0.8x"]
    other = Contender("other", "/elsewhere")
    assert Row(case, unit, other, ours, theirs).cells()[4] == ""


@pytest.mark.parametrize("rival", [HERE, ECHO])
def test_orders_cost_something(rival: Contender) -> None:
    rows = measured(
        Case("x", lambda *side: under_load(Load(2, 4, 5), *side), rival),
        *(Contender("other", rival.folder, rival.program), 1, MOMENT_S),
    )
    assert [row.unit for row in rows] == ["orders/s", "us of CPU per order"]
    for row in rows:
        assert min(*row.ours, *row.theirs) > 0
        assert len(row.ours) == len(row.theirs) == 1


def test_orders_that_come_at_a_rate_are_waited_for() -> None:
    assert latency(HERE, MOMENT_S)["ms of p99"] > 0


@pytest.mark.parametrize("side", [HERE, RAW])
def test_readers_cost_something(side: Contender) -> None:
    assert to_readers(3, side, MOMENT_S)["us of CPU per update"] > 0


def test_a_journal_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("util.measure.bench.RECORDED_S", MOMENT_S)
    found = recovery(str(tmp_path), HERE, HERE, MOMENT_S)
    # A difference of two starts: so short a journal may cost less than
    # the starts differ by, so its sign says nothing.
    assert set(found) == {"us of CPU per command"}
    path, commands = recorded(str(tmp_path), HERE)
    assert path.exists() and commands > 0


def test_a_checkout_is_measured_beside_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--against", str(ROOT), "--only", "orders, 1 x 32"]
    words += ["--rounds", "1", "--seconds", str(MOMENT_S)]
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 6
    assert printed[0].startswith("Python 3.")
    for line, unit in zip(printed[4:], IS_RATE):
        assert line.startswith(f"| orders, 1 x 32: {unit} |")
        assert f"({ROOT})" in line


def test_the_core_finds_the_engine_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(core, "OPERATIONS", 500)
    assert core.definition("Engine") is Engine
    with pytest.raises(LookupError):
        core.definition("Steam")
    assert core.engine_rate() > 0
    assert core.book_rate(10) > 0
