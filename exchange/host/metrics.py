"""The metrics of a running exchange, in the format of Prometheus.

The exchange counts in plain numbers; the text is made on request. Names and
units follow the conventions of Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Upper bounds in seconds, from a turn of a quiet exchange (0.1 ms) to a disk
# that nearly hangs (10 s).
SECONDS = (
    *(0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
SIZES = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3)


class Histogram:
    """Counts of values up to each bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: above all bounds
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value that occurred ``times`` times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """Return each bound with the number of values up to it."""
        bounds = [*map(str, self.bounds), "+Inf"]
        return list(zip(bounds, accumulate(self.counts), strict=True))


@dataclass(slots=True)
class Timing:
    """Durations and sizes that the server measures."""

    ack_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    commit_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batch: Histogram = field(default_factory=lambda: Histogram(SIZES))
    recovery_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Standing:
    """What a process is that shares its journal with others."""

    role: str  # "primary" or "standby"
    lag: int | None  # messages that a standby has to read; None: not known
    lease_s: float  # that a primary's lease lasts


@dataclass(slots=True, kw_only=True)
class Figures:
    """All figures at one moment."""

    timing: Timing
    requests: dict[str, dict[str, int]]  # by account and type
    refusals: dict[str, int]  # by code
    http_refusals: dict[str, int]  # by header
    commands: int
    uncommitted: int
    orders: int
    trades: dict[str, int]  # by symbol, and so are the next two
    volume: dict[str, int]
    resting: dict[str, int]
    accounts: int
    connections: dict[str, int]  # by address, and so is the next
    arrivals: dict[str, int]
    outboxes: dict[str, int]  # bytes, by account
    connection_errors: int
    standing: Standing | None = None  # None: the journal is its own


class _Collector(Collector):
    now: Figures  # set before each collection

    def collect(self) -> Iterable[Metric]:
        now = self.now
        yield from _counters(now)
        yield from _gauges(now)
        timing = now.timing
        for name, text, histogram in (
            ("ack_seconds", "from arrival of requests to reply", timing.ack_s),
            ("commit_seconds", "writing a batch to disk", timing.commit_s),
            ("batch_commands", "commands of one commit", timing.batch),
        ):
            yield HistogramMetricFamily(
                f"exchange_{name}",
                text,
                buckets=histogram.buckets(),
                sum_value=histogram.sum,
            )


def _counters(now: Figures) -> Iterator[Metric]:
    for name, text, value in (
        ("commands", "commands carried out since the first", now.commands),
        ("orders", "orders accepted since the first", now.orders),
        (
            "connection_errors",
            "connections ended by an exception",
            now.connection_errors,
        ),
    ):
        yield CounterMetricFamily(f"exchange_{name}", text, value=value)
    for name, text, label, values in (
        ("trades", "trades since the first", "symbol", now.trades),
        ("refusals", "requests refused", "code", now.refusals),
        (
            "http_refusals",
            "HTTP requests refused for their host or origin",
            "header",
            now.http_refusals,
        ),
        ("connections_opened", "sockets accepted", "address", now.arrivals),
    ):
        family = CounterMetricFamily(f"exchange_{name}", text, labels=[label])
        for key, value in values.items():
            family.add_metric([key], value)
        yield family
    family = CounterMetricFamily(
        "exchange_requests",
        "requests received",
        labels=["account", "type"],
    )
    for account, types in now.requests.items():
        for word, count in types.items():
            family.add_metric([account, word], count)
    yield family


def _gauges(now: Figures) -> Iterator[Metric]:
    for name, text, value in (
        (
            "uncommitted_commands",
            "commands applied and not yet on disk",
            now.uncommitted,
        ),
        ("accounts", "accounts opened", now.accounts),
        (
            "recovery_seconds",
            "recovery of the journal at the last start",
            now.timing.recovery_s,
        ),
        *_standing(now.standing),
    ):
        yield GaugeMetricFamily(f"exchange_{name}", text, value=value)
    for name, text, label, values in (
        ("volume_lots", "lots traded in this round", "symbol", now.volume),
        ("resting_orders", "orders in the book", "symbol", now.resting),
        ("connections", "open sockets", "address", now.connections),
        ("outbox_bytes", "unsent bytes", "account", now.outboxes),
    ):
        family = GaugeMetricFamily(f"exchange_{name}", text, labels=[label])
        for key, value in values.items():
            family.add_metric([key], value)
        yield family


def _standing(now: Standing | None) -> Iterator[tuple[str, str, float]]:
    if now is None:
        return
    yield "leads", "1 if this process leads", now.role == "primary"
    yield "lease_seconds", "what is left of the lease", now.lease_s
    if now.lag is not None:
        yield "standby_lag_batches", "batches not yet applied", now.lag


class Metrics:
    """Makes the text that Prometheus reads."""

    def __init__(self) -> None:
        self._collector = _Collector()
        self._registry = CollectorRegistry()
        self._registry.register(self._collector)
        ProcessCollector(registry=self._registry)

    def text(self, now: Figures) -> bytes:
        """Return the figures, and those of the process, as text."""
        self._collector.now = now
        return generate_latest(self._registry)
