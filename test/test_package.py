"""What `pip install .` gives to a participant, and which names it takes.

It is installed as anybody would, with pip and its index, into an environment
of its own.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path
from subprocess import PIPE

from test.support import PATIENCE_S, ROOT, serving

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SCRIPTS = sorted(PROJECT["project"]["scripts"])
NEED_EXTRA = {"exchange-backup", "exchange-replay", "exchange-watch"}
NOT_TAKEN = ("server", "test.relay", "util")
# A module of the participant's own, which has nothing to do with us.
OWN_MODULE = "raise SystemExit('this module is not for you')\n"
LIST_PRESETS = """
from importlib.resources import files
print(*(found.name for found in files("exchange.util.presets").iterdir()))
"""
LIST_PACKAGES = """
from importlib.metadata import distributions
print(*{found.name for found in distributions()})
"""
IMPORT_ALL = """
import pkgutil, importlib, exchange
for found in pkgutil.walk_packages(exchange.__path__, "exchange."):
    importlib.import_module(found.name)
"""


class Desk:
    """A folder where a participant works, with an environment."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self.folder = folder / "bots"
        self.folder.mkdir()
        for name in ("util.py", "server.py", "exchange.py"):
            (self.folder / name).write_text(OWN_MODULE)
        subprocess.run(
            [sys.executable, "-m", "venv", folder / "venv"], check=True
        )

        pip = [self.bin / "python", "-m", "pip", "install", "--no-compile"]
        subprocess.run([*pip, "--quiet", "."], cwd=ROOT, check=True)

    def lend_libraries(self) -> None:
        """Add what the tests have: the extra's libraries are among them.

        The checkout itself is not: a .pth there counts only at its place.
        """
        here, there = (
            sysconfig.get_path("purelib", vars={"base": str(base)})
            for base in (sys.prefix, self.bin.parent)
        )
        Path(there, "lent.pth").write_text(f"{here}\n")

    def run(
        self, program: str, *arguments: str, url: str = ""
    ) -> tuple[int, str, str]:
        """Run a program; return status, output and errors."""
        ran = subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.folder,
            env={**os.environ, "EXCHANGE_URL": url},
            stdin=subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
            timeout=PATIENCE_S,
        )
        return ran.returncode, ran.stdout, ran.stderr

    def python(self, code: str) -> tuple[int, str, str]:
        """Run code that finds what is installed, and not what lies here."""
        return self.run("python", "-P", "-c", code)


async def test_a_participant_gets_client_and_tools(tmp_path: Path) -> None:
    """One test, since all of it needs the same environment."""
    desk = Desk(tmp_path)
    check_packages(desk)
    check_names(desk)
    check_presets(desk)
    check_scripts_without_the_extra(desk)
    async with serving() as server:
        status, output, errors = await asyncio.to_thread(
            desk.run, "exchange-send-order", "--price=90", url=server.url
        )
    assert (status, errors) == (0, "")
    assert output.startswith("order 1: buy 1 BOND at 90 is new\n")
    desk.lend_libraries()
    check_scripts(desk)
    assert desk.python(IMPORT_ALL) == (0, "", "")


def check_packages(desk: Desk) -> None:
    """Nothing comes along but what the client needs."""
    _, names, _ = desk.python(LIST_PACKAGES)
    ours = {"exchange", "websockets", "pydantic"}
    of_pydantic = {"annotated-types", "pydantic_core"}
    of_pydantic |= {"typing-inspection", "typing_extensions"}
    installed = {*names.split()} - {"pip", "setuptools"}
    assert installed == ours | of_pydantic
    wanted = metadata.requires("exchange") or []
    extra = [w.split()[0] for w in wanted if 'extra == "tools"' in w]
    assert sorted(extra) == ["rich", "tqdm"]


def check_names(desk: Desk) -> None:
    """The client's names are there, and none that others may want."""
    code = "import client, orderbook; print(client.Exchange.__name__)"
    assert desk.python(code) == (0, "Exchange\n", "")
    for name in NOT_TAKEN:
        status, _, errors = desk.python(f"import {name}")
        assert status == 1 and f"No module named '{name}'" in errors


def check_presets(desk: Desk) -> None:
    """The market files are there, with the values that bots trade on."""
    _, names, _ = desk.python(LIST_PRESETS)
    here = {path.name for path in (ROOT / "util" / "presets").iterdir()}
    assert {*names.split()} == here


def check_scripts_without_the_extra(desk: Desk) -> None:
    """A script has help, or says in a line what it lacks."""
    for script in SCRIPTS:
        status, output, errors = desk.run(script, "--help")
        if script in NEED_EXTRA:
            assert (status, output) == (2, "")
            assert errors.count("\n") == 1 and " needs " in errors
            assert 'pip install ".[tools]"' in errors
        else:
            assert (status, errors) == (0, "")
            assert output.startswith(f"usage: {script} ")


def check_scripts(desk: Desk) -> None:
    """Every script has help that calls it by its name."""
    for script in SCRIPTS:
        status, output, errors = desk.run(script, "--help")
        assert (status, errors) == (0, "")
        assert output.startswith(f"usage: {script} ")


def test_a_checkout_has_the_scripts_too() -> None:
    desk = Path(sys.executable).parent
    for script in SCRIPTS:
        ran = subprocess.run(
            [desk / script, "--help"], stdout=PIPE, text=True, cwd="/"
        )
        assert ran.returncode == 0
        assert ran.stdout.startswith("usage: python -m util.")
