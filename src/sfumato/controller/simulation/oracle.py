"""A policy that knows what will come: how far the others are from what could be done.

Before the trace begins it plans each model by itself, by dynamic programming over steps of STEP_S seconds. A state is
how many workers serve and how much work waits; a step costs the workers, and each new one a cold start more. Work is a
fluid, and at the end of every step it must not be more than the workers do in the planned wait. With no worker, work
may wait for one cold start, as it does for a service that starts with the first job. The plan with the least GPU time
is then played, every worker started one cold start before it serves.

It is near the minimum, not a proven one: waiting work is interpolated between LEVELS values, a batch that is not full
counts as one that is, models do not know of each other, and jobs and seconds are whole. What goes wrong with that is
put right by two rules: a model with jobs keeps one worker, and gets one when a job has waited for two cold starts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sfumato.controller.simulation.fleet import COLD_START_S, FIXED_S, ROW_S, SLOTS, WORK_S, Fleet, Station
from sfumato.controller.simulation.policies import OBJECTIVE_S, TYPICAL_STEPS
from sfumato.controller.simulation.traces import Trace

__all__ = ["Oracle", "OracleSetting", "plan"]

Numbers = npt.NDArray[np.float64]
STEP_S: Final = 10.0
LEVELS: Final = 96
WAITS: Final = round(COLD_START_S / STEP_S)
JOB_S: Final = TYPICAL_STEPS * (FIXED_S + SLOTS * ROW_S)


@dataclass(frozen=True, slots=True)
class OracleSetting:
    """Which share of the objective it plans with."""

    aim: float


class Oracle:
    """Plays its plans."""

    def __init__(self, trace: Trace, setting: OracleSetting) -> None:
        wait_s = max(setting.aim * OBJECTIVE_S - JOB_S, STEP_S / 2)
        steps = int(trace.length_s / STEP_S) + 1
        works = np.zeros((len(trace.models), steps))
        for at, model, length in trace.arrivals:
            works[model, int(at / STEP_S)] += length * WORK_S
        plans = [plan(work, wait_s, trace.places) for work in works]
        # A worker that serves in step k is asked for from WAITS steps before.
        self._asked = [[max(serving[k : k + WAITS + 1], default=0) for k in range(len(serving))] for serving in plans]

    def decide(self, fleet: Fleet, now: float) -> Sequence[int]:
        """Workers for each model, by its plan."""
        k = int(now / STEP_S)
        return [
            self._now(asked[k] if k < len(asked) else 0, station, now)
            for asked, station in zip(self._asked, fleet.stations, strict=True)
        ]

    def _now(self, planned: int, station: Station, now: float) -> int:
        if planned or not (station.queue or station.running):
            return planned
        late = bool(station.queue) and now - station.queue[0][0] > 2 * COLD_START_S
        return 1 if station.asked or late else 0


def plan(work: Numbers, wait_s: float, most: int) -> list[int]:
    """Workers that serve in each step, for so much work (worker-seconds) arriving in each.

    Rows of a value are states: 0 no worker and nothing waits, 1 to `most` workers, then no worker while work waits for
    the first, second … step.
    """
    busiest = float(work.max(initial=0.0))
    most = max(1, min(most, math.ceil(busiest / STEP_S) + 2))
    levels = np.linspace(0.0, most * max(wait_s, STEP_S) + busiest, LEVELS)
    value = np.where(levels > 1e-9, np.inf, 0.0) * np.ones((most + 1 + WAITS, 1))
    value[1 : most + 1] = levels / 1.0
    after: list[Numbers] = []
    for coming in work[::-1]:
        after.append(value)
        value = _before(value, float(coming), levels, wait_s, most)
    return _walk(after[::-1], work, levels, wait_s, most)


def _before(value: Numbers, coming: float, levels: Numbers, wait_s: float, most: int) -> Numbers:
    """The least cost from before a step, by the least cost from after it."""
    counts = np.arange(1, most + 1)[:, None]
    left = np.maximum(levels + coming - counts * STEP_S, 0.0)
    then = np.where(left <= counts * wait_s + 1e-9, counts * STEP_S + _at(value[1 : most + 1], left, levels), np.inf)
    starting = np.minimum.accumulate((then + counts * COLD_START_S)[::-1], axis=0)[::-1]
    fewer = np.minimum.accumulate(then, axis=0)
    grown = levels + coming
    rows = [_at(value[row : row + 1], grown[None, :], levels)[0] for row in range(most + 1, most + 1 + WAITS)]
    none = np.where(grown > 1e-9, rows[0], value[0, 0])
    before = np.empty_like(value)
    before[0] = np.minimum(none, starting[0])
    more = np.vstack([starting[1:], np.full((1, len(levels)), np.inf)]) - counts * COLD_START_S
    before[1 : most + 1] = np.minimum(np.minimum(fewer, more), np.where(levels > 1e-9, np.inf, none))
    for wait in range(WAITS):
        later = rows[wait + 1] if wait + 1 < WAITS else np.full(len(levels), np.inf)
        before[most + 1 + wait] = np.minimum(later, starting[0])
    return before


def _at(value: Numbers, left: Numbers, levels: Numbers) -> Numbers:
    """Each row's value at its row of `left`, between the levels; infinite beyond the last."""
    place = np.minimum(left / levels[1], len(levels) - 1.0)
    low = np.minimum(place.astype(np.int64), len(levels) - 2)
    share = place - low
    rows = np.arange(len(value))[:, None]
    with np.errstate(invalid="ignore"):
        found = value[rows, low] * (1 - share) + np.where(share > 0, value[rows, low + 1] * share, 0.0)
    return np.where(np.isnan(found), np.inf, found)


def _walk(after: Sequence[Numbers], work: Numbers, levels: Numbers, wait_s: float, most: int) -> list[int]:
    """The best way through, with what really waits instead of the levels."""
    serving, had, waits, left = list[int](), 0, 0, 0.0
    for value, coming in zip(after, work, strict=True):
        grown = left + float(coming)
        best: tuple[float, int] = (math.inf, most)
        for count in range(1, most + 1):
            rest = max(grown - count * STEP_S, 0.0)
            if rest <= count * wait_s + 1e-9 or count == most:
                cost = count * STEP_S + COLD_START_S * max(count - had, 0) + _one(value[count], rest, levels)
                best = min(best, (cost, count))
        if not grown:
            best = min(best, (float(value[0, 0]), 0))
        elif had == 0 and waits < WAITS:
            best = min(best, (_one(value[most + 1 + waits], grown, levels), 0))
        had = best[1]
        waits = 0 if had or not grown else waits + 1
        left = max(grown - had * STEP_S, 0.0)
        serving.append(had)
    return serving


def _one(row: Any, left: float, levels: Numbers) -> float:
    place = min(left / float(levels[1]), len(levels) - 1.0)
    low = min(int(place), len(levels) - 2)
    share = place - low
    return float(row[low]) * (1 - share) + (float(row[low + 1]) * share if share else 0.0)
