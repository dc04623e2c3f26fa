"""Ways to serve one model, measured on the same traffic: what each can do, and how long people wait for it.

A way is played by a function, so nothing here knows of models or libraries.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, Literal, get_args

from rich.box import SIMPLE_HEAD
from rich.table import Table

from sfumato.bench.baselines.rules import queued, services_s
from sfumato.bench.figures import figures, short
from sfumato.bench.traffic import TRAFFICS, Request, Traffic

__all__ = ["Load", "Plan", "Player", "Row", "Tell", "Way", "measure", "runs_of", "table_of"]

Way = Literal["sequential diffusers", "static batching", "dynamic batching", "step-level"]
Player = Callable[[Sequence[Request], float], Sequence[float]]
"""(requests, waiting window in seconds) → when each was answered, in seconds from the beginning."""
Make = Callable[[Traffic, float], Sequence[Request]]
"""(traffic, requests a second) → the requests; at every rate the same ones in the same order."""
Tell = Callable[[str], object]
"""Is told what is done now."""

EVERYTHING_AT_ONCE_PER_S: Final = 1e6
SEQUENTIAL: Final = "sequential diffusers"
WAITING: Final = "dynamic batching"
"""The one for which a waiting window may help."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: `requests` a run, `rows` most in a call of the network, `steps` drawn from.

    `shares` of step-level's capacity are offered after everybody waited at once; dynamic batching tries `windows_s`.
    """

    requests: int
    rows: int
    steps: tuple[int, ...]
    shares: tuple[float, ...] = (0.5, 0.8)
    windows_s: tuple[float, ...] = (0.0, 0.25, 1.0)
    traffics: tuple[Traffic, ...] = TRAFFICS
    warm_up: bool = True


@dataclass(frozen=True, slots=True)
class Load:
    """At an offered `share` of step-level's capacity, with the waiting window that gave the lowest p99.

    `throughput` is pictures a second between the first and the last arrival; latencies are from arrival to end;
    `answered` is how many requests were.
    """

    share: float
    window_s: float
    throughput: float
    p50_s: float
    p99_s: float
    answered: int


@dataclass(frozen=True, slots=True)
class Row:
    """One way under one traffic.

    `pictures_per_s` is all requests over the time from the beginning, when all waited, to the last answer, and
    `rows_per_s` the rows that they took of the network over the same time; `times_sequential` is the ratio to
    sequential diffusers.
    """

    traffic: Traffic
    way: Way
    pictures_per_s: float
    times_sequential: float
    rows_per_s: float
    answered: int
    loads: tuple[Load, ...]


def measure(
    players: Mapping[Way, Player], make: Make, rows_of: Callable[[Request], int], plan: Plan, tell: Tell
) -> Iterator[list[Row]]:
    """All ways under all traffics of the plan: after each run, all rows as they are then.

    `rows_of` says how many rows a request takes of the network in all. First everybody waits, under every traffic; then
    they come at each share, but to the sequential way only on paper: it takes for each what it took before. Of a way
    that tries several windows the best so far is in its row.
    """
    found: dict[tuple[Traffic, Way], Row] = {}
    services: dict[Traffic, Sequence[float]] = {}
    for kind in plan.traffics:
        waiting = make(kind, EVERYTHING_AT_ONCE_PER_S)
        rows, most = sum(map(rows_of, waiting)), 0.0
        for way, player in players.items():
            tell(f"{kind}, all waiting: {way}")
            ended = player(waiting, 0.0)
            per_s = len(waiting) / max(ended)
            if way == SEQUENTIAL:
                most, services[kind] = per_s, services_s(ended)
            found[kind, way] = Row(
                traffic=kind,
                way=way,
                pictures_per_s=round(per_s, 4),
                times_sequential=round(per_s / most, 3),
                rows_per_s=round(rows / max(ended), 2),
                answered=_answered(ended),
                loads=(),
            )
            yield list(found.values())
    for share, kind in product(plan.shares, plan.traffics):
        requests = make(kind, share * found[kind, "step-level"].pictures_per_s)
        for way, player in players.items():
            row = found[kind, way]
            if way == SEQUENTIAL:  # takes no time, so it is no run of its own
                alone = queued(requests, services[kind])
                found[kind, way] = replace(row, loads=(*row.loads, _load(share, 0.0, requests, alone)))
                continue
            windows_s = plan.windows_s if way == WAITING else (0.0,)
            best: Load | None = None
            for window_s in windows_s:
                tell(f"{kind}, {share:.2f}, {requests[-1].arrives_s:.1f} s of requests: {way}")
                load = _load(share, window_s, requests, player(requests, window_s))
                best = load if best is None else min(best, load, key=lambda one: one.p99_s)
                found[kind, way] = replace(row, loads=(*row.loads, best))
                yield list(found.values())


def runs_of(plan: Plan) -> int:
    """How many runs `measure` makes, and after how many it gives rows."""
    ways = len(get_args(Way))
    return len(plan.traffics) * (ways + len(plan.shares) * (ways - 2 + len(plan.windows_s)))


def _load(share: float, window_s: float, requests: Sequence[Request], ended: Sequence[float]) -> Load:
    return Load(share, window_s, *figures(requests, ended), _answered(ended))


def _answered(ended: Sequence[float]) -> int:
    return sum(map(math.isfinite, ended))


def table_of(rows: Sequence[Row], title: str, caption: str) -> Table:
    """One line for each traffic and way; a cell of a share has p50 and p99, or a dash before it was measured."""
    shares = sorted({load.share for row in rows for load in row.loads})
    table = Table(title=title, caption=caption, caption_justify="left", box=SIMPLE_HEAD)
    for column in ("traffic", "way"):
        table.add_column(column, no_wrap=True)
    for column in ("pictures/s", "÷ sequential", "rows/s", *(f"at {share:.2f}: p50 p99 s" for share in shares)):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        latencies = {load.share: f"{short(load.p50_s)} {short(load.p99_s)}" for load in row.loads}
        capacity = _rate(row.pictures_per_s), short(row.times_sequential), _rate(row.rows_per_s)
        table.add_row(row.traffic, row.way, *capacity, *(latencies.get(share, "–") for share in shares))
    return table


def _rate(per_s: float) -> str:
    """Also of a CPU that takes minutes for a picture."""
    return short(per_s) if per_s >= 1 else f"{per_s:.3g}"
