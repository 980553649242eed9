"""The event files of `examples/`, and what `docs/EVENT.md` says of fields."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from util.event import tables
from util.event.__main__ import COMMANDS, main
from util.event.dossier import COLUMNS, PUBLIC_COLUMNS
from util.event.file import Event
from util.event.scoring import RULES

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples" / "events").glob("*.toml"))
DOCUMENT = (ROOT / "docs" / "EVENT.md").read_text("utf-8")
# The tables of an event file, and the heading of each in the document.
TABLES: dict[str, type[BaseModel]] = {
    "`[event]`": tables.EventSettings,
    "`[teams]`": tables.TeamSettings,
    "`[match]`": tables.MatchSettings,
    "`[[rounds]]`": tables.RoundSettings,
    "`[fair.SYMBOL]`": tables.FairSettings,
    "`[house]`": tables.HouseSettings,
    "`[[news]]`": tables.News,
    "`[[dividends]]`": tables.Dividend,
    "`[[tenders]]`": tables.Tender,
}


def section(heading: str) -> str:
    """Return what stands below a heading."""
    _, _, rest = DOCUMENT.partition(f"# {heading}\n")
    assert rest, heading
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[str]:
    """Return the words in code of the first cell of each row."""
    rows = re.findall(r"^\| (`.+?) \|", text, flags=re.MULTILINE)
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_check_accepts_the_examples(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(path)]) == 0
    assert "ends at" in capsys.readouterr().out


def test_there_are_three() -> None:
    assert [path.stem for path in EXAMPLES] == ["class", "hackathon", "league"]


def test_the_class_takes_45_minutes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["check", str(EXAMPLES[0])])
    times = re.findall(r"\d\d:\d\d:\d\d", capsys.readouterr().out)
    seconds = [
        sum(int(n) * 60**p for n, p in zip(time.split(":"), (2, 1, 0)))
        for time in times
    ]
    assert 35 * 60 <= (seconds[-1] - seconds[0]) % 86_400 <= 45 * 60


@pytest.mark.parametrize("heading", TABLES)
def test_every_field_is_documented_with_its_default(heading: str) -> None:
    text = section(heading)
    fields = TABLES[heading].model_fields
    assert sorted(first_cells(text)) == sorted(fields)
    for line in text.splitlines():
        if not line.startswith("| `"):
            continue
        name, default = (cell.strip() for cell in line.split("|")[1:3])
        if "`, `" in name:  # several, which are described elsewhere
            continue
        field = fields[name.strip("`")]
        if field.is_required():
            assert default == "required", line
        elif isinstance(field.default, (str, int, float)):
            assert _plain(default) == field.default, line


def _plain(text: str) -> Any:
    """Return the value that a cell shows."""
    text = text.strip("`")
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"'):
        return text.strip('"')
    return float(text) if "." in text else int(text)


def test_every_table_is_documented() -> None:
    known = {heading.strip("`[]").partition(".")[0] for heading in TABLES}
    assert {*Event.model_fields} - known == {"scoring"}


def test_the_commands_are_documented() -> None:
    assert sorted(first_cells(section("Commands"))) == sorted(COMMANDS)


def test_the_rules_are_documented() -> None:
    assert first_cells(section("Scores"))[:4] == [*RULES]


def test_the_columns_are_documented() -> None:
    text = section("Dossiers")
    for name, columns in {**COLUMNS, **PUBLIC_COLUMNS}.items():
        [row] = re.findall(rf"^\| `(?:public/)?{name}.csv` \|.*$", text, re.M)
        if name != "book":
            assert ", ".join(columns) in row.replace("`", ""), name
