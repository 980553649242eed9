"""The keys of the accounts: the file that holds them, and who may log in.

A token is made here, shown once by ``python -m util.accounts``, and kept only
as a digest. The key file is JSON; it is replaced as a whole, so whoever reads
it finds the keys before a change or those after it. The server looks at it
through a KeyRing, which follows it without a restart. No token is ever part
of a repr, an exception or the file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from exchange.files import HAS_OWNERS, lock, sync_folder, text_of
from orderbook import Ts, User

DEFAULT_PATH = Path("data/keys.json")
# What /v1/access answers: how one logs in.
ACCESS_BY_KEY = "ok: a login needs a key"
ACCESS_BY_NAME = "ok: a name is enough to log in"
FORMAT_VERSION: Final = 1
TOKEN_BYTES = 32  # 256 random bits: nobody guesses them
# Two changes within one tick of the kernel's clock, of 10 ms at most, may
# leave a file looking the same. A file read so soon after it was changed is
# read again the next time.
SETTLED_NS = 100_000_000

# Compared with where an account has no valid key, to take the same time.
_NO_DIGEST = "0" * 64


class KeysError(Exception):
    """The key file cannot be used; the text names it and says why."""


# Tokens -------------------------------------------------------------------


def make_token() -> str:
    """Return a new token: 43 characters that need no escaping anywhere."""
    while True:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        if not token.startswith("-"):  # `--token -x` would be no token
            return token


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token, in hexadecimal; raises nothing.

    A slow hash and a salt protect secrets that can be guessed or that two
    people may share. 256 random bits are neither.
    """
    # Lone surrogates are let through: an error about them shows the token.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


# The file -----------------------------------------------------------------


class Entry(BaseModel):
    """What the key file says of one account; times are microseconds."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        repr=False
    )
    is_admin: bool
    is_disabled: bool
    created_ts: Ts
    rotated_ts: Ts  # when its key was made; at first the same


Entries: TypeAlias = dict[User, Entry]  # by name


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1]
    accounts: Entries


_USER: TypeAdapter[str] = TypeAdapter(User)


def is_user(name: str) -> bool:
    """Return whether an account may have this name."""
    try:
        _USER.validate_python(name)
    except ValidationError:
        return False
    return True


def make_entry(token: str, is_admin: bool = False) -> Entry:
    """Return a new account with this token."""
    now = _now()
    return Entry(
        sha256=digest_of(token),
        is_admin=is_admin,
        is_disabled=False,
        created_ts=now,
        rotated_ts=now,
    )


def rotate(entry: Entry, token: str) -> Entry:
    """Return an account with this token instead of its own."""
    return entry.model_copy(
        update={"sha256": digest_of(token), "rotated_ts": _now()}
    )


def _now() -> int:
    return time.time_ns() // 1_000  # microseconds, as everywhere


def read_keys(path: Path) -> Entries:
    """Return what a key file says.

    Raises KeysError if it is missing, damaged, of another version, or open
    to others than its owner. (On Windows anybody may read it: modes say
    nothing there.)
    """
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if HAS_OWNERS and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise KeysError(
                    f"{path}: its mode is {mode:04o}, which opens it to"
                    f" others; run: chmod 600 {path}"
                )
            text = text_of(file.read())
    except UnicodeDecodeError as error:
        raise KeysError(f"{path}: not UTF-8: {error.reason}") from None
    except FileNotFoundError:
        raise KeysError(f"{path}: there is no such key file") from None
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}") from None
    try:
        return _File.model_validate_json(text).accounts
    except ValidationError as error:
        raise KeysError(f"{path}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """Say what is wrong with a key file, and show no value of it."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    if where == "version":
        return f"of another version; this program reads {FORMAT_VERSION}"
    text = f"{where}: {problem['msg']}" if where else problem["msg"]
    return " ".join(text.split())  # a line, whatever the names are


@contextmanager
def changing(path: Path, create: bool = False) -> Iterator[Entries]:
    """Lend what a key file says, to be changed, and write it at the end.

    Waits while another process does the same. An exception inside leaves the
    file as it was. Raises KeysError, also if there is no file and ``create``
    is not set, and OSError.
    """
    path = Path(os.path.realpath(path))  # a link stays one, the lock is one
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        raise KeysError(f"{path}: there is no such key file")
    locked = lock(_beside(path, "lock"), mode=0o600, is_waiting=True)
    try:
        is_new = create and not path.exists()
        accounts: Entries = {} if is_new else read_keys(path)
        yield accounts
        _write(path, accounts)
    finally:
        os.close(locked)


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{suffix}")


def _write(path: Path, accounts: Entries) -> None:
    """Replace a key file as a whole; the caller has the lock."""
    content = _File(version=FORMAT_VERSION, accounts=accounts)
    new = _beside(path, "new")
    new.unlink(missing_ok=True)  # of one that was killed
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(new, flags, 0o600), "w", encoding="utf-8") as file:
        # Root does not take the file from its owner.
        if HAS_OWNERS and path.exists():
            owner = path.stat()
            if owner.st_uid != os.geteuid():
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(content.model_dump_json(indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    sync_folder(path.parent)  # or a power failure may bring an old key back


# Logins -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """Who logged in, and with which key."""

    user: str
    is_admin: bool
    sha256: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Found:
    """What a look at the key file has found."""

    keys: dict[str, Key] = field(default_factory=dict)  # not the disabled
    names: frozenset[str] = frozenset()  # of all in the file
    is_needed: bool = False
    problem: str | None = None


class KeyRing:
    """The keys that are valid now, as a key file says that may change.

    ``is_open``: who has no key there gets in by name. ``is_needed`` says
    whether a login needs a key otherwise: whether there is a key file, or has
    been one since this ring was made. Taking the file away lets nobody in,
    rather than everybody. ``problem`` says what is wrong with the file, if
    anything is; while it is unreadable, the keys last read stay in force.

    All is as of the last `refresh`, which one thread may call while another
    asks: what it finds takes effect as a whole.
    """

    def __init__(self, path: Path, is_open: bool = False) -> None:
        """Read a key file, if it is there; raises nothing."""
        self.path = path
        self.is_open = is_open
        self._found = _Found()
        self._seen: tuple[int, ...] | None = None  # None: to be read again
        self.refresh()

    @property
    def is_needed(self) -> bool:
        """Whether a login needs a key."""
        return self._found.is_needed

    @property
    def problem(self) -> str | None:
        """What is wrong with the key file."""
        return self._found.problem

    def refresh(self) -> bool:
        """Look at the file; return whether keys or problem have changed."""
        before, after = self._found, self._look()
        self._found = after
        return (after.keys, after.is_needed, after.problem) != (
            before.keys,
            before.is_needed,
            before.problem,
        )

    def lets_in(self, user: str) -> bool:
        """Return whether a name alone is enough."""
        found = self._found
        if self.is_open:
            return user not in found.names
        return not found.is_needed

    def check(self, user: str, token: str | None) -> Key | None:
        """Return the key that logs in, if it is valid.

        Takes the same time for a wrong token, an unknown user and one that
        is disabled.
        """
        key = self._found.keys.get(user)
        is_same = hmac.compare_digest(
            digest_of(token or ""), key.sha256 if key else _NO_DIGEST
        )
        return key if is_same and token else None

    def is_valid(self, key: Key) -> bool:
        """Return whether a session may go on that logged in with this key.

        False once the account is removed or disabled, has another key, or
        its rights have changed.
        """
        return self._found.keys.get(key.user) == key

    def _look(self) -> _Found:
        found = self._found
        try:
            status = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            self._seen = None
            problem = found.problem
            if found.is_needed:
                problem = f"{self.path}: is gone: no key is valid"
            return replace(found, keys={}, problem=problem)
        except OSError as error:
            self._seen = None
            problem = f"{self.path}: {error.strerror}"
            return replace(found, is_needed=True, problem=problem)
        seen = (
            status.st_mtime_ns,
            status.st_size,
            status.st_ino,
            status.st_ctime_ns,
        )
        if seen == self._seen:
            return found
        # Taken before the file is read: a change meanwhile is seen next time.
        is_settled = status.st_ctime_ns < time.time_ns() - SETTLED_NS
        self._seen = seen if is_settled else None
        return self._read()

    def _read(self) -> _Found:
        try:
            accounts = read_keys(self.path)
        except KeysError as error:
            return replace(self._found, is_needed=True, problem=str(error))
        keys = {
            user: Key(user, entry.is_admin, entry.sha256)
            for user, entry in accounts.items()
            if not entry.is_disabled
        }
        return _Found(keys, frozenset(accounts), is_needed=True)
