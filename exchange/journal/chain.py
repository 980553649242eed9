"""The chain of digests of a journal, and what is verified along it.

Each batch carries a digest that covers it and all batches before it, so a
flipped bit or a missing batch is noticed before its commands are applied.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from exchange.journal.records import decode_records, rules_in
from exchange.market.command import RULES, Command, Configure

NO_DIGEST = bytes(hashlib.sha256().digest_size)  # before the first batch


class Place(NamedTuple):
    """A place between two batches: after command ``seq``, 0 at the beginning.

    ``digest`` is that of the batch with this command.
    """

    seq: int
    digest: bytes


BEGINNING = Place(0, NO_DIGEST)


class JournalError(Exception):
    """The journal cannot be used, and was not changed."""


class Chain:
    """The end of a journal, up to which it was verified.

    Args:
        name: of the journal, in errors.
        rules: the versions of the rules that commands may need.
        seq: of the last command before the batches to come.
        digest: of the batch with that command.
    """

    def __init__(
        self,
        name: object,
        rules: range = RULES,
        seq: int = 0,
        digest: bytes = NO_DIGEST,
    ) -> None:
        self.seq = seq
        self.digest = digest
        self._name = name
        self._rules = rules

    def after(self, first_seq: int, last_seq: int, records: bytes) -> bytes:
        """Return the digest of the batch that would be next."""
        head = f"{first_seq} {last_seq} ".encode()
        return hashlib.sha256(self.digest + head + records).digest()

    def add(self, last_seq: int, digest: bytes) -> None:
        """Go on to the batch that ends with ``last_seq``."""
        self.seq, self.digest = last_seq, digest

    def verify(
        self, first_seq: int, last_seq: int, digest: bytes, records: bytes
    ) -> list[Command]:
        """Return the commands of the next batch, and go on to it.

        Raises JournalError, and does not go on, if the batch does not follow,
        is damaged, or cannot be read by this program.
        """
        where = f"{self._name}: after command {self.seq}"
        if first_seq != self.seq + 1 or digest != self.after(
            first_seq, last_seq, records
        ):
            raise JournalError(f"{where}: a batch is missing or damaged")
        try:
            self._check_rules(rules_in(records))
            commands = decode_records(first_seq, records)
        except ValueError:
            raise JournalError(
                f"{where}: a record that this program cannot read"
            ) from None
        if not self.seq and not isinstance(commands[0].action, Configure):
            raise JournalError(
                f"{self._name}: the first command is not a configuration"
            )
        self.add(last_seq, digest)
        return commands

    def _check_rules(self, needed: list[int]) -> None:
        known = self._rules
        for version in needed:
            if version in known:
                continue
            oldest, newest = known[0], known[-1]
            versions = f"version {newest}"
            if oldest < newest:
                versions = f"versions {oldest} to {newest}"
            age = "a newer" if version > newest else "an older"
            raise JournalError(
                f"{self._name}: needs version {version} of the rules; this"
                f" program has {versions}: use {age} release"
            )
