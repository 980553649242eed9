"""Looks at keys, certificate and disk, and what follows from them.

A `Lookout` looks at each in a thread. The result takes effect in a step of the
server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial

from exchange.gateway.gateway import Gateway
from exchange.host.admission import describe
from exchange.host.committer import Seen
from exchange.host.keyring import KeyRing
from exchange.host.lookout import Lookout
from exchange.host.tls import Certificate
from exchange.journal.sqlite import SPACE_ENOUGH, SPACE_LOW
from exchange.journal.storage import Storage

KEYS_S = 1.0  # between looks at the key file: revoked keys end sessions
CERTIFICATE_S = 5.0  # between looks at the certificate files
DISK_S = 1.0  # between looks at the journal's disk
NO_SPACE = "the journal's disk is nearly full"

logger = logging.getLogger("exchange")


class Looks:
    """Looks at the key file, the certificate and the journal's disk.

    ``step`` does some work and writes its results. ``executor`` runs the
    looks; None: a thread for each kind.
    """

    def __init__(
        self,
        gateway: Gateway,
        step: Callable[[Callable[[], object]], None],
        *,
        keys: KeyRing,
        certificate: Certificate | None,
        executor: Executor | None,
    ) -> None:
        self._executor = executor
        self.keys = Lookout(
            f"keys {keys.path}", keys.refresh, self._saw_keys, KEYS_S, executor
        )
        self._certificate_looks: Lookout[bool] | None = None
        self._disk_looks: Lookout[Seen] | None = None
        self._gateway = gateway
        self._step = step
        self._keys = keys
        self._keys_problem: str | None = None  # as last logged
        self._admission = describe(keys)  # as last printed or logged
        self._certificate = certificate
        self._certificate_problem: str | None = None  # as last logged

    def start(self, journal: Storage | None) -> None:
        """Look at everything, and go on at intervals."""
        self._log_keys()
        self.keys.start()
        if journal is not None:
            self._disk_looks = Lookout(
                f"journal {journal.path}",
                journal.look,
                partial(self._saw_disk, journal),
                DISK_S,
                self._executor,
            )
            self._disk_looks.start()
        if self._certificate is not None:
            self._certificate_looks = Lookout(
                f"certificate {self._certificate.path}",
                self._certificate.refresh,
                self._saw_certificate,
                CERTIFICATE_S,
                self._executor,
            )
            self._certificate_looks.start()

    def reload(self) -> None:
        """Look at the key file and at the certificate now."""
        logger.info("reading keys and certificate again")
        self.keys.look()
        if self._certificate_looks is not None:
            self._certificate_looks.look()

    def stop(self) -> None:
        """Stop looking."""
        for looks in (self.keys, self._disk_looks, self._certificate_looks):
            if looks is not None:
                looks.stop()

    # Keys

    def _saw_keys(self, look: Future[bool]) -> None:
        self._step(look.result)
        self._log_keys()
        self._step(self._gateway.logins.check_keys)

    def _log_keys(self) -> None:
        """Log a change of the key file's problem, or of how users log in."""
        if self._keys.problem != self._keys_problem:
            self._keys_problem = self._keys.problem
            text = self._keys_problem or "the key file can be used again"
            logger.warning("%s", text)
        if describe(self._keys) != self._admission:
            self._admission = describe(self._keys)
            logger.warning("logins: %s", self._admission)

    # The certificate

    def _saw_certificate(self, look: Future[bool]) -> None:
        self._step(lambda: self._log_certificate(look.result()))

    def _log_certificate(self, is_new: bool) -> None:
        """Log once whether a replaced certificate is used."""
        assert self._certificate is not None
        before, problem = self._certificate_problem, self._certificate.problem
        self._certificate_problem = problem
        if problem is not None and problem != before:
            logger.warning("%s; the last good certificate stays", problem)
        elif is_new or problem != before:
            logger.info("the certificate is good and in use")

    # The disk

    def _saw_disk(self, journal: Storage, look: Future[Seen]) -> None:
        self._step(
            lambda: heed_disk(self._gateway, journal.path, look.result())
        )


def heed_disk(gateway: Gateway, journal: object, seen: Seen) -> None:
    """Refuse new orders while ``journal`` cannot keep them; announce it."""
    before = gateway.sequencer.disk_trouble
    trouble, free = seen
    enough = SPACE_ENOUGH if before == NO_SPACE else SPACE_LOW - 1
    if not trouble and free <= enough:
        trouble = NO_SPACE
    if trouble == before:
        return
    gateway.sequencer.disk_trouble = trouble
    if trouble:
        gateway.announce(f"{trouble}: no new orders")
        logger.warning("%s: %s: new orders are refused", journal, trouble)
    else:
        gateway.announce("new orders are accepted again")
        logger.warning("%s: new orders are accepted again", journal)
