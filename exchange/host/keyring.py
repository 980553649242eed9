"""The keys that are valid now.

A KeyRing follows the key file without a restart.
"""

from __future__ import annotations

import hmac
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from exchange.host.keyfile import KeysError, digest_of, read_keys, role_of
from orderbook import RoleName

# Answers of /v1/access: how a client logs in.
ACCESS_BY_KEY = "ok: a login needs a key"
ACCESS_BY_NAME = "ok: a name is enough to log in"
# Two changes within one tick of the kernel's clock, at most 10 ms, may leave
# the same times on a file. A file that was read within this time after its
# last change is read again at the next look.
RECHECK_NS = 100_000_000

# Compared if an account has no valid key, so that it takes the same time.
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class Key:
    """The account, the role and the digest of one key."""

    user: str
    role: RoleName
    sha256: str = field(repr=False)
    api_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Found:
    """The result of one look at the key file."""

    keys: dict[str, Key] = field(default_factory=dict)  # without disabled ones
    by_digest: dict[str, Key] = field(default_factory=dict)  # the same
    names: frozenset[str] = frozenset()  # of all accounts in the file
    is_needed: bool = False
    problem: str | None = None


class KeyRing:
    """The valid keys of a key file that may change.

    ``is_open``: a user without a key in the file logs in by name.
    ``is_needed``: a login needs a key, because there is a key file or has been
    one since this ring was made. So removing the file locks everybody out.
    ``problem`` describes an error of the file, or is None; while the file is
    unreadable, the keys last read stay in force.

    Everything is as of the last `refresh`. One thread may call that while
    another reads: its result takes effect as a whole.
    """

    def __init__(self, path: Path, is_open: bool = False) -> None:
        """Read a key file if it exists; raise nothing."""
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
        """What is wrong with the key file; None: nothing."""
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
        """Return whether a user may log in by name, without a key."""
        found = self._found
        if self.is_open:
            return user not in found.names
        return not found.is_needed

    def check(self, user: str, token: str | None) -> Key | None:
        """Return the key of a user if the token is right and it is valid.

        Takes the same time for a wrong token, an unknown user and a disabled
        one.
        """
        key = self._found.keys.get(user)
        is_same = hmac.compare_digest(
            digest_of(token or ""), key.sha256 if key else _NO_DIGEST
        )
        return key if is_same and token else None

    def of(self, user: str) -> Key | None:
        """Return the valid key of a user, to check a signature with it."""
        return self._found.keys.get(user)

    def of_token(self, token: str) -> Key | None:
        """Return the valid key with this token."""
        return self._found.by_digest.get(digest_of(token))

    def of_trader(self, user: str) -> Key | None:
        """Return the valid key of a user whose role is that of a trader."""
        key = self.of(user)
        return None if key is None or key.role != "trader" else key

    def is_valid(self, key: Key) -> bool:
        """Return whether a session with this key may go on.

        False after the account is removed or disabled, or has another key or
        role.
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
                problem = f"{self.path}: the file is gone: no key is valid"
            return replace(found, keys={}, by_digest={}, problem=problem)
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
        # Status before content: a change in between is found at the next look.
        is_certain = status.st_ctime_ns < time.time_ns() - RECHECK_NS
        self._seen = seen if is_certain else None
        return self._read()

    def _read(self) -> _Found:
        try:
            accounts = read_keys(self.path)
        except KeysError as error:
            return replace(self._found, is_needed=True, problem=str(error))
        keys = {
            user: Key(user, role_of(entry), entry.sha256, entry.api_secret)
            for user, entry in accounts.items()
            if not entry.is_disabled
        }
        by_digest = {key.sha256: key for key in keys.values()}
        return _Found(keys, by_digest, frozenset(accounts), is_needed=True)
