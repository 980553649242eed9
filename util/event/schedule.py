"""What is due in a match, and when: no clock, no exchange, no disk.

The director and a simulation both ask `due` what to do next, and `wait_s` how
long they may wait. Times of acts count from the opening, in milliseconds of
trading time: they stand still during a pause.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

LOOK_S = 0.25  # between two looks at the exchange, at most

# waiting: not opened yet; held: not opened, and a person has halted it;
# paused: opened, and the trading time stands still.
State: TypeAlias = Literal["waiting", "held", "open", "paused", "closed"]
# Acts before the opening, in order.
BEFORE = ("reset", "announce")
CLOSE_OUT = "close_out."  # and the name of the team
_HOLDING = ("halted", "pre_open")


@dataclass(frozen=True, slots=True)
class Timed:
    """An act at a time of the match; ``detail`` are its fields in the file.

    ``name`` is unique in the match. ``is_late``: it is still done after the
    close, if the director was away.
    """

    name: str
    kind: Literal["news", "dividend", "tender"]
    at_ms: int
    detail: Mapping[str, Any]
    is_late: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What the file says about one match."""

    warmup_ms: int
    trading_ms: int
    acts: Sequence[Timed] = ()
    blow_out: int | None = None  # P&L below which a team is closed out


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at the exchange showed.

    ``warm_ms`` is how long teams could connect. ``elapsed_ms`` is the trading
    time since the opening, None if it is not known. ``pnls`` are those of the
    teams at fair value or mark.
    """

    state: State
    warm_ms: int = 0
    elapsed_ms: int | None = None
    pnls: Mapping[str, int] = field(default_factory=dict)


def state_of(
    phases: Collection[str], is_closing: bool, is_opened: bool
) -> State:
    """Return the state of a match from the phases of its instruments.

    ``is_closing``: an instrument has a time at which it closes by itself;
    ``is_opened``: the director has opened the match.
    """
    if not is_opened:
        return "held" if any(p in _HOLDING for p in phases) else "waiting"
    if all(phase == "closed" for phase in phases):
        return "closed"
    return "open" if is_closing else "paused"


def due(
    plan: Plan, done: Collection[str], seen: Seen, is_paused: bool
) -> list[str]:
    """Return the names of the acts that are due now, in their order.

    ``done`` are those that were done; ``is_paused``: a person has called a
    pause, which delays the opening.
    """
    for name in BEFORE:
        if name not in done:
            return [name]
    if "open" not in done:
        is_ready = seen.state == "waiting" and not is_paused
        is_warm = seen.warm_ms >= plan.warmup_ms
        return ["open"] if is_ready and is_warm else []
    if seen.state == "closed":
        late = [a.name for a in plan.acts if a.is_late and a.name not in done]
        ending = ("close", "settle", "settled")
        return late + [name for name in ending if name not in done]
    names: list[str] = []
    if seen.elapsed_ms is not None:
        names = [
            act.name
            for act in sorted(plan.acts, key=lambda act: act.at_ms)
            if act.at_ms <= seen.elapsed_ms and act.name not in done
        ]
    if plan.blow_out is not None:
        names += [
            CLOSE_OUT + team
            for team, pnl in seen.pnls.items()
            if pnl < plan.blow_out and CLOSE_OUT + team not in done
        ]
    return names


def wait_s(plan: Plan, done: Collection[str], seen: Seen) -> float:
    """Return the seconds until something may be due, at most LOOK_S."""
    moments: list[int] = []
    if seen.state == "waiting":
        moments = [plan.warmup_ms - seen.warm_ms]
    elif seen.state == "open" and seen.elapsed_ms is not None:
        moments = [
            act.at_ms - seen.elapsed_ms
            for act in plan.acts
            if act.name not in done
        ]
        moments.append(plan.trading_ms - seen.elapsed_ms)
    ahead = [ms / 1_000 for ms in moments if ms > 0]
    return min([LOOK_S, *ahead])
