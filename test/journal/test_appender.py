"""Every outcome of an append, with answers that servers give by a script."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import NoRespondersError, TimeoutError

from exchange.journal import appender as appender_module
from exchange.journal.address import Address
from exchange.journal.appender import Appender
from exchange.journal.lease import Fenced, Lease
from exchange.journal.message import BEAT, Message, Position, Writer
from exchange.journal.stream import Stream
from test.journal.streams import batch

ADDRESS = Address.read("nats://a/main")
T = 1_000_000
FIRST = 500  # when the first try is sent; each answer takes STEP
STEP = 100_000
AT = Position(1, bytes(32), 9)


def acked(sequence: int) -> Any:
    return {"stream": "EX_main", "seq": sequence}


def refused(code: int = 10071) -> Any:
    text = "wrong last sequence: 10"
    return {"error": {"code": 400, "err_code": code, "description": text}}


def stored(message: Message) -> Any:
    lines = [f"{k}: {v}" for k, v in message.headers(9).items()]
    raw = "\r\n".join(["NATS/1.0", *lines, "", ""]).encode()
    return {
        "message": {
            "hdrs": b64encode(raw).decode(),
            "data": b64encode(message.body).decode(),
        }
    }


NOBODY = {"error": {"code": 404, "err_code": 10037, "description": "none"}}
FULL = {"error": {"code": 503, "err_code": 10077, "description": "maximum"}}
ELECTION = {"error": {"code": 503, "err_code": 10008, "description": "wait"}}


class Script:
    """Gives one answer after the other; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = [*answers]
        self.asked: list[tuple[str, bytes, Any]] = []
        self.time = FIRST

    def now(self) -> int:
        return self.time

    async def request(
        self,
        subject: str,
        payload: bytes,
        timeout: float,
        *,
        headers: dict[str, Any] | None,
    ) -> Msg:
        self.asked.append((subject, payload, headers))
        self.time += STEP
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        data = json.dumps(answer).encode()
        return Msg(_client=None, subject=subject, data=data)  # type: ignore


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender_module, "AGAIN_S", 0)


class Append:
    """One append with scripted answers."""

    def __init__(self, *answers: Any) -> None:
        self.script = Script(*answers)
        self.lease = Lease(T)
        stream = Stream(self.script, ADDRESS, "ex.main.id")
        self.writer = Writer("one", T)
        self.message = batch(self.writer, AT)
        self.appender = Appender(stream, self.lease, self.script.now, AT)

    async def run(self) -> Position:
        await self.appender.append(self.message)
        assert not self.script.answers
        return self.appender.at

    @property
    def appends(self) -> int:
        """How often it was sent, each time the same."""
        sent = [ask for ask in self.script.asked if ask[0] == "ex.main.id"]
        assert all(ask == sent[0] for ask in sent)
        return len(sent)


def until(sent: int) -> int:
    return sent + T * 8 // 10


async def test_an_acknowledgement() -> None:
    append = Append(acked(10))
    assert await append.run() == Position(2, append.message.digest, 10)
    assert append.lease.until == until(FIRST)
    headers = append.script.asked[0][2]
    assert headers["Nats-Expected-Last-Sequence"] == "9"


async def test_ours_counts_from_the_first_try() -> None:
    """An earlier try was stored, and nobody knows when: the lease is old.

    A primary that slept between the tries must not believe that it leads.
    """
    append = Append(TimeoutError(), refused(), None)
    append.script.answers[2] = stored(append.message)
    await append.run()
    assert append.appends == 2
    assert append.lease.until == until(FIRST)


async def test_an_acknowledgement_counts_from_its_own_try() -> None:
    append = Append(TimeoutError(), NoRespondersError(), acked(10))
    await append.run()
    assert append.appends == 3
    assert append.lease.until == until(FIRST + 2 * STEP)


@pytest.mark.parametrize("code", [10071, 10164])
async def test_another_process_has_written(code: int) -> None:
    append = Append(refused(code), stored(Writer("two", T).sign(BEAT, AT)))
    append.lease.stored(FIRST)
    with pytest.raises(Fenced, match="two has written message 10"):
        await append.run()
    assert not append.lease.holds(FIRST)


async def test_the_same_commands_of_another_process_are_not_ours() -> None:
    append = Append(refused(), stored(batch(Writer("two", T), AT)))
    with pytest.raises(Fenced):
        await append.run()


async def test_a_refusal_for_an_append_under_way_is_no_answer() -> None:
    append = Append(refused(), NOBODY, refused(), None)
    append.script.answers[3] = stored(append.message)
    await append.run()
    assert append.appends == 2
    assert append.lease.until == until(FIRST)


async def test_a_refusal_that_nobody_explains_is_no_answer() -> None:
    append = Append(refused(), TimeoutError(), acked(10))
    await append.run()
    assert append.appends == 2


@pytest.mark.parametrize(
    "answer, trouble",
    [
        (TimeoutError(), "timeout"),
        (NoRespondersError(), "no leader"),
        (FULL, "full"),
        (ELECTION, "wait"),
        (acked(12), "12"),
    ],
)
async def test_other_answers_say_nothing(
    answer: Any, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    append = Append(answer, answer, acked(10))
    await append.run()
    assert append.appends == 3
    first, last = caplog.messages
    assert trouble in first
    assert "stored again" in last
