"""Helm, for `check_chart.py`: lint a chart with values, or render it.

The command does both. Without it the library in the package helm-sdkpy can
lint: it renders to find faults, but does not return the manifests.
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
    """Helm refuses; the text has the reason."""


class Helm(Protocol):
    """The interface of both kinds of Helm."""

    gives_reasons: bool  # when it refuses

    def lint(self, chart: Path, values: Path) -> None:
        """Raise HelmError if a chart has faults, or refuses these values."""

    def render(self, chart: Path, values: Path) -> str | None:
        """Return the manifests, None if unknown; raises HelmError."""


def find_helm() -> Helm:
    """Return the Helm of this machine."""
    return HelmCommand() if shutil.which("helm") else HelmLibrary()


class HelmCommand:
    """The command `helm`."""

    gives_reasons = True

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
    """The library of the package helm-sdkpy."""

    gives_reasons = False
    WARNING = 2  # of a lint message; 1 informs, 3 is an error

    def __init__(self) -> None:
        import helm_sdkpy

        self._lint = helm_sdkpy.Lint(helm_sdkpy.Configuration(NAMESPACE))

    def lint(self, chart: Path, values: Path) -> None:
        """Raise HelmError if a chart has faults, or refuses these values.

        The library accepts only the values of the chart itself.
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
        if faulty:  # the library returns no texts
            raise HelmError(f"lint: {', '.join(faulty)}")

    def render(self, chart: Path, values: Path) -> None:
        """Only lint."""
        self.lint(chart, values)


def merged(own: object, given: object) -> object:
    """Return values overridden by others, as Helm does."""
    if not isinstance(own, dict) or not isinstance(given, dict):
        return given
    return own | {key: merged(own.get(key), given[key]) for key in given}
