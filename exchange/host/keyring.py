"""Who may log in: the keys that are valid now, as the key file has them.

The server asks a KeyRing, which follows the file without a restart.
"""

from __future__ import annotations

import hmac
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from exchange.host.keyfile import KeysError, digest_of, read_keys

# What /v1/access answers: how a client logs in.
ACCESS_BY_KEY = "ok: a login needs a key"
ACCESS_BY_NAME = "ok: a name is enough to log in"
# Two changes within one tick of the kernel's clock, 10 ms at most, may leave
# a file looking the same. A file read within this time after its last change
# is read again at the next look.
SETTLED_NS = 100_000_000

# Compared with where an account has no valid key, to take the same time.
_NO_DIGEST = "0" * 64


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
