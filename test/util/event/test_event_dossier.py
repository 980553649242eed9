"""Results and dossiers: what the files say, and that nothing contradicts."""

from __future__ import annotations

import csv
import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from orderbook import Admin
from test.util.event.days import (
    CONNECT,
    EVENT,
    ROUND_A,
    SECOND_US,
    START_TS,
    TEAMS,
    Day,
    played,
)
from test.util.event.files import MARKET
from util.event import dossier
from util.event.__main__ import main
from util.event.dossier import write_dossiers
from util.event.fair import read_paths
from util.event.figures import ResultError
from util.event.record import Key, Record
from util.event.scoring import Result

CALM = EVENT.replace("sigma = 3", "sigma = 0").replace(
    "sigma = 1", "sigma = 0"
)
FEES = MARKET.replace(
    "max_price = 100000\nmax_qty", "maker_fee = -1\ntaker_fee = 3\nmax_qty"
)
MONEY = '[money]\nunit = "0.01"\ncurrency = "USD"\n' + FEES.replace(
    "[instruments.BOND]", "[instruments.BOND]\nmultiplier = 3"
)


def rows(day: Day, table: str, team: str = "ORANGE", name: str = "A") -> Any:
    """Return a table of a team, or a public one, as dictionaries."""
    path = day.event.folder / name / "all" / team / f"{table}.csv"
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(day: Day, table: str, name: str, team: str = "ORANGE") -> list[str]:
    return [row[name] for row in rows(day, table, team)]


def summary(day: Day, team: str, name: str = "A") -> Any:
    path = day.event.folder / name / "all" / team / "summary.json"
    return json.loads(path.read_text("utf-8"))


def content(folder: Path) -> dict[str, bytes]:
    """Return all files of dossiers."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def written(day: Day, name: str = "A") -> dict[str, Result]:
    day.save()
    results = write_dossiers(day.event, name, "all")
    return {result.team: result for result in results}


def a_round(folder: Path, script: str, **other: str) -> Day:
    """Return an event after a round A of this script."""
    day = Day(folder, **other)
    day.round("A", script, CONNECT)
    return day


# The files ----------------------------------------------------------------


def test_executions_are_all_reports_of_a_team(tmp_path: Path) -> None:
    day = played(tmp_path)
    written(day)
    found = [
        (r["t_ms"], r["exec_type"], r["order_id"], r["cum_qty"], r["reason"])
        for r in rows(day, "executions")
    ]
    assert found == [
        ("1000", "new", "1", "0", ""),
        ("2000", "new", "2", "0", ""),
        ("3000", "trade", "2", "4", ""),
        ("4000", "trade", "1", "2", ""),
        ("20000", "canceled", "1", "2", "user"),
        ("60000", "canceled", "2", "4", "closed"),
    ]
    first = rows(day, "executions")[0]
    assert first["ts"] == str(START_TS + SECOND_US)
    assert first["client_order_id"] == "o-1"


def test_fills_have_position_cash_edge_and_middles(tmp_path: Path) -> None:
    day = played(tmp_path)
    written(day)
    sold, bought = rows(day, "fills")
    assert (sold["side"], sold["qty"], sold["price"]) == ("sell", "4", "1005")
    assert (sold["position"], sold["cash"]) == ("-4", "4020")
    assert (sold["fair"], sold["edge"]) == ("1000", "20")
    assert (bought["position"], bought["cash"]) == ("-2", "2030")
    assert bought["edge"] == "10"
    assert column(day, "fills", "edge", "APPLE") == ["-20", "-10"]


def test_middles_are_those_of_their_moments(tmp_path: Path) -> None:
    """Also while a side is empty, between ticks, and after the close."""
    day = a_round(
        tmp_path,
        """
        0.5 LEMON buy 1@980 symbol=BOND
        0.6 LEMON sell 1@1010 symbol=BOND
        1 ORANGE sell 2@1001 symbol=BOND
        2 APPLE buy 1@1001 symbol=BOND
        3 LEMON cancel 1
        7 LEMON buy 1@970 symbol=BOND
        32 LEMON cancel_all
        40 APPLE buy 1@1001 symbol=BOND
        """,
    )
    written(day)
    names = ("mid", "mid_1s", "mid_5s", "mid_30s")
    first, second = (
        tuple(row[name] for name in names) for row in rows(day, "fills")
    )
    # A command of the very moment counts: at 3 s the bid is gone, at 7 s it
    # is back, at 32 s all is gone.
    assert first == ("990.5", "", "985.5", "")
    assert second == ("", "", "", "")


def test_a_halted_market_has_no_middle(tmp_path: Path) -> None:
    """Its orders stay, and after the halt it has one again."""
    day = a_round(
        tmp_path,
        """
        0.5 LEMON buy 1@980 symbol=BOND
        1 ORANGE sell 2@1001 symbol=BOND
        2 APPLE buy 1@1001 symbol=BOND
        2.5 director admin phase halted
        6.5 director admin phase open
        """,
    )
    written(day)
    [fill] = rows(day, "fills")
    assert (fill["mid_1s"], fill["mid_5s"]) == ("", "990.5")


def test_equity_has_a_row_each_second_and_the_end(tmp_path: Path) -> None:
    day = played(tmp_path)
    results = written(day)
    table = rows(day, "equity", "APPLE")
    assert [int(row["t_ms"]) for row in table] == [*range(0, 60_001, 1_000)]
    # What happens at a second counts from the next one on.
    assert (table[3]["cash"], table[4]["cash"]) == ("0", "-4020")
    assert (table[4]["position_BOND"], table[5]["position_BOND"]) == ("4", "2")
    assert (table[5]["cash"], table[5]["equity_fair"]) == ("-2030", "-30")
    assert (table[5]["equity_mark"], table[5]["drawdown"]) == ("-40", "30")
    assert table[-1]["position_BOND"] == "0"
    assert table[-1]["cash"] == table[-1]["equity_fair"] == "-30"
    assert results["APPLE"].equity == tuple(
        int(row["equity_fair"]) for row in table
    )
    assert results["APPLE"].drawdown == 30


def test_refusals_and_conversions(tmp_path: Path) -> None:
    day = played(tmp_path)
    written(day)
    [refused] = rows(day, "refused", "APPLE")
    assert refused["t_ms"] == "3500" and refused["request"] == "place"
    assert (refused["code"], refused["field"]) == ("invalid_qty", "qty")
    assert "500 is above the maximum of 100" in refused["message"]
    [made] = rows(day, "conversions", "LEMON")
    fair = day.fair.prices(10_250)
    basket = 10 * (3 * fair["BOND"] + 2 * fair["GS"] + 5 * fair["MS"])
    assert made["basket_at_fair"] == str(basket)
    assert (made["qty"], made["fee"], made["gain"]) == ("10", "100", "-100")


def test_the_gain_of_a_conversion_is_at_fair_value(tmp_path: Path) -> None:
    """A basket for several lots is rounded down; taking it apart gains."""
    market = MARKET.replace("lot = 10", "lot = 10\nper = 10")
    day = a_round(
        tmp_path,
        """
        5 LEMON convert sell 20 symbol=XLF
        5 PLUM convert buy 20 symbol=XLF
        """,
        market=market,
    )
    written(day)
    fair = day.fair.prices(5_000)
    basket = 2 * (3 * fair["BOND"] + 2 * fair["GS"] + 5 * fair["MS"])
    lots = 20 * fair["XLF"]
    [sold], [bought] = (rows(day, "conversions", t) for t in ("LEMON", "PLUM"))
    assert sold["basket_at_fair"] == bought["basket_at_fair"] == str(basket)
    assert int(sold["gain"]) == basket - lots - 100
    assert int(bought["gain"]) == lots - basket - 100


def test_public_files(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.begin("A")
    day.say(CONNECT)
    day.open()
    day.say(ROUND_A)
    news = Admin(action="news", reason="x", headline='A "b", c', symbol="GS")
    day.admin(30, news)
    day.end("A")
    written(day)
    trades = rows(day, "trades", "public")
    assert [(t["trade_id"], t["price"], t["side"]) for t in trades] == [
        ("1", "1005", "buy"),
        ("2", "995", "sell"),
    ]
    book = rows(day, "book", "public")
    assert [b["t_ms"] for b in book] == [
        *("1000", "2000", "3000", "4000", "20000", "60000"),
    ]
    assert (book[3]["bid_1"], book[3]["bid_qty_1"]) == ("995", "8")
    assert (book[3]["ask_1"], book[3]["ask_qty_1"]) == ("1005", "6")
    assert book[5]["bid_1"] == book[5]["ask_1"] == ""
    [line] = rows(day, "news", "public")
    assert (line["t_ms"], line["headline"]) == ("30000", 'A "b", c')
    folder = day.event.folder / "A/all"
    text = (folder / "public/fair.csv").read_bytes()
    assert text == (folder / "fair.csv").read_bytes()
    result = json.loads((folder / "public/result.json").read_text())
    assert result["fair_sha256"] == sha256(text).hexdigest()
    assert result["opened_ts"] == START_TS
    assert [(r["rank"], r["team"]) for r in result["results"]] == [
        *((1, "ORANGE"), (2, "PLUM"), (3, "APPLE"), (4, "LEMON")),
    ]
    assert (folder / "public/market.toml").read_text() == MARKET


def test_a_book_has_five_levels(tmp_path: Path) -> None:
    orders = "\n".join(
        f"{n} ORANGE buy 1@{990 - n} symbol=BOND" for n in range(1, 8)
    )
    day = a_round(tmp_path, orders + "\n20 ORANGE cancel 1")
    written(day)
    book = rows(day, "book", "public")
    # The sixth and the seventh are worse than five others: no change.
    assert [row["t_ms"] for row in book] == [
        *("1000", "2000", "3000", "4000", "5000", "20000", "60000"),
    ]
    best = [book[5][f"bid_{level}"] for level in range(1, 6)]
    assert best == ["988", "987", "986", "985", "984"]


def test_the_lines_of_csv_end_as_its_standard_says(tmp_path: Path) -> None:
    day = played(tmp_path)
    written(day)
    folder = day.event.folder / "A/all"
    for path in folder.rglob("*.csv"):
        if path.name != "fair.csv":
            lines = path.read_bytes().split(b"\n")
            assert lines.pop() == b""
            assert all(line.endswith(b"\r") for line in lines), path


def test_summary(tmp_path: Path) -> None:
    day = played(tmp_path)
    written(day)
    found = summary(day, "ORANGE")
    assert (found["pnl"], found["rank"], found["score"]) == (30, 1, "30.00")
    assert (found["volume"], found["fills"], found["orders"]) == (6, 2, 2)
    assert found["maker_share"] == "1.0000" and found["edge_captured"] == 30
    assert found["largest_position"] == {"BOND": -4}
    assert found["cancels"] == 2 and found["refusals"] == {}
    assert found["connected_s"] == 60 and found["reconnects"] == 0
    apple = summary(day, "APPLE")
    assert apple["refusals"] == {"invalid_qty": 1}
    assert apple["maker_share"] == "0.0000"


# Connections --------------------------------------------------------------


def test_connections_are_counted_while_the_market_is_open(
    tmp_path: Path,
) -> None:
    event = EVENT.replace("[match]", "[match]\nno_show = -500")
    day = Day(tmp_path, event)
    before = "-30 ORANGE connect\n-20 ORANGE disconnect\n-5 APPLE connect"
    day.round(
        "A",
        """
        10 ORANGE connect
        15 APPLE disconnect
        20 ORANGE/b connect
        30 ORANGE disconnect
        40 ORANGE/b disconnect
        50 APPLE connect
        """,
        before + "\n-4 LEMON connect\n-3 LEMON disconnect",
    )
    results = written(day)
    orange, apple = summary(day, "ORANGE"), summary(day, "APPLE")
    assert (orange["connected_s"], orange["logins"]) == (30, 3)
    assert orange["reconnects"] == 2
    assert (apple["connected_s"], apple["reconnects"]) == (25, 1)
    # LEMON left before the opening, PLUM never came.
    assert [results[team].connected for team in TEAMS] == [
        *(True, True, False, False),
    ]
    assert results["LEMON"].pnl == results["PLUM"].pnl == -500
    assert [results[team].rank for team in TEAMS] == [1, 1, 3, 3]
    assert summary(day, "PLUM")["final_cash"] == 0


def test_whoever_never_came_is_behind_all_others(tmp_path: Path) -> None:
    script = "1 ORANGE buy 1@900 symbol=BOND\n2 APPLE sell 1@900 symbol=BOND"
    day = Day(tmp_path)
    day.round("A", script, "-3 ORANGE connect\n-3 APPLE connect")
    results = written(day)
    assert (results["APPLE"].pnl, results["APPLE"].rank) == (-100, 2)
    assert (results["PLUM"].pnl, results["PLUM"].rank) == (0, 3)


def test_connections_go_on_over_a_reset(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.round("A", "30 PLUM disconnect", CONNECT)
    day.round("B", "10 APPLE disconnect\n11 APPLE connect")
    written(day)
    results = written(day, "B")
    assert [results[team].connected for team in TEAMS] == [
        *(True, True, True, False),
    ]
    assert summary(day, "ORANGE", "B")["logins"] == 0
    assert summary(day, "ORANGE", "B")["connected_s"] == 60
    assert summary(day, "APPLE", "B")["reconnects"] == 1
    assert summary(day, "APPLE", "B")["connected_s"] == 59


# Time ---------------------------------------------------------------------


def test_an_outage_is_given_back(tmp_path: Path) -> None:
    """The exchange is away from 20 s to 27.5 s; trading ends at 67.5 s."""
    day = a_round(
        tmp_path,
        """
        10 ORANGE buy 5@995 symbol=BOND
        20 APPLE sell 1@995 symbol=BOND
        27.5 restart
        28 ORANGE connect
        30 ORANGE buy 5@996 symbol=BOND
        31 APPLE sell 1@996 symbol=BOND
        """,
    )
    written(day)
    table = rows(day, "equity")
    assert [int(row["t_ms"]) for row in table] == [*range(0, 60_001, 1_000)]
    assert column(day, "fills", "t_ms") == ["20000", "23500"]
    assert column(day, "fills", "ts") == [
        str(START_TS + second * SECOND_US) for second in (20, 31)
    ]
    reports = rows(day, "executions")
    assert reports[2]["reason"] == "disconnect"
    assert reports[2]["t_ms"] == "20000"
    assert summary(day, "ORANGE")["connected_s"] == 59
    assert summary(day, "ORANGE")["reconnects"] == 1


def test_time_stands_still_in_a_halt(tmp_path: Path) -> None:
    day = a_round(
        tmp_path,
        """
        10 director admin phase halted
        12 ORANGE buy 5@995 symbol=BOND
        25 director admin phase open
        26 ORANGE buy 5@995 symbol=BOND
        """,
    )
    written(day)
    table = rows(day, "equity")
    assert [int(row["t_ms"]) for row in table] == [*range(0, 60_001, 1_000)]
    assert column(day, "executions", "t_ms") == ["11000", "60000"]
    assert column(day, "refused", "t_ms") == ["10000"]
    assert summary(day, "ORANGE")["connected_s"] == 60


def test_the_time_of_one_halted_instrument_does_not_count_twice(
    tmp_path: Path,
) -> None:
    """The others go on, and it closes 15 s after them."""
    day = a_round(
        tmp_path,
        """
        10 director admin phase halted symbol=MS
        24 ORANGE buy 1@9 symbol=BOND
        25 director admin phase open symbol=MS
        26 ORANGE buy 1@9 symbol=BOND
        50 ORANGE buy 1@9 symbol=BOND
        70 ORANGE buy 1@9 symbol=MS
        """,
    )
    written(day)
    times = [int(t) for t in column(day, "executions", "t_ms")]
    assert times == [
        24_000,
        25_000,
        35_000,
        45_000,
        45_000,
        45_000,
        *times[6:],
    ]
    table = rows(day, "equity")
    assert [int(row["t_ms"]) for row in table] == [*range(0, 60_001, 1_000)]


def test_a_round_that_is_closed_early_ends_then(tmp_path: Path) -> None:
    day = a_round(tmp_path, "12.5 director admin phase closed")
    results = written(day)
    times = [int(t) for t in column(day, "equity", "t_ms")]
    assert times == [*range(0, 12_001, 1_000), 12_500]
    assert results["ORANGE"].equity == (0,) * 14


def test_before_the_opening_the_time_is_0(tmp_path: Path) -> None:
    day = Day(tmp_path)
    early = "-5 ORANGE buy 1@1 symbol=BOND"
    day.round("A", "", CONNECT + "\n" + early)
    written(day)
    assert column(day, "refused", "t_ms") == ["0"]
    assert column(day, "refused", "code") == ["market_closed"]


# Money --------------------------------------------------------------------


def test_a_blow_out_is_seen(tmp_path: Path) -> None:
    text = CALM.replace(
        "[match]", '[match]\nblow_out = { limit = -50, score = "limit" }'
    )
    script = """
    1 ORANGE buy 10@995 symbol=BOND
    2 APPLE sell 10@995 symbol=BOND
    30 director admin close_out user=APPLE prices=BOND:1000
    31 director admin close_out user=ORANGE prices=BOND:998
    32 APPLE buy 1@900 symbol=BOND
    """
    day = a_round(tmp_path, script, text=text)
    results = written(day)
    apple, orange = summary(day, "APPLE"), summary(day, "ORANGE")
    assert (apple["blown_out"], apple["blown_out_ms"]) == (True, 30_000)
    assert (apple["pnl"], apple["final_cash"]) == (-50, -50)
    # It ends above the limit, and gets the limit.
    assert (orange["pnl"], orange["final_cash"]) == (-50, 30)
    assert not results["PLUM"].blown_out
    assert apple["refusals"] == {"forbidden": 1}


def test_a_loss_beyond_the_limit_stays(tmp_path: Path) -> None:
    text = CALM.replace(
        "[match]", '[match]\nblow_out = { limit = -50, score = "limit" }'
    )
    script = """
    1 ORANGE buy 10@990 symbol=BOND
    2 APPLE sell 10@990 symbol=BOND
    30 director admin close_out user=APPLE prices=BOND:1000
    """
    day = a_round(tmp_path, script, text=text)
    assert written(day)["APPLE"].pnl == -100


def test_who_trades_with_oneself_makes_no_volume(tmp_path: Path) -> None:
    market = MARKET.replace(
        "[instruments.BOND]", "[instruments.BOND]\nself_trades = true"
    )
    script = """
    1 ORANGE sell 5@1000 symbol=BOND stp=none
    2 ORANGE buy 3@1000 symbol=BOND stp=none
    3 APPLE buy 2@1000 symbol=BOND
    """
    day = a_round(tmp_path, script, market=market)
    written(day)
    found = summary(day, "ORANGE")
    assert (found["fills"], found["volume"], found["pnl"]) == (3, 2, 0)


def test_an_undone_trade_makes_no_volume(tmp_path: Path) -> None:
    script = """
    1 ORANGE buy 10@995 symbol=BOND
    2 APPLE sell 10@995 symbol=BOND
    3 director bust 1 ORANGE 10@995 APPLE buy_fee=0
    """
    day = a_round(tmp_path, script)
    written(day)
    assert summary(day, "ORANGE")["volume"] == 0
    assert summary(day, "ORANGE")["pnl"] == 0


def random_script(seed: int, count: int = 400) -> str:
    """Return random requests of all teams around the hidden values."""
    chance = random.Random(seed)
    middle = {"BOND": 1000, "GS": 4200, "MS": 3000, "XLF": 26400, "CALL": 200}
    lines = []
    for number in range(count):
        time = f"{0.5 + 58 * number / count:.6f}"
        team, side = chance.choice(TEAMS), chance.choice(("buy", "sell"))
        symbol = chance.choice(list(middle))
        price = middle[symbol] + chance.randint(-8, 8)
        qty = chance.randint(1, 30)
        kind = chance.random()
        if kind < 0.8:
            lines.append(f"{time} {team} {side} {qty}@{price} symbol={symbol}")
        elif kind < 0.9:
            lines.append(f"{time} {team} convert {side} 10 symbol=XLF")
        else:
            lines.append(f"{time} {team} cancel_all")
    return "\n".join(lines)


@pytest.mark.parametrize("market", [MARKET, FEES, MONEY])
@pytest.mark.parametrize("seed", [1, 2])
def test_profit_is_edge_less_fees_while_values_stand_still(
    tmp_path: Path, seed: int, market: str
) -> None:
    """Everything that a team gains is in its tables, to the unit."""
    day = Day(tmp_path, CALM, market)
    assert not day.event.news
    day.round("A", random_script(seed), CONNECT)
    results = written(day)
    for team in TEAMS:
        found = summary(day, team)
        gains = sum(int(g) for g in column(day, "conversions", "gain", team))
        assert found["fills"] > 30
        assert found["pnl"] == found["edge_captured"] - found["fees"] + gains
        fills = rows(day, "fills", team)
        assert sum(int(f["edge"]) for f in fills) == found["edge_captured"]
        assert sum(int(f["fee"]) for f in fills) == found["fees"]
        assert sum(int(f["qty"]) for f in fills) == found["volume"]
    house = day.engine.accounts["@exchange"].cash
    assert sum(r.pnl for r in results.values()) == -house
    if market is MARKET:
        assert sum(r.volume for r in results.values()) % 2 == 0


def test_equity_is_cash_and_positions_at_fair_value(tmp_path: Path) -> None:
    day = a_round(tmp_path, random_script(3))
    written(day)
    fair = read_paths(day.event.folder / "A/all/fair.csv")
    for row in rows(day, "equity", "PLUM")[:-1]:
        t_ms = int(row["t_ms"])
        worth = sum(
            int(row[f"position_{symbol}"]) * fair.at(t_ms, symbol)
            for symbol in day.event.symbols
        )
        assert int(row["equity_fair"]) == int(row["cash"]) + worth


def test_a_debt_at_the_start_is_no_loss(tmp_path: Path) -> None:
    day = a_round(
        tmp_path,
        "1 ORANGE buy 2@990 symbol=BOND\n2 APPLE sell 2@990 symbol=BOND",
        text=CALM,
        market="[account]\ncash = -700\n" + MARKET,
    )
    results = written(day)
    assert [results[team].pnl for team in TEAMS] == [20, -20, 0, 0]
    assert [results[team].drawdown for team in TEAMS] == [0, 20, 0, 0]
    assert results["PLUM"].equity == (-700,) * 61


def test_dividends_and_tenders_are_profit(tmp_path: Path) -> None:
    day = Day(tmp_path, CALM)
    day.begin("A")
    day.say(CONNECT)
    day.open()
    tender = Admin(
        action="tender",
        reason="x",
        tender_id="t-1",
        symbol="MS",
        side="buy",
        qty=5,
        price=2980,
        valid_ms=5_000,
    )
    day.admin(10, tender)
    day.say("11 ORANGE accept t-1")
    day.admin(20, Admin(action="dividend", reason="x", symbol="MS", amount=7))
    day.end("A")
    written(day)
    found = summary(day, "ORANGE")
    assert found["pnl"] == 5 * 20 + 5 * 7
    assert found["fills"] == 0 and found["largest_position"] == {"MS": 5}


# Which rounds count -------------------------------------------------------


def test_rounds_are_cut_at_reset(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.round("A", ROUND_A, CONNECT)
    day.round(
        "B", "1 PLUM buy 3@900 symbol=BOND\n2 APPLE sell 3@900 symbol=BOND"
    )
    first, second = written(day), written(day, "B")
    assert (first["PLUM"].pnl, second["PLUM"].pnl) == (0, 300)
    assert (first["LEMON"].pnl, second["LEMON"].pnl) == (-100, 0)
    [fill] = rows(day, "fills", "PLUM", "B")
    assert (fill["t_ms"], fill["trade_id"], fill["cash"]) == (
        *("2000", "3", "-2700"),
    )
    assert len(rows(day, "trades", "public", "B")) == 1


def test_of_two_attempts_the_last_one_counts(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.round(
        "A",
        "1 PLUM buy 3@9 symbol=BOND\n2 APPLE sell 3@9 symbol=BOND",
        CONNECT,
    )
    with Record.of(day.event.folder) as record:
        record.typed(Key("A", "all", 1), "void", reason="power", again=True)
    day.begin("A", 2)
    day.save()
    with pytest.raises(ResultError, match="A/all has no result"):
        write_dossiers(day.event, "A", "all")
    day.open()
    day.say(ROUND_A)
    day.end("A", 2)
    assert written(day)["PLUM"].pnl == 0
    path = day.event.folder / "A/all/public/result.json"
    assert json.loads(path.read_text())["attempt"] == 2


def test_a_void_match_has_no_dossier(tmp_path: Path) -> None:
    day = played(tmp_path)
    with Record.of(day.event.folder) as record:
        record.typed(Key("A", "all", 1), "void", reason="power", again=False)
    with pytest.raises(ResultError, match="A/all has no result"):
        write_dossiers(day.event, "A", "all")


def test_figures_that_contradict_each_other_replace_nothing(
    tmp_path: Path,
) -> None:
    day = played(tmp_path)
    written(day)
    folder = day.event.folder
    before = content(folder / "A")
    cash = {"ORANGE": 30, "APPLE": -29}
    with Record.of(folder) as record:
        record.done(Key("A", "all", 1), "settled", cash=cash)
    with pytest.raises(ResultError) as caught:
        write_dossiers(day.event, "A", "all")
    assert str(caught.value) == (
        "A/all: APPLE ends with -30, but the account that the exchange showed"
        " make -29"
    )
    assert content(folder / "A") == before


def test_a_match_that_is_not_over_has_no_dossier(tmp_path: Path) -> None:
    day = Day(tmp_path)
    day.begin("A")
    day.say(CONNECT)
    with Record.of(day.event.folder) as record:
        record.done(Key("A", "all", 1), "settled")
    day.save()
    with pytest.raises(ResultError, match="never opened"):
        write_dossiers(day.event, "A", "all")
    day.open()
    day.say("1 ORANGE buy 1@9 symbol=BOND")
    day.save()
    with pytest.raises(ResultError, match="A/all: BOND is not settled"):
        write_dossiers(day.event, "A", "all")
    assert [*content(day.event.folder / "A")] == ["all/fair.csv"]


# The command --------------------------------------------------------------


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    day = a_round(tmp_path, random_script(5))
    path = str(day.save())
    assert main(["dossier", path]) == 0
    first = content(day.event.folder / "A")
    assert main(["dossier", path, "A/all"]) == 0
    assert content(day.event.folder / "A") == first
    assert not [name for name in first if name.endswith(".new")]


def test_what_follows_the_settlement_does_not_count(tmp_path: Path) -> None:
    """A match is scored at once, and scored again after the next reset."""
    day = played(tmp_path)
    written(day)
    first = content(day.event.folder / "A")
    day.say("""
        70 ORANGE buy 1@9 symbol=BOND
        71 APPLE disconnect
        72 APPLE connect
        73 director admin adjust user=PLUM cash=5
        """)
    written(day)
    assert content(day.event.folder / "A") == first
    day.round("B", "1 ORANGE buy 1@9 symbol=BOND")
    written(day)
    assert content(day.event.folder / "A") == first


def test_what_is_killed_amid_the_writing_leaves_the_old_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = played(tmp_path)
    written(day)
    before = content(day.event.folder / "A")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dossier, "summary_of", fail)
    with pytest.raises(KeyboardInterrupt):
        write_dossiers(day.event, "A", "all")
    assert content(day.event.folder / "A") == before


def test_one_team_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day = played(tmp_path)
    path = str(day.event.path)
    assert main(["dossier", path, "A", "--team", "PLUM"]) == 0
    assert capsys.readouterr().out.startswith("A/all: ")
    folder = day.event.folder / "A/all"
    assert {p.name for p in folder.iterdir()} == {"PLUM", "fair.csv"}
    assert main(["dossier", path, "--team", "NOBODY"]) == 1
    assert "'NOBODY' is no team" in capsys.readouterr().err
    assert main(["dossier", path, "B"]) == 1
    assert "B has no result yet" in capsys.readouterr().err


def test_rows_are_written_although_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = a_round(tmp_path, random_script(6))
    written(day)
    first = content(day.event.folder / "A")
    monkeypatch.setattr("util.event.csv_tables.WAITING_MAX", 300)
    written(day)
    assert content(day.event.folder / "A") == first
