"""Break each guarantee, and see its tests fail: ``python -m test.mutants``.

Each mutant of mutants.toml is made in a copy of this tree, and the tests named
with it run there. One that no test fails for has escaped. Words on the command
line choose the mutants that have one of them in their name.

Exit status: 0, or 1 if a mutant escaped, or could not be made because the
text it replaces is gone: then find where the guarantee is kept now.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LIST = Path(__file__).with_name("mutants.toml")
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__")
TIMEOUT_S = 600.0  # a mutant that hangs is caught, too
CAUGHT, PASSED = 1, 0  # exit statuses of pytest


@dataclass(frozen=True, slots=True)
class Mutant:
    """A text of a file, its replacement, and the tests that must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: list[str]

    def fault(self, folder: Path) -> str:
        """Return why it cannot be made; "" if it can."""
        path = folder / self.file
        if not path.exists():
            return f"{self.file} is gone"
        found = path.read_text("utf-8").count(self.old)
        if found != 1:
            return f"{self.file} has its text {found} times, not once"
        return ""


def run(folder: Path, tests: list[str]) -> tuple[int, str]:
    """Run tests in a copy of the tree; return pytest's status and output."""
    paths = [f"test/{test}" for test in tests]
    options = ["-q", "-x", "-p", "no:cacheprovider", "--tb=no"]
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", "pytest", *options, *paths],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )
        return done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        return CAUGHT, ""


def judge(mutant: Mutant, folder: Path) -> str:
    """Make a mutant and run its tests; return the verdict."""
    if fault := mutant.fault(folder):
        return f"ANCHOR GONE: {fault}"
    path = folder / mutant.file
    text = path.read_text("utf-8")
    path.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    try:
        status, _ = run(folder, mutant.tests)
    finally:
        path.write_text(text, "utf-8")
    if status == CAUGHT:
        return "caught"
    if status == PASSED:
        return f"ESCAPED: {', '.join(mutant.tests)}"
    return f"BROKEN: pytest ends with {status}: {', '.join(mutant.tests)}"


def main() -> int:
    """Judge the mutants chosen; return the exit status."""
    rows = tomllib.loads(LIST.read_text("utf-8"))["mutant"]
    words = sys.argv[1:]
    mutants = [
        mutant
        for mutant in (Mutant(**row) for row in rows)
        if not words or any(word in mutant.name for word in words)
    ]
    if not mutants:
        print(f"no mutant is named like {' '.join(words)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "tree")
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
        wanted = sorted({test for m in mutants for test in m.tests})
        status, output = run(folder, wanted)
        if status != PASSED:
            print(f"{output}they fail without any mutant", file=sys.stderr)
            return 1
        bad = 0
        for mutant in mutants:
            start = time.monotonic()
            verdict = judge(mutant, folder)
            took_s = time.monotonic() - start
            print(f"{took_s:5.0f} s  {mutant.name}: {verdict}", flush=True)
            bad += verdict != "caught"
    print(f"{len(mutants)} mutants, {bad} of them not caught")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
