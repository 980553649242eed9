"""The key file and the key ring, through changes, damage and crashes.

``changer`` runs code that changes a key file in another process, to kill it or
to run two changes at once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR
from subprocess import PIPE
from typing import Any, get_args

import pytest

import exchange.host.keyring
from exchange.host.keyfile import (
    Entry,
    KeysError,
    changing,
    digest_of,
    is_user,
    make_entry,
    make_token,
    read_keys,
    rotate,
)
from exchange.host.keyring import Key, KeyRing
from exchange.market.accounts import LATER_ROLES
from orderbook import RoleName
from test.support import PATIENCE_S, ROOT

ENOUGH = 2_000  # tokens: otherwise one in 64 would begin with a hyphen
ADDED = 40  # accounts by each of two processes
KILLS = 4
MANY = 500  # accounts: writing them takes a while
READS = 50  # before the kill

# Adds a number of accounts, and prints each one that is on disk.
ADD = """
for i in range(int(sys.argv[3])):
    with changing(path, create=True) as accounts:
        name = f"{sys.argv[2]}-{i}"
        accounts[name] = make_entry(make_token())
    print(name, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def add(path: Path, *names: str, role: RoleName = "trader") -> list[str]:
    """Add accounts; return their tokens."""
    tokens = [make_token() for _ in names]
    with changing(path, create=True) as accounts:
        for name, token in zip(names, tokens):
            accounts[name] = make_entry(token, role)
    return tokens


def give(path: Path, name: str, **fields: Any) -> None:
    """Change fields of an account."""
    with changing(path) as accounts:
        accounts[name] = accounts[name].model_copy(update=fields)


def remove(path: Path, name: str) -> None:
    """Remove an account."""
    with changing(path) as accounts:
        del accounts[name]


def overwrite(path: Path, content: str | bytes) -> None:
    """Overwrite the file in place, as some editors do."""
    content = content if isinstance(content, bytes) else content.encode()
    with open(path, "r+b") as file:
        file.write(content)
        file.truncate()


def settle(ring: KeyRing) -> None:
    """Look until the ring has certainly read the last change."""
    end = time.monotonic() + PATIENCE_S
    while ring._seen is None:
        ring.refresh()
        assert time.monotonic() < end


@contextmanager
def changer(
    path: Path, code: str, name: str, count: int = sys.maxsize
) -> Iterator[Any]:
    """Run code in a process; kill it at the end if it still runs."""
    head = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from exchange.host.keyfile import changing, make_entry, make_token\n"
        "path = Path(sys.argv[1])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", head + code, path, name, str(count)],
        cwd=ROOT,
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


# Tokens -------------------------------------------------------------------


def test_tokens_are_long_and_plain_and_differ() -> None:
    tokens = {make_token() for _ in range(ENOUGH)}
    assert len(tokens) == ENOUGH
    for token in tokens:
        assert re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_-]{42}", token)


@pytest.mark.parametrize("token", ["", "s3cret", "é\N{BLACK HEART SUIT}"])
def test_a_digest_is_the_sha256_of_utf8(token: str) -> None:
    assert digest_of(token) == hashlib.sha256(token.encode()).hexdigest()


@pytest.mark.parametrize(
    "name, is_good",
    [
        ("alice", True),
        ("A.b_c-9", True),
        ("x" * 32, True),
        ("", False),
        ("x" * 33, False),
        ("a b", False),
        ("a\n", False),
        ("a/b", False),
        ("@exchange", False),
        ("é", False),
        ("\udcff", False),
    ],
)
def test_valid_names_are_those_of_the_protocol(
    name: str, is_good: bool
) -> None:
    assert is_user(name) == is_good


# The file -----------------------------------------------------------------


def test_the_file_has_the_accounts_written(path: Path) -> None:
    before = time.time_ns() // 1_000
    [alice] = add(path, "alice")
    [bob] = add(path, "bob", role="admin")
    content = json.loads(path.read_text())
    accounts = content["accounts"]
    for entry in accounts.values():
        assert before <= entry["created_ts"] <= time.time_ns() // 1_000
        assert entry.pop("created_ts") == entry.pop("rotated_ts")
    assert content == {
        "version": 1,
        "accounts": {
            "alice": {
                "sha256": hashlib.sha256(alice.encode()).hexdigest(),
                "is_admin": False,
                "is_disabled": False,
            },
            "bob": {
                "sha256": hashlib.sha256(bob.encode()).hexdigest(),
                "is_admin": True,
                "is_disabled": False,
            },
        },
    }


ROLES: list[tuple[dict[str, Any], RoleName]] = [
    ({}, "trader"),
    ({"is_admin": True}, "admin"),
    ({"role": "trader"}, "trader"),
    ({"is_admin": True, "role": "admin"}, "admin"),
    ({"role": "house"}, "house"),
    ({"role": "spectator"}, "spectator"),
]


@pytest.mark.parametrize("fields, role", ROLES)
def test_a_file_tells_roles(
    path: Path, fields: dict[str, Any], role: RoleName
) -> None:
    path.touch(0o600)
    overwrite(path, content(sha256=digest_of("key"), **fields))
    key = KeyRing(path).check("alice", "key")
    assert key and key.role == role


@pytest.mark.parametrize("role", get_args(RoleName))
def test_only_roles_that_an_older_program_does_not_know_are_written(
    path: Path, role: RoleName
) -> None:
    """It refuses fields that it does not know."""
    [token] = add(path, "alice", role=role)
    with changing(path) as accounts:
        accounts["alice"] = rotate(accounts["alice"], token)
    entry = json.loads(path.read_text())["accounts"]["alice"]
    assert entry.keys() - {"role"} == ENTRY.keys()
    assert entry.get("role") == (role if role in LATER_ROLES else None)
    assert entry["is_admin"] is (role == "admin")
    key = KeyRing(path).check("alice", token)
    assert key and key.role == role


def test_a_rotated_account_keeps_all_but_its_key(path: Path) -> None:
    add(path, "alice", role="admin")
    give(path, "alice", created_ts=1, rotated_ts=1)
    before = read_keys(path)["alice"]
    token = make_token()
    with changing(path) as accounts:
        accounts["alice"] = rotate(accounts["alice"], token)
    after = read_keys(path)["alice"]
    assert after.sha256 == digest_of(token)
    assert after.rotated_ts > after.created_ts == 1
    assert after == before.model_copy(
        update={"sha256": after.sha256, "rotated_ts": after.rotated_ts}
    )


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_only_its_owner_may_open_it(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        for name in ("alice", "bob"):
            add(path, name)
            for file in path.parent.iterdir():
                assert file.stat().st_mode & 0o7777 == 0o600, file
    finally:
        os.umask(before)


def test_it_keeps_its_owner(path: Path) -> None:
    add(path, "alice")
    # Only root can give a file away.
    owner = os.geteuid() or 65_534
    os.chown(path, owner, -1)
    add(path, "bob")
    assert path.stat().st_uid == owner
    assert [*read_keys(path)] == ["alice", "bob"]


def test_it_is_made_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "keys.json"
    add(path, "alice")
    assert [*read_keys(path)] == ["alice"]


def test_a_link_to_it_stays_a_link(tmp_path: Path, path: Path) -> None:
    add(path, "alice")
    link = tmp_path / "folder" / "link.json"
    link.parent.mkdir()
    link.symlink_to(path)
    add(link, "bob")
    assert link.is_symlink() and [*link.parent.iterdir()] == [link]
    assert [*read_keys(path)] == ["alice", "bob"]


def test_an_exception_leaves_it_as_it_was(path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        with changing(path, create=True) as accounts:
            accounts["alice"] = make_entry(make_token())
            1 / 0
    assert not path.exists()
    add(path, "alice")
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        with changing(path) as accounts:
            accounts.clear()
            1 / 0
    assert path.read_bytes() == before
    add(path, "bob")  # the lock was given back


def test_a_missing_file_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "keys.json"
    with pytest.raises(KeysError, match="there is no such key file"):
        with changing(path):
            raise AssertionError("it should not come to this")
    assert not path.parent.exists()


ENTRY = {
    "sha256": "0" * 64,
    "is_admin": False,
    "is_disabled": False,
    "created_ts": 1,
    "rotated_ts": 1,
}


def content(version: Any = 1, name: Any = "alice", **fields: Any) -> str:
    """Return the text of a file with one account; None omits a field."""
    entry = {k: v for k, v in {**ENTRY, **fields}.items() if v is not None}
    return json.dumps({"version": version, "accounts": {name: entry}})


def test_the_smallest_file_is_read(path: Path) -> None:
    path.touch(0o600)
    for text, names in (
        ('{"version": 1, "accounts": {}}', []),
        (content(), ["alice"]),
    ):
        overwrite(path, text)
        assert [*read_keys(path)] == names
    path.chmod(0o400)
    assert [*read_keys(path)] == ["alice"]


DAMAGED = [
    ("", "Invalid JSON"),
    ("{", "Invalid JSON"),
    (content()[:-3], "Invalid JSON"),
    (b"\xff", "not UTF-8"),
    ("[]", "object"),
    ('{"version": 1}', "accounts"),
    ('{"accounts": {}}', "version"),
    (content(version=2), "of another version; this program reads 1"),
    (content(version="1"), "of another version; this program reads 1"),
    (content(name="a b"), "accounts.a b"),
    (content(name="a\nb"), "accounts.a b"),
    (content(name="@exchange"), "accounts.@exchange"),
    (content(sha256="0" * 63), "accounts.alice.sha256"),
    (content(sha256="A" * 64), "accounts.alice.sha256"),
    (content(sha256="0" * 64 + "\n"), "accounts.alice.sha256"),
    (content(is_admin="no"), "accounts.alice.is_admin"),
    (content(is_disabled=0), "accounts.alice.is_disabled"),
    (content(created_ts=1.5), "accounts.alice.created_ts"),
    (content(created_ts=-1), "accounts.alice.created_ts"),
    (content(rotated_ts="1"), "accounts.alice.rotated_ts"),
    (content(colour="red"), "accounts.alice.colour"),
    (content(role="owner"), "accounts.alice.role"),
    (content(role="house", is_admin=True), "role house: is_admin does not"),
    (content(role="admin"), "role admin: is_admin does not"),
    *((content(**{name: None}), f"accounts.alice.{name}") for name in ENTRY),
]


@pytest.mark.parametrize("text, word", DAMAGED)
def test_a_damaged_file_is_refused(
    path: Path, text: str | bytes, word: str
) -> None:
    path.touch(0o600)
    overwrite(path, text)
    before = path.read_bytes()
    for use in (lambda: read_keys(path), lambda: add(path, "bob")):
        with pytest.raises(KeysError) as caught:
            use()
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and word in message
        assert len(message.splitlines()) == 1
    assert path.read_bytes() == before


def test_a_value_in_place_of_a_digest_is_not_shown(
    path: Path,
) -> None:
    token = make_token()
    path.touch(0o600)
    overwrite(path, content(sha256=token))
    with pytest.raises(KeysError) as caught:
        read_keys(path)
    assert token not in repr(caught.value)
    assert caught.value.__suppress_context__
    assert token not in str(KeyRing(path).problem)


@pytest.mark.parametrize(
    "mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666]
)
def test_a_file_open_to_others_is_refused(path: Path, mode: int) -> None:
    [token] = add(path, "alice")
    before = path.read_bytes()
    path.chmod(mode)
    for use in (lambda: read_keys(path), lambda: add(path, "bob")):
        with pytest.raises(KeysError) as caught:
            use()
        assert str(caught.value) == (
            f"{path}: its mode is {mode:04o}, which opens it to others;"
            f" run: chmod 600 {path}"
        )
    ring = KeyRing(path)
    assert ring.is_needed and ring.problem == str(caught.value)
    assert ring.check("alice", token) is None
    assert path.read_bytes() == before
    path.chmod(0o600)
    assert ring.refresh() and ring.check("alice", token)


def test_a_path_that_is_no_file_is_refused(tmp_path: Path, path: Path) -> None:
    add(path, "alice")
    for wrong, word in (
        (tmp_path / "none.json", "there is no such key file"),
        (tmp_path, "Is a directory"),
        (path / "keys.json", "Not a directory"),
    ):
        with pytest.raises(KeysError, match=f"^{wrong}: {word}$"):
            read_keys(wrong)


# Crashes and concurrent changes -------------------------------------------


def test_it_is_on_disk_before_it_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def watch(name: str, what: Callable[..., str]) -> None:
        real = getattr(os, name)

        def watched(*arguments: Any) -> Any:
            steps.append(f"{name} {what(*arguments)}")
            return real(*arguments)

        monkeypatch.setattr(os, name, watched)

    def kind(file: int) -> str:
        return "folder" if S_ISDIR(os.fstat(file).st_mode) else "file"

    watch("fsync", kind)
    watch("replace", lambda old, new: Path(new).name)
    add(path, "alice")
    assert steps == ["fsync file", "replace keys.json", "fsync folder"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_before_a_step_changes_nothing(path: Path, step: str) -> None:
    add(path, "alice")
    before = path.read_bytes()
    code = f"os.{step} = lambda *_: os._exit(9)\n{ADD}"
    with changer(path, code, "x") as process:
        assert process.wait(PATIENCE_S) == 9
        assert process.stderr.read() == ""
    assert path.read_bytes() == before
    left = path.with_name("keys.json.new")
    assert left.stat().st_mode & 0o7777 == 0o600
    add(path, "bob")
    assert [*read_keys(path)] == ["alice", "bob"]
    assert not left.exists()


def test_a_kill_at_any_time_loses_no_printed_key(path: Path) -> None:
    said = {f"user{i}" for i in range(MANY)}
    add(path, *said)
    for kill in range(KILLS):
        with changer(path, ADD, str(kill)) as process:
            said.add(process.stdout.readline().strip())
            for _ in range(READS + kill):
                assert said <= {*read_keys(path)}  # while it is changed
            process.kill()
            said.update(process.stdout.read().split())
            assert process.stderr.read() == ""
        found = {*read_keys(path)}
        assert said <= found and len(found - said) <= 1
        said = found


def test_two_concurrent_changes_lose_nothing(path: Path) -> None:
    code = f"print(flush=True)\ninput()\n{ADD}"  # they wait for each other
    with (
        changer(path, code, "a", ADDED) as a,
        changer(path, code, "b", ADDED) as b,
    ):
        for process in (a, b):
            assert process.stdout.readline() == "\n"
        for process in (a, b):
            process.stdin.write("\n")
            process.stdin.flush()
        for process in (a, b):
            output, errors = process.communicate(timeout=PATIENCE_S)
            assert (process.returncode, errors) == (0, "")
    wanted = {f"{name}-{i}" for name in "ab" for i in range(ADDED)}
    assert {*read_keys(path)} == wanted


# Logins -------------------------------------------------------------------


def test_the_right_key_logs_in(path: Path) -> None:
    [alice] = add(path, "alice")
    [bob] = add(path, "bob", role="admin")
    ring = KeyRing(path)
    assert ring.is_needed and ring.problem is None
    assert ring.check("alice", alice) == Key(
        "alice", "trader", digest_of(alice)
    )
    assert ring.check("bob", bob) == Key("bob", "admin", digest_of(bob))


def test_no_other_token_logs_in(path: Path) -> None:
    alice, bob, carol = add(path, "alice", "bob", "carol")
    give(path, "carol", is_disabled=True)
    ring = KeyRing(path)
    for user, token in (
        ("alice", bob),
        ("alice", alice[:-1]),
        ("alice", alice + "\n"),
        ("alice", alice.swapcase()),
        ("alice", digest_of(alice)),
        ("alice", ""),
        ("alice", None),
        ("alice", "\udcff\0"),
        ("alice", "x" * 10_000),
        ("Alice", alice),
        ("", alice),
        ("dave", alice),
        ("dave", None),
        ("carol", carol),
        ("carol", None),
    ):
        assert ring.check(user, token) is None, user


def test_an_empty_token_is_no_token(path: Path) -> None:
    path.touch(0o600)
    overwrite(path, content(sha256=digest_of("")))
    ring = KeyRing(path)
    assert ring.problem is None
    assert ring.check("alice", "") is ring.check("alice", None) is None


def test_every_check_compares_in_constant_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[str, str]] = []

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return real(one, other)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    alice, bob = add(path, "alice", "bob")
    give(path, "bob", is_disabled=True)
    ring = KeyRing(path)
    for user, token in (
        ("alice", alice),
        ("alice", bob),
        ("bob", bob),
        ("dave", bob),
        ("dave", None),
    ):
        ring.check(user, token)
        assert [*map(len, compared.pop())] == [64, 64]
        assert not compared


# A file that changes ------------------------------------------------------


def test_without_a_file_no_key_is_needed_until_there_is_one(
    path: Path,
) -> None:
    ring = KeyRing(path)
    assert not ring.is_needed and ring.problem is None
    assert not ring.refresh() and not ring.is_needed
    assert ring.check("alice", "x") is None
    [token] = add(path, "alice")
    assert ring.refresh() and ring.is_needed and ring.problem is None
    assert ring.check("alice", token)


def test_a_login_depends_on_the_last_look(path: Path) -> None:
    ring = KeyRing(path)
    [token] = add(path, "alice")
    assert ring.lets_in("alice") and ring.check("alice", token) is None
    assert ring.refresh()
    assert not ring.lets_in("alice") and ring.check("alice", token)
    remove(path, "alice")
    assert ring.check("alice", token)
    assert ring.refresh() and ring.check("alice", token) is None


CHANGES: list[tuple[str, Callable[[Path], object]]] = [
    ("rotate", lambda path: give(path, "alice", sha256="0" * 64)),
    ("disable", lambda path: give(path, "alice", is_disabled=True)),
    ("rights", lambda path: give(path, "alice", is_admin=True)),
    ("role", lambda path: give(path, "alice", role="house")),
    ("remove", lambda path: remove(path, "alice")),
    ("add again", lambda path: add(path, "alice")),
    ("delete the file", lambda path: path.unlink()),
]


@pytest.mark.parametrize(
    "change", [c for _, c in CHANGES], ids=[name for name, _ in CHANGES]
)
def test_a_session_goes_on_until_its_key_changes(
    path: Path, change: Callable[[Path], object]
) -> None:
    tokens = add(path, "alice", "bob")
    ring = KeyRing(path)
    alice, bob = map(ring.check, ("alice", "bob"), tokens)
    assert alice and bob
    settle(ring)
    add(path, "carol")
    assert ring.refresh() and not ring.refresh()
    assert ring.is_valid(alice) and ring.is_valid(bob)
    settle(ring)
    change(path)
    assert ring.is_valid(alice), "as of the last look"
    assert ring.refresh() and not ring.refresh()
    assert not ring.is_valid(alice)
    assert ring.is_valid(bob) == path.exists()


def test_a_key_is_valid_again_after_enabling(path: Path) -> None:
    [token] = add(path, "alice")
    ring = KeyRing(path)
    key = ring.check("alice", token)
    assert key
    give(path, "alice", is_disabled=True)
    assert ring.refresh() and not ring.is_valid(key)
    assert ring.check("alice", token) is None
    give(path, "alice", is_disabled=False)
    assert ring.refresh() and ring.is_valid(key)
    assert ring.check("alice", token) == key


def test_a_session_ends_when_its_rights_change(path: Path) -> None:
    [token] = add(path, "alice", role="admin")
    ring = KeyRing(path)
    key = ring.check("alice", token)
    assert key and key.role == "admin"
    give(path, "alice", is_admin=False)
    assert ring.refresh() and not ring.is_valid(key)
    key = ring.check("alice", token)
    assert key and key.role == "trader"


def test_a_change_that_concerns_no_login_is_none(path: Path) -> None:
    add(path, "alice")
    ring = KeyRing(path)
    settle(ring)
    give(path, "alice", rotated_ts=1)
    assert not ring.refresh()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that grows with each file that the ring reads."""

    def read(path: Path) -> dict[str, Entry]:
        found.append(path)
        return read_keys(path)

    found: list[Path] = []
    monkeypatch.setattr(exchange.host.keyring, "read_keys", read)
    return found


def test_an_unchanged_file_is_not_read_again(
    path: Path, reads: list[Path]
) -> None:
    path.touch(0o600)
    for text in ("", content()):
        overwrite(path, text)
        ring = KeyRing(path)
        settle(ring)
        reads.clear()
        for _ in range(10):
            assert not ring.refresh()
            assert ring.check("alice", "x") is None
        assert reads == []


def test_a_file_changed_just_now_is_read_again(
    path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange.host.keyring, "RECHECK_NS", 10**18)  # years
    add(path, "alice")
    reads.clear()
    ring = KeyRing(path)
    for _ in range(10):
        assert not ring.refresh()
    assert reads == [path] * 11


def in_place(path: Path, text: str) -> None:
    """Overwrite the file, but keep its inode and its time."""
    status = path.stat()
    overwrite(path, text)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def by_another(path: Path, text: str) -> None:
    """Replace the file by another one with the same time."""
    status = path.stat()
    new = path.with_name("another")
    new.touch(0o600)
    overwrite(new, text)
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.replace(path)


@pytest.mark.parametrize("write", [in_place, by_another])
def test_a_change_of_the_same_time_and_size_is_seen(
    path: Path, write: Callable[[Path, str], None]
) -> None:
    path.touch(0o600)
    overwrite(path, content(sha256=digest_of("old")))
    ring = KeyRing(path)
    settle(ring)
    before = path.stat()
    write(path, content(sha256=digest_of("new")))
    after = path.stat()
    assert after.st_mtime_ns == before.st_mtime_ns
    assert after.st_size == before.st_size
    assert (after.st_ino == before.st_ino) == (write is in_place)
    assert ring.refresh()
    assert ring.check("alice", "new") and not ring.check("alice", "old")


@pytest.mark.parametrize("write", [overwrite, in_place, by_another])
def test_changes_faster_than_the_clock_of_files_are_seen(
    path: Path, write: Callable[[Path, str], None]
) -> None:
    path.touch(0o600)
    overwrite(path, content())
    ring = KeyRing(path)
    for i in range(300):  # all within a few ticks of the kernel
        write(path, content(sha256=digest_of(str(i))))
        assert ring.refresh()
        assert ring.check("alice", str(i))


# A damaged or missing file ------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: overwrite(path, ""),
        lambda path: overwrite(path, path.read_bytes()[:-5]),
        lambda path: overwrite(path, content(version=2)),
        lambda path: path.chmod(0o644),
    ],
    ids=["empty", "cut off", "another version", "open to others"],
)
def test_the_last_good_keys_stay_in_force(
    path: Path, damage: Callable[[Path], object]
) -> None:
    alice, bob = add(path, "alice", "bob")
    good = path.read_bytes()
    ring = KeyRing(path)
    key = ring.check("alice", alice)
    assert key
    settle(ring)
    damage(path)
    assert ring.refresh(), "the problem is new"
    assert str(ring.problem).startswith(f"{path}: ")
    assert not ring.refresh(), "a change is reported once"
    settle(ring)
    assert not ring.refresh()
    assert ring.is_valid(key) and ring.is_needed
    assert ring.check("alice", alice) == key and ring.check("bob", bob)
    assert ring.check("alice", bob) is None
    path.chmod(0o600)
    overwrite(path, good)
    assert ring.refresh() and ring.problem is None
    assert ring.check("alice", alice) == key


def test_a_file_damaged_from_the_start_has_no_valid_key(path: Path) -> None:
    [token] = add(path, "alice")
    good = path.read_bytes()
    overwrite(path, good[:-5])
    ring = KeyRing(path)
    assert ring.is_needed and "Invalid JSON" in str(ring.problem)
    assert ring.check("alice", token) is None
    overwrite(path, good)
    assert ring.refresh() and ring.problem is None
    assert ring.check("alice", token)


def test_an_inaccessible_file_has_no_valid_key(
    path: Path,
) -> None:
    path.symlink_to(path)
    ring = KeyRing(path)
    assert ring.is_needed
    assert ring.problem == f"{path}: Too many levels of symbolic links"
    assert ring.check("alice", "x") is None and not ring.refresh()


def test_a_removed_file_has_no_valid_key(path: Path) -> None:
    [token] = add(path, "alice")
    ring = KeyRing(path)
    key = ring.check("alice", token)
    assert key
    away = path.rename(path.with_name("away"))
    assert ring.refresh() and not ring.refresh()
    assert ring.is_needed
    assert ring.problem == f"{path}: the file is gone: no key is valid"
    assert not ring.is_valid(key) and ring.check("alice", token) is None
    away.rename(path)
    assert ring.refresh() and ring.problem is None
    assert ring.is_valid(key) and ring.check("alice", token) == key


def test_a_folder_that_comes_back_has_the_same_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data" / "keys.json"
    [token] = add(path, "alice")
    ring = KeyRing(path)
    settle(ring)
    away = path.parent.rename(tmp_path / "away")
    assert ring.refresh() and ring.check("alice", token) is None
    away.rename(path.parent)
    assert ring.refresh() and ring.problem is None
    assert ring.check("alice", token)


def test_a_file_without_accounts_has_no_valid_key(path: Path) -> None:
    [token] = add(path, "alice")
    ring = KeyRing(path)
    remove(path, "alice")
    assert ring.refresh() and ring.check("alice", token) is None
    assert ring.is_needed and ring.problem is None


# Secrets ------------------------------------------------------------------


def test_no_token_or_digest_is_shown(path: Path) -> None:
    [token] = add(path, "alice")
    ring = KeyRing(path)
    key = ring.check("alice", token)
    assert key and repr(key) == "Key(user='alice', role='trader')"
    shown = [repr(ring), repr(read_keys(path)), repr(key)]
    for text in shown:
        assert token not in text and digest_of(token) not in text
    for file in path.parent.iterdir():
        assert token not in file.read_text()
