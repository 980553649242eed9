"""Helm, for `check_chart.py`: judge a chart with some values, or render it.

The command does both. Where there is none, the library in the package
helm-sdkpy can judge: it renders to find faults, and does not show what.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

import yaml

RELEASE, NAMESPACE = "exchange", "markets"


class HelmError(Exception):
    """Helm refuses; the text says why."""


class Helm(Protocol):
    """What both kinds of Helm do."""

    tells_why: bool  # it refuses

    def lint(self, chart: Path, values: Path) -> None:
        """Raise HelmError if a chart has faults, or refuses these values."""

    def render(self, chart: Path, values: Path) -> str | None:
        """Return the manifests, None if they cannot be seen; may raise."""


def find_helm() -> Helm:
    """Return the Helm that is here."""
    return HelmCommand() if shutil.which("helm") else HelmLibrary()


class HelmCommand:
    """The command `helm`."""

    tells_why = True

    def lint(self, chart: Path, values: Path) -> None:
        """Raise HelmError if a chart has faults, or refuses these values."""
        self._run("lint", "--strict", str(chart), "--values", str(values))

    def render(self, chart: Path, values: Path) -> str:
        """Return the manifests of a chart; raises HelmError."""
        return self._run(
            *("template", RELEASE, str(chart)),
            *("--namespace", NAMESPACE, "--values", str(values)),
        )

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["helm", *arguments], capture_output=True, text=True
        )
        if done.returncode:
            raise HelmError(done.stdout + done.stderr)
        return done.stdout


class HelmLibrary:
    """The library that the package helm-sdkpy carries."""

    tells_why = False
    WARNING = 2  # of a lint message; 1 informs, 3 is an error

    def __init__(self) -> None:
        import helm_sdkpy

        self._lint = helm_sdkpy.Lint(helm_sdkpy.Configuration(NAMESPACE))

    def lint(self, chart: Path, values: Path) -> None:
        """Raise HelmError if a chart has faults, or refuses these values.

        The library takes no values but the chart's own.
        """
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(chart, Path(folder, RELEASE))
            own, given = (
                yaml.safe_load(path.read_text("utf-8")) or {}
                for path in (copy / "values.yaml", values)
            )
            (copy / "values.yaml").write_text(
                yaml.safe_dump(merged(own, given)), "utf-8"
            )
            found = asyncio.run(self._lint.run(str(copy)))["Messages"]
        faulty = [m["Path"] for m in found if m["Severity"] >= self.WARNING]
        if faulty:  # the library tells no more
            raise HelmError(f"lint: {', '.join(faulty)}")

    def render(self, chart: Path, values: Path) -> None:
        """Judge only."""
        self.lint(chart, values)


def merged(own: object, given: object) -> object:
    """Return values with others laid over them, as Helm does."""
    if not isinstance(own, dict) or not isinstance(given, dict):
        return given
    return own | {key: merged(own.get(key), given[key]) for key in given}
