"""The programs of docs/DIALECT.md run as they stand there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from test.clients.bots import DOCUMENTED_HOST, PROGRAMS

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
