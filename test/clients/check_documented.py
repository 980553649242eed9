"""The programs of docs/DIALECT.md run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import ccxt
import pytest

from test.clients.bots import DOCUMENTED_HOST, PROGRAMS, options
from test.support import ROOT

OUTPUT = {
    "ccxt": "open\n",
    "ccxt.pro": "0\n",
    "python-binance": "NEW\n",
    "python-binance, asynchronous": "NEW\n",
}


def test_each_library_has_a_program() -> None:
    assert [*PROGRAMS] == [*OUTPUT]
    for name, program in PROGRAMS.items():
        assert DOCUMENTED_HOST in program, name


def test_the_program_of_the_tutorial_quotes(host: str, tmp_path: Path) -> None:
    others = ccxt.binance(options(host, "others"))
    others.create_order("BOND/USD", "limit", "buy", 50, 99)
    others.create_order("BOND/USD", "limit", "sell", 50, 101)
    path = tmp_path / "scalp.py"
    (program,) = re.findall(
        r"`bots/scalp\.py`.*?```python\n(.*?)^```$",
        (ROOT / "docs" / "TUTORIAL.md").read_text(),
        re.M | re.S,
    )
    path.write_text(program.replace(DOCUMENTED_HOST, host))
    ran = subprocess.run(
        [sys.executable, str(path), "3"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert (ran.returncode, ran.stdout) == (0, "99.0 101.0 0.0\n" * 3)


@pytest.mark.parametrize("name", OUTPUT)
def test_a_program_trades(name: str, host: str, tmp_path: Path) -> None:
    path = tmp_path / "bot.py"
    path.write_text(PROGRAMS[name].replace(DOCUMENTED_HOST, host))
    ran = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert (ran.returncode, ran.stdout) == (0, OUTPUT[name]), ran.stderr
