"""The figures of a run of ``util.measure.stress``, for people and JSON."""

from __future__ import annotations

import math
import time
from collections.abc import Set
from typing import Any

from util.measure.histogram import Histogram
from util.measure.process import cpu_s, resident, waited_s
from util.measure.trader import Tally
from util.measure.workers import Plan, Report, trouble_of

BUSY = 0.9  # of a core; a process that uses more limits the rate
PERCENTILES = (50, 99, 99.9)


class Meter:
    """What the process of the exchange uses; None if unknown.

    ``cpu`` is in cores, ``wait`` the share of the time in which it waited
    for a core, ``rss`` in bytes.
    """

    def __init__(self, pid: int | None) -> None:
        self.cpu: float | None = None
        self.wait: float | None = None
        self.rss: int | None = None
        self._pid = pid
        self._start: tuple[float, float | None, float | None] | None = None

    def begin(self) -> None:
        """Start to measure."""
        self._start = time.monotonic(), cpu_s(self._pid), waited_s(self._pid)

    def end(self) -> None:
        """Stop measuring, unless that is done already."""
        if self._start is None:
            return
        then, cpu_before, wait_before = self._start
        self._start = None
        seconds = time.monotonic() - then
        cpu, wait = cpu_s(self._pid), waited_s(self._pid)
        if cpu is not None and cpu_before is not None:
            self.cpu = (cpu - cpu_before) / seconds
        if wait is not None and wait_before is not None:
            self.wait = (wait - wait_before) / seconds
        self.rss = resident(self._pid)


def figures(plan: Plan, reports: list[Report], meter: Meter) -> dict[str, Any]:
    """Return all figures by their names in JSON.

    Rates and latencies are of the seconds measured, counts of the whole run.
    """
    measured = [report for report in reports if report.seconds]
    busiest = max(measured, key=lambda r: r.cpu_s, default=Report(seconds=1))
    counts = _counts(reports)
    generator = busiest.cpu_s / busiest.seconds
    generator_wait = busiest.wait_s / busiest.seconds
    side, verdict = bottleneck(
        exchange=meter.cpu,
        exchange_wait=meter.wait or 0.0,
        generator=generator,
        generator_wait=generator_wait,
        codes=counts["refused"].keys(),
        is_on_time=plan.rate is not None and not counts["overdue"],
    )
    trouble = trouble_of(reports)
    return {
        "url": plan.url,
        "clients": len(plan.accounts),
        "processes": plan.processes,
        "window": plan.window,
        "frame": plan.frame,
        "rate": plan.rate,
        "seed": plan.seed,
        **_rates(measured),
        **counts,
        "exchange_cpu": meter.cpu,
        "exchange_wait": meter.wait,
        "exchange_rss": meter.rss,
        "generator_cpu": generator,
        "generator_wait": generator_wait,
        "bottleneck": side,
        "verdict": verdict,
        "trouble": None if trouble is None else str(trouble),
    }


def _rates(measured: list[Report]) -> dict[str, Any]:
    def per_s(name: str) -> float:
        return math.fsum(
            getattr(r.measured, name) / r.seconds for r in measured
        )

    latency = Histogram()
    for report in measured:
        latency.add(report.latency)
    shown = {f"p{p:g}": latency.percentile(p) for p in PERCENTILES}
    shown["max"] = latency.max_us
    return {
        "seconds": max((report.seconds for report in measured), default=0.0),
        "orders_per_minute": 60 * per_s("orders"),
        "orders_per_s": per_s("orders"),
        "requests_per_s": per_s("answered"),
        "trades_per_s": per_s("trades"),
        "latency_ms": {name: us / 1_000 for name, us in shown.items()},
    }


def _counts(reports: list[Report]) -> dict[str, Any]:
    total = sum((report.total for report in reports), Tally())
    return {
        "sent": total.sent,
        "answered": total.answered,
        "lost": sum(report.lost for report in reports),
        "overdue": sum(report.overdue for report in reports),
        "accepted": dict(total.accepted),
        "refused": dict(total.refused.most_common()),
        "trades": total.trades,
    }


def bottleneck(
    *,
    exchange: float | None,
    exchange_wait: float,
    generator: float,
    generator_wait: float,
    codes: Set[str],
    is_on_time: bool,
) -> tuple[str, str]:
    """Return what limited the rate, as a word and as a sentence.

    ``exchange`` and ``generator`` are cores used by one process, the first
    None if unknown. The waits are shares of the time. ``codes`` are those
    of refused requests.
    """
    if "rate_limited" in codes:
        return "limit", "the exchange's limit of requests (rate_limited)"
    if "busy" in codes:
        return "busy", "the exchange: it refused orders for a time (busy)"
    if is_on_time:
        return "rate", "none: every request left when it was due"
    for side, name, used, wait in (
        ("exchange", "the exchange", exchange or 0.0, exchange_wait),
        ("generator", "the load generator", generator, generator_wait),
    ):
        if used < BUSY and wait > 1 - BUSY:
            why = f"{name} had to wait for a core {wait:.0%} of the time"
            return "machine", f"the machine: {why}"
        if used + wait >= BUSY:
            hint = "" if side == "exchange" else " (give it more --processes)"
            return side, f"{name}: it used a whole core{hint}"
    if exchange is None:
        return (
            "unknown",
            "not the load generator; the CPU of the exchange is unknown"
            " without --start",
        )
    return (
        "window",
        "neither side: the clients waited for replies (more --clients, or a"
        " larger --window)",
    )


def as_text(found: dict[str, Any]) -> str:
    """Return the figures as lines of text."""
    latency = found["latency_ms"]
    pace = "as fast as they can"
    if found["rate"] is not None:
        pace = f"{found['rate']:,.10g} requests/s"
    lines = [
        f"{found['clients']} clients x {found['window']} in flight,"
        f" {found['frame']} per frame, {pace}; processes:"
        f" {found['processes']}, seconds: {found['seconds']:.1f}, seed:"
        f" {found['seed']}",
        f"orders per minute    {found['orders_per_minute']:,.0f}"
        f" ({found['orders_per_s']:,.0f} per second; placed or amended)",
        f"requests per second  {found['requests_per_s']:,.0f}",
        f"trades per second    {found['trades_per_s']:,.0f}",
        "ack latency          "
        + ", ".join(f"{name} {ms:,.2f} ms" for name, ms in latency.items()),
        f"in the whole run     {found['sent']:,} requests,"
        f" {found['answered']:,} replies, {found['lost']:,} lost,"
        f" {found['trades']:,} trades",
        "refused              " + (counted(found["refused"]) or "none"),
    ]
    if found["overdue"]:
        lines.append(
            f"overdue              {found['overdue']:,} requests were due and"
            " could not be sent: the rate was not reached"
        )
    if found["exchange_cpu"] is not None:
        lines.append(
            f"exchange             CPU {found['exchange_cpu']:.0%} of a core,"
            f" memory {found['exchange_rss'] / 2**20:,.0f} MiB"
        )
    lines += [
        f"load generator       CPU {found['generator_cpu']:.0%} of a core"
        " (the busiest process)",
        f"bottleneck           {found['verdict']}",
    ]
    return "\n".join(lines)


def counted(numbers: dict[str, int]) -> str:
    """Return counts as text, each with its name."""
    return ", ".join(f"{name} {n:,}" for name, n in numbers.items())
