"""Helm, for `check_chart.py`: lint a chart with values, or render it."""

from __future__ import annotations

import subprocess
from pathlib import Path

RELEASE, NAMESPACE = "exchange", "markets"


class HelmError(Exception):
    """Helm refuses; the text has the reason."""


def lint(chart: Path, values: Path) -> None:
    """Raise HelmError if a chart has faults, or refuses these values."""
    _run("lint", "--strict", str(chart), "--values", str(values))


def render(chart: Path, values: Path) -> str:
    """Return the manifests of a chart; raises HelmError."""
    return _run(
        *("template", RELEASE, str(chart)),
        *("--namespace", NAMESPACE, "--values", str(values)),
    )


def _run(*arguments: str) -> str:
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise HelmError(done.stdout + done.stderr)
    return done.stdout
