"""A cluster is broken under load: the short form of `make cluster-crash`."""

from __future__ import annotations

from pathlib import Path

import pytest

from util.measure.cluster_crash import BOTS, crash
from util.measure.prober import Told, check_alone

REPLIES = 300
# nats-py forgets to close the transport of a connection that it has lost.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.mark.parametrize(
    "faults",
    [
        ("kill", "stop", "cut", "bye", "kill"),
        ("leader",),
        ("quorum",),
        ("machine",),
    ],
    ids="+".join,
)
async def test_nothing_is_lost_and_nothing_doubled(
    tmp_path: Path, faults: tuple[str, ...]
) -> None:
    counts, took = await crash(tmp_path, 7, faults, replies=REPLIES)
    assert counts["faults"] == len(faults)
    assert counts["commands"] > BOTS  # each has logged in
    assert counts["answers to the prober"] > len(faults)  # each primary told
    assert sum(map(len, took.values())) == len(faults)


def test_a_primary_that_tells_after_its_successor_is_noticed() -> None:
    first, second = Told(9, 1.0, 3.0), Told(5, 3.1, 4.0)
    check_alone({"second": second, "first": first})
    late = Told(9, 1.0, 3.2)
    with pytest.raises(AssertionError, match="first told .* 0.100 s after"):
        check_alone({"first": late, "second": second})
