"""The event file: its fields and defaults, and how it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from test.util.event.files import EVENT, MARKET, write_event
from util.event.file import EventError, market_path, read_event

SHORT = """\
[event]
name = "Short"
market = "demo"
data = "short"
[teams]
A = {}
[[rounds]]
name = "1"
[fair.BOND]
kind = "constant"
start = 10000
[fair.SHARE]
kind = "walk"
start = 5000
sigma = 3
[fair.FUND]
kind = "basket"
"""


def refusal(folder: Path, text: str, market: str = MARKET) -> str:
    """Return why a file is refused, without the name of its folder."""
    path = write_event(folder, text, market)
    with pytest.raises(EventError) as caught:
        read_event(path)
    return str(caught.value).replace(f"{folder}/", "")


def changed(old: str, new: str) -> str:
    """Return the file with one change."""
    assert EVENT.count(old) == 1, old
    return EVENT.replace(old, new)


def line_of(text: str, part: str) -> int:
    """Return the line on which a part of a text begins."""
    return text[: text.index(part)].count("\n") + 1


def test_every_field_is_read(tmp_path: Path) -> None:
    event = read_event(write_event(tmp_path))
    assert event.event.name == "Spring challenge"
    assert event.event.doors is not None
    assert event.event.doors.line_port == 20000
    assert event.event.ports == range(9100, 9200)
    assert [*event.teams] == ["ORANGE", "APPLE", "LEMON", "PLUM"]
    assert event.teams["ORANGE"].address == ["10.0.1.0/24"]
    assert event.teams["LEMON"].door == "line"
    assert event.teams["PLUM"].bot == []
    assert event.match.blow_out is not None
    assert event.match.blow_out.limit == -30000
    assert event.fair["GS"].jump is not None
    assert event.fair["GS"].jump.every == 90
    assert event.house is not None and event.house.trades_per_s == 15
    assert event.tenders[0].edge == [10, 30]
    assert event.symbols == ("BOND", "GS", "MS", "XLF", "CALL")
    assert event.instruments["CALL"].strike == 4000
    assert event.folder == tmp_path / "spring"


def test_a_round_overrides_what_it_names(tmp_path: Path) -> None:
    event = read_event(write_event(tmp_path))
    first, last = event.settings_of("A"), event.settings_of("Final")
    assert (first.trading, last.trading) == (300, 600)
    assert (first.warmup, last.warmup) == (20, 20)
    assert last.blow_out == event.match.blow_out
    assert event.settings_of("B").repeats == 3
    assert event.scoring_of("A").rule == "rank_weighted"
    assert event.scoring_of("Final").rule == "rank_squared"


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    event = read_event(write_event(tmp_path, SHORT, None))
    assert event.event.host == "localhost"
    assert (event.event.front, event.event.pages) == (9000, 9001)
    assert event.event.publish == "after_match"
    assert event.event.live_board and event.event.publish_journals
    assert event.event.doors is None and event.house is None
    match = event.settings_of("1")
    assert (match.warmup, match.trading, match.per_match) == (20, 300, 0)
    assert match.pairs_as == "all" and match.blow_out is None
    assert event.scoring_of("1").rule == "pnl"
    assert event.market_path.name == "demo.toml"


def test_acts_are_those_of_a_round_in_time(tmp_path: Path) -> None:
    news = '[[news]]\nat = 5\nheadline = "early"\nrounds = ["B"]\n'
    event = read_event(write_event(tmp_path, EVENT + news))
    at = {
        name: [n.at for n in event.due_in(name, event.news)] for name in "AB"
    }
    assert at == {"A": [120], "B": [5, 120]}


def test_a_preset_goes_before_a_file() -> None:
    here = Path("somewhere/event.toml")
    assert market_path(here, "demo").name == "demo.toml"
    assert market_path(here, "demo.toml") == Path("somewhere/demo.toml")
    assert market_path(here, "../m.toml") == Path("somewhere/../m.toml")


@pytest.mark.parametrize(
    "old, new, field, reason",
    [
        ("seed = 7", "sead = 7", "event.sead", "there is no such field"),
        ("seed = 7", 'seed = "7"', "event.seed", "should be a valid integer"),
        ("seed = 7", "seed = 7.0", "event.seed", "should be a valid integer"),
        ('data = "spring"\n', "", "event.data", "is missing"),
        ('"spring"', '"."', "event.data", "would be overwritten"),
        ('"spring"', '"a\\u0000"', "event.data", "should match pattern"),
        ('"0.0.0.0"', '"a..b"', "event.host", "neither a host name"),
        (
            "PLUM   = {}",
            '"Fair.csv" = {}',
            "teams.Fair.csv",
            "files of a match have names",
        ),
        (
            "line_port = 20000",
            "text_port = 1",
            "event.doors.text_port",
            "there is no such field",
        ),
        ("front = 9000", "front = 9150", "event.front", "one of match_ports"),
        (
            "json_port = 25000",
            "json_port = 9001",
            "event.doors.json_port",
            "port 9001 is that of pages",
        ),
        (
            '"9100-9199"',
            '"9199-9100"',
            "event.match_ports",
            "9199-9100 is no range of ports",
        ),
        ("10.0.1.0/24", "10.0.1.0/33", "teams.ORANGE.address", "10.0.1.0"),
        ("PLUM   =", "Orange   =", "teams.Orange", "by capital letters only"),
        ("PLUM   =", "house-1 =", "teams.house-1", "those of house bots"),
        ("PLUM   =", "director =", "teams.director", "has an account"),
        ("PLUM   =", "public =", "teams.public", "cannot be that of a folder"),
        ("PLUM   =", '"a b" =', "teams.a b", "String should match pattern"),
        ("LEMON  =", "LEMON1  =", "teams.LEMON1.door", "a name of A-Z only"),
        ("ORANGE =", "Orange =", "teams.Orange.address", "name of A-Z only"),
        (", line_port = 20000", "", "teams.LEMON.door", "has no line_port"),
        ("limit = -30000", "limit = 0", "match.blow_out.limit", "less than 0"),
        (
            'rule = "rank_weighted"',
            'rule = "sharp"',
            "scoring.rule",
            "neither one of pnl",
        ),
        (
            'rule = "rank_squared"',
            'rule = ":f"',
            "rounds[3].scoring.rule",
            "neither one of pnl",
        ),
        ('name = "B"', 'name = "a"', "rounds[2].name", "round 1 has this"),
        ('name = "B"', 'name = "B/1"', "rounds[2].name", "match pattern"),
        ('name = "B"', 'name = "secret"', "rounds[2].name", "cannot be named"),
        ("weight = 30", "weight = -1", "rounds[2].weight", "greater than or"),
        (
            'pairing = "swiss"',
            "per_match = 1",
            "rounds[2].per_match",
            "two teams",
        ),
        (
            'pairing = "swiss"',
            'per_match = 2\npairing = "all"',
            "rounds[2].pairing",
            "per_match is 2",
        ),
        ("[fair.MS]", "[fair.NO]", "fair.NO", "the market has no NO"),
        ("[fair.MS]", "[fair.CALL]", "fair.CALL", "CALL is a call"),
        ('[fair.XLF]\nkind = "basket"', "", "fair", "no hidden value of XLF"),
        (
            '[fair.XLF]\nkind = "basket"',
            '[fair.XLF]\nkind = "basket"\nstart = 1',
            "fair.XLF",
            "start is not for kind basket",
        ),
        ("sigma = 1\n", "", "fair.MS", "sigma is missing: kind is walk"),
        ("start = 1000\n", "start = 0\n", "fair.BOND.start", "not within 1"),
        ("every = 90", "every = inf", "fair.GS.jump.every", "finite"),
        (
            'kind = "constant"\nstart = 1000',
            'kind = "basket"',
            "fair.BOND.kind",
            "BOND converts into nothing",
        ),
        ("at = 120", "at = 300", "news[1].at", "the 300 s of trading of"),
        ("jump = 60", "jump = 0.5", "news[1].jump", "valid integer"),
        (
            'at = 120\nsymbol = "GS"',
            "at = 120",
            "news[1].jump",
            "symbol is missing",
        ),
        (
            'at = 120\nsymbol = "GS"',
            'at = 120\nsymbol = "XLF"',
            "news[1].jump",
            "follows from others",
        ),
        (
            "at = 120",
            'rounds = ["A", "C"]\nat = 120',
            "news[1].rounds[2]",
            "no such round",
        ),
        ("amount = 5", "amount = 0", "dividends[1].amount", "is 0"),
        (
            'symbol = "MS"\namount',
            'symbol = "NO"\namount',
            "dividends[1].symbol",
            "the market has no NO",
        ),
        ("[10, 30]", "[30, 10]", "tenders[1].edge", "exceeds the second"),
        ("[10, 30]", "[30]", "tenders[1].edge", "at least 2 items"),
        ("qty = 50", "qty = 101", "tenders[1].qty", "above 100"),
        ("makers = 4", "makers = true", "house.makers", "valid integer"),
        (
            'market = "market.toml"',
            'market = "nowhere"',
            "event.market",
            "'nowhere' is neither a preset (",
        ),
    ],
)
def test_an_error_names_line_field_and_reason(
    tmp_path: Path, old: str, new: str, field: str, reason: str
) -> None:
    text = changed(old, new)
    why = refusal(tmp_path, text)
    place, name, rest = why.split(": ", 2)
    assert name == field
    assert reason in rest
    file, _, number = place.partition(", line ")
    assert file == "event.toml"
    # The line has the field's last name, or is that of its table.
    line = text.splitlines()[int(number) - 1]
    last = field.rpartition(".")[2].partition("[")[0]
    is_absent = "missing" in rest or rest.startswith("there is no hidden")
    assert last in line or line.startswith("[") or is_absent, line


def test_a_field_of_an_inline_table_has_the_line_of_its_value(
    tmp_path: Path,
) -> None:
    text = changed("limit = -30000", "limit = 5")
    line = line_of(text, "blow_out =")
    assert f"event.toml, line {line}: match.blow_out.limit" in refusal(
        tmp_path, text
    )


def test_the_first_error_of_the_file_is_named(tmp_path: Path) -> None:
    text = changed("makers = 4", "makers = -4").replace("seed = 7", "sed = 7")
    assert "line 3: event.sed" in refusal(tmp_path, text)


def test_a_text_that_is_no_toml_is_refused_with_its_line(
    tmp_path: Path,
) -> None:
    why = refusal(tmp_path, changed("seed = 7", "seed = "))
    assert why == "event.toml, line 3: Invalid value"
    why = refusal(tmp_path, EVENT + "x = [1,")
    last = len(EVENT.splitlines()) + 1
    assert why.startswith(f"event.toml, line {last}: ")
    why = refusal(tmp_path, EVENT + "\n[house]\nmakers = 1\n")
    assert f"line {last + 1}: Cannot declare ('house',) twice" in why


def test_a_wrong_market_file_is_named(tmp_path: Path) -> None:
    why = refusal(tmp_path, EVENT, "[instruments.A]\nmax_qty = 0\n")
    assert why.startswith("event.toml, line 4: event.market: market.toml:")
    assert "max_qty" in why


def test_a_binary_has_no_hidden_value(tmp_path: Path) -> None:
    market = MARKET + '[instruments.YES]\nkind = "binary"\npays = 100\n'
    assert "YES is binary" in refusal(tmp_path, EVENT, market)


def test_a_file_that_is_missing_or_unreadable_is_named(
    tmp_path: Path,
) -> None:
    with pytest.raises(EventError, match="No such file"):
        read_event(tmp_path / "event.toml")
    path = tmp_path / "event.toml"
    path.write_bytes(b"\xff\xfa")
    with pytest.raises(EventError, match="not UTF-8"):
        read_event(path)


def test_tables_that_are_empty_are_refused(tmp_path: Path) -> None:
    no_teams = EVENT[: EVENT.index("ORANGE")] + EVENT[EVENT.index("[match]") :]
    assert "teams: there are no teams" in refusal(tmp_path, no_teams)
    start, end = EVENT.index("[[rounds]]"), EVENT.index("[fair.BOND]")
    no_rounds = "rounds = []\n" + EVENT[:start] + EVENT[end:]
    assert "rounds: there are no rounds" in refusal(tmp_path, no_rounds)


def test_some_round_has_a_weight(tmp_path: Path) -> None:
    text = EVENT
    for weight in (10, 30, 60):
        text = text.replace(f"weight = {weight}\n", "weight = 0\n")
    assert "every round has the weight 0" in refusal(tmp_path, text)
