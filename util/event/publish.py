"""What is made after a match: dossiers and standings, from the journal."""

from __future__ import annotations

import os
import shutil

from exchange.journal.sqlite import JournalError

from .draws import teams_of
from .fair import FairError
from .figures import ResultError
from .file import Event
from .record import Key
from .scoring import RuleError
from .specs import BOT_LOG, BOTS_FOLDER
from .standings import write_standings

# What `publish` may raise.
UNSCORED = (ResultError, FairError, JournalError, RuleError, OSError)


def publish(event: Event, key: Key) -> None:
    """Write the dossiers of a match, and the standings; raises UNSCORED."""
    write_standings(event, dossiers_of=(key.round, key.match))
    for team in teams_of(event, key.round, key.match):
        log = event.folder / BOTS_FOLDER / team / BOT_LOG
        if log.exists():
            folder = event.folder / key.round / key.match / team
            shutil.copyfile(log, folder / BOT_LOG)
            os.truncate(log, 0)  # the bot appends, and goes on at the start
