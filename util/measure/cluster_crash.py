"""Break a cluster under load again and again, and check what it promised.

``python -m util.measure.cluster_crash CYCLES`` runs three servers of NATS,
two exchanges that share a stream on them, and the bots of
`util.measure.crash`. In each cycle one fault ends the time of the primary:

- ``kill``: its process is killed, at a random moment;
- ``stop``: it is stopped, and wakes when the other one leads. It must tell
  nobody anything, and end with status 3;
- ``cut``: it loses the servers of NATS, but not its clients. The same holds
  for it;
- ``bye``: it is told to end, and says so;
- ``leader``: the leader of the stream is killed, and then started again. The
  exchange goes on by itself, and is killed after that;
- ``quorum``: two servers stop for a while. Likewise;
- ``machine``: the primary and the leader of the stream are killed at once.

After each, the whole stream is read: it must hold all that the bots were told,
to the byte and once, as `util.measure.crash` checks it for one process. And no
primary may have told anybody anything after its successor had begun to: a
`util.measure.prober` asks both all the time. The time is taken from the fault
until the next primary takes clients; where the primary goes on, until it
answers again.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median

from tqdm import tqdm

from exchange.journal.address import Address
from exchange.journal.follower import Follower
from exchange.journal.servers import Unanswered, ask
from exchange.journal.sqlite import Journal
from exchange.journal.stream import Stream
from util.cli import amount_and_seed, new_parser
from util.measure.cluster import POLL_S, STREAM, Member, members_of, primary_of
from util.measure.crash import BOTS, CASH, REPLIES, set_up
from util.measure.crash_bot import Bot, Course
from util.measure.crash_record import Record
from util.measure.cut import Line
from util.measure.nats_servers import NatsServer, NatsServers, nats_servers
from util.measure.prober import check_alone, probing
from util.measure.wire import PATIENCE_S

LEASE_S = 1
PATIENT_S = 4  # the same, where clients are to wait for the stream
CYCLES_PER_STREAM = 25  # each cycle reads all of it
FENCED = 3  # exit status
ENDING = "the exchange is shutting down"
# How long two servers of NATS stop.
QUORUM_S = 4
READ_S = 0.2  # without a message, after which the end of the stream is asked

# Of ten cycles: most kill the process, and each fault occurs.
FAULTS = (
    *("kill", "stop", "kill", "cut", "kill"),
    *("bye", "kill", "machine", "leader", "quorum"),
)
PATIENT = ("leader", "quorum")


class Cluster:
    """What a fault can break."""

    def __init__(
        self, servers: NatsServers, members: list[Member], line: Line
    ) -> None:
        self.servers = servers
        self.members = members
        self.line = line  # from the first member to the servers
        self.bots: Sequence[Bot] = ()
        self.broken_at = 0.0  # when the time of the primary ended
        self.paused_s: float | None = None  # if the primary went on

    async def leader(self) -> NatsServer:
        """Return the leader of the stream."""
        while True:
            try:
                stream = await self.stream()
                info = await ask(
                    stream.client,
                    f"$JS.API.STREAM.INFO.{stream.name}",
                    timeout_s=1,
                )
                await stream.close()
                return self.servers.named(info["cluster"]["leader"])
            except (Unanswered, KeyError):
                await asyncio.sleep(READ_S)

    async def stream(self) -> Stream:
        """Return a connection to the stream."""
        address = Address.read(self.servers.url(STREAM))
        while True:
            try:
                return await Stream.open(address, None)
            except Unanswered:
                await asyncio.sleep(READ_S)

    async def went_on(self, member: Member) -> None:
        """Wait until bots are answered again; then kill the primary."""
        before = self.told()
        while self.told() == before:
            await asyncio.sleep(POLL_S)
        paused_s = time.monotonic() - self.broken_at
        await self.end(member)
        self.paused_s = paused_s

    def told(self) -> int:
        """Return how much the bots have been told."""
        return sum(
            bot.seq
            + len(bot.trades)
            + sum(len(life.replies) for life in bot.lives)
            for bot in self.bots
        )

    def other(self, member: Member) -> Member:
        """Return the member that stands by."""
        return next(one for one in self.members if one is not member)

    def broken(self) -> None:
        """Note when the time of the primary ends."""
        self.broken_at = time.monotonic()
        self.paused_s = None

    async def end(self, member: Member) -> None:
        """Kill a primary."""
        self.broken()
        member.send(signal.SIGKILL)
        await asyncio.to_thread(member.server.process.wait)

    async def must_be_fenced(self, member: Member) -> None:
        """Wait for the end of a primary that has told nothing since."""
        status, errors = await member.server.ended()
        assert status == FENCED, (status, errors)

    # Faults

    async def kill(self, member: Member) -> None:
        """Kill the process."""
        await self.end(member)

    async def stop(self, member: Member) -> None:
        """Stop the process until the other one leads."""
        self.broken()
        member.send(signal.SIGSTOP)
        await primary_of(self.other(member))
        told = self.told()
        member.send(signal.SIGCONT)
        await self.must_be_fenced(member)
        await asyncio.sleep(0)
        assert self.told() == told

    async def cut(self, member: Member) -> None:
        """Cut the primary off from the servers until the other one leads."""
        if member is not self.members[0]:  # only the first has a line
            return await self.end(member)
        self.broken()
        self.line.hold()
        await primary_of(self.other(member))
        told = self.told()
        self.line.release()
        await self.must_be_fenced(member)
        await asyncio.sleep(0)
        assert self.told() == told
        return None

    async def bye(self, member: Member) -> None:
        """End the process in order."""
        self.broken()
        member.send(signal.SIGTERM)
        status, errors = await member.server.ended()
        assert status == 0, (status, errors)

    async def machine(self, member: Member) -> None:
        """Kill the process and the leader of the stream."""
        leader = await self.leader()
        leader.kill()
        await self.end(member)
        await primary_of(self.other(member))
        leader.start()

    async def lose_leader(self, member: Member) -> None:
        """Kill the leader of the stream; the primary goes on."""
        leader = await self.leader()
        self.broken()
        leader.kill()
        await self.went_on(member)
        leader.start()

    async def quorum(self, member: Member) -> None:
        """Stop two servers for a while; the primary goes on."""
        self.broken()
        for server in self.servers.all[:2]:
            server.send(signal.SIGSTOP)
        await asyncio.sleep(QUORUM_S)
        for server in self.servers.all[:2]:
            server.send(signal.SIGCONT)
        await self.went_on(member)


async def fetch(cluster: Cluster, path: Path) -> None:
    """Write the whole stream into a journal file."""
    stream = await cluster.stream()
    with Journal(path) as journal:
        for _ in journal.recover():
            pass
        follower = Follower(
            stream,
            lambda batch: None,
            keep=lambda message: journal.store(
                message.first, message.last, message.body, message.checksum
            ),
        )
        while True:
            try:
                if await follower.read(READ_S):
                    continue
                await follower.look()
                if not follower.pending:
                    break
            except Unanswered:
                pass
    await stream.close()


async def crash(
    folder: Path,
    seed: int,
    faults: Sequence[str],
    replies: int = REPLIES,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Counter[str], dict[str, list[float]]]:
    """Break a cluster once for each fault.

    Return counts of what was done, and for each fault the seconds until the
    next primary took clients. ``progress`` is called after each fault. Raises
    AssertionError, maybe in a group, where a promise was broken.
    """
    chance = random.Random(seed)
    settings, bots = set_up(folder, BOTS, chance)
    counts: Counter[str] = Counter()
    took: defaultdict[str, list[float]] = defaultdict(list)
    # With a long lease the clients wait for the stream instead of leaving.
    lease = PATIENT_S if {*PATIENT} & {*faults} else LEASE_S
    with nats_servers() as servers:
        async with (
            probing() as prober,
            Line.to(servers) as line,
            members_of(
                servers, 0, 0, lease=lease, lines=(line,), **settings
            ) as members,
        ):
            for member in members:
                await prober.watch(member.process, member.url)
            cluster = Cluster(servers, members, line)
            cluster.bots = bots
            for number, fault in enumerate([*faults, ""]):
                primary = await primary_of(*members)
                if number:
                    since_s = time.monotonic() - cluster.broken_at
                    took[faults[number - 1]].append(
                        cluster.paused_s or since_s
                    )
                    progress()
                await _check(cluster, folder / f"{number}.db", bots, counts)
                for member in members:
                    if member.status is not None:
                        await member.restart()
                        await prober.watch(member.process, member.url)
                await prober.hears(primary.process)
                await _live(cluster, primary, fault, bots, chance, replies)
            told = await prober.told()
            check_alone(told)
            answers = sum(one.messages for one in told.values())
            counts["answers to the prober"] = answers
    counts["faults"] = len(faults)
    return counts, took


async def _check(
    cluster: Cluster, path: Path, bots: Sequence[Bot], counts: Counter[str]
) -> None:
    await fetch(cluster, path)
    if bots[0].lives:
        record = await asyncio.to_thread(Record, path, bots, CASH)
        record.check()
        counts["commands"] = record.commands
        counts["events"] = sum(bot.seq for bot in bots)
    path.unlink()


async def _live(
    cluster: Cluster,
    primary: Member,
    fault: str,
    bots: Sequence[Bot],
    chance: random.Random,
    replies: int,
) -> None:
    """Let bots trade with a primary until a fault has ended its time."""
    breaks: dict[str, Callable[[Member], Awaitable[None]]] = {
        "kill": cluster.kill,
        "stop": cluster.stop,
        "cut": cluster.cut,
        "bye": cluster.bye,
        "machine": cluster.machine,
        "leader": cluster.lose_leader,
        "quorum": cluster.quorum,
        "": cluster.bye,
    }
    async with asyncio.timeout(3 * PATIENCE_S):
        async with asyncio.TaskGroup() as group:

            def end() -> None:
                group.create_task(_run(breaks[fault](primary)))

            left = chance.randint(1, replies)
            course = Course(bots, left, end)
            for bot in bots:
                group.create_task(bot.live(primary.url, course))
    for bot in bots:  # it is announced, and no command
        statuses = bot.lives[-1].statuses
        if statuses and ENDING in statuses[-1]:
            statuses.pop()


async def _run(fault: Awaitable[None]) -> None:
    await fault


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.cluster_crash``; return the status."""
    parser = new_parser(
        "measure.cluster_crash",
        "Break a cluster under load and check what it promised.",
    )
    parser.add_argument(
        "--only", choices=sorted({*FAULTS}), help="one kind of fault"
    )
    cycles, seed = amount_and_seed(
        parser, "CYCLES", "how many faults there are", arguments
    )
    options = parser.parse_args(arguments)
    if options.only:
        faults = [options.only] * cycles
    else:
        faults = [FAULTS[n % len(FAULTS)] for n in range(cycles)]
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    took: defaultdict[str, list[float]] = defaultdict(list)
    with tqdm(total=cycles, unit=" faults") as progress:
        # Those with a long lease have a stream of their own.
        for group in _groups(faults):
            stream_seed = seed + counts["faults"]
            progress.set_postfix(seed=stream_seed)
            with tempfile.TemporaryDirectory() as folder:
                more, times = asyncio.run(
                    crash(
                        Path(folder),
                        stream_seed,
                        group,
                        progress=progress.update,
                    )
                )
            counts += more
            for fault, values in times.items():
                took[fault] += values
    elapsed_s = time.perf_counter() - start
    figures = ", ".join(f"{n:,} {what}" for what, n in counts.items())
    print(f"nothing lost, nothing doubled in {elapsed_s:.0f} s: {figures}")
    for fault, values in took.items():
        print(
            f"{fault}: {len(values)} times, clients are served again after"
            f" {median(values):.2f} s (median), {max(values):.2f} s (most)"
        )
    return 0


def _groups(faults: Sequence[str]) -> list[list[str]]:
    """Return the faults as lists, one for each stream."""
    lists: list[list[str]] = []
    for wanted in (False, True):
        chosen = [f for f in faults if (f in PATIENT) is wanted]
        lists += [
            chosen[at : at + CYCLES_PER_STREAM]
            for at in range(0, len(chosen), CYCLES_PER_STREAM)
        ]
    return lists


if __name__ == "__main__":
    sys.exit(main())
