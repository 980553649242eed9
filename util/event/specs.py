"""How each process of an event is started: exchange, bots, pages."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from exchange.doors.names import in_url
from util.measure.process import ROOT

from .fair import FILE as FAIR
from .file import Event
from .file_checks import HOUSE_PREFIX
from .keys import KEYS_FILE, TOKENS_FILE, tokens_of
from .market import MARKET_FILE
from .processes import BOT, Spec, checkout, python
from .record import Key

# Names of processes. Those of house bots begin so.
EXCHANGE = "exchange"
PAGES = "pages"
FRONT = "front"
HOUSE = "house bots of "
JOURNAL_FILE = "journal.db"
PORT_FILE = "exchange.port"
BOTS_FOLDER = "bots"
BOT_LOG = "bot.log"
BOT_LOG_MAX = 16 << 20  # bytes; then the middle is dropped
ANSWER_S = 1.0  # an exchange on this machine answers in milliseconds
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def local_host(event: Event) -> str:
    """Return the name by which this machine reaches the exchange."""
    return EVERYWHERE.get(event.event.host, event.event.host)


def local_url(event: Event) -> str:
    """Return the address by which this machine reaches the exchange."""
    return f"ws://{in_url(local_host(event))}:{event.event.front}"


def http_url(event: Event) -> str:
    """Return the address of the exchange's pages on this machine."""
    return local_url(event).replace("ws:", "http:", 1)


def port_file(event: Event) -> Path:
    """Return the file that is there while the exchange listens."""
    return event.folder / PORT_FILE


def is_ready(event: Event) -> bool:
    """Return whether the exchange listens and accepts orders."""
    if not port_file(event).exists():
        return False
    url = f"{http_url(event)}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def exchange_of(event: Event) -> Spec:
    """Return the exchange of an event."""
    folder = event.folder
    return Spec(
        name=EXCHANGE,
        owner=folder,
        command=python(str(ROOT / "server.py")),
        folder=folder,
        log=folder / "exchange.log",
        variables=checkout(
            hostname=event.event.host,
            port=event.event.front,
            port_file=port_file(event),
            market=folder / MARKET_FILE,
            journal=folder / JOURNAL_FILE,
            keys=folder / KEYS_FILE,
            debug=0,
        ),
        port=event.event.front,
    )


def house_of(event: Event, key: Key) -> Iterator[Spec]:
    """Yield the house bots of a match, if there are any."""
    fair = event.folder / key.round / key.match / FAIR
    yield from house_at(event, fair, f"{key.round}/{key.match}/{key.attempt}")


def house_at(event: Event, fair: Path | None, label: str) -> Iterator[Spec]:
    """Yield house bots of hidden values in a file; None: of their own."""
    house = event.house
    if house is None:
        return
    folder, rate = event.folder, house.trades_per_s
    yield Spec(
        name=f"{HOUSE}{label}",
        owner=folder,
        command=python(
            *("-m", "util.bots"),
            *("--url", local_url(event)),
            *(() if fair is None else ("--fair", str(fair))),
            *("--tokens", str(folder / TOKENS_FILE)),
            *("--user-prefix", HOUSE_PREFIX),
            *("--makers", str(house.makers)),
            *("--noise", str(house.noise)),
            *("--informed", str(house.informed)),
            *("--arbitrageurs", str(house.arbitrageurs)),
            *("--speed", str(house.speed)),
            *(() if rate is None else ("--trades-per-s", str(rate))),
        ),
        folder=folder,
        log=folder / "house.log",
        variables=checkout(),
        log_max=BOT_LOG_MAX,
    )


def bots_of(event: Event, front: str = "") -> Iterator[Spec]:
    """Yield the bots of teams that run on this machine and have a key.

    ``front`` is the address of a front, where each team has a path.
    """
    tokens = tokens_of(event.folder)
    doors = event.event.doors
    for team, settings in event.teams.items():
        if not settings.bot or team not in tokens:
            continue
        variables = {
            "EXCHANGE_URL": f"{front}/t/{team}" if front else local_url(event),
            "EXCHANGE_USER": team,
            "EXCHANGE_TOKEN": tokens[team],
            "EXCHANGE_HOST": local_host(event),
            "EXCHANGE_JSON_PORT": str(doors.json_port if doors else 0),
            "EXCHANGE_LINE_PORT": str(doors.line_port if doors else 0),
        }
        folder = event.folder / BOTS_FOLDER / team
        yield Spec(
            name=f"{BOT}{team}",
            owner=event.folder,
            command=[
                *program_of(settings.bot[0]),
                *(_absolute(event, word) for word in settings.bot[1:]),
            ],
            folder=folder,
            log=folder / BOT_LOG,
            variables=checkout() | variables,
            log_max=BOT_LOG_MAX,
        )


def program_of(word: str) -> list[str]:
    """Return a program; "python" is the one that runs this, with `client`."""
    return python() if word in ("python", "python3") else [word]


def _absolute(event: Event, word: str) -> str:
    """Return an argument; a path beside the event file becomes absolute.

    A bot runs in a folder of its own, where the path would not be found.
    """
    path = event.path.parent.absolute() / word
    return str(path) if word and path.exists() else word


def pages_of(event: Event) -> Spec:
    """Return the server of standings and downloads."""
    folder = event.folder
    return Spec(
        name=PAGES,
        owner=folder,
        command=python(
            *("-m", "util.event", "serve", str(event.path.absolute()))
        ),
        folder=folder,
        log=folder / "pages.log",
        variables=checkout(),
        port=event.event.pages,
        log_max=BOT_LOG_MAX,
    )
