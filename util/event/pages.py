"""Standings and downloads over HTTP: what is public when, and to whom.

Every path is looked up in tables: the files of the page, the rounds and
matches of the record, the files that a folder lists. A path never reaches the
disk as it was asked for.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import html
import json
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from exchange.doors.http import CONTENT_TYPES, HEADERS
from exchange.doors.http import PAGE as EXCHANGE_PAGE
from exchange.doors.http import PLAIN
from exchange.host.keyfile import KeysError, digest_of, read_keys

from .draws import matches_of
from .file import Event
from .keys import KEYS_FILE
from .live import LIVE_FILE
from .matches import last_attempt, names_of
from .record import Attempt, Record
from .results import JOURNAL
from .uptime import PRACTICE, SERVERS, read_uptime

PAGE = Path(__file__).parent / "page"
STYLES = ("page.css", "market.css", "layout.css")  # the exchange's own
SHARED = (*STYLES, "icon.svg")  # files of its page
TYPES = {
    **CONTENT_TYPES,
    ".csv": "text/csv; charset=utf-8",
    ".db": "application/vnd.sqlite3",
    ".json": "application/json",
    ".toml": PLAIN,
    ".log": PLAIN,
}
STANDINGS = ("standings.json", "standings.csv")
PUBLIC = "public"  # folder of a match
FAIR = "fair.csv"
REALM = 'Basic realm="team and its key", charset="UTF-8"'
# Bytes of a file from which it is read while it is sent, or many readers of
# a journal would fill the memory.
LARGE = 256 * 1024
NO_DIGEST = "0" * 64  # compared if there is no such team


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; ``file`` has ``size`` bytes, in place of a body."""

    body: bytes
    content_type: str = PLAIN
    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)
    file: Path | None = None
    size: int = 0

    @property
    def all_headers(self) -> dict[str, str]:
        """Return every header of the answer."""
        return {
            **HEADERS,
            "Content-Type": self.content_type,
            "Content-Length": str(self.size or len(self.body)),
            **self.headers,
        }


def failure(status: HTTPStatus, **headers: str) -> Answer:
    """Return the answer that only says a status."""
    return Answer(
        f"{status.phrase}.\n".encode(), status=status, headers=headers
    )


NOT_FOUND = failure(HTTPStatus.NOT_FOUND)


class Pages:
    """Answers requests about one event; each one reads the files again."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._files = {
            f"/{path.name}": path
            for path in (
                *PAGE.iterdir(),
                *(EXCHANGE_PAGE / name for name in SHARED),
            )
            if path.suffix in TYPES
        }
        self._files["/"] = PAGE / "index.html"

    def answer(self, target: str, authorization: str | None) -> Answer:
        """Answer a GET for a target, with its Authorization header."""
        path = target.partition("?")[0]
        if path in self._files:
            return _file(self._files[path])
        try:
            parts = [unquote(p, errors="strict") for p in path.split("/")[1:]]
        except UnicodeDecodeError:
            return failure(HTTPStatus.BAD_REQUEST)
        match parts:
            case [name] if name in STANDINGS:
                return _file(self._event.folder / name)
            case ["now.json"]:
                return _json(self._now())
            case ["secret" | "journal.db" as name]:
                return self._after_event(name)
            case ["public", round_name, name, ""]:
                return self._listing(self._public(round_name, name))
            case ["public", round_name, name, file]:
                found = self._public(round_name, name)
                return _file(found[file]) if file in found else NOT_FOUND
            case ["practice", server, ""]:
                return self._listing(self._practice(server))
            case ["practice", server, file]:
                found = self._practice(server)
                return _file(found[file]) if file in found else NOT_FOUND
            case ["t", team, "dossiers", *rest]:
                return self._dossiers(team, rest, authorization)
        return NOT_FOUND

    # What is public when

    def _record(self) -> tuple[dict[Any, Attempt], bool]:
        """Return all attempts, and whether the event is over."""
        with Record.of(self._event.folder) as record:
            return record.attempts(), record.is_over()

    def _scored(self, round_name: str, name: str) -> Attempt | None:
        """Return the attempt at a match that counts, if it is scored."""
        last = last_attempt(self._record()[0], round_name, name)
        if last is None or last.status != "scored":
            return None
        return last

    def _public(self, round_name: str, name: str) -> dict[str, Path]:
        """Return the files of a match that everybody may read, by name."""
        if self._scored(round_name, name) is None:
            return {}
        folder = self._event.folder / round_name / name
        found = _regular(folder / PUBLIC)
        if (folder / FAIR).is_file():
            found[FAIR] = folder / FAIR
        if self._event.is_large and self._are_journals_public():
            found[JOURNAL] = folder / JOURNAL
        return found

    def _published(self, round_name: str, name: str) -> bool:
        """Return whether a team may read its dossier of a match."""
        attempts, is_over = self._record()
        if self._scored(round_name, name) is None:
            return False
        when = self._event.event.publish
        if when == "after_event":
            return is_over
        if when == "after_round":
            for other in names_of(self._event, round_name):
                last = last_attempt(attempts, round_name, other)
                is_open = last is None or last.status not in ("scored", "void")
                if is_open:
                    return False
        return True

    def _are_journals_public(self) -> bool:
        return self._record()[1] and self._event.event.publish_journals

    def _after_event(self, name: str) -> Answer:
        """Answer with the secret of the hidden values, or the journal."""
        is_public = self._record()[1]
        if name == JOURNAL:
            is_public = self._are_journals_public()
        return _file(self._event.folder / name) if is_public else NOT_FOUND

    def _practice(self, server: str) -> dict[str, Path]:
        """Return hidden values of past matches of a practice server."""
        if server not in SERVERS:
            return {}
        return _regular(self._event.folder / PRACTICE / server / PUBLIC)

    # Dossiers

    def _dossiers(
        self, team: str, rest: list[str], authorization: str | None
    ) -> Answer:
        """Answer a team that has shown its key."""
        if not self._is_key(team, authorization):
            return failure(
                HTTPStatus.UNAUTHORIZED, **{"WWW-Authenticate": REALM}
            )
        match rest:
            case [""]:
                return self._listing(self._matches(team), is_folder=True)
            case [round_name, name, ""]:
                return self._listing(self._own(team, round_name, name))
            case [round_name, name, file]:
                found = self._own(team, round_name, name)
                return _file(found[file]) if file in found else NOT_FOUND
        return NOT_FOUND

    def _is_key(self, team: str, authorization: str | None) -> bool:
        """Return whether a header has the team's name and its valid key."""
        kind, _, coded = (authorization or "").partition(" ")
        try:
            text = base64.b64decode(coded, validate=True).decode()
            keys = read_keys(self._event.folder / KEYS_FILE)
        except (binascii.Error, ValueError, KeysError):
            return False
        user, _, token = text.partition(":")
        key = keys.get(team) if team in self._event.teams else None
        digest = NO_DIGEST if key is None or key.is_disabled else key.sha256
        is_same = hmac.compare_digest(digest_of(token), digest)
        return is_same and user == team and kind.lower() == "basic"

    def _matches(self, team: str) -> dict[str, Path]:
        """Return the matches whose dossiers a team may read, by their path."""
        folder = self._event.folder
        return {
            f"{settings.name}/{name}": folder
            for settings in self._event.rounds
            for name in names_of(self._event, settings.name)
            if (folder / settings.name / name / team).is_dir()
            and self._published(settings.name, name)
        }

    def _own(self, team: str, round_name: str, name: str) -> dict[str, Path]:
        """Return the files of a team's dossier, by name."""
        if not self._published(round_name, name):
            return {}
        return _regular(self._event.folder / round_name / name / team)

    def _listing(
        self, names: dict[str, Path], is_folder: bool = False
    ) -> Answer:
        """Answer with links to files, or to folders."""
        if not names and not is_folder:
            return NOT_FOUND
        slash = "/" if is_folder else ""
        links = "".join(
            f'<li><a href="{html.escape(name)}{slash}">{html.escape(name)}'
            "</a></li>"
            for name in sorted(names)
        )
        sheets = "".join(
            f'<link rel="stylesheet" href="/{name}">'
            for name in (*STYLES, "event.css")
        )
        text = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"{sheets}<title>Files</title>"
            f"<main><ul>{links or 'nothing yet'}</ul>"
            "</main></html>"
        )
        return Answer(text.encode(), CONTENT_TYPES[".html"])

    # What happens now

    def _now(self) -> dict[str, Any]:
        """Return the timetable, and the match that is played."""
        event = self._event
        attempts, is_over = self._record()
        rounds = []
        for settings in event.rounds:
            match = event.settings_of(settings.name)
            teams = {}
            if event.is_large:
                drawn = matches_of(event, settings.name)
                teams = {one.match: one.teams for one in drawn}
            for name in names_of(event, settings.name):
                last = last_attempt(attempts, settings.name, name)
                row: dict[str, Any] = {
                    "round": settings.name,
                    "match": name,
                    "teams": teams.get(name, ()),
                    "weight": settings.weight,
                    "warmup_s": match.warmup,
                    "trading_s": match.trading,
                    "status": "to come" if last is None else last.status,
                }
                if last is not None:
                    fair = last.done.get("fair", {})
                    row["fair_sha256"] = fair.get("sha256")
                    row["reason"] = last.reason
                    row["is_again"] = last.is_again
                rounds.append(row)
        with Record.of(event.folder) as record:
            paused = record.paused()
        return {
            "ts": time.time_ns() // 1_000,
            "name": event.event.name,
            "front": event.event.front,
            "is_large": event.is_large,
            "teams": [*event.teams],
            "is_over": is_over,
            "paused": paused,
            "rounds": rounds,
            "live": _live(event),
            "practice": read_uptime(event.folder / PRACTICE),
        }


def _live(event: Event) -> dict[str, Any]:
    """Return what the director wrote last; empty if there is nothing."""
    try:
        live: dict[str, Any] = json.loads(
            (event.folder / LIVE_FILE).read_text("utf-8")
        )
    except (OSError, ValueError):
        return {}
    return live


def _regular(folder: Path) -> dict[str, Path]:
    """Return the plain files of a folder by name; no links, no dot files."""
    if not folder.is_dir():
        return {}
    return {
        path.name: path
        for path in folder.iterdir()
        if path.is_file()
        and not path.is_symlink()
        and not path.name.startswith(".")
    }


def _file(path: Path) -> Answer:
    kind = TYPES.get(path.suffix, PLAIN)
    try:
        size = path.stat().st_size
        if size > LARGE:
            return Answer(b"", kind, file=path, size=size)
        return Answer(path.read_bytes(), kind)
    except OSError:
        return NOT_FOUND


def _json(value: object) -> Answer:
    return Answer(json.dumps(value).encode(), TYPES[".json"])
