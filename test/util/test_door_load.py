"""A short run of ``python -m util.measure.doors``."""

from __future__ import annotations

import re

import pytest

from util.measure.doors import PROTOCOLS, main


def test_each_protocol_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "0.3", "--rounds", "1"]) == 0
    output = capsys.readouterr().out
    rows = re.findall(
        r"^\| (\w+) \| ([\d,]+) \| (\d+) \| ([\d.]+) ", output, re.M
    )
    assert [row[0] for row in rows] == [p.name for p in PROTOCOLS]
    for _, rate, cpu_us, p50_ms in rows:
        assert int(rate.replace(",", "")) and int(cpu_us) and float(p50_ms)
