"""Kill the exchange under load again and again, and check what it promised.

``python -m util.measure.crash CYCLES`` runs a real exchange, with fees,
limits and keys, and bots that trade with it at random over real sockets and
record what they receive. One of them is an administrator, which opens and
halts the market, suspends and resumes the others, adjusts their cash and lots,
pays dividends, offers tenders, busts trades, settles and resets. After some
number of replies the exchange is killed, and started again on the same
journal. Then

- all that a bot has received must be in the journal before the restart, to
  the byte, and nothing in it twice;
- the restart must have canceled the orders of clients that asked for
  cancel-on-disconnect, and no other;
- the sums of cash and of lots over all accounts must be unchanged;
- no order, conversion, tender, bust or administrator's request took effect
  twice;
- every bot resumes its session, finds its own books equal to the exchange's,
  sends again the requests that got no reply, and trades on.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from util.cli import amount_and_seed, new_parser
from util.measure.crash_bot import Bot, Course
from util.measure.crash_record import Record
from util.measure.process import launched, prepare
from util.measure.requests import ADMINISTRATOR
from util.measure.wire import PATIENCE_S

BOTS = 20
REPLIES = 2_000  # the most that all bots together get before the kill
CYCLES_PER_JOURNAL = 25  # each cycle reads all of it
CASH = 20_000
# Every limit is reached now and then; the first bot has limits of its own.
MARKET = f"""
    [instruments.BOND]
    maker_fee = -1
    taker_fee = 2
    max_position = 60
    reference_price = 100
    collar = 5
    band = 3
    auction_s = 1
    self_trades = true
    [instruments.ETF]
    taker_fee = 1
    maker_fee_bp = 20
    phase = "pre_open"
    [instruments.ETF.convert]
    lot = 2
    fee = 3
    basket = {{ BOND = 1 }}
    [instruments.FUT]
    kind = "future"
    underlying = "BOND"
    expires = 3
    [account]
    cash = {CASH}
    min_cash = 0
    open_orders = 9
    orders_per_s = 0
    [accounts.bot0]
    min_cash = -5_000
    max_position = {{ BOND = 20, ETF = 30 }}
"""


def set_up(
    folder: Path, count: int, chance: random.Random
) -> tuple[dict[str, str], list[Bot]]:
    """Write what an exchange needs; return its settings and the bots.

    They are ``count`` traders of every kind, and an administrator.
    """
    names = [f"bot{number}" for number in range(count)]
    settings, tokens = prepare(folder, MARKET, [*names, ADMINISTRATOR])
    return settings, [
        Bot(
            name=name,
            token=token,
            users=names,
            chance=random.Random(chance.random()),
            cancel_on_disconnect=number % 2 == 0,
            is_follower=number % 4 < 2,
        )
        for number, (name, token) in enumerate(tokens.items())
    ]


async def crash(
    path: Path,
    seed: int,
    cycles: int,
    replies: int = REPLIES,
    progress: Callable[[], object] = lambda: None,
) -> Counter[str]:
    """Kill an exchange ``cycles`` times; return counts of what was done.

    ``progress`` is called after each. Raises AssertionError, maybe in a
    group, where the exchange broke a promise.
    """
    chance = random.Random(seed)
    settings, bots = set_up(path.parent, BOTS, chance)
    counts: Counter[str] = Counter()
    for cycle in range(cycles + 1):
        with launched(journal=path, **settings) as server:
            if cycle:
                record = Record(path, bots, CASH)
                record.check()
                progress()
            left, end = None, server.process.terminate  # the last one
            if cycle < cycles:
                left = chance.choice((3 * BOTS, replies, replies))
                left, end = chance.randint(1, left), server.process.kill
                counts["replies"] += left
            is_lossy = chance.random() < 0.5
            course = Course(bots, left, end, is_lossy)
            async with asyncio.timeout(3 * PATIENCE_S):
                async with asyncio.TaskGroup() as group:
                    for bot in bots:
                        group.create_task(bot.live(server.url, course))
            status, errors = await server.ended()
            assert errors == ""
            assert status == (0 if left is None else -signal.SIGKILL)
    counts["cycles"] = cycles
    counts["commands"] = record.commands
    counts += record.counts
    counts["trades"] = sum(map(len, record.trades.values()))
    for bot in bots:
        counts["events"] += bot.seq
        counts["public"] += len(bot.trades)
        counts += bot.counts
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Run ``python -m util.measure.crash``; return the exit status."""
    parser = new_parser(
        "measure.crash",
        "Kill the exchange under load and check what it promised.",
    )
    cycles, seed = amount_and_seed(
        parser, "CYCLES", "how often it is killed", arguments
    )
    print(f"{cycles} cycles of {BOTS} bots, seed {seed}", flush=True)
    start = time.perf_counter()
    counts: Counter[str] = Counter()
    with tqdm(total=cycles, unit=" cycles") as progress:
        while counts["cycles"] < cycles:
            more = min(cycles - counts["cycles"], CYCLES_PER_JOURNAL)
            # The seed shown repeats this journal by itself.
            journal_seed = seed + counts["cycles"]
            progress.set_postfix(seed=journal_seed)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "exchange.db")
                counts += asyncio.run(
                    crash(path, journal_seed, more, progress=progress.update)
                )
    elapsed_s = time.perf_counter() - start
    figures = ", ".join(f"{n:,} {what}" for what, n in counts.items())
    print(f"nothing lost, nothing doubled in {elapsed_s:.0f} s: {figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
