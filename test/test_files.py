"""What editors leave in a file, and files that can only be read."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from subprocess import PIPE

import pytest

from exchange.files import text_of
from exchange.host.keyfile import KeysError, changing, read_keys
from exchange.host.market_file import SettingsError, load_market
from exchange.journal.sqlite import Journal
from test.journal.files import append
from test.market.flows import flow
from test.support import PATIENCE_S, ROOT, add_key
from util.cli import read_tokens

MARKET = "[instruments.BOND]\nmax_qty = 7\n\n# für alle\n[account]\ncash = 5\n"
TOKENS = "house-maker-1\tabc\n\nhouse-noise-1\tdef\n"
# What an editor may make of a text: PowerShell's `>` writes UTF-16.
EDITORS = {
    "plain": lambda text: text.encode(),
    "a mark": lambda text: text.encode("utf-8-sig"),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "a mark and CRLF": lambda text: text.replace("\n", "\r\n").encode(
        "utf-8-sig"
    ),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "UTF-16": lambda text: text.replace("\n", "\r\n").encode("utf-16"),
    "UTF-16BE": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
}


@pytest.fixture(params=EDITORS)
def edited(request: pytest.FixtureRequest, tmp_path: Path):
    """Return what writes a file as an editor would."""

    def write(text: str, path: Path = tmp_path / "file") -> Path:
        path.write_bytes(EDITORS[request.param](text))
        return path

    return write


def test_a_market_file_is_read_whatever_the_editor(edited) -> None:
    market = load_market(edited(MARKET))
    assert market.instruments["BOND"].max_qty == 7
    assert market.account.cash == 5


def test_tokens_are_read_whatever_the_editor(edited) -> None:
    assert read_tokens(edited(TOKENS)) == {
        "house-maker-1": "abc",
        "house-noise-1": "def",
    }


def test_keys_are_read_whatever_the_editor(edited, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    add_key(path, "alice")
    edited(path.read_text("utf-8"), path)
    assert [*read_keys(path)] == ["alice"]
    with changing(path) as accounts:
        accounts["bob"] = accounts["alice"]
    assert [*read_keys(path)] == ["alice", "bob"]


@pytest.mark.parametrize("content", [b"a = '\xff'\n", b"\xff\xfea", b"\xff"])
def test_what_is_no_text_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch(0o600)
    path.write_bytes(content)
    for read, error in (
        (text_of, UnicodeDecodeError),
        (load_market, SettingsError),
        (read_keys, KeysError),
        (read_tokens, ValueError),
    ):
        with pytest.raises(error):
            read(content if read is text_of else path)


# A journal in a folder that nobody can write ------------------------------

COMMANDS = list(flow(random.Random(6), 300))
# Run a command with a folder mounted read-only.
SEALED = """
mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 99
exec "$@"
"""


def lay_up(
    how: str, folder: Path, *, live: Path, is_damaged: bool = False
) -> Path:
    """Return a journal as it may lie on a disk that can only be read.

    Its server has ended in order, or was killed; then all commands are in
    the -wal, and the -shm may have stayed behind when it was moved.
    """
    folder.mkdir()
    path = folder / "exchange.db"

    def take(*suffixes: str) -> None:
        for suffix in suffixes:
            shutil.copy(f"{live}{suffix}", f"{path}{suffix}")

    with Journal(live) as journal:
        list(journal.recover())
        append(journal, COMMANDS)
        if is_damaged:
            with closing(sqlite3.connect(live, isolation_level=None)) as file:
                file.execute("DELETE FROM batches WHERE first_seq = 1")
        if how == "killed":
            take("", "-wal", "-shm")
        elif how == "moved":
            take("", "-wal")
    if how in ("closed", "emptied"):
        take("")
    if how == "emptied":
        Path(f"{path}-wal").touch()
    if how == "copied":
        assert tool("backup", str(live), str(path)).returncode == 0
    return path


def tool(
    name: str, *arguments: str, sealed: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a tool, perhaps while nothing can be written to a folder."""
    words = [sys.executable, "-m", f"util.{name}", *arguments]
    if sealed is not None:
        if os.geteuid():
            sealed.chmod(0o555)
        else:  # root may write where the mode says no
            words = ["unshare", "-rm", "sh", "-c", SEALED, str(sealed), *words]
    try:
        return subprocess.run(
            words,
            cwd=ROOT,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
            timeout=PATIENCE_S,
        )
    finally:
        if sealed is not None:
            sealed.chmod(0o755)


@pytest.mark.parametrize(
    "how", ["closed", "emptied", "killed", "moved", "copied"]
)
def test_a_journal_on_a_read_only_disk_is_read(
    how: str, tmp_path: Path
) -> None:
    path = lay_up(how, tmp_path / "archive", live=tmp_path / "live.db")
    before = {p: p.read_bytes() for p in path.parent.iterdir()}
    copy, told = tmp_path / "copy.db", tmp_path / "told"
    for words in (
        ["replay", str(path), "--output", str(told)],
        ["backup", str(path), str(copy)],
    ):
        ran = tool(*words, sealed=path.parent)
        assert (ran.returncode, ran.stderr) == (0, "")
    assert told.read_text("utf-8").count(" > ") == len(COMMANDS)
    ran = tool("replay", str(copy), "--verify")
    assert ran.stdout.startswith(f"{copy}: good: 300 commands ")
    assert before == {p: p.read_bytes() for p in path.parent.iterdir()}


def test_what_is_wrong_with_it_is_told_by_its_own_name(
    tmp_path: Path,
) -> None:
    live = tmp_path / "live.db"
    path = lay_up("moved", tmp_path / "archive", live=live, is_damaged=True)
    for words in (
        ["replay", str(path), "--verify"],
        ["backup", str(path), str(tmp_path / "copy.db")],
    ):
        ran = tool(*words, sealed=path.parent)
        told = f"{path}: after command 0: a batch is missing or damaged\n"
        assert (ran.returncode, ran.stdout) == (1, "")
        assert ran.stderr == f"{words[0]}: {told}"
    assert not (tmp_path / "copy.db").exists()


@pytest.mark.parametrize("how", ["closed", "moved"])
def test_a_link_to_a_read_only_disk_is_followed(
    how: str, tmp_path: Path
) -> None:
    path = lay_up(how, tmp_path / "archive", live=tmp_path / "live.db")
    link = tmp_path / "link.db"
    link.symlink_to(path)
    ran = tool("replay", str(link), "--verify", sealed=path.parent)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"{link}: good: 300 commands ")
