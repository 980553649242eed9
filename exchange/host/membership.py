"""Whether a process shares its journal with others, and its exit status."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from exchange.gateway.edge import EdgeGateway
from exchange.host.clock import Clock
from exchange.host.market_file import SettingsError
from exchange.host.metrics import Timing
from exchange.host.settings import Settings
from exchange.journal.address import Address
from exchange.journal.lease import Fenced
from exchange.journal.sqlite import JournalError

if TYPE_CHECKING:  # it needs nats-py, and few exchanges need that
    from exchange.host.edge import Edge
    from exchange.host.member import Member, Primary

logger = logging.getLogger("exchange")
FENCED = 3  # exit status: start it again, as a standby


def member_of(
    server: Primary, settings: Settings, clock: Clock, timing: Timing
) -> Member | Edge | None:
    """Return the part of a server that shares a stream; None: it has none.

    Raises SettingsError if the client of NATS is not installed.
    """
    if not isinstance(settings.journal, Address):
        return None
    try:
        from exchange.host.edge import Edge
        from exchange.host.member import Member
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "nats":
            raise
        raise SettingsError(
            f"{settings.journal}: a stream needs nats-py: poetry install"
            " --with cluster, or pip install nats-py"
        ) from None
    if isinstance(server.gateway, EdgeGateway):
        return Edge(
            settings.journal,
            server=server,
            gateway=server.gateway,
            clock=clock,
        )
    return Member(
        settings.journal,
        lease=settings.lease,
        server=server,
        clock=clock,
        timing=timing,
    )


def log_failure(error: Exception) -> None:
    """Log why a server ends; its own bugs with where they happened."""
    is_known = isinstance(error, (Fenced, JournalError, SettingsError))
    logger.critical(
        "the exchange stops%s",
        f": {error}" if is_known else "",
        exc_info=None if is_known else error,
    )


def exit_status(failure: Exception | None) -> int:
    """Return the exit status of a server that has ended.

    Raises the failure if it is one of the journal or of the settings, as at a
    start: a standby meets these later.
    """
    if isinstance(failure, (JournalError, SettingsError)):
        raise failure
    if isinstance(failure, Fenced):
        return FENCED
    return 0 if failure is None else 1
