"""The key file: the accounts, and a digest of each account's token.

``python -m util.accounts`` shows a new token once; the file has only its
digest. It shows an API secret beside it, which signs requests of the exchange
dialect; the file has it as it is, because only so a signature can be checked.
The key file is JSON. It is replaced as a whole, so a reader finds either the
keys before a change or those after it. No token is part of the file, and
neither a token nor a secret is part of a repr or an exception.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from exchange.files import HAS_OWNERS, lock, sync_folder, text_of
from exchange.market.accounts import LATER_ROLES
from orderbook import RoleName, Ts, User

DEFAULT_PATH = Path("data/keys.json")
FORMAT_VERSION: Final = 1
TOKEN_BYTES = 32  # 256 random bits cannot be guessed


class KeysError(Exception):
    """The key file cannot be used; the text names it and the reason."""


# Tokens -------------------------------------------------------------------


def make_token() -> str:
    """Return a new token: 43 characters that need no escaping."""
    while True:
        token = secrets.token_urlsafe(TOKEN_BYTES)
        if not token.startswith("-"):  # `--token -x` would be an option
            return token


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token, in hexadecimal; raises nothing.

    A slow hash and a salt protect secrets that can be guessed or that two
    people may share. 256 random bits are neither.
    """
    # Lone surrogates are encoded too: an exception would show the token.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


# The file -----------------------------------------------------------------


Secret: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]


class Entry(BaseModel):
    """One account in the key file; times are microseconds.

    ``is_admin`` says which of the first two roles it has, as it did before
    there were others. ``role`` is written for the other ones only: a program
    of that time reads a file that has none of them.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        repr=False
    )
    is_admin: bool
    is_disabled: bool
    created_ts: Ts
    rotated_ts: Ts  # when its key was made; at first created_ts
    role: RoleName | None = None
    api_secret: Secret | None = Field(default=None, repr=False)  # None: older

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.role and self.is_admin != (self.role == "admin"):
            raise ValueError(f"role {self.role}: is_admin does not agree")
        return self


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


def make_entry(
    token: str, role: RoleName = "trader", api_secret: str | None = None
) -> Entry:
    """Return a new account with this token, role and API secret."""
    now = _now()
    return Entry(
        sha256=digest_of(token),
        is_admin=role == "admin",
        is_disabled=False,
        created_ts=now,
        rotated_ts=now,
        role=role if role in LATER_ROLES else None,
        api_secret=api_secret,
    )


def role_of(entry: Entry) -> RoleName:
    """Return the role of an account."""
    return entry.role or ("admin" if entry.is_admin else "trader")


def rotate(entry: Entry, token: str, api_secret: str | None = None) -> Entry:
    """Return the account with this token and secret, not its present ones."""
    return entry.model_copy(
        update={
            "sha256": digest_of(token),
            "rotated_ts": _now(),
            "api_secret": api_secret,
        }
    )


def _now() -> int:
    return time.time_ns() // 1_000  # microseconds, as everywhere


def read_keys(path: Path) -> Entries:
    """Return the accounts of a key file.

    Raises KeysError if it is missing, damaged, of another version, or
    readable by others than its owner. (On Windows the mode is not checked.)
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
    """Describe an error in a key file without showing a value of it."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    if where == "version":
        return f"of another version; this program reads {FORMAT_VERSION}"
    text = f"{where}: {problem['msg']}" if where else problem["msg"]
    return " ".join(text.split())  # one line, even if names have several


@contextmanager
def changing(path: Path, create: bool = False) -> Iterator[Entries]:
    """Yield the accounts of a key file to be changed; write them at the end.

    Waits while another process does the same. An exception inside leaves the
    file as it was. Raises OSError, and KeysError, also if there is no file and
    ``create`` is not set.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
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
    """Replace a key file as a whole; the caller holds the lock."""
    content = _File(version=FORMAT_VERSION, accounts=accounts)
    new = _beside(path, "new")
    new.unlink(missing_ok=True)  # left by a killed process
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(new, flags, 0o600), "w", encoding="utf-8") as file:
        # The file keeps its owner if root writes it.
        if HAS_OWNERS and path.exists():
            owner = path.stat()
            if owner.st_uid != os.geteuid():
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        text = content.model_dump_json(indent=2, exclude_none=True)
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    sync_folder(path.parent)  # a power failure must not restore an old key
